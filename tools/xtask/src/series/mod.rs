// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask series`: the changes to the kernel, as files and patches.
//!
//! New files stand in `kernel/` under the paths that they have in the kernel tree,
//! to be read, edited and tested as files. What changes in files that the kernel
//! has stands in `kernel/patches/`, one file a commit, in the format of [`patch`].

mod apply;
mod base;
mod check;
mod compare;
mod edit;
mod export;
mod git;
mod kdir;
mod patch;
mod steps;
mod style;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{bail, ensure, Context as _, Result};

use self::patch::Patch;
pub(crate) use self::{
    base::Base,
    edit::{edited, Edit, Patched, Variant},
};
use crate::{
    cache::{self, Cache, Lock, Parts},
    fetch, paths,
    progress::say,
};

/// Arguments of `cargo xtask series`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check that files and patches make up a series that applies.
    Check(check::Args),
    /// Build io_uring with the series and without, and tell new warnings and changes in code that should not be.
    Compare(compare::Args),
    /// Write the series to DIR as mails with a cover letter, and say how to send them.
    Export(export::Args),
    /// Lay out a kernel tree in DIR, with git and one commit a patch. It builds, and can be edited.
    Tree {
        /// Must not be there yet.
        dir: PathBuf,
    },
    /// Take the commits of DIR back into kernel/.
    Import {
        /// What `series tree` made, or any clone of the kernel's git.
        dir: PathBuf,
        /// The commit before the first of the series.
        #[arg(long, default_value = git::BASE_TAG)]
        base: String,
    },
    /// Write the patches anew, with the line numbers at which they apply, and base.toml's hashes.
    Refresh,
    /// Write the hashes in base.toml anew from the kernel source in the cache.
    RebaseHashes,
    /// Take the series out of a tree that was used as KDIR.
    Remove {
        /// The tree.
        dir: PathBuf,
    },
}

/// Runs `cargo xtask series`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { command } = args;
    match command {
        Command::Check(args) => return check::run(&args),
        Command::Compare(args) => return compare::run(args),
        Command::Export(args) => export::run(&args)?,
        Command::Tree { dir } => git::tree(&dir)?,
        Command::Import { dir, base } => git::import(&dir, &base)?,
        Command::Refresh => git::refresh()?,
        Command::RebaseHashes => {
            rebase_hashes(&Series::load()?, &fetched()?)?;
        }
        Command::Remove { dir } => {
            let cache = Cache::open()?;
            let lock = cache.lock()?;
            kdir::remove(&cache, &lock, &dir)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The kernel as it came, fetched if need be. Only for that the cache is locked: who
/// edits the series need not wait for a build.
pub(crate) fn fetched() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let base = Base::load(&paths::kernel()?)?;
    if let Some(pristine) = fetch::cached_source(&cache, &base) {
        return Ok(pristine);
    }
    fetch::source(&cache, &cache.lock()?, &base, None).map_err(cache::explain)
}

fn rebase_hashes(series: &Series, pristine: &Path) -> Result<()> {
    if base::rehash(&series.kernel, pristine, &series.touched()?)? {
        say("Updated", "kernel/base.toml");
    }
    Ok(())
}

/// Content of files by their path in the kernel tree.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What patches, by their index, make of files.
type Versions = BTreeMap<(usize, PathBuf), Vec<u8>>;

/// The series of this checkout.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// `kernel/` of the checkout.
    kernel: PathBuf,
    /// In the order in which they apply.
    patches: Vec<Patch>,
    /// Those behind, where this is the beginning of a series: the files in `kernel/`
    /// have their hunks as well.
    later: Vec<Patch>,
}

/// What stands in `kernel/` and is not for the kernel tree.
const OWN: [&str; 5] = ["Cargo.toml", "base.toml", "patches", "tests", "README.md"];

impl Series {
    /// Reads the series of this checkout.
    pub(crate) fn load() -> Result<Self> {
        Self::load_from(&paths::kernel()?)
    }

    /// Reads the series in a given `kernel/`.
    fn load_from(kernel: &Path) -> Result<Self> {
        let dir = kernel.join("patches");
        let mut names = Vec::new();
        if dir.is_dir() {
            for entry in
                fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?
            {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.ends_with(".patch") {
                    names.push(name);
                }
            }
        }
        names.sort();
        let mut patches = Vec::new();
        for name in names {
            let path = dir.join(&name);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            patches.push(Patch::parse(&name, &text)?);
        }
        Ok(Self {
            kernel: kernel.to_owned(),
            patches,
            later: Vec::new(),
        })
    }

