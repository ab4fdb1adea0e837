// SPDX-License-Identifier: GPL-2.0-only
//! The guest's own programs, and the initramfs that holds them.

use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{bail, ensure, Context as _, Result};
use harness::protocol::{Job, JOB_PATH};
use serde::Deserialize;

use crate::{
    follow::{quoted, INITRAMFS},
    initramfs::Archive,
    paths,
    progress::say,
    run_dir::{self, RunDir},
};

/// There is no shared library in the guest.
const RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// Named even where it is the host's own, so that [`RUSTFLAGS`] does not apply to
/// build scripts and macros, which cannot be static.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Something of the harness that runs in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// PID 1.
    Init,
    /// The tests of the rules.
    Tests,
    /// What plants complaints of the kernel.
    Splats,
    /// The example that copies a file.
    Copy,
    /// What runs random programs.
    Fuzz,
    /// What counts instructions.
    Bench,
}

impl Program {
    /// The name of cargo's target, and of the file in the guest.
    fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Tests => "group",
            Self::Splats => "splats",
            Self::Copy => "copy",
            Self::Fuzz => "fuzz",
            Self::Bench => "bench",
        }
    }

    /// Where it is in the guest.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Init => "/init".to_owned(),
            Self::Tests | Self::Splats | Self::Copy | Self::Fuzz | Self::Bench => {
                format!("/bin/{}", self.name())
            }
        }
    }

    /// cargo's subcommand for it. A test binary has to come from `cargo test`.
    fn subcommand(self) -> &'static [&'static str] {
        match self {
            Self::Init | Self::Copy | Self::Fuzz | Self::Bench => &["build"],
            Self::Tests | Self::Splats => &["test", "--no-run"],
        }
    }

    /// Whether it has the checks of a debug build: not where its own instructions are
    /// among those that are counted.
    fn checked(self) -> bool {
        self != Self::Bench
    }

    fn selection(self) -> [&'static str; 2] {
        let kind = match self {
            Self::Init | Self::Fuzz | Self::Bench => "--bin",
            Self::Copy => "--example",
            Self::Tests | Self::Splats => "--test",
        };
        [kind, self.name()]
    }
}

/// A program and the file it was built into.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) program: Program,
    pub(crate) file: PathBuf,
}

/// The line in which cargo tells what it has built.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The commands that build these programs. `cargo test` would also build the example
/// as a test, and the checks of a debug build are on or off for a whole command.
fn commands(programs: &[Program]) -> Result<Vec<Vec<String>>> {
    let directory = |name: &str| {
        let path = run_dir::target()?.join(name);
        let text = path.to_str().map(str::to_owned);
        text.with_context(|| format!("{} is not UTF-8", path.display()))
    };
    // What is in a directory has or lacks the checks. One for both would lose a program as
    // soon as another run builds the tests, with which cargo builds all programs.
    let (with, without) = (directory("guest")?, directory("guest-unchecked")?);
    let mut commands = Vec::new();
    for (subcommand, checked) in [
        (&["build"][..], true),
        (&["build"][..], false),
        (&["test", "--no-run"][..], true),
    ] {
        let chosen: Vec<_> = programs
            .iter()
            .filter(|program| program.subcommand() == subcommand && program.checked() == checked)
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let mut command: Vec<_> = subcommand.to_vec();
        command.extend([
            "--package",
            "harness",
            // Also for the programs that do not need it: one build of the library.
            "--features",
            "guest",
            "--target",
            TRIPLE,
            "--target-dir",
            if checked { &with } else { &without },
            // Fast, because the machine is slow; but with the checks of a debug
            // build, and with the names in a backtrace.
            "--release",
            "--config",
            if checked {
                "profile.release.debug-assertions=true"
            } else {
                "profile.release.debug-assertions=false"
            },
            "--config",
            "profile.release.strip='debuginfo'",
        ]);
        for program in chosen {
            command.extend(program.selection());
        }
        commands.push(command.into_iter().map(str::to_owned).collect());
    }
    Ok(commands)
}

/// The same as one would type them.
pub(crate) fn shown_commands(programs: &[Program]) -> Result<Vec<String>> {
    Ok(commands(programs)?
        .into_iter()
        .map(|command| {
            let line: Vec<_> = ["cargo".to_owned()]
                .into_iter()
                .chain(command)
                .map(Into::into)
                .collect();
            format!("RUSTFLAGS='{RUSTFLAGS}' {}", quoted(&line))
        })
        .collect())
}

