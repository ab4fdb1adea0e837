// SPDX-License-Identifier: GPL-2.0-only
//! Which numbers are shown, and beside which.

use super::{
    results::{Results, RINGS},
    table::Table,
    target::{copy, Target, BATCHES, BLOCKS, DEMANDS, PLACES, PLAIN, SLOW},
};

/// What the last posted version in C, ported to this base, was measured to cost by the
/// same method: instructions more for a plain and for a linked NOP, and for each
/// request of a group of so many. 10 more in a default ring.
const BAR_PLAIN: f64 = 9.0;
const BAR_LINKED: f64 = 42.0;
const BAR_GROUPS: [(u32, f64); 4] = [(2, 476.0), (8, 487.0), (32, 489.0), (128, 471.0)];
const BAR_DEFAULT: f64 = 10.0;

fn one(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.1}"))
}

fn signed(value: Option<f64>) -> Option<String> {
    // Not -0.0.
    value.map(|value| format!("{:+.1}", (value * 10.0).round() / 10.0 + 0.0))
}

fn ratio(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.2}"))
}

fn group_name(size: u32) -> String {
    format!("1+{}", size - 1)
}

/// A table, and the name of its place in the document.
pub(super) fn all(results: &Results, targets: &[Target]) -> Vec<(&'static str, Table)> {
    let mut tables = vec![
        ("requests", requests(results)),
        ("groups", groups(results)),
        ("bar", bar(results)),
        ("sizes", sizes(results)),
        ("flight", flight(results)),
        ("copies", copies(results)),
        ("memory", memory(results)),
        ("verdict", verdict(targets)),
        ("missed", missed(targets)),
    ];
    tables.retain(|(_, table)| !table.rows.is_empty());
    tables
}

/// Requests without a group, on all kernels.
fn requests(results: &Results) -> Table {
    let Results {
        base, patched, off, ..
    } = results;
    let mut table = Table::new(
        "Instructions of a request without a group (DEFER_TASKRUN, and what the other rings differ by)",
        &["request", "base", "patched", "more", "off", "default", "SINGLE_ISSUER"],
    );
    let kinds = PLAIN
        .into_iter()
        .chain(SLOW.into_iter().map(|(what, label, _)| (what, label)))
        .chain([("write/plain", "write in io-wq")]);
    for (what, label) in kinds {
        for size in BATCHES {
            let [first, second, third] = RINGS;
            if base.sample(what, first, size).is_none() {
                continue;
            }
            let more = |kernel, ring| signed(results.growth(kernel, what, ring, size));
            table.row(
                format!("{label}, {size} a submission"),
                vec![
                    one(base.cost(what, first, size)),
                    one(patched.cost(what, first, size)),
                    more(patched, first),
                    off.as_ref().and_then(|off| more(off, first)),
                    more(patched, second),
                    more(patched, third),
                ],
            );
        }
    }
    table
}

/// The same NOPs in four ways, in one turn.
fn groups(results: &Results) -> Table {
    let patched = &results.patched;
    let mut table = Table::new(
        "Instructions of a NOP: alone, in two submissions, in a chain, in a group",
        &[
            "NOPs", "plain", "two", "chain", "group", "/plain", "/two", "/chain",
        ],
    );
    for ring in RINGS {
        for size in [2, 8, 32, 128] {
            let cost = |way: &str| patched.cost(&format!("nop/{way}"), ring, size);
            let group = cost("group");
            let over = |other: Option<f64>| ratio(group.zip(other).map(|(a, b)| a / b));
            table.row(
                format!("{}, {ring}", group_name(size)),
                vec![
                    one(cost("plain")),
                    one(cost("two")),
                    one(cost("linked")),
                    one(group),
                    over(cost("plain")),
                    over(cost("two")),
                    over(cost("linked")),
                ],
            );
        }
    }
    table
}

/// Beside the last posted version in C.
fn bar(results: &Results) -> Table {
    let patched = &results.patched;
    let mut table = Table::new(
        "Beside the last posted version in C, ported (its numbers were given to us; the method is the same)",
        &["instructions", "C version", "this"],
    );
    let number = |value: f64| Some(format!("{value:.0}"));
    let [defer, default, _] = RINGS;
    for (what, label, theirs) in [
        ("nop/plain", "a plain NOP, more than base", BAR_PLAIN),
        ("nop/linked", "a linked NOP, more than base", BAR_LINKED),
    ] {
        let ours = results.growth(patched, what, defer, 32);
        table.row(label, vec![Some(format!("{theirs:+.0}")), signed(ours)]);
    }
    for (ring, more) in [(defer, 0.0), (default, BAR_DEFAULT)] {
        for (size, theirs) in BAR_GROUPS {
            // Small ones share a submission, so that there are 32 requests in it.
            let what = if size < 32 {
                "nop32/group"
            } else {
                "nop/group"
            };
            table.row(
                format!("a request of {}, {ring}", group_name(size)),
                vec![number(theirs + more), one(patched.cost(what, ring, size))],
            );
        }
    }
    table
}

/// How cost grows with the size of a group.
fn sizes(results: &Results) -> Table {
    let patched = &results.patched;
    let mut table = Table::new(
        "Instructions of a NOP, by the size of its group",
        &[
            "members",
            "plain",
            "chain",
            "group",
            "default: plain",
            "chain",
            "group",
        ],
    );
    for members in (0..=12).map(|power| 1 << power) {
        if patched.sample("size/group", RINGS[0], members).is_none() {
            continue;
        }
        let mut cells = Vec::new();
        for ring in &RINGS[..2] {
            for way in ["plain", "linked", "group"] {
                cells.push(one(patched.cost(&format!("size/{way}"), ring, members)));
            }
        }
        table.row(members.to_string(), cells);
    }
    table
}

