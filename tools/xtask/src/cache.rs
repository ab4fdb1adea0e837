// SPDX-License-Identifier: GPL-2.0-only
//! The cache: everything that is fetched or built, outside the checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The directory of everything that is fetched or built.
///
/// | below it | holds |
/// | --- | --- |
/// | `download/` | archives as they came, each whole or absent |
/// | `src/linux-VERSION/` | the kernel as it came, never written to |
/// | `tree/linux-VERSION/` | the same with the series applied; hard links where nothing differs |
/// | `build/PROFILE/` | `O=` of the kernel's make |
/// | `rust-src/` | the standard library's source, where the toolchain has none |
/// | `tools/` | programs built for this project alone |
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
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
        let root = std::path::absolute(&root)
            .with_context(|| format!("cannot make {} absolute", root.display()))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}
