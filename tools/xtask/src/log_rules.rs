// SPDX-License-Identifier: GPL-2.0-only
//! Judges a kernel log by the rules in `ci/log-rules.toml`.
//!
//! The log is scanned while it grows, so that a panic is reported when it happens.
//! What a scan finds is a [`Finding`] for every report of the kernel, not for every
//! line that matches: an oops alone matches five rules.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use anyhow::{ensure, Context as _, Result};
use harness::protocol::{MARK, MARK_RUN};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Lines after its beginning in which a match may still belong to a report, if the
/// rule is a trailing one. The registers and the trace of an oops with KASAN come
/// to about a hundred.
const REPORT: usize = 150;

/// Lines after its beginning in which every match belongs to a report: between
/// "cut here" and "WARNING:" stands at most the warning's own message.
const HEADLINE: usize = 6;

/// Lines shown before a report, of its beginning, and of its end.
const BEFORE: usize = 4;
const BEGINNING: usize = 40;
const END: usize = 12;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    expect: Vec<RawExpect>,
    rule: Vec<RawRule>,
    #[serde(default)]
    allow: Vec<RawAllow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    pattern: String,
    what: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    group: String,
    pattern: String,
    #[serde(default)]
    trailing: bool,
    #[serde(default)]
    stops: bool,
    #[serde(default)]
    means: Means,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAllow {
    rule: Option<String>,
    pattern: String,
    #[serde(default)]
    trace: bool,
    reason: String,
}

/// What a find says about the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Means {
    /// The kernel has complained.
    #[default]
    Splat,
    /// The guest cannot run, through no fault of what is tested.
    Lost,
}

#[derive(Debug)]
struct Expect {
    pattern: Regex,
    what: String,
}

#[derive(Debug)]
struct Rule {
    name: String,
    group: String,
    pattern: Regex,
    trailing: bool,
    stops: bool,
    means: Means,
}

#[derive(Debug)]
struct Allow {
    rule: Option<usize>,
    pattern: Regex,
    trace: bool,
}

/// The rules, ready for use.
#[derive(Debug)]
pub(crate) struct Rules {
    expect: Vec<Expect>,
    rules: Vec<Rule>,
    allow: Vec<Allow>,
    /// What printk puts before a line: level, time, thread or processor.
    prefix: Regex,
}

impl Rules {
    /// The rules of this checkout.
    pub(crate) fn load() -> Result<Self> {
        let path = crate::paths::root()?.join("ci/log-rules.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} does not hold log rules", path.display()))
    }

    /// Rules from a file's content.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let RawRules {
            expect,
            rule,
            allow,
        } = toml::from_str(text)?;
        ensure!(!expect.is_empty(), "nothing is expected of a log");
        ensure!(!rule.is_empty(), "there is no rule");
        let regex =
            |pattern: &str| Regex::new(pattern).with_context(|| format!("bad pattern {pattern:?}"));
        let expect = expect
            .into_iter()
            .map(|RawExpect { pattern, what }| {
                let pattern = regex(&pattern)?;
                Ok(Expect { pattern, what })
            })
            .collect::<Result<_>>()?;
        let rules = rule
            .into_iter()
            .map(|raw| {
                let RawRule {
                    name,
                    group,
                    pattern,
                    trailing,
                    stops,
                    means,
                } = raw;
                let pattern = regex(&pattern)?;
                Ok(Rule {
                    name,
                    group,
                    pattern,
                    trailing,
                    stops,
                    means,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let allow = allow
            .into_iter()
            .map(|raw| {
                let RawAllow {
                    rule,
                    pattern,
                    trace,
                    reason,
                } = raw;
                ensure!(
                    !reason.trim().is_empty(),
                    "no reason is given for allowing {pattern:?}"
                );
                let rule = rule
                    .map(|name| {
                        rules
                            .iter()
                            .position(|rule| rule.name == name)
                            .with_context(|| format!("there is no rule {name:?} to allow"))
                    })
                    .transpose()?;
                let pattern = regex(&pattern)?;
                Ok(Allow {
                    rule,
                    pattern,
                    trace,
                })
            })
            .collect::<Result<_>>()?;
        let prefix = regex(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?")?;
        Ok(Self {
            expect,
            rules,
            allow,
            prefix,
        })
    }

    /// What the rules are called, in their order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.rules.iter().map(|rule| rule.name.as_str()).collect()
    }

    /// A line without its prefix.
    fn text<'a>(&self, line: &'a str) -> &'a str {
        &line[self.prefix.find(line).map_or(0, |prefix| prefix.end())..]
    }
}

