// SPDX-License-Identifier: GPL-2.0-only
//! X1 to X4: cancelling a group, a member, by what can be matched, and by time.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Cqe, Ring, RingMode, SyncCancel, PATIENCE};
use io_uring::opcode;
use rstest::rstest;

use crate::expect::{list, nothing_yet, nothing_yet_behind_drain, Expect};
use crate::op::*;
use crate::world::{
    eventually, one_worker, poll_now, polls, ring, worker_files, workers, NullBlk, Pipe,
};

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
    for (nth, leader) in leaders.into_iter().enumerate() {
        submit(&mut ring, &linked(leader, [nop(M1), nop(M2)]));
        nothing_yet(&mut ring);
        if nth == 1 {
            eventually("the worker has armed a poll", || polls(&ring) == 1);
        }
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

/// What an SQPOLL thread's worker runs is found by none but that thread. A synchronous cancel says
/// so, as of any request, rather than wait for it.
#[test]
fn x1_synchronous_and_out_of_sight() {
    let mut ring = ring(RingMode::Sqpoll);
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let name = CString::new(fifo.clone().into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: A C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // Opening a FIFO waits for somebody at its other end.
    let member = open(M1, &name, libc::O_RDONLY).worker();
    submit(&mut ring, &linked(nop(L), [member, nop(M2)]));
    Expect::new().cqe(M2, OK).settle(&mut ring);
    let target = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    assert_eq!(ring.sync_cancel(&target).map_err(errno), Err(libc::ENOENT));
    let _other_end = std::fs::File::options().write(true).open(&fifo).unwrap();
    let cqes = ring.collect(3, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    let results: Vec<_> = cqes.iter().map(|cqe| (cqe.user_data, cqe.result)).collect();
    assert_eq!(results[1..], [(L, OK), (AFTER, OK)]);
    assert!(results[0].0 == M1 && results[0].1 >= 0, "{results:?}");
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
    for (nth, member) in members.into_iter().enumerate() {
        let ops = linked(
            nop_res(L, 7),
            [member(&waits, M1), nop(M2), member(&waits, M3)],
        );
        submit(&mut ring, &ops);
        Expect::new().cqe(M2, OK).settle(&mut ring);
        nothing_yet(&mut ring);
        if nth == 2 {
            eventually("the workers have armed polls", || polls(&ring) == 2);
        }
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

/// Nor is one that waits behind a drain. A cancel request would wait there as well, so this
/// is about the synchronous one.
fn x1_waits_behind_a_drain(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, to) = (Pipe::new(), Pipe::new());
    for kind in [Kind::Inline, Kind::Worker] {
        let leader = write(L, &to.write, b"x").drain().kind(kind);
        let ops = all([
            vec![read(BEFORE, &waits.read, Buf::new(1))],
            group(leader, [nop(M1), nop(M2)]),
        ]);
        submit(&mut ring, &ops);
        nothing_yet_behind_drain(&mut ring);
        for user_data in [L, M1, M2] {
            let target = SyncCancel {
                user_data,
                ..SyncCancel::default()
            };
            assert_eq!(ring.sync_cancel(&target).map_err(errno), Err(libc::ENOENT));
        }
        waits.feed(b"x");
        Expect::new()
            .cqe(BEFORE, 1)
            .then_group((L, 1), [(M1, OK), (M2, OK)])
            .finish(&mut ring);
        assert_eq!(to.drain(), b"x");
    }
}

/// A group that ends with the submission is found as any other.
fn x1_ends_with_the_submission(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = [
        read(L, &waits.read, Buf::new(1)).grouped(),
        nop(M1).grouped(),
        nop(M2).grouped(),
    ];
    for (target, flags, result) in [(L, 0, OK), (L, CANCEL_ALL, 1)] {
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, target, flags)]);
        Expect::new()
            .cqe(CANCEL, result)
            .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .finish(&mut ring);
    }
    // And so is a member, which is only in a group that was started.
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, M1, 0)]);
    Expect::new().cqe(CANCEL, OK).settle(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, ECANCELED), (M2, OK)])
        .finish(&mut ring);
}

