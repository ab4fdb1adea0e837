// SPDX-License-Identifier: GPL-2.0-only
//! Makes the kernel complain, for `cargo xtask splats`.

use std::{env, ffi::CString, fs::File, io, os::fd::AsRawFd as _};

use harness::protocol::{SPLAT_ENV, SPLAT_PATH};

/// Passes if the module has done what it was told to and the kernel has survived: that it has
/// complained is for the rules for its log to find.
#[test]
fn planted() {
    let plant = env::var(SPLAT_ENV).unwrap();
    let module = File::open(SPLAT_PATH).unwrap();
    let parameters = CString::new(format!("plant={plant}")).unwrap();
    // SAFETY: a descriptor that is open and a C string, both until the call returns.
    let status = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            module.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}
