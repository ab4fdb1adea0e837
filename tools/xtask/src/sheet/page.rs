// SPDX-License-Identifier: GPL-2.0-only
//! Results for people: one page, whole in itself. It fetches nothing and runs nothing, so
//! it can be kept, sent and printed.
//!
//! `html!` escapes whatever it is given; only the style sheet is taken as it is.

use maud::{html, Markup, PreEscaped, DOCTYPE};

use super::{date, end_of, module, rule, visible, Failures, Sheet, Status, Tally};
use crate::verdict::Verdict;

const STYLE: &str = include_str!("page.css");

/// Of the slowest cases, so many are shown.
const SLOWEST: usize = 15;

/// A step of a command that has several.
pub(crate) struct Step<'a> {
    /// As one types it.
    pub(crate) line: &'a str,
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// Of the runs that were part of it.
    pub(crate) sheets: &'a [Sheet],
}

/// The page of a run.
pub(crate) fn of_run(sheet: &Sheet) -> String {
    page(
        sheet,
        sheet.tally(),
        &html! {
            (facts(sheet))
            (body(sheet))
        },
    )
}

/// The page of a command with steps; `whole` has a case for each of them.
pub(crate) fn of_steps(whole: &Sheet, steps: &[Step<'_>]) -> String {
    let mut tally = Tally::default();
    for step in steps {
        tally.passed += step.tally.passed;
        tally.failed += step.tally.failed;
        tally.skipped += step.tally.skipped;
    }
    page(
        whole,
        tally,
        &html! {
            (facts(whole))
            (failures(whole))
            (trouble(whole))
            h2 { "Steps" }
            .wide { table {
                tr { th { "" } th { "step" } th.n { "passed" } th.n { "failed" } th.n { "skipped" } th.n { "time" } }
                @for (nth, step) in steps.iter().enumerate() {
                    tr {
                        td { (word_of(step.tally)) }
                        td.name {
                            @if step.sheets.is_empty() { code { (step.line) } }
                            @else { a href={ "#step-" (nth) } { code { (step.line) } } }
                        }
                        (numbers(step.tally))
                        td.n { (duration(step.seconds)) }
                    }
                }
            } }
            @for (nth, step) in steps.iter().enumerate() {
                @for (first, sheet) in step.sheets.iter().enumerate() {
                    .step id=[(first == 0).then(|| format!("step-{nth}"))] {
                        h2 { (visible(&sheet.title)) " " (word(sheet)) }
                        p.when { code { (step.line) } }
                        (counts(sheet.tally(), sheet.seconds))
                        (facts(sheet))
                        (body(sheet))
                    }
                }
            }
        },
    )
}

fn page(sheet: &Sheet, tally: Tally, rest: &Markup) -> String {
    let title = visible(&sheet.title);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                // No icon of the server that it may come to lie on.
                link rel="icon" href="data:,";
                title { (title) ": " (words(sheet)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) " " (word(sheet)) }
                p.when { (date(sheet.began)) }
                (counts(tally, sheet.seconds))
                (rest)
            }
        }
    };
    page.into_string() + "\n"
}

fn words(sheet: &Sheet) -> &'static str {
    if sheet.interrupted {
        "interrupted"
    } else {
        sheet.verdict.words()
    }
}

fn word(sheet: &Sheet) -> Markup {
    let good = sheet.verdict == Verdict::Passed && !sheet.interrupted;
    html! { span class=(if good { "word good" } else { "word bad" }) { (words(sheet)) } }
}

fn word_of(tally: Tally) -> Markup {
    match tally {
        Tally { failed: 1.., .. } => html! { span.word.bad { "failed" } },
        Tally { passed: 0, .. } => html! { span.word { "skipped" } },
        _ => html! { span.word.good { "ok" } },
    }
}

/// As short as it is still told apart.
fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round();
    let (minutes, seconds) = ((seconds / 60.0).floor(), seconds % 60.0);
    if minutes < 60.0 {
        return format!("{minutes} min {seconds} s");
    }
    format!("{} h {} min", (minutes / 60.0).floor(), minutes % 60.0)
}

fn milliseconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        _ => duration(ms as f64 / 1000.0),
    }
}

fn counts(tally: Tally, seconds: f64) -> Markup {
    html! {
        ul.counts {
            li class=(if tally.passed > 0 { "count good" } else { "count" }) { b { (tally.passed) } "passed" }
            li class=(if tally.failed > 0 { "count bad" } else { "count" }) { b { (tally.failed) } "failed" }
            li.count { b { (tally.skipped) } "skipped" }
            @if tally.not_run > 0 { li.count { b { (tally.not_run) } "not run" } }
            li.count { b { (duration(seconds)) } }
        }
    }
}

fn facts(sheet: &Sheet) -> Markup {
    html! {
        dl {
            @for (name, value) in &sheet.facts {
                dt { (visible(name)) }
                dd { (visible(value)) }
            }
            dt { "to repeat it" }
            dd { code { (visible(&sheet.command)) } }
        }
    }
}

