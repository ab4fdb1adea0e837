// SPDX-License-Identifier: GPL-2.0-only
//! Watching groups from outside: `tp_..` for tracepoints, `fd_..` for fdinfo.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::ring::{Ring, RingMode};
use harness::skip;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{eventually, ring, Pipe};

const OK: i32 = 0;
const EPERM: i32 = -libc::EPERM;
const EIO: i32 = -libc::EIO;
const EINVAL: i32 = -libc::EINVAL;
const EALREADY: i32 = -libc::EALREADY;
const ECANCELED: i32 = -libc::ECANCELED;
const ENOENT: i32 = -libc::ENOENT;
const ETIME: i32 = -libc::ETIME;

/// An instance of tracing with the events of groups switched on, as long as this lives.
struct Trace(PathBuf);

impl Trace {
    /// What the events of groups begin with.
    const PREFIX: &'static str = "io_uring_group_";
    const EVENTS: [&'static str; 5] = ["formed", "fan_out", "member_done", "done", "cancelled"];

    /// Or the test is skipped.
    fn new() -> Self {
        let instances = Path::new("/sys/kernel/tracing/instances");
        if !instances.exists() {
            skip!("the kernel has no tracefs");
        }
        let trace = Self(instances.join(format!("group-{}", std::process::id())));
        std::fs::create_dir(&trace.0).expect("making an instance of tracing");
        for event in Self::EVENTS {
            let enable = format!("events/io_uring/{}{event}/enable", Self::PREFIX);
            std::fs::write(trace.0.join(&enable), "1")
                .unwrap_or_else(|error| panic!("{enable}: {error}"));
        }
        trace
    }

    /// The events so far, each as its name and its fields. Addresses are left out; they
    /// must be the same for all of a group.
    #[track_caller]
    fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("trace")).expect("reading the trace");
        let mut rings = Vec::new();
        let mut leaders = HashMap::new();
        let mut events = Vec::new();

        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, event) = line
                .split_once(Self::PREFIX)
                .unwrap_or_else(|| panic!("an event of something else: {line}"));
            let (name, fields) = event
                .split_once(": ")
                .unwrap_or_else(|| panic!("an event without fields: {line}"));
            let fields: Vec<(&str, &str)> = fields
                .split(", ")
                .map(|field| field.split_once(' ').expect("a name and a value"))
                .collect();
            let field = |name| fields.iter().find(|field| field.0 == name).map(|f| f.1);

            rings.extend(field("ring"));
            let leader = field("leader").expect("a leader");
            let data = field("leader_data").or(field("user_data")).unwrap();
            // `user_data` names a group until another one forms with the same.
            if name == "formed" {
                leaders.insert(data, leader);
            }
            assert_eq!(leaders.get(data), Some(&leader), "{line}, of all:\n{text}");
            let shown: Vec<_> = fields
                .iter()
                .filter(|(name, _)| !["ring", "leader", "req"].contains(name))
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            events.push(format!("{name}: {}", shown.join(", ")));
        }
        rings.dedup();
        assert!(rings.len() <= 1, "more than one ring:\n{text}");
        events
    }

    /// Judges the events, which must be all.
    #[track_caller]
    fn check(&self, want: &[&str]) {
        let got = self.events();
        assert_eq!(got, want, "\n  got:\n    {}", got.join("\n    "));
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // The guest has no use for an error here, and the next one has its own name.
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn tp_success(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    Expect::new().group((L, 7), [(M1, 1), (M2, 2)]).run(
        &mut ring,
        &group(nop_res(L, 7), [nop_res(M1, 1), nop_res(M2, 2)]),
    );
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 7, members 2, error 0",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result 1, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result 2, members 0",
        "done: user_data 0x10, opcode NOP, result 7, failed 0",
    ]);
}

fn tp_member_fails(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    Expect::new().group((L, 7), [(M1, EPERM), (M2, 2)]).run(
        &mut ring,
        &group(nop_res(L, 7), [nop_res(M1, EPERM), nop_res(M2, 2)]),
    );
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 7, members 2, error 0",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -1, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result 2, members 0",
        "done: user_data 0x10, opcode NOP, result 7, failed 1",
    ]);
}

fn tp_leader_fails(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    Expect::new()
        .group((L, EPERM), [(M1, EIO), (M2, EIO)])
        .run(&mut ring, &group(nop_res(L, EPERM), [nop(M1), nop(M2)]));
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error 0",
        "fan_out: user_data 0x10, opcode NOP, result -1, members 2, error -5",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -5, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result -5, members 0",
        "done: user_data 0x10, opcode NOP, result -1, failed 1",
    ]);
}

/// A group that does not form says which error is to blame.
fn tp_bad_member(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    Expect::new()
        .group((L, EINVAL), [(M1, EIO), (M2, EINVAL)])
        .run(
            &mut ring,
            &group(nop(L), [nop(M1), nop(M2).flawed(Flaw::Prep)]),
        );
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error -22",
        "fan_out: user_data 0x10, opcode NOP, result -22, members 2, error -5",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -5, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result -22, members 0",
        "done: user_data 0x10, opcode NOP, result -22, failed 1",
    ]);
}

