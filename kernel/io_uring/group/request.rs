// SPDX-License-Identifier: GPL-2.0

//! Views of `struct io_kiocb` by the part a request plays in a group.
//!
//! Apart from the loop that issues members, and `io_group_has()`, this is the only place that knows
//! in which fields of C a group is kept, and how its requests hang together:
//!
//! * A leader's `grp_refs` is a [`Group`], a member's is a [`state::Member`].
//! * A leader's `grp_held` heads the list of members that are held, by their `comp_list`. While
//!   members join it isn't terminated, and the leader's own `comp_list` is its tail: the node to
//!   link the next one to. A member's `grp_leader` is its leader.
//! * `ctx->groups` lists the groups that were started and are not done. A group is hooked there by
//!   the `hash_node` of its first member as long as that is held, since the leader may need its own
//!   while it runs. From the fan-out on it is the other way round.
//!
//! [`Group`]: crate::state::Group
//! [`state::Member`]: crate::state::Member

use crate::state::{self, Group, Mark, Outcome, Phase};
use crate::trace;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use kernel::{bindings, container_of, error::code, prelude::CStr, str::CStrExt};

const GROUP: u64 = bindings::REQ_F_GROUP as u64;
const REISSUE: u64 = bindings::REQ_F_REISSUE as u64;
const INFLIGHT: u64 = bindings::REQ_F_INFLIGHT as u64;
const FAIL: u64 = bindings::REQ_F_FAIL as u64;
const LINK: u64 = bindings::REQ_F_LINK as u64;
const HARDLINK: u64 = bindings::REQ_F_HARDLINK as u64;
const CQE_SKIP: u64 = bindings::REQ_F_CQE_SKIP as u64;
const SKIP_LINK_CQES: u64 = bindings::REQ_F_SKIP_LINK_CQES as u64;

/// A request, of a group or about to become so.
///
/// # Invariants
///
/// As long as this exists,
///
/// * *Live*: it points to a `struct io_kiocb` that is initialised and is not freed.
/// * *Locked*: the `uring_lock` of its ring is held. What is written here is written by nobody
///   else meanwhile: all of a group is protected by that lock, and the other fields belong to
///   whoever runs the request, and are accessed while nobody does, but for `opcode` and
///   `cqe.user_data`, which a worker only reads. There is one reader without the lock,
///   `io_has_groups()` of the head of the list of groups, which is written accordingly.
///
/// Views of a request may be copied from each other. No reference to a C object is made of them,
/// so that two views of one request alias nothing.
pub(crate) struct Request(NonNull<bindings::io_kiocb>);

impl Request {
    /// # Safety
    ///
    /// The invariants *Live* and *Locked* must hold for `req` as long as the result exists, or any
    /// view that comes of it.
    #[inline]
    pub(crate) unsafe fn from_raw(req: *mut bindings::io_kiocb) -> Self {
        // INVARIANT: by the safety requirements.
        // SAFETY: `req` is live, so it is not null.
        Self(unsafe { NonNull::new_unchecked(req) })
    }

