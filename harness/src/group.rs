// SPDX-License-Identifier: GPL-2.0-only
//! Groups of SQEs: building one, submitting it, understanding its CQEs.
//!
//! A group is a run of SQEs that the kernel handles as one unit. The first SQE is
//! the *leader*, the others are *members*. The leader runs first; when it has
//! succeeded, the members run side by side; the leader's CQE comes last and says
//! that the whole group is done.
//!
//! ```no_run
//! use harness::group::Group;
//! use io_uring::{opcode, types, IoUring};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (source, first, second) = (types::Fd(3), types::Fd(4), types::Fd(5));
//! let mut ring = IoUring::new(8)?;
//! let mut block = vec![0u8; 4096];
//! let (buf, len) = (block.as_mut_ptr(), block.len() as u32);
//!
//! // Read a block, then write it to two files at once: one submission.
//! let copy = Group::builder(opcode::Read::new(source, buf, len).build().user_data(1))
//!     .member(opcode::Write::new(first, buf, len).build().user_data(2))
//!     .member(opcode::Write::new(second, buf, len).build().user_data(3))
//!     .members_skip_success() // one CQE for the group, unless a write fails
//!     .build()?;
//!
//! // SAFETY: `block` lives until the group's last CQE has been reaped.
//! unsafe { copy.push(&mut ring.submission())? };
//! ring.submit_and_wait(1)?;
//! for cqe in ring.completion() {
//!     println!("{}: {}", cqe.user_data(), cqe.result());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Support::query`](crate::sqe::Support::query) asks the kernel what it has, and
//! [`Support::groups`](crate::sqe::Support::groups) says whether groups are part of it. To be
//! asked before the first group is submitted: a kernel without groups executes the last member.
//!
//! A [`Tracker`] puts the CQEs of a group together, and a [`Chain`] puts a group behind or
//! before others. Both groups and chains are pushed whole or not at all, and a thread of
//! `IORING_SETUP_SQPOLL` sees no part of it earlier, as the crate moves the queue's tail when
//! [`SubmissionQueue`] is dropped or synced. A thread that several rings share may cut a chain
//! between its elements; a group it does not cut.

use std::error::Error;
use std::fmt;

use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::{Entry, Entry128, Flags, SubmissionQueue};

use crate::sqe::{ExtEntry, IOSQE_EXT_SQE_GROUP, IOSQE_HAS_EXT_FLAGS};

/// The flags that speak for the whole group, and are therefore the leader's.
const LEADER_ONLY: Flags = Flags::IO_LINK
    .union(Flags::IO_HARDLINK)
    .union(Flags::IO_DRAIN);

/// A complete group, ready to be pushed. The leader is the first entry.
#[derive(Clone, Debug)]
pub struct Group<E = Entry> {
    entries: Vec<E>,
}

/// Collects the SQEs of a [`Group`]; made by [`Group::builder`].
#[derive(Clone, Debug)]
pub struct Builder<E = Entry> {
    entries: Vec<E>,
}

/// Why the kernel would not take these SQEs as a group. `at` counts from the
/// leader, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A member has one of `IO_LINK`, `IO_HARDLINK`, `IO_DRAIN`. They hold for the
    /// whole group and belong on the leader.
    MemberFlags {
        /// Which SQE
        at: usize,
        /// Those of its flags that a member must not have
        flags: Flags,
    },
    /// A `LINK_TIMEOUT` in a group. Link the group, and put the time-out behind
    /// it: it is then the deadline of the group.
    LinkTimeout {
        /// Which SQE
        at: usize,
    },
    /// The leader is a `SEND_ZC` or `SENDMSG_ZC`: its notification would come
    /// before its CQE, which has to wait for the members.
    ZeroCopyLeader,
    /// A personality above 255. Extended flags leave one byte for it.
    Personality {
        /// Which SQE
        at: usize,
        /// The personality that was asked for
        personality: u16,
    },
    /// The entry has [`IOSQE_HAS_EXT_FLAGS`] already, with a bit that is not
    /// known here.
    UnknownExtFlags {
        /// Which SQE
        at: usize,
        /// Its extended flags
        ext_flags: u8,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MemberFlags { at, flags } => write!(
                f,
                "SQE {at} is a member and has {flags:?}: set it on the leader, \
                 where it holds for the whole group"
            ),
            Self::LinkTimeout { at } => write!(
                f,
                "SQE {at} is a LINK_TIMEOUT: link the group and put the time-out behind it"
            ),
            Self::ZeroCopyLeader => {
                f.write_str("a zero-copy send cannot lead a group; it can be a member")
            }
            Self::Personality { at, personality } => write!(
                f,
                "SQE {at} uses personality {personality}: in a group only 1 to 255 can be named"
            ),
            Self::UnknownExtFlags { at, ext_flags } => {
                write!(f, "SQE {at} has unknown extended flags ({ext_flags:#04x})")
            }
        }
    }
}