    /// The series as it is with its first `count` patches.
    pub(crate) fn first(&self, count: usize) -> Self {
        let (patches, rest) = self.patches.split_at(count.min(self.patches.len()));
        Self {
            kernel: self.kernel.clone(),
            patches: patches.to_vec(),
            later: rest.iter().chain(&self.later).cloned().collect(),
        }
    }

    /// The files that the kernel has and the series changes.
    pub(crate) fn touched(&self) -> Result<BTreeSet<PathBuf>> {
        let mut touched = BTreeSet::new();
        for patch in &self.patches {
            touched.extend(patch.touches()?);
        }
        let added = self.added();
        touched.retain(|path| !added.contains(path));
        Ok(touched)
    }

    /// The files that the series brings.
    pub(crate) fn added(&self) -> BTreeSet<PathBuf> {
        self.patches
            .iter()
            .flat_map(|patch| patch.adds.iter().cloned())
            .collect()
    }

    /// Where the checkout has the file that stands at `path` in the kernel tree.
    fn place(&self, path: &Path) -> PathBuf {
        place(&self.kernel, path)
    }

    /// What the series makes of a file that it brings.
    fn content(&self, path: &Path) -> Result<Vec<u8>> {
        let place = self.place(path);
        let content = fs::read(&place).with_context(|| {
            format!(
                "a patch adds {}, but there is no such file",
                place.display()
            )
        })?;
        apply::undo(&self.later, path, content)
    }

    /// A digest of everything that decides what the series makes of a tree.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut parts = Parts::default();
        for patch in &self.patches {
            parts.add(patch.format());
            for path in &patch.adds {
                parts.add(self.content(path)?);
            }
        }
        Ok(parts.digest())
    }

    /// The content of the Kconfig files that the series changes or brings.
    pub(crate) fn kconfig(&self, tree: &Path) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        for path in self.touched()?.into_iter().chain(self.added()) {
            if path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"Kconfig"))
            {
                content.extend(sync::read(&tree.join(&path))?.unwrap_or_default());
            }
        }
        Ok(content)
    }

    /// Whether a tree with it has options of its own.
    pub(crate) fn has_options(&self) -> bool {
        self.added().contains(Path::new(KCONFIG))
    }

    /// The options that only a tree with the series has, as `.config` names them.
    pub(crate) fn options(&self) -> Result<Vec<String>> {
        let text = String::from_utf8(self.content(Path::new(KCONFIG))?)
            .with_context(|| format!("{KCONFIG} is no text"))?;
        let options = text
            .lines()
            .filter_map(|line| line.strip_prefix("config "))
            .map(|name| format!("CONFIG_{}", name.trim()));
        Ok(options.collect())
    }

    /// Every file of `kernel/` that is meant for the kernel tree, by its path there.
    fn present(&self) -> Result<BTreeSet<PathBuf>> {
        let mut present = BTreeSet::new();
        let mut dirs = vec![self.kernel.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in
                fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?
            {
                let path = entry?.path();
                let inside = path
                    .strip_prefix(&self.kernel)
                    .context("a path below kernel/")?;
                if OWN.iter().any(|own| inside == Path::new(own)) {
                    continue;
                }
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    present.insert(inside.to_owned());
                }
            }
        }
        for (path, _) in ELSEWHERE {
            if self.place(Path::new(path)).exists() {
                present.insert(PathBuf::from(path));
            }
        }
        Ok(present)
    }

    /// Checks the series as far as that needs no kernel: every file of `kernel/`
    /// is added by one patch, later ones have hunks that fit it, and the patches are
    /// numbered.
    fn account(&self) -> Result<()> {
        let added = self.added();
        let mut owners: BTreeMap<&Path, &str> = BTreeMap::new();
        for (index, patch) in self.patches.iter().enumerate() {
            let number = format!("{:04}-", index + 1);
            ensure!(
                patch.name.starts_with(&number),
                "kernel/patches/{} should begin with {number}",
                patch.name
            );
            for path in patch.touches()? {
                ensure!(
                    !added.contains(&path) || owners.contains_key(path.as_path()),
                    "{} changes {}, which no earlier patch adds",
                    patch.name,
                    path.display()
                );
            }
            let so_far = self.first(index + 1);
            for path in &patch.adds {
                if let Some(owner) = owners.insert(path, &patch.name) {
                    bail!(
                        "{} is added by {owner} and again by {}",
                        path.display(),
                        patch.name
                    );
                }
                so_far.content(path)?;
            }
        }
        for path in self.present()? {
            ensure!(
                owners.contains_key(path.as_path()),
                "{} belongs to no patch: add a line `Adds: {}` to one in kernel/patches",
                self.place(&path).display(),
                path.display()
            );
        }
        Ok(())
    }
}

