// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask series compare`: what compilers and checkers say of io_uring, and what
//! they make of it, with the series and without.
//!
//! A configuration is built twice, on the tree as it came and on that with the
//! series. A warning that only the second gives is new, and fails. Where the feature
//! is off, the machine code must be that of the base.

mod code;
mod warnings;

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs,
    io::{LineWriter, Write as _},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{bail, ensure, Context as _, Result};
use serde::{Deserialize, Serialize};

use self::{
    code::{Code, Expected},
    warnings::Warning,
};
use super::{Series, Variant};
use crate::{
    build::{self, Part, Site},
    cache::{self, Parts},
    paths,
    profile::Profile,
    progress::{say, Bar, Unit},
    run,
    toolchain::{self, Llvm},
};

/// Arguments of `cargo xtask series compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these configurations, separated by commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = configuration)]
    profile: Vec<&'static Configuration>,
    /// Build whole kernels, seven in all, not just io_uring and what its build needs.
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    tools: build::Tools,
}

/// A configuration that is built with the series, and what that is compared with.
#[derive(Debug)]
struct Configuration {
    profile: &'static str,
    /// The profile of the base: without options that only the series has.
    base: &'static str,
    /// Whether the series must not make a difference to the code.
    off: bool,
}

const CONFIGURATIONS: [Configuration; 4] = [
    Configuration {
        profile: "default",
        base: "base",
        off: false,
    },
    Configuration {
        profile: "off",
        base: "base",
        off: true,
    },
    Configuration {
        profile: "norust",
        base: "norust",
        off: true,
    },
    Configuration {
        profile: "i386",
        base: "i386",
        off: true,
    },
];

fn configuration(name: &str) -> Result<&'static Configuration, String> {
    CONFIGURATIONS
        .iter()
        .find(|configuration| configuration.profile == name)
        .ok_or_else(|| {
            let names = CONFIGURATIONS.map(|configuration| configuration.profile);
            format!("there are {}", names.join(", "))
        })
}

/// The directory that is judged.
const DIR: &str = "io_uring";
/// Objects that are made from headers which the series changes.
const BINDINGS: [&str; 4] = [
    "rust/bindings.o",
    "rust/helpers/helpers.o",
    "rust/kernel.o",
    "rust/uapi.o",
];

/// `CHECK=`. sparse 0.6.4 does not know `__typeof_unqual__`, for which the kernel's make
/// would leave it out. It differs from `__typeof__` in qualifiers only.
const CHECK: &str = "CHECK=sparse -D__typeof_unqual__=__typeof__";

/// What can be run on this machine beside the compiler.
pub(super) struct Checkers {
    /// Its version, or why it is not run.
    sparse: Result<String, String>,
    clippy: Result<String, String>,
}

/// What a build of one tree said. Kept beside the build directory.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Record {
    /// Digest of everything that it was made from.
    inputs: String,
    /// Of the compilers, clippy among them, objtool and kernel-doc.
    compiler: BTreeSet<Warning>,
    sparse: BTreeSet<Warning>,
    /// Of the exported headers that the series changes, each alone.
    headers: BTreeSet<Warning>,
}

/// A build of one tree.
struct Side {
    record: Record,
    /// Whether there is Rust in it.
    rust: bool,
    code: Code,
}

/// What came of one check.
enum Cell {
    /// There is nothing to check in this configuration.
    Empty,
    Passed(String),
    Failed(String),
    Skipped,
}

impl Cell {
    fn text(&self) -> &str {
        match self {
            Self::Empty => "-",
            Self::Passed(text) | Self::Failed(text) => text,
            Self::Skipped => "skipped",
        }
    }
}

/// The columns of the table, but for the first.
const COLUMNS: [&str; 5] = ["W=1", "sparse", "clippy", "headers", "code"];

/// One configuration: its checks in the order of [`COLUMNS`], and what to tell of
/// those that failed.
struct Row {
    name: &'static str,
    cells: [Cell; COLUMNS.len()],
    details: Vec<String>,
}

