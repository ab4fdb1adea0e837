// SPDX-License-Identifier: GPL-2.0-only
//! The warnings in what a build prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::LazyLock,
};

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A warning, or an error that did not stop the build, as it was printed but for the
/// directories of source and objects.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Warning(String);

impl Warning {
    /// What was printed.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it is about Rust.
    pub(super) fn is_rust(&self) -> bool {
        static RUST: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r" --> |^[^ ]+\.rs:").ok());
        RUST.as_ref().is_some_and(|rust| rust.is_match(&self.0))
    }

    /// The same for the same warning on other lines, and with other offsets.
    fn kind(&self) -> String {
        static PLACE: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r":\d+(:\d+)?|\+0x[0-9a-f]+|\bline \d+").ok());
        match PLACE.as_ref() {
            Some(place) => place.replace_all(&self.0, "").into_owned(),
            None => self.0.clone(),
        }
    }
}

/// The warnings in `log`, each place once: a header's come with every file that
/// includes it.
pub(super) fn parse(log: &str, tree: &Path, out: &Path) -> BTreeSet<Warning> {
    static SIGN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(^|[\s:])([Ww]arning|[Ee]rror)(\[\w+\])?:").ok());
    static SUM: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\d+ warnings? (emitted|generated)").ok());
    let is = |regex: &LazyLock<Option<Regex>>, line: &str| {
        regex.as_ref().is_some_and(|regex| regex.is_match(line))
    };
    let mut warnings = BTreeSet::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if !is(&SIGN, line) || is(&SUM, line) {
            continue;
        }
        let mut text = line.trim().to_owned();
        // rustc says where on the next line.
        if let Some(place) = lines
            .peek()
            .and_then(|next| next.trim_start().strip_prefix("--> "))
        {
            text.push_str(" --> ");
            text.push_str(place);
        }
        for dir in [tree, out] {
            text = text.replace(&format!("{}/", dir.display()), "");
        }
        warnings.insert(Warning(text));
    }
    warnings
}

/// The warnings that `after` has and `before` has not, or has fewer of.
pub(super) fn new<'a>(
    before: impl IntoIterator<Item = &'a Warning>,
    after: impl IntoIterator<Item = &'a Warning>,
) -> Vec<&'a Warning> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for warning in before {
        *known.entry(warning.kind()).or_default() += 1;
    }
    after
        .into_iter()
        .filter(|warning| match known.get_mut(&warning.kind()) {
            Some(left @ 1..) => {
                *left -= 1;
                false
            }
            _ => true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As printed by clang, sparse, kernel-doc, objtool, rustc, clippy and make.
    const LOG: &str = "\
  CC      io_uring/rw.o
/src/linux/io_uring/rw.c:12:34: warning: unused variable 'x' [-Wunused-variable]
   12 |         int x;
      |             ^
/src/linux/io_uring/rw.c:90:9: warning: context imbalance in 'io_read' - unexpected unlock
Warning: /src/linux/io_uring/rw.c:7 function parameter 'req' not described in 'io_read'
io_uring/rw.o: warning: objtool: io_read+0x1f: unreachable instruction
1 warning generated.
warning: unused variable: `x`
  --> /src/linux/io_uring/group/group.rs:3:9
   |
warning: 1 warning emitted

/src/linux/Makefile:1311: C=2 specified, but sparse is not available or not up to date
  CLIPPY L rust/kernel.o
";

    fn warnings(log: &str) -> BTreeSet<Warning> {
        parse(log, Path::new("/src/linux"), Path::new("/out"))
    }

    #[test]
    fn every_kind_is_found() {
        let found = warnings(LOG);
        let texts: Vec<_> = found.iter().map(Warning::text).collect();
        assert_eq!(
            texts,
            [
                "Warning: io_uring/rw.c:7 function parameter 'req' not described in 'io_read'",
                "io_uring/rw.c:12:34: warning: unused variable 'x' [-Wunused-variable]",
                "io_uring/rw.c:90:9: warning: context imbalance in 'io_read' - unexpected unlock",
                "io_uring/rw.o: warning: objtool: io_read+0x1f: unreachable instruction",
                "warning: unused variable: `x` --> io_uring/group/group.rs:3:9",
            ]
        );
        let rust: Vec<_> = found.iter().filter(|warning| warning.is_rust()).collect();
        assert_eq!(rust.len(), 1);
    }

    #[test]
    fn lines_and_trees_do_not_matter() {
        let before = warnings(LOG);
        let moved = LOG
            .replace("/src/linux", "/other/tree")
            .replace(".c:12:", ".c:120:")
            .replace(".c:7 ", ".c:8 ")
            .replace("+0x1f", "+0x2f")
            .replace(".rs:3:9", ".rs:4:9");
        let after = parse(&moved, Path::new("/other/tree"), Path::new("/out"));
        assert_ne!(before, after);
        assert!(new(&before, &after).is_empty());
    }

    #[test]
    fn a_second_one_of_the_same_kind_is_new_and_a_repeated_one_is_not() {
        let before = warnings(LOG);
        // A header's warning, by way of two files.
        assert_eq!(warnings(&format!("{LOG}{LOG}")), before);
        let second = LOG.replace(".c:12:34", ".c:500:3");
        let after = warnings(&format!("{LOG}{second}"));
        let new = new(&before, &after);
        assert_eq!(new.len(), 1);
        assert!(new[0].text().starts_with("io_uring/rw.c:500:3: warning"));
    }

    #[test]
    fn another_text_or_another_file_is_new() {
        let before = warnings(LOG);
        for (from, to) in [
            ("variable 'x'", "variable 'y'"),
            ("rw.c:12:34", "net.c:12:34"),
            ("group.rs", "request.rs"),
        ] {
            assert_eq!(
                new(&before, &warnings(&LOG.replace(from, to))).len(),
                1,
                "{from}"
            );
        }
    }
}
