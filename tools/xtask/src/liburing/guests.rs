// SPDX-License-Identifier: GPL-2.0-only
//! Runs tests in guests, several of them side by side, until each has a result.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{bail, Context as _, Result};
use clap::ValueEnum;
use harness::protocol::{
    self, Groups, Job, Message, Session, SuiteKind, Task, TestResult, PROGRAMS_DIR, VERSION,
};
use serde::Serialize;

use super::{
    record::{Record, Setting},
    suite::Suite,
};
use crate::{
    disk,
    follow::{Run, Watcher},
    guest::{self, Built},
    interrupt,
    kvm::Accel,
    log_rules::{Finding, Rules},
    progress::Bar,
    qemu::{self, Bus, Console, Disk, Machine},
    qemu_test, report,
    run_dir::{RunDir, DISK, NVME_DISK, RAW_DISK},
    verdict::{Evidence, Results, Verdict},
};

/// What a program gets on a bare machine. liburing's own script gives it 60 s; this is for
/// machines that have other work too.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(100);

/// Of the file system in which the programs are started.
const DISK_SIZE: u64 = 1 << 30;
/// Of the devices that have no file system, for tests that want one to themselves.
const RAW_SIZE: u64 = 256 << 20;

/// After so many guests of a kernel were lost the rest is not run.
const LOST: u32 = 5;

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    /// The tree as it came.
    Base,
    /// With the series.
    Patched,
}

impl Side {
    pub(super) const ALL: [Self; 2] = [Self::Base, Self::Patched];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Patched => "patched",
        }
    }
}

/// How a test ended on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Passed,
    Skipped,
    Failed,
    TimeOut,
    /// The kernel has complained, whatever the test says.
    Splat,
    /// The guest was lost.
    Lost,
}

impl Outcome {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimeOut => "time-out",
            Self::Splat => "kernel splat",
            Self::Lost => "guest lost",
        }
    }
}

/// One run of a test.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Attempt {
    pub(super) test: String,
    #[serde(skip)]
    pub(super) side: Side,
    pub(super) outcome: Outcome,
    pub(super) ms: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) output: String,
    /// Where its guest has left its logs.
    pub(super) directory: PathBuf,
}

/// A kernel to boot.
pub(super) struct Kernel {
    pub(super) side: Side,
    pub(super) bzimage: PathBuf,
    pub(super) config: String,
}

/// What all guests have in common.
pub(super) struct Hall<'a> {
    pub(super) kernels: Vec<Kernel>,
    pub(super) suite: &'a Suite,
    pub(super) record: &'a Record,
    pub(super) built: Vec<Built>,
    pub(super) rules: Rules,
    pub(super) guard: interrupt::Guard,
    pub(super) accels: Vec<Accel>,
    pub(super) smp: u32,
    pub(super) mem_mib: u32,
    pub(super) timeout_scale: f64,
}

/// Tests for one guest.
struct Shard {
    side: Side,
    tests: Vec<String>,
}

/// What has come of all guests so far.
struct State {
    queue: VecDeque<Shard>,
    attempts: Vec<Attempt>,
    lost: [u32; 2],
    /// Trouble that belongs to no test.
    trouble: Vec<(Verdict, String)>,
    failure: Option<anyhow::Error>,
    interrupted: bool,
    accel: Option<Accel>,
    bar: Bar,
    done: u64,
}

/// What came of all guests.
pub(super) struct Ran {
    pub(super) attempts: Vec<Attempt>,
    /// Trouble that belongs to no test, in words.
    pub(super) trouble: Vec<(Verdict, String)>,
    pub(super) interrupted: bool,
    /// That was used.
    pub(super) accel: Option<Accel>,
}

/// Another thread that panicked has left nothing half done that would matter.
fn locked<'a>(state: &'a Mutex<State>) -> MutexGuard<'a, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deals tests out to as many guests, so that each gets some of the long ones, which
/// tend to stand together.
fn dealt(tests: &[String], guests: usize) -> Vec<Vec<String>> {
    let guests = guests.clamp(1, tests.len().max(1));
    let mut hands = vec![Vec::new(); guests];
    for (index, test) in tests.iter().enumerate() {
        hands[index % guests].push(test.clone());
    }
    hands
}

/// Follows one guest.
struct Live<'a> {
    side: Side,
    state: &'a Mutex<State>,
}

