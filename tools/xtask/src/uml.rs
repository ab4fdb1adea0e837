// SPDX-License-Identifier: GPL-2.0-only
//! User mode Linux: a kernel that is a program of the host's, and runs at the processor's own
//! speed. Its processes are the host's, and it follows them with ptrace(2), so a system call
//! costs some microseconds.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;
use harness::protocol::PORT_ENV;

use crate::{
    follow::{follow, Guest, Limits, Run, Streams, Watcher, INITRAMFS},
    interrupt,
    log_rules::Rules,
    run_dir::RunDir,
};

/// What the kernel is always told: the console is stderr, and the first serial line, which
/// is the results port, is stdout.
const CMDLINE: [&str; 6] = [
    "con0=null,fd:2",
    "console=tty0",
    "ssl0=null,fd:1",
    "panic=-1",
    "oops=panic",
    "printk.devkmsg=on",
];

/// A guest.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The kernel, as a program.
    pub(crate) kernel: PathBuf,
    pub(crate) mem_mib: u32,
}

impl Machine {
    /// The command that starts it, with its files in `dir`.
    fn command_line(&self, dir: &Path) -> Vec<OsString> {
        let Self { kernel, mem_mib } = self;
        let path = |option: &str, path: &Path| {
            let mut word = OsString::from(option);
            word.push(path);
            word
        };
        let mut line = vec![kernel.clone().into_os_string()];
        line.push(format!("mem={mem_mib}M").into());
        line.push(path("initrd=", &dir.join(INITRAMFS)));
        // Where its control socket is. Otherwise that would be the user's home.
        line.push(path("uml_dir=", dir));
        line.extend(CMDLINE.map(OsString::from));
        line.push(format!("{PORT_ENV}=/dev/ttyS0").into());
        line
    }
}

/// Starts a guest and follows it to its end.
///
/// # Errors
///
/// Fails only if the run could not be followed. What the guest does wrong is in
/// the [`Run`].
pub(crate) fn run<'a>(
    machine: &Machine,
    dir: &RunDir,
    limits: Limits,
    rules: &'a Rules,
    guard: &interrupt::Guard,
    watcher: &mut dyn Watcher,
) -> Result<Run<'a>> {
    let guest = Guest {
        line: machine.command_line(dir.path()),
        streams: Streams::Standard,
        first_line: None,
    };
    follow(&guest, dir, limits, rules, guard, watcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::quoted;

    #[test]
    fn the_command_line() {
        let machine = Machine {
            kernel: "/build/linux".into(),
            mem_mib: 256,
        };
        assert_eq!(
            quoted(&machine.command_line(Path::new("/run"))),
            "/build/linux mem=256M initrd=/run/initramfs.cpio uml_dir=/run con0=null,fd:2 \
             console=tty0 ssl0=null,fd:1 panic=-1 oops=panic printk.devkmsg=on \
             SQE_GROUP_RESULTS=/dev/ttyS0"
        );
    }
}
