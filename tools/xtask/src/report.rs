// SPDX-License-Identifier: GPL-2.0-only
//! From a run to a verdict, and to the words for it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use harness::protocol::{Outcome, Stage};

use crate::{
    follow::{Run, CONSOLE, RESULTS, STDERR},
    kunit,
    log_rules::{Finding, Means, Scanner},
    sheet::Complaint,
    verdict::{Channel, Evidence, Exit, Log, Results, Verdict},
};

/// Console lines shown of a guest that was lost.
const TAIL: usize = 25;

/// The taint flags that the kernel sets when it complains: bad page, died, warned,
/// soft lockup (`Documentation/admin-guide/tainted-kernels.rst`).
const COMPLAINTS: u64 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;

fn channel(run: &Run<'_>) -> Channel {
    if run.fault.is_some() {
        return Channel::Faulty;
    }
    match run.session.stage {
        Stage::Silent => Channel::Silent,
        Stage::Begun(_) => Channel::Cut,
        Stage::Ended => Channel::Ended,
        Stage::Refused(_) => Channel::Refused,
        Stage::Broken(_) => Channel::Broken,
    }
}

fn log(run: &Run<'_>) -> Log {
    let findings = run.scanner.findings();
    let means = |means| findings.iter().any(|finding| finding.means == means);
    if means(Means::Splat) {
        Log::Splat
    } else if means(Means::Lost) {
        Log::Lost
    } else if !run.scanner.missing().is_empty() {
        Log::Incomplete
    } else if run.session.taint & COMPLAINTS != 0 && run.scanner.allowed() == 0 {
        Log::Unexplained
    } else {
        Log::Clean
    }
}

fn results(run: &Run<'_>, kunit: &[kunit::TestResult]) -> Results {
    if let Some(status) = run.session.exit {
        return if status == 0 {
            Results::Passed
        } else {
            Results::Failed
        };
    }
    let (passed, failed, _) = kunit::count(kunit);
    Results::new(
        passed + run.session.count(&[Outcome::Passed]),
        failed + run.session.count(&[Outcome::Failed, Outcome::Timeout]),
    )
}

/// All that is known of a run. `kunit` is what of KUnit is to count.
pub(crate) fn evidence(run: &Run<'_>, kunit: &[kunit::TestResult]) -> Evidence {
    Evidence {
        channel: channel(run),
        log: log(run),
        exit: match run.status {
            None => Exit::Killed,
            Some(status) if status.success() => Exit::Expected,
            Some(_) => Exit::Failed,
        },
        timed_out: run.timed_out.is_some(),
        results: results(run, kunit),
    }
}

fn indented(lines: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    lines.into_iter().fold(String::new(), |mut text, line| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "    {}", line.as_ref());
        text
    })
}

/// One line about a find.
pub(crate) fn headline(finding: &Finding) -> String {
    let Finding {
        rule, text, test, ..
    } = finding;
    let when = match test {
        Some(test) => format!("while {test} was running"),
        None => "before the first test".to_owned(),
    };
    format!("{rule}, {when}: {text}")
}

/// Why the verdict is what it is, in whole lines. Empty if all is well or the
/// tests say it themselves.
pub(crate) fn causes(run: &Run<'_>, evidence: Evidence, dir: &Path) -> String {
    let mut text = String::new();
    for finding in run.scanner.findings() {
        text += &headline(finding);
        text.push('\n');
        text += &indented(run.scanner.around(finding));
        text.push('\n');
    }
    text += &trouble(run, evidence);
    if !text.is_empty() {
        let _ = writeln!(
            text,
            "all of it: {0}/{CONSOLE}, {0}/{RESULTS}, {0}/{STDERR}",
            dir.display()
        );
    }
    text
}

/// What the kernel complained of.
pub(crate) fn complaints(run: &Run<'_>) -> Vec<Complaint> {
    let complaints = run.scanner.findings().iter().map(|finding| Complaint {
        rule: finding.rule.clone(),
        test: finding.test.clone(),
        headline: headline(finding),
        log: run.scanner.around(finding).join("\n"),
    });
    complaints.collect()
}

