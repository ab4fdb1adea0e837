// SPDX-License-Identifier: GPL-2.0-only
//! The series as commits of git, there and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, ensure, Context as _, Result};

use super::{
    apply::{self, isolated_git},
    export::Person,
    kdir,
    patch::{self, Patch},
    place, sync, Series, Versions,
};
use crate::{cache, paths, progress::say, run};

/// Marks the commit before the series.
pub(super) const BASE_TAG: &str = "sqe-group-base";

/// What git knows of a tree laid out by `series tree`. A commit of all 100,000
/// files takes a minute and a gigabyte; these are the ones a patch of the series
/// may come to touch. Edits elsewhere are found by date and refused.
const TRACKED: [&str; 16] = [
    IGNORE,
    "Documentation/core-api",
    "Documentation/userspace-api",
    "Kconfig",
    "MAINTAINERS",
    "Makefile",
    "block",
    "fs",
    "include",
    "init",
    "io_uring",
    "kernel",
    "lib",
    "net",
    "rust",
    "scripts",
];

/// What the tree itself wants git to ignore.
const IGNORE: &str = ".gitignore";

/// As in the tree's .gitattributes, which is not in every repository here: what stands
/// behind the `@@` of a hunk depends on it.
const ATTRIBUTES: &str = "*.c diff=cpp\n*.h diff=cpp\n*.rs diff=rust\n";

/// Runs git in a repository of the user's: with the user's configuration (it has
/// the name for commits), but never in another repository.
fn git(dir: &Path) -> Command {
    let mut git = isolated_git(dir);
    git.env_remove("GIT_CONFIG_GLOBAL")
        .env_remove("GIT_CONFIG_NOSYSTEM");
    // They would win over who is to be the author.
    for who in ["AUTHOR", "COMMITTER"] {
        git.env_remove(format!("GIT_{who}_NAME"))
            .env_remove(format!("GIT_{who}_EMAIL"));
    }
    git
}

/// Lays out a kernel tree with one commit a patch.
pub(super) fn tree(dir: &Path) -> Result<()> {
    ensure!(
        !dir.exists(),
        "{} is there already: name a new directory",
        dir.display()
    );
    let series = Series::load()?;
    let pristine = super::fetched()?;
    say(
        "Copying",
        format!("{} to {}", pristine.display(), dir.display()),
    );
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    // Under its own name it is whole: what an interrupted run has left is made anew.
    let partial = partial(dir)?;
    cache::remove_dir(&partial)?;
    // No hard links: an editor that writes in place would change the pristine tree.
    run::output(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(&pristine)
            .arg(&partial),
    )?;
    show_all(&partial)?;
    let tracked = tracked(&series, &partial)?;
    lay_out(&series, &partial, &tracked, None, &Versions::new())?;
    fs::rename(&partial, dir).with_context(|| format!("cannot create {}", dir.display()))?;
    say(
        "Made",
        format!(
            "{}: {} commits on {BASE_TAG}",
            dir.display(),
            series.patches.len()
        ),
    );
    Ok(())
}

/// What git is to know of a tree: what patches may come to touch, and what they do touch.
fn tracked(series: &Series, tree: &Path) -> Result<Vec<PathBuf>> {
    let mut tracked: BTreeSet<_> = TRACKED.iter().map(PathBuf::from).collect();
    tracked.extend(series.touched()?);
    tracked.retain(|path| tree.join(path).exists());
    Ok(tracked.into_iter().collect())
}

/// Where a tree is while it is not whole: beside its place.
fn partial(dir: &Path) -> Result<PathBuf> {
    let mut name = dir
        .file_name()
        .with_context(|| format!("{} names no directory", dir.display()))?
        .to_owned();
    name.push(".partial");
    Ok(dir.with_file_name(name))
}

