// SPDX-License-Identifier: GPL-2.0-only
//! I1, I2, I3 and I5: when the requests of a group are issued. I4 is in `drain.rs`.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use harness::ring::RingMode;
use rstest::rstest;

use crate::expect::{list, nothing_yet, Expect};
use crate::op::*;
use crate::world::{eventually, ring, workers, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;

/// The leader waits for something; meanwhile no member is issued.
fn i1_members_wait_for_the_leader(mode: RingMode) {
    let mut ring = ring(mode);
    for which in 0..5 {
        let (data, to) = (Pipe::new(), Pipe::new());
        let (near, far) = UnixStream::pair().unwrap();
        // Each of them completes with 1.
        let leader = match which {
            0 => read(L, &data.read, Buf::new(1)),
            1 => read(L, &data.read, Buf::new(1)).worker(),
            2 => poll_in(L, &data.read),
            3 => poll_in(L, &data.read).worker(),
            _ => recv(L, &near, Buf::new(1)),
        };
        let ops = group(
            leader,
            [write(M1, &to.write, b"1"), write(M2, &to.write, b"2")],
        );
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        assert_eq!(to.filled(), 0, "leader {which}: a member was issued early");
        data.feed(b"x");
        (&far).write_all(b"x").unwrap();
        Expect::new()
            .group((L, 1), [(M1, 1), (M2, 1)])
            .finish(&mut ring);
        assert_eq!(to.drain(), b"12");
    }
}

/// Members are issued when the application has written other SQEs where theirs were.
fn i1_members_keep_their_sqes(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let (near, _far) = UnixStream::pair().unwrap();
    for kind in [Kind::Inline, Kind::Worker] {
        let ops = group(
            read(L, &waits.read, Buf::new(1)),
            [
                getsockopt_type(M1, &near).kind(kind),
                getsockopt_type(M2, &near),
            ],
        );
        submit(&mut ring, &ops);
        // As many as the queue has.
        for at in 0..64 {
            let ops = [nop_res(BESIDE, at)];
            Expect::new().cqe(BESIDE, at).run(&mut ring, &ops);
        }
        waits.feed(b"x");
        Expect::new()
            .group((L, 1), [(M1, 4), (M2, 4)])
            .finish(&mut ring);
    }
}

/// The leader fails: no member is issued, however the leader failed.
fn i1_members_of_a_failed_leader_are_not_issued(mode: RingMode) {
    let mut ring = ring(mode);
    let (data, to) = (Pipe::new(), Pipe::new());
    let mut leaders: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| (nop_res(L, -5).kind(kind), -5))
        .collect();
    leaders.extend([
        // The wrong end of a pipe
        (read(L, &data.write, Buf::new(1)), -libc::EBADF),
        (read(L, &data.write, Buf::new(1)).worker(), -libc::EBADF),
        // Fails without links noticing
        (fsync(L, &data.read), -libc::EINVAL),
        (timeout(L, Duration::from_millis(1)), -libc::ETIME),
    ]);
    for (leader, error) in leaders {
        let ops = group(
            leader,
            [write(M1, &to.write, b"1"), write(M2, &to.write, b"2")],
        );
        Expect::new()
            .group((L, error), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &ops);
        assert_eq!(to.filled(), 0, "a member was issued");
    }
}

/// Members that complete as they are issued do so in the order of submission.
fn i2_in_submission_order(mode: RingMode) {
    let mut ring = ring(mode);
    let to = Pipe::new();
    for kind in Kind::ALL {
        let members = (1..=8).map(|i| write(m(i), &to.write, &[b'a' + i as u8 - 1]));
        let ops = group(nop(L).kind(kind), members);
        Expect::new()
            .members((1..=8).map(|i| (m(i), 1)))
            .cqe(L, OK)
            .in_order()
            .run(&mut ring, &ops);
        assert_eq!(to.drain(), b"abcdefgh");
    }
}

/// The same on NOPs, where no file is needed.
fn i2_nops_in_submission_order(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let ops = group(nop(L).kind(kind), (1..=40).map(|i| nop_res(m(i), i as i32)));
        Expect::new()
            .members((1..=40).map(|i| (m(i), i as i32)))
            .cqe(L, OK)
            .in_order()
            .run(&mut ring, &ops);
    }
}