/// The causes that are no single complaint of the kernel, in whole lines.
pub(crate) fn trouble(run: &Run<'_>, evidence: Evidence) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text += line;
        text.push('\n');
    };
    let groups = Scanner::by_group(run.scanner.findings());
    if groups.len() > 1 {
        let counts: Vec<_> = groups
            .iter()
            .map(|(group, count)| format!("{group}: {count}"))
            .collect();
        say(&format!("in the kernel log: {}", counts.join(", ")));
    }
    if let Some(what) = &run.timed_out {
        say(&format!("time-out: {what}"));
    }
    if let Some(test) = run.session.running() {
        say(&format!("{test} was running and has no result"));
    }
    match &run.session.stage {
        Stage::Refused(reason) => say(reason),
        Stage::Broken(reason) => say(&format!("the guest's init: {reason}")),
        _ => {}
    }
    if let Some(fault) = &run.fault {
        say(&format!("{fault} (see {RESULTS})"));
    }
    if run.status.is_some_and(|status| !status.success()) {
        if let Some(status) = run.status {
            say(&format!("the guest's process ended with {status}:"));
        }
        let stderr = match run.stderr.trim_end() {
            "" => "(it said nothing)",
            stderr => stderr,
        };
        say(&indented(stderr.lines()));
    }
    match evidence.judge() {
        Verdict::Lost => {
            if run.session.stage == Stage::Silent {
                say("the guest never reported to the host");
            }
            let tail = run.scanner.tail(TAIL);
            if !run.scanner.findings().is_empty() {
                // Shown above, with what is around it.
            } else if tail.is_empty() {
                say("it printed nothing on its console");
            } else {
                say("the last lines of its console:");
                say(&indented(tail));
            }
        }
        Verdict::Infrastructure => match evidence.log {
            _ if evidence.channel != Channel::Ended => {}
            Log::Incomplete => say(&format!(
                "the console log is not whole, so it cannot be judged; it lacks {}",
                run.scanner.missing().join(", ")
            )),
            Log::Unexplained => say(&format!(
                "the kernel is tainted ({:#x}), but no rule in ci/log-rules.toml found out why",
                run.session.taint
            )),
            _ if evidence.results == Results::Nothing => {
                say("no test has passed and none has failed, so nothing was shown");
            }
            _ => {}
        },
        Verdict::Passed | Verdict::Failed | Verdict::Splat => {}
    }
    text
}