/// Takes back what Debian adds to .gitignore: everything. A new file would not show.
fn show_all(dir: &Path) -> Result<()> {
    let path = dir.join(IGNORE);
    if let Some(content) = sync::read(&path)? {
        let text = String::from_utf8_lossy(&content);
        let kept: String = text
            .split_inclusive('\n')
            .filter(|line| line.trim_end() != "/*")
            .collect();
        cache::write_whole(&path, kept.as_bytes())?;
    }
    Ok(())
}

/// Writes the series as mails to `dir`, and returns their paths.
pub(super) fn mails(series: &Series, pristine: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    format(small(series, pristine)?.path(), dir, &[])
}

/// Writes the commits of a repository as mails to `dir`, and returns their paths.
pub(super) fn format(repository: &Path, dir: &Path, options: &[String]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
    let names = run::output(
        git(repository)
            .args([
                "format-patch",
                "--no-signature",
                "--no-renames",
                "--output-directory",
            ])
            .arg(&dir)
            .args(options)
            .arg(format!("{BASE_TAG}..HEAD")),
    )?;
    Ok(names.lines().map(PathBuf::from).collect())
}

/// Writes the patches anew from what they make of the base.
pub(super) fn refresh() -> Result<()> {
    let series = Series::load()?;
    let pristine = super::fetched()?;
    refresh_in(&series, &pristine)?;
    super::rebase_hashes(&Series::load()?, &pristine)
}

fn refresh_in(series: &Series, pristine: &Path) -> Result<()> {
    let repository = match small(series, pristine) {
        Err(error) if error.is::<apply::Edited>() => {
            let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
            let known = reassigned(&committed(&series.kernel, dir.path())?, series)?;
            small_of(series, pristine, None, &known)?
        }
        made => made?,
    };
    take_back(&series.kernel, repository.path(), BASE_TAG)
}

/// The series as the checkout's last commit has it, laid out in `dir`.
fn committed(kernel: &Path, dir: &Path) -> Result<Series> {
    let root = kernel.parent().context("kernel/ is in a checkout")?;
    let archive = dir.join("archive.tar");
    run::output(
        git(root)
            .args(["archive", "--format=tar", "--output"])
            .arg(&archive)
            .arg("HEAD"),
    )
    .with_context(|| {
        format!(
            "{} has no commit that tells what was edited: make the edit in a tree of `cargo xtask \
             series tree` instead",
            root.display()
        )
    })?;
    run::output(
        Command::new("tar")
            .arg("-C")
            .arg(dir)
            .arg("-xf")
            .arg(&archive),
    )?;
    Series::load_from(&dir.join("kernel"))
}

/// What the patches of `now` make of the new files that come in steps, if each edit since
/// `before` belongs to the first patch that it can belong to: one of lines that a later
/// patch brings, or of lines around those that it takes away, is that patch's.
fn reassigned(before: &Series, now: &Series) -> Result<Versions> {
    let mut known = Versions::new();
    for path in now.added() {
        let steps = steps_of(now, &path)?;
        let old = steps_of(before, &path)?;
        let names = |series: &Series, steps: &[usize]| -> Vec<String> {
            let name = |index: &usize| series.patches[*index].name.clone();
            steps.iter().map(name).collect()
        };
        ensure!(
            steps.len() < 2 || names(now, &steps) == names(before, &old),
            "other patches than before change {}: make the edit in a tree of `cargo xtask series tree` \
             instead",
            path.display()
        );
        if steps.len() < 2 {
            continue;
        }
        let mut content = now.content(&path)?;
        for (index, old) in steps.iter().zip(&old).skip(1).rev() {
            let after = before.first(old + 1).content(&path)?;
            let earlier = before.first(*old).content(&path)?;
            let undone = kdir::merge(&content, &after, &earlier, &["--theirs"])?
                .context("a merge that takes sides has no conflict")?;
            known.insert((*index, path.clone()), content);
            content = undone;
        }
        known.insert((steps[0], path), content);
    }
    Ok(known)
}

