// SPDX-License-Identifier: GPL-2.0-only
//! C1 to C7: which CQEs a group posts, with which results, and when.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use harness::ring::{Cqe, Ring, RingMode, PATIENCE};
use rstest::rstest;

use crate::expect::{list, nothing_yet, Expect};
use crate::op::*;
use crate::world::{eventually, poll_now, ring, udp_pair, Pipe};
use harness::fuzz::generate::Random;

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ETIME: i32 = -libc::ETIME;
const ECANCELED: i32 = -libc::ECANCELED;

/// What never issued members of a leader with this result have.
fn unissued(leader: i32) -> i32 {
    if leader == ECANCELED {
        ECANCELED
    } else {
        EIO
    }
}

/// Many groups side by side, of every shape and outcome.
fn c1_each_sqe_posts_one_cqe(mode: RingMode) {
    const RESULTS: [i32; 6] = [-5, ECANCELED, 2, 3, 4, 5];
    let mut ring = ring(mode);
    let mut dice = Random::new(1);
    for _ in 0..20 {
        let mut ops = Vec::new();
        let mut expect = Expect::new();
        for at in 0..9u64 {
            let ud = 0x1000 * (at + 1);
            let (result, size) = (dice.pick(&RESULTS), dice.below(7) as u64);
            let leader = nop_res(ud, result).kind(dice.pick(&Kind::ALL));
            let members: Vec<_> = (1..=size).map(|i| (ud + i, dice.pick(&RESULTS))).collect();
            let member = |&(ud, res): &(u64, i32)| nop_res(ud, res);
            let nops: Vec<_> = members
                .iter()
                .map(member)
                .map(|op| op.kind(dice.pick(&Kind::ALL)))
                .collect();
            ops.extend(group(leader, nops));
            let posted = members
                .into_iter()
                .map(|(ud, res)| (ud, if result < 0 { unissued(result) } else { res }));
            expect = expect.group((ud, result), posted);
        }
        expect.run(&mut ring, &ops);
    }
}

/// The leader's CQE is withheld as long as one member is out.
fn c2_leader_posts_last(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    for (early, late, ud_early, ud_late) in [(&first, &second, M1, M3), (&second, &first, M3, M1)] {
        let ops = group(
            nop_res(L, 7),
            [
                read(M1, &first.read, Buf::new(1)),
                nop(M2),
                read(M3, &second.read, Buf::new(1)),
            ],
        );
        submit(&mut ring, &ops);
        Expect::new().cqe(M2, OK).settle(&mut ring);
        nothing_yet(&mut ring);
        early.feed(b"x");
        Expect::new().cqe(ud_early, 1).settle(&mut ring);
        nothing_yet(&mut ring);
        late.feed(b"x");
        Expect::new()
            .group((L, 7), [(ud_late, 1)])
            .finish(&mut ring);
    }
}

/// A waiter for N CQEs is woken when there are N, the last two of which appear at
/// once. With DEFER_TASKRUN, completions of POLL_ADD do not wake a waiter before
/// there are as many of them as CQEs that it waits for.
fn c2_a_waiter_is_woken(mode: RingMode) {
    let mut ring = ring(mode);
    // All three, or the last two, or any of those.
    for want in [3, 2, 1] {
        for polls in [false, true] {
            // Each completes with 1.
            let wait = |ud, pipe: &Pipe| {
                if polls {
                    poll_in(ud, &pipe.read)
                } else {
                    read(ud, &pipe.read, Buf::new(1))
                }
            };
            let (first, second) = (Pipe::new(), Pipe::new());
            let ops = group(nop(L), [wait(M1, &first), wait(M2, &second)]);
            submit(&mut ring, &ops);
            nothing_yet(&mut ring);
            let mut expect = Expect::new();
            if want < 3 {
                first.feed(b"x");
                Expect::new().cqe(M1, 1).settle(&mut ring);
            } else {
                expect = expect.cqe(M1, 1);
            }
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Long enough for the waiter to sleep, mostly; if not, the test
                    // is easier and still right.
                    std::thread::sleep(Duration::from_millis(20));
                    if want == 3 {
                        first.feed(b"x");
                    }
                    second.feed(b"x");
                });
                let woken = ring.wait_for(want, PATIENCE).expect("waiting");
                assert!(woken, "asleep with {want} CQEs to wait for");
            });
            expect.group((L, OK), [(M2, 1)]).finish(&mut ring);
        }
    }
}

