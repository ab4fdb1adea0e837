// SPDX-License-Identifier: GPL-2.0-only
//! Makes the disk of a guest: a sparse file with an ext4 file system.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io, mem,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{bail, ensure, Context as _, Result};

const PROGRAM: &str = "mke2fs";

/// Makes an image of this size, with a copy of the files in `contents`.
pub(crate) fn make(image: &Path, bytes: u64, contents: Option<&Path>) -> Result<()> {
    let parent = image.parent().unwrap_or(Path::new("."));
    let free = free_space(parent)?;
    ensure!(
        free >= bytes,
        "{} has {} MiB free, and the guest's disk may grow to {} MiB; make room, or let CARGO_TARGET_DIR name a directory elsewhere",
        parent.display(),
        free >> 20,
        bytes >> 20
    );
    // Not on the PATH of everybody who may run it.
    let path = env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    let mut command = Command::new(PROGRAM);
    command
        .env("PATH", &path)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0"])
        // As on any disk of this century; for a small one it would take 1024.
        .args(["-b", "4096"]);
    if let Some(contents) = contents {
        command.arg("-d").arg(contents);
    }
    command
        .arg(image)
        .arg(format!("{}k", bytes.div_ceil(1024)))
        .stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "{PROGRAM} is not installed; get it with `apt-get install e2fsprogs`, or see `cargo xtask doctor`"
        ),
        output => output.with_context(|| format!("cannot run {PROGRAM}"))?,
    };
    if !output.status.success() {
        // What is left of it is of no use.
        let _ = fs::remove_file(image);
        bail!(
            "{PROGRAM} cannot make {} ({}):\n{}",
            image.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

/// Makes an image of this size with nothing on it.
pub(crate) fn empty(image: &Path, bytes: u64) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("cannot make {}", image.display()))
}

fn free_space(dir: &Path) -> Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())
        .with_context(|| format!("odd path {}", dir.display()))?;
    // SAFETY: all zeroes is a valid statvfs.
    let mut stat: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: a C string and a live struct.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot tell how much is free in {}", dir.display()));
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_said_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let error = make(&image, 1 << 60, None).unwrap_err();
        assert!(error.to_string().contains("MiB free"), "{error:#}");
        assert!(!image.exists());
    }
}
