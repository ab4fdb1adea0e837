// SPDX-License-Identifier: GPL-2.0-only
//! Completions that are polled for, and those that come by interrupt: a device fails
//! reads and writes of some of its sectors. Such a request completes with an error, and
//! nothing else says that it has failed.

use harness::ring::{RingMode, SyncCancel};
use rstest::rstest;

use crate::expect::Expect;
use crate::op::*;
use crate::world::{ring, NullBlk};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;

const BLOCK: usize = 4096;
const BLK: i32 = BLOCK as i32;
/// Where the bad blocks begin; those before are good.
const BAD: u64 = 16 * BLOCK as u64;

#[rstest]
fn c5_io_that_fails(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::Sqpoll,
        RingMode::Iopoll,
        RingMode::HybridIopoll
    )]
    mode: RingMode,
    #[values(Kind::Inline, Kind::Worker)] kind: Kind,
) {
    let mut ring = ring(mode);
    let sectors = (BAD / 512) as u32;
    let queues = [("submit_queues", 1), ("poll_queues", 1)];
    let null = NullBlk::with_bad_sectors(&queues, Some((sectors, 2 * sectors)));
    let device = null.open();
    let buf = Buf::aligned(BLOCK, BLOCK);
    let good = |ud| read_at(ud, &device, buf, 0).kind(kind);
    let bad = |ud| read_at(ud, &device, buf, BAD).kind(kind);
    let spoilt = |ud| write_at(ud, &device, buf, BAD).kind(kind);

    for _ in 0..5 {
        // The leader fails: no member is issued, and the chain is broken.
        let ops = all([
            group(bad(L).link(), [good(M1), nop_res(M2, 2)]),
            vec![good(AFTER)],
        ]);
        Expect::new()
            .group((L, EIO), [(M1, EIO), (M2, EIO)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);

        // A member fails: the others do not, and the chain is broken.
        let ops = all([
            group(
                good(L).link(),
                [good(M1), spoilt(M2), good(M3), nop_res(m(4), 4)],
            ),
            group(good(L2).link(), [good(N1), good(N2)]),
            vec![nop(AFTER)],
        ]);
        Expect::new()
            .group((L, BLK), [(M1, BLK), (M2, EIO), (M3, BLK), (m(4), 4)])
            .then_group((L2, ECANCELED), [(N1, ECANCELED), (N2, ECANCELED)])
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);

        // A hard link goes on, whoever fails.
        let programs = [
            (EIO, group(bad(L).hardlink(), [good(M1), good(M2)])),
            (BLK, group(good(L).hardlink(), [bad(M1), bad(M2)])),
        ];
        for (leader, ops) in programs {
            Expect::new()
                .group((L, leader), [(M1, EIO), (M2, EIO)])
                .then(AFTER, BLK)
                .run(&mut ring, &all([ops, vec![good(AFTER)]]));
        }

        // All skip their CQE: errors are posted, and successes are not.
        let ops = group(good(L).skip(), [good(M1).skip(), bad(M2).skip()]);
        Expect::new()
            .group((L, BLK), [(M2, EIO)])
            .run(&mut ring, &ops);
        let ops = group(bad(L).skip(), [good(M1).skip(), good(M2).skip()]);
        Expect::new()
            .group((L, EIO), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &ops);
        let ops = all([
            group(good(L).skip(), [good(M1).skip(), good(M2).skip()]),
            vec![good(BESIDE)],
        ]);
        Expect::new().cqe(BESIDE, BLK).run(&mut ring, &ops);
    }
}

/// What drains waits for polled members, too.
#[rstest]
fn i4_polled_members_are_waited_for(
    #[values(RingMode::Iopoll, RingMode::HybridIopoll)] mode: RingMode,
    #[values(Kind::Inline, Kind::Worker)] kind: Kind,
) {
    let mut ring = ring(mode);
    let null = NullBlk::new(&[("submit_queues", 1), ("poll_queues", 1)]);
    let device = null.open();
    let buf = Buf::aligned(BLOCK, BLOCK);
    let get = |ud| read_at(ud, &device, buf, 0).kind(kind);
    for _ in 0..10 {
        let ops = all([
            group(get(L), [get(M1), get(M2), nop(M3)]),
            group(get(L2).drain(), [get(N1), nop_res(N2, 2)]),
            vec![nop_res(AFTER, 3).drain()],
        ]);
        Expect::new()
            .group((L, BLK), [(M1, BLK), (M2, BLK), (M3, OK)])
            .then_group((L2, BLK), [(N1, BLK), (N2, 2)])
            .then(AFTER, 3)
            .run(&mut ring, &ops);
    }
}

/// A synchronous cancel waits for what can't be stopped. It is who calls it that would poll.
#[rstest]
fn x1_a_synchronous_cancel_polls(
    #[values(RingMode::Iopoll, RingMode::HybridIopoll)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let null = NullBlk::new(&[("submit_queues", 1), ("poll_queues", 1)]);
    let device = null.open();
    let buf = Buf::aligned(BLOCK, BLOCK);
    let get = |ud| read_at(ud, &device, buf, 0);
    let target = SyncCancel {
        user_data: L,
        ..SyncCancel::default()
    };
    let cancel = |ring: &harness::ring::Ring| ring.sync_cancel(&target).expect("cancelling");

    // The leader is polled for: first its members are cancelled, then it is waited for.
    submit(&mut ring, &group(get(L), [get(M1), nop(M2)]));
    assert_eq!([cancel(&ring), cancel(&ring)], [0, 0]);
    Expect::new()
        .group((L, BLK), [(M1, ECANCELED), (M2, ECANCELED)])
        .finish(&mut ring);

    // Members are.
    submit(&mut ring, &group(nop(L), [get(M1), get(M2)]));
    assert_eq!(cancel(&ring), 0);
    Expect::new()
        .group((L, OK), [(M1, BLK), (M2, BLK)])
        .finish(&mut ring);
}
