// SPDX-License-Identifier: GPL-2.0-only

//! Whether there is an order of events, allowed by the rules, that explains the CQEs of a program.
//!
//! A CQE says when a request posts and with which result, but not when it was issued, when it
//! completed, or when a cancellation struck. Most of that follows: a request is issued as soon as
//! the rules let it. What does not follow is tried, which is where in its fan-out a group was
//! cancelled. Each try is told to a [`Model`], event by event; the CQEs are accepted if it has
//! nothing against one of them.
//!
//! Beside the order there is time, in steps of the application. A read of an empty pipe can't end
//! before the step that fills it, and nor can what waits for it begin.
//!
//! The model only knows of one chain. What chains have to do with each other stands here: drains
//! (I4), and what cancel requests report (X1, X2).

use crate::chain::{Broken, Model, Program, EALREADY, ECANCELED, EIO, ENOENT};
use crate::form::{Asked, Chain, Memory};

/// The most requests of a chain.
pub const MAX: usize = 64;
/// The most elements of a chain.
pub const MAX_ELEMENTS: usize = 64;

type Rules = Model<MAX, MAX_ELEMENTS>;

/// When: the number of what the application does.
pub type Step = u32;
/// A step that does not come.
pub const NEVER: Step = Step::MAX;

/// A way for a request to end by itself, once it was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its result.
    pub res: i32,
    /// Links treat it as failed.
    pub fails: bool,
    /// Not before this step.
    pub from: Step,
}

/// What a cancel request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Requests, by their `user_data`: that of this one. One that is not there is beyond the end.
    Request(usize),
    /// The same, timers only (`IORING_OP_TIMEOUT_REMOVE`).
    Timer(usize),
    /// All timers there are.
    Timers,
    /// All there are.
    Any,
}

/// A cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// What it is for.
    pub target: Target,
    /// It returns a number, rather than whether there was one.
    pub counts: bool,
}

/// An SQE, and all that its opcode may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it says itself.
    pub asked: Asked,
    /// How it may end by itself.
    pub endings: Vec<Ending>,
    /// It can be stopped while it runs.
    pub stops: bool,
    /// It never sees a worker, unless there are drains.
    pub inline: bool,
    /// It is a cancel request.
    pub cancels: Option<Cancel>,
    /// It leaves a mark if it is issued, see [`Case::written`].
    pub writes: bool,
    /// It has the `user_data` of this request, which comes before it and has one of its own.
    pub named: Option<usize>,
}

impl Request {
    /// It does not end by itself in this step.
    fn outlasts(&self, step: Step) -> bool {
        self.endings.iter().all(|ending| ending.from > step)
    }

    /// It is in flight, or done, when the submission returns: never in between.
    fn done_at_once(&self) -> bool {
        let succeeds = |ending: &Ending| ending.from == 0 && !ending.fails && ending.res >= 0;
        self.inline && !self.stops && self.cancels.is_none() && self.endings.iter().all(succeeds)
    }
}

/// A number of SQEs that were submitted at once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Submission {
    step: Step,
    /// Number of the first one.
    first: usize,
    chains: Vec<Chain>,
}

/// A cancellation that is no request, `IORING_REGISTER_SYNC_CANCEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// When.
    pub step: Step,
    /// What for.
    pub cancel: Cancel,
    /// What it reports.
    pub ret: i32,
}

/// A CQE, with the step in which the application found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is, as far as its `user_data` tells: the first request with that.
    pub request: usize,
    /// Its result.
    pub res: i32,
    /// It was there by the end of this step.
    pub step: Step,
}

/// Why CQEs are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The rule that is broken, and how.
    pub rule: Broken,
    /// By which request.
    pub request: Option<usize>,
    /// Something may still come that mends it.
    pub lacking: bool,
}

/// How the element before has left things for an element.
#[derive(Clone, Copy)]
struct Start {
    /// It cannot begin earlier.
    since: Step,
    /// It goes with the one before it, which was cancelled as it waited for a worker in this step.
    /// Today that is so in spite of HARDLINK.
    stopped: Option<Step>,
}

/// As far as an explanation got.
struct Tried {
    rejection: Rejection,
    /// CQEs that were explained.
    explained: usize,
}

/// A program, and what happened outside of its requests.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Its SQEs, in the order in which they were submitted.
    pub requests: Vec<Request>,
    /// Cancellations that are no requests.
    pub outside: Vec<Outside>,
    submissions: Vec<Submission>,
    memory: Memory,
}