/// A group that is never started as its chain is broken before.
fn tp_chain_breaks(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    let ops = all([
        vec![nop_res(BEFORE, EPERM).link()],
        group(nop(L), [nop(M1), nop(M2)]),
    ]);
    Expect::new()
        .cqe(BEFORE, EPERM)
        .then_group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .run(&mut ring, &ops);
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error 0",
        "fan_out: user_data 0x10, opcode NOP, result -125, members 2, error -125",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -125, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result -125, members 0",
        "done: user_data 0x10, opcode NOP, result -125, failed 1",
    ]);
}

/// While the leader runs. The second cancellation finds a group that is cancelled.
fn tp_cancelled_leading(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let trace = Trace::new();
    submit(
        &mut ring,
        &group(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]),
    );
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0), cancel(BESIDE, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .cqe(BESIDE, [OK, EALREADY, ENOENT])
        .group((L, ECANCELED), [(M1, ECANCELED), (M2, ECANCELED)])
        .finish(&mut ring);
    trace.check(&[
        "formed: user_data 0x10, opcode READ, members 2, error 0",
        "cancelled: user_data 0x10, opcode READ, phase leading, members 2",
        "fan_out: user_data 0x10, opcode READ, result -125, members 2, error -125",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -125, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result -125, members 0",
        "done: user_data 0x10, opcode READ, result -125, failed 1",
    ]);
}

/// While a member is in flight.
fn tp_cancelled_joining(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let trace = Trace::new();
    submit(
        &mut ring,
        &group(nop_res(L, 7), [read(M1, &waits.read, Buf::new(1)), nop(M2)]),
    );
    Expect::new().cqe(M2, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, L, 0)]);
    Expect::new()
        .cqe(CANCEL, OK)
        .group((L, 7), [(M1, ECANCELED)])
        .finish(&mut ring);
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 2, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 7, members 2, error 0",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result 0, members 1",
        "cancelled: user_data 0x10, opcode NOP, phase joining, members 1",
        "member_done: leader_data 0x10, user_data 0x11, opcode READ, result -125, members 0",
        "done: user_data 0x10, opcode NOP, result 7, failed 1",
    ]);
}

/// A linked timeout strikes all of the group.
fn tp_deadline(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let trace = Trace::new();
    submit(
        &mut ring,
        &all([
            group(nop_res(L, 7).link(), [read(M1, &waits.read, Buf::new(1))]),
            vec![link_timeout(TIMER, Duration::from_secs(3600))],
        ]),
    );
    nothing_yet(&mut ring);
    submit(&mut ring, &[expire(EXPIRE, TIMER)]);
    Expect::new()
        .cqe(EXPIRE, OK)
        .cqe(TIMER, ETIME)
        .group((L, 7), [(M1, ECANCELED)])
        .finish(&mut ring);
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 1, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 7, members 1, error 0",
        "cancelled: user_data 0x10, opcode NOP, phase joining, members 1",
        "member_done: leader_data 0x10, user_data 0x11, opcode READ, result -125, members 0",
        "done: user_data 0x10, opcode NOP, result 7, failed 1",
    ]);
}

/// One member is cancelled, and not its group.
fn tp_member_is_cancelled(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    let trace = Trace::new();
    submit(
        &mut ring,
        &group(read(L, &waits.read, Buf::new(1)), [nop(M1), nop(M2)]),
    );
    nothing_yet(&mut ring);
    submit(&mut ring, &[cancel(CANCEL, M1, 0)]);
    Expect::new().cqe(CANCEL, OK).settle(&mut ring);
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, ECANCELED), (M2, OK)])
        .finish(&mut ring);
    trace.check(&[
        "formed: user_data 0x10, opcode READ, members 2, error 0",
        "fan_out: user_data 0x10, opcode READ, result 1, members 2, error 0",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -125, members 1",
        "member_done: leader_data 0x10, user_data 0x12, opcode NOP, result 0, members 0",
        "done: user_data 0x10, opcode READ, result 1, failed 1",
    ]);
}

/// Plain requests are no groups, and neither is a leader with nobody behind it.
fn tp_plain(mode: RingMode) {
    let mut ring = ring(mode);
    let trace = Trace::new();
    let ops = [nop(BEFORE).link(), nop(BESIDE), nop(L).grouped()];
    Expect::new()
        .cqe(BEFORE, OK)
        .cqe(BESIDE, OK)
        .cqe(L, OK)
        .run(&mut ring, &ops);
    trace.check(&[]);
}

/// Fields can be filtered by.
#[test]
fn tp_filter() {
    let mut ring = ring(RingMode::Default);
    let trace = Trace::new();
    let filter = trace.0.join("events/io_uring/io_uring_group_done/filter");
    std::fs::write(filter, "failed == 1").expect("setting a filter");
    for result in [OK, EPERM] {
        Expect::new()
            .group((L, OK), [(M1, result)])
            .run(&mut ring, &group(nop(L), [nop_res(M1, result)]));
    }
    trace.check(&[
        "formed: user_data 0x10, opcode NOP, members 1, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 0, members 1, error 0",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result 0, members 0",
        "formed: user_data 0x10, opcode NOP, members 1, error 0",
        "fan_out: user_data 0x10, opcode NOP, result 0, members 1, error 0",
        "member_done: leader_data 0x10, user_data 0x11, opcode NOP, result -1, members 0",
        "done: user_data 0x10, opcode NOP, result 0, failed 1",
    ]);
}

