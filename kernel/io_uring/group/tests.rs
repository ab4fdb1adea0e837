// SPDX-License-Identifier: GPL-2.0

//! The rules of SQE groups, as far as the core decides them, as a KUnit suite.
//!
//! A test is named for its rule: `c5_..` for C5. One sees what the core is asked and what it says.
//!
//! The core can be tested anywhere, and so this file is compiled by cargo too. Hence there is no
//! `kernel::` in a test, and nothing that panics: `assert!` and `assert_eq!` in the body of a test
//! are KUnit's in the kernel, all else would be a BUG there.

#[cfg_attr(not(test), kernel::macros::kunit_tests(io_uring_group))]
mod rules {
    use core::hint::black_box;

    use crate::state::{Group, Last, Mark, Member, Outcome, Phase, Verdict};

    /// A member that is fine, and one that can't be executed.
    const FINE: Member = Member::join(false);
    const BAD: Member = Member::join(true);

    /// A group that SQEs can still join. The compiler is not to know what it is: it would do most
    /// of the tests itself, and they are for the code that it makes.
    fn forming(members: u32) -> Group {
        (0..members).fold(black_box(Group::open()), |group, _| group.join())
    }

    /// A group that waits for its turn.
    fn waiting(members: u32) -> Group {
        forming(members).close()
    }

    /// A group whose leader runs.
    fn leading(members: u32) -> Group {
        waiting(members).start()
    }

    /// A group whose leader has completed, and whose fan-out runs.
    fn issuing(members: u32, outcome: Outcome) -> Group {
        leading(members).lead(outcome, false).fan_out(false)
    }

    /// A group of which a member is not just to be issued, and whose fan-out runs.
    fn uneven(members: u32, outcome: Outcome) -> Group {
        issuing(members, outcome).single_out()
    }

    /// A group whose leader has succeeded, and that has issued all of its members.
    fn joining(members: u32) -> Group {
        issuing(members, Outcome::Success).release().0
    }

    /// `member`, after a cancellation that found it.
    fn cancelled(member: Member) -> Member {
        black_box(member).cancel().0
    }

    /// Whether the fan-out has to look at the members of `group`.
    fn stops(group: Group) -> bool {
        group.into_raw() & Group::STOP != 0
    }

    /// `group`, after a member of it completed.
    fn account(group: Group, failed: bool) -> Group {
        group.account(1, failed).0
    }

    // Forming

    #[test]
    fn f1_members_are_those_that_joined() {
        for members in [1, 2, 5] {
            assert_eq!(forming(members).members(), members);
            assert_eq!(waiting(members).members(), members);
            assert_eq!(leading(members).members(), members);
        }
    }

    /// As many as the largest SQ can hold, and nothing of that gets into the other bits.
    #[test]
    fn f1_a_group_as_large_as_the_sq() {
        let group = joining(32767);

        assert_eq!(group.phase(), Phase::Joining);
        assert_eq!(group.members(), 32767);
        assert!(!group.is(Mark::Failed) && !group.is(Mark::Cancelled));
        let (group, last) = (1..32767)
            .fold(group, |group, _| account(group, false))
            .account(1, false);
        assert_eq!((group.phase(), last), (Phase::Done, Last::Yes));
    }

    #[test]
    fn f3_a_leader_alone_has_no_members() {
        assert_eq!(waiting(0).members(), 0);
    }

    /// The group never starts: its leader completes where it waits, with the error.
    #[test]
    fn f5_a_bad_group_fails_without_a_start() {
        let group = forming(2).single_out().close();
        let group = group.lead(Outcome::Failure, false).fan_out(false);

        assert_eq!(group.next(BAD), Verdict::FailOwn);
        assert_eq!(group.next(FINE), Verdict::FailIo);
    }

    #[test]
    fn f5_a_bad_member_keeps_its_error() {
        for outcome in [Outcome::Success, Outcome::Failure, Outcome::Cancelled] {
            assert_eq!(uneven(1, outcome).next(BAD), Verdict::FailOwn);
        }
    }