impl Error for BuildError {}

/// The submission queue has no room for the whole group, or chain. Nothing was pushed,
/// and it comes back.
#[derive(Clone)]
pub struct Full<T = Group> {
    /// What did not fit
    pub group: T,
    /// Its SQEs
    pub needed: usize,
    /// Entries that were free
    pub free: usize,
    /// Entries of the queue: what is longer than this never fits
    pub capacity: usize,
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full")
            .field("needed", &self.needed)
            .field("free", &self.free)
            .field("capacity", &self.capacity)
            .finish()
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            needed,
            free,
            capacity,
            ..
        } = *self;
        if needed > capacity {
            write!(
                f,
                "{needed} SQEs that belong together never fit into a submission queue of {capacity}"
            )
        } else {
            write!(
                f,
                "{needed} SQEs that belong together do not fit: {free} of {capacity} entries are free"
            )
        }
    }
}

impl<T> Error for Full<T> {}

/// Pushes all of `entries` or none.
///
/// # Safety
///
/// What the SQEs point to must stay valid until they have posted.
unsafe fn push_whole<E: ExtEntry, T>(
    whole: T,
    entries: impl FnOnce(&T) -> &[E],
    sq: &mut SubmissionQueue<'_, E>,
) -> Result<(), Full<T>> {
    let entries = entries(&whole);
    let needed = entries.len();
    // SAFETY: The caller keeps valid what the SQEs point to.
    match unsafe { sq.push_multiple(entries) } {
        Ok(()) => Ok(()),
        Err(_) => Err(Full {
            group: whole,
            needed,
            free: sq.capacity() - sq.len(),
            capacity: sq.capacity(),
        }),
    }
}

impl<E: ExtEntry> Builder<E> {
    /// Adds a member. Members are issued in the order in which they are added,
    /// and do not wait for each other.
    #[must_use]
    pub fn member(mut self, sqe: impl Into<E>) -> Self {
        self.entries.push(sqe.into());
        self
    }

    /// Adds several members.
    #[must_use]
    pub fn members(mut self, sqes: impl IntoIterator<Item = E>) -> Self {
        self.entries.extend(sqes);
        self
    }

    /// The next SQE, or group, waits until this group is done, and is cancelled
    /// if anything in the group failed.
    #[must_use]
    pub fn link(self) -> Self {
        self.leader_flags(Flags::IO_LINK)
    }

    /// The next SQE, or group, waits until this group is done, and runs in any
    /// case.
    #[must_use]
    pub fn hardlink(self) -> Self {
        self.leader_flags(Flags::IO_HARDLINK)
    }

    /// The group waits for everything that was submitted before it.
    #[must_use]
    pub fn drain(self) -> Self {
        self.leader_flags(Flags::IO_DRAIN)
    }

    /// No CQE for the members added so far, unless they fail: a group that
    /// succeeds posts one CQE, the leader's.
    #[must_use]
    pub fn members_skip_success(mut self) -> Self {
        for sqe in &mut self.entries[1..] {
            sqe.raw_mut().flags |= Flags::SKIP_SUCCESS.bits();
        }
        self
    }

    fn leader_flags(mut self, flags: Flags) -> Self {
        self.entries[0].raw_mut().flags |= flags.bits();
        self
    }

    /// Checks what can be checked without a kernel, and marks the SQEs as a
    /// group. A leader without members stays a plain request, and is not held to
    /// the rules of groups.
    pub fn build(mut self) -> Result<Group<E>, BuildError> {
        if self.entries.len() > 1 {
            for (at, sqe) in self.entries.iter_mut().enumerate() {
                check(at, sqe)?;
            }
        }
        Ok(Group::raw(self.entries))
    }
}

