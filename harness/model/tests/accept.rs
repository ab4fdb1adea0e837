// SPDX-License-Identifier: GPL-2.0-only

//! What the model accepts, and what it does not: for each rule a CQE too many, one too few, one too
//! early, or one with the wrong result.
//!
//! A test is named for the rule that is broken in it. Requests are numbered in their order.

use model::accept::{Cancel, Case, Ending, Outside, Request, Seen, Target, NEVER};
use model::form::{Asked, Bad, Memory};
use model::{Link, EALREADY, ECANCELED, EIO, ENOENT};

const EINVAL: i32 = -22;
const EPERM: i32 = -1;
const ETIME: i32 = -62;

fn request(endings: &[Ending]) -> Request {
    Request {
        asked: Asked::default(),
        endings: endings.to_vec(),
        stops: false,
        inline: true,
        cancels: None,
        writes: false,
        named: None,
    }
}

fn ending(res: i32, fails: bool, from: u32) -> Ending {
    Ending { res, fails, from }
}

/// Ends at once with this result.
fn nop(res: i32) -> Request {
    request(&[ending(res, res < 0, 0)])
}

/// Ends with 1 from a step on, or can be cancelled.
fn waits(from: u32) -> Request {
    Request {
        stops: true,
        ..request(&[ending(1, false, from)])
    }
}

/// Ends with an error that links do not notice.
fn unmarked(res: i32) -> Request {
    request(&[ending(res, false, 0)])
}

fn bad(error: i32) -> Request {
    let mut request = nop(0);
    request.asked.bad = Some(Bad::Late(error));
    request
}

fn cancel(target: usize) -> Request {
    Request {
        stops: true,
        cancels: Some(Cancel {
            target: Target::Request(target),
            counts: false,
        }),
        ..request(&[
            ending(0, false, 0),
            ending(ENOENT, true, 0),
            ending(EALREADY, true, 0),
        ])
    }
}

/// A LINK_TIMEOUT that expires soon.
fn deadline() -> Request {
    let ends = [ECANCELED, ETIME, EALREADY, ENOENT].map(|res| ending(res, false, 0));
    let mut request = request(&ends);
    request.asked.deadline = true;
    request
}

trait Flags {
    fn more(self) -> Self;
    fn link(self) -> Self;
    fn hard(self) -> Self;
    fn skip(self) -> Self;
    fn drain(self) -> Self;
    fn writes(self) -> Self;
    fn twin(self, of: usize) -> Self;
}

impl Flags for Request {
    fn more(mut self) -> Self {
        self.asked.group = true;
        self
    }

    fn link(mut self) -> Self {
        self.asked.link = Some(Link::Soft);
        self
    }

    fn hard(mut self) -> Self {
        self.asked.link = Some(Link::Hard);
        self
    }

    fn skip(mut self) -> Self {
        self.asked.skip = true;
        self
    }

    fn drain(mut self) -> Self {
        self.asked.drain = true;
        self
    }

    fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    fn twin(mut self, of: usize) -> Self {
        self.named = Some(of);
        self
    }
}

/// One submission an element, in steps 0, 1, ...
fn case<const N: usize>(submissions: [Vec<Request>; N]) -> Case {
    let mut case = Case::new(Memory::default());
    for (step, requests) in submissions.into_iter().enumerate() {
        case.submit(step as u32, requests, None);
    }
    case
}

fn seen(cqes: &[(usize, i32)], step: u32) -> Vec<Seen> {
    let seen = cqes.iter();
    seen.map(|&(request, res)| Seen { request, res, step })
        .collect()
}

/// With all CQEs found at the end.
#[track_caller]
fn accepted(case: &Case, cqes: &[(usize, i32)]) {
    assert_eq!(case.accept(&seen(cqes, 9)), Ok(()), "{cqes:?}");
}

#[track_caller]
fn rejected(case: &Case, cqes: &[(usize, i32)], rule: &str) {
    rejected_as(case.accept(&seen(cqes, 9)), rule, &format!("{cqes:?}"));
}

