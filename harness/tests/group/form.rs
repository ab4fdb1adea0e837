// SPDX-License-Identifier: GPL-2.0-only
//! F1 to F6: which SQEs make a group, and what happens if they cannot.

use std::os::fd::AsRawFd;
use std::time::Duration;

use harness::ring::{RingMode, Setup, PATIENCE};
use harness::skip;
use io_uring::opcode;
use rstest::rstest;

use crate::expect::{list, nothing_yet, Expect};
use crate::op::*;
use crate::world::{build, ring, udp_pair, workers, NoRequests, Pipe};

const OK: i32 = 0;
const EINVAL: i32 = -libc::EINVAL;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;
const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;

/// Leader and members each complete in the submission, in task work, in a worker.
fn f1_leader_and_members(mode: RingMode) {
    let mut ring = ring(mode);
    for leader in Kind::ALL {
        for first in Kind::ALL {
            for second in Kind::ALL {
                let ops = group(
                    nop_res(L, 7).kind(leader),
                    [nop_res(M1, 1).kind(first), nop_res(M2, 2).kind(second)],
                );
                Expect::new()
                    .group((L, 7), [(M1, 1), (M2, 2)])
                    .run(&mut ring, &ops);
            }
        }
    }
}

/// Groups of every size that the queue takes; members complete as they are issued.
fn f1_sizes(mode: RingMode) {
    let mut ring = ring(mode);
    for members in [1, 2, 3, 7, 8, 9, 16, 31, 63] {
        let ops = group(
            nop_res(L, 99),
            (1..=members).map(|i| nop_res(m(i), i as i32)),
        );
        Expect::new()
            .members((1..=members).map(|i| (m(i), i as i32)))
            .cqe(L, 99)
            .in_order()
            .run(&mut ring, &ops);
    }
}

/// The first SQE without the flag is the last member, and the next SQE is not in
/// the group: it does not share its failure.
fn f1_ends_with_the_first_sqe_without_the_flag(mode: RingMode) {
    let mut ring = ring(mode);
    let ops = all([
        group(nop_res(L, -5), [nop(M1)]),
        vec![nop_res(BESIDE, 3)],
        group(nop_res(L2, 2), [nop(N1), nop(N2)]),
        vec![nop_res(AFTER, 4)],
    ]);
    Expect::new()
        .group((L, -5), [(M1, EIO)])
        .cqe(BESIDE, 3)
        .group((L2, 2), [(N1, OK), (N2, OK)])
        .cqe(AFTER, 4)
        .run(&mut ring, &ops);
}

/// The leader's link flag says whether the chain goes on; the last member, which
/// has none, does not end it.
fn f1_chain_goes_on_by_the_leaders_flag(mode: RingMode) {
    let mut ring = ring(mode);
    let ops = all([
        group(nop_res(L, -5).link(), [nop(M1), nop(M2)]),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, -5), [(M1, EIO), (M2, EIO)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    let ops = all([
        vec![nop(BEFORE).link()],
        group(nop_res(L, -5), [nop(M1), nop(M2)]),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .cqe(BEFORE, OK)
        .then_group((L, -5), [(M1, EIO), (M2, EIO)])
        .cqe(AFTER, OK)
        .run(&mut ring, &ops);
}

/// The last SQE of a submission still has the flag: the group ends there, and what
/// is submitted next is not in it.
fn f2_ends_with_the_submission(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        let ops = [
            nop_res(L, 7).kind(kind).grouped(),
            nop(M1).kind(kind).grouped(),
            nop(M2).kind(kind).grouped(),
        ];
        Expect::new()
            .group((L, 7), [(M1, OK), (M2, OK)])
            .run(&mut ring, &ops);
        Expect::new().cqe(AFTER, OK).run(&mut ring, &[nop(AFTER)]);
    }
}

/// Nothing in it asks for a worker, so it does not get one.
#[rstest]
fn f2_that_takes_no_worker(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::NoSqarray)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let ops = [nop(L).grouped(), nop(M1).grouped(), nop(M2).grouped()];
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    assert_eq!(workers(), 0, "a worker was started");
}

/// The application submits part of what it pushed: that is a submission.
#[rstest]
fn f2_ends_with_what_was_submitted(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::NoSqarray,
        RingMode::SqRewind
    )]
    mode: RingMode,
) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    // The fifth SQE would have been the last member. It leads nobody, as it has no
    // flag.
    push(
        &mut ring,
        &group(
            read(L, &waits.read, Buf::new(1)),
            [nop(M1), nop(M2), nop(M3), nop(AFTER)],
        ),
    );
    assert_eq!(ring.submit_at_most(4).unwrap(), 4);
    nothing_yet_but_pending(&mut ring, 1);
    ring.submit().unwrap();
    Expect::new().cqe(AFTER, OK).finish(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, OK), (M2, OK), (M3, OK)])
        .finish(&mut ring);
}

