// SPDX-License-Identifier: GPL-2.0-only
//! What came of a command, in the form that reports are written from.
//!
//! A command that judges fills in a [`Sheet`]; [`page`] makes of it what people read, and
//! [`junit`] what other machines read. A command that `cargo xtask ci` has started hands its
//! sheets on to it, for one page over all of them.

pub(crate) mod files;
pub(crate) mod junit;
pub(crate) mod page;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{cache, follow::quoted, paths, progress::say, run, run_dir::RunDir, verdict::Verdict};

/// The page in the directory of a run.
const PAGE: &str = "report.html";

/// Names the directory into which `cargo xtask ci` wants the sheets of its steps.
pub(crate) const HAND_ON_ENV: &str = "SQE_GROUP_SHEETS";

/// What is shown of an output: its end, up to so many bytes.
const OUTPUT: usize = 64 << 10;

/// All there is to tell of a command, or of one kernel if it runs several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sheet {
    /// A heading.
    pub(crate) title: String,
    /// A word that tells it from others of the same command.
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// Ctrl-C: what has not come would perhaps have come.
    pub(crate) interrupted: bool,
    /// In seconds since 1970.
    pub(crate) began: i64,
    pub(crate) seconds: f64,
    /// What ran where.
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) cases: Vec<Case>,
    /// Of the kernel, in its log.
    pub(crate) complaints: Vec<Complaint>,
    /// What else is wrong, with the run as a whole. In whole lines.
    pub(crate) trouble: String,
    /// Does all of it again.
    pub(crate) command: String,
}

/// One thing that passes or fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    /// With `::` between its parts.
    pub(crate) name: String,
    /// Which repetition, from 1.
    pub(crate) round: u32,
    /// How long, if that is known.
    pub(crate) ms: Option<u64>,
    pub(crate) status: Status,
    /// Does it again, alone. For what has failed.
    pub(crate) command: Option<String>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    Passed,
    Skipped {
        why: String,
    },
    /// The run was over before.
    NotRun,
    Failed {
        kind: Kind,
        output: String,
    },
}

/// How something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// It says so itself.
    Failed,
    TimeOut,
    /// The kernel complained meanwhile.
    Complaint,
    /// The guest was lost meanwhile.
    Lost,
    /// It could not be tried.
    Untried,
}

impl Kind {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimeOut => "time-out",
            Self::Complaint => "the kernel complained",
            Self::Lost => "never ended",
            Self::Untried => "could not be tried",
        }
    }
}

/// A complaint of the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Complaint {
    /// The rule that found it.
    pub(crate) rule: String,
    /// The test that was running.
    pub(crate) test: Option<String>,
    pub(crate) headline: String,
    /// The log around it.
    pub(crate) log: String,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    pub(crate) not_run: usize,
    pub(crate) ms: u64,
}

impl Tally {
    fn add(&mut self, case: &Case) {
        match case.status {
            Status::Passed => self.passed += 1,
            Status::Failed { .. } => self.failed += 1,
            Status::Skipped { .. } => self.skipped += 1,
            Status::NotRun => self.not_run += 1,
        }
        self.ms += case.ms.unwrap_or(0);
    }

    fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut tally = Self::default();
        cases.into_iter().for_each(|case| tally.add(case));
        tally
    }
}

/// All failures of one name.
pub(crate) struct Failures<'a> {
    pub(crate) name: &'a str,
    /// The first one.
    pub(crate) first: &'a Case,
    /// The rounds in which it failed.
    pub(crate) rounds: Vec<u32>,
    /// How often it passed or failed.
    pub(crate) of: usize,
}

impl Failures<'_> {
    /// How often, where that needs saying.
    pub(crate) fn often(&self) -> Option<String> {
        let often = || format!("failed {} of {} times", self.rounds.len(), self.of);
        (self.of > 1).then(often)
    }
}

/// What a case is about: its module. With KUnit a suite is what a module is elsewhere.
fn module(name: &str) -> &str {
    let suites = "kunit::";
    let from = if name.starts_with(suites) {
        suites.len()
    } else {
        0
    };
    let end = name[from..].find("::");
    end.map_or(name, |end| &name[..from + end])
}

