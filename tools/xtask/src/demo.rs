// SPDX-License-Identifier: GPL-2.0-only
//! `make LLVM=1 demo`: boots the kernel and copies a real file to several places
//! with groups.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context as _, Result};
use harness::protocol::{Groups, Job, Message, Session, Task, DISK_DIR, VERSION};
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

use crate::{
    build, disk,
    follow::{Limits, Watcher},
    guest::{self, Program},
    interrupt,
    kvm::{self, Accel},
    log_rules::{Finding, Rules},
    profile::Profile,
    progress::{self, say, Bar, Unit},
    qemu::{self, Console, Disk, Machine},
    report,
    run_dir::{RunDir, DISK},
    verdict::Verdict,
};

/// Names of the files on the guest's disk.
const SOURCE: &str = "source";

/// Room for the file system's own needs.
const SLACK: u64 = 64 << 20;

/// Between two lines of progress where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// The file to copy. Default: the vmlinux just built.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// To how many destinations.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    copies: u32,
    /// Which kernel: a profile in ci/config.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = Profile::to_boot)]
    profile: Profile,
    /// Boot this bzImage instead of building one; then --file is needed.
    #[arg(long, value_name = "BZIMAGE", requires = "file")]
    kernel: Option<PathBuf>,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: u32,
    /// More arguments for the example program.
    #[arg(last = true, value_name = "ARG")]
    more: Vec<String>,
}

/// Runs `cargo xtask demo`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match execute(args) {
        Ok(code) => Ok(code),
        // 1 would say that a copy differs.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

/// The size and the checksum of a file, in hexadecimal.
fn checksum(path: &Path) -> Result<(u64, String)> {
    let context = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let metadata = file.metadata().with_context(context)?;
    ensure!(metadata.is_file(), "{} is no regular file", path.display());
    ensure!(
        metadata.len() > 0,
        "{} is empty: there is nothing to copy",
        path.display()
    );
    let name = path.display().to_string();
    let mut bar = Bar::new("Hashing", &name, Unit::Bytes, Some(metadata.len()));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer).with_context(context)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        done += count as u64;
        bar.set(done);
    }
    let text = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((done, text))
}

/// What looks like a SHA-256 in a text.
fn checksums(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Compares what the guest computed with what the host did. The guest must have
/// said it of the source and of every copy.
fn compare(output: &str, expected: &str, copies: u32) -> Result<()> {
    let mut seen = 0;
    for checksum in checksums(output) {
        ensure!(
            checksum.eq_ignore_ascii_case(expected),
            "the guest found SHA-256 {checksum}, the host {expected}"
        );
        seen += 1;
    }
    ensure!(
        seen > copies,
        "the guest has shown {seen} checksums; of the source and {copies} copies, {} are expected",
        copies + 1
    );
    Ok(())
}

/// Puts the file where mke2fs takes it from.
fn stage(source: &Path, dir: &Path) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let target = dir.join(SOURCE);
    // A link costs nothing, but cannot leave its file system.
    if fs::hard_link(source, &target).is_err() {
        fs::copy(source, &target)
            .with_context(|| format!("cannot copy {} to {}", source.display(), dir.display()))?;
    }
    Ok(())
}

/// Shows what the example prints, and time passing while it prints nothing.
struct Live {
    output: String,
    bar: Option<ProgressBar>,
    spoke: Instant,
    began: Instant,
}

impl Live {
    fn new() -> Self {
        Self {
            output: String::new(),
            bar: progress::spinner("Copying"),
            spoke: Instant::now(),
            began: Instant::now(),
        }
    }

    fn aside(&self, show: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(show),
            None => show(),
        }
    }
}