/// The patches that add and change a new file, by their indices. The first one adds it.
fn steps_of(series: &Series, path: &Path) -> Result<Vec<usize>> {
    let mut steps = Vec::new();
    for (index, patch) in series.patches.iter().enumerate() {
        if patch.adds.iter().any(|add| add == path)
            || patch.touches()?.iter().any(|touched| touched == path)
        {
            steps.push(index);
        }
    }
    Ok(steps)
}

/// Takes commits back into `kernel/`.
pub(super) fn import(dir: &Path, base: &str) -> Result<()> {
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
    let pristine = super::fetched()?;
    untracked_edits(&dir, &pristine)?;
    take_back(&paths::kernel()?, &dir, base)?;
    super::rebase_hashes(&Series::load()?, &pristine)
}

/// A repository with the touched files alone.
fn small(series: &Series, pristine: &Path) -> Result<tempfile::TempDir> {
    small_of(series, pristine, None, &Versions::new())
}

/// The same with commits of a person's.
pub(super) fn small_as(
    series: &Series,
    pristine: &Path,
    person: Option<&Person>,
) -> Result<tempfile::TempDir> {
    small_of(series, pristine, person, &Versions::new())
}

fn small_of(
    series: &Series,
    pristine: &Path,
    person: Option<&Person>,
    known: &Versions,
) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    let touched: Vec<_> = series.touched()?.into_iter().collect();
    for path in &touched {
        let content = sync::read(&pristine.join(path))?
            .with_context(|| format!("{} has no {}", pristine.display(), path.display()))?;
        cache::write_whole(&dir.path().join(path), &content)?;
    }
    lay_out(series, dir.path(), &touched, person, known)?;
    Ok(dir)
}

/// Makes a repository of a tree: one commit of the `tracked` files as they are,
/// and one a patch.
fn lay_out(
    series: &Series,
    dir: &Path,
    tracked: &[PathBuf],
    person: Option<&Person>,
    known: &Versions,
) -> Result<()> {
    run::output(git(dir).args(["init", "--quiet", "--initial-branch=main"]))?;
    // What is not tracked is not shown either; what is new below a tracked
    // directory is.
    let mut exclude = String::from("/*\n");
    let added = series.added();
    let below = |path: &&PathBuf| !tracked.iter().any(|whole| path.starts_with(whole));
    for path in tracked.iter().chain(added.iter().filter(below)) {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        for depth in 1..=parts.len() {
            let path = parts[..depth].join("/");
            exclude.push_str(&format!("!/{path}\n"));
            if depth < parts.len() {
                exclude.push_str(&format!("/{path}/*\n"));
            }
        }
    }
    cache::write_whole(&dir.join(".git/info/exclude"), dedup(&exclude).as_bytes())?;
    cache::write_whole(&dir.join(".git/info/attributes"), ATTRIBUTES.as_bytes())?;
    for (key, value) in [
        // Objects are many and short-lived.
        ("core.compression", "0"),
        ("core.autocrlf", "false"),
        ("gc.auto", "0"),
        ("commit.gpgSign", "false"),
    ] {
        run::output(git(dir).args(["config", key, value]))?;
    }
    let author = match person {
        Some(Person { name, mail }) => Some((name.as_str(), mail.as_str())),
        None if run::output(git(dir).args(["config", "user.email"])).is_err() => {
            Some(("SQE groups", "sqe-groups@localhost"))
        }
        None => None,
    };
    if let Some((name, mail)) = author {
        run::output(git(dir).args(["config", "user.name", name]))?;
        run::output(git(dir).args(["config", "user.email", mail]))?;
    }
    if !tracked.is_empty() {
        run::output(git(dir).args(["add", "--force", "--"]).args(tracked))?;
    }
    commit(dir, "The tree before the series\n")?;
    run::output(git(dir).args(["tag", BASE_TAG]))?;
    for (index, patch) in series.patches.iter().enumerate() {
        apply::one(series, index, dir, known)?;
        run::output(
            git(dir)
                .args(["add", "--force", "--"])
                .args(&patch.adds)
                .args(patch.touches()?),
        )?;
        commit(dir, &patch.message())?;
    }
    Ok(())
}

