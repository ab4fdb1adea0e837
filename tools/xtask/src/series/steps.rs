// SPDX-License-Identifier: GPL-2.0-only
//! Each patch of the series by itself: what is there once it has been applied is formatted,
//! builds without new warnings, and boots.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{ensure, Context as _, Result};

use super::{compare, Patch, Series, Variant};
use crate::{build, cache, checks::Checks, profile::Profile, run};

/// Of trees and build directories. Each patch takes the place of the one before.
const NAME: &str = "step";

/// With the feature, and with its KUnit suite.
const BOOTED: &str = "step";

/// What a kernel must be that does not accept groups, for the tests.
const WITHOUT: &str = "off";

/// Where the options that lead to groups are, and what is in there once they are accepted.
const SWITCH: (&str, &str) = ("io_uring/group/group.h", "IORING_FEAT_SQE_GROUP");

/// Whether anything of a patch is in the kernel.
fn is_built(patch: &Patch) -> Result<bool> {
    let touched = patch.touches()?;
    Ok(patch.adds.iter().chain(&touched).any(|path| {
        let elsewhere = ["Documentation", "MAINTAINERS", "tools/testing"];
        !elsewhere.iter().any(|other| path.starts_with(other))
    }))
}

/// Whether groups are accepted once this is applied.
fn accepts(series: &Series) -> Result<bool> {
    let (path, word) = SWITCH;
    let path = Path::new(path);
    Ok(series.added().contains(path)
        && String::from_utf8_lossy(&series.content(path)?).contains(word))
}

/// What has been applied with each patch, with its name. Only patches of the kernel.
fn each(series: &Series) -> Result<Vec<(usize, Series, String)>> {
    let mut steps = Vec::new();
    for (index, patch) in series.patches.iter().enumerate() {
        if is_built(patch)? {
            let count = index + 1;
            steps.push((count, series.first(count), patch.name.clone()));
        }
    }
    Ok(steps)
}

/// Whether the Rust of each step is as rustfmt has it.
pub(super) fn format(report: &mut Checks, series: &Series) -> Result<()> {
    for (_, so_far, name) in each(series)? {
        let added = so_far.added();
        let sources: Vec<_> = added
            .iter()
            .filter(|path| path.extension() == Some("rs".as_ref()))
            .collect();
        if !sources.is_empty() {
            report.add(&format!("{name}: rustfmt"), formatted(&so_far, &sources));
        }
    }
    Ok(())
}

fn formatted(series: &Series, sources: &[&PathBuf]) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    for path in sources {
        cache::write_whole(&dir.path().join(path), &series.content(path)?)?;
    }
    run::output(
        Command::new("rustfmt")
            .args(["--check", "--edition", "2021"])
            .args(sources)
            .current_dir(dir.path()),
    )?;
    Ok(())
}

/// Builds io_uring with each patch, with the feature on and off, and tells new warnings.
pub(super) fn build(report: &mut Checks, series: &Series, options: &build::Options) -> Result<()> {
    let checkers = compare::Checkers::find(&options.llvm)?;
    for missing in checkers.missing() {
        report.skip(&missing);
    }
    for (profile, base) in [("default", "base"), ("off", "base")] {
        let before = compare::base(base.parse()?, options, &checkers)?;
        for (count, _, name) in each(series)? {
            let began = Instant::now();
            let variant = step(count);
            let new = compare::step(profile.parse()?, &variant, &before, options, &checkers)
                .map_err(cache::explain);
            let what = format!(
                "{name}: builds without a new warning, profile {profile} ({} s)",
                began.elapsed().as_secs()
            );
            report.add(
                &what,
                new.and_then(|new| {
                    ensure!(new.is_empty(), "\n{}", new.join("\n"));
                    Ok(())
                }),
            );
        }
    }
    Ok(())
}

/// Boots the kernel of each patch, with the tests that exist for it: all where it accepts
/// groups, those of a kernel without them where it does not, and KUnit's where they are.
pub(super) fn boot(report: &mut Checks, series: &Series, options: &build::Options) -> Result<()> {
    for (count, so_far, name) in each(series)? {
        let began = Instant::now();
        let booted = boot_one(count, accepts(&so_far)?, options);
        let what = format!("{name}: boots and passes ({} s)", began.elapsed().as_secs());
        report.add(&what, booted);
    }
    Ok(())
}

