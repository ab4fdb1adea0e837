// SPDX-License-Identifier: GPL-2.0-only
//! The series in a tree of the user's.
//!
//! The tree is changed in place, by what the series adds and by nothing else. What
//! was there before is kept in the cache, with what was written, so that
//!
//! - a changed series starts again from the user's own files,
//! - edits of the user's, in files that the series also changes, are merged,
//! - the series can be taken out again (`cargo xtask series remove`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{apply, base, sync, Files, Series};
use crate::{
    cache::{self, Cache, Lock},
    progress::say,
    run,
};

/// What is known of one file of the user's that the series wrote.
#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    /// Whether the file was there before the series. If so, `before/` has it.
    existed: bool,
    /// Digests of what this program wrote there: the last one, or two while files
    /// are being written, of which either may be the one that stands.
    ours: Vec<String>,
}

/// What is known of one tree of the user's.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Manifest {
    files: BTreeMap<PathBuf, Entry>,
}

/// The records of one tree.
struct Records {
    dir: PathBuf,
    manifest: Manifest,
}

impl Records {
    fn open(cache: &Cache, tree: &Path) -> Result<Self> {
        let dir = cache.dir(Path::new("kdir").join(key(tree)))?;
        let path = dir.join("manifest.json");
        let manifest = match sync::read(&path)? {
            Some(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is damaged: restore your tree and remove it",
                    path.display()
                )
            })?,
            None => Manifest::default(),
        };
        Ok(Self { dir, manifest })
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.manifest).context("cannot write a manifest")?;
        cache::write_whole(&self.dir.join("manifest.json"), &text)
    }

    /// The user's file before the series.
    fn before(&self, path: &Path) -> PathBuf {
        self.dir.join("before").join(path)
    }

    /// What the series made of it.
    fn after(&self, path: &Path) -> PathBuf {
        self.dir.join("after").join(path)
    }

    /// The user's own state of a file: what the tree would have without the series.
    fn original(&self, tree: &Path, path: &Path) -> Result<Option<Vec<u8>>> {
        let found = sync::read(&tree.join(path))?;
        let Some(entry) = self.manifest.files.get(path) else {
            return Ok(found);
        };
        let Some(found) = found else {
            // The user took the file away, or reset the tree.
            return if entry.existed {
                sync::read(&self.before(path))
            } else {
                Ok(None)
            };
        };
        let before = if entry.existed {
            sync::read(&self.before(path))?
        } else {
            None
        };
        if before.as_ref() == Some(&found) || entry.ours.contains(&cache::sha256(&found)) {
            return Ok(before);
        }
        match before {
            // Edited since: take what the series did out of it, and keep the rest.
            Some(before) => {
                let after = sync::read(&self.after(path))?.unwrap_or_default();
                match merge(&found, &after, &before, &[])? {
                    Some(content) => Ok(Some(content)),
                    None => bail!(edited(tree, path)),
                }
            }
            // The edit of a new file is dealt with when the new content is known.
            None => Ok(None),
        }
    }

    /// What to write to a file that the series brings, for the user may have edited it.
    fn new_file(&self, tree: &Path, path: &Path, wanted: &[u8]) -> Result<Vec<u8>> {
        let found = sync::read(&tree.join(path))?;
        match (self.manifest.files.get(path), found) {
            (Some(entry), Some(found)) if !entry.ours.contains(&cache::sha256(&found)) => {
                let after = sync::read(&self.after(path))?.unwrap_or_default();
                match merge(&found, &after, wanted, &[])? {
                    Some(content) => Ok(content),
                    None => bail!(edited(tree, path)),
                }
            }
            _ => Ok(wanted.to_owned()),
        }
    }
}

fn edited(tree: &Path, path: &Path) -> String {
    format!(
        "{} was edited where the series changes it: move your edit elsewhere, or undo it, and run \
         the same command again",
        tree.join(path).display()
    )
}

/// Refuses a tree that was built in: the kernel's make would refuse it with `O=`,
/// and cleaning it is not for us to do.
fn unbuilt(tree: &Path) -> Result<()> {
    let remains = [".config", "include/config", "arch/x86/include/generated"];
    if let Some(found) = remains.iter().find(|path| tree.join(path).exists()) {
        bail!(
            "KDIR: {} was built in ({found} is there), and builds here go elsewhere: `make -C {} \
             mrproper` cleans it, but takes its .config too",
            tree.display(),
            tree.display()
        );
    }
    Ok(())
}

/// A name for the records of a tree.
pub(super) fn key(tree: &Path) -> String {
    cache::sha256(tree.as_os_str().as_encoded_bytes())[..16].to_owned()
}

/// The tree as given by the user, by one name however it was given.
pub(super) fn canonical(dir: &Path) -> Result<PathBuf> {
    let dir =
        fs::canonicalize(dir).with_context(|| format!("KDIR: cannot find {}", dir.display()))?;
    base::version(&dir).context("KDIR")?;
    Ok(dir)
}