/// Drops repeated lines: two paths share their directories, and the second
/// exclusion of one would undo what came between.
fn dedup(text: &str) -> String {
    let mut seen = BTreeSet::new();
    text.lines()
        .filter(|line| seen.insert(*line))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn commit(dir: &Path, message: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    file.write_all(message.as_bytes())
        .context("cannot write a temporary file")?;
    run::output(
        git(dir)
            .args([
                "commit",
                "--quiet",
                "--allow-empty",
                "--no-verify",
                "--cleanup=verbatim",
            ])
            .arg("--file")
            .arg(file.path()),
    )?;
    Ok(())
}

/// Refuses edits in files that git does not know of: they would be lost.
fn untracked_edits(dir: &Path, pristine: &Path) -> Result<()> {
    let tracked = run::output(git(dir).args(["ls-files", "-z"]))?;
    let tracked: BTreeSet<&str> = tracked.split('\0').collect();
    let mut dirs = vec![PathBuf::new()];
    while let Some(inside) = dirs.pop() {
        let from = pristine.join(&inside);
        for entry in
            fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))?
        {
            let entry = entry?;
            let path = inside.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(path);
                continue;
            }
            if !kind.is_file() || tracked.contains(&*path.to_string_lossy()) {
                continue;
            }
            let Ok(theirs) = fs::metadata(dir.join(&path)) else {
                continue;
            };
            let ours = entry.metadata()?;
            let same = theirs.len() == ours.len()
                && (theirs.modified()? == ours.modified()?
                    || fs::read(dir.join(&path))? == fs::read(pristine.join(&path))?);
            ensure!(
                same,
                "{} was edited, but git does not track it: in {}, `git checkout {BASE_TAG}`, add the \
                 file as it was before, and rebase the series on that",
                path.display(),
                dir.display()
            );
        }
    }
    Ok(())
}

/// What is read from a repository, to be written to `kernel/` in one go.
struct Taken {
    patches: Vec<Patch>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Makes `kernel/` what the commits of a repository say.
fn take_back(kernel: &Path, dir: &Path, base: &str) -> Result<()> {
    // The old series says which files to remove. One that cannot be read (that may
    // be why it is replaced) removes none.
    let old = Series::load_from(kernel)
        .map(|series| series.added())
        .unwrap_or_default();
    let Taken { patches, files } = read_commits(dir, base)?;
    let mut count = 0;
    for (path, content) in &files {
        let to = place(kernel, path);
        if sync::read(&to)?.as_ref() != Some(content) {
            cache::write_whole(&to, content)?;
            count += 1;
        }
    }
    for path in old.iter().filter(|path| !files.contains_key(*path)) {
        let from = place(kernel, path);
        if from.exists() {
            fs::remove_file(&from).with_context(|| format!("cannot remove {}", from.display()))?;
            count += 1;
        }
    }
    let into = kernel.join("patches");
    fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    for patch in &patches {
        count += usize::from(sync::put(
            &into,
            Path::new(&patch.name),
            patch.format().as_bytes(),
        )?);
    }
    for entry in fs::read_dir(&into).with_context(|| format!("cannot read {}", into.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".patch") && !patches.iter().any(|patch| patch.name == name) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {name}"))?;
            count += 1;
        }
    }
    say(
        "Imported",
        format!(
            "{} patches, {count} files written or removed",
            patches.len()
        ),
    );
    Ok(())
}

