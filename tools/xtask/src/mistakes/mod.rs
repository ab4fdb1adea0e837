// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask mistakes`: puts known mistakes into the kernel, one at a time, and sees
//! the tests fail.
//!
//! A test that was never seen to fail may be unable to. So `ci/mistakes.toml` lists
//! mistakes, among them those of the first posting, each with the tests that are to find
//! it. A mistake that they do not find is this command's failure.
//!
//! Whoever has another way to find mistakes goes through [`list::load`] and has
//! [`Workshop::make`] build a kernel of each.

pub(crate) mod list;
pub(crate) mod workshop;

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{ensure, Context as _, Result};
use serde::Serialize;

use self::{
    list::Mistake,
    workshop::{Source, Workshop},
};
use crate::{
    cache::{self, Cache},
    checks::Checks,
    fetch,
    guest::{self, Built, Program},
    interrupt, kvm, paths,
    progress::{self, say},
    qemu, qemu_test, report,
    run_dir::RunDir,
    series::{edited, Base, Patched, Series},
    sheet::{self, files, junit, Case, Kind, Sheet, Status},
    verdict::Verdict,
};

/// After so many failures a mistake has been found.
const MAX_FAILURES: u32 = 1;

/// Arguments of `cargo xtask mistakes`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all were found, 1 one was not, 5 infrastructure error (nothing is known), 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Only mistakes whose name matches this regular expression. May be repeated.
    #[arg(long, value_name = "REGEX")]
    only: Vec<String>,
    /// Say which there are, and build nothing.
    #[arg(long)]
    list: bool,
    /// See whether each fits the tree and its tests are there, and build nothing.
    #[arg(long, conflicts_with = "list")]
    check: bool,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Skip the rest of a mistake's tests once so many have failed. 0: run all of them.
    #[arg(long, value_name = "N", default_value_t = MAX_FAILURES)]
    max_failures: u32,
    /// Write the results into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results into this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// What came of one mistake.
#[derive(Debug, Serialize)]
struct Outcome {
    mistake: String,
    v1: Option<u8>,
    what: String,
    found: bool,
    /// What the run came to; nothing if there was none.
    verdict: Option<Verdict>,
    /// The tests that failed.
    tests: Vec<String>,
    /// The rules that found something in the kernel's log.
    rules: Vec<String>,
    build_seconds: f64,
    run_seconds: f64,
    /// Why it could not be tried.
    error: Option<String>,
    directory: Option<PathBuf>,
}

/// The results of a command, for `--json`.
#[derive(Serialize)]
struct Results<'a> {
    passed: usize,
    failed: usize,
    skipped: usize,
    mistakes: &'a [Outcome],
}