fn boot_one(count: usize, accepts: bool, options: &build::Options) -> Result<()> {
    let profile: Profile = BOOTED.parse()?;
    let kernel = build::ensure_variant(profile, options, &step(count))?;
    let program = env::current_exe().context("cannot find this program")?;
    let status = run::attached(
        Command::new(program)
            .args([
                "qemu-test",
                "--profile",
                if accepts { BOOTED } else { WITHOUT },
            ])
            .arg("--kernel")
            .arg(&kernel.image),
    )?;
    ensure!(status.success(), "its tests ended with {status}");
    Ok(())
}

fn step(count: usize) -> Variant<'static> {
    Variant {
        name: NAME,
        series: true,
        patches: Some(count),
        edits: &[],
    }
}

/// What the tree's kernel-doc says of the C files, and does not say of the base.
pub(super) fn kernel_doc(report: &mut Checks, series: &Series, pristine: &Path) -> Result<()> {
    let script = "scripts/kernel-doc";
    if !pristine.join(script).exists() {
        report.skip(&format!("kernel-doc: the base has no {script}"));
        return Ok(());
    }
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    let files = super::apply::apply(series, |path| super::sync::read(&pristine.join(path)))?;
    for (path, content) in &files {
        let is_c = path
            .extension()
            .is_some_and(|extension| extension == "c" || extension == "h");
        if !is_c || path.starts_with("tools") {
            continue;
        }
        cache::write_whole(&dir.path().join(path), content)?;
        let warnings = |file: PathBuf| -> Result<Vec<String>> {
            let mut said = Vec::new();
            run::lines(
                Command::new(pristine.join(script)).arg("-none").arg(&file),
                |line| {
                    // Without the place: lines move.
                    let text = line.replace(&file.display().to_string(), "");
                    let text: String = text
                        .trim_start_matches(|letter: char| !letter.is_alphabetic())
                        .chars()
                        .filter(|letter| !letter.is_ascii_digit())
                        .collect();
                    said.push(text);
                    Ok(())
                },
            )?;
            said.sort();
            Ok(said)
        };
        let old = pristine.join(path);
        let known = if old.exists() {
            warnings(old)?
        } else {
            Vec::new()
        };
        let new: Vec<_> = warnings(dir.path().join(path))?
            .into_iter()
            .filter(|line| !known.contains(line))
            .collect();
        report.add(&format!("{}: kernel-doc", path.display()), {
            if new.is_empty() {
                Ok(())
            } else {
                Err(anyhow::anyhow!("\n{}", new.join("\n")))
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write, World},
        *,
    };

    #[test]
    fn documents_are_no_step_of_the_kernel() {
        let world = World::new();
        write(
            &world
                .kernel
                .join("patches/0003-Documentation-io_uring-x.patch"),
            "Subject: Documentation: io_uring: x\n\nBecause.\n\nAdds: Documentation/x.rst\n---\n",
        );
        write(&world.kernel.join("Documentation/x.rst"), "");
        let steps: Vec<_> = each(&world.series())
            .unwrap()
            .into_iter()
            .map(|(count, so_far, name)| (count, so_far.patches.len(), name))
            .collect();
        assert_eq!(
            steps,
            [
                (1, 1, "0001-io_uring-first.patch".to_owned()),
                (2, 2, "0002-io_uring-second.patch".to_owned()),
            ]
        );
    }

    /// The series of this checkout: before its last functional patch it accepts nothing.
    #[test]
    fn groups_are_accepted_by_the_last_step() {
        let series = Series::load().unwrap();
        let accepted: Vec<_> = each(&series)
            .unwrap()
            .iter()
            .map(|(_, so_far, _)| accepts(so_far).unwrap())
            .collect();
        let (last, before) = accepted.split_last().unwrap();
        assert!(*last && !before.contains(&true), "{accepted:?}");
    }

    #[test]
    fn each_step_is_formatted() {
        let world = World::new();
        let step = |text: &str| {
            write(&world.kernel.join("io_uring/group/state.rs"), text);
            let path = PathBuf::from("io_uring/group/state.rs");
            formatted(&world.series(), &[&path])
        };
        step("fn a() {}\n").unwrap();
        step("fn a() { }\n").unwrap_err();
    }
}
