// SPDX-License-Identifier: GPL-2.0-only
//! Bringing a tree to what the series makes of it, with as few writes as possible.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{apply, edited, Files, Series, Variant};
use crate::{
    cache::{self, Cache, Lock},
    progress::say,
    run,
};

/// What is known of the cache's tree. Kept beside it, not in it.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Manifest {
    /// Files that differ from the pristine tree, or may.
    written: BTreeSet<PathBuf>,
    /// The series that stands in the tree; empty while it is being changed.
    digest: String,
}

/// The content of a file, `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file of the tree if it differs, and returns whether it did. Never
/// through the old file: that may be a hard link of the pristine tree's.
pub(super) fn put(tree: &Path, path: &Path, content: &[u8]) -> Result<bool> {
    let place = tree.join(path);
    if read(&place)?.is_some_and(|found| found == content) {
        return Ok(false);
    }
    cache::write_whole(&place, content)?;
    Ok(true)
}

/// Removes a file from the tree, and the directories that it leaves empty.
pub(super) fn take(tree: &Path, path: &Path) -> Result<()> {
    let place = tree.join(path);
    match fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", place.display()));
        }
        _ => {}
    }
    for dir in path.ancestors().skip(1).filter(|dir| *dir != Path::new("")) {
        // Not empty, or gone: either way there is no more to do.
        if fs::remove_dir(tree.join(dir)).is_err() {
            break;
        }
    }
    Ok(())
}

/// See [`super::patched`].
pub(super) fn cached_tree(
    cache: &Cache,
    lock: &Lock,
    series: &Series,
    pristine: &Path,
    variant: Option<&Variant<'_>>,
) -> Result<PathBuf> {
    let name = pristine
        .file_name()
        .context("the pristine tree has a name")?
        .to_string_lossy();
    let name = match variant {
        None => name.into_owned(),
        Some(Variant { name: suffix, .. }) => format!("{name}-{suffix}"),
    };
    let tree = cache.dir("tree")?.join(&name);
    let manifest_path = tree.with_file_name(format!("{name}.json"));
    let digest = series.digest_of(variant)?;
    let mut manifest: Manifest = match (tree.exists(), read(&manifest_path)?) {
        (true, Some(text)) => serde_json::from_slice(&text).unwrap_or_default(),
        _ => Manifest::default(),
    };
    if manifest.digest == digest {
        return Ok(tree);
    }
    // Before anything is made of it: a series that does not apply changes nothing.
    let mut wanted = if variant.is_none_or(|variant| variant.series) {
        apply::apply(series, |path| read(&pristine.join(path)))?
    } else {
        Files::new()
    };
    if let Some(Variant { edits, .. }) = variant {
        let files = edited(edits, |path| match wanted.get(path) {
            Some(content) => Ok(Some(content.clone())),
            None => read(&pristine.join(path)),
        })?;
        wanted.extend(files);
    }
    if manifest.written.is_empty() && manifest.digest.is_empty() {
        link_tree(cache, lock, pristine, &tree)?;
    }

    let removed: Vec<_> = manifest
        .written
        .iter()
        .filter(|path| !wanted.contains_key(*path))
        .cloned()
        .collect();
    manifest.written.extend(wanted.keys().cloned());
    manifest.digest.clear();
    save(&manifest_path, &manifest)?;

    let count = write(&tree, pristine, &wanted, &removed)?;
    manifest.written = wanted.into_keys().collect();
    manifest.digest = digest;
    save(&manifest_path, &manifest)?;
    if variant.is_none_or(|variant| variant.series) {
        say(
            "Patched",
            format!(
                "{} ({} patches, {count} files written)",
                tree.display(),
                series.patches.len()
            ),
        );
    } else {
        say(
            "Restored",
            format!("{} ({count} files written)", tree.display()),
        );
    }
    Ok(tree)
}