/// Where a request is.
#[derive(Clone, Copy)]
struct Place<'a> {
    submission: &'a Submission,
    chain: &'a Chain,
    /// Its number in the chain, or nothing if it is a deadline.
    local: Option<usize>,
}

impl Case {
    /// Nothing was submitted yet, to a ring that remembers this.
    pub fn new(memory: Memory) -> Self {
        Case {
            memory,
            ..Case::default()
        }
    }

    /// These requests are submitted at once, and none behind them could be taken because of `cut`.
    pub fn submit(&mut self, step: Step, mut requests: Vec<Request>, cut: Option<i32>) {
        let asked: Vec<_> = requests.iter().map(|request| request.asked).collect();
        let chains = self.memory.form(&asked, cut);

        for chain in chains.iter().filter(|chain| chain.dangles) {
            for &number in &chain.requests {
                requests[number].inline = false;
                requests[number].stops = true;
            }
        }
        // What is linked to one that a worker runs is for that worker too.
        for chain in &chains {
            let heads = (0..chain.program.elements.len()).map(|e| chain.program.head(e));
            let mut worker = false;
            for head in heads {
                let request = &mut requests[chain.requests[head]];
                request.inline &= !worker;
                request.stops |= worker;
                worker |= !request.inline;
            }
        }
        self.submissions.push(Submission {
            step,
            first: self.requests.len(),
            chains,
        });
        self.requests.extend(requests);
    }

    /// These are not submitted, and have numbers all the same.
    pub fn ignore(&mut self, requests: Vec<Request>) {
        self.requests.extend(requests);
    }

