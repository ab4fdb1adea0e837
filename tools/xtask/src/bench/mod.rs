// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask bench`: what requests cost, in instructions, before and after.
//!
//! Kernels of one configuration run one program on a machine whose clock counts
//! instructions: the base, the patched one, and, where all is measured, the patched one with
//! the feature off. With `--native` two kernels run it as programs of the host's, and what
//! is shown is time.

mod boot;
mod chart;
mod document;
mod native;
mod results;
mod symbols;
mod table;
mod tables;
mod target;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use harness::{bench::Extent, protocol::Groups};

use self::{
    boot::{Found, Outcome, Subject},
    results::{Kernel, Results},
    symbols::Text,
    target::Target,
};
use crate::{
    build,
    guest::{self, Built, Program},
    interrupt,
    log_rules::Rules,
    profile::Profile,
    progress::{self, say},
    qemu, report,
    run_dir::RunDir,
    verdict::Verdict,
};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// Boot this bzImage as the base instead of building the profile `base`.
    #[arg(long, value_name = "BZIMAGE")]
    kernel_base: Option<PathBuf>,
    /// Boot this bzImage as the patched kernel instead of building `default`.
    #[arg(long, value_name = "BZIMAGE")]
    kernel_patched: Option<PathBuf>,
    /// Boot this bzImage as the kernel with the feature off instead of building `off`.
    #[arg(long, value_name = "BZIMAGE", conflicts_with = "quick")]
    kernel_off: Option<PathBuf>,
    /// Only NOPs, and not with the feature off: what tells a regression, in seconds.
    #[arg(long)]
    quick: bool,
    /// Take the time instead, on kernels that are programs of this machine's (user mode Linux).
    #[arg(long, conflicts_with_all = ["kdir", "tarball", "kernel_base", "kernel_patched", "kernel_off", "quick", "from", "check"])]
    native: bool,
    /// Boot each kernel so many times, keep the best, and say how well boots agree. Default: 1; 5 with --native.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    repeat: Option<u32>,
    /// Take the numbers from this file, written by --json, and measure nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "repeat"])]
    from: Option<PathBuf>,
    /// Write all that was measured into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with the targets on record in Documentation/performance.json, and fail only if one is worse.
    #[arg(long)]
    check: bool,
    /// Put tables, charts and targets into Documentation/performance.
    #[arg(long, conflicts_with_all = ["quick", "check"])]
    write: bool,
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match execute(args) {
        Ok(code) => Ok(code),
        // 1 would say that a target is missed.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

/// A kernel, and what lies beside it if it was built here.
struct Image {
    subject: Subject,
    vmlinux: Option<PathBuf>,
    config: String,
}

/// Builds a kernel, or takes the one that was given.
fn image(
    name: &'static str,
    profile: &str,
    groups: Groups,
    given: Option<PathBuf>,
    options: &build::Options,
) -> Result<Image> {
    let (bzimage, vmlinux, config) = match given {
        Some(bzimage) => {
            guest::check_image(&bzimage)?;
            let config = guest::config_beside(&bzimage);
            let vmlinux = config
                .as_ref()
                .map(|config| config.with_file_name("vmlinux"))
                .filter(|vmlinux| vmlinux.is_file());
            (bzimage, vmlinux, config)
        }
        None => {
            let kernel = build::ensure_kernel(profile.parse::<Profile>()?, options)?;
            (kernel.image, Some(kernel.vmlinux), Some(kernel.config))
        }
    };
    let config = config
        .map(fs::read_to_string)
        .transpose()
        .context("cannot read a kernel's configuration")?
        .unwrap_or_default();
    Ok(Image {
        subject: Subject {
            name,
            image: bzimage,
            groups,
        },
        vmlinux,
        config,
    })
}

/// The options in which two configurations differ, but for those of the feature.
fn differences(one: &str, other: &str) -> Vec<String> {
    let set = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("CONFIG_") && !line.contains("IO_URING_GROUP"))
            .map(str::to_owned)
            .collect()
    };
    let (one, other) = (set(one), set(other));
    // Nothing is known of a kernel that lies alone.
    if one.is_empty() || other.is_empty() {
        return Vec::new();
    }
    let lacks = |list: &[String], line: &String| !list.contains(line);
    one.iter()
        .filter(|line| lacks(&other, line))
        .chain(other.iter().filter(|line| lacks(&one, line)))
        .cloned()
        .collect()
}