/// See [`super::patch_kdir`].
pub(super) fn apply(
    cache: &Cache,
    _lock: &Lock,
    series: &Series,
    dir: &Path,
    made_for: &str,
) -> Result<usize> {
    let tree = canonical(dir)?;
    if !series.patches.is_empty() {
        unbuilt(&tree)?;
    }
    let mut records = Records::open(cache, &tree)?;

    // All that can go wrong with the tree does so before it is touched.
    let applied = apply::apply(series, |path| {
        // A new file of ours from an earlier run is not a file that the tree has.
        if !series.touched()?.contains(path) && !records.manifest.files.contains_key(path) {
            let found = sync::read(&tree.join(path))?;
            let same = found
                .as_ref()
                .is_some_and(|found| series.content(path).is_ok_and(|content| content == *found));
            return Ok(found.filter(|_| !same));
        }
        records.original(&tree, path)
    })
    .with_context(|| {
        let version = base::version(&tree).unwrap_or_default();
        format!(
            "{} is Linux {version}, the series is made for {made_for}",
            tree.display()
        )
    })?;
    let added = series.added();
    let mut wanted = Files::new();
    for (path, content) in &applied {
        let content = if added.contains(path) {
            records.new_file(&tree, path, content)?
        } else {
            content.clone()
        };
        wanted.insert(path.clone(), content);
    }
    let mut dropped = Files::new();
    let mut gone = Vec::new();
    for path in records
        .manifest
        .files
        .keys()
        .filter(|path| !wanted.contains_key(*path))
    {
        match records.original(&tree, path)? {
            Some(content) => drop(dropped.insert(path.clone(), content)),
            None => gone.push(path.clone()),
        }
    }

    // The records come first, and allow for the old state and the new one.
    for (path, content) in &applied {
        let existed = !added.contains(path);
        if existed {
            let original = records
                .original(&tree, path)?
                .context("a file that applied is there")?;
            sync::put(&records.dir.join("before"), path, &original)?;
        }
        let digest = cache::sha256(content);
        let entry = records
            .manifest
            .files
            .entry(path.clone())
            .or_insert_with(|| Entry {
                existed,
                ours: Vec::new(),
            });
        if !entry.ours.contains(&digest) {
            entry.ours.push(digest);
        }
    }
    records.save()?;

    let mut count = 0;
    for (path, content) in wanted.iter().chain(&dropped) {
        count += usize::from(sync::put(&tree, path, content)?);
    }
    for path in &gone {
        sync::take(&tree, path)?;
    }
    for (path, content) in &applied {
        sync::put(&records.dir.join("after"), path, content)?;
    }
    records
        .manifest
        .files
        .retain(|path, _| applied.contains_key(path));
    for (path, entry) in &mut records.manifest.files {
        entry.ours = vec![cache::sha256(&applied[path])];
    }
    records.save()?;
    if count > 0 {
        say(
            "Patched",
            format!(
                "{} ({} patches, {count} files written)",
                tree.display(),
                series.patches.len()
            ),
        );
    }
    Ok(count)
}

/// Takes the series out of a tree.
pub(super) fn remove(cache: &Cache, lock: &Lock, dir: &Path) -> Result<()> {
    let nothing = Series {
        kernel: PathBuf::new(),
        patches: Vec::new(),
        later: Vec::new(),
    };
    let count = apply(cache, lock, &nothing, dir, "")?;
    say(
        "Removed",
        format!("the series from {} ({count} files put back)", dir.display()),
    );
    Ok(())
}

