// SPDX-License-Identifier: GPL-2.0-only
//! `kernel/base.toml`: which tree the series is made for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _, Result};
use serde::Deserialize;

use crate::cache;

/// The line that begins the part of base.toml which a program writes.
const TABLE: &str = "[files]";

/// What `kernel/base.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    /// The version, as the tree's own Makefile has it.
    pub(crate) version: String,
    /// Files and directories in the archive, for a bar that knows its end.
    pub(crate) entries: u64,
    /// Addresses of the archive, tried in this order.
    pub(crate) sources: Vec<String>,
    /// Debian's package of the same source.
    pub(crate) debian: Debian,
    /// SHA-256 of every file that the series changes, as it is in this version.
    #[serde(default)]
    pub(crate) files: BTreeMap<PathBuf, String>,
}

/// A source package of Debian's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Debian {
    /// The binary package that carries the source.
    pub(crate) package: String,
    /// The suite it is in.
    pub(crate) suite: String,
}

impl Base {
    /// Reads `kernel/base.toml`.
    pub(crate) fn load(kernel: &Path) -> Result<Self> {
        let path = kernel.join("base.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not well-formed", path.display()))
    }

    /// Whether `tree` is this version, judged by its Makefile and by the files
    /// that the series changes.
    ///
    /// # Errors
    ///
    /// Names what differs.
    pub(crate) fn verify(&self, tree: &Path) -> Result<()> {
        let found = version(tree)?;
        if found != self.version {
            bail!("{} is Linux {found}, not {}", tree.display(), self.version);
        }
        for (path, expected) in &self.files {
            let content = fs::read(tree.join(path))
                .with_context(|| format!("{} has no {}", tree.display(), path.display()))?;
            if cache::sha256(&content) != *expected {
                bail!(
                    "{} in {} is not the one of Linux {}",
                    path.display(),
                    tree.display(),
                    self.version
                );
            }
        }
        Ok(())
    }
}

/// The version of a kernel tree, from its Makefile.
pub(crate) fn version(tree: &Path) -> Result<String> {
    let path = tree.join("Makefile");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "{} is not a kernel tree: cannot read its Makefile",
            tree.display()
        )
    })?;
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    match (value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL")) {
        (Some(version), Some(level), Some("0" | "")) => Ok(format!(
            "{version}.{level}{}",
            value("EXTRAVERSION").unwrap_or_default()
        )),
        (Some(version), Some(level), Some(sublevel)) => Ok(format!(
            "{version}.{level}.{sublevel}{}",
            value("EXTRAVERSION").unwrap_or_default()
        )),
        _ => bail!(
            "{} is not a kernel tree: its Makefile names no version",
            tree.display()
        ),
    }
}

/// Writes the table of hashes anew for the files in `paths`, from `tree`. What
/// stands before the table stays as it is.
///
/// # Returns
///
/// Whether the file changed.
pub(crate) fn rehash(kernel: &Path, tree: &Path, paths: &BTreeSet<PathBuf>) -> Result<bool> {
    let path = kernel.join("base.toml");
    let old =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let head: Vec<_> = old
        .lines()
        .take_while(|line| line.trim() != TABLE)
        .collect();
    let mut new = head.join("\n");
    new.push_str(&format!("\n{TABLE}\n"));
    for file in paths {
        let content = fs::read(tree.join(file))
            .with_context(|| format!("{} has no {}", tree.display(), file.display()))?;
        new.push_str(&format!(
            "\"{}\" = \"{}\"\n",
            file.display(),
            cache::sha256(&content)
        ));
    }
    if new == old {
        return Ok(false);
    }
    cache::write_whole(&path, new.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# why\nversion = \"7.3.4\"\nentries = 3\nsources = []\n\n\
                        [debian]\npackage = \"p\"\nsuite = \"s\"\n\n";

    fn tree(sublevel: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let makefile = format!(
            "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = {sublevel}\nEXTRAVERSION =\nNAME = x\n"
        );
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        fs::write(dir.path().join("a.c"), "a\n").unwrap();
        dir
    }

    #[test]
    fn the_version_is_read_as_make_would() {
        assert_eq!(version(tree("4").path()).unwrap(), "7.3.4");
        assert_eq!(version(tree("0").path()).unwrap(), "7.3");
        let error = version(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("not a kernel tree"));
    }

    #[test]
    fn rehash_keeps_the_head_and_verify_finds_a_difference() {
        let kernel = tempfile::tempdir().unwrap();
        fs::write(
            kernel.path().join("base.toml"),
            format!("{HEAD}[files]\n\"old\" = \"1\"\n"),
        )
        .unwrap();
        let tree = tree("4");
        let paths = BTreeSet::from([PathBuf::from("a.c")]);
        assert!(rehash(kernel.path(), tree.path(), &paths).unwrap());
        assert!(!rehash(kernel.path(), tree.path(), &paths).unwrap());
        let text = fs::read_to_string(kernel.path().join("base.toml")).unwrap();
        assert!(text.starts_with(HEAD) && !text.contains("old"), "{text}");

        let base = Base::load(kernel.path()).unwrap();
        base.verify(tree.path()).unwrap();
        fs::write(tree.path().join("a.c"), "b\n").unwrap();
        let error = base.verify(tree.path()).unwrap_err().to_string();
        assert!(error.contains("a.c") && error.contains("7.3.4"), "{error}");
    }

    #[test]
    fn verify_refuses_another_version() {
        let kernel = tempfile::tempdir().unwrap();
        fs::write(kernel.path().join("base.toml"), HEAD).unwrap();
        let base = Base::load(kernel.path()).unwrap();
        let error = base.verify(tree("5").path()).unwrap_err().to_string();
        assert!(error.contains("7.3.5, not 7.3.4"), "{error}");
    }
}
