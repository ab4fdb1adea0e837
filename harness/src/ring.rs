// SPDX-License-Identifier: GPL-2.0-only
//! A ring in any of the modes that a ring can have, which never waits for ever.
//!
//! Submission and completion queues are the `io-uring` crate's. What is done here
//! beside it is what the crate has no way to ask for: setup flags that are newer,
//! entering by a registered ring, waiting with a bound, and looking for a CQE that
//! must not come.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use io_uring::cqueue::{self, Entry32};
use io_uring::squeue::{Entry, Entry128, EntryMarker};
use io_uring::{opcode, types, IoUring};

use crate::pace::Patience;
use crate::sqe::{ExtEntry, IORING_FEAT_SQE_GROUP};

/// How long to wait for something that a working kernel does at once. It bounds a
/// test on a kernel that is broken and says nothing about speed: an emulated
/// machine with every debugging aid switched on still has to make it. One that has
/// much else to do is given more, by [`Patience`].
pub const PATIENCE: Duration = Duration::from_secs(10);

const IORING_SETUP_IOPOLL: u32 = 1 << 0;
const IORING_SETUP_SQPOLL: u32 = 1 << 1;
const IORING_SETUP_CQSIZE: u32 = 1 << 3;
const IORING_SETUP_ATTACH_WQ: u32 = 1 << 5;
const IORING_SETUP_R_DISABLED: u32 = 1 << 6;
const IORING_SETUP_SUBMIT_ALL: u32 = 1 << 7;
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
const IORING_SETUP_TASKRUN_FLAG: u32 = 1 << 9;
const IORING_SETUP_SQE128: u32 = 1 << 10;
const IORING_SETUP_CQE32: u32 = 1 << 11;
const IORING_SETUP_SINGLE_ISSUER: u32 = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN: u32 = 1 << 13;
const IORING_SETUP_NO_SQARRAY: u32 = 1 << 16;
const IORING_SETUP_HYBRID_IOPOLL: u32 = 1 << 17;
const IORING_SETUP_CQE_MIXED: u32 = 1 << 18;
const IORING_SETUP_SQE_MIXED: u32 = 1 << 19;
const IORING_SETUP_SQ_REWIND: u32 = 1 << 20;

/// To wait for CQEs, see io_uring_enter(2).
pub const IORING_ENTER_GETEVENTS: u32 = 1 << 0;
const IORING_ENTER_SQ_WAKEUP: u32 = 1 << 1;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;

pub(crate) const IORING_REGISTER_ENABLE_RINGS: u32 = 12;
pub(crate) const IORING_REGISTER_RING_FDS: u32 = 20;
pub(crate) const IORING_UNREGISTER_RING_FDS: u32 = 21;
pub(crate) const IORING_REGISTER_PBUF_RING: u32 = 22;
pub(crate) const IORING_REGISTER_SYNC_CANCEL: u32 = 24;
const IORING_REGISTER_FILE_ALLOC_RANGE: u32 = 25;

const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_OFF_PBUF_RING: i64 = 0x8000_0000;
const IORING_OFF_PBUF_SHIFT: u32 = 16;
const IOU_PBUF_RING_MMAP: u16 = 1 << 0;

const IORING_CQE_F_SKIP: u32 = 1 << 5;
const IORING_CQE_F_32: u32 = 1 << 15;

const IORING_NOP_TW: u32 = 1 << 4;

/// `user_data` of the NOP that [`Ring::quiet`] sends after everything else.
pub(crate) const MARKER: u64 = u64::MAX - 0x5ee;

