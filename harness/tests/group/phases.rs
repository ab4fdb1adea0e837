// SPDX-License-Identifier: GPL-2.0-only
//! X1 to X4 for everything that a request can be waiting in: every way of matching, with
//! ALL and without, asynchronous and synchronous, while the leader waits and while
//! members do; and a deadline behind each.

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use harness::ring::{Ring, RingMode, SyncCancel};
use io_uring::opcode;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{eventually, polls, ring, workers, Pipe};

const OK: i32 = 0;
const EINTR: i32 = -libc::EINTR;
const ENOENT: i32 = -libc::ENOENT;
const EALREADY: i32 = -libc::EALREADY;
const ECANCELED: i32 = -libc::ECANCELED;
const ETIME: i32 = -libc::ETIME;

/// What a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A read that has armed a poll
    Read,
    /// The same, armed by a worker
    ReadInWorker,
    Poll,
    MultishotPoll,
    Recv,
    /// A multishot
    Accept,
    Timer,
    Futex,
    /// Open of a FIFO, which blocks a worker
    Open,
}

impl Wait {
    const ALL: [Self; 9] = [
        Self::Read,
        Self::ReadInWorker,
        Self::Poll,
        Self::MultishotPoll,
        Self::Recv,
        Self::Accept,
        Self::Timer,
        Self::Futex,
        Self::Open,
    ];

    fn op(self, place: &Place, user_data: u64) -> Op {
        match self {
            Self::Read => read(user_data, &place.pipe.read, Buf::new(1)),
            Self::ReadInWorker => read(user_data, &place.pipe.read, Buf::new(1)).worker(),
            Self::Poll => poll_in(user_data, &place.pipe.read),
            Self::MultishotPoll => poll_in_multi(user_data, &place.pipe.read),
            Self::Recv => recv(user_data, &place.near, Buf::new(1)),
            Self::Accept => accept_multi(user_data, &place.listener),
            Self::Timer => timeout(user_data, Duration::from_secs(3600)),
            Self::Futex => futex_wait(user_data),
            Self::Open => open(user_data, &place.fifo, libc::O_RDONLY).worker(),
        }
    }

    fn opcode(self) -> u8 {
        match self {
            Self::Read | Self::ReadInWorker => opcode::Read::CODE,
            Self::Poll | Self::MultishotPoll => opcode::PollAdd::CODE,
            Self::Recv => opcode::Recv::CODE,
            Self::Accept => opcode::Accept::CODE,
            Self::Timer => opcode::Timeout::CODE,
            Self::Futex => opcode::FutexWait::CODE,
            Self::Open => opcode::OpenAt::CODE,
        }
    }

    /// The file that it can be found by.
    fn fd(self, place: &Place) -> Option<RawFd> {
        match self {
            Self::Read | Self::ReadInWorker | Self::Poll | Self::MultishotPoll => {
                Some(place.pipe.read.as_raw_fd())
            }
            Self::Recv => Some(place.near.as_raw_fd()),
            Self::Accept => Some(place.listener.as_raw_fd()),
            Self::Timer | Self::Futex | Self::Open => None,
        }
    }

    /// A worker has it in its hands: it can be told to stop, and stops later.
    fn blocks(self) -> bool {
        self == Self::Open
    }

    /// A worker has it in its hands, or has had.
    fn in_worker(self) -> bool {
        matches!(self, Self::Open | Self::ReadInWorker)
    }

    /// What a cancel request returns that stops at the first match, and finds one of these.
    fn found(self) -> Vec<i32> {
        match self {
            // Or a worker has not let go of it yet.
            _ if self.in_worker() => vec![OK, EALREADY],
            // These are counted, in a group or not.
            Self::Futex => vec![OK, 1],
            _ => vec![OK],
        }
    }

    /// What one returns that counts, and finds so many of these.
    fn counted(self, count: i32) -> Vec<i32> {
        match self {
            // What runs does not count.
            _ if self.in_worker() => (0..=count).collect(),
            // All that are found at once count as one, in a group or not.
            Self::Futex => (1..=count).collect(),
            _ => vec![count],
        }
    }