    /// Members that were taken get -ECANCELED, though it's an error that their leader gets. A bad
    /// one keeps its own.
    #[test]
    fn f6_a_cut_group_is_cancelled() {
        let group = forming(2).single_out().abort().close();
        let group = group.lead(Outcome::Failure, false).fan_out(false);

        assert_eq!(group.next(FINE), Verdict::FailCancelled);
        assert_eq!(group.next(BAD), Verdict::FailOwn);
    }

    // Issuing

    #[test]
    fn i1_members_are_issued_if_the_leader_succeeds() {
        assert_eq!(issuing(1, Outcome::Success).next(FINE), Verdict::Issue);
    }

    #[test]
    fn i1_members_are_not_issued_if_it_does_not() {
        for outcome in [Outcome::Failure, Outcome::Cancelled] {
            assert!(issuing(1, outcome).next(FINE) != Verdict::Issue);
        }
    }

    /// They do not depend on each other.
    #[test]
    fn i2_members_are_issued_though_one_has_failed() {
        let group = account(issuing(3, Outcome::Success), true);

        assert_eq!(group.next(FINE), Verdict::Issue);
    }

    /// A leader is handed to its opcode again after it was punted or polled for.
    #[test]
    fn i3_another_start_changes_nothing() {
        let (group, _) = leading(2).cancel(true);

        assert_eq!(group.start(), group);
    }

    // Completing

    /// Whoever comes last hands back the leader: nobody earlier, and nobody later.
    #[test]
    fn c2_the_last_member_hands_back_the_leader() {
        for members in 1..=4 {
            let (mut group, mut last) = issuing(members, Outcome::Success).release();

            for left in (0..members).rev() {
                assert_eq!(last, Last::No);
                assert_eq!(group.phase(), Phase::Joining);
                (group, last) = group.account(1, false);
                assert_eq!(group.members(), left);
            }
            assert_eq!((group.phase(), last), (Phase::Done, Last::Yes));
        }
    }

    /// Members may complete, and be accounted, while their siblings are still issued.
    #[test]
    fn c2_the_fan_out_has_a_reference() {
        for members in 1..=4 {
            let mut group = issuing(members, Outcome::Success);

            for _ in 0..members {
                let (next, last) = group.account(1, false);

                assert_eq!(last, Last::No);
                group = next;
            }
            assert_eq!((group.phase(), group.members()), (Phase::Issuing, 0));
            let (group, last) = group.release();
            assert_eq!(last, Last::Yes);
            assert_eq!(group.phase(), Phase::Done);
        }
    }

    #[test]
    fn c5_a_group_succeeds_if_all_of_it_does() {
        let group = account(account(joining(2), false), false);

        assert_eq!(group.phase(), Phase::Done);
        assert!(!group.is(Mark::Failed));
    }

    #[test]
    fn c5_a_failed_leader_fails_its_group() {
        assert!(!issuing(1, Outcome::Success).is(Mark::Failed));
        assert!(issuing(1, Outcome::Failure).is(Mark::Failed));
        assert!(issuing(1, Outcome::Cancelled).is(Mark::Failed));
    }

    /// Whichever it is, and whatever the others do then.
    #[test]
    fn c5_a_failed_member_fails_its_group() {
        for failing in 0..3 {
            let early = issuing(3, Outcome::Success);

            for group in [early, joining(3)] {
                let mut group = group;
                for member in 0..3 {
                    group = group.account(1, member == failing).0;
                }
                assert!(group.is(Mark::Failed));
            }
        }
    }

    /// That it was cancelled does not mean that it has failed: what ran may have come to its end.
    #[test]
    fn c5_a_cancelled_group_may_succeed() {
        let (group, _) = joining(1).cancel(false);

        assert!(!group.account(1, false).0.is(Mark::Failed));
    }

    #[test]
    fn c6_a_failed_leader_gives_eio() {
        assert_eq!(issuing(1, Outcome::Failure).next(FINE), Verdict::FailIo);
    }

    #[test]
    fn c6_a_cancelled_leader_gives_ecanceled() {
        let group = issuing(1, Outcome::Cancelled);

        assert_eq!(group.next(FINE), Verdict::FailCancelled);
    }

