// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask ci`: everything that must hold before a change goes in.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use regex::Regex;

use crate::{
    paths,
    progress::say,
    run,
    run_dir::RunDir,
    sheet::{self, files, junit, page, Case, Kind, Sheet, Status, Tally, HAND_ON_ENV},
    verdict::Verdict,
};

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs a kernel.
    #[arg(long, conflicts_with = "all")]
    host_only: bool,
    /// Also what takes too long for every change: all tests in the other kernels.
    #[arg(long)]
    all: bool,
    /// Write the results into this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Lines of the output of a step that failed, on the page.
const SHOWN: usize = 60;

/// What `--all` adds.
const ALL: [&str; 10] = [
    "cargo xtask series compare",
    "cargo xtask series check --build --boot",
    "cargo xtask liburing",
    "cargo xtask bench --native",
    "cargo xtask fuzz --count 2000",
    "cargo xtask qemu-test --profile off",
    "cargo xtask qemu-test --profile debug",
    "cargo xtask qemu-test --profile kcsan",
    "cargo xtask splats",
    "cargo xtask fuzz --profile debug --count 2000",
];

/// A part of what `--all` runs on `debug`, which takes too long: the tests in one mode, that in
/// which completions are task work of the submitter; those of the polled modes, which have
/// no such; the storm, and the kernel's own.
const DEBUG: &str = "cargo xtask qemu-test --profile debug --filter '[Dd]efer_?[Tt]askrun' \
                     --filter ^v1::v1_05_ --filter ^storm:: --filter ^kunit::";

/// Whether plain requests, chains or groups cost more than is on record. The rest of what is
/// on record takes longer than it tells.
const BENCH: &str = "cargo xtask bench --quick --check";

/// Random programs, the same each time: what fails here can be repeated.
const FUZZ: &str = "cargo xtask fuzz --seed 1 --count 3000";

/// The commands of README.md that must be there: the two that it promises, and the
/// one that tests.
const PROMISED: [&str; 3] = ["make LLVM=1", "make LLVM=1 demo", "cargo xtask qemu-test"];

/// Commands that are for people.
const INTERACTIVE: [&str; 4] = [
    "cargo xtask shell",
    "cargo xtask ci",
    "menuconfig",
    " shell",
];

/// One thing to run.
struct Step {
    /// As a user would type it.
    line: String,
    /// Whether the later ones make no sense without it.
    vital: bool,
    /// Whether the line only shows that nothing can be said.
    skip: bool,
}

/// What came of a step, in tests where it tells, else in steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// What came of a step.
struct Done {
    line: String,
    count: Count,
    time: Duration,
    /// What it printed, if it failed.
    output: String,
    /// Of the runs that were part of it.
    sheets: Vec<Sheet>,
}

/// Runs `cargo xtask ci`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        host_only,
        all,
        junit,
    } = args;
    files::check([&junit])?;
    let dir = RunDir::create("ci")?;
    let handed = dir.join("sheets");
    fs::create_dir(&handed).with_context(|| format!("cannot make {}", handed.display()))?;
    let began = sheet::now();
    let mut todo = steps(host_only, all)?;
    let mut done = Vec::new();
    let mut total = Count::default();
    let mut stopped = false;
    let mut page = Ok(PathBuf::new());
    while !todo.is_empty() {
        let step = todo.remove(0);
        let start = Instant::now();
        let (count, output) = if step.skip || stopped {
            let count = Count {
                skipped: 1,
                ..Count::default()
            };
            (count, String::new())
        } else {
            println!("\n### {}", step.line);
            execute(&step.line, &handed)?
        };
        stopped |= step.vital && count.failed > 0;
        total.passed += count.passed;
        total.failed += count.failed;
        total.skipped += count.skipped;
        let sheets = sheet::handed_on(&handed).unwrap_or_else(|error| {
            say(
                "Note",
                format!("the page lacks what ran in this step: {error:#}"),
            );
            Vec::new()
        });
        done.push(Done {
            line: step.line,
            count,
            time: start.elapsed(),
            output,
            sheets,
        });
        // Each time, so that an interrupted run leaves what it has found out.
        page = publish(&dir, &done, &todo, began);
    }
    println!();
    for step in &done {
        println!("{}", summary(&step.line, step.count, step.time));
    }
    match page {
        Ok(path) => println!("{:>12} {}", "Report", path.display()),
        Err(error) => say("Note", format!("there is no page of this: {error:#}")),
    }
    println!("{}", closing(total));
    let written = junit.as_ref().map_or(Ok(()), |path| {
        let whole = whole(&done, &todo, began);
        let mut sheets = vec![&whole];
        sheets.extend(done.iter().flat_map(|step| &step.sheets));
        files::write(path, &junit::document("cargo xtask ci", &sheets)?)
    });
    let verdict = if total.failed == 0 {
        Verdict::Passed
    } else {
        Verdict::Failed
    };
    Ok(files::ends_with(verdict, written, "as the lines above say").into())
}

