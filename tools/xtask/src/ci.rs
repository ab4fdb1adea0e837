// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask ci`.

use std::process::ExitCode;

use anyhow::{bail, Result};

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask ci`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {} = args;
    bail!("ci is not written yet")
}
