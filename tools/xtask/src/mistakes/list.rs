// SPDX-License-Identifier: GPL-2.0-only
//! `ci/mistakes.toml`: which mistakes there are, and what is expected to find them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{ensure, Context as _, Result};
use regex::Regex;
use serde::Deserialize;

use crate::{paths, series::Edit};

/// Mistakes of the first posting are numbered from 1 to this.
pub(super) const V1: u8 = 10;

/// One mistake.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mistake {
    pub(crate) name: String,
    /// Its number among those of the first posting.
    pub(crate) v1: Option<u8>,
    /// What goes wrong, in a sentence.
    pub(crate) what: String,
    /// Of the tree with the series.
    pub(crate) edits: Vec<Edit>,
    /// Regular expressions for the tests that are to find it.
    pub(crate) tests: Vec<String>,
    /// What found it when it was last tried.
    pub(crate) found: Option<Found>,
}

/// What has found a mistake.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Found {
    /// A test failed, by its module and function.
    Test(String),
    /// The kernel complained, or was lost.
    Kernel {
        /// What about.
        says: String,
        /// While this test ran.
        #[serde(rename = "in")]
        in_test: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    mistake: Vec<Mistake>,
}

/// Where the list is.
fn path() -> Result<PathBuf> {
    Ok(paths::root()?.join("ci/mistakes.toml"))
}

/// The list of this checkout.
pub(crate) fn load() -> Result<Vec<Mistake>> {
    let path = path()?;
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not as it should be", path.display()))
}

fn parse(text: &str) -> Result<Vec<Mistake>> {
    let Raw { mistake: mistakes } = toml::from_str(text)?;
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for Mistake {
        name,
        v1,
        what,
        edits,
        tests,
        found: _,
    } in &mistakes
    {
        ensure!(
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == '_'),
            "{name:?} is no name: letters, digits and underscores are"
        );
        ensure!(names.insert(name), "there are two mistakes named {name}");
        ensure!(!what.is_empty(), "{name} does not say what goes wrong");
        ensure!(!edits.is_empty(), "{name} has no edit");
        for edit in edits {
            ensure!(
                edit.find != edit.replace && !edit.find.is_empty(),
                "{name} has an edit that changes nothing"
            );
        }
        ensure!(!tests.is_empty(), "{name} has no test that is to find it");
        if let Some(number) = v1 {
            ensure!(
                (1..=V1).contains(number),
                "{name}: the first posting's mistakes are numbered 1 to {V1}"
            );
            let prefix = format!("v1_{number:02}_");
            ensure!(
                name.starts_with(&prefix),
                "{name}: its name should begin with {prefix}"
            );
            numbers.insert(*number);
        }
    }
    for number in 1..=V1 {
        ensure!(
            numbers.contains(&number),
            "mistake {number} of the first posting is missing"
        );
    }
    Ok(mistakes)
}

/// The mistakes whose name matches one of these, or all.
pub(crate) fn select(all: Vec<Mistake>, only: &[String]) -> Result<Vec<Mistake>> {
    if only.is_empty() {
        return Ok(all);
    }
    let mut patterns = Vec::new();
    for only in only {
        let pattern = Regex::new(only)
            .with_context(|| format!("--only {only:?} is no regular expression"))?;
        ensure!(
            all.iter().any(|mistake| pattern.is_match(&mistake.name)),
            "no mistake matches --only {only:?}: `cargo xtask mistakes --list` shows them"
        );
        patterns.push(pattern);
    }
    Ok(all
        .into_iter()
        .filter(|mistake| {
            patterns
                .iter()
                .any(|pattern| pattern.is_match(&mistake.name))
        })
        .collect())
}

/// The functions that the tests are made of, as `module::function`: what a test's name
/// begins with. From their source, as to ask the tests themselves one has to build them.
pub(super) fn functions() -> Result<Vec<String>> {
    let dir = paths::root()?.join("harness/tests/group");
    let function = Regex::new(r"(?m)^fn (\w+)\(").context("a pattern of ours")?;
    let mut functions = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .path();
        let Some(module) = module(&path) else {
            continue;
        };
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for captures in function.captures_iter(&text) {
            functions.push(format!("{module}::{}", &captures[1]));
        }
    }
    Ok(functions)
}

fn module(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".rs").filter(|name| *name != "main")
}