/// Every mode that changes how a ring takes SQEs, runs requests or posts CQEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingMode {
    /// No setup flag at all
    Default,
    /// `SINGLE_ISSUER`
    SingleIssuer,
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`
    DeferTaskrun,
    /// `COOP_TASKRUN`
    CoopTaskrun,
    /// `COOP_TASKRUN` and `TASKRUN_FLAG`
    TaskrunFlag,
    /// `SQPOLL`
    Sqpoll,
    /// `IOPOLL`: files that can be polled, and operations without a file
    Iopoll,
    /// `IOPOLL` and `HYBRID_IOPOLL`
    HybridIopoll,
    /// `SQE128`
    Sqe128,
    /// `SQE_MIXED`
    SqeMixed,
    /// `CQE32`
    Cqe32,
    /// `CQE_MIXED`
    CqeMixed,
    /// `NO_SQARRAY`
    NoSqarray,
    /// `NO_SQARRAY` and `SQ_REWIND`
    SqRewind,
    /// `SUBMIT_ALL`; all other modes are without it
    SubmitAll,
    /// `R_DISABLED`, then enabled
    RDisabled,
    /// Entered through a registered ring fd
    RegisteredFd,
}

impl RingMode {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Default,
        Self::SingleIssuer,
        Self::DeferTaskrun,
        Self::CoopTaskrun,
        Self::TaskrunFlag,
        Self::Sqpoll,
        Self::Iopoll,
        Self::HybridIopoll,
        Self::Sqe128,
        Self::SqeMixed,
        Self::Cqe32,
        Self::CqeMixed,
        Self::NoSqarray,
        Self::SqRewind,
        Self::SubmitAll,
        Self::RDisabled,
        Self::RegisteredFd,
    ];

    /// The flags for `io_uring_setup`.
    pub const fn setup_flags(self) -> u32 {
        match self {
            Self::Default | Self::RegisteredFd => 0,
            Self::SingleIssuer => IORING_SETUP_SINGLE_ISSUER,
            Self::DeferTaskrun => IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
            Self::CoopTaskrun => IORING_SETUP_COOP_TASKRUN,
            Self::TaskrunFlag => IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
            Self::Sqpoll => IORING_SETUP_SQPOLL,
            Self::Iopoll => IORING_SETUP_IOPOLL,
            Self::HybridIopoll => IORING_SETUP_IOPOLL | IORING_SETUP_HYBRID_IOPOLL,
            Self::Sqe128 => IORING_SETUP_SQE128,
            Self::SqeMixed => IORING_SETUP_SQE_MIXED,
            Self::Cqe32 => IORING_SETUP_CQE32,
            Self::CqeMixed => IORING_SETUP_CQE_MIXED,
            Self::NoSqarray => IORING_SETUP_NO_SQARRAY,
            Self::SqRewind => IORING_SETUP_NO_SQARRAY | IORING_SETUP_SQ_REWIND,
            Self::SubmitAll => IORING_SETUP_SUBMIT_ALL,
            Self::RDisabled => IORING_SETUP_R_DISABLED,
        }
    }

    /// Whether completions have to be polled for: pipes, sockets, cancel requests
    /// and time-outs are then refused.
    pub const fn is_iopoll(self) -> bool {
        matches!(self, Self::Iopoll | Self::HybridIopoll)
    }
}

/// `struct io_sqring_offsets`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

/// `struct io_uring_params`. The crate has no setter for the newer flags, but
/// takes the structure as the kernel filled it in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}

const _: () = assert!(size_of::<Params>() == 120);
const _: () = assert!(size_of::<Params>() == size_of::<io_uring::Parameters>());

/// `struct io_uring_getevents_arg`
#[repr(C)]
struct GeteventsArg {
    sigmask: u64,
    sigmask_sz: u32,
    min_wait_usec: u32,
    ts: u64,
}

/// `struct io_uring_rsrc_update`
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// What to set a [`Ring`] up with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    mode: RingMode,
    entries: u32,
    cq_entries: Option<u32>,
    extra_flags: u32,
    attach_wq: Option<RawFd>,
    leave_disabled: bool,
}

impl Setup {
    /// A ring of 64 entries in this mode.
    pub const fn new(mode: RingMode) -> Self {
        Self {
            mode,
            entries: 64,
            cq_entries: None,
            extra_flags: 0,
            attach_wq: None,
            leave_disabled: false,
        }
    }

    /// The size of the submission queue.
    pub const fn entries(mut self, entries: u32) -> Self {
        self.entries = entries;
        self
    }

    /// The size of the completion queue, if not twice that of the other.
    pub const fn cq_entries(mut self, cq_entries: u32) -> Self {
        self.cq_entries = Some(cq_entries);
        self
    }

    /// Adds `SUBMIT_ALL` to the mode.
    pub const fn submit_all(mut self) -> Self {
        self.extra_flags |= IORING_SETUP_SUBMIT_ALL;
        self
    }

    /// Shares the workers, and the SQPOLL thread, of another ring.
    pub const fn attach_wq(mut self, ring: RawFd) -> Self {
        self.attach_wq = Some(ring);
        self
    }

    /// Sets the ring up disabled and leaves it so: [`Ring::enable`] starts it.
    pub const fn disabled(mut self) -> Self {
        self.extra_flags |= IORING_SETUP_R_DISABLED;
        self.leave_disabled = true;
        self
    }

    /// Sets the ring up. `EINVAL` means that the kernel does not have this mode.
    pub fn build(self) -> io::Result<Ring> {
        Ring::with(self)
    }

    /// By the crate's own builder, which is the only way to its wide types, and
    /// knows the flags that go with them here.
    fn by_crate<S, C>(self, queues: fn(IoUring<S, C>) -> Queues) -> io::Result<(Queues, Params)>
    where
        S: EntryMarker,
        C: cqueue::EntryMarker,
    {
        let mut builder = IoUring::<S, C>::builder();
        if let Some(cq_entries) = self.cq_entries {
            builder.setup_cqsize(cq_entries);
        }
        if let Some(fd) = self.attach_wq {
            builder.setup_attach_wq(fd);
        }
        if self.extra_flags & IORING_SETUP_SUBMIT_ALL != 0 {
            builder.setup_submit_all();
        }
        if self.extra_flags & IORING_SETUP_R_DISABLED != 0 {
            builder.setup_r_disabled();
        }
        let ring = builder.build(self.entries)?;
        // SAFETY: The crate documents its `Parameters` as a transparent wrapper of
        // the system's structure, of which `Params` is a copy; the sizes are equal.
        let params = unsafe { std::mem::transmute_copy(ring.params()) };
        Ok((queues(ring), params))
    }

    /// By the system call, because the crate has no setter for the newer flags.
    fn by_hand(self) -> io::Result<(Queues, Params)> {
        let mut params = Params {
            flags: self.mode.setup_flags() | self.extra_flags,
            // Short, so that tests meet the thread asleep as well as awake.
            sq_thread_idle: 20,
            ..Params::default()
        };
        if let Some(cq_entries) = self.cq_entries {
            params.flags |= IORING_SETUP_CQSIZE;
            params.cq_entries = cq_entries;
        }
        if let Some(fd) = self.attach_wq {
            params.flags |= IORING_SETUP_ATTACH_WQ;
            params.wq_fd = fd as u32;
        }

        // SAFETY: The kernel reads and writes `params`, which has the layout of
        // `struct io_uring_params`.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_io_uring_setup,
                self.entries,
                std::ptr::from_mut(&mut params),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }

        // SAFETY: See `by_crate`; this is the other direction, of which the crate
        // says the same.
        let filled: io_uring::Parameters = unsafe { std::mem::transmute(params) };
        // SAFETY: The descriptor is new and ours to give, it is a ring, and
        // `filled` is what the kernel answered when it was set up. Its entries have
        // the usual size.
        let ring = unsafe { IoUring::from_fd(fd as RawFd, filled)? };
        Ok((Queues::Plain(ring), params))
    }
}

/// A completion queue entry, whatever size it had in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// What the SQE said
    pub user_data: u64,
    /// The result: a count, or a negative error number
    pub result: i32,
    /// `IORING_CQE_F_*`
    pub flags: u32,
    /// The second half of a 32-byte CQE; zero in a 16-byte one
    pub extra: [u64; 2],
}

/// Fewer CQEs came than were waited for.
#[derive(Clone, Debug)]
pub struct Missing {
    /// How many were waited for
    pub wanted: usize,
    /// What came
    pub got: Vec<Cqe>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} CQEs came:", self.got.len(), self.wanted)?;
        for cqe in &self.got {
            write!(f, " {:#x}={}", cqe.user_data, cqe.result)?;
        }
        Ok(())
    }
}

impl Error for Missing {}

/// A map of part of a ring's memory, for what the crate does not reach.
struct Map {
    base: NonNull<u8>,
    len: usize,
}

impl Map {
    fn new(ring: RawFd, offset: i64, len: usize) -> io::Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring,
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { base, len })
    }

    /// A `u32` that is shared with the kernel.
    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: In bounds and aligned (asserted; the base is a page's), and
        // mapped as long as `self` lives. Both sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

// SAFETY: A mapping belongs to the process, and not to one of its threads.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`, and nothing borrowed from it outlives it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

