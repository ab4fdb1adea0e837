// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask liburing`: liburing's own tests on the base and on the patched kernel, and
//! where they do not do the same.
//!
//! Most of what these tests are about the series does not touch, or should not. So what
//! counts is not that all of them pass, but that each does on the patched kernel what it
//! does on the base of the same configuration.

mod compare;
mod guests;
mod record;
mod suite;

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::{
    compare::{Case, Meaning, Terms},
    guests::{Attempt, Hall, Kernel, Outcome, Side},
    record::Record,
};
use crate::{
    build,
    follow::quoted,
    guest::{self, Program},
    interrupt,
    kvm::{self, Accel},
    log_rules::Rules,
    profile::Profile,
    progress::{self, say},
    qemu, qemu_test, report,
    run_dir::RunDir,
    verdict::Verdict,
};

/// What programs are compiled and linked with.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    /// Where headers are.
    pub(crate) includes: Vec<PathBuf>,
    /// The static library.
    pub(crate) archive: PathBuf,
}

/// liburing itself, if it was built here before.
pub(crate) fn library() -> Result<Option<Library>> {
    let Record { source, .. } = Record::load()?;
    suite::library(&source)
}

/// The profile of both kernels.
const PROFILE: &str = "liburing";

/// Names the source of liburing, where it is not the one on record.
const SOURCE_ENV: &str = "LIBURING";

/// What differs is run so many times more.
const AGAIN: usize = 3;

/// If more than so many tests differ, that is no chance, and would take for ever.
const AGAIN_MOST: usize = 30;

/// Of so many tests it is said that they took longest.
const SLOWEST: usize = 5;

/// So many failures come with the command that repeats them; the rest is in the files.
const REPEATED: usize = 10;

/// The results in the directory of a run.
const RESULTS: &str = "results.json";

/// Arguments of `cargo xtask liburing`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "LIBURING=DIR takes the tests from a source tree of liburing's. Exit status: 0 no difference, 1 a difference, or a failure that is not on record, 3 a kernel complained or died, 4 a guest was lost, 5 infrastructure error (nothing is known), 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// Only tests whose name matches this regular expression. May be repeated.
    #[arg(long, value_name = "REGEX")]
    filter: Vec<String>,
    /// Take each --filter for a whole name.
    #[arg(long)]
    exact: bool,
    /// Only on this kernel, and compare nothing.
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// Run what differs so many times more before it is called a difference.
    #[arg(long, value_name = "N", default_value_t = AGAIN)]
    again: usize,
    /// Guests at a time. Default: as many as the machine has processors for, but two.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    guests: Option<u16>,
    /// How a guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Processors of a guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: u32,
    /// Memory of a guest in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1024..))]
    mem: u32,
    /// Boot this bzImage as the base instead of building one.
    #[arg(long, value_name = "BZIMAGE")]
    kernel_base: Option<PathBuf>,
    /// Boot this bzImage as the patched kernel instead of building one.
    #[arg(long, value_name = "BZIMAGE")]
    kernel_patched: Option<PathBuf>,
    /// Write the results into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Multiply every time-out by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = qemu_test::factor)]
    timeout_scale: f64,
}

/// The results of a command, for `--json`.
#[derive(Serialize)]
struct Results<'a> {
    verdict: Verdict,
    exit_status: u8,
    liburing: String,
    accel: Accel,
    smp: u32,
    mem_mib: u32,
    seconds: f64,
    trouble: &'a [String],
    tests: &'a [Case],
}

/// Runs `cargo xtask liburing`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match execute(&args) {
        Ok(code) => Ok(code),
        // 1 would say that something differs.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

