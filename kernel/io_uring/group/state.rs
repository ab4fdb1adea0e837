// SPDX-License-Identifier: GPL-2.0

//! The states of SQE groups, and every transition between them.
//!
//! This is the pure part: no `unsafe`, no `kernel::`, no allocation. It decides what happens to a
//! group and says so in verdicts; `group.rs` applies them to requests. It compiles on the host
//! too, where it is tested over every order of events.
//!
//! # The life of a group
//!
//! ```text
//!            open           close           start            lead
//!   (SQEs) -------> Forming -----> Waiting ------> Leading ---------+
//!                    | join^                \                       |
//!                    +----+                  \  lead (it never ran) |
//!                                             \                     v
//!          last of account, release            +--------------> Withheld
//!   Done <-------------------------- Joining <------- Issuing <-----+
//!                                     | account^ release | next^   fan_out
//!                                     +--------+         +-----+
//! ```
//!
//! 1. [`Phase::Forming`]: submission is inside the group. SQEs join it as members. It is not yet
//!    known whether all of them are good, so nothing of it may be issued.
//! 2. [`Phase::Waiting`]: the group is complete, its leader waits for its turn: behind a link, or
//!    behind a drain. Told apart from the next as a cancellation does not find requests that wait.
//! 3. [`Phase::Leading`]: the leader has been handed to its opcode and has not completed.
//! 4. [`Phase::Withheld`]: the leader has completed. Its CQE is withheld, it keeps what it holds,
//!    and task work that does the fan-out is queued.
//! 5. [`Phase::Issuing`]: that task work runs, and issues the members or fails them one by one.
//!    Members complete meanwhile, but not the last one of the group: the fan-out has a reference.
//! 6. [`Phase::Joining`]: each member has been issued or failed, some have not completed.
//! 7. [`Phase::Done`]: all of them have. The leader is handed back, and from then on is a request
//!    like any other: it posts its CQE, advances its link and is freed.
//!
//! The phase says where the group is. What has become of it is said by marks, which are set in
//! any phase and never cleared, see [`Mark`].
//!
//! # The life of a member
//!
//! 1. It is *held* by its leader, from [`Group::join`] on. A cancellation may strike it there.
//! 2. It is *issued*: the fan-out has taken it from its leader, and has handed it to its opcode or
//!    failed it, as [`Group::next`] says.
//! 3. It leaves the group with [`Group::account`], when its CQE is about to be posted.
//!
//! Which of these it is in takes no bit: the binding knows by the leader's list, and by
//! `REQ_F_GROUP`, which a member that was accounted for doesn't have any more. What [`Member`]
//! keeps is what the fan-out has to know of one.

use core::ffi::CStr;

/// Where a group is in its life, see the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// SQEs are joining.
    Forming = 0,
    /// Complete, and not started.
    Waiting = 1,
    /// The leader runs.
    Leading = 2,
    /// The leader has completed, the fan-out is queued.
    Withheld = 3,
    /// The fan-out runs.
    Issuing = 4,
    /// Members are in flight, and nothing else is left to do.
    Joining = 5,
    /// The leader is a plain request again.
    Done = 6,
}

impl Phase {
    /// As whoever watches groups gets to see it.
    pub const fn name(self) -> &'static CStr {
        match self {
            Phase::Forming => c"forming",
            Phase::Waiting => c"waiting",
            Phase::Leading => c"leading",
            Phase::Withheld => c"withheld",
            Phase::Issuing => c"issuing",
            Phase::Joining => c"joining",
            Phase::Done => c"done",
        }
    }
}

/// What has become of a group. A mark once set stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// There are members that are not just to be issued inline. See [`Group::STOP`].
    Uneven = 1 << 27,
    /// A request of the group has failed: the chain behind it is broken.
    Failed = 1 << 28,
    /// The leader has failed: members that are not issued get `-EIO`.
    LeaderFailed = 1 << 29,
    /// The group was cancelled: members that are not issued get `-ECANCELED`.
    Cancelled = 1 << 30,
    /// The group is in the rest of a broken chain whose CQEs are not posted.
    Dropped = 1 << 31,
}

/// How the leader has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not failed.
    Success,
    /// It has failed with any error but `-ECANCELED`.
    Failure,
    /// It was cancelled, by itself or with its chain.
    Cancelled,
}

/// What the fan-out does with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a member is issued, or fails"]
pub enum Verdict {
    /// Hand it to its opcode.
    Issue,
    /// It was bad from the start: it completes with the error it has.
    FailOwn,
    /// It completes with `-ECANCELED`.
    FailCancelled,
    /// It completes with `-EIO`.
    FailIo,
}

