// SPDX-License-Identifier: GPL-2.0-only
//! Groups on files, sockets and block devices: what they are for.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;

use harness::ring::RingMode;
use harness::skip;
use rstest::rstest;

use crate::expect::Expect;
use crate::op::*;
use crate::world::{open_direct, ring, workers, NullBlk};

const OK: i32 = 0;
const EBADF: i32 = -libc::EBADF;

const BLOCK: usize = 4096;

/// A file without a name, with this in it.
pub(crate) fn file_with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("writing to it");
    file
}

fn contents(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn noise(len: usize) -> Vec<u8> {
    let mut x = 1u32;
    let step = |x: &mut u32| {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*x >> 24) as u8
    };
    (0..len).map(|_| step(&mut x)).collect()
}

/// One file to three others, by registered buffers, several groups in flight; in a
/// worker or not.
fn c1_copy_a_file(mode: RingMode) {
    let mut ring = ring(mode);
    let data = noise(16 * BLOCK);
    for kind in [Kind::Inline, Kind::Worker] {
        let source = file_with(&data);
        let copies = [(); 3].map(|()| file_with(b""));
        let bufs: Vec<_> = (0..16).map(|_| Buf::new(BLOCK)).collect();
        register_buffers(&ring, &bufs);
        for batch in 0..2 {
            let mut ops = Vec::new();
            let mut expect = Expect::new();
            for (at, &buf) in bufs.iter().enumerate().skip(8 * batch).take(8) {
                let index = at as u16;
                let offset = (at * BLOCK) as u64;
                let ud = 0x1000 * (at as u64 + 1);
                let leader = read_fixed(ud, &source, buf, index, offset).kind(kind);
                let members = copies.iter().enumerate().map(|(n, copy)| {
                    let ud = ud + 1 + n as u64;
                    write_fixed(ud, copy, buf, index, offset).kind(kind).skip()
                });
                ops.extend(group(leader, members));
                expect = expect.cqe(ud, BLOCK as i32);
            }
            expect.run(&mut ring, &ops);
        }
        for copy in &copies {
            assert!(contents(copy) == data, "a copy differs");
        }
        ring.submitter().unregister_buffers().unwrap();
    }
}

/// A destination that cannot be written: the others are, and the CQEs say which.
fn c3_one_destination_fails(mode: RingMode) {
    let mut ring = ring(mode);
    let data = noise(BLOCK);
    let source = file_with(&data);
    let (good, also) = (file_with(b""), file_with(b""));
    let bad = File::open("/proc/self/exe").unwrap();
    let buf = Buf::new(BLOCK);
    register_buffers(&ring, &[buf]);
    let ops = all([
        group(
            read_fixed(L, &source, buf, 0, 0).link(),
            [
                write_fixed(M1, &good, buf, 0, 0).skip(),
                write_fixed(M2, &bad, buf, 0, 0).skip(),
                write_fixed(M3, &also, buf, 0, 0).skip(),
            ],
        ),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, BLOCK as i32), [(M2, EBADF)])
        .then(AFTER, -libc::ECANCELED)
        .run(&mut ring, &ops);
    assert!(contents(&good) == data && contents(&also) == data);
}

/// From one socket to two others.
fn c1_forward_between_sockets(mode: RingMode) {
    let mut ring = ring(mode);
    let [source, first, second] = [(); 3].map(|()| UnixStream::pair().unwrap());
    for round in 0..4u8 {
        let buf = Buf::new(64);
        // What the leader will have received
        let forward = |ud, to: &UnixStream| send(ud, to, &[]).with_buf(buf);
        submit(
            &mut ring,
            &group(
                recv(L, &source.0, buf),
                [forward(M1, &first.0), forward(M2, &second.0)],
            ),
        );
        let sent = [round; 64];
        (&source.1).write_all(&sent).unwrap();
        Expect::new()
            .group((L, 64), [(M1, 64), (M2, 64)])
            .finish(&mut ring);
        for (_, far) in [&first, &second] {
            let mut got = [0xff; 64];
            (&mut &*far).read_exact(&mut got).unwrap();
            assert_eq!(got, sent);
        }
    }
}

/// Past the page cache, on a block device: polled for, or by interrupt.
#[rstest]
fn c1_block_device(
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
    let device = open_direct("/dev/nullb0".as_ref());
    let bufs: Vec<_> = (0..4).map(|_| Buf::aligned(BLOCK, BLOCK)).collect();
    register_buffers(&ring, &bufs);
    let block = BLOCK as i32;
    for round in 0..20u64 {
        let mut ops = Vec::new();
        let mut expect = Expect::new();
        for (n, &buf) in bufs.iter().enumerate() {
            let ud = 0x1000 * (n as u64 + 1);
            let at = |i: u64| (round * 64 + n as u64 * 8 + i) * BLOCK as u64;
            ops.extend(group(
                read_fixed(ud, &device, buf, n as u16, at(0)).kind(kind),
                (1..4).map(|i| write_fixed(ud + i, &device, buf, n as u16, at(i)).kind(kind)),
            ));
            expect = expect.group((ud, block), (1..4).map(|i| (ud + i, block)));
        }
        expect.run(&mut ring, &ops);
    }

    // What cannot be done with it: a member's error, a leader's.
    let odd = write_fixed(M1, &device, bufs[0], 0, 1);
    let ops = all([
        group(
            read_fixed(L, &device, bufs[0], 0, 0).link(),
            [odd, write_fixed(M2, &device, bufs[0], 0, 0)],
        ),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, block), [(M1, -libc::EINVAL), (M2, block)])
        .then(AFTER, -libc::ECANCELED)
        .run(&mut ring, &ops);
    let odd = read_fixed(L, &device, bufs[0], 0, 1);
    let ops = group(odd, [write_fixed(M1, &device, bufs[0], 0, 0)]);
    Expect::new()
        .group((L, -libc::EINVAL), [(M1, -libc::EIO)])
        .run(&mut ring, &ops);
}

