// SPDX-License-Identifier: GPL-2.0-only
//! Whether QEMU should use KVM.
//!
//! That `/dev/kvm` opens does not mean much: on a virtual machine without nested
//! virtualisation a guest can be created and then never executes an instruction,
//! and QEMU's own `accel=kvm:tcg` does not notice. So the processor must announce
//! the feature, and even then the guest must print something soon.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// KVM if it works, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What QEMU is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// The name in QEMU's words and ours.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The value of `-accel`.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// How much slower than the bare machine, at most, for time-outs.
    pub(crate) fn slowdown(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 3,
        }
    }
}

/// How long a guest under KVM may be silent before it counts as one of those that
/// never run. A working one speaks within a second.
pub(crate) const FIRST_LINE: Duration = Duration::from_secs(10);

/// Why KVM is not worth a try, if it is not.
fn obstacle(cpuinfo: &str, device: &Path) -> Option<String> {
    let announced = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm");
    if !announced {
        return Some("the processor announces neither vmx nor svm".to_owned());
    }
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => None,
        Err(error) => Some(format!("{} cannot be opened: {error}", device.display())),
    }
}

/// The accelerators to try, in this order, and why KVM is not among them.
pub(crate) fn candidates(choice: Choice) -> (Vec<Accel>, Option<String>) {
    match choice {
        Choice::Kvm => (vec![Accel::Kvm], None),
        Choice::Tcg => (vec![Accel::Tcg], None),
        Choice::Auto => {
            let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            match obstacle(&cpuinfo, Path::new("/dev/kvm")) {
                None => (vec![Accel::Kvm, Accel::Tcg], None),
                Some(why) => (vec![Accel::Tcg], Some(why)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_must_announce_it() {
        // Opens for reading and writing everywhere.
        let device = Path::new("/dev/null");
        assert!(obstacle("", device).is_some());
        assert!(obstacle("flags\t\t: fpu vme svmx\n", device).is_some());
        assert!(obstacle("vmx flags\t: none, but a model name with svm\n", device).is_some());
        assert!(obstacle("flags\t\t: fpu svm vme\n", device).is_none());
        assert!(obstacle("flags\t\t: fpu vme vmx\n", device).is_none());
    }

    #[test]
    fn the_device_must_open() {
        let error = obstacle("flags : vmx\n", Path::new("/does/not/exist")).unwrap();
        assert!(error.contains("/does/not/exist"));
    }
}
