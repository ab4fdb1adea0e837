// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask doctor`: what this machine lacks, and the command that gets it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    apt,
    cache::{Cache, GIB},
    fetch, paths,
    series::Base,
    toolchain::{self, Llvm},
};

/// Arguments of `cargo xtask doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// LLVM as the kernel's make takes it: `1`, a suffix such as `-19`, or a directory ending in `/`.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "1",
        allow_hyphen_values = true
    )]
    llvm: String,
}

/// One line of the table.
struct Row {
    name: String,
    state: State,
    why: String,
}

enum State {
    /// Where it is, or what it is.
    Here(String),
    /// The build gets it by itself.
    Later,
    /// Only `series compare` would use it.
    Unused,
    /// Nothing can be built before it is here.
    Missing,
}

/// Runs `cargo xtask doctor`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { llvm } = args;
    let (llvm, note) = Llvm::find(&llvm)?;
    let needs = toolchain::needs(&llvm);
    let mut rows: Vec<Row> = needs
        .iter()
        .map(|need| Row {
            name: need.name().to_owned(),
            state: match need.found() {
                Some(path) => State::Here(path.display().to_string()),
                None => State::Missing,
            },
            why: need.why.to_owned(),
        })
        .collect();
    let checkers = toolchain::checkers();
    rows.extend(checkers.iter().map(|need| Row {
        name: need.name().to_owned(),
        state: match need.found() {
            Some(path) => State::Here(path.display().to_string()),
            None => State::Unused,
        },
        why: need.why.to_owned(),
    }));
    rows.extend(fetched()?);
    rows.push(space()?);

    let width = |column: fn(&Row) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (names, states) = (width(|row| row.name.len()), width(|row| text(row).len()));
    for row in &rows {
        println!("{:names$}  {:states$}  {}", row.name, text(row), row.why);
    }
    println!();
    if let Some(note) = note {
        println!("{note}");
    }

    if !rows.iter().any(|row| matches!(row.state, State::Missing)) {
        println!("Nothing is missing. Build with `make LLVM=1`.");
        let packages =
            toolchain::missing_packages(checkers.iter().filter(|need| need.found().is_none()));
        if !packages.is_empty() {
            println!("`cargo xtask series compare` does more with this:");
            println!("    {}", toolchain::install_command(&packages));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let packages = toolchain::missing_packages(needs.iter().filter(|need| need.found().is_none()));
    if packages.is_empty() {
        println!("See above for what is missing.");
    } else if apt::is_here() && apt::is_root() {
        println!("`make LLVM=1` installs what is missing, or you do:");
        println!("    {}", toolchain::install_command(&packages));
    } else {
        println!("Install what is missing (the names are Debian's):");
        println!("    {}", toolchain::install_command(&packages));
    }
    Ok(ExitCode::FAILURE)
}

fn text(row: &Row) -> &str {
    match &row.state {
        State::Here(text) => text,
        State::Later => "fetched by the build",
        State::Unused => "not here",
        State::Missing => "MISSING",
    }
}

/// What the build fetches or builds for itself.
fn fetched() -> Result<Vec<Row>> {
    let cache = Cache::open()?;
    let base = Base::load(&paths::kernel()?)?;
    let rustc = toolchain::rustc_version()?;
    let mut rows = vec![Row {
        name: "rustc".to_owned(),
        state: State::Here(rustc.to_string()),
        why: "compiles the Rust in the kernel".to_owned(),
    }];
    let mut add = |name: String, place: Option<std::path::PathBuf>, why: &str| {
        rows.push(Row {
            name,
            state: match place.filter(|place| place.exists()) {
                Some(place) => State::Here(place.display().to_string()),
                None => State::Later,
            },
            why: why.to_owned(),
        });
    };
    let library = Some(toolchain::sysroot_library()?)
        .filter(|place| place.exists())
        .or_else(|| Some(toolchain::cached_library(&cache, rustc)));
    add(
        "rust-src".to_owned(),
        library,
        "core, for the kernel (also: rustup component add rust-src)",
    );
    add(
        "bindgen".to_owned(),
        Some(toolchain::cached_bindgen(&cache)),
        "C headers for Rust",
    );
    let source = fetch::cached_source(&cache, &base);
    add(
        format!("Linux {}", base.version),
        source,
        "the tree that the series is made for",
    );
    Ok(rows)
}

/// Whether there is room.
fn space() -> Result<Row> {
    let cache = Cache::open()?;
    let free = cache.free()?;
    let empty = !cache.root().join("build").exists();
    Ok(Row {
        name: "free space".to_owned(),
        state: if empty && free < 8 * GIB {
            State::Missing
        } else {
            State::Here(format!("{} GiB", free / GIB))
        },
        why: format!(
            "8 GiB in all, in {} (SQE_GROUP_CACHE moves it)",
            cache.root().display()
        ),
    })
}
