// SPDX-License-Identifier: GPL-2.0-only
//! Where things are in the checkout.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};

/// The root of the checkout.
///
/// Taken from the environment that cargo gives to `cargo run`, not from the time
/// of compilation: a checkout may be moved, and its `target` with it.
///
/// # Errors
///
/// Fails if the program was started without cargo.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
    let manifest = PathBuf::from(manifest);
    manifest
        .ancestors()
        .nth(2)
        .map(PathBuf::from)
        .with_context(|| format!("{} is not tools/xtask of a checkout", manifest.display()))
}

/// `kernel/`: what goes into the tree.
pub(crate) fn kernel() -> Result<PathBuf> {
    Ok(root()?.join("kernel"))
}

/// `ci/config/`: the fragments of the kernel's configuration.
pub(crate) fn fragments() -> Result<PathBuf> {
    Ok(root()?.join("ci/config"))
}