/// The rule that a case checks: what the name of its function begins with.
fn rule(name: &str) -> Option<&str> {
    let function = name[module(name).len()..].strip_prefix("::")?;
    let function = &function[..function.find("::").unwrap_or(function.len())];
    let end = match function.strip_prefix("v1_") {
        Some(rest) => "v1_".len() + rest.find('_')?,
        None => function.find('_')?,
    };
    Some(&function[..end])
}

impl Sheet {
    /// The round of the last case.
    pub(crate) fn rounds(&self) -> u32 {
        self.cases.iter().map(|case| case.round).max().unwrap_or(1)
    }

    fn tally(&self) -> Tally {
        Tally::of(&self.cases)
    }

    /// The tally of each key that a name has, in the order of the keys.
    fn tallies(&self, key: impl Fn(&str) -> Option<&str>) -> BTreeMap<&str, Tally> {
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for case in &self.cases {
            if let Some(key) = key(&case.name) {
                tallies.entry(key).or_default().add(case);
            }
        }
        tallies
    }

    /// What failed, in the order in which it did first.
    pub(crate) fn failures(&self) -> Vec<Failures<'_>> {
        let mut failures: Vec<Failures<'_>> = Vec::new();
        let mut places = BTreeMap::new();
        for case in &self.cases {
            if !matches!(case.status, Status::Failed { .. }) {
                continue;
            }
            let place = *places.entry(case.name.as_str()).or_insert_with(|| {
                failures.push(Failures {
                    name: &case.name,
                    first: case,
                    rounds: Vec::new(),
                    of: 0,
                });
                failures.len() - 1
            });
            failures[place].rounds.push(case.round);
        }
        for case in &self.cases {
            if matches!(case.status, Status::Failed { .. } | Status::Passed) {
                if let Some(place) = places.get(case.name.as_str()) {
                    failures[*place].of += 1;
                }
            }
        }
        failures
    }

    /// The longest run of each name, the longest first.
    fn slowest(&self) -> Vec<(&str, u64)> {
        let mut slowest: BTreeMap<&str, u64> = BTreeMap::new();
        for case in &self.cases {
            if let Some(ms) = case.ms {
                let longest = slowest.entry(&case.name).or_default();
                *longest = ms.max(*longest);
            }
        }
        let mut slowest: Vec<_> = slowest.into_iter().collect();
        slowest.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
        slowest
    }

    /// The reasons for which cases were skipped, with how many of each.
    fn skips(&self) -> BTreeMap<&str, usize> {
        let mut skips = BTreeMap::new();
        for case in &self.cases {
            if let Status::Skipped { why } = &case.status {
                *skips.entry(why.as_str()).or_default() += 1;
            }
        }
        skips
    }

    /// Writes the page into the directory of the run, and says where it is. What does not
    /// succeed is no part of the verdict, and is said.
    pub(crate) fn publish(&self, dir: &RunDir) {
        let path = dir.join(PAGE);
        match cache::write_whole(&path, page::of_run(self).as_bytes()) {
            Ok(()) => say("Report", path.display().to_string()),
            Err(error) => say("Note", format!("there is no page of this run: {error:#}")),
        }
        if let Some(to) = env::var_os(HAND_ON_ENV) {
            if let Err(error) = self.hand_on(Path::new(&to)) {
                say(
                    "Note",
                    format!("the page of all steps lacks this run: {error:#}"),
                );
            }
        }
    }

    fn hand_on(&self, to: &Path) -> Result<()> {
        let count = fs::read_dir(to)
            .with_context(|| format!("cannot read {}", to.display()))?
            .count();
        let json = serde_json::to_vec(self).context("cannot encode it")?;
        cache::write_whole(&to.join(format!("{count:04}.json")), &json)
    }
}