/// The command as a whole, its steps being the cases.
fn whole(done: &[Done], todo: &[Step], began: i64) -> Sheet {
    let case = |step: &Done| {
        let failed = step.count.failed > 0;
        Case {
            name: step.line.clone(),
            round: 1,
            ms: u64::try_from(step.time.as_millis()).ok(),
            status: if failed {
                Status::Failed {
                    kind: Kind::Failed,
                    output: tail(&step.output),
                }
            } else if step.count.passed > 0 {
                Status::Passed
            } else {
                Status::Skipped {
                    why: "for people, or of no use after what failed".to_owned(),
                }
            },
            command: failed.then(|| step.line.clone()),
        }
    };
    let left = todo.iter().map(|step| Case {
        name: step.line.clone(),
        round: 1,
        ms: None,
        status: Status::NotRun,
        command: None,
    });
    Sheet {
        title: "cargo xtask ci".to_owned(),
        name: "ci".to_owned(),
        verdict: if done.iter().any(|step| step.count.failed > 0) {
            Verdict::Failed
        } else {
            Verdict::Passed
        },
        interrupted: !todo.is_empty(),
        began,
        seconds: done.iter().map(|step| step.time.as_secs_f64()).sum(),
        facts: sheet::common_facts(),
        cases: done.iter().map(case).chain(left).collect(),
        complaints: Vec::new(),
        trouble: String::new(),
        command: sheet::invocation(),
    }
}

/// The end of what a step printed.
fn tail(output: &str) -> String {
    let lines: Vec<_> = output.trim_end().lines().collect();
    let from = lines.len().saturating_sub(SHOWN);
    let mut text = String::new();
    if from > 0 {
        // Writing to a String does not fail.
        let _ = writeln!(text, "[{from} lines before these]");
    }
    text + &lines[from..].join("\n")
}

fn publish(dir: &RunDir, done: &[Done], todo: &[Step], began: i64) -> Result<PathBuf> {
    let steps: Vec<_> = done
        .iter()
        .map(|step| page::Step {
            line: &step.line,
            tally: Tally::from(step.count),
            seconds: step.time.as_secs_f64(),
            sheets: &step.sheets,
        })
        .collect();
    sheet::publish_steps(dir, &whole(done, todo, began), &steps)
}

impl From<Count> for Tally {
    fn from(count: Count) -> Self {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            passed: number(count.passed),
            failed: number(count.failed),
            skipped: number(count.skipped),
            ..Self::default()
        }
    }
}

