// SPDX-License-Identifier: GPL-2.0-only

//! The rules for a chain: what may happen to its requests, and with which result.
//!
//! A [`Model`] remembers for each request what has happened to it, and says of each thing that
//! happens next whether it may, and which rule forbids it.

use std::ops::Range;

/// The most requests that a [`Model`] remembers, if nothing else is said.
pub const MAX: usize = 9;
/// The most elements of its chain.
pub const MAX_ELEMENTS: usize = 3;

/// The errors that io_uring itself hands out.
pub const EIO: i32 = -5;
/// Also what a cancelled request completes with.
pub const ECANCELED: i32 = -125;
/// What a request gets today that was to be issued by a task which exits.
pub const EFAULT: i32 = -14;
/// Result of a cancel request: there is nothing to be cancelled.
pub const ENOENT: i32 = -2;
/// Result of a cancel request: what there is can't be cancelled any more.
pub const EALREADY: i32 = -114;

/// Which rule has been broken, and how.
pub type Broken = &'static str;

/// What the application asks for with one SQE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sqe {
    /// `IOSQE_CQE_SKIP_SUCCESS`
    pub skip: bool,
    /// It is an `IORING_OP_TIMEOUT`.
    pub timer: bool,
    /// It can't be executed, because of this error.
    pub bad: Option<i32>,
}

/// What the first SQE of an element says about the next element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// `IOSQE_IO_LINK`
    Soft,
    /// `IOSQE_IO_HARDLINK`
    Hard,
}

/// An element of a chain: a leader and its members, or a single request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Means nothing for the last element.
    pub link: Link,
    /// The first one is the leader if there are more.
    pub sqes: Vec<Sqe>,
}

/// A chain. Its SQEs are numbered in their order, over all elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// At least one.
    pub elements: Vec<Element>,
    /// The last element is a group of which no more could be taken, because of this error.
    pub cut: Option<i32>,
    /// The element of each SQE. Kept as it is asked for all the time.
    element: Vec<usize>,
    /// The first SQE of each element, and the end.
    heads: Vec<usize>,
}

impl Program {
    /// A chain of `elements`.
    pub fn new(elements: Vec<Element>, cut: Option<i32>) -> Self {
        let (mut element, mut heads) = (Vec::new(), vec![0]);

        for (number, Element { link: _, sqes }) in elements.iter().enumerate() {
            element.resize(element.len() + sqes.len(), number);
            heads.push(element.len());
        }
        Program {
            elements,
            cut,
            element,
            heads,
        }
    }

    /// Number of the first SQE of `element`: the leader, or the only one.
    pub fn head(&self, element: usize) -> usize {
        self.heads[element]
    }

    /// Numbers of the SQEs of `element`.
    pub fn requests(&self, element: usize) -> Range<usize> {
        self.heads[element]..self.heads[element + 1]
    }

    /// Numbers of the members of `element`.
    pub fn members(&self, element: usize) -> Range<usize> {
        self.heads[element] + 1..self.heads[element + 1]
    }

    /// The element that an SQE belongs to.
    pub fn element(&self, sqe: usize) -> usize {
        self.element[sqe]
    }

    /// By its number.
    pub fn sqe(&self, sqe: usize) -> &Sqe {
        let element = self.element[sqe];

        &self.elements[element].sqes[sqe - self.heads[element]]
    }

    /// The same, to be changed.
    pub fn sqe_mut(&mut self, sqe: usize) -> &mut Sqe {
        let element = self.element[sqe];

        &mut self.elements[element].sqes[sqe - self.heads[element]]
    }

    /// Whether it has no SQE. None that is submitted does.
    pub fn is_empty(&self) -> bool {
        self.element.is_empty()
    }

    /// Number of SQEs.
    pub fn len(&self) -> usize {
        self.element.len()
    }

    /// F3. A leader without a member is not one.
    fn is_group(&self, element: usize) -> bool {
        self.elements[element].sqes.len() > 1
    }

