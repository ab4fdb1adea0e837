// SPDX-License-Identifier: GPL-2.0-only
//! The numbers in `Documentation/performance.rst`, and the record of targets beside it.

use std::{fs, path::PathBuf};

use anyhow::{ensure, Context as _, Result};

use super::{chart, results::Results, table::Table, target::Target};
use crate::{cache, paths};

/// Starts the line before a generated part, and the line behind it. To a reader of the
/// document both are comments.
const BEGIN: &str = ".. begin ";
const END: &str = ".. end ";

/// Where no target is missed.
const NOTHING: &str = "None.\n";

fn directory() -> Result<PathBuf> {
    Ok(paths::root()?.join("Documentation"))
}

fn text_path() -> Result<PathBuf> {
    Ok(directory()?.join("performance.rst"))
}

fn record_path() -> Result<PathBuf> {
    Ok(directory()?.join("performance.json"))
}

/// The targets as they were when the document was written.
pub(super) fn record() -> Result<Vec<Target>> {
    let path = record_path()?;
    let text = fs::read(&path).with_context(|| {
        format!(
            "cannot read {}; `cargo xtask bench --write` makes it",
            path.display()
        )
    })?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is no record of targets; `cargo xtask bench --write` makes one",
            path.display()
        )
    })
}

/// Puts these tables into the document, and nothing else.
pub(super) fn fill_in(tables: &[(&'static str, Table)]) -> Result<()> {
    cache::write_whole(&text_path()?, with(tables)?.as_bytes())
}

/// The document with these tables in their places.
fn with(tables: &[(&'static str, Table)]) -> Result<String> {
    let path = text_path()?;
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (name, table) in tables {
        text = replace(&text, name, &table.rst())
            .with_context(|| format!("{} cannot be filled in", path.display()))?;
    }
    Ok(text)
}

/// Puts these tables into the document, draws its charts, and keeps the targets.
pub(super) fn write(
    results: &Results,
    targets: &[Target],
    tables: &[(&'static str, Table)],
) -> Result<()> {
    let path = text_path()?;
    let mut text = with(tables)?;
    if !tables.iter().any(|(name, _)| *name == "missed") {
        text = replace(&text, "missed", NOTHING)
            .with_context(|| format!("{} cannot be filled in", path.display()))?;
    }
    text = replace(&text, "machine", &machine(results))
        .with_context(|| format!("{} cannot be filled in", path.display()))?;

    let charts = directory()?.join("performance");
    fs::create_dir_all(&charts).with_context(|| format!("cannot make {}", charts.display()))?;
    chart::draw(results, &charts)?;

    // One target a line: a change can then be read in a diff.
    let lines: Vec<_> = targets
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .context("cannot encode the targets")?;
    let record = format!("[\n{}\n]\n", lines.join(",\n"));
    cache::write_whole(&record_path()?, record.as_bytes())?;
    cache::write_whole(&path, text.as_bytes())
}

/// What was measured, by what was it built, and how well does it repeat.
fn machine(results: &Results) -> String {
    // Not when and how often it was built.
    let version = &results.patched.version;
    let mut lines = vec![format!(
        "* {}",
        version.split(" #").next().unwrap_or(version)
    )];
    for compiler in &results.compilers {
        lines.push(format!("* {compiler}"));
    }
    for (name, kernel) in [
        ("base", Some(&results.base)),
        ("patched", Some(&results.patched)),
        ("off", results.off.as_ref()),
    ] {
        if let Some(repeat) = kernel.and_then(|kernel| kernel.repeat) {
            lines.push(format!(
                "* two boots, {name}: half of all numbers differ by less than {:.4}%, those without\n  \
                 a worker or a device by {:.3}% at most, the others by {:.1}%",
                100.0 * repeat.median,
                100.0 * repeat.inline_worst,
                100.0 * repeat.worst
            ));
        }
    }
    lines.join("\n") + "\n"
}

/// The document with another text between two marks.
fn replace(text: &str, name: &str, new: &str) -> Result<String> {
    let begin = format!("{BEGIN}{name}\n");
    let end = format!("{END}{name}\n");
    let missing = |mark: &str| format!("it has no line `{}`", mark.trim_end());
    let (before, rest) = text.split_once(&begin).with_context(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).with_context(|| missing(&end))?;
    ensure!(
        !after.contains(&begin),
        "it has two lines `{}`",
        begin.trim_end()
    );
    Ok(format!("{before}{begin}\n{new}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tables;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n\n.. begin x\n\nold\n\n.. end x\n\nb\n";
        let once = replace(text, "x", "new\n").unwrap();
        assert_eq!(once, "a\n\n.. begin x\n\nnew\n\n.. end x\n\nb\n");
        assert_eq!(replace(&once, "x", "new\n").unwrap(), once);
    }

    /// What stands between the marks.
    fn part<'a>(text: &'a str, name: &str) -> &'a str {
        let (_, rest) = text.split_once(&format!("{BEGIN}{name}\n")).unwrap();
        let (part, _) = rest.split_once(&format!("{END}{name}\n")).unwrap();
        part.trim()
    }

    #[test]
    fn the_document_and_the_record_are_of_one_run() {
        let text = include_str!("../../../../Documentation/performance.rst");
        let record: Vec<Target> =
            serde_json::from_str(include_str!("../../../../Documentation/performance.json"))
                .unwrap();
        assert_eq!(part(text, "verdict"), tables::verdict(&record).rst().trim());
        let missed = tables::missed(&record);
        let expected = if missed.rows.is_empty() {
            NOTHING.to_owned()
        } else {
            missed.rst()
        };
        assert_eq!(part(text, "missed"), expected.trim());
    }

    #[test]
    fn marks_that_are_missing_or_double_are_named() {
        for (text, word) in [
            ("", ".. begin x"),
            (".. begin x\n", ".. end x"),
            (".. begin x\n.. end x\n.. begin x\n.. end x\n", "two lines"),
        ] {
            let error = replace(text, "x", "").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
