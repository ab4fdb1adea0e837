// SPDX-License-Identifier: GPL-2.0

//! Every order of events, for chains of up to three elements with groups of up to four members.
//!
//! The core is driven as the kernel drives it (`binding`), every event that may happen next is
//! tried, and the rules judge each step (the crate `model`). A state in which everything is as in one that
//! was seen before has the same future, and is not entered again. What ends is checked to be an
//! end. As every event takes something that can't come back, each order of events does end.
//!
//! To keep that to seconds, what is the same is not done twice:
//!
//! * A request that is gone is remembered only by whether it failed and what became of its CQE.
//! * The core never looks at CQE_SKIP, it's the binding that does. So that is tried in each
//!   combination for groups of up to two members; larger ones have it on no member, on the first
//!   one, or on all. Members differ in nothing else.
//! * The more members, the fewer cancel requests, and opcodes only succeed or fail where the largest
//!   groups and the longest chains are cancelled. Which error it was matters to one request, not to
//!   how many there are.
//! * In a chain one element runs at a time, so what surrounds a group in a chain is tried with small
//!   groups.
//!
//! Members are not exchanged for each other, though: their order counts (I2).

mod binding;

use binding::{Bounds, Cqes, Ending, Event, World};
use model::{Broken, Element, Link, Program, Sqe, ECANCELED, EIO};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

const ENDINGS: &[Ending] = &[
    Ending::Success,
    Ending::Error,
    Ending::Unmarked,
    Ending::Cancelled,
];

const ALL_ENDINGS: &[Ending] = &[
    Ending::Success,
    Ending::Error,
    Ending::Unmarked,
    Ending::Cancelled,
    Ending::Short,
];

/// A hash that is good enough for states, and cheap without optimisation: the default one takes most
/// of the time then.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let fold = |word, &byte: &u8| word << 8 | u64::from(byte);

            self.write_u64(chunk.iter().fold(0, fold));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        // The table takes its bits from both ends, and the low ones are weak.
        self.0 ^ self.0 >> 32
    }
}

/// Prints how one got there, also when the core or the binding panics.
struct Path<'a> {
    program: &'a Program,
    events: Vec<Event>,
}

impl Drop for Path<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.program);
            for event in &self.events {
                eprintln!("  {event:?}");
            }
        }
    }
}

/// What has been seen.
#[derive(Default)]
struct Tally {
    programs: u64,
    states: u64,
    ends: u64,
    /// Orders of events from the submission to the end.
    orders: u128,
}

impl Tally {
    fn report(&self, name: &str) {
        let Tally {
            programs,
            states,
            ends,
            orders,
        } = self;

        println!(
            "{name}: {programs} programs, {states} states, {ends} ends, {:.1e} orders of events",
            *orders as f64
        );
    }
}

struct Search<'a> {
    path: Path<'a>,
    bounds: &'a Bounds,
    /// The number of orders in which it can go on from a state.
    seen: HashMap<World, u128, BuildHasherDefault<Fold>>,
    ends: u64,
    cqes: BTreeSet<Cqes>,
}

impl Search<'_> {
    fn check(&self, result: Result<(), Broken>) {
        if let Err(rule) = result {
            panic!("{rule}");
        }
    }

    fn visit(&mut self, world: &World) -> u128 {
        if let Some(&orders) = self.seen.get(world) {
            return orders;
        }
        let program = self.path.program;
        let events = world.events(program, self.bounds);
        let mut orders: u128 = 0;

        if events.is_empty() {
            self.check(world.end(program));
            self.ends += 1;
            self.cqes.insert(world.cqes());
            orders = 1;
        }
        for event in events {
            let mut next = *world;

            self.path.events.push(event);
            let result = next.apply(program, event);
            self.check(result);
            orders = orders.saturating_add(self.visit(&next));
            self.path.events.pop();
        }
        self.seen.insert(*world, orders);
        orders
    }
}

/// Tries all that can happen to `program`. Returns what it may post, if that is recorded.
fn search(tally: &mut Tally, program: &Program, bounds: &Bounds) -> BTreeSet<Cqes> {
    let mut search = Search {
        path: Path {
            program,
            events: Vec::new(),
        },
        bounds,
        seen: HashMap::default(),
        ends: 0,
        cqes: BTreeSet::new(),
    };
    let world = World::submit(program, bounds).unwrap_or_else(|rule| panic!("{rule}"));
    let orders = search.visit(&world);

    tally.programs += 1;
    tally.states += search.seen.len() as u64;
    tally.ends += search.ends;
    tally.orders = tally.orders.saturating_add(orders);
    search.cqes
}

