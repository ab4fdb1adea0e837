// SPDX-License-Identifier: GPL-2.0-only
//! Who waits for a ring is woken when there is what he waits for, however he waits. The
//! last member of a group makes two CQEs appear at once.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use harness::ring::{Ring, RingMode, PATIENCE};

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{ring, Pipe};

const OK: i32 = 0;

/// Three groups whose members all wait, and the pipes that they wait for.
struct Waiting {
    pipes: Vec<Pipe>,
}

impl Waiting {
    /// CQEs that there are once so many pipes were fed, one after the other.
    const POSTED: [u32; 7] = [0, 1, 3, 4, 6, 7, 9];

    fn start(ring: &mut Ring, polls: bool) -> Self {
        let pipes: Vec<_> = (0..6).map(|_| Pipe::new()).collect();
        let wait = |ud, pipe: &Pipe| {
            if polls {
                poll_in(ud, &pipe.read)
            } else {
                read(ud, &pipe.read, Buf::new(1))
            }
        };
        let ops = (0..3).map(|at| {
            let ud = Self::leader(at);
            let [first, second] = [&pipes[2 * at], &pipes[2 * at + 1]];
            group(nop(ud), [wait(ud + 1, first), wait(ud + 2, second)])
        });
        submit(ring, &all(ops));
        nothing_yet(ring);
        Self { pipes }
    }

    const fn leader(at: usize) -> u64 {
        0x1000 * (at as u64 + 1)
    }

    /// Feeds these pipes after a while, long enough for a waiter to sleep, mostly; if not,
    /// the test is easier and still right.
    fn feed(&self, range: std::ops::Range<usize>) {
        std::thread::sleep(Duration::from_millis(5));
        for pipe in &self.pipes[range] {
            pipe.feed(b"x");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What all of it posts, but for so many CQEs that came before.
    fn finish(&self, ring: &mut Ring, came: Vec<harness::ring::Cqe>) {
        ring.put_back(came);
        (0..3)
            .fold(Expect::new(), |expect, at| {
                let ud = Self::leader(at);
                expect.group((ud, OK), [(ud + 1, 1), (ud + 2, 1)])
            })
            .finish(ring);
    }
}

/// For each number of CQEs: a waiter for so many is woken by the completion that makes
/// them, and not before.
fn c2_woken_by_the_count(mode: RingMode) {
    let mut ring = ring(mode);
    for polls in [false, true] {
        for want in 1..=9 {
            let waiting = Waiting::start(&mut ring, polls);
            let posted = Waiting::POSTED;
            let needed = posted.iter().position(|&count| count >= want);
            let needed = needed.expect("there are nine");
            let came = std::thread::scope(|scope| {
                scope.spawn(|| waiting.feed(0..needed));
                let woken = ring.wait_for(want, PATIENCE).expect("waiting");
                assert!(woken, "asleep with {want} CQEs");
                ring.posted()
            });
            let count = came.len() as u32;
            assert!(count >= want, "woken for {want} with {count}");
            assert!(
                count <= posted[needed],
                "{count} CQEs of {}",
                posted[needed]
            );
            waiting.feed(needed..6);
            waiting.finish(&mut ring, came);
        }
    }
}

/// Waiting for a batch: all that is asked for, or any CQE once the minimum is over.
fn c2_woken_by_the_minimum(mode: RingMode) {
    const LITTLE: Duration = Duration::from_millis(20);
    let mut ring = ring(mode);
    // Nine come in time: long before the minimum is over, on whatever machine.
    let minimum = 12 * PATIENCE;
    let waiting = Waiting::start(&mut ring, false);
    let start = Instant::now();
    let came = std::thread::scope(|scope| {
        scope.spawn(|| waiting.feed(0..6));
        ring.wait_for_batch(9, 2 * minimum, minimum)
            .expect("waiting");
        assert!(start.elapsed() < minimum, "slept for the minimum");
        ring.posted()
    });
    assert_eq!(came.len(), 9);
    waiting.finish(&mut ring, came);

    // Some have come when the minimum is over.
    let waiting = Waiting::start(&mut ring, false);
    waiting.feed(0..2);
    let start = Instant::now();
    ring.wait_for_batch(9, PATIENCE, LITTLE).expect("waiting");
    assert!(start.elapsed() < PATIENCE, "slept on");
    let came = ring.posted();
    // Who serves an SQPOLL ring may not have got to the second one.
    let some = came.len() == 3 || (mode == RingMode::Sqpoll && came.len() == 1);
    assert!(some, "{} CQEs", came.len());
    waiting.feed(2..6);
    waiting.finish(&mut ring, came);

    // None has. The first one does, then.
    let waiting = Waiting::start(&mut ring, false);
    let came = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(2 * LITTLE);
            waiting.feed(0..1);
        });
        let start = Instant::now();
        ring.wait_for_batch(9, PATIENCE, LITTLE).expect("waiting");
        assert!(start.elapsed() < PATIENCE, "slept on");
        ring.posted()
    });
    assert_eq!(came.len(), 1);
    waiting.feed(1..6);
    waiting.finish(&mut ring, came);
}

/// A group whose members skip wakes whoever polls the ring, and writes to its eventfd, by
/// the leader's CQE alone.
fn c2_pollers_are_woken(mode: RingMode) {
    let mut ring = ring(mode);
    // SAFETY: No pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(fd >= 0, "eventfd: {}", std::io::Error::last_os_error());
    // SAFETY: It is new, and nobody else's.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    ring.submitter()
        .register_eventfd(event.as_raw_fd())
        .expect("registering an eventfd");
    for by_event in [false, true] {
        for _ in 0..5 {
            let waits = Pipe::new();
            let ops = group(
                nop_res(L, 7),
                [
                    nop(M1).skip(),
                    read(M2, &waits.read, Buf::new(1)).skip(),
                    nop(M3).worker().skip(),
                ],
            );
            submit(&mut ring, &ops);
            nothing_yet(&mut ring);
            // What came of looking.
            take_events(&event);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(5));
                    waits.feed(b"x");
                });
                let fd = if by_event {
                    event.as_raw_fd()
                } else {
                    ring.fd()
                };
                assert!(
                    becomes_readable(fd),
                    "nobody was woken; by eventfd: {by_event}"
                );
            });
            Expect::new().cqe(L, 7).finish(&mut ring);
        }
    }
}

fn take_events(event: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: Writes one number, or none.
    unsafe { libc::read(event.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), 8) };
}

/// Waits for it, within [`PATIENCE`].
fn becomes_readable(fd: libc::c_int) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: One element.
    let ready = unsafe { libc::poll(&mut poll, 1, PATIENCE.as_millis() as libc::c_int) };
    ready == 1
}

main_modes!(
    c2_woken_by_the_count,
    c2_woken_by_the_minimum,
    c2_pollers_are_woken,
);
