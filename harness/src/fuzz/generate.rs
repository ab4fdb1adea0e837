// SPDX-License-Identifier: GPL-2.0-only
//! Random programs. The same seed gives the same programs, on any machine.

use super::program::{End, Flaw, LinkFlag, Op, Program, Step, Submitter, Timer, What};
use crate::ring::RingMode;

/// A generator of random numbers: splitmix64, by Guy Steele and others.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The one of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// With this probability, in percent.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What the programs of a ring have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    mode: RingMode,
    entries: u32,
    cq_entries: Option<u32>,
    submit_all: bool,
    restricted: bool,
    attached: bool,
    /// A ring that has seen a CQE_SKIP_SUCCESS has no drains any more.
    skips: bool,
}

impl Shape {
    /// A random one.
    pub fn random(random: &mut Random) -> Self {
        let attached = random.percent(4);
        let (mode, sizes) = if attached {
            // More than the kernel takes at a time.
            (RingMode::Sqpoll, [16, 16, 16, 32, 32, 32])
        } else {
            (random.pick(&RingMode::ALL), [4, 8, 8, 16, 16, 32])
        };
        let entries = random.pick(&sizes);
        Self {
            mode,
            entries,
            // As small as it may be, so that it overflows.
            cq_entries: random.percent(40).then_some(entries),
            submit_all: random.percent(25),
            restricted: random.percent(15),
            attached,
            skips: random.percent(70),
        }
    }
}

/// Pipes of a program, and sockets.
const SOURCES: u8 = 3;
/// The highest number that is given to an SQE.
const LAST: u8 = 200;

struct Generator<'a> {
    random: &'a mut Random,
    shape: Shape,
    /// The number of the next SQE.
    next: u8,
    /// How likely things are in this program, in percent.
    skip: u32,
    drain: u32,
    worker: u32,
    flaw: u32,
    cancel: u32,
    /// All of it waits: pipes and timers rather than NOPs.
    slow: u32,
    twin: u32,
    many: u32,
    fixed: u32,
    buffer: u32,
    message: u32,
    socket: u32,
    /// Numbers that others may take over, and how often each was.
    names: Vec<(u8, u8)>,
    /// Those of leaders.
    leaders: Vec<u8>,
}

/// A random program for a ring of this shape.
pub fn program(random: &mut Random, shape: Shape) -> Program {
    let mut generator = Generator {
        skip: if shape.skips {
            random.pick(&[0, 0, 20, 60])
        } else {
            0
        },
        drain: if shape.skips {
            random.pick(&[0, 0, 0, 0, 3])
        } else {
            random.pick(&[0, 0, 10, 30])
        },
        worker: random.pick(&[0, 0, 10, 40]),
        flaw: random.pick(&[0, 0, 0, 5, 20]),
        cancel: random.pick(&[0, 0, 15, 30]),
        slow: random.pick(&[0, 20, 50]),
        twin: random.pick(&[0, 0, 0, 30]),
        many: random.pick(&[0, 0, 0, 10, 25]),
        fixed: random.pick(&[0, 0, 20, 60]),
        buffer: random.pick(&[0, 0, 30, 70]),
        message: random.pick(&[0, 0, 0, 15]),
        socket: random.pick(&[0, 0, 30, 70]),
        names: Vec::new(),
        leaders: Vec::new(),
        random,
        shape,
        next: 1,
    };
    generator.program()
}