/// Requests that complete as they like, and nothing else happens.
const CALM: Bounds = Bounds {
    endings: ENDINGS,
    cancels: 0,
    exit: false,
    overflows: 0,
    record: false,
};

const LINKS: [Link; 2] = [Link::Soft, Link::Hard];

/// All the ways to set `n` flags.
fn flags(n: usize) -> impl Iterator<Item = Vec<bool>> {
    (0..1u32 << n).map(move |bits| (0..n).map(|bit| bits & 1 << bit != 0).collect())
}

/// A leader and its members, or a single request, with CQE_SKIP where `skips` says so.
fn element(link: Link, skips: &[bool]) -> Element {
    let sqe = |&skip: &bool| Sqe {
        skip,
        ..Sqe::default()
    };

    Element {
        link,
        sqes: skips.iter().map(sqe).collect(),
    }
}

/// A group with a request linked to it, so that it shows whether the chain goes on.
fn group_and_next(link: Link, skips: &[bool]) -> Program {
    Program::new(vec![element(link, skips), element(link, &[false])], None)
}

/// CQE_SKIP in each combination for a small group, and where it may matter for a larger one.
fn skips(members: usize) -> Vec<Vec<bool>> {
    if members <= 2 {
        return flags(members + 1).collect();
    }
    let with = |leader: bool, skipping: usize| {
        let members = (0..members).map(|member| member < skipping);
        std::iter::once(leader).chain(members).collect()
    };
    [false, true]
        .into_iter()
        .flat_map(|leader| [0, 1, members].map(|skipping| with(leader, skipping)))
        .collect()
}

/// Groups of `members` with each way to skip.
fn groups(name: &str, members: usize, links: &[Link], bounds: &Bounds) {
    let mut tally = Tally::default();

    for &link in links {
        for skips in skips(members) {
            search(&mut tally, &group_and_next(link, &skips), bounds);
        }
    }
    tally.report(name);
}

#[test]
fn groups_of_1() {
    let bounds = Bounds {
        endings: ALL_ENDINGS,
        cancels: 3,
        exit: true,
        overflows: 1,
        ..CALM
    };
    groups("groups of 1", 1, &LINKS, &bounds);
}

#[test]
fn groups_of_2() {
    let bounds = Bounds {
        endings: ALL_ENDINGS,
        cancels: 2,
        ..CALM
    };
    groups("groups of 2", 2, &LINKS, &bounds);
}

#[test]
fn groups_of_3() {
    let bounds = Bounds { cancels: 1, ..CALM };
    groups("groups of 3", 3, &LINKS, &bounds);
}

#[test]
fn groups_of_4() {
    groups("groups of 4", 4, &[Link::Soft], &CALM);
}

/// One cancel request at any time, of which each subset of what is in flight may be struck.
#[test]
fn groups_of_4_cancelled() {
    let mut tally = Tally::default();
    let bounds = Bounds {
        endings: &[Ending::Success, Ending::Error],
        cancels: 1,
        ..CALM
    };
    search(
        &mut tally,
        &group_and_next(Link::Soft, &[false; 5]),
        &bounds,
    );
    tally.report("groups of 4, cancelled");
}

/// A TIMEOUT completes with an error that is none.
#[test]
fn groups_with_timers() {
    let mut tally = Tally::default();

    for link in LINKS {
        for (skips, timers) in flags(3).flat_map(|skips| flags(3).map(move |t| (skips.clone(), t)))
        {
            let mut program = group_and_next(link, &skips);
            let sqes = &mut program.elements[0].sqes;
            for (sqe, timer) in sqes.iter_mut().zip(timers) {
                sqe.timer = timer;
            }
            search(&mut tally, &program, &CALM);
        }
    }
    tally.report("groups with timers");
}

/// The CQ overflows at every position, and the application reads it at any time.
#[test]
fn groups_that_overflow() {
    let mut tally = Tally::default();
    let bounds = |cancels, overflows| Bounds {
        cancels,
        overflows,
        ..CALM
    };

    for members in [1, 2] {
        for skips in flags(members + 1) {
            search(
                &mut tally,
                &group_and_next(Link::Soft, &skips),
                &bounds(1, 2),
            );
        }
    }
    search(
        &mut tally,
        &group_and_next(Link::Soft, &[false; 4]),
        &bounds(0, 1),
    );
    tally.report("groups that overflow");
}

