// SPDX-License-Identifier: GPL-2.0-only
//! The interface: flag bits, personalities, what the kernel says of itself, who
//! else looks at an SQE's flags.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;

use harness::ring::{Ring, RingMode, Setup, PATIENCE};
use harness::skip;
use harness::sqe::{
    ExtEntry, Support, IORING_FEAT_SQE_GROUP, IOSQE_EXT_SQE_GROUP, IOSQE_HAS_EXT_FLAGS,
};
use io_uring::register::Restriction;
use io_uring::squeue::{Entry128, Flags};
use rstest::rstest;

use crate::expect::{nothing_yet, Expect};
use crate::op::*;
use crate::world::{build, ring, Pipe};

const OK: i32 = 0;
const EINVAL: i32 = -libc::EINVAL;
const EIO: i32 = -libc::EIO;
const EACCES: i32 = -libc::EACCES;
const ECANCELED: i32 = -libc::ECANCELED;
const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;

/// What the kernel says of itself agrees, by query and by ring.
#[test]
fn if_the_feature_is_announced() {
    drop(ring(RingMode::Default));
    let support = Support::query().expect("IORING_REGISTER_QUERY");
    assert_ne!(support.features & u64::from(IORING_FEAT_SQE_GROUP), 0);
    assert_eq!(support.sqe_flags, 0xff);
    assert_eq!(support.ext_flags, u32::from(IOSQE_EXT_SQE_GROUP));
}

/// Without the feature, everything is as it was: bit 7 is an error, and the two bytes
/// are a personality.
#[test]
fn if_off_is_as_before() {
    let Ok(support) = Support::query() else {
        skip!("IORING_REGISTER_QUERY is not to be had");
    };
    if support.groups() {
        skip!("the kernel has SQE groups");
    }
    assert_eq!(support.sqe_flags, 0x7f);
    assert_eq!(support.ext_flags, 0);
    let mut ring = Setup::new(RingMode::SubmitAll).build().unwrap();
    assert!(!ring.has_groups());
    for ext_flags in [0, 1, 2, 0xff] {
        let op = nop(L).extended().edit(|sqe| sqe.ext_flags = ext_flags);
        Expect::new().cqe(L, EINVAL).run(&mut ring, &[op]);
    }
    let ops = group(nop(L), [nop(M1), nop(M2)]);
    Expect::new()
        .cqe(L, EINVAL)
        .cqe(M1, EINVAL)
        .cqe(M2, OK)
        .run(&mut ring, &ops);
}

/// That bit 7 is an error is so in every mode, and leaves the ring as it was.
#[test]
fn if_off_bit_7_is_an_error() {
    if Support::query().is_ok_and(|support| support.groups()) {
        skip!("the kernel has SQE groups");
    }
    for mode in RingMode::ALL {
        let mut ring = Setup::new(mode).build().unwrap();
        assert!(!ring.has_groups(), "{mode:?}");
        for op in [nop(L).extended(), nop(L).grouped()] {
            Expect::new().cqe(L, EINVAL).run(&mut ring, &[op]);
            Expect::new().cqe(AFTER, OK).run(&mut ring, &[nop(AFTER)]);
        }
        let ops = [nop(L).link(), nop(M1).grouped()];
        Expect::new()
            .cqe(L, ECANCELED)
            .cqe(M1, EINVAL)
            .run(&mut ring, &ops);
    }
}

/// Without bit 7 the two bytes are one number, with the feature and without.
fn if_no_bit_7_is_a_personality(mode: RingMode) {
    let mut ring = Setup::new(mode).build().unwrap();
    let number = u16::from_le_bytes([IOSQE_EXT_SQE_GROUP, 1]);
    let mut last = 0;
    while last < number {
        last = ring
            .submitter()
            .register_personality()
            .expect("an identity");
    }
    assert_eq!(last, number);
    let op = |ud, [low, high]: [u8; 2]| {
        nop(ud).edit(|sqe| {
            sqe.ext_flags = low;
            sqe.ext_personality = high;
        })
    };
    for id in [1, 2, 0x100, number] {
        Expect::new()
            .cqe(BEFORE, OK)
            .run(&mut ring, &[op(BEFORE, id.to_le_bytes())]);
    }
    Expect::new()
        .cqe(BEFORE, EINVAL)
        .run(&mut ring, &[op(BEFORE, (number + 1).to_le_bytes())]);
}