    /// The first bad SQE of an element.
    fn bad(&self, element: usize) -> Option<i32> {
        self.elements[element].sqes.iter().find_map(|sqe| sqe.bad)
    }

    fn is_cut(&self, element: usize) -> bool {
        self.cut.is_some() && element == self.elements.len() - 1
    }

    /// F5, F6, and what is known of chains: one bad SQE, and nothing of the chain is issued.
    pub fn is_void(&self) -> bool {
        self.cut.is_some() || (0..self.elements.len()).any(|e| self.bad(e).is_some())
    }
}

/// How a request has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End {
    res: i32,
    /// Links treat it as failed.
    marked: bool,
}

/// What has happened to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Request {
    /// It was handed to its opcode.
    issued: bool,
    /// It has completed, issued or not.
    end: Option<End>,
    /// A cancellation found it, before or after it was issued.
    cancelled: bool,
    /// Its CQE was posted.
    posted: bool,
    /// The application has seen its CQE.
    seen: bool,
    /// It is gone, with all that it held.
    released: bool,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Model<const N: usize = MAX, const E: usize = MAX_ELEMENTS> {
    requests: [Request; N],
    /// Elements that X1 has struck.
    cancelled: [bool; E],
    /// The task is on its way out.
    exiting: bool,
}

fn check(holds: bool, rule: Broken) -> Result<(), Broken> {
    if holds {
        Ok(())
    } else {
        Err(rule)
    }
}

impl<const N: usize, const E: usize> Default for Model<N, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize, const E: usize> Model<N, E> {
    /// Nothing has happened.
    pub fn new() -> Self {
        Model {
            requests: [Request::default(); N],
            cancelled: [false; E],
            exiting: false,
        }
    }

    // What the rules speak of.

    /// "What failed means". What was never issued has failed as well.
    pub fn failed(&self, program: &Program, id: usize) -> bool {
        let Request { issued, end, .. } = self.requests[id];
        let Some(End { res, marked }) = end else {
            return false;
        };
        let unmarked = program.is_group(program.element(id)) && res < 0 && !program.sqe(id).timer;

        !issued || marked || unmarked
    }

    /// C5, first sentence.
    fn element_failed(&self, program: &Program, element: usize) -> bool {
        let mut requests = program.requests(element);
        requests.any(|id| self.failed(program, id))
    }

    fn completed(&self, mut requests: Range<usize>) -> bool {
        requests.all(|id| self.requests[id].end.is_some())
    }

    /// C5: the element that has broken the chain before `element`. HARDLINK keeps a chain going,
    /// but not one that was never started.
    fn breaker(&self, program: &Program, element: usize) -> Option<usize> {
        (0..element).find(|&e| {
            let keeps = program.elements[e].link == Link::Hard && !program.is_void();
            self.element_failed(program, e) && !keeps
        })
    }

    /// C7, "the rule for links that drops the CQEs of the rest of a broken chain": the flag of the
    /// one that breaks it says. The leader's stands for its group.
    pub fn is_dropped(&self, program: &Program, element: usize) -> bool {
        self.breaker(program, element)
            .is_some_and(|breaker| program.sqe(program.head(breaker)).skip)
    }

    /// C7. Only what has completed can be asked for, and for a leader all of its group.
    fn posts(&self, program: &Program, id: usize) -> bool {
        let element = program.element(id);
        let sqe = program.sqe(id);

        if self.breaker(program, element).is_some() {
            return !self.is_dropped(program, element);
        }
        let failed = if id == program.head(element) {
            // "A failed group always posts its leader ..."
            self.element_failed(program, element)
        } else {
            // "... and each failed member."
            self.failed(program, id)
        };

        !sqe.skip || failed
    }

    /// All there was to be posted of these has been.
    fn settled(&self, program: &Program, mut requests: Range<usize>) -> bool {
        self.completed(requests.clone())
            && requests.all(|id| self.requests[id].posted || !self.posts(program, id))
    }

