// SPDX-License-Identifier: GPL-2.0-only
//! All that was measured.

use harness::bench::{Memory, Sample};
use serde::{Deserialize, Serialize};

use super::symbols::Text;

/// The rings, by the names that samples have. The first is the one that a program
/// would choose today.
pub(super) const RINGS: [&str; 3] = ["DEFER_TASKRUN", "default", "SINGLE_ISSUER"];

/// The same on three kernels of one configuration.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    /// Without the series.
    pub(super) base: Kernel,
    /// With it.
    pub(super) patched: Kernel,
    /// With it, and the feature not built. Only where all is measured: its code is that of the
    /// base, which `series compare` sees.
    pub(super) off: Option<Kernel>,
    /// How the code has grown, if there was a vmlinux of both.
    pub(super) text: Option<Text>,
    /// What they were built with.
    pub(super) compilers: Vec<String>,
}

/// One kernel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kernel {
    /// `uname -srvm`
    pub(super) version: String,
    pub(super) memory: Memory,
    pub(super) samples: Vec<Sample>,
    /// By how much two boots differ, of the smaller one: the worst and the median of
    /// all samples. Only if there was more than one boot.
    pub(super) repeat: Option<Repeat>,
}

/// How well boots agree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Repeat {
    pub(super) worst: f64,
    pub(super) median: f64,
    /// Of those where no worker and no device takes part.
    pub(super) inline_worst: f64,
}

impl Kernel {
    /// From one or more boots, of which the best counts.
    pub(super) fn new(version: String, memory: Memory, boots: Vec<Vec<Sample>>) -> Self {
        let mut boots = boots.into_iter();
        let mut samples = boots.next().unwrap_or_default();
        let mut apart = Vec::new();
        let mut inline_worst: f64 = 0.0;
        for boot in boots {
            for (sample, again) in samples.iter_mut().zip(boot) {
                let best = sample.instructions.min(again.instructions);
                let off = (sample.instructions - again.instructions).abs() / best;
                if sample.switches < 1.0 {
                    inline_worst = inline_worst.max(off);
                }
                apart.push(off);
                sample.instructions = best;
            }
        }
        apart.sort_by(f64::total_cmp);
        let repeat = apart.last().map(|worst| Repeat {
            worst: *worst,
            median: apart[apart.len() / 2],
            inline_worst,
        });
        Self {
            version,
            memory,
            samples,
            repeat,
        }
    }

    pub(super) fn sample(&self, what: &str, ring: &str, size: u32) -> Option<&Sample> {
        self.samples
            .iter()
            .find(|sample| sample.what == what && sample.ring == ring && sample.size == size)
    }

    /// Instructions of a request.
    pub(super) fn cost(&self, what: &str, ring: &str, size: u32) -> Option<f64> {
        self.sample(what, ring, size).map(Sample::per_request)
    }
}

impl Results {
    /// By how many instructions a request costs more than on the base.
    pub(super) fn growth(&self, of: &Kernel, what: &str, ring: &str, size: u32) -> Option<f64> {
        Some(of.cost(what, ring, size)? - self.base.cost(what, ring, size)?)
    }
}
