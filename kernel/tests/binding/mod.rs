// SPDX-License-Identifier: GPL-2.0

//! What `group.rs` and `request.rs` do with the verdicts of the core, without a kernel.
//!
//! A [`World`] is one chain on its way through io_uring. What the binding and its callers do is
//! mirrored: the words of [`Group`] and [`Member`] in `grp_refs`, `req->flags`, the list of
//! requests that have completed and its flush, task work, links. What the rest of the world does
//! is an [`Event`]: opcodes complete, task work is run, a cancel request comes in, the task
//! exits. An event may happen wherever [`World::events`] has it, in any order; task work runs in
//! any order too, which is more than the kernel does.
//!
//! What is over before a request has completed for good is not here: io-wq, polling, reissue.
//!
//! Each step is told to the [`Model`], which has the last word.

use io_uring_group::{Group, Last, Mark, Member, Outcome, Phase, Verdict};
use model::{
    Broken, Link, Model, Program, EALREADY, ECANCELED, EFAULT, EIO, ENOENT, MAX, MAX_ELEMENTS,
};

/// `req->flags`, those that matter here.
mod flag {
    pub(super) const FAIL: u8 = 1 << 0;
    pub(super) const LINK: u8 = 1 << 1;
    pub(super) const HARDLINK: u8 = 1 << 2;
    pub(super) const CQE_SKIP: u8 = 1 << 3;
    pub(super) const SKIP_LINK_CQES: u8 = 1 << 4;
    pub(super) const GROUP: u8 = 1 << 5;
    /// Not a flag but an opcode: `IORING_OP_TIMEOUT`.
    pub(super) const TIMER: u8 = 1 << 6;
}

/// How an opcode may complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A result that is no error.
    Success,
    /// An error that links notice.
    Error,
    /// An error that links do not notice.
    Unmarked,
    /// It was cancelled, by whatever.
    Cancelled,
    /// Less than was asked for: no error, but links notice.
    Short,
}

impl Ending {
    /// The result of request `id`, which no other has, and whether links notice.
    fn result(self, id: u8) -> (i16, bool) {
        let id = i16::from(id);

        match self {
            Ending::Success => (100 + id, false),
            Ending::Error => (-200 - id, true),
            Ending::Unmarked => (-300 - id, false),
            Ending::Cancelled => (ECANCELED as i16, true),
            Ending::Short => (id, true),
        }
    }
}

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The task work of a request is run.
    TaskWork(u8),
    /// The fan-out that runs goes on with its next member, or ends.
    FanOut,
    /// An opcode completes. While a fan-out runs this may be inline.
    Complete(u8, Ending),
    /// The list of requests that have completed is flushed. While a fan-out runs it's by a member
    /// that posts CQEs on its way.
    Flush,
    /// X1 finds the group, or the deadline of X4 strikes; stops these of its requests, by bit.
    CancelGroup(u8, u16),
    /// X2; the member is stopped if it is in flight and this says so.
    CancelMember(u8, bool),
    /// The task is on its way out.
    Exit,
    /// The CQ is full, what is posted now overflows.
    CqFull,
    /// The application has read it all, and overflown CQEs are moved.
    CqRead,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Waits in its chain, or is held by its leader.
    Idle,
    /// Its opcode has it.
    InFlight,
    /// The same, and a cancellation has stopped it.
    Struck,
    /// On `compl_reqs`.
    Completed,
    /// A leader that is waited for.
    Withheld,
    /// Freed.
    Gone,
}

/// `req->io_task_work.func`, if that is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TaskWork {
    None,
    /// `io_req_task_submit()`
    Submit,
    /// `io_req_tw_fail_links()`
    FailLinks,
    /// `io_group_fan_out()`
    FanOut,
}

/// `struct io_kiocb`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Req {
    flags: u8,
    place: Place,
    task_work: TaskWork,
    /// Of a leader: its group is found by cancellations.
    hooked: bool,
    /// Of a leader: its group is done.
    handed_back: bool,
    res: i16,
    /// `grp_refs`
    word: u32,
    /// `grp_leader` of a member.
    leader: u8,
    link: Option<u8>,
}

