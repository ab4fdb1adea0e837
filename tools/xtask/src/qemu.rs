// SPDX-License-Identifier: GPL-2.0-only
//! QEMU: the machine that a guest runs on, as a command line.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{bail, Context as _, Result};
use harness::protocol::PORT;

use crate::{
    follow::{
        follow, FirstLine, Guest, Limits, Run, Streams, Watcher, CONSOLE, INITRAMFS, RESULTS,
    },
    interrupt,
    kvm::{self, Accel},
    log_rules::Rules,
    run_dir::RunDir,
};

const PROGRAM: &str = "qemu-system-x86_64";

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
const CMDLINE: &str = "console=ttyS0 panic=-1 oops=panic printk.devkmsg=on nokaslr mitigations=off no_timer_check watchdog_thresh=60 no5lvl virtio_blk.poll_queues=1 null_blk.poll_queues=1 nvme.poll_queues=1";

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

/// Boots a guest and follows it to its end. Tries one accelerator after the other, until the
/// guest prints something; returns which one that was.
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
) -> Result<(Accel, Run<'a>)> {
    let mut accels = accels.iter().copied();
    let mut accel = accels.next().context("no accelerator to try")?;
    loop {
        let guest = Guest {
            line: machine.command_line(accel, dir.path()),
            streams: Streams::Own,
            first_line: (accel == Accel::Kvm).then_some(FirstLine {
                within: kvm::FIRST_LINE,
                advice: "under KVM, which does not seem to work here; use `--accel tcg`",
            }),
        };
        let run = follow(&guest, dir, limits(accel), rules, guard, watcher)?;
        // QEMU may also fall over a KVM that is not whole.
        let failed = run.status.is_some_and(|status| !status.success());
        let never_ran = !run.printed && (failed || run.timed_out.is_some());
        match accels.next() {
            Some(next) if never_ran => {
                watcher.note(&format!(
                    "the guest does not run under {} (no line within {} s); trying {}",
                    accel.name(),
                    kvm::FIRST_LINE.as_secs(),
                    next.name()
                ));
                accel = next;
            }
            _ => return Ok((accel, run)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::quoted;

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
             -append 'console=ttyS0 panic=-1 oops=panic printk.devkmsg=on nokaslr mitigations=off no_timer_check watchdog_thresh=60 no5lvl virtio_blk.poll_queues=1 null_blk.poll_queues=1 nvme.poll_queues=1' \
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
}
