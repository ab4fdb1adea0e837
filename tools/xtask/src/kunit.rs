// SPDX-License-Identifier: GPL-2.0-only
//! The tests that a kernel runs itself when it boots, as tests of a run.
//!
//! What has reported is counted, whichever kernel it is. What should have reported and
//! has not is a failure: a suite that is silent does not differ from one that passes,
//! but for that.

use harness::protocol::{Outcome, SKIP_PREFIX};
use serde::Serialize;

use crate::ktap::{Ktap, Status};

/// What the name of a test begins with, before its suite and its case.
const ALL: &str = "kunit";

/// A suite of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// What builds it.
    option: &'static str,
    name: &'static str,
}

const SUITES: [Suite; 1] = [Suite {
    option: "CONFIG_IO_URING_GROUP_KUNIT_TEST",
    name: "io_uring_group",
}];

impl Suite {
    fn is_in(&self, config: &str) -> bool {
        let option = |line: &str| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let rest = line.strip_prefix(self.option)?;
            rest.starts_with(['=', ' ']).then(|| rest == "=y")
        };
        // The last one wins, as with fragments.
        config.lines().rev().find_map(option) == Some(true)
    }

    fn test(&self) -> String {
        format!("{ALL}::{}", self.name)
    }
}

/// What a kernel should report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Suites that it has.
    required: Vec<Suite>,
    /// Suites that its profile asks for, and that it was built without.
    lacking: Vec<Suite>,
}

impl Expected {
    /// Of a kernel with this configuration, or if that is not known, one that is as its
    /// profile asks for.
    pub(crate) fn new(profile: &str, config: Option<&str>) -> Self {
        let config = config.unwrap_or(profile);
        let (required, rest): (Vec<_>, Vec<_>) =
            SUITES.iter().partition(|suite| suite.is_in(config));
        Self {
            required,
            lacking: rest
                .into_iter()
                .filter(|suite| suite.is_in(profile))
                .collect(),
        }
    }

    /// Whether a filter may be meant for a test that is known only when it has run.
    pub(crate) fn may_match(&self, filter: &str) -> bool {
        let Self { required, lacking } = self;
        let any = !required.is_empty() || !lacking.is_empty();
        any && filter.trim_start_matches('^').starts_with(ALL)
    }
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TestResult {
    /// Its name.
    pub(crate) test: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What the kernel printed meanwhile, or what is wrong.
    pub(crate) output: String,
}

impl TestResult {
    fn failed(test: String, why: String) -> Self {
        Self {
            test,
            outcome: Outcome::Failed,
            output: why + "\n",
        }
    }