enum Queues {
    Plain(IoUring<Entry, cqueue::Entry>),
    Wide(IoUring<Entry128, cqueue::Entry>),
    Big(IoUring<Entry, Entry32>),
}

/// Runs the same code on whichever ring type it is.
macro_rules! each {
    ($queues:expr, $ring:ident => $body:expr) => {
        match $queues {
            Queues::Plain($ring) => $body,
            Queues::Wide($ring) => $body,
            Queues::Big($ring) => $body,
        }
    };
}

/// A ring in some [`RingMode`], which takes the same SQEs in every mode.
///
/// ```
/// use harness::ring::{Ring, RingMode};
/// use io_uring::opcode;
///
/// # // No io_uring for this process: nothing to show.
/// let Ok(mut ring) = Ring::new(RingMode::Default) else { return };
/// // SAFETY: A NOP points nowhere.
/// unsafe { ring.push(&[opcode::Nop::new().build().user_data(7)]) }.unwrap();
/// let cqes = ring.submit_and_collect(1).unwrap();
/// assert_eq!((cqes[0].user_data, cqes[0].result), (7, 0));
/// ```
pub struct Ring {
    queues: Queues,
    params: Params,
    mode: RingMode,
    /// Index of the ring among the task's registered rings.
    registered: Option<u32>,
    /// CQEs that were reaped while waiting for others.
    ready: VecDeque<Cqe>,
    /// With `SQ_REWIND`, the SQEs begin at index 0 each time and the ring's tail
    /// is not used: they are written here, past the crate.
    rewind: Option<Rewind>,
    /// With `SQPOLL`, how many SQEs were pushed since the last submission: the
    /// thread may have taken them by now.
    given: usize,
    enters: u64,
}

impl Drop for Ring {
    /// The task's reference to a registered ring would keep it.
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            let mut update = RsrcUpdate {
                offset,
                resv: 0,
                data: 0,
            };
            let arg = std::ptr::from_mut(&mut update).cast();
            // SAFETY: One element of the type that this operation takes. If another task has
            // registered the ring, which nobody does here, it stays registered.
            let _ = unsafe { self.register(IORING_UNREGISTER_RING_FDS, arg, 1) };
        }
    }
}

struct Rewind {
    sqes: Map,
    pending: Vec<Entry>,
}

impl Ring {
    /// A ring of 64 entries. `EINVAL` means that the kernel does not have this
    /// mode.
    pub fn new(mode: RingMode) -> io::Result<Self> {
        Setup::new(mode).build()
    }

    fn with(setup: Setup) -> io::Result<Self> {
        let mode = setup.mode;
        let (queues, params) = match mode {
            RingMode::Sqe128 => setup.by_crate(Queues::Wide)?,
            RingMode::Cqe32 => setup.by_crate(Queues::Big)?,
            _ => setup.by_hand()?,
        };
        let fd = each!(&queues, ring => ring.as_raw_fd());

        let rewind = if params.flags & IORING_SETUP_SQ_REWIND != 0 {
            let len = params.sq_entries as usize * size_of::<Entry>();
            Some(Rewind {
                sqes: Map::new(fd, IORING_OFF_SQES, len)?,
                pending: Vec::new(),
            })
        } else {
            None
        };

        let mut ring = Self {
            queues,
            params,
            mode,
            registered: None,
            ready: VecDeque::new(),
            rewind,
            given: 0,
            enters: 0,
        };
        if params.flags & IORING_SETUP_R_DISABLED != 0 && !setup.leave_disabled {
            ring.enable()?;
        }
        if mode == RingMode::RegisteredFd {
            ring.register_itself()?;
        }
        Ok(ring)
    }

