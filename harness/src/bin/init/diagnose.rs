// SPDX-License-Identifier: GPL-2.0-only
//! What the processes of the guest are doing, from /proc: the only chance to learn
//! where a test hangs.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The numbers among the names in a directory, in order.
fn numbers(dir: &Path) -> Vec<libc::pid_t> {
    let mut numbers: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// One thread: its name, state, system call and kernel stack.
pub(crate) fn task(pid: libc::pid_t, tid: libc::pid_t) -> String {
    let dir = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
    let status = read(dir.join("status"));
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .unwrap_or("")
        .trim();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "  {pid}/{tid} {}: {state}, in {}, system call {}",
        read(dir.join("comm")),
        read(dir.join("wchan")),
        read(dir.join("syscall")),
    );
    for line in read(dir.join("stack")).lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// The state of a process' rings, as io_uring shows it in fdinfo.
fn rings(pid: libc::pid_t) -> String {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let mut text = String::new();
    for fd in numbers(&dir.join("fd")) {
        let link = fs::read_link(dir.join(format!("fd/{fd}"))).unwrap_or_default();
        if link.as_os_str() == "anon_inode:[io_uring]" {
            let _ = writeln!(text, "  ring {fd}:");
            for line in read(dir.join(format!("fdinfo/{fd}"))).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

/// All processes but init and the kernel's own, thread by thread.
pub(crate) fn processes() -> String {
    let mut text = String::new();
    for pid in numbers(Path::new("/proc")) {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        // Kernel threads have no program, and neither has a zombie.
        if pid == 1 || fs::read_link(dir.join("exe")).is_err() {
            continue;
        }
        for tid in numbers(&dir.join("task")) {
            text += &task(pid, tid);
        }
        text += &rings(pid);
    }
    text
}

/// The kernel workers that tear down a ring now. `+` is the kernel's sign for a
/// worker that is at it, `-` for one that was.
pub(crate) fn ring_exit_workers() -> Vec<libc::pid_t> {
    numbers(Path::new("/proc"))
        .into_iter()
        .filter(|pid| read(PathBuf::from(format!("/proc/{pid}/comm"))).contains("+iou_exit"))
        .collect()
}
