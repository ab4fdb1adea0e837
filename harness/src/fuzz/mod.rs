// SPDX-License-Identifier: GPL-2.0-only
//! Random programs of SQEs, run on the kernel and judged by the model.
//!
//! - [`program`]: a program, and how to write one down
//! - [`generate`]: random ones
//! - [`run`]: runs one, and asks the model
//! - [`shrink`]: makes one that is not accepted as small as it can be
//! - [`report`]: what the guest tells the host of it
//!
//! A program that was found is printed as a test. It runs as it is printed:
//!
//! ```no_run
//! use harness::fuzz::*;
//! use harness::ring::RingMode;
//!
//! Program::new(RingMode::Default)
//!     .submit([read(1, 0).grouped(), nop(2, 7)])
//!     .feed(0)
//!     .check();
//! ```

pub mod generate;
pub mod program;
pub mod report;
pub mod run;
pub mod shrink;

pub use program::*;
