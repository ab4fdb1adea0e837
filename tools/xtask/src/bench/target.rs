// SPDX-License-Identifier: GPL-2.0-only
//! What is asked of the kernel, and whether it does it.

use serde::{Deserialize, Serialize};

use super::results::{Results, RINGS};

/// What a number is, which says how exact it is and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Instructions more than on the base, of requests that complete at once.
    Instructions,
    /// The same where workers and the scheduler take part.
    Scheduled,
    /// One cost over another.
    Ratio,
    /// One count over another.
    Share,
    /// Bytes.
    Bytes,
}

impl Kind {
    /// A number is not told from another one that differs by less. A single
    /// instruction for a request is one, whatever the batch.
    fn resolution(self) -> f64 {
        match self {
            Self::Instructions => 0.4,
            Self::Scheduled => 4.0,
            Self::Ratio => 0.0005,
            Self::Share => 0.02,
            Self::Bytes => 0.0,
        }
    }

    /// By how much a number may be worse than the one on record: other releases of the
    /// same compilers lay out code differently.
    fn tolerance(self, recorded: f64) -> f64 {
        match self {
            Self::Instructions => 0.5,
            Self::Scheduled => 5.0,
            Self::Ratio => 0.02 * recorded,
            Self::Share => 0.05,
            Self::Bytes => 0.0,
        }
    }

    pub(super) fn show(self, value: f64) -> String {
        match self {
            // Not -0.0.
            Self::Instructions | Self::Scheduled => format!("{:+.1}", value + 0.0),
            Self::Ratio => format!("{value:.3}"),
            Self::Share => format!("{value:.2}"),
            Self::Bytes => format!("{value:.0}"),
        }
    }
}

/// Something that should be at most so much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// Which demand this is a case of.
    pub(super) demand: String,
    /// Which case.
    pub(super) case: String,
    pub(super) kind: Kind,
    pub(super) bound: f64,
    pub(super) value: f64,
}

impl Target {
    pub(super) fn met(&self) -> bool {
        self.value <= self.bound + self.kind.resolution()
    }

    /// Whether this is worse than what is on record, by more than chance.
    pub(super) fn worse_than(&self, recorded: &Self) -> bool {
        let allowed = self
            .kind
            .tolerance(recorded.value)
            .max(self.kind.resolution());
        self.value > recorded.value + allowed
    }

    /// Whether it is better by as much.
    pub(super) fn better_than(&self, recorded: &Self) -> bool {
        recorded.worse_than(self)
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}: {}: {} (at most {})",
            self.demand,
            self.case,
            self.kind.show(self.value),
            self.kind.show(self.bound)
        )
    }
}

/// The demands, in the order in which they are shown.
pub(super) const DEMANDS: [&str; 9] = [
    "plain requests: no instruction more",
    "slow branches: at most 2 more",
    "feature off: no instruction more",
    "struct io_kiocb: at most 256 bytes",
    "group of 1+31 NOPs: at most 1.20 plain ones",
    "flat from 1+31 to 1+4096",
    "copy 1->8: fewer instructions than links",
    "copy 1->8: fewer instructions than two submissions",
    "copy 1->8: half of two submissions",
];

/// Batches of requests that take no slow branch.
pub(super) const PLAIN: [(&str, &str); 3] = [
    ("nop/plain", "NOP"),
    ("read/plain", "read"),
    ("socket/plain", "send, recv"),
];
/// Those that do.
pub(super) const SLOW: [(&str, &str, Kind); 3] = [
    ("nop/linked", "linked NOP", Kind::Instructions),
    ("nop/drain", "NOP behind a drain", Kind::Scheduled),
    ("nop/async", "NOP in io-wq", Kind::Scheduled),
];
/// SQEs of a submission.
pub(super) const BATCHES: [u32; 5] = [1, 8, 32, 128, 256];

/// Where copies are made, and in what blocks.
pub(super) const PLACES: [&str; 3] = ["tmpfs", "ext4", "direct"];
pub(super) const BLOCKS: [&str; 3] = ["4K", "64K", "1024K"];

