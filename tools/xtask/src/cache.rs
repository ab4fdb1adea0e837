// SPDX-License-Identifier: GPL-2.0-only
//! The cache: everything that is fetched or built, outside the checkout.
//!
//! Whatever stands in it under its final name is whole: files and directories are
//! made under another name and renamed, and a stamp that says "done" is written
//! last. A run that was cut off leaves nothing but scratch, which the next one that
//! gets the lock removes.

use std::{
    env,
    ffi::CString,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::progress::say;

/// The directory of everything that is fetched or built.
///
/// | below it | holds |
/// | --- | --- |
/// | `download/` | archives as they came, each whole, or a `.part` to go on with |
/// | `src/linux-VERSION/` | the kernel as it came, never written to |
/// | `tree/linux-VERSION/` | the same with the series applied; hard links where nothing differs |
/// | `tree/linux-VERSION-mistakes/` | the same with a mistake in it |
/// | `tree/linux-VERSION-pair/` | now with the series and now without, for two kernels to compare |
/// | `build/PROFILE/`, `build/PROFILE-mistakes/`, `build/PROFILE-pair/`, `build/PROFILE-pair-base/` | `O=` of the kernel's make |
/// | `liburing/` | its source, its tests, and a disk with them |
/// | `rust-src/` | the standard library's source, where the toolchain has none |
/// | `tools/` | programs built for this project alone |
/// | `kdir/` | what the series wrote to trees of the user, and what was there before |
/// | `scratch/` | work in progress |
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// The right to change the cache; ends when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    /// The cache of this user: `$SQE_GROUP_CACHE`, else `$XDG_CACHE_HOME/sqe-group`,
    /// else `~/.cache/sqe-group`. Not created here.
    pub(crate) fn open() -> Result<Self> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = set("SQE_GROUP_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("sqe-group")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/sqe-group")))
            .context("neither SQE_GROUP_CACHE, XDG_CACHE_HOME nor HOME is set: set one of them")?;
        Self::at(&root)
    }

    /// A cache at a given place.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)
            .with_context(|| format!("cannot make {} absolute", root.display()))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the cache, created with its parents if it is not there.
    pub(crate) fn dir(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let dir = self.root.join(path);
        fs::create_dir_all(&dir).with_context(|| {
            format!(
                "cannot create {}: set SQE_GROUP_CACHE to a directory that you can write to",
                dir.display()
            )
        })?;
        Ok(dir)
    }

    /// Waits until no other run changes the cache, and keeps others out. Removes
    /// what a run that was cut off left behind.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.dir("")?.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(
                    "Waiting",
                    format!("another run uses {}", self.root.display()),
                );
                file.lock()
                    .with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let scratch = self.root.join("scratch");
        if scratch.exists() {
            remove_dir(&scratch)?;
        }
        Ok(Lock { _file: file })
    }

    /// An empty directory for work in progress, on the same file system as the rest
    /// so that its content can be renamed to where it belongs.
    pub(crate) fn scratch(&self, _lock: &Lock) -> Result<tempfile::TempDir> {
        let dir = self.dir("scratch")?;
        tempfile::tempdir_in(&dir)
            .with_context(|| format!("cannot create a directory in {}", dir.display()))
    }

    /// Bytes free on the cache's file system.
    pub(crate) fn free(&self) -> Result<u64> {
        let dir = self.dir("")?;
        let path = CString::new(dir.as_os_str().as_bytes()).context("a path with a null byte")?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` is null-terminated and `stat` is writable for its size.
        if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot ask {} for its free space", dir.display()));
        }
        // SAFETY: statvfs has filled it, for it returned 0.
        let stat = unsafe { stat.assume_init() };
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Fails early, and with the way out, where the disk would be full later.
    pub(crate) fn need_space(&self, bytes: u64) -> Result<()> {
        let free = self.free()?;
        if free < bytes {
            bail!(
                "{} has {} GiB free and {} GiB are needed: free some, or set \
                 SQE_GROUP_CACHE to a directory on a larger disk",
                self.root.display(),
                gib(free),
                gib(bytes)
            );
        }
        Ok(())
    }
}

/// Puts the way out before an error that comes of a full disk.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    if is_full_disk(&error) {
        error.context(
            "the disk is full: free some space, or set SQE_GROUP_CACHE to a directory on a larger \
             disk, and run the same command again",
        )
    } else {
        error
    }
}

/// One binary gigabyte, in bytes.
pub(crate) const GIB: u64 = 1 << 30;

/// Bytes as binary gigabytes, to one digit, for people.
fn gib(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / u128::from(GIB);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a parent")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let fail = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(".sqe-group-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .with_context(fail)?;
    file.write_all(content).with_context(fail)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(fail)?;
    Ok(())
}

/// Removes a directory and all below it. Its name goes first, so that half a
/// directory never stands where a whole one is expected.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    let fail = || format!("cannot remove {}", dir.display());
    let mut aside = dir.as_os_str().to_owned();
    aside.push(".old");
    let aside = PathBuf::from(aside);
    if aside.exists() {
        fs::remove_dir_all(&aside).with_context(fail)?;
    }
    if dir.exists() {
        fs::rename(dir, &aside).with_context(fail)?;
        fs::remove_dir_all(&aside).with_context(fail)?;
    }
    Ok(())
}

/// The SHA-256 of some bytes, in lower-case hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One digest of several parts, each told apart from its neighbours.
#[derive(Default)]
pub(crate) struct Parts(Sha256);

impl Parts {
    /// Adds one part.
    pub(crate) fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
    }

    /// The digest, in lower-case hexadecimal.
    pub(crate) fn digest(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Whether an error is that of a full disk, its own or that of a program it ran.
pub(crate) fn is_full_disk(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
            || cause.to_string().contains("No space left on device")
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        write_whole(&path, b"one").unwrap();
        let before = File::open(&path).unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // A reader (or a hard link) of the old file still has the old content.
        assert_eq!(io::read_to_string(before).unwrap(), "one");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::create_dir(&path).unwrap();
        write_whole(&path, b"one").unwrap_err();
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_lock_keeps_others_out_and_clears_scratch() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("scratch/left")).unwrap();
        let lock = cache.lock().unwrap();
        assert!(!dir.path().join("scratch").exists());
        let (sender, receiver) = mpsc::channel();
        let other = cache.clone();
        let thread = thread::spawn(move || {
            let _lock = other.lock().unwrap();
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
        drop(lock);
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn too_little_space_names_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        cache.need_space(1).unwrap();
        let error = format!("{:#}", cache.need_space(u64::MAX).unwrap_err());
        assert!(error.contains("SQE_GROUP_CACHE"), "{error}");
    }

    #[test]
    fn a_full_disk_is_recognised_through_context() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(is_full_disk(&error.context("cannot write")));
        assert!(is_full_disk(&anyhow::anyhow!(
            "tar: x: Cannot write: No space left on device"
        )));
        assert!(!is_full_disk(&anyhow::anyhow!("no")));
    }

    #[test]
    fn parts_are_told_apart() {
        let digest = |parts: &[&str]| {
            let mut all = Parts::default();
            parts.iter().for_each(|part| all.add(part));
            all.digest()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }

    #[test]
    fn a_directory_is_removed_although_an_earlier_removal_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::create_dir_all(path.join("y")).unwrap();
        fs::create_dir_all(dir.path().join("x.old/z")).unwrap();
        remove_dir(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