/// What to do next.
pub(crate) fn advice(run: &Run<'_>, verdict: Verdict) -> &'static str {
    match run.session.stage {
        Stage::Refused(_) => {
            "Build the patched kernel with `make LLVM=1`, or name it with `--kernel`."
        }
        _ => verdict.advice(),
    }
}

/// Prints to stdout. If nobody reads it any more, the verdict is still worth
/// having: as the exit status.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// The closing line of every test command.
pub(crate) fn closing(passed: u32, failed: u32, skipped: u32) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

    use harness::protocol::{Fault, Message, Session, VERSION};

    use super::*;
    use crate::log_rules::Rules;

    const WHOLE: &str = "Linux version 7.3.4\nsqe-group: begin\nsqe-group: end\n";

    fn rules() -> Rules {
        Rules::parse(include_str!("../../../ci/log-rules.toml")).unwrap()
    }

    /// A run in which one test passed.
    fn good<'a>(rules: &'a Rules, log: &str) -> Run<'a> {
        let mut session = Session::default();
        for message in [
            Message::Begin {
                version: VERSION,
                kernel: "Linux".to_owned(),
                cpus: 1,
                groups: true,
                tests: 1,
            },
            Message::Start {
                test: "a".to_owned(),
                round: 1,
            },
            Message::Result {
                test: "a".to_owned(),
                outcome: Outcome::Passed,
                ms: 1,
                output: String::new(),
            },
            Message::End {
                passed: 1,
                failed: 0,
                skipped: 0,
                taint: 0,
            },
        ] {
            session.push(message).unwrap();
        }
        let mut scanner = Scanner::new(rules);
        scanner.push(log.as_bytes());
        scanner.finish();
        Run {
            session,
            fault: None,
            scanner,
            printed: true,
            status: Some(ExitStatus::from_raw(0)),
            timed_out: None,
            interrupted: false,
            elapsed: Duration::ZERO,
            stderr: String::new(),
        }
    }

    fn verdict(run: &Run<'_>) -> Verdict {
        evidence(run, &[]).judge()
    }

    #[test]
    fn a_good_run_passes_without_words() {
        let rules = rules();
        let run = good(&rules, WHOLE);
        assert_eq!(verdict(&run), Verdict::Passed);
        assert_eq!(causes(&run, evidence(&run, &[]), Path::new("/run")), "");
    }

    /// What is changed, the verdict, and a word of the explanation.
    type Deviation = (fn(&mut Run<'_>), Verdict, &'static str);

    #[test]
    fn each_deviation_is_explained() {
        let rules = rules();
        let deviations: [Deviation; 9] = [
            (
                |run| run.session.taint = 1 << 9,
                Verdict::Infrastructure,
                "tainted (0x200)",
            ),
            (
                |run| run.fault = Some(Fault::Version { theirs: 9 }),
                Verdict::Infrastructure,
                "version 9",
            ),
            (
                |run| run.session.stage = Stage::Refused("no SQE groups".to_owned()),
                Verdict::Infrastructure,
                "no SQE groups",
            ),
            (
                |run| run.session.stage = Stage::Broken("no port".to_owned()),
                Verdict::Infrastructure,
                "no port",
            ),
            (
                |run| {
                    run.status = Some(ExitStatus::from_raw(1 << 8));
                    run.stderr = "no such accelerator".to_owned();
                },
                Verdict::Infrastructure,
                "no such accelerator",
            ),
            (
                |run| run.session.results[0].outcome = Outcome::Skipped,
                Verdict::Infrastructure,
                "nothing was shown",
            ),
            (
                |run| {
                    run.status = None;
                    run.timed_out = Some("waited 9 s to power off".to_owned());
                },
                Verdict::Lost,
                "waited 9 s",
            ),
            (
                |run| run.session.stage = Stage::Silent,
                Verdict::Lost,
                "never reported",
            ),
            (
                |run| run.session.stage = Stage::Begun(Some(("b::c".to_owned(), 1))),
                Verdict::Lost,
                "b::c was running",
            ),
        ];
        for (change, expected, word) in deviations {
            let mut run = good(&rules, WHOLE);
            change(&mut run);
            assert_eq!(verdict(&run), expected, "{word}");
            let text = causes(&run, evidence(&run, &[]), Path::new("/run"));
            assert!(text.contains(word), "{word}: {text}");
            assert!(text.contains("/run/console.log"), "{word}: {text}");
        }
    }

    #[test]
    fn the_log_is_part_of_it() {
        let rules = rules();
        for (log, expected, word) in [
            ("", Verdict::Infrastructure, "not whole"),
            (
                "Linux version 7.3.4\nsqe-group: begin\n",
                Verdict::Infrastructure,
                "init's last line",
            ),
            (
                "Linux version 7.3.4\nsqe-group: begin\nsqe-group: run a\nWARNING: x\nsqe-group: end\n",
                Verdict::Splat,
                "warning, while a was running",
            ),
        ] {
            let run = good(&rules, log);
            assert_eq!(verdict(&run), expected, "{log}");
            let text = causes(&run, evidence(&run, &[]), Path::new("/run"));
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    /// What KUnit has found counts as what the tests in the guest have found.
    #[test]
    fn kunit_is_part_of_it() {
        let rules = rules();
        let own = |outcome| {
            [kunit::TestResult {
                test: "kunit::a".to_owned(),
                outcome,
                output: String::new(),
            }]
        };
        let judge = |run: &Run<'_>, outcome| evidence(run, &own(outcome)).judge();
        let mut run = good(&rules, WHOLE);
        assert_eq!(judge(&run, Outcome::Passed), Verdict::Passed);
        assert_eq!(judge(&run, Outcome::Skipped), Verdict::Passed);
        assert_eq!(judge(&run, Outcome::Failed), Verdict::Failed);
        run.session.results.clear();
        assert_eq!(judge(&run, Outcome::Passed), Verdict::Passed);
        assert_eq!(judge(&run, Outcome::Failed), Verdict::Failed);
        assert_eq!(judge(&run, Outcome::Skipped), Verdict::Infrastructure);
    }

    #[test]
    fn a_failed_program_is_a_failure() {
        let rules = rules();
        let mut run = good(&rules, WHOLE);
        run.session.exit = Some(1);
        assert_eq!(verdict(&run), Verdict::Failed);
        run.session.exit = Some(0);
        assert_eq!(verdict(&run), Verdict::Passed);
    }
}
