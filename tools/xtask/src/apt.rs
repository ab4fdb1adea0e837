// SPDX-License-Identifier: GPL-2.0-only
//! Packages of another Debian suite, fetched without touching the system: sources,
//! lists and cache are directories of ours, signatures are checked with the
//! keyring that the system has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use crate::{
    cache::{self, Cache, Lock},
    progress::{Bar, Unit},
    run,
};

/// What signs every suite of Debian's.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of Debian's main archive.
pub(crate) struct Suite {
    name: String,
    options: Vec<String>,
}

impl Suite {
    /// Gets the suite's package list.
    ///
    /// # Errors
    ///
    /// Fails where there is no apt, no keyring, no network, or no Debian archive
    /// among the system's sources.
    pub(crate) fn open(cache: &Cache, lock: &Lock, name: &str) -> Result<Self> {
        Self::open_list(cache, lock, name, "deb", name)
    }

    /// As [`Suite::open`], for source packages.
    pub(crate) fn open_sources(cache: &Cache, lock: &Lock, name: &str) -> Result<Self> {
        Self::open_list(cache, lock, name, "deb-src", &format!("{name}-source"))
    }

    /// The list of one kind, in a directory of that name.
    fn open_list(cache: &Cache, _lock: &Lock, name: &str, kind: &str, place: &str) -> Result<Self> {
        ensure!(
            is_here(),
            "this is not a Debian system (there is no apt-get)"
        );
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: `apt-get install debian-archive-keyring`"
        );
        let dir = cache.dir("apt")?;
        let options = options(&dir, place)?;
        let address = match archive()? {
            Some(address) => address,
            // The system has never fetched its lists.
            None => {
                let own = system_lists(&dir)?;
                run::output(apt_get(&own).arg("update")).map_err(|error| {
                    anyhow!(
                        "cannot get the lists of this system's own package sources ({})",
                        run::last_word(&error)
                    )
                })?;
                archive_of(&run::output(listing().args(&own))?)
                    .context("none of apt's sources is Debian's main archive")?
            }
        };
        cache::write_whole(
            &dir.join(place).join("parts/debian.list"),
            format!("{kind} [signed-by={KEYRING}] {address} {name} main\n").as_bytes(),
        )?;
        run::output(apt_get(&options).arg("update")).map_err(|error| {
            let why = run::last_word(&error);
            anyhow!("cannot get the package list of Debian's {name}: no network? ({why})")
        })?;
        Ok(Self {
            name: name.to_owned(),
            options,
        })
    }

    /// Downloads a package into a directory, and returns the path of the archive.
    /// `wanted` is as for `apt-get download`: `name` or `name=version*`.
    ///
    /// # Errors
    ///
    /// Fails if the suite does not have it, or the download did not end. apt has
    /// compared size and hash with the signed list.
    pub(crate) fn download(&self, wanted: &str, into: &Path) -> Result<PathBuf> {
        self.get(&["download", "-q", wanted], wanted, "", into)
    }

    /// Downloads what a source package was made from, an archive of this name, and
    /// returns its path.
    ///
    /// # Errors
    ///
    /// As [`Suite::download`], and if the suite has another version.
    pub(crate) fn download_source(
        &self,
        package: &str,
        archive: &str,
        into: &Path,
    ) -> Result<PathBuf> {
        let arguments = ["source", "-q", "--download-only", "--tar-only", package];
        self.get(&arguments, package, archive, into)
    }

    /// Downloads one file, the first whose name begins so.
    fn get(&self, arguments: &[&str], wanted: &str, begin: &str, into: &Path) -> Result<PathBuf> {
        let lacks = || {
            let name = if begin.is_empty() { wanted } else { begin };
            format!("Debian's {} does not have {name}", self.name)
        };
        let uris = run::output(
            apt_get(&self.options)
                .args(arguments)
                .arg("--print-uris")
                .current_dir(into),
        )
        .with_context(lacks)?;
        let (file, size) = uris
            .lines()
            .filter_map(parse_uri)
            .find(|(file, _)| file.starts_with(begin))
            .with_context(lacks)?;
        let path = into.join(&file);
        let mut bar = Bar::new("Fetching", &file, Unit::Bytes, Some(size));
        run::watched(
            apt_get(&self.options).args(arguments).current_dir(into),
            || bar.set(fs::metadata(&path).map_or(0, |meta| meta.len())),
        )
        .with_context(|| format!("cannot download {wanted} of Debian's {}", self.name))?;
        bar.finish();
        ensure!(path.exists(), "apt-get {} left no {file}", arguments[0]);
        Ok(path)
    }
}

/// Whether this system has apt.
pub(crate) fn is_here() -> bool {
    Command::new("apt-get")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether apt may change the system.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn apt_get(options: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(options)
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn listing() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)",
        ])
        .env("LC_ALL", "C");
    command
}

