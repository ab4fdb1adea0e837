// SPDX-License-Identifier: GPL-2.0-only
//! Programs that `cargo xtask fuzz` has found, on kernels with a mistake in them, and what it is to
//! get right on one without. A program that it finds can be put here as it is printed.

use harness::fuzz::*;
use harness::ring::RingMode;

/// A leader that does not end, deadlines, cancellations, and all modes of a ring's life at once.
fn x4_much_at_once(mode: RingMode) {
    Program::new(mode)
        .entries(16)
        .cq_entries(16)
        .submit([
            nop(1, 7).link().grouped(),
            read(2, 0).grouped(),
            write(3).grouped(),
            write(4),
            deadline(5, true).link(),
            nop(6, 0).grouped(),
            write(7),
        ])
        .submit([read(8, 1).link().grouped(), nop(9, 0), nop(10, 0)])
        .submit([cancel(11, 10), cancel(12, 8)])
        .reap()
        .submit([cancel(13, 8)])
        .check();
}

/// An index of the SQ array that is invalid, within a group and behind one.
fn f6_holes(mode: RingMode) {
    Program::new(mode)
        .submit_with_hole(
            2,
            [
                nop(1, 0).grouped(),
                nop(2, 0).grouped(),
                nop(3, 0).grouped(),
                nop(4, 0),
                nop(5, 0),
            ],
        )
        .submit_with_hole(1, [nop(6, 0), nop(7, 0), nop(8, 0).grouped(), write(9)])
        .check();
}

/// Restrictions go for leaders and members.
fn v1_10_restricted(mode: RingMode) {
    Program::new(mode)
        .restricted()
        .submit([
            nop(1, 0).grouped(),
            fsync(2).grouped(),
            nop(3, 0),
            nop(4, 0).worker().grouped(),
            nop(5, 0),
            nop(6, 0).grouped(),
            nop(7, 0),
        ])
        .check();
}

main_modes!(x4_much_at_once, v1_10_restricted);
in_modes!(f6_holes: default Default, defer_taskrun DeferTaskrun, submit_all SubmitAll);