/// Runs `cargo xtask mistakes`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.list || args.check {
        let mistakes = list::select(list::load()?, &args.only)?;
        return if args.list {
            let list: String = mistakes.iter().map(described).collect();
            report::print(&list);
            Ok(ExitCode::SUCCESS)
        } else {
            check(&args.source, &mistakes)
        };
    }
    match execute(&args) {
        Ok(code) => Ok(code),
        // 1 would say that a mistake was not found.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

fn described(mistake: &Mistake) -> String {
    format!("{}\n    {}\n", mistake.name, mistake.what)
}

/// `--check`: what can be said without building anything.
fn check(source: &Source, mistakes: &[Mistake]) -> Result<ExitCode> {
    let functions = list::functions()?;
    let own = source.tree.as_deref();
    let patched = match own {
        Some(_) => None,
        None => {
            let base = Base::load(&paths::kernel()?)?;
            fetch::cached_source(&Cache::open()?, &base)
                .map(|pristine| Patched::new(&Series::load()?, &pristine))
                .transpose()?
        }
    };
    let mut checks = Checks::default();
    for mistake in mistakes {
        let name = &mistake.name;
        checks.add(
            &format!("{name}: its tests are there"),
            list::has_tests(mistake, &functions),
        );
        let fits = match (own, &patched) {
            (Some(tree), _) => edited(&mistake.edits, |path| workshop::read(tree, path)),
            (None, Some(patched)) => edited(&mistake.edits, |path| patched.content(path)),
            (None, None) => continue,
        };
        checks.add(&format!("{name}: it fits the tree"), fits.map(drop));
    }
    if own.is_none() && patched.is_none() {
        checks.skip("whether they fit needs the kernel source: `make LLVM=1` gets it");
    }
    Ok(checks.end())
}

fn execute(args: &Args) -> Result<ExitCode> {
    files::check([&args.json, &args.junit])?;
    qemu::check()?;
    let mistakes = list::select(list::load()?, &args.only)?;
    let built = guest::build(&[Program::Init, Program::Tests])?;
    let all = guest::list_tests(&built)?;
    let mut chosen = Vec::new();
    for mistake in &mistakes {
        let tests = qemu_test::select(&all, &mistake.tests, false)
            .with_context(|| format!("{} names tests that are not there", mistake.name))?;
        chosen.push(tests);
    }

    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let mut workshop = Workshop::open(&args.source)?;
    let mut outcomes = Vec::new();
    let began = sheet::now();
    let mut written = Ok(());
    if control(args, &guard, &mut workshop, &built, &chosen)? && !guard.requested() {
        for (mistake, tests) in mistakes.iter().zip(&chosen) {
            let place = format!("{} of {}", outcomes.len() + 1, mistakes.len());
            say("Mistake", format!("{place}: {}", mistake.name));
            let outcome = try_one(args, &guard, &mut workshop, &built, mistake, tests)?;
            if guard.requested() {
                break;
            }
            let Some(outcome) = outcome else {
                break;
            };
            say(
                if outcome.found { "Found" } else { "NOT FOUND" },
                format!("{}: {}", outcome.mistake, how(&outcome)),
            );
            outcomes.push(outcome);
            // Each time, so that an interrupted run leaves what it has found out.
            written = save(args, &outcomes, &mistakes, began);
        }
    }
    let interrupted = outcomes.len() < mistakes.len();
    if interrupted {
        progress::line(format_args!("interrupted"));
    }
    let (passed, failed, skipped) = count(&outcomes, mistakes.len());
    report::print(&table(&outcomes));
    report::print(&report::closing(
        u32::try_from(passed)?,
        u32::try_from(failed)?,
        u32::try_from(skipped)?,
    ));
    let whole = of_all(&outcomes, &mistakes, began);
    whole.publish(&RunDir::create("mistakes")?);
    let verdict = files::ends_with(whole.verdict, written, "as the table says");
    Ok(if interrupted {
        interrupt::STATUS.into()
    } else {
        verdict.into()
    })
}

/// What came of all of them, as reports tell it. A mistake that was found has passed.
fn of_all(outcomes: &[Outcome], mistakes: &[Mistake], began: i64) -> Sheet {
    let case = |mistake: &Mistake, outcome: Option<&Outcome>| Case {
        name: format!("mistakes::{}", mistake.name),
        round: 1,
        ms: outcome.map(|outcome| (outcome.run_seconds * 1000.0) as u64),
        status: match outcome {
            None => Status::NotRun,
            Some(Outcome {
                error: Some(error), ..
            }) => Status::Failed {
                kind: Kind::Untried,
                output: error.clone(),
            },
            Some(Outcome { found: true, .. }) => Status::Passed,
            Some(outcome) => Status::Failed {
                kind: Kind::Failed,
                output: format!("not found: {}\n{}", how(outcome), outcome.what),
            },
        },
        command: Some(sheet::invocation_for("--only", &mistake.name)),
    };
    let cases = mistakes.iter().enumerate();
    Sheet {
        title: "Mistakes that the tests find".to_owned(),
        name: "mistakes".to_owned(),
        verdict: if outcomes.iter().all(|outcome| outcome.found) {
            Verdict::Passed
        } else if outcomes.iter().any(|outcome| outcome.error.is_some()) {
            Verdict::Infrastructure
        } else {
            Verdict::Failed
        },
        interrupted: outcomes.len() < mistakes.len(),
        began,
        seconds: (sheet::now() - began) as f64,
        facts: sheet::common_facts(),
        cases: cases
            .map(|(nth, mistake)| case(mistake, outcomes.get(nth)))
            .collect(),
        complaints: Vec::new(),
        trouble: String::new(),
        command: sheet::invocation(),
    }
}

/// What fails without a mistake shows nothing when it fails with one. Returns false if
/// that could not be seen for an interruption.
fn control(
    args: &Args,
    guard: &interrupt::Guard,
    workshop: &mut Workshop<'_>,
    built: &[Built],
    chosen: &[Vec<String>],
) -> Result<bool> {
    say("Control", "the same tests on the kernel without a mistake");
    let mut tests: Vec<String> = chosen.iter().flatten().cloned().collect();
    tests.sort();
    tests.dedup();
    let made = match workshop.make(None) {
        Ok(made) => made,
        Err(_) if guard.requested() => return Ok(false),
        Err(error) => return Err(error),
    };
    let report = qemu_test::judge(&boot(args, made.bzimage.clone()), built, &tests)?;
    made.undo()?;
    if report.interrupted {
        return Ok(false);
    }
    ensure!(
        report.verdict == Verdict::Passed,
        "the kernel without a mistake does not pass ({}), so no failure would show anything: see \
         `cargo xtask qemu-test`, and {}",
        report.verdict.words(),
        report.directory.display()
    );
    Ok(true)
}

/// The run of `cargo xtask qemu-test` that tries a kernel.
fn boot(args: &Args, bzimage: PathBuf) -> qemu_test::Args {
    qemu_test::Args {
        options: args.source.options.clone(),
        profile: vec![args.source.profile.clone()],
        filter: Vec::new(),
        exact: false,
        accel: args.accel,
        smp: 2,
        mem: None,
        repeat: 1,
        max_failures: args.max_failures,
        storm: None,
        seed: None,
        kernel: Some(bzimage),
        json: None,
        junit: None,
        show_command: false,
        timeout_scale: 1.0,
    }
}

/// Tries one mistake. Nothing if it was interrupted.
fn try_one(
    args: &Args,
    guard: &interrupt::Guard,
    workshop: &mut Workshop<'_>,
    built: &[Built],
    mistake: &Mistake,
    tests: &[String],
) -> Result<Option<Outcome>> {
    let mut outcome = Outcome {
        mistake: mistake.name.clone(),
        v1: mistake.v1,
        what: mistake.what.clone(),
        found: false,
        verdict: None,
        tests: Vec::new(),
        rules: Vec::new(),
        build_seconds: 0.0,
        run_seconds: 0.0,
        error: None,
        directory: None,
    };
    let made = match workshop.make(Some(mistake)) {
        Ok(made) => made,
        // make got the signal too.
        Err(_) if guard.requested() => return Ok(None),
        Err(error) if cache::is_full_disk(&error) => return Err(error),
        Err(error) => {
            outcome.error = Some(format!("{error:#}"));
            return Ok(Some(outcome));
        }
    };
    outcome.build_seconds = made.took.as_secs_f64();
    let report = qemu_test::judge(&boot(args, made.bzimage.clone()), built, tests)?;
    made.undo()?;
    if report.interrupted {
        return Ok(None);
    }
    outcome.found = match report.verdict {
        // A busy machine may keep a guest from booting, whatever its kernel.
        Verdict::Splat | Verdict::Lost if !report.came_to_tests() => {
            outcome.error = Some(format!(
                "the guest did not come to its tests, so the mistake was not tried; try again. {}",
                report.causes.trim()
            ));
            false
        }
        Verdict::Failed | Verdict::Splat | Verdict::Lost => true,
        Verdict::Passed => false,
        Verdict::Infrastructure => {
            outcome.error = Some(report.causes.trim().to_owned());
            false
        }
    };
    outcome.verdict = Some(report.verdict);
    outcome.run_seconds = report.seconds;
    outcome.tests = qemu_test::failures(&report)
        .into_iter()
        .map(str::to_owned)
        .collect();
    for finding in &report.findings {
        if !outcome.rules.contains(&finding.rule) {
            outcome.rules.push(finding.rule.clone());
        }
    }
    outcome.directory = Some(report.directory);
    Ok(Some(outcome))
}

/// Found, not found, not tried.
fn count(outcomes: &[Outcome], all: usize) -> (usize, usize, usize) {
    let found = outcomes.iter().filter(|outcome| outcome.found).count();
    (found, outcomes.len() - found, all - outcomes.len())
}

/// Writes what was asked for. One that cannot be written does not keep the other from it.
fn save(args: &Args, outcomes: &[Outcome], mistakes: &[Mistake], began: i64) -> Result<()> {
    let json = args.json.as_ref().map_or(Ok(()), |path| {
        let (passed, failed, skipped) = count(outcomes, mistakes.len());
        let json = serde_json::to_vec_pretty(&Results {
            passed,
            failed,
            skipped,
            mistakes: outcomes,
        })
        .context("cannot encode the results")?;
        files::write(path, &json)
    });
    let junit = args.junit.as_ref().map_or(Ok(()), |path| {
        let whole = of_all(outcomes, mistakes, began);
        files::write(path, &junit::document("cargo xtask mistakes", &[&whole])?)
    });
    json.and(junit)
}

/// Which tests failed, with their modes and cases left out.
fn found_by(outcome: &Outcome) -> String {
    let mut functions: Vec<&str> = Vec::new();
    for test in &outcome.tests {
        let end = test
            .match_indices("::")
            .nth(1)
            .map_or(test.len(), |(at, _)| at);
        if !functions.contains(&&test[..end]) {
            functions.push(&test[..end]);
        }
    }
    match functions[..] {
        [] => "-".to_owned(),
        [one] => one.to_owned(),
        [one, ref more @ ..] => format!("{one} +{}", more.len()),
    }
}

/// What was seen.
fn how(outcome: &Outcome) -> String {
    if let Some(error) = &outcome.error {
        return format!("not tried: {}", error.lines().next().unwrap_or_default());
    }
    let mut how = match outcome.verdict {
        None => "not run".to_owned(),
        Some(Verdict::Passed) => "all tests passed".to_owned(),
        Some(verdict) => verdict.words().to_owned(),
    };
    if !outcome.rules.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(how, " ({})", outcome.rules.join(", "));
    }
    let _ = write!(how, ", {:.0} s", outcome.run_seconds);
    how
}