/// Bit 7 with nothing in `ext_flags`: a plain SQE.
fn if_no_ext_flags_is_plain(mode: RingMode) {
    let mut ring = ring(mode);
    let ops = [
        nop_res(BEFORE, 1).extended(),
        nop_res(BESIDE, -5).extended(),
        nop_res(AFTER, 3),
    ];
    Expect::new()
        .cqe(BEFORE, 1)
        .cqe(BESIDE, -5)
        .cqe(AFTER, 3)
        .run(&mut ring, &ops);
}

/// Bits of `ext_flags` that nobody knows.
fn if_unknown_ext_flags(mode: RingMode) {
    let mut ring = ring(mode);
    for bit in 1..8 {
        let op = nop(L).extended().edit(|sqe| sqe.ext_flags = 1 << bit);
        Expect::new().cqe(L, EINVAL).run(&mut ring, &[op]);
    }
}

/// Every combination of `flags` and `ext_flags`, on an SQE at the place of a leader:
/// it is followed by one SQE, and one more to see how far it reaches.
#[rstest]
fn if_all_flags_on_a_leader(#[values(0, 1, 2, 3)] quarter: u8) {
    all_flags(quarter, true);
}

/// The same at the place of a member.
#[rstest]
fn if_all_flags_on_a_member(#[values(0, 1, 2, 3)] quarter: u8) {
    all_flags(quarter, false);
}

/// Every combination of the flags of a leader with those of its member, of which there is
/// one more, or not. Its `ext_flags` are those of a group, or none.
#[rstest]
fn if_all_flags_of_both(#[values(0, 1, 2, 3, 4, 5, 6, 7)] eighth: u8) {
    const ENTRIES: usize = 1024;
    let new_ring = || {
        let setup = Setup::new(RingMode::SubmitAll)
            .entries(ENTRIES as u32)
            .cq_entries(2 * ENTRIES as u32);
        build(setup)
    };
    for leader in (0..16).map(|low| IOSQE_HAS_EXT_FLAGS | eighth << 4 | low) {
        let mut ring = new_ring();
        let (mut ops, mut expect) = (Vec::new(), Expect::new());
        for member in 0..=255u8 {
            for more in [false, true] {
                if more && member & IOSQE_HAS_EXT_FLAGS == 0 {
                    continue;
                }
                let ud = 0x10000 + 0x20 * u64::from(member) + 0x10 * u64::from(more);
                let bits = |op: Op, flags, group| {
                    op.edit(|sqe| {
                        sqe.flags = flags;
                        sqe.ext_flags = u8::from(group);
                    })
                };
                ops.extend([
                    bits(nop_res(ud, 1), leader, true),
                    bits(nop_res(ud + 1, 1), member, more),
                    nop_res(ud + 2, 2),
                    nop_res(ud + 3, 3),
                ]);
                expect = expect_both(expect, leader, member, more, ud);
                // A ring that has seen CQE_SKIP_SUCCESS refuses DRAIN.
                let no_more_drains =
                    leader & FLAG(Flags::IO_DRAIN) != 0 && member & FLAG(Flags::SKIP_SUCCESS) != 0;
                if no_more_drains || ops.len() > ENTRIES - 4 || member == 255 {
                    let wanted = std::mem::take(&mut expect);
                    let run = std::panic::AssertUnwindSafe(|| wanted.run(&mut ring, &ops));
                    assert!(
                        std::panic::catch_unwind(run).is_ok(),
                        "leader {leader:#04x}, member up to {member:#04x}"
                    );
                    ops.clear();
                }
                if no_more_drains {
                    ring = new_ring();
                }
            }
        }
    }
}

