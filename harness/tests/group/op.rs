// SPDX-License-Identifier: GPL-2.0-only
//! SQEs that a test can push without a thought: what they point to is never freed.

use std::ffi::CStr;
use std::mem::size_of;
use std::num::NonZeroU8;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub(crate) use harness::fuzz::Flaw;
use harness::ring::Ring;
use harness::sqe::{ExtEntry, IOSQE_EXT_SQE_GROUP};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, Timespec};
use io_uring::{opcode, types};

/// `user_data` of a leader, of its members, of requests before and after, ...
pub(crate) const L: u64 = 0x10;
pub(crate) const M1: u64 = 0x11;
pub(crate) const M2: u64 = 0x12;
pub(crate) const M3: u64 = 0x13;
/// Another group's leader and members
pub(crate) const L2: u64 = 0x110;
pub(crate) const N1: u64 = 0x111;
pub(crate) const N2: u64 = 0x112;
/// A request before, one after, one beside, and a cancel request
pub(crate) const BEFORE: u64 = 1;
pub(crate) const AFTER: u64 = 2;
pub(crate) const BESIDE: u64 = 3;
pub(crate) const CANCEL: u64 = 4;
pub(crate) const TIMER: u64 = 5;
pub(crate) const EXPIRE: u64 = 6;

/// Member `i` (from 1) of the first group.
pub(crate) const fn m(i: usize) -> u64 {
    L + i as u64
}

/// How failures print a `user_data`.
pub(crate) fn name(user_data: u64) -> String {
    match user_data {
        BEFORE => "before".into(),
        AFTER => "after".into(),
        BESIDE => "beside".into(),
        CANCEL => "cancel".into(),
        TIMER => "timer".into(),
        L => "L".into(),
        L2 => "L2".into(),
        ud if (M1..L + 0x100).contains(&ud) => format!("M{}", ud - L),
        ud if (N1..L2 + 0x100).contains(&ud) => format!("N{}", ud - L2),
        ud => format!("{ud:#x}"),
    }
}

pub(crate) const IORING_NOP_INJECT_RESULT: u32 = 1 << 0;
pub(crate) const IORING_NOP_TW: u32 = 1 << 4;

const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;

pub(crate) const IORING_CQE_F_MORE: u32 = 1 << 1;
pub(crate) const IORING_CQE_F_NOTIF: u32 = 1 << 3;

pub(crate) const CANCEL_ALL: u32 = 1 << 0;
pub(crate) const CANCEL_FD: u32 = 1 << 1;
pub(crate) const CANCEL_ANY: u32 = 1 << 2;
pub(crate) const CANCEL_USERDATA: u32 = 1 << 4;
pub(crate) const CANCEL_OP: u32 = 1 << 5;

/// Where a NOP completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the submission
    Inline,
    /// In task work
    TaskWork,
    /// In a worker
    Worker,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Inline, Self::TaskWork, Self::Worker];
}

/// Memory that lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buf {
    ptr: *mut u8,
    len: usize,
}

impl Buf {
    pub(crate) fn new(len: usize) -> Self {
        Self::aligned(len, 1)
    }

    /// For files that are read past the page cache.
    pub(crate) fn aligned(len: usize, align: usize) -> Self {
        let room = Box::leak(vec![0u8; len + align].into_boxed_slice());
        let skip = room.as_ptr().align_offset(align);
        let part = &mut room[skip..skip + len];
        Self {
            ptr: part.as_mut_ptr(),
            len,
        }
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        let buf = Self::new(bytes.len());
        buf.fill(bytes);
        buf
    }

    pub(crate) fn len(self) -> u32 {
        self.len as u32
    }

    pub(crate) fn ptr(self) -> *mut u8 {
        self.ptr
    }

    pub(crate) fn iovec(self) -> libc::iovec {
        libc::iovec {
            iov_base: self.ptr.cast(),
            iov_len: self.len,
        }
    }

    pub(crate) fn fill(self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        // SAFETY: In bounds of memory that is never freed. The kernel may write it
        // at the same time if a test lets it, which gives the wrong bytes and
        // nothing worse.
        unsafe { self.ptr.copy_from(bytes.as_ptr(), bytes.len()) };
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        // SAFETY: As in `fill`.
        unsafe { self.ptr.copy_to(bytes.as_mut_ptr(), self.len) };
        bytes
    }
}

/// An SQE. Invariant: what it points to is never freed.
#[derive(Clone, Debug)]
pub(crate) struct Op(Entry);

impl Op {
    fn new(entry: Entry, user_data: u64) -> Self {
        Self(entry.user_data(user_data))
    }

