// SPDX-License-Identifier: GPL-2.0

//! SQE groups.
//!
//! A group is a run of SQEs that is handled as one unit: a leader, then members that are issued
//! once the leader has completed. The leader's CQE is posted last, and says that all are done.
//!
//! `state.rs` has the states of a group and the transitions between them, `request.rs` says how a
//! group is kept in its requests. Here is what io_uring calls, in the order of a group's life:
//!
//! 1. *Assembly*, from `io_submit_sqe()`. A leader is linked like any request: to the chain in
//!    front of it, or as a chain of its own. As long as its group is open, SQEs become members of
//!    it ([`io_group_add`]) rather than elements of the chain. The last one closes it
//!    ([`io_group_close`]), and if the leader is not linked to what follows, the chain is flushed
//!    as ever.
//! 2. *Start*: the leader is issued when its turn in the chain comes ([`io_group_start`]).
//! 3. *Completion*, from `__io_submit_flush_completions()`, where every request ends up
//!    ([`io_group_complete`]). A leader does not post. It keeps the reference of its completion,
//!    and with it all that it holds, and its task work is queued for the fan-out.
//! 4. *Fan-out*, from task work ([`io_group_fan_out`]): issues the members one by one.
//! 5. A member that completes is accounted before it posts. If it is the last one, its leader is
//!    handed back: it comes next in the list that is being flushed, as a plain request.
//!
//! A cancellation finds what is in flight where it finds any request. Here it asks for the rest:
//! for members that their leader holds, and for leaders, which stand for their group
//! ([`io_group_cancel_match`]).
//!
//! All of it runs under `uring_lock`.

#[cfg(CONFIG_PROC_FS)]
pub mod fdinfo;
mod request;
pub mod state;
#[cfg(CONFIG_IO_URING_GROUP_KUNIT_TEST)]
mod tests;
mod trace;

use core::ptr;
use kernel::{
    bindings,
    error::code,
    prelude::*, //
};
use request::{Forming, Part, Request, Ring};
use state::{Last, Mark, Phase, Verdict};

/// Whether `req`, which is initialised up to its prep, can be a leader: 0 or an error.
///
/// # Safety
///
/// `req` must be owned by the caller, with the `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_init_leader(req: *mut bindings::io_kiocb) -> c_int {
    // SAFETY: by the safety requirements.
    let req = unsafe { Request::from_raw(req) };

    if req.cant_lead() {
        EINVAL.to_errno()
    } else {
        0
    }
}

/// `leader` opens a group. It is the last request of the chain that is being assembled.
///
/// # Safety
///
/// `leader` must be owned by the caller and have `REQ_F_GROUP`, with the `uring_lock` of its ring
/// held. No group may be open.
#[export]
pub unsafe extern "C" fn io_group_open(leader: *mut bindings::io_kiocb) {
    // SAFETY: by the safety requirements. What is being submitted is on no list.
    unsafe { Forming::open(Request::from_raw(leader)) };
}

/// `req` joins the group that `leader` has opened.
///
/// # Safety
///
/// `req` must be owned by the caller, with the `uring_lock` of its ring held. The group of `leader`
/// must be open.
#[export]
pub unsafe extern "C" fn io_group_add(
    leader: *mut bindings::io_kiocb,
    req: *mut bindings::io_kiocb,
) {
    // SAFETY: by the safety requirements.
    let (leader, req) = unsafe { (Forming::from_raw(leader), Request::from_raw(req)) };

    // SAFETY: what is being submitted is on no list.
    unsafe { leader.push(req, false) };
    leader.set_group(leader.group().join());
}

/// As [`io_group_add`], for a member that is not just to be issued when its time comes: it is bad,
/// and `err` is its result, or it is to be punted, and `err` is 0.
///
/// # Safety
///
/// As for [`io_group_add`].
#[export]
pub unsafe extern "C" fn io_group_add_odd(
    leader: *mut bindings::io_kiocb,
    req: *mut bindings::io_kiocb,
    err: c_int,
) {
    // SAFETY: by the safety requirements.
    let (leader, req) = unsafe { (Forming::from_raw(leader), Request::from_raw(req)) };

    if err != 0 {
        req.fail_link_node(err);
        leader.fail(err);
    }
    // SAFETY: what is being submitted is on no list.
    unsafe { leader.push(req, err != 0) };
    leader.set_group(leader.group().join().single_out());
}

