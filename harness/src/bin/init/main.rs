// SPDX-License-Identifier: GPL-2.0-only
//! PID 1 of the guest: does the job that the host left in the initramfs, reports
//! over the results port, and powers off.
//!
//! It must never end by itself. The kernel would panic, and the host would see a
//! lost guest instead of the reason.

mod diagnose;
mod process;
mod setup;
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    panic,
    process::ExitCode,
    thread,
    time::Duration,
};

use harness::protocol::{
    Groups, Job, Message, SuiteKind, Task, JOB_PATH, MARK, MARK_BEGIN, MARK_END, VERSION,
};

use process::{Guest, Limits};

/// An error is one sentence; here nobody looks at types.
type Result<T> = std::result::Result<T, String>;

/// Adds to an error what was being done.
trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}

/// The kernel log, where a remark stands between what the kernel printed before
/// and after it.
struct KernelLog(Option<File>);

impl KernelLog {
    fn open() -> Self {
        Self(OpenOptions::new().write(true).open("/dev/kmsg").ok())
    }

    /// One record, in one write, as /dev/kmsg wants it.
    fn mark(&mut self, text: &str) {
        if let Some(file) = &mut self.0 {
            // Nothing depends on a single mark but the reader's comfort; that the
            // first and the last one arrived is checked on the host.
            let _ = file.write_all(format!("<6>{MARK}{text}\n").as_bytes());
        }
    }

    fn mark_lines(&mut self, text: &str) {
        for line in text.lines() {
            self.mark(line);
        }
    }
}

/// The way to the host.
struct Port(File);

impl Port {
    fn send(&mut self, message: &Message) -> Result<()> {
        let line = message
            .to_line()
            .context(|| "cannot encode a message".to_owned())?;
        self.0
            .write_all(line.as_bytes())
            .context(|| "cannot write to the results port".to_owned())
    }
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("error: this is the init of a test guest; start it with `cargo xtask qemu-test`");
        return ExitCode::FAILURE;
    }
    // Before anything else, so that even the first failure can be told.
    let mounted = setup::mounts();
    let mut log = KernelLog::open();
    let mut port = None;

    let work = panic::AssertUnwindSafe(|| mounted.and_then(|()| run(&mut log, &mut port)));
    let trouble = match panic::catch_unwind(work) {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(reason),
        Err(payload) => {
            let what = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Some(format!("init panicked: {what}"))
        }
    };
    if let Some(reason) = trouble {
        log.mark(&format!("broken: {reason}"));
        if let Some(port) = &mut port {
            // The log has it already, should this fail too.
            let _ = port.send(&Message::Broken { reason });
        }
    }
    log.mark(MARK_END);
    power_off()
}

fn power_off() -> ! {
    // SAFETY: no pointers are passed.
    unsafe {
        libc::sync();
        libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF);
    }
    // Only without ACPI. The host's time-out ends the machine then.
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn run(log: &mut KernelLog, port: &mut Option<Port>) -> Result<()> {
    let job = fs::read_to_string(JOB_PATH).context(|| format!("cannot read the job {JOB_PATH}"))?;
    let Job {
        version,
        task,
        groups,
        disk,
        slowdown,
        env,
        settings,
    } = serde_json::from_str(&job).context(|| format!("{JOB_PATH} is no job"))?;
    if version != VERSION {
        return Err(format!(
            "the job is of version {version}, this init of version {VERSION}"
        ));
    }
    setup::limits();
    setup::loopback()?;
    if disk {
        setup::disk()?;
    }
    setup::write(&settings)?;
    let has_groups = setup::has_groups()?;
    let mut guest = Guest::new(has_groups, Limits::scaled(slowdown), env);

    if let Task::Shell { argv } = &task {
        log.mark(MARK_BEGIN);
        return process::shell(&mut guest, argv);
    }

    let port = port.insert(Port(setup::results_port()?));
    log.mark(MARK_BEGIN);
    let tests = match &task {
        Task::Tests { suites, repeat, .. } => suites
            .iter()
            .try_fold(0_u32, |sum, suite| {
                sum.checked_add(u32::try_from(suite.tests.len()).ok()?)
            })
            .and_then(|tests| tests.checked_mul(*repeat))
            .ok_or_else(|| "more tests than can be counted".to_owned())?,
        Task::Program { .. } | Task::Shell { .. } => 0,
    };
    port.send(&Message::Begin {
        version: VERSION,
        kernel: setup::kernel()?,
        cpus: setup::cpus(),
        groups: has_groups,
        tests,
    })?;
    let refused = match (groups, has_groups) {
        (Groups::Required, false) => Some(
            "this kernel has no SQE groups: IORING_FEAT_SQE_GROUP is not among the features of io_uring_setup",
        ),
        (Groups::Absent, true) => Some(
            "this kernel has SQE groups, though it should have been built without them",
        ),
        _ => None,
    };
    if let Some(reason) = refused {
        return port.send(&Message::Refused {
            reason: reason.to_owned(),
        });
    }

    let totals = match task {
        Task::Tests {
            suites,
            repeat,
            timeout_ms,
            max_failures,
        } => {
            if suites.iter().any(|suite| suite.kind == SuiteKind::Programs) {
                setup::programs()?;
            }
            setup::clear_leaks();
            let mut runner = tests::Runner {
                timeout: Duration::from_millis(timeout_ms),
                max_failures,
                guest: &mut guest,
                log,
                port,
                totals: tests::Totals::default(),
            };
            for round in 1..=repeat {
                for suite in &suites {
                    for test in &suite.tests {
                        runner.run(suite, test, round)?;
                    }
                }
            }
            let totals = runner.totals;
            log.mark_lines(&setup::find_leaks());
            totals
        }
        Task::Program { argv } => {
            let status = process::stream(&mut guest, &argv, |text| {
                port.send(&Message::Output {
                    text: text.to_owned(),
                })
            })?;
            port.send(&Message::Exit { status })?;
            tests::Totals::default()
        }
        // Left above.
        Task::Shell { .. } => tests::Totals::default(),
    };
    let tests::Totals {
        passed,
        failed,
        skipped,
    } = totals;
    port.send(&Message::End {
        passed,
        failed,
        skipped,
        taint: setup::taint()?,
    })
}