/// A leader that posts several times: the last CQE is withheld, the others are not.
fn c2_a_multishot_leader(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = group(
        timer(L, Duration::from_millis(1), 3),
        [nop_res(M1, 1), read(M2, &waits.read, Buf::new(1))],
    );
    submit(&mut ring, &ops);
    let shots = [(L, ETIME, true), (L, ETIME, true), (M1, 1, false)];
    expect_shots(&mut ring, &shots);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new().group((L, ETIME), [(M2, 1)]).finish(&mut ring);
}

/// A CQE's fields that say which shot it is.
fn shot(cqe: &Cqe) -> (u64, i32, bool) {
    let more = cqe.flags & IORING_CQE_F_MORE != 0;
    (cqe.user_data, cqe.result, more)
}

/// The next CQEs, in their order.
#[track_caller]
fn expect_shots(ring: &mut Ring, shots: &[(u64, i32, bool)]) {
    let cqes = match ring.collect(shots.len(), PATIENCE) {
        Ok(cqes) => cqes,
        Err(missing) => missing.got,
    };
    let seen: Vec<_> = cqes.iter().map(shot).collect();
    assert_eq!(seen, shots);
}

/// A member that posts several times: only its last CQE counts. Here, it is the one of
/// being cancelled, by itself or with its group.
fn c2_a_multishot_member(mode: RingMode) {
    let mut ring = ring(mode);
    let readable = i32::from(libc::POLLIN);
    for target in [M1, L] {
        let waits = Pipe::new();
        let ops = all([
            group(
                nop_res(L, 7).link(),
                [poll_in_multi(M1, &waits.read), nop_res(M2, 2)],
            ),
            vec![nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        expect_shots(&mut ring, &[(M2, 2, false)]);
        for _ in 0..3 {
            nothing_yet(&mut ring);
            waits.feed(b"x");
            expect_shots(&mut ring, &[(M1, readable, true)]);
            waits.drain();
        }
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, target, 0)]);
        Expect::new()
            .cqe(CANCEL, OK)
            .group((L, 7), [(M1, ECANCELED)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// The same for one that ends by itself: at the end of what there is to receive, or as
/// its buffers run out. Only the latter is a failure.
fn c2_a_multishot_member_ends(mode: RingMode) {
    let mut ring = ring(mode);
    for runs_out in [false, true] {
        let (near, far) = UnixStream::pair().unwrap();
        let bgid = u16::from(runs_out);
        // The end of what there is to receive takes a buffer, too.
        let buffers = if runs_out { 2 } else { 3 };
        Expect::new()
            .cqe(BEFORE, OK)
            .run(&mut ring, &[provide_buffers(BEFORE, 16, buffers, bgid)]);
        let ops = all([
            group(
                nop_res(L, 7).link(),
                [nop_res(M1, 1), recv_multi(M2, &near, bgid)],
            ),
            vec![nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        expect_shots(&mut ring, &[(M1, 1, false)]);
        for _ in 0..2 {
            nothing_yet(&mut ring);
            std::io::Write::write_all(&mut &far, b"abc").unwrap();
            expect_shots(&mut ring, &[(M2, 3, true)]);
        }
        nothing_yet(&mut ring);
        let (last, after) = if runs_out {
            std::io::Write::write_all(&mut &far, b"abc").unwrap();
            (-libc::ENOBUFS, ECANCELED)
        } else {
            far.shutdown(std::net::Shutdown::Both).unwrap();
            (OK, OK)
        };
        expect_shots(
            &mut ring,
            &[(M2, last, false), (L, 7, false), (AFTER, after, false)],
        );
        nothing_yet(&mut ring);
    }
}

/// Timers as members: one that expires several times, one that counts CQEs. The
/// leader's is not among these as long as it is withheld.
fn c2_timers_as_members(mode: RingMode) {
    let mut ring = ring(mode);
    let ops = all([
        group(nop(L).link(), [timer(M1, Duration::from_millis(1), 3)]),
        vec![nop_res(AFTER, 3)],
    ]);
    submit(&mut ring, &ops);
    let shots = [
        (M1, ETIME, true),
        (M1, ETIME, true),
        (M1, ETIME, false),
        (L, OK, false),
        (AFTER, 3, false),
    ];
    expect_shots(&mut ring, &shots);
    nothing_yet(&mut ring);

    let ops = all([
        group(nop(L).link(), [after_cqes(M1, 1), nop_res(M2, 2)]),
        vec![nop_res(AFTER, 3)],
    ]);
    submit(&mut ring, &ops);
    let shots = [
        (M2, 2, false),
        (M1, OK, false),
        (L, OK, false),
        (AFTER, 3, false),
    ];
    expect_shots(&mut ring, &shots);
    nothing_yet(&mut ring);

    // It waits for one CQE more than the group has for it.
    let ops = group(nop(L), [after_cqes(M1, 2), nop_res(M2, 2)]);
    submit(&mut ring, &ops);
    expect_shots(&mut ring, &[(M2, 2, false)]);
    assert_eq!(list(&ring.arrived()), "nothing");
    submit(&mut ring, &[nop_res(AFTER, 3)]);
    let shots = [(AFTER, 3, false), (M1, OK, false), (L, OK, false)];
    expect_shots(&mut ring, &shots);
    nothing_yet(&mut ring);
}

/// Each SQE has its own result, whatever became of the others.
fn c3_results_are_each_its_own(mode: RingMode) {
    let mut ring = ring(mode);
    for failing in 0..8u32 {
        let result = |i: usize| {
            if failing & (1 << (i - 1)) != 0 {
                -(40 + i as i32)
            } else {
                40 + i as i32
            }
        };
        for kind in Kind::ALL {
            let ops = group(
                nop_res(L, 40).kind(kind),
                (1..=3).map(|i| nop_res(m(i), result(i)).kind(kind)),
            );
            Expect::new()
                .group((L, 40), (1..=3).map(|i| (m(i), result(i))))
                .run(&mut ring, &ops);
        }
    }
}

/// A file that nobody else holds stays open until the group is done.
fn c4_the_leaders_file_is_held(mode: RingMode) {
    for kind in [Kind::Inline, Kind::Worker] {
        let mut ring = ring(mode);
        let waits = Pipe::new();
        let (near, far) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &far, b"x").unwrap();
        let ops = group(
            recv(L, &near, Buf::new(1)).kind(kind),
            [nop(M1), read(M2, &waits.read, Buf::new(1))],
        );
        submit(&mut ring, &ops);
        // M1 is done: so is the leader's own work.
        Expect::new().cqe(M1, OK).settle(&mut ring);
        drop(OwnedFd::from(near));
        nothing_yet(&mut ring);
        assert_eq!(
            poll_now(&far, libc::POLLIN) & libc::POLLHUP,
            0,
            "the leader's file was released early"
        );
        waits.feed(b"x");
        Expect::new().group((L, 1), [(M2, 1)]).finish(&mut ring);
        eventually("the leader's file is released", || {
            let _ = ring.flush();
            poll_now(&far, libc::POLLIN) & libc::POLLHUP != 0
        });
    }
}

/// The same for a registered buffer: the kernel tells when it lets go of it.
fn c4_the_leaders_buffer_is_held(mode: RingMode) {
    const TAG: u64 = 0xb0f;
    let mut ring = ring(mode);
    let (waits, data) = (Pipe::new(), Pipe::new());
    let (buf, other) = (Buf::new(4096), Buf::new(4096));
    // SAFETY: A `Buf` is never freed.
    unsafe { ring.submitter().register_buffers2(&[buf.iovec()], &[TAG]) }
        .expect("registering a buffer");
    data.feed(&[1; 4096]);
    let ops = group(
        read_fixed(L, &data.read, buf, 0, u64::MAX),
        [nop(M1), read(M2, &waits.read, Buf::new(1))],
    );
    submit(&mut ring, &ops);
    Expect::new().cqe(M1, OK).settle(&mut ring);
    // SAFETY: A `Buf` is never freed.
    let updated = unsafe {
        ring.submitter()
            .register_buffers_update(0, &[other.iovec()], Some(&[0]))
    };
    updated.expect("replacing the buffer");
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, 4096), [(M2, 1)])
        .cqe(TAG, OK)
        .finish(&mut ring);
}

/// Zero-copy notifications of members are CQEs of their own.
fn c4_notifications_are_not_waited_for(mode: RingMode) {
    let mut ring = ring(mode);
    let (from, to) = udp_pair();
    for _ in 0..4 {
        let ops = group(nop(L), [send_zc(M1, &from, b"abc"), nop(M2)]);
        submit(&mut ring, &ops);
        let mut cqes = ring.collect(4, PATIENCE).expect("M1 twice, M2, L");
        let notif = cqes
            .iter()
            .position(|cqe| cqe.flags & IORING_CQE_F_NOTIF != 0)
            .unwrap_or_else(|| panic!("no notification: {}", list(&cqes)));
        assert_eq!(cqes.remove(notif).user_data, M1);
        let sent = cqes.iter().find(|cqe| cqe.user_data == M1);
        assert!(sent.is_some_and(|cqe| cqe.flags & IORING_CQE_F_MORE != 0));
        Expect::new()
            .group((L, OK), [(M1, 3), (M2, OK)])
            .check(&cqes);
        assert_eq!(to.recv(&mut [0; 8]).unwrap(), 3);
        nothing_yet(&mut ring);
    }
}

/// A chain whose middle is a group with these results.
fn chain(leader: Op, m1: Op, m2: Op) -> Vec<Op> {
    all([
        vec![nop_res(BEFORE, 1).link()],
        group(leader, [m1, m2]),
        group(nop(L2).link(), [nop(N1), nop(N2)]),
        vec![nop_res(AFTER, 4)],
    ])
}

/// A chain with a group in it of which one request fails, each in turn. What is
/// behind the group succeeds if `goes_on`, and is cancelled otherwise.
fn fail_each(mode: RingMode, leader: fn(Op) -> Op, goes_on: bool) {
    let mut ring = ring(mode);
    let (behind, last) = if goes_on {
        (OK, 4)
    } else {
        (ECANCELED, ECANCELED)
    };
    for kind in Kind::ALL {
        for failing in 0..3 {
            let result = |i: usize| if i == failing { -5 } else { i as i32 };
            let op = |ud, i| nop_res(ud, result(i)).kind(kind);
            let ops = chain(leader(op(L, 0)), op(M1, 1), op(M2, 2));
            let members = if failing == 0 {
                [(M1, EIO), (M2, EIO)]
            } else {
                [(M1, result(1)), (M2, result(2))]
            };
            Expect::new()
                .cqe(BEFORE, 1)
                .then_group((L, result(0)), members)
                .then_group((L2, behind), [(N1, behind), (N2, behind)])
                .then(AFTER, last)
                .run(&mut ring, &ops);
        }
    }
}

/// The chain behind a failed group is cancelled, groups and all, in its order.
fn c5_a_failed_group_breaks_its_chain(mode: RingMode) {
    fail_each(mode, Op::link, false);
}

/// HARDLINK on the leader: the chain goes on.
fn c5_hardlink_keeps_the_chain(mode: RingMode) {
    fail_each(mode, Op::hardlink, true);
}

/// What fails without links noticing fails a group: errors of fsync; and what links
/// notice without an error: short reads.
fn c5_what_counts_as_failed(mode: RingMode) {
    let mut ring = ring(mode);
    let data = Pipe::new();
    type Failing = fn(u64, &Pipe) -> Op;
    let failing: [(Failing, i32); 3] = [
        (|ud, pipe| fsync(ud, &pipe.read), -libc::EINVAL),
        (|ud, pipe| read(ud, &pipe.read, Buf::new(8)), 3),
        (|ud, _| timeout(ud, Duration::from_millis(1)), ETIME),
    ];
    for (failing, result) in failing {
        // As a member
        data.feed(b"abc");
        let ops = all([
            group(nop_res(L, 7).link(), [failing(M1, &data), nop(M2)]),
            vec![nop(AFTER)],
        ]);
        Expect::new()
            .group((L, 7), [(M1, result), (M2, OK)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);
        data.drain();
        // As the leader
        data.feed(b"abc");
        let ops = all([
            group(failing(L, &data).link(), [nop(M1), nop(M2)]),
            vec![nop(AFTER)],
        ]);
        Expect::new()
            .group((L, result), [(M1, EIO), (M2, EIO)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);
        data.drain();
    }
}

/// The one exception: a TIMEOUT that links do not take as failed.
fn c5_a_timer_that_succeeds(mode: RingMode) {
    let mut ring = ring(mode);
    let soon = Duration::from_millis(1);
    let ops = all([
        group(timer(L, soon, 1).link(), [nop(M1), timer(M2, soon, 1)]),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, ETIME), [(M1, OK), (M2, ETIME)])
        .then(AFTER, OK)
        .run(&mut ring, &ops);
}

/// Members that are never issued: -ECANCELED if the leader was cancelled or never
/// ran, -EIO if it failed by itself.
fn c6_what_unissued_members_post(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        for result in [-1, -5, -libc::EINTR, -libc::EAGAIN, -libc::ETIME, ECANCELED] {
            let ops = group(nop_res(L, result).kind(kind), [nop(M1), nop(M2)]);
            Expect::new()
                .group(
                    (L, result),
                    [(M1, unissued(result)), (M2, unissued(result))],
                )
                .run(&mut ring, &ops);
        }
        let ops = all([
            vec![nop_res(BEFORE, -5).kind(kind).link()],
            group(nop(L).kind(kind), [nop(M1), nop(M2)]),
        ]);
        Expect::new()
            .cqe(BEFORE, -5)
            .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .run(&mut ring, &ops);
    }
}

/// A leader that reads less than it was asked for has failed: its result is no
/// error, and its members are not issued.
#[test]
fn c6_short_read() {
    let mut ring = ring(RingMode::Default);
    let file = crate::files::file_with(b"0123456789");
    let to = Pipe::new();
    let ops = group(
        read_at(L, &file, Buf::new(20), 0),
        [write(M1, &to.write, b"x")],
    );
    Expect::new()
        .group((L, 10), [(M1, EIO)])
        .run(&mut ring, &ops);
    assert_eq!(to.filled(), 0);
}

/// Members skip, the leader does not: one CQE for a group that succeeds, and what
/// failed in one that does not.
fn c7_members_skip(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let group_of = |l: i32, m1: i32, m2: i32| {
            group(
                nop_res(L, l).kind(kind),
                [
                    nop_res(M1, m1).kind(kind).skip(),
                    nop_res(M2, m2).kind(kind).skip(),
                ],
            )
        };
        Expect::new().cqe(L, 7).run(&mut ring, &group_of(7, 1, 2));
        Expect::new()
            .group((L, 7), [(M2, -5)])
            .run(&mut ring, &group_of(7, 1, -5));
        Expect::new()
            .group((L, 7), [(M1, -4), (M2, -5)])
            .run(&mut ring, &group_of(7, -4, -5));
        // The leader fails: so do they.
        Expect::new()
            .group((L, -5), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &group_of(-5, 1, 2));
    }
}

/// The leader skips: nothing, if all goes well; itself and what failed, if not.
fn c7_the_leader_skips(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let group_of = |l: i32, m1: i32, m2: i32, skip: bool| {
            let member = |op: Op| if skip { op.skip() } else { op };
            group(
                nop_res(L, l).kind(kind).skip(),
                [
                    member(nop_res(M1, m1).kind(kind)),
                    member(nop_res(M2, m2).kind(kind)),
                ],
            )
        };
        Expect::new()
            .members([(M1, 1), (M2, 2)])
            .run(&mut ring, &group_of(7, 1, 2, false));
        Expect::new()
            .group((L, 7), [(M1, -5), (M2, 2)])
            .run(&mut ring, &group_of(7, -5, 2, false));
        Expect::new()
            .group((L, -5), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &group_of(-5, 1, 2, false));
        // Everybody skips
        Expect::new().run(&mut ring, &group_of(7, 1, 2, true));
        Expect::new().cqe(BESIDE, OK).run(&mut ring, &[nop(BESIDE)]);
        Expect::new()
            .group((L, 7), [(M1, -5)])
            .run(&mut ring, &group_of(7, -5, 2, true));
        Expect::new()
            .group((L, -5), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &group_of(-5, 1, 2, true));
    }
}

/// What a broken chain drops. Today a failed request with CQE_SKIP_SUCCESS posts its
/// own CQE and drops those of the rest, and one without posts all of the rest,
/// skipping or not. The leader's flag stands for its group.
fn c7_in_a_broken_chain(mode: RingMode) {
    let mut ring = ring(mode);

    // The element before skips and fails: the group is dropped as a whole.
    let ops = all([
        vec![nop_res(BEFORE, -5).skip().link()],
        group(nop(L).link(), [nop(M1), nop(M2).skip()]),
        vec![nop(AFTER)],
    ]);
    Expect::new().cqe(BEFORE, -5).run(&mut ring, &ops);

    // The element before does not skip: all of it posts.
    let ops = all([
        vec![nop_res(BEFORE, -5).link()],
        group(nop(L).skip().link(), [nop(M1), nop(M2).skip()]),
        vec![nop(AFTER).skip()],
    ]);
    Expect::new()
        .cqe(BEFORE, -5)
        .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    // The group breaks the chain and its leader skips: the rest is dropped.
    for (leader, member) in [(7, -5), (-5, 1)] {
        let ops = all([
            group(nop_res(L, leader).skip().link(), [nop_res(M1, member)]),
            group(nop(L2).link(), [nop(N1)]),
            vec![nop(AFTER)],
        ]);
        let member = if leader < 0 { EIO } else { member };
        Expect::new()
            .group((L, leader), [(M1, member)])
            .run(&mut ring, &ops);
    }

    // Only its members skip: the rest posts.
    let ops = all([
        group(nop_res(L, 7).link(), [nop_res(M1, -5).skip()]),
        group(nop(L2).link(), [nop(N1).skip()]),
        vec![nop(AFTER).skip()],
    ]);
    Expect::new()
        .group((L, 7), [(M1, -5)])
        .then_group((L2, ECANCELED), [(N1, ECANCELED)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);
}

/// A group that succeeds in silence still lets its chain go on.
fn c7_silent_groups_in_a_chain(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = all([
        group(
            nop(L).skip().link(),
            [nop(M1).skip(), read(M2, &waits.read, Buf::new(1)).skip()],
        ),
        vec![nop(AFTER)],
    ]);
    submit(&mut ring, &ops);
    nothing_yet(&mut ring);
    waits.feed(b"x");
    Expect::new().cqe(AFTER, OK).finish(&mut ring);
}

/// Errors of a request with CQE_SKIP_SUCCESS that links do not notice are posted
/// too.
fn c7_errors_are_never_skipped(mode: RingMode) {
    let mut ring = ring(mode);
    let pipe = Pipe::new();
    let ops = group(nop(L), [fsync(M1, &pipe.read).skip(), nop(M2).skip()]);
    Expect::new()
        .group((L, OK), [(M1, -libc::EINVAL)])
        .run(&mut ring, &ops);
    let ops = group(fsync(L, &pipe.read).skip(), [nop(M1).skip()]);
    Expect::new()
        .group((L, -libc::EINVAL), [(M1, EIO)])
        .run(&mut ring, &ops);
}

/// The ring of a group that is done can be closed; nothing keeps it.
#[rstest]
fn c1_rings_come_and_go(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    let probe = Pipe::new();
    for _ in 0..10 {
        let mut ring = ring(mode);
        ring.submitter()
            .register_files(&[probe.read.as_raw_fd()])
            .expect("registering a file");
        let ops = group(nop(L), [nop(M1), nop(M2)]);
        Expect::new()
            .group((L, OK), [(M1, OK), (M2, OK)])
            .run(&mut ring, &ops);
    }
    let Pipe { read, write } = probe;
    drop(read);
    eventually("the rings let go of their files", || {
        poll_now(&write, libc::POLLOUT) & libc::POLLERR != 0
    });
}

/// [`Ring::quiet`] itself: a leader's CQE that comes late is seen by it.
#[test]
fn c2_late_cqes_would_be_seen() {
    let mut ring: Ring = ring(RingMode::Default);
    submit(&mut ring, &group(nop(L), [nop(M1)]));
    Expect::new().cqe(M1, OK).settle(&mut ring);
    let late = ring.quiet().expect_err("the leader's CQE is left");
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].user_data, L);
}

every_mode!(
    c1_each_sqe_posts_one_cqe,
    c5_a_failed_group_breaks_its_chain,
);

every_pollable_mode!(
    c2_leader_posts_last,
    c2_a_waiter_is_woken,
    c4_the_leaders_file_is_held,
);

main_modes_of_nops!(
    c5_hardlink_keeps_the_chain,
    c6_what_unissued_members_post,
    c7_members_skip,
    c3_results_are_each_its_own,
    c7_the_leader_skips,
    c7_in_a_broken_chain,
);

main_modes!(
    c2_a_multishot_leader,
    c2_a_multishot_member,
    c2_a_multishot_member_ends,
    c2_timers_as_members,
    c4_the_leaders_buffer_is_held,
    c4_notifications_are_not_waited_for,
    c5_what_counts_as_failed,
    c5_a_timer_that_succeeds,
    c7_silent_groups_in_a_chain,
    c7_errors_are_never_skipped,
);