    /// What the ring remembers.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    fn places(&self) -> impl Iterator<Item = (&Submission, &Chain)> {
        self.submissions.iter().flat_map(|submission| {
            let chains = submission.chains.iter();
            chains.map(move |chain| (submission, chain))
        })
    }

    fn place(&self, request: usize) -> Option<Place<'_>> {
        self.places().find_map(|(submission, chain)| {
            let number = request.checked_sub(submission.first)?;
            let local = chain.requests.iter().position(|&id| id == number);
            let deadline = chain.deadlines.iter().any(|one| one.request == number);

            (local.is_some() || deadline).then_some(Place {
                submission,
                chain,
                local,
            })
        })
    }

    /// The first request that has the `user_data` of this one.
    fn name(&self, request: usize) -> usize {
        let named = self.requests.get(request).and_then(|one| one.named);
        named.unwrap_or(request)
    }

    /// The requests that have the `user_data` of this one, which was the first.
    fn namesakes(&self, name: usize) -> impl Iterator<Item = usize> + '_ {
        (name..self.requests.len()).filter(move |&id| self.name(id) == name)
    }

    fn has_namesakes(&self, request: usize) -> bool {
        self.namesakes(self.name(request)).nth(1).is_some()
    }

    /// Whether these CQEs are all there may be and have to be, and come in an order in which they
    /// may come.
    pub fn accept(&self, seen: &[Seen]) -> Result<(), Rejection> {
        self.attribute(seen.to_vec(), 0)
    }

    /// Tries each way to say which CQE is whose, from `at` on, where the `user_data` leaves a
    /// choice.
    fn attribute(&self, mut seen: Vec<Seen>, at: usize) -> Result<(), Rejection> {
        let open = |at: &usize| self.has_namesakes(seen[*at].request);
        let Some(at) = (at..seen.len()).find(open) else {
            return self.explain(&seen);
        };
        let name = self.name(seen[at].request);
        let mut last = broken("C1: two CQEs of one SQE", name);
        for id in self.namesakes(name) {
            if seen[..at].iter().any(|cqe| cqe.request == id) {
                continue;
            }
            seen[at].request = id;
            match self.attribute(seen.clone(), at + 1) {
                // What may still come is worth waiting for.
                Err(rejection) if !last.lacking => last = rejection,
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
        Err(last)
    }

    fn explain(&self, seen: &[Seen]) -> Result<(), Rejection> {
        let mut places = vec![None; self.requests.len()];

        for (at, cqe) in seen.iter().enumerate() {
            let place = places.get_mut(cqe.request).ok_or(Rejection {
                rule: "C1: a CQE of no request",
                request: None,
                lacking: false,
            })?;
            if place.replace(at).is_some() {
                return Err(broken("C1: two CQEs of one SQE", cqe.request));
            }
        }
        let view = View {
            case: self,
            seen,
            places,
        };
        let mut explained = 0;
        for (submission, chain) in self.places() {
            view.chain(submission, chain)?;
            let deadlines = chain.deadlines.iter().map(|deadline| deadline.request);
            let ids = chain.requests.iter().copied().chain(deadlines);
            explained += ids
                .filter(|id| view.cqe(submission.first + id).is_some())
                .count();
        }
        if explained != seen.len() {
            return Err(Rejection {
                rule: "C1: a CQE of an SQE that was not taken",
                request: None,
                lacking: false,
            });
        }
        view.drains()?;
        view.reports()?;
        view.deadlines()
    }

    /// Deadlines that are to strike by themselves, as something of their element does not end before
    /// this step, and have not.
    pub fn overdue(&self, seen: &[Seen], step: Step) -> Option<usize> {
        if self.memory.drains {
            return None;
        }
        self.places().find_map(|(submission, chain)| {
            let deadline = chain.deadlines.iter().find(|one| one.element == 0)?;
            let id = submission.first + deadline.request;
            let strikes = |ending: &Ending| ending.res != ECANCELED && ending.from <= step;

            (self.lasts(submission, chain, step)
                && self.requests[id].endings.iter().any(strikes)
                && !self.requests[id].asked.skip
                && !seen.iter().any(|cqe| cqe.request == id))
            .then_some(id)
        })
    }

    /// Something of a chain's first element is in flight until this step, unless its deadline
    /// strikes, which alone may.
    fn lasts(&self, submission: &Submission, chain: &Chain, step: Step) -> bool {
        let requests = chain.requests_of(0);
        let mut requests = requests.map(|id| &self.requests[submission.first + id]);
        let stays = |request: &Request| request.inline && request.outlasts(step);
        let Some(head) = requests.next() else {
            return false;
        };
        let lasts = stays(head) || head.done_at_once() && requests.any(stays);

        lasts
            && head.inline
            && !chain.program.is_void()
            && self.strikers(submission, chain, 0).count() == 1
    }

    /// Numbers of the requests that may cancel something of an element.
    fn strikers<'a>(
        &'a self,
        submission: &'a Submission,
        chain: &'a Chain,
        element: usize,
    ) -> impl Iterator<Item = Option<usize>> + 'a {
        let hits = move |cancel: &Cancel| match cancel.target {
            Target::Any => true,
            Target::Timers => {
                let mut own = chain.requests_of(element);
                own.any(|number| self.requests[submission.first + number].asked.timer)
            }
            Target::Request(id) | Target::Timer(id) => {
                let mut own = chain.requests_of(element);
                own.any(|number| self.name(submission.first + number) == id)
            }
        };
        let requests = self.requests.iter().enumerate();
        let requests =
            requests.filter(move |(_, request)| request.cancels.as_ref().is_some_and(hits));
        let outside = self.outside.iter().filter(move |one| hits(&one.cancel));
        let deadlines = chain.deadlines.iter().filter(move |one| {
            let mut endings = self.requests[submission.first + one.request].endings.iter();
            one.element == element && endings.any(|ending| ending.res != ECANCELED)
        });

        let others = chain.requests_of(element).flat_map(move |number| {
            let all = self.deadlines_of_namesakes(submission.first + number);
            all.map(|(id, _)| Some(id))
        });

        requests
            .map(|(id, _)| Some(id))
            .chain(deadlines.map(move |one| Some(submission.first + one.request)))
            .chain(others)
            .chain(outside.map(|_| None))
    }

    /// Deadlines of plain requests that have the `user_data` of this one, with the steps in which
    /// they were submitted. Today they look for what they are for by that, and may find this one.
    fn deadlines_of_namesakes(&self, request: usize) -> impl Iterator<Item = (usize, Step)> + '_ {
        self.places().flat_map(move |(submission, chain)| {
            let like = move |&id: &usize| id != request && self.name(id) == self.name(request);
            let deadlines = chain.deadlines.iter().filter(move |one| {
                let mut own = chain.requests_of(one.element);
                let id = own.next().map(|number| submission.first + number);
                own.next().is_none() && id.as_ref().is_some_and(like)
            });
            deadlines.map(move |one| (submission.first + one.request, submission.step))
        })
    }

    /// Whether the marks that requests have left, in the order in which they were found, are those
    /// of requests that were issued, in an order in which they may be.
    pub fn written(&self, seen: &[Seen], marks: &[usize]) -> Result<(), Rejection> {
        let position = |id| marks.iter().position(|&mark| mark == id);

        for (at, &id) in marks.iter().enumerate() {
            if !self.requests.get(id).is_some_and(|request| request.writes) {
                return Err(broken("C1: a mark of no request", id));
            }
            if marks[..at].contains(&id) {
                return Err(broken("I1: issued once at most", id));
            }
        }
        for cqe in seen {
            // Which one has posted, of several?
            if !self.requests[cqe.request].writes || self.has_namesakes(cqe.request) {
                continue;
            }
            let rule = match (cqe.res >= 0, position(cqe.request)) {
                (true, None) => "C3: success of a request that has done nothing",
                (false, Some(_)) => "F5, C6: a request that is said not to be issued was",
                _ => continue,
            };
            return Err(broken(rule, cqe.request));
        }
        for (submission, chain) in self.places() {
            let ids = |element| chain.requests_of(element).map(|id| submission.first + id);
            let mut before: Option<usize> = None;

            for element in 0..chain.program.elements.len() {
                let marks: Vec<_> = ids(element)
                    .filter_map(|id| Some((id, position(id)?)))
                    .collect();

                for (nth, &(id, mark)) in marks.iter().enumerate() {
                    if before.is_some_and(|last| mark < last) {
                        return Err(broken("I5: issued before the element before it", id));
                    }
                    let led = ids(element).next();
                    let late = marks[nth + 1..].iter().find(|(_, later)| *later < mark);
                    if let Some(&(other, _)) = late {
                        if led == Some(id) {
                            return Err(broken("I1: issued before its leader", other));
                        }
                        let inline = |id: usize| self.requests[id].inline;
                        if inline(id) && inline(other) && !chain.drains {
                            return Err(broken("I2: issued before an earlier member", other));
                        }
                    }
                }
                before = marks.iter().map(|&(_, mark)| mark).max().or(before);
            }
        }
        Ok(())
    }
}

