// SPDX-License-Identifier: GPL-2.0-only
//! `Documentation/mistakes.rst`: which mistakes the tests have to find, and what did.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{bail, Result};

use super::rules::filled;
use crate::{
    cache,
    checks::Checks,
    mistakes::list::{self, Found, Mistake},
    paths,
    progress::say,
};

const HEAD: &str = "\
.. SPDX-License-Identifier: GPL-2.0

==================================
SQE groups: mistakes that are made
==================================

.. Written by `cargo xtask docs --write` from ci/mistakes.toml.

Each of these is put into the kernel by ``cargo xtask mistakes``, one at a time, and the tests
have to find it. testing.rst has how, and what the words below are worth. What found a mistake
is the first of its tests that failed, or what the kernel said.
";

fn rst(mistakes: &[Mistake]) -> String {
    let mut text = HEAD.to_owned();
    let (first, others): (Vec<_>, Vec<_>) =
        mistakes.iter().partition(|mistake| mistake.v1.is_some());
    for (title, part) in [
        ("Of the first posting, in April 2024", first),
        ("Others", others),
    ] {
        let title = format!("{title} ({})", part.len());
        // Writing to a String does not fail.
        let _ = write!(text, "\n{title}\n{}\n", "=".repeat(title.len()));
        for mistake in part {
            let _ = write!(text, "\n{}\n", mistake.name);
            text += &filled("  ", &mistake.what);
            text.push('\n');
            text += &filled("  ", &found(mistake));
        }
    }
    text
}

fn found(mistake: &Mistake) -> String {
    match &mistake.found {
        None => "Not tried.".to_owned(),
        Some(Found::Test(test)) => format!("Found by ``{test}``."),
        Some(Found::Kernel { says, in_test }) => {
            format!("Found by the kernel itself ({says}), in ``{in_test}``.")
        }
    }
}

fn path(root: &Path) -> PathBuf {
    root.join("Documentation/mistakes.rst")
}

/// Writes the document anew.
pub(super) fn write() -> Result<()> {
    let path = path(&paths::root()?);
    cache::write_whole(&path, rst(&list::load()?).as_bytes())?;
    say("Wrote", path.display().to_string());
    Ok(())
}

/// Whether the document has what the list has.
pub(super) fn check(checks: &mut Checks) -> Result<()> {
    let there = fs::read_to_string(path(&paths::root()?)).unwrap_or_default();
    let wanted = rst(&list::load()?);
    let same = || -> Result<()> {
        if there != wanted {
            bail!("run `cargo xtask docs --write`");
        }
        Ok(())
    };
    checks.add("mistakes.rst is that of the list", same());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(name: &str, v1: Option<u8>, found: Option<Found>) -> Mistake {
        Mistake {
            name: name.to_owned(),
            v1,
            what: "It is wrong.".to_owned(),
            edits: Vec::new(),
            tests: Vec::new(),
            found,
        }
    }

    #[test]
    fn what_was_not_tried_is_not_said_to_be_found() {
        let text = rst(&[
            mistake("v1_01_a", Some(1), Some(Found::Test("v1::v1_01_b".into()))),
            mistake(
                "c",
                None,
                Some(Found::Kernel {
                    says: "warning".into(),
                    in_test: "form::f1_d".into(),
                }),
            ),
            mistake("e", None, None),
        ]);
        assert!(text.contains("v1_01_a\n  It is wrong.\n\n  Found by ``v1::v1_01_b``.\n"));
        assert!(text.contains("  Found by the kernel itself (warning), in ``form::f1_d``.\n"));
        assert!(text.contains("\ne\n  It is wrong.\n\n  Not tried.\n"));
        assert!(text.contains("\nOthers (2)\n==========\n"));
    }

    /// As `cargo xtask docs` finds it.
    #[test]
    fn the_document_of_this_checkout_is_that_of_its_list() {
        assert_eq!(
            fs::read_to_string(path(&paths::root().unwrap())).unwrap(),
            rst(&list::load().unwrap()),
            "run `cargo xtask docs --write`"
        );
    }
}
