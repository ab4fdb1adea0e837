// SPDX-License-Identifier: GPL-2.0-only
//! A directory of its own for every run of a guest, under `target/qemu-test`.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _, Result};

use crate::paths;

/// How many old runs are kept.
const KEPT: usize = 20;

/// Locked as long as the run lasts, so that another run does not remove it.
const LOCK: &str = "lock";

/// Disk images in a run's directory. Big, and of no use after the run.
pub(crate) const DISK: &str = "disk.img";
pub(crate) const RAW_DISK: &str = "raw.img";
pub(crate) const NVME_DISK: &str = "nvme.img";
const DISKS: [&str; 3] = [DISK, RAW_DISK, NVME_DISK];

/// The directory of a run that is going on.
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: File,
}

/// Where cargo and we put what is made.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(&dir)
            .with_context(|| format!("CARGO_TARGET_DIR is odd: {}", dir.display())),
        None => Ok(paths::root()?.join("target")),
    }
}

impl RunDir {
    /// Makes a directory that no other run has or had, and removes old ones.
    pub(crate) fn create(label: &str) -> Result<Self> {
        Self::create_in(&target()?.join("qemu-test"), label)
    }

    fn create_in(parent: &Path, label: &str) -> Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let runs = runs(parent)?;
        let mut number = runs.last().map_or(1, |(number, _)| number + 1);
        let path = loop {
            let path = parent.join(format!("{number:04}-{label}"));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()))
                }
            }
        };
        let Some(lock) = lock(&path.join(LOCK), true)? else {
            bail!("{} is locked, though it is new", path.display());
        };
        let old = runs.len().saturating_sub(KEPT - 1);
        for (index, (_, path)) in runs.iter().enumerate() {
            // Cleaning up is a courtesy; what does not succeed now does so later.
            let _ = prune(path, index < old);
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for image in DISKS {
            let _ = fs::remove_file(self.path.join(image));
        }
    }
}

/// The runs there are, by number.
fn runs(parent: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut runs = Vec::new();
    for entry in
        fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", parent.display()))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.split_once('-'))
            .and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            runs.push((number, entry.path()));
        }
    }
    runs.sort();
    Ok(runs)
}

/// Locks a file, or says that somebody else has.
fn lock(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = File::options()
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(Some(file));
    }
    let error = io::Error::last_os_error();
    if error.kind() == ErrorKind::WouldBlock {
        Ok(None)
    } else {
        Err(error)
    }
}

/// Removes a run that is over, or only the image that one which was killed left.
fn prune(path: &Path, whole: bool) -> io::Result<()> {
    let Some(_lock) = lock(&path.join(LOCK), false)? else {
        return Ok(());
    };
    if whole {
        fs::remove_dir_all(path)
    } else {
        for image in DISKS {
            match fs::remove_file(path.join(image)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_meet() {
        let parent = tempfile::tempdir().unwrap();
        let first = RunDir::create_in(parent.path(), "default").unwrap();
        let second = RunDir::create_in(parent.path(), "default").unwrap();
        assert_ne!(first.path(), second.path());
    }

    #[test]
    fn old_runs_go_and_running_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let running = RunDir::create_in(parent.path(), "running").unwrap();
        for _ in 0..KEPT + 5 {
            RunDir::create_in(parent.path(), "over").unwrap();
        }
        assert!(running.path().exists());
        let count = runs(parent.path()).unwrap().len();
        assert!(count <= KEPT + 1, "{count} are left");
    }

    #[test]
    fn an_image_goes_with_its_run_and_a_forgotten_one_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create_in(parent.path(), "a").unwrap();
        let image = run.join(DISK);
        fs::write(&image, "big").unwrap();
        drop(run);
        assert!(!image.exists());

        // As if killed: the lock is free, the image still there.
        fs::write(&image, "big").unwrap();
        let next = RunDir::create_in(parent.path(), "b").unwrap();
        assert!(!image.exists());

        fs::write(next.join(DISK), "big").unwrap();
        let _third = RunDir::create_in(parent.path(), "c").unwrap();
        assert!(next.join(DISK).exists(), "of a run that goes on");
    }
}