impl Chain {
    /// Of an element, as numbers of the submission.
    fn requests_of(&self, element: usize) -> impl Iterator<Item = usize> + '_ {
        self.requests[self.program.requests(element)]
            .iter()
            .copied()
    }
}

/// What a request ends with that is stopped, in a worker too.
fn is_cancelled(res: i32) -> bool {
    const EINTR: i32 = -4;

    res == ECANCELED || res == EINTR
}

fn broken(rule: Broken, request: usize) -> Rejection {
    Rejection {
        rule,
        request: Some(request),
        lacking: false,
    }
}

fn lacking(rule: Broken, request: usize) -> Rejection {
    Rejection {
        lacking: true,
        ..broken(rule, request)
    }
}

/// A case with the CQEs that are to be explained.
struct View<'a> {
    case: &'a Case,
    seen: &'a [Seen],
    /// Of each request, the number of its CQE.
    places: Vec<Option<usize>>,
}

/// A chain on its way through the rules.
struct Walk<'a> {
    view: &'a View<'a>,
    submission: &'a Submission,
    chain: &'a Chain,
    /// Its CQEs: the number of the request in the chain, and the CQE.
    cqes: Vec<(usize, Seen)>,
}

impl View<'_> {
    fn cqe(&self, id: usize) -> Option<&Seen> {
        self.places[id].map(|at| &self.seen[at])
    }

    /// When a cancellation may have struck: the first of all that are for `hits`, as far as they do
    /// not say that they found nothing.
    fn struck(&self, hits: impl Fn(Target) -> bool) -> Option<Step> {
        let inside = self.case.submissions.iter().flat_map(|submission| {
            let end = submission.chains.iter().flat_map(|chain| {
                let deadlines = chain.deadlines.iter().map(|one| one.request);
                chain.requests.iter().copied().chain(deadlines)
            });
            end.map(move |number| (submission.step, submission.first + number))
        });
        let inside = inside.filter_map(|(step, id)| {
            let cancel = self.case.requests[id].cancels?;
            let found = self
                .cqe(id)
                .is_none_or(|cqe| cqe.res >= 0 || cqe.res == EALREADY);
            (found && hits(cancel.target)).then_some(step)
        });
        let outside = self.case.outside.iter().filter_map(|one| {
            let found = one.ret != ENOENT;
            (found && hits(one.cancel.target)).then_some(one.step)
        });

        inside.chain(outside).min()
    }

    fn chain(&self, submission: &Submission, chain: &Chain) -> Result<(), Rejection> {
        let number = |id: usize| id.checked_sub(submission.first);
        let local = |id| {
            chain
                .requests
                .iter()
                .position(|&other| Some(other) == number(id))
        };
        let cqes = self.seen.iter();
        let cqes = cqes.filter_map(|cqe| Some((local(cqe.request)?, *cqe)));
        let walk = Walk {
            view: self,
            submission,
            chain,
            cqes: cqes.collect(),
        };

        if chain.rest {
            return walk.rest();
        }
        let start = Start {
            since: submission.step,
            stopped: None,
        };
        let mut ids = chain
            .requests
            .iter()
            .map(|number| submission.first + number);
        let may_come = ids.any(|id| self.cqe(id).is_none());
        walk.element(0, Rules::new(), 0, start)
            .map_err(|tried| Rejection {
                // One that has not come may be why another one has the wrong result.
                lacking: tried.rejection.lacking || may_come,
                ..tried.rejection
            })
    }

    /// I4: what drains waits for all that came before it.
    fn drains(&self) -> Result<(), Rejection> {
        for (submission, chain) in self.case.places().filter(|(_, chain)| chain.drains) {
            let ids = chain
                .requests
                .iter()
                .map(|number| submission.first + number);
            let Some(first) = ids.clone().filter_map(|id| self.places[id]).min() else {
                continue;
            };
            let last = ids.clone().filter_map(|id| self.places[id]).max();
            let (began, ended) = (ids.clone().min().unwrap_or(0), ids.max().unwrap_or(0));
            for cqe in &self.seen[first..] {
                if cqe.request < began {
                    return Err(broken(
                        "I4: posts after a request that drains, and came before it",
                        cqe.request,
                    ));
                }
            }
            // Today nothing at all is started until what drains is done.
            for cqe in &self.seen[..last.unwrap_or(first)] {
                let started = self.case.place(cqe.request).is_some_and(|place| {
                    let issued = !place.chain.program.is_void() && !place.chain.rest;
                    place.local.is_some() && issued
                });
                if cqe.request > ended && started {
                    return Err(broken(
                        "I4: posts before a request that drains, and came after it",
                        cqe.request,
                    ));
                }
            }
        }
        Ok(())
    }

    /// X4: a deadline finds what it is for, where it is known that this is there.
    fn deadlines(&self) -> Result<(), Rejection> {
        if self.case.memory.drains {
            return Ok(());
        }
        for (submission, chain) in self.case.places() {
            for deadline in chain.deadlines.iter().filter(|one| one.element == 0) {
                let id = submission.first + deadline.request;
                let Some(cqe) = self.cqe(id) else { continue };
                let missed = [ENOENT, EALREADY].contains(&cqe.res);
                if missed && self.case.lasts(submission, chain, cqe.step) {
                    return Err(broken("X4: a deadline does not find what it is for", id));
                }
            }
        }
        Ok(())
    }

    /// What cancel requests report, where it is known what they have found.
    fn reports(&self) -> Result<(), Rejection> {
        for (id, request) in self.case.requests.iter().enumerate() {
            let (Some(cancel), Some(cqe)) = (request.cancels, self.cqe(id)) else {
                continue;
            };
            let Target::Request(target) = cancel.target else {
                continue;
            };
            if cancel.counts {
                continue;
            }
            let Some(place) = self.case.place(target) else {
                if cqe.res == 0 && !self.case.has_namesakes(target) {
                    return Err(broken("X1, X2: cancels what is not there", id));
                }
                continue;
            };
            if self.case.has_namesakes(target) {
                let mut found = self.case.namesakes(target);
                let is_evident = |other| {
                    let place = self.case.place(other);
                    place.is_some_and(|place| self.evidence(id, other, &place).is_ok())
                };
                if cqe.res == 0 && !found.any(is_evident) {
                    return Err(broken("X1, X2: 0, and nothing was cancelled", id));
                }
                continue;
            }
            if cqe.res == 0 {
                self.evidence(id, target, &place)?;
            }
            let own = self.case.place(id);
            let Some(own) = own.filter(|own| own.chain.requests.len() == 1) else {
                continue;
            };
            let issued = !own.chain.program.is_void() && !own.chain.rest;
            if self.case.memory.drains || !issued || !request.inline {
                continue;
            }
            // Open: a worker may still have it in its hands.
            let released = self.case.requests[target].inline;
            if let Some(end) = self.cqe(target).filter(|_| released) {
                if end.step < own.submission.step && cqe.res != ENOENT {
                    return Err(broken("X1, X2: -ENOENT if it is done", id));
                }
            }
            if target < id {
                self.surely(id, cqe.res, own.submission.step, target, &place)?;
            }
        }
        Ok(())
    }

    /// X1, X2: returns 0 if anything was newly cancelled, so there has to be something.
    fn evidence(&self, id: usize, target: usize, place: &Place<'_>) -> Result<(), Rejection> {
        let first = place.submission.first;
        let cancelled = |id| self.cqe(id).is_none_or(|cqe| is_cancelled(cqe.res));
        let program = &place.chain.program;
        let found = match place.local {
            Some(local) if program.head(program.element(local)) == local => {
                let mut requests = place.chain.requests_of(program.element(local));
                requests.any(|number| cancelled(first + number))
            }
            _ => cancelled(target),
        };

        if found {
            Ok(())
        } else {
            Err(broken("X1, X2: 0, and nothing was cancelled", id))
        }
    }

    /// `id` looks for `target` in this step, when there is no doubt how that one is.
    fn surely(
        &self,
        id: usize,
        res: i32,
        step: Step,
        target: usize,
        place: &Place<'_>,
    ) -> Result<(), Rejection> {
        let Place {
            submission,
            chain,
            local,
        } = *place;
        let Some(local) = local else {
            return Ok(());
        };
        if chain.program.is_void() || chain.rest {
            return Ok(());
        }
        let program = &chain.program;
        let element = program.element(local);
        let request = |local: usize| &self.case.requests[submission.first + chain.requests[local]];
        let stays = |local: usize| request(local).inline && request(local).outlasts(step);

        // It waits for an element that does not end.
        if element > 0 {
            let holds = |e: usize| {
                let lasts = program
                    .requests(e)
                    .any(|local| request(local).outlasts(step));
                lasts && (0..=e).all(|e| self.case.strikers(submission, chain, e).next().is_none())
            };
            if (0..element).any(holds) && res != ENOENT {
                return Err(broken("X1, X2: a group that waits is not found", id));
            }
            return Ok(());
        }
        if !self.case.strikers(submission, chain, 0).eq([Some(id)]) {
            return Ok(());
        }
        // It has been started, and nobody else cancels it.
        let led = stays(0) || request(0).done_at_once();
        let found = if local == 0 {
            stays(0) || led && program.members(0).any(stays)
        } else {
            stays(0) || led && stays(local)
        };
        if !found {
            return Ok(());
        }
        if res != 0 {
            return Err(broken("X1, X2: 0, something could be cancelled", id));
        }
        // So has all of it that can be stopped.
        let mut struck = program
            .requests(0)
            .filter(|&other| local == 0 || other == local);
        let missed = struck.find(|&other| {
            let own = self.cqe(submission.first + chain.requests[other]);
            stays(other) && own.is_some_and(|cqe| cqe.res >= 0)
        });
        match missed {
            Some(_) => Err(broken("X1, X2: was not stopped by what cancels it", target)),
            None => Ok(()),
        }
    }
}