/// A leader and a member with these flags, a member that is plain if there is one more,
/// and what follows.
fn expect_both(expect: Expect, leader: u8, member: u8, more: bool, ud: u64) -> Expect {
    let has = |flags: u8, flag| flags & FLAG(flag) != 0;
    let linked = has(leader, Flags::IO_LINK) || has(leader, Flags::IO_HARDLINK);
    // What follows the group; if that is the third SQE, so is the fourth.
    let (plain, result) = if more { (ud + 3, 3) } else { (ud + 2, 2) };
    let own = flaws(leader, IOSQE_EXT_SQE_GROUP, false);
    let bad = flaws(member, u8::from(more), true);
    let good = own.is_empty() && bad.is_empty();

    let mut members = Vec::new();
    if !(good && has(member, Flags::SKIP_SUCCESS)) {
        let result = match (good, bad.is_empty()) {
            (true, _) => vec![1],
            (false, true) => vec![EIO],
            (false, false) => bad.clone(),
        };
        members.push((ud + 1, result));
    }
    if more {
        members.push((ud + 2, vec![if good { 2 } else { EIO }]));
    }
    let skips = has(leader, Flags::SKIP_SUCCESS);
    let expect = if good && skips {
        expect.members(members)
    } else {
        let result = match (good, own.is_empty()) {
            (true, _) => vec![1],
            (false, true) => bad,
            (false, false) => own,
        };
        expect.group((ud, result), members)
    };
    let last = |expect: Expect| {
        if more {
            expect
        } else {
            expect.cqe(ud + 3, 3)
        }
    };
    match (linked, good, skips) {
        (false, ..) | (true, true, true) => last(expect.cqe(plain, result)),
        (true, true, false) => last(expect.then(plain, result)),
        // A bad SQE breaks even a hard link. A leader that skips silences what follows.
        (true, false, true) => last(expect),
        (true, false, false) => last(expect.then(plain, ECANCELED)),
    }
}

const FLAG: fn(Flags) -> u8 = |flags| flags.bits();

/// Whether an SQE in no group's member place is fine with these bits, and if not,
/// what it may say; it has more than one flaw, sometimes.
fn flaws(flags: u8, ext_flags: u8, member: bool) -> Vec<i32> {
    let has = |flag| flags & FLAG(flag) != 0;
    let mut flaws = Vec::new();
    if flags & IOSQE_HAS_EXT_FLAGS != 0 {
        if ext_flags & !IOSQE_EXT_SQE_GROUP != 0 {
            flaws.push(EINVAL);
        }
    } else if ext_flags != 0 {
        // A personality that was not registered
        flaws.push(EINVAL);
    }
    if has(Flags::BUFFER_SELECT) {
        // Which a NOP does not do
        flaws.push(EOPNOTSUPP);
    }
    if has(Flags::SKIP_SUCCESS) && has(Flags::IO_DRAIN) {
        // No ring does both
        flaws.push(EOPNOTSUPP);
    }
    if member && (has(Flags::IO_DRAIN) || has(Flags::IO_LINK) || has(Flags::IO_HARDLINK)) {
        flaws.push(EINVAL);
    }
    flaws
}

fn all_flags(quarter: u8, on_leader: bool) {
    for flags in quarter * 64..=quarter * 64 + 63 {
        // A new ring for each, as a ring that has seen CQE_SKIP_SUCCESS refuses
        // DRAIN.
        let setup = Setup::new(RingMode::SubmitAll)
            .entries(256)
            .cq_entries(1024);
        let mut ring = build(setup);
        let mut ops = Vec::new();
        let mut expect = Expect::new();
        for ext_flags in 0..=255u8 {
            let ud = 0x10000 + 0x10 * u64::from(ext_flags);
            let tried = |ud| {
                nop_res(ud, 1).edit(|sqe| {
                    sqe.flags = flags;
                    sqe.ext_flags = ext_flags;
                })
            };
            let (program, wanted) = if on_leader {
                let program = vec![tried(ud), nop_res(ud + 1, 2), nop_res(ud + 2, 3)];
                (program, expect_leader(expect, flags, ext_flags, ud))
            } else {
                let program = vec![
                    nop_res(ud, 1).grouped(),
                    tried(ud + 1),
                    nop_res(ud + 2, 2),
                    nop_res(ud + 3, 3),
                ];
                (program, expect_member(expect, flags, ext_flags, ud))
            };
            expect = wanted;
            ops.extend(program);
            if ops.len() > 256 - 4 || ext_flags == 255 {
                let wanted = std::mem::take(&mut expect);
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    wanted.run(&mut ring, &ops);
                })) {
                    Ok(()) => ops.clear(),
                    Err(_) => panic!("flags {flags:#04x}, ext_flags up to {ext_flags:#04x}"),
                }
            }
        }
    }
}