fn execute(args: &Args) -> Result<ExitCode> {
    qemu::check()?;
    let rules = Rules::load()?;
    let record = Record::load()?;
    let own = env::var_os(SOURCE_ENV)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let suite = suite::ensure(&record.source, own.as_deref(), &args.options)?;
    let all = record.all(&suite.tests)?;
    let tests = qemu_test::select(&all, &args.filter, args.exact)?;
    let sides = match &args.only {
        Some(side) => vec![*side],
        None => Side::ALL.to_vec(),
    };
    let kernels = kernels(args, &sides)?;
    let built = guest::build(&[Program::Init])?;

    let (accels, obstacle) = kvm::candidates(args.accel);
    if let Some(why) = obstacle {
        say("Note", format!("TCG instead of KVM: {why}"));
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let room = args
        .guests
        .map_or((processors / args.smp as usize).max(1), usize::from);
    let dir = RunDir::create("liburing")?;
    say(
        "Running",
        format!(
            "{} tests of liburing in {}",
            tests.len(),
            dir.path().display()
        ),
    );
    let began = Instant::now();
    let hall = Hall {
        kernels,
        suite: &suite,
        record: &record,
        built,
        rules,
        guard: interrupt::Guard::install().context("cannot handle Ctrl-C")?,
        accels,
        smp: args.smp,
        mem_mib: args.mem,
        timeout_scale: args.timeout_scale,
    };
    // Many tests sleep: two guests do little harm where there is room for one. What does
    // not stand it is run again.
    let guests = match args.guests {
        Some(_) => room,
        None => room.max(sides.len()),
    };
    let mut ran = hall.run("liburing's tests", &tests, 1, guests)?;
    let accel = ran.accel.unwrap_or(Accel::Tcg);
    let terms = Terms {
        record: &record,
        accel,
        sides: &sides,
    };
    let mut cases = compare::cases(&tests, ran.attempts.clone(), terms);
    let (brief, long) = doubtful(&cases);
    let doubts = brief.len() + long.len();
    if doubts > AGAIN_MOST {
        say(
            "Note",
            format!(
                "{doubts} tests are not as they should be; that is too many to be chance, and none \
                 is run again"
            ),
        );
    } else {
        for (tests, times) in [(&brief, args.again), (&long, args.again.min(1))] {
            if ran.interrupted || times == 0 || tests.is_empty() {
                continue;
            }
            let what = format!("{} of them again", tests.len());
            let again = hall.run(&what, tests, times, room)?;
            ran.interrupted |= again.interrupted;
            ran.trouble.extend(again.trouble);
            ran.attempts.extend(again.attempts);
        }
        cases = compare::cases(&tests, ran.attempts, terms);
    }
    let seconds = began.elapsed().as_secs_f64();
    if ran.interrupted {
        cases.retain(|case| case.meaning != Meaning::NotRun);
    }

    let verdict = cases
        .iter()
        .map(Case::verdict)
        .chain(ran.trouble.iter().map(|(verdict, _)| *verdict))
        .max()
        .unwrap_or(Verdict::Infrastructure);
    let trouble: Vec<_> = ran.trouble.into_iter().map(|(_, text)| text).collect();
    keep_logs(dir.path(), &cases)?;
    let json = serde_json::to_vec_pretty(&Results {
        verdict,
        exit_status: verdict.status(),
        liburing: match &own {
            Some(dir) => dir.display().to_string(),
            None => record.source.version.clone(),
        },
        accel,
        smp: args.smp,
        mem_mib: args.mem,
        seconds,
        trouble: &trouble,
        tests: &cases,
    })
    .context("cannot encode the results")?;
    for path in [Some(&dir.join(RESULTS)), args.json.as_ref()]
        .into_iter()
        .flatten()
    {
        fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }

    report::print(&table(&cases, &sides));
    report::print(&times(&cases, &sides));
    for text in &trouble {
        report::print(text);
    }
    report::print(&repeated(args, &cases));
    report::print(&format!("all of it: {}\n", dir.path().display()));
    if ran.interrupted {
        progress::line(format_args!("interrupted"));
    } else {
        report::print(&format!(
            "{} on {}, {} CPUs: {seconds:.1} s\n",
            verdict.words(),
            accel.name(),
            args.smp
        ));
    }
    let (passed, failed, skipped) = count(&cases);
    report::print(&report::closing(passed, failed, skipped));
    Ok(if ran.interrupted {
        interrupt::STATUS.into()
    } else {
        verdict.into()
    })
}

/// Builds the kernels, or takes those that were given.
fn kernels(args: &Args, sides: &[Side]) -> Result<Vec<Kernel>> {
    let given = |side| match side {
        Side::Base => args.kernel_base.as_ref(),
        Side::Patched => args.kernel_patched.as_ref(),
    };
    let pair = if sides.iter().all(|side| given(*side).is_some()) {
        None
    } else {
        Some(build::ensure_pair(
            &PROFILE.parse::<Profile>()?,
            &args.options,
        )?)
    };
    sides
        .iter()
        .map(|side| {
            let (bzimage, config) = match (given(*side), &pair, side) {
                (Some(image), _, _) => {
                    guest::check_image(image)?;
                    (image.clone(), guest::config_beside(image))
                }
                (None, Some((base, _)), Side::Base) => {
                    (base.image.clone(), Some(base.config.clone()))
                }
                (None, Some((_, patched)), Side::Patched) => {
                    (patched.image.clone(), Some(patched.config.clone()))
                }
                (None, None, _) => unreachable!("a kernel that is not given is built"),
            };
            let config = config
                .map(fs::read_to_string)
                .transpose()
                .context("cannot read a kernel's configuration")?
                .unwrap_or_default();
            Ok(Kernel {
                side: *side,
                bzimage,
                config,
            })
        })
        .collect()
}

/// Tests that have to be run again before anything is said of them, and those of which once
/// more is enough, as they wait for their time-out. A kernel that has complained, or died,
/// has done so; and a test that ran out of time on all kernels will do that again.
fn doubtful(cases: &[Case]) -> (Vec<String>, Vec<String>) {
    cases
        .iter()
        .filter(|case| {
            matches!(
                case.meaning,
                Meaning::Differs | Meaning::Fails | Meaning::Stale
            ) && case.verdict() == Verdict::Failed
        })
        .filter(|case| !(case.meaning == Meaning::Fails && case.saw(Outcome::TimeOut)))
        .map(|case| (case.test.clone(), case.saw(Outcome::TimeOut)))
        .fold(
            Default::default(),
            |(mut brief, mut long), (test, waits)| {
                if waits { &mut long } else { &mut brief }.push(test);
                (brief, long)
            },
        )
}

/// Writes what tests have printed that did not pass.
fn keep_logs(dir: &Path, cases: &[Case]) -> Result<()> {
    for case in cases.iter().filter(|case| case.meaning != Meaning::Passes) {
        for side in Side::ALL {
            let mut text = String::new();
            for Attempt {
                outcome,
                ms,
                output,
                directory,
                ..
            } in case.side(side).iter()
            {
                // Writing to a String does not fail.
                let _ = writeln!(
                    text,
                    "---- {} after {ms} ms, in {}\n{}",
                    outcome.words(),
                    directory.display(),
                    output.trim_end()
                );
            }
            if text.is_empty() {
                continue;
            }
            let place = dir.join(side.name());
            fs::create_dir_all(&place)
                .with_context(|| format!("cannot make {}", place.display()))?;
            let path = place.join(format!("{}.log", case.test.replace([' ', '/'], "_")));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What there is to say of a test.
fn remark(case: &Case) -> String {
    let reason = case.reason.as_deref().unwrap_or_default();
    match case.meaning {
        Meaning::Passes => String::new(),
        Meaning::Known => reason.to_owned(),
        Meaning::Skips => "not on record in ci/liburing.toml".to_owned(),
        Meaning::Varies => "not always the same".to_owned(),
        Meaning::Fails => "FAILS, and is not on record in ci/liburing.toml".to_owned(),
        Meaning::Stale => format!("STALE: ci/liburing.toml says otherwise ({reason})"),
        Meaning::Differs => "DIFFERENT".to_owned(),
        Meaning::Splat => "THE KERNEL COMPLAINS".to_owned(),
        Meaning::NotRun => "NOT RUN".to_owned(),
    }
}

/// All that is not the same, or does not pass; then how many did what.
fn table(cases: &[Case], sides: &[Side]) -> String {
    let mut head = vec!["test".to_owned()];
    head.extend(sides.iter().map(|side| side.name().to_owned()));
    head.push(String::new());
    let mut rows = vec![head];
    let shown = cases.iter().filter(|case| case.meaning != Meaning::Passes);
    for case in shown {
        let mut row = vec![case.test.clone()];
        row.extend(sides.iter().map(|side| case.side(*side).words()));
        row.push(remark(case));
        rows.push(row);
    }
    for outcome in [
        Outcome::Passed,
        Outcome::Skipped,
        Outcome::Failed,
        Outcome::TimeOut,
        Outcome::Splat,
        Outcome::Lost,
    ] {
        let counts: Vec<_> = sides
            .iter()
            .map(|side| {
                cases
                    .iter()
                    .filter(|case| case.side(*side).usual() == Some(outcome))
                    .count()
            })
            .collect();
        let always = matches!(
            outcome,
            Outcome::Passed | Outcome::Skipped | Outcome::Failed
        );
        if always || counts.iter().any(|count| *count > 0) {
            let mut row = vec![format!("= {}", outcome.words())];
            row.extend(counts.iter().map(usize::to_string));
            row.push(String::new());
            rows.push(row);
        }
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        text
    })
}

/// How long tests took, all in all, and those that took longest.
fn times(cases: &[Case], sides: &[Side]) -> String {
    let mut text = String::new();
    for side in sides {
        let mut times: Vec<_> = cases
            .iter()
            .filter_map(|case| {
                let longest = case.side(*side).iter().map(|attempt| attempt.ms).max()?;
                Some((longest, case.test.as_str()))
            })
            .collect();
        times.sort_by(|a, b| b.cmp(a));
        let all: u64 = times.iter().map(|(ms, _)| ms).sum();
        let longest: Vec<_> = times
            .iter()
            .take(SLOWEST)
            .map(|(ms, test)| format!("{test} {:.1}", *ms as f64 / 1000.0))
            .collect();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}: {:.1} s in tests; longest: {}",
            side.name(),
            all as f64 / 1000.0,
            longest.join(", ")
        );
    }
    text
}

/// The commands that run what failed again.
fn repeated(args: &Args, cases: &[Case]) -> String {
    let bad: Vec<_> = cases.iter().filter(|case| case.meaning.is_bad()).collect();
    if bad.is_empty() {
        return String::new();
    }
    let mut text = "\nTo run one of them again:\n".to_owned();
    for case in bad.iter().take(REPEATED) {
        let words = reproduction(args, &case.test);
        // Writing to a String does not fail.
        let _ = writeln!(text, "    {words}");
    }
    if bad.len() > REPEATED {
        let _ = writeln!(text, "    ... and {} more", bad.len() - REPEATED);
    }
    text.push('\n');
    text
}

fn reproduction(args: &Args, test: &str) -> String {
    let mut words = ["cargo", "xtask", "liburing"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    let given = [
        ("--kernel-base", &args.kernel_base),
        ("--kernel-patched", &args.kernel_patched),
        ("--tarball", &args.options.tarball),
    ];
    for (name, path) in given {
        if let Some(path) = path {
            option(name, &path.display().to_string());
        }
    }
    if args.options.llvm != "1" {
        option("--llvm", &args.options.llvm);
    }
    option("--smp", &args.smp.to_string());
    option("--mem", &args.mem.to_string());
    option("--filter", test);
    words.push("--exact".to_owned());
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    quoted(&words)
}

/// How many tests are as they should be, are not, and say nothing.
fn count(cases: &[Case]) -> (u32, u32, u32) {
    let count = |wanted: fn(&Case) -> bool| {
        let count = cases.iter().filter(|case| wanted(case)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let passed = count(|case| case.meaning == Meaning::Passes);
    let failed = count(|case| case.meaning.is_bad());
    (
        passed,
        failed,
        u32::try_from(cases.len()).unwrap_or(u32::MAX) - passed - failed,
    )
}

#[cfg(test)]
mod tests {
    use super::{compare::tests::attempts, *};

    fn case(test: &str, meaning: Meaning, base: &[Outcome], patched: &[Outcome]) -> Case {
        Case {
            test: test.to_owned(),
            meaning,
            base: attempts(base),
            patched: attempts(patched),
            reason: (meaning == Meaning::Known).then(|| "needs a cow".to_owned()),
        }
    }

    fn cases() -> Vec<Case> {
        use Outcome::{Failed, Passed, Skipped};
        vec![
            case("nop", Meaning::Passes, &[Passed], &[Passed]),
            case("napi-test", Meaning::Known, &[Skipped], &[Skipped]),
            case("link", Meaning::Differs, &[Passed; 3], &[Failed; 3]),
            case(
                "poll",
                Meaning::Varies,
                &[Passed; 3],
                &[Failed, Passed, Passed],
            ),
        ]
    }

    #[test]
    fn the_table_shows_what_is_not_plain() {
        assert_eq!(
            table(&cases(), &Side::ALL),
            "test       base     patched\n\
             napi-test  skipped  skipped                 needs a cow\n\
             link       passed   failed                  DIFFERENT\n\
             poll       passed   passed 2/3, failed 1/3  not always the same\n\
             = passed   3        2\n\
             = skipped  1        1\n\
             = failed   0        1\n"
        );
        let one = table(&cases(), &[Side::Base]);
        assert!(one.starts_with("test       base\n"), "{one}");
        assert!(!one.contains("failed 1/3"), "{one}");
    }

    #[test]
    fn every_test_is_counted_once() {
        assert_eq!(count(&cases()), (1, 1, 2));
        assert_eq!(count(&[]), (0, 0, 0));
    }

    #[test]
    fn only_what_may_be_chance_is_run_again() {
        use Outcome::{Failed, Passed, Splat, TimeOut};
        let mut cases = cases();
        for (test, meaning, base, patched) in [
            ("oops", Meaning::Differs, Passed, Splat),
            ("hang", Meaning::Differs, Passed, TimeOut),
            ("slow", Meaning::Fails, TimeOut, TimeOut),
            ("fail", Meaning::Fails, Failed, Failed),
        ] {
            cases.push(case(test, meaning, &[base], &[patched]));
        }
        let (brief, long) = doubtful(&cases);
        assert_eq!(brief, ["link", "fail"]);
        assert_eq!(long, ["hang"]);
    }

    #[test]
    fn the_slowest_are_named() {
        let text = times(&cases(), &[Side::Base]);
        assert!(
            text.starts_with("base: 0.0 s in tests; longest: "),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn the_logs_are_kept_of_what_is_not_plain() {
        let dir = tempfile::tempdir().unwrap();
        keep_logs(dir.path(), &cases()).unwrap();
        let log = |path: &str| fs::read_to_string(dir.path().join(path));
        assert!(log("patched/link.log").unwrap().contains("---- failed"));
        assert_eq!(log("base/poll.log").unwrap().matches("----").count(), 3);
        assert!(log("base/nop.log").is_err());
    }
}
