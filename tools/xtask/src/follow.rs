// SPDX-License-Identifier: GPL-2.0-only
//! Follows a guest, which is a process of the host's: what it says on its console and on the
//! results port, until there is nothing more to wait for. Ends it then.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use harness::protocol::{Decoder, Fault, Message, Session, Stage};

use crate::{
    interrupt,
    log_rules::{Finding, Rules, Scanner},
    run_dir::RunDir,
};

/// The files of a run.
pub(crate) const CONSOLE: &str = "console.log";
pub(crate) const RESULTS: &str = "results.jsonl";
pub(crate) const STDERR: &str = "qemu.log";
pub(crate) const COMMAND: &str = "command.sh";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";

/// Between two looks at the guest.
const POLL: Duration = Duration::from_millis(30);

/// After a find that stops the run, for the rest of the kernel's report. A kernel
/// that panics resets the machine within this time, which ends it earlier.
const GRACE: Duration = Duration::from_secs(3);

/// A command line as one would type it.
pub(crate) fn quoted(line: &[OsString]) -> String {
    let mut text = String::new();
    for word in line {
        let word = word.to_string_lossy();
        if !text.is_empty() {
            text.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            text += &word;
        } else {
            text += &format!("'{}'", word.replace('\'', r"'\''"));
        }
    }
    text
}

/// How long to wait for what. All but the first already contain the slowness of
/// the machine, which depends on the accelerator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the start to init's first message.
    pub(crate) boot: Duration,
    /// From one message to the next.
    pub(crate) silence: Duration,
    /// From the last message to the end of the process.
    pub(crate) power_off: Duration,
}

/// Is told what happens, as it happens.
pub(crate) trait Watcher {
    /// A message that fits.
    fn message(&mut self, message: &Message, session: &Session);
    /// A find in the kernel log, with the log around it as far as it is known.
    fn finding(&mut self, finding: &Finding);
    /// Something to say about the run itself.
    fn note(&mut self, text: &str);
    /// Nothing happened, but time passes.
    fn tick(&mut self, session: &Session);
    /// Whether nobody wants the rest, as if the user had said so.
    fn stops(&self) -> bool {
        false
    }
}

/// Where a guest writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// It opens [`CONSOLE`] and [`RESULTS`] itself, and what it prints is about itself, for
    /// [`STDERR`].
    Own,
    /// Its stderr is [`CONSOLE`], its stdout [`RESULTS`].
    Standard,
}

/// How long a guest may take for its first line, where it may be that it never runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstLine {
    pub(crate) within: Duration,
    /// Whose fault it is, and what to do.
    pub(crate) advice: &'static str,
}

/// A guest to start.
pub(crate) struct Guest {
    /// The command.
    pub(crate) line: Vec<OsString>,
    pub(crate) streams: Streams,
    pub(crate) first_line: Option<FirstLine>,
}

/// How a run ended.
pub(crate) struct Run<'a> {
    pub(crate) session: Session,
    pub(crate) fault: Option<Fault>,
    pub(crate) scanner: Scanner<'a>,
    /// Whether the kernel has printed anything.
    pub(crate) printed: bool,
    /// How the process ended, if it was not killed.
    pub(crate) status: Option<ExitStatus>,
    /// The time-out that struck, in words.
    pub(crate) timed_out: Option<String>,
    pub(crate) interrupted: bool,
    pub(crate) elapsed: Duration,
    /// What it had to say of itself.
    pub(crate) stderr: String,
}

/// A guest's process, which does not outlive this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // With all of its group, which it leads: user mode Linux is several processes. As
            // long as it was not waited for, no other group has this number.
            // SAFETY: no pointers are passed.
            unsafe { libc::kill(-self.0.id().cast_signed(), libc::SIGKILL) };
            // Fails only if it is gone, which is what is wanted.
            let _ = self.0.wait();
        }
    }
}

/// Follows a file that grows.
struct Tail {
    file: File,
    buffer: Vec<u8>,
}

impl Tail {
    fn create(path: &Path) -> Result<Self> {
        let context = || format!("cannot make {}", path.display());
        // It may be opened and truncated again; it must exist before we follow it.
        File::create(path).with_context(context)?;
        Ok(Self {
            file: File::open(path).with_context(context)?,
            buffer: vec![0; 64 << 10],
        })
    }

    /// What was appended since the last call, or a part of it.
    fn read(&mut self) -> Result<&[u8]> {
        let count = self
            .file
            .read(&mut self.buffer)
            .context("cannot read what the guest wrote")?;
        Ok(&self.buffer[..count])
    }
}

/// Writes the command into the run's directory, for whoever wants to run it again.
pub(crate) fn write_command(line: &[OsString], dir: &RunDir) -> Result<()> {
    let path = dir.join(COMMAND);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    writeln!(
        file,
        "#!/bin/sh\n# Boots this guest again.\nexec {}",
        quoted(line)
    )
    .with_context(|| format!("cannot write {}", path.display()))
}

/// A command whose process dies with us, whatever we die of.
pub(crate) fn tied(line: &[OsString]) -> Result<Command> {
    let (program, arguments) = line.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: only one system call between fork and exec, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command)
}