/// `X` with the bits, then `Y` and `Z`, which are plain.
fn expect_leader(expect: Expect, flags: u8, ext_flags: u8, ud: u64) -> Expect {
    let has = |flag| flags & FLAG(flag) != 0;
    let grouped = flags & IOSQE_HAS_EXT_FLAGS != 0 && ext_flags & IOSQE_EXT_SQE_GROUP != 0;
    let linked = has(Flags::IO_LINK) || has(Flags::IO_HARDLINK);
    let skips = has(Flags::SKIP_SUCCESS);
    let flaws = flaws(flags, ext_flags, false);
    let (x, y, z) = (ud, ud + 1, ud + 2);

    if flaws.is_empty() {
        let expect = match (grouped, skips) {
            (true, false) => expect.group((x, 1), [(y, 2)]),
            (false, false) if linked => expect.cqe(x, 1).then(y, 2),
            (false, false) => expect.cqe(x, 1).cqe(y, 2),
            (_, true) => expect.cqe(y, 2),
        };
        return if grouped && linked {
            expect.then(z, 3)
        } else {
            expect.cqe(z, 3)
        };
    }
    // A bad SQE breaks its chain, even a hard one; one that skips silences it.
    if grouped {
        let expect = expect.group((x, flaws), [(y, vec![EIO])]);
        match (linked, skips) {
            (true, true) => expect,
            (true, false) => expect.then(z, ECANCELED),
            (false, _) => expect.cqe(z, 3),
        }
    } else {
        let expect = expect.cqe(x, flaws);
        let expect = match (linked, skips) {
            (true, true) => expect,
            (true, false) => expect.then(y, ECANCELED),
            (false, _) => expect.cqe(y, 2),
        };
        expect.cqe(z, 3)
    }
}

/// A leader, `X` with the bits, then `Y` and `Z`, which are plain.
fn expect_member(expect: Expect, flags: u8, ext_flags: u8, ud: u64) -> Expect {
    let has = |flag| flags & FLAG(flag) != 0;
    let grouped = flags & IOSQE_HAS_EXT_FLAGS != 0 && ext_flags & IOSQE_EXT_SQE_GROUP != 0;
    let flaws = flaws(flags, ext_flags, true);
    let (l, x, y, z) = (ud, ud + 1, ud + 2, ud + 3);

    let (leader, x_results, y_results) = if flaws.is_empty() {
        (vec![1], vec![1], vec![2])
    } else {
        (flaws.clone(), flaws.clone(), vec![EIO])
    };
    let mut members = Vec::new();
    if !(flaws.is_empty() && has(Flags::SKIP_SUCCESS)) {
        members.push((x, x_results));
    }
    if grouped {
        members.push((y, y_results));
        expect.group((l, leader), members).cqe(z, 3)
    } else {
        expect.group((l, leader), members).cqe(y, 2).cqe(z, 3)
    }
}

/// `ext_personality` is what `personality` was: 0 is nobody, a registered one works,
/// another one does not.
fn if_ext_personality(mode: RingMode) {
    let mut ring = ring(mode);
    let id = ring
        .submitter()
        .register_personality()
        .expect("an identity");
    let id = u8::try_from(id).expect("the first is a small number");
    let bad = id + 100;

    let ops = [
        nop_res(BEFORE, 1).extended().personality(id),
        nop_res(AFTER, 2),
    ];
    Expect::new()
        .cqe(BEFORE, 1)
        .cqe(AFTER, 2)
        .run(&mut ring, &ops);
    Expect::new()
        .cqe(BEFORE, EINVAL)
        .run(&mut ring, &[nop(BEFORE).personality(bad)]);

    let ops = group(
        nop_res(L, 7).personality(id),
        [nop(M1).personality(id), nop(M2).personality(id).worker()],
    );
    Expect::new()
        .group((L, 7), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    let ops = group(
        nop(L).personality(id),
        [nop(M1).personality(id), nop(M2).personality(bad)],
    );
    Expect::new()
        .group((L, EINVAL), [(M1, EIO), (M2, EINVAL)])
        .run(&mut ring, &ops);

    // Gone, it is no longer to be had.
    ring.submitter().unregister_personality(id.into()).unwrap();
    Expect::new()
        .cqe(BEFORE, EINVAL)
        .run(&mut ring, &[nop(BEFORE).personality(id)]);
}

/// A file that only root may open, or the test is skipped.
fn private_file() -> (tempfile::TempDir, CString) {
    // SAFETY: No arguments.
    if unsafe { libc::geteuid() } != 0 {
        skip!("not root");
    }
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("private");
    std::fs::write(&private, b"x").unwrap();
    let only_root = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&private, only_root).unwrap();
    let anybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), anybody).unwrap();
    let path = CString::new(private.into_os_string().into_encoded_bytes()).unwrap();
    (dir, path)
}

