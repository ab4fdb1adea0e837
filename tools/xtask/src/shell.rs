// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask shell`: the kernel with a shell on the serial line.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{bail, Context as _, Result};
use harness::protocol::{Groups, Job, Task, VERSION};

use crate::{
    build, disk, follow,
    guest::{self, Program},
    interrupt,
    kvm::{self, Accel},
    profile::Profile,
    progress::say,
    qemu::{self, Console, Disk, Machine},
    run_dir::{RunDir, DISK},
};

/// Where the distributions put it.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];

/// Of the file system at /disk.
const DISK_SIZE: u64 = 512 << 20;

/// Arguments of `cargo xtask shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// Which kernel: a profile in ci/config.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = Profile::to_boot)]
    profile: Profile,
    /// Boot this bzImage instead of building one.
    #[arg(long, value_name = "BZIMAGE")]
    kernel: Option<PathBuf>,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: u32,
    /// Memory of the guest in MiB. Default: 1024, with KASAN or KCSAN 2048.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..))]
    mem: Option<u32>,
    /// Also pack this file, as /bin/NAME. May be repeated.
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
}

/// Whether an ELF program needs an interpreter, which the guest does not have.
fn is_static(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    };
    // 64 bits, little endian.
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(offset), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).all(|index| {
        let kind = size
            .checked_mul(index)
            .and_then(|at| at.checked_add(offset))
            .and_then(|at| number(at, 4));
        kind.is_some_and(|kind| kind != PT_INTERP as usize)
    })
}

/// A busybox that runs without libraries.
fn busybox() -> Result<PathBuf> {
    for path in BUSYBOX {
        if fs::read(path).is_ok_and(|program| is_static(&program)) {
            return Ok(path.into());
        }
    }
    bail!("the shell in the guest is a static busybox, and there is none here; get it with `apt-get install busybox-static`")
}

/// The terminal's settings, put back at the end: QEMU sets it to raw mode, and a
/// QEMU that was killed leaves it there.
struct Terminal(Option<libc::termios>);

impl Terminal {
    fn save() -> Self {
        // SAFETY: all zeroes is a valid termios.
        let mut settings: libc::termios = unsafe { mem::zeroed() };
        // SAFETY: the pointer is to a live struct; fails if this is no terminal.
        let known = unsafe { libc::tcgetattr(0, &mut settings) } == 0;
        Self(known.then_some(settings))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // SAFETY: the pointer is to a live struct.
            unsafe { libc::tcsetattr(0, libc::TCSANOW, settings) };
        }
    }
}

/// Runs `cargo xtask shell`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        options,
        profile,
        kernel,
        accel,
        smp,
        mem,
        with,
    } = args;
    qemu::check()?;
    let busybox = busybox()?;
    let (bzimage, config) = match kernel {
        Some(kernel) => {
            guest::check_image(&kernel)?;
            let config = guest::config_beside(&kernel);
            (kernel, config)
        }
        None => {
            let kernel = build::ensure_kernel(profile.clone(), &options)?;
            (kernel.image, Some(kernel.config))
        }
    };
    let config = config
        .map(fs::read_to_string)
        .transpose()
        .context("cannot read the kernel's configuration")?
        .unwrap_or_default();
    let built = guest::build(&[Program::Init, Program::Tests, Program::Copy])?;

    let dir = RunDir::create("shell")?;
    let image = dir.join(DISK);
    disk::make(&image, DISK_SIZE, None)?;
    let mut extra: Vec<(String, &Path)> = vec![("bin/busybox".to_owned(), &busybox)];
    for file in &with {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no name", file.display()))?;
        extra.push((format!("bin/{name}"), file));
    }
    let extra: Vec<_> = extra
        .iter()
        .map(|(path, source)| (path.as_str(), *source))
        .collect();
    guest::pack(
        &dir,
        &built,
        &extra,
        &Job {
            version: VERSION,
            task: Task::Shell {
                argv: vec!["/bin/busybox".to_owned(), "sh".to_owned()],
            },
            groups: Groups::Any,
            disk: true,
            slowdown: 1,
            env: Vec::new(),
            settings: Vec::new(),
        },
    )?;
    // No fallback: nobody looks at the first line but the user, who sees it.
    let (accels, _) = kvm::candidates(accel);
    let accel = match (accels.as_slice(), accel) {
        (_, kvm::Choice::Kvm) => Accel::Kvm,
        _ => accels.last().copied().unwrap_or(Accel::Tcg),
    };
    let machine = Machine {
        kernel: bzimage,
        smp,
        mem_mib: mem.unwrap_or_else(|| guest::memory(&config)),
        disks: vec![Disk::virtio(image)],
        console: Console::Terminal,
        icount: false,
        append: String::new(),
    };
    let line = machine.command_line(accel, dir.path());
    follow::write_command(&line, &dir)?;
    say(
        "Booting",
        format!(
            "{profile} under {}; leave with `exit`, or with Ctrl-A x",
            accel.name()
        ),
    );
    let _terminal = Terminal::save();
    // Ctrl-C goes to the guest while the terminal is raw. Another signal ends QEMU
    // as well as us, but only after the terminal is put back.
    let _guard = interrupt::Guard::install().context("cannot handle signals")?;
    let status = follow::tied(&line)?
        .status()
        .with_context(|| format!("cannot run {}", follow::quoted(&line)))?;
    if status.success() {
        Ok(ExitCode::SUCCESS)
    } else {
        bail!("QEMU ended with {status}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kinds: &[u32]) -> Vec<u8> {
        let mut program = vec![0; 64 + 56 * kinds.len()];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[32] = 64;
        program[54] = 56;
        program[56] = u8::try_from(kinds.len()).unwrap();
        for (index, kind) in kinds.iter().enumerate() {
            program[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        program
    }

    #[test]
    fn a_static_program_is_known() {
        assert!(is_static(&program(&[6, 1, 1])));
        assert!(!is_static(&program(&[6, 3, 1])));
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(b""));
        let mut torn = program(&[1, 1]);
        torn.truncate(70);
        assert!(!is_static(&torn));
        // Ourselves: a test of the host is dynamic.
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
    }
}
