// SPDX-License-Identifier: GPL-2.0-only
//! Ctrl-C while a guest runs: a request to clean up and leave, instead of sudden
//! death.

use std::{
    io, mem, ptr,
    sync::atomic::{AtomicBool, Ordering},
};

/// Exit status of a command that was interrupted, as a shell gives it for SIGINT.
pub(crate) const STATUS: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

extern "C" fn note(_signal: libc::c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// While this lives, the signals that end a program only ask for it.
pub(crate) struct Guard {
    before: Vec<(libc::c_int, libc::sigaction)>,
}

impl Guard {
    pub(crate) fn install() -> io::Result<Self> {
        REQUESTED.store(false, Ordering::Relaxed);
        let mut guard = Self { before: Vec::new() };
        for signal in SIGNALS {
            // SAFETY: all zeroes is a valid sigaction.
            let mut action: libc::sigaction = unsafe { mem::zeroed() };
            let handler: extern "C" fn(libc::c_int) = note;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            // SAFETY: all zeroes is a valid sigaction.
            let mut before: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: both pointers are to live structs, and the handler does
            // nothing but store to an atomic.
            if unsafe { libc::sigaction(signal, &action, &mut before) } != 0 {
                return Err(io::Error::last_os_error());
            }
            guard.before.push((signal, before));
        }
        Ok(guard)
    }

    /// Whether the user wants to leave.
    #[allow(
        clippy::unused_self,
        reason = "without a guard the signal would have killed us"
    )]
    pub(crate) fn requested(&self) -> bool {
        REQUESTED.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: the pointer is to what the kernel gave us.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
    }
}