/// Whether each of a mistake's tests is there.
pub(super) fn has_tests(mistake: &Mistake, functions: &[String]) -> Result<()> {
    for test in &mistake.tests {
        let pattern =
            Regex::new(test).with_context(|| format!("{test:?} is no regular expression"))?;
        ensure!(
            functions.iter().any(|function| pattern.is_match(function)),
            "no test matches {test:?}"
        );
    }
    if let Some(Found::Test(test) | Found::Kernel { in_test: test, .. }) = &mistake.found {
        let expected = mistake
            .tests
            .iter()
            .any(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(test)));
        ensure!(
            expected && functions.contains(test),
            "it is said to be found by {test}, which is none of its tests"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::Cache,
        fetch,
        series::{edited, Base, Patched, Series},
    };

    const GOOD: &str = r#"
        [[mistake]]
        name = "v1_01_x"
        v1 = 1
        what = "It is wrong."
        tests = ["^v1::v1_01_"]
        edits = [{ file = "io_uring/a.c", find = "a", replace = "b" }]
    "#;

    /// [`GOOD`], ten times.
    fn good() -> String {
        (1..=V1)
            .map(|number| {
                GOOD.replace("v1_01_x", &format!("v1_{number:02}_x"))
                    .replace("v1 = 1", &format!("v1 = {number}"))
            })
            .collect()
    }

    #[test]
    fn a_list_that_is_wrong_is_refused() {
        assert_eq!(parse(&good()).unwrap().len(), usize::from(V1));
        for (from, to, why) in [
            ("v1_02_x", "v1_01_x", "two mistakes"),
            ("v1_02_x", "v1 02", "no name"),
            ("v1_02_x", "v1_03_y", "should begin with v1_02_"),
            ("v1 = 2", "v1 = 11", "1 to 10"),
            ("v1 = 2", "", "mistake 2 of the first posting is missing"),
            ("It is wrong.", "", "does not say"),
            ("\"b\"", "\"a\"", "changes nothing"),
            ("^v1::v1_01_\"", "\", 3", ""),
            ("[\"^v1::v1_01_\"]", "[]", "no test"),
            ("what =", "why =", ""),
        ] {
            let text = good().replace(from, to);
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn only_what_is_asked_for() {
        let all = || parse(&good()).unwrap();
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|only| (*only).to_owned()).collect();
            select(all(), &only).map(|chosen| chosen.len())
        };
        assert_eq!(names(&[]).unwrap(), 10);
        assert_eq!(names(&["_0[12]_", "_10_"]).unwrap(), 3);
        assert!(names(&["_0[12]_", "_11_"]).is_err());
        assert!(names(&["("]).is_err());
    }

    /// As far as that can be said without a kernel tree, which need not be here.
    #[test]
    fn the_list_of_this_checkout_fits() {
        let functions = functions().unwrap();
        assert!(functions.iter().any(|name| name.starts_with("v1::v1_01_")));
        let series = Series::load().unwrap();
        let base = Base::load(&paths::kernel().unwrap()).unwrap();
        let patched = Cache::open()
            .ok()
            .and_then(|cache| fetch::cached_source(&cache, &base))
            .map(|pristine| Patched::new(&series, &pristine).unwrap());
        for mistake in load().unwrap() {
            let name = &mistake.name;
            has_tests(&mistake, &functions).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let edits: Vec<_> = mistake
                .edits
                .iter()
                .filter(|edit| patched.is_some() || series.added().contains(&edit.file))
                .cloned()
                .collect();
            edited(&edits, |path| match &patched {
                Some(patched) => patched.content(path),
                None => Ok(Some(fs::read(paths::kernel()?.join(path))?)),
            })
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }

    #[test]
    fn a_test_that_is_not_there_is_noticed() {
        let mut mistake = parse(&good()).unwrap().remove(0);
        has_tests(&mistake, &["v1::v1_01_a".to_owned()]).unwrap();
        has_tests(&mistake, &["v1::v1_02_a".to_owned()]).unwrap_err();
        let functions = ["v1::v1_01_a".to_owned(), "form::f1_a".to_owned()];
        for (found, there) in [
            ("v1::v1_01_a", true),
            ("v1::v1_01_b", false),
            ("form::f1_a", false),
        ] {
            mistake.found = Some(Found::Test(found.to_owned()));
            assert_eq!(has_tests(&mistake, &functions).is_ok(), there, "{found}");
        }
    }
}
