// SPDX-License-Identifier: GPL-2.0-only
//! Getting the kernel source, and judging what was got by its content.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use crate::{
    apt,
    cache::{self, Cache, Lock, GIB},
    progress::{say, Bar, Unit},
    run,
    series::Base,
};

/// Room for the archive, the unpacked source and its linked copy, in bytes.
const SPACE: u64 = 3 * GIB;

/// Seconds until a server that does not answer is given up.
const CONNECT: &str = "8";

/// Where the unpacked source of the base belongs.
fn place(cache: &Cache, base: &Base) -> PathBuf {
    cache
        .root()
        .join("src")
        .join(format!("linux-{}", base.version))
}

/// The kernel as it came, if the cache has it.
pub(crate) fn cached_source(cache: &Cache, base: &Base) -> Option<PathBuf> {
    Some(place(cache, base)).filter(|dir| dir.exists())
}

/// The kernel as it came: from the cache, or else from the first place that has it.
///
/// # Errors
///
/// Names every place that was tried, why it did not do, and what to do.
pub(crate) fn source(
    cache: &Cache,
    lock: &Lock,
    base: &Base,
    tarball: Option<&Path>,
) -> Result<PathBuf> {
    let dir = place(cache, base);
    if dir.exists() {
        base.verify(&dir).with_context(|| {
            format!(
                "the cached source was changed: remove {} and run the same command again",
                dir.display()
            )
        })?;
        return Ok(dir);
    }
    cache.need_space(SPACE)?;
    if let Some(tarball) = tarball {
        // Asked for by name: no other will do.
        ensure!(tarball.is_file(), "there is no file {}", tarball.display());
        install(cache, lock, base, tarball, &dir)
            .with_context(|| format!("cannot use {}", tarball.display()))?;
        return Ok(dir);
    }
    let mut reasons = Vec::new();
    for place in places(base) {
        match from(cache, lock, base, &place, &dir) {
            Ok(()) => return Ok(dir),
            Err(error) if cache::is_full_disk(&error) => return Err(error),
            Err(error) => {
                let reason = format!("{}: {}", place.name(), first_line(&error));
                say("Skipping", &reason);
                reasons.push(reason);
            }
        }
    }
    bail!(
        "cannot get the source of Linux {version} ({}). Without a network, get linux-{version}.tar.xz \
         in some other way and run `make LLVM=1 KTARBALL=path/to/linux-{version}.tar.xz`",
        reasons.join("; "),
        version = base.version,
    )
}

/// A place where the source may be.
enum Place {
    /// An address.
    Url(String),
    /// A package of Debian's.
    Debian,
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Self::Url(url) => url.split('/').nth(2).unwrap_or(url),
            Self::Debian => "Debian",
        }
    }
}

fn places(base: &Base) -> Vec<Place> {
    base.sources
        .iter()
        .cloned()
        .map(Place::Url)
        .chain([Place::Debian])
        .collect()
}

fn from(cache: &Cache, lock: &Lock, base: &Base, place: &Place, dir: &Path) -> Result<()> {
    let archive = match place {
        Place::Url(url) => {
            let name = url.rsplit('/').next().context("an address with a file")?;
            download(url, &cache.dir("download")?.join(name))?
        }
        Place::Debian => debian(cache, lock, base)?,
    };
    install(cache, lock, base, &archive, dir).inspect_err(|error| {
        // Ours, and no good: the next run must not find it. A full disk is not its fault.
        if !cache::is_full_disk(error) {
            let _ = fs::remove_file(&archive);
        }
    })
}