    /// For C.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut bindings::io_kiocb {
        self.0.as_ptr()
    }

    #[inline]
    fn flags(&self) -> u64 {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).flags }
    }

    #[inline]
    fn has(&self, flags: u64) -> bool {
        self.flags() & flags != 0
    }

    #[inline]
    fn change_flags(&self, clear: u64, set: u64) {
        // SAFETY: by *Live* and *Locked*.
        unsafe {
            let flags = &raw mut (*self.as_ptr()).flags;
            *flags =
                *flags & !(clear as bindings::io_req_flags_t) | set as bindings::io_req_flags_t;
        }
    }

    #[inline]
    fn word(&self) -> u32 {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).grp_refs }
    }

    #[inline]
    fn set_word(&self, word: u32) {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).grp_refs = word };
    }

    /// Head of the list of members that a leader holds.
    #[inline]
    fn held(&self) -> *mut bindings::io_wq_work_node {
        // SAFETY: by *Live*, the field is in bounds.
        unsafe { &raw mut (*self.as_ptr()).__bindgen_anon_6.grp_held }
    }

    /// What a member has as its leader.
    #[inline]
    fn leader(&self) -> *mut bindings::io_kiocb {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).__bindgen_anon_6.grp_leader }
    }

    #[inline]
    fn res(&self) -> i32 {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).cqe.res }
    }

    #[inline]
    fn opcode(&self) -> u32 {
        // SAFETY: by *Live* and *Locked*.
        unsafe { u32::from((*self.as_ptr()).opcode) }
    }

    /// Name of its opcode.
    pub(crate) fn opcode_name(&self) -> &'static CStr {
        // SAFETY: by *Live* and *Locked*. Names are literals.
        unsafe { CStr::from_char_ptr(bindings::io_uring_get_opcode((*self.as_ptr()).opcode)) }
    }

    /// What its CQE will be known by.
    pub(crate) fn user_data(&self) -> u64 {
        // SAFETY: by *Live* and *Locked*.
        unsafe { (*self.as_ptr()).cqe.user_data }
    }

    /// Its ring.
    #[inline]
    pub(crate) fn ring(&self) -> Ring {
        // INVARIANT: a request that is live keeps its ring, and *Locked* is about that ring.
        // SAFETY: by *Live*, which goes for `ctx` as well, so it is not null.
        Ring(unsafe { NonNull::new_unchecked((*self.as_ptr()).ctx) })
    }

    #[inline]
    fn comp_list(&self) -> *mut bindings::io_wq_work_node {
        // SAFETY: by *Live*, the field is in bounds.
        unsafe { &raw mut (*self.as_ptr()).__bindgen_anon_3.comp_list }
    }

    /// The request whose `comp_list` this is.
    ///
    /// # Safety
    ///
    /// As for `from_raw()`, and `node` must be a `comp_list`.
    #[inline]
    unsafe fn from_comp_list(node: *mut bindings::io_wq_work_node) -> Self {
        // SAFETY: by the safety requirements.
        unsafe {
            Request::from_raw(container_of!(
                node,
                bindings::io_kiocb,
                __bindgen_anon_3.comp_list
            ))
        }
    }

    #[inline]
    fn hash_node(&self) -> *mut bindings::hlist_node {
        // SAFETY: by *Live*, the field is in bounds.
        unsafe { &raw mut (*self.as_ptr()).__bindgen_anon_5.hash_node }
    }

    /// As `req_set_fail()`.
    #[inline]
    fn set_fail(&self) {
        if self.has(CQE_SKIP) {
            self.change_flags(CQE_SKIP, FAIL | SKIP_LINK_CQES);
        } else {
            self.change_flags(0, FAIL);
        }
    }

    /// It has failed. Marks it, as an error that didn't would have no CQE if that is to be skipped.
    /// If its group has been `dropped`, it has none all the same.
    fn fail(&self, dropped: bool) {
        self.set_fail();
        if dropped {
            self.change_flags(0, CQE_SKIP);
        }
    }

    /// As `req_fail_link_node()`.
    pub(crate) fn fail_link_node(&self, err: i32) {
        self.set_fail();
        // SAFETY: by *Live* and *Locked*.
        unsafe {
            (*self.as_ptr()).cqe.res = err;
            (*self.as_ptr()).cqe.__bindgen_anon_1.flags = 0;
        }
    }

    /// Whether its CQE is to be posted, now that it is of no group any more.
    #[inline]
    pub(crate) fn posts(&self) -> bool {
        !self.has(CQE_SKIP)
    }

    /// Whether it has been marked as failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.has(FAIL)
    }

    /// Whether what it completed with is a failure. Not everything that completes with an error
    /// marks its request, and links go on then. A group does not, members must not run on what
    /// their leader did not do. But if a timeout isn't marked that's for its user to want.
    #[inline]
    fn has_failed(&self) -> bool {
        self.has(FAIL)
            || (self.res() < 0 && self.opcode() != bindings::io_uring_op_IORING_OP_TIMEOUT)
    }

    /// Whether the rest of its chain waits for it.
    pub(crate) fn is_linked(&self) -> bool {
        self.has(LINK | HARDLINK)
    }

    /// Whether it can't be the leader of a group: a linked timeout is about the request before
    /// it, and a zero-copy send posts its notification before the CQE that would be withheld.
    pub(crate) fn cant_lead(&self) -> bool {
        matches!(
            self.opcode(),
            bindings::io_uring_op_IORING_OP_LINK_TIMEOUT
                | bindings::io_uring_op_IORING_OP_SEND_ZC
                | bindings::io_uring_op_IORING_OP_SENDMSG_ZC
        )
    }

    /// Whether task exit waits for it.
    pub(crate) fn is_tracked(&self) -> bool {
        self.has(INFLIGHT)
    }

    /// State of the group, if it is a leader.
    ///
    /// # Safety
    ///
    /// The request must have `REQ_F_GROUP`, and it must have been added to its group, or opened it.
    #[inline]
    pub(crate) unsafe fn group(&self) -> Option<Group> {
        match state::Member::from_raw(self.word()) {
            Some(_) => None,
            None => Some(Group::from_raw(self.word())),
        }
    }

    /// The part that a request with `REQ_F_GROUP` plays.
    ///
    /// # Safety
    ///
    /// The request must have `REQ_F_GROUP`, and be of a group that was closed.
    #[inline]
    pub(crate) unsafe fn part(self) -> Part {
        // INVARIANT: by the safety requirements, `grp_refs` is a state, and of which of the two it
        // tells itself.
        match state::Member::from_raw(self.word()) {
            Some(_) => Part::Member(Member(self)),
            None => Part::Leader(Leader(self)),
        }
    }
}