impl Walk<'_> {
    fn program(&self) -> &Program {
        &self.chain.program
    }

    fn id(&self, local: usize) -> usize {
        self.submission.first + self.chain.requests[local]
    }

    fn request(&self, local: usize) -> &Request {
        &self.view.case.requests[self.id(local)]
    }

    fn own(&self, local: usize) -> Option<Seen> {
        self.view.cqe(self.id(local)).copied()
    }

    /// F6: what is left of a group that was cut.
    fn rest(&self) -> Result<(), Rejection> {
        match self.own(0) {
            None => Err(lacking("C1: a CQE is lost", self.id(0))),
            Some(cqe) if cqe.res != ECANCELED => Err(broken(
                "F6: what is left of the group is cancelled",
                self.id(0),
            )),
            Some(_) => Ok(()),
        }
    }

    /// LINK_TIMEOUTs, which post what they post today.
    fn deadlines(&self, rules: &Rules) -> Result<(), Rejection> {
        for deadline in &self.chain.deadlines {
            let id = self.submission.first + deadline.request;
            let request = &self.view.case.requests[id];
            let dropped = rules.is_dropped(self.program(), deadline.element);
            let Some(cqe) = self.view.cqe(id) else {
                // Open: what if it skips its own?
                if dropped || request.asked.skip {
                    continue;
                }
                return Err(lacking("C1: a CQE is lost", id));
            };
            if dropped {
                return Err(broken("C7: a CQE that is to be skipped", id));
            }
            let may = |ending: &Ending| ending.res == cqe.res && ending.from <= cqe.step;
            if !request.endings.iter().any(may) {
                return Err(broken("X4: a deadline does not end like this", id));
            }
        }
        Ok(())
    }

    /// When the whole of an element may have been cancelled, X1 and X4.
    fn group_struck(&self, element: usize) -> Option<Step> {
        let head = self.id(self.program().head(element));
        let name = self.view.case.name(head);
        let by_request = self.view.struck(|target| target == Target::Request(name));
        let by_deadline = self.chain.deadlines.iter().find(|one| {
            let id = self.submission.first + one.request;
            let mut endings = self.view.case.requests[id].endings.iter();
            let may = endings.any(|ending| ending.res != ECANCELED);
            let did = self.view.cqe(id).is_none_or(|cqe| cqe.res != ECANCELED);
            one.element == element && may && did
        });

        by_request
            .into_iter()
            .chain(by_deadline.map(|_| self.submission.step))
            .min()
    }

    /// When a request may have been cancelled by itself, X2 and X3.
    fn request_struck(&self, local: usize) -> Option<Step> {
        let case = self.view.case;
        let name = case.name(self.id(local));
        let struck = self.view.struck(|target| match target {
            Target::Request(other) | Target::Timer(other) => other == name,
            Target::Timers => self.request(local).asked.timer,
            Target::Any => true,
        });
        let deadlines = case.deadlines_of_namesakes(self.id(local));
        let deadlines = deadlines.filter(|(id, _)| {
            let cqe = self.view.cqe(*id);
            cqe.is_none_or(|cqe| cqe.res != ECANCELED)
        });

        struck
            .into_iter()
            .chain(deadlines.map(|(_, step)| step))
            .min()
    }

    /// How a request that was issued ended: with which result, whether links treat it as failed,
    /// and when at the earliest.
    fn ending(
        &self,
        local: usize,
        struck: Option<Step>,
        stopped: Option<Step>,
    ) -> Result<Ending, Rejection> {
        let request = self.request(local);
        let Some(cqe) = self.own(local) else {
            if !request.asked.skip {
                return Err(lacking("C1: a CQE is lost", self.id(local)));
            }
            // So links do not treat it as failed.
            let fine = |ending: &&Ending| !ending.fails && ending.from != NEVER;
            let fine = request
                .endings
                .iter()
                .filter(fine)
                .min_by_key(|ending| ending.from);
            return fine
                .copied()
                .ok_or(lacking("C1: a CQE is lost", self.id(local)));
        };
        let same = request
            .endings
            .iter()
            .filter(|ending| ending.res == cqe.res);
        let struck = struck.filter(|_| request.stops && is_cancelled(cqe.res));
        let stopped = stopped.filter(|_| cqe.res == ECANCELED);
        let stopped = struck.into_iter().chain(stopped).map(|from| Ending {
            res: cqe.res,
            fails: true,
            from,
        });
        let ending = same
            .copied()
            .chain(stopped)
            .min_by_key(|ending| ending.from);

        match ending {
            None => Err(broken("C3: not a result of its own", self.id(local))),
            Some(ending) if ending.from > cqe.step => Err(broken(
                "C3: a result that it cannot have by then",
                self.id(local),
            )),
            Some(ending) => Ok(ending),
        }
    }

    /// A request that is not issued completes.
    fn fail(&self, rules: &mut Rules, local: usize) -> Result<(), Rejection> {
        let program = self.program();
        if let Some(cqe) = self.own(local) {
            return rules
                .complete(program, local, cqe.res, true)
                .map_err(|rule| broken(rule, self.id(local)));
        }
        // Its CQE is dropped; the rules know which result it has.
        let sqes = program.elements.iter().flat_map(|element| &element.sqes);
        let all = sqes.filter_map(|sqe| sqe.bad);
        let all = all.chain(program.cut).chain([ECANCELED, EIO]);
        let mut last = "C1: a CQE is lost";
        for res in all {
            match rules.complete(program, local, res, true) {
                Ok(()) => return Ok(()),
                Err(rule) => last = rule,
            }
        }
        Err(broken(last, self.id(local)))
    }

    /// Explains an element and all behind it, from CQE `next` on.
    fn element(
        &self,
        element: usize,
        rules: Rules,
        next: usize,
        start: Start,
    ) -> Result<(), Tried> {
        let program = self.program();
        if element == program.elements.len() {
            return self.end(rules, next);
        }
        let members = program.members(element).len();
        let struck = self.group_struck(element);
        let guesses = match struck {
            Some(_) if members > 0 => members,
            _ => 0,
        };
        // Not cancelled, or before the nth member is issued.
        let guesses = std::iter::once(None).chain((0..guesses).map(Some));
        let mut furthest: Option<Tried> = None;

        for guess in guesses {
            let tried = self.guess(element, rules, next, start, struck, guess);
            let Err(tried) = tried else {
                return Ok(());
            };
            if furthest
                .as_ref()
                .is_none_or(|other| tried.explained > other.explained)
            {
                furthest = Some(tried);
            }
        }
        match furthest {
            Some(tried) => Err(tried),
            None => Ok(()),
        }
    }

    fn guess(
        &self,
        element: usize,
        mut rules: Rules,
        mut next: usize,
        start: Start,
        struck: Option<Step>,
        guess: Option<usize>,
    ) -> Result<(), Tried> {
        let program = self.program();
        let until = self
            .begin(element, &mut rules, start, struck, guess)
            .map_err(|rejection| Tried {
                // What comes next can't begin, and nothing says that it has.
                rejection: match self.cqes.get(next) {
                    None => lacking("C1: a CQE is lost", self.id(program.head(element))),
                    Some(_) => rejection,
                },
                explained: next,
            })?;

        while let Some(&(local, cqe)) = self.cqes.get(next) {
            if program.element(local) > element {
                break;
            }
            self.post(&mut rules, local, cqe.res)
                .map_err(|rule| Tried {
                    rejection: broken(rule, cqe.request),
                    explained: next,
                })?;
            next += 1;
        }
        self.element(element + 1, rules, next, until)
    }

    /// What happens to an element before it posts. Returns when it can be done at the earliest.
    fn begin(
        &self,
        element: usize,
        rules: &mut Rules,
        start: Start,
        struck: Option<Step>,
        guess: Option<usize>,
    ) -> Result<Start, Rejection> {
        let program = self.program();
        let head = program.head(element);
        let Start { since, stopped } = start;

        if rules.is_kept(program, head) {
            for local in program.requests(element) {
                self.fail(rules, local)?;
            }
            return Ok(Start {
                since,
                stopped: None,
            });
        }
        let begins = |local: usize, since: Step, rule: Broken| match self.own(local) {
            Some(cqe) if cqe.step < since => Err(broken(rule, self.id(local))),
            _ => Ok(()),
        };
        let named = |local: usize| move |rule| broken(rule, self.id(local));
        let either = |one: Option<Step>, other: Option<Step>| one.into_iter().chain(other).min();

        rules.issue(program, head).map_err(named(head))?;
        begins(head, since, "I5: before the element before it can be done")?;
        let by_itself = either(struck, self.request_struck(head));
        let led = self.ending(head, by_itself, stopped)?;
        rules
            .complete(program, head, led.res, led.fails)
            .map_err(named(head))?;
        let led_at = since.max(led.from);
        let mut until = led_at;

        let mut issued = Vec::new();
        for (nth, local) in program.members(element).enumerate() {
            if guess == Some(nth) {
                rules.strike_group(element);
            }
            let by_itself = self.request_struck(local);
            let cancelled = self.own(local).is_some_and(|cqe| cqe.res == ECANCELED);
            if !rules.is_kept(program, local) {
                let ending = self.ending(local, either(struck, by_itself), None);
                let held = ending.is_err() && cancelled && by_itself.is_some();
                if !held {
                    rules.issue(program, local).map_err(named(local))?;
                    issued.push((local, ending?));
                    continue;
                }
            }
            if cancelled && by_itself.is_some() {
                rules.strike(local);
            }
            begins(local, led_at, "X2: before its leader can have completed")?;
            self.fail(rules, local)?;
        }
        for (local, ending) in issued {
            begins(local, led_at, "I1: before its leader can have completed")?;
            rules
                .complete(program, local, ending.res, ending.fails)
                .map_err(named(local))?;
            until = until.max(ending.from);
        }
        let waited = self.request(head).stops && !self.request(head).inline;
        let cancelled = led.res == ECANCELED;
        Ok(Start {
            since: until,
            stopped: either(stopped, by_itself.filter(|_| waited)).filter(|_| cancelled),
        })
    }

    fn post(&self, rules: &mut Rules, local: usize, res: i32) -> Result<(), Broken> {
        rules.post(self.program(), local, res)?;
        rules.see(self.program(), local)
    }

    /// All elements have begun. What is left are requests that go, and CQEs that are missing.
    fn end(&self, mut rules: Rules, next: usize) -> Result<(), Tried> {
        let program = self.program();

        for local in 0..program.len() {
            rules.release(program, local).map_err(|rule| Tried {
                rejection: lacking(rule, self.id(local)),
                explained: next,
            })?;
        }
        rules.end(program).map_err(|rule| Tried {
            rejection: Rejection {
                rule,
                request: None,
                lacking: true,
            },
            explained: next,
        })?;
        self.deadlines(&rules).map_err(|rejection| Tried {
            rejection,
            explained: next,
        })
    }
}