    /// Its chain broke while it waited.
    #[test]
    fn c6_a_leader_that_never_ran_gives_ecanceled() {
        let group = waiting(1).lead(Outcome::Cancelled, false).fan_out(false);

        assert_eq!(group.next(FINE), Verdict::FailCancelled);
    }

    /// A group that is cancelled is cancelled, even if its leader fails in some other way then.
    #[test]
    fn c6_x1_before_the_leader_fails_gives_ecanceled() {
        let (group, _) = leading(1).cancel(true);
        let group = group.lead(Outcome::Failure, false).fan_out(false);

        assert_eq!(group.next(FINE), Verdict::FailCancelled);
    }

    #[test]
    fn c7_a_group_is_dropped_as_a_whole() {
        let group = waiting(1).lead(Outcome::Cancelled, true).fan_out(false);
        let (done, _) = group.release().0.account(1, true);

        assert!(group.is(Mark::Dropped));
        assert!(done.is(Mark::Dropped));
        assert!(!issuing(1, Outcome::Cancelled).is(Mark::Dropped));
    }

    // Cancelling

    /// From the moment it is started, members that are held are cancelled.
    #[test]
    fn x1_held_members_are_cancelled_in_each_phase() {
        let leading = leading(2);
        let withheld = leading.lead(Outcome::Success, false);
        let issuing = account(withheld.fan_out(false), false);

        for group in [leading, withheld, issuing] {
            let (group, newly) = group.cancel(true);

            assert!(newly);
            let group = match group.phase() {
                Phase::Leading => group.lead(Outcome::Success, false).fan_out(false),
                Phase::Withheld => group.fan_out(false),
                _ => group,
            };
            assert_eq!(group.next(FINE), Verdict::FailCancelled);
        }
    }

    /// The fan-out asks for each member anew, as one of those that it issued may be the cancel
    /// request.
    #[test]
    fn x1_strikes_in_the_middle_of_the_fan_out() {
        let group = issuing(2, Outcome::Success);

        assert_eq!(group.next(FINE), Verdict::Issue);
        let (group, newly) = group.cancel(true);
        assert!(newly);
        assert_eq!(group.next(FINE), Verdict::FailCancelled);
    }

    #[test]
    fn x1_twice_is_not_new() {
        let (group, _) = leading(1).cancel(true);

        assert_eq!(group.cancel(true), (group, false));
    }

    /// No member is held: what there is to cancel runs, and is not the core's.
    #[test]
    fn x1_nothing_is_new_if_all_are_issued() {
        for members in [1, 3] {
            assert!(!joining(members).cancel(false).1);
        }
    }

    #[test]
    fn x2_a_held_member_is_never_issued() {
        let member = cancelled(FINE);

        assert_eq!(
            uneven(1, Outcome::Success).next(member),
            Verdict::FailCancelled
        );
        // Nor does it get what its siblings get.
        assert_eq!(
            uneven(1, Outcome::Failure).next(member),
            Verdict::FailCancelled
        );
    }

    #[test]
    fn x2_a_member_is_cancelled_once() {
        let (member, newly) = FINE.cancel();

        assert!(newly);
        assert_eq!(member.cancel(), (member, false));
    }

    #[test]
    fn x2_its_siblings_are_issued() {
        let group = uneven(2, Outcome::Success);

        assert_eq!(group.next(cancelled(FINE)), Verdict::FailCancelled);
        assert_eq!(group.next(FINE), Verdict::Issue);
    }

    #[test]
    fn x2_nothing_is_new_for_other_members() {
        for member in [cancelled(FINE), BAD] {
            assert_eq!(member.cancel(), (member, false));
        }
    }

    /// Not with -EIO, and not issued: the ring or the task is on its way out.
    #[test]
    fn x5_exit_cancels_members() {
        let group = leading(1).lead(Outcome::Success, false).fan_out(true);

        assert_eq!(group.next(FINE), Verdict::FailCancelled);
    }