/// The part a request plays in its group.
pub(crate) enum Part {
    /// The first one.
    Leader(Leader),
    /// One of the others.
    Member(Member),
}

/// A ring.
///
/// # Invariants
///
/// *Live* and *Locked*, as for [`Request`].
pub(crate) struct Ring(NonNull<bindings::io_ring_ctx>);

impl Ring {
    /// # Safety
    ///
    /// `ctx` must be a ring that is not freed as long as the result exists, with its `uring_lock`
    /// held.
    #[inline]
    pub(crate) unsafe fn from_raw(ctx: *mut bindings::io_ring_ctx) -> Self {
        // INVARIANT: by the safety requirements.
        // SAFETY: a ring is not null.
        Self(unsafe { NonNull::new_unchecked(ctx) })
    }

    /// Whether each submission begins at the first entry of the SQ.
    pub(crate) fn rewinds(&self) -> bool {
        // SAFETY: by *Live* and *Locked*.
        let flags = unsafe { (*self.0.as_ptr()).__bindgen_anon_1.flags };

        flags & bindings::IORING_SETUP_SQ_REWIND != 0
    }

    /// Clears and sets `IO_RING_F_*` flags.
    pub(crate) fn change_int_flags(&self, clear: u32, set: u32) {
        // SAFETY: by *Live* and *Locked*.
        unsafe {
            let flags = &raw mut (*self.0.as_ptr()).__bindgen_anon_1.int_flags;
            *flags = *flags & !clear | set;
        }
    }

    #[inline]
    fn compl_reqs(&self) -> *mut bindings::io_wq_work_list {
        // SAFETY: by *Live*, the field is in bounds.
        unsafe { &raw mut (*self.0.as_ptr()).__bindgen_anon_2.submit_state.compl_reqs }
    }

    #[inline]
    fn groups(&self) -> *mut bindings::hlist_head {
        // SAFETY: by *Live*, the field is in bounds.
        unsafe { &raw mut (*self.0.as_ptr()).groups }
    }

    /// The group behind that of `leader`, or the first one, of those that were started and are not
    /// done.
    ///
    /// # Safety
    ///
    /// The group of `leader` must be one of those.
    pub(crate) unsafe fn next_group(&self, leader: Option<&Leader>) -> Option<Leader> {
        // SAFETY: by *Locked* nobody changes the list, and `leader` is on it by the safety
        // requirements. What hooks a group is live as long as it does so, and it was closed.
        unsafe {
            let node = match leader {
                None => (*self.groups()).first,
                Some(leader) => (*leader.hook_node()).next,
            };
            if node.is_null() {
                return None;
            }
            let req = container_of!(node, bindings::io_kiocb, __bindgen_anon_5.hash_node);

            Some(match Request::from_raw(req).part() {
                Part::Leader(leader) => leader,
                Part::Member(member) => member.leader(),
            })
        }
    }