/// A member that waits does not hold back the next.
fn i2_members_do_not_wait_for_each_other(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, to) = (Pipe::new(), Pipe::new());
    let ops = group(
        nop(L),
        [
            read(M1, &waits.read, Buf::new(1)),
            nop_res(M2, 2),
            write(M3, &to.write, b"x"),
        ],
    );
    submit(&mut ring, &ops);
    Expect::new().members([(M2, 2), (M3, 1)]).settle(&mut ring);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new().group((L, OK), [(M1, 1)]).finish(&mut ring);

    // One member can wait for another, which comes after it.
    let ops = group(
        nop(L),
        [
            read(M1, &waits.read, Buf::new(1)),
            write(M2, &waits.write, b"x"),
        ],
    );
    Expect::new()
        .group((L, OK), [(M1, 1), (M2, 1)])
        .run(&mut ring, &ops);
}

/// A member that fails does not keep the next from running.
fn i2_a_failed_member_does_not_stop_the_next(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let members = (1..=4).map(|i| nop_res(m(i), if i % 2 == 1 { -(i as i32) } else { 6 }));
        let ops = group(nop(L), members.map(|op| op.kind(kind)));
        let results = (1..=4).map(|i| (m(i), if i % 2 == 1 { -(i as i32) } else { 6 }));
        Expect::new().group((L, OK), results).run(&mut ring, &ops);
    }
}

/// ASYNC is a request's own: the others do not need a worker.
#[rstest]
#[case::nobody(false, false, false)]
#[case::leader(true, false, true)]
#[case::member(false, true, true)]
fn i3_async_counts_for_each(
    #[case] leader: bool,
    #[case] member: bool,
    #[case] any: bool,
    #[values(RingMode::Default, RingMode::DeferTaskrun)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let kind = |on| if on { Kind::Worker } else { Kind::Inline };
    let ops = group(
        nop(L).kind(kind(leader)),
        [nop(M1), nop(M2).kind(kind(member))],
    );
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    assert_eq!(workers() > 0, any, "{} workers", workers());
}

/// A leader keeps its ASYNC while it waits in a chain.
#[rstest]
fn i3_async_leader_in_a_chain(
    #[values(false, true)] worker: bool,
    #[values(RingMode::Default, RingMode::DeferTaskrun)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let kind = if worker { Kind::Worker } else { Kind::Inline };
    let ops = all([
        vec![nop(BEFORE).link()],
        group(nop(L).kind(kind), [nop(M1), nop(M2)]),
    ]);
    Expect::new()
        .cqe(BEFORE, OK)
        .then_group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    assert_eq!(workers() > 0, worker, "{} workers", workers());
}

