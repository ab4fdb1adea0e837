// SPDX-License-Identifier: GPL-2.0-only
//! Results for machines, as JUnit's XML: a suite for each kernel and each round.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::{visible, Case, Kind, Sheet, Status};
use crate::verdict::Verdict;

/// For what is about no test.
const RUN: &str = "run";

/// The document for these.
pub(crate) fn document(command: &str, sheets: &[&Sheet]) -> Result<Vec<u8>> {
    let mut report = Report::new(command);
    for sheet in sheets {
        for round in 1..=sheet.rounds() {
            report.add_test_suite(suite(sheet, round));
        }
    }
    let seconds: f64 = sheets.iter().map(|sheet| sheet.seconds).sum();
    report.set_time(Duration::from_secs_f64(seconds.max(0.0)));
    let mut xml = Vec::new();
    report
        .serialize(&mut xml)
        .context("cannot write the results as XML")?;
    Ok(xml)
}

fn suite(sheet: &Sheet, round: u32) -> TestSuite {
    let rounds = sheet.rounds();
    let mut suite = TestSuite::new(if rounds > 1 {
        format!("{}, round {round} of {rounds}", sheet.name)
    } else {
        sheet.name.clone()
    });
    let time = chrono::DateTime::from_timestamp(sheet.began, 0).unwrap_or_default();
    suite.set_timestamp(time);
    let cases = || sheet.cases.iter().filter(|case| case.round == round);
    if rounds == 1 {
        suite.set_time(Duration::from_secs_f64(sheet.seconds.max(0.0)));
    } else {
        suite.set_time(Duration::from_millis(
            cases().filter_map(|case| case.ms).sum(),
        ));
    }
    suite.add_property(Property::new("command", visible(&sheet.command)));
    for (name, value) in &sheet.facts {
        suite.add_property(Property::new(visible(name), visible(value)));
    }
    suite.add_test_cases(cases().map(test_case));
    // What is about the whole of it is told once.
    if round == rounds {
        suite.add_test_cases(of_the_run(sheet));
        if !sheet.trouble.is_empty() {
            suite.set_system_err(visible(&sheet.trouble));
        }
    }
    suite
}

fn test_case(case: &Case) -> TestCase {
    let status = match &case.status {
        Status::Passed => TestCaseStatus::success(),
        Status::Skipped { why } => skipped(why),
        Status::NotRun => skipped("not run"),
        Status::Failed { kind, output } => {
            let mut text = output.clone();
            if let Some(command) = &case.command {
                text += &format!("\nTo run it again:\n    {command}\n");
            }
            bad(*kind, kind.words(), &text)
        }
    };
    let (class, name) = case.name.split_once("::").unwrap_or((RUN, &case.name));
    let mut test = TestCase::new(visible(name), status);
    test.set_classname(visible(class));
    if let Some(ms) = case.ms {
        test.set_time(Duration::from_millis(ms));
    }
    test
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(visible(why));
    status
}

/// A test that fails is a failure, anything that befell it an error.
fn bad(kind: Kind, message: &str, text: &str) -> TestCaseStatus {
    let (junit, type_) = match kind {
        Kind::Failed => (NonSuccessKind::Failure, "failed"),
        Kind::TimeOut => (NonSuccessKind::Failure, "time-out"),
        Kind::Complaint => (NonSuccessKind::Error, "kernel-complaint"),
        Kind::Lost => (NonSuccessKind::Error, "guest-lost"),
        Kind::Untried => (NonSuccessKind::Error, "infrastructure"),
    };
    let mut status = TestCaseStatus::non_success(junit);
    status.set_type(type_);
    status.set_message(visible(message));
    status.set_description(visible(text));
    status
}