/// One report in the log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// The rule that names it.
    pub(crate) rule: String,
    /// The heading under which it is counted.
    pub(crate) group: String,
    /// Its first line, counted from 1.
    pub(crate) line: usize,
    /// The line that names it.
    pub(crate) text: String,
    /// The test that was running.
    pub(crate) test: Option<String>,
    /// Which of its runs that was, from 1.
    pub(crate) round: u32,
    /// What it says about the run.
    pub(crate) means: Means,
    /// Whether there is no use in going on.
    pub(crate) stops: bool,
    /// For choosing between rules.
    #[serde(skip)]
    index: usize,
    /// The last line that is known to belong to it, counted from 1.
    #[serde(skip)]
    last: usize,
}

/// A log, as far as it is known, and what was found in it.
pub(crate) struct Scanner<'a> {
    rules: &'a Rules,
    lines: Vec<String>,
    partial: Vec<u8>,
    seen: Vec<bool>,
    test: Option<String>,
    /// How often each test was started.
    rounds: HashMap<String, u32>,
    findings: Vec<Finding>,
    /// The line at which the last report began, while lines may still belong to it.
    open: Option<usize>,
    /// Whether the next call trace was asked for.
    excused: bool,
    /// How many finds were allowed.
    allowed: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            lines: Vec::new(),
            partial: Vec::new(),
            seen: vec![false; rules.expect.len()],
            test: None,
            rounds: HashMap::new(),
            findings: Vec::new(),
            open: None,
            excused: false,
            allowed: 0,
        }
    }

    /// Takes what was appended to the log. The findings that are new.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let before = self.findings.len();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.take_line();
            }
        }
        before..self.findings.len()
    }

    /// Called when the log will not grow any more: its last line may lack an end,
    /// if the machine died in the middle of it.
    pub(crate) fn finish(&mut self) -> Range<usize> {
        let before = self.findings.len();
        if !self.partial.is_empty() {
            self.take_line();
        }
        before..self.findings.len()
    }

    /// All findings so far.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many lines matched a rule but are allowed.
    pub(crate) fn allowed(&self) -> usize {
        self.allowed
    }

    /// What a whole log would hold and this one does not.
    pub(crate) fn missing(&self) -> Vec<&str> {
        self.rules
            .expect
            .iter()
            .zip(&self.seen)
            .filter(|(_, seen)| !**seen)
            .map(|(expect, _)| expect.what.as_str())
            .collect()
    }

    /// The log around a finding: its beginning, and its end if that is far away.
    pub(crate) fn around(&self, finding: &Finding) -> Vec<&str> {
        let all = |range: Range<usize>| self.lines[range].iter().map(String::as_str);
        let len = self.lines.len();
        let first = finding.line.saturating_sub(1 + BEFORE);
        let middle = (finding.line + BEGINNING).min(len);
        let mut lines: Vec<_> = all(first..middle).collect();
        let end = (finding.last + END / 2).min(len);
        if end > middle {
            let start = finding.last.saturating_sub(END / 2).max(middle);
            if start > middle {
                lines.push("...");
            }
            lines.extend(all(start..end));
        }
        lines
    }

    /// All lines, without what printk puts before them.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| self.rules.text(line))
    }

    /// The last lines.
    pub(crate) fn tail(&self, count: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(count)..]
    }

    /// How many findings there are under each heading.
    pub(crate) fn by_group(findings: &[Finding]) -> BTreeMap<&str, usize> {
        let mut groups = BTreeMap::new();
        for finding in findings {
            *groups.entry(finding.group.as_str()).or_default() += 1;
        }
        groups
    }

    fn take_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        self.lines.push(line);
        self.judge_line();
    }

    fn judge_line(&mut self) {
        let Self {
            rules,
            lines,
            seen,
            test,
            rounds,
            findings,
            open,
            excused,
            allowed,
            partial: _,
        } = self;
        let number = lines.len();
        let Some(line) = lines.last() else { return };
        let text = rules.text(line);

        for (expect, seen) in rules.expect.iter().zip(seen) {
            *seen |= expect.pattern.is_match(text);
        }
        if let Some(mark) = text.strip_prefix(MARK) {
            if let Some(name) = mark.strip_prefix(MARK_RUN) {
                *test = Some(name.to_owned());
                *rounds.entry(name.to_owned()).or_default() += 1;
            }
            *open = None;
            *excused = false;
            return;
        }
        if text.trim() == "</TASK>" {
            *excused = false;
        }
        let matching = rules
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule.pattern.is_match(text));
        let allow = rules.allow.iter().find(|allow| {
            (allow.rule.is_none() || allow.rule == matching.map(|(index, _)| index))
                && allow.pattern.is_match(text)
        });
        if let Some(allow) = allow {
            *excused |= allow.trace;
            *allowed += 1;
            return;
        }
        let Some((index, rule)) = matching else {
            return;
        };
        if rule.trailing && *excused {
            *allowed += 1;
            return;
        }
        let Rule {
            name,
            group,
            pattern: _,
            trailing,
            stops,
            means,
        } = rule;
        let near = open.map(|first| number - first);
        let belongs = near.is_some_and(|near| near <= HEADLINE || (*trailing && near <= REPORT));
        if belongs {
            if let Some(finding) = findings.last_mut() {
                finding.stops |= stops;
                finding.last = number;
                // The panic that ends an oops does not say what it was about.
                if !trailing && index < finding.index {
                    finding.rule.clone_from(name);
                    finding.group.clone_from(group);
                    finding.means = *means;
                    finding.index = index;
                    text.clone_into(&mut finding.text);
                }
                return;
            }
        }
        *open = Some(number);
        findings.push(Finding {
            rule: name.clone(),
            group: group.clone(),
            line: number,
            text: text.to_owned(),
            round: test
                .as_ref()
                .and_then(|test| rounds.get(test))
                .copied()
                .unwrap_or(1),
            test: test.clone(),
            means: *means,
            stops: *stops,
            index,
            last: number,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// The rules as they are compiled in, so that these tests do not depend on how
    /// they are started.
    fn rules() -> Rules {
        Rules::parse(include_str!("../../../ci/log-rules.toml")).unwrap()
    }

    fn testdata() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/log-rules")
    }

    /// Name without `.log`, and content.
    fn logs() -> Vec<(String, Vec<u8>)> {
        let mut logs: Vec<_> = fs::read_dir(testdata())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, fs::read(&path).unwrap())
            })
            .collect();
        logs.sort();
        logs
    }

    fn clean() -> String {
        String::from_utf8(fs::read(testdata().join("clean.log")).unwrap()).unwrap()
    }

    fn scan<'a>(rules: &'a Rules, log: &[u8]) -> Scanner<'a> {
        let mut scanner = Scanner::new(rules);
        scanner.push(log);
        scanner.finish();
        scanner
    }

    #[test]
    fn every_bad_log_is_one_find_of_its_rule() {
        let rules = rules();
        for (name, log) in logs() {
            if name == "clean" {
                continue;
            }
            let rule = name.split('.').next().unwrap();
            // Alone, and in the middle of an otherwise clean log.
            let whole = clean();
            let (before, after) = whole.split_once("sqe-group: run x5").unwrap();
            let before = before.rsplit_once('\n').unwrap().0;
            let within = [
                before.as_bytes(),
                b"\r\n",
                &log,
                b"[    9.000000] sqe-group: run x5",
                after.as_bytes(),
            ]
            .concat();
            for log in [log, within] {
                let scanner = scan(&rules, &log);
                let found: Vec<_> = scanner
                    .findings()
                    .iter()
                    .map(|finding| finding.rule.as_str())
                    .collect();
                assert_eq!(found, [rule], "{name}.log");
            }
        }
    }

    #[test]
    fn every_rule_has_a_bad_log() {
        let logs = logs();
        for rule in rules().rules {
            assert!(
                logs.iter()
                    .any(|(name, _)| name.split('.').next() == Some(&rule.name)),
                "no testdata/log-rules/{}.log",
                rule.name
            );
        }
    }

    #[test]
    fn a_find_names_its_test() {
        let rules = rules();
        for (name, log) in logs() {
            if !String::from_utf8_lossy(&log).contains("sqe-group: run c2") || name == "clean" {
                continue;
            }
            let scanner = scan(&rules, &log);
            assert_eq!(
                scanner.findings()[0].test.as_deref(),
                Some("c2::leader_last::case_1_default"),
                "{name}.log"
            );
        }
    }

    #[test]
    fn what_kills_the_kernel_stops_the_run() {
        let rules = rules();
        for (name, log) in logs() {
            let scanner = scan(&rules, &log);
            let stops = scanner.findings().iter().any(|finding| finding.stops);
            let dies = String::from_utf8_lossy(&log).contains("Kernel panic");
            assert_eq!(stops, dies, "{name}.log");
        }
    }

    #[test]
    fn a_clean_log_is_clean() {
        let rules = rules();
        let scanner = scan(&rules, clean().as_bytes());
        assert!(scanner.findings().is_empty(), "{:?}", scanner.findings());
        assert_eq!(scanner.missing(), [""; 0]);
        // The injected failure and its trace: the log does contain something that
        // only the allow list lets through.
        assert_eq!(scanner.allowed(), 2);
    }

    #[test]
    fn a_log_that_is_not_whole_is_not_clean() {
        let rules = rules();
        assert_eq!(scan(&rules, b"").missing().len(), rules.expect.len());
        for expect in &rules.expect {
            let log: String = clean()
                .lines()
                .filter(|line| {
                    let text = rules.text(line);
                    !expect.pattern.is_match(text)
                })
                .map(|line| format!("{line}\n"))
                .collect();
            let scanner = scan(&rules, log.as_bytes());
            assert_eq!(scanner.missing(), [expect.what.as_str()]);
        }
    }

    #[test]
    fn how_the_log_is_cut_does_not_matter() {
        let rules = rules();
        for (name, log) in logs() {
            let whole = scan(&rules, &log);
            for size in [1, 7, 100] {
                let mut scanner = Scanner::new(&rules);
                let mut announced = 0;
                for piece in log.chunks(size) {
                    announced += scanner.push(piece).len();
                }
                announced += scanner.finish().len();
                assert_eq!(announced, whole.findings().len(), "{name}.log");
                assert_eq!(
                    format!("{:?}", scanner.findings()),
                    format!("{:?}", whole.findings()),
                    "{name}.log"
                );
            }
        }
    }

    #[test]
    fn a_trace_is_excused_once() {
        let rules = rules();
        let injected = "FAULT_INJECTION: forcing a failure.\nCall Trace:\n <TASK>\n </TASK>\n";
        assert!(scan(&rules, injected.as_bytes()).findings().is_empty());
        let more = format!("{injected}Call Trace:\n");
        assert_eq!(scan(&rules, more.as_bytes()).findings().len(), 1);
        let worse = "FAULT_INJECTION: forcing a failure.\nBUG: KASAN: slab-out-of-bounds in f\n";
        assert_eq!(scan(&rules, worse.as_bytes()).findings()[0].rule, "kasan");
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_rule() {
        let with = |allow: &str| {
            Rules::parse(&format!(
                "[[expect]]\npattern = 'a'\nwhat = 'a'\n[[rule]]\nname = 'r'\ngroup = 'g'\npattern = 'b'\n[[allow]]\n{allow}\n"
            ))
        };
        assert!(with("pattern = 'b'\nreason = 'because'").is_ok());
        assert!(with("pattern = 'b'").is_err());
        assert!(with("pattern = 'b'\nreason = ' '").is_err());
        assert!(with("rule = 'q'\npattern = 'b'\nreason = 'because'").is_err());
        assert!(with("pattern = '('\nreason = 'because'").is_err());
    }

    #[test]
    fn an_allowed_find_is_not_found() {
        let rules = Rules::parse(
            "[[expect]]\npattern = 'a'\nwhat = 'a'\n[[rule]]\nname = 'r'\ngroup = 'g'\npattern = 'b'\n[[allow]]\nrule = 'r'\npattern = 'bc'\nreason = 'because'\n",
        )
        .unwrap();
        assert!(scan(&rules, b"bc\n").findings().is_empty());
        assert_eq!(scan(&rules, b"bd\n").findings().len(), 1);
    }

    #[test]
    fn the_log_around_a_find_is_shown() {
        let rules = rules();
        let log = fs::read(testdata().join("kasan.log")).unwrap();
        let scanner = scan(&rules, &log);
        let around = scanner.around(&scanner.findings()[0]);
        assert!(around.iter().any(|line| line.contains("BUG: KASAN")));
        assert!(around[0].contains("sqe-group: run"));

        // A panic that ends a long report is part of what is shown.
        let long = format!(
            "BUG: KASAN: use-after-free in f\n{}Kernel panic - not syncing: KASAN\n",
            "registers\n".repeat(100)
        );
        let scanner = scan(&rules, long.as_bytes());
        let around = scanner.around(&scanner.findings()[0]);
        assert_eq!(around.last(), Some(&"Kernel panic - not syncing: KASAN"));
        assert!(around.contains(&"..."));
        assert!(around.len() < 60);
    }
}