    /// The element is done, for what comes after it.
    fn done(&self, program: &Program, element: usize) -> bool {
        self.settled(program, program.requests(element))
    }

    /// A group is started when its leader is issued.
    fn started(&self, program: &Program, element: usize) -> bool {
        self.requests[program.head(element)].issued
    }

    /// Neither issued nor completed.
    fn waits(&self, id: usize) -> bool {
        !self.requests[id].issued && self.requests[id].end.is_none()
    }

    fn leader_result(&self, program: &Program, element: usize) -> Option<i32> {
        self.requests[program.head(element)].end.map(|end| end.res)
    }

    /// Whether a request that is not issued completes with `res`: F5, F6, C5, C6.
    fn unissued_gets(&self, program: &Program, id: usize, res: i32) -> Result<(), Broken> {
        let element = program.element(id);
        let head = program.head(element);
        let broken = self.breaker(program, element).is_some();

        if let Some(own) = program.sqe(id).bad {
            return check(res == own, "F5: the bad SQE gets its own error");
        }
        if id == head {
            return match (program.bad(element), program.is_cut(element)) {
                // Open: the first of two reasons, or the last.
                (Some(bad), true) => check(
                    res == bad || Some(res) == program.cut,
                    "F5, F6: a leader of a group that did not form",
                ),
                (Some(bad), false) => check(
                    res == bad,
                    "F5: a fine leader gets the first member's error",
                ),
                (None, true) => check(Some(res) == program.cut, "F6: the leader of a cut group"),
                (None, false) if program.is_void() || broken => {
                    check(res == ECANCELED, "C5: an element of a broken chain")
                }
                // Open: X5 does not say with which result.
                (None, false) if self.exiting => {
                    check(res == EFAULT || res == ECANCELED, "X5: result of a head")
                }
                _ => Err("I5: nothing keeps this element from being issued"),
            };
        }

        let Some(leader_res) = self.leader_result(program, element) else {
            return Err("X2: an unissued member completes when its leader does, not earlier");
        };
        if program.is_cut(element) {
            return check(res == ECANCELED, "F6: members taken already");
        }
        // The chain of a group that is bad itself is not one that "broke before it".
        let broke_before = if program.is_void() {
            // Open: what if the group is bad, and something before it is bad as well?
            if program.bad(element).is_some() && (0..element).any(|e| program.bad(e).is_some()) {
                return check(res == EIO || res == ECANCELED, "C6: result of a member");
            }
            false
        } else {
            broken
        };
        if self.requests[id].cancelled {
            return check(res == ECANCELED, "X2: result of a cancelled member");
        }
        if self.cancelled[element] || broke_before || leader_res == ECANCELED {
            return check(res == ECANCELED, "C6: a member of a cancelled group");
        }
        if self.exiting {
            // Open, as above.
            let failed = self.failed(program, head) && res == EIO;
            return check(failed || res == ECANCELED, "X5: result of a member");
        }
        if self.failed(program, head) {
            return check(res == EIO, "C6: a member of a leader that failed");
        }
        Err("I2: nothing keeps this member from being issued")
    }

    /// Whether a request will never be issued: whoever waits for that waits for ever.
    pub fn is_kept(&self, program: &Program, id: usize) -> bool {
        let element = program.element(id);
        let head = program.head(element);

        program.is_void()
            || self.breaker(program, element).is_some()
            || id != head
                && (self.failed(program, head)
                    || self.cancelled[element]
                    || self.requests[id].cancelled)
    }

    // What happens.

