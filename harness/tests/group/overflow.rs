// SPDX-License-Identifier: GPL-2.0-only
//! C1 and C2 with the CQ overflowing: at every place of a group's CQEs.

use harness::ring::{Ring, RingMode, Setup};

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{build, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;

const CQ: u32 = 8;

fn small(mode: RingMode) -> Ring {
    build(Setup::new(mode).entries(8).cq_entries(CQ))
}

/// Leaves `room` entries in the CQ, and returns what is to be expected of those that
/// were used.
fn fill(ring: &mut Ring, room: u32) -> Expect {
    let mut expect = Expect::new();
    let mut ops = Vec::new();
    for i in 0..u64::from(CQ - room) {
        ops.push(nop_res(0x1000 + i, 1));
        expect = expect.cqe(0x1000 + i, 1);
    }
    submit(ring, &ops);
    expect
}

/// A group whose CQEs find room for none, some, or all of them.
fn c1_overflow_at_each_place(mode: RingMode) {
    for kind in Kind::ALL {
        let mut ring = small(mode);
        for room in 0..=6 {
            for (leader, first) in [(7, 1), (7, -9), (-9, 1)] {
                let expect = fill(&mut ring, room);
                let ops = group(
                    nop_res(L, leader).kind(kind),
                    [
                        nop_res(M1, first).kind(kind),
                        nop_res(M2, 2).kind(kind),
                        nop_res(M3, 3).kind(kind),
                    ],
                );
                submit(&mut ring, &ops);
                let member = |res: i32| if leader < 0 { EIO } else { res };
                expect
                    .group(
                        (L, leader),
                        [(M1, member(first)), (M2, member(2)), (M3, member(3))],
                    )
                    .finish(&mut ring);
            }
        }
    }
}

/// A chain whose elements overflow.
fn c2_overflow_keeps_the_order(mode: RingMode) {
    let mut ring = small(mode);
    for room in 0..=7 {
        let expect = fill(&mut ring, room);
        let ops = all([
            group(nop_res(L, 7).link(), [nop(M1), nop(M2)]),
            group(nop_res(L2, -5).link(), [nop(N1)]),
            vec![nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        expect
            .group((L, 7), [(M1, OK), (M2, OK)])
            .then_group((L2, -5), [(N1, EIO)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// Members that complete later, one by one, into a CQ that is full.
fn c1_overflow_in_flight(mode: RingMode) {
    let mut ring = small(mode);
    for room in 0..=3 {
        let (first, second) = (Pipe::new(), Pipe::new());
        let ops = group(
            nop_res(L, 7),
            [
                read(M1, &first.read, Buf::new(1)),
                read(M2, &second.read, Buf::new(1)),
            ],
        );
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        let expect = fill(&mut ring, room);
        first.feed(b"x");
        ring.flush().unwrap();
        second.feed(b"x");
        ring.flush().unwrap();
        expect.group((L, 7), [(M1, 1), (M2, 1)]).finish(&mut ring);
    }
}

/// A cancelled group into a CQ that is full.
fn c1_overflow_cancelled(mode: RingMode) {
    let mut ring = small(mode);
    for room in 0..=4 {
        let waits = Pipe::new();
        let ops = group(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        let expect = fill(&mut ring, room);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        expect
            .cqe(CANCEL, OK)
            .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .finish(&mut ring);
    }
}

every_mode!(c1_overflow_at_each_place);

main_modes_of_nops!(c2_overflow_keeps_the_order,);

main_modes!(c1_overflow_in_flight, c1_overflow_cancelled,);