#[track_caller]
fn rejected_as(result: Result<(), model::accept::Rejection>, rule: &str, what: &str) {
    match result {
        Ok(()) => panic!("accepted: {what}"),
        Err(rejection) => assert!(
            rejection.rule.starts_with(rule),
            "{what}: {}",
            rejection.rule
        ),
    }
}

/// A group and what is linked to it.
fn linked(leader: Request, members: [Request; 2]) -> Case {
    let [first, second] = members;
    case([vec![leader.link().more(), first.more(), second, nop(9)]])
}

// The table of the documentation, row by row.

#[test]
fn table_all_succeed() {
    let case = linked(nop(7), [nop(1), nop(2)]);
    accepted(&case, &[(1, 1), (2, 2), (0, 7), (3, 9)]);
    accepted(&case, &[(2, 2), (1, 1), (0, 7), (3, 9)]);
    rejected(&case, &[(1, 1), (0, 7), (2, 2), (3, 9)], "C2");
    rejected(&case, &[(0, 7), (1, 1), (2, 2), (3, 9)], "C2");
    rejected(&case, &[(1, 1), (2, 2), (3, 9), (0, 7)], "I5");
    rejected(&case, &[(1, 1), (2, 2), (0, 7)], "C1");
    rejected(&case, &[(1, 1), (2, 2), (0, 7), (3, 9), (1, 1)], "C1");
    rejected(&case, &[(1, 1), (2, 2), (0, 1), (3, 9)], "C3");
    rejected(&case, &[(1, 1), (2, 2), (0, 7), (3, ECANCELED)], "C3");
}

#[test]
fn table_a_member_fails() {
    let case = linked(nop(7), [nop(EPERM), nop(2)]);
    accepted(&case, &[(1, EPERM), (2, 2), (0, 7), (3, ECANCELED)]);
    rejected(&case, &[(1, EPERM), (2, 2), (0, 7), (3, 9)], "C5");
    rejected(&case, &[(1, EPERM), (2, EIO), (0, 7), (3, ECANCELED)], "C3");
    rejected(
        &case,
        &[(1, EPERM), (2, 2), (0, EPERM), (3, ECANCELED)],
        "C3",
    );
}

#[test]
fn table_the_leader_fails() {
    let case = linked(nop(EPERM), [nop(1), nop(2)]);
    accepted(&case, &[(1, EIO), (2, EIO), (0, EPERM), (3, ECANCELED)]);
    rejected(&case, &[(1, 1), (2, EIO), (0, EPERM), (3, ECANCELED)], "C6");
    rejected(
        &case,
        &[(1, ECANCELED), (2, EIO), (0, EPERM), (3, ECANCELED)],
        "C6",
    );
    rejected(
        &case,
        &[(0, EPERM), (1, EIO), (2, EIO), (3, ECANCELED)],
        "C2",
    );
}

#[test]
fn table_the_leader_is_cancelled() {
    let group = vec![waits(NEVER).more(), nop(1).more(), nop(2)];
    let case = case([group, vec![cancel(0)]]);
    accepted(
        &case,
        &[(3, 0), (1, ECANCELED), (2, ECANCELED), (0, ECANCELED)],
    );
    rejected(&case, &[(3, 0), (1, EIO), (2, EIO), (0, ECANCELED)], "C6");
    rejected(
        &case,
        &[(3, 0), (1, 1), (2, ECANCELED), (0, ECANCELED)],
        "C6",
    );
    rejected(
        &case,
        &[(3, ENOENT), (1, ECANCELED), (2, ECANCELED), (0, ECANCELED)],
        "C3",
    );
}

#[test]
fn table_the_leader_succeeds_while_its_group_is_cancelled() {
    let leader = waits(1).link().more();
    let group = vec![leader, nop(1).more(), nop(2), nop(9)];
    let case = case([group, vec![cancel(0)]]);
    let cancelled = [
        (4, 0),
        (1, ECANCELED),
        (2, ECANCELED),
        (0, 1),
        (3, ECANCELED),
    ];
    accepted(&case, &cancelled);
    // Some were issued before.
    accepted(
        &case,
        &[(4, 0), (1, 1), (2, ECANCELED), (0, 1), (3, ECANCELED)],
    );
    // But in their order.
    rejected(
        &case,
        &[(4, 0), (1, ECANCELED), (2, 2), (0, 1), (3, ECANCELED)],
        "C3",
    );
    rejected(
        &case,
        &[(4, 0), (1, ECANCELED), (2, ECANCELED), (0, 1), (3, 9)],
        "C5",
    );
}

