// SPDX-License-Identifier: GPL-2.0-only
//! Applying the series to files.

use std::{
    error, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, ensure, Context as _, Result};

use super::{Files, Patch, Series, Versions};
use crate::{cache, run};

/// A hunk that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The patch's file name.
    pub(super) patch: String,
    /// The file in the kernel tree.
    pub(super) file: PathBuf,
    /// The line at which the hunk should apply, and the hunk's own first line.
    pub(super) hunk: Option<(usize, String)>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { patch, file, hunk } = self;
        match hunk {
            Some((line, header)) => write!(
                f,
                "kernel/patches/{patch} does not fit {} at line {line} (hunk `{header}`)",
                file.display()
            ),
            None => write!(
                f,
                "kernel/patches/{patch} does not fit: there is no {}",
                file.display()
            ),
        }
    }
}

impl error::Error for Misfit {}

/// Runs git on a directory of ours, whatever repository or configuration is around.
pub(super) fn isolated_git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir)
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C");
    // Set when we run from a hook or an alias of git.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_PREFIX",
        "GIT_OBJECT_DIRECTORY",
    ] {
        git.env_remove(name);
    }
    git
}

/// What the series makes of a tree: the content of every file that it changes or
/// brings.
///
/// `original` gives the content of a file before the series, `None` if there is no
/// such file.
///
/// # Errors
///
/// A [`Misfit`] if a hunk does not fit.
pub(super) fn apply(
    series: &Series,
    original: impl Fn(&Path) -> Result<Option<Vec<u8>>>,
) -> Result<Files> {
    Ok(apply_noting(series, original)?.0)
}

/// As [`apply`], and returns what git remarks on hunks that fit elsewhere than
/// where they say.
pub(super) fn apply_noting(
    series: &Series,
    original: impl Fn(&Path) -> Result<Option<Vec<u8>>>,
) -> Result<(Files, Vec<String>)> {
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    let touched = series.touched()?;
    for path in &touched {
        if let Some(content) = original(path)? {
            cache::write_whole(&dir.path().join(path), &content)?;
        }
    }
    let mut notes = Vec::new();
    for (index, patch) in series.patches.iter().enumerate() {
        for path in &patch.adds {
            ensure!(
                original(path)?.is_none(),
                "kernel/patches/{} adds {}, which the tree already has",
                patch.name,
                path.display()
            );
        }
        notes.extend(one(series, index, dir.path(), &Versions::new())?);
    }
    let added = series.added();
    let mut files = Files::new();
    for path in touched.into_iter().chain(added.iter().cloned()) {
        let content = fs::read(dir.path().join(&path))
            .with_context(|| format!("cannot read {} after the series", path.display()))?;
        // A hunk that fits in two places can be undone in one and apply in the other.
        ensure!(
            !added.contains(&path) || content == series.content(&path)?,
            "the hunks for {} fit in more than one place: run `cargo xtask series refresh`",
            path.display()
        );
        files.insert(path, content);
    }
    Ok((files, notes))
}

/// Applies the patch at `index` in a directory that has the files that it changes. Files
/// that it makes what `known` says are not patched but written.
pub(super) fn one(
    series: &Series,
    index: usize,
    dir: &Path,
    known: &Versions,
) -> Result<Vec<String>> {
    let patch = &series.patches[index];
    let so_far = series.first(index + 1);
    for path in &patch.adds {
        if !known.contains_key(&(index, path.clone())) {
            cache::write_whole(&dir.join(path), &so_far.content(path)?)?;
        }
    }
    let mut excluded = Vec::new();
    for ((of, path), content) in known {
        if *of == index {
            cache::write_whole(&dir.join(path), content)?;
            excluded.push(format!("--exclude={}", path.display()));
        }
    }
    if patch.diff.trim().is_empty() {
        return Ok(Vec::new());
    }
    let options: Vec<&str> = excluded.iter().map(String::as_str).collect();
    let (fits, output) = git_apply(dir, patch, &options)?;
    if fits {
        return Ok(output
            .lines()
            .filter(|line| line.contains("(offset"))
            .map(|line| format!("kernel/patches/{}: {line}", patch.name))
            .collect());
    }
    match misfit(patch, &output) {
        Some(misfit) => Err(misfit.into()),
        None => bail!("kernel/patches/{} does not apply:\n{output}", patch.name),
    }
}

/// Runs `git apply`, and returns whether the hunks fit and what it said.
fn git_apply(dir: &Path, patch: &Patch, options: &[&str]) -> Result<(bool, String)> {
    let mut file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    std::io::Write::write_all(&mut file, patch.diff.as_bytes())
        .context("cannot write a temporary file")?;
    let mut output = String::new();
    let status = run::lines(
        isolated_git(dir)
            .args(["apply", "--verbose", "--whitespace=nowarn", "-p1"])
            .args(options)
            .arg(file.path()),
        |line| {
            output.push_str(line);
            output.push('\n');
            Ok(())
        },
    )?;
    Ok((status.success(), output))
}

/// A new file was edited in lines that a later patch than the one that adds it has
/// hunks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edited {
    /// The later patch's file name.
    pub(super) patch: String,
    /// The file in the kernel tree.
    pub(super) file: PathBuf,
}

