// SPDX-License-Identifier: GPL-2.0-only
//! X5 and C1 in a storm. Threads of a process submit groups of every shape, to rings of
//! their own and to one that they share, while they cancel, close, fork, and exec; the
//! process ends in one way or another, and nothing may be left of it. One that ends in
//! order has seen each of its SQEs post as it must.
//!
//! A few rounds belong to every run. `cargo xtask qemu-test --filter storm --storm SECONDS`
//! lets it go on; `--seed` begins with the round of that seed.

mod ledger;
mod program;
mod victim;

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use harness::protocol::{SEED_ENV, SLOWDOWN_ENV, STORM_ENV};
use harness::ring::RingMode;

use crate::exit::{wait_for_child, wait_for_release};
use crate::files::file_with;
use crate::world::{open_direct, ring, udp_pair, Pipe};
use harness::fuzz::generate::Random;

/// No process of a storm lives longer, and nothing in it takes longer to end.
fn life() -> Duration {
    Duration::from_secs(8) * number(SLOWDOWN_ENV).map_or(1, |factor| factor as u32)
}

/// Rounds of a run that nobody gave time.
const ROUNDS: u64 = 16;

/// What requests of a storm wait for, read and write. All of a process share it.
struct Yard {
    pipes: Vec<Pipe>,
    sockets: Vec<(UnixStream, UnixStream)>,
    udp: (UdpSocket, UdpSocket),
    file: File,
    device: File,
}

impl Yard {
    fn new() -> Self {
        let pipes: Vec<_> = (0..3).map(|_| Pipe::new()).collect();
        for pipe in &pipes {
            pipe.nonblocking();
        }
        let sockets: Vec<_> = (0..2)
            .map(|_| UnixStream::pair().expect("a pair of sockets"))
            .collect();
        for (near, far) in &sockets {
            // Only the end that is written by this program: requests are to wait.
            far.set_nonblocking(true)
                .expect("a socket that never waits");
            let _ = near;
        }
        Self {
            pipes,
            sockets,
            udp: udp_pair(),
            file: file_with(&[0; 4096]),
            device: open_direct("/dev/nullb0".as_ref()),
        }
    }
}

impl Yard {
    fn pipe(&self, dice: &mut Random) -> &Pipe {
        &self.pipes[dice.below(self.pipes.len())]
    }

    /// The end that is read by requests, and the other one.
    fn socket(&self, dice: &mut Random) -> &(UnixStream, UnixStream) {
        &self.sockets[dice.below(self.sockets.len())]
    }
}

/// How the process of a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// When all that was submitted has been completed
    InOrder,
    /// One of its threads exits for all
    Exit,
    /// One of its threads executes another program
    Exec,
    /// It is killed.
    Kill,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Descriptors that this process has.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc is mounted")
        .count()
}

/// A process, its threads and their rings, from beginning to end.
fn round(seed: u64) {
    let mut dice = Random::new(seed);
    let end = dice.pick(&[End::InOrder, End::InOrder, End::Exit, End::Exec, End::Kill]);
    let yard = Yard::new();
    let ready = Pipe::new();
    // SAFETY: The test harness runs this test in a thread of its own, so that a lock of
    // another one may be held in the child for ever. The child allocates memory and starts
    // threads, for which the C library provides, makes system calls, and ends by one.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        victim::live(&yard, end, &mut dice, &ready);
    }
    let Yard { pipes, .. } = yard;
    if end == End::Kill {
        crate::world::eventually("the process is on its way", || ready.filled() > 0);
        std::thread::sleep(Duration::from_micros(dice.below(60_000) as u64));
        // SAFETY: A child that was not waited for.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    }
    let status = wait_for_child(child, life());
    assert!(
        status == 0 || (end == End::Kill && libc::WTERMSIG(status) == libc::SIGKILL),
        "the process of a storm ended with status {status:#x}"
    );
    for pipe in pipes {
        wait_for_release(pipe);
    }
}

#[test]
fn x5_storm() {
    drop(ring(RingMode::Default));
    let storm = number(STORM_ENV).map(Duration::from_secs);
    let first = number(SEED_ENV).unwrap_or_else(|| match storm {
        // Every time another one, as there is time to go far.
        Some(_) => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |since| since.as_secs() * 1000),
        None => 1,
    });
    println!("seed {first}");
    let (start, open) = (Instant::now(), descriptors());
    let mut seed = first;
    loop {
        let enough = match storm {
            Some(time) => start.elapsed() >= time,
            None => seed - first >= ROUNDS,
        };
        if enough {
            break;
        }
        let done = std::panic::catch_unwind(|| round(seed));
        assert!(done.is_ok(), "that was --seed {seed}");
        assert_eq!(descriptors(), open, "descriptors after --seed {seed}");
        seed += 1;
    }
    println!("{} rounds in {:?}", seed - first, start.elapsed());
}