    /// A request is handed to its opcode.
    pub fn issue(&mut self, program: &Program, id: usize) -> Result<(), Broken> {
        let element = program.element(id);
        let head = program.head(element);

        check(self.waits(id), "I1: issued once at most")?;
        check(!program.is_void(), "F5, F6: none is issued")?;
        check(!self.exiting, "X5: nothing is issued for a task that exits")?;
        if id == head {
            let before_done = element == 0 || self.done(program, element - 1);
            check(before_done, "I5: starts when the element before it is done")?;
            check(
                self.breaker(program, element).is_none(),
                "C5: later elements of a broken chain are not issued",
            )?;
        } else {
            let leader = self.requests[head];
            check(leader.end.is_some(), "I1: the leader has not completed")?;
            check(!self.failed(program, head), "I1: the leader has failed")?;
            check(!self.cancelled[element], "X1: the group was cancelled")?;
            check(!self.requests[id].cancelled, "X2: the member was cancelled")?;
            check(
                (head + 1..id).all(|earlier| !self.waits(earlier)),
                "I2: in submission order",
            )?;
        }
        self.requests[id].issued = true;
        Ok(())
    }

    /// A request completes. `marked` is whether links treat it as failed. If it was not issued,
    /// the result is the kernel's.
    pub fn complete(
        &mut self,
        program: &Program,
        id: usize,
        res: i32,
        marked: bool,
    ) -> Result<(), Broken> {
        check(
            self.requests[id].end.is_none(),
            "C1: a request completes once",
        )?;
        if !self.requests[id].issued {
            self.unissued_gets(program, id, res)?;
        }
        self.requests[id].end = Some(End { res, marked });
        Ok(())
    }

    /// A CQE is posted.
    pub fn post(&mut self, program: &Program, id: usize, res: i32) -> Result<(), Broken> {
        let element = program.element(id);
        let Some(end) = self.requests[id].end else {
            return Err("C1: a CQE of a request that has not completed");
        };

        check(!self.requests[id].posted, "C1: two CQEs of one SQE")?;
        check(res == end.res, "C3: each CQE carries its own result")?;
        check(
            (0..element).all(|e| self.done(program, e)),
            "I5, C7: elements post in the order of the chain",
        )?;
        if id == program.head(element) {
            check(
                self.settled(program, program.members(element)),
                "C2: the leader posts after every member",
            )?;
        }
        check(self.posts(program, id), "C7: a CQE that is to be skipped")?;
        self.requests[id].posted = true;
        Ok(())
    }

    /// The application finds a CQE in the ring. That is later if it had overflown.
    pub fn see(&mut self, program: &Program, id: usize) -> Result<(), Broken> {
        let element = program.element(id);
        let unseen = |id: usize| self.requests[id].posted && !self.requests[id].seen;

        check(unseen(id), "C1: a CQE that was not posted, or twice")?;
        if id == program.head(element) {
            check(
                !program.members(element).any(unseen),
                "C2: the leader posts last, in the overflow list too",
            )?;
        }
        check(
            !(0..program.head(element)).any(unseen),
            "I5: elements post in the order of the chain, in the overflow list too",
        )?;
        self.requests[id].seen = true;
        Ok(())
    }

    /// A request is gone, and with it what it held.
    pub fn release(&mut self, program: &Program, id: usize) -> Result<(), Broken> {
        let element = program.element(id);

        check(!self.requests[id].released, "X5: released twice")?;
        check(
            self.requests[id].end.is_some(),
            "C1: released without having completed",
        )?;
        if id == program.head(element) {
            check(
                self.completed(program.members(element)),
                "C4: the leader is released after the last member has completed",
            )?;
        }
        check(
            self.requests[id].posted || !self.posts(program, id),
            "C1, C7: a CQE is lost",
        )?;
        self.requests[id].released = true;
        Ok(())
    }