/// All targets that these results can tell of.
pub(super) fn targets(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |demand: usize, case: String, kind, bound, value: Option<f64>| {
        if let Some(value) = value {
            targets.push(Target {
                demand: DEMANDS[demand].to_owned(),
                case,
                kind,
                bound,
                value,
            });
        }
    };
    let Results {
        base, patched, off, ..
    } = results;

    for ring in RINGS {
        for size in BATCHES {
            for (what, label) in PLAIN {
                let case = format!("{label}, {size} a submission, {ring}");
                let value = results.growth(patched, what, ring, size);
                add(0, case.clone(), Kind::Instructions, 0.0, value);
                let value = off
                    .as_ref()
                    .and_then(|off| results.growth(off, what, ring, size));
                add(2, case, Kind::Instructions, 0.0, value);
            }
            for (what, label, kind) in SLOW {
                let case = format!("{label}, {size} a submission, {ring}");
                let value = results.growth(patched, what, ring, size);
                add(1, case.clone(), kind, 2.0, value);
                let value = off
                    .as_ref()
                    .and_then(|off| results.growth(off, what, ring, size));
                add(2, case, kind, 0.0, value);
            }
        }
    }
    let size = Some(f64::from(patched.memory.size));
    add(3, "sizeof".to_owned(), Kind::Bytes, 256.0, size);
    for ring in RINGS {
        let ratio =
            || Some(patched.cost("nop/group", ring, 32)? / base.cost("nop/plain", ring, 32)?);
        add(4, ring.to_owned(), Kind::Ratio, 1.2, ratio());
        let first = patched.cost("nop/group", ring, 32);
        let most = (5..=12)
            .filter_map(|power| patched.cost("size/group", ring, 1 << power))
            .max_by(f64::total_cmp);
        let flat = || Some(most? / first?);
        add(5, ring.to_owned(), Kind::Ratio, 1.02, flat());
    }
    for place in PLACES {
        for block in BLOCKS {
            for ring in &RINGS[..2] {
                let case = format!("{block} on {place}, {ring}");
                let way = |way: &str| patched.sample(&copy(place, block, way), ring, 8);
                let (group, two, linked) = (way("group"), way("two"), way("linked"));
                let over = |other: Option<&harness::bench::Sample>| {
                    Some(group?.instructions / other?.instructions)
                };
                add(6, case.clone(), Kind::Ratio, 1.0, over(linked));
                add(7, case.clone(), Kind::Ratio, 1.0, over(two));
                let calls = || Some(group?.syscalls / two?.syscalls);
                add(
                    8,
                    format!("system calls, {case}"),
                    Kind::Share,
                    0.5,
                    calls(),
                );
                let wakeups = || Some(group?.wakeups / two?.wakeups);
                // Where nobody sleeps there is nothing to halve.
                if two.is_some_and(|two| two.wakeups >= 1.0) {
                    add(8, format!("wake-ups, {case}"), Kind::Share, 0.5, wakeups());
                }
            }
        }
    }
    targets
}

/// The name of a copy in a sample.
pub(super) fn copy(place: &str, block: &str, way: &str) -> String {
    format!("copy/{place}/{block}/{way}")
}

/// The same target in another list.
pub(super) fn find<'a>(list: &'a [Target], target: &Target) -> Option<&'a Target> {
    list.iter()
        .find(|other| other.demand == target.demand && other.case == target.case)
}

#[cfg(test)]
mod tests {
    use harness::bench::{Memory, Sample};

    use super::*;
    use crate::bench::results::Kernel;

    const RING: &str = RINGS[0];

    fn sample(what: &str, size: u32, instructions: f64) -> Sample {
        Sample {
            what: what.to_owned(),
            ring: RING.to_owned(),
            size,
            requests: size,
            instructions,
            spread: 0.0,
            syscalls: 1.0,
            switches: 0.0,
            wakeups: 1.0,
        }
    }