/// The compilers that a configuration names.
fn compilers(config: &str) -> Vec<String> {
    ["CONFIG_CC_VERSION_TEXT=", "CONFIG_RUSTC_VERSION_TEXT="]
        .into_iter()
        .filter_map(|option| config.lines().find_map(|line| line.strip_prefix(option)))
        .map(|value| value.trim_matches('"').to_owned())
        .collect()
}

/// Boots a kernel as often as asked.
fn measure(
    subject: &Subject,
    built: &[Built],
    extent: Extent,
    repeat: u32,
    rules: &Rules,
    guard: &interrupt::Guard,
) -> Result<std::result::Result<Kernel, ExitCode>> {
    let mut boots = Vec::new();
    let mut known = None;
    for _ in 0..repeat {
        match boot::boot(subject, built, extent, rules, guard)? {
            Outcome::Found(Found {
                kernel,
                samples,
                memory,
            }) => {
                boots.push(samples);
                known = Some((kernel, memory));
            }
            Outcome::Bad(verdict) => return Ok(Err(verdict.into())),
            Outcome::Interrupted => {
                progress::line(format_args!("interrupted"));
                return Ok(Err(interrupt::STATUS.into()));
            }
        }
    }
    let (kernel, memory) = known.context("nothing was booted")?;
    Ok(Ok(Kernel::new(kernel, memory, boots)))
}

fn execute(args: Args) -> Result<ExitCode> {
    if args.native {
        return native::run(args);
    }
    let Args {
        options,
        kernel_base,
        kernel_patched,
        kernel_off,
        quick,
        native: _,
        repeat,
        from,
        json,
        check,
        write,
    } = args;
    let repeat = repeat.unwrap_or(1);
    // What is missing should not cost a build.
    let record = check.then(document::record).transpose()?;
    if let Some(path) = from {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let results: Results = serde_json::from_slice(&text)
            .with_context(|| format!("{} was not written by --json", path.display()))?;
        return conclude(&results, record.as_deref(), json.as_deref(), write, false);
    }
    qemu::check()?;
    let rules = Rules::load()?;
    let mut images = vec![
        image("base", "base", Groups::Absent, kernel_base, &options)?,
        image(
            "patched",
            "default",
            Groups::Required,
            kernel_patched,
            &options,
        )?,
    ];
    if !quick {
        images.push(image("off", "off", Groups::Absent, kernel_off, &options)?);
    }
    let built = guest::build(&[Program::Init, Program::Bench])?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let extent = if quick { Extent::Quick } else { Extent::Full };

    let (base, patched) = (&images[0], &images[1]);
    for other in &images {
        let apart = differences(&other.config, &patched.config);
        if !apart.is_empty() {
            say(
                "Note",
                format!(
                    "{} and patched differ in more than the feature: {}",
                    other.subject.name,
                    apart.join(" ")
                ),
            );
        }
    }
    let mut kernels = Vec::new();
    for image in &images {
        match measure(&image.subject, &built, extent, repeat, &rules, &guard)? {
            Ok(kernel) => kernels.push(kernel),
            Err(code) => return Ok(code),
        }
    }
    drop(guard);
    let text = match (&base.vmlinux, &patched.vmlinux) {
        (Some(before), Some(now)) => Some(Text::compare(before, now)?),
        _ => None,
    };
    let compilers = compilers(&patched.config);
    let mut kernels = kernels.into_iter();
    let mut next = || kernels.next().context("a kernel was not measured");
    let (base, patched, off) = (next()?, next()?, next().ok());
    let results = Results {
        base,
        patched,
        off,
        text,
        compilers,
    };
    conclude(&results, record.as_deref(), json.as_deref(), write, quick)
}