/// Starts a guest and follows it to its end.
///
/// # Errors
///
/// Fails only if the run could not be followed. What the guest does wrong is in
/// the [`Run`].
pub(crate) fn follow<'a>(
    guest: &Guest,
    dir: &RunDir,
    limits: Limits,
    rules: &'a Rules,
    guard: &interrupt::Guard,
    watcher: &mut dyn Watcher,
) -> Result<Run<'a>> {
    let Guest {
        line,
        streams,
        first_line,
    } = guest;
    write_command(line, dir)?;
    let mut console = Tail::create(&dir.join(CONSOLE))?;
    let mut results = Tail::create(&dir.join(RESULTS))?;
    let (out, err) = match streams {
        Streams::Own => {
            File::create(dir.join(STDERR))
                .with_context(|| format!("cannot make {}", dir.join(STDERR).display()))?;
            (STDERR, STDERR)
        }
        Streams::Standard => (RESULTS, CONSOLE),
    };
    let open = |name: &str| {
        let path = dir.join(name);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    };

    let start = Instant::now();
    let mut process = Process(
        tied(line)?
            .stdin(Stdio::null())
            .stdout(open(out)?)
            .stderr(open(err)?)
            // A Ctrl-C in the terminal is for us; we end the guest, with its log written.
            .process_group(0)
            .spawn()
            .with_context(|| {
                let program = line.first().map(|word| word.to_string_lossy());
                format!(
                    "cannot start {}; see `cargo xtask doctor`",
                    program.unwrap_or_default()
                )
            })?,
    );
    let mut run = Run {
        session: Session::default(),
        fault: None,
        scanner: Scanner::new(rules),
        printed: false,
        status: None,
        timed_out: None,
        interrupted: false,
        elapsed: Duration::ZERO,
        stderr: String::new(),
    };
    let mut decoder = Decoder::default();
    let mut heard = start;
    let mut doomed: Option<Instant> = None;
    loop {
        // Before the files are read: what was written before the end is then seen.
        let ended = process
            .0
            .try_wait()
            .context("cannot wait for the guest's process")?;
        loop {
            let bytes = console.read()?;
            if bytes.is_empty() {
                break;
            }
            run.printed = true;
            let new = run.scanner.push(bytes);
            for finding in &run.scanner.findings()[new] {
                watcher.finding(finding);
            }
        }
        loop {
            let bytes = results.read()?;
            if bytes.is_empty() {
                break;
            }
            heard = Instant::now();
            for message in decoder.push(bytes) {
                let taken = message.and_then(|message| {
                    run.session.push(message.clone())?;
                    watcher.message(&message, &run.session);
                    Ok(())
                });
                if let Err(fault) = taken {
                    // What follows a fault means nothing.
                    run.fault.get_or_insert(fault);
                }
            }
        }
        if let Some(status) = ended {
            run.status = Some(status);
            break;
        }
        if guard.requested() || watcher.stops() {
            run.interrupted = true;
            break;
        }
        if doomed.is_none()
            && (run.fault.is_some() || run.scanner.findings().iter().any(|finding| finding.stops))
        {
            doomed = Some(Instant::now());
        }
        if doomed.is_some_and(|since| since.elapsed() > GRACE) {
            break;
        }
        if let Some(FirstLine { within, advice }) = first_line {
            if !run.printed && start.elapsed() > *within {
                run.timed_out = Some(format!(
                    "waited {:.0?} for the first line {advice}",
                    start.elapsed()
                ));
                break;
            }
        }
        let (limit, what) = match &run.session.stage {
            Stage::Silent => (limits.boot, "to boot".to_owned()),
            Stage::Begun(Some((test, _))) => (limits.silence, format!("for a sign of {test}")),
            Stage::Begun(None) => (limits.silence, "for the next message".to_owned()),
            Stage::Ended | Stage::Refused(_) | Stage::Broken(_) => {
                (limits.power_off, "for the guest to power off".to_owned())
            }
        };
        if heard.elapsed() > limit {
            run.timed_out = Some(format!("waited {:.0?} {what}", heard.elapsed()));
            break;
        }
        watcher.tick(&run.session);
        thread::sleep(POLL);
    }
    drop(process);
    let new = run.scanner.finish();
    for finding in &run.scanner.findings()[new] {
        watcher.finding(finding);
    }
    // A line that was torn by the end of the machine is not the protocol's fault.
    if run.session.stage == Stage::Ended {
        if let Err(fault) = decoder.finish() {
            run.fault.get_or_insert(fault);
        }
    }
    run.elapsed = start.elapsed();
    run.stderr = match streams {
        Streams::Own => fs::read_to_string(dir.join(STDERR)).unwrap_or_default(),
        Streams::Standard => format!("what it said is in {CONSOLE}"),
    };
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        let words = ["printf", "%s|", "a b", "it's", "", "$HOME", "x=1,2"].map(OsString::from);
        let output = Command::new("sh")
            .arg("-c")
            .arg(quoted(&words))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "a b|it's||$HOME|x=1,2|"
        );
    }
}