#[test]
fn table_a_member_is_cancelled_before_it_is_issued() {
    let group = vec![waits(2).link().more(), nop(1).more(), nop(2), nop(9)];
    let case = case([group, vec![cancel(1)]]);
    accepted(
        &case,
        &[(4, 0), (1, ECANCELED), (2, 2), (0, 1), (3, ECANCELED)],
    );
    rejected(
        &case,
        &[
            (4, 0),
            (1, ECANCELED),
            (2, ECANCELED),
            (0, 1),
            (3, ECANCELED),
        ],
        "C3",
    );
    rejected(
        &case,
        &[(4, 0), (1, ECANCELED), (2, 2), (0, 1), (3, 9)],
        "C5",
    );
    rejected(
        &case,
        &[(4, 0), (1, 1), (2, 2), (0, 1), (3, 9)],
        "X1, X2: 0, and nothing",
    );
}

#[test]
fn table_the_element_before_fails() {
    let case = case([vec![
        nop(EPERM).link(),
        nop(7).more(),
        nop(1).more(),
        nop(2),
    ]]);
    accepted(
        &case,
        &[(0, EPERM), (2, ECANCELED), (3, ECANCELED), (1, ECANCELED)],
    );
    rejected(
        &case,
        &[(0, EPERM), (2, EIO), (3, EIO), (1, ECANCELED)],
        "C6",
    );
    rejected(&case, &[(0, EPERM), (2, 1), (3, 2), (1, 7)], "C5");
    rejected(&case, &[(0, EPERM), (1, ECANCELED)], "C2");
    rejected(
        &case,
        &[(2, ECANCELED), (3, ECANCELED), (1, ECANCELED), (0, EPERM)],
        "I5",
    );
}

#[test]
fn table_a_member_is_malformed() {
    let case = case([vec![nop(7).more(), nop(1).more(), bad(EINVAL)]]);
    accepted(&case, &[(1, EIO), (2, EINVAL), (0, EINVAL)]);
    rejected(&case, &[(1, 1), (2, EINVAL), (0, 7)], "F5");
    rejected(&case, &[(1, EIO), (2, EIO), (0, EINVAL)], "F5");
    rejected(&case, &[(1, EIO), (2, EINVAL), (0, ECANCELED)], "F5");
    rejected(&case, &[(1, EIO), (0, EINVAL)], "C2");
    rejected(&case, &[(2, EINVAL)], "C1");
}

#[test]
fn table_members_skip() {
    let case = linked(nop(7), [nop(1).skip(), nop(2).skip()]);
    accepted(&case, &[(0, 7), (3, 9)]);
    rejected(&case, &[(1, 1), (0, 7), (3, 9)], "C7");
    rejected(&case, &[(3, 9)], "C1");
}

#[test]
fn table_all_skip_and_a_member_fails() {
    let case = case([vec![
        nop(7).skip().more(),
        nop(EPERM).skip().more(),
        nop(2).skip(),
    ]]);
    accepted(&case, &[(1, EPERM), (0, 7)]);
    rejected(&case, &[(1, EPERM)], "C1");
    rejected(&case, &[(0, 7)], "C1");
    rejected(&case, &[], "C1");
}

// What the table does not say.

#[test]
fn f4_what_is_the_leaders_alone() {
    let case = case([vec![nop(7).more(), nop(1).link()]]);
    accepted(&case, &[(1, EINVAL), (0, EINVAL)]);
    rejected(&case, &[(1, 1), (0, 7)], "F5");
}

#[test]
fn f5_the_rest_of_the_chain() {
    let case = case([vec![nop(3).link(), bad(EINVAL).more(), nop(1)]]);
    accepted(&case, &[(0, ECANCELED), (2, EIO), (1, EINVAL)]);
    rejected(&case, &[(0, 3), (2, EIO), (1, EINVAL)], "C5");
}