/// Opens a file into the table of registered ones, which leaves nothing to close.
fn open_direct(user_data: u64, path: &CString) -> Op {
    open(user_data, path, libc::O_RDONLY).edit(|sqe| sqe.file_index = u32::MAX)
}

/// A member runs as who it says, the others as who submitted them.
fn if_ext_personality_is_each_sqes_own(mode: RingMode) {
    let mut ring = ring(mode);
    let (_dir, private) = private_file();
    let nobody = register_as(&ring, 65534);

    let open = |ud| open_direct(ud, &private);
    ring.submitter().register_files_sparse(8).unwrap();
    let slots: Vec<i32> = (0..8).collect();
    let ops = group(
        open(L),
        [
            open(M1).personality(nobody),
            open(M2).worker(),
            open(M3).personality(nobody).worker(),
        ],
    );
    Expect::new()
        .group(
            (L, slots.clone()),
            [(M1, vec![EACCES]), (M2, slots), (M3, vec![EACCES])],
        )
        .run(&mut ring, &ops);
    let ops = group(open(L).personality(nobody), [nop(M1)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO)])
        .run(&mut ring, &ops);
}

/// Registers a personality of another user.
fn register_as(ring: &Ring, user: libc::uid_t) -> u8 {
    let id = as_user(user, || ring.submitter().register_personality());
    u8::try_from(id.expect("an identity")).expect("a small number")
}

/// Does something as another user. Only this thread changes, and back.
fn as_user<T>(user: libc::uid_t, what: impl FnOnce() -> T) -> T {
    let become_user = |uid: libc::uid_t| {
        // SAFETY: Three numbers. The system call itself, as the C library would
        // change every thread.
        let ret = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        assert_eq!(ret, 0, "setresuid: {}", std::io::Error::last_os_error());
    };
    become_user(user);
    let done = what();
    become_user(0);
    done
}

/// A thread serves rings of several users. A member runs as who made its ring, though it
/// is issued when the thread is done with what that ring submitted.
#[test]
fn if_sqpoll_members_run_as_their_ring() {
    let roots = ring(RingMode::Sqpoll);
    let (_dir, private) = private_file();
    let setup = Setup::new(RingMode::Sqpoll).attach_wq(roots.fd());
    let nobodys = as_user(65534, || build(setup));
    let slots: Vec<i32> = (0..8).collect();
    for (mut ring, result) in [(nobodys, vec![EACCES]), (roots, slots)] {
        ring.submitter().register_files_sparse(8).unwrap();
        for kind in Kind::ALL {
            let ops = group(
                nop(L).kind(kind),
                [
                    open_direct(M1, &private),
                    open_direct(M2, &private).worker(),
                ],
            );
            Expect::new()
                .group((L, vec![OK]), [(M1, result.clone()), (M2, result.clone())])
                .run(&mut ring, &ops);
        }
    }
}

/// MSG_RING looks at the personality's bytes itself.
fn if_msg_ring(mode: RingMode) {
    let mut ring = ring(mode);
    let mut target = self::ring(RingMode::Default);
    let send = |ud, data| msg_ring(ud, target.fd(), 5, data);
    let ops = all([
        vec![send(BEFORE, 0x100).extended()],
        group(send(L, 0x101), [send(M1, 0x102), send(M2, 0x103)]),
    ]);
    Expect::new()
        .cqe(BEFORE, OK)
        .group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    Expect::new()
        .cqe(0x100, 5)
        .cqe(0x101, 5)
        .cqe(0x102, 5)
        .cqe(0x103, 5)
        .finish(&mut target);
    // A personality, it still refuses.
    let op = msg_ring(BEFORE, target.fd(), 5, 1).edit(|sqe| sqe.ext_flags = 1);
    Expect::new().cqe(BEFORE, EINVAL).run(&mut ring, &[op]);
    let id = ring
        .submitter()
        .register_personality()
        .expect("registering a personality");
    let op = msg_ring(BEFORE, target.fd(), 5, 1).personality(id as u8);
    Expect::new().cqe(BEFORE, EINVAL).run(&mut ring, &[op]);
    nothing_yet(&mut target);
}