    /// Head of the chain that is being assembled, which a group is part of while it is open.
    ///
    /// # Safety
    ///
    /// A group must be open.
    unsafe fn chain_head(&self) -> Request {
        // SAFETY: by *Live* and *Locked*. There is a head while a group is open, and what is being
        // assembled is not freed.
        unsafe { Request::from_raw((*self.0.as_ptr()).__bindgen_anon_2.submit_state.link.head) }
    }
}

/// A leader whose group is open.
///
/// # Invariants
///
/// Those of [`Request`], and as long as this exists
///
/// * *Open*: the request has opened a group that was not closed. It has `REQ_F_GROUP`, its
///   `grp_refs` is a [`Group`], and `grp_held` and `comp_list` are as the
///   [module documentation](self) says of them while members join.
pub(crate) struct Forming(Request);

impl Forming {
    /// Makes `req` the leader of a group without members.
    ///
    /// # Safety
    ///
    /// `req` must have `REQ_F_GROUP` and be on no list, as what is being submitted is. No group may
    /// be open.
    #[inline]
    pub(crate) unsafe fn open(req: Request) {
        req.set_word(Group::open().into_raw());
        // SAFETY: by *Live* and *Locked*. Its node is idle by the safety requirements.
        unsafe { (*req.comp_list()).next = req.held() };
    }

    /// The leader of a group that is open.
    ///
    /// # Safety
    ///
    /// As for [`Request::from_raw`], and `req` must have opened a group that is still open.
    #[inline]
    pub(crate) unsafe fn from_raw(req: *mut bindings::io_kiocb) -> Self {
        // INVARIANT: by the safety requirements.
        // SAFETY: by the safety requirements.
        Self(unsafe { Request::from_raw(req) })
    }

    /// As a request.
    #[inline]
    pub(crate) fn req(&self) -> &Request {
        &self.0
    }

    /// State of the group.
    #[inline]
    pub(crate) fn group(&self) -> Group {
        Group::from_raw(self.0.word())
    }

    /// Stores what a transition of the state resulted in.
    #[inline]
    pub(crate) fn set_group(&self, group: Group) {
        self.0.set_word(group.into_raw());
    }

    /// Makes `req` a member, behind those that are held. `bad` is whether it can't be executed.
    ///
    /// # Safety
    ///
    /// `req` must be of the same ring and on no list, as what is being submitted is.
    #[inline]
    pub(crate) unsafe fn push(&self, req: Request, bad: bool) {
        let (node, tail) = (req.comp_list(), self.0.comp_list());

        req.set_word(state::Member::join(bad).into_raw());
        req.change_flags(0, GROUP);
        // SAFETY: by *Live* and *Locked*. By *Open* the tail's `next` is the node of a member that
        // is held, which is live, or the head of the list.
        unsafe {
            (*req.as_ptr()).__bindgen_anon_6.grp_leader = self.0.as_ptr();
            (*(*tail).next).next = node;
            (*tail).next = node;
        }
    }

    /// The group will not be issued, because of `err`. Nor will the chain it is in.
    pub(crate) fn fail(&self, err: i32) {
        // SAFETY: by *Open* a group is open.
        let chain = unsafe { self.0.ring().chain_head() };

        if !self.0.is_failed() {
            self.0.fail_link_node(err);
        }
        if !chain.is_failed() {
            chain.fail_link_node(code::ECANCELED.to_errno());
        }
    }

    /// No more members join.
    #[inline]
    pub(crate) fn close(self) -> Leader {
        // SAFETY: as in `push()`.
        unsafe { (*(*self.0.comp_list()).next).next = ptr::null_mut() };
        self.set_group(self.group().close());
        // INVARIANT: by *Open*, and the list was just terminated.
        let leader = Leader(self.0);

        if let Some(first) = leader.held().next() {
            // SAFETY: a member that is held is live, and its node is on no list. It may have to
            // hook the group.
            unsafe { (*first.member.0.hash_node()).pprev = ptr::null_mut() };
        }
        leader
    }
}

/// A leader.
///
/// # Invariants
///
/// Those of [`Request`], and as long as this exists
///
/// * *Leads*: the request has `REQ_F_GROUP`, its group was closed, and its `grp_refs` is a
///   [`Group`]. `grp_held` is as the [module documentation](self) says.
pub(crate) struct Leader(Request);