/// Writes what differs and puts back what the series no longer has.
fn write(tree: &Path, pristine: &Path, wanted: &Files, removed: &[PathBuf]) -> Result<usize> {
    let mut count = 0;
    for (path, content) in wanted {
        count += usize::from(put(tree, path, content)?);
    }
    for path in removed {
        match read(&pristine.join(path))? {
            // Not a hard link: make must see that the file is newer than what was
            // built from it.
            Some(content) => count += usize::from(put(tree, path, &content)?),
            None => take(tree, path)?,
        }
    }
    Ok(count)
}

fn save(path: &Path, manifest: &Manifest) -> Result<()> {
    let text = serde_json::to_vec_pretty(manifest).context("cannot write a manifest")?;
    cache::write_whole(path, &text)
}

/// A copy of the tree that shares the content of its files.
fn link_tree(cache: &Cache, lock: &Lock, from: &Path, to: &Path) -> Result<()> {
    let scratch = cache.scratch(lock)?;
    let new = scratch.path().join("tree");
    run::output(Command::new("cp").arg("-al").arg(from).arg(&new))
        .with_context(|| format!("cannot link {} to {}", from.display(), to.display()))?;
    cache::remove_dir(to)?;
    fs::rename(&new, to).with_context(|| format!("cannot create {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt as _, time::UNIX_EPOCH};

    use super::{
        super::{
            testing::{write, World, C},
            Edit,
        },
        *,
    };

    fn sync(world: &World) -> Result<PathBuf> {
        let lock = world.cache.lock().unwrap();
        cached_tree(&world.cache, &lock, &world.series(), &world.tree, None)
    }

    /// Makes every file old, so that a write shows.
    fn age(tree: &Path) {
        for path in [
            "io_uring/a.c",
            "io_uring/other.c",
            "io_uring/group/state.rs",
        ] {
            File::options()
                .write(true)
                .open(tree.join(path))
                .unwrap()
                .set_modified(UNIX_EPOCH)
                .unwrap();
        }
    }

    fn is_old(path: &Path) -> bool {
        fs::metadata(path).unwrap().modified().unwrap() == UNIX_EPOCH
    }

    #[test]
    fn the_tree_shares_what_the_series_leaves_alone() {
        let world = World::new();
        let tree = sync(&world).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(
            inode(&tree.join("io_uring/other.c")),
            inode(&world.tree.join("io_uring/other.c"))
        );
        assert!(fs::read_to_string(tree.join("io_uring/a.c"))
            .unwrap()
            .contains("NINE"));
        assert_eq!(world.read("io_uring/a.c"), C);
        assert!(!world.tree.join("io_uring/group").exists());
    }

    #[test]
    fn only_what_changed_is_written() {
        let world = World::new();
        let tree = sync(&world).unwrap();
        age(&tree);
        write(&world.kernel.join("io_uring/group/state.rs"), "changed\n");
        sync(&world).unwrap();
        assert!(is_old(&tree.join("io_uring/a.c")));
        assert!(!is_old(&tree.join("io_uring/group/state.rs")));
        age(&tree);
        sync(&world).unwrap();
        assert!(is_old(&tree.join("io_uring/group/state.rs")));
    }

    #[test]
    fn what_the_series_drops_is_put_back() {
        let world = World::new();
        let tree = sync(&world).unwrap();
        age(&tree);
        let patches = world.kernel.join("patches");
        fs::remove_file(patches.join("0001-io_uring-first.patch")).unwrap();
        fs::remove_file(patches.join("0002-io_uring-second.patch")).unwrap();
        sync(&world).unwrap();
        assert_eq!(fs::read_to_string(tree.join("io_uring/a.c")).unwrap(), C);
        assert!(!is_old(&tree.join("io_uring/a.c")), "make would not see it");
        assert!(!tree.join("io_uring/group").exists());
        assert!(tree.join("io_uring/Kconfig").exists());
    }

    #[test]
    fn a_run_that_was_cut_off_is_made_good() {
        let world = World::new();
        let tree = sync(&world).unwrap();
        let manifest = tree.with_file_name("tree.json");
        // As if it had ended between the first file and the last manifest.
        let text = fs::read_to_string(&manifest).unwrap();
        let mut cut: Manifest = serde_json::from_str(&text).unwrap();
        cut.digest.clear();
        save(&manifest, &cut).unwrap();
        cache::write_whole(&tree.join("io_uring/a.c"), b"half").unwrap();
        sync(&world).unwrap();
        assert!(fs::read_to_string(tree.join("io_uring/a.c"))
            .unwrap()
            .contains("NINE"));
    }

    #[test]
    fn a_variant_has_a_tree_of_its_own_and_leaves_nothing_in_it() {
        let world = World::new();
        let edit = |file: &str, find: &str| Edit {
            file: file.into(),
            find: find.to_owned(),
            replace: "wrong".to_owned(),
        };
        let sync_variant = |edits: &[Edit]| {
            let lock = world.cache.lock().unwrap();
            let variant = Variant {
                name: "v",
                series: true,
                patches: None,
                edits,
            };
            cached_tree(
                &world.cache,
                &lock,
                &world.series(),
                &world.tree,
                Some(&variant),
            )
        };
        let plain = sync(&world).unwrap();
        let read = |path: &str| fs::read_to_string(plain.with_file_name("tree-v").join(path));
        let tree = sync_variant(&[
            edit("io_uring/a.c", "NINE"),
            edit("io_uring/other.c", "other"),
        ]);
        assert_eq!(tree.unwrap(), plain.with_file_name("tree-v"));
        assert!(read("io_uring/a.c").unwrap().contains("wrong\nten"));
        assert_eq!(read("io_uring/other.c").unwrap(), "wrong\n");
        // Neither in the other trees, nor after the next variant.
        assert_eq!(world.read("io_uring/other.c"), "other\n");
        assert_eq!(sync(&world).unwrap(), plain);
        assert!(!fs::read_to_string(plain.join("io_uring/a.c"))
            .unwrap()
            .contains("wrong"));
        sync_variant(&[edit("io_uring/group/state.rs", "state")]).unwrap();
        assert!(read("io_uring/a.c").unwrap().contains("NINE\nten"));
        assert_eq!(read("io_uring/other.c").unwrap(), "other\n");
        assert_eq!(read("io_uring/group/state.rs").unwrap(), "wrong\n");
        // One that does not fit changes nothing.
        sync_variant(&[edit("io_uring/a.c", "eleven")]).unwrap_err();
        assert_eq!(read("io_uring/group/state.rs").unwrap(), "wrong\n");
    }

    /// One path for both: what make built from the one is of use for the other.
    #[test]
    fn a_variant_can_be_what_came_before_the_series() {
        let world = World::new();
        let sync_variant = |series| {
            let lock = world.cache.lock().unwrap();
            let variant = Variant {
                name: "v",
                series,
                patches: None,
                edits: &[],
            };
            cached_tree(
                &world.cache,
                &lock,
                &world.series(),
                &world.tree,
                Some(&variant),
            )
            .unwrap()
        };
        for series in [true, false, false, true, false] {
            let tree = sync_variant(series);
            let text = fs::read_to_string(tree.join("io_uring/a.c")).unwrap();
            assert_eq!(text.contains("NINE"), series);
            assert_eq!(tree.join("io_uring/group").exists(), series);
            assert_eq!(text == C, !series);
        }
        assert_eq!(world.read("io_uring/a.c"), C);
    }

    #[test]
    fn a_series_that_does_not_apply_leaves_the_tree_as_it_was() {
        let world = World::new();
        let tree = sync(&world).unwrap();
        let before = fs::read(tree.join("io_uring/a.c")).unwrap();
        let path = world.kernel.join("patches/0002-io_uring-second.patch");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace(" eight", " acht");
        write(&path, &text);
        sync(&world).unwrap_err();
        assert_eq!(fs::read(tree.join("io_uring/a.c")).unwrap(), before);
    }
}