impl Watcher for Live<'_> {
    fn message(&mut self, message: &Message, _session: &Session) {
        if let Message::Result {
            test, outcome, ms, ..
        } = message
        {
            let mut state = locked(self.state);
            state.done += 1;
            let done = state.done;
            state.bar.set(done);
            let how = match outcome {
                protocol::Outcome::Passed | protocol::Outcome::Skipped => return,
                protocol::Outcome::Failed => "failed",
                protocol::Outcome::Timeout => "time-out",
            };
            let side = self.side.name();
            state
                .bar
                .say("Failed", &format!("{test} on {side} ({how}, {ms} ms)"));
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let side = self.side.name();
        let text = format!("{side}: {}", report::headline(finding));
        locked(self.state).bar.say("Kernel", &text);
    }

    fn note(&mut self, text: &str) {
        locked(self.state).bar.say("Note", text);
    }

    fn tick(&mut self, _session: &Session) {
        let mut state = locked(self.state);
        let done = state.done;
        state.bar.set(done);
    }

    /// Another guest has shown that nothing will come of it.
    fn stops(&self) -> bool {
        locked(self.state).failure.is_some()
    }
}

impl Hall<'_> {
    /// Runs these tests, each so many times, on every kernel, in so many guests at a time.
    ///
    /// # Errors
    ///
    /// If the means fail, so that nothing is known.
    pub(super) fn run(
        &self,
        what: &str,
        tests: &[String],
        times: usize,
        guests: usize,
    ) -> Result<Ran> {
        let each = guests.div_ceil(self.kernels.len().max(1));
        let mut queue = VecDeque::new();
        // In turn, so that neither kernel has the machine for itself.
        let hands = dealt(tests, each);
        for hand in &hands {
            for kernel in &self.kernels {
                queue.push_back(Shard {
                    side: kernel.side,
                    tests: (0..times).flat_map(|_| hand.iter().cloned()).collect(),
                });
            }
        }
        let total = tests.len() * times * self.kernels.len();
        let bar = Bar::new(
            "Testing",
            what,
            crate::progress::Unit::Things("programs"),
            Some(total as u64),
        );
        let state = Mutex::new(State {
            queue,
            attempts: Vec::new(),
            lost: [0; 2],
            trouble: Vec::new(),
            failure: None,
            interrupted: false,
            accel: None,
            bar,
            done: 0,
        });
        thread::scope(|scope| {
            for _ in 0..guests.max(1) {
                scope.spawn(|| self.work(&state));
            }
        });
        let State {
            mut attempts,
            trouble,
            failure,
            interrupted,
            accel,
            bar,
            ..
        } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(error);
        }
        bar.finish();
        attempts.sort_by(|a, b| (&a.test, a.side).cmp(&(&b.test, b.side)));
        Ok(Ran {
            attempts,
            trouble,
            interrupted,
            accel,
        })
    }

    /// Boots one guest after the other, until nothing is left for one.
    fn work(&self, state: &Mutex<State>) {
        loop {
            let shard = {
                let mut state = locked(state);
                if state.interrupted || state.failure.is_some() {
                    return;
                }
                match state.queue.pop_front() {
                    Some(shard) => shard,
                    None => return,
                }
            };
            if let Err(error) = self.guest(&shard, state) {
                locked(state).failure.get_or_insert(error);
            }
        }
    }

    /// Boots a guest for these tests. What it does not come to is put back.
    fn guest(&self, shard: &Shard, state: &Mutex<State>) -> Result<()> {
        let Shard { side, tests } = shard;
        let kernel = self
            .kernels
            .iter()
            .find(|kernel| kernel.side == *side)
            .context("no such kernel")?;
        let dir = RunDir::create(&format!("liburing-{}", side.name()))?;
        let (accel, run) = self.boot(kernel, tests, &dir, &mut Live { side: *side, state })?;
        let mut state = locked(state);
        state.accel = Some(accel);
        let results = &run.session.results;
        let mut attempts: Vec<_> = results
            .iter()
            .map(|result| attempt(*side, result, &run, dir.path()))
            .collect();
        if run.interrupted {
            state.interrupted = state.failure.is_none();
            state.attempts.append(&mut attempts);
            return Ok(());
        }

        // Of the results we are the judge.
        let evidence = Evidence {
            results: Results::Passed,
            ..report::evidence(&run, &[])
        };
        let verdict = evidence.judge();
        let causes = report::causes(&run, evidence, dir.path());
        if verdict == Verdict::Infrastructure {
            bail!("{} kernel: {}", side.name(), causes.trim_end());
        }
        let mut finished = results.len();
        if let Some(test) = run.session.running() {
            attempts.push(Attempt {
                test: test.to_owned(),
                side: *side,
                outcome: if verdict == Verdict::Splat {
                    Outcome::Splat
                } else {
                    Outcome::Lost
                },
                ms: 0,
                output: causes.clone(),
                directory: dir.path().to_owned(),
            });
            finished += 1;
            state.done += 1;
        }
        let explained = attempts
            .iter()
            .any(|attempt| matches!(attempt.outcome, Outcome::Splat | Outcome::Lost));
        if verdict != Verdict::Passed && !explained {
            state
                .trouble
                .push((verdict, format!("{} kernel: {causes}", side.name())));
        }
        state.attempts.append(&mut attempts);
        let rest = &tests[finished..];
        if rest.is_empty() {
            return Ok(());
        }
        let lost = &mut state.lost[*side as usize];
        *lost += 1;
        if *lost >= LOST {
            let text = format!(
                "{} kernel: {} tests were not run, as the guest is lost over and over\n",
                side.name(),
                rest.len()
            );
            state.trouble.push((verdict.max(Verdict::Lost), text));
        } else {
            state.queue.push_back(Shard {
                side: *side,
                tests: rest.to_vec(),
            });
        }
        Ok(())
    }

    fn boot(
        &self,
        kernel: &Kernel,
        tests: &[String],
        dir: &RunDir,
        live: &mut Live<'_>,
    ) -> Result<(Accel, Run<'_>)> {
        let slowdown =
            |accel: Accel| qemu_test::slowdown(accel, &kernel.config, self.timeout_scale);
        // The job is written before it is known which accelerator works.
        let slowest = self.accels.iter().copied().map(slowdown).max().unwrap_or(1);
        let timeout = PROGRAM_TIMEOUT * slowest;
        let scratch = dir.join(DISK);
        disk::make(&scratch, DISK_SIZE, None)?;
        let (raw, nvme) = (dir.join(RAW_DISK), dir.join(NVME_DISK));
        for image in [&raw, &nvme] {
            disk::empty(image, RAW_SIZE)?;
        }
        let settings = self
            .record
            .settings
            .iter()
            .map(|Setting { file, value, .. }| (file.clone(), value.clone()))
            .collect();
        guest::pack(
            dir,
            &self.built,
            &[],
            &Job {
                version: VERSION,
                task: Task::Tests {
                    suites: vec![protocol::Suite {
                        kind: SuiteKind::Programs,
                        program: PROGRAMS_DIR.to_owned(),
                        tests: tests.to_vec(),
                    }],
                    repeat: 1,
                    timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                    max_failures: 0,
                },
                groups: match kernel.side {
                    Side::Base => Groups::Absent,
                    Side::Patched => Groups::Required,
                },
                disk: true,
                slowdown: slowest,
                env: Vec::new(),
                settings,
            },
        )?;
        let machine = Machine {
            kernel: kernel.bzimage.clone(),
            smp: self.smp,
            mem_mib: self.mem_mib,
            disks: vec![
                Disk::virtio(scratch),
                Disk {
                    image: self.suite.image.clone(),
                    bus: Bus::VirtioReadOnly,
                },
                Disk::virtio(raw),
                Disk {
                    image: nvme,
                    bus: Bus::Nvme,
                },
            ],
            console: Console::File,
            icount: false,
            append: String::new(),
        };
        qemu::run(
            &machine,
            dir,
            &self.accels,
            |accel| qemu_test::limits(slowdown(accel), timeout),
            &self.rules,
            &self.guard,
            live,
        )
    }
}