/// Builds, compares, and tells what is new.
pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        profile: mut chosen,
        whole,
        tools,
    } = args;
    if chosen.is_empty() {
        chosen = CONFIGURATIONS.iter().collect();
    }
    let options = tools.options();
    let expected = Expected::load(&paths::root()?.join("ci/expected-code.toml"))?;
    let checkers = Checkers::find(&options.llvm)?;
    let mut rows = Vec::new();
    for configuration in chosen {
        rows.push(
            row(configuration, &options, &checkers, &expected, whole).map_err(cache::explain)?,
        );
    }
    Ok(tell(&rows, &checkers))
}

/// Builds one configuration on both trees, and compares.
fn row(
    configuration: &'static Configuration,
    options: &build::Options,
    checkers: &Checkers,
    expected: &Expected,
    whole: bool,
) -> Result<Row> {
    let Configuration { profile, base, off } = configuration;
    let series: Profile = profile.parse()?;
    let before = Side::build(base.parse()?, true, options, checkers, whole)?;
    let mut row = Row {
        name: profile,
        cells: COLUMNS.map(|_| Cell::Empty),
        details: Vec::new(),
    };
    let after = match Side::build(series.clone(), false, options, checkers, whole) {
        Ok(after) => after,
        // The base builds, so that is the series' fault.
        Err(error) if error.is::<NoBuild>() && !cache::is_full_disk(&error) => {
            row.cells[0] = Cell::Failed("no build".to_owned());
            row.details.push(format!("{profile}: {error:#}"));
            return Ok(row);
        }
        Err(error) => return Err(error),
    };

    // Where clippy is not run, rustc has its say among the compilers.
    let is_clippy = |warning: &&Warning| checkers.clippy.is_ok() && warning.is_rust();
    let compilers = |side: &'_ Side, clippy: bool| -> Vec<Warning> {
        side.record
            .compiler
            .iter()
            .filter(|warning| is_clippy(warning) == clippy)
            .cloned()
            .collect()
    };
    let sparse = |side: &Side| side.record.sparse.iter().cloned().collect();
    row.compare(0, &compilers(&before, false), &compilers(&after, false));
    match checkers.sparse {
        Ok(_) => row.compare::<Vec<_>>(1, &sparse(&before), &sparse(&after)),
        Err(_) => row.cells[1] = Cell::Skipped,
    }
    match checkers.clippy {
        _ if !after.rust => {}
        Ok(_) => row.compare(2, &compilers(&before, true), &compilers(&after, true)),
        Err(_) => row.cells[2] = Cell::Skipped,
    }
    if !after.rust {
        row.compare(3, &BTreeSet::new(), &after.record.headers);
    }
    if *off {
        let mut differences = before.code.differences(&after.code);
        let stale = expected.forgive(&series, &mut differences);
        row.cells[4] = if differences.is_empty() && stale.is_empty() {
            Cell::Passed(format!("same ({})", after.code.len()))
        } else {
            Cell::Failed(format!("{} differ", differences.len() + stale.len()))
        };
        for (part, what) in differences {
            row.details.push(format!("{profile}: {part}: {what}"));
        }
        for part in stale {
            row.details.push(format!(
                "{profile}: {part}: is the same, and ci/expected-code.toml says that it differs"
            ));
        }
    }
    Ok(row)
}

impl Row {
    /// Fills a cell with what `after` says that `before` does not.
    fn compare<'a, W>(&mut self, column: usize, before: &'a W, after: &'a W)
    where
        &'a W: IntoIterator<Item = &'a Warning>,
    {
        let known = before.into_iter().count();
        let new = warnings::new(before, after);
        let text = format!("{} ({known})", new.len());
        for warning in &new {
            self.details.push(format!(
                "{}, {}: {}",
                self.name,
                COLUMNS[column],
                warning.text()
            ));
        }
        self.cells[column] = if new.is_empty() {
            Cell::Passed(text)
        } else {
            Cell::Failed(text)
        };
    }
}

