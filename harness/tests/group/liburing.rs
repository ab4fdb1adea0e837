// SPDX-License-Identifier: GPL-2.0-only
//! Groups for those who use liburing: tools/liburing, its header and its example.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::protocol::{EXIT_SKIPPED, GROUPS_ENV};
use harness::skip;

/// Put there by `cargo xtask qemu-test`, if it has found liburing.
const EXAMPLE: &str = "/bin/group-cp";

fn example(from: &Path, to: &[PathBuf]) -> Output {
    Command::new(EXAMPLE).arg(from).args(to).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

/// Copies of every size around that of a block, and to a file that takes nothing.
#[test]
fn if_liburing_copies_with_groups() {
    if !Path::new(EXAMPLE).exists() {
        skip!("liburing was not there to build the example; `cargo xtask liburing` gets it");
    }
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let to: Vec<_> = (0..5).map(|i| dir.path().join(format!("to{i}"))).collect();
    if std::env::var(GROUPS_ENV).as_deref() == Ok("no") {
        fs::write(&from, "x").unwrap();
        let output = example(&from, &to);
        assert_eq!(
            output.status.code(),
            Some(EXIT_SKIPPED),
            "{}",
            said(&output)
        );
        return;
    }

    const BLOCK: usize = 64 << 10;
    for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 4711] {
        for copies in [1, 2, 5] {
            let content: Vec<_> = (0..size).map(|at| (at * 31 + at / 251) as u8).collect();
            fs::write(&from, &content).unwrap();
            let output = example(&from, &to[..copies]);
            assert!(output.status.success(), "{}", said(&output));
            for copy in &to[..copies] {
                assert!(fs::read(copy).unwrap() == content, "{size} to {copies}");
            }
            // One for each block, and one that syncs.
            let groups = size.div_ceil(BLOCK) + 1;
            let line = format!("{size} bytes to {copies} files, in {groups} groups\n");
            assert_eq!(said(&output), line);
        }
    }

    let full = [to[0].clone(), "/dev/full".into(), to[1].clone()];
    let output = example(&from, &full);
    assert_eq!(output.status.code(), Some(1));
    let expected = "copying: No space left on device\n";
    assert_eq!(said(&output), expected);
}
