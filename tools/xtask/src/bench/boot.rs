// SPDX-License-Identifier: GPL-2.0-only
//! Boots a kernel, and collects what the benchmark in it tells.

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, ensure, Context as _, Result};
use harness::{
    bench::{Extent, Memory, Record, Sample},
    protocol::{Groups, Job, Message, Session, Task, VERSION},
};

use crate::{
    disk,
    follow::{Limits, Watcher},
    guest::{self, Built, Program},
    interrupt,
    kvm::Accel,
    log_rules::{Finding, Rules},
    progress::{say, Bar, Unit},
    qemu::{self, Console, Disk},
    report,
    run_dir::{RunDir, DISK},
    uml,
    verdict::Verdict,
};

/// The guest's disk, in bytes: seventeen files of a megabyte, and what ext4 needs.
const DISK_SIZE: u64 = 64 << 20;

/// One kernel to boot.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) image: PathBuf,
    pub(super) groups: Groups,
}

/// What one boot has shown.
pub(super) struct Found {
    pub(super) kernel: String,
    pub(super) samples: Vec<Sample>,
    pub(super) memory: Memory,
}

/// How a boot ended.
pub(super) enum Outcome {
    Found(Found),
    /// With a verdict that was explained on stdout.
    Bad(Verdict),
    Interrupted,
}

/// Puts the guest's output together, line by line.
struct Live {
    kernel: String,
    output: Output,
    bar: Bar,
}

/// What the program has printed.
#[derive(Default)]
struct Output {
    /// The beginning of a line.
    partial: String,
    samples: Vec<Sample>,
    memory: Option<Memory>,
    /// Lines that are no records: what the program says when it fails.
    words: String,
}

impl Output {
    fn take(&mut self, text: &str) {
        self.partial += text;
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            match serde_json::from_str(&line) {
                Ok(Record::Sample(sample)) => self.samples.push(sample),
                Ok(Record::Memory(memory)) => self.memory = Some(memory),
                Err(_) => self.words += &line,
            }
        }
    }
}

impl Watcher for Live {
    fn message(&mut self, message: &Message, _session: &Session) {
        match message {
            Message::Begin { kernel, .. } => self.kernel.clone_from(kernel),
            Message::Output { text } => {
                self.output.take(text);
                self.bar.set(self.output.samples.len() as u64);
            }
            _ => {}
        }
    }

    fn finding(&mut self, finding: &Finding) {
        say("Kernel", report::headline(finding));
    }

    fn note(&mut self, text: &str) {
        say("Note", text);
    }

    fn tick(&mut self, _session: &Session) {}
}

/// Boots it once: in QEMU, with a clock that counts instructions, or, for
/// [`Extent::Native`], as a program.
pub(super) fn boot(
    subject: &Subject,
    built: &[Built],
    extent: Extent,
    rules: &Rules,
    guard: &interrupt::Guard,
) -> Result<Outcome> {
    let Subject {
        name,
        image,
        groups,
    } = subject;
    let dir = RunDir::create(&format!("bench-{name}"))?;
    let argv = vec![Program::Bench.path(), extent.name().to_owned()];
    guest::pack(
        &dir,
        built,
        &[],
        &Job {
            version: VERSION,
            task: Task::Program { argv },
            groups: *groups,
            // The benchmark mounts it, and not where the host can see.
            disk: false,
            slowdown: 1,
            env: Vec::new(),
            settings: Vec::new(),
        },
    )?;
    let mut live = Live {
        kernel: String::new(),
        output: Output::default(),
        bar: Bar::new("Measuring", name, Unit::Things("measurements"), None),
    };
    // How long this takes is not what is measured: a busy host may be slow.
    let limits = Limits {
        boot: Duration::from_secs(240),
        silence: Duration::from_secs(240),
        power_off: Duration::from_secs(60),
    };
    let run = if extent == Extent::Native {
        let machine = uml::Machine {
            kernel: image.clone(),
            mem_mib: 256,
        };
        uml::run(&machine, &dir, limits, rules, guard, &mut live)?
    } else {
        let disk = dir.join(DISK);
        disk::make(&disk, DISK_SIZE, None)?;
        let machine = qemu::Machine {
            kernel: image.clone(),
            smp: 1,
            mem_mib: 1024,
            disks: vec![Disk::virtio(disk)],
            console: Console::File,
            icount: true,
            append: String::new(),
        };
        let accels = [Accel::Tcg];
        let limits = |_| limits;
        qemu::run(&machine, &dir, &accels, limits, rules, guard, &mut live)?.1
    };
    let Live {
        kernel,
        output,
        bar,
    } = live;
    bar.finish();
    let Output {
        partial,
        samples,
        memory,
        words,
    } = output;
    if run.interrupted {
        return Ok(Outcome::Interrupted);
    }
    let evidence = report::evidence(&run, &[]);
    let verdict = evidence.judge();
    if verdict != Verdict::Passed {
        report::print(&report::causes(&run, evidence, dir.path()));
        report::print(&words);
        report::print(&format!("{name}: {}\n", verdict.words()));
        return Ok(Outcome::Bad(verdict));
    }
    ensure!(
        partial.is_empty() && words.is_empty(),
        "the benchmark in the guest said what is no measurement: {words}{partial}"
    );
    if samples.is_empty() {
        bail!("the benchmark in the guest has measured nothing");
    }
    Ok(Outcome::Found(Found {
        kernel,
        samples,
        memory: memory.context("the benchmark in the guest has not told the size of a request")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_put_together_and_the_rest_is_kept() {
        let memory = Memory {
            size: 256,
            slot: 256,
            objects: 16,
            order: 0,
        };
        let line = serde_json::to_string(&Record::Memory(memory)).unwrap();
        let mut output = Output::default();
        let (first, second) = line.split_at(10);
        output.take(first);
        assert_eq!(output.memory, None);
        output.take(&format!("{second}\nbench: no memory\ncut"));
        assert_eq!(output.memory, Some(memory));
        assert_eq!(output.words, "bench: no memory\n");
        assert_eq!(output.partial, "cut");
    }
}