/// The options.
const KCONFIG: &str = "io_uring/group/Kconfig";

/// The files that the layout of the checkout has elsewhere: by their paths in the
/// kernel tree and here.
const ELSEWHERE: [(&str, &str); 3] = [
    (KCONFIG, "Kconfig"),
    (
        "Documentation/core-api/io_uring_sqe_group_design.rst",
        "Documentation/design.rst",
    ),
    (
        "Documentation/userspace-api/io_uring_sqe_group.rst",
        "Documentation/io_uring_sqe_group.rst",
    ),
];

/// Where the file at `path` in the kernel tree stands in the checkout.
fn place(kernel: &Path, path: &Path) -> PathBuf {
    let here = ELSEWHERE.iter().find(|(there, _)| path == Path::new(there));
    match (kernel.parent(), here) {
        (Some(root), Some((_, here))) => root.join(here),
        _ => kernel.join(path),
    }
}

/// Brings the cache's tree to base and series, and returns it: the one tree, or one
/// of its own for a variant. Only what differs is written, so that make rebuilds only
/// what depends on it.
pub(crate) fn patched(
    cache: &Cache,
    lock: &Lock,
    series: &Series,
    pristine: &Path,
    variant: Option<&Variant<'_>>,
) -> Result<PathBuf> {
    sync::cached_tree(cache, lock, series, pristine, variant)
}

/// Brings a tree of the user's to its own state and series, and returns its path by
/// the one name that it is known under.
pub(crate) fn patch_kdir(
    cache: &Cache,
    lock: &Lock,
    series: &Series,
    dir: &Path,
    made_for: &str,
) -> Result<PathBuf> {
    kdir::apply(cache, lock, series, dir, made_for)?;
    kdir::canonical(dir)
}

/// A name for a tree of the user's, to be used for directories.
pub(crate) fn kdir_key(dir: &Path) -> Result<String> {
    Ok(kdir::key(&kdir::canonical(dir)?))
}

#[cfg(test)]
pub(crate) mod testing {
    //! A kernel of four lines and a series of two patches.

    use super::*;

    /// What the tree's one interesting file is before the series.
    pub(crate) const C: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

    /// A checkout's `kernel/` and a kernel tree, both in directories that go away.
    pub(crate) struct World {
        _dir: tempfile::TempDir,
        pub(crate) kernel: PathBuf,
        pub(crate) tree: PathBuf,
        pub(crate) cache: Cache,
    }

    pub(crate) fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    impl World {
        pub(crate) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let kernel = dir.path().join("checkout/kernel");
            let tree = dir.path().join("tree");
            write(
                &tree.join("Makefile"),
                "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n",
            );
            write(&tree.join("io_uring/a.c"), C);
            write(&tree.join("io_uring/Kconfig"), "config A\n");
            write(&tree.join("io_uring/other.c"), "other\n");
            write(
                &kernel.join("base.toml"),
                "version = \"7.3.4\"\nentries = 5\nsources = []\n[debian]\npackage = \"p\"\n\
                 suite = \"s\"\n[files]\n",
            );
            write(&kernel.join("Cargo.toml"), "");
            write(&kernel.join("io_uring/group/state.rs"), "state\n");
            write(&kernel.join("../Kconfig"), "config GROUP\n");
            write(
                &kernel.join("patches/0001-io_uring-first.patch"),
                "Subject: io_uring: first\n\nBecause.\n\nAdds: io_uring/group/Kconfig\n---\n\
                 --- a/io_uring/a.c\n+++ b/io_uring/a.c\n@@ -3,6 +3,7 @@ two\n three\n four\n \
                 five\n+five and a half\n six\n seven\n eight\n",
            );
            write(
                &kernel.join("patches/0002-io_uring-second.patch"),
                "Subject: io_uring: second\n\nAdds: io_uring/group/state.rs\n---\n\
                 --- a/io_uring/a.c\n+++ b/io_uring/a.c\n@@ -7,5 +7,5 @@ five and a half\n six\n \
                 seven\n eight\n-nine\n+NINE\n ten\n",
            );
            let cache = Cache::at(&dir.path().join("cache")).unwrap();
            Self {
                _dir: dir,
                kernel,
                tree,
                cache,
            }
        }

