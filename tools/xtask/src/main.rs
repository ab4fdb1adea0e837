// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask`: builds, boots and judges the patched kernel.
fn main() {}