fn closing(count: Count) -> String {
    let Count {
        passed,
        failed,
        skipped,
    } = count;
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

fn summary(line: &str, count: Count, time: Duration) -> String {
    let word = match count {
        Count { failed: 1.., .. } => "FAILED ",
        Count { passed: 0, .. } => "skipped",
        _ => "ok     ",
    };
    format!(
        "{word} {:>5} s  {line} ({})",
        time.as_secs(),
        closing(count)
    )
}

/// What to run, in order: the quick first.
fn steps(host_only: bool, all: bool) -> Result<Vec<Step>> {
    let root = paths::root()?;
    let mut kernel_files = Vec::new();
    for path in crate::series::Series::load()?.added() {
        if path.extension().is_some_and(|extension| extension == "rs") {
            kernel_files.push(format!("kernel/{}", path.display()));
        }
    }
    let mut lines = vec!["cargo fmt --all --check".to_owned()];
    if !kernel_files.is_empty() {
        // Most of them cargo does not see: they need the kernel around them.
        lines.push(format!(
            "rustfmt --check --edition 2021 {}",
            kernel_files.join(" ")
        ));
    }
    lines.extend(
        [
            "cargo clippy --workspace --all-targets -- -D warnings",
            "cargo clippy -p harness --all-targets --features guest -- -D warnings",
            "cargo test --workspace",
            "cargo xtask docs",
        ]
        .map(str::to_owned),
    );
    let mut steps: Vec<_> = lines
        .into_iter()
        .map(|line| Step {
            line,
            vital: false,
            skip: false,
        })
        .collect();
    let mistakes = Step {
        line: "cargo xtask mistakes --check".to_owned(),
        vital: false,
        skip: false,
    };
    if host_only {
        steps.push(Step {
            line: "cargo xtask series check --offline".to_owned(),
            vital: false,
            skip: false,
        });
        steps.push(mistakes);
        return Ok(steps);
    }

    // Installs what the later ones need.
    steps.push(Step {
        line: PROMISED[0].to_owned(),
        vital: true,
        skip: false,
    });
    // As whole as it can be: the source is there by now.
    steps.push(mistakes);
    let readme = root.join("README.md");
    let readme = if readme.exists() {
        fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?
    } else {
        String::new()
    };
    let mut rest = vec!["cargo xtask series check".to_owned()];
    rest.extend(PROMISED[1..].iter().map(|line| (*line).to_owned()));
    rest.extend(commands(&readme));
    rest.extend([FUZZ, BENCH].map(str::to_owned));
    if all {
        rest.extend(ALL.map(str::to_owned));
    } else {
        rest.push(DEBUG.to_owned());
    }
    for line in rest {
        if steps.iter().all(|step| step.line != line) {
            let skip = INTERACTIVE.iter().any(|part| line.contains(part));
            steps.push(Step {
                line,
                vital: false,
                skip,
            });
        }
    }
    Ok(steps)
}

/// The commands of ours that a reader is told to type: lines of blocks marked `sh`.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside && language == "sh";
            continue;
        }
        let (command, _) = line.split_once(" #").unwrap_or((line, ""));
        let command = command.trim();
        if inside && (command.starts_with("make ") || command.starts_with("cargo ")) {
            commands.push(command.to_owned());
        }
    }
    commands
}

/// Runs one line and passes its output on. Its runs leave their sheets in `handed`.
fn execute(line: &str, handed: &Path) -> Result<(Count, String)> {
    let mut output = String::new();
    let status = run::lines(
        Command::new("sh")
            .args(["-c", line])
            .current_dir(paths::root()?)
            // Of the cargo that started us, and not meant for those that we start.
            .env_remove("CARGO_MANIFEST_DIR")
            .env(HAND_ON_ENV, handed)
            .env(
                "CARGO_TERM_COLOR",
                env::var_os("CARGO_TERM_COLOR").unwrap_or("never".into()),
            ),
        |text| {
            println!("{text}");
            output.push_str(text);
            output.push('\n');
            Ok(())
        },
    )?;
    Ok((count(&output, status.success()), output))
}