    /// Members that complete together are accounted for together.
    #[test]
    fn c2_some_at_once_are_as_one_by_one() {
        for (members, failed) in [(2, false), (5, false), (5, true)] {
            let one_by_one = (1..members)
                .fold(joining(members), |group, _| account(group, false))
                .account(1, failed);

            assert_eq!(joining(members).account(members, failed), one_by_one);
        }
    }

    /// As long as the group does not say to stop, none of its members needs a look.
    #[test]
    fn i2_members_are_issued_unseen_only_if_all_are_to_be_issued() {
        let even = issuing(3, Outcome::Success);

        assert!(!stops(even));
        // Siblings do not depend on it.
        assert!(!stops(account(even, true)));
        assert!(stops(even.single_out()));
        assert!(stops(even.cancel(true).0));
        assert!(stops(issuing(3, Outcome::Failure)));
        assert!(stops(issuing(3, Outcome::Cancelled)));
        assert!(stops(
            leading(1).lead(Outcome::Success, false).fan_out(true)
        ));
    }

    // The words that the states are stored in

    /// A request is asked by its word which part it plays.
    #[test]
    fn a_member_is_told_from_a_leader() {
        for member in [FINE, BAD, cancelled(FINE)] {
            assert_eq!(Member::from_raw(member.into_raw()), Some(member));
        }
        let failed = issuing(Group::MAX_MEMBERS.min(40_000), Outcome::Failure);
        let (marked, _) = waiting(1)
            .lead(Outcome::Cancelled, true)
            .fan_out(true)
            .cancel(true);
        let (done, _) = joining(1).account(1, true);

        for group in [
            forming(0),
            waiting(1),
            leading(1),
            failed,
            marked,
            joining(2),
            done,
        ] {
            assert_eq!(Member::from_raw(group.into_raw()), None);
            assert_eq!(Group::from_raw(group.into_raw()), group);
        }
    }

    #[test]
    fn phases_follow_each_other() {
        assert_eq!(forming(1).phase(), Phase::Forming);
        assert_eq!(waiting(1).phase(), Phase::Waiting);
        assert_eq!(leading(1).phase(), Phase::Leading);
        let withheld = leading(1).lead(Outcome::Success, false);
        assert_eq!(withheld.phase(), Phase::Withheld);
        assert_eq!(withheld.fan_out(false).phase(), Phase::Issuing);
        assert_eq!(joining(1).phase(), Phase::Joining);
        assert_eq!(joining(1).account(1, false).0.phase(), Phase::Done);
    }

    /// fdinfo and tracepoints show these, and documents tell what they mean.
    #[test]
    fn phases_have_names() {
        for (phase, name) in [
            (Phase::Forming, c"forming"),
            (Phase::Waiting, c"waiting"),
            (Phase::Leading, c"leading"),
            (Phase::Withheld, c"withheld"),
            (Phase::Issuing, c"issuing"),
            (Phase::Joining, c"joining"),
            (Phase::Done, c"done"),
        ] {
            assert_eq!(phase.name(), name);
        }
    }

    // All of it together

    /// One way after the other through a tree of choices.
    struct Choices {
        /// What was chosen at each fork of this way, and out of how many.
        forks: [(usize, usize); Self::FORKS],
        passed: usize,
    }

    impl Choices {
        /// The most that are on one way.
        const FORKS: usize = 16;

        const fn new() -> Self {
            Choices {
                forks: [(0, 0); Self::FORKS],
                passed: 0,
            }
        }

        /// One of so many, from 0.
        fn pick(&mut self, of: usize) -> usize {
            let fork = &mut self.forks[self.passed];

            self.passed += 1;
            fork.1 = of;
            fork.0
        }

        /// Goes back to begin another way. Returns whether there is one.
        fn turn(&mut self) -> bool {
            let passed = core::mem::take(&mut self.passed);

            for (picked, of) in self.forks[..passed].iter_mut().rev() {
                *picked += 1;
                if picked < of {
                    return true;
                }
                *picked = 0;
            }
            false
        }
    }

    /// What can happen to a group that has been started.
    #[derive(Clone, Copy)]
    enum Event {
        /// The leader completes, its fan-out begins, or goes on.
        Proceed,
        /// A member that was issued, or failed, completes.
        Account(usize),
        /// The group is cancelled.
        Cancel,
        /// A member that is held is cancelled.
        CancelMember(usize),
    }