    /// Changes fields that say how, not where. Anything with an address goes
    /// through the functions of this file.
    pub(crate) fn edit(mut self, edit: impl FnOnce(&mut harness::sqe::RawSqe)) -> Self {
        let addresses = |op: &Self| (op.0.raw().addr, op.0.raw().addr3, op.0.raw().off);
        let before = addresses(&self);
        edit(self.0.raw_mut());
        assert_eq!(before, addresses(&self), "an address was edited");
        self
    }

    /// Another buffer than the one it was made with.
    pub(crate) fn with_buf(mut self, buf: Buf) -> Self {
        let raw = self.0.raw_mut();
        raw.addr = buf.ptr() as u64;
        raw.len = buf.len();
        self
    }

    fn flags(self, flags: Flags) -> Self {
        Self(self.0.with_flags(flags))
    }

    pub(crate) fn link(self) -> Self {
        self.flags(Flags::IO_LINK)
    }

    pub(crate) fn hardlink(self) -> Self {
        self.flags(Flags::IO_HARDLINK)
    }

    pub(crate) fn drain(self) -> Self {
        self.flags(Flags::IO_DRAIN)
    }

    pub(crate) fn skip(self) -> Self {
        self.flags(Flags::SKIP_SUCCESS)
    }

    pub(crate) fn worker(self) -> Self {
        self.flags(Flags::ASYNC)
    }

    pub(crate) fn fixed_file(self) -> Self {
        self.flags(Flags::FIXED_FILE)
    }

    pub(crate) fn buffer_select(self, bgid: u16) -> Self {
        self.flags(Flags::BUFFER_SELECT)
            .edit(|sqe| sqe.buf_index = bgid)
    }

    /// The group goes on with the next SQE.
    pub(crate) fn grouped(self) -> Self {
        Self(self.0.ext_flags(IOSQE_EXT_SQE_GROUP))
    }

    /// Bit 7 is set, and nothing else.
    pub(crate) fn extended(self) -> Self {
        Self(self.0.ext_flags(0))
    }

    pub(crate) fn personality(self, id: u8) -> Self {
        match NonZeroU8::new(id) {
            Some(id) => Self(self.0.ext_personality(id)),
            None => self,
        }
    }

    pub(crate) fn kind(self, kind: Kind) -> Self {
        match kind {
            Kind::Inline => self,
            Kind::TaskWork => self.edit(|sqe| {
                assert_eq!(sqe.opcode, opcode::Nop::CODE);
                sqe.op_flags |= IORING_NOP_TW;
            }),
            Kind::Worker => self.worker(),
        }
    }

    pub(crate) fn flawed(self, flaw: Flaw) -> Self {
        self.edit(|sqe| flaw.put_into(sqe))
    }

    pub(crate) fn user_data(&self) -> u64 {
        self.0.get_user_data()
    }
}

/// As a line of a listing.
impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raw = self.0.raw();
        let flags = Flags::from_bits_retain(raw.flags);
        write!(f, "{:#x}: opcode {}, {flags:?}", raw.user_data, raw.opcode)?;
        if raw.in_group() {
            f.write_str(", group")?;
        }
        let (fd, len, op_flags) = (raw.fd, raw.len as i32, raw.op_flags);
        write!(
            f,
            ", fd {fd}, len {len}, flags {op_flags:#x}, ioprio {}",
            raw.ioprio
        )
    }
}

pub(crate) fn nop(user_data: u64) -> Op {
    Op::new(opcode::Nop::new().build(), user_data)
}

/// A NOP with this result; a negative one fails.
pub(crate) fn nop_res(user_data: u64, result: i32) -> Op {
    nop(user_data).edit(|sqe| {
        sqe.op_flags |= IORING_NOP_INJECT_RESULT;
        sqe.len = result as u32;
    })
}

/// A NOP with a large CQE, whose second half is this.
pub(crate) fn nop_large(user_data: u64, result: i32, extra: [u64; 2]) -> Op {
    const IORING_NOP_CQE32: u32 = 1 << 5;
    let mut op = nop_res(user_data, result);
    let raw = op.0.raw_mut();
    raw.op_flags |= IORING_NOP_CQE32;
    // No addresses, for a NOP
    [raw.off, raw.addr] = extra;
    op
}

/// A command to a socket that has no argument, as `SOCKET_URING_OP_SIOCINQ`.
pub(crate) fn socket_command(user_data: u64, fd: &impl AsRawFd, command: u32) -> Op {
    let entry = opcode::UringCmd16::new(Fd(fd.as_raw_fd()), command).build();
    Op::new(entry, user_data)
}

/// At the file's position: for pipes and sockets.
const HERE: u64 = u64::MAX;

pub(crate) fn read(user_data: u64, fd: &impl AsRawFd, buf: Buf) -> Op {
    read_at(user_data, fd, buf, HERE)
}

pub(crate) fn read_at(user_data: u64, fd: &impl AsRawFd, buf: Buf, offset: u64) -> Op {
    let entry = opcode::Read::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len())
        .offset(offset)
        .build();
    Op::new(entry, user_data)
}