    /// What it posts if it is cancelled.
    fn cancelled(self) -> Vec<i32> {
        if self.blocks() {
            vec![EINTR, ECANCELED]
        } else {
            vec![ECANCELED]
        }
    }
}

/// Where requests can wait.
struct Place {
    pipe: Pipe,
    near: UnixStream,
    _far: UnixStream,
    listener: std::net::TcpListener,
    fifo: CString,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fifo = dir.path().join("fifo").into_os_string();
        let fifo = CString::new(fifo.into_encoded_bytes()).expect("a path without a null");
        // SAFETY: A C string.
        let made = unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) };
        assert_eq!(made, 0, "mkfifo: {}", std::io::Error::last_os_error());
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        Self {
            pipe: Pipe::new(),
            near,
            _far: far,
            listener: std::net::TcpListener::bind("127.0.0.1:0").expect("a TCP socket"),
            fifo,
            _dir: dir,
        }
    }
}

/// What a cancel request looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Leader,
    Member,
    Fd,
    /// What waits
    Opcode,
    Any,
}

/// How a cancel request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Async,
    Sync,
}

/// Cancels, and judges what that returns. `one` is what it may return if it is to stop at
/// the first match, `many` how many it may count otherwise.
#[derive(Debug)]
struct Cancel {
    by: Match,
    all: bool,
    way: Way,
    one: Vec<i32>,
    many: Vec<i32>,
}

impl Cancel {
    fn run(&self, ring: &mut Ring, wait: Wait, place: &Place) {
        let all = if self.all { CANCEL_ALL } else { 0 };
        let (mut user_data, mut fd, mut flags) = (0, 0, all);
        match self.by {
            Match::Leader => user_data = L,
            Match::Member => user_data = M1,
            Match::Fd => {
                fd = wait.fd(place).expect("it has a file");
                flags |= CANCEL_FD;
            }
            Match::Opcode => flags |= CANCEL_OP,
            Match::Any => flags |= CANCEL_ANY,
        }
        let counts = self.all || self.by == Match::Any;
        match self.way {
            Way::Async => {
                let op = cancel(CANCEL, user_data, flags).edit(|sqe| {
                    sqe.fd = fd;
                    sqe.len = if self.by == Match::Opcode {
                        wait.opcode().into()
                    } else {
                        0
                    };
                });
                let want = if counts { &self.many } else { &self.one };
                submit(ring, &[op]);
                // Its own CQE may come behind those of what it has cancelled.
                let result = until(ring, CANCEL);
                assert!(want.contains(&result), "{self:?} returned {result}");
            }
            Way::Sync => {
                let what = SyncCancel {
                    user_data,
                    fd,
                    flags,
                    opcode: wait.opcode(),
                    patience: None,
                };
                let done = ring
                    .sync_cancel(&what)
                    .map(|count| count as i32)
                    .unwrap_or_else(|error| -error.raw_os_error().unwrap_or(0));
                let want = if counts {
                    self.many.clone()
                } else {
                    // What only runs is waited for.
                    self.one
                        .iter()
                        .map(|&res| if res == EALREADY { OK } else { res })
                        .collect()
                };
                assert!(want.contains(&done), "{self:?} returned {done}");
            }
        }
    }
}

/// The result of a request. What came with it is kept.
fn until(ring: &mut Ring, user_data: u64) -> i32 {
    let mut result = None;
    eventually("the request's CQE", || {
        let mut cqes = ring.arrived();
        if let Some(at) = cqes.iter().position(|cqe| cqe.user_data == user_data) {
            result = Some(cqes.remove(at).result);
        }
        ring.put_back(cqes);
        result.is_some()
    });
    result.expect("it has come")
}

/// Lets the deadline strike, which a worker may have to arm first.
fn expire_now(ring: &mut Ring) {
    eventually("the deadline is armed", || {
        submit(ring, &[expire(EXPIRE, TIMER)]);
        until(ring, EXPIRE) == OK
    });
}

