// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask build`: from a bare machine to a built kernel.

mod config;

use std::{
    fs::{self, File},
    io::{LineWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use anyhow::{bail, ensure, Context as _, Result};
use serde::{Deserialize, Serialize};

use self::config::Request;
use crate::{
    cache::{self, Cache, Lock, Parts, GIB},
    fetch, paths,
    profile::Profile,
    progress::{say, Bar, Unit},
    run,
    series::{self, Base, Series, Variant},
    toolchain::{self, Toolchain},
};

/// Which tools and which source to build with. Other subcommands that need a
/// kernel flatten these into their own arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// LLVM as the kernel's make takes it: `1`, a suffix such as `-19`, or a directory ending in `/`.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "1",
        allow_hyphen_values = true
    )]
    pub(crate) llvm: String,
    /// Use this kernel tree instead of the cache's; only what the series adds is changed in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) kdir: Option<PathBuf>,
    /// Take the kernel source from this tar archive instead of the network.
    #[arg(long, value_name = "FILE")]
    pub(crate) tarball: Option<PathBuf>,
    /// Parallel jobs of make. Default: one a CPU.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

/// Which tools to build with, where the source is the cache's.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tools {
    /// LLVM as the kernel's make takes it: `1`, a suffix such as `-19`, or a directory ending in `/`.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "1",
        allow_hyphen_values = true
    )]
    llvm: String,
    /// Parallel jobs of make. Default: one a CPU.
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
}

impl Tools {
    /// As the options of a build.
    pub(crate) fn options(&self) -> Options {
        let Self { llvm, jobs } = self;
        Options {
            llvm: llvm.clone(),
            kdir: None,
            tarball: None,
            jobs: *jobs,
        }
    }
}

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Which kernel: the name of a fragment in ci/config, or `base` for the unpatched tree.
    #[arg(long, default_value = "default")]
    pub(crate) profile: Profile,
    /// Targets and variables for the kernel's own make, such as `menuconfig` or `V=1`.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}

/// A built kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What is started: QEMU boots it, or it is a program.
    pub(crate) image: PathBuf,
    /// The same kernel with symbols.
    pub(crate) vmlinux: PathBuf,
    /// The configuration it was built with.
    pub(crate) config: PathBuf,
}

/// Free space that a build from nothing needs, in bytes: source, linked copy,
/// objects, tools.
const SPACE_ALL: u64 = 8 * GIB;
/// Free space that a build needs where the source is there, in bytes.
const SPACE_BUILD: u64 = 3 * GIB;
/// Free space that a rebuild needs, or one directory of the kernel, in bytes.
const SPACE_AGAIN: u64 = GIB / 2;

/// Lines that a build from nothing prints, where none is on record: about those of
/// the profile `default`.
const LINES: u64 = 1970;

/// Lines of compiler output that an error shows.
const SHOWN: usize = 40;

/// What is known of one build directory. Kept beside it.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Record {
    /// Digest of what the configuration was made from.
    configured: String,
    /// Digest of the `.config` that was made.
    config: String,
    /// Digest of everything that the finished build was made from; empty while
    /// there is none.
    built: String,
    /// Lines that the last build from nothing printed.
    lines: Option<u64>,
}

impl Record {
    fn load(path: &Path) -> Self {
        // One that is damaged is as good as none: the build starts over.
        fs::read(path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("cannot write a record")?;
        cache::write_whole(path, &text)
    }
}

/// Runs `cargo xtask build`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        options,
        profile,
        targets,
    } = args;
    if !targets.is_empty() {
        return run_targets(profile, &options, &targets);
    }
    let name = profile.name().to_owned();
    let kernel = ensure_kernel(profile, &options)?;
    say("Finished", format!("the kernel, profile {name}"));
    println!("{}", kernel.image.display());
    Ok(ExitCode::SUCCESS)
}

/// What a profile asks of the kernel's configuration, as one text.
pub(crate) fn request(profile: &Profile) -> Result<String> {
    Ok(Request::load(profile)?.text())
}

/// Gets a built kernel: does everything that is missing (tools, source, series,
/// configuration, build) and is quick when nothing changed.
///
/// # Errors
///
/// Each with one sentence that says what to do.
pub(crate) fn ensure_kernel(profile: Profile, options: &Options) -> Result<Kernel> {
    ensure(profile, options, Part::Kernel)
}

