// SPDX-License-Identifier: GPL-2.0-only
//! C1 and C2 for requests that post several times: the last CQE counts, of a leader and
//! of a member. (Timers, and members that poll and receive: `complete.rs`.)

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use harness::ring::{Ring, RingMode, PATIENCE};

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{ring, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;

/// The next CQE is one of several of this request, with a result that is no error.
#[track_caller]
fn one_more(ring: &mut Ring, user_data: u64) -> i32 {
    let cqes = ring.collect(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    let cqe = cqes[0];
    assert_eq!(cqe.user_data, user_data, "of {}", name(cqe.user_data));
    assert!(cqe.result >= 0, "{} = {}", name(user_data), cqe.result);
    assert_ne!(cqe.flags & IORING_CQE_F_MORE, 0, "{}", name(user_data));
    cqe.result
}

/// A poll leads. It ends by being cancelled, and its members with it.
fn c2_a_poll_leads(mode: RingMode) {
    let mut ring = ring(mode);
    let (waits, to) = (Pipe::new(), Pipe::new());
    let ops = all([
        group(
            poll_in_multi(L, &waits.read).link(),
            [write(M1, &to.write, b"x"), nop(M2)],
        ),
        vec![nop(AFTER)],
    ]);
    submit(&mut ring, &ops);
    for _ in 0..3 {
        nothing_yet(&mut ring);
        waits.feed(b"x");
        one_more(&mut ring, L);
        waits.drain();
    }
    nothing_yet(&mut ring);
    assert_eq!(to.filled(), 0, "a member was issued early");
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .then(AFTER, ECANCELED)
        .finish(&mut ring);
    assert_eq!(to.filled(), 0, "a cancelled member was issued");
}

/// A receive leads. At the end of what there is to receive it has succeeded; if its
/// buffers run out it has failed.
fn c2_a_receive_leads(mode: RingMode) {
    let mut ring = ring(mode);
    for runs_out in [false, true] {
        let to = Pipe::new();
        let (near, far) = UnixStream::pair().unwrap();
        let bgid = 20 + u16::from(runs_out);
        // The end of what there is to receive takes a buffer, too.
        let buffers = if runs_out { 2 } else { 3 };
        Expect::new()
            .cqe(BEFORE, OK)
            .run(&mut ring, &[provide_buffers(BEFORE, 16, buffers, bgid)]);
        let ops = all([
            group(
                recv_multi(L, &near, bgid).link(),
                [write(M1, &to.write, b"x"), nop_res(M2, 2)],
            ),
            vec![nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        for _ in 0..2 {
            nothing_yet(&mut ring);
            std::io::Write::write_all(&mut &far, b"abc").unwrap();
            assert_eq!(one_more(&mut ring, L), 3);
        }
        nothing_yet(&mut ring);
        assert_eq!(to.filled(), 0, "a member was issued early");
        if runs_out {
            std::io::Write::write_all(&mut &far, b"abc").unwrap();
            Expect::new()
                .group((L, -libc::ENOBUFS), [(M1, EIO), (M2, EIO)])
                .then(AFTER, ECANCELED)
                .finish(&mut ring);
            assert_eq!(to.filled(), 0, "a member of a failed leader was issued");
        } else {
            far.shutdown(Shutdown::Both).unwrap();
            Expect::new()
                .group((L, OK), [(M1, 1), (M2, 2)])
                .then(AFTER, OK)
                .finish(&mut ring);
        }
    }
}

/// Takes the connection that a CQE tells of.
fn connection(result: i32) -> OwnedFd {
    // SAFETY: The kernel has just made it, for us.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// Connections are accepted by a leader, and by a member. The socket is shut down, or the
/// group is cancelled.
fn c2_accepting(mode: RingMode) {
    let mut ring = ring(mode);
    for by_leader in [true, false] {
        for shut_down in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
            let address = listener.local_addr().unwrap();
            let ops = if by_leader {
                group(
                    accept_multi(L, &listener).link(),
                    [nop_res(M1, 1), nop_res(M2, 2)],
                )
            } else {
                group(
                    nop_res(L, 7).link(),
                    [accept_multi(M1, &listener), nop_res(M2, 2)],
                )
            };
            submit(&mut ring, &all([ops, vec![nop(AFTER)]]));
            if !by_leader {
                Expect::new().cqe(M2, 2).settle(&mut ring);
            }
            for _ in 0..3 {
                nothing_yet(&mut ring);
                let _connected = TcpStream::connect(address).expect("connecting");
                let accepted = one_more(&mut ring, if by_leader { L } else { M1 });
                drop(connection(accepted));
            }
            nothing_yet(&mut ring);
            let mut expect = Expect::new();
            let error = if shut_down {
                // SAFETY: No pointers.
                unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
                -libc::EINVAL
            } else {
                submit(&mut ring, &[cancel(CANCEL, L, 0)]);
                expect = expect.cqe(CANCEL, OK);
                ECANCELED
            };
            let unissued = if shut_down { EIO } else { ECANCELED };
            let expect = if by_leader {
                expect.group((L, error), [(M1, unissued), (M2, unissued)])
            } else {
                expect.group((L, 7), [(M1, error)])
            };
            expect.then(AFTER, ECANCELED).finish(&mut ring);
        }
    }
}

/// The CQ is full when a request posts that is to post again: it ends, or it goes on and
/// loses nothing. Its leader's CQE is last in any case.
fn c2_shots_overflow(mode: RingMode) {
    let setup = harness::ring::Setup::new(mode).entries(4).cq_entries(4);
    let mut ring = crate::world::build(setup);
    for _ in 0..4 {
        let waits = Pipe::new();
        submit(
            &mut ring,
            &group(nop_res(L, 7), [poll_in_multi(M1, &waits.read)]),
        );
        nothing_yet(&mut ring);
        let fill: Vec<_> = (0..4).map(|i| nop_res(0x1000 + i, 1)).collect();
        submit(&mut ring, &fill);
        for _ in 0..3 {
            waits.feed(b"x");
            ring.flush().unwrap();
        }
        let filled = ring.collect(4, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
        assert!(filled.iter().all(|cqe| cqe.user_data >= 0x1000));
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        let mut last = None;
        let mut cancelled = 0;
        while last != Some(L) || cancelled == 0 {
            let cqe = ring.collect(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"))[0];
            match cqe.user_data {
                CANCEL => {
                    assert!([OK, -libc::ENOENT].contains(&cqe.result));
                    cancelled += 1;
                    continue;
                }
                M1 => assert_ne!(last, Some(L), "M1 came after L"),
                L => assert_eq!(last, Some(M1), "L came before M1"),
                other => panic!("{}", name(other)),
            }
            last = Some(cqe.user_data);
            if cqe.user_data == M1 && cqe.flags & IORING_CQE_F_MORE == 0 {
                let l = ring.collect(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"))[0];
                if l.user_data == CANCEL {
                    ring.put_back(vec![l]);
                } else {
                    assert_eq!((l.user_data, l.result), (L, 7));
                    last = Some(L);
                }
            }
        }
        nothing_yet(&mut ring);
    }
}

main_modes!(
    c2_a_poll_leads,
    c2_a_receive_leads,
    c2_accepting,
    c2_shots_overflow,
);
