// SPDX-License-Identifier: GPL-2.0

//! What only Rust does wrong: see splat.c.

use kernel::prelude::*;

module! {
    type: Splat,
    name: "splat_rust",
    authors: ["io_uring developers"],
    description: "A panic of Rust, to order",
    license: "GPL",
}

struct Splat;

impl kernel::Module for Splat {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let none: Option<u8> = core::hint::black_box(None);
        assert!(none.is_some(), "planted");
        Ok(Splat)
    }
}