fn body(sheet: &Sheet) -> Markup {
    let by_module = sheet.tallies(|name| Some(module(name)));
    let by_rule = sheet.tallies(rule);
    let slowest = sheet.slowest();
    let skips = sheet.skips();
    html! {
        (failures(sheet))
        (trouble(sheet))
        (complaints(sheet))
        @if by_module.len() > 1 {
            h3 { "By module" }
            (tallies("module", by_module.iter().map(|(key, tally)| (*key, *tally))))
        }
        @if by_rule.len() > 1 {
            h3 { "By rule" }
            (tallies("rule", by_rule.iter().map(|(key, tally)| (*key, *tally))))
        }
        @if slowest.len() > 1 {
            h3 { "Slowest" }
            (times(&slowest[..slowest.len().min(SLOWEST)]))
        }
        @if !skips.is_empty() {
            h3 { "Skipped" }
            .wide { table {
                tr { th { "why" } th.n { "how many" } }
                @for (why, count) in &skips {
                    tr { td.name { (visible(why)) } td.n { (count) } }
                }
            } }
        }
    }
}

fn failures(sheet: &Sheet) -> Markup {
    let failures = sheet.failures();
    html! {
        @if !failures.is_empty() {
            h2 { "What failed" }
            @for failure in &failures { (fault(failure)) }
        }
    }
}

fn fault(failure: &Failures<'_>) -> Markup {
    let Status::Failed { kind, output } = &failure.first.status else {
        return Markup::default();
    };
    html! {
        .fault {
            p {
                b { (visible(failure.name)) }
                " " span.word.bad { (kind.words()) }
                @if let Some(ms) = failure.first.ms { " after " (milliseconds(ms)) }
                @if let Some(often) = failure.often() {
                    ", " (often) ": round " (list(&failure.rounds))
                }
            }
            @if !output.trim().is_empty() { pre { (visible(&end_of(output))) } }
            @if let Some(command) = &failure.first.command {
                p.when { "to repeat it" }
                pre { (visible(command)) }
            }
        }
    }
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
    numbers.join(", ")
}

fn trouble(sheet: &Sheet) -> Markup {
    html! {
        @if !sheet.trouble.is_empty() {
            h2 { "What is wrong with the run" }
            .fault { pre { (visible(&end_of(&sheet.trouble))) } }
        }
    }
}

fn complaints(sheet: &Sheet) -> Markup {
    html! {
        @if !sheet.complaints.is_empty() {
            h2 { "What the kernel complained of" }
            @for complaint in &sheet.complaints {
                .fault {
                    p { b { (visible(&complaint.headline)) } }
                    pre { (visible(&end_of(&complaint.log))) }
                }
            }
        }
    }
}

fn numbers(tally: Tally) -> Markup {
    html! {
        td.n { (tally.passed) }
        td class=(if tally.failed > 0 { "n word bad" } else { "n" }) { (tally.failed) }
        td.n { (tally.skipped + tally.not_run) }
    }
}

fn tallies<'a>(what: &str, rows: impl Iterator<Item = (&'a str, Tally)> + Clone) -> Markup {
    let all = |tally: &Tally| tally.passed + tally.failed + tally.skipped + tally.not_run;
    let most = rows.clone().map(|(_, tally)| all(&tally)).max();
    let most = most.unwrap_or(1).max(1) as f64;
    let part = |count: usize| format!("width:{:.2}%", count as f64 * 100.0 / most);
    html! {
        .wide { table {
            tr { th { (what) } th.n { "passed" } th.n { "failed" } th.n { "skipped" } th.n { "time" } th { "" } }
            @for (name, tally) in rows {
                tr {
                    td.name { (visible(name)) }
                    (numbers(tally))
                    td.n { (milliseconds(tally.ms)) }
                    td.bar {
                        span.good style=(part(tally.passed)) {}
                        span.bad style=(part(tally.failed)) {}
                        span style=(part(tally.skipped + tally.not_run)) {}
                    }
                }
            }
        } }
    }
}