    const fn is_sqpoll(&self) -> bool {
        self.params.flags & IORING_SETUP_SQPOLL != 0
    }

    /// Starts a ring that was set up disabled.
    pub fn enable(&mut self) -> io::Result<()> {
        // SAFETY: This operation has no argument.
        unsafe { self.register(IORING_REGISTER_ENABLE_RINGS, std::ptr::null_mut(), 0) }.map(drop)
    }

    fn register_itself(&mut self) -> io::Result<()> {
        let mut update = RsrcUpdate {
            offset: u32::MAX, // any free slot
            resv: 0,
            data: self.fd() as u64,
        };
        let arg = std::ptr::from_mut(&mut update).cast();
        // SAFETY: One element of the type that this operation takes.
        let done = unsafe { self.register(IORING_REGISTER_RING_FDS, arg, 1) }?;
        if done != 1 {
            return Err(io::Error::other("the ring's fd was not registered"));
        }
        self.registered = Some(update.offset);
        Ok(())
    }

    /// `io_uring_register` on this ring.
    ///
    /// # Safety
    ///
    /// `arg` and `nr` must be what the operation takes.
    pub unsafe fn register(
        &self,
        op: u32,
        arg: *mut libc::c_void,
        nr: u32,
    ) -> io::Result<libc::c_long> {
        // SAFETY: The caller's to keep.
        unsafe { register(self.fd(), op, arg, nr) }
    }

    /// Has the kernel choose places from these for files that it puts into the ring's table.
    pub fn leave_files(&self, places: Range<u32>) -> io::Result<()> {
        /// `struct io_uring_file_index_range`
        #[repr(C)]
        struct Places {
            off: u32,
            len: u32,
            resv: u64,
        }
        let mut arg = Places {
            off: places.start,
            len: places.end - places.start,
            resv: 0,
        };
        let arg = std::ptr::from_mut(&mut arg).cast();
        // SAFETY: One element of the type that this operation takes, which has no number.
        unsafe { self.register(IORING_REGISTER_FILE_ALLOC_RANGE, arg, 0) }.map(drop)
    }

    /// The mode that the ring was set up in.
    pub const fn mode(&self) -> RingMode {
        self.mode
    }

    /// Whether the kernel has SQE groups.
    pub const fn has_groups(&self) -> bool {
        self.params.features & IORING_FEAT_SQE_GROUP != 0
    }

    /// Entries of the submission queue.
    pub const fn sq_entries(&self) -> u32 {
        self.params.sq_entries
    }

    /// Entries of the completion queue.
    pub const fn cq_entries(&self) -> u32 {
        self.params.cq_entries
    }

    /// How often `io_uring_enter` was called.
    pub const fn enters(&self) -> u64 {
        self.enters
    }

    /// The ring's descriptor.
    pub fn fd(&self) -> RawFd {
        each!(&self.queues, ring => ring.as_raw_fd())
    }

