// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask series check`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{bail, ensure, Context as _, Result};

use super::{apply, git, steps, style::Exceptions, sync, Base, Patch, Series};
use crate::{build, cache::Cache, checks::Checks, fetch, paths, run};

/// Columns of a commit message, and of a subject without its `[PATCH]`.
const COLUMNS: usize = 75;

/// Arguments of `cargo xtask series check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leave out what needs the kernel source, if it is not in the cache.
    #[arg(long, conflicts_with_all = ["build", "boot"])]
    offline: bool,
    /// Build io_uring with each patch, with the feature on and off.
    #[arg(long)]
    build: bool,
    /// Boot the kernel of each patch, with the tests that exist for it.
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    tools: build::Tools,
}

/// Runs every check and tells all that fail.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let Args {
        offline,
        build,
        boot,
        tools,
    } = args;
    let kernel = paths::kernel()?;
    let series = Series::load()?;
    let base = Base::load(&kernel)?;

    let mut report = Checks::default();
    let accounted = series.account();
    let whole = accounted.is_ok();
    report.add("every file belongs to one patch", accounted);
    for patch in &series.patches {
        report.add(&format!("{}: message", patch.name), message(patch));
    }
    report.add(
        "base.toml lists the files that the series changes",
        covers(&base, &series),
    );
    if whole {
        steps::format(&mut report, &series)?;
    }

    if *offline && fetch::cached_source(&Cache::open()?, &base).is_none() {
        report.skip("the rest needs the kernel source: leave out --offline to fetch it");
        return Ok(report.end());
    }
    let pristine = super::fetched()?;
    report.add(
        &format!("{} is the base", pristine.display()),
        base.verify(&pristine),
    );
    let applied = applies(&series, &pristine);
    let fits = applied.is_ok();
    report.add("the series applies where it says", applied);
    if !fits {
        report.skip("the rest: the series must apply first");
        return Ok(report.end());
    }
    checkpatch(&mut report, &series, &pristine)?;
    steps::kernel_doc(&mut report, &series, &pristine)?;
    let options = tools.options();
    if *build {
        steps::build(&mut report, &series, &options)?;
    }
    if *boot {
        steps::boot(&mut report, &series, &options)?;
    }
    Ok(report.end())
}

/// What a subject begins with, as those of the base do.
const SUBJECTS: [&str; 4] = [
    "io_uring: ",
    "io_uring/",
    "selftests: io_uring: ",
    "Documentation: io_uring: ",
];

/// Whether a commit message is what the kernel's maintainers expect.
fn message(patch: &Patch) -> Result<()> {
    let Patch {
        name: _,
        subject,
        body,
        adds: _,
        diff: _,
    } = patch;
    ensure!(
        SUBJECTS.iter().any(|prefix| subject.starts_with(prefix)),
        "the subject begins with none of {SUBJECTS:?}"
    );
    ensure!(!subject.ends_with('.'), "the subject ends with a full stop");
    ensure!(
        subject.chars().count() <= COLUMNS,
        "the subject is longer than {COLUMNS} columns"
    );
    ensure!(!body.is_empty(), "the message does not say why");
    for line in body.lines() {
        ensure!(
            !line.starts_with("Signed-off-by:"),
            "`{line}`: the sign-off is given by whoever sends the series"
        );
        // Quoted output and links are not wrapped.
        let verbatim = line.starts_with(' ') || line.contains("://");
        ensure!(
            verbatim || line.chars().count() <= COLUMNS,
            "`{line}` is longer than {COLUMNS} columns"
        );
    }
    Ok(())
}

fn covers(base: &Base, series: &Series) -> Result<()> {
    let listed: BTreeSet<PathBuf> = base.files.keys().cloned().collect();
    let touched = series.touched()?;
    let names = |paths: Vec<&PathBuf>| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing: Vec<_> = touched.difference(&listed).collect();
    let extra: Vec<_> = listed.difference(&touched).collect();
    if !missing.is_empty() {
        bail!(
            "{} not listed: run `cargo xtask series rebase-hashes`",
            names(missing)
        );
    }
    if !extra.is_empty() {
        bail!(
            "{} listed and not changed: run `cargo xtask series rebase-hashes`",
            names(extra)
        );
    }
    Ok(())
}