/// As [`ensure_kernel`], from a tree and in a build directory of its own. The next
/// variant of the same name is built there too, and rebuilds what differs.
///
/// # Errors
///
/// As [`ensure_kernel`], and if an edit has no place in the tree.
pub(crate) fn ensure_variant(
    profile: Profile,
    options: &Options,
    variant: &Variant<'_>,
) -> Result<Kernel> {
    ensure(profile, options, Part::Variant(variant))
}

/// The tree that a base and a patched kernel are built from in turn.
const PAIR: &str = "pair";

/// As [`ensure_kernel`], for two kernels that differ in the series and in nothing else:
/// the base, without the options that only the series has, and the patched one. Both are
/// built from one tree, first with the series and then without, and what the one left is
/// where the other begins: only what differs is built twice.
///
/// # Errors
///
/// As [`ensure_kernel`].
pub(crate) fn ensure_pair(profile: &Profile, options: &Options) -> Result<(Kernel, Kernel)> {
    let side = |series| {
        let variant = Variant {
            name: PAIR,
            series,
            patches: None,
            edits: &[],
        };
        ensure(profile.clone(), options, Part::Variant(&variant))
    };
    let patched = side(true)?;
    Ok((side(false)?, patched))
}

/// As [`ensure_kernel`], and modules for it from a directory with a `Kbuild`. Returns the
/// directory that they are in, too.
///
/// # Errors
///
/// As [`ensure_kernel`], and with what the compilers say of the modules.
pub(crate) fn ensure_modules(
    profile: Profile,
    options: &Options,
    source: &Path,
) -> Result<(Kernel, PathBuf)> {
    let build = || {
        let site = Site::prepare(profile, options, Part::Kernel)?;
        site.configure()?;
        site.build()?;
        Ok((site.kernel(), site.modules(source)?))
    };
    build().map_err(cache::explain)
}

fn ensure(profile: Profile, options: &Options, part: Part<'_>) -> Result<Kernel> {
    let build = || {
        let site = Site::prepare(profile, options, part)?;
        site.configure()?;
        site.build()?;
        Ok(site.kernel())
    };
    build().map_err(cache::explain)
}

/// Runs targets of the kernel's own make on this terminal.
fn run_targets(profile: Profile, options: &Options, targets: &[String]) -> Result<ExitCode> {
    let site = Site::prepare(profile, options, Part::Kernel)?;
    site.configure()?;
    let status = run::attached(site.make().args(targets))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Which tree a profile is built on, and for what.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    /// The kernel, on the profile's own tree.
    Kernel,
    /// A kernel, on a tree that is edited, or that lacks the series.
    Variant(&'a Variant<'a>),
    /// Objects to compare, in a directory of their own: others' flags would make
    /// the kernel's build start over. On the tree with the series, or as it came.
    Objects { pristine: bool },
    /// The same, on the tree of a variant.
    Step(&'a Variant<'a>),
}

/// Everything that a make is run with.
pub(crate) struct Site {
    profile: Profile,
    /// The tree, with the series applied unless this is the base.
    tree: PathBuf,
    /// Digest of what is in the tree; `None` where a user may have edited it.
    content: Option<String>,
    /// `O=`.
    out: PathBuf,
    /// What the tree's Kconfig files say, of those that the series changes.
    kconfig: Vec<u8>,
    toolchain: Toolchain,
    jobs: usize,
    request: Request,
    _lock: Lock,
}

