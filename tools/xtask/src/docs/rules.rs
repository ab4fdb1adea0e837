// SPDX-License-Identifier: GPL-2.0-only
//! `Documentation/rules.rst`: which test is for which rule.
//!
//! What rules there are is `ci/rules.toml`, which tests there are is in their sources: a
//! test's name begins with its rule.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context as _, Result};
use regex::Regex;
use serde::Deserialize;

use crate::{cache, checks::Checks, paths, progress::say};

/// The lines of the text may be as long.
const COLUMNS: usize = 90;

/// `ci/rules.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    rule: Vec<Rule>,
    topic: Vec<Topic>,
    v1: Vec<Mistake>,
    hazard: Vec<Hazard>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    says: String,
}

/// What is promised, though not by number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    prefix: String,
    says: String,
}

/// Of the first posting.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mistake {
    number: u8,
    says: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hazard {
    number: u8,
    says: String,
    #[serde(default)]
    tests: Vec<String>,
    /// Why there is no test.
    none: Option<String>,
}

/// Who runs a test, and where it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Guest,
    Core,
    Host,
    Model,
}

impl Place {
    const ALL: [Self; 4] = [Self::Guest, Self::Core, Self::Host, Self::Model];

    fn path(self) -> &'static str {
        match self {
            Self::Guest => "harness/tests/group",
            Self::Core => "kernel/io_uring/group/tests.rs",
            Self::Host => "kernel/tests",
            Self::Model => "harness/model/tests",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Guest => "in the guest",
            Self::Core => "KUnit, host",
            Self::Host => "host",
            Self::Model => "model",
        }
    }
}

/// A function that is named for a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    place: Place,
    /// As `--filter` takes it, for those in the guest.
    name: String,
    /// What it is named for.
    prefix: String,
}

impl Test {
    /// Without its module.
    fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }
}