fn times(slowest: &[(&str, u64)]) -> Markup {
    let most = slowest.iter().map(|(_, ms)| *ms).max().unwrap_or(1).max(1) as f64;
    html! {
        .wide { table {
            tr { th { "test" } th.n { "time" } th { "" } }
            @for (name, ms) in slowest {
                tr {
                    td.name { (visible(name)) }
                    td.n { (milliseconds(*ms)) }
                    td.bar { span style={ "width:" (format!("{:.2}", *ms as f64 * 100.0 / most)) "%" } {} }
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::{
        tests::{case, failed, sheet, skipped},
        Complaint, Kind,
    };

    /// One of everything.
    fn bad() -> Sheet {
        let mut sheet = sheet(
            Verdict::Splat,
            vec![
                case("cancel::x4_a::sqpoll", 1, Status::Passed),
                case(
                    "cancel::x4_a::sqpoll",
                    2,
                    failed(Kind::Failed, "<b>left</b> \x1b[1m&"),
                ),
                case("form::f1_c", 1, skipped("no <null_blk>")),
                case(
                    "kunit::io_uring_group::c5_f",
                    1,
                    failed(Kind::Failed, "EXPECTATION FAILED"),
                ),
                case("form::f1_d", 2, failed(Kind::TimeOut, "")),
                case("form::f1_e", 2, Status::NotRun),
            ],
        );
        sheet.complaints.push(Complaint {
            rule: "warning".to_owned(),
            test: None,
            headline: "warning, before the first test: WARNING: <here>".to_owned(),
            log: "RIP: </pre><script>alert(1)</script>".to_owned(),
        });
        sheet.trouble = "time-out: waited 9 s & more\n".to_owned();
        sheet
    }

    /// What a browser would see of it: every tag that is opened is closed, in order.
    fn balanced(page: &str) {
        let mut open = Vec::new();
        let (_, body) = page.split_once("</style>").unwrap();
        let mut rest = body.split_once("</head>").unwrap().1;
        while let Some((_, tag)) = rest.split_once('<') {
            let (tag, after) = tag.split_once('>').unwrap();
            match tag.strip_prefix('/') {
                Some("html") => {}
                Some(name) => assert_eq!(open.pop(), Some(name), "{after}"),
                None => open.push(tag.split(' ').next().unwrap()),
            }
            rest = after;
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    /// It must look the same wherever it lies, and nobody be told that it was read.
    fn refers_to_nothing(page: &str) {
        for word in ["http:", "https:", "src=", "@import", "url(", "<script"] {
            assert!(!page.contains(word), "{word}");
        }
        for (at, _) in page.match_indices("href=") {
            let to = &page[at + "href=\"".len()..];
            assert!(
                to.starts_with('#') || to.starts_with("data:,\""),
                "{}",
                &to[..20]
            );
        }
    }

    #[test]
    fn all_there_is_to_know_is_on_it() {
        let page = of_run(&bad());
        for words in [
            "Tests on &lt;default&gt;",
            "kernel splat",
            "Linux 7.3.4 &amp; more",
            "2001-09-09 01:46 UTC",
            "12.2 s",
            "cargo xtask qemu-test",
            "cancel::x4_a::sqpoll",
            "failed 1 of 2 times: round 2",
            "&lt;b&gt;left&lt;/b&gt; \u{241b}[1m&amp;",
            "again 'cancel::x4_a::sqpoll'",
            "EXPECTATION FAILED",
            "time-out",
            "no &lt;null_blk&gt;",
            "WARNING: &lt;here&gt;",
            "waited 9 s &amp; more",
            "kunit::io_uring_group",
            "<b>1</b>not run",
            "By module",
            "By rule",
            "Slowest",
        ] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
        assert!(!page.contains('\x1b'));
        balanced(&page);
        refers_to_nothing(&page);
    }

    #[test]
    fn a_good_run_has_nothing_to_explain() {
        let page = of_run(&sheet(
            Verdict::Passed,
            vec![case("cancel::x4_a", 1, Status::Passed)],
        ));
        for words in ["What failed", "wrong with", "complained", "not run"] {
            assert!(!page.contains(words), "{words}");
        }
        assert!(page.contains("word good\">passed"));
        balanced(&page);
    }

    #[test]
    fn an_interrupted_run_does_not_look_like_a_good_one() {
        let mut sheet = sheet(Verdict::Passed, vec![case("a::b", 1, Status::Passed)]);
        sheet.interrupted = true;
        let page = of_run(&sheet);
        assert!(page.contains("word bad\">interrupted") && !page.contains("word good"));
    }

    #[test]
    fn steps_lead_to_their_runs() {
        let tally = |passed, failed, skipped| Tally {
            passed,
            failed,
            skipped,
            ..Tally::default()
        };
        let step = |line, tally, sheets| Step {
            line,
            tally,
            seconds: 75.0,
            sheets,
        };
        let runs = [bad(), bad()];
        let mut whole = sheet(
            Verdict::Failed,
            vec![case(
                "make LLVM=1 && <it>",
                1,
                failed(Kind::Failed, "no <clang>"),
            )],
        );
        whole.title = "cargo xtask ci".to_owned();
        let steps = [
            step("cargo fmt", tally(1, 0, 0), &[]),
            step("make LLVM=1 && <it>", tally(2, 1, 4), &runs),
            step("cargo xtask shell", tally(0, 0, 1), &[]),
        ];
        let page = of_steps(&whole, &steps);
        for words in [
            "href=\"#step-1\"",
            "id=\"step-1\"",
            "make LLVM=1 &amp;&amp; &lt;it&gt;",
            "no &lt;clang&gt;",
            "1 min 15 s",
            "<b>3</b>passed",
            "<b>1</b>failed",
            "<b>5</b>skipped",
        ] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
        assert_eq!(page.matches("id=\"step-1\"").count(), 1);
        balanced(&page);
        refers_to_nothing(&page);
    }

    #[test]
    fn times_are_short() {
        for (seconds, words) in [
            (0.04, "0.0 s"),
            (59.4, "59.4 s"),
            (236.7, "3 min 57 s"),
            (3600.0, "1 h 0 min"),
        ] {
            assert_eq!(duration(seconds), words);
        }
        assert_eq!(milliseconds(9_999), "9999 ms");
        assert_eq!(milliseconds(12_300), "12.3 s");
    }
}
