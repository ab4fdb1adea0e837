// SPDX-License-Identifier: GPL-2.0-only
//! The rules of SQE groups, on the kernel that runs this.
fn _unused() {}