fn read_commits(dir: &Path, base: &str) -> Result<Taken> {
    let of = |args: &[&str]| run::output(git(dir).args(args));
    of(&[
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("{base}^{{commit}}"),
    ])
    .with_context(|| {
        format!(
            "{} has no commit {base}: name the one before the series with --base",
            dir.display()
        )
    })?;
    for state in ["rebase-merge", "rebase-apply"] {
        let state = of(&["rev-parse", "--git-path", state])?;
        ensure!(
            !dir.join(state.trim_end()).exists(),
            "a rebase is under way in {}, so HEAD is a part of the series: finish it, or \
             `git rebase --abort`",
            dir.display()
        );
    }
    of(&["merge-base", "--is-ancestor", base, "HEAD"])
        .with_context(|| format!("{base} is not below HEAD in {}", dir.display()))?;
    let range = format!("{base}..HEAD");
    ensure!(
        of(&["rev-list", "--merges", &range])?.is_empty(),
        "there is a merge in {range}: the series is one line of commits"
    );
    let in_base = of(&["ls-tree", "-r", "-z", "--name-only", base])?;
    let in_base: BTreeSet<&str> = in_base.split('\0').collect();

    let mut patches: Vec<Patch> = Vec::new();
    // Of the new files, those that more than one commit is about.
    let mut later: BTreeSet<PathBuf> = BTreeSet::new();
    for commit in of(&["rev-list", "--reverse", &range])?.lines() {
        let subject = of(&["log", "-1", "--format=%s", commit])?.trim().to_owned();
        let body = of(&["log", "-1", "--format=%b", commit])?.trim().to_owned();
        let name = patch::file_name(patches.len(), &subject);
        let what = format!("commit `{subject}`");
        let mut adds = Vec::new();
        let mut touches = Vec::new();
        let changes = of(&[
            "diff-tree",
            "-r",
            "-z",
            "--no-renames",
            "--no-commit-id",
            "--name-status",
            commit,
        ])?;
        let mut fields = changes.split('\0');
        while let (Some(status), Some(path)) = (fields.next(), fields.next()) {
            let changed = later.contains(Path::new(path));
            let owner = patches
                .iter_mut()
                .find(|patch| patch.adds.iter().any(|add| add == Path::new(path)));
            match (status, in_base.contains(path), owner) {
                ("M", true, _) => touches.push(path.to_owned()),
                ("A", false, None) => adds.push(PathBuf::from(path)),
                ("M", false, Some(_)) => {
                    later.insert(PathBuf::from(path));
                    touches.push(path.to_owned());
                }
                ("D", false, Some(owner)) if !changed => {
                    owner.adds.retain(|add| add != Path::new(path));
                }
                _ => bail!("{what}: the series cannot express what it does to {path} ({status})"),
            }
        }
        let diff = if touches.is_empty() {
            String::new()
        } else {
            let mut git = git(dir);
            git.args([
                "diff-tree",
                "-p",
                "--no-commit-id",
                "--no-renames",
                "--no-color",
            ])
            .args([
                "--no-ext-diff",
                "--no-textconv",
                "--src-prefix=a/",
                "--dst-prefix=b/",
                "-U3",
            ])
            .arg(commit)
            .arg("--")
            .args(&touches);
            plain(&run::output(&mut git)?).with_context(|| what.clone())?
        };
        ensure!(
            !adds.is_empty() || !diff.is_empty(),
            "{what} leaves nothing of its own: squash it into an earlier one (`git rebase -i {base}`)"
        );
        patches.push(Patch {
            name,
            subject,
            body,
            adds,
            diff,
        });
    }

    let added: BTreeSet<PathBuf> = patches
        .iter()
        .flat_map(|patch| patch.adds.iter().cloned())
        .collect();
    // Edits that are not committed yet have one place to go to in a new file that one
    // commit is about; the others would need to know their commit.
    let status = of(&[
        "status",
        "--porcelain",
        "-z",
        "--no-renames",
        "--untracked-files=all",
    ])?;
    for entry in status.split('\0').filter(|entry| !entry.is_empty()) {
        let (state, path) = entry.split_at(3);
        ensure!(
            added.contains(Path::new(path))
                && !later.contains(Path::new(path))
                && !state.contains('D'),
            "{path} is edited or new in {} and not committed: commit it (`git commit --fixup`, `git rebase \
             -i --autosquash {base}`)",
            dir.display()
        );
    }
    let mut files = BTreeMap::new();
    for path in added {
        let from = dir.join(&path);
        let content = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        files.insert(path, content);
    }
    Ok(Taken { patches, files })
}

