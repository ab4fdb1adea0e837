// SPDX-License-Identifier: GPL-2.0-only
//! Starts a guest, follows what it says, and ends it when there is nothing more to
//! wait for.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Context as _, Result};
use harness::protocol::{Decoder, Fault, Message, Session, Stage, PORT};

use crate::{
    interrupt,
    kvm::{self, Accel},
    log_rules::{Finding, Rules, Scanner},
    run_dir::RunDir,
};

const PROGRAM: &str = "qemu-system-x86_64";

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

/// What the kernel is always told.
///
/// `panic=-1` and QEMU's `-no-reboot` make the end of a panic the end of QEMU.
/// Without `printk.devkmsg=on` init's marks fall under a rate limit. The poll queues
/// are for tests of IOPOLL. Nothing here needs to be safe from the guest's programs.
///
/// `no_timer_check` and `watchdog_thresh=60` (seconds) are for hosts that have a lot else to
/// do: when they give a processor of the guest no time, the kernel's check of its timer
/// panics at boot, and 20 seconds later its watchdog sees a lockup.
/// `no5lvl` is, too: with page tables of five levels KASAN reports what is right, if an
/// interrupt comes while `identify_cpu()` has cleared the features of the first processor.
/// `pgtable_l5_enabled()` looks there, and where the shadow begins depends on it.
const CMDLINE: &str = "console=ttyS0 panic=-1 oops=panic printk.devkmsg=on nokaslr mitigations=off no_timer_check watchdog_thresh=60 no5lvl virtio_blk.poll_queues=1 null_blk.poll_queues=1";

/// What the kernel is told besides where time is counted in instructions: not to
/// doubt the time stamp counter, which is what does the counting.
const CMDLINE_ICOUNT: &str = " tsc=reliable";

/// Where the console goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    /// Into a file of the run.
    File,
    /// To the terminal, both ways.
    Terminal,
}

/// How a guest meets a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    /// As the next of `/dev/vda`, `/dev/vdb`, ...
    Virtio,
    /// As that, but it cannot be written, and other guests may have it too.
    VirtioReadOnly,
    /// As the next of `/dev/nvme0n1`, `/dev/nvme1n1`, ...
    Nvme,
}

/// A disk of a guest.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) image: PathBuf,
    pub(crate) bus: Bus,
}

impl Disk {
    /// The one disk of most guests.
    pub(crate) fn virtio(image: PathBuf) -> Self {
        Self {
            image,
            bus: Bus::Virtio,
        }
    }
}

/// A guest.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) smp: u32,
    pub(crate) mem_mib: u32,
    pub(crate) disks: Vec<Disk>,
    pub(crate) console: Console,
    /// Whether time goes on by a nanosecond an instruction, and by nothing else. Then
    /// two runs do the same. Needs TCG and one processor.
    pub(crate) icount: bool,
    /// What else the kernel is told.
    pub(crate) append: String,
}

/// QEMU takes a comma in a value for the end of it, unless it is doubled.
fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsStr::from_bytes(&bytes).to_owned()
}

impl Machine {
    /// The command that starts it, with its files in `dir`.
    pub(crate) fn command_line(&self, accel: Accel, dir: &Path) -> Vec<OsString> {
        let Self {
            kernel,
            smp,
            mem_mib,
            disks,
            console,
            icount,
            append: more,
        } = self;
        let in_dir = |prefix: &str, name: &str| {
            let mut option = OsString::from(prefix);
            option.push(escaped(&dir.join(name)));
            option
        };
        let mut line: Vec<OsString> = [
            PROGRAM,
            "-M",
            "q35",
            "-accel",
            // Counting does not go with a thread for each processor.
            if *icount {
                "tcg,thread=single"
            } else {
                accel.option()
            },
            "-cpu",
            "max",
            "-smp",
            &smp.to_string(),
            "-m",
            &mem_mib.to_string(),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]
        .map(OsString::from)
        .to_vec();
        line.extend(["-kernel".into(), kernel.clone().into_os_string()]);
        line.extend(["-initrd".into(), dir.join(INITRAMFS).into_os_string()]);
        let mut append = OsString::from(CMDLINE);
        if *icount {
            line.extend(["-icount", "shift=0,sleep=off"].map(OsString::from));
            line.extend(["-rtc", "base=2026-01-01,clock=vm"].map(OsString::from));
            append.push(CMDLINE_ICOUNT);
        }
        if !more.is_empty() {
            append.push(" ");
            append.push(more);
        }
        line.extend(["-append".into(), append]);
        line.push("-chardev".into());
        line.push(match console {
            Console::File => in_dir("file,id=console,path=", CONSOLE),
            // Ctrl-C belongs to the guest's shell.
            Console::Terminal => "stdio,id=console,mux=on,signal=off".into(),
        });
        line.extend(["-serial", "chardev:console"].map(OsString::from));
        if *console == Console::Terminal {
            line.extend(["-mon", "chardev=console"].map(OsString::from));
        }
        line.extend(["-chardev".into(), in_dir("file,id=results,path=", RESULTS)]);
        line.extend(
            [
                "-device",
                "virtio-serial-pci",
                "-device",
                &format!("virtserialport,chardev=results,name={PORT}"),
            ]
            .map(OsString::from),
        );
        for (number, Disk { image, bus }) in disks.iter().enumerate() {
            let mut drive = OsString::from(format!("if=none,id=disk{number},format=raw,"));
            drive.push(match bus {
                // The image does not outlive the run, so nothing need reach the disk.
                Bus::Virtio | Bus::Nvme => "cache=unsafe,file=",
                Bus::VirtioReadOnly => "readonly=on,file=",
            });
            drive.push(escaped(image));
            line.extend(["-drive".into(), drive]);
            let device = match bus {
                Bus::Virtio | Bus::VirtioReadOnly => format!("virtio-blk-pci,drive=disk{number}"),
                Bus::Nvme => format!("nvme,drive=disk{number},serial=disk{number}"),
            };
            line.extend(["-device".into(), device.into()]);
        }
        line
    }
}

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

