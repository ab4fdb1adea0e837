// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask doctor`.

use std::process::ExitCode;

use anyhow::{bail, Result};

/// Arguments of `cargo xtask doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask doctor`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {} = args;
    bail!("doctor is not written yet")
}
