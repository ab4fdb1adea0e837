// SPDX-License-Identifier: GPL-2.0-only
//! X5: the ring is closed, or its task is gone, in the middle of a group. What the
//! group held is given back.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Ring, RingMode, PATIENCE};
use rstest::rstest;

use crate::op::*;
use crate::world::{
    become_another_program, eventually, open_direct, poll_now, ring, NullBlk, Pipe,
};

/// Where a group is when its ring goes away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// The leader waits by poll
    Leader,
    /// The leader waits in a worker
    LeaderInWorker,
    /// The leader waits in a timer
    LeaderInTimer,
    /// Members wait
    Members,
    /// A member waits in a worker
    MembersInWorker,
    /// The group waits in a chain
    Chain,
    /// The group waits behind a drain
    Drain,
    /// The leader's CQE, and a member's, were not reaped
    Done,
}

/// Submits a group that gets as far as `phase`; only `pipe` keeps it there.
pub(crate) fn start(ring: &mut Ring, phase: Phase, pipe: &Pipe) {
    let wait = |ud| read(ud, &pipe.read, Buf::new(1));
    let ops = match phase {
        Phase::Leader => group(wait(L).link(), [wait(M1), nop(M2)]),
        Phase::LeaderInWorker => group(wait(L).worker(), [wait(M1), nop(M2)]),
        Phase::LeaderInTimer => group(timeout(L, Duration::from_secs(3600)), [wait(M1), nop(M2)]),
        Phase::Members => group(nop(L).link(), [wait(M1), wait(M2), nop(M3)]),
        Phase::MembersInWorker => group(nop(L), [wait(M1).worker(), wait(M2).worker()]),
        Phase::Chain => all([
            vec![wait(BEFORE).link()],
            group(nop(L).link(), [wait(M1), nop(M2)]),
            vec![nop(AFTER)],
        ]),
        Phase::Drain => all([
            vec![wait(BEFORE)],
            group(nop(L).drain(), [wait(M1), nop(M2)]),
        ]),
        Phase::Done => group(nop(L), [nop(M1), nop(M2)]),
    };
    submit(ring, &ops);
    settle(ring);
}

/// Lets a group get to where it waits. Short of that, it is caught in an earlier phase.
fn settle(ring: &mut Ring) {
    for _ in 0..3 {
        let _ = ring.flush();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Nobody reads from the pipe any more: the last reference to that end is gone.
pub(crate) fn wait_for_release(pipe: Pipe) {
    let Pipe { read, write } = pipe;
    drop(read);
    eventually("the group's files are released", || {
        poll_now(&write, libc::POLLOUT) & libc::POLLERR != 0
    });
}

#[rstest]
fn x5_close(
    #[values(
        Phase::Leader,
        Phase::LeaderInWorker,
        Phase::LeaderInTimer,
        Phase::Members,
        Phase::MembersInWorker,
        Phase::Chain,
        Phase::Drain,
        Phase::Done
    )]
    phase: Phase,
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    let mut ring = ring(mode);
    let pipe = Pipe::new();
    // A ring keeps its registered files as long as it lives, so this sees the end of
    // the ring, and not only that of its requests.
    ring.submitter()
        .register_files(&[pipe.read.as_raw_fd()])
        .expect("registering a file");
    start(&mut ring, phase, &pipe);
    drop(ring);
    wait_for_release(pipe);
}

/// How a process ends that has a group in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Exit,
    Kill,
    Exec,
}

#[rstest]
fn x5_the_task_is_gone(
    #[values(
        Phase::Leader,
        Phase::LeaderInWorker,
        Phase::LeaderInTimer,
        Phase::Members,
        Phase::MembersInWorker,
        Phase::Chain,
        Phase::Drain
    )]
    phase: Phase,
    #[values(End::Exit, End::Kill, End::Exec)] end: End,
) {
    // Skips where there is nothing to test, before there is a second process.
    drop(ring(RingMode::Default));
    for mode in [RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll] {
        let pipe = Pipe::new();
        with_child(end, || {
            let mut ring = Ring::new(mode).expect("a ring");
            start(&mut ring, phase, &pipe);
            vec![ring]
        });
        wait_for_release(pipe);
    }
}

