// SPDX-License-Identifier: GPL-2.0-only
//! The format of one file in `kernel/patches/`.
//!
//! One file is one commit: its message, the new files that it brings, and its
//! hunks on files that were there before.
//!
//! ```text
//! Subject: io_uring: say what it does
//!
//! Why, in the words of a commit message.
//!
//! Adds: io_uring/group/Makefile
//! Adds: io_uring/group/state.rs
//! ---
//! --- a/io_uring/Makefile
//! +++ b/io_uring/Makefile
//! @@ -1,3 +1,4 @@
//! ...
//! ```
//!
//! - Files are named `NNNN-slug.patch`, numbered from 0001 without a gap.
//! - `Subject:` is the first line and holds one line. A blank line follows.
//! - `Adds:` lines come last before the `---`. Each names one new file by its path
//!   in the kernel tree. The file itself stands in `kernel/` under the same path
//!   (the few exceptions are in `place()`), whole and in its final form: what the
//!   last patch makes of it. The patch that adds it brings that form without the
//!   hunks that later patches have for it. So nothing stands twice.
//! - After the `---` come unified diffs with `a/` and `b/` before the paths. Lines
//!   `diff --git` and `index` are read over, and not written: they would change
//!   with every edit of an earlier patch. A patch that only adds files ends with
//!   the `---`.

use std::path::{Component, Path, PathBuf};

use anyhow::{bail, ensure, Context as _, Result};

/// Ends the message. Also the beginning of a diff's first line, so it is told by
/// the whole line.
const RULE: &str = "---";

/// One commit of the series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// The file's name in `kernel/patches/`.
    pub(crate) name: String,
    /// The first line of the commit message.
    pub(crate) subject: String,
    /// The rest of the message, without blank lines around it.
    pub(crate) body: String,
    /// The files that it brings, as paths in the kernel tree.
    pub(crate) adds: Vec<PathBuf>,
    /// Its hunks, as unified diff; empty if there are none.
    pub(crate) diff: String,
}

impl Patch {
    /// Takes a file of `kernel/patches/` apart.
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong in it.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        Self::parse_inner(name, text).with_context(|| format!("kernel/patches/{name}"))
    }

    fn parse_inner(name: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let subject = lines
            .next()
            .and_then(|line| line.strip_prefix("Subject: "))
            .context("the first line is not `Subject: ...`")?
            .trim()
            .to_owned();
        ensure!(!subject.is_empty(), "the subject is empty");
        ensure!(
            lines.next() == Some(""),
            "no blank line follows the subject"
        );

        let mut message: Vec<&str> = Vec::new();
        let mut ended = false;
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            offset += line.len();
            if line.trim_end() == RULE {
                ended = true;
                break;
            }
            message.push(line.trim_end());
        }
        ensure!(ended, "no line `---` ends the message");
        message.drain(..2);
        while message.last() == Some(&"") {
            message.pop();
        }
        let mut adds = Vec::new();
        while let Some(path) = message.last().and_then(|line| line.strip_prefix("Adds: ")) {
            adds.insert(0, tree_path(path)?);
            message.pop();
        }
        if let Some(line) = message.iter().find(|line| line.starts_with("Adds:")) {
            bail!("`{line}` is not among the last lines before the `---`");
        }
        let body = message.join("\n").trim().to_owned();
        let diff = text[offset..].to_owned();
        let patch = Self {
            name: name.to_owned(),
            subject,
            body,
            adds,
            diff,
        };
        patch.touches()?;
        ensure!(
            !patch.adds.is_empty() || !patch.diff.trim().is_empty(),
            "it changes nothing"
        );
        Ok(patch)
    }

    /// Puts the file together again.
    pub(crate) fn format(&self) -> String {
        let Self {
            name: _,
            subject,
            body,
            adds,
            diff,
        } = self;
        let mut text = format!("Subject: {subject}\n\n");
        if !body.is_empty() {
            text.push_str(body);
            text.push_str("\n\n");
        }
        for path in adds {
            text.push_str(&format!("Adds: {}\n", path.display()));
        }
        text.push_str(RULE);
        text.push('\n');
        text.push_str(diff);
        text
    }

    /// The files that it changes, of the base or added by earlier patches, in the
    /// order of its hunks.
    ///
    /// # Errors
    ///
    /// Refuses what the format does not have: files that come, go, or are renamed
    /// by a diff.
    pub(crate) fn touches(&self) -> Result<Vec<PathBuf>> {
        let mut touched = Vec::new();
        let mut hunk = Hunk::default();
        let mut lines = self.diff.lines();
        while let Some(line) = lines.next() {
            if hunk.takes(line) {
                continue;
            }
            if let Some(header) = line.strip_prefix("@@ ") {
                ensure!(
                    !touched.is_empty(),
                    "`{line}` comes before the name of its file"
                );
                hunk = Hunk::parse(header).with_context(|| format!("`{line}` is not a hunk"))?;
            } else if let Some(old) = line.strip_prefix("--- ") {
                let new = lines
                    .next()
                    .and_then(|line| line.strip_prefix("+++ "))
                    .with_context(|| format!("no `+++` line follows `{line}`"))?;
                let (Some(old), Some(new)) = (old.strip_prefix("a/"), new.strip_prefix("b/"))
                else {
                    bail!(
                        "`{line}`: a file that comes or goes; new files stand in kernel/ and are \
                         named by `Adds:`"
                    );
                };
                ensure!(
                    old == new,
                    "{old} is renamed to {new}: the series cannot do that"
                );
                touched.push(tree_path(old)?);
            } else if line.is_empty()
                || ["\\", "diff --git ", "index "]
                    .iter()
                    .any(|start| line.starts_with(start))
            {
                continue;
            } else {
                bail!("`{line}` is neither the name of a file nor part of a hunk");
            }
        }
        ensure!(hunk.is_done(), "the last hunk is cut off");
        Ok(touched)
    }

    /// The commit message as git has it.
    pub(crate) fn message(&self) -> String {
        if self.body.is_empty() {
            format!("{}\n", self.subject)
        } else {
            format!("{}\n\n{}\n", self.subject, self.body)
        }
    }
}

