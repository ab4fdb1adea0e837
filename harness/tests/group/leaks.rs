// SPDX-License-Identifier: GPL-2.0-only
//! X5, counted: what a group has taken is given back, however it ended. One request, file
//! or set of credentials too many is not seen by anybody, so each end is repeated, and what
//! the kernel has allocated of each kind must not have grown by one each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Ring, RingMode, SyncCancel, PATIENCE};
use harness::skip;
use io_uring::opcode;
use rstest::rstest;

use crate::exit::{start, wait_for_release, with_child, End, Phase};
use crate::expect::list;
use crate::observe::groups;
use crate::op::*;
use crate::world::{eventually, ring, Pipe};

/// How often something ends, and so how often it could leave something behind.
const ROUNDS: usize = 16;

/// How often so many, if there is more of something after the first.
const SERIES: usize = 3;

/// What is in use of each kind of object that the kernel allocates by itself. The files
/// are described in Documentation/ABI/testing/sysfs-kernel-slab.
struct Objects(BTreeMap<String, usize>);

impl Objects {
    const SLABS: &'static str = "/sys/kernel/slab";
    /// What a group takes: requests, files, credentials.
    const HELD: [&'static str; 3] = ["io_kiocb", "filp", "cred"];
    /// What a debugging kernel remembers of the others, for as long as it likes.
    const RECORDS: [&'static str; 2] = ["kmemleak_object", "debug_objects_cache"];

    /// Those of some kinds. Asking for one takes a debugging kernel a tenth of a second. Without
    /// such counts the test is skipped.
    fn count(kinds: impl Fn(&str) -> bool) -> Self {
        let Ok(slabs) = std::fs::read_dir(Self::SLABS) else {
            skip!("the kernel does not count its objects");
        };
        // Among what the second frees are objects that wait for a grace period: by themselves they
        // go seconds after it. The first has it not told in the log. See sysctl/vm.rst.
        for value in ["4", "2"] {
            std::fs::write("/proc/sys/vm/drop_caches", value).expect("dropping caches");
        }
        let mut objects = BTreeMap::new();
        for slab in slabs.flatten() {
            let name = slab.file_name().to_string_lossy().into_owned();
            if Self::RECORDS.contains(&name.as_str()) || !kinds(&name) {
                continue;
            }
            // Short of that, what a processor keeps at hand is in use, too.
            let flushed = std::fs::write(slab.path().join("shrink"), "1");
            let count = Self::of(&slab.path());
            if let (Ok(()), Some(count)) = (flushed, count) {
                objects.insert(name, count);
            }
        }
        Self(objects)
    }

    /// What a group takes, once what ended before, and is on its way out, is gone.
    fn settle() {
        let held = || Self::count(|kind| Self::HELD.contains(&kind)).0;
        let mut before = held();
        assert_eq!(before.len(), Self::HELD.len(), "not counted: {before:?}");
        eventually("the end of what was before", || {
            std::thread::sleep(Duration::from_millis(20));
            let now = held();
            let settled = before == now;
            before = now;
            settled
        });
    }

    fn of(slab: &Path) -> Option<usize> {
        let text = std::fs::read_to_string(slab.join("objects")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// Who has allocated what there is most of, if the kernel knows: `slab_debug=U`.
    fn origins(kind: &str) -> String {
        let path = format!("/sys/kernel/debug/slab/{kind}/alloc_traces");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let most: Vec<_> = text.split("\n\n").take(3).collect();
        most.join("\n\n")
    }

    /// Of what there is by [`ROUNDS`] more than there was, and how much more.
    fn grown_since(&self, before: &Self) -> BTreeMap<String, usize> {
        let grown = |(kind, &now): (&String, &usize)| {
            let growth = now.saturating_sub(before.0.get(kind).copied().unwrap_or(0));
            (growth >= ROUNDS).then(|| (kind.clone(), growth))
        };
        self.0.iter().filter_map(grown).collect()
    }
}

/// Runs something again and again, and sees that nothing of these kinds is left of it.
///
/// The rest of the kernel allocates as well, and may keep something for once: what a leak
/// leaves is left by each of several series.
#[track_caller]
fn none_is_left(kinds: impl Fn(&str) -> bool, mut round: impl FnMut()) {
    // What is there once and for all.
    round();
    let mut left = grown_by_a_series(&kinds, &mut round);
    for _ in 1..SERIES {
        if left.is_empty() {
            return;
        }
        let again = grown_by_a_series(&|kind| left.contains_key(kind), &mut round);
        left.retain(|kind, _| again.contains_key(kind));
    }
    assert!(
        left.is_empty(),
        "left after each {ROUNDS} rounds: {left:?}\n{}",
        left.keys()
            .map(|kind| Objects::origins(kind))
            .collect::<String>()
    );
}

/// Of which of these kinds there is more after [`ROUNDS`], for good, and how much.
fn grown_by_a_series(
    kinds: &impl Fn(&str) -> bool,
    round: &mut impl FnMut(),
) -> BTreeMap<String, usize> {
    Objects::settle();
    let before = Objects::count(kinds);
    for _ in 0..ROUNDS {
        round();
    }
    let mut grown = Objects::count(kinds).grown_since(&before);
    let mut patience = Patience::new(PATIENCE);
    while !grown.is_empty() && !patience.is_over() {
        std::thread::sleep(Duration::from_millis(20));
        grown = Objects::count(|kind| grown.contains_key(kind)).grown_since(&before);
    }
    grown
}

/// The same of whatever the kernel allocates.
#[track_caller]
fn nothing_is_left(round: impl FnMut()) {
    none_is_left(|_| true, round);
}

/// A group in each phase. The last one drains, so nothing comes behind it.
const PHASES: [Phase; 8] = [
    Phase::Leader,
    Phase::LeaderInWorker,
    Phase::LeaderInTimer,
    Phase::Members,
    Phase::MembersInWorker,
    Phase::Chain,
    Phase::Done,
    Phase::Drain,
];

/// How many CQEs all of these post.
const CQES: usize = 28;

fn start_all(ring: &mut Ring, pipe: &Pipe) {
    for phase in PHASES {
        start(ring, phase, pipe);
    }
}

/// What they wait for comes, but for the timer, which is cancelled with its group.
fn complete(ring: &mut Ring, pipe: &Pipe) {
    let mut cqes = Vec::new();
    eventually("each CQE", || {
        let target = SyncCancel {
            user_data: L,
            flags: CANCEL_OP | CANCEL_USERDATA,
            opcode: opcode::Timeout::CODE,
            ..SyncCancel::default()
        };
        let _ = ring.sync_cancel(&target);
        if pipe.filled() == 0 {
            pipe.feed(b"xxxx");
        }
        cqes.extend(ring.arrived());
        cqes.len() >= CQES
    });
    assert_eq!(cqes.len(), CQES, "{}", list(&cqes));
    pipe.drain();
}

/// All that can be found is cancelled, until there is nothing any more. What waits behind a
/// drain is not found, and a cancel request would wait there, too.
fn start_and_cancel(ring: &mut Ring, pipe: &Pipe) {
    const DRAINED: usize = 4;
    for phase in PHASES {
        if !matches!(phase, Phase::Drain) {
            start(ring, phase, pipe);
        }
    }
    let mut cqes = Vec::new();
    let mut patience = Patience::new(PATIENCE);
    while cqes.len() < CQES - DRAINED {
        assert!(
            !patience.is_over(),
            "what cannot be cancelled: {:?}, after {}",
            groups(ring),
            list(&cqes)
        );
        submit(ring, &[cancel(CANCEL, 0, CANCEL_ANY)]);
        cqes.extend(ring.arrived());
        cqes.retain(|cqe| cqe.user_data != CANCEL);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(cqes.len(), CQES - DRAINED, "{}", list(&cqes));
    // The last cancel request's may still come.
    let rest = ring.quiet().err().unwrap_or_default();
    assert!(
        rest.iter().all(|cqe| cqe.user_data == CANCEL),
        "{}",
        list(&rest)
    );
}

#[rstest]
fn x5_groups_that_complete(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    nothing_is_left(|| {
        let (mut ring, pipe) = (ring(mode), Pipe::new());
        start_all(&mut ring, &pipe);
        complete(&mut ring, &pipe);
        assert_eq!(groups(&ring), None);
        drop(ring);
        wait_for_release(pipe);
    });
}

#[rstest]
fn x5_groups_that_are_cancelled(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    nothing_is_left(|| {
        let (mut ring, pipe) = (ring(mode), Pipe::new());
        start_and_cancel(&mut ring, &pipe);
        assert_eq!(groups(&ring), None);
        drop(ring);
        wait_for_release(pipe);
    });
}

/// The ring stays, and with it what it has at hand; no group makes it get more requests.
#[rstest]
fn x5_groups_of_one_ring(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    let (mut ring, pipe) = (ring(mode), Pipe::new());
    none_is_left(
        |kind| Objects::HELD.contains(&kind),
        || {
            start_all(&mut ring, &pipe);
            complete(&mut ring, &pipe);
            start_and_cancel(&mut ring, &pipe);
            assert_eq!(groups(&ring), None);
        },
    );
    drop(ring);
    wait_for_release(pipe);
}

#[rstest]
fn x5_rings_that_are_closed(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    nothing_is_left(|| {
        let (mut ring, pipe) = (ring(mode), Pipe::new());
        start_all(&mut ring, &pipe);
        drop(ring);
        wait_for_release(pipe);
    });
}

#[rstest]
fn x5_tasks_that_end(
    #[values(End::Exit, End::Kill, End::Exec)] end: End,
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    drop(ring(mode));
    nothing_is_left(|| {
        let pipe = Pipe::new();
        with_child(end, || {
            let mut ring = Ring::new(mode).expect("a ring");
            start_all(&mut ring, &pipe);
            vec![ring]
        });
        wait_for_release(pipe);
    });
}