const NEW: Req = Req {
    flags: 0,
    place: Place::Idle,
    task_work: TaskWork::None,
    hooked: false,
    handed_back: false,
    res: 0,
    word: 0,
    leader: 0,
    link: None,
};

/// `struct io_wq_work_list`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct List {
    ids: [u8; MAX],
    len: u8,
}

impl List {
    fn insert(&mut self, at: usize, id: u8) {
        self.ids.copy_within(at..usize::from(self.len), at + 1);
        self.ids[at] = id;
        self.len += 1;
    }

    fn push(&mut self, id: u8) {
        self.insert(usize::from(self.len), id);
    }

    fn get(&self, at: usize) -> Option<u8> {
        self.ids[..usize::from(self.len)].get(at).copied()
    }
}

/// What else may happen than that a program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How opcodes complete.
    pub(crate) endings: &'static [Ending],
    /// That many cancel requests come in.
    pub(crate) cancels: u8,
    /// The task may exit.
    pub(crate) exit: bool,
    /// The CQ may overflow, that many times.
    pub(crate) overflows: u8,
    /// Remember the order of CQEs, which makes for more states.
    pub(crate) record: bool,
}

/// The CQEs of a chain: whose, and with which result.
pub(crate) type Cqes = Vec<(u8, i16)>;

/// One chain on its way, and what has become of it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    reqs: [Req; MAX],
    /// `ctx->submit_state.compl_reqs`
    compl_reqs: List,
    /// The leader whose fan-out runs, and whether that has issued a member yet.
    fanning: Option<(u8, bool)>,
    exiting: bool,
    cancels: u8,
    overflows: u8,
    full: bool,
    overflown: List,
    record: bool,
    cqes: [(u8, i16); MAX],
    nr_cqes: u8,
    model: Model,
}

type Done = Result<(), Broken>;

impl World {
    /// Submits `program`, all of it.
    pub(crate) fn submit(program: &Program, bounds: &Bounds) -> Result<Self, Broken> {
        assert!(program.len() <= MAX && program.elements.len() <= MAX_ELEMENTS);
        let mut world = World {
            reqs: [NEW; MAX],
            compl_reqs: List::default(),
            fanning: None,
            exiting: false,
            cancels: bounds.cancels,
            overflows: bounds.overflows,
            full: false,
            overflown: List::default(),
            record: bounds.record,
            cqes: [(0, 0); MAX],
            nr_cqes: 0,
            model: Model::new(),
        };
        let mut last: Option<u8> = None;

        for (number, element) in program.elements.iter().enumerate() {
            let is_last = number == program.elements.len() - 1;
            let head = program.head(number) as u8;

            // As io_submit_sqe(): the head of an element is linked to what is there.
            for (id, sqe) in program.requests(number).zip(&element.sqes) {
                let flags = &mut world.reqs[id].flags;
                *flags |= if sqe.skip { flag::CQE_SKIP } else { 0 };
                *flags |= if sqe.timer { flag::TIMER } else { 0 };
            }
            world.reqs[usize::from(head)].flags |= match element.link {
                _ if is_last => 0,
                Link::Soft => flag::LINK,
                Link::Hard => flag::HARDLINK,
            };
            if let Some(err) = element.sqes[0].bad {
                if last.is_some() && !world.has(0, flag::FAIL) {
                    world.fail_link_node(0, ECANCELED);
                }
                world.fail_link_node(head, err);
            }
            if let Some(last) = last {
                world.reqs[usize::from(last)].link = Some(head);
            }
            last = Some(head);

            let cut = program.cut.filter(|_| is_last);
            if element.sqes.len() > 1 || cut.is_some() {
                world.assemble(program, number, cut);
            }
        }
        world.queue_chain(program)?;
        Ok(world)
    }