/// The name of the patch at `index` (from 0), as git would make it from a subject.
pub(crate) fn file_name(index: usize, subject: &str) -> String {
    let mut slug = String::new();
    for character in subject.chars() {
        if character.is_ascii_alphanumeric() || character == '_' {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug: String = slug.trim_matches('-').chars().take(52).collect();
    format!("{:04}-{}.patch", index + 1, slug.trim_end_matches('-'))
}

/// What is left of a hunk, in lines.
#[derive(Default)]
struct Hunk {
    old: usize,
    new: usize,
}

impl Hunk {
    /// From what follows `@@ `.
    fn parse(header: &str) -> Option<Self> {
        let (ranges, _) = header.split_once(" @@")?;
        let (old, new) = ranges.split_once(' ')?;
        let count = |range: &str, sign| {
            let range = range.strip_prefix(sign)?;
            match range.split_once(',') {
                Some((_, count)) => count.parse().ok(),
                None => Some(1),
            }
        };
        Some(Self {
            old: count(old, '-')?,
            new: count(new, '+')?,
        })
    }

    /// Whether the line belongs to the hunk; if so it is counted.
    fn takes(&mut self, line: &str) -> bool {
        if self.is_done() {
            return false;
        }
        match line.as_bytes().first() {
            Some(b'-') => self.old = self.old.saturating_sub(1),
            Some(b'+') => self.new = self.new.saturating_sub(1),
            // Some editors strip the blank of an empty line of context.
            Some(b' ') | None => {
                self.old = self.old.saturating_sub(1);
                self.new = self.new.saturating_sub(1);
            }
            Some(b'\\') => {}
            Some(_) => return false,
        }
        true
    }

    fn is_done(&self) -> bool {
        self.old == 0 && self.new == 0
    }
}

/// A path within the kernel tree.
///
/// # Errors
///
/// Refuses one that leads out of it.
fn tree_path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text.trim());
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        inside && path.components().next().is_some(),
        "`{text}` is not a path in the tree"
    );
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Subject: io_uring: do it

Why.

Because - see below.

Adds: io_uring/group/Kconfig
Adds: io_uring/group/state.rs
---
--- a/io_uring/Makefile
+++ b/io_uring/Makefile
@@ -1,3 +1,3 @@
 one
--- two
+++ two
 three
";

    #[test]
    fn what_is_parsed_is_formatted_to_the_same_text() {
        let patch = Patch::parse("0001-x.patch", TEXT).unwrap();
        assert_eq!(patch.subject, "io_uring: do it");
        assert_eq!(patch.body, "Why.\n\nBecause - see below.");
        assert_eq!(
            patch.adds,
            ["io_uring/group/Kconfig", "io_uring/group/state.rs"].map(PathBuf::from)
        );
        // The removed line `-- two` looks like the name of a file and is none.
        assert_eq!(
            patch.touches().unwrap(),
            [PathBuf::from("io_uring/Makefile")]
        );
        assert_eq!(patch.format(), TEXT);
    }

    #[test]
    fn a_patch_may_only_add() {
        let text = "Subject: io_uring: x\n\nAdds: a/b\n---\n";
        let patch = Patch::parse("0001-x.patch", text).unwrap();
        assert!(patch.body.is_empty() && patch.diff.is_empty());
        assert_eq!(patch.format(), text);
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = format!("{:#}", Patch::parse("0007-x.patch", text).unwrap_err());
        assert!(
            error.contains("0007-x.patch") && error.contains(why),
            "{error}"
        );
    }

    #[test]
    fn each_fault_is_named() {
        refused("From: me\n", "first line");
        refused("Subject: a\nb\n---\n", "blank line");
        refused("Subject: a\n\nb\n", "`---`");
        refused("Subject: a\n\nb\n---\n", "changes nothing");
        refused("Subject: a\n\nAdds: ../b\n---\n", "../b");
        refused("Subject: a\n\nAdds: /etc/passwd\n---\n", "/etc/passwd");
        refused("Subject: a\n\nAdds: b\nmore\n---\n", "last lines");
        refused(
            "Subject: a\n\n---\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
            "comes or goes",
        );
        refused(
            "Subject: a\n\n---\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n-x\n+x\n",
            "renamed",
        );
        refused(
            "Subject: a\n\n---\n--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-x\n+x\n",
            "cut off",
        );
        refused("Subject: a\n\n---\nrubbish\n", "rubbish");
        refused(
            "Subject: a\n\n---\n@@ -1 +1 @@\n-x\n+x\n",
            "before the name",
        );
    }

    #[test]
    fn names_are_as_of_git() {
        assert_eq!(
            file_name(0, "io_uring: add `x` & y (z)"),
            "0001-io_uring-add-x-y-z.patch"
        );
        assert!(file_name(9, &"long ".repeat(40)).len() <= "0010-.patch".len() + 52);
    }
}