/// The last member has joined, or the submission ends. Returns true if the chain ends as well.
///
/// # Safety
///
/// `leader` must have opened a group that is still open, with the `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_close(leader: *mut bindings::io_kiocb) -> bool {
    // SAFETY: by the safety requirements.
    let leader = unsafe { Forming::from_raw(leader) };
    let chain_ends = !leader.req().is_linked();

    leader
        .req()
        .ring()
        .change_int_flags(bindings::IO_RING_F_GROUP_OPEN, 0);
    let leader = leader.close();

    if leader.group().members() == 0 {
        // SAFETY: nobody refers to it.
        unsafe { leader.dissolve() };
    } else {
        trace::formed(&leader);
    }
    chain_ends
}

/// The rest of the group that `leader` has opened cannot be taken, because of `err`. What has been
/// taken fails once the group is closed, the rest is cancelled by the submission that takes it.
///
/// # Safety
///
/// As for [`io_group_close`].
#[export]
pub unsafe extern "C" fn io_group_abort(leader: *mut bindings::io_kiocb, err: c_int) {
    // SAFETY: by the safety requirements.
    let leader = unsafe { Forming::from_raw(leader) };
    let ring = leader.req().ring();

    leader.fail(err);
    leader.set_group(leader.group().abort());
    // There is no rest in an SQ that begins anew each time.
    if !ring.rewinds() {
        ring.change_int_flags(0, bindings::IO_RING_F_GROUP_SKIP);
    }
}

/// `req` is about to be issued, or to be issued again. If it is a leader that waited for that, its
/// group has started. Returns false if its group has been cancelled meanwhile.
///
/// # Safety
///
/// `req` must be owned by the caller and have `REQ_F_GROUP`, with the `uring_lock` of its ring
/// held.
#[export]
pub unsafe extern "C" fn io_group_start(req: *mut bindings::io_kiocb) -> bool {
    // SAFETY: by the safety requirements. Nothing is issued before it has become part of its group.
    let leader = match unsafe { Request::from_raw(req).part() } {
        Part::Leader(leader) => leader,
        Part::Member(member) => member.leader(),
    };

    if leader.group().phase() == Phase::Waiting {
        leader.set_group(leader.group().start());
        // SAFETY: it has just been started.
        unsafe { leader.hook() };
    }
    !leader.group().is(Mark::Cancelled)
}

/// `leader` is about to complete as its chain is broken.
///
/// # Safety
///
/// `leader` must be a leader owned by the caller, with the `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_fail_link(leader: *mut bindings::io_kiocb) {
    // SAFETY: by the safety requirements.
    if let Part::Leader(leader) = unsafe { Request::from_raw(leader).part() } {
        leader.fail_link();
    }
}

/// `req` has completed, and is visited to post its CQE. Returns whether it does.
///
/// A leader does not, and keeps `REQ_F_GROUP` for that to be seen. A member becomes a plain
/// request, and so may those members of its group that are to be visited next. If the last one of
/// the group is among them, its leader is visited right behind them, as a plain request too.
///
/// # Safety
///
/// `req` must have `REQ_F_GROUP` and be on the list of requests that have completed, with the
/// `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_complete(req: *mut bindings::io_kiocb) -> bool {
    // SAFETY: by the safety requirements. Nothing completes before it is part of its group.
    match unsafe { Request::from_raw(req).part() } {
        Part::Member(member) => {
            let leader = member.leader();
            // SAFETY: by the safety requirements.
            let (behind, nr, failed) = unsafe { leader.leave(member) };
            let (group, last) = leader.group().account(nr, failed);

            leader.set_group(group);
            if last == Last::Yes {
                // SAFETY: the group is done, and `behind` is on the list.
                unsafe { leader.complete_behind(&behind) };
            }
            // SAFETY: by the safety requirements.
            unsafe { Request::from_raw(req) }.posts()
        }
        Part::Leader(leader) => {
            let group = leader.group().lead(leader.outcome(), leader.is_dropped());

            leader.set_group(group);
            false
        }
    }
}