impl Leader {
    /// As a request.
    #[inline]
    pub(crate) fn req(&self) -> &Request {
        &self.0
    }

    /// For C.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut bindings::io_kiocb {
        self.0.as_ptr()
    }

    /// State of the group.
    #[inline]
    pub(crate) fn group(&self) -> Group {
        Group::from_raw(self.0.word())
    }

    /// Stores what a transition of the state resulted in.
    #[inline]
    pub(crate) fn set_group(&self, group: Group) {
        self.0.set_word(group.into_raw());
    }

    /// Takes the first member that is held.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Member> {
        // SAFETY: by *Leads* this is a list of members, and those are live until they are
        // accounted for.
        unsafe {
            let node = (*self.0.held()).next;
            if node.is_null() {
                return None;
            }
            (*self.0.held()).next = (*node).next;
            // INVARIANT: what a leader holds is one of its members.
            Some(Member(Request::from_comp_list(node)))
        }
    }

    /// Issues the members that are held, as long as their group says that of each of them.
    #[inline]
    pub(crate) fn issue_held(&mut self) {
        // SAFETY: by *Leads* these are members that are held. One that is issued may cancel others,
        // which looks at the list: each is taken from it before. We don't own it after this.
        unsafe { bindings::io_group_issue_held(self.as_ptr(), Group::STOP) };
    }

    /// The members that are held, in their order.
    pub(crate) fn held(&self) -> Held<'_> {
        Held {
            // SAFETY: by *Live* and *Locked*.
            next: unsafe { (*self.0.held()).next },
            leader: PhantomData,
        }
    }

    /// What hooks the group, or would, had it been started.
    fn hook_node(&self) -> *mut bindings::hlist_node {
        match self.group().phase() {
            Phase::Leading | Phase::Withheld => self.held().next(),
            _ => None,
        }
        .map_or(self.0.hash_node(), |first| first.member.0.hash_node())
    }

    /// Hooks the group into `ctx->groups`, by its first member.
    ///
    /// # Safety
    ///
    /// The group must have just been started.
    #[inline]
    pub(crate) unsafe fn hook(&self) {
        // SAFETY: the node is idle, see the module documentation, and it's on no list by the
        // safety requirements. The list is protected by *Locked*.
        unsafe { hlist_add(self.hook_node(), self.0.ring().groups()) };
    }

    /// Hooks the group by the leader, which is done with its node, as the members will need
    /// theirs.
    ///
    /// A group that has failed before it was started is not hooked, and does not get so here.
    ///
    /// # Safety
    ///
    /// The leader must have completed, and no member may have been popped.
    #[inline]
    pub(crate) unsafe fn rehook(&self) {
        let (old, new) = (self.hook_node(), self.0.hash_node());

        // SAFETY: `old` has been initialised by `close()`, and is on no other list. The leader
        // has completed, so its node is idle. What is left in there is of no use: IOPOLL leaves
        // poison.
        unsafe {
            if (*old).pprev.is_null() {
                (*new).pprev = ptr::null_mut();
            } else {
                hlist_del(old);
                hlist_add(new, self.0.ring().groups());
            }
        }
    }

    /// Takes `first`, a member that has completed, out of the group, and with it those members
    /// right behind it in the list of requests that have completed which nothing is to be marked
    /// for. They are plain requests after this. Returns the last of them, how many they are, and
    /// whether the first one has failed.
    ///
    /// # Safety
    ///
    /// `first` must be on the list of requests that have completed.
    #[inline]
    pub(crate) unsafe fn leave(&self, first: Member) -> (Request, u32, bool) {
        let first = first.0;
        let failed = first.has_failed();
        let (mut req, mut nr) = (first, 0);

        if failed {
            req.fail(self.group().is(Mark::Dropped));
        }
        loop {
            req.change_flags(GROUP, 0);
            nr += 1;
            trace::member_done(self, &req, nr);
            // SAFETY: `req` is on the list of requests that have completed, by the safety
            // requirements, and that is protected by *Locked*. What is on it is live.
            let node = unsafe { (*req.comp_list()).next };
            if node.is_null() {
                break;
            }
            // SAFETY: as above.
            let next = unsafe { Request::from_comp_list(node) };
            // A request that is to be issued again hasn't completed.
            if next.flags() & (GROUP | REISSUE | FAIL) != GROUP
                || next.leader() != self.as_ptr()
                || next.res() < 0
            {
                break;
            }
            req = next;
        }
        (req, nr, failed)
    }

    /// How the leader has completed.
    #[inline]
    pub(crate) fn outcome(&self) -> Outcome {
        if !self.0.has_failed() {
            Outcome::Success
        } else if self.0.res() == code::ECANCELED.to_errno() {
            Outcome::Cancelled
        } else {
            Outcome::Failure
        }
    }

    /// Whether the leader is in the rest of a chain that was broken by a request which takes the
    /// CQEs of the rest with it. See `fail_link()`.
    #[inline]
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.flags() & (CQE_SKIP | SKIP_LINK_CQES) == CQE_SKIP | SKIP_LINK_CQES
    }

    /// The chain that the leader waits in has been broken. What is behind the leader is left to
    /// it: once its group is done it breaks the chain again, and hands on whether CQEs are posted.
    pub(crate) fn fail_link(&self) {
        let skip = if self.0.has(CQE_SKIP) {
            SKIP_LINK_CQES
        } else {
            0
        };

        self.0
            .change_flags(HARDLINK | SKIP_LINK_CQES, FAIL | LINK | skip);
    }

    /// No member has joined, and none will: a plain request.
    ///
    /// # Safety
    ///
    /// There must be no other view of the group.
    pub(crate) unsafe fn dissolve(self) {
        self.0.change_flags(GROUP, 0);
    }

    /// The group is done. Its leader posts, advances its link, and is freed as a plain request.
    ///
    /// # Safety
    ///
    /// The group must be done, and this the first time. There must be no other view of it.
    #[inline]
    #[must_use]
    unsafe fn hand_back(self) -> Request {
        let group = self.group();

        debug_assert!(group.phase() == Phase::Done);
        trace::done(&self);
        // SAFETY: `rehook()` has initialised this node, and maybe hooked the group by it.
        unsafe { hlist_del(self.0.hash_node()) };
        if group.is(Mark::Failed) && !group.is(Mark::Dropped) {
            self.0.set_fail();
        }
        self.0.change_flags(GROUP, 0);
        self.0
    }

    /// The group is done, and its leader completes.
    ///
    /// # Safety
    ///
    /// As for `hand_back()`.
    #[inline]
    pub(crate) unsafe fn complete(self) {
        // SAFETY: by the safety requirements.
        let req = unsafe { self.hand_back() };
        let node = req.comp_list();
        let list = req.ring().compl_reqs();

        // As wq_list_add_tail().
        // SAFETY: the leader is on no list, and the list is protected by *Locked*.
        unsafe {
            (*node).next = ptr::null_mut();
            if (*list).first.is_null() {
                (*list).first = node;
            } else {
                (*(*list).last).next = node;
            }
            (*list).last = node;
        }
    }

    /// The group is done with `member`, which is about to post. The leader is next then.
    ///
    /// # Safety
    ///
    /// As for `hand_back()`, and `member` must be on the list of requests that have completed.
    #[inline]
    pub(crate) unsafe fn complete_behind(self, member: &Request) {
        // SAFETY: by the safety requirements.
        let req = unsafe { self.hand_back() };
        let node = req.comp_list();
        let pos = member.comp_list();
        let list = req.ring().compl_reqs();

        // As wq_list_add_after().
        // SAFETY: the leader is on no list, `member` is on the one of requests that have
        // completed, and that is protected by *Locked*.
        unsafe {
            (*node).next = (*pos).next;
            (*pos).next = node;
            if (*node).next.is_null() {
                (*list).last = node;
            }
        }
    }
}