/// Starts something that goes on, and ends as told. Does not come back, not even by a
/// panic: the test's own process is the other one.
fn in_child(end: End, ready: &Pipe, start: impl FnOnce() -> Vec<Ring>) -> ! {
    let started = std::panic::catch_unwind(AssertUnwindSafe(start));
    if let Ok(rings) = started {
        ready.feed(b"x");
        match end {
            End::Exit => std::mem::forget(rings),
            End::Kill => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            End::Exec => {
                std::mem::forget(rings);
                become_another_program();
            }
        }
    }
    // SAFETY: Ends the process without running what the parent will run.
    unsafe { libc::_exit(0) }
}

/// Sees a process through that starts something and ends as told.
#[track_caller]
pub(crate) fn with_child(end: End, start: impl FnOnce() -> Vec<Ring>) {
    let ready = Pipe::new();
    // SAFETY: The test harness runs this test in a thread of its own, so that a lock of
    // another one may be held in the child for ever. The child allocates memory, for
    // which the C library provides, makes system calls, and ends by one.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        in_child(end, &ready, start);
    }
    eventually("the child's group is on its way", || ready.filled() > 0);
    if matches!(end, End::Kill) {
        // SAFETY: A child that was not waited for.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    }
    wait_for_child(child, PATIENCE);
}

/// A leader has completed, and its ring is gone before the task gets to issue its members: they
/// are not issued from anywhere else. What they do needs nothing of the task: no memory, and no
/// table of files.
#[rstest]
fn x5_members_are_not_issued_without_their_task(
    #[values(None, Some(End::Exit), Some(End::Kill))] end: Option<End>,
) {
    drop(ring(RingMode::DeferTaskrun));
    let held = Pipe::new();
    let (from, to) = UnixDatagram::pair().expect("two sockets");
    let start = || {
        let mut ring = Ring::new(RingMode::DeferTaskrun).expect("a ring");
        // Released with the ring.
        ring.submitter()
            .register_files(&[from.as_raw_fd(), held.read.as_raw_fd()])
            .expect("registering two files");
        let member = |ud| send(ud, &from, b"").fixed_file().edit(|sqe| sqe.fd = 0);
        let members = [member(M1), member(M2)];
        submit(&mut ring, &group(nop(L), members));
        vec![ring]
    };
    match end {
        Some(end) => with_child(end, start),
        None => drop(start()),
    }
    wait_for_release(held);
    assert_eq!(poll_now(&to, libc::POLLIN), 0, "members were issued");
}

/// A leader that refers to a ring is waited for as its task exits. So are its members
/// then, and polled IO is done only if somebody polls: each device by itself.
#[rstest]
fn x5_polled_member_of_a_tracked_leader(
    #[values(RingMode::Iopoll, RingMode::HybridIopoll)] mode: RingMode,
    #[values(Kind::Inline, Kind::Worker)] kind: Kind,
    #[values(End::Exit, End::Kill, End::Exec)] end: End,
) {
    drop(ring(mode));
    let null = NullBlk::new(&[("submit_queues", 1), ("poll_queues", 1)]);
    let devices = [open_direct("/dev/nullb0".as_ref()), null.open()];
    for _ in 0..5 {
        with_child(end, || {
            let mut polled = Ring::new(mode).expect("a polled ring");
            let other = Ring::new(RingMode::Default).expect("another ring");
            let get = |ud| {
                let device = &devices[(ud - M1) as usize % 2];
                read_at(ud, device, Buf::aligned(4096, 4096), 0).kind(kind)
            };
            let members = [get(M1), get(M2), get(M3)];
            let ops = group(msg_ring(L, other.fd(), 5, 6), members);
            submit(&mut polled, &ops);
            vec![polled, other]
        });
    }
}

/// A request that refers to a ring is waited for as its task exits: a member whose
/// leader waits, and a leader whose member does. What is waited for must be found.
#[rstest]
fn x5_tracked_requests_that_wait(
    #[values(false, true)] leader: bool,
    #[values(Kind::Inline, Kind::Worker)] kind: Kind,
    #[values(End::Exit, End::Kill, End::Exec)] end: End,
) {
    drop(ring(RingMode::Default));
    for mode in [RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll] {
        let pipe = Pipe::new();
        with_child(end, || {
            let mut ring = Ring::new(mode).expect("a ring");
            let other = Ring::new(RingMode::Default).expect("another ring");
            let wait = |ud| read(ud, &pipe.read, Buf::new(1)).kind(kind);
            let tell = |ud| msg_ring(ud, other.fd(), 5, 6);
            let ops = if leader {
                group(tell(L), [wait(M1), nop(M2)])
            } else {
                // The second one is marked before it is issued, the first one as it is.
                group(wait(L), [tell(M1), futex_wait(M2), nop(M3)])
            };
            submit(&mut ring, &ops);
            settle(&mut ring);
            vec![ring, other]
        });
        wait_for_release(pipe);
    }
}

