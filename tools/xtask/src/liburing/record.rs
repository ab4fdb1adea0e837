// SPDX-License-Identifier: GPL-2.0-only
//! `ci/liburing.toml`: which liburing, with what its tests are run, and what is known of
//! them.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{ensure, Context as _, Result};
use serde::Deserialize;

use crate::{kvm::Accel, paths};

/// All of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) source: Source,
    #[serde(default, rename = "setting")]
    pub(super) settings: Vec<Setting>,
    #[serde(default, rename = "with")]
    pub(super) with: Vec<With>,
    #[serde(default, rename = "known")]
    pub(super) known: Vec<Known>,
}

/// Where the tests come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) version: String,
    /// Debian's source package.
    pub(super) package: String,
    pub(super) suite: String,
    /// Of the archive as it was released.
    pub(super) sha256: String,
    /// What tests need of the kernel's exported headers that a system may not have yet.
    pub(super) headers: Vec<PathBuf>,
}

/// What to write into a file of the guest's kernel before the tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    reason: String,
}

/// Tests that are run once more, with an argument.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct With {
    pub(super) argument: String,
    pub(super) tests: Vec<String>,
}

/// What a test does on the base, other than to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Does {
    Skip,
    Fail,
    /// Pass at one time and fail at another.
    Vary,
}

/// A test of which something is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    pub(super) test: String,
    pub(super) does: Does,
    /// Only on this kind of machine.
    #[serde(default)]
    on: Option<Accel>,
    pub(super) reason: String,
}

impl Known {
    /// Whether it is meant for this kind of machine.
    pub(super) fn applies(&self, accel: Accel) -> bool {
        self.on.is_none_or(|on| on == accel)
    }
}

impl Record {
    /// Of this checkout.
    pub(super) fn load() -> Result<Self> {
        let path = paths::root()?.join("ci/liburing.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} does not make sense", path.display()))
    }

    /// Of a file's content.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let record: Self = toml::from_str(text)?;
        let mut seen = BTreeSet::new();
        for known in &record.known {
            ensure!(
                !known.reason.trim().is_empty(),
                "no reason is given for {}",
                known.test
            );
            ensure!(
                seen.insert((&known.test, known.on.map(Accel::name))),
                "{} is there twice",
                known.test
            );
        }
        for setting in &record.settings {
            ensure!(
                !setting.reason.trim().is_empty(),
                "no reason is given for {}",
                setting.file
            );
        }
        Ok(record)
    }

    /// What is known of a test on this kind of machine.
    pub(super) fn known(&self, test: &str, accel: Accel) -> Option<&Known> {
        self.known
            .iter()
            .find(|known| known.test == test && known.applies(accel))
    }

    /// All tests, those that are run once more included, by the names under which they
    /// are reported: a program, and its argument if there is one.
    pub(super) fn all(&self, programs: &[String]) -> Result<Vec<String>> {
        let mut all = programs.to_vec();
        for With { argument, tests } in &self.with {
            for test in tests {
                ensure!(
                    programs.contains(test),
                    "ci/liburing.toml names {test}, and liburing has no such test"
                );
                all.push(format!("{test} {argument}"));
            }
        }
        for Known { test, .. } in &self.known {
            ensure!(
                all.contains(test),
                "ci/liburing.toml knows {test}, and there is no such test"
            );
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "[source]\nversion = \"1\"\npackage = \"p\"\nsuite = \"s\"\n\
                          sha256 = \"0\"\nheaders = []\n";

    fn parse(text: &str) -> Result<Record> {
        Record::parse(&format!("{SOURCE}{text}"))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn that_of_this_checkout_makes_sense() {
        let record = Record::parse(include_str!("../../../../ci/liburing.toml")).unwrap();
        assert_eq!(record.source.sha256.len(), 64);
        for setting in &record.settings {
            assert!(setting.file.starts_with('/'), "{}", setting.file);
        }
    }

    #[test]
    fn an_entry_needs_a_reason_and_stands_once() {
        let known = "[[known]]\ntest = \"a\"\ndoes = \"fail\"\n";
        parse(&format!("{known}reason = \"because\"\n")).unwrap();
        parse(known).unwrap_err();
        parse(&format!("{known}reason = \" \"\n")).unwrap_err();
        let twice = format!("{known}reason = \"one\"\n").repeat(2);
        assert!(parse(&twice).unwrap_err().to_string().contains("twice"));
        parse("[[known]]\ntest = \"a\"\ndoes = \"crash\"\nreason = \"no\"\n").unwrap_err();
        parse("[[setting]]\nfile = \"/x\"\nvalue = \"1\"\nreason = \"\"\n").unwrap_err();
    }

    #[test]
    fn an_entry_may_be_for_one_kind_of_machine() {
        let record =
            parse("[[known]]\ntest = \"a\"\ndoes = \"fail\"\non = \"tcg\"\nreason = \"slow\"\n")
                .unwrap();
        assert!(record.known("a", Accel::Tcg).is_some());
        assert!(record.known("a", Accel::Kvm).is_none());
        assert!(record.known("b", Accel::Tcg).is_none());
    }

    #[test]
    fn a_test_with_an_argument_is_one_more() {
        let with = "[[with]]\nargument = \"/dev/x\"\ntests = [\"a\"]\n";
        let record = parse(with).unwrap();
        assert_eq!(
            record.all(&names(&["a", "b"])).unwrap(),
            ["a", "b", "a /dev/x"]
        );
        assert!(record.all(&names(&["b"])).is_err());
        let known = "[[known]]\ntest = \"a /dev/x\"\ndoes = \"skip\"\nreason = \"because\"\n";
        let record = parse(&format!("{with}{known}")).unwrap();
        record.all(&names(&["a"])).unwrap();
        assert!(parse(known).unwrap().all(&names(&["a"])).is_err());
    }
}