/// Every way of cancelling.
fn every_way(
    mode: RingMode,
    wait: Wait,
    place: &Place,
    results: impl Fn(Match) -> (Vec<i32>, Vec<i32>),
) -> Vec<Cancel> {
    let mut every = Vec::new();
    for by in [
        Match::Leader,
        Match::Member,
        Match::Fd,
        Match::Opcode,
        Match::Any,
    ] {
        for (all, way) in [
            (false, Way::Async),
            (true, Way::Async),
            (false, Way::Sync),
            (true, Way::Sync),
        ] {
            if by == Match::Fd && wait.fd(place).is_none() {
                continue;
            }
            // The workers are the thread's, which sync cancel does not look at.
            if mode == RingMode::Sqpoll && way == Way::Sync && wait.in_worker() {
                continue;
            }
            let (one, many) = results(by);
            every.push(Cancel {
                by,
                all,
                way,
                one,
                many,
            });
        }
    }
    every
}

/// A worker needs a moment to get so far. `count` of them wait.
fn until_it_waits(ring: &mut Ring, wait: Wait, count: usize) {
    nothing_yet(ring);
    if wait == Wait::ReadInWorker {
        eventually("the workers have armed polls", || polls(ring) == count);
    }
    if wait.blocks() {
        eventually("a worker", || workers() > 0);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The leader waits, and holds its members.
fn x1_while_the_leader_waits(mode: RingMode) {
    let mut ring = ring(mode);
    for wait in Wait::ALL {
        let place = Place::new();
        let results = |by| match by {
            // The members are newly cancelled, whatever becomes of the leader.
            Match::Leader => (vec![OK], wait.counted(1)),
            Match::Member => (vec![OK], vec![1]),
            Match::Fd | Match::Opcode => (wait.found(), wait.counted(1)),
            Match::Any => (vec![], vec![0, 1, 2, 3]),
        };
        for cancel in every_way(mode, wait, &place, results) {
            println!("{wait:?}, {cancel:?}");
            let ops = all([
                group(wait.op(&place, L).link(), [nop_res(M1, 1), nop_res(M2, 2)]),
                vec![nop(AFTER)],
            ]);
            submit(&mut ring, &ops);
            until_it_waits(&mut ring, wait, 1);
            cancel.run(&mut ring, wait, &place);
            if cancel.by == Match::Member {
                // It completes with its leader.
                nothing_yet(&mut ring);
                stop(&mut ring, OK);
            }
            Expect::new()
                .group(
                    (L, wait.cancelled()),
                    [M1, M2].map(|ud| (ud, unissued(wait, cancel.by))),
                )
                .then(AFTER, ECANCELED)
                .finish(&mut ring);
            nowhere(&mut ring);
        }
    }
}

/// What members post that their leader did not get to: a leader that is found by
/// something else than its `user_data`, and was interrupted, says so as it likes.
fn unissued(wait: Wait, by: Match) -> Vec<i32> {
    if wait.blocks() && matches!(by, Match::Fd | Match::Opcode) {
        vec![ECANCELED, -libc::EIO]
    } else {
        vec![ECANCELED]
    }
}

/// Cancels what is left of the first group.
fn stop(ring: &mut Ring, one: i32) {
    submit(ring, &[cancel(CANCEL, L, 0)]);
    let result = until(ring, CANCEL);
    assert!(
        [one, EALREADY].contains(&result),
        "cancelling the rest: {result}"
    );
}

/// The group is done, and not found any more. A worker may hold on to what it ran.
fn nowhere(ring: &mut Ring) {
    for target in [L, M1] {
        eventually("the group is gone", || {
            submit(ring, &[cancel(CANCEL, target, 0)]);
            let cqes = ring
                .submit_and_collect(1)
                .expect("the cancel request's CQE");
            assert!([ENOENT, EALREADY].contains(&cqes[0].result));
            cqes[0].result == ENOENT
        });
    }
}

/// The leader has succeeded. A member waits, one is done, and another one waits.
fn x1_while_members_wait(mode: RingMode) {
    let mut ring = ring(mode);
    for wait in Wait::ALL {
        let place = Place::new();
        let results = |by| match by {
            // The leader is done, so it does not count.
            Match::Leader => (vec![OK, EALREADY], vec![0]),
            Match::Member => (wait.found(), wait.counted(1)),
            Match::Fd | Match::Opcode => (wait.found(), wait.counted(2)),
            Match::Any => (vec![], vec![0, 1, 2, 3]),
        };
        for cancel in every_way(mode, wait, &place, results) {
            println!("{wait:?}, {cancel:?}");
            let ops = all([
                group(
                    nop_res(L, 7).link(),
                    [wait.op(&place, M1), nop_res(M2, 2), wait.op(&place, M3)],
                ),
                vec![nop(AFTER)],
            ]);
            submit(&mut ring, &ops);
            Expect::new().cqe(M2, 2).settle(&mut ring);
            until_it_waits(&mut ring, wait, 2);
            cancel.run(&mut ring, wait, &place);
            if cancel.by == Match::Member || !(cancel.all || cancel.by == Match::Any) {
                // One of them, at once; and then the rest, if there is any.
                submit(&mut ring, &[self::cancel(CANCEL, L, 0)]);
                let result = until(&mut ring, CANCEL);
                assert!([OK, EALREADY, ENOENT].contains(&result), "{result}");
            }
            Expect::new()
                .group(
                    (L, vec![7]),
                    [(M1, wait.cancelled()), (M3, wait.cancelled())],
                )
                .then(AFTER, ECANCELED)
                .finish(&mut ring);
            nowhere(&mut ring);
        }
    }
}

/// A member that waits is cancelled: no other one is, and the group goes on.
fn x2_one_of_those_that_wait(mode: RingMode) {
    let mut ring = ring(mode);
    for wait in Wait::ALL {
        println!("{wait:?}");
        let place = Place::new();
        let waits = Pipe::new();
        let ops = all([
            group(
                nop_res(L, 7).link(),
                [
                    read(M1, &waits.read, Buf::new(1)),
                    wait.op(&place, M2),
                    read(M3, &waits.read, Buf::new(1)),
                ],
            ),
            vec![nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        // And the two reads beside it.
        until_it_waits(&mut ring, wait, 3);
        submit(&mut ring, &[cancel(CANCEL, M2, 0)]);
        Expect::new()
            .cqe(CANCEL, wait.found())
            .cqe(M2, wait.cancelled())
            .settle(&mut ring);
        nothing_yet(&mut ring);
        waits.feed(b"xx");
        Expect::new()
            .group((L, 7), [(M1, 1), (M3, 1)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// A deadline strikes a group whose leader waits, and one whose members do. It is armed
/// once the leader's issue returns: not while that blocks in a worker.
fn x4_a_deadline_in_every_phase(mode: RingMode) {
    const LONG: Duration = Duration::from_secs(3600);
    let mut ring = ring(mode);
    for wait in Wait::ALL {
        println!("{wait:?}");
        let place = Place::new();
        if !wait.blocks() {
            let ops = all([
                group(wait.op(&place, L).link(), [nop(M1), nop(M2)]),
                vec![link_timeout(TIMER, LONG).link(), nop(AFTER)],
            ]);
            submit(&mut ring, &ops);
            until_it_waits(&mut ring, wait, 1);
            expire_now(&mut ring);
            Expect::new()
                .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
                .cqe(TIMER, ETIME)
                .cqe(AFTER, ECANCELED)
                .finish(&mut ring);
        }
        // It tells of what can only be told to stop, as it does of a plain request.
        let late = if wait.blocks() {
            vec![ETIME, EALREADY]
        } else {
            vec![ETIME]
        };
        let ops = all([
            group(
                nop_res(L, 7).link(),
                [wait.op(&place, M1), nop_res(M2, 2), wait.op(&place, M3)],
            ),
            vec![link_timeout(TIMER, LONG).link(), nop(AFTER)],
        ]);
        submit(&mut ring, &ops);
        Expect::new().cqe(M2, 2).settle(&mut ring);
        until_it_waits(&mut ring, wait, 2);
        expire_now(&mut ring);
        Expect::new()
            .group(
                (L, vec![7]),
                [(M1, wait.cancelled()), (M3, wait.cancelled())],
            )
            .cqe(TIMER, late)
            .cqe(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

main_modes!(
    x1_while_the_leader_waits,
    x1_while_members_wait,
    x2_one_of_those_that_wait,
    x4_a_deadline_in_every_phase,
);
