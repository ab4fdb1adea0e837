// SPDX-License-Identifier: GPL-2.0-only
//! liburing's tests: getting the source, building the programs, and a disk with them.

use std::{
    env, fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{ensure, Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{record::Source, Library};
use crate::{
    apt, build,
    cache::{self, Cache, Lock, Parts, GIB},
    disk, fetch, paths,
    progress::{Bar, Unit},
    run,
    series::Base,
};

/// Room for the programs, twice, and for a disk with them, in bytes.
const SPACE: u64 = GIB;

/// Where the version on record is built, below `liburing/` in the cache.
const BUILD: &str = "build";

/// How a program's file ends where it is built.
const SUFFIX: &str = ".t";

/// Of how the disk is made; another one makes it anew.
const LAYOUT: &str = "2";

/// There is no shared library in the guest, and nobody looks at symbols there.
const LDFLAGS: &str = "LDFLAGS=-static -s";
/// What the compiler thinks of them is not our business.
const CFLAGS: &str = "CFLAGS=-O2 -w";

/// Programs that a build makes, about; for progress.
const ABOUT: u64 = 260;

/// The tests, built.
pub(super) struct Suite {
    /// A disk with the programs.
    pub(super) image: PathBuf,
    /// The tests' names, in order, and those of the files on the disk.
    pub(super) tests: Vec<String>,
}

/// What is known of a build. Kept beside it, and written last.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Built {
    /// Digest of what it was made from.
    inputs: String,
    tests: Vec<String>,
}

/// Gets the tests: of the version on record, or of a tree of the user's.
///
/// # Errors
///
/// Each with what to do about it.
pub(super) fn ensure(
    source: &Source,
    own: Option<&Path>,
    options: &build::Options,
) -> Result<Suite> {
    let get = || {
        let cache = Cache::open()?;
        let lock = cache.lock()?;
        let base = Base::load(&paths::kernel()?)?;
        let kernel = fetch::source(&cache, &lock, &base, options.tarball.as_deref())?;
        let jobs = match options.jobs {
            Some(jobs) => jobs,
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        let (tree, key) = match own {
            Some(dir) => {
                let dir = checked(dir)?;
                let key = cache::sha256(dir.as_os_str().as_bytes());
                (dir, format!("build-{}", &key[..12]))
            }
            None => (unpacked(&cache, &lock, source)?, BUILD.to_owned()),
        };
        built(
            &cache,
            &lock,
            source,
            &tree,
            own.is_some(),
            &kernel,
            &key,
            jobs,
        )
    };
    get().map_err(cache::explain)
}

/// What is left of a build besides its tests, if there was one.
pub(super) fn library(source: &Source) -> Result<Option<Library>> {
    let cache = Cache::open()?;
    let dir = cache.root().join("liburing");
    let build = dir.join(BUILD);
    let archive = build.join("src/liburing.a");
    // What was configured comes before what was released.
    let includes = vec![
        build.join("src/include"),
        dir.join(format!("liburing-{}/src/include", source.version)),
        build.join("include"),
    ];
    let there = archive.exists() && includes.iter().all(|include| include.exists());
    Ok(there.then_some(Library { includes, archive }))
}

/// A tree of the user's, by its one name.
fn checked(dir: &Path) -> Result<PathBuf> {
    let dir = fs::canonicalize(dir)
        .with_context(|| format!("there is no directory {}", dir.display()))?;
    ensure!(
        dir.join("configure").is_file() && dir.join("test/Makefile").is_file(),
        "{} is not the source of liburing: it has no configure and test/Makefile",
        dir.display()
    );
    Ok(dir)
}

/// The source as it was released, unpacked.
fn unpacked(cache: &Cache, lock: &Lock, source: &Source) -> Result<PathBuf> {
    let Source {
        version,
        package,
        suite: _,
        sha256,
        headers: _,
    } = source;
    let dir = cache.root().join(format!("liburing/liburing-{version}"));
    if dir.exists() {
        return Ok(dir);
    }
    cache.need_space(SPACE)?;
    let name = format!("{package}_{version}.orig.tar");
    let kept = fs::read_dir(cache.dir("download")?)
        .context("cannot read the downloads")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file = path.file_name().unwrap_or_default();
            file.as_bytes().starts_with(name.as_bytes())
        });
    let archive = match kept {
        Some(kept) => kept,
        None => download(cache, lock, source, &name).with_context(|| {
            format!(
                "cannot get liburing {version}; get its source in some other way, and run \
                 `LIBURING=path/to/liburing cargo xtask liburing`"
            )
        })?,
    };
    let content =
        fs::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
    if cache::sha256(&content) != *sha256 {
        fs::remove_file(&archive)
            .with_context(|| format!("cannot remove {}", archive.display()))?;
        anyhow::bail!(
            "{} is not liburing {version} as ci/liburing.toml knows it (by its SHA-256); it was \
             removed, run the same command again",
            archive.display()
        );
    }
    let scratch = cache.scratch(lock)?;
    run::output(
        Command::new("tar")
            .args(["--extract", "--no-same-owner", "--strip-components=1"])
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(scratch.path()),
    )
    .with_context(|| format!("{} cannot be unpacked", archive.display()))?;
    cache.dir("liburing")?;
    fs::rename(scratch.keep(), &dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn download(cache: &Cache, lock: &Lock, source: &Source, name: &str) -> Result<PathBuf> {
    let Source { package, suite, .. } = source;
    let sources = apt::Suite::open_sources(cache, lock, suite)?;
    let scratch = cache.scratch(lock)?;
    let new = sources.download_source(package, name, scratch.path())?;
    let path = cache
        .dir("download")?
        .join(new.file_name().context("a file has a name")?);
    fs::rename(&new, &path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// Builds the programs and the disk, unless these were built before. Nothing is written
/// to the source.
#[allow(clippy::too_many_arguments, reason = "all of it decides what is built")]
fn built(
    cache: &Cache,
    lock: &Lock,
    source: &Source,
    tree: &Path,
    own: bool,
    kernel: &Path,
    key: &str,
    jobs: usize,
) -> Result<Suite> {
    let dir = cache.dir("liburing")?.join(key);
    let image = dir.with_extension("img");
    let record = dir.with_extension("json");

    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let version = run::output(Command::new(&compiler).arg("--version")).with_context(|| {
        format!("there is no C compiler `{compiler}`: `apt-get install gcc libc6-dev`, or name one with CC=")
    })?;
    let mut inputs = Parts::default();
    inputs.add(&source.sha256);
    inputs.add(tree.as_os_str().as_bytes());
    inputs.add(&compiler);
    inputs.add(&version);
    let mut headers = Vec::new();
    for header in &source.headers {
        let path = kernel.join("include/uapi").join(header);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        inputs.add(&content);
        headers.push((header, content));
    }
    for part in [LDFLAGS, CFLAGS, LAYOUT] {
        inputs.add(part);
    }
    let inputs = inputs.digest();

    // One that is damaged is as good as none.
    let known: Built = fs::read(&record)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    // What is in a tree of the user's only make can tell.
    if known.inputs == inputs && image.exists() && !own {
        return Ok(Suite {
            image,
            tests: known.tests,
        });
    }

    cache.need_space(SPACE)?;
    let configured = dir.join("config-host.mak");
    if known.inputs != inputs {
        cache::remove_dir(&dir)?;
    }
    for (header, content) in &headers {
        cache::write_whole(&dir.join("include").join(header), content)?;
    }
    if !configured.exists() {
        // Of the kernel that is tested, where the system's are older than that.
        let include = format!("-isystem {}", dir.join("include").display());
        run::output(
            Command::new(tree.join("configure"))
                .arg(format!("--cc={compiler} {include}"))
                .arg(format!("--cxx=c++ {include}"))
                .current_dir(&dir),
        )
        .context("liburing cannot be configured")?;
    }
    let make = |part: &str, what: &str, total: u64, variables: &[&str]| -> Result<()> {
        let mut bar = Bar::new("Building", what, Unit::Things("files"), Some(total));
        run::checked_lines(
            build::forget_makes(&mut Command::new("make"))
                .arg("-C")
                .arg(dir.join(part))
                .arg(format!("-j{jobs}"))
                .args(variables),
            |line| {
                let line = line.trim_start();
                if line.starts_with("CC ") || line.starts_with("CXX ") {
                    bar.inc();
                }
                Ok(())
            },
        )
        .with_context(|| format!("{what} cannot be built"))?;
        bar.finish();
        Ok(())
    };
    make("src", "liburing", 10, &["ENABLE_SHARED=0"])?;
    make("test", "liburing's tests", ABOUT, &[LDFLAGS, CFLAGS])?;

    let scratch = cache.scratch(lock)?;
    let contents = scratch.path().join("contents");
    fs::create_dir(&contents).with_context(|| format!("cannot create {}", contents.display()))?;
    let mut tests = Vec::new();
    let mut bytes = 0;
    let test_dir = dir.join("test");
    for entry in
        fs::read_dir(&test_dir).with_context(|| format!("cannot read {}", test_dir.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(test) = name.strip_suffix(SUFFIX) {
            fs::hard_link(&path, contents.join(test))
                .with_context(|| format!("cannot link {}", path.display()))?;
            bytes += path.metadata()?.len();
            tests.push(test.to_owned());
        }
    }
    ensure!(
        !tests.is_empty(),
        "liburing's make has built no test in {}",
        test_dir.display()
    );
    tests.sort();
    let new = scratch.path().join("image");
    // What ext4 needs for itself, and the end of the last block of each.
    disk::make(&new, bytes + bytes / 8 + (16 << 20), Some(&contents))?;
    fs::rename(&new, &image).with_context(|| format!("cannot create {}", image.display()))?;
    let text = serde_json::to_vec_pretty(&Built {
        inputs,
        tests: tests.clone(),
    })
    .context("cannot write a record")?;
    cache::write_whole(&record, &text)?;
    Ok(Suite { image, tests })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(sha256: &str) -> Source {
        Source {
            version: "1.0".to_owned(),
            package: "liburing".to_owned(),
            suite: "sid".to_owned(),
            sha256: sha256.to_owned(),
            headers: vec!["linux/x.h".into()],
        }
    }

    /// An archive of a liburing whose one test does nothing, in the cache's downloads.
    fn archive(cache: &Cache, dir: &Path) -> PathBuf {
        let tree = dir.join("liburing");
        for (path, content) in [
            (
                "configure",
                "#!/bin/sh\nset -e\ntop=$(dirname $0)\nmkdir -p src test\ncp $top/test/Makefile test\n\
                 echo all: > src/Makefile\ntouch config-host.mak\n",
            ),
            ("test/Makefile", "all:\n\tcp /bin/true nop.t\n"),
        ] {
            cache::write_whole(&tree.join(path), content.as_bytes()).unwrap();
        }
        run::output(Command::new("chmod").arg("+x").arg(tree.join("configure"))).unwrap();
        let path = cache
            .dir("download")
            .unwrap()
            .join("liburing_1.0.orig.tar.gz");
        run::output(
            Command::new("tar")
                .arg("-czf")
                .arg(&path)
                .arg("-C")
                .arg(dir)
                .arg("liburing"),
        )
        .unwrap();
        path
    }

    #[test]
    fn an_archive_that_is_not_the_one_on_record_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let lock = cache.lock().unwrap();
        let path = archive(&cache, dir.path());
        let error = unpacked(&cache, &lock, &source("0")).unwrap_err();
        assert!(format!("{error:#}").contains("SHA-256"), "{error:#}");
        assert!(!path.exists());
        assert!(!cache.root().join("liburing").exists());
    }

    #[test]
    fn what_was_built_is_not_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let lock = cache.lock().unwrap();
        let path = archive(&cache, dir.path());
        let source = source(&cache::sha256(&fs::read(&path).unwrap()));
        let tree = unpacked(&cache, &lock, &source).unwrap();
        let kernel = dir.path().join("linux");
        let header = kernel.join("include/uapi/linux/x.h");
        cache::write_whole(&header, b"one").unwrap();
        let build = || built(&cache, &lock, &source, &tree, false, &kernel, "build", 1);
        let suite = build().unwrap();
        assert_eq!(suite.tests, ["nop"]);
        let made = fs::metadata(&suite.image).unwrap().modified().unwrap();
        let again = || {
            fs::metadata(build().unwrap().image)
                .unwrap()
                .modified()
                .unwrap()
        };
        assert_eq!(again(), made);
        // Another kernel's header is another suite.
        cache::write_whole(&header, b"two").unwrap();
        assert_ne!(again(), made);
    }

    #[test]
    fn a_directory_without_liburing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = checked(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not the source of liburing"), "{error}");
        let error = checked(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("there is no directory"), "{error}");
    }
}