/// Refuses what the kernel refuses, and moves a personality to where it is looked
/// for once there are extended flags.
fn check<E: ExtEntry>(at: usize, sqe: &mut E) -> Result<(), BuildError> {
    let raw = sqe.raw_mut();
    let flags = Flags::from_bits_retain(raw.flags);

    if raw.opcode == opcode::LinkTimeout::CODE {
        return Err(BuildError::LinkTimeout { at });
    }
    if at == 0 {
        if raw.opcode == opcode::SendZc::CODE || raw.opcode == opcode::SendMsgZc::CODE {
            return Err(BuildError::ZeroCopyLeader);
        }
    } else if flags.intersects(LEADER_ONLY) {
        let flags = flags & LEADER_ONLY;
        return Err(BuildError::MemberFlags { at, flags });
    }

    if raw.flags & IOSQE_HAS_EXT_FLAGS != 0 {
        let ext_flags = raw.ext_flags;
        if ext_flags & !IOSQE_EXT_SQE_GROUP != 0 {
            return Err(BuildError::UnknownExtFlags { at, ext_flags });
        }
        return Ok(());
    }
    // The last SQE needs no extended flags, but a personality that worked in one
    // place of a group and not in another would be a trap.
    let personality = raw.personality();
    if personality != 0 {
        let small =
            u8::try_from(personality).map_err(|_| BuildError::Personality { at, personality })?;
        raw.flags |= IOSQE_HAS_EXT_FLAGS;
        raw.ext_flags = 0;
        raw.ext_personality = small;
    }
    Ok(())
}

impl<E: ExtEntry> Group<E> {
    /// Starts a group with its leader.
    pub fn builder(leader: impl Into<E>) -> Builder<E> {
        Builder {
            entries: vec![leader.into()],
        }
    }

    /// A group of these SQEs, leader first, unchecked but for the group flags,
    /// which are set on all but the last and cleared on the last. For tests, and
    /// for kernels that allow more than this knows of.
    pub fn raw(mut entries: Vec<E>) -> Self {
        if let Some((last, others)) = entries.split_last_mut() {
            for sqe in others {
                let raw = sqe.raw_mut();
                if raw.flags & IOSQE_HAS_EXT_FLAGS == 0 {
                    raw.flags |= IOSQE_HAS_EXT_FLAGS;
                    raw.ext_flags = 0;
                }
                raw.ext_flags |= IOSQE_EXT_SQE_GROUP;
            }
            let raw = last.raw_mut();
            if raw.flags & IOSQE_HAS_EXT_FLAGS != 0 {
                raw.ext_flags &= !IOSQE_EXT_SQE_GROUP;
            }
        }
        Self { entries }
    }

    /// The SQEs as they will be submitted, leader first.
    pub fn entries(&self) -> &[E] {
        &self.entries
    }

    /// The SQEs as they would be submitted, leader first.
    pub fn into_entries(self) -> Vec<E> {
        self.entries
    }

    /// Pushes the whole group, or nothing. Half a group must never be seen by the
    /// kernel: it would be taken as a shorter group.
    ///
    /// # Safety
    ///
    /// What the SQEs point to (buffers, paths, ...) must stay valid, and their descriptors
    /// open, until the leader's CQE has been posted: a member may start long after the
    /// submission. The buffer of a zero-copy send is used until its notification, which may
    /// come after the leader's CQE. If the leader has `SKIP_SUCCESS`, another request has to
    /// tell when that is.
    pub unsafe fn push(self, sq: &mut SubmissionQueue<'_, E>) -> Result<(), Full<Self>> {
        // SAFETY: The caller keeps valid what the SQEs point to.
        unsafe { push_whole(self, |group| &group.entries, sq) }
    }

    /// Something that recognises the CQEs of this group by their `user_data`,
    /// which must differ within the group.
    pub fn tracker(&self) -> Tracker {
        Tracker {
            user_data: self.entries.iter().map(E::get_user_data).collect(),
            results: vec![None; self.entries.len()],
        }
    }
}

/// An element of a [`Chain`]: a group, or a single request.
#[derive(Clone, Debug)]
pub struct Element<E = Entry>(Vec<E>);

