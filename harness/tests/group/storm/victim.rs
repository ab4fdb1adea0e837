// SPDX-License-Identifier: GPL-2.0-only
//! The process of a round: its threads, and what they do to each other.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::ring::{RingMode, SyncCancel, PATIENCE};
use io_uring::opcode;

use super::ledger::Ledger;
use super::program::Roll;
use super::{End, Yard};
use crate::op::{CANCEL_ALL, CANCEL_ANY, CANCEL_FD, CANCEL_OP};
use crate::world::{become_another_program, Pipe};
use harness::fuzz::generate::Random;

const THREADS: usize = 3;
const STEPS: usize = 60;

/// Rings that several tasks may submit to.
const SHAREABLE: [RingMode; 11] = [
    RingMode::Default,
    RingMode::CoopTaskrun,
    RingMode::TaskrunFlag,
    RingMode::Sqpoll,
    RingMode::Sqe128,
    RingMode::SqeMixed,
    RingMode::Cqe32,
    RingMode::CqeMixed,
    RingMode::NoSqarray,
    RingMode::SqRewind,
    RingMode::SubmitAll,
];

/// What the threads of a process share.
struct Crew<'a> {
    yard: &'a Yard,
    end: End,
    shared: Mutex<Ledger>,
    /// The rings of all, the shared one last. They may be closed at any time.
    rings: Vec<AtomicI32>,
    started: AtomicBool,
}

impl Crew<'_> {
    fn shared(&self) -> MutexGuard<'_, Ledger> {
        // Whoever fails says so; the others are of no interest then.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn some_ring(&self, dice: &mut Random) -> RawFd {
        self.rings[dice.below(self.rings.len())].load(Ordering::Relaxed)
    }
}

/// Lives the life of such a process, and does not come back.
pub(super) fn live(yard: &Yard, end: End, dice: &mut Random, ready: &Pipe) -> ! {
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| run(yard, end, dice, ready)));
    // SAFETY: Ends the process without running what the parent will run.
    unsafe { libc::_exit(if lived.is_ok() { 0 } else { 101 }) }
}

fn run(yard: &Yard, end: End, dice: &mut Random, ready: &Pipe) {
    let shared = Ledger::new(dice.pick(&SHAREABLE), None, dice);
    let rings = (0..THREADS)
        .map(|_| -1)
        .chain([shared.ring.fd()])
        .map(AtomicI32::new)
        .collect();
    let crew = Crew {
        yard,
        end,
        shared: Mutex::new(shared),
        rings,
        started: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for me in 0..THREADS {
            let mut dice = Random::new(dice.below(1 << 31) as u64);
            let (crew, ready) = (&crew, &ready);
            scope.spawn(move || {
                let mut hand = Hand::new(crew, me, &mut dice);
                if !crew.started.swap(true, Ordering::Relaxed) {
                    ready.feed(b"x");
                }
                hand.work();
            });
        }
    });
    crew.shared().settle(yard);
}

/// One of the threads.
struct Hand<'a> {
    crew: &'a Crew<'a>,
    me: usize,
    dice: &'a mut Random,
    own: Ledger,
}

impl<'a> Hand<'a> {
    fn new(crew: &'a Crew<'a>, me: usize, dice: &'a mut Random) -> Self {
        let own = Self::ring(crew, me, dice);
        Self {
            crew,
            me,
            dice,
            own,
        }
    }

    /// A ring of its own, in any mode.
    fn ring(crew: &Crew<'_>, me: usize, dice: &mut Random) -> Ledger {
        let mode = dice.pick(&RingMode::ALL);
        let shared = crew.shared();
        let thread = (mode == RingMode::Sqpoll && shared.mode() == mode).then(|| shared.ring.fd());
        drop(shared);
        let own = Ledger::new(mode, thread, dice);
        crew.rings[me].store(own.ring.fd(), Ordering::Relaxed);
        own
    }

    fn work(&mut self) {
        let start = Instant::now();
        // Those who end in disorder do so somewhere on their way.
        let last = match self.crew.end {
            End::Exit | End::Exec if self.me == 0 => self.dice.below(STEPS),
            _ => STEPS,
        };
        for _ in 0..last {
            self.step();
        }
        match self.crew.end {
            End::InOrder => self.own.settle(self.crew.yard),
            // SAFETY: Ends the process, in the middle of what the others do.
            End::Exit if self.me == 0 => unsafe { libc::_exit(0) },
            End::Exec if self.me == 0 => become_another_program(),
            _ => {
                while start.elapsed() < PATIENCE {
                    self.step();
                }
            }
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..40 => self.submit(false),
            40..50 => self.submit(true),
            50..58 => {
                let program = self.roll(|roll, own| roll.cancellation(own));
                self.own.submit(program);
            }
            58..64 => self.cancel_somewhere(),
            64..72 => self.crew.yard.feed(self.dice),
            72..88 => self.own.reap(),
            88..93 => self.crew.shared().reap(),
            93..95 => self.reopen(),
            95..97 => self.submit_by_a_child(),
            97..98 => self.submit_by_a_thread(),
            _ => std::thread::sleep(Duration::from_micros(self.dice.below(500) as u64)),
        }
        if self.own.owed() > 300 {
            self.own.settle(self.crew.yard);
        }
    }

