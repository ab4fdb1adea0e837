// SPDX-License-Identifier: GPL-2.0-only
//! What KUnit has said in a kernel log, in KTAP.
//!
//! As KUnit writes it, suites are not indented, their cases are by four blanks. What is deeper, the
//! parameters of a case, belongs to the output of the case, and so does all that the
//! kernel prints in between. A line that was lost is found by the plans and numbers, so
//! that what is left does not look like all there was.

use harness::tap::Line;
pub(crate) use harness::tap::Status;

/// Of the output before a result, so many lines are kept, the last ones.
const OUTPUT: usize = 60;

/// A case of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// What was printed before its result, in whole lines.
    pub(crate) output: String,
}

/// A suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) cases: Vec<Case>,
    /// What is wrong with it besides cases that failed.
    pub(crate) faults: Vec<String>,
}

/// All that KUnit has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ktap {
    pub(crate) suites: Vec<Suite>,
    /// What is wrong besides what is wrong with a suite.
    pub(crate) faults: Vec<String>,
}

/// A suite that has begun.
struct Open {
    suite: Suite,
    plan: Option<usize>,
    output: Vec<String>,
}

impl Open {
    fn new() -> Self {
        let suite = Suite {
            name: String::new(),
            cases: Vec::new(),
            faults: Vec::new(),
        };
        Self {
            suite,
            plan: None,
            output: Vec::new(),
        }
    }

    fn output(&mut self, line: &str) {
        if self.output.len() == OUTPUT {
            self.output.remove(0);
        }
        self.output.push(format!("{line}\n"));
    }

    fn case(&mut self, number: usize, name: &str, status: Status) {
        let Suite { cases, faults, .. } = &mut self.suite;
        let due = cases.len() + 1;
        if number != due && faults.is_empty() {
            faults.push(format!(
                "its case {number}, {name}, came where case {due} was due: lines of the log are missing"
            ));
        }
        cases.push(Case {
            name: name.to_owned(),
            status,
            output: self.output.drain(..).collect(),
        });
    }

    /// How many cases there are, of how many.
    fn progress(&self) -> String {
        let plan = self
            .plan
            .map_or_else(|| "an unknown number".to_owned(), |plan| plan.to_string());
        format!("{} of {plan} cases have a result", self.suite.cases.len())
    }

    /// The suite, without a result of its own.
    fn torn(mut self) -> Suite {
        let last = self.suite.cases.last().map_or_else(
            || "there is none".to_owned(),
            |case| format!("the last is {}", case.name),
        );
        let fault = format!("it does not end: {}, {last}", self.progress());
        self.suite.faults.push(fault);
        self.suite
    }

    /// The suite, with its own result.
    fn end(mut self, name: &str, status: &Status) -> Suite {
        if self.suite.name != name {
            let fault = format!("the result of {name} came before its own");
            self.suite.faults.push(fault);
        }
        if self.plan != Some(self.suite.cases.len()) && self.suite.faults.is_empty() {
            let fault = format!("it ends too early: {}", self.progress());
            self.suite.faults.push(fault);
        }
        let failed = |case: &Case| case.status == Status::Failed;
        if *status == Status::Failed && !self.suite.cases.iter().any(failed) {
            let fault = format!(
                "it has failed as a whole\n{}",
                self.output.concat().trim_end()
            );
            self.suite.faults.push(fault);
        }
        self.suite
    }
}

/// Reads a log, line by line and without what printk puts before them.
pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Ktap {
    let mut ktap = Ktap::default();
    let mut open: Option<Open> = None;
    // Suites that the run has announced, and that have ended. There may be several
    // runs, one for each module that has suites.
    let mut run: Option<(Option<usize>, usize)> = None;

    for line in lines {
        let text = line.trim_start_matches(' ');
        let known = match line.len() - text.len() {
            0 => Line::parse(text).map(|line| (0, line)),
            4 => Line::parse(text).map(|line| (1, line)),
            _ => None,
        };
        match (known, &mut open, &mut run) {
            (Some((0, Line::Version)), _, _) => {
                ktap.suites.extend(open.take().map(Open::torn));
                ktap.faults.extend(run.take().and_then(too_few));
                run = Some((None, 0));
            }
            (Some((0, Line::Plan(plan))), None, Some((announced @ None, 0))) => {
                *announced = Some(plan);
            }
            (Some((0, Line::Result { name, status, .. })), _, Some((announced, ended))) => {
                let suite = match open.take() {
                    Some(open) => open.end(name, &status),
                    // It was skipped, or its preparation has failed.
                    None => result_only(name, &status),
                };
                ktap.suites.push(suite);
                *ended += 1;
                // What comes now is no KTAP, even if it looks so.
                if *announced == Some(*ended) {
                    run = None;
                }
            }
            (Some((1, Line::Version)), _, Some(_)) => {
                ktap.suites.extend(open.take().map(Open::torn));
                open = Some(Open::new());
            }
            (Some((1, Line::Name(name))), Some(open), _) if open.suite.name.is_empty() => {
                name.clone_into(&mut open.suite.name);
            }
            (Some((1, Line::Plan(plan))), Some(open), _) if open.plan.is_none() => {
                open.plan = Some(plan);
                // What came before is about the suite, not about its first case.
                open.output.clear();
            }
            (
                Some((
                    1,
                    Line::Result {
                        number,
                        name,
                        status,
                    },
                )),
                Some(open),
                _,
            ) => {
                open.case(number, name, status);
            }
            (_, Some(open), _) => open.output(line),
            _ => {}
        }
    }
    ktap.suites.extend(open.take().map(Open::torn));
    ktap.faults.extend(run.and_then(too_few));
    ktap
}