/// The ring sends to itself, from a group: the message is no CQE of the group.
fn if_msg_ring_to_itself(mode: RingMode) {
    let mut ring = ring(mode);
    let own = |ud, data| msg_ring(ud, ring.fd(), 5, data);
    let ops = group(own(L, 0x101), [own(M1, 0x102), nop(M2)]);
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .cqe(0x101, 5)
        .cqe(0x102, 5)
        .run(&mut ring, &ops);
}

/// A ring that is set up disabled, restricted and started.
fn restricted(mode: RingMode, restrictions: &mut [Restriction]) -> Ring {
    let mut ring = build(Setup::new(mode).disabled());
    ring.submitter()
        .register_restrictions(restrictions)
        .expect("restricting the ring");
    ring.enable().expect("starting the ring");
    ring
}

/// Restrictions are for every SQE of a group.
fn if_restrictions_see_members(mode: RingMode) {
    let (nops, writes) = (io_uring::opcode::Nop::CODE, io_uring::opcode::Write::CODE);
    let pipe = Pipe::new();

    // Opcodes: NOPs may, writes may not.
    let extended = HAS_EXT;
    let mut ring = restricted(
        mode,
        &mut [
            Restriction::sqe_op(nops),
            Restriction::sqe_flags_allowed(extended),
        ],
    );
    let ops = group(nop(L), [nop(M1), write(M2, &pipe.write, b"x"), nop(M3)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO), (M2, EACCES), (M3, EIO)])
        .run(&mut ring, &ops);
    let ops = group(write(L, &pipe.write, b"x"), [nop(M1)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO)])
        .run(&mut ring, &ops);
    let ops = group(nop(L), [nop(M1)]);
    Expect::new()
        .group((L, OK), [(M1, OK)])
        .run(&mut ring, &ops);
    // Flags: no ASYNC.
    let ops = group(nop(L), [nop(M1).worker(), nop(M2)]);
    Expect::new()
        .group((L, EACCES), [(M1, EACCES), (M2, EIO)])
        .run(&mut ring, &ops);
    assert_eq!(pipe.filled(), 0);

    // Bit 7 itself can be kept away.
    let mut ring = restricted(
        mode,
        &mut [Restriction::sqe_op(nops), Restriction::sqe_op(writes)],
    );
    Expect::new()
        .cqe(BEFORE, EACCES)
        .run(&mut ring, &[nop(BEFORE).extended()]);
    // The group flag of a bad SQE counts.
    let ops = group(nop(L), [nop(M1), nop(M2)]);
    Expect::new()
        .group((L, EACCES), [(M1, EACCES), (M2, EIO)])
        .run(&mut ring, &ops);

    // Flags that are required are required of members.
    let mut ring = restricted(
        mode,
        &mut [
            Restriction::sqe_op(nops),
            Restriction::sqe_flags_allowed(extended),
            Restriction::sqe_flags_required(Flags::ASYNC.bits()),
        ],
    );
    let ops = group(nop(L).worker(), [nop(M1).worker(), nop(M2)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO), (M2, EACCES)])
        .run(&mut ring, &ops);
    let ops = group(nop(L).worker(), [nop(M1).worker(), nop(M2).worker()]);
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
}

const HAS_EXT: u8 = IOSQE_HAS_EXT_FLAGS;

