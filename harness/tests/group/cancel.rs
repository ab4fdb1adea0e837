// SPDX-License-Identifier: GPL-2.0-only
//! X1 to X4: cancelling a group, a member, by what can be matched, and by time.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::time::Duration;

use harness::ring::{Ring, RingMode, SyncCancel};
use io_uring::opcode;
use rstest::rstest;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{eventually, ring, workers, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const EINTR: i32 = -libc::EINTR;
const ENOENT: i32 = -libc::ENOENT;
const EALREADY: i32 = -libc::EALREADY;
const ECANCELED: i32 = -libc::ECANCELED;
const ETIME: i32 = -libc::ETIME;

const LONG: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(30);

/// A group that is linked to what comes after it.
fn linked(leader: Op, members: impl IntoIterator<Item = Op>) -> Vec<Op> {
    all([group(leader.link(), members), vec![nop(AFTER)]])
}

/// The leader waits by poll, in a timer, or by poll armed in a worker.
fn x1_leader_runs(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let leaders = [
        read(L, &waits.read, Buf::new(1)),
        read(L, &waits.read, Buf::new(1)).worker(),
        poll_in(L, &waits.read),
        timeout(L, LONG),
    ];
    for leader in leaders {
        submit(&mut ring, &linked(leader, [nop(M1), nop(M2)]));
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        // One that a worker still has in its hands is only told to stop.
        Expect::new()
            .cqe(CANCEL, [OK, EALREADY])
            .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
        // It is done, and not found any more.
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        Expect::new().cqe(CANCEL, ENOENT).finish(&mut ring);
    }
}

/// The leader blocks in a worker, where it can only be interrupted.
fn x1_leader_blocks_in_a_worker(mode: RingMode) {
    let mut ring = ring(mode);
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let fifo = CString::new(fifo.into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: A C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    // Opening a FIFO waits for somebody at its other end.
    let leader = open(L, &fifo, libc::O_RDONLY).worker();
    submit(&mut ring, &linked(leader, [nop(M1), nop(M2)]));
    eventually("a worker", || workers() > 0);
    std::thread::sleep(SOON);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    // The members are newly cancelled; the leader, which is running, is told.
    Expect::new()
        .cqe(CANCEL, [OK, EALREADY])
        .group(
            (L, vec![EINTR, ECANCELED]),
            [(M1, vec![ECANCELED]), (M2, vec![ECANCELED])],
        )
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// The leader has succeeded, the members are in flight: by poll, in a timer, in a
/// worker.
fn x1_members_in_flight(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let members = [
        |pipe: &Pipe, ud| read(ud, &pipe.read, Buf::new(1)),
        |pipe: &Pipe, ud| poll_in(ud, &pipe.read),
        |pipe: &Pipe, ud| read(ud, &pipe.read, Buf::new(1)).worker(),
        |_: &Pipe, ud| timeout(ud, LONG),
    ];
    for member in members {
        let ops = linked(
            nop_res(L, 7),
            [member(&waits, M1), nop(M2), member(&waits, M3)],
        );
        submit(&mut ring, &ops);
        Expect::new().cqe(M2, OK).settle(&mut ring);
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        Expect::new()
            .cqe(CANCEL, [OK, EALREADY])
            .group((L, 7), [(M1, ECANCELED), (M3, ECANCELED)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        Expect::new().cqe(CANCEL, ENOENT).finish(&mut ring);
    }
}

/// A group that waits in a chain is not found, as no request is that does.
fn x1_waits_in_a_chain(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        vec![read(BEFORE, &waits.read, Buf::new(1)).link()],
        linked(nop(L), [nop(M1), nop(M2)]),
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    // X2 says the same of a member.
    for target in [L, M1, M2] {
        submit(&mut ring, &[cancel(CANCEL, target, 0)]);
        Expect::new().cqe(CANCEL, ENOENT).finish(&mut ring);
    }
    waits.feed(b"x");
    Expect::new()
        .cqe(BEFORE, 1)
        .then_group((L, OK), [(M1, OK), (M2, OK)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// A group of another `user_data`, or none at all, is not touched.
fn x1_only_what_matches(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(read(L, &first.read, Buf::new(1)), [nop(M1), nop(M2)]),
        group(read(L2, &second.read, Buf::new(1)), [nop(N1), nop(N2)]),
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L2, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L2, ECANCELED), [(N1, ECANCELED), (N2, ECANCELED)])
        .finish(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, 0x999, 0)]);
    Expect::new().cqe(CANCEL, ENOENT).finish(&mut ring);
    first.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, OK), (M2, OK)])
        .finish(&mut ring);
}

/// A member may cancel the group that it is in: what comes after it is not issued.
fn x1_a_member_cancels_its_group(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = linked(
        nop_res(L, 7),
        [
            read(M1, &waits.read, Buf::new(1)),
            cancel(M2, L, 0),
            nop(M3),
        ],
    );
    Expect::new()
        .group((L, 7), [(M1, ECANCELED), (M2, OK), (M3, ECANCELED)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);
}

/// A cancel request that comes with the group, before anything can have happened.
fn x1_cancelled_in_the_same_submission(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]),
        vec![cancel(CANCEL, L, 0)],
    ]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .run(&mut ring, &ops);
}