    /// `io_group_open()`, `io_group_add()` or `io_group_add_odd()` for each member,
    /// `io_group_abort()`, `io_group_close()`
    fn assemble(&mut self, program: &Program, element: usize, cut: Option<i32>) {
        let head = program.head(element) as u8;

        self.set_group(head, Group::open());
        self.reqs[usize::from(head)].flags |= flag::GROUP;
        for id in program.members(element) {
            let bad = program.sqe(id).bad;
            if let Some(err) = bad {
                self.fail_link_node(id as u8, err);
                self.fail_open(head, err);
            }
            self.reqs[id].word = Member::join(bad.is_some()).into_raw();
            self.reqs[id].leader = head;
            self.reqs[id].flags |= flag::GROUP;
            let group = self.group(head).join();
            self.set_group(
                head,
                if bad.is_some() {
                    group.single_out()
                } else {
                    group
                },
            );
        }
        if let Some(err) = cut {
            self.fail_open(head, err);
            self.set_group(head, self.group(head).abort());
        }
        self.set_group(head, self.group(head).close());
        if self.group(head).members() == 0 {
            self.reqs[usize::from(head)].flags &= !flag::GROUP;
        }
    }

    fn fail_open(&mut self, leader: u8, err: i32) {
        if !self.has(leader, flag::FAIL) {
            self.fail_link_node(leader, err);
        }
        if !self.has(0, flag::FAIL) {
            self.fail_link_node(0, ECANCELED);
        }
    }

    /// The chain is complete. As `io_queue_sqe_fallback()`, and as for a chain that waits behind a
    /// drain: its head is issued later.
    fn queue_chain(&mut self, program: &Program) -> Done {
        if self.has(0, flag::FAIL) {
            self.reqs[0].flags &= !flag::HARDLINK;
            self.reqs[0].flags |= flag::LINK;
            return self.defer_failed(program, 0, self.reqs[0].res.into());
        }
        self.reqs[0].task_work = TaskWork::Submit;
        Ok(())
    }

    // Views, as those of request.rs.

    fn has(&self, id: u8, flags: u8) -> bool {
        self.reqs[usize::from(id)].flags & flags != 0
    }

    fn group(&self, leader: u8) -> Group {
        Group::from_raw(self.reqs[usize::from(leader)].word)
    }

    fn set_group(&mut self, leader: u8, group: Group) {
        assert!(
            Member::from_raw(group.into_raw()).is_none(),
            "a group must not look like a member"
        );
        self.reqs[usize::from(leader)].word = group.into_raw();
    }

    fn member(&self, id: u8) -> Member {
        Member::from_raw(self.reqs[usize::from(id)].word).expect("a member looks like one")
    }

    /// As `Request::part()`, for one of a group: whether it is the leader.
    fn leads(&self, id: u8) -> bool {
        Member::from_raw(self.reqs[usize::from(id)].word).is_none()
    }

    fn set_fail(&mut self, id: u8) {
        let flags = &mut self.reqs[usize::from(id)].flags;

        *flags |= flag::FAIL;
        if *flags & flag::CQE_SKIP != 0 {
            *flags &= !flag::CQE_SKIP;
            *flags |= flag::SKIP_LINK_CQES;
        }
    }

    fn fail_link_node(&mut self, id: u8, err: i32) {
        self.set_fail(id);
        self.reqs[usize::from(id)].res = err as i16;
    }

    fn has_failed(&self, id: u8) -> bool {
        self.has(id, flag::FAIL)
            || (self.reqs[usize::from(id)].res < 0 && !self.has(id, flag::TIMER))
    }

