// SPDX-License-Identifier: GPL-2.0-only
//! What the host and the guest say to each other.
//!
//! Before the boot the host writes a [`Job`] into the initramfs. While the guest
//! runs, its init sends [`Message`]s over a virtio-serial port of its own, one
//! JSON object a line, so that nothing the kernel or a test prints can be
//! mistaken for a result. The host follows them with a [`Decoder`] and a
//! [`Session`], which accept nothing that a healthy guest would not have sent:
//! a channel that lost a line must not look like a run that passed.

use std::{fmt, mem};

use serde::{Deserialize, Serialize};

/// Of the job and of the messages. Host and guest come from one build, so a
/// difference means that the initramfs is not the one that was meant.
pub const VERSION: u32 = 2;

/// Name of the virtio-serial port that carries the messages.
pub const PORT: &str = "sqe-group.results";

/// In the environment of init, and so on the kernel's command line: the terminal that is the
/// results port, where there is no virtio-serial port.
pub const PORT_ENV: &str = "SQE_GROUP_RESULTS";

/// Where init finds its job.
pub const JOB_PATH: &str = "/job.json";

/// Where the guest mounts the disk it was given, if it was given one.
pub const DISK_DIR: &str = "/disk";

/// Where the guest mounts the second disk, if it has programs to run from there.
pub const PROGRAMS_DIR: &str = "/programs";

/// Environment of every program in the guest: `yes` or `no`, whether the kernel
/// says that it has SQE groups.
pub const GROUPS_ENV: &str = "SQE_GROUP";

/// Environment of every program in the guest: how many times slower than a plain
/// kernel on the bare machine this guest may be. For time-outs inside a test.
pub const SLOWDOWN_ENV: &str = "SQE_GROUP_SLOWDOWN";

/// Environment of the tests: how many seconds a storm goes on, if not for the few
/// rounds that belong to every run.
pub const STORM_ENV: &str = "SQE_GROUP_STORM";

/// Environment of the tests: the seed of those that throw dice.
pub const SEED_ENV: &str = "SQE_GROUP_SEED";

/// Environment of the tests: what a module is to do that makes the kernel complain.
pub const SPLAT_ENV: &str = "SQE_GROUP_SPLAT";

/// Where that module is.
pub const SPLAT_PATH: &str = "/splat.ko";

/// Exit status of a test that could not run here, as in automake and kselftest.
pub const EXIT_SKIPPED: i32 = 77;

/// Starts the line on which a skipped test says why.
pub const SKIP_PREFIX: &str = "skip: ";

/// The last line on which a test says why it cannot run, without the prefix.
///
/// With `--nocapture`, libtest leaves its `test NAME ... ` unfinished before what
/// the test prints first.
pub fn skip_reason(output: &str) -> Option<&str> {
    output.lines().rev().find_map(|line| {
        let said = match line.split_once(" ... ") {
            Some((test, said)) if test.starts_with("test ") => said,
            _ => line,
        };
        said.trim().strip_prefix(SKIP_PREFIX)
    })
}

/// Starts every line that init writes to the kernel log. What follows is
/// [`MARK_BEGIN`], [`MARK_RUN`] and a test, [`MARK_END`], or a remark.
pub const MARK: &str = "sqe-group: ";

/// After [`MARK`]: init is up.
pub const MARK_BEGIN: &str = "begin";

/// After [`MARK`]: the test that follows starts now.
pub const MARK_RUN: &str = "run ";

/// After [`MARK`]: init is done and powers off.
pub const MARK_END: &str = "end";

/// `IORING_FEAT_SQE_GROUP` in `io_uring_params.features`.
pub const FEAT_SQE_GROUP: u32 = 1 << 18;

