// SPDX-License-Identifier: GPL-2.0-only
//! Ctrl-C while something is fetched or built: one sentence, and the end. There is
//! nothing to clean up, for nothing stands under its final name before it is whole.

use crate::interrupt;

const SENTENCE: &[u8] =
    b"\ninterrupted: run the same command again, it goes on from the last step \
                          that was finished\n";

extern "C" fn leave(_signal: libc::c_int) {
    // SAFETY: write and _exit are async-signal-safe, and the buffer is static. If
    // the terminal is gone there is nobody to tell.
    unsafe {
        let _ = libc::write(
            libc::STDERR_FILENO,
            SENTENCE.as_ptr().cast(),
            SENTENCE.len(),
        );
        libc::_exit(libc::c_int::from(interrupt::STATUS));
    }
}

/// From here on, SIGINT and SIGTERM end the program with a sentence. A guest that
/// runs has its own way ([`interrupt::Guard`]), and gives this one back.
pub(crate) fn install() {
    let handler: extern "C" fn(libc::c_int) = leave;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler calls nothing that is not async-signal-safe. Failure
        // leaves the default action, which ends the program as well.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