/// Task work of a leader that has completed: issues its members, or fails them.
///
/// # Safety
///
/// To be called as task work, and that only of a leader [`io_group_complete`] was called for.
#[export]
pub unsafe extern "C" fn io_group_fan_out(
    tw_req: bindings::io_tw_req,
    tw: bindings::io_tw_token_t,
) {
    // SAFETY: task work holds the `uring_lock`, and a leader that waits for its fan-out is live.
    let Part::Leader(mut leader) = (unsafe { Request::from_raw(tw_req.req).part() }) else {
        return;
    };

    // SAFETY: it has completed, and has not been fanned out.
    unsafe { leader.rehook() };
    leader.set_group(leader.group().fan_out(tw.cancel));
    // Task exit waits for the members as it does for the leader.
    if leader.req().is_tracked() {
        leader.set_group(leader.group().single_out());
    }
    trace::fan_out(&leader);
    // Whatever becomes of the members, the leader is live: the fan-out has a reference of its own.
    leader.issue_held();
    while let Some(member) = leader.pop() {
        // What has been issued before may have changed the state.
        let err = match leader.group().next(member.state()) {
            Verdict::Issue => 0,
            Verdict::FailOwn => member.res(),
            Verdict::FailCancelled => code::ECANCELED.to_errno(),
            Verdict::FailIo => code::EIO.to_errno(),
        };
        // SAFETY: it has just been popped.
        unsafe { member.queue(err) };
    }

    let (group, last) = leader.group().release();

    leader.set_group(group);
    // A member may have posted CQEs on its way, and flushed those that completed before.
    if last == Last::Yes {
        // SAFETY: the group is done, and its leader has not been handed back. This is the only
        // view of it that is left.
        unsafe { leader.complete() };
    }
}

/// Number of members that have not completed.
///
/// # Safety
///
/// `leader` must be a leader, with the `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_members(leader: *const bindings::io_kiocb) -> c_uint {
    // SAFETY: by the safety requirements.
    unsafe { Request::from_raw(leader.cast_mut()).group() }.map_or(0, |group| group.members())
}

/// Looks for what matches `cd`, the first one or `all`. `what` says for what: `IO_GROUP_HELD` are
/// members that their leader holds, which become cancelled. With `IO_GROUP_LEADERS` it stops at a
/// group whose leader matches.
///
/// `cursor` is the leader of the group to go on behind, or null to begin. It becomes that of the
/// group that matches as a whole, or null if there is none. Returns how many members were
/// cancelled, or `-EALREADY` if there are none but such that are bad, or cancelled already.
///
/// # Safety
///
/// `ctx` must be a ring with its `uring_lock` held, `cd` must be valid, and `*cursor` must be null
/// or what this wrote there, without the lock having been dropped.
#[export]
pub unsafe extern "C" fn io_group_cancel_match(
    ctx: *mut bindings::io_ring_ctx,
    cd: *mut bindings::io_cancel_data,
    what: c_uint,
    all: bool,
    cursor: *mut *mut bindings::io_kiocb,
) -> c_int {
    // SAFETY: by the safety requirements.
    let (ring, start) = unsafe { (Ring::from_raw(ctx), *cursor) };
    let (mut nr, mut matched) = (0, false);
    let result = |nr, matched| match (nr, matched) {
        (0, true) => code::EALREADY.to_errno(),
        _ => nr,
    };
    // SAFETY: by the safety requirements `start` is the leader of a group that was started and is
    // not done.
    let mut group = unsafe {
        if start.is_null() {
            ring.next_group(None)
        } else if let Part::Leader(leader) = Request::from_raw(start).part() {
            ring.next_group(Some(&leader))
        } else {
            None
        }
    };

    // SAFETY: by the safety requirements.
    unsafe { *cursor = ptr::null_mut() };
    while let Some(leader) = group {
        if what & bindings::IO_GROUP_HELD != 0 {
            for member in leader.held() {
                // SAFETY: both are valid, and the lock is held.
                if !unsafe { bindings::io_cancel_held_match(member.as_ptr(), cd) } {
                    continue;
                }
                matched = true;
                if member.cancel() {
                    nr += 1;
                    if !all {
                        return nr;
                    }
                }
            }
        }
        if what & bindings::IO_GROUP_LEADERS != 0
            // SAFETY: both are valid, and the lock is held.
            && unsafe { bindings::io_cancel_leader_match(leader.as_ptr(), cd) }
        {
            // SAFETY: by the safety requirements.
            unsafe { *cursor = leader.as_ptr() };
            return result(nr, matched);
        }
        // SAFETY: it has come from there, and nothing was issued or completed meanwhile.
        group = unsafe { ring.next_group(Some(&leader)) };
    }
    result(nr, matched)
}

/// Cancels the group of `leader`, but for what is in flight. Returns whether that made a
/// difference.
///
/// # Safety
///
/// `leader` must be that of a group which was started, with the `uring_lock` of its ring held.
#[export]
pub unsafe extern "C" fn io_group_cancel_held(leader: *mut bindings::io_kiocb) -> bool {
    // SAFETY: by the safety requirements.
    let Part::Leader(leader) = (unsafe { Request::from_raw(leader).part() }) else {
        return false;
    };
    let (group, newly) = leader
        .group()
        .cancel(leader.held().any(|member| member.is_pending()));

    if !leader.group().is(Mark::Cancelled) {
        trace::cancelled(&leader);
    }
    leader.set_group(group);
    newly
}