/// What the guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// [`VERSION`].
    pub version: u32,
    /// The work.
    pub task: Task,
    /// What the kernel must be, or the work is refused.
    pub groups: Groups,
    /// Whether `/dev/vda` is an ext4 file system to mount at [`DISK_DIR`].
    pub disk: bool,
    /// For [`SLOWDOWN_ENV`], and for init's own patience.
    pub slowdown: u32,
    /// What else is to be in the environment of every program.
    pub env: Vec<(String, String)>,
    /// What to write into which file before the first program.
    pub settings: Vec<(String, String)>,
}

/// How the reason begins for a test that is skipped as too many have failed.
pub const NOT_RUN: &str = "not run";

/// The work of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Run tests, each in a process of its own.
    Tests {
        /// Which, one suite after the other.
        suites: Vec<Suite>,
        /// How many times all of them are run.
        repeat: u32,
        /// After this time a test's processes are killed.
        timeout_ms: u64,
        /// After so many failures the rest is skipped, 0 for never.
        max_failures: u32,
    },
    /// Run one program and pass on what it prints.
    Program {
        /// Path and arguments.
        argv: Vec<String>,
    },
    /// An interactive shell on the console.
    Shell {
        /// Path and arguments.
        argv: Vec<String>,
    },
}

/// A program that consists of tests, and which of them to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// What the program understands, and says.
    pub kind: SuiteKind,
    /// Its path in the guest.
    pub program: String,
    /// The tests, by their full names.
    pub tests: Vec<String>,
}

/// Before the names of tests of [`SuiteKind::Kselftest`], which the program itself does not
/// know.
pub const KSELFTEST: &str = "kselftest::";

/// Whose tests these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuiteKind {
    /// Of Rust's test harness.
    Libtest,
    /// Of the kernel's `kselftest_harness.h`.
    Kselftest,
    /// Of nobody's: each test is a program of its own, below the path that is given, and
    /// may have arguments. It is started in the empty [`DISK_DIR`]. One that ends with 0
    /// has passed, with [`EXIT_SKIPPED`] it could not run here.
    Programs,
}

impl Suite {
    /// The command that runs one of its tests, and no other.
    pub fn command(&self, test: &str) -> Vec<String> {
        let arguments = match self.kind {
            SuiteKind::Libtest => vec!["--exact", test, "--nocapture", "--test-threads=1"],
            SuiteKind::Kselftest => vec!["-r", own_name(test)],
            SuiteKind::Programs => {
                let path = format!("{}/{test}", self.program);
                return path.split(' ').map(str::to_owned).collect();
            }
        };
        let words = std::iter::once(self.program.as_str()).chain(arguments);
        words.map(str::to_owned).collect()
    }
}

/// A test's name as its program knows it.
pub fn own_name(test: &str) -> &str {
    test.strip_prefix(KSELFTEST).unwrap_or(test)
}

/// What a job asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Groups {
    /// The kernel has SQE groups.
    Required,
    /// The kernel was built without them.
    Absent,
    /// It does not matter.
    Any,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran and found nothing wrong.
    Passed,
    /// It found something wrong, died, or left something behind.
    Failed,
    /// It could not run here.
    Skipped,
    /// It did not end in time.
    Timeout,
}

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// Always the first.
    Begin {
        /// [`VERSION`] of the guest.
        version: u32,
        /// `uname -srvm`.
        kernel: String,
        /// Processors on line.
        cpus: u32,
        /// Whether the kernel has SQE groups.
        groups: bool,
        /// How many results will follow.
        tests: u32,
    },
    /// A test is about to run.
    Start {
        /// Its name.
        test: String,
        /// Which repetition, from 1.
        round: u32,
    },
    /// The test that was started last has ended.
    Result {
        /// Its name.
        test: String,
        /// How it ended.
        outcome: Outcome,
        /// How long it ran.
        ms: u64,
        /// What it printed, and what init has to say about its end.
        output: String,
    },
    /// The test that was started last is given more time, as the machine is slow.
    Slow {
        /// How many times its time it has then.
        times: u32,
    },
    /// Something that the job's program printed.
    Output {
        /// As it came; not necessarily whole lines.
        text: String,
    },
    /// The job's program has ended.
    Exit {
        /// As a shell reports it: 128 and more for a signal.
        status: i32,
    },
    /// The kernel is not what the job asks for. The last message.
    Refused {
        /// One sentence.
        reason: String,
    },
    /// Init itself cannot go on. The last message.
    Broken {
        /// What went wrong.
        reason: String,
    },
    /// Everything was done. The last message.
    End {
        /// Results that were [`Outcome::Passed`].
        passed: u32,
        /// Results that were [`Outcome::Failed`] or [`Outcome::Timeout`].
        failed: u32,
        /// Results that were [`Outcome::Skipped`].
        skipped: u32,
        /// `/proc/sys/kernel/tainted`: the kernel's own memory of whether it has
        /// complained, whatever became of the log.
        taint: u64,
    },
}