/// Shows and keeps what was found, and judges it.
fn conclude(
    results: &Results,
    record: Option<&[Target]>,
    json: Option<&Path>,
    write: bool,
    quick: bool,
) -> Result<ExitCode> {
    let targets = target::targets(results);
    let tables = tables::all(results, &targets);
    for (_, table) in &tables {
        report::print(&table.plain());
    }

    let dir = RunDir::create("bench")?;
    chart::draw(results, dir.path())?;
    let all = serde_json::to_vec_pretty(results).context("cannot encode the results")?;
    let path = dir.join("results.json");
    fs::write(&path, &all).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some(path) = json {
        fs::write(path, &all).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report::print(&format!(
        "\nall numbers and charts: {}\n",
        dir.path().display()
    ));
    if write {
        document::write(results, &targets, &tables)?;
        report::print("Documentation/performance.rst is up to date\n");
    }

    let (passed, failed, skipped) = match record {
        None => {
            let met = targets.iter().filter(|target| target.met()).count();
            (met, targets.len() - met, 0)
        }
        Some(record) => {
            let (passed, failed, skipped) = against(record, &targets);
            // What --quick leaves out was not asked for.
            (passed, failed, if quick { 0 } else { skipped })
        }
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    report::print(&report::closing(
        count(passed),
        count(failed),
        count(skipped),
    ));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        Verdict::Failed.into()
    })
}

/// Compares with what is on record: how many are as good, how many are worse, and how
/// many of the record were not measured.
fn against(record: &[Target], targets: &[Target]) -> (usize, usize, usize) {
    let mut worse = 0;
    let mut better = 0;
    for target in targets {
        match target::find(record, target) {
            None => {
                worse += 1;
                report::print(&format!("not on record: {}\n", target.line()));
            }
            Some(before) if target.worse_than(before) => {
                worse += 1;
                report::print(&format!(
                    "worse than on record: {}; it was {}\n",
                    target.line(),
                    target.kind.show(before.value)
                ));
            }
            Some(before) => better += usize::from(target.better_than(before)),
        }
    }
    if better > 0 {
        report::print(&format!(
            "better than on record: {better}; `cargo xtask bench --write --repeat 2` puts the new numbers there\n"
        ));
    }
    let skipped = record
        .iter()
        .filter(|before| target::find(targets, before).is_none())
        .count();
    (targets.len() - worse, worse, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::target::Kind;

    fn target(case: &str, kind: Kind, value: f64) -> Target {
        Target {
            demand: "demand".to_owned(),
            case: case.to_owned(),
            kind,
            bound: 0.0,
            value,
        }
    }

    #[test]
    fn one_instruction_more_is_a_regression() {
        let record = [target("a", Kind::Instructions, 0.0)];
        let now = |value| [target("a", Kind::Instructions, value)];
        assert_eq!(against(&record, &now(0.1)), (1, 0, 0));
        assert_eq!(against(&record, &now(-5.0)), (1, 0, 0));
        assert_eq!(against(&record, &now(1.0)), (0, 1, 0));
        assert!(!now(1.0)[0].met());
    }

    #[test]
    fn a_ratio_may_be_worse_by_two_percent() {
        let record = [target("a", Kind::Ratio, 1.5)];
        let now = |value| [target("a", Kind::Ratio, value)];
        assert_eq!(against(&record, &now(1.52)), (1, 0, 0));
        assert_eq!(against(&record, &now(1.54)), (0, 1, 0));
    }

    #[test]
    fn what_is_on_one_side_only_does_not_pass() {
        let record = [target("a", Kind::Bytes, 1.0), target("b", Kind::Bytes, 1.0)];
        let now = [target("a", Kind::Bytes, 1.0), target("c", Kind::Bytes, 1.0)];
        assert_eq!(against(&record, &now), (1, 1, 1));
    }

    #[test]
    fn configurations_may_differ_in_the_feature_only() {
        let one = "CONFIG_A=y\nCONFIG_IO_URING_GROUP=y\n# CONFIG_B is not set\n";
        assert!(differences("CONFIG_A=y\n", one).is_empty());
        assert!(differences("", one).is_empty());
        assert_eq!(differences("CONFIG_A=y\nCONFIG_B=y\n", one), ["CONFIG_B=y"]);
    }

    #[test]
    fn the_compilers_are_named() {
        let config = "CONFIG_CC_VERSION_TEXT=\"clang 19\"\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1\"\n";
        assert_eq!(compilers(config), ["clang 19", "rustc 1"]);
    }
}