/// Writes to one device, one behind the other, reach it as one request: those of a group
/// as those of a submission.
#[rstest]
fn i2_members_are_plugged(#[values(RingMode::Default, RingMode::DeferTaskrun)] mode: RingMode) {
    const WRITES: usize = 8;
    let mut ring = ring(mode);
    let null = NullBlk::new(&[("irqmode", 2), ("completion_nsec", 1_000_000)]);
    let device = null.open();
    let block = BLOCK as i32;
    let buf = Buf::aligned(BLOCK, BLOCK);
    let writes = || (1..=WRITES).map(|n| write_at(m(n), &device, buf, (n * BLOCK) as u64));

    let before = null.write_merges();
    let plain = (1..=WRITES).fold(Expect::new(), |expect, n| expect.cqe(m(n), block));
    plain.run(&mut ring, &writes().collect::<Vec<_>>());
    let merged = null.write_merges() - before;
    if merged == 0 {
        skip!("writes of one submission are not merged either");
    }
    Expect::new()
        .group((L, 0), (1..=WRITES).map(|n| (m(n), block)))
        .run(&mut ring, &group(nop(L), writes()));
    assert_eq!(null.write_merges() - before, 2 * merged);
}

/// A device with room for one request: the others are refused as long as they must not
/// wait, and are issued again by a worker. They complete once, then. The leader is
/// refused because of the request beside it, members because of each other.
#[rstest]
fn c1_reissued_requests(
    #[values(
        RingMode::Default,
        RingMode::DeferTaskrun,
        RingMode::Sqpoll,
        RingMode::Iopoll
    )]
    mode: RingMode,
) {
    let mut ring = ring(mode);
    let narrow = NullBlk::new(&[
        ("submit_queues", 1),
        ("hw_queue_depth", 1),
        ("irqmode", 2),
        ("completion_nsec", 1_000_000),
    ]);
    let device = narrow.open();
    let block = BLOCK as i32;
    let buf = Buf::aligned(BLOCK, BLOCK);
    let get = |ud| read_at(ud, &device, buf, 0);
    for round in 0..20 {
        let members: Vec<_> = (1..=4).map(m).collect();
        let skip = |op: Op| if round % 2 == 1 { op.skip() } else { op };
        let ops = all([
            vec![get(BEFORE)],
            group(get(L).link(), members.iter().map(|&ud| skip(get(ud)))),
            vec![get(AFTER)],
        ]);
        let expect = Expect::new().cqe(BEFORE, block);
        let expect = if round % 2 == 1 {
            expect.cqe(L, block)
        } else {
            expect.group((L, block), members.iter().map(|&ud| (ud, block)))
        };
        expect.then(AFTER, block).run(&mut ring, &ops);
    }
    if workers() == 0 {
        skip!("nothing was issued again");
    }

    // A group that fails after all: its members are refused, and one is bad.
    let odd = read_at(M2, &device, buf, 1);
    let ops = all([
        group(get(L).link(), [get(M1), odd, get(M3)]),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, block), [(M1, block), (M2, -libc::EINVAL), (M3, block)])
        .then(AFTER, -libc::ECANCELED)
        .run(&mut ring, &ops);
}

/// A leader that makes what the members use: it opens a file into the table of
/// registered files, they write to it.
fn i1_members_use_what_the_leader_made(mode: RingMode) {
    let mut ring = ring(mode);
    ring.submitter().register_files_sparse(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let make = open(L, &name, libc::O_CREAT | libc::O_WRONLY).edit(|sqe| {
        sqe.len = 0o600;
        sqe.file_index = 1; // slot 0
    });
    let put = |ud, bytes: &[u8], at| {
        write_at(ud, &std::io::stdin(), Buf::of(bytes), at)
            .edit(|sqe| sqe.fd = 0)
            .fixed_file()
    };
    let ops = group(make, [put(M1, b"abc", 0), put(M2, b"defg", 3)]);
    Expect::new()
        .group((L, OK), [(M1, 3), (M2, 4)])
        .run(&mut ring, &ops);
    assert_eq!(std::fs::read(&path).unwrap(), b"abcdefg");
}

every_pollable_mode!(c1_copy_a_file);

main_modes!(
    c3_one_destination_fails,
    c1_forward_between_sockets,
    i1_members_use_what_the_leader_made,
);