/// How cost grows with the number of groups.
fn flight(results: &Results) -> Table {
    let patched = &results.patched;
    let ring = RINGS[0];
    let mut table = Table::new(
        "Groups in flight (DEFER_TASKRUN): instructions of a request of 1+1, of a NOP meanwhile, of start and cancel",
        &["groups", "1+1", "NOP", "cancel a group", "cancel a read"],
    );
    for count in (0..=10).map(|power| 1 << power) {
        if patched.sample("together/group", ring, count).is_none() {
            continue;
        }
        let all = |what| {
            patched
                .sample(what, ring, count)
                .map(|sample| format!("{:.0}", sample.instructions))
        };
        table.row(
            count.to_string(),
            vec![
                one(patched.cost("together/group", ring, count)),
                one(patched.cost("beside/group", ring, count)),
                all("cancel/group"),
                all("cancel/plain"),
            ],
        );
    }
    table
}

/// Eight copies of a block.
fn copies(results: &Results) -> Table {
    let patched = &results.patched;
    let mut table = Table::new(
        "One block to 8 files: thousand instructions; and system calls, context switches, wake-ups of two/chain/group",
        &[
            "block, ring", "loop", "two", "chain", "group", "/two", "/chain", "calls", "switches",
            "wake-ups",
        ],
    );
    for place in PLACES {
        for block in BLOCKS {
            for ring in &RINGS[..2] {
                let way = |way: &str| patched.sample(&copy(place, block, way), ring, 8);
                let (two, linked, group) = (way("two"), way("linked"), way("group"));
                let plain = patched.sample(&copy(place, block, "loop"), "none", 8);
                if two.is_none() {
                    continue;
                }
                let cost = |sample: Option<&harness::bench::Sample>| {
                    one(sample.map(|sample| sample.instructions / 1000.0))
                };
                let over = |other: Option<&harness::bench::Sample>| {
                    ratio(
                        group
                            .zip(other)
                            .map(|(a, b)| a.instructions / b.instructions),
                    )
                };
                let counts = |of: fn(&harness::bench::Sample) -> f64| {
                    let text: Option<Vec<_>> = [two, linked, group]
                        .into_iter()
                        .map(|sample| sample.map(|sample| format!("{:.0}", of(sample))))
                        .collect();
                    text.map(|text| text.join("/"))
                };
                table.row(
                    format!("{block} on {place}, {ring}"),
                    vec![
                        cost(plain),
                        cost(two),
                        cost(linked),
                        cost(group),
                        over(two),
                        over(linked),
                        counts(|sample| sample.syscalls),
                        counts(|sample| sample.switches),
                        counts(|sample| sample.wakeups),
                    ],
                );
            }
        }
    }
    table
}

/// What it takes in memory.
fn memory(results: &Results) -> Table {
    let mut table = Table::new("Bytes", &["in memory", "base", "patched", "off"]);
    let kernels = [
        Some(&results.base),
        Some(&results.patched),
        results.off.as_ref(),
    ];
    let row = |of: fn(&harness::bench::Memory) -> u32| {
        kernels
            .iter()
            .map(|kernel| kernel.map(|kernel| of(&kernel.memory).to_string()))
            .collect()
    };
    table.row("sizeof(struct io_kiocb)", row(|memory| memory.size));
    table.row("in its slab", row(|memory| memory.slot));
    table.row("objects of a slab", row(|memory| memory.objects));
    table.row("pages of a slab", row(|memory| 1 << memory.order));
    if let Some(text) = &results.text {
        let mut add = |name: String, before: Option<i64>, now: i64| {
            let show = |bytes: i64| Some(bytes.to_string());
            table.row(name, vec![before.and_then(show), show(now), None]);
        };
        add(
            format!("new functions ({})", text.functions),
            None,
            text.new,
        );
        for (name, before, now) in &text.changed {
            add(format!("{name}()"), Some(*before), *now);
        }
        add(
            "all functions, more than base".to_owned(),
            None,
            text.total(),
        );
    }
    table
}

/// How many cases of each demand are met.
pub(super) fn verdict(targets: &[Target]) -> Table {
    let mut table = Table::new("Targets", &["at most", "cases", "met", "worst", "bound"]);
    for demand in DEMANDS {
        let cases: Vec<_> = targets
            .iter()
            .filter(|target| target.demand == demand)
            .collect();
        let worst = cases
            .iter()
            .max_by(|a, b| (a.value - a.bound).total_cmp(&(b.value - b.bound)));
        if let Some(worst) = worst {
            table.row(
                demand,
                vec![
                    Some(cases.len().to_string()),
                    Some(
                        cases
                            .iter()
                            .filter(|target| target.met())
                            .count()
                            .to_string(),
                    ),
                    Some(worst.kind.show(worst.value)),
                    Some(worst.kind.show(worst.bound)),
                ],
            );
        }
    }
    table
}

/// Which cases are not met, and by how much.
pub(super) fn missed(targets: &[Target]) -> Table {
    let mut table = Table::new("Missed", &["case", "is", "at most"]);
    for target in targets.iter().filter(|target| !target.met()) {
        table.row(
            format!("{}: {}", target.demand, target.case),
            vec![
                Some(target.kind.show(target.value)),
                Some(target.kind.show(target.bound)),
            ],
        );
    }
    table
}