/// Three-way merge of what became of `base`: `None` if both sides changed the same lines.
pub(super) fn merge(
    one: &[u8],
    base: &[u8],
    other: &[u8],
    options: &[&str],
) -> Result<Option<Vec<u8>>> {
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    for (name, content) in [("one", one), ("base", base), ("other", other)] {
        cache::write_whole(&dir.path().join(name), content)?;
    }
    let mut git: Command = apply::isolated_git(dir.path());
    let output = git
        .args(["merge-file", "--stdout"])
        .args(options)
        .args(["one", "base", "other"])
        .output()
        .context("cannot start `git merge-file`")?;
    // Its status counts the conflicts.
    match output.status.code() {
        Some(0) => Ok(Some(output.stdout)),
        Some(1..=127) => Ok(None),
        _ => run::output(git.args(["merge-file", "one", "base", "other"])).map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write, World, C},
        *,
    };

    fn go(world: &World) -> Result<usize> {
        let lock = world.cache.lock().unwrap();
        super::apply(&world.cache, &lock, &world.series(), &world.tree, "7.3.4")
    }

    fn patched() -> String {
        C.replace("five\n", "five\nfive and a half\n")
            .replace("nine", "NINE")
    }

    #[test]
    fn only_what_the_series_adds_is_changed_and_once() {
        let world = World::new();
        assert_eq!(go(&world).unwrap(), 3);
        assert_eq!(world.read("io_uring/a.c"), patched());
        assert_eq!(world.read("io_uring/other.c"), "other\n");
        assert_eq!(world.read("io_uring/group/Kconfig"), "config GROUP\n");
        assert_eq!(go(&world).unwrap(), 0);
    }

    #[test]
    fn a_changed_series_starts_from_the_users_files() {
        let world = World::new();
        go(&world).unwrap();
        let path = world.kernel.join("patches/0002-io_uring-second.patch");
        write(
            &path,
            &fs::read_to_string(&path).unwrap().replace("NINE", "neun"),
        );
        assert_eq!(go(&world).unwrap(), 1);
        assert_eq!(
            world.read("io_uring/a.c"),
            patched().replace("NINE", "neun")
        );
    }

    #[test]
    fn edits_elsewhere_survive_and_the_series_comes_out_again() {
        let world = World::new();
        go(&world).unwrap();
        write(
            &world.tree.join("io_uring/a.c"),
            &patched().replace("two", "zwei"),
        );
        write(&world.tree.join("io_uring/group/state.rs"), "state\nmine\n");
        assert_eq!(go(&world).unwrap(), 0);
        assert_eq!(world.read("io_uring/a.c"), patched().replace("two", "zwei"));
        assert_eq!(world.read("io_uring/group/state.rs"), "state\nmine\n");

        let lock = world.cache.lock().unwrap();
        remove(&world.cache, &lock, &world.tree).unwrap();
        assert_eq!(world.read("io_uring/a.c"), C.replace("two", "zwei"));
        assert!(!world.tree.join("io_uring/group").exists());
    }

    #[test]
    fn an_edit_in_the_same_place_is_named() {
        let world = World::new();
        go(&world).unwrap();
        let mine = patched().replace("NINE", "mine");
        write(&world.tree.join("io_uring/a.c"), &mine);
        let error = format!("{:#}", go(&world).unwrap_err());
        assert!(error.contains("io_uring/a.c was edited where"), "{error}");
        assert_eq!(world.read("io_uring/a.c"), mine);
    }

    #[test]
    fn a_tree_that_was_reset_gets_the_series_again() {
        let world = World::new();
        go(&world).unwrap();
        write(&world.tree.join("io_uring/a.c"), C);
        fs::remove_dir_all(world.tree.join("io_uring/group")).unwrap();
        assert_eq!(go(&world).unwrap(), 3);
        assert_eq!(world.read("io_uring/a.c"), patched());
    }

    #[test]
    fn a_run_that_was_cut_off_is_made_good() {
        let world = World::new();
        go(&world).unwrap();
        let old = world.read("io_uring/a.c");
        let path = world.kernel.join("patches/0002-io_uring-second.patch");
        write(
            &path,
            &fs::read_to_string(&path).unwrap().replace("NINE", "neun"),
        );
        go(&world).unwrap();
        // As if it had ended after the records and before the file.
        let mut records = Records::open(&world.cache, &canonical(&world.tree).unwrap()).unwrap();
        let entry = records
            .manifest
            .files
            .get_mut(Path::new("io_uring/a.c"))
            .unwrap();
        entry.ours.insert(0, cache::sha256(old.as_bytes()));
        records.save().unwrap();
        write(&world.tree.join("io_uring/a.c"), &old);
        assert_eq!(go(&world).unwrap(), 1);
        assert_eq!(
            world.read("io_uring/a.c"),
            patched().replace("NINE", "neun")
        );
    }

    #[test]
    fn another_version_names_version_file_and_hunk_and_stays_as_it_was() {
        let world = World::new();
        write(
            &world.tree.join("Makefile"),
            "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n",
        );
        let other = C.replace("four", "vier");
        write(&world.tree.join("io_uring/a.c"), &other);
        let error = format!("{:#}", go(&world).unwrap_err());
        for part in [
            "6.12.1",
            "7.3.4",
            "0001-io_uring-first.patch",
            "io_uring/a.c at line 3",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(world.read("io_uring/a.c"), other);
        assert!(!world.tree.join("io_uring/group").exists());
    }

    #[test]
    fn a_tree_that_was_built_in_is_refused() {
        let world = World::new();
        write(&world.tree.join(".config"), "");
        let error = go(&world).unwrap_err().to_string();
        assert!(error.contains("mrproper"), "{error}");
        assert_eq!(world.read("io_uring/a.c"), C);
    }

    #[test]
    fn a_file_of_the_users_is_not_overwritten() {
        let world = World::new();
        write(&world.tree.join("io_uring/group/state.rs"), "theirs\n");
        let error = format!("{:#}", go(&world).unwrap_err());
        assert!(error.contains("already has"), "{error}");
        assert_eq!(world.read("io_uring/group/state.rs"), "theirs\n");
        assert_eq!(world.read("io_uring/a.c"), C);
    }
}
