// SPDX-License-Identifier: GPL-2.0-only
//! A ring with as little of its own as can be: what it costs is in every number.

use std::io;

use harness::ring::RingMode;
use io_uring::{squeue::Entry, IoUring};

const IORING_ENTER_GETEVENTS: u32 = 1 << 0;

/// The modes that are measured.
pub(crate) const MODES: [RingMode; 3] = [
    RingMode::DeferTaskrun,
    RingMode::Default,
    RingMode::SingleIssuer,
];

/// The name of a mode, in a sample.
pub(crate) fn name(mode: RingMode) -> &'static str {
    match mode {
        RingMode::DeferTaskrun => "DEFER_TASKRUN",
        RingMode::SingleIssuer => "SINGLE_ISSUER",
        _ => "default",
    }
}

/// A ring of the crate's, and nothing around it.
pub(crate) struct Ring(IoUring);

impl Ring {
    pub(crate) fn new(mode: RingMode, entries: u32) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if matches!(mode, RingMode::DeferTaskrun | RingMode::SingleIssuer) {
            builder.setup_single_issuer();
        }
        if mode == RingMode::DeferTaskrun {
            builder.setup_defer_taskrun();
        }
        Ok(Self(builder.build(entries)?))
    }

    /// Submits these and waits for so many CQEs, in one call. Takes them all without
    /// a look at their results.
    pub(crate) fn enter(&mut self, sqes: &[Entry], cqes: usize) -> io::Result<()> {
        self.pass(sqes, cqes, |_| true)
    }

    /// The same, and no request may have failed.
    pub(crate) fn turn(&mut self, sqes: &[Entry], cqes: usize) -> io::Result<()> {
        self.pass(sqes, cqes, |result| result >= 0)
    }

    fn pass(&mut self, sqes: &[Entry], cqes: usize, good: impl Fn(i32) -> bool) -> io::Result<()> {
        // SAFETY: Those who make SQEs here keep files and buffers as long as the ring
        // that they are for.
        unsafe { self.0.submission().push_multiple(sqes) }.map_err(io::Error::other)?;
        // SAFETY: No argument is passed.
        let taken = unsafe {
            self.0.submitter().enter::<libc::sigset_t>(
                sqes.len() as u32,
                cqes as u32,
                IORING_ENTER_GETEVENTS,
                None,
            )
        }?;
        let mut seen = 0;
        for cqe in self.0.completion() {
            if !good(cqe.result()) {
                return Err(io::Error::from_raw_os_error(-cqe.result()));
            }
            seen += 1;
        }
        if taken != sqes.len() || seen != cqes {
            return Err(io::Error::other(format!(
                "{taken} of {} SQEs were taken, and {seen} of {cqes} CQEs came",
                sqes.len()
            )));
        }
        Ok(())
    }

    /// Lets this task have at most so many workers of each kind, whatever the ring;
    /// returns how many it could have before.
    pub(crate) fn limit_workers(&self, mut limits: [u32; 2]) -> io::Result<[u32; 2]> {
        self.0.submitter().register_iowq_max_workers(&mut limits)?;
        Ok(limits)
    }

    /// Lets the kernel run what it keeps for this task, until there is no more.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        // Each call runs what is there; what that adds is for the next.
        for _ in 0..64 {
            self.enter(&[], 0)?;
        }
        Ok(())
    }
}