impl Generator<'_> {
    fn program(&mut self) -> Program {
        let Shape {
            mode,
            entries,
            cq_entries,
            submit_all,
            restricted,
            attached,
            skips: _,
        } = self.shape;
        let mut program = Program {
            mode,
            entries,
            cq_entries,
            submit_all,
            restricted,
            attached,
            steps: Vec::new(),
            end: self.random.pick(&[End::Feed, End::Feed, End::Hangup]),
        };
        let submissions = self.random.pick(&[1, 1, 2, 2, 3, 5]);
        for _ in 0..submissions {
            let step = self.submission(program.takes_both());
            program.steps.push(step);
            while self.random.percent(40) {
                let step = self.between();
                program.steps.push(step);
            }
        }
        if self.random.percent(2) {
            program.end = End::Close;
        }
        program
    }

    fn between(&mut self) -> Step {
        if self.shape.mode.is_iopoll() {
            return Step::Reap;
        }
        match self.random.below(10) {
            0..=3 => Step::Feed(self.source()),
            4 => Step::Hangup(self.source()),
            5 if self.next > 1 && self.cancel > 0 => Step::SyncCancel(self.target()),
            _ => Step::Reap,
        }
    }

    fn source(&mut self) -> u8 {
        self.random.below(usize::from(SOURCES)) as u8
    }

    /// Mostly one that has a number already, or is about to get it.
    fn target(&mut self) -> u8 {
        1 + self.random.below(usize::from(self.next) + 2) as u8
    }

    fn submission(&mut self, takes_both: bool) -> Step {
        let room = self.shape.entries as usize;
        let length = match self.random.below(10) {
            0..=4 => 1 + self.random.below(4),
            5..=8 => 1 + self.random.below(12),
            _ => 1 + self.random.below(room),
        };
        let length = length.min(room);
        let mut ops = Vec::new();
        while ops.len() < length && self.next < LAST - 64 {
            self.element(&mut ops, length);
        }
        if ops.is_empty() {
            return Step::Reap;
        }
        // What an application should not do.
        if self.random.percent(8) {
            let at = self.random.below(ops.len());
            match self.random.below(6) {
                0 => ops[at].group ^= true,
                1 => ops[at].link = Some(LinkFlag::Link),
                2 => ops[at].link = None,
                3 => ops[at].drain |= self.drain > 0,
                4 => ops[at].extended = true,
                _ => {
                    if let Some(last) = ops.last_mut() {
                        last.group = true;
                    }
                }
            }
        }
        let by_thread = matches!(self.shape.mode, RingMode::Sqpoll);
        let indexed = !matches!(self.shape.mode, RingMode::NoSqarray | RingMode::SqRewind);
        let single = matches!(
            self.shape.mode,
            RingMode::SingleIssuer | RingMode::DeferTaskrun | RingMode::RegisteredFd
        );
        if takes_both && ops.len().is_multiple_of(2) && self.random.percent(60) {
            return Step::Submit {
                ops,
                by: Submitter::Both,
                hole: None,
            };
        }
        Step::Submit {
            hole: (indexed && !by_thread && self.random.percent(2))
                .then(|| self.random.below(ops.len()) as u8),
            by: if !single && self.random.percent(5) {
                Submitter::Second
            } else {
                Submitter::First
            },
            ops,
        }
    }

    /// A request or a group, with what may follow it in its chain.
    fn element(&mut self, ops: &mut Vec<Op>, length: usize) {
        let left = length - ops.len();
        let members = if left > 1 && self.random.percent(55) {
            1 + self.random.below((left - 1).min(5))
        } else {
            0
        };
        let members = if members > 0 && self.random.percent(5) {
            left - 1
        } else {
            members
        };
        let mut head = self.op();
        // Whether a deadline strikes the right one of several is asked where there are several.
        let (linked, deadline) = if self.twin > 0 { (60, 50) } else { (35, 20) };
        if self.random.percent(linked) {
            head.link = Some(if self.random.percent(25) {
                LinkFlag::Hard
            } else {
                LinkFlag::Link
            });
        }
        head.drain = self.random.percent(self.drain);
        head.group = members > 0;
        if members > 0 {
            if self.random.percent(self.twin) && !self.leaders.is_empty() {
                let leader = self.random.pick(&self.leaders.clone());
                self.rename(&mut head, leader);
            }
            self.leaders.push(head.name());
        }
        let linked = head.link.is_some();
        ops.push(head);
        for nth in 1..=members {
            let mut member = self.op();
            member.group = nth < members;
            ops.push(member);
        }
        if linked
            && ops.len() < length
            && !self.shape.mode.is_iopoll()
            && self.random.percent(deadline)
        {
            let mut deadline = Op::new(self.number(), What::Deadline(self.random.percent(50)));
            if self.random.percent(60) {
                deadline.link = Some(LinkFlag::Link);
            }
            ops.push(deadline);
        }
    }

    fn number(&mut self) -> u8 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn op(&mut self) -> Op {
        let what = self.what();
        let mut op = Op::new(self.number(), what);
        // Not one whose end is not waited for: it would strike later programs. Nor one in a worker,
        // as it strikes itself.
        let any = what == What::CancelAny;
        op.skip = self.random.percent(self.skip) && !any;
        op.worker = self.random.percent(self.worker) && !any;
        op.extended = self.random.percent(5);
        // A message may not have one.
        op.personality = self.random.percent(3) && what != What::Message;
        // One whose end is not waited for may be issued when the place is a later program's.
        op.fixed_file = self.random.percent(self.fixed) && !op.skip;
        op.fixed_buffer = what.takes_buffer() && self.random.percent(self.buffer);
        if matches!(what, What::Nop(_)) && self.random.percent(self.flaw) {
            op.flaw = Some(self.random.pick(&Flaw::ALL));
        }
        // The kernel refuses it together. And a connection that nobody is told of stays open.
        op.skip &= !what.is_multishot() && !what.accepts();
        if self.random.percent(self.twin / 4) && !self.names.is_empty() {
            let (name, _) = self.random.pick(&self.names.clone());
            self.rename(&mut op, name);
        }
        if self.twin > 0 && op.twin.is_none() && Self::may_share(what) {
            self.names.push((op.id, 0));
        }
        op
    }

    /// What is written tells who wrote it, a deadline is known by what it is for, who is told of a
    /// connection closes it, and who sends without a copy posts twice.
    fn may_share(what: What) -> bool {
        !matches!(what, What::Deadline(_) | What::SendZeroCopy) && !what.writes() && !what.accepts()
    }

    /// Gives it the `user_data` of another one, which not too many have: each may be the one
    /// that a CQE is of.
    fn rename(&mut self, op: &mut Op, name: u8) {
        let Some((_, count)) = self.names.iter_mut().find(|(id, _)| *id == name) else {
            return;
        };
        if *count < 2 && op.twin.is_none() && Self::may_share(op.what) {
            *count += 1;
            op.twin = Some(name);
            // Not one that others are to be named for.
            self.names.retain(|(id, _)| *id != op.id);
        }
    }

    fn result(&mut self) -> i32 {
        if self.random.percent(15) {
            self.random
                .pick(&[-libc::EIO, -libc::ENOENT, -libc::ECANCELED, -libc::EPERM])
        } else {
            self.random.pick(&[0, 0, 1, 7])
        }
    }

    fn what(&mut self) -> What {
        if self.shape.mode.is_iopoll() {
            return match self.random.below(12) {
                0..=4 => What::Nop(self.result()),
                5..=7 => What::NopTw(self.result()),
                8..=10 => What::ReadDevice,
                _ => self
                    .random
                    .pick(&[What::Write, What::Timer(Timer::Long), What::Fsync]),
            };
        }
        if self.random.percent(self.cancel) {
            return match self.random.below(8) {
                0..=4 => What::Cancel(self.target()),
                5 => What::CancelAll(self.target()),
                6 => What::Remove(self.target()),
                _ if self.drain == 0 && self.random.percent(30) => What::CancelAny,
                _ => What::Cancel(self.target()),
            };
        }
        if self.random.percent(self.message) {
            return What::Message;
        }
        if self.random.percent(self.many) {
            return match self.random.below(3) {
                0..=1 if self.random.percent(self.socket) => match self.random.below(2) {
                    0 => What::ReceiveMany(self.source()),
                    _ => What::AcceptMany(self.source()),
                },
                0..=1 => What::PollMany(self.source()),
                _ => What::TimerMany,
            };
        }
        if self.random.percent(self.slow) {
            return match self.random.below(8) {
                0..=3 if self.random.percent(self.socket) => What::Receive(self.source()),
                4 if self.random.percent(self.socket) => What::Accept(self.source()),
                0..=4 => What::Read(self.source()),
                5 => What::Poll(self.source()),
                _ => What::Timer(Timer::Long),
            };
        }
        match self.random.below(40) {
            0..=14 => What::Nop(self.result()),
            15..=22 => What::NopTw(self.result()),
            23..=26 if self.random.percent(self.socket) => What::Send,
            // Its notification is a request too, for which it would wait if it waits for a drain:
            // for ever, today.
            27..=29 if self.drain == 0 && self.random.percent(self.socket) => What::SendZeroCopy,
            23..=29 => What::Write,
            30..=31 => What::ReadFile,
            32 => What::ReadShort,
            33 => What::ReadDevice,
            34 => What::Fsync,
            35 => What::FsyncPipe,
            36 => What::NoBuffer,
            37 => What::Timer(Timer::Short),
            38 => What::Timer(Timer::Soft),
            // F4, most often.
            _ => What::Deadline(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_programs() {
        let programs = |seed| {
            let mut random = Random::new(seed);
            let shape = Shape::random(&mut random);
            [(); 5].map(|()| program(&mut random, shape))
        };
        assert_eq!(programs(5), programs(5));
        assert_ne!(programs(5), programs(6));
    }

    /// Everything that can be said is said sooner or later.
    #[test]
    fn programs_are_various_and_fit() {
        let (mut groups, mut wide, mut twins, mut buffers, mut both) = (0, 0, 0, 0, 0);
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let shape = Shape::random(&mut random);
            let program = program(&mut random, shape);
            let mut numbers: Vec<_> = program.ops().map(|op| op.id).collect();
            let count = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
            for step in &program.steps {
                if let Step::Submit { ops, by, .. } = step {
                    both += usize::from(*by == Submitter::Both);
                    assert!(ops.len() <= program.entries as usize && !ops.is_empty());
                }
            }
            groups += program.ops().filter(|op| op.group).count();
            wide += usize::from(count > 20);
            for op in program.ops() {
                if let Some(other) = op.twin {
                    twins += 1;
                    // There are names, and no chains of them.
                    let named = program.ops().find(|first| first.id == other).unwrap();
                    assert!(other < op.id && named.twin.is_none());
                }
                buffers += usize::from(op.fixed_buffer);
                let name = format!("{:?}", op.what);
                kinds.insert(name.split('(').next().unwrap_or_default().to_owned());
            }
        }
        assert!(groups > 2000, "{groups}");
        assert!(wide > 50, "{wide}");
        assert_eq!(kinds.len(), 26, "{kinds:?}");
        assert!(twins > 300, "{twins}");
        assert!(buffers > 500, "{buffers}");
        assert!(both > 200, "{both}");
    }
}
