// SPDX-License-Identifier: GPL-2.0-only
//! A ring, and what it still owes: C1 and C2 of every request at once.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Cqe, Ring, RingMode, Setup, SyncCancel};

use super::program::{Program, FOREIGN};
use super::{life, Yard};
use crate::op::{self, CANCEL_ALL, CANCEL_ANY, IORING_CQE_F_MORE, IORING_CQE_F_NOTIF};
use harness::fuzz::generate::Random;

/// An SQE that was submitted, and whose last CQE has not come.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// It must come; without, it may be left out as CQE_SKIP_SUCCESS allows.
    pub(super) must: bool,
    /// The CQE that has a result says that there is more: a notification, which groups do
    /// not wait for.
    pub(super) zero_copy: bool,
    pub(super) part: Part,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Single,
    Leader {
        members: Vec<u64>,
        /// A member had a result that is no error.
        ran: bool,
        /// It may succeed with an error.
        timer: bool,
    },
    Member {
        leader: u64,
    },
}

pub(super) struct Ledger {
    pub(super) ring: Ring,
    due: HashMap<u64, Due>,
    /// `user_data` of the next SQE; those below have been submitted.
    next: u64,
    /// Whether there is IO_DRAIN. If so there are no zero-copy sends: one that is behind a
    /// drain has its notification allocated, which the drain takes for a request that is
    /// under way and waits for. That is so without groups, too.
    pub(super) drains: bool,
    /// All SQEs and CQEs, for somebody to read if it comes to that.
    story: Vec<String>,
}

impl Ledger {
    /// A ring in this mode, on the SQPOLL thread of another one if that is given.
    pub(super) fn new(mode: RingMode, thread: Option<RawFd>, dice: &mut Random) -> Self {
        let setup = Setup::new(mode);
        let setup = thread.map_or(setup, |ring| setup.attach_wq(ring));
        // Every other ring overflows.
        let setup = if dice.percent(50) {
            setup.cq_entries(64)
        } else {
            setup
        };
        let ring = setup.build().unwrap_or_else(|e| panic!("{setup:?}: {e}"));
        Self {
            ring,
            due: HashMap::new(),
            next: 0x10,
            drains: dice.percent(50),
            story: Vec::new(),
        }
    }

    pub(super) fn mode(&self) -> RingMode {
        self.ring.mode()
    }

    /// A `user_data` that has been used lately, or will be soon.
    pub(super) fn recent(&self, dice: &mut Random) -> u64 {
        (self.next + 4).saturating_sub(dice.below(40) as u64)
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Pushes a program, and notes what is to come of it.
    pub(super) fn push(&mut self, program: Program) {
        op::push(&mut self.ring, &program.ops);
        self.next += program.ops.len() as u64;
        self.story
            .extend(program.ops.iter().map(ToString::to_string));
        self.story.push(String::new());
        self.due.extend(program.due);
    }

    pub(super) fn submit(&mut self, program: Program) {
        self.push(program);
        self.submit_rest();
    }

    /// Submits what was pushed.
    pub(super) fn submit_rest(&mut self) {
        self.ring.submit().expect("submitting SQEs");
    }

    /// Takes what has come.
    pub(super) fn reap(&mut self) {
        for cqe in self.ring.arrived() {
            self.account(&cqe);
        }
    }

    fn account(&mut self, cqe: &Cqe) {
        let Cqe {
            user_data: ud,
            result,
            flags,
            ..
        } = *cqe;
        self.story
            .push(format!("{ud:#x} = {result}, flags {flags:#x}"));
        if ud & FOREIGN != 0 || flags & IORING_CQE_F_NOTIF != 0 {
            return;
        }
        let mode = self.mode();
        let Some(due) = self.due.get(&ud) else {
            panic!("{mode:?}: {ud:#x} ({result}) came twice, or after its leader");
        };
        if flags & IORING_CQE_F_MORE != 0 && !due.zero_copy {
            return;
        }
        match self.due.remove(&ud).map(|due| due.part) {
            Some(Part::Member { leader }) => {
                if let Some(Due {
                    part: Part::Leader { ran, .. },
                    ..
                }) = self.due.get_mut(&leader)
                {
                    *ran |= result >= 0;
                }
            }
            Some(Part::Leader {
                members,
                ran,
                timer,
            }) => {
                assert!(
                    result >= 0 || timer || !ran,
                    "{mode:?}: members of {ud:#x} ran, and it has failed: {result}"
                );
                for member in members {
                    // One that need not come does not come any more.
                    if self.due.remove(&member).is_some_and(|due| due.must) {
                        panic!("{mode:?}: {ud:#x} came before its member {member:#x}");
                    }
                }
            }
            Some(Part::Single) | None => {}
        }
    }

    /// How many SQEs must still post.
    pub(super) fn owed(&self) -> usize {
        self.due.values().filter(|due| due.must).count()
    }

    fn late(&self) -> Vec<u64> {
        let mut late: Vec<_> = self.due.keys().copied().collect();
        late.sort_unstable();
        late
    }

    /// Ends all that is under way, and waits until it has come.
    pub(super) fn settle(&mut self, yard: &Yard) {
        let all = SyncCancel {
            flags: CANCEL_ANY | CANCEL_ALL,
            patience: Some(Duration::from_millis(1)),
            ..SyncCancel::default()
        };
        let mut patience = Patience::new(life());
        self.submit_rest();
        self.reap();
        while self.owed() > 0 {
            assert!(
                !patience.is_over(),
                "{:?}: never came: {:x?}\nof what was submitted and posted:\n{}",
                self.mode(),
                self.late(),
                self.story.join("\n")
            );
            // What comes next in a chain was not there to be cancelled, and a cancellation
            // does not find everything.
            yard.feed_all();
            let _ = self.ring.sync_cancel(&all);
            self.reap();
            std::thread::sleep(Duration::from_micros(200));
        }
        // What comes twice comes now.
        for _ in 0..3 {
            self.reap();
        }
    }
}
