// SPDX-License-Identifier: GPL-2.0-only
//! What went wrong in the first posting, one test each. A kernel with the mistake
//! fails its test.

use std::time::Duration;

use harness::ring::{RingMode, Setup, PATIENCE};

use crate::expect::{nothing_yet, nothing_yet_behind_drain, Expect};
use crate::op::*;
use crate::world::{build, open_direct, ring, Pipe};

const OK: i32 = 0;
const EINVAL: i32 = -libc::EINVAL;
const EIO: i32 = -libc::EIO;
const EACCES: i32 = -libc::EACCES;
const ECANCELED: i32 = -libc::ECANCELED;

/// The walk over the group's SQEs went past the last that was submitted, into old
/// ones, and the count of what was left underflowed.
fn v1_01_last_sqe_still_has_the_flag(mode: RingMode) {
    let mut ring = build(Setup::new(mode).entries(16));
    // Leaves SQEs with and without the flag all over the queue.
    for at in 0..4 {
        let ops: Vec<_> = (0..16)
            .map(|i| {
                let op = nop(0x1000 + i);
                if i % 4 == at {
                    op
                } else {
                    op.grouped()
                }
            })
            .collect();
        submit(&mut ring, &ops);
        let cqes = ring.collect(16, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
        assert!(cqes.iter().all(|cqe| cqe.result == OK));
        nothing_yet(&mut ring);
    }
    for size in 1..=16 {
        let ops: Vec<_> = (0..size).map(|i| nop(m(i)).grouped()).collect();
        Expect::new()
            .group((L, OK), (1..size).map(|i| (m(i), OK)))
            .run(&mut ring, &ops);
        // The count of SQEs is still right.
        Expect::new().cqe(AFTER, OK).run(&mut ring, &[nop(AFTER)]);
    }
}

/// A member that could not be initialised was counted and never completed: the
/// leader's CQE never came, and the ring could not be closed.
fn v1_02_a_member_fails_to_initialise(mode: RingMode) {
    for flaw in Flaw::ALL {
        let mut ring = ring(mode);
        for bad in 1..=3 {
            let op = |i: usize| {
                if i == bad {
                    nop(m(i)).flawed(flaw)
                } else {
                    nop(m(i))
                }
            };
            let result = |i| (m(i), if i == bad { flaw.error() } else { EIO });
            Expect::new()
                .group((L, flaw.error()), (1..=3).map(result))
                .run(&mut ring, &group(nop(L), (1..=3).map(op)));
        }
        // Closes it, with one more such group on its way.
        submit(&mut ring, &group(nop(L), [nop(M1).flawed(flaw), nop(M2)]));
    }
}

/// Such a member's pointer into the group was whatever the memory's last user had
/// left: requests are reused at once, and were members before.
fn v1_03_a_bad_member_in_used_memory(mode: RingMode) {
    let mut ring = ring(mode);
    for round in 0..50 {
        let kind = Kind::ALL[round % 3];
        let ops = group(nop(L).kind(kind), (1..=20).map(|i| nop(m(i)).kind(kind)));
        Expect::new()
            .group((L, OK), (1..=20).map(|i| (m(i), OK)))
            .run(&mut ring, &ops);
        // The last, the first: no sibling comes after, none before.
        let ops = all([
            group(nop(L), [nop(M1), nop(M2).flawed(Flaw::Opcode)]),
            group(nop(L2), [nop(N1).flawed(Flaw::Opcode), nop(N2)]),
        ]);
        Expect::new()
            .group((L, EINVAL), [(M1, EIO), (M2, EINVAL)])
            .group((L2, EINVAL), [(N1, EINVAL), (N2, EIO)])
            .run(&mut ring, &ops);
    }
}

/// A group that its chain cancelled before its members were executed: they were
/// lost, or executed.
fn v1_04_cancelled_by_its_chain(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let ops = all([
            vec![nop_res(BEFORE, -5).kind(kind).link()],
            group(nop(L).link(), [nop(M1), nop(M2).kind(kind)]),
            group(nop(L2).hardlink(), [nop(N1), nop(N2)]),
            vec![nop(AFTER)],
        ]);
        Expect::new()
            .cqe(BEFORE, -5)
            .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .then_group((L2, ECANCELED), [(N1, ECANCELED), (N2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);
    }
}

/// Completions that were polled for went past the group: the leader's CQE came
/// early and members leaked. The leader is polled for, or members are, or all.
fn v1_05_polled_completions(mode: RingMode) {
    const BLOCK: usize = 4096;
    let mut ring = ring(mode);
    let device = open_direct("/dev/nullb0".as_ref());
    let buf = Buf::aligned(BLOCK, BLOCK);
    let get = |ud| read_at(ud, &device, buf, 0);
    let block = BLOCK as i32;
    for kind in [Kind::Inline, Kind::Worker] {
        let ops = all([
            group(get(L).kind(kind).link(), [nop_res(M1, 1), get(M2)]),
            group(nop_res(L2, 7).kind(kind), [get(N1).kind(kind), get(N2)]),
            vec![nop(AFTER)],
        ]);
        Expect::new()
            .group((L, block), [(M1, 1), (M2, block)])
            .then_group((L2, 7), [(N1, block), (N2, block)])
            .cqe(AFTER, OK)
            .run(&mut ring, &ops);
    }
    for _ in 0..20 {
        let ops = group(
            nop_res(L, 7).kind(Kind::TaskWork),
            [
                nop_res(M1, 1).kind(Kind::TaskWork),
                nop_res(M2, 2).kind(Kind::Worker),
                nop_res(M3, 3),
            ],
        );
        Expect::new()
            .group((L, 7), [(M1, 1), (M2, 2), (M3, 3)])
            .run(&mut ring, &ops);
    }
}

/// The way of failing asserted a lock that a worker does not hold.
fn v1_06_failing_in_a_worker(mode: RingMode) {
    let mut ring = ring(mode);
    let pipe = Pipe::new();
    for _ in 0..10 {
        let leaders = [
            (nop_res(L, -5).worker(), -5),
            (read(L, &pipe.write, Buf::new(1)).worker(), -libc::EBADF),
            (fsync(L, &pipe.read), EINVAL),
        ];
        for (leader, error) in leaders {
            let ops = all([
                group(leader.link(), [nop(M1), nop(M2).worker()]),
                vec![nop(AFTER)],
            ]);
            Expect::new()
                .group((L, error), [(M1, EIO), (M2, EIO)])
                .then(AFTER, ECANCELED)
                .run(&mut ring, &ops);
        }
        let ops = group(
            nop(L).worker(),
            [
                nop_res(M1, -5).worker(),
                read(M2, &pipe.write, Buf::new(1)).worker(),
            ],
        );
        Expect::new()
            .group((L, OK), [(M1, -5), (M2, -libc::EBADF)])
            .run(&mut ring, &ops);
    }
}

/// A drain did not count members: it ran early, or never.
fn v1_07_drain_counts_members(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    for members in [1, 2, 5, 20] {
        // Early
        let waiting = (2..=members).map(|i| nop(m(i)));
        let ops = all([
            group(nop(L), waiting.chain([read(M1, &waits.read, Buf::new(1))])),
            vec![nop(AFTER).drain()],
        ]);
        submit(&mut ring, &ops);
        Expect::new()
            .members((2..=members).map(|i| (m(i), OK)))
            .settle(&mut ring);
        nothing_yet_behind_drain(&mut ring);
        waits.feed(b"x");
        Expect::new()
            .group((L, OK), [(M1, 1)])
            .then(AFTER, OK)
            .finish(&mut ring);
        // Never
        let ops = all([
            group(nop_res(L, -5), (1..=members).map(|i| nop(m(i)))),
            vec![nop(BESIDE).drain(), nop(AFTER).drain()],
        ]);
        Expect::new()
            .group((L, -5), (1..=members).map(|i| (m(i), EIO)))
            .then(BESIDE, OK)
            .then(AFTER, OK)
            .run(&mut ring, &ops);
        // The same of a group that drains: it is held back, and holds back.
        let ops = all([
            vec![read(BEFORE, &waits.read, Buf::new(1))],
            group(
                nop_res(L, 7).drain(),
                (1..=members).map(|i| read(m(i), &waits.read, Buf::new(1))),
            ),
            vec![nop(AFTER).drain()],
        ]);
        submit(&mut ring, &ops);
        nothing_yet_behind_drain(&mut ring);
        waits.feed(b"x");
        Expect::new().cqe(BEFORE, 1).settle(&mut ring);
        nothing_yet_behind_drain(&mut ring);
        waits.feed(&vec![b'x'; members]);
        Expect::new()
            .group((L, 7), (1..=members).map(|i| (m(i), 1)))
            .then(AFTER, OK)
            .finish(&mut ring);
        // Nor does what is submitted once its leader has completed start before that.
        let ops = all([
            vec![read(BEFORE, &waits.read, Buf::new(1))],
            group(
                nop_res(L, 7).drain(),
                (1..=members).map(|i| read(m(i), &waits.read, Buf::new(1))),
            ),
        ]);
        submit(&mut ring, &ops);
        waits.feed(b"x");
        Expect::new().cqe(BEFORE, 1).settle(&mut ring);
        nothing_yet_behind_drain(&mut ring);
        submit(&mut ring, &[nop(AFTER)]);
        nothing_yet_behind_drain(&mut ring);
        waits.feed(&vec![b'x'; members]);
        Expect::new()
            .group((L, 7), (1..=members).map(|i| (m(i), 1)))
            .then(AFTER, OK)
            .finish(&mut ring);
    }
}

/// Members were issued in reverse.
fn v1_08_members_in_order(mode: RingMode) {
    let mut ring = ring(mode);
    for members in [2, 3, 10, 60] {
        let ops = group(nop(L), (1..=members).map(|i| nop_res(m(i), i as i32)));
        Expect::new()
            .members((1..=members).map(|i| (m(i), i as i32)))
            .cqe(L, OK)
            .in_order()
            .run(&mut ring, &ops);
    }
}

/// A member that failed did not break the chain.
fn v1_09_a_failed_member_breaks_the_chain(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        for failing in 1..=3 {
            let result = |i: usize| if i == failing { -5 } else { 0 };
            let ops = all([
                group(
                    nop(L).link(),
                    (1..=3).map(|i| nop_res(m(i), result(i)).kind(kind)),
                ),
                vec![nop(AFTER)],
            ]);
            Expect::new()
                .group((L, OK), (1..=3).map(|i| (m(i), result(i))))
                .then(AFTER, ECANCELED)
                .run(&mut ring, &ops);
        }
    }
}

/// The walker over members went past what is checked for each SQE that is submitted:
/// restrictions, flags, fields, personalities, counting.
fn v1_10_members_are_checked_like_any_sqe(mode: RingMode) {
    use io_uring::register::Restriction;

    let mut ring = ring(mode);
    let flaws: [fn(Op) -> (Op, i32); 5] = [
        |op| (op.flawed(Flaw::Flag), -libc::EOPNOTSUPP),
        |op| (op.flawed(Flaw::Field), EINVAL),
        |op| (op.flawed(Flaw::Personality), EINVAL),
        |op| (op.flawed(Flaw::ExtFlag), EINVAL),
        |op| (op.flawed(Flaw::Prep), EINVAL),
    ];
    for flaw in flaws {
        let (bad, error) = flaw(nop(M1));
        Expect::new()
            .group((L, error), [(M1, error), (M2, EIO)])
            .run(&mut ring, &group(nop(L), [bad, nop(M2)]));
    }

    let mut ring = build(Setup::new(mode).disabled());
    let mut only_nops = [
        Restriction::sqe_op(io_uring::opcode::Nop::CODE),
        Restriction::sqe_flags_allowed(harness::sqe::IOSQE_HAS_EXT_FLAGS),
    ];
    ring.submitter()
        .register_restrictions(&mut only_nops)
        .expect("restricting the ring");
    ring.enable().expect("starting the ring");
    let ops = group(nop(L), [timeout(M1, Duration::ZERO), nop(M2)]);
    Expect::new()
        .group((L, EACCES), [(M1, EACCES), (M2, EIO)])
        .run(&mut ring, &ops);
}

in_modes!(
    v1_05_polled_completions:
    iopoll Iopoll,
    hybrid_iopoll HybridIopoll,
);

main_modes_of_nops!(
    v1_01_last_sqe_still_has_the_flag,
    v1_02_a_member_fails_to_initialise,
    v1_03_a_bad_member_in_used_memory,
    v1_04_cancelled_by_its_chain,
    v1_08_members_in_order,
    v1_09_a_failed_member_breaks_the_chain,
);

main_modes!(
    v1_06_failing_in_a_worker,
    v1_07_drain_counts_members,
    v1_10_members_are_checked_like_any_sqe,
);