/// What refers to a ring, and a futex, is waited for as its task exits, and is looked for
/// by what it waits for in its chain: a group, of which members are all that is left.
#[rstest]
fn x5_what_waits_behind_a_group(
    #[values(End::Exit, End::Kill, End::Exec)] end: End,
    #[values(RingMode::Default, RingMode::DeferTaskrun, RingMode::Sqpoll)] mode: RingMode,
) {
    drop(ring(mode));
    for behind in 0..4 {
        let pipe = Pipe::new();
        with_child(end, || {
            let mut ring = Ring::new(mode).expect("a ring");
            let other = Ring::new(RingMode::Default).expect("another ring");
            let wait = |ud| read(ud, &pipe.read, Buf::new(1));
            let first = group(nop(L).link(), [wait(M1), nop(M2)]);
            let message = |ud| msg_ring(ud, other.fd(), 5, 6);
            let ops = match behind {
                0 => all([first, vec![futex_wait(AFTER)]]),
                1 => all([first, vec![message(AFTER)]]),
                2 => all([first, group(nop(L2), [message(N1)])]),
                _ => all([
                    first,
                    vec![
                        link_timeout(TIMER, Duration::from_secs(3600)).link(),
                        nop(BESIDE).link(),
                        futex_wait(AFTER),
                    ],
                ]),
            };
            submit(&mut ring, &ops);
            settle(&mut ring);
            vec![ring, other]
        });
        wait_for_release(pipe);
    }
}

/// The task that has submitted exits, and the ring stays: what it had in flight goes on,
/// and posts, members that were not issued included. Where nobody else may enter the
/// ring, it can only be closed.
#[rstest]
fn x5_the_submitter_exits(
    #[values(
        Phase::Leader,
        Phase::LeaderInWorker,
        Phase::LeaderInTimer,
        Phase::Members,
        Phase::MembersInWorker,
        Phase::Chain,
        Phase::Drain,
        Phase::Done
    )]
    phase: Phase,
    #[values(
        RingMode::Default,
        RingMode::CoopTaskrun,
        RingMode::SingleIssuer,
        RingMode::DeferTaskrun
    )]
    mode: RingMode,
) {
    let pipe = Pipe::new();
    let mut ring = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut ring = ring(mode);
            start(&mut ring, phase, &pipe);
            ring
        });
        thread.join().expect("submitting")
    });
    if matches!(mode, RingMode::Default | RingMode::CoopTaskrun) {
        pipe.feed(&[b'x'; 8]);
        let wanted = match phase {
            // It waits on.
            Phase::LeaderInTimer => 0,
            Phase::Leader | Phase::LeaderInWorker | Phase::MembersInWorker | Phase::Done => 3,
            Phase::Members | Phase::Drain => 4,
            Phase::Chain => 5,
        };
        let mut came = Vec::new();
        eventually("what the task had submitted", || {
            came.extend(ring.arrived().into_iter().map(|cqe| cqe.user_data));
            came.len() >= wanted
        });
        came.sort_unstable();
        let count = came.len();
        came.dedup();
        assert_eq!((count, came.len()), (wanted, wanted), "{came:x?}");
    }
    drop(ring);
    wait_for_release(pipe);
}

/// Waits for a child, and returns its status.
#[track_caller]
pub(crate) fn wait_for_child(child: libc::pid_t, patience: Duration) -> libc::c_int {
    let mut patience = Patience::new(patience);
    loop {
        let mut status = 0;
        // SAFETY: Writes one status.
        let done = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
        assert!(done >= 0, "waitpid: {}", std::io::Error::last_os_error());
        if done == child {
            return status;
        }
        assert!(
            !patience.is_over(),
            "the child does not end: {}",
            stacks(child)
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where in the kernel the threads of a process are.
fn stacks(pid: libc::pid_t) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| {
            let of = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let status = of("status");
            let state = status.lines().find(|line| line.starts_with("State"));
            let (comm, time) = (of("comm"), of("schedstat"));
            let state = state.unwrap_or_default();
            format!("\n{}: {state}, {time}{}", comm.trim(), of("stack"))
        })
        .collect()
}
