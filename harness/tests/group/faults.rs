// SPDX-License-Identifier: GPL-2.0-only
//! F6 and C1 when memory is short: every allocation that is made while groups are
//! submitted and run fails in its turn, each time only that one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Cqe, Ring, RingMode, PATIENCE};
use harness::skip;

use crate::expect::list;
use crate::op::*;
use crate::world::{ring, udp_pair, Pipe};

/// More than any of the programs makes.
const TOO_MANY: u32 = 2000;

/// Lets the kernel fail one allocation of this thread.
struct FailNth(File);

impl FailNth {
    const PATH: &str = "/proc/thread-self/fail-nth";

    /// Or the test is skipped.
    fn open() -> Self {
        let opened = OpenOptions::new().write(true).open(Self::PATH);
        let Ok(file) = opened else {
            skip!("the kernel cannot inject faults");
        };
        for of in ["failslab", "fail_page_alloc"] {
            let dir = std::path::Path::new("/sys/kernel/debug").join(of);
            // Otherwise those that may wait do not fail.
            for (setting, value) in [("ignore-gfp-wait", "N"), ("verbose", "0")] {
                if fs::write(dir.join(setting), value).is_err() {
                    skip!("{}/{setting} cannot be set", dir.display());
                }
            }
        }
        Self(file)
    }

    /// Runs this, and has its `nth` allocation fail. Whether there was one.
    fn during(&mut self, nth: u32, run: impl FnOnce()) -> bool {
        // Opened before, as that allocates; and anew, as it cannot be rewound.
        let mut count = File::open(Self::PATH).expect("opening fail-nth");
        let (nth, none) = (nth.to_string(), b"0");
        self.0.write_all(nth.as_bytes()).expect("injecting a fault");
        run();
        let mut left = [0; 16];
        let len = count.read(&mut left).expect("reading it back");
        self.0.write_all(none).expect("injecting none any more");
        left[..len].trim_ascii() == none
    }
}

/// What a program needs, beside its ring.
struct Place {
    pipe: Pipe,
    near: UnixStream,
    far: UnixStream,
    udp: (std::net::UdpSocket, std::net::UdpSocket),
    file: File,
}

type Make = fn(&Place) -> Vec<Op>;

/// A poll is armed; task work, workers, files, sockets; a chain; a drain.
const PROGRAMS: [Make; 4] = [
    |place| {
        all([
            group(
                recv(L, &place.near, Buf::new(1)).link(),
                [
                    read(M1, &place.pipe.read, Buf::new(1)),
                    poll_in(M2, &place.pipe.read),
                    nop(M3).kind(Kind::TaskWork),
                ],
            ),
            vec![nop(AFTER)],
        ])
    },
    |place| {
        all([
            group(
                nop(L).worker().link(),
                [
                    write_at(M1, &place.file, Buf::of(b"abc"), 0).worker(),
                    fsync(M2, &place.file),
                    timer(M3, Duration::from_millis(1), 1),
                ],
            ),
            vec![
                link_timeout(TIMER, Duration::from_secs(3600)).link(),
                nop(AFTER),
            ],
        ])
    },
    |place| {
        all([
            vec![nop(BEFORE).link()],
            group(
                nop(L).link(),
                [
                    socket_command(M1, &place.udp.1, 0),
                    send_zc(M2, &place.udp.0, b"x"),
                    futex_wait(M3),
                ],
            ),
            group(nop(L2), [nop(N1), nop(N2)]),
        ])
    },
    |place| {
        all([
            vec![read(BEFORE, &place.pipe.read, Buf::new(1))],
            group(nop(L).drain(), [nop(M1), nop(M2).worker()]),
            vec![nop(AFTER).drain()],
        ])
    },
];

/// Waits for all of a program; what would wait for ever is fed, and then cancelled.
fn finish(ring: &mut Ring, place: &Place, wanted: usize) -> Vec<Cqe> {
    let mut cqes = Vec::new();
    let mut patience = Patience::new(PATIENCE);
    let all = harness::ring::SyncCancel {
        flags: CANCEL_ANY | CANCEL_ALL,
        patience: Some(Duration::from_millis(1)),
        ..harness::ring::SyncCancel::default()
    };
    (&place.far).write_all(b"x").expect("writing to a socket");
    place.pipe.feed(b"xx");
    while cqes.len() < wanted {
        assert!(!patience.is_over(), "only these: {}", list(&cqes));
        if patience.elapsed() > Duration::from_millis(20) {
            let _ = ring.sync_cancel(&all);
        }
        let came = ring.arrived().into_iter();
        cqes.extend(came.filter(|cqe| cqe.flags & IORING_CQE_F_NOTIF == 0));
        std::thread::sleep(Duration::from_micros(100));
    }
    cqes
}

/// What was submitted posts once, leaders after their members, and members of a leader
/// that has failed have not run. And then everything works again.
fn f6_each_allocation_fails(mode: RingMode) {
    let mut fail = FailNth::open();
    for (at, make) in PROGRAMS.iter().enumerate() {
        let mut nth = 1;
        loop {
            assert!(nth < TOO_MANY, "program {at} allocates without end");
            // A new one each time, so that it has nothing at hand.
            let mut ring = ring(mode);
            let (near, far) = UnixStream::pair().expect("a pair of sockets");
            let place = Place {
                pipe: Pipe::new(),
                near,
                far,
                udp: udp_pair(),
                file: crate::files::file_with(b"0123456789"),
            };
            let ops = make(&place);
            push(&mut ring, &ops);
            let mut taken = 0;
            let failed = fail.during(nth, || {
                taken = ring.submit_once().unwrap_or(0);
                let _ = ring.flush();
            });
            let rest = ring.submit().expect("submitting the rest");
            assert_eq!(taken + rest, ops.len(), "program {at}, allocation {nth}");
            let cqes = finish(&mut ring, &place, ops.len());
            judge(&cqes, &ops, at, nth);
            crate::expect::Expect::new()
                .group((L, 7), [(M1, 0), (M2, 0)])
                .run(
                    &mut ring,
                    &group(nop_res(L, 7), [nop(M1), nop(M2).worker()]),
                );
            if !failed {
                break;
            }
            nth += 1;
        }
        println!("program {at}: {} allocations", nth - 1);
    }
}

fn judge(cqes: &[Cqe], ops: &[Op], program: usize, nth: u32) {
    let place = |ud| cqes.iter().position(|cqe| cqe.user_data == ud);
    let what = format!("program {program}, allocation {nth}: {}", list(cqes));
    assert_eq!(cqes.len(), ops.len(), "{what}");
    for op in ops {
        assert!(place(op.user_data()).is_some(), "{what}");
    }
    for (leader, members) in [(L, &[M1, M2, M3][..]), (L2, &[N1, N2])] {
        let Some(at) = place(leader) else { continue };
        for member in members.iter().filter_map(|&ud| place(ud)) {
            assert!(member < at, "{what}");
            assert!(cqes[at].result >= 0 || cqes[member].result < 0, "{what}");
        }
    }
}

in_modes!(
    f6_each_allocation_fails:
    default Default,
    defer_taskrun DeferTaskrun,
);