    /// I1, C6, X1 and X2: what becomes of a member, if `cancelled` with it or with its group.
    fn by_the_rules(outcome: Outcome, cancelled: bool) -> Verdict {
        match outcome {
            Outcome::Cancelled => Verdict::FailCancelled,
            Outcome::Success | Outcome::Failure if cancelled => Verdict::FailCancelled,
            Outcome::Failure => Verdict::FailIo,
            Outcome::Success => Verdict::Issue,
        }
    }

    /// Every order of events for groups of up to three, with every outcome, and cancelled once or
    /// not at all. What is to come of it is said once more here, by the rules alone.
    #[test]
    fn each_order_of_events() {
        const MOST: usize = 3;
        let mut orders = 0;

        for members in 1..=MOST {
            let mut choices = Choices::new();

            loop {
                let mut group = leading(members as u32);
                let mut held = [FINE; MOST];
                let (mut issued, mut accounted, mut in_flight) = (0, 0, [None; MOST]);
                let (mut outcome, mut failed) = (Outcome::Success, false);
                let (mut struck, mut cancels) = (false, 1);

                while group.phase() != Phase::Done {
                    let mut events = [Event::Proceed; 2 + 2 * MOST];
                    let mut count = usize::from(group.phase() != Phase::Joining);
                    let mut may = |event, it: bool| {
                        events[count] = event;
                        count += usize::from(it);
                    };

                    for member in 0..members {
                        may(Event::Account(member), in_flight[member].is_some());
                        let is_held = member >= issued && held[member].is_pending();
                        may(Event::CancelMember(member), cancels > 0 && is_held);
                    }
                    may(Event::Cancel, cancels > 0);
                    assert!(count > 0);

                    let mut last = Last::No;
                    match (events[choices.pick(count)], group.phase()) {
                        (Event::Proceed, Phase::Leading) => {
                            outcome = [Outcome::Success, Outcome::Failure, Outcome::Cancelled]
                                [choices.pick(3)];
                            failed |= outcome != Outcome::Success;
                            group = group.lead(outcome, false);
                        }
                        (Event::Proceed, Phase::Withheld) => {
                            let exit = choices.pick(2) == 1;
                            struck |= exit;
                            group = group.fan_out(exit);
                        }
                        (Event::Proceed, _) if issued < members => {
                            let verdict = group.next(held[issued]);
                            let cancelled = struck || !held[issued].is_pending();
                            assert_eq!(verdict, by_the_rules(outcome, cancelled));
                            assert!(verdict == Verdict::Issue || stops(group));
                            in_flight[issued] = Some(verdict);
                            issued += 1;
                        }
                        (Event::Proceed, _) => (group, last) = group.release(),
                        (Event::Account(member), _) => {
                            let fails = match in_flight[member].take() {
                                Some(Verdict::Issue) => choices.pick(2) == 1,
                                _ => true,
                            };
                            failed |= fails;
                            accounted += 1;
                            (group, last) = group.account(1, fails);
                        }
                        (Event::Cancel, _) => {
                            let pending =
                                held[issued..members].iter().any(|held| held.is_pending());
                            let (next, newly) = group.cancel(pending);
                            assert_eq!(newly, pending && !struck && outcome != Outcome::Cancelled);
                            (group, struck, cancels) = (next, true, 0);
                        }
                        (Event::CancelMember(member), _) => {
                            (held[member], cancels) = (held[member].cancel().0, 0);
                            group = group.single_out();
                        }
                    }
                    let due = match group.phase() {
                        Phase::Done => Last::Yes,
                        _ => Last::No,
                    };
                    assert_eq!(last, due);
                    assert_eq!(group.members() as usize, members - accounted);
                    assert_eq!(group.is(Mark::Failed), failed);
                }
                assert_eq!((issued, accounted), (members, members));
                orders += 1;
                if !choices.turn() {
                    break;
                }
            }
        }
        // 114, 890 and 10142. One that went astray would not find as many.
        assert_eq!(orders, 11_146);
    }
}
