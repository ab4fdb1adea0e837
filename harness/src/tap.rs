// SPDX-License-Identifier: GPL-2.0-only
//! Lines of KTAP, the form in which the kernel's own tests tell their results.
//!
//! The format is that of the kernel's `Documentation/dev-tools/ktap.rst`. KUnit writes it
//! to the kernel's log, and a kselftest to its output.

/// How a test has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should.
    Passed,
    /// Otherwise.
    Failed,
    /// And why.
    Skipped(String),
}

/// A line that is none of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A run, or a suite of it, begins.
    Version,
    /// So many results will follow.
    Plan(usize),
    /// What a suite is called.
    Name(&'a str),
    /// A result.
    Result {
        /// From 1.
        number: usize,
        /// Of the test, or of the suite that has ended.
        name: &'a str,
        /// How it ended.
        status: Status,
    },
}

impl<'a> Line<'a> {
    /// From a line without its indentation.
    pub fn parse(text: &'a str) -> Option<Self> {
        if matches!(text, "KTAP version 1" | "TAP version 13") {
            return Some(Self::Version);
        }
        if let Some(plan) = text.strip_prefix("1..") {
            return plan.parse().ok().map(Self::Plan);
        }
        if let Some(name) = text.strip_prefix("# Subtest: ") {
            return Some(Self::Name(name));
        }
        let (passed, rest) = match text.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("ok ")?),
        };
        let (rest, directive) = match rest.split_once('#') {
            Some((rest, directive)) => (rest, directive.trim()),
            None => (rest, ""),
        };
        let (number, name) = rest.trim_end().split_once(' ')?;
        let status = match directive.strip_prefix("SKIP") {
            Some(reason) => Status::Skipped(reason.trim().to_owned()),
            None if passed => Status::Passed,
            None => Status::Failed,
        };
        Some(Self::Result {
            number: number.parse().ok()?,
            // Other writers of KTAP have a dash there.
            name: name.strip_prefix("- ").unwrap_or(name),
            status,
        })
    }
}

/// What a run of one test says of it.
///
/// # Errors
///
/// What is wrong with what it says: that it does not announce one test, or has no result
/// of this one, or more than that.
pub fn only_result(output: &str, test: &str) -> Result<Status, String> {
    let mut plan = None;
    let mut result = None;
    for line in output.lines().filter_map(Line::parse) {
        match line {
            Line::Plan(count) if plan.is_none() => plan = Some(count),
            Line::Result { name, status, .. } if name == test && result.is_none() => {
                result = Some(status);
            }
            Line::Result { name, .. } => {
                return Err(format!("there is a result too many, of {name:?}"));
            }
            Line::Version | Line::Name(_) | Line::Plan(_) => {}
        }
    }
    if plan != Some(1) {
        return Err("it does not announce that one test is run".to_owned());
    }
    result.ok_or_else(|| "it has no result".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_one_test() {
        let run = |lines: &[&str]| {
            let output = lines.join("\n");
            only_result(&output, "a.b").map_err(|why| why.split(',').next().unwrap().to_owned())
        };
        let skipped = Ok(Status::Skipped("no such thing".to_owned()));
        let many = Err("there is a result too many".to_owned());
        let none = Err("it has no result".to_owned());
        let unannounced = Err("it does not announce that one test is run".to_owned());
        for (lines, expected) in [
            (
                vec!["TAP version 13", "1..1", "ok 1 a.b"],
                Ok(Status::Passed),
            ),
            (vec!["1..1", "# noise", "not ok 1 a.b"], Ok(Status::Failed)),
            (vec!["1..1", "ok 1 a.b # SKIP no such thing"], skipped),
            (vec!["1..1", "ok 1 a.b", "not ok 2 a.b"], many.clone()),
            (vec!["1..1", "ok 1 a.c"], many),
            (vec!["1..1", "# ok 1 a.b"], none.clone()),
            (vec!["1..1"], none),
            (vec!["1..2", "ok 1 a.b"], unannounced.clone()),
            (vec!["ok 1 a.b"], unannounced.clone()),
            (vec![], unannounced),
        ] {
            assert_eq!(run(&lines), expected, "{lines:?}");
        }
    }
}
