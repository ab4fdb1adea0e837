// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of groups, one for each transition that is seen from outside.
//!
//! `events.h` says what each of them is for. While one is off, it is a nop.

use crate::request::{Leader, Request};
use crate::state::{Mark, Member, Verdict};
use kernel::{
    bindings,
    error::code,
    ffi::{c_char, c_int, c_uint},
    str::CStrExt,
    tracepoint::declare_trace, //
};

declare_trace! {
    /// # Safety
    ///
    /// `leader` must be live, with the `uring_lock` of its ring held.
    unsafe fn io_uring_group_formed(leader: *mut bindings::io_kiocb, members: c_uint);

    /// # Safety
    ///
    /// As for `io_uring_group_formed()`.
    unsafe fn io_uring_group_fan_out(
        leader: *mut bindings::io_kiocb,
        members: c_uint,
        error: c_int,
    );

    /// # Safety
    ///
    /// As for `io_uring_group_formed()`, for both requests.
    unsafe fn io_uring_group_member_done(
        leader: *mut bindings::io_kiocb,
        req: *mut bindings::io_kiocb,
        nr: c_uint,
    );

    /// # Safety
    ///
    /// As for `io_uring_group_formed()`.
    unsafe fn io_uring_group_done(leader: *mut bindings::io_kiocb, failed: bool);

    /// # Safety
    ///
    /// As for `io_uring_group_formed()`. `phase` must be a C string.
    unsafe fn io_uring_group_cancelled(
        leader: *mut bindings::io_kiocb,
        phase: *const c_char,
        members: c_uint,
    );
}

/// The last SQE of a group has been taken.
#[inline]
pub(crate) fn formed(leader: &Leader) {
    // SAFETY: by *Live* and *Locked*.
    unsafe { io_uring_group_formed(leader.as_ptr(), leader.group().members()) };
}

/// The fan-out begins.
#[inline]
pub(crate) fn fan_out(leader: &Leader) {
    let group = leader.group();
    // Of a member that has nothing against it.
    let error = match group.next(Member::join(false)) {
        Verdict::FailCancelled => code::ECANCELED.to_errno(),
        Verdict::FailIo => code::EIO.to_errno(),
        Verdict::Issue | Verdict::FailOwn => 0,
    };

    // SAFETY: by *Live* and *Locked*.
    unsafe { io_uring_group_fan_out(leader.as_ptr(), group.members(), error) };
}

/// `member` has completed, the `nr`th of those that are about to be accounted for.
#[inline]
pub(crate) fn member_done(leader: &Leader, member: &Request, nr: u32) {
    // SAFETY: by *Live* and *Locked*.
    unsafe { io_uring_group_member_done(leader.as_ptr(), member.as_ptr(), nr) };
}

/// The group is done, and its leader is about to be handed back.
#[inline]
pub(crate) fn done(leader: &Leader) {
    // SAFETY: by *Live* and *Locked*.
    unsafe { io_uring_group_done(leader.as_ptr(), leader.group().is(Mark::Failed)) };
}

/// The group is cancelled, which it was not before.
#[inline]
pub(crate) fn cancelled(leader: &Leader) {
    let group = leader.group();

    // SAFETY: by *Live* and *Locked*. A name is a C string.
    unsafe {
        io_uring_group_cancelled(
            leader.as_ptr(),
            group.phase().name().as_char_ptr(),
            group.members(),
        )
    };
}