    /// The members that are held, in their order.
    fn held(&self, leader: u8) -> impl Iterator<Item = u8> + '_ {
        let of_group = move |&id: &u8| {
            let req = &self.reqs[usize::from(id)];

            id != leader && req.leader == leader && req.flags & flag::GROUP != 0
        };
        (leader..MAX as u8)
            .filter(of_group)
            .filter(|&id| self.reqs[usize::from(id)].place == Place::Idle && !self.leads(id))
    }

    // What a request goes through.

    /// `io_queue_sqe()`
    fn issue(&mut self, program: &Program, id: u8) -> Done {
        self.reqs[usize::from(id)].place = Place::InFlight;
        self.model.issue(program, usize::from(id))
    }

    /// Its result is set, and it is put on `compl_reqs`.
    fn complete(&mut self, program: &Program, id: u8) -> Done {
        let (marked, res) = (self.has(id, flag::FAIL), self.reqs[usize::from(id)].res);

        self.reqs[usize::from(id)].place = Place::Completed;
        self.compl_reqs.push(id);
        self.model
            .complete(program, usize::from(id), res.into(), marked)
    }

    /// `io_req_defer_failed()`
    fn defer_failed(&mut self, program: &Program, id: u8, res: i32) -> Done {
        self.fail_link_node(id, res);
        self.complete(program, id)
    }

    /// `io_req_task_submit()`
    fn task_submit(&mut self, program: &Program, id: u8) -> Done {
        if self.exiting {
            return self.defer_failed(program, id, EFAULT);
        }
        // io_group_start()
        if self.has(id, flag::GROUP) && self.group(id).phase() == Phase::Waiting {
            self.set_group(id, self.group(id).start());
            self.reqs[usize::from(id)].hooked = true;
        }
        self.issue(program, id)?;
        if self.has(id, flag::GROUP) {
            // It may come along again, after it was punted, and that is to change nothing.
            assert_eq!(self.group(id).start(), self.group(id));
        }
        Ok(())
    }

    /// `io_req_tw_fail_links()`
    fn task_fail_links(&mut self, program: &Program, first: u8) -> Done {
        let mut next = Some(first);

        while let Some(id) = next {
            next = self.reqs[usize::from(id)].link;
            if !self.has(id, flag::FAIL) {
                self.reqs[usize::from(id)].res = ECANCELED as i16;
            }
            if self.has(id, flag::GROUP) {
                // Leader::fail_link()
                let skip = if self.has(id, flag::CQE_SKIP) {
                    flag::SKIP_LINK_CQES
                } else {
                    0
                };
                let flags = &mut self.reqs[usize::from(id)].flags;
                *flags &= !(flag::HARDLINK | flag::SKIP_LINK_CQES);
                *flags |= flag::FAIL | flag::LINK | skip;
                next = None;
            } else {
                self.reqs[usize::from(id)].link = None;
            }
            self.complete(program, id)?;
        }
        Ok(())
    }

    /// `io_queue_next()`
    fn queue_next(&mut self, id: u8) {
        let Some(next) = self.reqs[usize::from(id)].link.take() else {
            return;
        };
        let failed = self.has(id, flag::FAIL) && !self.has(id, flag::HARDLINK);

        if failed {
            // io_fail_links()
            let ignore = self.has(id, flag::SKIP_LINK_CQES);
            let mut link = Some(next);
            while let Some(id) = link {
                let req = &mut self.reqs[usize::from(id)];
                if ignore {
                    req.flags |= flag::CQE_SKIP;
                } else {
                    req.flags &= !flag::CQE_SKIP;
                }
                link = req.link;
            }
        }
        let next = &mut self.reqs[usize::from(next)];
        assert_eq!(next.task_work, TaskWork::None, "queued twice");
        next.task_work = if failed {
            TaskWork::FailLinks
        } else {
            TaskWork::Submit
        };
    }

    // What a group goes through.

    /// `io_group_complete()`. Returns whether the request posts.
    fn group_complete(&mut self, id: u8, at: usize) -> bool {
        if self.leads(id) {
            let outcome = if !self.has_failed(id) {
                Outcome::Success
            } else if i32::from(self.reqs[usize::from(id)].res) == ECANCELED {
                Outcome::Cancelled
            } else {
                Outcome::Failure
            };
            let dropped = self.has(id, flag::CQE_SKIP) && self.has(id, flag::SKIP_LINK_CQES);

            self.set_group(id, self.group(id).lead(outcome, dropped));
            return false;
        }
        // Leader::leave(): it, and those of its group right behind it that have not failed.
        let leader = self.reqs[usize::from(id)].leader;
        let failed = self.has_failed(id);
        let (mut behind, mut nr) = (at, 0);

        if failed {
            self.set_fail(id);
            if self.group(leader).is(Mark::Dropped) {
                self.reqs[usize::from(id)].flags |= flag::CQE_SKIP;
            }
        }
        while let Some(id) = self.compl_reqs.get(behind) {
            let follows = self.has(id, flag::GROUP)
                && !self.leads(id)
                && self.reqs[usize::from(id)].leader == leader
                && !self.has_failed(id);
            if nr > 0 && !follows {
                break;
            }
            self.reqs[usize::from(id)].flags &= !flag::GROUP;
            (behind, nr) = (behind + 1, nr + 1);
        }
        let (group, last) = self.group(leader).account(nr, failed);

        self.set_group(leader, group);
        if last == Last::Yes {
            self.hand_back(leader);
            self.compl_reqs.insert(behind, leader);
        }
        !self.has(id, flag::CQE_SKIP)
    }

    /// `Leader::hand_back()`
    fn hand_back(&mut self, leader: u8) {
        let group = self.group(leader);

        assert_eq!(group.phase(), Phase::Done);
        assert_eq!(group.members(), 0);
        if group.is(Mark::Failed) && !group.is(Mark::Dropped) {
            self.set_fail(leader);
        }
        let req = &mut self.reqs[usize::from(leader)];
        assert!(!req.handed_back, "a group that is done twice");
        req.flags &= !flag::GROUP;
        req.hooked = false;
        req.handed_back = true;
        req.place = Place::Completed;
    }

    /// `io_group_fan_out()`, up to its loop.
    fn task_fan_out(&mut self, leader: u8) {
        self.set_group(leader, self.group(leader).fan_out(self.exiting));
        self.fanning = Some((leader, false));
    }

    /// One round of that loop, or what comes after it.
    fn fan_out(&mut self, program: &Program) -> Done {
        let (leader, _) = self.fanning.expect("it runs");
        let first = self.held(leader).next();

        let Some(id) = first else {
            let (group, last) = self.group(leader).release();

            self.set_group(leader, group);
            self.fanning = None;
            if last == Last::Yes {
                self.hand_back(leader);
                self.compl_reqs.push(leader);
            }
            return Ok(());
        };
        let verdict = self.group(leader).next(self.member(id));

        // Then it is C that issues them, without a look.
        if self.group(leader).into_raw() & Group::STOP == 0 {
            assert_eq!(verdict, Verdict::Issue);
        }
        match verdict {
            Verdict::Issue => {
                self.fanning = Some((leader, true));
                self.issue(program, id)
            }
            Verdict::FailOwn => {
                let own = self.reqs[usize::from(id)].res;
                self.defer_failed(program, id, own.into())
            }
            Verdict::FailCancelled => self.defer_failed(program, id, ECANCELED),
            Verdict::FailIo => self.defer_failed(program, id, EIO),
        }
    }

    /// `__io_submit_flush_completions()`
    fn flush(&mut self, program: &Program) -> Done {
        let mut at = 0;

        while let Some(id) = self.compl_reqs.get(at) {
            let posts = if self.has(id, flag::GROUP) {
                self.group_complete(id, at)
            } else {
                !self.has(id, flag::CQE_SKIP)
            };
            if posts {
                self.post(program, id)?;
            }
            at += 1;
        }
        // io_free_batch_list()
        let batch = std::mem::take(&mut self.compl_reqs);
        let mut at = 0;

        while let Some(id) = batch.get(at) {
            at += 1;
            if self.has(id, flag::GROUP) {
                assert!(self.leads(id), "a member that was not accounted");
                let req = &mut self.reqs[usize::from(id)];
                req.place = Place::Withheld;
                req.task_work = TaskWork::FanOut;
                continue;
            }
            if self.has(id, flag::LINK | flag::HARDLINK) {
                self.queue_next(id);
            }
            self.model.release(program, usize::from(id))?;
            self.reqs[usize::from(id)] = Req {
                place: Place::Gone,
                handed_back: self.reqs[usize::from(id)].handed_back,
                ..NEW
            };
        }
        Ok(())
    }

    /// `io_fill_cqe_req()`, or `io_cqe_overflow()`: while CQEs have overflown, all do.
    fn post(&mut self, program: &Program, id: u8) -> Done {
        let res = self.reqs[usize::from(id)].res;

        self.model.post(program, usize::from(id), res.into())?;
        if self.record {
            self.cqes[usize::from(self.nr_cqes)] = (id, res);
            self.nr_cqes += 1;
        }
        if self.full {
            self.overflown.push(id);
            return Ok(());
        }
        self.model.see(program, usize::from(id))
    }

    /// `io_group_cancel_held()`, and what is in flight.
    fn cancel_group(&mut self, program: &Program, leader: u8, struck: u16) -> Done {
        let ids: Vec<_> = (0..MAX).filter(|id| struck & (1 << id) != 0).collect();
        let element = program.element(usize::from(leader));

        if !self.reqs[usize::from(leader)].hooked {
            return self.model.cancel_group(program, element, &[], ENOENT);
        }
        let pending = self.held(leader).any(|id| self.member(id).is_pending());
        let (group, newly) = self.group(leader).cancel(pending);

        self.set_group(leader, group);
        for &id in &ids {
            self.reqs[id].place = Place::Struck;
        }
        let ret = if newly || !ids.is_empty() {
            0
        } else {
            EALREADY
        };
        self.model.cancel_group(program, element, &ids, ret)
    }

    /// `io_group_cancel_match()`, for one that is held.
    fn cancel_member(&mut self, program: &Program, id: u8, strike: bool) -> Done {
        let req = self.reqs[usize::from(id)];
        let mut ret = ENOENT;

        match req.place {
            Place::InFlight if strike => {
                self.reqs[usize::from(id)].place = Place::Struck;
                ret = 0;
            }
            Place::InFlight | Place::Struck => ret = EALREADY,
            Place::Idle if self.reqs[usize::from(req.leader)].hooked => {
                let (member, newly) = self.member(id).cancel();
                self.reqs[usize::from(id)].word = member.into_raw();
                if newly {
                    self.set_group(req.leader, self.group(req.leader).single_out());
                }
                ret = if newly && !self.group(req.leader).is(Mark::Cancelled) {
                    0
                } else {
                    EALREADY
                };
            }
            _ => {}
        }
        self.model
            .cancel_member(program, usize::from(id), strike, ret)
    }

    // What may happen.

    fn in_flight(&self, id: usize) -> bool {
        self.reqs[id].place == Place::InFlight
    }

    /// All that may happen next. Nothing is left when this is empty.
    pub(crate) fn events(&self, program: &Program, bounds: &Bounds) -> Vec<Event> {
        let mut events = Vec::new();

        for id in 0..program.len() as u8 {
            let req = &self.reqs[usize::from(id)];

            // A fan-out is task work, so no other runs.
            if req.task_work != TaskWork::None && self.fanning.is_none() {
                events.push(Event::TaskWork(id));
            }
            match req.place {
                Place::InFlight => {
                    let endings = bounds.endings.iter();
                    events.extend(endings.map(|&ending| Event::Complete(id, ending)));
                }
                Place::Struck => {
                    events.push(Event::Complete(id, Ending::Cancelled));
                    // What it had done by then is what some opcodes report.
                    if bounds.endings.contains(&Ending::Short) {
                        events.push(Event::Complete(id, Ending::Short));
                    }
                }
                _ => {}
            }
        }
        if self.fanning.is_some() {
            events.push(Event::FanOut);
        }
        if self.compl_reqs.len != 0 {
            events.push(Event::Flush);
        }
        if self.full {
            events.push(Event::CqRead);
        } else if self.overflows != 0 {
            events.push(Event::CqFull);
        }
        // Not while task work runs, that finds out before.
        if bounds.exit && !self.exiting && self.fanning.is_none() {
            events.push(Event::Exit);
        }
        // While a fan-out runs, only a member that it has issued can be a cancel request.
        if self.cancels != 0 && self.fanning.is_none_or(|(_, issued)| issued) {
            self.cancel_events(program, &mut events);
        }
        if events.iter().all(|event| *event == Event::CqFull) {
            events.clear();
        }
        events
    }

    fn cancel_events(&self, program: &Program, events: &mut Vec<Event>) {
        for element in 0..program.elements.len() {
            let (leader, mut members) = (program.head(element), program.members(element));
            let over = program
                .requests(element)
                .all(|id| self.reqs[id].place == Place::Gone);

            if members.is_empty() || over {
                continue;
            }
            let mask = program
                .requests(element)
                .filter(|&id| self.in_flight(id))
                .fold(0u16, |mask, id| mask | 1 << id);
            // Every subset of what is in flight can be stopped.
            let mut struck = mask;
            loop {
                events.push(Event::CancelGroup(leader as u8, struck));
                if struck == 0 {
                    break;
                }
                struck = (struck - 1) & mask;
            }
            let alive = |&id: &usize| self.reqs[id].place != Place::Gone;
            for id in members.by_ref().filter(alive) {
                events.push(Event::CancelMember(id as u8, false));
                if self.in_flight(id) {
                    events.push(Event::CancelMember(id as u8, true));
                }
            }
        }
    }

    /// `event` happens.
    pub(crate) fn apply(&mut self, program: &Program, event: Event) -> Done {
        match event {
            Event::TaskWork(id) => {
                let req = &mut self.reqs[usize::from(id)];

                match std::mem::replace(&mut req.task_work, TaskWork::None) {
                    TaskWork::None => unreachable!("not queued"),
                    TaskWork::Submit => self.task_submit(program, id)?,
                    TaskWork::FailLinks => self.task_fail_links(program, id)?,
                    TaskWork::FanOut => self.task_fan_out(id),
                }
            }
            Event::FanOut => self.fan_out(program)?,
            Event::Complete(id, ending) => {
                let (res, marked) = ending.result(id);

                if marked {
                    self.set_fail(id);
                }
                self.reqs[usize::from(id)].res = res;
                self.complete(program, id)?;
            }
            Event::Flush => self.flush(program)?,
            Event::CancelGroup(leader, struck) => {
                self.cancels -= 1;
                self.cancel_group(program, leader, struck)?;
            }
            Event::CancelMember(id, strike) => {
                self.cancels -= 1;
                self.cancel_member(program, id, strike)?;
            }
            Event::Exit => {
                self.exiting = true;
                self.model.exit();
            }
            Event::CqFull => {
                self.overflows -= 1;
                self.full = true;
            }
            Event::CqRead => {
                self.full = false;
                let overflown = std::mem::take(&mut self.overflown);
                for id in &overflown.ids[..usize::from(overflown.len)] {
                    self.model.see(program, usize::from(*id))?;
                }
            }
        }
        self.invariants(program);
        self.model.forget(program);
        Ok(())
    }

    /// What holds at any time, and what the core counts.
    fn invariants(&self, program: &Program) {
        for element in 0..program.elements.len() {
            let leader = program.head(element) as u8;

            if !self.has(leader, flag::GROUP) {
                assert!(!self.reqs[usize::from(leader)].hooked, "found for ever");
                continue;
            }
            let group = self.group(leader);
            let mut members = program.members(element);
            let joined = |&id: &usize| self.reqs[id].flags & flag::GROUP != 0;
            let left = members.by_ref().filter(joined).count();

            assert_eq!(group.members() as usize, left, "members are miscounted");
            assert_ne!(group.phase(), Phase::Done, "done, and not handed back");
            assert!(
                self.held(leader).next().is_none()
                    || !matches!(group.phase(), Phase::Joining | Phase::Done),
                "a member is forgotten"
            );
        }
    }

    /// The CQEs that were posted, if they are recorded.
    pub(crate) fn cqes(&self) -> Cqes {
        self.cqes[..usize::from(self.nr_cqes)].to_vec()
    }

    /// Nothing more can happen: is that the end?
    pub(crate) fn end(&self, program: &Program) -> Done {
        let gone = |id: usize| self.reqs[id].place == Place::Gone;

        if !(0..program.len()).all(gone) {
            return Err("X5: stuck");
        }
        for element in 0..program.elements.len() {
            let group = !program.members(element).is_empty();
            let leader = program.head(element);

            assert_eq!(self.reqs[leader].handed_back, group, "done once");
        }
        self.model.end(program)
    }
}