#[test]
fn f6_a_group_that_is_cut() {
    let mut case = Case::new(Memory::default());
    case.submit(0, vec![nop(7).more(), nop(1).more()], Some(EINVAL));
    case.ignore(vec![nop(2)]);
    case.submit(0, vec![nop(3).more(), nop(4), nop(5)], None);
    let all = [
        (1, ECANCELED),
        (0, EINVAL),
        (3, ECANCELED),
        (4, ECANCELED),
        (5, 5),
    ];
    accepted(&case, &all);
    rejected(
        &case,
        &[(1, 1), (0, 7), (3, ECANCELED), (4, ECANCELED), (5, 5)],
        "F6",
    );
    rejected(
        &case,
        &[
            (1, EIO),
            (0, EINVAL),
            (3, ECANCELED),
            (4, ECANCELED),
            (5, 5),
        ],
        "F6",
    );
    rejected(
        &case,
        &[(1, ECANCELED), (0, EINVAL), (3, 3), (4, 4), (5, 5)],
        "F6",
    );
    rejected(&case, &all[..4], "C1");
    // That one was never there.
    rejected(&case, &[&all[..], &[(2, 2)]].concat(), "C1");
}

#[test]
fn i1_no_member_before_its_leader() {
    let case = case([vec![waits(3).more(), nop(1)]]);
    let mut cqes = seen(&[(1, 1), (0, 1)], 4);
    assert_eq!(case.accept(&cqes), Ok(()));
    cqes[0].step = 2;
    rejected_as(case.accept(&cqes), "I1", "too early");
    // Nor a result before it can be there.
    cqes[1].step = 2;
    rejected_as(case.accept(&cqes), "C3", "too early");
}

#[test]
fn i2_in_submission_order() {
    let group = vec![nop(7).more(), nop(1).writes().more(), nop(1).writes()];
    let case = case([group]);
    let cqes = seen(&[(1, 1), (2, 1), (0, 7)], 9);
    assert_eq!(case.written(&cqes, &[1, 2]), Ok(()));
    rejected_as(case.written(&cqes, &[2, 1]), "I2", "reverse");
    rejected_as(case.written(&cqes, &[1]), "C3", "one is missing");
    rejected_as(case.written(&cqes, &[1, 2, 2]), "I1", "twice");
    rejected_as(case.written(&cqes, &[1, 2, 0]), "C1", "of another");
}

#[test]
fn i1_the_leader_writes_first() {
    let case = case([vec![nop(1).writes().more(), nop(1).writes()]]);
    let cqes = seen(&[(1, 1), (0, 1)], 9);
    assert_eq!(case.written(&cqes, &[0, 1]), Ok(()));
    rejected_as(case.written(&cqes, &[1, 0]), "I1", "too early");
}

#[test]
fn c6_what_is_not_issued_does_nothing() {
    let case = case([vec![nop(EPERM).more(), nop(1).writes()]]);
    let cqes = seen(&[(1, EIO), (0, EPERM)], 9);
    assert_eq!(case.written(&cqes, &[]), Ok(()));
    rejected_as(case.written(&cqes, &[1]), "F5, C6", "written");
}

#[test]
fn i4_drains() {
    let group = vec![nop(7).more(), waits(0)];
    let case = case([group, vec![nop(8).drain().more(), nop(9)]]);
    accepted(&case, &[(1, 1), (0, 7), (3, 9), (2, 8)]);
    rejected(&case, &[(1, 1), (3, 9), (0, 7), (2, 8)], "I4");
    rejected(&case, &[(3, 9), (2, 8), (1, 1), (0, 7)], "I4");
}

#[test]
fn i4_nothing_starts_before_what_drains_is_done() {
    let case = case([vec![nop(7).drain().more(), waits(1)], vec![nop(8)]]);
    accepted(&case, &[(1, 1), (0, 7), (2, 8)]);
    rejected(&case, &[(2, 8), (1, 1), (0, 7)], "I4");
    rejected(&case, &[(1, 1), (2, 8), (0, 7)], "I4");
}

