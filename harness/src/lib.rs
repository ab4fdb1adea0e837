// SPDX-License-Identifier: GPL-2.0-only
//! Userspace of SQE groups: ring helpers, the group builder, and what the tests
//! in the guest share.
//!
//! - [`sqe`]: what groups add to a submission queue entry
//! - [`group`]: building a group, submitting it, understanding its CQEs
//! - [`ring`]: a ring in any mode, which never waits for ever
//! - [`pace`]: how long that is, on a machine that has much else to do
//! - [`protocol`]: how the guest tells its results
//! - [`fuzz`]: random programs, judged by the model
//! - [`bench`]: what the benchmark in the guest tells
//! - [`tap`]: how the kernel's own tests tell theirs
//! - [`null_blk`]: block devices that behave as is wanted

pub mod bench;
pub mod fuzz;
pub mod group;
pub mod null_blk;
pub mod pace;
pub mod protocol;
pub mod ring;
pub mod sqe;
pub mod tap;

use std::fmt;
use std::io::Write;

use protocol::{EXIT_SKIPPED, SKIP_PREFIX};

/// Ends the process as skipped; see [`skip!`].
pub fn skip_with(reason: fmt::Arguments<'_>) -> ! {
    // Not `println!`: the test harness keeps that back, and is not going to see
    // the end of this test.
    let _ = writeln!(std::io::stdout().lock(), "{SKIP_PREFIX}{reason}");
    std::process::exit(EXIT_SKIPPED)
}

/// Says why a test cannot be run on this kernel, and ends the process. For tests
/// that have their process to themselves.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {
        $crate::skip_with(format_args!($($reason)+))
    };
}