impl Site {
    /// Gets the tools, the source, and the series into it.
    pub(crate) fn prepare(profile: Profile, options: &Options, part: Part<'_>) -> Result<Self> {
        let Options {
            llvm,
            kdir,
            tarball,
            jobs,
        } = options;
        let base = Base::load(&paths::kernel()?)?;
        let whole = Series::load()?;
        let variant = match part {
            Part::Variant(variant) | Part::Step(variant) => Some(variant),
            Part::Kernel | Part::Objects { .. } => None,
        };
        let mut request = Request::load(&profile)?;
        let series = match variant.and_then(|variant| variant.patches) {
            None => whole.clone(),
            Some(count) => {
                let series = whole.first(count);
                if !series.has_options() {
                    request.forget(&whole.options()?);
                }
                series
            }
        };
        let llvm = toolchain::choose_llvm(llvm)?;
        let cache = Cache::open()?;
        if kdir.is_some() {
            ensure!(
                !profile.is_base(),
                "--profile base builds the tree without the series, and KDIR gets the series: use one \
                 of them"
            );
        }
        if variant.is_some() {
            ensure!(
                kdir.is_none() && !profile.is_base(),
                "a variant is of the cache's tree with the series: leave out --kdir and --profile base"
            );
        }
        let lock = cache.lock()?;

        let name = match (part, kdir) {
            (Part::Kernel, Some(dir)) => format!("{profile}-{}", series::kdir_key(dir)?),
            (Part::Kernel, None) => profile.name().to_owned(),
            (Part::Variant(variant), _) if !variant.series => {
                request.forget(&whole.options()?);
                format!("{profile}-{}-base", variant.name)
            }
            (Part::Step(variant), _) => format!("compare/{profile}-{}", variant.name),
            (Part::Variant(variant), _) => format!("{profile}-{}", variant.name),
            (Part::Objects { pristine: true }, _) if !profile.is_base() => {
                format!("compare/{profile}-base")
            }
            (Part::Objects { .. }, _) => format!("compare/{profile}"),
        };
        let pristine = profile.is_base()
            || match part {
                Part::Objects { pristine } => pristine,
                Part::Variant(variant) | Part::Step(variant) => !variant.series,
                Part::Kernel => false,
            };
        let out = cache.root().join("build").join(name);
        let have_source = kdir.is_some() || fetch::cached_source(&cache, &base).is_some();
        let small =
            matches!(part, Part::Objects { .. } | Part::Step(_)) || out.join("vmlinux").exists();
        cache.need_space(match (have_source, small) {
            (false, _) => SPACE_ALL,
            (true, false) => SPACE_BUILD,
            (true, true) => SPACE_AGAIN,
        })?;

        toolchain::ensure_programs(&llvm)?;
        let (tree, content) = match kdir {
            Some(dir) => (
                series::patch_kdir(&cache, &lock, &series, dir, &base.version)?,
                None,
            ),
            None => {
                let source = fetch::source(&cache, &lock, &base, tarball.as_deref())?;
                let content = if pristine {
                    base.version.clone()
                } else {
                    series.digest_of(variant)?
                };
                let tree = if pristine && variant.is_none() {
                    source
                } else {
                    series::patched(&cache, &lock, &series, &source, variant)?
                };
                (tree, Some(content))
            }
        };
        let kconfig = if pristine {
            Vec::new()
        } else {
            series.kconfig(&tree)?
        };
        let toolchain = Toolchain::ensure(&cache, &lock, llvm)?;
        let beginning = match part {
            Part::Variant(variant) if pristine => {
                Some(out.with_file_name(format!("{profile}-{}", variant.name)))
            }
            Part::Kernel if kdir.is_none() && !pristine => {
                let other = Profile::default();
                let alike = Request::load(&other)?.is_but_for(&request, &whole.options()?);
                (profile != other && alike).then(|| out.with_file_name(other.name()))
            }
            _ => None,
        };
        if let Some(beginning) = beginning {
            begin_where_it_ended(&cache, &lock, &beginning, &out)?;
        }
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let jobs = match jobs {
            Some(jobs) => *jobs,
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Self {
            profile,
            tree,
            content,
            out,
            kconfig,
            toolchain,
            jobs,
            request,
            _lock: lock,
        })
    }