/// The lines about groups in what fdinfo says of the ring, in order, or nothing if it
/// has no such section.
#[track_caller]
pub(crate) fn groups(ring: &Ring) -> Option<Vec<String>> {
    let path = format!("/proc/self/fdinfo/{}", ring.fd());
    let mut text = String::new();
    // Says nothing while somebody else has the ring locked.
    eventually("fdinfo of the ring", || {
        text = std::fs::read_to_string(&path).expect("reading fdinfo");
        text.contains("CqOverflowList:")
    });
    let (_, section) = text.split_once("\nGroups:\n")?;
    let mut lines: Vec<_> = section
        .lines()
        .map_while(|line| line.strip_prefix("  "))
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    Some(lines)
}

/// `groups()`, which must be these.
#[track_caller]
fn check_groups(ring: &Ring, want: &[&str]) {
    assert_eq!(groups(ring).expect("a section of groups"), want);
}

/// The leader runs and holds its members; then there is no group any more.
fn fd_leading(mode: RingMode) {
    let mut ring = ring(mode);
    let waits = Pipe::new();
    assert_eq!(groups(&ring), None);
    submit(
        &mut ring,
        &group(
            read(L, &waits.read, Buf::new(1)),
            [nop(M1), nop(M2), nop(M3)],
        ),
    );
    nothing_yet(&mut ring);
    check_groups(
        &ring,
        &["user_data=16, opcode=READ, phase=leading, members=3, held=3"],
    );
    waits.feed(b"x");
    Expect::new()
        .group((L, 1), [(M1, OK), (M2, OK), (M3, OK)])
        .finish(&mut ring);
    assert_eq!(groups(&ring), None);
}

/// Members are in flight, and get fewer.
fn fd_joining(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    submit(
        &mut ring,
        &group(
            nop(L),
            [
                read(M1, &first.read, Buf::new(1)),
                nop(M2),
                read(M3, &second.read, Buf::new(1)),
            ],
        ),
    );
    Expect::new().cqe(M2, OK).settle(&mut ring);
    nothing_yet(&mut ring);
    check_groups(
        &ring,
        &["user_data=16, opcode=NOP, phase=joining, members=2, held=0"],
    );
    second.feed(b"x");
    Expect::new().cqe(M3, 1).settle(&mut ring);
    nothing_yet(&mut ring);
    check_groups(
        &ring,
        &["user_data=16, opcode=NOP, phase=joining, members=1, held=0"],
    );
    first.feed(b"x");
    Expect::new().group((L, OK), [(M1, 1)]).finish(&mut ring);
    assert_eq!(groups(&ring), None);
}

/// Several groups, one of which waits in a chain: that one is not in flight.
fn fd_several(mode: RingMode) {
    let mut ring = ring(mode);
    let (first, second) = (Pipe::new(), Pipe::new());
    submit(
        &mut ring,
        &all([
            group(read(L, &first.read, Buf::new(1)), [nop(M1)]),
            group(
                nop(L2).link(),
                [
                    read(N1, &second.read, Buf::new(1)),
                    read(N2, &second.read, Buf::new(1)),
                ],
            ),
            group(nop(BEFORE), [nop(AFTER)]),
        ]),
    );
    nothing_yet(&mut ring);
    check_groups(
        &ring,
        &[
            "user_data=16, opcode=READ, phase=leading, members=1, held=1",
            "user_data=272, opcode=NOP, phase=joining, members=2, held=0",
        ],
    );
    first.feed(b"x");
    second.feed(b"xx");
    Expect::new()
        .group((L, 1), [(M1, OK)])
        .group((L2, OK), [(N1, 1), (N2, 1)])
        .then_group((BEFORE, OK), [(AFTER, OK)])
        .finish(&mut ring);
    assert_eq!(groups(&ring), None);
}

/// The fan-out is task work, which such a ring runs when it's asked to.
#[test]
fn fd_withheld() {
    let mut ring = ring(RingMode::DeferTaskrun);
    submit(&mut ring, &group(nop(L), [nop(M1), nop(M2)]));
    check_groups(
        &ring,
        &["user_data=16, opcode=NOP, phase=withheld, members=2, held=2"],
    );
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .finish(&mut ring);
    assert_eq!(groups(&ring), None);
}

main_modes!(
    tp_success,
    tp_member_fails,
    tp_leader_fails,
    tp_bad_member,
    tp_chain_breaks,
    tp_cancelled_leading,
    tp_cancelled_joining,
    tp_deadline,
    tp_member_is_cancelled,
    tp_plain,
    fd_leading,
    fd_joining,
    fd_several,
);
