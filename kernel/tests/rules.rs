// SPDX-License-Identifier: GPL-2.0

//! The rules of SQE groups, as far as the core decides them: the suite that KUnit runs in the
//! kernel, and what cannot be shown there, as it panics.
//!
//! What several events make of each other is for `exhaustive.rs`.

use io_uring_group::{Group, Member, Outcome};

/// As the suite knows it.
mod state {
    pub(crate) use io_uring_group::*;
}

#[path = "../io_uring/group/tests.rs"]
mod suite;

/// What the binding must not do. With assertions, it is told so.
#[cfg(debug_assertions)]
mod assertions {
    use super::*;

    /// A group of one whose leader runs.
    fn leading() -> Group {
        Group::open().join().close().start()
    }

    #[test]
    #[should_panic]
    fn i1_no_fan_out_before_the_leader_has_completed() {
        let _ = leading().fan_out(false);
    }

    #[test]
    #[should_panic]
    fn i1_no_member_gets_a_verdict_before_the_fan_out() {
        let _ = leading()
            .lead(Outcome::Success, false)
            .next(Member::join(false));
    }

    #[test]
    #[should_panic]
    fn c1_no_member_is_accounted_twice() {
        let group = leading().lead(Outcome::Success, false).fan_out(false);
        let (group, _) = group.release();
        let (group, _) = group.account(1, false);
        let _ = group.account(1, false);
    }

    #[test]
    #[should_panic]
    fn c1_the_leader_does_not_complete_twice() {
        let group = leading().lead(Outcome::Success, false);
        let _ = group.lead(Outcome::Success, false);
    }

    #[test]
    #[should_panic]
    fn x1_a_group_that_waits_is_not_to_be_found() {
        let _ = Group::open().join().close().cancel(true);
    }
}
