// SPDX-License-Identifier: GPL-2.0-only
//! The programs that build a kernel: which are needed, which are here, and getting
//! those that are not.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, ensure, Context as _, Result};

use crate::{
    apt,
    cache::{self, Cache, Lock, Parts},
    progress::{say, Bar, Unit},
    run,
};

/// What `LLVM=1` means where the plain names are missing or too old: the newest
/// LLVM that Debian 12 has.
const FALLBACK: &str = "-19";

/// The oldest clang that the kernel takes.
const CLANG: Version = Version(17, 0, 1);

/// bindgen, built for this project alone.
const BINDGEN: &str = "0.73.0";

/// The suite whose rust-src is as new as the toolchain.
const RUST_SUITE: &str = "trixie-backports";

/// A version of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// The first version in a program's own words, such as `Debian clang version 14.0.6`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|character: char| character.is_whitespace() || character == '-')
            .find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(|number| {
            let end = number
                .find(|digit: char| !digit.is_ascii_digit())
                .unwrap_or(number.len());
            number[..end].parse().ok()
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self(major, minor, numbers.next().flatten().unwrap_or(0)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Which LLVM, as the kernel's make distinguishes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Llvm {
    /// `LLVM=1`: plain names.
    Plain,
    /// `LLVM=-19`: names that end so.
    Suffix(String),
    /// `LLVM=/path/`: names in that directory.
    Prefix(String),
}

impl Llvm {
    /// Reads the value of `LLVM=`. `clang` tells the version of the plain one.
    ///
    /// # Returns
    ///
    /// Also a sentence, where `1` does not mean the plain names.
    fn choose(text: &str, clang: impl Fn() -> Option<Version>) -> Result<(Self, Option<String>)> {
        match text {
            "1" => {
                let why = match clang() {
                    Some(version) if version >= CLANG => return Ok((Self::Plain, None)),
                    Some(version) => format!("clang is {version} and the kernel needs {CLANG}"),
                    None => "there is no plain clang with lld".to_owned(),
                };
                let note = format!("LLVM={FALLBACK} for LLVM=1: {why}");
                Ok((Self::Suffix(FALLBACK.to_owned()), Some(note)))
            }
            _ if text.ends_with('/') => Ok((Self::Prefix(text.to_owned()), None)),
            _ if text.len() > 1 && text.starts_with('-') => {
                Ok((Self::Suffix(text.to_owned()), None))
            }
            _ => bail!(
                "LLVM={text} is none of LLVM=1, LLVM=-19 (a suffix), LLVM=/path/ (a directory, with \
                 the slash)"
            ),
        }
    }

    /// Reads the value of `LLVM=` on this machine.
    pub(crate) fn find(text: &str) -> Result<(Self, Option<String>)> {
        Self::choose(text, || {
            // A clang that comes without its linker is of no use.
            find_program("ld.lld")?;
            find_program("llvm-nm")?;
            Version::find(&run::output(Command::new("clang").arg("--version")).ok()?)
        })
    }

    /// The value for the kernel's make.
    fn value(&self) -> &str {
        match self {
            Self::Plain => "1",
            Self::Suffix(value) | Self::Prefix(value) => value,
        }
    }

    /// The name of one of its programs.
    pub(crate) fn program(&self, name: &str) -> String {
        match self {
            Self::Plain => name.to_owned(),
            Self::Suffix(suffix) => format!("{name}{suffix}"),
            Self::Prefix(prefix) => format!("{prefix}{name}"),
        }
    }

    /// The Debian package of one of its parts; none for a directory of the user's.
    fn package(&self, stem: &str, tail: &str) -> Option<String> {
        match self {
            Self::Plain => Some(format!("{stem}{FALLBACK}{tail}")),
            Self::Suffix(suffix) => Some(format!("{stem}{suffix}{tail}")),
            Self::Prefix(_) => None,
        }
    }

    /// The directory with the libclang that bindgen should load, where it is known.
    fn libclang(&self) -> Option<PathBuf> {
        let config = run::output(Command::new(self.program("llvm-config")).arg("--libdir")).ok()?;
        let dir = PathBuf::from(config.trim());
        let has = fs::read_dir(&dir).ok()?.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libclang") && name.contains(".so")
        });
        has.then_some(dir)
    }
}