/// What is wrong and is about no case: a reader that counts only these must see it.
fn of_the_run(sheet: &Sheet) -> Vec<TestCase> {
    let case = |name: &str, status| {
        let mut case = TestCase::new(visible(name), status);
        case.set_classname(RUN);
        case
    };
    let mut cases: Vec<_> = sheet
        .complaints
        .iter()
        .filter(|complaint| complaint.test.is_none())
        .map(|complaint| {
            let status = bad(Kind::Complaint, &complaint.headline, &complaint.log);
            case(&complaint.rule, status)
        })
        .collect();
    let failed = |case: &Case| matches!(case.status, Status::Failed { .. });
    if cases.is_empty() && !sheet.cases.iter().any(failed) {
        let kind = match sheet.verdict {
            Verdict::Passed if !sheet.interrupted => return cases,
            Verdict::Lost => Kind::Lost,
            Verdict::Splat => Kind::Complaint,
            Verdict::Passed | Verdict::Failed | Verdict::Infrastructure => Kind::Untried,
        };
        let words = if sheet.interrupted {
            "interrupted"
        } else {
            sheet.verdict.words()
        };
        cases.push(case(words, bad(kind, words, &sheet.trouble)));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::{
        tests::{case, failed, sheet, skipped},
        Complaint,
    };

    /// Writes it, and reads it back.
    fn read_back(sheets: &[&Sheet]) -> Report {
        let xml = document("cargo xtask qemu-test", sheets).unwrap();
        Report::deserialize_from_str(std::str::from_utf8(&xml).unwrap()).unwrap()
    }

    fn find<'a>(suite: &'a TestSuite, name: &str) -> &'a TestCase {
        let mut cases = suite.test_cases.iter();
        cases.find(|case| case.name.as_str() == name).unwrap()
    }

    /// Kind, type, message and text of what has not passed.
    fn told(case: &TestCase) -> (NonSuccessKind, &str, &str, &str) {
        let TestCaseStatus::NonSuccess {
            kind,
            message,
            ty,
            description,
            ..
        } = &case.status
        else {
            panic!("{case:?}");
        };
        let [type_, message, text] =
            [ty, message, description].map(|text| text.as_ref().unwrap().as_str());
        (*kind, type_, message, text)
    }

    #[test]
    fn each_outcome_has_its_element() {
        let sheet = sheet(
            Verdict::Failed,
            vec![
                case("cancel::x4_a::sqpoll", 1, Status::Passed),
                case("cancel::x4_b", 1, failed(Kind::Failed, "left != right")),
                case("cancel::x4_c", 1, failed(Kind::TimeOut, "")),
                case("cancel::x4_d", 1, failed(Kind::Complaint, "WARNING: at x")),
                case("cancel::x4_e", 1, failed(Kind::Lost, "gone")),
                case(
                    "kunit::io_uring_group::c5_f",
                    1,
                    failed(Kind::Failed, "expected 1"),
                ),
                case("form::f1_g", 1, skipped("no \"io_uring\" & <more>")),
                case("form::f1_h", 1, Status::NotRun),
            ],
        );
        let report = read_back(&[&sheet]);
        assert_eq!((report.tests, report.failures, report.errors), (8, 3, 2));
        let [suite] = &report.test_suites[..] else {
            panic!("{report:?}");
        };
        assert_eq!(
            (suite.tests, suite.failures, suite.errors, suite.skipped),
            (8, 3, 2, 2)
        );
        assert_eq!(suite.name.as_str(), "default");
        assert_eq!(suite.time, Some(Duration::from_millis(12_250)));
        assert_eq!(suite.timestamp.unwrap().timestamp(), 1_000_000_000);
        let facts: Vec<_> = suite
            .properties
            .iter()
            .map(|property| (property.name.as_str(), property.value.as_str()))
            .collect();
        assert_eq!(
            facts,
            [
                ("command", "cargo xtask qemu-test"),
                ("kernel", "Linux 7.3.4 & more")
            ]
        );

        let passed = find(suite, "x4_a::sqpoll");
        assert_eq!(passed.classname.as_ref().unwrap().as_str(), "cancel");
        assert_eq!(passed.time, Some(Duration::from_millis(7)));
        assert!(matches!(passed.status, TestCaseStatus::Success { .. }));
        for (name, kind, type_, message, text) in [
            (
                "x4_b",
                NonSuccessKind::Failure,
                "failed",
                "failed",
                "left != right",
            ),
            (
                "x4_c",
                NonSuccessKind::Failure,
                "time-out",
                "time-out",
                "again",
            ),
            (
                "x4_d",
                NonSuccessKind::Error,
                "kernel-complaint",
                "the kernel complained",
                "at x",
            ),
            (
                "x4_e",
                NonSuccessKind::Error,
                "guest-lost",
                "never ended",
                "gone",
            ),
            (
                "io_uring_group::c5_f",
                NonSuccessKind::Failure,
                "failed",
                "failed",
                "expected 1",
            ),
        ] {
            let case = find(suite, name);
            let (is, has, says, told) = told(case);
            assert_eq!((is, has, says), (kind, type_, message), "{name}");
            assert!(told.contains(text), "{name}: {told}");
            assert!(told.contains("again '"), "{name}: {told}");
        }
        for (name, why) in [("f1_g", "no \"io_uring\" & <more>"), ("f1_h", "not run")] {
            let TestCaseStatus::Skipped { message, .. } = &find(suite, name).status else {
                panic!("{name}");
            };
            assert_eq!(message.as_ref().unwrap().as_str(), why);
        }
    }

    #[test]
    fn output_survives_whatever_is_in_it() {
        let output = "\x1b[31mred\x1b[0m \0 ]]> <a b='c'> &amp; \u{ffff} \u{1f600}\r\nen\rd";
        let sheet = sheet(
            Verdict::Failed,
            vec![case("a::b<&\"'\x07", 1, failed(Kind::Failed, output))],
        );
        let report = read_back(&[&sheet]);
        let case = &report.test_suites[0].test_cases[0];
        assert_eq!(case.name.as_str(), "b<&\"'\u{2407}");
        let (.., text) = told(case);
        let shown = "\u{241b}[31mred\u{241b}[0m \u{2400} ]]> <a b='c'> &amp; \u{fffd} \u{1f600}\n\
                     en\u{240d}d";
        assert!(text.starts_with(shown), "{text:?}");
    }

    #[test]
    fn each_round_is_a_suite() {
        let mut cases = Vec::new();
        for round in 1..=3 {
            cases.push(case("a::b", round, Status::Passed));
        }
        cases.push(case("a::c", 2, failed(Kind::Failed, "")));
        let report = read_back(&[&sheet(Verdict::Failed, cases)]);
        let suites: Vec<_> = report
            .test_suites
            .iter()
            .map(|suite| (suite.name.as_str(), suite.tests, suite.failures))
            .collect();
        assert_eq!(
            suites,
            [
                ("default, round 1 of 3", 1, 0),
                ("default, round 2 of 3", 2, 1),
                ("default, round 3 of 3", 1, 0),
            ]
        );
    }

    /// Whoever only counts failures and errors sees a run that has not passed.
    #[test]
    fn no_bad_run_looks_like_a_good_one() {
        let passed = || vec![case("a::b", 1, Status::Passed)];
        for (verdict, type_) in [
            (Verdict::Failed, "infrastructure"),
            (Verdict::Splat, "kernel-complaint"),
            (Verdict::Lost, "guest-lost"),
            (Verdict::Infrastructure, "infrastructure"),
        ] {
            for cases in [passed(), Vec::new()] {
                let mut sheet = sheet(verdict, cases);
                sheet.trouble = "the guest never reported\n".to_owned();
                let report = read_back(&[&sheet]);
                assert_eq!(report.failures + report.errors, 1, "{verdict:?}");
                let suite = &report.test_suites[0];
                let case = suite.test_cases.last().unwrap();
                assert_eq!(told(case).1, type_);
                assert!(told(case).3.contains("never reported"));
                assert!(suite
                    .system_err
                    .as_ref()
                    .unwrap()
                    .contains("never reported"));
            }
        }
        let mut interrupted = sheet(Verdict::Passed, passed());
        assert_eq!(read_back(&[&interrupted]).errors, 0);
        interrupted.interrupted = true;
        assert_eq!(read_back(&[&interrupted]).errors, 1);
    }

    #[test]
    fn a_complaint_before_the_first_test_is_told_beside_a_failure() {
        let mut sheet = sheet(
            Verdict::Splat,
            vec![case("a::b", 1, failed(Kind::Complaint, "WARNING: 2"))],
        );
        for test in [None, Some("a::b".to_owned())] {
            sheet.complaints.push(Complaint {
                rule: "warning".to_owned(),
                test,
                headline: "warning: WARNING: 1".to_owned(),
                log: "WARNING: 1\nCall Trace:".to_owned(),
            });
        }
        let report = read_back(&[&sheet]);
        assert_eq!(report.errors, 2);
        let case = find(&report.test_suites[0], "warning");
        assert!(told(case).3.contains("Call Trace"));
    }
}