    fn kernel(size: u32, samples: Vec<Sample>) -> Kernel {
        let memory = Memory {
            size,
            slot: 256,
            objects: 16,
            order: 0,
        };
        Kernel::new("Linux".to_owned(), memory, vec![samples])
    }

    fn results(patched: Vec<Sample>) -> Results {
        let base = || vec![sample("nop/plain", 32, 32.0 * 300.0)];
        Results {
            base: kernel(248, base()),
            patched: kernel(256, patched),
            off: Some(kernel(248, base())),
            text: None,
            compilers: Vec::new(),
        }
    }

    fn met(results: &Results, demand: usize) -> Vec<bool> {
        targets(results)
            .iter()
            .filter(|target| target.demand == DEMANDS[demand])
            .map(Target::met)
            .collect()
    }

    #[test]
    fn an_instruction_more_for_a_plain_request_is_seen() {
        let results = |cost| results(vec![sample("nop/plain", 32, 32.0 * cost)]);
        assert_eq!(met(&results(300.0), 0), [true]);
        assert_eq!(met(&results(299.0), 0), [true]);
        assert_eq!(met(&results(301.0), 0), [false]);
        // The kernel with the feature off is not that one.
        assert_eq!(met(&results(301.0), 2), [true]);
    }

    #[test]
    fn a_group_is_measured_by_plain_requests_of_the_base() {
        let results = |cost| results(vec![sample("nop/group", 32, 32.0 * cost)]);
        assert_eq!(met(&results(360.0), 4), [true]);
        assert_eq!(met(&results(361.0), 4), [false]);
        assert!(
            met(&results(360.0), 5).is_empty(),
            "no sizes, so not flat either"
        );
    }

    #[test]
    fn the_worst_size_decides_whether_cost_is_flat() {
        let results = |cost| {
            results(vec![
                sample("nop/group", 32, 32.0 * 400.0),
                sample("size/group", 64, 64.0 * cost),
                sample("size/group", 4096, 4096.0 * 300.0),
            ])
        };
        assert_eq!(met(&results(400.0), 5), [true]);
        assert_eq!(met(&results(420.0), 5), [false]);
    }

    #[test]
    fn a_copy_is_compared_with_both_and_counted() {
        let results = |group: f64, calls: f64| {
            let mut two = sample("copy/tmpfs/4K/two", 8, 1000.0);
            two.syscalls = 2.0;
            let mut ours = sample("copy/tmpfs/4K/group", 8, group);
            ours.syscalls = calls;
            ours.wakeups = 0.5;
            let linked = sample("copy/tmpfs/4K/linked", 8, 900.0);
            results(vec![two, linked, ours])
        };
        let good = results(850.0, 1.0);
        assert_eq!(met(&good, 6), [true]);
        assert_eq!(met(&good, 7), [true]);
        assert_eq!(met(&good, 8), [true, true]);
        let bad = results(950.0, 2.0);
        assert_eq!(met(&bad, 6), [false]);
        assert_eq!(met(&bad, 7), [true]);
        assert_eq!(met(&bad, 8), [false, true]);
    }

    #[test]
    fn a_request_may_not_grow_past_a_slot() {
        let mut results = results(Vec::new());
        assert_eq!(met(&results, 3), [true]);
        results.patched.memory.size = 264;
        assert_eq!(met(&results, 3), [false]);
    }

    #[test]
    fn boots_are_joined_by_their_best() {
        let memory = kernel(1, Vec::new()).memory;
        let boot = |cost| vec![sample("a", 1, cost), sample("b", 1, 100.0)];
        let joined = Kernel::new(String::new(), memory, vec![boot(101.0), boot(100.0)]);
        assert_eq!(joined.samples[0].instructions, 100.0);
        let repeat = joined.repeat.unwrap();
        assert!((repeat.worst - 0.01).abs() < 1e-9);
        assert!(Kernel::new(String::new(), memory, vec![boot(1.0)])
            .repeat
            .is_none());
    }
}
