// SPDX-License-Identifier: GPL-2.0-only
//! How long to wait for what a working kernel does at once, on a machine that may have much
//! else to do.
//!
//! A time alone would say on such a machine that something hangs when it is merely slow.
//! So when the time is up a fixed amount of work is done, and measured: if that takes five
//! times as long as it should, everything else may, too.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// What is measured: so many turns, which take [`NOMINAL`].
const TURNS: u64 = 40_000_000;

/// For all turns, where nothing else runs, under emulation. A guest on a processor of its own
/// takes less, and does not look slow where it is not.
const NOMINAL: Duration = Duration::from_millis(100);

/// Whatever is measured, there is an end.
const MOST: f64 = 60.0;

/// How many times slower this machine is than one that has nothing else to do: about as
/// much as it takes to find out. At least 1.
pub fn slowness() -> f64 {
    let start = Instant::now();
    let mut number = 1u64;
    for turn in 0..TURNS {
        // As in a generator of random numbers: each turn needs the one before.
        number = black_box(
            number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(turn),
        );
    }
    (start.elapsed().as_secs_f64() / NOMINAL.as_secs_f64()).clamp(1.0, MOST)
}

/// A time to wait, which is longer the slower the machine is when it is up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    start: Instant,
    step: Duration,
    steps: u32,
}

impl Patience {
    /// For so long where nothing else runs, from now on.
    pub fn new(step: Duration) -> Self {
        Self {
            start: Instant::now(),
            step,
            steps: 1,
        }
    }

    /// What is left of it, before the machine is measured again.
    pub fn left(&self) -> Duration {
        (self.step * self.steps).saturating_sub(self.start.elapsed())
    }

    /// Whether it is over. Asks how slow the machine is if the time is up.
    pub fn is_over(&mut self) -> bool {
        self.is_over_at(slowness)
    }

    fn is_over_at(&mut self, slowness: impl FnOnce() -> f64) -> bool {
        if !self.left().is_zero() {
            return false;
        }
        if slowness() < f64::from(self.steps) + 0.5 {
            return true;
        }
        self.steps += 1;
        false
    }

    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many times the time has been given so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_machine_has_the_time_once() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        assert!(!patience.is_over_at(|| unreachable!("the time is not up")));
        assert!(patience.left() > Duration::from_secs(3000));
        let mut patience = Patience::new(Duration::ZERO);
        assert!(patience.is_over_at(|| 1.0));
    }

    #[test]
    fn a_slow_one_has_it_as_often_as_it_is_slower() {
        let mut patience = Patience::new(Duration::ZERO);
        let mut more = 0;
        while !patience.is_over_at(|| 5.0) {
            more += 1;
        }
        assert_eq!((more, patience.steps()), (4, 5));
        // It has become fast meanwhile.
        assert!(patience.is_over_at(|| 1.0));
    }

    #[test]
    fn slowness_is_a_factor() {
        assert!((1.0..=MOST).contains(&slowness()));
    }
}