impl fmt::Display for Edited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { patch, file } = self;
        write!(
            f,
            "{} was edited where kernel/patches/{patch} changes it: run `cargo xtask series refresh`, \
             which gives the edit to that patch",
            file.display()
        )
    }
}

impl error::Error for Edited {}

/// What a new file was before `patches` changed it.
///
/// # Errors
///
/// [`Edited`] if a hunk isn't in there.
pub(super) fn undo(patches: &[Patch], path: &Path, content: Vec<u8>) -> Result<Vec<u8>> {
    let mut changing = Vec::new();
    for patch in patches {
        if patch.touches()?.iter().any(|touched| touched == path) {
            changing.push(patch);
        }
    }
    if changing.is_empty() {
        return Ok(content);
    }
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    let place = dir.path().join(path);
    cache::write_whole(&place, &content)?;
    let only = format!("--include={}", path.display());
    for patch in changing.into_iter().rev() {
        let (fits, output) = git_apply(dir.path(), patch, &["--reverse", &only])?;
        if !fits {
            ensure!(
                output.contains("error: patch failed"),
                "kernel/patches/{} cannot be undone:\n{output}",
                patch.name
            );
            return Err(Edited {
                patch: patch.name.clone(),
                file: path.to_owned(),
            }
            .into());
        }
    }
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
}

/// What git's complaint means.
fn misfit(patch: &Patch, output: &str) -> Option<Misfit> {
    let name = patch.name.clone();
    for line in output.lines() {
        if let Some((file, at)) = line
            .strip_prefix("error: patch failed: ")
            .and_then(|rest| rest.rsplit_once(':'))
        {
            let at: usize = at.parse().ok()?;
            let hunk = (at, hunk_at(&patch.diff, file, at).unwrap_or_default());
            return Some(Misfit {
                patch: name,
                file: file.into(),
                hunk: Some(hunk),
            });
        }
        if let Some(file) = line
            .strip_prefix("error: ")
            .and_then(|rest| rest.strip_suffix(": No such file or directory"))
        {
            return Some(Misfit {
                patch: name,
                file: file.into(),
                hunk: None,
            });
        }
    }
    None
}

/// The `@@` line of the hunk for `file` whose old side begins at `line`.
fn hunk_at(diff: &str, file: &str, line: usize) -> Option<String> {
    let name = format!("--- a/{file}");
    diff.lines()
        .skip_while(|text| *text != name)
        .find(|text| {
            let begins = text
                .strip_prefix("@@ -")
                .map(|rest| rest.split([',', ' ']).next());
            begins.flatten().and_then(|number| number.parse().ok()) == Some(line)
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write, World, C},
        *,
    };

    fn original(world: &World) -> impl Fn(&Path) -> Result<Option<Vec<u8>>> + '_ {
        |path| Ok(fs::read(world.tree.join(path)).ok())
    }

    #[test]
    fn a_series_that_fits() {
        let world = World::new();
        let (files, notes) = apply_noting(&world.series(), original(&world)).unwrap();
        let text = |path: &str| String::from_utf8(files[Path::new(path)].clone()).unwrap();
        assert_eq!(
            text("io_uring/a.c"),
            C.replace("five\n", "five\nfive and a half\n")
                .replace("nine", "NINE")
        );
        assert_eq!(text("io_uring/group/state.rs"), "state\n");
        assert_eq!(text("io_uring/group/Kconfig"), "config GROUP\n");
        assert_eq!(files.len(), 3);
        assert!(notes.is_empty(), "{notes:?}");
        // The tree itself is as it was.
        assert_eq!(world.read("io_uring/a.c"), C);
    }

    #[test]
    fn another_tree_names_file_line_and_hunk() {
        let world = World::new();
        write(&world.tree.join("io_uring/a.c"), &C.replace("ten", "10"));
        let error = apply(&world.series(), original(&world)).unwrap_err();
        assert_eq!(
            error.downcast_ref::<Misfit>().unwrap(),
            &Misfit {
                patch: "0002-io_uring-second.patch".to_owned(),
                file: "io_uring/a.c".into(),
                hunk: Some((7, "@@ -7,5 +7,5 @@ five and a half".to_owned())),
            }
        );
        let text = error.to_string();
        assert!(text.contains("io_uring/a.c at line 7"), "{text}");
    }

    #[test]
    fn a_tree_without_the_file_names_it() {
        let world = World::new();
        fs::remove_file(world.tree.join("io_uring/a.c")).unwrap();
        let error = apply(&world.series(), original(&world)).unwrap_err();
        let misfit = error.downcast_ref::<Misfit>().unwrap();
        assert_eq!(
            (misfit.file.to_str().unwrap(), &misfit.hunk),
            ("io_uring/a.c", &None)
        );
    }

    #[test]
    fn a_file_that_the_tree_has_is_not_added() {
        let world = World::new();
        write(&world.tree.join("io_uring/group/state.rs"), "theirs\n");
        let error = apply(&world.series(), original(&world))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("io_uring/group/state.rs, which the tree already has"),
            "{error}"
        );
    }

    #[test]
    fn no_fuzz_but_an_offset_is_noted() {
        let world = World::new();
        write(&world.tree.join("io_uring/a.c"), &format!("zero\n{C}"));
        let (_, notes) = apply_noting(&world.series(), original(&world)).unwrap();
        assert!(notes[0].contains("offset 1 line"), "{notes:?}");
    }
}
