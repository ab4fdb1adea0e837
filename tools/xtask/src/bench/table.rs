// SPDX-License-Identifier: GPL-2.0-only
//! Tables, for a terminal and for a document.

use std::fmt::Write as _;

/// A table. The first column is text and stands at the left, the others are numbers
/// and stand at the right.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// What stands where there is no number. A dash alone would be a list in a document.
const NONE: &str = "n/a";

impl Table {
    pub(super) fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            head: head.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, name: impl Into<String>, cells: Vec<Option<String>>) {
        let cells = cells
            .into_iter()
            .map(|cell| cell.unwrap_or_else(|| NONE.to_owned()));
        self.rows
            .push([name.into()].into_iter().chain(cells).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> = self.head.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn line(widths: &[usize], row: &[String], between: &str) -> String {
        let mut line = String::new();
        for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
            // Writing to a String does not fail.
            let _ = if column == 0 {
                write!(line, "{cell:<width$}")
            } else {
                write!(line, "{between}{cell:>width$}")
            };
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    }

    /// For a terminal.
    pub(super) fn plain(&self) -> String {
        let widths = self.widths();
        let mut text = format!("\n{}\n\n", self.title);
        text += &Self::line(&widths, &self.head, "  ");
        for row in &self.rows {
            text += &Self::line(&widths, row, "  ");
        }
        text
    }

    /// As a simple table of reStructuredText.
    pub(super) fn rst(&self) -> String {
        let widths = self.widths();
        let rule: Vec<_> = widths.iter().map(|width| "=".repeat(*width)).collect();
        let rule = rule.join(" ") + "\n";
        let mut text = rule.clone();
        text += &Self::line(&widths, &self.head, " ");
        text += &rule;
        for row in &self.rows {
            text += &Self::line(&widths, row, " ");
        }
        text + &rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("A title", &["what", "base", "more"]);
        table.row("NOP", vec![Some("316.0".to_owned()), None]);
        table.row(
            "a longer name",
            vec![Some("9".to_owned()), Some("+0.0".to_owned())],
        );
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            table().plain(),
            "\nA title\n\n\
             what            base  more\n\
             NOP            316.0   n/a\n\
             a longer name      9  +0.0\n"
        );
    }

    #[test]
    fn the_rules_of_rst_are_as_wide_as_the_columns() {
        assert_eq!(
            table().rst(),
            "============= ===== ====\n\
             what           base more\n\
             ============= ===== ====\n\
             NOP           316.0  n/a\n\
             a longer name     9 +0.0\n\
             ============= ===== ====\n"
        );
    }
}
