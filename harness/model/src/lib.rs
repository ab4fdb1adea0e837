// SPDX-License-Identifier: GPL-2.0-only

//! What SQE groups promise, as a judge of what happens to them.
//!
//! This is the rules (F1 to X5) once more, and nothing of how they are implemented: no phase, no
//! reference, no mark. To be read next to the rules; the number of each stands where it is applied.
//!
//! - [`chain`]: what may happen to the requests of a chain, event by event. The core is judged by
//!   it on the host, where all events can be seen
//! - [`form`]: which chains and groups the SQEs of a submission become
//! - [`accept`]: whether CQEs are explained by some order of events. The kernel is judged by it,
//!   of which only the CQEs can be seen
//!
//! In a few places the rules leave more than one answer, or say "as today". Those are marked with
//! *open*, and the model takes any of the answers.

pub mod accept;
pub mod chain;
pub mod form;

pub use chain::*;