/// Builds programs for the guest.
pub(crate) fn build(programs: &[Program]) -> Result<Vec<Built>> {
    say("Building", "the guest's programs");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut built = Vec::new();
    for (arguments, shown) in commands(programs)?
        .into_iter()
        .zip(shown_commands(programs)?)
    {
        let output = Command::new(&cargo)
            .args(&arguments)
            .args(["--message-format", "json-render-diagnostics", "--quiet"])
            .env("RUSTFLAGS", RUSTFLAGS)
            // Would take precedence.
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .current_dir(paths::root()?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {shown}"))?;
        ensure!(
            output.status.success(),
            "the guest's programs cannot be built; the command was: {shown}"
        );
        for line in output.stdout.split(|byte| *byte == b'\n') {
            // cargo's other lines have other fields, and are not about files.
            let Ok(artifact) = serde_json::from_slice::<Artifact>(line) else {
                continue;
            };
            let Artifact {
                reason,
                target,
                executable,
            } = artifact;
            if let (true, Some(target), Some(file)) =
                (reason == "compiler-artifact", target, executable)
            {
                let program = programs.iter().copied().find(|program| {
                    program.name() == target.name
                        && program.subcommand().first()
                            == arguments.first().map(String::as_str).as_ref()
                });
                if let Some(program) = program {
                    built.push(Built { program, file });
                }
            }
        }
    }
    for program in programs {
        ensure!(
            built.iter().any(|built| built.program == *program),
            "cargo has not built `{}`",
            program.name()
        );
    }
    Ok(built)
}

/// The tests in the test binary, which the host can ask since it is a static
/// program for its own processor.
pub(crate) fn list_tests(built: &[Built]) -> Result<Vec<String>> {
    let binary = built
        .iter()
        .find(|built| built.program == Program::Tests)
        .context("the tests are not built")?;
    let output = Command::new(&binary.file)
        .args(["--list", "--format", "terse"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", binary.file.display()))?;
    ensure!(
        output.status.success(),
        "{} cannot list its tests: {}\n{}",
        binary.file.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Writes the initramfs of a run.
pub(crate) fn pack(
    dir: &RunDir,
    built: &[Built],
    extra: &[(&str, &Path)],
    job: &Job,
) -> Result<()> {
    let path = dir.join(INITRAMFS);
    let pack = || -> Result<()> {
        let file = File::create(&path).context("cannot make it")?;
        let mut archive = Archive::new(BufWriter::new(file));
        for directory in [
            "proc", "sys", "dev", "tmp", "bin", "sbin", "usr/bin", "root", "etc",
        ] {
            archive.directory(directory)?;
        }
        // For `mount` and `df` in the shell.
        archive.symlink("etc/mtab", "/proc/self/mounts")?;
        // The kernel opens it for init before there is a devtmpfs.
        archive.character_device("dev/console", 0o600, (5, 1))?;
        let job = serde_json::to_vec_pretty(job).context("cannot encode the job")?;
        archive.file(JOB_PATH, 0o644, &job)?;
        for Built { program, file } in built {
            archive.copy(&program.path(), 0o755, file)?;
        }
        for (path, source) in extra {
            archive.copy(path, 0o755, source)?;
        }
        archive.finish()?.flush().context("cannot write it")
    };
    pack().with_context(|| format!("no initramfs {}", path.display()))
}

/// How much slower a kernel with this configuration may be, for time-outs. What
/// checks every access to memory or every lock costs most.
pub(crate) fn slowdown(config: &str) -> u32 {
    let mut factor = 1;
    for (option, times) in [
        ("CONFIG_KASAN=y", 3),
        ("CONFIG_KCSAN=y", 4),
        ("CONFIG_PROVE_LOCKING=y", 2),
    ] {
        if config.lines().any(|line| line == option) {
            factor *= times;
        }
    }
    factor
}

/// How much memory a guest needs with this configuration, in MiB.
pub(crate) fn memory(config: &str) -> u32 {
    let shadow = config
        .lines()
        .any(|line| line == "CONFIG_KASAN=y" || line == "CONFIG_KCSAN=y");
    if shadow {
        2048
    } else {
        1024
    }
}

/// What a kernel with this configuration is told where leaks are looked for. SLUB keeps objects
/// for the next allocations in sheaves, and what was taken from one is still written there
/// until another is put in its place. kmemleak finds it there, and takes it to be in use. Caches
/// that are checked have no sheaves.
pub(crate) fn for_leaks(config: &str) -> &'static str {
    if config.lines().any(|line| line == "CONFIG_DEBUG_KMEMLEAK=y") {
        "slab_debug=F"
    } else {
        ""
    }
}

/// The configuration of a kernel image, if it still lies in its build directory.
pub(crate) fn config_beside(bzimage: &Path) -> Option<PathBuf> {
    let config = bzimage.ancestors().nth(4)?.join(".config");
    config.is_file().then_some(config)
}

/// Checks that a kernel image is there and looks like one.
pub(crate) fn check_image(bzimage: &Path) -> Result<()> {
    let image = fs::read(bzimage)
        .with_context(|| format!("there is no kernel image {}", bzimage.display()))?;
    // Documentation/arch/x86/boot.rst
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!(
            "{} is no bzImage; the kernel's build leaves one in arch/x86/boot/",
            bzimage.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_kernel_gets_more_time_and_memory() {
        assert_eq!(slowdown("CONFIG_SMP=y\n# CONFIG_KASAN is not set\n"), 1);
        assert_eq!(slowdown("CONFIG_KASAN=y\n"), 3);
        assert_eq!(slowdown("CONFIG_KASAN=y\nCONFIG_PROVE_LOCKING=y\n"), 6);
        assert_eq!(memory(""), 1024);
        assert_eq!(memory("CONFIG_KASAN=y\n"), 2048);
        assert_eq!(for_leaks("CONFIG_KASAN=y\n"), "");
        assert_eq!(for_leaks("CONFIG_DEBUG_KMEMLEAK=y\n"), "slab_debug=F");
    }

    #[test]
    fn what_is_not_a_kernel_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bzImage");
        let error = check_image(&path).unwrap_err();
        assert!(error.to_string().contains("there is no kernel image"));
        fs::write(&path, "not a kernel").unwrap();
        let error = check_image(&path).unwrap_err();
        assert!(error.to_string().contains("is no bzImage"));
        let mut image = vec![0; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(&path, image).unwrap();
        check_image(&path).unwrap();
    }

    #[test]
    fn the_configuration_is_found_in_the_build_directory() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("arch/x86/boot");
        fs::create_dir_all(&boot).unwrap();
        assert_eq!(config_beside(&boot.join("bzImage")), None);
        fs::write(dir.path().join(".config"), "").unwrap();
        assert_eq!(
            config_beside(&boot.join("bzImage")),
            Some(dir.path().join(".config"))
        );
    }
}
