// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask docs`: whether the documents are what they should be.

mod mistakes;
mod render;
mod rules;

use std::process::ExitCode;

use anyhow::Result;

use crate::checks::Checks;

/// Arguments of `cargo xtask docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write anew what is generated: rules.rst and mistakes.rst in
    /// Documentation.
    #[arg(long)]
    write: bool,
}

/// Runs `cargo xtask docs`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { write } = args;
    if write {
        rules::write()?;
        mistakes::write()?;
    }
    let mut checks = Checks::default();
    rules::check(&mut checks)?;
    mistakes::check(&mut checks)?;
    render::check(&mut checks)?;
    Ok(checks.end())
}
