// SPDX-License-Identifier: GPL-2.0-only
//! From a run to a verdict, and to the words for it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use harness::protocol::{Outcome, Stage};

use crate::{
    log_rules::{Finding, Means, Scanner},
    qemu::{Run, CONSOLE, RESULTS, STDERR},
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

fn results(run: &Run<'_>) -> Results {
    if let Some(status) = run.session.exit {
        return if status == 0 {
            Results::Passed
        } else {
            Results::Failed
        };
    }
    if run.session.count(&[Outcome::Failed, Outcome::Timeout]) > 0 {
        Results::Failed
    } else if run.session.count(&[Outcome::Passed]) > 0 {
        Results::Passed
    } else {
        Results::Nothing
    }
}

/// All that is known of a run.
pub(crate) fn evidence(run: &Run<'_>) -> Evidence {
    Evidence {
        channel: channel(run),
        log: log(run),
        exit: match run.status {
            None => Exit::Killed,
            Some(status) if status.success() => Exit::Expected,
            Some(_) => Exit::Failed,
        },
        timed_out: run.timed_out.is_some(),
        results: results(run),
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
pub(crate) fn causes(run: &Run<'_>, verdict: Verdict, dir: &Path) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text += line;
        text.push('\n');
    };
    for finding in run.scanner.findings() {
        say(&headline(finding));
        say(&indented(run.scanner.around(finding)));
    }
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
            say(&format!("QEMU ended with {status}:"));
        }
        let stderr = match run.stderr.trim_end() {
            "" => "(it said nothing)",
            stderr => stderr,
        };
        say(&indented(stderr.lines()));
    }
    match verdict {
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
        Verdict::Infrastructure => match log(run) {
            _ if channel(run) != Channel::Ended => {}
            Log::Incomplete => say(&format!(
                "the console log is not whole, so it cannot be judged; it lacks {}",
                run.scanner.missing().join(", ")
            )),
            Log::Unexplained => say(&format!(
                "the kernel is tainted ({:#x}), but no rule in ci/log-rules.toml found out why",
                run.session.taint
            )),
            _ if results(run) == Results::Nothing => {
                say("no test has passed and none has failed, so nothing was shown");
            }
            _ => {}
        },
        Verdict::Passed | Verdict::Failed | Verdict::Splat => {}
    }
    if !text.is_empty() {
        let _ = writeln!(
            text,
            "all of it: {0}/{CONSOLE}, {0}/{RESULTS}, {0}/{STDERR}",
            dir.display()
        );
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