        pub(crate) fn series(&self) -> Series {
            Series::load_from(&self.kernel).unwrap()
        }

        pub(crate) fn read(&self, path: &str) -> String {
            fs::read_to_string(self.tree.join(path)).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn a_good_series_accounts_for_its_files() {
        let world = World::new();
        let series = world.series();
        series.account().unwrap();
        assert_eq!(
            series.touched().unwrap(),
            BTreeSet::from(["io_uring/a.c".into()])
        );
        assert_eq!(series.added().len(), 2);
        assert_eq!(series.present().unwrap(), series.added());
    }

    #[track_caller]
    fn refused(world: &World, why: &str) {
        let error = format!("{:#}", world.series().account().unwrap_err());
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn its_options_are_those_of_its_kconfig() {
        let world = World::new();
        assert_eq!(world.series().options().unwrap(), ["CONFIG_GROUP"]);
    }

    #[test]
    fn a_file_that_nobody_adds_is_refused() {
        let world = World::new();
        write(&world.kernel.join("io_uring/group/stray.rs"), "");
        refused(&world, "io_uring/group/stray.rs");
    }

    #[test]
    fn a_file_that_is_not_there_is_refused() {
        let world = World::new();
        fs::remove_file(world.kernel.join("io_uring/group/state.rs")).unwrap();
        refused(&world, "no such file");
    }

    #[test]
    fn a_file_that_two_patches_add_is_refused() {
        let world = World::new();
        write(
            &world.kernel.join("patches/0003-x.patch"),
            "Subject: io_uring: x\n\nAdds: io_uring/group/state.rs\n---\n",
        );
        refused(&world, "again by 0003-x.patch");
    }

    fn hunk(old: &str, new: &str) -> String {
        format!(
            "Subject: io_uring: x\n\nBecause.\n\n---\n--- a/io_uring/group/state.rs\n\
             +++ b/io_uring/group/state.rs\n@@ -1 +1 @@\n-{old}\n+{new}\n"
        )
    }

    #[test]
    fn a_new_file_may_change_later_but_not_before() {
        let world = World::new();
        let later = world.kernel.join("patches/0003-x.patch");
        write(&later, &hunk("first", "state"));
        let series = world.series();
        series.account().unwrap();
        let path = Path::new("io_uring/group/state.rs");
        assert_eq!(series.first(2).content(path).unwrap(), b"first\n");
        assert_eq!(series.content(path).unwrap(), b"state\n");
        assert!(!series.touched().unwrap().contains(path));

        fs::remove_file(later).unwrap();
        write(
            &world.kernel.join("patches/0001-io_uring-first.patch"),
            &hunk("first", "state").replace("---\n---", "Adds: io_uring/group/Kconfig\n---\n---"),
        );
        refused(&world, "which no earlier patch adds");
    }

    #[test]
    fn an_edit_where_a_later_patch_has_a_hunk_names_the_way_out() {
        let world = World::new();
        write(
            &world.kernel.join("patches/0003-x.patch"),
            &hunk("first", "last"),
        );
        refused(&world, "cargo xtask series refresh");
    }

    #[test]
    fn a_gap_in_the_numbers_is_refused() {
        let world = World::new();
        let patches = world.kernel.join("patches");
        fs::rename(
            patches.join("0002-io_uring-second.patch"),
            patches.join("0003-x.patch"),
        )
        .unwrap();
        refused(&world, "0002-");
    }

    #[test]
    fn the_digest_follows_messages_hunks_and_files() {
        let world = World::new();
        let before = world.series().digest().unwrap();
        write(&world.kernel.join("io_uring/group/state.rs"), "changed\n");
        let after = world.series().digest().unwrap();
        assert_ne!(before, after);
        write(&world.kernel.join("io_uring/group/state.rs"), "state\n");
        assert_eq!(world.series().digest().unwrap(), before);
    }
}