/// The synchronous way of cancelling does the same.
fn x1_sync(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let target = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    // The leader runs.
    let ops = linked(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    assert_eq!(ring.sync_cancel(&target).map_err(errno), Ok(0));
    Expect::new()
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
    // The members run.
    let ops = linked(nop_res(L, 7), [read(M1, &waits.read, Buf::new(1)), nop(M2)]);
    submit(&mut ring, &ops);
    Expect::new().cqe(M2, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    assert_eq!(ring.sync_cancel(&target).map_err(errno), Ok(0));
    Expect::new()
        .group((L, 7), [(M1, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
    // Nothing does.
    assert_eq!(ring.sync_cancel(&target).map_err(errno), Err(libc::ENOENT));
}

fn errno(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// A member that is not issued yet: only that one. It completes with the leader.
fn x2_unissued_members(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, to) = (Pipe::new(), Pipe::new());
    for which in 1..=3 {
        let ops = linked(
            read(L, &waits.read, Buf::new(1)),
            (1..=3).map(|i| write(m(i), &to.write, &[b'0' + i as u8])),
        );
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, m(which), 0)]);
        Expect::new().cqe(CANCEL, OK).finish(&mut ring);
        waits.feed(b"x");
        let result = |i| (m(i), if i == which { ECANCELED } else { 1 });
        Expect::new()
            .group((L, 1), (1..=3).map(result))
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
        let rest: Vec<_> = b"123"
            .iter()
            .copied()
            .filter(|&c| usize::from(c - b'0') != which)
            .collect();
        assert_eq!(to.drain(), rest, "the cancelled member was issued");
    }
}

/// A cancelled member of a leader that fails anyway has still been cancelled.
fn x2_unissued_member_of_a_failing_leader(mode: RingMode) {
    let mut ring = ring(mode);
    let data = Pipe::new();
    // Asks for 2 bytes and will be given 1: a failure.
    let ops = linked(read(L, &data.read, Buf::new(2)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, M1, 0)]);
    Expect::new().cqe(CANCEL, OK).finish(&mut ring);
    data.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, ECANCELED), (M2, EIO)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// All members cancelled one by one, before any was issued.
fn x2_every_unissued_member(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = linked(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    for member in [M2, M1] {
        submit(&mut ring, &[cancel(CANCEL, member, 0)]);
        Expect::new().cqe(CANCEL, OK).finish(&mut ring);
    }
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// A member in flight: only that one, at once. It breaks the chain.
fn x2_members_in_flight(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = linked(
        nop_res(L, 7),
        [
            read(M1, &first.read, Buf::new(1)),
            read(M2, &second.read, Buf::new(1)),
        ],
    );
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, M1, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .cqe(M1, ECANCELED)
        .settle(&mut ring);
    nothing_yet(&mut ring);
    second.feed(b"x");
    Expect::new()
        .group((L, 7), [(M2, 1)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// By file: what is issued, of whatever group.
fn x3_by_fd(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, other) = (Pipe::new(), Pipe::new());
    let fd = waits.read.as_raw_fd();

    // The leader. It was cancelled, so its members are.
    let ops = linked(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel_fd(CANCEL, fd, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);

    // Members, and a request that is in no group.
    let ops = all([
        linked(
            nop_res(L, 7),
            [
                read(M1, &waits.read, Buf::new(1)),
                read(M2, &other.read, Buf::new(1)),
                read(M3, &waits.read, Buf::new(1)),
            ],
        ),
        vec![read(BESIDE, &waits.read, Buf::new(1))],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel_fd(CANCEL, fd, CANCEL_ALL)]);
    Expect::new()
        .cqe(CANCEL, 3)
        .cqe(M1, ECANCELED)
        .cqe(M3, ECANCELED)
        .cqe(BESIDE, ECANCELED)
        .settle(&mut ring);
    nothing_yet(&mut ring);
    other.feed(b"x");
    Expect::new()
        .group((L, 7), [(M2, 1)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// A member that is not issued has no file yet.
fn x3_unissued_members_have_no_file(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, other) = (Pipe::new(), Pipe::new());
    let ops = linked(
        read(L, &waits.read, Buf::new(1)),
        [read(M1, &other.read, Buf::new(1)), nop(M2)],
    );
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    for (flags, none) in [(0, ENOENT), (CANCEL_ALL, OK)] {
        submit(
            &mut ring,
            &[cancel_fd(CANCEL, other.read.as_raw_fd(), flags)],
        );
        Expect::new().cqe(CANCEL, none).finish(&mut ring);
    }
    other.feed(b"y");
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, 1), (M2, OK)])
        .then(AFTER, OK)
        .finish(&mut ring);
}

/// By opcode.
fn x3_by_opcode(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = linked(
        nop_res(L, 7),
        [
            read(M1, &waits.read, Buf::new(1)),
            timeout(M2, LONG),
            read(M3, &waits.read, Buf::new(1)),
        ],
    );
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(
        &mut ring,
        &[cancel_op(CANCEL, opcode::Read::CODE, CANCEL_ALL)],
    );
    Expect::new()
        .cqe(CANCEL, 2)
        .cqe(M1, ECANCELED)
        .cqe(M3, ECANCELED)
        .settle(&mut ring);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel_op(CANCEL, opcode::Timeout::CODE, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, 7), [(M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
}

/// ANY, and ALL of one `user_data`. How many requests of a group count for ANY is
/// not fixed when some are not issued; at least what runs does.
fn x3_any_and_all(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();

    // A leader that runs
    let ops = linked(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, 0, CANCEL_ANY)]);
    Expect::new()
        .cqe(CANCEL, [1, 2, 3])
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);

    // Members that run
    let members = || {
        [
            read(M1, &waits.read, Buf::new(1)),
            read(M2, &waits.read, Buf::new(1)),
        ]
    };
    submit(&mut ring, &linked(nop_res(L, 7), members()));
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, 0, CANCEL_ANY)]);
    Expect::new()
        .cqe(CANCEL, [2, 3])
        .group((L, 7), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);

    // ALL counts requests that match themselves: the leader, not its members.
    let ops = linked(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, CANCEL_ALL)]);
    Expect::new()
        .cqe(CANCEL, 1)
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);

    // Two groups of the same `user_data`
    let same = || read(L, &waits.read, Buf::new(1));
    let ops = all([group(same(), [nop(M1)]), group(same(), [nop(M2)])]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(
        &mut ring,
        &[cancel(CANCEL, L, CANCEL_ALL | CANCEL_USERDATA)],
    );
    let cqes = ring
        .collect(5, harness::ring::PATIENCE)
        .unwrap_or_else(|missing| panic!("{missing}"));
    let of = |ud| cqes.iter().filter(move |cqe| cqe.user_data == ud);
    assert!(of(CANCEL).all(|cqe| cqe.result == 2));
    assert!(of(L)
        .chain(of(M1))
        .chain(of(M2))
        .all(|cqe| cqe.result == ECANCELED));
    assert_eq!((of(L).count(), of(M1).count(), of(M2).count()), (2, 1, 1));
    nothing_yet(&mut ring);
}