/// All chains of `elements` that are single requests or groups of up to `members`, with each way
/// to link them.
fn chains(elements: usize, members: usize) -> impl Iterator<Item = Vec<(Link, usize)>> {
    let choices = LINKS.len() * (members + 1);

    (0..choices.pow(elements as u32)).filter_map(move |mut number| {
        let mut chain = Vec::new();
        for _ in 0..elements {
            let choice = number % choices;
            number /= choices;
            chain.push((LINKS[choice % 2], choice / 2 + 1));
        }
        // What the last one says of a next one means nothing.
        (chain.last()?.0 == Link::Soft).then_some(chain)
    })
}

/// The program for such a chain, with CQE_SKIP on `heads` and on all members or none.
fn program(chain: &[(Link, usize)], heads: &[bool], members: bool) -> Program {
    let element = |(&(link, size), &head): (&(Link, usize), &bool)| {
        let mut skips = vec![members; size];
        skips[0] = head;
        element(link, &skips)
    };

    Program::new(chain.iter().zip(heads).map(element).collect(), None)
}

#[test]
fn chains_of_2() {
    let mut tally = Tally::default();
    let bounds = Bounds { exit: true, ..CALM };

    for chain in chains(2, 2) {
        for heads in flags(2) {
            for members in [false, true] {
                search(&mut tally, &program(&chain, &heads, members), &bounds);
            }
        }
    }
    tally.report("chains of 2");
}

#[test]
fn chains_of_3() {
    let mut tally = Tally::default();

    // The last one has nothing behind it that its flag could count for.
    for chain in chains(3, 2) {
        for heads in flags(2) {
            let heads = [heads[0], heads[1], false];

            search(&mut tally, &program(&chain, &heads, false), &CALM);
        }
    }
    tally.report("chains of 3");
}

/// A group is cancelled, or its task exits, in the middle of a chain.
#[test]
fn chains_of_3_cancelled() {
    let mut tally = Tally::default();
    let bounds = Bounds {
        endings: &[Ending::Success, Ending::Error],
        cancels: 2,
        exit: true,
        ..CALM
    };

    for chain in chains(3, 1) {
        search(&mut tally, &program(&chain, &[false; 3], false), &bounds);
    }
    tally.report("chains of 3, cancelled");
}

/// F5 and F6: one or two SQEs of a chain are bad, each with an error of its own, or its last group
/// can't be taken as a whole, or both.
#[test]
fn chains_with_bad_sqes() {
    let mut tally = Tally::default();
    let large = [
        vec![(Link::Soft, 5)],
        vec![(Link::Hard, 4), (Link::Soft, 3)],
    ];
    let all = chains(1, 3)
        .chain(chains(2, 2))
        .chain(chains(3, 1))
        .chain(large);

    for chain in all {
        for heads in flags(chain.len()) {
            let fine = program(&chain, &heads, false);
            let cut = || Program::new(fine.elements.clone(), Some(-22));

            search(&mut tally, &cut(), &CALM);
            for (first, second) in pairs(fine.len()) {
                for mut program in [fine.clone(), cut()] {
                    for bad in [first, second] {
                        program.sqe_mut(bad).bad = Some(-20 - bad as i32);
                    }
                    search(&mut tally, &program, &CALM);
                }
            }
        }
    }
    tally.report("chains with bad SQEs");
}

/// A group that is bad is not found by a cancel request, whenever that comes.
#[test]
fn chains_with_bad_sqes_cancelled() {
    let mut tally = Tally::default();
    let bounds = Bounds {
        cancels: 2,
        exit: true,
        ..CALM
    };

    for chain in chains(1, 3).chain(chains(2, 1)) {
        let fine = program(&chain, &vec![false; chain.len()], false);

        for bad in 0..fine.len() {
            let mut program = fine.clone();

            program.sqe_mut(bad).bad = Some(-20);
            search(&mut tally, &program, &bounds);
        }
    }
    tally.report("chains with bad SQEs, cancelled");
}

/// All pairs of numbers below `n`, and each of them with itself.
fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |first| (first..n).map(move |second| (first, second)))
}

// What is posted, and in which order: the table that the documentation has. Here it's not only that
// nothing else is posted, but that each of it can be.

const L: u8 = 0;
const M1: u8 = 1;
const M2: u8 = 2;
const AFTER: u8 = 3;

fn ok(id: u8) -> (u8, i16) {
    (id, 100 + i16::from(id))
}

fn err(id: u8) -> (u8, i16) {
    (id, -200 - i16::from(id))
}

fn canceled(id: u8) -> (u8, i16) {
    (id, ECANCELED as i16)
}

fn eio(id: u8) -> (u8, i16) {
    (id, EIO as i16)
}

/// What may be posted for `program`, if requests succeed or fail.
fn posted(program: &Program, bounds: &Bounds) -> BTreeSet<Cqes> {
    let bounds = Bounds {
        record: true,
        ..*bounds
    };

    search(&mut Tally::default(), program, &bounds)
}

