// SPDX-License-Identifier: GPL-2.0-only
//! Makes a program that is not accepted as small as it can be.

use std::time::{Duration, Instant};

use super::program::{End, Op, Program, Step, Submitter, What};
use super::run::{Failure, Runner};
use crate::ring::RingMode;

/// A program that fails by chance is tried so often before it is held to be fine.
const TRIES: u32 = 3;

/// After this, what there is is small enough.
const TIME: Duration = Duration::from_secs(120);

/// The smallest program that was found to fail, on a ring of its own, and how it does.
/// Nothing if this one does not.
pub fn shrink(runner: &mut Runner, program: &Program) -> Option<(Program, Failure)> {
    let patience = runner.patience();
    let found = smallest(runner, program, patience);
    runner.set_patience(patience);
    found
}

fn fails(runner: &mut Runner, program: &Program, patience: Duration) -> Option<Failure> {
    runner.set_patience(patience);
    (0..TRIES).find_map(|_| runner.alone(program).err())
}

fn smallest(
    runner: &mut Runner,
    program: &Program,
    patience: Duration,
) -> Option<(Program, Failure)> {
    let start = Instant::now();
    let failure = fails(runner, program, patience)?;
    let mut smallest = program.clone();
    // One that waits in vain is waited for each time.
    let hasty = patience / 8;
    'again: loop {
        for candidate in candidates(&smallest) {
            if start.elapsed() > TIME {
                break 'again;
            }
            if fails(runner, &candidate, hasty).is_some() {
                smallest = candidate;
                continue 'again;
            }
        }
        break;
    }
    // It may have been haste that made it fail.
    match fails(runner, &smallest, patience) {
        Some(failure) => Some((smallest, failure)),
        None => Some((program.clone(), failure)),
    }
}

/// Programs that are a bit smaller, the smallest first.
fn candidates(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    let steps = program.steps.len();

    for at in (0..steps).rev() {
        let mut next = program.clone();
        next.steps.remove(at);
        if !next.is_empty() {
            all.push(next);
        }
    }
    for (at, step) in program.steps.iter().enumerate() {
        let Step::Submit { ops, by, hole } = step else {
            continue;
        };
        for (by, hole) in [(Submitter::First, *hole), (*by, None)] {
            let mut next = program.clone();
            next.steps[at] = Step::Submit {
                ops: ops.clone(),
                by,
                hole,
            };
            if next != *program {
                all.push(next);
            }
        }
        let mut with = |change: &dyn Fn(&mut Vec<Op>)| {
            let mut next = program.clone();
            if let Step::Submit { ops, .. } = &mut next.steps[at] {
                change(ops);
            }
            if next != *program && !next.is_empty() {
                all.push(next);
            }
        };
        // Halves, and then one by one.
        let half = ops.len() / 2;
        if half > 1 {
            with(&|ops| _ = ops.drain(..half));
            with(&|ops| ops.truncate(half));
        }
        if ops.len() > 1 {
            for nth in (0..ops.len()).rev() {
                with(&|ops| _ = ops.remove(nth));
            }
        }
        for nth in 0..ops.len() {
            with(&|ops| ops[nth].link = None);
            with(&|ops| ops[nth].drain = false);
            with(&|ops| ops[nth].skip = false);
            with(&|ops| ops[nth].worker = false);
            with(&|ops| ops[nth].extended = false);
            with(&|ops| ops[nth].personality = false);
            with(&|ops| ops[nth].flaw = None);
            with(&|ops| ops[nth].twin = None);
            with(&|ops| ops[nth].fixed_file = false);
            with(&|ops| ops[nth].fixed_buffer = false);
            with(&|ops| ops[nth].group = false);
            if ops[nth].flaw.is_none() {
                with(&|ops| {
                    if ops[nth].what != What::Nop(0) {
                        ops[nth].what = What::Nop(match ops[nth].what {
                            What::NopTw(result) => result,
                            _ => 0,
                        });
                    }
                });
            }
        }
    }
    for nth in 1..steps {
        // Two submissions in one.
        let mut next = program.clone();
        let later = next.steps.remove(nth);
        if let (Step::Submit { ops, .. }, Step::Submit { ops: more, .. }) =
            (&mut next.steps[nth - 1], later)
        {
            ops.extend(more);
            if ops.len() <= next.entries as usize {
                all.push(next);
            }
        }
    }
    for change in [
        |program: &mut Program| {
            program.mode = RingMode::Default;
            program.attached = false;
        },
        |program: &mut Program| program.attached = false,
        |program: &mut Program| program.entries = 64,
        |program: &mut Program| program.cq_entries = None,
        |program: &mut Program| program.submit_all = false,
        |program: &mut Program| program.restricted = false,
        |program: &mut Program| program.end = End::Feed,
    ] {
        let mut next = program.clone();
        change(&mut next);
        let fits = next
            .cq_entries
            .is_none_or(|entries| entries >= next.entries);
        if next != *program && fits {
            all.push(next);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{nop, read};

    fn size(program: &Program) -> usize {
        program.source("x", "").len()
    }

    #[test]
    fn each_candidate_is_another_program() {
        let program = Program::new(RingMode::Sqpoll)
            .entries(8)
            .submit([nop(1, 0).link(), read(2, 0).skip().grouped(), nop(3, 0)])
            .feed(0)
            .submit([nop(4, -5)]);
        let all = candidates(&program);
        assert!(all.len() > 10);
        for candidate in &all {
            assert_ne!(candidate, &program);
            assert!(!candidate.is_empty());
        }
        assert!(all.iter().any(|candidate| candidate.len() == 1));
    }

    /// Always taking the first one that is allowed, it comes to an end.
    #[test]
    fn it_ends() {
        let mut program = Program::new(RingMode::Sqpoll)
            .entries(8)
            .cq_entries(8)
            .submit([read(1, 0).link().worker().grouped(), nop(2, -5).skip()])
            .feed(0)
            .end(End::Close);
        for _ in 0..100 {
            let Some(next) = candidates(&program).into_iter().next() else {
                break;
            };
            program = next;
        }
        assert_eq!(program.len(), 1);
        assert!(size(&program) < 150, "{}", program.source("x", ""));
    }
}