    /// The kernel's source.
    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Where make puts what it builds.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What builds.
    pub(crate) fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// Digest of everything that a build is made from: source, configuration and
    /// tools. `None` where a user may have edited the source.
    pub(crate) fn inputs(&self) -> Result<Option<String>> {
        let path = self.out.join(".config");
        let config = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.content.as_ref().map(|content| {
            let mut inputs = Parts::default();
            inputs.add(content);
            inputs.add(&config);
            inputs.add(self.toolchain.versions());
            inputs.add(self.tree.as_os_str().as_encoded_bytes());
            inputs.digest()
        }))
    }

    /// A file beside the build directory.
    pub(crate) fn beside(&self, extension: &str) -> PathBuf {
        let mut path = self.out.clone().into_os_string();
        path.push(".");
        path.push(extension);
        PathBuf::from(path)
    }

    fn kernel(&self) -> Kernel {
        Kernel {
            image: self.out.join(self.profile.arch().image()),
            vmlinux: self.out.join("vmlinux"),
            config: self.out.join(".config"),
        }
    }

    /// The kernel's make, told everything but what to make.
    pub(crate) fn make(&self) -> Command {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(&self.tree)
            .arg(format!("O={}", self.out.display()));
        make.arg(format!("-j{}", self.jobs))
            .arg(format!("ARCH={}", self.profile.arch().name()));
        self.toolchain.tell(&mut make);
        // The same input gives the same kernel, whoever builds it and when.
        make.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC")
            .env("KBUILD_BUILD_USER", "sqe-group")
            .env("KBUILD_BUILD_HOST", "sqe-group")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("LC_ALL", "C");
        forget_makes(&mut make);
        make
    }

    /// Makes `.config`, unless it was made from the same before. One that the user
    /// edited since (`menuconfig`) stays.
    pub(crate) fn configure(&self) -> Result<()> {
        let path = self.out.join(".config");
        let mut inputs = Parts::default();
        inputs.add(self.request.text());
        inputs.add(self.toolchain.versions());
        inputs.add(self.tree.as_os_str().as_encoded_bytes());
        inputs.add(&self.kconfig);
        let inputs = inputs.digest();
        let record_path = self.beside("json");
        let mut record = Record::load(&record_path);
        if record.configured == inputs && path.exists() {
            let config =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if cache::sha256(&config) != record.config {
                say(
                    "Note",
                    format!(
                        "{} was edited; remove it to get the profile's again",
                        path.display()
                    ),
                );
            }
            if self.content.is_none() {
                // The user's tree may have options that it did not have before, and
                // make would stop to ask.
                run::checked_lines(self.make().arg("olddefconfig"), |_| Ok(()))
                    .context("the kernel cannot be configured")?;
            }
            return Ok(());
        }

        self.toolchain.suits(&self.tree)?;
        say("Configuring", format!("profile {}", self.profile));
        let fragment = self.beside("fragment");
        cache::write_whole(&fragment, self.request.text().as_bytes())?;
        run::checked_lines(
            self.make()
                .arg(format!("KCONFIG_ALLCONFIG={}", fragment.display()))
                .arg("allnoconfig"),
            |_| Ok(()),
        )
        .context("the kernel cannot be configured")?;
        let config =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.request.check(&config)?;
        record.configured = inputs;
        record.config = cache::sha256(config.as_bytes());
        record.save(&record_path)
    }

    /// Builds, unless this very kernel was built before.
    fn build(&self) -> Result<()> {
        let kernel = self.kernel();
        let record_path = self.beside("json");
        let mut record = Record::load(&record_path);
        let inputs = self.inputs()?;
        let there = kernel.image.exists() && kernel.vmlinux.exists();
        if there && inputs.as_ref() == Some(&record.built) {
            return Ok(());
        }

        record.built.clear();
        record.save(&record_path)?;
        let whole = !there;
        let lines = self.run_make(whole.then(|| record.lines.unwrap_or(LINES)))?;
        ensure!(
            kernel.image.exists(),
            "make succeeded and left no {}",
            kernel.image.display()
        );
        // make may have changed it: syncconfig adds what new Kconfig files ask.
        record.built = inputs.unwrap_or_default();
        // A build that went on after an interruption says nothing of a whole one.
        if whole && record.lines.is_none_or(|before| lines > before) {
            record.lines = Some(lines);
        }
        record.save(&record_path)
    }

    /// Builds modules for the kernel, which is there.
    fn modules(&self, source: &Path) -> Result<PathBuf> {
        let out = self.beside("modules");
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        say("Building", format!("modules, profile {}", self.profile));
        // What is left of a kernel's build where modules are not built with it.
        run::checked_lines(self.make().arg("modules_prepare"), |_| Ok(()))
            .context("the kernel cannot be prepared for modules")?;
        let mut make = self.make();
        make.arg(format!("M={}", source.display()))
            .arg(format!("MO={}", out.display()));
        // What the kernel exports. make knows where to look if it was built with all that
        // belongs to it; of one that was built alone, this is where it has left that.
        let alone = self.out.join("vmlinux.symvers");
        if !self.out.join("Module.symvers").exists() && alone.exists() {
            make.arg(format!("KBUILD_EXTRA_SYMBOLS={}", alone.display()));
        }
        run::checked_lines(&mut make, |_| Ok(())).context("the modules do not build")?;
        Ok(out)
    }

    /// Runs make with a bar, and returns how many lines of progress it printed.
    fn run_make(&self, expected: Option<u64>) -> Result<u64> {
        let log_path = self.beside("log");
        let what = format!("the kernel, profile {}", self.profile);
        let mut bar = Bar::new("Building", &what, Unit::Things("steps"), expected);
        let fail = || format!("cannot write {}", log_path.display());
        let mut file = LineWriter::new(File::create(&log_path).with_context(fail)?);
        let mut log = String::new();
        let mut count = 0;
        let status = run::lines(&mut self.make(), |line| {
            writeln!(file, "{line}").with_context(fail)?;
            log.push_str(line);
            log.push('\n');
            if is_step(line) {
                count += 1;
                bar.inc();
            }
            Ok(())
        })?;
        if !status.success() {
            drop(bar);
            bail!(
                "the kernel does not build ({status}):\n{}\nAll of make's output is in {}",
                errors(&log),
                log_path.display()
            );
        }
        bar.finish();
        Ok(count)
    }
}