/// Has the kernel ask a filter, in classic BPF, about every SQE of this opcode. It sees
/// `struct io_uring_bpf_ctx`, and lets an SQE pass by a result that is not 0.
fn filter(ring: &Ring, opcode: u8, program: &[libc::sock_filter]) {
    const IORING_REGISTER_BPF_FILTER: u32 = 37;
    const IO_URING_BPF_CMD_FILTER: u16 = 1;

    /// `struct io_uring_bpf`, with the one command that there is
    #[repr(C)]
    #[derive(Default)]
    struct Command {
        cmd_type: u16,
        cmd_flags: u16,
        resv: u32,
        opcode: u32,
        flags: u32,
        filter_len: u32,
        pdu_size: u8,
        pad: [u8; 3],
        filter_ptr: u64,
        resv2: [u64; 5],
    }
    const _: () = assert!(std::mem::size_of::<Command>() == 72);

    let mut command = Command {
        cmd_type: IO_URING_BPF_CMD_FILTER,
        opcode: opcode.into(),
        filter_len: program.len() as u32,
        filter_ptr: program.as_ptr() as u64,
        ..Command::default()
    };
    let arg = std::ptr::from_mut(&mut command).cast();
    // SAFETY: One element of the type that this operation takes, which points to a
    // program of the length that it says.
    let done = unsafe { ring.register(IORING_REGISTER_BPF_FILTER, arg, 1) };
    match done.as_ref().map_err(std::io::Error::raw_os_error) {
        Err(Some(libc::EINVAL | libc::EOPNOTSUPP)) => skip!("the kernel has no BPF filters"),
        _ => drop(done.expect("registering a filter")),
    }
}

/// A filter that lets everything pass, but for SQEs in which one of these bits is set in
/// the word at this offset.
fn deny_bits(offset: u32, bits: u32) -> [libc::sock_filter; 4] {
    let step = |code: u32, jf, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, bits),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 1),
    ]
}

/// BPF filters are asked about every SQE of a group, and see its flags.
fn if_filters_see_members(mode: RingMode) {
    const USER_DATA: u32 = 0;
    const OPCODE_AND_FLAGS: u32 = 8;
    let (nops, writes) = (io_uring::opcode::Nop::CODE, io_uring::opcode::Write::CODE);
    let pipe = Pipe::new();

    // Bit 7: no groups. The last member may have it or not.
    let mut ring = self::ring(mode);
    let bit_7 = u32::from_ne_bytes([0, IOSQE_HAS_EXT_FLAGS, 0, 0]);
    filter(&ring, nops, &deny_bits(OPCODE_AND_FLAGS, bit_7));
    let ops = all([
        group(
            nop(L).link(),
            [nop(M1), nop(M2).worker(), nop(M3).extended()],
        ),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, EACCES), [(M1, EACCES), (M2, EACCES), (M3, EACCES)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);
    let ops = group(nop(L), [nop(M1), nop(M2)]);
    Expect::new()
        .group(
            (L, vec![EACCES]),
            [(M1, vec![EACCES]), (M2, vec![EIO, EACCES])],
        )
        .run(&mut ring, &ops);
    // Bits that a group has on one SQE only
    let mut ring = self::ring(mode);
    let skips = u32::from_ne_bytes([0, Flags::SKIP_SUCCESS.bits(), 0, 0]);
    filter(&ring, nops, &deny_bits(OPCODE_AND_FLAGS, skips));
    let ops = group(nop(L), [nop(M1), nop(M2).skip(), nop(M3)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO), (M2, EACCES), (M3, EIO)])
        .run(&mut ring, &ops);
    let ops = group(nop(L), [nop(M1), nop(M2), nop(M3)]);
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK), (M3, OK)])
        .run(&mut ring, &ops);

    // An opcode: groups, but without it.
    let mut ring = self::ring(mode);
    filter(&ring, writes, &deny_bits(OPCODE_AND_FLAGS, u32::MAX));
    let ops = all([
        group(
            nop(L).link(),
            [nop(M1), write(M2, &pipe.write, b"x"), nop(M3)],
        ),
        vec![nop(AFTER)],
    ]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO), (M2, EACCES), (M3, EIO)])
        .then(AFTER, ECANCELED)
        .run(&mut ring, &ops);
    let ops = group(write(L, &pipe.write, b"x"), [nop(M1)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO)])
        .run(&mut ring, &ops);
    let ops = group(nop(L), [nop(M1), nop(M2)]);
    Expect::new()
        .group((L, OK), [(M1, OK), (M2, OK)])
        .run(&mut ring, &ops);
    assert_eq!(pipe.filled(), 0, "a refused write was executed");

    // What tells one SQE from another
    const ODD: u64 = 1 << 20;
    let mut ring = self::ring(mode);
    filter(&ring, nops, &deny_bits(USER_DATA, ODD as u32));
    let ops = group(nop(L), [nop(M1), nop(ODD), nop(M3)]);
    Expect::new()
        .group((L, EACCES), [(M1, EIO), (ODD, EACCES), (M3, EIO)])
        .run(&mut ring, &ops);
}

