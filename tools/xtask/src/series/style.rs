// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's checkpatch says of a patch, and which of that is meant to be.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// `ci/checkpatch.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
    /// Those that there was a remark for, by index and kind.
    #[serde(skip)]
    used: BTreeSet<(usize, String)>,
}

/// Remarks on one file that are not acted on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    file: String,
    types: BTreeSet<String>,
    /// Why the file is right.
    #[expect(dead_code, reason = "it is read by people, and must be there")]
    reason: String,
}

/// A remark of checkpatch's.
#[derive(Debug, PartialEq, Eq)]
struct Remark<'a> {
    kind: &'a str,
    /// None where it is about the message.
    file: Option<&'a str>,
    /// All that it printed of it.
    text: &'a str,
}

impl Exceptions {
    pub(super) fn load(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not well-formed", path.display()))
    }

    /// What is left of checkpatch's output.
    pub(super) fn rest(&mut self, output: &str) -> String {
        let mut rest = String::new();
        for remark in remarks(output) {
            let excepted = self.exception.iter().position(|exception| {
                Some(exception.file.as_str()) == remark.file
                    && exception.types.contains(remark.kind)
            });
            match excepted {
                Some(index) => {
                    self.used.insert((index, remark.kind.to_owned()));
                }
                None => {
                    rest.push_str(remark.text.trim_end());
                    rest.push_str("\n\n");
                }
            }
        }
        rest
    }

    /// The exceptions that there was nothing for.
    pub(super) fn stale(&self) -> Vec<String> {
        let mut stale = Vec::new();
        for (index, Exception { file, types, .. }) in self.exception.iter().enumerate() {
            for kind in types {
                if !self.used.contains(&(index, kind.clone())) {
                    stale.push(format!("{file}: {kind}"));
                }
            }
        }
        stale
    }
}

/// Takes the output of `checkpatch.pl --show-types` apart.
fn remarks(output: &str) -> Vec<Remark<'_>> {
    let mut remarks = Vec::new();
    for text in output.split("\n\n") {
        let text = text.trim_start_matches('\n');
        let mut lines = text.lines();
        let kind = lines.next().and_then(|line| {
            let (level, rest) = line.split_once(':')?;
            let (kind, _) = rest.split_once(':')?;
            ["ERROR", "WARNING", "CHECK"]
                .contains(&level)
                .then_some(kind)
        });
        let Some(kind) = kind else { continue };
        let file = lines.next().and_then(|line| {
            let (_, place) = line.split_once(" FILE: ")?;
            let (file, _) = place.split_once(':')?;
            Some(file)
        });
        remarks.push(Remark { kind, file, text });
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    const OUTPUT: &str = "\
CHECK:SPACING: No space is necessary after a cast
#82: FILE: include/linux/x.h:669:
+	X		= (__force y) 0,

WARNING:COMMIT_LOG_LONG_LINE: Prefer a maximum 75 chars per line
#8: 
long

ERROR:CODE_INDENT: code indent should use tabs
#9: FILE: a.c:1:
+        x

total: 1 errors, 1 warnings, 1 checks, 42 lines checked
";

    fn exceptions(file: &str, kind: &str) -> Exceptions {
        toml::from_str(&format!(
            "[[exception]]\nfile = \"{file}\"\ntypes = [\"{kind}\"]\nreason = \"x\"\n"
        ))
        .unwrap()
    }

    #[test]
    fn remarks_have_a_kind_and_mostly_a_file() {
        let found: Vec<_> = remarks(OUTPUT)
            .iter()
            .map(|remark| (remark.kind, remark.file))
            .collect();
        assert_eq!(
            found,
            [
                ("SPACING", Some("include/linux/x.h")),
                ("COMMIT_LOG_LONG_LINE", None),
                ("CODE_INDENT", Some("a.c")),
            ]
        );
    }

    #[test]
    fn an_exception_is_for_its_file_and_kind() {
        let mut fits = exceptions("include/linux/x.h", "SPACING");
        let rest = fits.rest(OUTPUT);
        assert!(!rest.contains("SPACING") && rest.contains("CODE_INDENT") && rest.contains("long"));
        assert!(fits.stale().is_empty());
        for (file, kind) in [("a.c", "SPACING"), ("include/linux/x.h", "CODE_INDENT")] {
            let mut other = exceptions(file, kind);
            assert!(other.rest(OUTPUT).contains("SPACING"));
            assert_eq!(other.stale(), [format!("{file}: {kind}")]);
        }
        assert_eq!(Exceptions::default().rest("\n"), "");
    }

    #[test]
    fn what_is_excepted_is_well_formed_and_has_reasons() {
        Exceptions::load(&paths::root().unwrap().join("ci/checkpatch.toml")).unwrap();
        let without = "[[exception]]\nfile = \"a\"\ntypes = [\"B\"]\n";
        assert!(toml::from_str::<Exceptions>(without).is_err());
    }
}