impl Message {
    /// The message as it travels, line feed included.
    ///
    /// # Errors
    ///
    /// Those of serde_json; none are known for these types.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// What is wrong with what came from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line that is not a message.
    NotAMessage {
        /// The beginning of the line.
        line: String,
        /// Why it was not understood.
        why: String,
    },
    /// The last line has no end.
    Torn {
        /// The beginning of the line.
        line: String,
    },
    /// A message of another version of the protocol.
    Version {
        /// Theirs.
        theirs: u32,
    },
    /// A message that cannot come at this point.
    OutOfOrder {
        /// What came.
        message: String,
        /// What was known before.
        state: String,
    },
    /// The guest's count of the results is not ours.
    Count {
        /// What differs.
        what: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMessage { line, why } => {
                write!(
                    f,
                    "the guest sent a line that is no message ({why}): {line}"
                )
            }
            Self::Torn { line } => write!(f, "the guest's last line is torn: {line}"),
            Self::Version { theirs } => write!(
                f,
                "the guest speaks version {theirs} of the protocol, the host version {VERSION}"
            ),
            Self::OutOfOrder { message, state } => {
                write!(f, "the guest sent {message} {state}")
            }
            Self::Count { what } => write!(f, "the guest's count is wrong: {what}"),
        }
    }
}

impl std::error::Error for Fault {}

/// How much of an unreadable line a [`Fault`] shows.
const SHOWN: usize = 200;

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into_owned(),
    }
}

/// Makes messages of the bytes that arrive, in whatever pieces they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes and gives the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Result<Message, Fault>> {
        let mut messages = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = mem::take(&mut self.partial);
                let line = line.trim_ascii_end();
                messages.push(
                    serde_json::from_slice(line).map_err(|error| Fault::NotAMessage {
                        line: shown(line),
                        why: error.to_string(),
                    }),
                );
            }
        }
        messages
    }

    /// Called when nothing more will arrive.
    ///
    /// # Errors
    ///
    /// Fails if the last line was not complete.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(Fault::Torn {
                line: shown(&self.partial),
            })
        }
    }
}

/// The result of a test, once it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// Its name.
    pub test: String,
    /// Which repetition, from 1.
    pub round: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it ran.
    pub ms: u64,
    /// What it printed.
    pub output: String,
}

/// What the guest has said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// `uname -srvm`.
    pub kernel: String,
    /// Processors on line.
    pub cpus: u32,
    /// Whether the kernel has SQE groups.
    pub groups: bool,
    /// How many results were announced.
    pub tests: u32,
}

/// Where a guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not said anything yet.
    #[default]
    Silent,
    /// It has begun. The test, and its repetition, that runs now.
    Begun(Option<(String, u32)>),
    /// Its last word: the job is done.
    Ended,
    /// Its last word: the kernel is not what the job asks for.
    Refused(String),
    /// Its last word: init cannot go on.
    Broken(String),
}

/// Everything that a guest has said, checked for sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Where it is.
    pub stage: Stage,
    /// What it said of itself.
    pub guest: Option<Guest>,
    /// The results so far.
    pub results: Vec<TestResult>,
    /// The status of the job's program.
    pub exit: Option<i32>,
    /// The kernel's taint flags at the end.
    pub taint: u64,
}