/// [`nothing_yet`] would submit what is pushed.
fn nothing_yet_but_pending(ring: &mut harness::ring::Ring, pending: usize) {
    let cqes = ring.arrived();
    assert!(cqes.is_empty(), "too early: {}", list(&cqes));
    assert_eq!(ring.pending(), pending);
}

/// A thread that serves several rings takes 8 SQEs of each in turn; a group is not
/// cut by that.
#[rstest]
fn f2_sqpoll_cap_does_not_cut(#[values(1, 7, 8, 9, 15, 16, 17, 40, 63)] members: usize) {
    let first = ring(RingMode::Sqpoll);
    let setup = Setup::new(RingMode::Sqpoll).attach_wq(first.fd());
    let mut ring = build(setup);
    for lead in 0..9 {
        // The group begins at any place of a batch of 8.
        let plain: Vec<_> = (0..lead).map(|i| nop(0x1000 + i)).collect();
        let plain = if plain.len() + members + 1 > 64 {
            Vec::new()
        } else {
            plain
        };
        let mut expect = Expect::new();
        for op in &plain {
            expect = expect.cqe(op.user_data(), OK);
        }
        let members = 1..=members;
        let ops = all([plain, group(nop(L), members.clone().map(|i| nop(m(i))))]);
        expect
            .group((L, OK), members.map(|i| (m(i), OK)))
            .run(&mut ring, &ops);
    }
}

/// Rings on one thread, each with a group of its own at the same time, and with plain
/// requests around it.
#[test]
fn f2_groups_of_rings_on_one_thread() {
    let mut rings = vec![ring(RingMode::Sqpoll)];
    for _ in 0..2 {
        let setup = Setup::new(RingMode::Sqpoll).attach_wq(rings[0].fd());
        rings.push(build(setup));
    }
    for round in 0..30usize {
        let members = 1 + 7 * round % 50;
        let leads = round % 9;
        let plain = |i: usize| 0x1000 + i as u64;
        for ring in &mut rings {
            let before = (0..leads).map(|i| nop(plain(i))).collect();
            let ops = [
                before,
                group(
                    nop_res(L, 7),
                    (1..=members).map(|i| nop_res(m(i), i as i32)),
                ),
                vec![nop(AFTER)],
            ];
            // The thread may take it from here on.
            push(ring, &all(ops));
        }
        for ring in &mut rings {
            ring.submit().expect("waking the thread");
            let expect = (0..leads).fold(Expect::new(), |expect, i| expect.cqe(plain(i), OK));
            expect
                .group((L, 7), (1..=members).map(|i| (m(i), i as i32)))
                .cqe(AFTER, OK)
                .finish(ring);
        }
    }
}

