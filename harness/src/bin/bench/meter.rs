// SPDX-License-Identifier: GPL-2.0-only
//! From a turn to a sample.

use std::{fs, io, mem};

use harness::bench::{Record, Sample};

use crate::{clock::Clock, tell, Result};

/// How many rounds, of which the best counts. The kernel's tick strikes every four
/// million instructions and costs some thousands.
const FEW: usize = 9;
/// The same where the host takes the processor away, for how long nobody knows, and where its
/// caches and its clock rate come and go.
const MANY: usize = 400;
/// As long as a round should be: most then have no tick in them.
const ROUND: u64 = 1_200_000;
/// As many turns as a round has at most.
const TURNS: u64 = 1_000;
/// Rounds of what takes longer than a round should, and has ticks in it anyway.
const LONG_ROUNDS: usize = 3;
/// Turns before anything counts: caches of the kernel fill, pages are touched.
const WARM: usize = 4;
/// The same, of what takes longer than a round should.
const LONG_WARM: usize = 2;

/// Instructions for all turns of what goes through a worker of io-wq, which are taken one
/// by one: the scheduler's decisions differ from turn to turn, the best turn is one in
/// which it was lucky, and the one in the middle counts.
const SINGLES: u64 = 30_000_000;

/// How a turn is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// In a few rounds: any two show the same, but for the tick.
    Few,
    /// In many rounds: most are disturbed.
    Many,
    /// One by one, as workers take part, and nothing is put off from one turn to another.
    Single,
}

/// What a turn is.
pub(crate) struct Turn<'a> {
    pub(crate) what: &'a str,
    pub(crate) ring: &'a str,
    pub(crate) size: u32,
    pub(crate) requests: u32,
    pub(crate) clock: Clock,
    pub(crate) rounds: Rounds,
}

/// Measures a turn, which returns its number of system calls, and tells the host.
pub(crate) fn measure(turn: &Turn<'_>, mut run: impl FnMut() -> io::Result<u32>) -> Result<()> {
    let Turn {
        what,
        ring,
        size,
        requests,
        clock,
        rounds,
    } = *turn;
    let mut take = || -> Result<Sample> {
        let mut cost = u64::MAX;
        for turn in 1..=WARM {
            let start = clock.now();
            run()?;
            cost = cost.min(clock.now() - start);
            if turn >= LONG_WARM && cost > ROUND {
                break;
            }
        }
        let fit = (ROUND / cost.max(1)).clamp(1, TURNS);
        let single = rounds == Rounds::Single;
        let (turns, rounds) = match rounds {
            Rounds::Single => (1, (SINGLES / cost.max(1)).clamp(9, 400) as usize),
            Rounds::Few if cost > ROUND => (fit, LONG_ROUNDS),
            Rounds::Few => (fit, FEW),
            Rounds::Many => (fit, MANY),
        };

        let mut costs = Vec::with_capacity(rounds);
        let mut calls = 0;
        let slept = sleeps();
        let switched = switches()?;
        for _ in 0..rounds {
            let start = clock.now();
            for _ in 0..turns {
                calls += run()?;
            }
            costs.push((clock.now() - start) as f64 / turns as f64);
        }
        let switched = switches()? - switched;
        let slept = sleeps() - slept;

        costs.sort_by(f64::total_cmp);
        let middle = costs[rounds / 2];
        let all = turns as f64 * rounds as f64;
        Ok(Sample {
            what: what.to_owned(),
            ring: ring.to_owned(),
            size,
            requests,
            instructions: if single { middle } else { costs[0] },
            spread: middle - costs[0],
            syscalls: f64::from(calls) / all,
            switches: switched as f64 / all,
            wakeups: slept as f64 / all,
        })
    };
    let sample = take().map_err(|error| format!("{what}, {ring}, {size}: {error}"))?;
    tell(&Record::Sample(sample))
}

/// How often this thread slept: it was woken as often.
fn sleeps() -> i64 {
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live struct of the right type.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nvcsw
}

/// Context switches since boot, of all tasks.
fn switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("ctxt "))
        .ok_or("/proc/stat has no line ctxt")?;
    Ok(count.trim().parse()?)
}
