// SPDX-License-Identifier: GPL-2.0-only
//! Commands to files in a group. Members are issued long after the submission: what they
//! need of their SQE must have been kept, also the second half of a large one.

use std::fs::{File, OpenOptions};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use harness::ring::{Ring, RingMode};
use harness::skip;
use harness::sqe::{ExtEntry, IOSQE_EXT_SQE_GROUP};
use io_uring::squeue::{Entry128, Flags};
use rstest::rstest;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{ring, udp_pair, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;
const ECANCELED: i32 = -libc::ECANCELED;

const SOCKET_URING_OP_SIOCINQ: u32 = 0;
const NO_SUCH_COMMAND: u32 = 0x7777;

/// How many bytes there are to receive.
fn readable(user_data: u64, socket: &UdpSocket) -> Op {
    socket_command(user_data, socket, SOCKET_URING_OP_SIOCINQ)
}

/// Uses every entry of the SQ for something else.
fn use_up_the_sq(ring: &mut Ring) {
    for _ in 0..2 {
        let ops: Vec<_> = (0..64).map(|i| nop_res(0x2000 + i, -7)).collect();
        submit(ring, &ops);
        let expect = (0..64).fold(Expect::new(), |expect, i| expect.cqe(0x2000 + i, -7));
        expect.finish(ring);
    }
}

/// Commands as leader and members, at once and late, in workers and not, and such that
/// fail.
fn i1_commands(mode: RingMode) {
    let mut ring = ring(mode);
    let (from, to) = udp_pair();
    from.send(b"hello").expect("sending");
    for kind in [Kind::Inline, Kind::Worker] {
        let ask = |ud| readable(ud, &to).kind(kind);
        Expect::new()
            .group((L, 5), [(M1, 5), (M2, 5)])
            .run(&mut ring, &group(ask(L), [ask(M1), ask(M2)]));

        // Late: nothing is left of the SQEs.
        let waits = Pipe::new();
        let wrong = socket_command(M2, &to, NO_SUCH_COMMAND).kind(kind);
        let ops = all([
            group(
                read(L, &waits.read, Buf::new(1)).link(),
                [ask(M1), wrong, ask(M3)],
            ),
            vec![ask(AFTER)],
        ]);
        submit(&mut ring, &ops);
        nothing_yet(&mut ring);
        use_up_the_sq(&mut ring);
        waits.feed(b"x");
        Expect::new()
            .group((L, 1), [(M1, 5), (M2, EOPNOTSUPP), (M3, 5)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);

        // Never
        let wrong = socket_command(L, &to, NO_SUCH_COMMAND).kind(kind);
        Expect::new()
            .group((L, EOPNOTSUPP), [(M1, EIO), (M2, EIO)])
            .run(&mut ring, &group(wrong, [ask(M1), ask(M2)]));
    }
}

/// `UBLK_U_CMD_GET_FEATURES`: a command whose argument, `struct ublksrv_ctrl_cmd`, goes on
/// in the second half of a 128-byte SQE. It writes a number to `into`.
fn features(mode: RingMode, user_data: u64, control: &File, into: Buf) -> Entry128 {
    const IORING_OP_URING_CMD: u8 = 46;
    const IORING_OP_URING_CMD128: u8 = 64;
    /// `_IOR('u', 0x13, struct ublksrv_ctrl_cmd)`
    const UBLK_U_CMD_GET_FEATURES: u64 = 2 << 30 | 32 << 16 | (b'u' as u64) << 8 | 0x13;

    let mut sqe = Entry128::from(io_uring::opcode::Nop::new().build().user_data(user_data));
    let raw = sqe.raw_mut();
    raw.opcode = if mode == RingMode::SqeMixed {
        IORING_OP_URING_CMD128
    } else {
        IORING_OP_URING_CMD
    };
    raw.fd = control.as_raw_fd();
    raw.off = UBLK_U_CMD_GET_FEATURES;
    // dev_id, queue_id, len; addr. What is behind, in the second half, is zero.
    raw.addr3 = u64::from(u32::MAX) | 0xffff << 32 | 8 << 48;
    raw.pad2 = into.ptr() as u64;
    sqe
}

/// Large SQEs as leader and members, late, with the SQ used for something else meanwhile.
#[rstest]
fn i1_large_commands(#[values(RingMode::Sqe128, RingMode::SqeMixed)] mode: RingMode) {
    let mut ring = ring(mode);
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ublk-control");
    let control = match control {
        Ok(control) => control,
        Err(error) => skip!("/dev/ublk-control: {error}"),
    };
    let wide = |ring: &mut Ring, sqe: Entry128, flags: Flags, grouped: bool| {
        let sqe = sqe.with_flags(flags);
        let sqe = if grouped {
            sqe.ext_flags(IOSQE_EXT_SQE_GROUP)
        } else {
            sqe
        };
        // SAFETY: The command writes to a `Buf`, which is never freed.
        unsafe { ring.push_wide(&sqe) }.expect("pushing a wide SQE");
    };
    let none = Flags::empty();
    for flags in [none, Flags::ASYNC] {
        let bufs = [(); 3].map(|()| Buf::aligned(8, 8));
        for (at, (buf, ud)) in bufs.iter().zip([L, M1, M2]).enumerate() {
            wide(&mut ring, features(mode, ud, &control, *buf), flags, at < 2);
        }
        ring.submit().expect("submitting");
        Expect::new()
            .group((L, OK), [(M1, OK), (M2, OK)])
            .finish(&mut ring);
        assert_eq!(bufs[0].bytes(), bufs[1].bytes());
        assert_eq!(bufs[0].bytes(), bufs[2].bytes());
        assert_ne!(bufs[0].bytes(), [0; 8], "no features at all");

        let waits = Pipe::new();
        let late = [(); 2].map(|()| Buf::aligned(8, 8));
        push(&mut ring, &[read(L, &waits.read, Buf::new(1)).grouped()]);
        wide(
            &mut ring,
            features(mode, M1, &control, late[0]),
            flags,
            true,
        );
        push(&mut ring, &[nop_res(M2, 2).grouped()]);
        wide(
            &mut ring,
            features(mode, M3, &control, late[1]),
            flags,
            false,
        );
        ring.submit().expect("submitting");
        nothing_yet(&mut ring);
        use_up_the_sq(&mut ring);
        assert_eq!(late[0].bytes(), [0; 8], "issued early");
        waits.feed(b"x");
        Expect::new()
            .group((L, 1), [(M1, OK), (M2, 2), (M3, OK)])
            .finish(&mut ring);
        for buf in late {
            assert_eq!(buf.bytes(), bufs[0].bytes());
        }
    }
}

main_modes!(i1_commands);