/// Options that keep apt out of the system's directories.
fn options(dir: &Path, place: &str) -> Result<Vec<String>> {
    let dir = dir.join(place);
    for part in ["lists/partial", "cache/archives/partial", "parts"] {
        let part = dir.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let mut options = vec![
        "-oDir::Etc::SourceList=/dev/null".to_owned(),
        format!("-oDir::Etc::SourceParts={}", dir.join("parts").display()),
    ];
    options.extend(quiet(&dir));
    Ok(options)
}

/// Options for the system's own sources with lists of ours.
fn system_lists(dir: &Path) -> Result<Vec<String>> {
    options(dir, "system").map(|_| quiet(&dir.join("system")))
}

fn quiet(dir: &Path) -> Vec<String> {
    let mut options = vec![
        format!("-oDir::State::Lists={}", dir.join("lists").display()),
        format!("-oDir::Cache={}", dir.join("cache").display()),
        "-oAcquire::Languages=none".to_owned(),
        "-oAcquire::http::Timeout=20".to_owned(),
        "-oAcquire::Retries=2".to_owned(),
        // A list that could not be fetched is a failure, not a warning.
        "-oAPT::Update::Error-Mode=any".to_owned(),
    ];
    if is_root() {
        // The user _apt cannot write to a cache in root's home.
        options.push("-oAPT::Sandbox::User=root".to_owned());
    }
    options
}

/// The address of Debian's main archive, from the lists that the system has.
fn archive() -> Result<Option<String>> {
    Ok(archive_of(&run::output(&mut listing())?))
}

/// Picks Debian's main archive from lines `address|origin|label|component`. Not the
/// security archive, which has no other suites, and nobody else's.
fn archive_of(listing: &str) -> Option<String> {
    listing.lines().find_map(|line| {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        match fields[..] {
            [address, "Debian", "Debian", "main"] => Some(address.to_owned()),
            _ => None,
        }
    })
}

/// File name and size from a line `'address' name size hash` of `--print-uris`.
fn parse_uri(line: &str) -> Option<(String, u64)> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// Installs packages on this system.
///
/// # Errors
///
/// With the end of apt's output.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    if archive()?.is_none() {
        update()?;
    }
    if let Err(first) = install_once(packages) {
        // Lists that are old name versions that the archive no longer has.
        update()?;
        install_once(packages).with_context(|| format!("again after: {first:#}"))?;
    }
    Ok(())
}

fn update() -> Result<()> {
    let bar = Bar::new("Updating", "package lists", Unit::Things("lists"), None);
    run::output(apt_get(&[]).args(["-q", "update"])).context("cannot get the package lists")?;
    bar.finish();
    Ok(())
}

fn install_once(packages: &[String]) -> Result<()> {
    let what = format!("packages {}", packages.join(" "));
    let mut bar = Bar::new("Installing", &what, Unit::Things("percent"), Some(200));
    run::checked_lines(
        apt_get(&[])
            .args(["-q", "-y", "--no-install-recommends"])
            .args(["-oDPkg::Lock::Timeout=600", "-oAPT::Status-Fd=1"])
            .arg("install")
            .args(packages),
        |line| {
            if let Some(percent) = status(line) {
                bar.set(percent);
            }
            Ok(())
        },
    )
    .with_context(|| format!("cannot install {}", packages.join(" ")))?;
    bar.finish();
    Ok(())
}

/// Progress from one of apt's status lines: 0 to 100 for the download, from there to
/// 200 for the installation.
fn status(line: &str) -> Option<u64> {
    let mut fields = line.split(':');
    let base = match fields.next()? {
        "dlstatus" => 0,
        "pmstatus" => 100,
        _ => return None,
    };
    let whole = fields.nth(1)?.split('.').next()?;
    Some(base + whole.parse::<u64>().ok()?)
}

/// Unpacks a Debian package into a directory.
///
/// # Errors
///
/// If the package is damaged; it is removed then, so that the next run fetches it
/// again.
pub(crate) fn unpack(package: &Path, into: &Path) -> Result<()> {
    let result = run::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(into));
    if let Err(error) = result {
        if !cache::is_full_disk(&error) {
            fs::remove_file(package)
                .with_context(|| format!("cannot remove {}", package.display()))?;
        }
        bail!("{} cannot be unpacked: {error:#}", package.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_told_from_the_others() {
        let listing = "\
http://a.example/security/|Debian|Debian-Security|main
http://b.example/node|. nodistro|. nodistro|main
http://c.example/backports/|Debian Backports|Debian Backports|main
http://d.example/debian/|Debian|Debian|contrib
http://e.example/debian/|Debian|Debian|main
http://f.example/debian/|Debian|Debian|main
";
        assert_eq!(
            archive_of(listing).as_deref(),
            Some("http://e.example/debian/")
        );
    }

    #[test]
    fn lists_that_were_never_fetched_name_no_archive() {
        // apt leaves what it does not know as it is.
        assert_eq!(
            archive_of("http://e.example/debian/|$(ORIGIN)|$(LABEL)|main\n"),
            None
        );
        assert_eq!(archive_of(""), None);
    }

    #[test]
    fn uris_and_states_are_read() {
        assert_eq!(
            parse_uri("'http://e.example/x%2b.deb' x_1+2_all.deb 1234 SHA256:ab"),
            Some(("x_1+2_all.deb".to_owned(), 1234))
        );
        assert_eq!(parse_uri("Reading package lists..."), None);
        assert_eq!(
            status("dlstatus:3:45.6789:Retrieving file 3 of 4"),
            Some(45)
        );
        assert_eq!(
            status("pmstatus:lld-19:50.0000:Unpacking lld-19"),
            Some(150)
        );
        assert_eq!(status("Unpacking lld-19 ..."), None);
    }
}