pub(crate) fn write(user_data: u64, fd: &impl AsRawFd, bytes: &[u8]) -> Op {
    write_at(user_data, fd, Buf::of(bytes), HERE)
}

pub(crate) fn write_at(user_data: u64, fd: &impl AsRawFd, buf: Buf, offset: u64) -> Op {
    let entry = opcode::Write::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len())
        .offset(offset)
        .build();
    Op::new(entry, user_data)
}

/// From a registered buffer, which must be `buf`.
pub(crate) fn read_fixed(
    user_data: u64,
    fd: &impl AsRawFd,
    buf: Buf,
    index: u16,
    offset: u64,
) -> Op {
    let entry = opcode::ReadFixed::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len(), index)
        .offset(offset)
        .build();
    Op::new(entry, user_data)
}

pub(crate) fn write_fixed(
    user_data: u64,
    fd: &impl AsRawFd,
    buf: Buf,
    index: u16,
    offset: u64,
) -> Op {
    let entry = opcode::WriteFixed::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len(), index)
        .offset(offset)
        .build();
    Op::new(entry, user_data)
}

pub(crate) fn recv(user_data: u64, fd: &impl AsRawFd, buf: Buf) -> Op {
    let entry = opcode::Recv::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len()).build();
    Op::new(entry, user_data)
}

pub(crate) fn send(user_data: u64, fd: &impl AsRawFd, bytes: &[u8]) -> Op {
    let buf = Buf::of(bytes);
    let entry = opcode::Send::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len()).build();
    Op::new(entry, user_data)
}

pub(crate) fn send_zc(user_data: u64, fd: &impl AsRawFd, bytes: &[u8]) -> Op {
    let buf = Buf::of(bytes);
    let entry = opcode::SendZc::new(Fd(fd.as_raw_fd()), buf.ptr(), buf.len()).build();
    Op::new(entry, user_data)
}

pub(crate) fn poll_in(user_data: u64, fd: &impl AsRawFd) -> Op {
    let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
    Op::new(entry, user_data)
}

/// Posts each time there is something to read, with `IORING_CQE_F_MORE`.
pub(crate) fn poll_in_multi(user_data: u64, fd: &impl AsRawFd) -> Op {
    let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32)
        .multi(true)
        .build();
    Op::new(entry, user_data)
}

/// Receives again and again, into buffers of a group.
pub(crate) fn recv_multi(user_data: u64, fd: &impl AsRawFd, bgid: u16) -> Op {
    let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), bgid).build();
    Op::new(entry, user_data)
}

/// Accepts connections again and again.
pub(crate) fn accept_multi(user_data: u64, listener: &impl AsRawFd) -> Op {
    let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build();
    Op::new(entry, user_data)
}

pub(crate) fn fsync(user_data: u64, fd: &impl AsRawFd) -> Op {
    Op::new(opcode::Fsync::new(Fd(fd.as_raw_fd())).build(), user_data)
}

pub(crate) fn open(user_data: u64, path: &CStr, flags: i32) -> Op {
    let path: &'static CStr = Box::leak(path.to_owned().into_boxed_c_str());
    let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
        .flags(flags)
        .build();
    Op::new(entry, user_data)
}

/// Waits for a futex that nobody wakes, and that is not the same twice.
pub(crate) fn futex_wait(user_data: u64) -> Op {
    const FUTEX2_SIZE_U32: u32 = 0x02;
    const FUTEX2_PRIVATE: u32 = 128;
    let futex: &'static u32 = Box::leak(Box::new(0));
    let entry =
        opcode::FutexWait::new(futex, 0, u32::MAX.into(), FUTEX2_SIZE_U32 | FUTEX2_PRIVATE).build();
    Op::new(entry, user_data)
}

fn timespec(duration: Duration) -> &'static Timespec {
    Box::leak(Box::new(Timespec::from(duration)))
}

pub(crate) fn timeout(user_data: u64, duration: Duration) -> Op {
    Op::new(opcode::Timeout::new(timespec(duration)).build(), user_data)
}

/// A timer that never expires, and completes when so many CQEs were posted after it.
pub(crate) fn after_cqes(user_data: u64, count: u32) -> Op {
    let entry = opcode::Timeout::new(timespec(Duration::from_secs(3600)))
        .count(count)
        .build();
    Op::new(entry, user_data)
}

/// A timer that is no failure when it expires; with `shots` above 1, one that
/// expires so often.
pub(crate) fn timer(user_data: u64, duration: Duration, shots: u32) -> Op {
    let mut flags = types::TimeoutFlags::ETIME_SUCCESS;
    let mut count = 0;
    if shots > 1 {
        flags |= types::TimeoutFlags::MULTISHOT;
        count = shots;
    }
    let entry = opcode::Timeout::new(timespec(duration))
        .count(count)
        .flags(flags)
        .build();
    Op::new(entry, user_data)
}