    /// The crate's submitter, to register files, buffers and the like.
    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        each!(&self.queues, ring => ring.submitter())
    }

    /// Pushes all of these SQEs, or none if there is no room.
    ///
    /// # Safety
    ///
    /// What the SQEs point to must stay valid until their last CQE was posted.
    pub unsafe fn push(&mut self, sqes: &[Entry]) -> io::Result<()> {
        if let Some(rewind) = &mut self.rewind {
            if rewind.pending.len() + sqes.len() > self.params.sq_entries as usize {
                return Err(queue_full());
            }
            rewind.pending.extend_from_slice(sqes);
            return Ok(());
        }
        each!(&mut self.queues, ring => {
            // SAFETY: The caller keeps valid what the SQEs point to.
            unsafe { push_all(ring, sqes) }
        })?;
        self.given += sqes.len();
        Ok(())
    }

    /// Pushes one 128-byte SQE to a ring that takes them, `SQE128` or `SQE_MIXED`.
    ///
    /// # Safety
    ///
    /// As for [`Ring::push`].
    pub unsafe fn push_wide(&mut self, sqe: &Entry128) -> io::Result<()> {
        match &mut self.queues {
            // SAFETY: The caller keeps valid what the SQE points to.
            Queues::Wide(ring) => unsafe { ring.submission().push(sqe) }.map_err(|_| queue_full()),
            Queues::Plain(ring) if self.params.flags & IORING_SETUP_SQE_MIXED != 0 => {
                // SAFETY: `Entry128` is `repr(C)`: an `Entry`, then 64 bytes. Both
                // halves are valid as an `Entry`, which any bytes are.
                let halves: &[Entry; 2] = unsafe { &*std::ptr::from_ref(sqe).cast() };
                // SAFETY: The caller keeps valid what the SQE points to.
                unsafe { ring.submission().push_multiple(halves) }.map_err(|_| queue_full())
            }
            Queues::Plain(_) | Queues::Big(_) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// How many SQEs were pushed and not taken by the kernel yet.
    pub fn pending(&mut self) -> usize {
        match &self.rewind {
            Some(rewind) => rewind.pending.len(),
            None => each!(&mut self.queues, ring => ring.submission().len()),
        }
    }

    /// Submits what was pushed, by one call. The kernel may take less than that:
    /// without `SUBMIT_ALL` it stops behind an SQE that is bad.
    pub fn submit_once(&mut self) -> io::Result<usize> {
        self.submit_at_most(usize::MAX)
    }

    /// Submits the first `n` of what was pushed, by one call. An SQPOLL thread
    /// takes everything.
    pub fn submit_at_most(&mut self, n: usize) -> io::Result<usize> {
        if self.is_sqpoll() {
            return self.submit_to_thread();
        }
        let pending = self.pending();
        if let Some(rewind) = &self.rewind {
            let slots = rewind.sqes.base.as_ptr().cast::<Entry>();
            for (at, sqe) in rewind.pending.iter().enumerate() {
                // SAFETY: `push` keeps `pending` within the `sq_entries` slots of
                // the mapping, and the kernel reads them during `enter` only.
                unsafe { slots.add(at).write(sqe.clone()) };
            }
        }
        let taken = self.enter(pending.min(n) as u32, 0, 0, None)?;
        if let Some(rewind) = &mut self.rewind {
            rewind.pending.drain(..taken);
        }
        Ok(taken)
    }

    /// Lets the SQPOLL thread take what was pushed, and waits until it has.
    fn submit_to_thread(&mut self) -> io::Result<usize> {
        let mut patience = Patience::new(PATIENCE);
        loop {
            let (left, asleep) = each!(&mut self.queues, ring => {
                let sq = ring.submission();
                (sq.len(), sq.need_wakeup())
            });
            if left == 0 {
                return Ok(std::mem::take(&mut self.given));
            }
            if patience.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if asleep {
                self.enter(0, 0, IORING_ENTER_SQ_WAKEUP, None)?;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Submits everything that was pushed, in as many calls as that needs, and
    /// returns how many SQEs these were. Reaps nothing.
    pub fn submit(&mut self) -> io::Result<usize> {
        if self.is_sqpoll() {
            return self.submit_to_thread();
        }
        let mut patience = Patience::new(PATIENCE);
        let mut total = 0;
        while self.pending() > 0 {
            if patience.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.submit_once() {
                Ok(0) => std::thread::sleep(Duration::from_millis(1)),
                Ok(taken) => total += taken,
                Err(error) if is_transient(&error) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// `io_uring_enter`, through the registered ring if there is one.
    fn enter(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.enter_for(to_submit, min_complete, flags, timeout, Duration::ZERO)
    }

    fn enter_for(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        mut flags: u32,
        timeout: Option<Duration>,
        min_wait: Duration,
    ) -> io::Result<usize> {
        self.enters += 1;
        let fd = match self.registered {
            Some(index) => {
                flags |= IORING_ENTER_REGISTERED_RING;
                index
            }
            None => self.fd() as u32,
        };
        let ts = types::Timespec::from(timeout.unwrap_or_default());
        let arg = GeteventsArg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: min_wait.as_micros() as u32,
            ts: std::ptr::from_ref(&ts) as u64,
        };
        let (arg, size) = match timeout {
            Some(_) => {
                flags |= IORING_ENTER_EXT_ARG;
                (std::ptr::from_ref(&arg), size_of::<GeteventsArg>())
            }
            None => (std::ptr::null(), 0),
        };
        // SAFETY: `arg` is null, or with EXT_ARG points to a structure of `size`
        // bytes, whose `ts` points to a timespec; both outlive the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                to_submit,
                min_complete,
                flags,
                arg,
                size,
            )
        };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ret as usize)
    }

    /// Lets the kernel run what it keeps for this task, without waiting.
    pub fn flush(&mut self) -> io::Result<()> {
        match self.enter(0, 0, IORING_ENTER_GETEVENTS, None) {
            Err(error) if !is_transient(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits in one call until the CQ has `n` entries. `false` if the time was up
    /// before: this is how to see a waiter that is not woken. Reaps nothing. Not
    /// for polled rings, whose wait has no bound.
    pub fn wait_for(&mut self, n: u32, timeout: Duration) -> io::Result<bool> {
        let start = Instant::now();
        match self.enter(0, n, IORING_ENTER_GETEVENTS, Some(timeout)) {
            // The kernel does not say that the time was up if it finds any CQE then.
            Ok(_) => Ok(start.elapsed() < timeout),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same, but from `min_wait` on any CQE will do.
    pub fn wait_for_batch(
        &mut self,
        n: u32,
        timeout: Duration,
        min_wait: Duration,
    ) -> io::Result<()> {
        self.enter_for(0, n, IORING_ENTER_GETEVENTS, Some(timeout), min_wait)
            .map(drop)
    }

    /// The CQEs that the CQ has, without asking the kernel for more.
    pub fn posted(&mut self) -> Vec<Cqe> {
        self.reap();
        self.ready.drain(..).collect()
    }

    /// Takes what is in the CQ.
    fn reap(&mut self) {
        let mixed = self.params.flags & IORING_SETUP_CQE_MIXED != 0;
        let ready = &mut self.ready;
        match &mut self.queues {
            Queues::Plain(ring) => reap_small(&mut ring.completion(), mixed, ready),
            Queues::Wide(ring) => reap_small(&mut ring.completion(), mixed, ready),
            Queues::Big(ring) => ready.extend(ring.completion().map(|cqe| Cqe {
                user_data: cqe.user_data(),
                result: cqe.result(),
                flags: cqe.flags(),
                extra: *cqe.big_cqe(),
            })),
        }
    }

    /// The next `n` CQEs, or what came of them before the time was up, which is longer on
    /// a machine that is slow.
    pub fn collect(&mut self, n: usize, timeout: Duration) -> Result<Vec<Cqe>, Missing> {
        let mut patience = Patience::new(timeout);
        loop {
            self.reap();
            if self.ready.len() >= n {
                return Ok(self.ready.drain(..n).collect());
            }
            if patience.is_over() {
                return Err(Missing {
                    wanted: n,
                    got: self.ready.drain(..).collect(),
                });
            }
            if self.mode.is_iopoll() {
                // The kernel would poll for as long as it takes, so only ask it to
                // look, again and again.
                let _ = self.flush();
                std::thread::sleep(Duration::from_micros(50));
            } else {
                // An error (a signal, the time is up) shows as CQEs that are not
                // there.
                let want = (n - self.ready.len()).min(self.params.cq_entries as usize);
                let _ = self.wait_for(want as u32, patience.left());
            }
        }
    }

    /// Submits everything that was pushed and waits for the next `n` CQEs.
    pub fn submit_and_collect(&mut self, n: usize) -> io::Result<Vec<Cqe>> {
        self.submit()?;
        self.collect(n, PATIENCE)
            .map_err(|missing| io::Error::new(io::ErrorKind::TimedOut, missing))
    }

    /// CQEs that are there by now, after the kernel was given the chance to post
    /// what it can post without waiting.
    pub fn arrived(&mut self) -> Vec<Cqe> {
        let _ = self.flush();
        self.reap();
        self.ready.drain(..).collect()
    }

    /// Gives back CQEs that were taken and are for somebody else: they come first again.
    pub fn put_back(&mut self, cqes: Vec<Cqe>) {
        for cqe in cqes.into_iter().rev() {
            self.ready.push_front(cqe);
        }
    }

    /// Looks for CQEs that should not come. A NOP is sent through the ring, by way
    /// of task work, behind which there must be nothing else: what had been
    /// completed before it would be posted before it. Returns what was, and the NOP if it was
    /// cancelled: a group or chain that should have ended took it in. (A ring's restrictions and
    /// filters may refuse it.)
    pub fn quiet(&mut self) -> Result<(), Vec<Cqe>> {
        let mut marker = opcode::Nop::new().build().user_data(MARKER);
        marker.raw_mut().op_flags = IORING_NOP_TW;
        // SAFETY: A NOP points nowhere.
        let sent = unsafe { self.push(&[marker]) }.and_then(|()| self.submit());
        let mut got = self.arrived();
        if sent.is_ok() {
            while !got.iter().any(|cqe| cqe.user_data == MARKER) {
                match self.collect(1, PATIENCE) {
                    Ok(more) => got.extend(more),
                    // A ring that lost the marker is anything but quiet.
                    Err(_) => return Err(got),
                }
            }
        }
        got.extend(self.arrived());
        got.retain(|cqe| cqe.user_data != MARKER || cqe.result == -libc::ECANCELED);
        if got.is_empty() {
            Ok(())
        } else {
            Err(got)
        }
    }

    /// Whether CQEs wait in the kernel because the CQ was full.
    pub fn overflowed(&mut self) -> bool {
        each!(&mut self.queues, ring => ring.submission().cq_overflow())
    }

    /// How many entries of the SQ array were invalid.
    pub fn dropped(&mut self) -> u32 {
        each!(&mut self.queues, ring => ring.submission().dropped())
    }

    /// Makes the SQ array's entry for a pushed SQE, counted from the first that is
    /// pending, point to `index`; returns what was there. The kernel drops an
    /// index that is not below [`Ring::sq_entries`].
    pub fn set_sq_index(&mut self, position: u32, index: u32) -> io::Result<u32> {
        let off = &self.params.sq_off;
        let map = self.map_sq()?;
        let head = map.u32_at(off.head as usize).load(Ordering::Acquire);
        let slot = head.wrapping_add(position) & (self.params.sq_entries - 1);
        let entry = map.u32_at(off.array as usize + slot as usize * size_of::<u32>());
        Ok(entry.swap(index, Ordering::AcqRel))
    }

    /// Tells the kernel of so many more SQEs than were pushed: it takes those that are there again
    /// and again. To be called when all that was pushed has been submitted, or by an SQPOLL thread
    /// soon will be.
    pub fn claim_more(&mut self, count: u32) -> io::Result<()> {
        let map = self.map_sq()?;
        map.u32_at(self.params.sq_off.tail as usize)
            .fetch_add(count, Ordering::AcqRel);
        Ok(())
    }

    /// Head, tail and array of the SQ.
    fn map_sq(&self) -> io::Result<Map> {
        let len =
            self.params.sq_off.array as usize + self.params.sq_entries as usize * size_of::<u32>();
        Map::new(self.fd(), IORING_OFF_SQ_RING, len)
    }

    /// `IORING_REGISTER_SYNC_CANCEL`: cancels what matches and waits for it. `Ok` is the number of requests, for those ways of
    /// matching that count.
    pub fn sync_cancel(&self, cancel: &SyncCancel) -> io::Result<i64> {
        sync_cancel(self.fd(), cancel)
    }
}

/// A group of buffers that requests of a ring take from, in memory of the kernel.
pub struct Buffers {
    map: Map,
    parts: *mut u8,
    size: u32,
    count: u16,
    tail: u16,
}

impl Buffers {
    /// Gives a ring `count` buffers, which is a power of two, of `size` bytes each, one behind the
    /// other.
    ///
    /// # Safety
    ///
    /// `parts` must stay valid until the last request of the ring is gone.
    pub unsafe fn new(
        ring: &Ring,
        group: u16,
        parts: *mut u8,
        size: u32,
        count: u16,
    ) -> io::Result<Self> {
        // SAFETY: The kernel is to make the ring; there is no address that could be wrong.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(0, count, group, IOU_PBUF_RING_MMAP)?;
        }
        let offset = IORING_OFF_PBUF_RING | i64::from(group) << IORING_OFF_PBUF_SHIFT;
        let len = usize::from(count) * size_of::<types::BufRingEntry>();
        let mut buffers = Self {
            map: Map::new(ring.fd(), offset, len)?,
            parts,
            size,
            count,
            tail: 0,
        };
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Gives a buffer back that a CQE told of.
    pub fn give(&mut self, id: u16) {
        assert!(id < self.count, "no such buffer");
        let base = self.map.base.as_ptr().cast::<types::BufRingEntry>();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: In bounds of the mapping, as `count` is a power of two. The kernel does not look
        // at the entry before the tail is behind it, and the setters leave alone what shares its
        // place with the tail.
        let entry = unsafe { &mut *base.add(slot) };
        entry.set_addr(self.parts as u64 + u64::from(id) * u64::from(self.size));
        entry.set_len(self.size);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: Within the first entry, and aligned. Both sides access it atomically.
        unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(base).cast_mut()) }
            .store(self.tail, Ordering::Release);
    }
}

/// [`Ring::sync_cancel`] on a ring that is somebody else's. Any descriptor will do: the
/// worst is an error.
pub fn sync_cancel(ring: RawFd, cancel: &SyncCancel) -> io::Result<i64> {
    /// `struct io_uring_sync_cancel_reg`
    #[repr(C)]
    struct Arg {
        addr: u64,
        fd: i32,
        flags: u32,
        timeout: [i64; 2],
        opcode: u8,
        pad: [u8; 7],
        pad2: [u64; 3],
    }
    let patience = cancel.patience.unwrap_or(PATIENCE);
    let mut arg = Arg {
        addr: cancel.user_data,
        fd: cancel.fd,
        flags: cancel.flags,
        timeout: [patience.as_secs() as i64, patience.subsec_nanos().into()],
        opcode: cancel.opcode,
        pad: [0; 7],
        pad2: [0; 3],
    };
    let arg = std::ptr::from_mut(&mut arg).cast();
    // SAFETY: One element of the type that this operation takes.
    unsafe { register(ring, IORING_REGISTER_SYNC_CANCEL, arg, 1) }
}

/// `io_uring_register`.
///
/// # Safety
///
/// `arg` and `nr` must be what the operation takes.
unsafe fn register(
    ring: RawFd,
    op: u32,
    arg: *mut libc::c_void,
    nr: u32,
) -> io::Result<libc::c_long> {
    // SAFETY: The caller's to keep.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, op, arg, nr) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

/// Has `n` SQEs of a ring taken which have been pushed, whoever else does so at the same time.
/// Any descriptor will do: the worst is an error.
pub fn submit_some(ring: RawFd, n: u32) -> io::Result<usize> {
    let null = std::ptr::null::<libc::c_void>();
    loop {
        // SAFETY: No pointers.
        let ret = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, n, 0, 0, null, 0usize) };
        if ret >= 0 {
            return Ok(ret as usize);
        }
        let error = io::Error::last_os_error();
        if !is_transient(&error) {
            return Err(error);
        }
    }
}

/// What [`Ring::sync_cancel`] looks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncCancel {
    /// The request's `user_data`
    pub user_data: u64,
    /// The request's file, if `flags` say so
    pub fd: RawFd,
    /// `IORING_ASYNC_CANCEL_*`
    pub flags: u32,
    /// The request's opcode, if `flags` say so
    pub opcode: u8,
    /// How long to wait for what can only be told to stop; [`PATIENCE`], if not this
    pub patience: Option<Duration>,
}

fn queue_full() -> io::Error {
    io::Error::other("the submission queue is full")
}

/// Whether a later call may succeed.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

/// # Safety
///
/// As for [`Ring::push`].
unsafe fn push_all<S, C>(ring: &mut IoUring<S, C>, sqes: &[Entry]) -> io::Result<()>
where
    S: EntryMarker,
    C: cqueue::EntryMarker,
{
    let sqes: Vec<S> = sqes.iter().cloned().map(S::from).collect();
    // SAFETY: The caller keeps valid what the SQEs point to.
    unsafe { ring.submission().push_multiple(&sqes) }.map_err(|_| queue_full())
}

/// Takes 16-byte CQEs. In a mixed ring some are the first half of a 32-byte one,
/// and some fill a gap at the ring's end.
fn reap_small(cq: &mut cqueue::CompletionQueue<'_>, mixed: bool, ready: &mut VecDeque<Cqe>) {
    while let Some(cqe) = cq.next() {
        let flags = cqe.flags();
        if mixed && flags & IORING_CQE_F_SKIP != 0 {
            continue;
        }
        let mut extra = [0; 2];
        if mixed && flags & IORING_CQE_F_32 != 0 {
            if let Some(half) = cq.next() {
                let low = half.result() as u32;
                extra = [
                    half.user_data(),
                    u64::from(half.flags()) << 32 | u64::from(low),
                ];
            }
        }
        ready.push_back(Cqe {
            user_data: cqe.user_data(),
            result: cqe.result(),
            flags,
            extra,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn nop(user_data: u64) -> Entry {
        opcode::Nop::new().build().user_data(user_data)
    }

    fn push(ring: &mut Ring, sqes: &[Entry]) -> io::Result<()> {
        // SAFETY: These tests push NOPs, which point nowhere.
        unsafe { ring.push(sqes) }
    }

    /// Where there is no io_uring, or not this mode, there is nothing to test.
    fn ring(mode: RingMode) -> Option<Ring> {
        Ring::new(mode)
            .inspect_err(|error| eprintln!("{mode:?} is not to be had here: {error}"))
            .ok()
    }

    #[test]
    fn every_mode_takes_the_same_sqes() {
        for mode in RingMode::ALL {
            let Some(mut ring) = ring(mode) else { continue };
            for round in 0..3 {
                let sqes: Vec<_> = (0..50).map(|i| nop(round * 100 + i)).collect();
                push(&mut ring, &sqes).unwrap();
                let cqes = ring.submit_and_collect(50).unwrap();
                let got: Vec<_> = cqes.iter().map(|cqe| cqe.user_data).collect();
                let all: Vec<_> = (0..50).map(|i| round * 100 + i).collect();
                assert_eq!(got, all, "{mode:?}");
            }
            assert_eq!(ring.quiet(), Ok(()), "{mode:?}");
        }
    }

    #[test]
    fn a_bad_sqe_does_not_hold_up_the_next() {
        for mode in RingMode::ALL {
            let Some(mut ring) = ring(mode) else { continue };
            let mut bad = nop(2);
            bad.raw_mut().ioprio = 1;
            push(&mut ring, &[nop(1), bad, nop(3), nop(4)]).unwrap();
            let cqes = ring.submit_and_collect(4).unwrap();
            let got: Vec<_> = cqes.iter().map(|cqe| (cqe.user_data, cqe.result)).collect();
            let all = [(1, 0), (2, -libc::EINVAL), (3, 0), (4, 0)];
            assert_eq!(got, all, "{mode:?}");
        }
    }

    #[rstest]
    #[case(RingMode::Default)]
    #[case(RingMode::SqRewind)]
    fn push_is_all_or_nothing(#[case] mode: RingMode) {
        let Ok(mut ring) = Setup::new(mode).entries(4).build() else {
            return;
        };
        push(&mut ring, &[nop(1), nop(2), nop(3)]).unwrap();
        assert!(push(&mut ring, &[nop(4), nop(5)]).is_err());
        assert_eq!(ring.pending(), 3);
        assert_eq!(ring.submit_and_collect(3).unwrap().len(), 3);
    }

    #[test]
    fn what_does_not_come_is_not_waited_for() {
        let Some(mut ring) = ring(RingMode::Default) else {
            return;
        };
        push(&mut ring, &[nop(1)]).unwrap();
        ring.submit().unwrap();
        let missing = ring.collect(2, Duration::from_millis(20)).unwrap_err();
        assert_eq!(missing.to_string(), "1 of 2 CQEs came: 0x1=0");
        assert!(!ring.wait_for(1, Duration::from_millis(20)).unwrap());
    }

    #[test]
    fn a_ring_that_is_not_quiet_is_found_out() {
        let Some(mut ring) = ring(RingMode::Default) else {
            return;
        };
        push(&mut ring, &[nop(1)]).unwrap();
        let got = ring.quiet().unwrap_err();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].user_data, 1);
    }

    #[test]
    fn an_invalid_index_is_dropped() {
        let Some(mut ring) = ring(RingMode::Default) else {
            return;
        };
        push(&mut ring, &[nop(1), nop(2), nop(3)]).unwrap();
        let was = ring.set_sq_index(1, u32::MAX).unwrap();
        let cqes = ring.submit_and_collect(2).unwrap();
        assert_eq!(cqes.iter().map(|c| c.user_data).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(ring.dropped(), 1);
        assert_eq!(was, 1);
    }

    /// The CQ holds more than it has room for, and gives it back in order.
    #[test]
    fn overflow_is_given_back() {
        let Ok(mut ring) = Setup::new(RingMode::Default)
            .entries(4)
            .cq_entries(4)
            .build()
        else {
            return;
        };
        for first in [1, 5] {
            let sqes: Vec<_> = (first..first + 4).map(nop).collect();
            push(&mut ring, &sqes).unwrap();
            ring.submit().unwrap();
        }
        assert!(ring.overflowed());
        let cqes = ring.collect(8, PATIENCE).unwrap();
        assert_eq!(
            cqes.iter().map(|c| c.user_data).collect::<Vec<_>>(),
            (1..9).collect::<Vec<_>>()
        );
        assert!(!ring.overflowed());
    }
}