/// Counts the tests that a step's output tells of.
fn count(output: &str, success: bool) -> Count {
    static OURS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?m)^(\d+) passed, (\d+) failed, (\d+) skipped$").ok());
    static CARGOS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?m)^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored").ok()
    });
    let mut count = Count::default();
    let found = [&OURS, &CARGOS]
        .into_iter()
        .filter_map(|regex| regex.as_ref())
        .flat_map(|regex| {
            regex.captures_iter(output).map(|captures| {
                let (_, numbers) = captures.extract();
                numbers.map(|number: &str| number.parse().unwrap_or(0))
            })
        });
    for [passed, failed, skipped] in found {
        count.passed += passed;
        count.failed += failed;
        count.skipped += skipped;
    }
    if success && count == Count::default() {
        count.passed = 1;
    }
    // A step that broke before it could tell, or after all its tests.
    if !success && count.failed == 0 {
        count.failed = 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Count {
        Count {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn tests_are_counted_where_they_are_told() {
        let cargo = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                     test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured\n";
        assert_eq!(count(cargo, false), counts(5, 1, 1));
        assert_eq!(
            count("x\n12 passed, 0 failed, 3 skipped\n", true),
            counts(12, 0, 3)
        );
    }

    #[test]
    fn a_step_that_tells_nothing_counts_as_one() {
        assert_eq!(count("fine\n", true), counts(1, 0, 0));
        assert_eq!(count("error\n", false), counts(0, 1, 0));
    }

    #[test]
    fn a_failure_is_never_lost() {
        assert_eq!(
            count("12 passed, 0 failed, 0 skipped\n", false),
            counts(12, 1, 0)
        );
        assert!(summary("x", counts(12, 1, 0), Duration::ZERO).starts_with("FAILED"));
    }

    /// What the shell makes of a line.
    fn words(line: &str) -> Vec<String> {
        let output = Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_page_has_the_steps_that_were_and_those_to_come() {
        let done = |line: &str, count, output: &str| Done {
            line: line.to_owned(),
            count,
            time: Duration::from_millis(1500),
            output: output.to_owned(),
            sheets: Vec::new(),
        };
        let long: String = (1..=SHOWN + 5)
            .map(|line| format!("line {line}\n"))
            .collect();
        let done = [
            done("cargo fmt", counts(1, 0, 0), "not shown\n"),
            done("make LLVM=1", counts(7, 1, 0), &long),
            done("cargo xtask shell", counts(0, 0, 1), ""),
        ];
        let todo = [Step {
            line: "cargo xtask fuzz".to_owned(),
            vital: false,
            skip: false,
        }];
        let sheet = whole(&done, &todo, 0);
        assert!(sheet.interrupted && sheet.verdict == Verdict::Failed);
        assert!((sheet.seconds - 4.5).abs() < 0.01);
        let [fmt, make, shell, fuzz] = &sheet.cases[..] else {
            panic!("{sheet:?}");
        };
        assert_eq!(
            (&fmt.status, &fuzz.status),
            (&Status::Passed, &Status::NotRun)
        );
        assert!(matches!(shell.status, Status::Skipped { .. }));
        assert_eq!(make.command.as_deref(), Some("make LLVM=1"));
        let Status::Failed { output, .. } = &make.status else {
            panic!("{make:?}");
        };
        assert!(
            output.starts_with("[5 lines before these]\nline 6\n"),
            "{output}"
        );
        assert!(output.ends_with(&format!("line {}", SHOWN + 5)));

        let whole = whole(&done, &[], 0);
        assert!(!whole.interrupted);
        assert_eq!(Tally::from(counts(7, 1, 2)).failed, 1);
    }

    #[test]
    fn what_is_run_is_a_command() {
        use clap::Parser as _;

        for line in ALL.into_iter().chain([DEBUG, FUZZ, BENCH]) {
            crate::Command::try_parse_from(&words(line)[1..]).unwrap();
        }
    }

    #[test]
    fn the_readmes_commands_are_those_in_sh_blocks() {
        let readme =
            "text\n```sh\nmake LLVM=1       # builds\ngit clone x\ncargo xtask qemu-test\n```\n\
                      make no\n```rust\nmake no\n```\n```sh\nmake LLVM=1 demo\n```\n";
        assert_eq!(
            commands(readme),
            ["make LLVM=1", "cargo xtask qemu-test", "make LLVM=1 demo"]
        );
    }
}
