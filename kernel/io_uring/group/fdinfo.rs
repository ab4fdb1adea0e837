// SPDX-License-Identifier: GPL-2.0

//! Groups as `/proc/PID/fdinfo/FD` of their ring shows them.

use crate::request::Ring;
use kernel::{
    bindings,
    prelude::*,
    seq_file::SeqFile,
    seq_print, //
};

/// Shows the groups of `ctx` that were started and are not done, one in a line.
///
/// # Safety
///
/// `ctx` must be a ring with its `uring_lock` held, and `m` a file that is being shown.
#[export]
pub unsafe extern "C" fn io_group_show_fdinfo(
    ctx: *mut bindings::io_ring_ctx,
    m: *mut bindings::seq_file,
) {
    // SAFETY: by the safety requirements.
    let (ring, m) = unsafe { (Ring::from_raw(ctx), SeqFile::from_raw(m)) };
    // SAFETY: there is no group to go on from.
    let mut next = unsafe { ring.next_group(None) };

    while let Some(leader) = next {
        let group = leader.group();

        seq_print!(
            m,
            "  user_data={}, opcode={}, phase={}, members={}, held={}\n",
            leader.req().user_data(),
            leader.req().opcode_name(),
            group.phase().name(),
            group.members(),
            leader.held().count(),
        );
        // SAFETY: it has come from there, and the lock has been held since.
        next = unsafe { ring.next_group(Some(&leader)) };
    }
}
