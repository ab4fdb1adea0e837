// SPDX-License-Identifier: GPL-2.0-only
//! Running tests, each in a process of its own, so that a hang, a crash or a
//! complaint of the kernel belongs to one test.

use std::time::{Duration, Instant};

use harness::{
    protocol::{
        own_name, skip_reason, Message, Outcome, Suite, SuiteKind, DISK_DIR, EXIT_SKIPPED,
        MARK_RUN, NOT_RUN, SKIP_PREFIX,
    },
    tap::{self, Status},
};

use crate::{
    process::{explain, End, Guest, TMP_DIR},
    setup, KernelLog, Port, Result,
};

/// How much of a test's output is kept: its beginning, and more of its end.
const HEAD: usize = 16 << 10;
const TAIL: usize = 48 << 10;

/// With which a kselftest ends that was skipped as a whole.
const KSFT_SKIP: i32 = 4;

/// How often each outcome was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// What is needed to run tests.
pub(crate) struct Runner<'a> {
    pub(crate) timeout: Duration,
    pub(crate) max_failures: u32,
    pub(crate) guest: &'a mut Guest,
    pub(crate) log: &'a mut KernelLog,
    pub(crate) port: &'a mut Port,
    pub(crate) totals: Totals,
}

/// Output that is cut in the middle if there is too much of it.
#[derive(Default)]
struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: usize,
}

impl Capture {
    fn push(&mut self, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(tail);
        // Not at every byte: a test that prints without end is common enough.
        if self.tail.len() > 2 * TAIL {
            let cut = self.tail.len() - TAIL;
            self.tail.drain(..cut);
            self.cut += cut;
        }
    }

    fn into_text(mut self) -> String {
        let mut bytes = self.head;
        if self.cut > 0 {
            bytes.extend_from_slice(format!("\n[{} bytes left out]\n", self.cut).as_bytes());
        }
        bytes.append(&mut self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What a test of a kselftest that ended by itself shows.
fn judge_kselftest(status: libc::c_int, output: &str, test: &str) -> (Outcome, Option<String>) {
    let (words, code) = explain(status);
    match (tap::only_result(output, own_name(test)), code) {
        (Ok(Status::Passed), 0) => (Outcome::Passed, None),
        (Ok(Status::Skipped(why)), 0 | KSFT_SKIP) => {
            (Outcome::Skipped, Some(format!("{SKIP_PREFIX}{why}")))
        }
        (Ok(Status::Passed | Status::Skipped(_)), _) => (
            Outcome::Failed,
            Some(format!("{words}, though its test has not failed")),
        ),
        (Ok(Status::Failed), _) => (Outcome::Failed, Some(words)),
        (Err(why), _) => (Outcome::Failed, Some(format!("{words}, and {why}"))),
    }
}

/// What a test shows that is a program, and ended by itself.
fn judge_program(status: libc::c_int) -> (Outcome, Option<String>) {
    let (words, code) = explain(status);
    match code {
        0 => (Outcome::Passed, None),
        EXIT_SKIPPED => (Outcome::Skipped, None),
        _ => (Outcome::Failed, Some(words)),
    }
}

/// What a test that ended by itself shows.
fn judge(status: libc::c_int, output: &str) -> (Outcome, Option<String>) {
    let (words, code) = explain(status);
    match code {
        // libtest is content too if it ran nothing.
        0 if output.contains("test result: ok. 1 passed;") => (Outcome::Passed, None),
        0 if output.contains("test result: ok. 0 passed; 0 failed; 1 ignored;") => (
            Outcome::Skipped,
            Some(format!("{SKIP_PREFIX}marked #[ignore]")),
        ),
        0 => (
            Outcome::Failed,
            Some("exited with 0, but does not say that one test passed".to_owned()),
        ),
        EXIT_SKIPPED if skip_reason(output).is_some() => (Outcome::Skipped, None),
        EXIT_SKIPPED => (
            Outcome::Failed,
            Some(format!(
                "exited with {EXIT_SKIPPED} (skipped), but no line says why; it must start with {SKIP_PREFIX:?}"
            )),
        ),
        _ => (Outcome::Failed, Some(words)),
    }
}

impl Runner<'_> {
    /// Runs one test, and what must hold after every test.
    ///
    /// # Errors
    ///
    /// Fails only if init cannot go on; a test that goes wrong is a result.
    pub(crate) fn run(&mut self, suite: &Suite, test: &str, round: u32) -> Result<()> {
        // A broken kernel lets every test wait for its time-out, which takes hours.
        if self.max_failures > 0 && self.totals.failed >= self.max_failures {
            self.port.send(&Message::Start {
                test: test.to_owned(),
                round,
            })?;
            self.totals.skipped += 1;
            return self.port.send(&Message::Result {
                test: test.to_owned(),
                outcome: Outcome::Skipped,
                ms: 0,
                output: format!(
                    "{SKIP_PREFIX}{NOT_RUN}, as {} tests have failed\n",
                    self.totals.failed
                ),
            });
        }
        setup::fresh_directories()?;
        self.log.mark(&format!("{MARK_RUN}{test}"));
        self.port.send(&Message::Start {
            test: test.to_owned(),
            round,
        })?;

        self.guest.dir = match suite.kind {
            SuiteKind::Programs => DISK_DIR,
            SuiteKind::Libtest | SuiteKind::Kselftest => TMP_DIR,
        };
        let argv = suite.command(test);
        let start = Instant::now();
        let mut capture = Capture::default();
        let sink = |bytes: &[u8]| {
            capture.push(bytes);
            Ok(())
        };
        // Or the host would give up before.
        let slow = |times| self.port.send(&Message::Slow { times });
        let end = self.guest.watch(&argv, Some(self.timeout), sink, slow)?;
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut output = capture.into_text();
        let (mut outcome, remark) = match end {
            End::Exited(status) => match suite.kind {
                SuiteKind::Libtest => judge(status, &output),
                SuiteKind::Kselftest => judge_kselftest(status, &output, test),
                SuiteKind::Programs => judge_program(status),
            },
            End::TimedOut(doing) => (
                Outcome::Timeout,
                Some(format!(
                    "killed after {:.0?}; it was doing:\n{doing}",
                    start.elapsed()
                )),
            ),
        };
        let mut remarks: Vec<_> = remark.into_iter().collect();
        for left in [self.guest.sweep(), self.guest.rings_gone()]
            .into_iter()
            .flatten()
        {
            remarks.push(left);
            if outcome != Outcome::Timeout {
                outcome = Outcome::Failed;
            }
        }
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        for remark in remarks {
            output += &remark;
            output.push('\n');
        }
        *match outcome {
            Outcome::Passed => &mut self.totals.passed,
            Outcome::Failed | Outcome::Timeout => &mut self.totals.failed,
            Outcome::Skipped => &mut self.totals.skipped,
        } += 1;
        self.port.send(&Message::Result {
            test: test.to_owned(),
            outcome,
            ms,
            output,
        })
    }
}