/// The cancel request may itself be executed by a worker, which holds no lock.
fn x1_by_a_worker(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let wait = |ud| read(ud, &waits.read, Buf::new(1));
    for (target, flags, leads, joins) in [
        (L, 0, vec![OK], vec![OK]),
        (L, CANCEL_ALL, vec![1], vec![OK]),
        (0, CANCEL_ANY, vec![1, 2, 3], vec![2, 3]),
    ] {
        submit(&mut ring, &linked(wait(L), [nop(M1), nop(M2)]));
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, target, flags).worker()]);
        Expect::new()
            .cqe(CANCEL, leads)
            .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
        submit(&mut ring, &linked(nop_res(L, 7), [wait(M1), wait(M2)]));
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, target, flags).worker()]);
        Expect::new()
            .cqe(CANCEL, joins)
            .group((L, 7), [(M1, ECANCELED), (M2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// Cancelled by a task while that whose group it is exits: of that one, nothing may be
/// used but what stays. What it waits for cannot be stopped. KASAN sees the mistake; it
/// takes memory that is poisoned as it is freed, at least.
#[test]
fn x1_of_a_task_that_exits() {
    const BLOCK: usize = 4096;
    let mut ring = ring(RingMode::Default);
    let slow = NullBlk::new(&[("irqmode", 2), ("completion_nsec", 20_000_000)]);
    let device = slow.open();
    let buf = Buf::aligned(BLOCK, BLOCK);
    let block = BLOCK as i32;
    for _ in 0..50 {
        push(
            &mut ring,
            &group(nop_res(L, 7), [read_at(M1, &device, buf, 0)]),
        );
        let (fd, submitted) = (ring.fd(), AtomicBool::new(false));
        let cqes = std::thread::scope(|scope| {
            scope.spawn(|| {
                submit_by_hand(fd, 2, 0);
                submitted.store(true, Ordering::Release);
            });
            let mut patience = Patience::new(PATIENCE);
            while !submitted.load(Ordering::Acquire) {
                assert!(!patience.is_over(), "the other task does not submit");
                std::thread::yield_now();
            }
            cancel_until_done(&mut ring)
        });
        Expect::new().group((L, 7), [(M1, block)]).check(&cqes);
    }
    nothing_yet(&mut ring);
}

/// The synchronous way, of a group that another task has submitted: it looks for that
/// one's workers while it is about to sleep itself.
#[test]
fn x1_sync_of_another_task() {
    let mut ring = ring(RingMode::Default);
    let (_dir, fifo) = fifo();
    let target = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    for _ in 0..10 {
        let blocks = |ud| open(ud, &fifo, libc::O_RDONLY).worker();
        push(&mut ring, &group(nop_res(L, 7), [blocks(M1), blocks(M2)]));
        let fd = ring.fd();
        std::thread::scope(|scope| {
            scope.spawn(|| submit_by_hand(fd, 3, 3));
            // Not before it is there: the workers of the task before may still be, too.
            eventually("the group", || {
                match harness::ring::sync_cancel(fd, &target).map_err(errno) {
                    Err(libc::ENOENT) => false,
                    cancelled => cancelled == Ok(0),
                }
            });
        });
        let stopped = || vec![EINTR, ECANCELED];
        Expect::new()
            .group((L, vec![7]), [(M1, stopped()), (M2, stopped())])
            .finish(&mut ring);
    }
}

/// A worker has one member in its hands, and another one is queued behind that: this one is
/// newly cancelled, whatever becomes of the first.
fn x1_a_queued_member(mode: RingMode) {
    let mut ring = ring(mode);
    one_worker(&ring);
    let (_dir, fifo) = fifo();
    let blocks = |ud| open(ud, &fifo, libc::O_RDONLY).worker();
    for _ in 0..3 {
        submit(&mut ring, &linked(nop_res(L, 7), [blocks(M1), blocks(M2)]));
        nothing_yet(&mut ring);
        eventually("a worker that opens", || blocked_workers() == 1);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        Expect::new()
            .cqe(CANCEL, OK)
            .group(
                (L, vec![7]),
                [(M1, vec![EINTR, ECANCELED]), (M2, vec![ECANCELED])],
            )
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// The same of a group that another task has submitted.
#[test]
fn x1_a_queued_member_of_another_task() {
    let mut ring = ring(RingMode::Default);
    one_worker(&ring);
    let (_dir, fifo) = fifo();
    let blocks = |ud| open(ud, &fifo, libc::O_RDONLY).worker();
    for _ in 0..3 {
        push(&mut ring, &group(nop_res(L, 7), [blocks(M1), blocks(M2)]));
        let fd = ring.fd();
        std::thread::scope(|scope| {
            scope.spawn(|| submit_by_hand(fd, 3, 3));
            eventually("a worker that opens", || blocked_workers() == 1);
            submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        });
        Expect::new()
            .cqe(CANCEL, OK)
            .group(
                (L, vec![7]),
                [(M1, vec![EINTR, ECANCELED]), (M2, vec![ECANCELED])],
            )
            .finish(&mut ring);
    }
}

/// Workers that wait for somebody at the other end of a FIFO.
fn blocked_workers() -> usize {
    worker_files("wchan")
        .filter(|place| place == "wait_for_partner")
        .count()
}

/// Submits from a thread that is not the ring's own, and waits for so many CQEs. The SQEs
/// are there, and nobody else submits.
fn submit_by_hand(ring: std::os::fd::RawFd, count: u32, wait: u32) {
    let flags = if wait > 0 {
        harness::ring::IORING_ENTER_GETEVENTS
    } else {
        0
    };
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: No pointers.
    let taken =
        unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, count, wait, flags, none, 0) };
    assert_eq!(taken, i64::from(count), "SQEs that the kernel took");
}

/// Cancels the first group until its leader has posted. What else has.
fn cancel_until_done(ring: &mut Ring) -> Vec<Cqe> {
    let mut patience = Patience::new(PATIENCE);
    let mut cqes: Vec<Cqe> = Vec::new();
    while !cqes.iter().any(|cqe| cqe.user_data == L) {
        assert!(!patience.is_over(), "never done: {}", list(&cqes));
        // Many at once, so that little time is spent elsewhere.
        submit(ring, &vec![cancel(CANCEL, L, 0); 32]);
        for cqe in ring.arrived() {
            if cqe.user_data == CANCEL {
                assert!([OK, EALREADY, ENOENT].contains(&cqe.result));
            } else {
                cqes.push(cqe);
            }
        }
    }
    cqes
}

/// A leader that is stopped when it has done a part may have a result that is no
/// error. Its group was cancelled nonetheless, however that was asked for.
fn x1_leader_that_did_a_part(mode: RingMode) {
    let mut ring = ring(mode);
    let sync = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    for way in 0..4 {
        for kind in [Kind::Inline, Kind::Worker] {
            if mode == RingMode::Sqpoll && way == 2 && kind == Kind::Worker {
                // The workers are the thread's, which sync cancel does not look at.
                continue;
            }
            let (near, far) = UnixStream::pair().unwrap();
            let leader = recv(L, &near, Buf::new(2))
                .edit(|sqe| sqe.op_flags = libc::MSG_WAITALL as u32)
                .kind(kind);
            let ops = linked(leader, [nop(M1), nop(M2)]);
            let (timer, ops) = if way == 3 {
                let (_, group) = ops.split_last().unwrap();
                let timer = link_timeout(TIMER, LONG);
                (true, all([group.to_vec(), vec![timer.link(), nop(AFTER)]]))
            } else {
                (false, ops)
            };
            // There before the leader runs. A worker that found nothing first, and this before it
            // armed a poll, would wait in recv() and not by poll.
            (&far).write_all(b"x").unwrap();
            submit(&mut ring, &ops);
            eventually("the leader has its first byte", || {
                let _ = ring.flush();
                poll_now(&near, libc::POLLIN) == 0
            });
            if kind == Kind::Worker {
                eventually("the worker has armed a poll", || polls(&ring) == 1);
            }
            let mut expect = Expect::new();
            match way {
                0 => {
                    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
                    expect = expect.cqe(CANCEL, [OK, EALREADY]);
                }
                1 => {
                    submit(&mut ring, &[cancel(CANCEL, L, CANCEL_ALL)]);
                    // One that a worker still has in its hands is not counted.
                    let count: &[i32] = match kind {
                        Kind::Worker => &[0, 1],
                        _ => &[1],
                    };
                    expect = expect.cqe(CANCEL, count.to_vec());
                }
                2 => assert_eq!(ring.sync_cancel(&sync).map_err(errno), Ok(0)),
                _ => {}
            }
            if timer {
                submit(&mut ring, &[expire(EXPIRE, TIMER)]);
                expect = expect.cqe(EXPIRE, OK).cqe(TIMER, ETIME);
            }
            expect
                .group(
                    (L, vec![1, ECANCELED, EINTR]),
                    [(M1, vec![ECANCELED]), (M2, vec![ECANCELED])],
                )
                .then(AFTER, ECANCELED)
                .finish(&mut ring);
        }
    }
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

/// A pipe with a name, which it has as long as its directory is there. Who opens it for
/// reading waits for a writer.
fn fifo() -> (tempfile::TempDir, CString) {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let fifo = CString::new(fifo.into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: A C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    (dir, fifo)
}

/// The synchronous way waits for members that workers have in their hands: they are done
/// once task work has run, which may be the waiting task's to run.
fn x1_sync_waits_for_workers(mode: RingMode) {
    if mode == RingMode::Sqpoll {
        // The workers are the thread's, which sync cancel does not look at.
        return;
    }
    let mut ring = ring(mode);
    let (_dir, fifo) = fifo();
    let target = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    for members in [1, 2, 3] {
        for _ in 0..5 {
            let blocks = |i| open(m(i), &fifo, libc::O_RDONLY).worker();
            let ops = linked(nop_res(L, 7), (1..=members).map(blocks));
            submit(&mut ring, &ops);
            nothing_yet(&mut ring);
            eventually("a worker", || workers() > 0);
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(ring.sync_cancel(&target).map_err(errno), Ok(0));
            let stopped = vec![EINTR, ECANCELED];
            Expect::new()
                .group((L, vec![7]), (1..=members).map(|i| (m(i), stopped.clone())))
                .then(AFTER, ECANCELED)
                .finish(&mut ring);
        }
    }
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

/// The same of a group whose turn came in a worker, which was done with the element
/// before it.
fn x2_behind_a_worker(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    for kind in [Kind::Inline, Kind::Worker] {
        let ops = all([
            vec![nop(BEFORE).worker().link()],
            linked(
                read(L, &waits.read, Buf::new(1)).kind(kind),
                [nop(M1), nop(M2)],
            ),
        ]);
        submit(&mut ring, &ops);
        Expect::new().cqe(BEFORE, OK).settle(&mut ring);
        // Short of that, the group has not been started, and is not found.
        let found = |ring: &mut Ring| {
            // To submit does not run task work in every mode.
            ring.flush().unwrap();
            submit(ring, &[cancel(CANCEL, M1, 0)]);
            let cqes = ring.collect(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(cqes[0].user_data, CANCEL);
            cqes[0].result == OK
        };
        eventually("the member is found", || found(&mut ring));
        waits.feed(b"x");
        Expect::new()
            .group((L, 1), [(M1, ECANCELED), (M2, OK)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
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

/// Two members that match: each cancel request finds the next one, until there is none
/// that it would make a difference to.
fn x2_two_members_of_one_user_data(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    for all_at_once in [false, true] {
        let ops = linked(
            read(L, &waits.read, Buf::new(1)),
            [nop_res(M1, 1), nop_res(M1, 2)],
        );
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        let cancels: &[(u32, i32)] = if all_at_once {
            &[(CANCEL_ALL, 2)]
        } else {
            &[(0, OK), (0, OK), (0, EALREADY)]
        };
        for &(flags, result) in cancels {
            submit(&mut ring, &[cancel(CANCEL, M1, flags)]);
            Expect::new().cqe(CANCEL, result).finish(&mut ring);
        }
        waits.feed(b"x");
        let cqes = ring
            .collect(4, PATIENCE)
            .unwrap_or_else(|missing| panic!("{missing}"));
        let posted: Vec<_> = cqes.iter().map(|c| (c.user_data, c.result)).collect();
        let wanted = [(M1, ECANCELED), (M1, ECANCELED), (L, 1), (AFTER, ECANCELED)];
        assert_eq!(posted, wanted, "{}", list(&cqes));
        nothing_yet(&mut ring);
    }
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

/// A leader that is done is not found by its file, nor by its opcode, and its members are
/// left alone.
fn x3_a_leader_that_is_done(mode: RingMode) {
    let mut ring = ring(mode);
    let (data, waits) = (Pipe::new(), Pipe::new());
    for all in [0, CANCEL_ALL] {
        let none = if all == 0 { ENOENT } else { OK };
        data.feed(b"x");
        let wait = |ud| poll_in(ud, &waits.read);
        let ops = linked(read(L, &data.read, Buf::new(1)), [wait(M1), wait(M2)]);
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        for op in [
            cancel_fd(CANCEL, data.read.as_raw_fd(), all),
            cancel_op(CANCEL, opcode::Read::CODE, all),
        ] {
            submit(&mut ring, &[op]);
            Expect::new().cqe(CANCEL, none).finish(&mut ring);
        }
        waits.feed(b"x");
        let ready = i32::from(libc::POLLIN);
        Expect::new()
            .group((L, 1), [(M1, ready), (M2, ready)])
            .then(AFTER, OK)
            .finish(&mut ring);
        waits.drain();
    }
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
    let cancelled = |ring: &mut Ring, ops: &[Op]| {
        submit(ring, ops);
        nothing_yet(ring);
        submit(ring, &[cancel(CANCEL, L, CANCEL_ALL | CANCEL_USERDATA)]);
        ring.collect(5, PATIENCE)
            .unwrap_or_else(|missing| panic!("{missing}"))
    };
    let same = || read(L, &waits.read, Buf::new(1));
    let ops = all([group(same(), [nop(M1)]), group(same(), [nop(M2)])]);
    let cqes = cancelled(&mut ring, &ops);
    let of = |ud| cqes.iter().filter(move |cqe| cqe.user_data == ud);
    assert!(of(CANCEL).all(|cqe| cqe.result == 2));
    assert!(of(L)
        .chain(of(M1))
        .chain(of(M2))
        .all(|cqe| cqe.result == ECANCELED));
    assert_eq!((of(L).count(), of(M1).count(), of(M2).count()), (2, 1, 1));
    nothing_yet(&mut ring);

    // Their leaders have completed, and do not count. Their members are cancelled.
    let wait = |ud| read(ud, &waits.read, Buf::new(1));
    let ops = all([group(nop(L), [wait(M1)]), group(nop(L), [wait(M2)])]);
    let cqes = cancelled(&mut ring, &ops);
    let mut posted: Vec<_> = cqes.iter().map(|cqe| (cqe.user_data, cqe.result)).collect();
    posted.sort_unstable();
    let expected = [
        (CANCEL, OK),
        (L, OK),
        (L, OK),
        (M1, ECANCELED),
        (M2, ECANCELED),
    ];
    assert_eq!(posted, expected, "{}", list(&cqes));
    nothing_yet(&mut ring);
}

/// What is in flight of a group is found by what it is a member of, and not by what its memory
/// was used for before.
fn x1_in_memory_of_members(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, others) = (Pipe::new(), Pipe::new());
    let members = [M1, M2, M3];
    // The leader is freed last, and so its memory is used first.
    Expect::new()
        .group((L, OK), members.map(|ud| (ud, OK)))
        .run(&mut ring, &group(nop(L), members.map(nop)));
    let leader = read(L, &waits.read, Buf::new(1));
    let beside = (0..4).map(|nth| read(L2 + nth, &others.read, Buf::new(1)));
    submit(
        &mut ring,
        &all([group(leader, [nop(M1)]), beside.collect()]),
    );
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, ECANCELED), [(M1, ECANCELED)])
        .finish(&mut ring);
    others.feed(b"xxxx");
    let mut expect = Expect::new();
    for nth in 0..4 {
        expect = expect.cqe(L2 + nth, 1);
    }
    expect.finish(&mut ring);
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
            vec![link_timeout(TIMER, LONG).link(), nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        // On a busy machine a deadline that is near may strike before.
        Expect::new().cqe(M1, OK).settle(&mut ring);
        submit(&mut ring, &[expire(EXPIRE, TIMER)]);
        Expect::new()
            .cqe(EXPIRE, OK)
            .group((L, 7), [(M2, ECANCELED)])
            .cqe(TIMER, ETIME)
            .cqe(AFTER, ECANCELED)
            .finish(&mut ring);
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
        vec![link_timeout(TIMER, LONG)],
    ]);
    submit(&mut ring, &ops);
    first.feed(b"x");
    Expect::new().cqe(M1, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    submit(&mut ring, &[expire(EXPIRE, TIMER)]);
    Expect::new()
        .cqe(EXPIRE, OK)
        .group((L, 1), [(M2, ECANCELED)])
        .cqe(TIMER, ETIME)
        .finish(&mut ring);
}

/// A deadline is for what is before it: not for a group that has the `user_data` of a
/// plain request.
fn x4_a_plain_deadline_leaves_groups_alone(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, other) = (Pipe::new(), Pipe::new());
    let wait = |ud| read(ud, &waits.read, Buf::new(1));
    let groups = [
        // The group's leader is done, or runs.
        (group(nop_res(L, 7), [wait(M1)]), 7, 1),
        (group(wait(L), [nop(M1)]), 1, OK),
    ];
    for (ops, leader, member) in groups {
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        let ops = [
            read(L, &other.read, Buf::new(1)).link(),
            link_timeout(TIMER, SOON),
        ];
        submit(&mut ring, &ops);
        Expect::new()
            .cqe(L, ECANCELED)
            .cqe(TIMER, ETIME)
            .finish(&mut ring);
        waits.feed(b"x");
        Expect::new()
            .group((L, leader), [(M1, member)])
            .finish(&mut ring);
    }
}

/// The same for a group of the same `user_data`, whichever was there first.
fn x4_deadline_of_one_group_leaves_others(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    for behind in [0, 1] {
        for leader_waits in [false, true] {
            let program = |at: usize, pipe: &Pipe, member| {
                let wait = |ud| read(ud, &pipe.read, Buf::new(1));
                let (leader, member) = if leader_waits {
                    (wait(L), nop_res(member, 1))
                } else {
                    (nop_res(L, 1), wait(member))
                };
                if at == behind {
                    let timer = link_timeout(TIMER, SOON);
                    all([group(leader.link(), [member]), vec![timer]])
                } else {
                    group(leader, [member])
                }
            };
            let ops = all([program(0, &first, M1), program(1, &second, N1)]);
            submit(&mut ring, &ops);
            let (struck, left, pipe) = if behind == 0 {
                (M1, N1, &second)
            } else {
                (N1, M1, &first)
            };
            let leader = if leader_waits { ECANCELED } else { 1 };
            Expect::new()
                .group((L, leader), [(struck, ECANCELED)])
                .cqe(TIMER, ETIME)
                .finish(&mut ring);
            pipe.feed(b"x");
            Expect::new().group((L, 1), [(left, 1)]).finish(&mut ring);
        }
    }
}

/// A deadline that strikes when its group has just been done finds nothing to cancel, least of all
/// what has the same `user_data`. It comes behind a CQE of a multishot, which flushes what
/// has completed before.
#[test]
fn x4_just_too_late() {
    let mut ring = ring(RingMode::DeferTaskrun);
    let (waits, polled, other) = (Pipe::new(), Pipe::new(), Pipe::new());
    let ops = all([
        vec![
            read(L, &other.read, Buf::new(1)),
            poll_in_multi(BESIDE, &polled.read),
        ],
        group(nop_res(L, 7).link(), [read(M1, &waits.read, Buf::new(1))]),
        vec![link_timeout(TIMER, LONG)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    // This is task work, in this order, for when the ring is entered to wait.
    waits.feed(b"x");
    polled.feed(b"x");
    submit(&mut ring, &[expire(EXPIRE, TIMER)]);
    std::thread::sleep(SOON);
    Expect::new()
        .cqe(EXPIRE, OK)
        .group((L, 7), [(M1, 1)])
        .cqe(BESIDE, i32::from(libc::POLLIN))
        .cqe(TIMER, ENOENT)
        .settle(&mut ring);
    other.feed(b"x");
    Expect::new().cqe(L, 1).settle(&mut ring);
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

// Those that take their time, in the main modes only.
in_modes!(
    x1_leader_that_did_a_part:
    default Default,
    defer_taskrun DeferTaskrun,
    sqpoll Sqpoll,
);

in_modes!(
    x1_a_queued_member:
    default Default,
    defer_taskrun DeferTaskrun,
    sqpoll Sqpoll,
);

in_modes!(
    x4_deadline_is_for_the_whole_group:
    default Default,
    defer_taskrun DeferTaskrun,
    sqpoll Sqpoll,
);

main_modes!(
    x1_leader_runs,
    x1_members_in_flight,
    x1_in_memory_of_members,
    x2_members_in_flight,
    x1_leader_blocks_in_a_worker,
    x1_waits_in_a_chain,
    x1_waits_behind_a_drain,
    x1_ends_with_the_submission,
    x1_by_a_worker,
    x1_only_what_matches,
    x1_a_member_cancels_its_group,
    x1_cancelled_in_the_same_submission,
    x1_sync,
    x1_sync_waits_for_workers,
    x2_unissued_members,
    x2_behind_a_worker,
    x2_unissued_member_of_a_failing_leader,
    x2_every_unissued_member,
    x2_two_members_of_one_user_data,
    x3_by_fd,
    x3_a_leader_that_is_done,
    x3_unissued_members_have_no_file,
    x3_by_opcode,
    x3_any_and_all,
    x4_deadline_strikes_the_leader,
    x4_deadline_strikes_members,
    x4_in_time,
    x4_a_failed_group,
    x4_a_plain_deadline_leaves_groups_alone,
    x4_deadline_of_one_group_leaves_others,
);