/// Unpacks an archive, judges it, and puts it in its place.
fn install(cache: &Cache, lock: &Lock, base: &Base, archive: &Path, dir: &Path) -> Result<()> {
    let scratch = cache.scratch(lock)?;
    let mut tar = archive.to_owned();
    if archive
        .extension()
        .is_some_and(|extension| extension == "deb")
    {
        let unpacked = scratch.path().join("deb");
        apt::unpack(archive, &unpacked)?;
        let sources = unpacked.join("usr/src");
        tar = fs::read_dir(&sources)
            .with_context(|| format!("{} holds no usr/src", archive.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(".tar."))
            .with_context(|| format!("{} holds no archive of a source", archive.display()))?;
    }
    let new = scratch.path().join("linux");
    fs::create_dir(&new).with_context(|| format!("cannot create {}", new.display()))?;
    let what = format!("Linux {}", base.version);
    let mut bar = Bar::new(
        "Unpacking",
        &what,
        Unit::Things("files"),
        Some(base.entries),
    );
    let mut complaint = String::new();
    let status = run::lines(
        Command::new("tar")
            .args([
                "--extract",
                "--verbose",
                "--no-same-owner",
                "--strip-components=1",
                "--file",
            ])
            .arg(&tar)
            .arg("--directory")
            .arg(&new)
            .env("LC_ALL", "C"),
        |line| {
            bar.inc();
            // The first is the reason, the others follow from it.
            if complaint.is_empty() && line.starts_with("tar: ") {
                complaint = line.to_owned();
            }
            Ok(())
        },
    )?;
    if !status.success() {
        drop(bar);
        bail!("{} cannot be unpacked: {complaint}", archive.display());
    }
    bar.finish();
    base.verify(&new)?;
    // The patched tree is linked to the files of the old one.
    cache::remove_dir(
        &cache
            .root()
            .join("tree")
            .join(dir.file_name().context("a name")?),
    )?;
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::rename(&new, dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Debian's package of the source.
fn debian(cache: &Cache, lock: &Lock, base: &Base) -> Result<PathBuf> {
    let dir = cache.dir("download")?;
    let kept = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{}_{}", base.debian.package, base.version))
                && name.ends_with(".deb")
        });
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let suite = apt::Suite::open(cache, lock, &base.debian.suite)?;
    let scratch = cache.scratch(lock)?;
    let wanted = format!("{}={}*", base.debian.package, base.version);
    let new = suite.download(&wanted, scratch.path())?;
    let path = dir.join(new.file_name().context("a file has a name")?);
    fs::rename(&new, &path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// Downloads a file, going on where an earlier run was cut off.
fn download(url: &str, to: &Path) -> Result<PathBuf> {
    if to.exists() {
        return Ok(to.to_owned());
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let head = run::output(curl().args(["--head", url])).map_err(|error| short(&error))?;
    let size = length(&head);
    let name = to
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut bar = Bar::new("Fetching", &name, Unit::Bytes, size);
    let mut get = || {
        run::watched(
            curl()
                .args(["--continue-at", "-", "--output"])
                .arg(&part)
                .arg(url),
            || bar.set(fs::metadata(&part).map_or(0, |meta| meta.len())),
        )
    };
    let resumed = part.exists();
    let mut result = get();
    if resumed && result.is_err() {
        // What is there may not be the beginning of what the server has.
        remove(&part)?;
        result = get();
    }
    result.map_err(|error| short(&error))?;
    bar.finish();
    if let Some(size) = size {
        let got = fs::metadata(&part).map_or(0, |meta| meta.len());
        if got != size {
            remove(&part)?;
            bail!("{got} bytes came instead of {size}");
        }
    }
    fs::rename(&part, to).with_context(|| format!("cannot create {}", to.display()))?;
    Ok(to.to_owned())
}

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--location",
        "--connect-timeout",
        CONNECT,
    ])
    // A connection that has gone dead ends by itself.
    .args(["--speed-limit", "1000", "--speed-time", "60"]);
    curl
}

/// The length that the last of several answers announces, in bytes.
fn length(head: &str) -> Option<u64> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        .filter_map(|(_, value)| value.trim().parse().ok())
        .next_back()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// curl's own words, without the command line around them.
fn short(error: &anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    match text.find("curl: (") {
        Some(at) => anyhow!("{}", &text[at..]),
        None => anyhow!("{text}"),
    }
}

/// One line of an error that may have several.
fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next_back() {
        Some(last) if first.ends_with(':') => format!("{first} {last}"),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Base;

    fn base() -> Base {
        let text = "version = \"7.3.4\"\nentries = 2\nsources = []\n[debian]\npackage = \"p\"\n\
                    suite = \"s\"\n";
        toml::from_str(text).unwrap()
    }

    /// A tar archive of a tree that has nothing but its version.
    fn tarball(dir: &Path, sublevel: &str) -> PathBuf {
        let tree = dir.join("linux");
        fs::create_dir_all(&tree).unwrap();
        fs::write(
            tree.join("Makefile"),
            format!("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = {sublevel}\n"),
        )
        .unwrap();
        let path = dir.join("linux.tar");
        run::output(
            Command::new("tar")
                .arg("-cf")
                .arg(&path)
                .arg("-C")
                .arg(dir)
                .arg("linux"),
        )
        .unwrap();
        path
    }

    #[test]
    fn a_tarball_of_the_users_is_unpacked_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let lock = cache.lock().unwrap();
        let tar = tarball(dir.path(), "4");
        let source = super::source(&cache, &lock, &base(), Some(&tar)).unwrap();
        assert!(source.join("Makefile").exists());
        fs::remove_file(&tar).unwrap();
        assert_eq!(super::source(&cache, &lock, &base(), None).unwrap(), source);
    }

    #[test]
    fn another_version_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let lock = cache.lock().unwrap();
        let tar = tarball(dir.path(), "5");
        let error = super::source(&cache, &lock, &base(), Some(&tar)).unwrap_err();
        assert!(
            format!("{error:#}").contains("7.3.5, not 7.3.4"),
            "{error:#}"
        );
        assert!(cached_source(&cache, &base()).is_none());
        assert!(tar.exists(), "the user's file is the user's");
    }

    #[test]
    fn half_an_archive_is_refused_and_one_of_ours_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let lock = cache.lock().unwrap();
        let kept = cache.dir("download").unwrap().join("linux.tar");
        let whole = fs::read(tarball(dir.path(), "4")).unwrap();
        fs::write(&kept, &whole[..700]).unwrap();
        let place = Place::Url("file:///nowhere/linux.tar".to_owned());
        let to = super::place(&cache, &base());
        from(&cache, &lock, &base(), &place, &to).unwrap_err();
        assert!(!kept.exists() && !to.exists());
    }

    #[test]
    fn a_download_goes_on_where_it_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let served = dir.path().join("served");
        fs::write(&served, "0123456789").unwrap();
        let url = format!("file://{}", served.display());
        let to = dir.path().join("got");
        fs::write(dir.path().join("got.part"), "01234").unwrap();
        download(&url, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "0123456789");
        assert!(!dir.path().join("got.part").exists());
    }

    #[test]
    fn a_failed_download_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("got");
        let error = download("file:///nonexistent/x", &to)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("curl: ("), "{error}");
        assert!(!to.exists());
    }

    #[test]
    fn the_length_is_that_of_the_last_answer() {
        let head =
            "HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nHTTP/2 200\r\ncontent-length: 77\r\n";
        assert_eq!(length(head), Some(77));
        assert_eq!(length("HTTP/2 200\r\n"), None);
    }
}
