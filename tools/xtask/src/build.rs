// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask build`: from a bare machine to a built kernel.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{bail, Result};

use crate::profile::Profile;

/// Which tools and which source to build with. Other subcommands that need a
/// kernel flatten these into their own arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// LLVM as the kernel's make takes it: `1`, a suffix such as `-19`, or a directory ending in `/`.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "1",
        allow_hyphen_values = true
    )]
    pub(crate) llvm: String,
    /// Use this kernel tree instead of the cache's; only what the series adds is changed in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) kdir: Option<PathBuf>,
    /// Take the kernel source from this tar archive instead of the network.
    #[arg(long, value_name = "FILE")]
    pub(crate) tarball: Option<PathBuf>,
    /// Parallel jobs of make. Default: one a CPU.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        let Self {
            llvm,
            kdir,
            tarball,
            jobs,
        } = Self {
            llvm: "1".to_owned(),
            kdir: None,
            tarball: None,
            jobs: None,
        };
        Self {
            llvm,
            kdir,
            tarball,
            jobs,
        }
    }
}

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Which kernel: the name of a fragment in ci/config, or `base` for the unpatched tree.
    #[arg(long, default_value = "default")]
    pub(crate) profile: Profile,
    /// Targets and variables for the kernel's own make, such as `menuconfig` or `V=1`.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}

/// A built kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What QEMU boots.
    pub(crate) bzimage: PathBuf,
    /// The same kernel with symbols.
    pub(crate) vmlinux: PathBuf,
    /// The configuration it was built with.
    pub(crate) config: PathBuf,
    /// The profile it was built for.
    pub(crate) profile: Profile,
}

/// Runs `cargo xtask build`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        options,
        profile,
        targets: _,
    } = args;
    let kernel = ensure_kernel(profile, &options)?;
    println!("{}", kernel.bzimage.display());
    Ok(ExitCode::SUCCESS)
}

/// Gets a built kernel: does everything that is missing (tools, source, series,
/// configuration, build) and is quick when nothing changed.
///
/// # Errors
///
/// Each with one sentence that says what to do.
pub(crate) fn ensure_kernel(profile: Profile, _options: &Options) -> Result<Kernel> {
    bail!("building {profile} is not written yet")
}