fn applies(series: &Series, pristine: &Path) -> Result<()> {
    let (_, notes) = apply::apply_noting(series, |path| sync::read(&pristine.join(path)))?;
    ensure!(
        notes.is_empty(),
        "{}: run `cargo xtask series refresh`",
        notes.join("; ")
    );
    Ok(())
}

/// The kernel's own judgement. Whatever it remarks on fails, but for what is excepted.
fn checkpatch(report: &mut Checks, series: &Series, pristine: &Path) -> Result<()> {
    let mut exceptions = Exceptions::load(&paths::root()?.join("ci/checkpatch.toml"))?;
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mails = git::mails(series, pristine, dir.path())?;
    for (patch, mail) in series.patches.iter().zip(mails) {
        let mut output = String::new();
        let status = run::lines(
            Command::new("perl")
                .arg("scripts/checkpatch.pl")
                .args([
                    "--strict",
                    "--no-signoff",
                    "--quiet",
                    "--show-types",
                    "--color=never",
                ])
                // Says "does MAINTAINERS need updating?" of every new file.
                .args(["--ignore", "FILE_PATH_CHANGES"])
                .arg(&mail)
                .current_dir(pristine),
            |line| {
                output.push_str(line);
                output.push('\n');
                Ok(())
            },
        )?;
        let rest = exceptions.rest(&output);
        let failed = !rest.is_empty() || (!status.success() && output.trim().is_empty());
        let result = if failed {
            Err(anyhow::anyhow!("{status}\n{rest}"))
        } else {
            Ok(())
        };
        report.add(&format!("{}: checkpatch", patch.name), result);
    }
    let stale = exceptions.stale();
    let result = if stale.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("none for {}", stale.join(", ")))
    };
    report.add("ci/checkpatch.toml excepts what there is", result);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write, World},
        *,
    };

    fn patch(subject: &str, body: &str) -> Patch {
        Patch {
            name: String::new(),
            subject: subject.to_owned(),
            body: body.to_owned(),
            adds: Vec::new(),
            diff: String::new(),
        }
    }

    #[test]
    fn messages_are_judged() {
        message(&patch("io_uring: do it", "Because.")).unwrap();
        message(&patch("io_uring/group: do it", "Because.")).unwrap();
        for (subject, body, why) in [
            ("fs: do it", "Because.", "begins with"),
            ("io_uring: do it.", "Because.", "full stop"),
            ("io_uring: do it", "", "why"),
            (
                "io_uring: do it",
                concat!("Because.\n\nSigned-off", "-by: A <a@b>"),
                "sign-off",
            ),
            ("io_uring: do it", &"long ".repeat(20), "longer"),
            (
                &format!("io_uring: {}", "long ".repeat(20)),
                "Because.",
                "longer",
            ),
        ] {
            let error = message(&patch(subject, body)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_table_must_be_that_of_the_series() {
        let world = World::new();
        let series = world.series();
        let base = || Base::load(&world.kernel).unwrap();
        let error = covers(&base(), &series).unwrap_err().to_string();
        assert!(error.contains("io_uring/a.c not listed"), "{error}");
        super::super::rebase_hashes(&series, &world.tree).unwrap();
        covers(&base(), &series).unwrap();
        base().verify(&world.tree).unwrap();
        std::fs::remove_file(world.kernel.join("patches/0001-io_uring-first.patch")).unwrap();
        std::fs::remove_file(world.kernel.join("patches/0002-io_uring-second.patch")).unwrap();
        let error = covers(&base(), &world.series()).unwrap_err().to_string();
        assert!(
            error.contains("io_uring/a.c listed and not changed"),
            "{error}"
        );
    }

    #[test]
    fn an_offset_is_not_good_enough() {
        let world = World::new();
        applies(&world.series(), &world.tree).unwrap();
        let text = format!("zero\n{}", super::super::testing::C);
        write(&world.tree.join("io_uring/a.c"), &text);
        let error = applies(&world.series(), &world.tree)
            .unwrap_err()
            .to_string();
        assert!(error.contains("series refresh"), "{error}");
    }
}