/// A suite that has a result and nothing else.
fn result_only(name: &str, status: &Status) -> Suite {
    let faults = match status {
        Status::Passed => vec!["it has passed without a case".to_owned()],
        Status::Failed => vec!["it has failed before its first case".to_owned()],
        Status::Skipped(_) => Vec::new(),
    };
    Suite {
        name: name.to_owned(),
        cases: Vec::new(),
        faults,
    }
}

/// What is wrong with a run that has announced so many suites, and ended so many.
fn too_few((announced, ended): (Option<usize>, usize)) -> Option<String> {
    match announced {
        Some(announced) if announced == ended => None,
        Some(announced) => Some(format!(
            "{announced} suites were to run, and {ended} have ended"
        )),
        None => Some("a run does not say how many suites it has".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

    use super::*;
    use crate::log_rules::{Rules, Scanner};

    /// The logs by their names, and what has to come of each.
    fn goldens() -> BTreeMap<String, (Vec<u8>, String)> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/ktap");
        fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .map(|path| {
                let golden = fs::read_to_string(path.with_extension("golden")).unwrap();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, (fs::read(&path).unwrap(), golden))
            })
            .collect()
    }

    fn scan(log: &[u8]) -> Scanner<'static> {
        static RULES: LazyLock<Rules> =
            LazyLock::new(|| Rules::parse(include_str!("../../../ci/log-rules.toml")).unwrap());
        let mut scanner = Scanner::new(&RULES);
        scanner.push(log);
        scanner.finish();
        scanner
    }

    fn read(log: &[u8]) -> Ktap {
        parse(scan(log).texts())
    }

    /// In words, the output of what has failed included.
    fn shown(ktap: &Ktap) -> String {
        let mut text = String::new();
        for Suite {
            name,
            cases,
            faults,
        } in &ktap.suites
        {
            for case in cases {
                let (status, rest) = match &case.status {
                    Status::Passed => ("passed ", String::new()),
                    Status::Failed => ("failed ", String::new()),
                    Status::Skipped(why) => ("skipped", format!(": {why}")),
                };
                text += &format!("{status} {name} {}{rest}\n", case.name);
                if case.status == Status::Failed {
                    let lines = case.output.lines();
                    text.extend(lines.map(|line| format!("  |{line}\n")));
                }
            }
            text.extend(
                faults
                    .iter()
                    .map(|fault| format!("fault   {name}: {fault}\n")),
            );
        }
        text.extend(ktap.faults.iter().map(|fault| format!("fault   {fault}\n")));
        text
    }

    #[test]
    fn every_log_is_read_as_its_golden_says() {
        let goldens = goldens();
        assert!(!goldens.is_empty());
        for (name, (log, golden)) in goldens {
            let scanner = scan(&log);
            assert_eq!(shown(&parse(scanner.texts())), golden, "{name}.log");
            // A case that fails is a test that fails, and not a complaint of the kernel.
            let complains = !scanner.findings().is_empty();
            assert_eq!(complains, name == "torn", "{name}.log");
        }
    }

    /// Wherever a log is cut, and whichever line is lost: what is left never looks like a
    /// suite that has passed, unless it is gone as a whole.
    #[test]
    fn no_line_is_lost_unnoticed() {
        let (log, _) = &goldens()["passed"];
        let log = String::from_utf8(log.clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let whole = read(log.as_bytes());
        let good = |ktap: &Ktap| {
            ktap.faults.is_empty() && ktap.suites.iter().all(|suite| suite.faults.is_empty())
        };
        assert!(good(&whole));
        for at in 0..lines.len() {
            let cut = lines[..at].to_vec();
            let lost = [&lines[..at], &lines[at + 1..]].concat();
            for rest in [cut, lost] {
                let rest = rest.join("\n");
                let ktap = read(rest.as_bytes());
                let same = shown(&ktap) == shown(&whole);
                assert!(same || ktap.suites.is_empty() || !good(&ktap), "{rest}");
            }
        }
    }

    /// A case that prints without end leaves its last lines.
    #[test]
    fn output_is_bounded() {
        let mut log =
            "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: a\n    1..1\n".to_owned();
        (0..1000).for_each(|line| log += &format!("line {line}\n"));
        log += "    not ok 1 b\nnot ok 1 a\n";
        let ktap = read(log.as_bytes());
        let output = &ktap.suites[0].cases[0].output;
        assert_eq!(output.lines().count(), OUTPUT);
        assert!(output.ends_with("line 999\n"));
    }
}