/// Something that must be on the machine.
pub(crate) struct Need {
    /// What to look for.
    pub(crate) what: What,
    /// The Debian package that has it, if one has.
    pub(crate) package: Option<String>,
    /// For what.
    pub(crate) why: &'static str,
}

/// A thing that can be looked for.
pub(crate) enum What {
    /// A program, by name or path.
    Program(String),
    /// A file, in one of these places.
    File(&'static str, Vec<PathBuf>),
}

impl Need {
    /// Where it is, if it is here.
    pub(crate) fn found(&self) -> Option<PathBuf> {
        match &self.what {
            What::Program(name) => find_program(name),
            What::File(_, places) => places.iter().find(|place| place.exists()).cloned(),
        }
    }

    /// Its name, for people.
    pub(crate) fn name(&self) -> &str {
        match &self.what {
            What::Program(name) => name,
            What::File(name, _) => name,
        }
    }
}

/// Finds a program as a shell would.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(executable);
    }
    let path = env::var_os("PATH")?;
    // Where mkfs is, which a user's PATH does not have on Debian.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(executable)
}

/// Everything that the build and the guest need of the system.
pub(crate) fn needs(llvm: &Llvm) -> Vec<Need> {
    let program = |name: &str, package: &str, why| Need {
        what: What::Program(name.to_owned()),
        package: Some(package.to_owned()),
        why,
    };
    let of_llvm = |name: &str, package: (&str, &str), why| Need {
        what: What::Program(llvm.program(name)),
        package: llvm.package(package.0, package.1),
        why,
    };
    let header = |name: &'static str, package: &str, why| Need {
        what: What::File(
            name,
            [
                "/usr/include",
                "/usr/include/x86_64-linux-gnu",
                "/usr/local/include",
            ]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .collect(),
        ),
        package: Some(package.to_owned()),
        why,
    };
    let mut needs = vec![
        of_llvm("clang", ("clang", ""), "compiles the kernel"),
        of_llvm("ld.lld", ("lld", ""), "links the kernel"),
        of_llvm("llvm-nm", ("llvm", ""), "inspects objects"),
        program("make", "make", "drives the kernel's build"),
        program("git", "git", "applies the series"),
        program("flex", "flex", "Kconfig"),
        program("bison", "bison", "Kconfig"),
        program("bc", "bc", "the kernel's time constants"),
        program("perl", "perl", "the kernel's scripts"),
        program("python3", "python3", "the kernel's scripts"),
        header("gelf.h", "libelf-dev", "objtool"),
        header("openssl/opensslv.h", "libssl-dev", "certificates"),
        program("cpio", "cpio", "the kernel's headers"),
        program("rsync", "rsync", "the kernel's headers"),
        program("depmod", "kmod", "modules"),
        program("tar", "tar", "unpacks the source"),
        program("xz", "xz-utils", "unpacks the source"),
        program("curl", "curl", "downloads the source"),
        program("qemu-system-x86_64", "qemu-system-x86", "boots the kernel"),
        program("busybox", "busybox-static", "the guest's interactive shell"),
        program("mkfs.ext4", "e2fsprogs", "the guest's file systems"),
    ];
    if let Llvm::Suffix(suffix) = llvm {
        let version = suffix.trim_start_matches('-');
        let dir = PathBuf::from(format!("/usr/lib/llvm-{version}/lib"));
        needs.push(Need {
            what: What::File(
                "libclang.so",
                vec![dir.join("libclang.so"), dir.join("libclang.so.1")],
            ),
            package: llvm.package("libclang", "-dev"),
            why: "bindgen reads C headers with it",
        });
    }
    needs
}