    /// X1: a cancel request matches the leader of `element`, and reports `ret`. `struck` are the
    /// requests in flight that it has found and stopped.
    pub fn cancel_group(
        &mut self,
        program: &Program,
        element: usize,
        struck: &[usize],
        ret: i32,
    ) -> Result<(), Broken> {
        if self.completed(program.requests(element)) {
            // Open: "done" or "only running", if all that is missing is CQEs? And those that are
            // skipped can't be told from missing ones.
            let leader = self.requests[program.head(element)];
            let done = leader.posted || leader.released;
            return check(
                ret == ENOENT || (ret == EALREADY && !done),
                "X1: a group that is done",
            );
        }
        if !self.started(program, element) {
            return check(ret == ENOENT, "X1: a group that waits is not found");
        }

        // One that was cancelled by itself is not cancelled anew.
        let waits = |id: usize| self.waits(id) && !self.requests[id].cancelled;
        let waiting = program.members(element).any(waits);
        // Open: is it new for members that go with a leader which was cancelled by itself, or with
        // a task that exits?
        let leader_cancelled = self.requests[program.head(element)].cancelled
            || self.leader_result(program, element) == Some(ECANCELED);
        let open = leader_cancelled || self.exiting;
        let already = self.cancelled[element];
        let maybe = waiting && !already;
        let surely = maybe && !open;

        if !struck.is_empty() || surely {
            check(ret == 0, "X1: returns 0, something was newly cancelled")?;
        } else if maybe {
            check(ret == 0 || ret == EALREADY, "X1: 0 or -EALREADY")?;
        } else {
            check(ret == EALREADY, "X1: what is left is only running")?;
        }
        for &id in struck {
            self.strike(id);
        }
        self.strike_group(element);
        Ok(())
    }

    /// X1 takes effect: none of the group is issued from here on.
    pub fn strike_group(&mut self, element: usize) {
        self.cancelled[element] = true;
    }

    /// X2 takes effect: the request was stopped, or will not be issued.
    pub fn strike(&mut self, id: usize) {
        self.requests[id].cancelled = true;
    }

    /// X2: a cancel request matches a member, and reports `ret`. `struck` is whether it was in
    /// flight, and has been stopped.
    pub fn cancel_member(
        &mut self,
        program: &Program,
        id: usize,
        struck: bool,
        ret: i32,
    ) -> Result<(), Broken> {
        let element = program.element(id);

        if struck {
            check(ret == 0, "X2: was stopped")?;
        } else if !self.waits(id) {
            // As for any request today: it depends on the opcode.
            check(ret != 0, "X2: was not stopped")?;
        } else if !self.started(program, element) {
            check(ret == ENOENT, "X2: a group that waits is not found")?;
        } else if self.requests[id].cancelled || self.cancelled[element] {
            check(ret == EALREADY, "X2: was cancelled before")?;
        } else {
            // Open: is it new for a member that goes with its leader, or its task?
            let already = self.exiting || self.leader_result(program, element) == Some(ECANCELED);
            check(ret == 0 || already, "X2: cancels a member that waits")?;
        }
        if ret == 0 {
            self.strike(id);
        }
        Ok(())
    }

    /// X5: the task begins to exit.
    pub fn exit(&mut self) {
        self.exiting = true;
    }

    /// Nothing more is going to happen.
    pub fn end(&self, program: &Program) -> Result<(), Broken> {
        for id in 0..program.len() {
            let request = &self.requests[id];

            check(request.end.is_some(), "C1: a request never completes")?;
            check(
                request.released,
                "X5: something is left behind: a request is not released",
            )?;
            check(
                request.posted == self.posts(program, id),
                "C1, C7: a CQE is lost, or one too many",
            )?;
            check(request.posted == request.seen, "C1: a CQE is never seen")?;
        }
        Ok(())
    }

    /// Forgets what cannot matter any more, so that what differs in nothing else is one state:
    /// of a request that is gone, all but how it counts for its group and for its chain.
    pub fn forget(&mut self, program: &Program) {
        for id in 0..program.len() {
            let failed = self.failed(program, id);
            let request = &mut self.requests[id];

            if let (true, Some(end)) = (request.released, &mut request.end) {
                end.marked = failed;
                end.res = if failed { EIO } else { 0 };
                request.cancelled = false;
                request.issued = true;
            }
        }
    }
}