impl<E: ExtEntry> From<Group<E>> for Element<E> {
    fn from(group: Group<E>) -> Self {
        Self(group.entries)
    }
}

impl From<Entry> for Element {
    fn from(sqe: Entry) -> Self {
        Self(vec![sqe])
    }
}

impl From<Entry128> for Element<Entry128> {
    fn from(sqe: Entry128) -> Self {
        Self(vec![sqe])
    }
}

/// Groups and single requests, one after the other: each starts when all of the one before
/// it is done. If that has failed, it is cancelled, and so are those behind it.
///
/// The elements' links are set here. One that has a hard link keeps it, and the next is
/// started in any case.
///
/// ```
/// use harness::group::{Chain, Group};
/// use io_uring::{opcode, types::{Fd, Timespec}};
///
/// # let (source, first, second, mut block) = (Fd(3), Fd(4), Fd(5), [0_u8; 512]);
/// # let (buf, len) = (block.as_mut_ptr(), 512);
/// let copy: Group = Group::builder(opcode::Read::new(source, buf, len).build())
///     .member(opcode::Write::new(first, buf, len).build())
///     .member(opcode::Write::new(second, buf, len).build())
///     .build()?;
/// let deadline = Timespec::new().sec(1);
///
/// // Copy, in a second at most, and then sync.
/// let chain = Chain::new(copy)
///     .then(opcode::LinkTimeout::new(&deadline).build())
///     .then(opcode::Fsync::new(first).build());
/// assert_eq!(chain.entries().len(), 5);
/// # Ok::<(), harness::group::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Chain<E = Entry> {
    entries: Vec<E>,
    /// Where the last element begins.
    last: usize,
}

impl<E: ExtEntry> Chain<E> {
    /// Starts a chain.
    pub fn new(first: impl Into<Element<E>>) -> Self {
        let Element(entries) = first.into();
        Self { entries, last: 0 }
    }

    /// Adds what comes next, and links the last element to it.
    #[must_use]
    pub fn then(mut self, next: impl Into<Element<E>>) -> Self {
        if let Some(head) = self.entries.get_mut(self.last) {
            let raw = head.raw_mut();
            if raw.flags & Flags::IO_HARDLINK.bits() == 0 {
                raw.flags |= Flags::IO_LINK.bits();
            }
        }
        self.last = self.entries.len();
        let Element(entries) = next.into();
        self.entries.extend(entries);
        self
    }

    /// The SQEs as they will be submitted.
    pub fn entries(&self) -> &[E] {
        &self.entries
    }

    /// Pushes the whole chain, or nothing. Half a chain would end with the submission that
    /// takes it.
    ///
    /// # Safety
    ///
    /// What the SQEs point to must stay valid until the chain's last CQE has been posted.
    pub unsafe fn push(self, sq: &mut SubmissionQueue<'_, E>) -> Result<(), Full<Self>> {
        // SAFETY: The caller keeps valid what the SQEs point to.
        unsafe { push_whole(self, |chain| &chain.entries, sq) }
    }
}

/// Puts the CQEs of one group together.
///
/// ```
/// use harness::group::{Group, Outcome, Progress};
/// use io_uring::opcode::Nop;
///
/// let group: Group = Group::builder(Nop::new().build().user_data(1))
///     .member(Nop::new().build().user_data(2))
///     .member(Nop::new().build().user_data(3))
///     .members_skip_success()
///     .build()?;
/// let mut tracker = group.tracker();
/// // Another request's CQE, then that of a member that failed, then the leader's.
/// assert_eq!(tracker.feed(9, 0, 0), Progress::Other);
/// assert_eq!(tracker.feed(3, -5, 0), Progress::Pending);
/// let Progress::Done(outcome) = tracker.feed(1, 0, 0) else { panic!() };
/// assert_eq!(outcome.leader, Some(0));
/// assert_eq!(outcome.members, [None, Some(-5)]);
/// assert!(!outcome.succeeded());
/// # Ok::<(), harness::group::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tracker {
    user_data: Vec<u64>,
    results: Vec<Option<i32>>,
}