    /// Of a filter that matches none of `results`.
    pub(crate) fn absent(filter: &str, results: &[Self]) -> Self {
        let example = match results.first() {
            Some(result) => format!("{}, for example {}", results.len(), result.test),
            None => "none".to_owned(),
        };
        let why = format!("no test matches this filter; of KUnit there are {example}");
        Self::failed(filter.to_owned(), why)
    }
}

/// All that there is to say about it, as tests: cases, and what is wrong with suites.
pub(crate) fn results(ktap: Ktap, expected: &Expected) -> Vec<TestResult> {
    let Ktap { suites, faults } = ktap;
    let mut results = Vec::new();
    let Expected { required, lacking } = expected;

    for suite in required {
        if !suites.iter().any(|reported| reported.name == suite.name) {
            let why = format!(
                "{} is in the kernel's configuration, but the suite has not reported: the console \
                 log has no result of it. It runs when the kernel boots, unless kunit.enable=0 or \
                 a filter is on its command line, or it died before.",
                suite.option
            );
            results.push(TestResult::failed(suite.test(), why));
        }
    }
    for suite in lacking {
        if !suites.iter().any(|reported| reported.name == suite.name) {
            results.push(TestResult {
                test: suite.test(),
                outcome: Outcome::Skipped,
                output: format!(
                    "{SKIP_PREFIX}the kernel was built without {}\n",
                    suite.option
                ),
            });
        }
    }
    for suite in suites {
        let name = format!("{ALL}::{}", suite.name);

        for case in suite.cases {
            let (outcome, output) = match case.status {
                Status::Passed => (Outcome::Passed, case.output),
                Status::Failed => (Outcome::Failed, case.output),
                Status::Skipped(why) => (
                    Outcome::Skipped,
                    format!("{}{SKIP_PREFIX}{why}\n", case.output),
                ),
            };
            results.push(TestResult {
                test: format!("{name}::{}", case.name),
                outcome,
                output,
            });
        }
        let failed = |fault| TestResult::failed(name.clone(), fault);
        results.extend(suite.faults.into_iter().map(failed));
    }
    let failed = |fault| TestResult::failed(ALL.to_owned(), fault);
    results.extend(faults.into_iter().map(failed));
    results
}

/// How many passed, failed and were skipped.
pub(crate) fn count(results: &[TestResult]) -> (u32, u32, u32) {
    let count = |outcome| {
        let count = results
            .iter()
            .filter(|result| result.outcome == outcome)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    (
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap::{self, Case};

    const WITH: &str = "CONFIG_KUNIT=y\nCONFIG_IO_URING_GROUP_KUNIT_TEST=y\n";
    const WITHOUT: &str = "CONFIG_KUNIT=y\n# CONFIG_IO_URING_GROUP_KUNIT_TEST is not set\n";

    fn suite(name: &str, cases: &[(&str, Status)]) -> ktap::Suite {
        let case = |(name, status): &(&str, Status)| Case {
            name: (*name).to_owned(),
            status: status.clone(),
            output: String::new(),
        };
        ktap::Suite {
            name: name.to_owned(),
            cases: cases.iter().map(case).collect(),
            faults: Vec::new(),
        }
    }

    fn shown(results: &[TestResult]) -> Vec<(&str, Outcome)> {
        results
            .iter()
            .map(|result| (result.test.as_str(), result.outcome))
            .collect()
    }

    #[test]
    fn each_case_is_a_test() {
        let ktap = Ktap {
            suites: vec![
                suite(
                    "io_uring_group",
                    &[("c1", Status::Passed), ("c2", Status::Failed)],
                ),
                suite(
                    "other",
                    &[("a", Status::Skipped("no such thing".to_owned()))],
                ),
            ],
            faults: Vec::new(),
        };
        let results = results(ktap, &Expected::new(WITH, None));
        assert_eq!(
            shown(&results),
            [
                ("kunit::io_uring_group::c1", Outcome::Passed),
                ("kunit::io_uring_group::c2", Outcome::Failed),
                ("kunit::other::a", Outcome::Skipped),
            ]
        );
        assert_eq!(count(&results), (1, 1, 1));
        assert_eq!(
            harness::protocol::skip_reason(&results[2].output),
            Some("no such thing")
        );
    }

    #[test]
    fn a_suite_that_is_silent_has_failed() {
        for config in [None, Some(WITH)] {
            let results = results(Ktap::default(), &Expected::new(WITH, config));
            assert_eq!(
                shown(&results),
                [("kunit::io_uring_group", Outcome::Failed)]
            );
            assert!(
                results[0].output.contains("has not reported"),
                "{results:?}"
            );
        }
        // Its profile does not ask for it, but it has it.
        let results = results(Ktap::default(), &Expected::new(WITHOUT, Some(WITH)));
        assert_eq!(
            shown(&results),
            [("kunit::io_uring_group", Outcome::Failed)]
        );
    }

    #[test]
    fn a_kernel_without_the_suite_of_its_profile_skips_it() {
        let results = results(Ktap::default(), &Expected::new(WITH, Some(WITHOUT)));
        assert_eq!(
            shown(&results),
            [("kunit::io_uring_group", Outcome::Skipped)]
        );
    }

    #[test]
    fn nothing_is_expected_where_nobody_asks() {
        for config in [None, Some(WITHOUT), Some("")] {
            let expected = Expected::new(WITHOUT, config);
            assert_eq!(results(Ktap::default(), &expected), []);
            assert!(!expected.may_match("kunit"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_suite_is_a_failure() {
        let mut torn = suite("io_uring_group", &[("c1", Status::Passed)]);
        torn.faults.push("it does not end".to_owned());
        let ktap = Ktap {
            suites: vec![torn],
            faults: vec!["1 suites were to run, and 0 have ended".to_owned()],
        };
        let results = results(ktap, &Expected::new(WITH, None));
        assert_eq!(
            shown(&results),
            [
                ("kunit::io_uring_group::c1", Outcome::Passed),
                ("kunit::io_uring_group", Outcome::Failed),
                ("kunit", Outcome::Failed),
            ]
        );
    }

    #[test]
    fn the_last_word_of_a_configuration_counts() {
        let required = |config: &str| !Expected::new(config, None).required.is_empty();
        assert!(required(WITH) && !required(WITHOUT));
        assert!(required(&format!("{WITHOUT}{WITH}")));
        assert!(!required(&format!("{WITH}{WITHOUT}")));
        assert!(!required("CONFIG_IO_URING_GROUP_KUNIT_TEST_MORE=y\n"));
    }

    /// The profile that the documentation names has it, and with it what it needs.
    #[test]
    fn the_debug_profile_asks_for_the_suite() {
        let debug = include_str!("../../../ci/config/debug.config");
        assert_eq!(Expected::new(debug, None).required, SUITES);
        // The suite is called as the kernel calls it.
        let source = include_str!("../../../kernel/io_uring/group/tests.rs");
        for suite in SUITES {
            assert!(source.contains(&format!("kunit_tests({})", suite.name)));
        }
    }

    #[test]
    fn a_filter_for_them_is_known_by_its_beginning() {
        let expected = Expected::new(WITH, None);
        for filter in ["kunit", "^kunit::", "kunit::io_uring_group::c1"] {
            assert!(expected.may_match(filter), "{filter}");
        }
        assert!(!expected.may_match("c1_"));
    }
}