fn table(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return String::new();
    }
    let mut rows = vec![["mistake", "V1", "found by", "how"].map(str::to_owned)];
    for outcome in outcomes {
        rows.push([
            outcome.mistake.clone(),
            outcome
                .v1
                .map_or(String::new(), |number| number.to_string()),
            if outcome.found {
                found_by(outcome)
            } else {
                "NOT FOUND".to_owned()
            },
            how(outcome),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    rows.iter().fold(String::new(), |mut text, row| {
        let [mistake, v1, by, how] = row;
        // Writing to a String does not fail.
        let _ = writeln!(text, "{mistake:first$}  {v1:>second$}  {by:third$}  {how}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tests: &[&str]) -> Outcome {
        Outcome {
            mistake: "v1_01_x".to_owned(),
            v1: Some(1),
            what: "It is wrong.".to_owned(),
            found: true,
            verdict: Some(Verdict::Failed),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
            rules: Vec::new(),
            build_seconds: 60.0,
            run_seconds: 12.3,
            error: None,
            directory: None,
        }
    }

    #[test]
    fn the_table_names_functions_and_not_modes() {
        let several = outcome(&["v1::v1_01_a::default", "v1::v1_01_a::sqpoll", "form::f1_b"]);
        assert_eq!(found_by(&several), "v1::v1_01_a +1");
        assert_eq!(found_by(&outcome(&[])), "-");
        let mut splat = outcome(&["v1::v1_01_a::default"]);
        splat.verdict = Some(Verdict::Splat);
        splat.rules = vec!["warning".to_owned()];
        let mut missed = outcome(&[]);
        missed.found = false;
        missed.verdict = Some(Verdict::Passed);
        assert_eq!(table(&[]), "");
        let text = table(&[splat, missed]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("mistake  V1  found by"), "{text}");
        assert!(lines[1].contains(" 1  v1::v1_01_a  kernel splat (warning), 12 s"));
        assert!(lines[2].contains("NOT FOUND"), "{text}");
    }

    #[test]
    fn what_was_not_tried_is_not_found() {
        let mut broken = outcome(&[]);
        broken.found = false;
        broken.verdict = None;
        broken.error = Some("the kernel does not build\nbecause".to_owned());
        assert_eq!(how(&broken), "not tried: the kernel does not build");
        assert_eq!(count(&[outcome(&[]), broken], 4), (1, 1, 2));
    }
}