/// Writes the page of a command with steps, and tells where it is.
pub(crate) fn publish_steps(
    dir: &RunDir,
    whole: &Sheet,
    steps: &[page::Step<'_>],
) -> Result<PathBuf> {
    let path = dir.join(PAGE);
    cache::write_whole(&path, page::of_steps(whole, steps).as_bytes())?;
    Ok(path)
}

/// Takes what was handed on, in that order.
pub(crate) fn handed_on(from: &Path) -> Result<Vec<Sheet>> {
    let context = || format!("cannot read {}", from.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(from).with_context(context)? {
        paths.push(entry.with_context(context)?.path());
    }
    paths.sort();
    let sheets = paths.iter().map(|path| {
        let json = fs::read(path).with_context(context)?;
        let sheet = serde_json::from_slice(&json).with_context(context)?;
        fs::remove_file(path).with_context(context)?;
        Ok(sheet)
    });
    sheets.collect()
}

/// The command that this process is, as one types it.
pub(crate) fn invocation() -> String {
    typed(env::args_os().skip(1))
}

/// The same command for one `value` of an option that chooses.
pub(crate) fn invocation_for(option: &str, value: &str) -> String {
    typed(chosen(env::args_os().skip(1), option, value))
}

fn typed(arguments: impl IntoIterator<Item = OsString>) -> String {
    let words: Vec<_> = ["cargo".into(), "xtask".into()]
        .into_iter()
        .chain(arguments)
        .collect();
    quoted(&words)
}

fn chosen(
    mut arguments: impl Iterator<Item = OsString>,
    option: &str,
    value: &str,
) -> Vec<OsString> {
    let mut words = Vec::new();
    let joined = format!("{option}=");
    while let Some(word) = arguments.next() {
        if word == option {
            arguments.next();
        } else if !word.to_string_lossy().starts_with(&joined) {
            words.push(word);
        }
    }
    words.extend([option.into(), format!("^{}$", regex::escape(value)).into()]);
    words
}

/// The time, in seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// A time in words.
fn date(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Which state of the checkout this is, if it is one of git's.
pub(crate) fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(paths::root().ok()?).args(arguments);
        Some(run::output(&mut command).ok()?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let changed = if changed.is_empty() {
        ""
    } else {
        ", and changes"
    };
    Some(commit + changed)
}

/// The machine that it ran on, if asked when it is over: how many processors, and how much
/// they had to do.
pub(crate) fn host() -> String {
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    match load.split(' ').next() {
        Some(load) if !load.is_empty() => format!("{cpus} CPUs, load {load} at the end"),
        _ => format!("{cpus} CPUs"),
    }
}

/// What is to be known of a run wherever it was.
pub(crate) fn common_facts() -> Vec<(String, String)> {
    let commit = commit().map(|commit| ("commit".to_owned(), commit));
    iter::once(("host".to_owned(), host()))
        .chain(commit)
        .collect()
}

/// The end of an output that may be long.
pub(crate) fn end_of(output: &str) -> String {
    let output = output.trim_end();
    let Some(cut) = output.len().checked_sub(OUTPUT).filter(|cut| *cut > 0) else {
        return output.to_owned();
    };
    let cut = (cut..output.len()).find(|at| output.is_char_boundary(*at));
    format!("[...]\n{}", &output[cut.unwrap_or(output.len())..])
}

/// With each character that is not for the eye shown as one that is: some may not be in XML
/// or HTML, whatever stands for them.
fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        // There is a picture of each, in this order.
        '\0'..='\x1f' => {
            char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    text.replace("\r\n", "\n").chars().map(picture).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn case(name: &str, round: u32, status: Status) -> Case {
        let command = matches!(status, Status::Failed { .. });
        Case {
            name: name.to_owned(),
            round,
            ms: Some(7),
            status,
            command: command.then(|| format!("again '{name}'")),
        }
    }

    pub(crate) fn failed(kind: Kind, output: &str) -> Status {
        Status::Failed {
            kind,
            output: output.to_owned(),
        }
    }

    pub(crate) fn skipped(why: &str) -> Status {
        Status::Skipped {
            why: why.to_owned(),
        }
    }

    pub(crate) fn sheet(verdict: Verdict, cases: Vec<Case>) -> Sheet {
        Sheet {
            title: "Tests on <default>".to_owned(),
            name: "default".to_owned(),
            verdict,
            interrupted: false,
            began: 1_000_000_000,
            seconds: 12.25,
            facts: vec![("kernel".to_owned(), "Linux 7.3.4 & more".to_owned())],
            cases,
            complaints: Vec::new(),
            trouble: String::new(),
            command: "cargo xtask qemu-test".to_owned(),
        }
    }

    #[test]
    fn names_tell_module_and_rule() {
        for (name, of, by) in [
            ("cancel::x4_in_time::sqpoll", "cancel", Some("x4")),
            ("v1::v1_08_members_in_order::m", "v1", Some("v1_08")),
            (
                "kunit::io_uring_group::c5_a",
                "kunit::io_uring_group",
                Some("c5"),
            ),
            ("kunit::io_uring_group", "kunit::io_uring_group", None),
            ("kunit", "kunit", None),
            ("storm::storm", "storm", None),
            ("v1::v1_08", "v1", None),
        ] {
            assert_eq!((module(name), rule(name)), (of, by), "{name}");
        }
    }

    #[test]
    fn a_test_that_failed_some_times_says_how_often() {
        let sheet = sheet(
            Verdict::Failed,
            vec![
                case("a::x1_b", 1, Status::Passed),
                case("a::x1_c", 1, skipped("no")),
                case("a::x1_b", 2, failed(Kind::TimeOut, "first")),
                case("a::x1_c", 2, failed(Kind::Failed, "only")),
                case("a::x1_b", 3, failed(Kind::Failed, "second")),
                case("a::x1_c", 3, Status::NotRun),
            ],
        );
        let failures = sheet.failures();
        assert_eq!(failures.len(), 2);
        assert_eq!((failures[0].name, failures[0].of), ("a::x1_b", 3));
        assert_eq!(failures[0].rounds, [2, 3]);
        assert_eq!(failures[0].often().unwrap(), "failed 2 of 3 times");
        assert_eq!(failures[0].first.status, failed(Kind::TimeOut, "first"));
        assert_eq!(failures[1].often(), None);
        assert_eq!(sheet.rounds(), 3);
        let of_b = Tally::of(sheet.cases.iter().filter(|case| case.name == "a::x1_b"));
        assert_eq!((of_b.passed, of_b.failed, of_b.ms), (1, 2, 21));
        let tally = sheet.tallies(rule)["x1"];
        assert_eq!(
            (tally.passed, tally.failed, tally.skipped, tally.not_run),
            (1, 3, 1, 1)
        );
    }

    #[test]
    fn the_end_of_an_output_is_what_is_left_of_it() {
        assert_eq!(end_of("a\nb\n\n"), "a\nb");
        let long = "\u{e9}".repeat(OUTPUT) + "end";
        let end = end_of(&long);
        assert!(end.starts_with("[...]\n\u{e9}") && end.ends_with("end"));
        assert!(end.len() < OUTPUT + 10);
    }

    #[test]
    fn what_cannot_be_seen_is_made_visible() {
        assert_eq!(
            visible("a\tb\r\nc\rd\x1b[1m\0\x7f\u{85}\u{ffff}\u{e9}"),
            "a\tb\nc\u{240d}d\u{241b}[1m\u{2400}\u{2421}\u{fffd}\u{fffd}\u{e9}"
        );
    }

    #[test]
    fn sheets_are_handed_on_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            let mut sheet = sheet(
                Verdict::Passed,
                vec![case("a", 1, failed(Kind::Lost, "\x1b"))],
            );
            sheet.name = name.to_owned();
            sheet.hand_on(dir.path()).unwrap();
        }
        let sheets = handed_on(dir.path()).unwrap();
        let names: Vec<_> = sheets.iter().map(|sheet| sheet.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        assert_eq!(sheets[0].cases[0].status, failed(Kind::Lost, "\x1b"));
        assert!(
            handed_on(dir.path()).unwrap().is_empty(),
            "each is taken once"
        );
        assert!(sheets[0].hand_on(&dir.path().join("none")).is_err());
    }

    #[test]
    fn one_is_chosen_in_place_of_those_that_were() {
        let words = [
            "mistakes",
            "--only",
            "a b",
            "--only=c",
            "--profile",
            "debug",
        ];
        let words = words.into_iter().map(OsString::from);
        assert_eq!(
            typed(chosen(words, "--only", "v1_01")),
            "cargo xtask mistakes --profile debug --only '^v1_01$'"
        );
    }

    #[test]
    fn times_are_told_in_words() {
        assert_eq!(date(1_000_000_000), "2001-09-09 01:46 UTC");
        assert!(host().contains("CPUs"));
    }
}