#[test]
fn i5_the_next_element_waits() {
    let case = case([vec![waits(3).link(), nop(1)]]);
    let mut cqes = seen(&[(0, 1), (1, 1)], 4);
    assert_eq!(case.accept(&cqes), Ok(()));
    cqes[1].step = 2;
    rejected_as(case.accept(&cqes), "I5", "too early");
}

#[test]
fn i5_written_in_the_order_of_the_chain() {
    let case = case([vec![nop(7).link().more(), nop(1).writes(), nop(1).writes()]]);
    let cqes = seen(&[(1, 1), (0, 7), (2, 1)], 9);
    assert_eq!(case.written(&cqes, &[1, 2]), Ok(()));
    rejected_as(case.written(&cqes, &[2, 1]), "I5", "too early");
}

#[test]
fn c5_what_links_do_not_notice() {
    // A single request as today, a group not.
    let single = case([vec![unmarked(EINVAL).link(), nop(1)]]);
    accepted(&single, &[(0, EINVAL), (1, 1)]);
    rejected(&single, &[(0, EINVAL), (1, ECANCELED)], "C3");
    let leader = linked(unmarked(EINVAL), [nop(1), nop(2)]);
    accepted(&leader, &[(1, EIO), (2, EIO), (0, EINVAL), (3, ECANCELED)]);
    rejected(&leader, &[(1, 1), (2, 2), (0, EINVAL), (3, 9)], "C6");
    let member = linked(nop(7), [unmarked(EINVAL), nop(2)]);
    accepted(&member, &[(1, EINVAL), (2, 2), (0, 7), (3, ECANCELED)]);
    rejected(&member, &[(1, EINVAL), (2, 2), (0, 7), (3, 9)], "C5");
}

#[test]
fn c5_a_hard_link_goes_on() {
    let case = case([vec![nop(7).hard().more(), nop(EPERM), nop(9)]]);
    accepted(&case, &[(1, EPERM), (0, 7), (2, 9)]);
    rejected(&case, &[(1, EPERM), (0, 7), (2, ECANCELED)], "C3");
}

/// Today what waits for a worker takes along what is behind it, and that in spite of a hard link.
#[test]
fn c5_a_hard_link_behind_what_waits_for_a_worker() {
    let chain = |inline| {
        let mut first = waits(NEVER).hard();
        first.inline = inline;
        case([vec![first, nop(1).hard(), nop(2)], vec![cancel(0)]])
    };
    accepted(
        &chain(false),
        &[(3, 0), (0, ECANCELED), (1, ECANCELED), (2, ECANCELED)],
    );
    accepted(&chain(false), &[(3, 0), (0, ECANCELED), (1, 1), (2, 2)]);
    accepted(&chain(true), &[(3, 0), (0, ECANCELED), (1, 1), (2, 2)]);
    rejected(
        &chain(true),
        &[(3, 0), (0, ECANCELED), (1, ECANCELED), (2, ECANCELED)],
        "C3",
    );
    rejected(
        &chain(false),
        &[(3, 0), (0, ECANCELED), (1, 1), (2, ECANCELED)],
        "C3",
    );
}

#[test]
fn c7_a_broken_chain_is_dropped() {
    let case = case([vec![nop(EPERM).link().skip(), nop(7).more(), nop(1)]]);
    accepted(&case, &[(0, EPERM)]);
    rejected(&case, &[(0, EPERM), (2, ECANCELED), (1, ECANCELED)], "C7");
}

#[test]
fn x1_what_is_in_flight_is_cancelled() {
    let group = vec![nop(7).more(), waits(2).more(), waits(2)];
    let case = case([group, vec![cancel(0)]]);
    accepted(&case, &[(3, 0), (1, ECANCELED), (2, ECANCELED), (0, 7)]);
    // It has to find them, and to stop all of them.
    rejected(
        &case,
        &[(3, ENOENT), (1, 1), (2, 1), (0, 7)],
        "X1, X2: 0, something",
    );
    rejected(
        &case,
        &[(3, EALREADY), (1, 1), (2, 1), (0, 7)],
        "X1, X2: 0, something",
    );
    rejected(
        &case,
        &[(3, 0), (1, ECANCELED), (2, 1), (0, 7)],
        "X1, X2: was not stopped",
    );
    rejected(
        &case,
        &[(3, 0), (1, 1), (2, 1), (0, 7)],
        "X1, X2: 0, and nothing",
    );
}