/// Whether a reference was the last one of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the last one hands back the leader"]
pub enum Last {
    /// It was, the group is done: hand back the leader.
    Yes,
    /// It was not.
    No,
}

/// State of a group, as kept in `grp_refs` of its leader.
///
/// From the low end: 23 bits of references, 4 bits of [`Phase`], 5 [`Mark`]s. A reference is held
/// by each member until it is accounted, and one by the leader until it has completed and its
/// members have been issued.
///
/// # Invariants
///
/// * The bits of the phase hold a [`Phase`].
/// * In [`Phase::Done`], and in no other, there is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a state is to be stored"]
pub struct Group(u32);

impl Group {
    const REF: u32 = 1;
    const REFS: u32 = (1 << Self::PHASE_SHIFT) - 1;
    const PHASE_SHIFT: u32 = 23;
    const PHASE: u32 = 0xf << Self::PHASE_SHIFT;

    /// The most members a group can have. The SQ is what limits them, at 32768 entries.
    pub const MAX_MEMBERS: u32 = Self::REFS - 1;

    /// As long as none of these is set in [`Group::into_raw`], [`Group::next`] says
    /// [`Verdict::Issue`] of every member, and it is issued inline.
    pub const STOP: u32 = Mark::Uneven as u32 | Mark::Cancelled as u32 | Mark::LeaderFailed as u32;

    /// A group without members: its leader has been taken.
    #[inline]
    pub const fn open() -> Self {
        Group(Self::REF)
    }

    /// The group that [`Group::into_raw`] was called on.
    #[inline]
    pub const fn from_raw(raw: u32) -> Self {
        Group(raw)
    }

    /// The state as it is stored.
    #[inline]
    pub const fn into_raw(self) -> u32 {
        self.0
    }

    /// Where the group is.
    #[inline]
    pub const fn phase(self) -> Phase {
        match (self.0 & Self::PHASE) >> Self::PHASE_SHIFT {
            0 => Phase::Forming,
            1 => Phase::Waiting,
            2 => Phase::Leading,
            3 => Phase::Withheld,
            4 => Phase::Issuing,
            5 => Phase::Joining,
            _ => Phase::Done,
        }
    }

    /// Whether `mark` has been set.
    #[inline]
    pub const fn is(self, mark: Mark) -> bool {
        self.0 & mark as u32 != 0
    }

    /// Members that have not been accounted for.
    #[inline]
    pub const fn members(self) -> u32 {
        let refs = self.0 & Self::REFS;

        match self.phase() {
            Phase::Joining | Phase::Done => refs,
            _ => refs - Self::REF,
        }
    }

    #[inline]
    const fn with(self, mark: Mark) -> Self {
        Group(self.0 | mark as u32)
    }

    #[inline]
    fn enter(self, from: &[Phase], to: Phase) -> Self {
        debug_assert!(from.contains(&self.phase()));
        Group(self.0 & !Self::PHASE | (to as u32) << Self::PHASE_SHIFT)
    }

    #[inline]
    fn put(self, refs: u32) -> (Self, Last) {
        debug_assert!(self.0 & Self::REFS >= refs);
        let group = Group(self.0 - refs * Self::REF);

        if group.0 & Self::REFS == 0 {
            (group.enter(&[Phase::Joining], Phase::Done), Last::Yes)
        } else {
            (group, Last::No)
        }
    }

    /// An SQE becomes a member.
    #[inline]
    pub fn join(self) -> Self {
        debug_assert!(self.phase() == Phase::Forming && self.members() < Self::MAX_MEMBERS);
        Group(self.0 + Self::REF)
    }

    /// A member is to be looked at by the fan-out, rather than just be issued inline: it is bad, or
    /// was cancelled, or there is more to do for issuing it.
    #[inline]
    pub const fn single_out(self) -> Self {
        self.with(Mark::Uneven)
    }

    /// The rest of the SQEs cannot be taken. To be followed by [`Group::close`].
    #[inline]
    pub fn abort(self) -> Self {
        debug_assert!(self.phase() == Phase::Forming);
        self.with(Mark::Cancelled)
    }

    /// The last SQE of the group has been taken.
    #[inline]
    pub fn close(self) -> Self {
        self.enter(&[Phase::Forming], Phase::Waiting)
    }

    /// The leader is handed to its opcode. It may be handed over again, after it was punted or
    /// polled for, and that changes nothing.
    #[inline]
    pub fn start(self) -> Self {
        self.enter(&[Phase::Waiting, Phase::Leading], Phase::Leading)
    }

