// SPDX-License-Identifier: GPL-2.0-only
//! Trees that are not the series' own: edits on top of it, which stand in
//! `ci/mistakes.toml` and are meant for no tree but one that is there to be wrong, and
//! what came before it.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use serde::Deserialize;

use super::{apply, sync, Files, Series};
use crate::cache::Parts;

/// One place of a file that is replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// By its path in the kernel tree.
    pub(crate) file: PathBuf,
    /// What is there, exactly once.
    pub(crate) find: String,
    /// What comes in its place.
    pub(crate) replace: String,
}

/// What makes a tree of its own different from that of the series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant<'a> {
    /// Of the tree and of what is built from it. Each variant of this name takes the
    /// place of the one before.
    pub(crate) name: &'a str,
    /// Whether the series is in it.
    pub(crate) series: bool,
    /// How many patches of it, if not all.
    pub(crate) patches: Option<usize>,
    /// In their order.
    pub(crate) edits: &'a [Edit],
}

impl Series {
    /// As [`Series::digest`], for a variant.
    pub(crate) fn digest_of(&self, variant: Option<&Variant<'_>>) -> Result<String> {
        let Some(variant) = variant else {
            return self.digest();
        };
        let mut parts = Parts::default();
        parts.add(if variant.series {
            self.digest()?
        } else {
            String::new()
        });
        for Edit {
            file,
            find,
            replace,
        } in variant.edits
        {
            parts.add(file.as_os_str().as_encoded_bytes());
            parts.add(find);
            parts.add(replace);
        }
        Ok(parts.digest())
    }
}

/// The files of a tree with the series, without there being such a tree.
pub(crate) struct Patched {
    files: Files,
    pristine: PathBuf,
}

impl Patched {
    /// Applies the series to files of a pristine tree, in memory.
    pub(crate) fn new(series: &Series, pristine: &Path) -> Result<Self> {
        Ok(Self {
            files: apply::apply(series, |path| sync::read(&pristine.join(path)))?,
            pristine: pristine.to_owned(),
        })
    }

    /// The content of a file.
    pub(crate) fn content(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.files.get(path) {
            Some(content) => Ok(Some(content.clone())),
            None => sync::read(&self.pristine.join(path)),
        }
    }
}

/// What edits make of the files that they are about. Later ones see what earlier ones
/// have left.
///
/// # Errors
///
/// Each with the file, if there is none or if `find` is not there exactly once.
pub(crate) fn edited(
    edits: &[Edit],
    content: impl Fn(&Path) -> Result<Option<Vec<u8>>>,
) -> Result<Files> {
    let mut files = Files::new();
    for Edit {
        file,
        find,
        replace,
    } in edits
    {
        let before = match files.remove(file) {
            Some(content) => content,
            None => {
                content(file)?.with_context(|| format!("the tree has no {}", file.display()))?
            }
        };
        let before =
            String::from_utf8(before).with_context(|| format!("{} is no text", file.display()))?;
        match before.matches(find.as_str()).count() {
            1 => {}
            0 => bail!("{} does not have {find:?}", file.display()),
            count => bail!("{} has {find:?} {count} times", file.display()),
        }
        let after = before.replacen(find.as_str(), replace, 1);
        files.insert(file.clone(), after.into_bytes());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{World, C},
        *,
    };

    fn edit(file: &str, find: &str, replace: &str) -> Edit {
        Edit {
            file: file.into(),
            find: find.to_owned(),
            replace: replace.to_owned(),
        }
    }

    #[test]
    fn edits_see_the_series_and_each_other() {
        let world = World::new();
        let patched = Patched::new(&world.series(), &world.tree).unwrap();
        let edits = [
            edit("io_uring/a.c", "NINE", "nein"),
            edit("io_uring/a.c", "nein\nten", "NEIN"),
            edit("io_uring/other.c", "other", "another"),
            edit("io_uring/group/state.rs", "state", "mistake"),
        ];
        let files = edited(&edits, |path| patched.content(path)).unwrap();
        let text = |path: &str| String::from_utf8(files[Path::new(path)].clone()).unwrap();
        assert!(text("io_uring/a.c").ends_with("eight\nNEIN\n"));
        assert_eq!(text("io_uring/other.c"), "another\n");
        assert_eq!(text("io_uring/group/state.rs"), "mistake\n");
        assert_eq!(files.len(), 3);
        assert_eq!(world.read("io_uring/a.c"), C);
    }

    #[test]
    fn a_place_that_is_not_there_once_is_refused() {
        let world = World::new();
        let patched = Patched::new(&world.series(), &world.tree).unwrap();
        for (edit, why) in [
            (edit("io_uring/a.c", "eleven", ""), "does not have"),
            // The series has changed it.
            (edit("io_uring/a.c", "nine", ""), "does not have"),
            (edit("io_uring/a.c", "five", ""), "2 times"),
            (edit("io_uring/b.c", "five", ""), "has no io_uring/b.c"),
        ] {
            let error = edited(&[edit], |path| patched.content(path)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn the_digest_follows_the_edits() {
        let world = World::new();
        let series = world.series();
        let digest = |edits: &[Edit]| {
            let variant = Variant {
                name: "x",
                series: true,
                patches: None,
                edits,
            };
            series.digest_of(Some(&variant)).unwrap()
        };
        let plain = series.digest_of(None).unwrap();
        assert_eq!(plain, series.digest().unwrap());
        let one = digest(&[edit("a", "b", "c")]);
        assert_ne!(one, digest(&[]));
        assert_ne!(one, digest(&[edit("a", "b", "d")]));
    }
}