/// What one result comes to, with what the kernel has to say about it.
fn attempt(side: Side, result: &TestResult, run: &Run<'_>, directory: &Path) -> Attempt {
    let TestResult {
        test,
        round: _,
        outcome,
        ms,
        output,
    } = result;
    let mut outcome = match outcome {
        protocol::Outcome::Passed => Outcome::Passed,
        protocol::Outcome::Skipped => Outcome::Skipped,
        protocol::Outcome::Failed => Outcome::Failed,
        protocol::Outcome::Timeout => Outcome::TimeOut,
    };
    let mut output = output.clone();
    for finding in run.scanner.findings() {
        if finding.test.as_ref() == Some(test) {
            outcome = Outcome::Splat;
            output += &report::headline(finding);
            output.push('\n');
            for line in run.scanner.around(finding) {
                output += line;
                output.push('\n');
            }
        }
    }
    Attempt {
        test: test.clone(),
        side,
        outcome,
        ms: *ms,
        output,
        directory: directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    #[test]
    fn every_test_is_dealt_once() {
        for (tests, guests) in [(0, 1), (1, 4), (10, 1), (10, 3), (10, 0)] {
            let hands = dealt(&names(tests), guests);
            let mut all = hands.concat();
            all.sort_by_key(|name| name.parse::<usize>().unwrap());
            assert_eq!(all, names(tests));
            assert!(hands.len() <= guests.max(1));
        }
        assert_eq!(dealt(&names(4), 2), [["0", "2"], ["1", "3"]]);
    }
}