impl Session {
    /// How many results there are with one of these outcomes.
    pub fn count(&self, outcomes: &[Outcome]) -> u32 {
        let count = self
            .results
            .iter()
            .filter(|result| outcomes.contains(&result.outcome))
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The test that runs now.
    pub fn running(&self) -> Option<&str> {
        match &self.stage {
            Stage::Begun(running) => running.as_ref().map(|(test, _)| test.as_str()),
            _ => None,
        }
    }

    /// Takes the next message.
    ///
    /// # Errors
    ///
    /// Fails on what a healthy guest would not have sent now. The session is
    /// unchanged then.
    pub fn push(&mut self, message: Message) -> Result<(), Fault> {
        match (&self.stage, message) {
            (
                Stage::Silent,
                Message::Begin {
                    version,
                    kernel,
                    cpus,
                    groups,
                    tests,
                },
            ) => {
                if version != VERSION {
                    return Err(Fault::Version { theirs: version });
                }
                self.guest = Some(Guest {
                    kernel,
                    cpus,
                    groups,
                    tests,
                });
                self.stage = Stage::Begun(None);
            }
            (Stage::Begun(None), Message::Start { test, round }) => {
                self.stage = Stage::Begun(Some((test, round)));
            }
            (
                Stage::Begun(Some((running, round))),
                Message::Result {
                    test,
                    outcome,
                    ms,
                    output,
                },
            ) if *running == test => {
                self.results.push(TestResult {
                    test,
                    round: *round,
                    outcome,
                    ms,
                    output,
                });
                self.stage = Stage::Begun(None);
            }
            (Stage::Begun(Some(_)), Message::Slow { .. }) => {}
            (Stage::Begun(None), Message::Output { .. }) if self.exit.is_none() => {}
            (Stage::Begun(None), Message::Exit { status }) if self.exit.is_none() => {
                self.exit = Some(status);
            }
            (Stage::Begun(None), Message::Refused { reason }) => {
                self.stage = Stage::Refused(reason);
            }
            (Stage::Silent | Stage::Begun(_), Message::Broken { reason }) => {
                self.stage = Stage::Broken(reason);
            }
            (
                Stage::Begun(None),
                Message::End {
                    passed,
                    failed,
                    skipped,
                    taint,
                },
            ) => {
                self.check_counts(passed, failed, skipped)?;
                self.taint = taint;
                self.stage = Stage::Ended;
            }
            (stage, message) => {
                let message = message.to_line().unwrap_or_else(|_| format!("{message:?}"));
                return Err(Fault::OutOfOrder {
                    message: shown(message.trim_end().as_bytes()),
                    state: match stage {
                        Stage::Silent => "before it had begun".to_owned(),
                        Stage::Begun(None) => "while no test was running".to_owned(),
                        Stage::Begun(Some((test, _))) => format!("while {test} was running"),
                        Stage::Ended | Stage::Refused(_) | Stage::Broken(_) => {
                            "after its last word".to_owned()
                        }
                    },
                });
            }
        }
        Ok(())
    }

    fn check_counts(&self, passed: u32, failed: u32, skipped: u32) -> Result<(), Fault> {
        let announced = self.guest.as_ref().map_or(0, |guest| guest.tests);
        let ours = [
            ("passed", passed, self.count(&[Outcome::Passed])),
            (
                "failed",
                failed,
                self.count(&[Outcome::Failed, Outcome::Timeout]),
            ),
            ("skipped", skipped, self.count(&[Outcome::Skipped])),
            (
                "announced",
                announced,
                u32::try_from(self.results.len()).unwrap_or(u32::MAX),
            ),
        ];
        for (what, said, seen) in ours {
            if said != seen {
                return Err(Fault::Count {
                    what: format!("{said} {what}, but {seen} arrived"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(tests: u32) -> Message {
        Message::Begin {
            version: VERSION,
            kernel: "Linux 7.3.4 #1 SMP x86_64".to_owned(),
            cpus: 2,
            groups: true,
            tests,
        }
    }

    fn start(test: &str) -> Message {
        Message::Start {
            test: test.to_owned(),
            round: 1,
        }
    }

    fn result(test: &str, outcome: Outcome) -> Message {
        Message::Result {
            test: test.to_owned(),
            outcome,
            ms: 3,
            output: "with \"quotes\",\nline feeds and \u{fffd}\n".to_owned(),
        }
    }

    fn end(passed: u32, failed: u32, skipped: u32) -> Message {
        Message::End {
            passed,
            failed,
            skipped,
            taint: 0,
        }
    }

    fn follow(messages: impl IntoIterator<Item = Message>) -> Result<Session, Fault> {
        let mut session = Session::default();
        for message in messages {
            session.push(message)?;
        }
        Ok(session)
    }

    #[test]
    fn a_message_is_one_line_and_comes_back_whole() {
        let messages = [
            begin(2),
            start("f1::a"),
            Message::Slow { times: 3 },
            result("f1::a", Outcome::Timeout),
            Message::Output {
                text: "a\r\n\tb".to_owned(),
            },
            Message::Exit { status: 137 },
            Message::Refused {
                reason: "no".to_owned(),
            },
            Message::Broken {
                reason: "no".to_owned(),
            },
            end(0, 1, 0),
        ];
        let text: String = messages.iter().map(|m| m.to_line().unwrap()).collect();
        assert_eq!(text.lines().count(), messages.len());

        // However the bytes are cut, the same messages come out.
        for size in 1..=text.len() {
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                decoded.extend(decoder.push(piece));
            }
            let decoded: Result<Vec<_>, _> = decoded.into_iter().collect();
            assert_eq!(decoded.unwrap(), messages, "cut every {size} bytes");
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn a_job_comes_back_whole() {
        for task in [
            Task::Tests {
                suites: vec![Suite {
                    kind: SuiteKind::Libtest,
                    program: "/bin/group".to_owned(),
                    tests: vec!["f1::a".to_owned()],
                }],
                repeat: 3,
                timeout_ms: 10_000,
                max_failures: 20,
            },
            Task::Program {
                argv: vec!["/bin/copy".to_owned()],
            },
            Task::Shell { argv: Vec::new() },
        ] {
            let job = Job {
                version: VERSION,
                task,
                groups: Groups::Required,
                disk: true,
                slowdown: 3,
                env: vec![(SEED_ENV.to_owned(), "1".to_owned())],
                settings: vec![("/proc/sys/vm/nr_hugepages".to_owned(), "64".to_owned())],
            };
            let text = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
        }
    }

    #[test]
    fn each_kind_of_suite_is_told_in_its_own_words() {
        let command = |kind, test: &str| {
            let program = "/bin/x".to_owned();
            let tests = vec![test.to_owned()];
            let suite = Suite {
                kind,
                program,
                tests,
            };
            suite.command(test).join(" ")
        };
        assert_eq!(
            command(SuiteKind::Libtest, "f1::a"),
            "/bin/x --exact f1::a --nocapture --test-threads=1"
        );
        assert_eq!(
            command(SuiteKind::Kselftest, "kselftest::f.v.t"),
            "/bin/x -r f.v.t"
        );
        assert_eq!(
            command(SuiteKind::Programs, "iopoll.t /dev/x"),
            "/bin/x/iopoll.t /dev/x"
        );
    }

    #[test]
    fn what_is_not_a_message_is_a_fault() {
        for line in [
            "",
            "noise",
            "{}",
            r#"{"type":"nonsense"}"#,
            r#"{"type":"start","test":"a"}"#,
            r#"{"type":"start","test":"a","round":1,"more":2}"#,
            r#"{"type":"start","test":"a","round":1}{"type":"start","test":"a","round":1}"#,
            "\u{0}\u{0}\u{0}",
        ] {
            let mut decoder = Decoder::default();
            let decoded = decoder.push(format!("{line}\n").as_bytes());
            assert!(
                matches!(decoded.as_slice(), [Err(Fault::NotAMessage { .. })]),
                "{line}: {decoded:?}"
            );
        }
        let mut decoder = Decoder::default();
        assert!(matches!(
            decoder.push(b"\xff\xfe\n").as_slice(),
            [Err(Fault::NotAMessage { .. })]
        ));
    }

    #[test]
    fn a_torn_line_is_a_fault() {
        let mut decoder = Decoder::default();
        assert!(decoder.push(br#"{"type":"end","pass"#).is_empty());
        assert!(matches!(decoder.finish(), Err(Fault::Torn { .. })));
    }

    #[test]
    fn a_test_is_given_time_while_it_runs() {
        let slow = || Message::Slow { times: 2 };
        let whole = [begin(1), start("a"), slow(), slow()];
        let whole = whole.into_iter().chain([result("a", Outcome::Passed)]);
        assert!(follow(whole.clone()).is_ok());
        assert!(follow(whole.chain([slow()])).is_err());
        assert!(follow([begin(1), slow()]).is_err());
    }

    #[test]
    fn a_whole_session_is_accepted() {
        let session = follow([
            begin(3),
            start("a"),
            result("a", Outcome::Passed),
            start("b"),
            result("b", Outcome::Timeout),
            start("c"),
            result("c", Outcome::Skipped),
            end(1, 1, 1),
        ])
        .unwrap();
        assert_eq!(session.stage, Stage::Ended);
        assert_eq!(session.results.len(), 3);

        let session = follow([
            begin(0),
            Message::Output {
                text: "a".to_owned(),
            },
            Message::Exit { status: 1 },
            end(0, 0, 0),
        ])
        .unwrap();
        assert_eq!(session.exit, Some(1));
        assert_eq!(session.stage, Stage::Ended);
    }

    #[test]
    fn what_a_healthy_guest_would_not_send_is_a_fault() {
        let a = || start("a");
        let passed = || result("a", Outcome::Passed);
        let text = || Message::Output {
            text: String::new(),
        };
        for (what, messages) in [
            ("no begin", vec![a()]),
            ("two begins", vec![begin(1), begin(1)]),
            ("result without start", vec![begin(1), passed()]),
            (
                "result of another",
                vec![begin(1), a(), result("b", Outcome::Passed)],
            ),
            ("two starts", vec![begin(2), a(), start("b")]),
            ("end in a test", vec![begin(1), a(), end(0, 0, 0)]),
            ("a result lost", vec![begin(2), a(), passed(), end(1, 0, 0)]),
            ("a result doubled", vec![begin(1), a(), passed(), passed()]),
            ("wrong sum", vec![begin(1), a(), passed(), end(0, 1, 0)]),
            ("after the end", vec![begin(0), end(0, 0, 0), a()]),
            ("two ends", vec![begin(0), end(0, 0, 0), end(0, 0, 0)]),
            ("output in a test", vec![begin(1), a(), text()]),
            (
                "output after the exit",
                vec![begin(0), Message::Exit { status: 0 }, text()],
            ),
        ] {
            assert!(follow(messages).is_err(), "{what}");
        }
    }

    #[test]
    fn a_skip_gives_its_reason() {
        for (output, reason) in [
            (
                "running 1 test\ntest a::b ... skip: no ublk\n",
                Some("no ublk"),
            ),
            (
                "test a::b ... noise\nskip: first\nskip: last\nmore\n",
                Some("last"),
            ),
            ("test a::b ... \nthis will skip: nothing\n", None),
            ("a ... skip: not libtest's line\n", None),
            ("", None),
        ] {
            assert_eq!(skip_reason(output), reason, "{output:?}");
        }
    }

    #[test]
    fn another_version_is_a_fault() {
        let mut message = begin(0);
        if let Message::Begin { version, .. } = &mut message {
            *version += 1;
        }
        assert_eq!(
            follow([message]),
            Err(Fault::Version {
                theirs: VERSION + 1
            })
        );
    }
}
