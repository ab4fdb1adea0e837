// SPDX-License-Identifier: GPL-2.0-only
//! What is submitted in a storm: chains of requests and of groups, some of them bad.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::opcode;

use super::ledger::{Due, Ledger, Part};
use super::Yard;
use crate::op::*;
use harness::fuzz::generate::Random;

/// In the `user_data` of CQEs that are no request's of the ring: messages.
pub(super) const FOREIGN: u64 = 1 << 63;

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3600);

/// SQEs, and what is to come of each.
#[derive(Default)]
pub(super) struct Program {
    pub(super) ops: Vec<Op>,
    pub(super) due: Vec<(u64, Due)>,
}

/// Where programs come from.
pub(super) struct Roll<'a> {
    pub(super) dice: &'a mut Random,
    pub(super) yard: &'a Yard,
    /// Another ring, for messages
    pub(super) other: RawFd,
}

impl Roll<'_> {
    /// A program of at most 40 SQEs, for this ring.
    pub(super) fn program(&mut self, ledger: &Ledger) -> Program {
        let mut program = Program::default();
        // Where an element skips its CQE, those of the rest of its chain may be left out.
        let silent = self.dice.percent(20);
        for _ in 0..=self.dice.below(4) {
            self.element(ledger, &mut program, silent);
        }
        if self.dice.percent(5) {
            // Nobody follows it.
            let (op, due) = self.request(ledger, &program);
            program.add(op.grouped(), due, !silent);
        }
        program
    }

    /// A request or a group, linked to what comes next or not, with a deadline or not.
    fn element(&mut self, ledger: &Ledger, program: &mut Program, silent: bool) {
        let link = self.dice.percent(40);
        let hard = self.dice.percent(30);
        let drain = ledger.drains && self.dice.percent(5);
        let skip = silent && self.dice.percent(40);
        let head = |op: Op| {
            let op = match (link, hard) {
                (true, true) => op.hardlink(),
                (true, false) => op.link(),
                (false, _) => op,
            };
            let op = if drain { op.drain() } else { op };
            if skip {
                op.skip()
            } else {
                op
            }
        };

        let (op, mut due) = self.request(ledger, program);
        if self.dice.percent(70) {
            let leader = ledger.next() + program.ops.len() as u64;
            let members = 1 + self.dice.below(5) as u64;
            if let Part::Leader { members: list, .. } = &mut due.part {
                list.extend(leader + 1..=leader + members);
            }
            program.add(head(op).grouped(), due, !silent);
            for i in 1..=members {
                let (op, mut due) = self.request(ledger, program);
                due.part = Part::Member { leader };
                let skip = self.dice.percent(20);
                let op = if skip { op.skip() } else { op };
                let op = if i < members { op.grouped() } else { op };
                program.add(op, due, !silent && !skip);
            }
        } else {
            due.part = Part::Single;
            program.add(head(op), due, !silent);
        }
        if link && self.dice.percent(20) {
            let ud = ledger.next() + program.ops.len() as u64;
            let op = link_timeout(ud, self.dice.pick(&[SOON, NEVER]));
            let op = if self.dice.percent(40) { op.link() } else { op };
            program.add(op, Due::single(), !silent);
        }
    }

    /// Some request. What it waits for comes, sooner or later, or is cancelled.
    fn request(&mut self, ledger: &Ledger, program: &Program) -> (Op, Due) {
        let ud = ledger.next() + program.ops.len() as u64;
        let Self { dice, yard, .. } = self;
        let pipe = yard.pipe(dice);
        let (near, far) = yard.socket(dice);
        let (mut timer_like, mut zero_copy) = (false, false);
        // A ring that polls takes nothing else.
        let choice = if ledger.mode().is_iopoll() {
            dice.below(9)
        } else {
            dice.below(34)
        };
        let block = Buf::aligned(512, 512);
        let op = match choice {
            0..=4 => {
                let result = dice.pick(&[0, 1, 2, -libc::EIO, -libc::ECANCELED, -libc::EAGAIN]);
                nop_res(ud, result).kind(dice.pick(&Kind::ALL))
            }
            5 => nop(ud).flawed(dice.pick(&Flaw::ALL)),
            6 => read_at(ud, &yard.device, block, 512 * dice.below(64) as u64),
            7 => write_at(ud, &yard.device, block, 512 * dice.below(64) as u64).worker(),
            // One that fails after all
            8 => read_at(ud, &yard.device, block, 1),
            9..=12 => read(ud, &pipe.read, Buf::new(1)),
            13 => read(ud, &pipe.read, Buf::new(1)).worker(),
            // More than there is, mostly: a failure
            14 => read(ud, &pipe.read, Buf::new(200)),
            15 => poll_in(ud, &pipe.read),
            16 => poll_in_multi(ud, near),
            17..=18 => recv(ud, near, Buf::new(1)),
            19 => recv(ud, near, Buf::new(1)).worker(),
            20 => send(ud, far, b"x"),
            21 if !ledger.drains => {
                zero_copy = true;
                send_zc(ud, &yard.udp.0, b"x")
            }
            21 | 22 => write(ud, &pipe.write, b"x"),
            23 => write_at(ud, &yard.file, Buf::new(64), dice.below(4096) as u64),
            24 => fsync(ud, &yard.file),
            25 => timeout(ud, dice.pick(&[SOON, NEVER])),
            26 => {
                timer_like = true;
                timer(ud, SOON, 1 + dice.below(3) as u32)
            }
            27 => after_cqes(ud, 1 + dice.below(4) as u32),
            28 => futex_wait(ud),
            29 => msg_ring(ud, self.other, 1, FOREIGN | ud),
            30 => read(ud, &pipe.read, Buf::new(1)).flawed(dice.pick(&[
                Flaw::Opcode,
                Flaw::Personality,
                Flaw::ExtFlag,
            ])),
            _ => self.cancel(ud, ledger),
        };
        let due = Due {
            must: true,
            zero_copy,
            part: Part::Leader {
                members: Vec::new(),
                ran: false,
                timer: timer_like,
            },
        };
        (op, due)
    }

    /// Cancels something, by something.
    fn cancel(&mut self, ud: u64, ledger: &Ledger) -> Op {
        let Self { dice, yard, .. } = self;
        let all = dice.pick(&[0, CANCEL_ALL]);
        match dice.below(8) {
            0..=4 => cancel(ud, ledger.recent(dice), all),
            5 => cancel_fd(ud, yard.pipe(dice).read.as_raw_fd(), all),
            6 => cancel_op(
                ud,
                dice.pick(&[opcode::Read::CODE, opcode::Nop::CODE, opcode::Timeout::CODE]),
                all,
            ),
            _ => cancel(ud, 0, CANCEL_ANY),
        }
    }

    /// Nothing but a cancellation.
    pub(super) fn cancellation(&mut self, ledger: &Ledger) -> Program {
        let mut program = Program::default();
        let op = if ledger.mode().is_iopoll() {
            nop(ledger.next())
        } else {
            self.cancel(ledger.next(), ledger)
        };
        program.add(op, Due::single(), true);
        program
    }
}

impl Program {
    fn add(&mut self, op: Op, mut due: Due, must: bool) {
        due.must = must;
        self.due.push((op.user_data(), due));
        self.ops.push(op);
    }
}

impl Due {
    fn single() -> Self {
        Self {
            must: true,
            zero_copy: false,
            part: Part::Single,
        }
    }
}