#[test]
fn x1_not_found_when_it_is_done() {
    let case = case([vec![nop(7).more(), nop(1)], vec![cancel(0)]]);
    let early = seen(&[(1, 1), (0, 7)], 0);
    let all = |res| [early.clone(), seen(&[(2, res)], 1)].concat();
    assert_eq!(case.accept(&all(ENOENT)), Ok(()));
    rejected_as(case.accept(&all(EALREADY)), "X1, X2: -ENOENT", "it is done");
}

#[test]
fn x1_not_found_while_it_waits() {
    let chain = vec![waits(2).link(), nop(7).more(), nop(1)];
    let case = case([chain, vec![cancel(1)]]);
    accepted(&case, &[(3, ENOENT), (0, 1), (2, 1), (1, 7)]);
    rejected(
        &case,
        &[(3, EALREADY), (0, 1), (2, 1), (1, 7)],
        "X1, X2: a group that waits",
    );
}

#[test]
fn x2_a_member_in_flight() {
    let group = vec![nop(7).more(), waits(2).more(), waits(2)];
    let case = case([group, vec![cancel(1)]]);
    accepted(&case, &[(3, 0), (1, ECANCELED), (2, 1), (0, 7)]);
    rejected(
        &case,
        &[(3, 0), (1, ECANCELED), (2, ECANCELED), (0, 7)],
        "C3",
    );
    rejected(
        &case,
        &[(3, ENOENT), (1, 1), (2, 1), (0, 7)],
        "X1, X2: 0, something",
    );
}

#[test]
fn x2_cancels_that_strike_nobody() {
    let case = case([vec![nop(7).more(), nop(1)], vec![cancel(77)]]);
    accepted(&case, &[(1, 1), (0, 7), (2, ENOENT)]);
    rejected(
        &case,
        &[(1, 1), (0, 7), (2, 0)],
        "X1, X2: cancels what is not there",
    );
}

#[test]
fn x3_from_outside() {
    let mut case = case([vec![waits(NEVER).more(), nop(1)]]);
    let cqes = [(1, ECANCELED), (0, ECANCELED)];
    rejected(&case, &cqes, "C3");
    case.outside.push(Outside {
        step: 1,
        cancel: Cancel {
            target: Target::Any,
            counts: true,
        },
        ret: 1,
    });
    accepted(&case, &cqes);
}

#[test]
fn x4_a_deadline() {
    let chain = vec![nop(7).link().more(), waits(2), deadline()];
    let case = case([chain]);
    accepted(&case, &[(1, ECANCELED), (0, 7), (2, ETIME)]);
    accepted(&case, &[(1, 1), (0, 7), (2, ECANCELED)]);
    rejected(&case, &[(1, ECANCELED), (0, 7), (2, ECANCELED)], "C3");
    rejected(&case, &[(1, ECANCELED), (0, 7), (2, 0)], "X4");
    rejected(&case, &[(1, ECANCELED), (0, 7)], "C1");
    let finds_nothing = [(2, ENOENT), (1, 1), (0, 7)];
    accepted(&case, &finds_nothing);
    let early = [seen(&finds_nothing[..1], 1), seen(&finds_nothing[1..], 2)].concat();
    rejected_as(case.accept(&early), "X4: a deadline does not find", "");
    // It strikes, as nothing else ends the member.
    assert_eq!(case.overdue(&[], 1), Some(2));
    assert_eq!(case.overdue(&seen(&[(2, ETIME)], 1), 1), None);
    assert_eq!(case.overdue(&[], 2), None);
}

