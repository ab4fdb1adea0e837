// SPDX-License-Identifier: GPL-2.0-only
//! C3 for buffers that the kernel chooses: which one it was stands in the CQE, and the
//! leader's is withheld with the rest of it. Those who are not issued take none.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};

use harness::ring::{Cqe, Ring, RingMode, PATIENCE};

use crate::expect::{list, nothing_yet, Expect};
use crate::op::*;
use crate::world::{ring, Pipe};

const OK: i32 = 0;
const EIO: i32 = -libc::EIO;
const ECANCELED: i32 = -libc::ECANCELED;
const ENOBUFS: i32 = -libc::ENOBUFS;

const IORING_CQE_F_BUFFER: u32 = 1 << 0;
const IORING_CQE_F_BUF_MORE: u32 = 1 << 4;
const IOU_PBUF_RING_INC: u16 = 2;

const SIZE: usize = 16;
const COUNT: u16 = 8;

/// How buffers are given to the kernel.
#[derive(Clone, Copy, Debug)]
enum By {
    Request,
    Ring,
    /// A buffer is used up bit by bit.
    RingInParts,
}

/// A group of buffers that the kernel has.
struct Pool {
    bgid: u16,
    memory: Buf,
}

impl Pool {
    /// `COUNT` buffers of `SIZE` bytes.
    fn new(ring: &mut Ring, by: By, bgid: u16) -> Self {
        let memory = Buf::new(SIZE * usize::from(COUNT));
        match by {
            By::Request => Expect::new().cqe(BEFORE, OK).run(
                ring,
                &[provide_parts(BEFORE, memory, SIZE as u32, COUNT, bgid)],
            ),
            By::Ring => buffer_ring(ring, memory, bgid, 0),
            By::RingInParts => buffer_ring(ring, memory, bgid, IOU_PBUF_RING_INC),
        }
        Self { bgid, memory }
    }

    /// Which buffer this CQE is about, and what is at the beginning of it.
    fn chosen(&self, cqe: &Cqe) -> (u16, Vec<u8>) {
        assert_ne!(cqe.flags & IORING_CQE_F_BUFFER, 0, "no buffer: {cqe:x?}");
        let bid = (cqe.flags >> 16) as u16;
        let at = usize::from(bid) * SIZE;
        let len = usize::try_from(cqe.result).expect("no error");
        (bid, self.memory.bytes()[at..at + len].to_vec())
    }

    /// As many reads as there are buffers left: one more finds none.
    fn assert_left(&self, ring: &mut Ring, left: u16) {
        let pipe = Pipe::new();
        pipe.feed(&[0; SIZE * COUNT as usize]);
        for at in 0..=left {
            let op = read(BESIDE, &pipe.read, Buf::new(SIZE)).buffer_select(self.bgid);
            submit(ring, &[op]);
            let cqe = ring.collect(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"))[0];
            let want = if at < left { SIZE as i32 } else { ENOBUFS };
            assert_eq!(cqe.result, want, "after {at} of {left} buffers");
        }
    }
}

/// Registers a ring of buffers: `struct io_uring_buf_ring`.
fn buffer_ring(ring: &Ring, memory: Buf, bgid: u16, flags: u16) {
    /// `struct io_uring_buf`; of the first, `tail` is where the ring's is.
    #[repr(C)]
    struct Entry {
        addr: u64,
        len: u32,
        bid: u16,
        tail: u16,
    }
    const _: () = assert!(std::mem::size_of::<Entry>() == 16);

    let shared = Buf::aligned(4096, 4096);
    let entries: *mut Entry = shared.ptr().cast();
    for bid in 0..COUNT {
        let entry = Entry {
            addr: memory.ptr() as u64 + u64::from(bid) * SIZE as u64,
            len: SIZE as u32,
            bid,
            tail: 0,
        };
        // SAFETY: In bounds of the page, which is aligned, never freed, and not the
        // kernel's yet.
        unsafe { entries.add(usize::from(bid)).write(entry) };
    }
    // SAFETY: The page is never freed, and has room for so many entries.
    let registered = unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(shared.ptr() as u64, COUNT, bgid, flags)
    };
    registered.expect("registering a ring of buffers");
    // SAFETY: In bounds, aligned, and accessed atomically by both sides from now on.
    let tail = unsafe { AtomicU16::from_ptr(&raw mut (*entries).tail) };
    tail.store(COUNT, Ordering::Release);
}

/// The CQEs of a group, the leader's last, by `user_data`.
fn collect(ring: &mut Ring, count: usize) -> Vec<Cqe> {
    let mut cqes = ring
        .collect(count, PATIENCE)
        .unwrap_or_else(|missing| panic!("{missing}"));
    assert_eq!(
        cqes.last().map(|cqe| cqe.user_data),
        Some(L),
        "{}",
        list(&cqes)
    );
    cqes.sort_by_key(|cqe| cqe.user_data);
    cqes
}

