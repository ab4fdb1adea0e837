// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask series`.

use std::process::ExitCode;

use anyhow::{bail, Result};

/// Arguments of `cargo xtask series`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask series`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {} = args;
    bail!("series is not written yet")
}
