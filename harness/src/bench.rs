// SPDX-License-Identifier: GPL-2.0-only
//! What the benchmark in the guest tells the host: one [`Record`] a line, as JSON.

use serde::{Deserialize, Serialize};

/// A line of the benchmark's output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    /// Something was measured.
    Sample(Sample),
    /// What a request takes in memory.
    Memory(Memory),
}

/// One measurement. The counts are those of one *turn*: one submission, or the two
/// that do the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What a turn does: a family, a slash, and how.
    pub what: String,
    /// The mode of the ring.
    pub ring: String,
    /// What grows: the SQEs of a batch, chain or group, the copies, or what waits.
    pub size: u32,
    /// Requests of a turn, or system calls where there is no ring.
    pub requests: u32,
    /// Instructions of a turn, in user space and in the kernel: the best round, or, where
    /// workers of io-wq take part in NOPs and small writes, the one in the middle. For
    /// [`Extent::Native`], cycles of the time stamp counter.
    pub instructions: f64,
    /// By how much the round in the middle was above the best one.
    pub spread: f64,
    /// System calls of a turn.
    pub syscalls: f64,
    /// Context switches of the machine in a turn, of all tasks.
    pub switches: f64,
    /// How often the application slept and was woken in a turn.
    pub wakeups: f64,
}

impl Sample {
    /// Instructions of one request, the system call's share included.
    pub fn per_request(&self) -> f64 {
        self.instructions / f64::from(self.requests)
    }
}

/// What the kernel's allocator says of `struct io_kiocb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// `sizeof(struct io_kiocb)`
    pub size: u32,
    /// The same, rounded up to cache lines.
    pub slot: u32,
    /// How many there are in a slab.
    pub objects: u32,
    /// Pages of a slab, as a power of two.
    pub order: u32,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// NOPs: what tells a regression, in seconds.
    Quick,
    /// All of it.
    Full,
    /// The same NOPs in time rather than instructions, where the processor's own clock is seen.
    Native,
}

impl Extent {
    /// The benchmark's argument.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Native => "native",
        }
    }
}
