// SPDX-License-Identifier: GPL-2.0-only
//! Clocks that count instructions.
//!
//! Under `-icount shift=0` QEMU's time goes on by a nanosecond an instruction, and the
//! time stamp counter shows it. While nothing runs it jumps to the next timer: a turn
//! in which the machine waits has to be measured by the time of its process, workers
//! of io-wq included, which the kernel takes from the same counter.

use std::arch::asm;

use crate::Result;

/// What to measure by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// All that the machine executes.
    Machine,
    /// What this process executes, and its workers.
    Process,
}

impl Clock {
    /// Instructions so far.
    pub(crate) fn now(self) -> u64 {
        match self {
            // SAFETY: Every x86-64 has the instruction, and a guest of ours does not
            // forbid it.
            Self::Machine => unsafe { std::arch::x86_64::_rdtsc() },
            Self::Process => {
                let mut time = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                // SAFETY: The pointer is to a live struct of the right type. The call
                // cannot fail for this clock.
                unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            }
        }
    }
}

/// Turns of the loop by which a clock is checked; two instructions each. Less than
/// half of what fits between two ticks of the kernel.
const TURNS: u64 = 700_000;

/// What else is executed between two looks at a clock, at most: a system call.
const SLACK: u64 = 4_000;

/// Refuses a machine whose clock counts anything else.
pub(crate) fn check() -> Result<()> {
    for clock in [Clock::Machine, Clock::Process] {
        let best = (0..5).map(|_| known(clock)).min().unwrap_or_default();
        if !(2 * TURNS..2 * TURNS + SLACK).contains(&best) {
            return Err(format!(
                "{} instructions took {best} units of the clock {clock:?}: it does not count \
                 instructions; start this with `cargo xtask bench`",
                2 * TURNS
            )
            .into());
        }
    }
    Ok(())
}

/// What a clock says of a known number of instructions.
fn known(clock: Clock) -> u64 {
    let start = clock.now();
    // SAFETY: A loop on a register of its own.
    unsafe {
        asm!(
            "2: dec {turns}",
            "jnz 2b",
            turns = inout(reg) TURNS => _,
            options(nomem, nostack),
        );
    }
    clock.now() - start
}