    fn roll<T>(&mut self, make: impl FnOnce(&mut Roll<'_>, &Ledger) -> T) -> T {
        let mut roll = Roll {
            other: self.crew.some_ring(self.dice),
            dice: self.dice,
            yard: self.crew.yard,
        };
        make(&mut roll, &self.own)
    }

    fn submit(&mut self, to_shared: bool) {
        let crew = self.crew;
        if to_shared {
            let mut roll = Roll {
                other: self.own.ring.fd(),
                dice: self.dice,
                yard: crew.yard,
            };
            let mut shared = crew.shared();
            let program = roll.program(&shared);
            shared.submit(program);
            if shared.owed() > 300 {
                shared.settle(crew.yard);
            }
        } else {
            let program = self.roll(|roll, own| roll.program(own));
            self.own.submit(program);
        }
    }

    /// The synchronous way, which any task may go, on any ring.
    fn cancel_somewhere(&mut self) {
        let yard = self.crew.yard;
        let fd = self.crew.some_ring(self.dice);
        let some = SyncCancel {
            // A member that its leader holds is cancelled once the leader completes.
            patience: Some(Duration::from_millis(1)),
            ..SyncCancel::default()
        };
        let what = match self.dice.below(4) {
            0 => SyncCancel {
                user_data: self.own.recent(self.dice),
                ..some
            },
            1 => SyncCancel {
                fd: yard.pipe(self.dice).read.as_raw_fd(),
                flags: CANCEL_FD | CANCEL_ALL,
                ..some
            },
            2 => SyncCancel {
                opcode: opcode::Read::CODE,
                flags: CANCEL_OP | CANCEL_ALL,
                ..some
            },
            _ => SyncCancel {
                flags: CANCEL_ANY,
                ..some
            },
        };
        // Nothing matches, or it is not this task's ring, or none any more.
        let _ = harness::ring::sync_cancel(fd, &what);
    }

    /// Closes the ring with all that is in it.
    fn reopen(&mut self) {
        self.own = Self::ring(self.crew, self.me, self.dice);
    }

    /// A process that has inherited the ring submits to it, and is gone.
    fn submit_by_a_child(&mut self) {
        const FORKS: [RingMode; 8] = [
            RingMode::Default,
            RingMode::CoopTaskrun,
            RingMode::TaskrunFlag,
            RingMode::Sqe128,
            RingMode::Cqe32,
            RingMode::CqeMixed,
            RingMode::NoSqarray,
            RingMode::SubmitAll,
        ];
        if !FORKS.contains(&self.own.mode()) {
            return;
        }
        let program = self.roll(|roll, own| roll.program(own));
        self.own.push(program);
        let (fd, count) = (self.own.ring.fd(), self.own.ring.pending());
        let end = self.dice.pick(&[End::Exit, End::Exec, End::Kill]);
        // SAFETY: Other threads may hold any lock: the child makes system calls only. It
        // has the rings' memory in common with this process, which waits for it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: No pointers but null; the SQEs are there, and what they point to has
            // been copied with everything else.
            unsafe {
                let none = std::ptr::null::<libc::c_void>();
                libc::syscall(libc::SYS_io_uring_enter, fd, count, 0, 0, none, 0);
                match end {
                    End::Exec => become_another_program(),
                    End::Kill => libc::kill(libc::getpid(), libc::SIGKILL),
                    _ => 0,
                };
                libc::_exit(0)
            }
        }
        assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
        crate::exit::wait_for_child(child, PATIENCE);
        self.own.submit_rest();
    }

    /// A thread submits to the shared ring, and is gone.
    fn submit_by_a_thread(&mut self) {
        let mut dice = Random::new(self.dice.below(1 << 31) as u64);
        let (crew, other) = (self.crew, self.own.ring.fd());
        let thread = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let mut shared = crew.shared();
                let mut roll = Roll {
                    other,
                    dice: &mut dice,
                    yard: crew.yard,
                };
                let program = roll.program(&shared);
                shared.submit(program);
            });
            thread.join()
        });
        assert!(thread.is_ok(), "a thread has failed");
    }
}

impl Yard {
    /// Lets something that waits go on.
    fn feed(&self, dice: &mut Random) {
        if dice.percent(60) {
            give(&self.pipe(dice).write, 1 + dice.below(3));
        } else {
            give(&self.socket(dice).1, 1);
        }
    }

    /// Lets all that waits go on.
    pub(super) fn feed_all(&self) {
        for pipe in &self.pipes {
            give(&pipe.write, 256);
        }
        for (_, far) in &self.sockets {
            give(far, 256);
        }
    }
}

/// Writes so many bytes, or less if there is no room.
fn give(fd: &impl AsRawFd, count: usize) {
    let bytes = [b'x'; 256];
    // SAFETY: In bounds. Full is as good.
    unsafe {
        libc::write(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            count.min(bytes.len()),
        )
    };
}