/// What a CQE meant to a [`Tracker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The CQE belongs to something else.
    Other,
    /// The CQE is of the group, which goes on: a member's, or one that a multishot leader
    /// posts on its way. Or it is the notification of a zero-copy send, which may come when
    /// the group is done.
    Pending,
    /// The CQE was the leader's last, which comes behind all others: the group is done.
    Done(Outcome),
}

/// How a group ended. No result means that there was no CQE, because of
/// `CQE_SKIP_SUCCESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The leader's result
    pub leader: Option<i32>,
    /// The members' results, in the order of submission
    pub members: Vec<Option<i32>>,
}

impl Outcome {
    /// Whether no result is an error. A short read or write is not seen here.
    pub fn succeeded(&self) -> bool {
        let mut all = self.members.iter().chain([&self.leader]);
        all.all(|result| result.is_none_or(|result| result >= 0))
    }
}

impl Tracker {
    /// Takes a CQE in. A leader with `CQE_SKIP_SUCCESS` cannot be tracked: nothing
    /// tells that its group is done.
    ///
    /// Of a request that posts more than once its last result counts. When the group is
    /// done, the tracker is as new, for the next group with the same `user_data`.
    pub fn feed(&mut self, user_data: u64, result: i32, flags: u32) -> Progress {
        let Some(at) = self.user_data.iter().position(|&ud| ud == user_data) else {
            return Progress::Other;
        };
        // Its result is none of the send's.
        if cqueue::notif(flags) {
            return Progress::Pending;
        }
        self.results[at] = Some(result);
        if at > 0 || cqueue::more(flags) {
            return Progress::Pending;
        }
        let mut results = self.results.iter_mut().map(Option::take);
        Progress::Done(Outcome {
            leader: results.next().flatten(),
            members: results.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqe::HAS_EXT_FLAGS;
    use io_uring::squeue::Entry128;
    use io_uring::types::{Fd, Timespec};
    use io_uring::IoUring;
    use rstest::rstest;

    fn nop(user_data: u64) -> Entry {
        opcode::Nop::new().build().user_data(user_data)
    }

    fn grouped<E: ExtEntry>(group: &Group<E>) -> Vec<bool> {
        group
            .entries()
            .iter()
            .map(|sqe| sqe.raw().in_group())
            .collect()
    }

    #[test]
    fn all_but_the_last_carry_the_flag() {
        let group: Group = Group::builder(nop(1))
            .member(nop(2))
            .member(nop(3))
            .build()
            .unwrap();
        assert_eq!(grouped(&group), [true, true, false]);
        // The last needs no extended flags at all.
        assert_eq!(group.entries()[2].raw().flags, 0);
    }

    #[test]
    fn wide_entries_can_be_grouped() {
        let group: Group<Entry128> = Group::builder(nop(1)).member(nop(2)).build().unwrap();
        assert_eq!(grouped(&group), [true, false]);
    }

    #[test]
    fn a_leader_alone_is_a_plain_request() {
        let ts = Timespec::new();
        let lone = opcode::LinkTimeout::new(&ts).build();
        let group: Group = Group::builder(lone).build().unwrap();
        assert_eq!(grouped(&group), [false]);
        assert_eq!(group.entries()[0].raw().flags, 0);
    }

    #[rstest]
    #[case(Flags::IO_LINK)]
    #[case(Flags::IO_HARDLINK)]
    #[case(Flags::IO_DRAIN)]
    #[case(Flags::IO_LINK | Flags::IO_DRAIN)]
    fn members_do_not_link_or_drain(#[case] flags: Flags) {
        for at in 1..4 {
            let members = (1..4).map(|i| {
                let sqe = nop(i as u64);
                if i == at {
                    sqe.flags(flags | Flags::ASYNC)
                } else {
                    sqe
                }
            });
            let built = Group::builder(nop(0)).members(members).build();
            assert_eq!(built.unwrap_err(), BuildError::MemberFlags { at, flags });
        }
    }

    #[test]
    fn a_leader_takes_every_flag() {
        for bits in 0..=0x7f {
            let leader = nop(1).flags(Flags::from_bits_retain(bits));
            let group: Group = Group::builder(leader).member(nop(2)).build().unwrap();
            assert_eq!(group.entries()[0].raw().flags, bits | IOSQE_HAS_EXT_FLAGS);
        }
        let group: Group = Group::builder(nop(1))
            .member(nop(2))
            .link()
            .drain()
            .build()
            .unwrap();
        let flags = Flags::IO_LINK | Flags::IO_DRAIN | HAS_EXT_FLAGS;
        assert_eq!(group.entries()[0].raw().flags, flags.bits());
    }

    #[test]
    fn link_timeout_has_no_place_in_a_group() {
        let ts = Timespec::new();
        let timeout = || opcode::LinkTimeout::new(&ts).build();
        let led: Result<Group, _> = Group::builder(timeout()).member(nop(1)).build();
        assert_eq!(led.unwrap_err(), BuildError::LinkTimeout { at: 0 });
        let member: Result<Group, _> = Group::builder(nop(1)).member(timeout()).build();
        assert_eq!(member.unwrap_err(), BuildError::LinkTimeout { at: 1 });
    }

    #[test]
    fn zero_copy_sends_follow_and_do_not_lead() {
        let data = [0u8; 4];
        let send = || opcode::SendZc::new(Fd(0), data.as_ptr(), 4).build();
        let led: Result<Group, _> = Group::builder(send()).member(nop(1)).build();
        assert_eq!(led.unwrap_err(), BuildError::ZeroCopyLeader);
        let member: Result<Group, _> = Group::builder(nop(1)).member(send()).build();
        assert!(member.is_ok());
    }

    #[test]
    fn personalities_move_to_their_place() {
        let group: Group = Group::builder(nop(1).personality(200))
            .member(nop(2).personality(255))
            .build()
            .unwrap();
        for (sqe, personality) in group.entries().iter().zip([200, 255]) {
            assert_eq!(sqe.raw().flags, IOSQE_HAS_EXT_FLAGS);
            assert_eq!(sqe.raw().ext_personality, personality);
        }
        assert_eq!(grouped(&group), [true, false]);

        let big = Group::builder(nop(1))
            .member(nop(2).personality(256))
            .build();
        let error = BuildError::Personality {
            at: 1,
            personality: 256,
        };
        assert_eq!(big.map(|g: Group| g).unwrap_err(), error);
    }

    #[test]
    fn unknown_extended_flags_are_refused() {
        let built: Result<Group, _> = Group::builder(nop(1).ext_flags(0x80))
            .member(nop(2))
            .build();
        let error = BuildError::UnknownExtFlags {
            at: 0,
            ext_flags: 0x80,
        };
        assert_eq!(built.unwrap_err(), error);
    }

    #[test]
    fn raw_lets_everything_through() {
        let group = Group::raw(vec![
            nop(1),
            nop(2).flags(Flags::IO_LINK).ext_flags(0x40),
            nop(3).ext_flags(IOSQE_EXT_SQE_GROUP),
        ]);
        assert_eq!(grouped(&group), [true, true, false]);
        assert_eq!(group.entries()[1].raw().ext_flags, 0x41);
        assert!(Group::<Entry>::raw(Vec::new()).entries().is_empty());
    }

    #[test]
    fn skipping_is_for_the_members_so_far() {
        let group: Group = Group::builder(nop(1))
            .member(nop(2))
            .members_skip_success()
            .member(nop(3))
            .build()
            .unwrap();
        let skips: Vec<_> = group
            .entries()
            .iter()
            .map(|sqe| sqe.raw().flags & Flags::SKIP_SUCCESS.bits() != 0)
            .collect();
        assert_eq!(skips, [false, true, false]);
    }

    /// Needs a ring, not groups: nothing is submitted.
    #[test]
    fn push_takes_all_or_nothing() {
        let Ok(mut ring) = IoUring::new(4) else {
            eprintln!("io_uring is not to be had here: not tested");
            return;
        };
        let mut sq = ring.submission();
        let three = || -> Group {
            Group::builder(nop(1))
                .member(nop(2))
                .member(nop(3))
                .build()
                .unwrap()
        };
        // SAFETY: NOPs point nowhere.
        unsafe { three().push(&mut sq) }.unwrap();
        assert_eq!(sq.len(), 3);
        // SAFETY: NOPs point nowhere.
        let full = unsafe { three().push(&mut sq) }.unwrap_err();
        assert_eq!(sq.len(), 3, "part of a group was pushed");
        assert_eq!((full.free, full.capacity), (1, 4));
        assert_eq!(full.group.entries().len(), 3);
        assert!(full.to_string().contains("1 of 4 entries are free"));

        let six: Group = Group::builder(nop(1))
            .members((2..7).map(nop))
            .build()
            .unwrap();
        // SAFETY: NOPs point nowhere.
        let full = unsafe { six.push(&mut sq) }.unwrap_err();
        assert!(full.to_string().contains("never fit"));

        // A chain is as much one as a group is.
        let chain = Chain::new(nop(8)).then(nop(9));
        // SAFETY: NOPs point nowhere.
        let full = unsafe { chain.push(&mut sq) }.unwrap_err();
        assert_eq!((sq.len(), full.needed), (3, 2));
        // SAFETY: NOPs point nowhere.
        unsafe { Chain::new(nop(8)).push(&mut sq) }.unwrap();
        assert_eq!(sq.len(), 4);
    }

    #[test]
    fn heads_of_a_chain_are_linked() {
        let group = |link: fn(Builder) -> Builder| {
            let builder = Group::builder(nop(1)).member(nop(2)).member(nop(3));
            link(builder).build().unwrap()
        };
        let chain = Chain::new(nop(0))
            .then(group(|group| group))
            .then(group(Builder::hardlink))
            .then(nop(9));
        let link = |entry: &Entry| entry.raw().flags & LEADER_ONLY.bits();
        let (soft, hard) = (Flags::IO_LINK.bits(), Flags::IO_HARDLINK.bits());
        let links: Vec<_> = chain.entries().iter().map(link).collect();
        assert_eq!(links, [soft, soft, 0, 0, hard, 0, 0, 0]);
        let members: Vec<_> = chain.entries().iter().map(|e| e.raw().in_group()).collect();
        let one = [true, true, false];
        assert_eq!(members[1..7], [one, one].concat());
        assert!(!members[0] && !members[7]);
        assert_eq!(link(&Chain::new(nop(0)).entries()[0]), 0);
    }

    #[test]
    fn tracker_waits_for_the_leader() {
        let group: Group = Group::builder(nop(10))
            .member(nop(11))
            .member(nop(12))
            .build()
            .unwrap();
        let mut tracker = group.tracker();
        assert_eq!(tracker.feed(12, 4, 0), Progress::Pending);
        assert_eq!(tracker.feed(13, 4, 0), Progress::Other);
        assert_eq!(tracker.feed(11, 5, 0), Progress::Pending);
        let outcome = Outcome {
            leader: Some(6),
            members: vec![Some(5), Some(4)],
        };
        assert!(outcome.succeeded());
        assert_eq!(tracker.feed(10, 6, 0), Progress::Done(outcome));

        // The next one, of the same numbers.
        let outcome = Outcome {
            leader: Some(-5),
            members: vec![Some(-125), None],
        };
        assert_eq!(tracker.feed(11, -125, 0), Progress::Pending);
        assert_eq!(tracker.feed(10, -5, 0), Progress::Done(outcome));
    }

    #[test]
    fn tracker_knows_which_cqe_is_the_last() {
        const MORE: u32 = 1 << 1;
        const NOTIF: u32 = 1 << 3;
        assert!(cqueue::more(MORE) && cqueue::notif(NOTIF));
        let group: Group = Group::builder(nop(1)).member(nop(2)).build().unwrap();
        let mut tracker = group.tracker();
        // A multishot leader, whose last shot is its result.
        assert_eq!(tracker.feed(1, 7, MORE), Progress::Pending);
        assert_eq!(tracker.feed(1, 8, MORE), Progress::Pending);
        // A zero-copy send, whose notification has a result of its own.
        assert_eq!(tracker.feed(2, 512, MORE), Progress::Pending);
        assert_eq!(tracker.feed(2, 0, NOTIF), Progress::Pending);
        let outcome = Outcome {
            leader: Some(9),
            members: vec![Some(512)],
        };
        assert_eq!(tracker.feed(1, 9, 0), Progress::Done(outcome));
        // It may come later, too, and is none of the next group's results.
        assert_eq!(tracker.feed(2, 0, NOTIF), Progress::Pending);
        let outcome = Outcome {
            leader: Some(1),
            members: vec![None],
        };
        assert_eq!(tracker.feed(1, 1, 0), Progress::Done(outcome));
    }
}