/// 128-byte SQEs in a group: in a ring of nothing else, and among small ones.
#[rstest]
fn if_wide_sqes(#[values(RingMode::Sqe128, RingMode::SqeMixed)] mode: RingMode) {
    const IORING_OP_NOP128: u8 = 63;
    let mut ring = ring(mode);
    let wide = |ud: u64, grouped: bool, result: i32| {
        let mut sqe = Entry128::from(io_uring::opcode::Nop::new().build().user_data(ud));
        let raw = sqe.raw_mut();
        raw.opcode = IORING_OP_NOP128;
        raw.op_flags = IORING_NOP_INJECT_RESULT;
        raw.len = result as u32;
        if grouped {
            sqe.ext_flags(IOSQE_EXT_SQE_GROUP)
        } else {
            sqe
        }
    };
    let push_wide = |ring: &mut Ring, sqe: &Entry128| {
        // SAFETY: A NOP points nowhere.
        unsafe { ring.push_wide(sqe) }.expect("pushing a wide SQE");
    };
    for _ in 0..4 {
        // Wide leader, small member, wide member; then a small request.
        push_wide(&mut ring, &wide(L, true, 7));
        push(&mut ring, &[nop_res(M1, 1).grouped()]);
        push_wide(&mut ring, &wide(M2, false, 2));
        push(&mut ring, &[nop_res(AFTER, 3)]);
        ring.submit().unwrap();
        Expect::new()
            .group((L, 7), [(M1, 1), (M2, 2)])
            .cqe(AFTER, 3)
            .finish(&mut ring);
        // Small leader, wide member in the middle, and it fails.
        push(&mut ring, &[nop_res(L, 7).link().grouped()]);
        push_wide(&mut ring, &wide(M1, true, -5));
        push(&mut ring, &[nop_res(M2, 2), nop(AFTER)]);
        ring.submit().unwrap();
        Expect::new()
            .group((L, 7), [(M1, -5), (M2, 2)])
            .then(AFTER, ECANCELED)
            .finish(&mut ring);
    }
}

/// Large CQEs from a group: in a ring of nothing else, and among small ones.
#[rstest]
fn if_large_cqes(#[values(RingMode::Cqe32, RingMode::CqeMixed)] mode: RingMode) {
    let mut ring = ring(mode);
    let extra = |ud: u64| [ud << 32 | 1, !ud];
    let large = |ud, res| nop_large(ud, res, extra(ud));
    for kind in Kind::ALL {
        for round in 0..20 {
            // Each round, the ring's end is met at another place.
            let ops = group(
                large(L, 7).kind(kind),
                [
                    nop_res(M1, 1).kind(kind),
                    large(M2, round).kind(kind),
                    nop_res(M3, 3).kind(kind),
                ],
            );
            submit(&mut ring, &ops);
            let cqes = ring.collect(4, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
            Expect::new()
                .group((L, 7), [(M1, 1), (M2, round), (M3, 3)])
                .check(&cqes);
            for cqe in &cqes {
                // Its own second half, and none in a CQE that was not given one.
                let want = match cqe.user_data {
                    ud @ (L | M2) => extra(ud),
                    _ => [0, 0],
                };
                assert_eq!(cqe.extra, want, "of {}", name(cqe.user_data));
            }
            nothing_yet(&mut ring);
        }
    }
    // Members of a leader that fails have no second half, but it does.
    for (leader, member) in [(-5, EIO), (ECANCELED, ECANCELED)] {
        submit(&mut ring, &group(large(L, leader), [large(M1, 1), nop(M2)]));
        let cqes = ring.collect(3, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
        Expect::new()
            .group((L, leader), [(M1, member), (M2, member)])
            .check(&cqes);
        for cqe in &cqes {
            let want = if cqe.user_data == L { extra(L) } else { [0, 0] };
            assert_eq!(cqe.extra, want, "of {}", name(cqe.user_data));
        }
        nothing_yet(&mut ring);
    }
}

main_modes_of_nops!(
    if_no_bit_7_is_a_personality,
    if_no_ext_flags_is_plain,
    if_unknown_ext_flags,
    if_ext_personality,
);

main_modes!(
    if_ext_personality_is_each_sqes_own,
    if_msg_ring,
    if_msg_ring_to_itself,
    if_restrictions_see_members,
    if_filters_see_members,
);