#[test]
fn c1_cqes_of_one_user_data_are_anybodys() {
    let case = case([vec![nop(1), nop(2).twin(0), nop(3)]]);
    accepted(&case, &[(0, 2), (2, 3), (0, 1)]);
    accepted(&case, &[(0, 1), (0, 2), (2, 3)]);
    rejected(&case, &[(0, 1), (0, 1), (2, 3)], "C3");
    rejected(&case, &[(0, 1), (0, 2), (0, 2), (2, 3)], "C1: two");
    rejected(&case, &[(0, 1), (2, 3)], "C1");
    let lacking = case.accept(&seen(&[(0, 2), (2, 3)], 9));
    assert!(lacking.is_err_and(|one| one.lacking));
}

#[test]
fn c2_whichever_leader_it_was() {
    let case = case([
        vec![waits(2).more(), nop(5)],
        vec![nop(7).twin(0).more(), nop(6)],
    ]);
    accepted(&case, &[(3, 6), (0, 7), (1, 5), (0, 1)]);
    // Which rule is broken depends on whose they are held to be.
    rejected(&case, &[(3, 6), (0, 1), (1, 5), (0, 7)], "");
    rejected(&case, &[(0, 7), (3, 6), (1, 5), (0, 1)], "");
}

#[test]
fn x1_any_of_one_user_data_is_found() {
    let case = case([
        vec![waits(2).more(), nop(5)],
        vec![waits(2).twin(0).more(), nop(6)],
        vec![cancel(0)],
    ]);
    let struck = [(4, 0), (1, ECANCELED), (0, ECANCELED), (3, 6), (0, 1)];
    accepted(&case, &struck);
    let other = [(4, 0), (3, ECANCELED), (0, ECANCELED), (1, 5), (0, 1)];
    accepted(&case, &other);
    rejected(&case, &[(4, 0), (1, 5), (0, 1), (3, 6), (0, 1)], "");
    // Half of one, and half of the other.
    rejected(
        &case,
        &[(4, 0), (1, ECANCELED), (0, 1), (3, 6), (0, ECANCELED)],
        "",
    );
}

/// A deadline is for its group, whoever has the same `user_data`.
#[test]
fn x4_a_deadline_leaves_namesakes() {
    let case = case([
        vec![nop(7).more(), waits(2)],
        vec![nop(7).twin(0).link().more(), waits(2), deadline()],
    ]);
    accepted(&case, &[(3, ECANCELED), (0, 7), (4, ETIME), (1, 1), (0, 7)]);
    rejected(
        &case,
        &[(1, ECANCELED), (0, 7), (4, ETIME), (3, 1), (0, 7)],
        "C3",
    );
}

/// One of a plain request is not: that is how it is today.
#[test]
fn x4_a_plain_deadline_takes_namesakes_for_its_own() {
    let case = case([
        vec![nop(1).link(), deadline()],
        vec![waits(2).twin(0).more(), nop(5)],
    ]);
    accepted(&case, &[(0, 1), (1, ETIME), (3, ECANCELED), (0, ECANCELED)]);
    accepted(&case, &[(0, 1), (1, ECANCELED), (3, 5), (0, 1)]);
    rejected(
        &case,
        &[(0, 1), (1, ECANCELED), (3, ECANCELED), (0, ECANCELED)],
        "",
    );
    rejected(&case, &[(0, 1), (1, ETIME), (3, ECANCELED), (0, 1)], "");
}

#[test]
fn what_may_still_come_is_lacking() {
    let case = case([vec![nop(7).more(), nop(1)]]);
    let lacking = |cqes| case.accept(&seen(cqes, 9)).map_err(|one| one.lacking);
    assert_eq!(lacking(&[]), Err(true));
    assert_eq!(lacking(&[(1, 1)]), Err(true));
    assert_eq!(lacking(&[(1, 2)]), Err(true));
    assert_eq!(lacking(&[(0, 7), (1, 1)]), Err(false));
    assert_eq!(lacking(&[(1, 2), (0, 7)]), Err(false));
}

#[test]
fn many_members_are_no_matter() {
    let mut group: Vec<_> = (0..63).map(|res| nop(res).more()).collect();
    group.push(nop(63));
    let case = case([group]);
    let mut cqes: Vec<_> = (1..64).map(|id| (id, id as i32)).collect();
    cqes.push((0, 0));
    accepted(&case, &cqes);
    cqes.swap(62, 63);
    rejected(&case, &cqes, "C2");
}