/// An SQPOLL thread takes SQEs on top of its share, as long as a group goes on. The tail of the SQ
/// is up to the application, which can have a group go on for ever; but none is larger than
/// the SQ. A leader that fails is told from its members by its error.
#[test]
fn f2_no_group_is_larger_than_the_sq() {
    const ENTRIES: usize = 64;
    const LAPS: u32 = 500;
    // None of those that a member which was not issued has.
    const FAILS: i32 = -libc::EPERM;
    let mut ring = build(Setup::new(RingMode::Sqpoll).entries(ENTRIES as u32));
    push(&mut ring, &vec![nop_res(L, FAILS).grouped(); ENTRIES]);
    ring.claim_more(LAPS * ENTRIES as u32).unwrap();
    ring.submit().expect("waking the thread");
    let cqes = ring
        .collect(3 * ENTRIES, PATIENCE)
        .unwrap_or_else(|missing| panic!("{missing}"));
    let groups = cqes.split_inclusive(|cqe| cqe.result == FAILS);
    for (nth, group) in groups.take(2).enumerate() {
        assert!(
            group.len() <= ENTRIES,
            "group {nth} has {} SQEs or more",
            group.len()
        );
    }
}

/// A leader without members is a plain request.
fn f3_a_leader_alone(mode: RingMode) {
    let mut ring = ring(mode);
    for kind in Kind::ALL {
        for result in [5, -5] {
            let ops = [nop_res(L, result).kind(kind).grouped()];
            Expect::new().cqe(L, result).run(&mut ring, &ops);
        }
        // At the end of a chain, too.
        let ops = [nop(BEFORE).link(), nop(L).kind(kind).grouped()];
        Expect::new()
            .cqe(BEFORE, OK)
            .then(L, OK)
            .run(&mut ring, &ops);
    }
}

/// What could not lead a group can stand alone with the flag.
fn f3_a_lone_leader_is_not_held_to_the_rules(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let ops = [
        read(BEFORE, &waits.read, Buf::new(1)).link(),
        link_timeout(TIMER, Duration::from_millis(20)).grouped(),
    ];
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .cqe(TIMER, -libc::ETIME)
        .run(&mut ring, &ops);

    let (from, to) = udp_pair();
    submit(&mut ring, &[send_zc(L, &from, b"hello").grouped()]);
    let cqes = ring.collect(2, PATIENCE).expect("result, notification");
    assert_eq!((cqes[0].user_data, cqes[0].result), (L, 5));
    assert_eq!(cqes[1].user_data, L);
    assert_eq!(to.recv(&mut [0; 8]).unwrap(), 5);
    nothing_yet(&mut ring);
}