/// Prints the table, every new warning, and the closing line.
fn tell(rows: &[Row], checkers: &Checkers) -> ExitCode {
    println!(
        "New warnings, and in parentheses how many the base has. Functions and sections of data."
    );
    println!();
    print!("{}", table(rows));
    println!();
    for detail in rows.iter().flat_map(|row| &row.details) {
        println!("{detail}");
    }
    for missing in [&checkers.sparse, &checkers.clippy] {
        if let Err(why) = missing {
            println!("{why}");
        }
    }
    let count = |wanted: fn(&Cell) -> bool| {
        rows.iter()
            .flat_map(|row| &row.cells)
            .filter(|cell| wanted(cell))
            .count()
    };
    let failed = count(|cell| matches!(cell, Cell::Failed(_)));
    println!(
        "{} passed, {failed} failed, {} skipped",
        count(|cell| matches!(cell, Cell::Passed(_))),
        count(|cell| matches!(cell, Cell::Skipped))
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn table(rows: &[Row]) -> String {
    let line = |name: &str, cells: [&str; COLUMNS.len()]| {
        let line = cells.iter().fold(format!("{name:10}"), |line, cell| {
            line + &format!("{cell:12}")
        });
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line("config", COLUMNS);
    for row in rows {
        text += &line(row.name, row.cells.each_ref().map(Cell::text));
    }
    text
}

impl Checkers {
    /// Why each of those that are not run isn't.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = |checker: &Result<String, String>| checker.as_ref().err().cloned();
        [&self.sparse, &self.clippy]
            .into_iter()
            .filter_map(missing)
            .collect()
    }

    /// Looks for them, and installs what may be installed.
    pub(super) fn find(llvm: &str) -> Result<Self> {
        let (llvm, _) = Llvm::find(llvm)?;
        let version = |program: &str| run::output(Command::new(program).arg("--version"));
        let skip = |name: &str, why: &dyn Display| format!("{name} is skipped: {why}");
        Ok(Self {
            sparse: toolchain::ensure_checkers(&llvm)
                .and_then(|()| version("sparse"))
                .map_err(|error| skip("sparse", &format_args!("{error:#}"))),
            clippy: version("clippy-driver")
                .map_err(|_| skip("clippy", &"run `rustup component add clippy`")),
        })
    }
}

/// The warnings of the base, for [`step`].
pub(super) fn base(
    profile: Profile,
    options: &build::Options,
    checkers: &Checkers,
) -> Result<Said> {
    Ok(Said(
        Side::build(profile, true, options, checkers, false)?.record,
    ))
}

/// What was said of the base.
pub(super) struct Said(Record);

/// Builds io_uring with a part of the series, and returns the warnings that the base has
/// not.
pub(super) fn step(
    profile: Profile,
    variant: &Variant<'_>,
    before: &Said,
    options: &build::Options,
    checkers: &Checkers,
) -> Result<Vec<String>> {
    let count = variant.patches.unwrap_or_default();
    let what = format!("{DIR} with {count} patches, profile {profile}");
    let site = Site::prepare(profile, options, Part::Step(variant))?;
    let (after, _) = record(
        &site,
        &what,
        false,
        checkers,
        false,
        &format!("{count}.json"),
    )?;
    let Said(before) = before;
    let new = warnings::new(&before.compiler, &after.compiler)
        .into_iter()
        .chain(warnings::new(&before.sparse, &after.sparse))
        .chain(&after.headers);
    Ok(new.map(|warning| warning.text().to_owned()).collect())
}

/// The kernel's make failed.
#[derive(Debug)]
struct NoBuild(String);

impl Display for NoBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoBuild {}

impl Side {
    /// Builds what is judged anew, unless that very thing was built before: a compiler
    /// says nothing of what it need not compile.
    fn build(
        profile: Profile,
        pristine: bool,
        options: &build::Options,
        checkers: &Checkers,
        whole: bool,
    ) -> Result<Self> {
        let what = match (pristine, whole) {
            (true, false) => format!("{DIR} of the base, profile {profile}"),
            (false, false) => format!("{DIR} with the series, profile {profile}"),
            (true, true) => format!("the base, profile {profile}"),
            (false, true) => format!("the series, profile {profile}"),
        };
        let site = Site::prepare(profile, options, Part::Objects { pristine })?;
        let (record, rust) = record(&site, &what, pristine, checkers, whole, "warnings.json")?;
        Ok(Self {
            record,
            rust,
            code: Code::read(site.toolchain().llvm(), site.out(), DIR)?,
        })
    }
}

/// What is said of a tree, and whether there is Rust in it. It's kept in a file of this
/// `extension` beside the build directory.
fn record(
    site: &Site,
    what: &str,
    pristine: bool,
    checkers: &Checkers,
    whole: bool,
    extension: &str,
) -> Result<(Record, bool)> {
    site.configure()?;
    let config = fs::read_to_string(site.out().join(".config"))
        .with_context(|| format!("cannot read the .config in {}", site.out().display()))?;
    let has = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
    let rust = has("CONFIG_RUST");

    let mut variables = vec!["W=1"];
    if rust && checkers.clippy.is_ok() {
        variables.push("CLIPPY=1");
    }
    let target = if whole {
        "vmlinux".to_owned()
    } else {
        format!("{DIR}/")
    };

    let mut inputs = Parts::default();
    inputs.add(CHECK);
    inputs.add(site.inputs()?.unwrap_or_default());
    for tool in [&checkers.sparse, &checkers.clippy] {
        inputs.add(tool.as_deref().unwrap_or_default());
    }
    for word in variables.iter().copied().chain([target.as_str()]) {
        inputs.add(word);
    }
    let inputs = inputs.digest();
    let path = site.beside(extension);
    let mut record: Record = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    if record.inputs != inputs {
        forget(site, &path, whole)?;
        let log = make(site, what, &variables, &target, "log")?;
        must_have_run(&log, "  CC      io_uring/", "the compiler")?;
        if rust && checkers.clippy.is_ok() {
            must_have_run(&log, "  CLIPPY ", "clippy")?;
        }
        record = Record {
            inputs,
            compiler: warnings::parse(&log, site.tree(), site.out()),
            ..Record::default()
        };
        if !pristine && !rust {
            record.headers = headers(site, if has("CONFIG_64BIT") { "-m64" } else { "-m32" })?;
        }
        if checkers.sparse.is_ok() {
            variables.extend(["C=2", CHECK]);
            let log = make(
                site,
                &format!("{what}: sparse"),
                &variables,
                &target,
                "sparse.log",
            )?;
            must_have_run(&log, "  CHECK   io_uring/", "sparse")?;
            record.sparse = warnings::parse(&log, site.tree(), site.out());
        }
        let text = serde_json::to_vec_pretty(&record).context("cannot write a record")?;
        cache::write_whole(&path, &text)?;
    } else {
        say("Known", what);
    }
    Ok((record, rust))
}

/// What the compiler says of the exported headers that the series changes, as C and as
/// C++: what `CONFIG_UAPI_HEADER_TEST` does with all. Twice, for that shows whether it
/// guards against that.
fn headers(site: &Site, width: &str) -> Result<BTreeSet<Warning>> {
    make(site, "the exported headers", &[], "headers", "headers.log")?;
    let mut warnings = BTreeSet::new();
    for header in Series::load()?.touched()? {
        let Ok(name) = header.strip_prefix("include/uapi") else {
            continue;
        };
        let place = site.out().join("usr/include").join(name);
        for language in [["-x", "c", "-std=c90"], ["-x", "c++", "-std=c++98"]] {
            let mut log = String::new();
            let status = run::lines(
                Command::new(site.toolchain().llvm().program("clang"))
                    .args(["-fsyntax-only", "-Wall", width, "-nostdinc", "-I"])
                    .arg(site.out().join("usr/include"))
                    .args(language)
                    .args(["/dev/null", "-include"])
                    .arg(&place)
                    .arg("-include")
                    .arg(&place),
                |line| {
                    log.push_str(line);
                    log.push('\n');
                    Ok(())
                },
            )?;
            let found = warnings::parse(&log, site.tree(), site.out());
            ensure!(
                status.success() || !found.is_empty(),
                "{} cannot be checked ({status}):\n{log}",
                place.display()
            );
            warnings.extend(found);
        }
    }
    Ok(warnings)
}

/// Fails if make has left out what it was asked for: silence of a checker that did
/// not run is not approval.
fn must_have_run(log: &str, step: &str, what: &str) -> Result<()> {
    ensure!(
        log.lines().any(|line| line.starts_with(step)),
        "the kernel's make has not run {what}:\n{}",
        log.lines()
            .filter(|line| line.contains("not up to date"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}

/// Removes the objects that are judged.
fn forget(site: &Site, record: &Path, whole: bool) -> Result<()> {
    // What was said of the old objects is void from here on.
    for path in [record.to_owned()]
        .into_iter()
        .chain(BINDINGS.map(|path| site.out().join(path)))
    {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    if whole {
        run::checked_lines(site.make().arg("clean"), |_| Ok(()))?;
    }
    cache::remove_dir(&site.out().join(DIR))
}

/// Runs the kernel's make, and returns all that it printed.
fn make(
    site: &Site,
    what: &str,
    variables: &[&str],
    target: &str,
    extension: &str,
) -> Result<String> {
    let path = site.beside(extension);
    let fail = || format!("cannot write {}", path.display());
    let mut file = LineWriter::new(fs::File::create(&path).with_context(fail)?);
    let mut log = String::new();
    let mut bar = Bar::new("Building", what, Unit::Things("steps"), None);
    let status = run::lines(
        site.make()
            // A warning of several lines stays in one piece.
            .arg("--output-sync=target")
            .args(variables)
            .arg(target),
        |line| {
            writeln!(file, "{line}").with_context(fail)?;
            log.push_str(line);
            log.push('\n');
            if build::is_step(line) {
                bar.inc();
            }
            Ok(())
        },
    )?;
    if !status.success() {
        drop(bar);
        bail!(NoBuild(format!(
            "{what} does not build ({status}):\n{}\nAll of make's output is in {}",
            build::errors(&log),
            path.display()
        )));
    }
    bar.finish();
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(texts: &[&str]) -> BTreeSet<Warning> {
        let log: String = texts.iter().map(|text| format!("{text}\n")).collect();
        warnings::parse(&log, Path::new("/t"), Path::new("/o"))
    }

    fn row() -> Row {
        Row {
            name: "off",
            cells: COLUMNS.map(|_| Cell::Empty),
            details: Vec::new(),
        }
    }

    #[test]
    fn a_new_warning_fails_and_is_shown() {
        let before = warnings(&["a.c:1:1: warning: x"]);
        let after = warnings(&["a.c:2:1: warning: x", "a.c:3:1: warning: y"]);
        let mut bad = row();
        bad.compare(0, &before, &after);
        assert!(matches!(&bad.cells[0], Cell::Failed(text) if text == "1 (1)"));
        assert_eq!(bad.details, ["off, W=1: a.c:3:1: warning: y"]);

        let mut good = row();
        good.compare(1, &after, &before);
        assert!(matches!(&good.cells[1], Cell::Passed(text) if text == "0 (2)"));
        good.cells[2] = Cell::Skipped;
        assert_eq!(
            table(&[bad, good]),
            "config    W=1         sparse      clippy      headers     code\n\
             off       1 (1)       -           -           -           -\n\
             off       -           0 (2)       skipped     -           -\n"
        );
    }

    #[test]
    fn a_checker_that_did_not_run_has_not_approved() {
        let log = "Makefile:1311: C=2 specified, but sparse is not available or not up to date\n\
                   \x20 CC      io_uring/rw.o\n";
        must_have_run(log, "  CC      io_uring/", "the compiler").unwrap();
        let error = must_have_run(log, "  CHECK   io_uring/", "sparse").unwrap_err();
        assert!(error.to_string().contains("not up to date"), "{error}");
    }

    #[test]
    fn every_configuration_is_of_profiles_that_are_there() {
        // Cargo sets what `paths` asks for in tests too.
        for Configuration { profile, base, .. } in &CONFIGURATIONS {
            profile.parse::<Profile>().unwrap();
            base.parse::<Profile>().unwrap();
        }
        configuration("i386").unwrap();
        let error = configuration("i486").unwrap_err();
        assert!(error.contains("norust"), "{error}");
    }

    #[test]
    fn what_is_expected_is_well_formed() {
        let root = paths::root().unwrap();
        Expected::load(&root.join("ci/expected-code.toml")).unwrap();
    }
}