/// A LINK_TIMEOUT behind a group is its deadline: while the leader runs ...
fn x4_deadline_strikes_the_leader(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(read(L, &waits.read, Buf::new(1)).link(), [nop(M1), nop(M2)]),
        vec![link_timeout(TIMER, SOON)],
    ]);
    Expect::new()
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .cqe(TIMER, ETIME)
        .run(&mut ring, &ops);
}

/// ... while members do ...
fn x4_deadline_strikes_members(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    for kind in [Kind::Inline, Kind::TaskWork] {
        let ops = all([
            group(
                nop_res(L, 7).kind(kind).link(),
                [nop(M1), read(M2, &waits.read, Buf::new(1))],
            ),
            vec![link_timeout(TIMER, SOON).link(), nop(AFTER)],
        ]);
        Expect::new()
            .group((L, 7), [(M1, OK), (M2, ECANCELED)])
            .cqe(TIMER, ETIME)
            .cqe(AFTER, ECANCELED)
            .run(&mut ring, &ops);
    }
}

/// ... and when the leader waited first, and a member does now.
fn x4_deadline_is_for_the_whole_group(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(
            read(L, &first.read, Buf::new(1)).link(),
            [nop(M1), read(M2, &second.read, Buf::new(1))],
        ),
        vec![link_timeout(TIMER, Duration::from_millis(500))],
    ]);
    submit(&mut ring, &ops);
    first.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, OK), (M2, ECANCELED)])
        .cqe(TIMER, ETIME)
        .finish(&mut ring);
}