/// Keeps from a make what is not meant for it. We may have been started by the checkout's
/// own make, which passes on its variables and its job server; and what a user exports for
/// other kernels is not for this one.
pub(crate) fn forget_makes(make: &mut Command) -> &mut Command {
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "MAKEFILES",
        "LLVM",
        "KDIR",
        "KBUILD_OUTPUT",
        "CROSS_COMPILE",
        "RUSTFLAGS",
    ] {
        make.env_remove(name);
    }
    make
}

/// Makes a build directory a copy of one that was built from the same tree as that was
/// before. make sees what has changed since.
fn begin_where_it_ended(cache: &Cache, lock: &Lock, from: &Path, to: &Path) -> Result<()> {
    if to.join("vmlinux").exists() || !from.join("vmlinux").exists() {
        return Ok(());
    }
    let scratch = cache.scratch(lock)?;
    let new = scratch.path().join("build");
    run::output(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(from)
            .arg(&new),
    )
    .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    cache::remove_dir(to)?;
    fs::rename(&new, to).with_context(|| format!("cannot create {}", to.display()))
}

/// Whether a line of make's names a step: two blanks, a word in capitals, a file.
pub(crate) fn is_step(line: &str) -> bool {
    line.strip_prefix("  ")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(verb, _)| {
            verb.len() > 1
                && verb.chars().all(|letter| {
                    letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'
                })
        })
}

/// The part of make's output that says why it failed.
pub(crate) fn errors(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let is_error = |line: &str| {
        [
            "error:",
            "error[",
            "fatal error",
            "*** ",
            "undefined symbol",
            "No space left",
        ]
        .iter()
        .any(|sign| line.contains(sign))
    };
    match lines.iter().position(|line| is_error(line)) {
        // From there on; make's own complaints at the end come with it if short.
        Some(first) => lines[first..lines.len().min(first + SHOWN)].join("\n"),
        None => lines[lines.len().saturating_sub(SHOWN)..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_other_lines() {
        for line in [
            "  CC      io_uring/rw.o",
            "  RUSTC L rust/core.o",
            "  AR      built-in.a",
        ] {
            assert!(is_step(line), "{line}");
        }
        for line in [
            "make[1]: Entering directory '/x'",
            "  warning: x",
            "",
            "  CC",
            "    | ^^^ x",
        ] {
            assert!(!is_step(line), "{line}");
        }
    }

    #[test]
    fn the_error_is_found_in_the_middle() {
        let mut log: String = (0..500).map(|n| format!("  CC      {n}.o\n")).collect();
        log.push_str("io_uring/rw.c:3:1: error: unknown type\nfoo x;\n^\n");
        log.extend((0..500).map(|n| format!("  CC      more-{n}.o\n")));
        log.push_str("make[2]: *** [x] Error 1\n");
        let text = errors(&log);
        assert!(text.starts_with("io_uring/rw.c:3:1: error"), "{text}");
        assert_eq!(text.lines().count(), SHOWN);
        assert_eq!(errors("one\ntwo\n"), "one\ntwo");
    }

    #[test]
    fn a_build_begins_where_another_ended() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let lock = cache.lock().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let begin = || begin_where_it_ended(&cache, &lock, &from, &to).unwrap();
        let image = |dir: &Path| fs::read_to_string(dir.join("vmlinux")).ok();
        // One that was cut off is no beginning.
        cache::write_whole(&from.join("a.o"), b"").unwrap();
        begin();
        assert!(!to.exists());
        cache::write_whole(&to.join("b.o"), b"").unwrap();
        cache::write_whole(&from.join("vmlinux"), b"patched").unwrap();
        begin();
        assert_eq!(image(&to).as_deref(), Some("patched"));
        assert!(to.join("a.o").exists() && !to.join("b.o").exists());
        assert!(from.join("a.o").exists());
        // From then on each has its own.
        cache::write_whole(&to.join("vmlinux"), b"base").unwrap();
        begin();
        assert_eq!(image(&to).as_deref(), Some("base"));
        assert_eq!(image(&from).as_deref(), Some("patched"));
    }

    #[test]
    fn a_damaged_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, "{\"built\": \"abc\"").unwrap();
        assert!(Record::load(&path).built.is_empty());
        Record {
            built: "abc".to_owned(),
            ..Record::default()
        }
        .save(&path)
        .unwrap();
        assert_eq!(Record::load(&path).built, "abc");
    }
}
