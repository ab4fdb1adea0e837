// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask`: builds, boots and judges the patched kernel.

mod apt;
mod bench;
mod build;
mod cache;
mod checks;
mod ci;
mod ctrl_c;
mod demo;
mod disk;
mod docs;
mod doctor;
mod example;
mod fetch;
mod follow;
mod fuzz;
mod guest;
mod initramfs;
mod interrupt;
mod ktap;
mod kunit;
mod kvm;
mod liburing;
mod log_rules;
mod mistakes;
mod paths;
mod profile;
mod progress;
mod qemu;
mod qemu_test;
mod report;
mod run;
mod run_dir;
mod selftest;
mod series;
mod sheet;
mod shell;
mod splats;
mod toolchain;
mod uml;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

/// Builds, boots and judges the Linux kernel with SQE groups.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Fetch, patch, configure and build the kernel.
    Build(build::Args),
    /// Boot kernels, run the tests in them, and judge.
    QemuTest(qemu_test::Args),
    /// Run random programs on the kernel, judged by the model.
    Fuzz(fuzz::Args),
    /// Boot the kernel with an interactive shell.
    Shell(shell::Args),
    /// Boot the kernel, and copy a file to several places with groups.
    Demo(demo::Args),
    /// Count what requests cost, before and after, in instructions.
    Bench(bench::Args),
    /// Show what this machine lacks, and the command that gets it.
    Doctor(doctor::Args),
    /// Run the tests of liburing on the base and the patched kernel, and compare.
    Liburing(liburing::Args),
    /// Check the patch series, lay it out as a git tree, or take edits back.
    Series(series::Args),
    /// Put known mistakes into the kernel, one at a time, and see the tests fail.
    Mistakes(mistakes::Args),
    /// Check the documents: that each rule has its tests, and that all of them can be read.
    Docs(docs::Args),
    /// Make the kernel complain in every way, and see the rules for its log find it.
    Splats(splats::Args),
    /// Everything that must hold before a change goes in.
    Ci(ci::Args),
}

fn main() -> ExitCode {
    ctrl_c::install();
    let result = match Command::parse() {
        Command::Build(args) => build::run(args),
        Command::QemuTest(args) => qemu_test::run(args),
        Command::Fuzz(args) => fuzz::run(args),
        Command::Shell(args) => shell::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Liburing(args) => liburing::run(args),
        Command::Series(args) => series::run(args),
        Command::Mistakes(args) => mistakes::run(args),
        Command::Docs(args) => docs::run(args),
        Command::Splats(args) => splats::run(args),
        Command::Ci(args) => ci::run(args),
    };
    result.unwrap_or_else(|error| {
        progress::line(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// Two arguments of one name, say, are noticed only as their command is used.
    #[test]
    fn the_command_line_makes_sense() {
        super::Command::command().debug_assert();
    }
}