/// A group that is done in time: the timer posts what it does today, and the chain
/// goes on.
fn x4_in_time(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let ops = all([
            group(nop(L).kind(kind).link(), [nop(M1), nop(M2).kind(kind)]),
            vec![link_timeout(TIMER, LONG).link(), nop_res(AFTER, 3)],
        ]);
        Expect::new()
            .group((L, OK), [(M1, OK), (M2, OK)])
            .cqe(TIMER, ECANCELED)
            .cqe(AFTER, 3)
            .run(&mut ring, &ops);
    }
    // Armed, and then not needed
    let waits = Pipe::new();
    let ops = all([
        group(nop(L).link(), [nop(M1), read(M2, &waits.read, Buf::new(1))]),
        vec![link_timeout(TIMER, LONG).link(), nop_res(AFTER, 3)],
    ]);
    submit(&mut ring, &ops);
    Expect::new().cqe(M1, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, OK), [(M2, 1)])
        .cqe(TIMER, ECANCELED)
        .cqe(AFTER, 3)
        .finish(&mut ring);
}

/// A group that fails with a deadline behind it.
fn x4_a_failed_group(mode: RingMode) {
    let mut ring = ring(mode);
    for (leader, member) in [(7, -5), (-5, 1)] {
        let ops = all([
            group(nop_res(L, leader).link(), [nop_res(M1, member)]),
            vec![link_timeout(TIMER, LONG).link(), nop(AFTER)],
        ]);
        let member = if leader < 0 { EIO } else { member };
        Expect::new()
            .group((L, leader), [(M1, member)])
            .cqe(TIMER, ECANCELED)
            .cqe(AFTER, ECANCELED)
            .run(&mut ring, &ops);
    }
}

/// A storm: cancel requests race with a group on its way through all phases. What
/// is posted differs, that everything is posted once does not.
#[rstest]
fn x1_races(#[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode) {
    let mut ring: Ring = ring(mode);
    let waits = Pipe::new();
    for round in 0..100usize {
        let kind = |n: usize| Kind::ALL[(round / n) % 3];
        let target = [L, M1, M2][round % 3];
        let ops = all([
            linked(
                nop(L).kind(kind(1)),
                [nop(M1).kind(kind(3)), nop(M2).kind(kind(9)), nop(M3)],
            ),
            vec![cancel(CANCEL, target, 0)],
        ]);
        Expect::new()
            .group(
                (L, vec![OK, ECANCELED]),
                [M1, M2, M3].map(|ud| (ud, vec![OK, ECANCELED])),
            )
            .cqe(CANCEL, [OK, ENOENT, EALREADY])
            .cqe(AFTER, [OK, ECANCELED])
            .run(&mut ring, &ops);
    }
    drop(waits);
}

// In every mode: `tables.rs`.

main_modes!(
    x1_leader_runs,
    x1_members_in_flight,
    x2_members_in_flight,
    x1_leader_blocks_in_a_worker,
    x1_waits_in_a_chain,
    x1_only_what_matches,
    x1_a_member_cancels_its_group,
    x1_cancelled_in_the_same_submission,
    x1_sync,
    x2_unissued_members,
    x2_unissued_member_of_a_failing_leader,
    x2_every_unissued_member,
    x3_by_fd,
    x3_unissued_members_have_no_file,
    x3_by_opcode,
    x3_any_and_all,
    x4_deadline_strikes_the_leader,
    x4_deadline_strikes_members,
    x4_deadline_is_for_the_whole_group,
    x4_in_time,
    x4_a_failed_group,
);