/// A function's name that begins with a rule, a number of the first posting, or a topic.
fn pattern(list: &List) -> Result<Regex> {
    let topics: Vec<_> = list
        .topic
        .iter()
        .map(|topic| regex::escape(&topic.prefix))
        .collect();
    Regex::new(&format!(
        r"(?m)^\s*fn ((v1_\d\d|[a-z]\d|{})_\w+)\(",
        topics.join("|")
    ))
    .context("a pattern of ours")
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(files(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

/// The module that a file is, in the guest's test binary.
fn module(root: &Path, file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root).ok()?.with_extension("");
    let mut parts: Vec<_> = inside
        .iter()
        .map(|part| part.to_str().unwrap_or_default())
        .collect();
    if matches!(parts.last(), Some(&("mod" | "main"))) {
        parts.pop();
    }
    Some(parts.join("::")).filter(|module| !module.is_empty())
}

fn named(list: &List, root: &Path) -> Result<Vec<Test>> {
    let pattern = pattern(list)?;
    let mut tests = Vec::new();
    for place in Place::ALL {
        let dir = root.join(place.path());
        for file in files(&dir)? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            for captures in pattern.captures_iter(&text) {
                let function = &captures[1];
                let name = match module(&dir, &file) {
                    Some(module) if place == Place::Guest => format!("{module}::{function}"),
                    _ => function.to_owned(),
                };
                tests.push(Test {
                    place,
                    name,
                    prefix: captures[2].to_owned(),
                });
            }
        }
    }
    tests.sort();
    Ok(tests)
}

impl List {
    fn load(root: &Path) -> Result<Self> {
        let path = root.join("ci/rules.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not as it should be", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        let mut prefixes = BTreeSet::new();
        for (prefix, says) in list.prefixes() {
            ensure!(!says.is_empty(), "{prefix} says nothing");
            ensure!(prefixes.insert(prefix.clone()), "{prefix} is there twice");
        }
        for (hazard, number) in list.hazard.iter().zip(1..) {
            ensure!(
                hazard.number == number,
                "hazard {number} is missing, or not at its place"
            );
            ensure!(
                hazard.tests.is_empty() == hazard.none.is_some(),
                "hazard {number} needs either tests, or the reason why there are none"
            );
        }
        Ok(list)
    }

    /// What tests are named for, and what that says.
    fn prefixes(&self) -> Vec<(String, &str)> {
        let Self {
            rule,
            topic,
            v1,
            hazard: _,
        } = self;
        let rules = rule
            .iter()
            .map(|rule| (rule.id.to_lowercase(), rule.says.as_str()));
        let topics = topic
            .iter()
            .map(|topic| (topic.prefix.clone(), topic.says.as_str()));
        let mistakes = v1
            .iter()
            .map(|mistake| (format!("v1_{:02}", mistake.number), mistake.says.as_str()));
        rules.chain(mistakes).chain(topics).collect()
    }

    /// What is not tested, or tested for a rule that is not there.
    fn judge(&self, tests: &[Test]) -> Vec<(String, Result<()>)> {
        let known = self.prefixes();
        let mut verdicts = Vec::new();
        for (prefix, _) in &known {
            let found = tests
                .iter()
                .any(|test| test.place == Place::Guest && test.prefix == *prefix);
            let verdict = if found {
                Ok(())
            } else {
                Err(anyhow::anyhow!(
                    "no test in {} begins with {prefix}_",
                    Place::Guest.path()
                ))
            };
            verdicts.push((format!("{prefix}: it has a test"), verdict));
        }
        let stray: Vec<_> = tests
            .iter()
            .filter(|test| known.iter().all(|(prefix, _)| *prefix != test.prefix))
            .map(|test| test.name.as_str())
            .collect();
        verdicts.push((
            "tests are named for rules that are there".to_owned(),
            if stray.is_empty() {
                Ok(())
            } else {
                Err(anyhow::anyhow!(
                    "{} (ci/rules.toml has the rules)",
                    stray.join(", ")
                ))
            },
        ));
        for hazard in &self.hazard {
            let missing: Vec<_> = hazard
                .tests
                .iter()
                .filter(|name| tests.iter().all(|test| test.function() != *name))
                .map(String::as_str)
                .collect();
            let verdict = if missing.is_empty() {
                Ok(())
            } else {
                Err(anyhow::anyhow!("there is no {}", missing.join(", ")))
            };
            verdicts.push((
                format!("hazard {}: its tests are there", hazard.number),
                verdict,
            ));
        }
        verdicts
    }

    /// The document.
    fn rst(&self, tests: &[Test]) -> String {
        let mut text = HEAD.to_owned();
        let mut section = |title: &str, entries: &[(String, &str, String)]| {
            let _ = write!(text, "\n{title}\n{}\n", "=".repeat(title.len()));
            for (prefix, says, name) in entries {
                let _ = write!(text, "\n{name}\n");
                text += &filled("  ", says);
                for place in Place::ALL {
                    let names: Vec<_> = tests
                        .iter()
                        .filter(|test| test.place == place && test.prefix == *prefix)
                        .map(|test| format!("``{}``", test.name))
                        .collect();
                    if !names.is_empty() {
                        let label = format!("*{} ({})*: ", place.words(), names.len());
                        text.push('\n');
                        text += &filled("  ", &(label + &names.join(", ")));
                    }
                }
            }
        };
        let rules: Vec<_> = self
            .rule
            .iter()
            .map(|rule| (rule.id.to_lowercase(), rule.says.as_str(), rule.id.clone()))
            .collect();
        section("Rules", &rules);
        let topics: Vec<_> = self
            .topic
            .iter()
            .map(|topic| {
                let Topic { prefix, says } = topic;
                (prefix.clone(), says.as_str(), format!("{prefix}\\_"))
            })
            .collect();
        section("More that is promised", &topics);
        let mistakes: Vec<_> = self
            .v1
            .iter()
            .map(|Mistake { number, says }| {
                (
                    format!("v1_{number:02}"),
                    says.as_str(),
                    format!("V1 {number}"),
                )
            })
            .collect();
        section("Mistakes of the first posting, in April 2024", &mistakes);

        let title = "Hazards";
        let _ = write!(text, "\n{title}\n{}\n", "=".repeat(title.len()));
        text += HAZARDS;
        for hazard in &self.hazard {
            let Hazard {
                number,
                says,
                tests,
                none,
            } = hazard;
            let names: Vec<_> = tests.iter().map(|name| format!("``{name}``")).collect();
            let rest = match none {
                Some(why) => format!("No test: {why}"),
                None => names.join(", "),
            };
            let _ = write!(text, "\n{number}\n");
            text += &filled("  ", says);
            text.push('\n');
            text += &filled("  ", &rest);
        }
        text
    }
}

const HEAD: &str = "\
.. SPDX-License-Identifier: GPL-2.0

=================================
SQE groups: rules and their tests
=================================

.. Written by `cargo xtask docs --write` from ci/rules.toml and the names of the tests.

The rules are those of io_uring_sqe_group.rst, in short and with the numbers that tests are
named by. ``cargo xtask qemu-test --filter x4_`` runs the tests of X4 in the guest, each in the
ring modes that matter to it. Those of the core, which decides and knows of no requests, run in
the kernel as KUnit and on the host; those of the model are cases that it has to accept, and
some that it must not.

What has no rule in its name is not here: the search through every order of events
(``kernel/tests/exhaustive.rs``), random programs, the storm's programs, and the selftest in C.
";

const HAZARDS: &str = "
Where each has its comment is in design.rst. Tests are named without their module.
";

/// Words in lines of this document, each of which begins so.
pub(super) fn filled(indent: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > COLUMNS {
            let _ = writeln!(lines, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(lines, "{indent}{line}");
    lines
}

fn path(root: &Path) -> PathBuf {
    root.join("Documentation/rules.rst")
}

fn load() -> Result<(PathBuf, List, Vec<Test>)> {
    let root = paths::root()?;
    let list = List::load(&root)?;
    let tests = named(&list, &root)?;
    ensure!(!tests.is_empty(), "no test is named for a rule");
    Ok((root, list, tests))
}

/// Writes the document anew.
pub(super) fn write() -> Result<()> {
    let (root, list, tests) = load()?;
    let path = path(&root);
    cache::write_whole(&path, list.rst(&tests).as_bytes())?;
    say("Wrote", path.display().to_string());
    Ok(())
}

/// Whether every rule has its tests, and the document says so.
pub(super) fn check(checks: &mut Checks) -> Result<()> {
    let (root, list, tests) = load()?;
    for (what, verdict) in list.judge(&tests) {
        checks.add(&what, verdict);
    }
    let path = path(&root);
    let there = fs::read_to_string(&path).unwrap_or_default();
    let same = || -> Result<()> {
        if there != list.rst(&tests) {
            bail!("run `cargo xtask docs --write`");
        }
        Ok(())
    };
    checks.add("rules.rst is that of the tests", same());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        rule = [{ id = "F1", says = "One." }, { id = "X2", says = "Two." }]
        topic = [{ prefix = "if", says = "Three." }]
        v1 = [{ number = 1, says = "Four." }]
        hazard = [{ number = 1, says = "Five.", tests = ["f1_a"] },
                  { number = 2, says = "Six.", none = "Nobody can." }]
    "#;

    fn test(place: Place, name: &str, prefix: &str) -> Test {
        Test {
            place,
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    fn complete() -> Vec<Test> {
        vec![
            test(Place::Guest, "form::f1_a", "f1"),
            test(Place::Guest, "cancel::x2_a", "x2"),
            test(Place::Guest, "interface::if_a", "if"),
            test(Place::Guest, "v1::v1_01_a", "v1_01"),
            test(Place::Model, "f1_b", "f1"),
        ]
    }

    fn faults(list: &List, tests: &[Test]) -> Vec<String> {
        list.judge(tests)
            .into_iter()
            .filter_map(|(what, verdict)| verdict.err().map(|why| format!("{what}: {why:#}")))
            .collect()
    }

    #[test]
    fn a_rule_without_a_test_is_a_fault() {
        let list = List::parse(GOOD).unwrap();
        assert_eq!(faults(&list, &complete()), [""; 0]);
        for index in 0..4 {
            let mut tests = complete();
            let gone = tests.remove(index);
            let faults = faults(&list, &tests);
            let expected = format!("{}: it has a test", gone.prefix);
            assert!(faults[0].starts_with(&expected), "{faults:?}");
        }
        // One on the host alone does not do.
        let mut tests = complete();
        tests[0].place = Place::Host;
        assert_eq!(faults(&list, &tests).len(), 1);
    }

    #[test]
    fn a_test_without_a_rule_is_a_fault() {
        let list = List::parse(GOOD).unwrap();
        let mut tests = complete();
        tests.push(test(Place::Guest, "form::c9_a", "c9"));
        let faults = faults(&list, &tests);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("form::c9_a"), "{faults:?}");
    }

    #[test]
    fn a_list_that_is_wrong_is_refused() {
        for (from, to, why) in [
            ("F1", "X2", "x2 is there twice"),
            ("One.", "", "f1 says nothing"),
            (
                "number = 2, says = \"Six",
                "number = 3, says = \"Six",
                "hazard 2",
            ),
            ("tests = [\"f1_a\"]", "tests = []", "hazard 1 needs"),
            (
                "none = \"Nobody can.\"",
                "none = \"x\", tests = [\"a\"]",
                "hazard 2 needs",
            ),
        ] {
            let error = format!("{:#}", List::parse(&GOOD.replace(from, to)).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn hazards_name_tests_that_are_there() {
        let list = List::parse(&GOOD.replace("[\"f1_a\"]", "[\"f1_a\", \"f1_gone\"]")).unwrap();
        let faults = faults(&list, &complete());
        assert_eq!(
            faults,
            ["hazard 1: its tests are there: there is no f1_gone"]
        );
    }

    #[test]
    fn names_are_found_in_sources() {
        let dir = tempfile::tempdir().unwrap();
        for place in Place::ALL {
            let path = dir.path().join(place.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if place == Place::Core {
                fs::write(path, "mod rules {\n    #[test]\n    fn f1_core() {}\n}\n").unwrap();
                continue;
            }
            fs::create_dir_all(path.join("deep")).unwrap();
            fs::write(
                path.join("a.rs"),
                "fn f1_a(mode: RingMode) {\n    f1_called();\n}\n",
            )
            .unwrap();
            fs::write(
                path.join("deep/mod.rs"),
                "#[test]\nfn v1_01_b() {}\n\nfn helper() {}\nfn other_a() {}\nfn if_c() {}\n",
            )
            .unwrap();
        }
        let list = List::parse(GOOD).unwrap();
        let found = named(&list, dir.path()).unwrap();
        let guest: Vec<_> = found
            .iter()
            .filter(|test| test.place == Place::Guest)
            .map(|test| (test.name.as_str(), test.prefix.as_str()))
            .collect();
        assert_eq!(
            guest,
            [
                ("a::f1_a", "f1"),
                ("deep::if_c", "if"),
                ("deep::v1_01_b", "v1_01")
            ]
        );
        assert_eq!(found.len(), 10);
    }

    /// As `cargo xtask docs` finds it.
    #[test]
    fn the_list_of_this_checkout_is_whole() {
        let (root, list, tests) = load().unwrap();
        assert_eq!(faults(&list, &tests), [""; 0]);
        assert_eq!(
            fs::read_to_string(path(&root)).unwrap(),
            list.rst(&tests),
            "run `cargo xtask docs --write`"
        );
    }
}
