// SPDX-License-Identifier: GPL-2.0-only
//! Whether the man pages and the .rst can be read by what readers use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, ensure, Context as _, Result};

use crate::{checks::Checks, paths, run, toolchain};

/// What looks at a document.
struct Reader {
    /// The first of these that is there.
    programs: &'static [&'static str],
    /// Debian's package of it.
    package: &'static str,
    arguments: &'static [&'static str],
    /// What it says though nothing is wrong.
    allowed: &'static [&'static str],
}

/// `man -l` runs groff. What is laid out too tightly is a warning of its own, and one that
/// depends on the width of the paper.
const GROFF: Reader = Reader {
    programs: &["groff"],
    package: "groff-base",
    arguments: &["-man", "-Tutf8", "-ww", "-z", "-rLL=78n"],
    allowed: &[],
};

const MANDOC: Reader = Reader {
    programs: &["mandoc"],
    package: "mandoc",
    arguments: &["-Tlint", "-Wwarning"],
    allowed: &[],
};

/// What Sphinx, and so the kernel's `make htmldocs`, reads .rst with.
const DOCUTILS: Reader = Reader {
    programs: &["rst2html", "rst2html5", "rst2html.py"],
    package: "python3-docutils",
    arguments: &["--report=2", "--exit-status=2", "--halt=5"],
    allowed: &[],
};

impl Reader {
    fn find(&self) -> Option<PathBuf> {
        self.programs
            .iter()
            .find_map(|name| toolchain::find_program(name))
    }

    /// Reads a document and is content only without a word.
    fn read(&self, program: &Path, document: &Path) -> Result<()> {
        let mut said = String::new();
        let mut command = Command::new(program);
        command.args(self.arguments).arg(document);
        let null = self.package == DOCUTILS.package;
        if null {
            command.arg("/dev/null");
        }
        let status = run::lines(&mut command, |line| {
            if !self.allowed.iter().any(|allowed| line.contains(allowed)) {
                said.push_str(line);
                said.push('\n');
            }
            Ok(())
        })?;
        ensure!(said.is_empty(), "\n{}", said.trim_end());
        ensure!(
            status.success(),
            "{} ended with {status}",
            program.display()
        );
        Ok(())
    }
}

/// The documents in a directory, in order.
fn documents(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(&wanted) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("{} holds no document", dir.display());
    }
    Ok(found)
}

/// Every reader on every document of its kind.
pub(super) fn check(checks: &mut Checks) -> Result<()> {
    let dir = paths::root()?.join("Documentation");
    let pages = documents(&dir.join("man"), |extension| {
        extension.len() == 1 && extension.starts_with(|digit: char| digit.is_ascii_digit())
    })?;
    let texts = documents(&dir, |extension| extension == "rst")?;
    for (reader, documents) in [(GROFF, &pages), (MANDOC, &pages), (DOCUTILS, &texts)] {
        let what = reader.programs[0];
        let Some(program) = reader.find() else {
            checks.skip(&format!(
                "{what} is not here to read {} documents; it is in Debian's {}",
                documents.len(),
                reader.package
            ));
            continue;
        };
        for document in documents {
            let name = document.strip_prefix(&dir).unwrap_or(document);
            checks.add(
                &format!("{}: {what} reads it without a word", name.display()),
                reader.read(&program, document),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that sees nothing must not look like a document without a fault.
    #[test]
    fn a_fault_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        for (reader, name, good, bad) in [
            (
                GROFF,
                "a.7",
                ".TH a 7 2026-01-01 x\n.SH NAME\na \\- b\n",
                ".TH a 7 2026-01-01 x\n.SH NAME\n.NOSUCH\na \\- b\n",
            ),
            (
                MANDOC,
                "b.7",
                ".TH a 7 2026-01-01 x\n.SH NAME\na \\- b\n",
                ".TH a 7 2026-01-01 x\n.SH NAME\n.NOSUCH\na \\- b\n",
            ),
            (
                DOCUTILS,
                "c.rst",
                "=\na\n=\n\nText.\n",
                "=\na\n=\n\nText_.\n",
            ),
        ] {
            // Which of them is here is up to the machine.
            let Some(program) = reader.find() else {
                continue;
            };
            let path = dir.path().join(name);
            fs::write(&path, good).unwrap();
            reader.read(&program, &path).unwrap();
            fs::write(&path, bad).unwrap();
            assert!(reader.read(&program, &path).is_err(), "{name}");
        }
    }

    #[test]
    fn no_document_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.rst"), "").unwrap();
        assert!(documents(dir.path(), |extension| extension == "7").is_err());
        assert_eq!(documents(dir.path(), |_| true).unwrap().len(), 1);
    }
}