/// Every flag on a leader holds for the group.
fn f4_a_leader_takes_every_flag(mode: RingMode) {
    let mut ring = ring(mode);
    let leaders = [
        nop(L),
        nop(L).link(),
        nop(L).hardlink(),
        nop(L).link().hardlink(),
        nop(L).worker(),
        nop(L).worker().link(),
        nop(L).fixed_file(),
        nop(L).extended(),
        nop(L).drain(),
        nop(L).drain().link().worker(),
    ];
    for leader in leaders {
        let ops = group(leader, [nop(M1), nop(M2)]);
        Expect::new()
            .group((L, OK), [(M1, OK), (M2, OK)])
            .run(&mut ring, &ops);
    }
    let ops = group(nop(L).skip(), [nop(M1), nop(M2)]);
    Expect::new()
        .members([(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
}

/// LINK, HARDLINK and DRAIN on any member; the group does not form.
fn f4_members_do_not_link_or_drain(mode: RingMode) {
    let mut ring = ring(mode);
    let flags: [fn(Op) -> Op; 4] = [Op::link, Op::hardlink, Op::drain, |op| op.link().drain()];
    for flag in flags {
        for bad in 1..=3 {
            let members = (1..=3).map(|i| if i == bad { flag(nop(m(i))) } else { nop(m(i)) });
            let results = (1..=3).map(|i| (m(i), if i == bad { EINVAL } else { EIO }));
            Expect::new()
                .group((L, EINVAL), results)
                .run(&mut ring, &group(nop(L), members));
        }
        // A last member's link does not reach the next SQE.
        let ops = all([group(nop(L), [flag(nop(M1))]), vec![nop_res(AFTER, 3)]]);
        Expect::new()
            .group((L, EINVAL), [(M1, EINVAL)])
            .cqe(AFTER, 3)
            .run(&mut ring, &ops);
    }
}

/// A refused DRAIN leaves no drain behind: what comes later does not wait for what
/// came before.
fn f4_a_refused_drain_drains_nothing(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    submit(&mut ring, &[read(BEFORE, &waits.read, Buf::new(1))]);
    let ops = group(nop(L), [nop(M1).drain()]);
    Expect::new()
        .group((L, EINVAL), [(M1, EINVAL)])
        .run(&mut ring, &ops);
    Expect::new().cqe(AFTER, OK).run(&mut ring, &[nop(AFTER)]);
    waits.feed(b"x");
    Expect::new().cqe(BEFORE, 1).finish(&mut ring);
}

/// LINK_TIMEOUT is neither leader nor member.
fn f4_no_link_timeout_in_a_group(mode: RingMode) {
    let mut ring = ring(mode);
    let long = Duration::from_secs(3600);
    let ops = group(link_timeout(L, long), [nop(M1), nop(M2)]);
    Expect::new()
        .group((L, EINVAL), [(M1, EIO), (M2, EIO)])
        .run(&mut ring, &ops);
    for leader in [nop(L), nop(L).link()] {
        let ops = group(leader, [nop(M1), link_timeout(M2, long), nop(M3)]);
        Expect::new()
            .group((L, EINVAL), [(M1, EIO), (M2, EINVAL), (M3, EIO)])
            .run(&mut ring, &ops);
    }
    // It would have been armed for the request before it.
    let ops = all([
        vec![nop(BEFORE).link()],
        group(link_timeout(L, long), [nop(M1)]),
    ]);
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .then_group((L, EINVAL), [(M1, EIO)])
        .run(&mut ring, &ops);
}

/// A zero-copy send does not lead, and sends nothing; it may be a member.
fn f4_zero_copy_sends_are_no_leaders(mode: RingMode) {
    let mut ring = ring(mode);
    let (from, to) = udp_pair();
    to.set_nonblocking(true).unwrap();
    let ops = group(send_zc(L, &from, b"no"), [nop(M1)]);
    Expect::new()
        .group((L, EINVAL), [(M1, EIO)])
        .run(&mut ring, &ops);
    assert!(to.recv(&mut [0; 8]).is_err(), "a refused send was sent");

    // A message of nothing to nobody
    let message = send_zc(L, &from, &[0; size_of::<libc::msghdr>()]).edit(|sqe| {
        sqe.opcode = opcode::SendMsgZc::CODE;
        sqe.len = 1;
    });
    Expect::new()
        .group((L, EINVAL), [(M1, EIO)])
        .run(&mut ring, &group(message, [nop(M1)]));
    assert!(to.recv(&mut [0; 8]).is_err(), "a refused message was sent");

    let ops = group(nop(L), [send_zc(M1, &from, b"yes"), nop(M2)]);
    submit(&mut ring, &ops);
    let mut cqes = ring.collect(4, PATIENCE).expect("M1 twice, M2, L");
    let notification = cqes
        .iter()
        .rposition(|cqe| cqe.user_data == M1)
        .expect("a notification");
    // Not waited for: it may come before the leader's CQE or after it.
    cqes.remove(notification);
    Expect::new()
        .group((L, OK), [(M1, 3), (M2, OK)])
        .check(&cqes);
    nothing_yet(&mut ring);
}

/// What members may have: ASYNC, FIXED_FILE, BUFFER_SELECT, CQE_SKIP_SUCCESS.
fn f4_members_take_the_other_flags(mode: RingMode) {
    let mut ring = ring(mode);
    let (data, more) = (Pipe::new(), Pipe::new());
    ring.submitter()
        .register_files(&[data.read.as_raw_fd()])
        .expect("registering a file");
    Expect::new()
        .cqe(BEFORE, OK)
        .run(&mut ring, &[provide_buffers(BEFORE, 16, 2, 9)]);
    data.feed(b"abc");
    more.feed(b"de");
    let got = Buf::new(3);
    let fixed = read(M1, &data.read, got).edit(|sqe| sqe.fd = 0);
    let ops = group(
        nop(L),
        [
            fixed.fixed_file(),
            read(M2, &more.read, Buf::new(16)).buffer_select(9),
            nop(M3).worker(),
            nop(m(4)).skip(),
        ],
    );
    Expect::new()
        .group((L, OK), [(M1, 3), (M2, 2), (M3, OK)])
        .run(&mut ring, &ops);
    assert_eq!(got.bytes(), b"abc");
}

/// One bad SQE, at any place, bad in any way.
fn f5_one_bad_sqe(mode: RingMode) {
    let mut ring = ring(mode);
    for flaw in Flaw::ALL {
        for bad in 0..4 {
            let flawed = |i: usize, op: Op| if i == bad { op.flawed(flaw) } else { op };
            let members = (1..4).map(|i| flawed(i, nop(m(i))));
            let ops = all([
                group(flawed(0, nop(L)), members),
                // Out of the group, and none of its business.
                vec![nop_res(AFTER, 3)],
            ]);
            let results = (1..4).map(|i| (m(i), if i == bad { flaw.error() } else { EIO }));
            Expect::new()
                .group((L, flaw.error()), results)
                .cqe(AFTER, 3)
                .run(&mut ring, &ops);
        }
    }
}

/// Several bad SQEs: each its own error; the leader has the first bad member's.
fn f5_several_bad_sqes(mode: RingMode) {
    let mut ring = ring(mode);
    let ops = group(
        nop(L),
        [
            nop(M1),
            nop(M2).flawed(Flaw::Flag),
            nop(M3).flawed(Flaw::Prep),
            nop(m(4)),
        ],
    );
    Expect::new()
        .group(
            (L, EOPNOTSUPP),
            [(M1, EIO), (M2, EOPNOTSUPP), (M3, EINVAL), (m(4), EIO)],
        )
        .run(&mut ring, &ops);

    let ops = group(
        nop(L).flawed(Flaw::Opcode),
        [nop(M1).flawed(Flaw::Flag), nop(M2)],
    );
    Expect::new()
        .group((L, EINVAL), [(M1, EOPNOTSUPP), (M2, EIO)])
        .run(&mut ring, &ops);
}

/// All of it is consumed and none of it is issued.
fn f5_nothing_is_issued(mode: RingMode) {
    let mut ring = ring(mode);
    let to = Pipe::new();
    for bad in 0..4 {
        let op = |i: usize| {
            if i == bad {
                nop(m(i)).flawed(Flaw::Prep)
            } else {
                write(m(i), &to.write, b"x")
            }
        };
        submit(&mut ring, &group(op(0), (1..4).map(op)));
        let result = |i| (m(i), if i == bad { EINVAL } else { EIO });
        Expect::new()
            .group((L, EINVAL), (1..4).map(result))
            .finish(&mut ring);
        assert_eq!(to.filled(), 0, "SQE {bad} is bad, and another was issued");
    }
}

/// The flag of a bad SQE counts for where the group ends, however early the SQE was
/// found bad.
fn f5_a_bad_sqes_flag_counts(mode: RingMode) {
    let mut ring = ring(mode);
    for flaw in Flaw::ALL {
        // The bad SQE ends the group.
        let ops = all([
            group(nop(L), [nop(M1), nop(M2).flawed(flaw)]),
            group(nop(L2), [nop(N1)]),
        ]);
        Expect::new()
            .group((L, flaw.error()), [(M1, EIO), (M2, flaw.error())])
            .group((L2, OK), [(N1, OK)])
            .run(&mut ring, &ops);
        // A bad leader goes on, and so does a bad member, to the submission's end.
        let ops = [
            nop(L).flawed(flaw).grouped(),
            nop(M1).flawed(flaw).grouped(),
            nop(M2).grouped(),
        ];
        Expect::new()
            .group((L, flaw.error()), [(M1, flaw.error()), (M2, EIO)])
            .run(&mut ring, &ops);
    }
}

/// A leader that is bad and has no member is a bad request, and no more.
fn f5_a_bad_leader_alone(mode: RingMode) {
    let mut ring = ring(mode);
    for flaw in Flaw::ALL {
        Expect::new()
            .cqe(L, flaw.error())
            .run(&mut ring, &[nop(L).flawed(flaw).grouped()]);
        Expect::new().cqe(AFTER, OK).run(&mut ring, &[nop(AFTER)]);
    }
}

/// A chain with a bad SQE in it runs nothing of it, today and with groups. In a
/// chain, elements post in its order.
fn f5_in_a_chain(mode: RingMode) {
    let mut ring = ring(mode);
    let chain = |before: Op, leader: Op, member: Op, after: Op| {
        all([
            vec![before.link()],
            group(leader.link(), [member, nop(M2)]),
            vec![after],
        ])
    };
    let bad = |op: Op| op.flawed(Flaw::Prep);

    // The member is bad.
    let ops = chain(nop(BEFORE), nop(L), bad(nop(M1)), nop(AFTER));
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .then_group((L, EINVAL), [(M1, EINVAL), (M2, EIO)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    // The leader is bad.
    let ops = chain(nop(BEFORE), bad(nop(L)), nop(M1), nop(AFTER));
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .then_group((L, EINVAL), [(M1, EIO), (M2, EIO)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    // The element before is bad.
    let ops = chain(bad(nop(BEFORE)), nop(L), nop(M1), nop(AFTER));
    Expect::new()
        .cqe(BEFORE, EINVAL)
        .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    // The element after is bad.
    let ops = chain(nop(BEFORE), nop(L), nop(M1), bad(nop(AFTER)));
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, EINVAL)
        .run(&mut ring, &ops);

    // Two elements are bad, each in its own way.
    let ops = chain(
        bad(nop(BEFORE)),
        nop(L),
        nop(M1).flawed(Flaw::Flag),
        nop(AFTER),
    );
    Expect::new()
        .cqe(BEFORE, EINVAL)
        .then_group((L, EOPNOTSUPP), [(M1, EOPNOTSUPP), (M2, EIO)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);

    // The group leads the chain, with HARDLINK, which does not help a bad SQE.
    let ops = all([
        group(nop(L).hardlink(), [nop(M1), bad(nop(M2))]),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, EINVAL), [(M1, EIO), (M2, EINVAL)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);
}

/// Without SUBMIT_ALL a submission stops behind the group that is bad, never in it;
/// with it, not at all.
#[rstest]
fn f5_where_the_submission_stops(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::NoSqarray,
        RingMode::SubmitAll
    )]
    mode: RingMode,
    #[values(0, 1, 2)] bad: usize,
) {
    let mut ring = ring(mode);
    let op = |i: usize| {
        if i == bad {
            nop(m(i)).flawed(Flaw::Prep)
        } else {
            nop(m(i))
        }
    };
    push(
        &mut ring,
        &all([group(op(0), [op(1), op(2)]), vec![nop(AFTER), nop(BESIDE)]]),
    );
    let taken = ring.submit_once().expect("submitting");
    if mode == RingMode::SubmitAll {
        assert_eq!(taken, 5);
    } else {
        assert!((3..=5).contains(&taken), "stopped in the group: {taken}");
    }
    ring.submit().expect("submitting the rest");
    let result = |i| (m(i), if i == bad { EINVAL } else { EIO });
    Expect::new()
        .group((L, EINVAL), [result(1), result(2)])
        .cqe(AFTER, OK)
        .cqe(BESIDE, OK)
        .finish(&mut ring);

    // Part of a chain: behind the group, or behind the chain.
    push(
        &mut ring,
        &all([
            vec![nop(BEFORE).link()],
            group(op(0).link(), [op(1), op(2)]),
            vec![nop(AFTER), nop(BESIDE)],
        ]),
    );
    let taken = ring.submit_once().expect("submitting");
    assert!(taken >= 4, "stopped in the group: {taken}");
    ring.submit().expect("submitting the rest");
    if taken == 4 {
        // The chain ended with the submission.
        Expect::new()
            .cqe(BEFORE, ECANCELED)
            .then_group((L, EINVAL), [result(1), result(2)])
            .cqe(AFTER, OK)
            .cqe(BESIDE, OK)
            .finish(&mut ring);
    } else {
        Expect::new()
            .cqe(BEFORE, ECANCELED)
            .then_group((L, EINVAL), [result(1), result(2)])
            .then(AFTER, ECANCELED)
            .cqe(BESIDE, OK)
            .finish(&mut ring);
    }
}

/// The SQ array has an invalid index inside a group: what was taken fails, what is
/// left of the group is cancelled when it comes.
#[rstest]
fn f6_invalid_index(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::Sqpoll,
        RingMode::Iopoll,
        RingMode::SubmitAll,
        RingMode::Sqe128,
        RingMode::Cqe32,
        RingMode::RegisteredFd
    )]
    mode: RingMode,
    #[values(1, 2, 3)] invalid: usize,
) {
    let mut ring = ring(mode);
    let ops = all([
        group(nop(L), (1..=4).map(|i| nop(m(i)))),
        vec![nop_res(AFTER, 3)],
    ]);
    // Before there is something to submit, which an SQPOLL thread may do at once.
    ring.set_sq_index(invalid as u32, u32::MAX).unwrap();
    push(&mut ring, &ops);
    ring.submit().expect("submitting");
    let mut expect = Expect::new().group((L, EINVAL), (1..invalid).map(|i| (m(i), ECANCELED)));
    for left in invalid + 1..=4 {
        expect = expect.cqe(m(left), ECANCELED);
    }
    expect.cqe(AFTER, 3).finish(&mut ring);
    assert_eq!(ring.dropped(), 1);
    // The ring has no open group any more.
    let ops = group(nop(L), [nop(M1)]);
    Expect::new()
        .group((L, OK), [(M1, OK)])
        .run(&mut ring, &ops);
}

/// The invalid index stood for the last member: where the group ends is read from
/// what comes next.
#[rstest]
fn f6_invalid_index_of_the_last_member(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    let mut ring = ring(mode);
    ring.set_sq_index(2, u32::MAX).unwrap();
    push(&mut ring, &group(nop(L), [nop(M1), nop(M2)]));
    ring.submit().expect("submitting");
    Expect::new()
        .group((L, EINVAL), [(M1, ECANCELED)])
        .settle(&mut ring);
    let ops = [nop(BEFORE).grouped(), nop(BESIDE), nop_res(AFTER, 3)];
    Expect::new()
        .cqe(BEFORE, ECANCELED)
        .cqe(BESIDE, ECANCELED)
        .cqe(AFTER, 3)
        .run(&mut ring, &ops);
}

/// Another invalid index in what is left: that goes on to be cancelled behind it. If it
/// stood for the last member, the next SQEs tell where the group ends.
#[rstest]
fn f6_a_second_invalid_index(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::SubmitAll)] mode: RingMode,
) {
    let mut ring = ring(mode);
    for second in 3..=6 {
        let ops = all([
            group(nop(L), (1..=6).map(|i| nop(m(i)))),
            vec![nop_res(AFTER, 3), nop_res(BESIDE, 4)],
        ]);
        push(&mut ring, &ops);
        for invalid in [2, second] {
            ring.set_sq_index(invalid, u32::MAX).unwrap();
        }
        ring.submit().expect("submitting");
        let expect = Expect::new().group((L, EINVAL), [(M1, ECANCELED)]);
        let left = (3..=6).filter(|&i| i != second as usize);
        let after = if second == 6 { ECANCELED } else { 3 };
        left.fold(expect, |expect, i| expect.cqe(m(i), ECANCELED))
            .cqe(AFTER, after)
            .cqe(BESIDE, 4)
            .finish(&mut ring);
    }
    assert_eq!(ring.dropped(), 8);
}

/// What is left of a group ends with its submission, too.
#[rstest]
fn f6_the_rest_ends_with_the_submission(
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::SubmitAll)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let ops = [L, M1, M2, M3].map(|ud| nop(ud).grouped());
    push(&mut ring, &ops);
    ring.set_sq_index(1, u32::MAX).unwrap();
    ring.submit().expect("submitting");
    Expect::new()
        .cqe(L, EINVAL)
        .cqe(M2, ECANCELED)
        .cqe(M3, ECANCELED)
        .finish(&mut ring);
    Expect::new()
        .cqe(AFTER, 3)
        .run(&mut ring, &[nop_res(AFTER, 3)]);
}

/// A bad member of a group that cannot be taken has its own error, and so has its leader.
#[rstest]
fn f6_a_bad_member_of_a_cut_group(
    #[values(RingMode::Default, RingMode::DeferTaskrun)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let bad = nop(M1).flawed(Flaw::Flag);
    push(
        &mut ring,
        &group(nop(L), [bad, nop(M2), nop(M3), nop(m(4))]),
    );
    ring.set_sq_index(3, u32::MAX).unwrap();
    ring.submit().expect("submitting");
    Expect::new()
        .group((L, EOPNOTSUPP), [(M1, EOPNOTSUPP), (M2, ECANCELED)])
        .cqe(m(4), ECANCELED)
        .finish(&mut ring);
}

/// There is no memory for the rest of a group: what was taken fails, and the rest is
/// cancelled when it comes. Where each submission begins anew there is no rest: what
/// comes is what the application wrote.
#[rstest]
fn f6_out_of_memory(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::SubmitAll,
        RingMode::NoSqarray,
        RingMode::SqRewind
    )]
    mode: RingMode,
) {
    const ENOMEM: i32 = -libc::ENOMEM;
    const MEMBERS: usize = 62;
    let mut ring = ring(mode);
    // The ring has some requests at hand then, and a group more than that.
    Expect::new().cqe(BEFORE, OK).run(&mut ring, &[nop(BEFORE)]);
    push(&mut ring, &group(nop(L), (1..=MEMBERS).map(|i| nop(m(i)))));
    let no_requests = NoRequests::new();
    let taken = ring.submit_once();
    drop(no_requests);
    let taken = taken.expect("submitting what there is memory for");
    if taken > MEMBERS {
        skip!("there was memory for all");
    }
    Expect::new()
        .group((L, ENOMEM), (1..taken).map(|i| (m(i), ECANCELED)))
        .settle(&mut ring);

    let rest = ring.submit().expect("submitting the rest");
    assert_eq!(taken + rest, MEMBERS + 1);
    let rest = Expect::new();
    let rest = if mode == RingMode::SqRewind {
        let members = (taken + 1..=MEMBERS).map(|i| (m(i), OK));
        rest.group((m(taken), OK), members)
    } else {
        rest.members((taken..=MEMBERS).map(|i| (m(i), ECANCELED)))
    };
    rest.finish(&mut ring);
    let ops = all([group(nop(L), [nop(M1)]), vec![nop_res(AFTER, 3)]]);
    Expect::new()
        .group((L, OK), [(M1, OK)])
        .cqe(AFTER, 3)
        .run(&mut ring, &ops);
}

every_mode!(
    f1_leader_and_members,
    f1_sizes,
    f2_ends_with_the_submission,
    f5_one_bad_sqe,
    f5_in_a_chain,
);

main_modes_of_nops!(
    f1_chain_goes_on_by_the_leaders_flag,
    f1_ends_with_the_first_sqe_without_the_flag,
    f3_a_leader_alone,
    f4_members_do_not_link_or_drain,
    f5_several_bad_sqes,
    f5_a_bad_sqes_flag_counts,
    f5_a_bad_leader_alone,
);

main_modes!(
    f3_a_lone_leader_is_not_held_to_the_rules,
    f4_a_leader_takes_every_flag,
    f4_a_refused_drain_drains_nothing,
    f4_no_link_timeout_in_a_group,
    f4_zero_copy_sends_are_no_leaders,
    f4_members_take_the_other_flags,
    f5_nothing_is_issued,
);
