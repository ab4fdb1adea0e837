// SPDX-License-Identifier: GPL-2.0-only
//! The table of what a leader L and members M1, M2 post, row by row.

use harness::ring::RingMode;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{ring, Pipe};

const OK: i32 = 0;
const EINVAL: i32 = -libc::EINVAL;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;

/// The rows that NOPs can show. A chain's next element stands behind each.
fn table_of_outcomes(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let program = |l: i32, m1: i32, m2: Op| {
            all([
                group(
                    nop_res(L, l).kind(kind).link(),
                    [nop_res(M1, m1).kind(kind), m2],
                ),
                vec![nop_res(AFTER, 9)],
            ])
        };
        let m2 = || nop_res(M2, 2).kind(kind);

        // All succeed: M1 and M2 in any order, then L.
        Expect::new()
            .group((L, 7), [(M1, 1), (M2, 2)])
            .then(AFTER, 9)
            .run(&mut ring, &program(7, 1, m2()));
        // M1 fails: its error, M2's result, L's own result; the chain is cancelled.
        Expect::new()
            .group((L, 7), [(M1, -9), (M2, 2)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &program(7, -9, m2()));
        // L fails: -EIO, -EIO, its error.
        Expect::new()
            .group((L, -9), [(M1, EIO), (M2, EIO)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &program(-9, 1, m2()));
        // M2 is malformed: -EIO, its error, M2's error.
        Expect::new()
            .group((L, EINVAL), [(M1, EIO), (M2, EINVAL)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &program(7, 1, m2().flawed(Flaw::Prep)));

        // The element before the group fails: all -ECANCELED.
        let ops = all([
            vec![nop_res(BEFORE, -9).kind(kind).link()],
            program(7, 1, m2()),
        ]);
        Expect::new()
            .cqe(BEFORE, -9)
            .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);

        // Members skip: L only.
        let skipping = |leader: Op, m1: i32| {
            group(
                leader.kind(kind),
                [nop_res(M1, m1).kind(kind).skip(), m2().skip()],
            )
        };
        Expect::new()
            .cqe(L, 7)
            .run(&mut ring, &skipping(nop_res(L, 7), 1));
        // All skip, M1 fails: its error, then L's own result.
        Expect::new()
            .group((L, 7), [(M1, -9)])
            .run(&mut ring, &skipping(nop_res(L, 7).skip(), -9));
    }
}

/// L is cancelled while it runs: all -ECANCELED.
fn table_leader_cancelled(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(read(L, &waits.read, Buf::new(1)).link(), [nop(M1), nop(M2)]),
        vec![nop(AFTER)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// L has succeeded when X1 is at work: members -ECANCELED, L its own result, and
/// the chain is cancelled.
fn table_members_cancelled(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(
            nop_res(L, 7).link(),
            [
                read(M1, &first.read, Buf::new(1)),
                read(M2, &second.read, Buf::new(1)),
            ],
        ),
        vec![nop(AFTER)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, 7), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// M1 is cancelled before it is issued: it alone, and the chain.
fn table_unissued_member_cancelled(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(
            read(L, &waits.read, Buf::new(1)).link(),
            [nop_res(M1, 1), nop_res(M2, 2)],
        ),
        vec![nop(AFTER)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, M1, 0)]);
    Expect::new().cqe(CANCEL, OK).settle(&mut ring);
    // It completes when the leader does, not before.
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, ECANCELED), (M2, 2)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

every_mode!(table_of_outcomes);

every_pollable_mode!(
    table_leader_cancelled,
    table_members_cancelled,
    table_unissued_member_cancelled,
);
