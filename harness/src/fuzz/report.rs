// SPDX-License-Identifier: GPL-2.0-only
//! What the fuzzer in the guest is told, and what it tells: one JSON object a line.

use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Of the first ring; the second has the next one.
    pub seed: u64,
    /// So many programs. 0: no end.
    pub count: u64,
    /// For so long. 0: no end.
    pub seconds: u64,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// So far all is well. The last one, if nothing was found.
    Progress(Progress),
    /// A program is not accepted. It is going to be made smaller.
    Found {
        /// How far it got.
        progress: Progress,
        /// Which rule is broken.
        rule: String,
    },
    /// The last word on that program.
    Shrunk {
        /// Which rule is broken.
        rule: String,
        /// The program as a test.
        source: String,
        /// SQEs it has.
        sqes: u64,
        /// The seed of the ring that it was found with.
        seed: u64,
        /// Programs from that seed on, this one included.
        count: u64,
        /// Whether it fails on a ring of its own, and is small therefore.
        alone: bool,
    },
    /// Something does not come to an end.
    Hangs {
        /// The program as a test.
        source: String,
        /// The seed of its ring.
        seed: u64,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Programs that were run, the one that was found included.
    pub programs: u64,
    /// Their SQEs.
    pub sqes: u64,
    /// Groups among these.
    pub groups: u64,
    /// The seed of the ring that is in use.
    pub seed: u64,
    /// Time since the first one, in milliseconds.
    pub ms: u64,
}