pub(crate) fn link_timeout(user_data: u64, duration: Duration) -> Op {
    let entry = opcode::LinkTimeout::new(timespec(duration)).build();
    Op::new(entry, user_data)
}

/// Lets a linked timeout expire now: where a test says by what it has seen, and not by a
/// time, how far a group is then.
pub(crate) fn expire(user_data: u64, timer: u64) -> Op {
    let entry = opcode::TimeoutUpdate::new(timer, timespec(Duration::ZERO))
        .flags(types::TimeoutFlags::LINK_TIMEOUT_UPDATE)
        .build();
    Op::new(entry, user_data)
}

pub(crate) fn cancel(user_data: u64, target: u64, flags: u32) -> Op {
    let entry = opcode::AsyncCancel::new(target).build();
    Op::new(entry, user_data).edit(|sqe| sqe.op_flags = flags)
}

pub(crate) fn cancel_fd(user_data: u64, fd: RawFd, flags: u32) -> Op {
    cancel(user_data, 0, CANCEL_FD | flags).edit(|sqe| sqe.fd = fd)
}

pub(crate) fn cancel_op(user_data: u64, op: u8, flags: u32) -> Op {
    cancel(user_data, 0, CANCEL_OP | flags).edit(|sqe| sqe.len = op.into())
}

/// Posts a CQE with this `user_data` and result to another ring.
pub(crate) fn msg_ring(user_data: u64, ring: RawFd, result: i32, data: u64) -> Op {
    let entry = opcode::MsgRingData::new(Fd(ring), result, data, None).build();
    Op::new(entry, user_data)
}

/// Asks a socket for its type, by a command whose SQE the kernel reads as it executes
/// it. Completes with the length of the answer.
pub(crate) fn getsockopt_type(user_data: u64, socket: &impl AsRawFd) -> Op {
    let value = Buf::new(size_of::<libc::c_int>());
    let mut entry =
        opcode::UringCmd16::new(Fd(socket.as_raw_fd()), SOCKET_URING_OP_GETSOCKOPT).build();
    let raw = entry.raw_mut();
    raw.addr = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SO_TYPE as u32) << 32;
    raw.file_index = value.len();
    raw.addr3 = value.ptr() as u64;
    Op::new(entry, user_data)
}

/// Gives the kernel `count` buffers of `len` bytes as a group.
pub(crate) fn provide_buffers(user_data: u64, len: u32, count: u16, bgid: u16) -> Op {
    let buf = Buf::new(len as usize * usize::from(count));
    provide_parts(user_data, buf, len, count, bgid)
}

/// Gives the kernel `count` parts of a buffer, of `len` bytes each, as a group.
pub(crate) fn provide_parts(user_data: u64, buf: Buf, len: u32, count: u16, bgid: u16) -> Op {
    assert!(len * u32::from(count) <= buf.len(), "more than there is");
    let entry = opcode::ProvideBuffers::new(buf.ptr(), len as i32, count, bgid, 0).build();
    Op::new(entry, user_data)
}

/// These SQEs as one group: the flag is on all but the last.
pub(crate) fn group(leader: Op, members: impl IntoIterator<Item = Op>) -> Vec<Op> {
    let mut ops = vec![leader];
    ops.extend(members);
    if let Some((_, others)) = ops.split_last_mut() {
        for op in others {
            *op = op.clone().grouped();
        }
    }
    ops
}

/// Several programs, one after the other.
pub(crate) fn all(parts: impl IntoIterator<Item = Vec<Op>>) -> Vec<Op> {
    parts.into_iter().flatten().collect()
}

/// Pushes without submitting.
pub(crate) fn push(ring: &mut Ring, ops: &[Op]) {
    let entries: Vec<Entry> = ops.iter().map(|op| op.0.clone()).collect();
    // SAFETY: What an `Op` points to is never freed.
    unsafe { ring.push(&entries) }.expect("pushing SQEs");
}

/// Pushes, and submits all of it.
pub(crate) fn submit(ring: &mut Ring, ops: &[Op]) {
    push(ring, ops);
    let taken = ring.submit().expect("submitting SQEs");
    assert_eq!(taken, ops.len(), "SQEs that the kernel took");
}

/// Registers buffers; they are never freed.
pub(crate) fn register_buffers(ring: &Ring, bufs: &[Buf]) {
    let iovecs: Vec<_> = bufs.iter().map(|buf| buf.iovec()).collect();
    // SAFETY: A `Buf` is never freed.
    unsafe { ring.submitter().register_buffers(&iovecs) }.expect("registering buffers");
}

const _: () = assert!(size_of::<Op>() == 64);