/// Requests that block in a worker: all of a group's ASYNC members are there at
/// once.
fn i3_async_members_run_side_by_side(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = group(
        nop(L).worker(),
        [
            read(M1, &first.read, Buf::new(1)).worker(),
            read(M2, &second.read, Buf::new(1)).worker(),
            nop(M3).worker(),
        ],
    );
    submit(&mut ring, &ops);
    Expect::new().cqe(M3, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    second.feed(b"x");
    Expect::new().cqe(M2, 1).settle(&mut ring);
    nothing_yet(&mut ring);
    first.feed(b"x");
    Expect::new().group((L, OK), [(M1, 1)]).finish(&mut ring);
}

/// A chain of elements, single and groups, of every kind: one after the other.
fn i5_elements_one_after_the_other(mode: RingMode) {
    let mut ring = ring(mode);
    for leader in Kind::ALL {
        for member in Kind::ALL {
            let ops = all([
                vec![nop_res(BEFORE, 1).kind(member).link()],
                group(
                    nop_res(L, 2).kind(leader).link(),
                    [nop(M1).kind(member), nop(M2)],
                ),
                group(
                    nop_res(L2, 3).kind(leader).hardlink(),
                    [nop(N1), nop(N2).kind(member)],
                ),
                vec![nop_res(AFTER, 4).kind(leader)],
            ]);
            Expect::new()
                .cqe(BEFORE, 1)
                .then_group((L, 2), [(M1, OK), (M2, OK)])
                .then_group((L2, 3), [(N1, OK), (N2, OK)])
                .then(AFTER, 4)
                .run(&mut ring, &ops);
        }
    }
}

/// The group starts when the element before it is done, and the element after it
/// when its last member is.
fn i5_group_is_one_element(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let to = Pipe::new();
    for hard in [false, true] {
        let leader = write(L, &to.write, b"L");
        let leader = if hard {
            leader.hardlink()
        } else {
            leader.link()
        };
        let ops = all([
            vec![read(BEFORE, &first.read, Buf::new(1)).link()],
            group(
                leader,
                [
                    read(M1, &second.read, Buf::new(1)),
                    write(M2, &to.write, b"2"),
                ],
            ),
            vec![write(AFTER, &to.write, b"A")],
        ]);
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        assert_eq!(to.filled(), 0, "the group did not wait");
        first.feed(b"x");
        Expect::new().cqe(BEFORE, 1).then(M2, 1).settle(&mut ring);
        nothing_yet(&mut ring);
        assert_eq!(to.drain(), b"L2", "the chain did not wait for the group");
        second.feed(b"x");
        Expect::new()
            .group((L, 1), [(M1, 1)])
            .then(AFTER, 1)
            .finish(&mut ring);
        assert_eq!(to.drain(), b"A");
    }
}

/// Chains beside each other: a group that waits holds up its own chain only.
fn i5_chains_do_not_wait_for_each_other(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(nop(L).link(), [read(M1, &waits.read, Buf::new(1)), nop(M2)]),
        vec![nop(AFTER)],
        group(nop(L2).link(), [nop(N1)]),
        vec![nop(BESIDE)],
    ]);
    submit(&mut ring, &ops);
    Expect::new()
        .cqe(M2, OK)
        .group((L2, OK), [(N1, OK)])
        .then(BESIDE, OK)
        .settle(&mut ring);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, OK), [(M1, 1)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// Long chains of groups are no deeper than short ones.
fn i5_a_long_chain(mode: RingMode) {
    let mut ring = ring(mode);
    // 20 groups of 3 and the last element: 61 SQEs.
    let mut ops = Vec::new();
    let mut expect = Expect::new();
    for i in 0..20u64 {
        let ud = 0x1000 + 0x10 * i;
        ops.extend(group(nop(ud).link(), [nop(ud + 1), nop(ud + 2)]));
        let members = [(ud + 1, OK), (ud + 2, OK)];
        expect = expect.then_group((ud, OK), members);
    }
    ops.push(nop(AFTER));
    expect.then(AFTER, OK).run(&mut ring, &ops);

    // The first fails: all the others are cancelled, and in order.
    ops[0] = nop_res(0x1000, -5).link().grouped();
    let mut expect = Expect::new().group((0x1000, -5), [(0x1001, EIO), (0x1002, EIO)]);
    for i in 1..20u64 {
        let ud = 0x1000 + 0x10 * i;
        let members = [(ud + 1, ECANCELED), (ud + 2, ECANCELED)];
        expect = expect.then_group((ud, ECANCELED), members);
    }
    expect.then(AFTER, ECANCELED).run(&mut ring, &ops);
}

/// A chain inside a batch: what is submitted beside it is not delayed by it.
#[test]
fn i5_plain_requests_pass_by() {
    let mut ring = ring(RingMode::Default);
    let waits = Pipe::new();
    submit(
        &mut ring,
        &all([
            group(read(L, &waits.read, Buf::new(1)).link(), [nop(M1)]),
            vec![nop(AFTER), nop(BESIDE)],
        ]),
    );
    eventually("the plain request's CQE", || {
        let cqes = ring.arrived();
        assert!(
            cqes.iter().all(|cqe| cqe.user_data == BESIDE),
            "{}",
            list(&cqes)
        );
        !cqes.is_empty()
    });
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, OK)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

every_mode!(i2_nops_in_submission_order, i5_elements_one_after_the_other);

every_pollable_mode!(i1_members_wait_for_the_leader, i5_group_is_one_element,);

main_modes_of_nops!(i2_a_failed_member_does_not_stop_the_next, i5_a_long_chain,);

main_modes!(
    i2_members_do_not_wait_for_each_other,
    i1_members_keep_their_sqes,
    i1_members_of_a_failed_leader_are_not_issued,
    i2_in_submission_order,
    i3_async_members_run_side_by_side,
    i5_chains_do_not_wait_for_each_other,
);
