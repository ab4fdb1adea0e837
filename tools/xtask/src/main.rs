// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask`: builds, boots and judges the patched kernel.

mod apt;
mod build;
mod cache;
mod ci;
mod doctor;
mod fetch;
mod paths;
mod profile;
mod progress;
mod run;
mod series;
mod toolchain;

use std::process::ExitCode;

use clap::Parser;

/// Builds, boots and judges the Linux kernel with SQE groups.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Fetch, patch, configure and build the kernel.
    Build(build::Args),
    /// Show what this machine lacks, and the command that gets it.
    Doctor(doctor::Args),
    /// Check the patch series, lay it out as a git tree, or take edits back.
    Series(series::Args),
    /// Everything that must hold before a change goes in.
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Build(args) => build::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Series(args) => series::run(args),
        Command::Ci(args) => ci::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