impl Watcher for Live {
    fn message(&mut self, message: &Message, _session: &Session) {
        match message {
            Message::Begin { kernel, cpus, .. } => {
                self.aside(|| say("Booted", format!("{kernel}, {cpus} CPUs")));
                if let Some(bar) = &self.bar {
                    bar.set_message("in the guest");
                }
            }
            Message::Output { text } => {
                self.output += text;
                self.aside(|| report::print(text));
            }
            _ => {}
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.aside(|| say("Kernel", report::headline(finding)));
    }

    fn note(&mut self, text: &str) {
        self.aside(|| say("Note", text));
    }

    fn tick(&mut self, _session: &Session) {
        if self.bar.is_none() && self.spoke.elapsed() >= EVERY {
            self.spoke = Instant::now();
            say("Copying", format!("{} s", self.began.elapsed().as_secs()));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn execute(args: Args) -> Result<ExitCode> {
    let Args {
        options,
        file,
        copies,
        profile,
        kernel,
        accel,
        smp,
        more,
    } = args;
    qemu::check()?;
    let rules = Rules::load()?;
    // A wrong name should not cost a build.
    if let Some(file) = &file {
        ensure!(file.is_file(), "there is no file {}", file.display());
    }
    let (bzimage, vmlinux, config) = match kernel {
        Some(kernel) => {
            guest::check_image(&kernel)?;
            let config = guest::config_beside(&kernel);
            (kernel, None, config)
        }
        None => {
            let kernel = build::ensure_kernel(profile, &options)?;
            (kernel.image, Some(kernel.vmlinux), Some(kernel.config))
        }
    };
    let config = config
        .map(fs::read_to_string)
        .transpose()
        .context("cannot read the kernel's configuration")?
        .unwrap_or_default();
    let file = file
        .or(vmlinux)
        .context("there is no file to copy; name one with --file")?;
    let file =
        fs::canonicalize(&file).with_context(|| format!("there is no {}", file.display()))?;
    let built = guest::build(&[Program::Init, Program::Copy])?;
    let (size, expected) = checksum(&file)?;

    let dir = RunDir::create("demo")?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let image = dir.join(DISK);
    let bytes = size
        .checked_mul(u64::from(copies) + 1)
        .and_then(|bytes| bytes.checked_add(bytes / 10 + SLACK))
        .with_context(|| format!("{} is too big", file.display()))?;
    say(
        "Making",
        format!(
            "a disk of {} MiB with {} on it",
            bytes >> 20,
            file.display()
        ),
    );
    let staged = dir.join("staged");
    stage(&file, &staged)?;
    let made = disk::make(&image, bytes, Some(&staged));
    // Nothing but a link or a copy of the user's file.
    let _ = fs::remove_dir_all(&staged);
    made?;
    if guard.requested() {
        progress::line(format_args!("interrupted"));
        return Ok(interrupt::STATUS.into());
    }

    let mut argv = vec![Program::Copy.path()];
    argv.extend(more);
    argv.push(format!("{DISK_DIR}/{SOURCE}"));
    argv.extend((1..=copies).map(|number| format!("{DISK_DIR}/copy{number}")));
    let (accels, obstacle) = kvm::candidates(accel);
    if let Some(why) = obstacle {
        say("Note", format!("TCG instead of KVM: {why}"));
    }
    let slowdown = |accel: Accel| accel.slowdown() * guest::slowdown(&config);
    guest::pack(
        &dir,
        &built,
        &[],
        &Job {
            version: VERSION,
            task: Task::Program { argv },
            groups: Groups::Required,
            disk: true,
            slowdown: accels.iter().copied().map(slowdown).max().unwrap_or(1),
            env: Vec::new(),
            settings: Vec::new(),
        },
    )?;
    let machine = Machine {
        kernel: bzimage,
        smp,
        mem_mib: guest::memory(&config),
        disks: vec![Disk::virtio(image)],
        console: Console::File,
        icount: false,
        append: String::new(),
    };
    let mut live = Live::new();
    let (_, run) = qemu::run(
        &machine,
        &dir,
        &accels,
        |accel| {
            let slowdown = slowdown(accel);
            // The program may print only when all is copied and hashed: a MiB a
            // second, and a minute for anything else.
            let copied = Duration::from_secs(60 + (bytes >> 20));
            Limits {
                boot: Duration::from_secs(30) * slowdown,
                silence: copied * slowdown,
                power_off: Duration::from_secs(20) * slowdown,
            }
        },
        &rules,
        &guard,
        &mut live,
    )?;
    let output = std::mem::take(&mut live.output);
    drop(live);
    if run.interrupted {
        progress::line(format_args!("interrupted"));
        return Ok(interrupt::STATUS.into());
    }
    let evidence = report::evidence(&run, &[]);
    let verdict = evidence.judge();
    let mut text = report::causes(&run, evidence, dir.path());
    let mut say = |line: &str| {
        text += line;
        text.push('\n');
    };
    let verdict = if verdict != Verdict::Passed {
        if let Some(status) = run.session.exit {
            say(&format!(
                "the program in the guest ended with status {status}"
            ));
        }
        say(verdict.words());
        // What is said of failures is about tests.
        if verdict != Verdict::Failed {
            say(report::advice(&run, verdict));
        }
        verdict
    } else if let Err(error) = compare(&output, &expected, copies) {
        say(&error.to_string());
        Verdict::Failed
    } else {
        say(&format!("The host agrees: {expected}  {}", file.display()));
        Verdict::Passed
    };
    report::print(&text);
    Ok(verdict.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_checksum_is_the_usual_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            checksum(&path).unwrap(),
            (
                3,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned()
            )
        );
        fs::write(&path, "").unwrap();
        assert!(checksum(&path).is_err());
        assert!(checksum(dir.path()).is_err());
        assert!(checksum(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_guest_must_show_every_checksum() {
        let line = format!("{HASH}  /disk/copy\n");
        assert!(compare(&line.repeat(5), HASH, 4).is_ok());
        assert!(compare(&line.repeat(4), HASH, 4).is_err());
        assert!(compare("", HASH, 4).is_err());
        let other = line.replacen('e', "f", 1);
        assert!(compare(&(line.repeat(5) + &other), HASH, 4).is_err());
    }

    #[test]
    fn the_file_is_staged_under_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vm linux");
        fs::write(&file, "content").unwrap();
        let staged = dir.path().join("staged");
        stage(&file, &staged).unwrap();
        assert_eq!(fs::read(staged.join(SOURCE)).unwrap(), b"content");
    }
}
