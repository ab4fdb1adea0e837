// SPDX-License-Identifier: GPL-2.0-only
//! Requests that complete at once: alone, in chains, in groups.

use harness::{group::Group, ring::RingMode};
use io_uring::{
    opcode,
    squeue::{Entry, Flags},
};

use crate::{
    clock::Clock,
    meter::{measure, Rounds, Turn},
    ring::{name, Ring, MODES},
    Result,
};

/// SQEs of a submission.
pub(crate) const BATCHES: [u32; 4] = [1, 8, 32, 128];
/// SQEs of the submission in which what is not a matter of size is measured.
const BATCH: u32 = 32;
/// SQEs of a submission that wakes a worker: so many that the scheduler's share of each,
/// which is not the same on two kernels, is less than an instruction.
const MANY: u32 = 256;
/// Room for the largest of them.
pub(crate) const ENTRIES: u32 = MANY;
/// SQEs of a submission whose time is taken: where a system call takes microseconds, its share
/// of each should be small.
const TIMED: u32 = 1024;

pub(crate) fn nop(user_data: u32) -> Entry {
    opcode::Nop::new().build().user_data(user_data.into())
}

fn batch(count: u32) -> Vec<Entry> {
    (0..count).map(nop).collect()
}

/// These as one chain.
pub(crate) fn chain(mut sqes: Vec<Entry>) -> Vec<Entry> {
    if let Some((_, before)) = sqes.split_last_mut() {
        for sqe in before {
            *sqe = sqe.clone().flags(Flags::IO_LINK);
        }
    }
    sqes
}

/// These as one group.
pub(crate) fn group(sqes: Vec<Entry>) -> Result<Vec<Entry>> {
    let mut sqes = sqes.into_iter();
    let leader = sqes.next().ok_or("a group has a leader")?;
    Ok(Group::builder(leader).members(sqes).build()?.into_entries())
}

/// So many NOPs in chains of so many.
fn chains(count: u32, size: u32) -> Vec<Entry> {
    let chains = (0..count / size).map(|_| chain(batch(size)));
    chains.flatten().collect()
}

/// So many NOPs in groups of so many.
fn sets(count: u32, size: u32) -> Result<Vec<Entry>> {
    let mut sets = Vec::new();
    for _ in 0..count / size {
        sets.extend(group(batch(size))?);
    }
    Ok(sets)
}

/// One submission of NOPs.
fn once(rounds: Rounds, mode: RingMode, what: &str, size: u32, sqes: &[Entry]) -> Result<()> {
    let mut ring = Ring::new(mode, ENTRIES.max(sqes.len() as u32))?;
    let turn = Turn {
        what,
        ring: name(mode),
        size,
        requests: sqes.len() as u32,
        clock: Clock::Machine,
        rounds,
    };
    measure(&turn, || ring.turn(sqes, sqes.len()).map(|()| 1))
}

/// A NOP, and when it is done the others.
fn twice(rounds: Rounds, mode: RingMode, size: u32) -> Result<()> {
    let mut ring = Ring::new(mode, ENTRIES)?;
    let sqes = batch(size);
    let (first, others) = sqes.split_at(1);
    let turn = Turn {
        what: "nop/two",
        ring: name(mode),
        size,
        requests: size,
        clock: Clock::Machine,
        rounds,
    };
    measure(&turn, || {
        ring.turn(first, 1)?;
        ring.turn(others, others.len())?;
        Ok(2)
    })
}

/// NOPs that complete as they are submitted: side by side, in two submissions, in chains, in
/// groups.
pub(crate) fn inline(groups: bool) -> Result<()> {
    let rounds = Rounds::Few;
    for mode in MODES {
        for size in BATCHES {
            once(rounds, mode, "nop/plain", size, &batch(size))?;
        }
        // A group of 1 + 1 is the smallest.
        for size in [2, 8, 32, 128] {
            if size == 2 {
                once(rounds, mode, "nop/plain", size, &batch(size))?;
            }
            once(rounds, mode, "nop/linked", size, &chain(batch(size)))?;
            twice(rounds, mode, size)?;
            if groups {
                once(rounds, mode, "nop/group", size, &group(batch(size))?)?;
            }
        }
        // As many SQEs in each submission, whatever the size of a group.
        for size in [2, 8] {
            once(rounds, mode, "nop32/linked", size, &chains(BATCH, size))?;
            if groups {
                once(rounds, mode, "nop32/group", size, &sets(BATCH, size)?)?;
            }
        }
    }
    Ok(())
}

/// The same for the time that it takes: many NOPs in each submission, alone, in chains and in
/// groups.
pub(crate) fn timed(groups: bool) -> Result<()> {
    let rounds = Rounds::Many;
    for mode in MODES {
        once(rounds, mode, "time/plain", 1, &batch(TIMED))?;
        for size in [2, 8, 32, 128] {
            once(rounds, mode, "time/linked", size, &chains(TIMED, size))?;
            if groups {
                once(rounds, mode, "time/group", size, &sets(TIMED, size)?)?;
            }
        }
    }
    Ok(())
}

/// NOPs that go through a worker, or behind a drain.
pub(crate) fn queued() -> Result<()> {
    let asynchronous: Vec<_> = batch(MANY)
        .into_iter()
        .map(|sqe| sqe.flags(Flags::ASYNC))
        .collect();
    let mut drained = batch(MANY);
    drained[0] = nop(0).flags(Flags::IO_DRAIN);
    for mode in MODES {
        once(Rounds::Single, mode, "nop/async", MANY, &asynchronous)?;
        once(Rounds::Single, mode, "nop/drain", MANY, &drained)?;
    }
    Ok(())
}