/// Checks that QEMU is there, before anything that takes time.
pub(crate) fn check() -> Result<()> {
    match Command::new(PROGRAM)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{PROGRAM} --version`: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "{PROGRAM} is not installed; get it with `apt-get install qemu-system-x86`, or see `cargo xtask doctor`"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot run {PROGRAM}")),
    }
}

/// How long to wait for what. All but the first already contain the slowness of
/// the machine, which depends on the accelerator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the start to init's first message.
    pub(crate) boot: Duration,
    /// From one message to the next.
    pub(crate) silence: Duration,
    /// From the last message to the end of QEMU.
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

/// How a run ended.
pub(crate) struct Run<'a> {
    pub(crate) accel: Accel,
    pub(crate) session: Session,
    pub(crate) fault: Option<Fault>,
    pub(crate) scanner: Scanner<'a>,
    /// How QEMU ended, if it was not killed.
    pub(crate) status: Option<ExitStatus>,
    /// The time-out that struck, in words.
    pub(crate) timed_out: Option<String>,
    pub(crate) interrupted: bool,
    pub(crate) elapsed: Duration,
    /// What QEMU had to say.
    pub(crate) stderr: String,
}

/// QEMU, which does not outlive this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
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
        // QEMU opens it again and truncates it; it must exist before we follow it.
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

/// Boots a guest and follows it to its end.
///
/// # Errors
///
/// Fails only if the run could not be followed. What the guest does wrong is in
/// the [`Run`].
pub(crate) fn run<'a>(
    machine: &Machine,
    dir: &RunDir,
    accels: &[Accel],
    limits: impl Fn(Accel) -> Limits,
    rules: &'a Rules,
    guard: &interrupt::Guard,
    watcher: &mut dyn Watcher,
) -> Result<Run<'a>> {
    let mut accels = accels.iter().copied();
    let mut accel = accels.next().context("no accelerator to try")?;
    loop {
        let next = accels.next();
        let run = attempt(
            machine,
            dir,
            accel,
            limits(accel),
            next.is_some(),
            rules,
            guard,
            watcher,
        )?;
        match (run, next) {
            (Some(run), _) => return Ok(run),
            (None, Some(next)) => {
                watcher.note(&format!(
                    "the guest does not run under {} (no line within {} s); trying {}",
                    accel.name(),
                    kvm::FIRST_LINE.as_secs(),
                    next.name()
                ));
                accel = next;
            }
            (None, None) => bail!("no accelerator is left to try"),
        }
    }
}

/// One boot. Nothing comes of it if the accelerator does not work and there is
/// `another` one.
#[allow(clippy::too_many_arguments, reason = "all of `run`, and one more")]
fn attempt<'a>(
    machine: &Machine,
    dir: &RunDir,
    accel: Accel,
    limits: Limits,
    another: bool,
    rules: &'a Rules,
    guard: &interrupt::Guard,
    watcher: &mut dyn Watcher,
) -> Result<Option<Run<'a>>> {
    let line = machine.command_line(accel, dir.path());
    write_command(&line, dir)?;
    let mut console = Tail::create(&dir.join(CONSOLE))?;
    let mut results = Tail::create(&dir.join(RESULTS))?;
    let stderr_path = dir.join(STDERR);
    let stderr = File::create(&stderr_path)
        .with_context(|| format!("cannot make {}", stderr_path.display()))?;

    let start = Instant::now();
    let mut qemu = Process(
        tied(&line)?
            .stdin(Stdio::null())
            .stdout(stderr.try_clone().context("cannot open QEMU's log twice")?)
            .stderr(stderr)
            // A Ctrl-C in the terminal is for us; we end QEMU, with its log written.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}; see `cargo xtask doctor`"))?,
    );
    let mut run = Run {
        accel,
        session: Session::default(),
        fault: None,
        scanner: Scanner::new(rules),
        status: None,
        timed_out: None,
        interrupted: false,
        elapsed: Duration::ZERO,
        stderr: String::new(),
    };
    let mut decoder = Decoder::default();
    let mut heard = start;
    let mut printed = false;
    let mut doomed: Option<Instant> = None;
    loop {
        // Before the files are read: what QEMU wrote before its end is then seen.
        let ended = qemu.0.try_wait().context("cannot wait for QEMU")?;
        loop {
            let bytes = console.read()?;
            if bytes.is_empty() {
                break;
            }
            printed = true;
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
            // QEMU may also fall over a KVM that is not whole.
            if another && !printed && !status.success() {
                return Ok(None);
            }
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
        if accel == Accel::Kvm && !printed && start.elapsed() > kvm::FIRST_LINE {
            if another {
                return Ok(None);
            }
            run.timed_out = Some(format!(
                "waited {:.0?} for the first line under KVM, which does not seem to work here; use `--accel tcg`",
                start.elapsed()
            ));
            break;
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
    drop(qemu);
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
    run.stderr = fs::read_to_string(&stderr_path).unwrap_or_default();
    Ok(Some(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            kernel: "/build/bzImage".into(),
            smp: 2,
            mem_mib: 1024,
            disks: Vec::new(),
            console: Console::File,
            icount: false,
            append: String::new(),
        }
    }

    fn text(machine: &Machine, accel: Accel, dir: &str) -> String {
        quoted(&machine.command_line(accel, Path::new(dir)))
    }

    #[test]
    fn the_command_line() {
        assert_eq!(
            text(&machine(), Accel::Tcg, "/run"),
            "qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 \
             -nodefaults -no-user-config -display none -no-reboot \
             -kernel /build/bzImage -initrd /run/initramfs.cpio \
             -append 'console=ttyS0 panic=-1 oops=panic printk.devkmsg=on nokaslr mitigations=off no_timer_check watchdog_thresh=60 no5lvl virtio_blk.poll_queues=1 null_blk.poll_queues=1' \
             -chardev file,id=console,path=/run/console.log -serial chardev:console \
             -chardev file,id=results,path=/run/results.jsonl -device virtio-serial-pci \
             -device virtserialport,chardev=results,name=sqe-group.results"
        );
    }

    #[test]
    fn a_guest_that_counts_instructions() {
        let machine = Machine {
            smp: 1,
            icount: true,
            ..machine()
        };
        let line = text(&machine, Accel::Tcg, "/run");
        assert!(line.contains("-accel tcg,thread=single "), "{line}");
        assert!(line.contains("-icount shift=0,sleep=off "), "{line}");
        assert!(line.contains(" tsc=reliable' "), "{line}");
    }

    #[test]
    fn a_kernel_that_is_told_more() {
        let machine = Machine {
            append: "slab_debug=Z x=1".to_owned(),
            ..machine()
        };
        let line = text(&machine, Accel::Tcg, "/run");
        assert!(
            line.contains("poll_queues=1 slab_debug=Z x=1' -chardev"),
            "{line}"
        );
    }

    #[test]
    fn a_comma_in_a_path_is_not_an_option() {
        let machine = Machine {
            disks: vec![Disk::virtio("/a,b/disk.img".into())],
            ..machine()
        };
        let line = text(&machine, Accel::Tcg, "/a,b");
        assert!(line.contains("path=/a,,b/console.log"), "{line}");
        assert!(line.contains("file=/a,,b/disk.img"), "{line}");
        // Not an option with values.
        assert!(line.contains("-initrd /a,b/initramfs.cpio"), "{line}");
    }

    #[test]
    fn disks_come_in_their_order() {
        let disk = |image: &str, bus| Disk {
            image: image.into(),
            bus,
        };
        let machine = Machine {
            disks: vec![
                disk("/a", Bus::Virtio),
                disk("/b", Bus::VirtioReadOnly),
                disk("/c", Bus::Nvme),
            ],
            ..machine()
        };
        let line = text(&machine, Accel::Tcg, "/run");
        for part in [
            "-drive if=none,id=disk0,format=raw,cache=unsafe,file=/a -device virtio-blk-pci,drive=disk0",
            "-drive if=none,id=disk1,format=raw,readonly=on,file=/b -device virtio-blk-pci,drive=disk1",
            "-drive if=none,id=disk2,format=raw,cache=unsafe,file=/c -device nvme,drive=disk2,serial=disk2",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_terminal_gets_the_console_and_the_monitor() {
        let machine = Machine {
            console: Console::Terminal,
            ..machine()
        };
        let line = text(&machine, Accel::Kvm, "/run");
        assert!(line.contains("-accel kvm "), "{line}");
        assert!(
            line.contains("stdio,id=console,mux=on,signal=off"),
            "{line}"
        );
        assert!(line.contains("-mon chardev=console"), "{line}");
        assert!(!line.contains("console.log"), "{line}");
    }

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