/// Iterates over the members that a leader holds. See [`Leader::held`].
///
/// # Invariants
///
/// `next` is as *Leads* says for the list in `grp_held`. None is popped while the leader is
/// borrowed: by this view of it as [`Leader::pop`] takes that exclusively, and by others as nothing
/// that is called meanwhile issues a request.
pub(crate) struct Held<'a> {
    next: *mut bindings::io_wq_work_node,
    leader: PhantomData<&'a Leader>,
}

impl<'a> Iterator for Held<'a> {
    type Item = HeldMember<'a>;

    fn next(&mut self) -> Option<HeldMember<'a>> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: by the invariants this is a member that is held, and such are live.
        let req = unsafe { Request::from_comp_list(self.next) };
        // INVARIANT: the list goes on there.
        // SAFETY: as above.
        self.next = unsafe { (*self.next).next };
        Some(HeldMember {
            // INVARIANT: it is a member, see above.
            member: Member(req),
            leader: PhantomData,
        })
    }
}

/// A member that its leader holds, as long as the leader is borrowed.
pub(crate) struct HeldMember<'a> {
    member: Member,
    leader: PhantomData<&'a Leader>,
}

impl HeldMember<'_> {
    /// For C.
    pub(crate) fn as_ptr(&self) -> *mut bindings::io_kiocb {
        self.member.0.as_ptr()
    }

    /// Whether nothing but its leader stands between it and its opcode.
    pub(crate) fn is_pending(&self) -> bool {
        self.member.state().is_pending()
    }

    /// Cancels the member. Returns false if it is bad, or cancelled already, by itself or with its
    /// group.
    pub(crate) fn cancel(&self) -> bool {
        let (state, newly) = self.member.state().cancel();
        let leader = self.member.leader();

        self.member.0.set_word(state.into_raw());
        if newly {
            leader.set_group(leader.group().single_out());
        }
        newly && !leader.group().is(Mark::Cancelled)
    }
}