const SUCCESS_OR_ERROR: Bounds = Bounds {
    endings: &[Ending::Success, Ending::Error],
    ..CALM
};

/// All succeed: M1 and M2 in any order, then L. One fails: the same, and the chain is cancelled.
/// L fails: -EIO for its members.
#[test]
fn table_each_outcome() {
    let mut expected = BTreeSet::new();

    for m1 in [ok(M1), err(M1)] {
        for m2 in [ok(M2), err(M2)] {
            for [first, second] in [[m1, m2], [m2, m1]] {
                if (m1, m2) == (ok(M1), ok(M2)) {
                    expected.insert(vec![first, second, ok(L), ok(AFTER)]);
                    expected.insert(vec![first, second, ok(L), err(AFTER)]);
                } else {
                    expected.insert(vec![first, second, ok(L), canceled(AFTER)]);
                }
            }
        }
    }
    expected.insert(vec![eio(M1), eio(M2), err(L), canceled(AFTER)]);

    let program = group_and_next(Link::Soft, &[false; 3]);
    assert_eq!(posted(&program, &SUCCESS_OR_ERROR), expected);
}

/// Members skip: L only. What fails is posted.
#[test]
fn table_members_skip() {
    let mut expected = BTreeSet::from([
        vec![ok(L), ok(AFTER)],
        vec![ok(L), err(AFTER)],
        vec![err(M1), ok(L), canceled(AFTER)],
        vec![err(M2), ok(L), canceled(AFTER)],
        vec![err(M1), err(M2), ok(L), canceled(AFTER)],
        vec![err(M2), err(M1), ok(L), canceled(AFTER)],
    ]);
    expected.insert(vec![eio(M1), eio(M2), err(L), canceled(AFTER)]);

    let program = group_and_next(Link::Soft, &[false, true, true]);
    assert_eq!(posted(&program, &SUCCESS_OR_ERROR), expected);
}

/// All skip: nothing, or what fails and then L, which takes along what is behind it.
#[test]
fn table_all_skip() {
    let expected = BTreeSet::from([
        vec![ok(AFTER)],
        vec![err(AFTER)],
        vec![err(M1), ok(L)],
        vec![err(M2), ok(L)],
        vec![err(M1), err(M2), ok(L)],
        vec![err(M2), err(M1), ok(L)],
        vec![eio(M1), eio(M2), err(L)],
    ]);

    let program = group_and_next(Link::Soft, &[true; 3]);
    assert_eq!(posted(&program, &SUCCESS_OR_ERROR), expected);
}

/// A group, or one of its members, is cancelled at any time. All that is not cancelled succeeds.
#[test]
fn table_cancelled() {
    let bounds = Bounds {
        endings: &[Ending::Success],
        cancels: 1,
        ..CALM
    };
    // The leader, while it runs.
    let mut expected = BTreeSet::from([vec![
        canceled(M1),
        canceled(M2),
        canceled(L),
        canceled(AFTER),
    ]]);

    // Members, issued or not.
    for m1 in [ok(M1), canceled(M1)] {
        for m2 in [ok(M2), canceled(M2)] {
            for [first, second] in [[m1, m2], [m2, m1]] {
                let after = if (m1, m2) == (ok(M1), ok(M2)) {
                    ok(AFTER)
                } else {
                    canceled(AFTER)
                };
                expected.insert(vec![first, second, ok(L), after]);
            }
        }
    }

    let program = group_and_next(Link::Soft, &[false; 3]);
    assert_eq!(posted(&program, &bounds), expected);
}

/// M2 is malformed: M1 -EIO, M2 its error, and L M2's. The element before the group fails: all of
/// it -ECANCELED.
#[test]
fn table_never_started() {
    let mut bad = group_and_next(Link::Soft, &[false; 3]);
    bad.sqe_mut(usize::from(M2)).bad = Some(-22);
    assert_eq!(
        posted(&bad, &SUCCESS_OR_ERROR),
        BTreeSet::from([vec![eio(M1), (M2, -22), (L, -22), canceled(AFTER)]])
    );

    let before = element(Link::Soft, &[false]);
    let program = Program::new(vec![before, element(Link::Soft, &[false; 3])], None);
    let (before, leader, members) = (0, 1, [2, 3]);
    let bounds = Bounds {
        endings: &[Ending::Error],
        ..CALM
    };
    let [m1, m2] = members.map(canceled);
    assert_eq!(
        posted(&program, &bounds),
        BTreeSet::from([vec![err(before), m1, m2, canceled(leader)]])
    );
}