/// The one command that installs packages.
pub(crate) fn install_command(packages: &[String]) -> String {
    format!(
        "sudo apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Packages of the needs that are not met, each once.
pub(crate) fn missing_packages<'a>(missing: impl IntoIterator<Item = &'a Need>) -> Vec<String> {
    let mut packages: Vec<String> = missing
        .into_iter()
        .filter_map(|need| need.package.clone())
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// What only `series compare` uses. A kernel is built without it.
pub(crate) fn checkers() -> Vec<Need> {
    vec![Need {
        what: What::Program("sparse".to_owned()),
        package: Some("sparse".to_owned()),
        why: "a second opinion on the series' C",
    }]
}

/// Gets what builds a kernel.
pub(crate) fn ensure_programs(llvm: &Llvm) -> Result<()> {
    ensure_found(&needs(llvm), llvm)
}

/// Gets what only `series compare` uses.
pub(crate) fn ensure_checkers(llvm: &Llvm) -> Result<()> {
    ensure_found(&checkers(), llvm)
}

/// Installs what is missing, where this program may; otherwise names the command.
fn ensure_found(needs: &[Need], llvm: &Llvm) -> Result<()> {
    let unmet = || {
        needs
            .iter()
            .filter(|need| need.found().is_none())
            .collect::<Vec<_>>()
    };
    let names = |needs: &[&Need]| {
        needs
            .iter()
            .map(|need| need.name().to_owned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing = unmet();
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(need) = missing.iter().find(|need| need.package.is_none()) {
        bail!(
            "there is no {}: LLVM={} does not name a whole LLVM",
            need.name(),
            llvm.value()
        );
    }
    let packages = missing_packages(missing.iter().copied());
    if !apt::is_here() {
        bail!(
            "these are missing: {}; install them with this system's package manager (Debian has them \
             in {})",
            names(&missing),
            packages.join(" ")
        );
    }
    if !apt::is_root() {
        bail!(
            "these are missing: {}; run `{}`",
            names(&missing),
            install_command(&packages)
        );
    }
    apt::install(&packages).with_context(|| {
        format!(
            "these are missing: {}; run `{}`",
            names(&missing),
            install_command(&packages)
        )
    })?;
    let still = unmet();
    ensure!(
        still.is_empty(),
        "these are still missing after the installation: {}",
        names(&still)
    );
    Ok(())
}

/// Everything that the kernel's make is told about programs.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    llvm: Llvm,
    bindgen: PathBuf,
    rust_lib_src: Option<PathBuf>,
    libclang: Option<PathBuf>,
    versions: String,
}

impl Toolchain {
    /// Gets what the system's packages do not have. The programs must be there.
    pub(crate) fn ensure(cache: &Cache, lock: &Lock, llvm: Llvm) -> Result<Self> {
        let rustc = rustc()?;
        let rust_lib_src = rust_src(cache, lock, &rustc)?;
        let bindgen = bindgen(cache, lock)?;
        let libclang = llvm.libclang();
        let mut versions = Parts::default();
        versions.add(&rustc);
        for name in ["clang", "ld.lld"] {
            versions.add(run::output(
                Command::new(llvm.program(name)).arg("--version"),
            )?);
        }
        versions.add(BINDGEN);
        Ok(Self {
            llvm,
            bindgen,
            rust_lib_src,
            libclang,
            versions: versions.digest(),
        })
    }

    /// A digest of the versions of all that decides what is built.
    pub(crate) fn versions(&self) -> &str {
        &self.versions
    }

    /// Which LLVM.
    pub(crate) fn llvm(&self) -> &Llvm {
        &self.llvm
    }

    /// Puts it on a command line of the kernel's make.
    pub(crate) fn tell(&self, make: &mut Command) {
        let Self {
            llvm,
            bindgen,
            rust_lib_src,
            libclang,
            versions: _,
        } = self;
        make.arg(format!("LLVM={}", llvm.value()));
        make.arg(format!("BINDGEN={}", bindgen.display()));
        if let Some(path) = rust_lib_src {
            make.arg(format!("RUST_LIB_SRC={}", path.display()));
        }
        if let Some(path) = libclang {
            make.env("LIBCLANG_PATH", path);
        }
    }

    /// Refuses programs that are too old for a tree, in the tree's own opinion.
    pub(crate) fn suits(&self, tree: &Path) -> Result<()> {
        let least = |name: &str| -> Result<Option<Version>> {
            let script = tree.join("scripts/min-tool-version.sh");
            let text = run::output(
                Command::new("sh")
                    .arg(script)
                    .arg(name)
                    .env("SRCARCH", "x86"),
            )?;
            Ok(Version::find(&text))
        };
        let clang = run::output(Command::new(self.llvm.program("clang")).arg("--version"))?;
        for (name, found, way_out) in [
            ("rustc", Version::find(&rustc()?), "`rustup update`"),
            (
                "llvm",
                Version::find(&clang),
                "name a newer one with LLVM=-NN",
            ),
        ] {
            if let (Some(found), Some(least)) = (found, least(name)?) {
                ensure!(
                    found >= least,
                    "{name} is {found}, and the kernel needs {least}: {way_out}"
                );
            }
        }
        Ok(())
    }
}

/// What rustc says of itself.
fn rustc() -> Result<String> {
    run::output(Command::new("rustc").arg("--version"))
        .context("cannot run rustc: get it from https://rustup.rs")
}

/// Where the standard library's source is in the toolchain, or would be.
pub(crate) fn sysroot_library() -> Result<PathBuf> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"))
}

/// Where the source of the standard library belongs in the cache.
pub(crate) fn cached_library(cache: &Cache, version: Version) -> PathBuf {
    cache.root().join(format!(
        "rust-src/{version}/usr/src/rustc-{version}/library"
    ))
}

/// The version of rustc.
pub(crate) fn rustc_version() -> Result<Version> {
    Version::find(&rustc()?).context("`rustc --version` names no version")
}

/// The source of the standard library, `None` where the toolchain has it and the
/// kernel's make finds it by itself.
fn rust_src(cache: &Cache, lock: &Lock, rustc: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os("RUST_LIB_SRC") {
        return Ok(Some(path.into()));
    }
    if sysroot_library()?.join("core/src/lib.rs").exists() {
        return Ok(None);
    }
    let version = Version::find(rustc).context("`rustc --version` names no version")?;
    let library = cached_library(cache, version);
    if library.exists() {
        return Ok(Some(library));
    }
    let way_out =
        "the source of Rust's standard library is missing: `rustup component add rust-src`";
    let get = || -> Result<()> {
        let suite = apt::Suite::open(cache, lock, RUST_SUITE)?;
        let scratch = cache.scratch(lock)?;
        let package = suite.download(&format!("rust-src={version}*"), scratch.path())?;
        let unpacked = scratch.path().join("unpacked");
        apt::unpack(&package, &unpacked)?;
        let inside = unpacked.join(format!("usr/src/rustc-{version}/library/core/src/lib.rs"));
        ensure!(
            inside.exists(),
            "rust-src of Debian's {RUST_SUITE} is laid out differently"
        );
        let to = cache.dir("rust-src")?.join(version.to_string());
        cache::remove_dir(&to)?;
        fs::rename(&unpacked, &to).with_context(|| format!("cannot create {}", to.display()))
    };
    get().context(way_out)?;
    Ok(Some(library))
}

/// Where bindgen belongs in the cache.
pub(crate) fn cached_bindgen(cache: &Cache) -> PathBuf {
    cache
        .root()
        .join(format!("tools/bindgen-{BINDGEN}/bin/bindgen"))
}

/// Builds bindgen, once.
fn bindgen(cache: &Cache, lock: &Lock) -> Result<PathBuf> {
    let program = cached_bindgen(cache);
    if program.exists() {
        return Ok(program);
    }
    let scratch = cache.scratch(lock)?;
    let new = scratch.path().join("bindgen");
    let what = format!("bindgen {BINDGEN}");
    let mut bar = Bar::new("Installing", &what, Unit::Things("crates"), Some(60));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run::checked_lines(
        Command::new(cargo)
            .args(["install", "--locked", "--version", BINDGEN, "--root"])
            .arg(&new)
            .arg("bindgen-cli")
            // Away from the checkout, whose configuration is not meant for it.
            .current_dir(scratch.path())
            .env("CARGO_TARGET_DIR", scratch.path().join("target"))
            .env_remove("RUSTFLAGS"),
        |line| {
            if line.trim_start().starts_with("Compiling") {
                bar.inc();
            }
            Ok(())
        },
    )
    .with_context(|| format!("cannot install {what}: is there a network?"))?;
    bar.finish();
    let to = program
        .ancestors()
        .nth(2)
        .context("a path of three parts")?;
    cache::remove_dir(to)?;
    cache.dir("tools")?;
    fs::rename(&new, to).with_context(|| format!("cannot create {}", to.display()))?;
    Ok(program)
}

/// Says which LLVM is taken, where that is not what was asked for.
pub(crate) fn choose_llvm(text: &str) -> Result<Llvm> {
    let (llvm, note) = Llvm::find(text)?;
    if let Some(note) = note {
        say("Using", note);
    }
    Ok(llvm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str, clang: Option<Version>) -> (Llvm, Option<String>) {
        Llvm::choose(text, || clang).unwrap()
    }

    #[test]
    fn llvm_1_falls_back_and_says_why() {
        assert_eq!(choose("1", Some(Version(19, 1, 7))), (Llvm::Plain, None));
        let (llvm, note) = choose("1", Some(Version(14, 0, 6)));
        assert_eq!(llvm, Llvm::Suffix("-19".to_owned()));
        assert!(note.unwrap().contains("14.0.6"));
        let (llvm, note) = choose("1", None);
        assert_eq!(llvm.program("clang"), "clang-19");
        assert!(note.unwrap().contains("LLVM=-19"));
    }

    #[test]
    fn llvm_is_read_as_the_kernel_reads_it() {
        assert_eq!(choose("-20", None).0.program("ld.lld"), "ld.lld-20");
        assert_eq!(
            choose("/opt/llvm/bin/", None).0.program("clang"),
            "/opt/llvm/bin/clang"
        );
        for wrong in ["", "0", "19", "/opt/llvm/bin", "-"] {
            assert!(Llvm::choose(wrong, || None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn packages_follow_llvm() {
        let packages = |text: &str| missing_packages(&needs(&choose(text, None).0));
        assert!(packages("1").contains(&"libclang-19-dev".to_owned()));
        assert!(packages("-20").contains(&"clang-20".to_owned()));
        let own = packages("/opt/llvm/bin/");
        assert!(
            !own.iter().any(|package| package.contains("clang")),
            "{own:?}"
        );
    }

    #[test]
    fn versions_are_found_in_words() {
        for (text, version) in [
            ("Debian clang version 14.0.6", Version(14, 0, 6)),
            (
                "Ubuntu clang version 19.1.7 (3~deb12u1)\nTarget: x",
                Version(19, 1, 7),
            ),
            ("rustc 1.95.0 (59807616e 2026-04-14)", Version(1, 95, 0)),
            ("rustc 1.97.0-nightly (abc 2026-04-14)", Version(1, 97, 0)),
            ("17.0.1\n", Version(17, 0, 1)),
        ] {
            assert_eq!(Version::find(text), Some(version), "{text}");
        }
        assert!(Version(9, 0, 0) < Version(10, 0, 0));
        assert_eq!(Version::find("no"), None);
    }
}
