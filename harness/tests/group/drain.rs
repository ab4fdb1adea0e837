// SPDX-License-Identifier: GPL-2.0-only
//! I4: a group that drains, and what drains behind a group.

use std::ffi::CString;
use std::fs::OpenOptions;

use harness::ring::{RingMode, PATIENCE};

use crate::expect::{list, nothing_yet, nothing_yet_behind_drain, Expect};
use crate::op::*;
use crate::world::{one_worker, ring, Pipe};

const OK: i32 = 0;
const EINVAL: i32 = -libc::EINVAL;
const EIO: i32 = -libc::EIO;

/// DRAIN on the leader: the group waits for everything before it.
fn i4_group_waits_for_what_came_before(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, to) = (Pipe::new(), Pipe::new());
    for kind in [Kind::Inline, Kind::Worker] {
        let ops = all([
            vec![read(BEFORE, &waits.read, Buf::new(1))],
            group(
                write(L, &to.write, b"L").drain().kind(kind),
                [write(M1, &to.write, b"1").kind(kind)],
            ),
        ]);
        submit(&mut ring, &ops);
        nothing_yet_behind_drain(&mut ring);
        assert_eq!(to.filled(), 0, "the group did not wait");
        waits.feed(b"x");
        Expect::new()
            .cqe(BEFORE, 1)
            .then_group((L, 1), [(M1, 1)])
            .finish(&mut ring);
        assert_eq!(to.drain(), b"L1");
    }
}

/// What drains waits for every member of the groups before it, in flight.
fn i4_drain_waits_for_members_in_flight(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(
            nop(L),
            [
                read(M1, &first.read, Buf::new(1)),
                read(M2, &second.read, Buf::new(1)),
            ],
        ),
        vec![nop(AFTER).drain()],
    ]);
    submit(&mut ring, &ops);
    nothing_yet_behind_drain(&mut ring);
    first.feed(b"x");
    Expect::new().cqe(M1, 1).settle(&mut ring);
    nothing_yet_behind_drain(&mut ring);
    second.feed(b"x");
    Expect::new()
        .group((L, OK), [(M2, 1)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// And for members that are not even issued.
fn i4_drain_waits_for_unissued_members(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(
            read(L, &first.read, Buf::new(1)),
            [nop(M1), read(M2, &second.read, Buf::new(1))],
        ),
        vec![nop(AFTER).drain()],
    ]);
    submit(&mut ring, &ops);
    nothing_yet_behind_drain(&mut ring);
    first.feed(b"x");
    Expect::new().cqe(M1, OK).settle(&mut ring);
    nothing_yet_behind_drain(&mut ring);
    second.feed(b"x");
    Expect::new()
        .group((L, 1), [(M2, 1)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// A drained group in front of another one.
fn i4_group_behind_group(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(nop(L), [read(M1, &waits.read, Buf::new(1)), nop(M2)]),
        group(nop(L2).drain(), [nop(N1), nop(N2)]),
        vec![nop(AFTER).drain()],
    ]);
    submit(&mut ring, &ops);
    Expect::new().cqe(M2, OK).settle(&mut ring);
    nothing_yet_behind_drain(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, OK), [(M1, 1)])
        .then_group((L2, OK), [(N1, OK), (N2, OK)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// A group that drains in the middle of a chain: today the whole chain drains.
fn i4_in_a_chain(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        vec![
            read(BESIDE, &waits.read, Buf::new(1)),
            nop_res(BEFORE, 1).link(),
        ],
        group(nop(L).drain().link(), [nop(M1), nop(M2)]),
        vec![nop_res(AFTER, 2)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet_behind_drain(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .cqe(BESIDE, 1)
        .then(BEFORE, 1)
        .then_group((L, OK), [(M1, OK), (M2, OK)])
        .then(AFTER, 2)
        .finish(&mut ring);
}

/// Its drain is the leader's alone: members are issued as any, though a worker that has to
/// do all of what drains is busy.
fn i4_members_need_no_worker(mode: RingMode) {
    let mut ring = ring(mode);
    one_worker(&ring);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let fifo = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: A C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let blocks = open(M1, &fifo, libc::O_RDONLY).worker();
    submit(
        &mut ring,
        &group(nop_res(L, 7).drain(), [blocks, nop(M2), nop(M3)]),
    );
    Expect::new().cqe(M2, OK).cqe(M3, OK).settle(&mut ring);
    nothing_yet_behind_drain(&mut ring);
    // Waits for the member, in case that it does not open yet.
    let other_end = OpenOptions::new().write(true).open(&path);
    let cqes = ring.collect(2, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    let posted: Vec<_> = cqes.iter().map(|cqe| cqe.user_data).collect();
    assert_eq!(posted, [M1, L], "{}", list(&cqes));
    assert!(other_end.is_ok() && cqes[0].result >= 0 && cqes[1].result == 7);
}

/// Whatever becomes of a group, it is counted right: a drain behind it runs, and
/// does not run early.
fn i4_the_count_is_kept(mode: RingMode) {
    let mut ring = ring(mode);
    for round in 0..20 {
        let kind = Kind::ALL[round % 3];
        let ops = all([
            group(nop(L).drain().kind(kind), [nop(M1), nop(M2).kind(kind)]),
            group(nop_res(L2, -5).kind(kind), [nop(N1), nop(N2)]),
            vec![nop_res(AFTER, 1).drain()],
        ]);
        Expect::new()
            .group((L, OK), [(M1, OK), (M2, OK)])
            .then_group((L2, -5), [(N1, EIO), (N2, EIO)])
            .then(AFTER, 1)
            .run(&mut ring, &ops);

        // One that drains and does not form, one that forms not, and then a drain.
        let ops = all([
            group(nop(L).drain(), [nop(M1).flawed(Flaw::Prep)]),
            group(nop(L2), [nop(N1), nop(N2).drain()]),
            vec![nop_res(AFTER, 1).drain()],
        ]);
        Expect::new()
            .group((L, EINVAL), [(M1, EINVAL)])
            .group((L2, EINVAL), [(N1, EIO), (N2, EINVAL)])
            .cqe(AFTER, 1)
            .run(&mut ring, &ops);
    }
    // The ring does not drain any more.
    let waits = Pipe::new();
    submit(
        &mut ring,
        &all([
            vec![read(BEFORE, &waits.read, Buf::new(1))],
            group(nop(L), [nop(M1)]),
        ]),
    );
    Expect::new().group((L, OK), [(M1, OK)]).settle(&mut ring);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new().cqe(BEFORE, 1).finish(&mut ring);
}

/// Drains on NOPs alone, in every mode.
fn i4_nops(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let ops = all([
            vec![nop_res(BEFORE, 1).kind(kind)],
            group(nop(L).drain().kind(kind), [nop(M1).kind(kind), nop(M2)]),
            vec![nop_res(AFTER, 2).drain().kind(kind)],
        ]);
        Expect::new()
            .cqe(BEFORE, 1)
            .then_group((L, OK), [(M1, OK), (M2, OK)])
            .then(AFTER, 2)
            .run(&mut ring, &ops);
    }
}

every_mode!(i4_nops);

main_modes!(
    i4_group_waits_for_what_came_before,
    i4_drain_waits_for_members_in_flight,
    i4_drain_waits_for_unissued_members,
    i4_group_behind_group,
    i4_in_a_chain,
    i4_members_need_no_worker,
    i4_the_count_is_kept,
);