/// A diff without the lines that change when nothing does.
fn plain(diff: &str) -> Result<String> {
    let mut text = String::new();
    for line in diff.split_inclusive('\n') {
        ensure!(
            !["old mode", "new mode", "Binary files"]
                .iter()
                .any(|start| line.starts_with(start)),
            "the series cannot express `{}`",
            line.trim_end()
        );
        if !line.starts_with("diff --git ") && !line.starts_with("index ") {
            text.push_str(line);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write, World, C},
        *,
    };

    fn contents(kernel: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![kernel.parent().unwrap().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    found.insert(path.clone(), fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }

    fn sh(dir: &Path, script: &str) {
        let mut command = git(dir);
        let envs: Vec<_> = command
            .get_envs()
            .map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned)))
            .collect();
        command = Command::new("sh");
        command.arg("-ec").arg(script).current_dir(dir);
        for (key, value) in envs {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        run::output(&mut command).unwrap();
    }

    /// A file that git does not know before it is patched would come back as a new one.
    #[test]
    fn what_is_patched_is_tracked() {
        let series = Series::load().unwrap();
        let tree = tempfile::tempdir().unwrap();
        let touched = series.touched().unwrap();
        for path in &touched {
            write(&tree.path().join(path), "");
        }
        let tracked = tracked(&series, tree.path()).unwrap();
        for path in touched {
            assert!(
                tracked.iter().any(|known| path.starts_with(known)),
                "{path:?}"
            );
        }
    }

    #[test]
    fn there_and_back_changes_nothing() {
        let world = World::new();
        let before = contents(&world.kernel);
        let repository = small(&world.series(), &world.tree).unwrap();
        take_back(&world.kernel, repository.path(), BASE_TAG).unwrap();
        assert_eq!(contents(&world.kernel), before);
    }

    /// The lines with `@@` are those that the kernel's own git would write.
    #[test]
    fn hunks_are_named_by_the_function_they_are_in() {
        let world = World::new();
        write(
            &world.tree.join("io_uring/a.c"),
            &C.replace("one\ntwo\n", "int f(void)\n{\nlabel:\n"),
        );
        let path = world.kernel.join("patches/0001-io_uring-first.patch");
        let text = fs::read_to_string(&path).unwrap();
        write(
            &path,
            &text.replace("@@ -3,6 +3,7 @@ two", "@@ -4,6 +4,7 @@"),
        );
        refresh_in(&world.series(), &world.tree).unwrap();
        let first = &world.series().patches[0];
        assert!(
            first.diff.contains("@@ -4,6 +4,7 @@ int f(void)\n"),
            "{}",
            first.diff
        );
    }

    #[test]
    fn commits_become_patches_and_files() {
        let world = World::new();
        let repository = small(&world.series(), &world.tree).unwrap();
        sh(
            repository.path(),
            "sed -i s/one/ONE/ io_uring/a.c; echo new > io_uring/group/new.rs
             git rm -q io_uring/group/state.rs; git add -f .; git commit -qm 'io_uring: third' -m Why.",
        );
        take_back(&world.kernel, repository.path(), BASE_TAG).unwrap();
        let series = world.series();
        series.account().unwrap();
        let third = &series.patches[2];
        assert_eq!(third.name, "0003-io_uring-third.patch");
        assert_eq!(
            (third.subject.as_str(), third.body.as_str()),
            ("io_uring: third", "Why.")
        );
        assert_eq!(third.adds, [PathBuf::from("io_uring/group/new.rs")]);
        assert!(third.diff.contains("-one\n+ONE\n"), "{}", third.diff);
        assert!(!world.kernel.join("io_uring/group/state.rs").exists());
        let files = apply::apply(&series, |path| sync::read(&world.tree.join(path))).unwrap();
        assert!(String::from_utf8_lossy(&files[Path::new("io_uring/a.c")]).contains("ONE"));
    }

    #[test]
    fn an_edit_of_a_new_file_needs_no_commit_and_others_do() {
        let world = World::new();
        let repository = small(&world.series(), &world.tree).unwrap();
        write(
            &repository.path().join("io_uring/group/Kconfig"),
            "config EDITED\n",
        );
        take_back(&world.kernel, repository.path(), BASE_TAG).unwrap();
        let kconfig = fs::read_to_string(world.kernel.join("../Kconfig")).unwrap();
        assert_eq!(kconfig, "config EDITED\n");

        write(&repository.path().join("io_uring/a.c"), "edited\n");
        let error = take_back(&world.kernel, repository.path(), BASE_TAG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("io_uring/a.c is edited"), "{error}");
    }

    #[test]
    fn half_a_rebase_is_not_the_series() {
        let world = World::new();
        let before = contents(&world.kernel);
        let repository = small(&world.series(), &world.tree).unwrap();
        sh(
            repository.path(),
            "GIT_SEQUENCE_EDITOR='sed -i 1s/^pick/edit/' git rebase -q -i sqe-group-base",
        );
        let error = take_back(&world.kernel, repository.path(), BASE_TAG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("a rebase is under way"), "{error}");
        assert_eq!(contents(&world.kernel), before);
    }

    /// As [`World::new`], and a third patch changes what the second adds.
    fn in_steps() -> World {
        let world = World::new();
        write(
            &world.kernel.join("io_uring/group/state.rs"),
            "one\ntwo\nthree\nfour\nfive\nsix\nseven\nlast\n",
        );
        write(
            &world.kernel.join("patches/0003-io_uring-third.patch"),
            "Subject: io_uring: third\n\nBecause.\n\n---\n--- a/io_uring/group/state.rs\n\
             +++ b/io_uring/group/state.rs\n@@ -5,3 +5,4 @@\n five\n six\n seven\n+last\n",
        );
        world.series().account().unwrap();
        world
    }

    #[test]
    fn a_file_that_comes_in_steps_goes_there_and_back() {
        let world = in_steps();
        let before = contents(&world.kernel);
        let repository = small(&world.series(), &world.tree).unwrap();
        let at = |commit: &str| {
            let path = format!("{commit}:io_uring/group/state.rs");
            run::output(git(repository.path()).args(["show", &path])).unwrap()
        };
        assert!(!at("HEAD^").contains("last"));
        assert!(at("HEAD").ends_with("seven\nlast\n"));
        take_back(&world.kernel, repository.path(), BASE_TAG).unwrap();
        assert_eq!(contents(&world.kernel), before);
    }

    #[test]
    fn an_edit_of_a_commit_in_the_middle_comes_back() {
        let world = in_steps();
        let repository = small(&world.series(), &world.tree).unwrap();
        sh(
            repository.path(),
            "sed -i -e s/one/ONE/ io_uring/group/state.rs; sed -i s/NINE/nein/ io_uring/a.c
             git commit -qa --fixup HEAD^
             GIT_SEQUENCE_EDITOR=true git rebase -q -i --autosquash sqe-group-base",
        );
        let third = world.series().patches[2].clone();
        take_back(&world.kernel, repository.path(), BASE_TAG).unwrap();
        let series = world.series();
        series.account().unwrap();
        let state = Path::new("io_uring/group/state.rs");
        let text = |content: Vec<u8>| String::from_utf8(content).unwrap();
        assert!(text(series.first(2).content(state).unwrap()).ends_with("seven\n"));
        let last = text(series.content(state).unwrap());
        assert!(last.starts_with("ONE\n") && last.ends_with("seven\nlast\n"));
        assert!(series.patches[1].diff.contains("+nein"));
        assert_eq!(series.patches[2], third);
    }

    #[test]
    fn an_edit_of_a_file_that_comes_in_steps_needs_a_commit() {
        let world = in_steps();
        let repository = small(&world.series(), &world.tree).unwrap();
        write(&repository.path().join("io_uring/group/state.rs"), "x\n");
        let error = take_back(&world.kernel, repository.path(), BASE_TAG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("autosquash"), "{error}");
    }

    /// Edits of a file that comes in steps: of what the first patch brings, and of what the
    /// later one does. The second does not fit any more.
    #[test]
    fn refresh_gives_each_edit_to_its_patch() {
        let world = in_steps();
        let root = world.kernel.parent().unwrap();
        sh(
            root,
            "git init -q; git add -A; git -c user.name=x -c user.email=x@y commit -qm x",
        );
        write(
            &world.kernel.join("io_uring/group/state.rs"),
            "ONE\ntwo\nthree\nfour\nfive\nsix\nseven\nthe very last\n",
        );
        let error = world.series().account().unwrap_err();
        assert!(error.is::<apply::Edited>(), "{error}");
        refresh_in(&world.series(), &world.tree).unwrap();
        let series = world.series();
        series.account().unwrap();
        let first = series
            .first(2)
            .content(Path::new("io_uring/group/state.rs"));
        assert_eq!(
            String::from_utf8(first.unwrap()).unwrap(),
            "ONE\ntwo\nthree\nfour\nfive\nsix\nseven\n"
        );
        assert!(series.patches[2].diff.contains("+the very last"));
    }

    #[test]
    fn a_commit_that_is_left_empty_is_refused() {
        let world = World::new();
        let repository = small(&world.series(), &world.tree).unwrap();
        sh(
            repository.path(),
            "git rm -q io_uring/group/state.rs; git commit -qm 'io_uring: not that one'",
        );
        let before = contents(&world.kernel);
        let error = take_back(&world.kernel, repository.path(), BASE_TAG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("squash"), "{error}");
        assert_eq!(contents(&world.kernel), before);
    }

    #[test]
    fn an_edit_outside_of_gits_sight_is_refused() {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        run::output(Command::new("cp").arg("-a").arg(&world.tree).arg(&copy)).unwrap();
        let tracked = ["io_uring/a.c".into()];
        lay_out(&world.series(), &copy, &tracked, None, &Versions::new()).unwrap();
        untracked_edits(&copy, &world.tree).unwrap();
        write(&copy.join("io_uring/other.c"), "edited\n");
        let error = untracked_edits(&copy, &world.tree).unwrap_err().to_string();
        assert!(error.contains("io_uring/other.c"), "{error}");
    }

    #[test]
    fn a_new_file_is_not_overlooked() {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        run::output(Command::new("cp").arg("-a").arg(&world.tree).arg(&copy)).unwrap();
        write(&copy.join(".gitignore"), "*.o\n/*\n!/debian/\n");
        show_all(&copy).unwrap();
        lay_out(
            &world.series(),
            &copy,
            &[".gitignore".into(), "io_uring".into()],
            None,
            &Versions::new(),
        )
        .unwrap();
        write(&copy.join("io_uring/built.o"), "");
        write(&copy.join("elsewhere"), "");
        take_back(&world.kernel, &copy, BASE_TAG).unwrap();
        write(&copy.join("io_uring/new.c"), "");
        let error = take_back(&world.kernel, &copy, BASE_TAG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("io_uring/new.c is edited or new"), "{error}");
    }

    #[test]
    fn mails_hold_the_new_files() {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let mails = mails(&world.series(), &world.tree, dir.path()).unwrap();
        assert_eq!(mails.len(), 2);
        let text = fs::read_to_string(&mails[1]).unwrap();
        assert!(text.contains("[PATCH 2/2] io_uring: second") && text.contains("\n+state\n"));
    }
}