/// A leader and its members each get a buffer of their own, with what they have read; in
/// the submission, by poll, and in workers.
fn c3_buffers_are_each_its_own(mode: RingMode) {
    let mut ring = ring(mode);
    for (bgid, by) in [By::Request, By::Ring].into_iter().enumerate() {
        for late in [false, true] {
            for kind in [Kind::Inline, Kind::Worker] {
                let bgid = 10 * bgid as u16 + 2 * u16::from(late) + u16::from(kind == Kind::Worker);
                let pool = Pool::new(&mut ring, by, bgid);
                let pipes = [(); 3].map(|()| Pipe::new());
                let get = |ud, pipe: &Pipe| {
                    read(ud, &pipe.read, Buf::new(SIZE))
                        .buffer_select(bgid)
                        .kind(kind)
                };
                let feed = || {
                    pipes[0].feed(b"leader");
                    pipes[1].feed(b"first");
                    pipes[2].feed(b"2nd");
                };
                // Less than asked for is a failure, unless the buffer says how much.
                let ask = |op: Op, len: u32| op.edit(|sqe| sqe.len = len);
                let ops = group(
                    ask(get(L, &pipes[0]), 6),
                    [ask(get(M1, &pipes[1]), 5), ask(get(M2, &pipes[2]), 3)],
                );
                if !late {
                    feed();
                }
                submit(&mut ring, &ops);
                if late {
                    nothing_yet(&mut ring);
                    feed();
                }
                let cqes = collect(&mut ring, 3);
                let chosen: Vec<_> = cqes.iter().map(|cqe| pool.chosen(cqe)).collect();
                assert_eq!(chosen[0].1, b"leader");
                assert_eq!(chosen[1].1, b"first");
                assert_eq!(chosen[2].1, b"2nd");
                let bids: BTreeSet<_> = chosen.iter().map(|(bid, _)| bid).collect();
                assert_eq!(bids.len(), 3, "{by:?}: a buffer was used twice: {bids:?}");
                nothing_yet(&mut ring);
                pool.assert_left(&mut ring, COUNT - 3);
            }
        }
    }
}

/// Members of a leader that fails do not take a buffer; nor does a member
/// that is cancelled before it is issued.
fn c3_who_is_not_issued_takes_no_buffer(mode: RingMode) {
    let mut ring = ring(mode);
    for (bgid, by) in [By::Request, By::Ring].into_iter().enumerate() {
        let bgid = 40 + bgid as u16;
        let pool = Pool::new(&mut ring, by, bgid);
        let (pipe, waits) = (Pipe::new(), Pipe::new());
        pipe.feed(&[1; SIZE]);
        let get = |ud, fd| read(ud, fd, Buf::new(SIZE)).buffer_select(bgid);
        submit(
            &mut ring,
            &group(nop_res(L, -5), [get(M1, &pipe.read), get(M2, &pipe.read)]),
        );
        for cqe in collect(&mut ring, 3) {
            let want = if cqe.user_data == L { -5 } else { EIO };
            assert_eq!(cqe.result, want, "{by:?}: {}", name(cqe.user_data));
            assert_eq!(cqe.flags & IORING_CQE_F_BUFFER, 0, "{by:?}: {cqe:x?}");
        }
        let leader = read(L, &waits.read, Buf::new(SIZE));
        submit(
            &mut ring,
            &group(leader, [get(M1, &pipe.read), get(M2, &pipe.read)]),
        );
        nothing_yet(&mut ring);
        submit(&mut ring, &[cancel(CANCEL, L, 0)]);
        Expect::new()
            .cqe(CANCEL, OK)
            .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
            .finish(&mut ring);
        pool.assert_left(&mut ring, COUNT);
    }
}

/// There are not enough: who gets none fails, and with it the group.
fn c5_buffers_run_out(mode: RingMode) {
    let mut ring = ring(mode);
    for (bgid, by) in [By::Request, By::Ring].into_iter().enumerate() {
        let bgid = 50 + bgid as u16;
        let pool = Pool::new(&mut ring, by, bgid);
        let pipe = Pipe::new();
        pipe.feed(&[1; 16 * SIZE]);
        let members = usize::from(COUNT) + 1;
        let get = |ud| read(ud, &pipe.read, Buf::new(SIZE)).buffer_select(pool.bgid);
        let ops = all([
            group(nop(L).link(), (1..=members).map(|i| get(m(i)))),
            vec![nop(AFTER)],
        ]);
        let got = |i| {
            let result = if i < members { SIZE as i32 } else { ENOBUFS };
            (m(i), result)
        };
        Expect::new()
            .group((L, OK), (1..=members).map(got))
            .then(AFTER, ECANCELED)
            .run(&mut ring, &ops);
    }
}

/// A buffer is used bit by bit: by a leader, then by its members in their order.
fn c3_parts_of_a_buffer(mode: RingMode) {
    let mut ring = ring(mode);
    let pool = Pool::new(&mut ring, By::RingInParts, 60);
    let pipe = Pipe::new();
    let get = |ud, len| {
        read(ud, &pipe.read, Buf::new(SIZE))
            .buffer_select(pool.bgid)
            .edit(|sqe| sqe.len = len)
    };
    pipe.feed(b"leader12345abcde");
    submit(&mut ring, &group(get(L, 6), [get(M1, 5), get(M2, 5)]));
    let cqes = collect(&mut ring, 3);
    let results: Vec<_> = cqes.iter().map(|cqe| cqe.result).collect();
    assert_eq!(results, [6, 5, 5]);
    for cqe in &cqes {
        assert_eq!(cqe.flags >> 16, 0, "the first buffer");
        let more = cqe.flags & IORING_CQE_F_BUF_MORE != 0;
        assert_eq!(
            more,
            cqe.user_data != M2,
            "{}: {cqe:x?}",
            name(cqe.user_data)
        );
    }
    assert_eq!(&pool.memory.bytes()[..SIZE], b"leader12345abcde");
    nothing_yet(&mut ring);
}

main_modes!(
    c3_buffers_are_each_its_own,
    c3_who_is_not_issued_takes_no_buffer,
    c5_buffers_run_out,
    c3_parts_of_a_buffer,
);
