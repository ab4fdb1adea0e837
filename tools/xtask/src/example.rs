// SPDX-License-Identifier: GPL-2.0-only
//! The example for users of liburing, `tools/liburing/group-cp.c`, built for the guest with
//! the liburing that is here: that of `cargo xtask liburing`, or else the system's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    liburing::{self, Library},
    paths,
    progress::say,
    run, run_dir,
};

/// Where it is in the guest.
pub(crate) const PATH: &str = "/bin/group-cp";

/// Builds it, or says why it is left out; the test that runs it is skipped then.
///
/// # Errors
///
/// If it cannot be built with the liburing of this project's cache.
pub(crate) fn build() -> Result<Option<PathBuf>> {
    let out = run_dir::target()?.join("example");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let file = out.join("group-cp");
    if let Some(library) = liburing::library()? {
        compile(&file, Some(&library))?;
        return Ok(Some(file));
    }
    let left_out = |why: &str| {
        say(
            "Note",
            format!("the example for users of liburing is left out: {why}"),
        );
        Ok(None)
    };
    if !Path::new("/usr/include/liburing.h").exists() {
        return left_out("liburing is not here; `cargo xtask liburing` gets it");
    }
    match compile(&file, None) {
        Ok(()) => Ok(Some(file)),
        // Not every system has the static library, or one that is young enough.
        Err(error) => left_out(&format!(
            "the system's liburing does not do ({}); `cargo xtask liburing` gets one",
            run::last_word(&error)
        )),
    }
}

fn compile(file: &Path, library: Option<&Library>) -> Result<()> {
    let source = paths::root()?.join("tools/liburing/group-cp.c");
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"])
        .arg(file);
    for include in library.iter().flat_map(|library| &library.includes) {
        // Its own warnings are its own business.
        command.arg("-isystem").arg(include);
    }
    command.arg(source);
    match library {
        Some(library) => command.arg(&library.archive),
        None => command.arg("-luring"),
    };
    run::output(&mut command).map(drop)
}