/// A member.
///
/// # Invariants
///
/// Those of [`Request`], and as long as this exists
///
/// * *Joined*: the request has `REQ_F_GROUP`, its `grp_refs` is a [`state::Member`], and its
///   `grp_leader` is its leader. The latter is live: it outlives its members.
pub(crate) struct Member(Request);

impl Member {
    /// State of the member.
    #[inline]
    pub(crate) fn state(&self) -> state::Member {
        state::Member::from_raw(self.0.word()).unwrap_or(state::Member::join(false))
    }

    /// Its result, which for a bad one is its error.
    #[inline]
    pub(crate) fn res(&self) -> i32 {
        self.0.res()
    }

    /// Its leader.
    #[inline]
    pub(crate) fn leader(&self) -> Leader {
        // INVARIANT: by *Joined*.
        // SAFETY: by *Joined* it is live, and it is in the same ring.
        Leader(unsafe { Request::from_raw(self.0.leader()) })
    }

    /// Hands the member to its opcode, or fails it with `err` if that is not 0.
    ///
    /// # Safety
    ///
    /// It must have been popped just now: it is queued once.
    #[inline]
    pub(crate) unsafe fn queue(self, err: i32) {
        // SAFETY: by *Live* and *Locked*, and the safety requirements. We don't own the request
        // after this.
        unsafe { bindings::io_group_queue_member(self.0.as_ptr(), err) };
    }
}

/// As `hlist_add_head()`.
///
/// # Safety
///
/// `node` must be on no list, and live as long as it is on this one. Nobody else may access the
/// list meanwhile, but for who compares its head with null.
#[inline]
unsafe fn hlist_add(node: *mut bindings::hlist_node, head: *mut bindings::hlist_head) {
    // SAFETY: by the safety requirements. What is volatile is WRITE_ONCE() in C.
    unsafe {
        let first = (*head).first;

        (*node).next = first;
        if !first.is_null() {
            (*first).pprev = &raw mut (*node).next;
        }
        (&raw mut (*head).first).write_volatile(node);
        (*node).pprev = &raw mut (*head).first;
    }
}

/// As `hlist_del_init()`.
///
/// # Safety
///
/// `node` must have been added by [`hlist_add`], or have a `pprev` of null. Nobody else may access
/// the list meanwhile, but for who compares its head with null.
#[inline]
unsafe fn hlist_del(node: *mut bindings::hlist_node) {
    // SAFETY: by the safety requirements. What is volatile is WRITE_ONCE() in C.
    unsafe {
        let (next, pprev) = ((*node).next, (*node).pprev);

        if !pprev.is_null() {
            pprev.write_volatile(next);
            if !next.is_null() {
                (*next).pprev = pprev;
            }
            (*node).next = ptr::null_mut();
            (*node).pprev = ptr::null_mut();
        }
    }
}