    /// The leader has completed, with `outcome`. `dropped` is whether its chain had been broken
    /// before, by a request that takes the CQEs of the rest with it.
    ///
    /// A leader that never ran completes as well: with its chain, or as its group is bad.
    #[inline]
    pub fn lead(self, outcome: Outcome, dropped: bool) -> Self {
        let mut group = self.enter(&[Phase::Waiting, Phase::Leading], Phase::Withheld);

        match outcome {
            Outcome::Success => {}
            Outcome::Failure => group = group.with(Mark::Failed).with(Mark::LeaderFailed),
            Outcome::Cancelled => group = group.with(Mark::Failed).with(Mark::Cancelled),
        }
        if dropped {
            group = group.with(Mark::Dropped);
        }
        group
    }

    /// The fan-out begins. `cancel` is whether the ring or the task is on its way out.
    #[inline]
    pub fn fan_out(self, cancel: bool) -> Self {
        let group = self.enter(&[Phase::Withheld], Phase::Issuing);

        if cancel {
            group.with(Mark::Cancelled)
        } else {
            group
        }
    }

    /// What the fan-out does with `member`, the next one that is held.
    ///
    /// To be asked for each one anew: what was issued before may have cancelled the group.
    #[inline]
    pub fn next(self, member: Member) -> Verdict {
        debug_assert!(self.phase() == Phase::Issuing);
        debug_assert!(member.is_pending() || self.is(Mark::Uneven));

        if member.0 & Member::BAD != 0 {
            Verdict::FailOwn
        } else if self.is(Mark::Cancelled) || member.0 & Member::CANCELLED != 0 {
            Verdict::FailCancelled
        } else if self.is(Mark::LeaderFailed) {
            Verdict::FailIo
        } else {
            Verdict::Issue
        }
    }

    /// The fan-out is over, and with it the reference of the leader.
    #[inline]
    pub fn release(self) -> (Self, Last) {
        self.enter(&[Phase::Issuing], Phase::Joining).put(1)
    }

    /// That many members have completed, and one of them may have `failed`.
    #[inline]
    pub fn account(self, members: u32, failed: bool) -> (Self, Last) {
        debug_assert!(matches!(self.phase(), Phase::Issuing | Phase::Joining));
        let group = if failed {
            self.with(Mark::Failed)
        } else {
            self
        };

        group.put(members)
    }

    /// The whole group is cancelled, after it has been started. `pending` is whether it has members
    /// which are, see [`Member::is_pending`]. Returns whether it is them that are cancelled by
    /// this; requests that run are to be looked for in any case.
    #[inline]
    pub fn cancel(self, pending: bool) -> (Self, bool) {
        debug_assert!(!matches!(
            self.phase(),
            Phase::Forming | Phase::Waiting | Phase::Done
        ));
        let newly = pending && !self.is(Mark::Cancelled);

        (self.with(Mark::Cancelled), newly)
    }
}

/// State of a member, as kept in its `grp_refs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a state is to be stored"]
pub struct Member(u32);

impl Member {
    /// Bits that no group has at the same time, its references end below them.
    const MEMBER: u32 = 0xf << Group::PHASE_SHIFT;
    const BAD: u32 = 1 << 0;
    const CANCELLED: u32 = 1 << 1;

    /// A member whose SQE has just been taken. `bad` is whether it can't be executed; it has its
    /// error then.
    #[inline]
    pub const fn join(bad: bool) -> Self {
        Member(Self::MEMBER | if bad { Self::BAD } else { 0 })
    }

    /// The member that [`Member::into_raw`] was called on, or nothing if it was a [`Group`].
    #[inline]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        if raw & Self::MEMBER == Self::MEMBER {
            Some(Member(raw))
        } else {
            None
        }
    }

    /// The state as it is stored.
    #[inline]
    pub const fn into_raw(self) -> u32 {
        self.0
    }

    /// Whether nothing but its leader stands between it and its opcode, as long as it is held.
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.0 & (Self::BAD | Self::CANCELLED) == 0
    }

    /// A cancellation matches the member, which is held. Returns whether it is cancelled by this:
    /// once is enough, and a bad one fails anyway. To be followed by [`Group::single_out`] if so.
    #[inline]
    pub fn cancel(self) -> (Self, bool) {
        if self.is_pending() {
            (Member(self.0 | Self::CANCELLED), true)
        } else {
            (self, false)
        }
    }
}
