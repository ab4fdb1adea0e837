// SPDX-License-Identifier: GPL-2.0-only
//! Copies one file to several places at once, with SQE groups.
//!
//! ```text
//! copy SOURCE DEST... [--block 256K] [--depth 8]
//! ```
//!
//! Written to be read: this is the shortest useful program that shows what a group
//! is good for.
//!
//! To copy a block, it has to be read before it can be written, and it can be
//! written to all destinations at the same time. Without groups there are two ways
//! to say that to io_uring. Read, wait for the CQE, then submit the writes: two
//! rounds through the application for each block. Or link the read to the writes:
//! one submission, but a chain is a sequence, so the writes wait for each other. A
//! group is just the shape that is needed:
//!
//! ```text
//!   leader    READ_FIXED   block 7 of SOURCE  ->  buffer 3
//!                  |
//!                  | has read all of it
//!        +---------+---------+
//!        v         v         v                   side by side
//!   member 1   member 2   member 3               WRITE_FIXED buffer 3 -> block 7
//!        |         |         |                   of a destination each
//!        +---------+---------+
//!                  | all have written
//!                  v
//!        the leader's CQE: block 7 is done
//! ```
//!
//! The members have `CQE_SKIP_SUCCESS`. So there is one CQE for a block, it means
//! "read, and written everywhere", and its arrival says that the buffer is free for
//! another block. Only when something goes wrong are there more CQEs, and they say
//! what: see [`Failure`].

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::group::{Group, Outcome, Progress, Tracker};
use harness::sqe::Support;
use io_uring::{opcode, types, IoUring};
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: copy SOURCE DEST... [--block 256K] [--depth 8]

  SOURCE       the file to copy
  DEST         where to; as many as you like
  --block N    bytes that one group copies (K and M are understood)
  --depth N    groups in flight";

/// Exit status: the copies are right.
const GOOD: u8 = 0;
/// Exit status: a copy could not be made, or differs from its source.
const BAD: u8 = 1;
/// Exit status: it was not tried, for lack of groups or of arguments that fit.
const NOT_TRIED: u8 = 2;

struct Args {
    source: PathBuf,
    copies: Vec<PathBuf>,
    block: usize,
    depth: usize,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("copy: {error}\n{USAGE}");
            return NOT_TRIED.into();
        }
    };
    // Asked before anything is touched. A kernel that is too old even for the
    // question has no groups either.
    if !Support::query().is_ok_and(|support| support.groups()) {
        eprintln!("copy: this kernel has no SQE groups (IORING_FEAT_SQE_GROUP)");
        return NOT_TRIED.into();
    }
    match run(&args) {
        Ok(true) => GOOD.into(),
        Ok(false) => BAD.into(),
        Err(error) => {
            eprintln!("copy: {error}");
            BAD.into()
        }
    }
}

/// Copies, says what that took, and compares. `false` if a copy differs.
fn run(args: &Args) -> Result<bool> {
    let files = Files::open(args)?;
    let start = Instant::now();
    let stats = copy(&files, args)?;
    report(&files, &stats, start.elapsed());
    compare(&files)
}

/// What is copied to where.
struct Files {
    source: File,
    source_path: PathBuf,
    size: u64,
    copies: Vec<(File, PathBuf)>,
}

impl Files {
    fn open(args: &Args) -> Result<Self> {
        let said = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let source = File::open(&args.source).map_err(|error| said(&args.source, error))?;
        let metadata = source
            .metadata()
            .map_err(|error| said(&args.source, error))?;
        if !metadata.is_file() {
            return Err(format!("{} is no regular file", args.source.display()).into());
        }
        let mut seen = vec![(metadata.dev(), metadata.ino())];
        let mut copies = Vec::new();
        for path in &args.copies {
            // Looked at before it is opened, for that empties it.
            if let Ok(metadata) = fs::metadata(path) {
                if seen.contains(&(metadata.dev(), metadata.ino())) {
                    return Err(format!("{} is there twice", path.display()).into());
                }
            }
            let file = File::create(path).map_err(|error| said(path, error))?;
            let metadata = file.metadata().map_err(|error| said(path, error))?;
            seen.push((metadata.dev(), metadata.ino()));
            copies.push((file, path.clone()));
        }
        Ok(Self {
            source,
            source_path: args.source.clone(),
            size: metadata.len(),
            copies,
        })
    }
}

/// What it took.
#[derive(Default)]
struct Stats {
    blocks: u64,
    sqes: u64,
    cqes: u64,
    enters: u64,
}

/// A part of the file.
#[derive(Clone, Copy)]
struct Block {
    offset: u64,
    len: u32,
}

/// The blocks of a file. The last one has just the length that is left: a read that
/// gives less than it was asked for has failed, and a group whose leader has failed
/// does not run its members.
fn blocks(size: u64, block: usize) -> impl Iterator<Item = Block> {
    let block = block as u64;
    (0..size.div_ceil(block)).map(move |n| Block {
        offset: n * block,
        len: (size - n * block).min(block) as u32,
    })
}

/// A group in flight, and the block that it copies.
struct InFlight {
    block: Block,
    tracker: Tracker,
}

fn copy(files: &Files, args: &Args) -> Result<Stats> {
    let mut stats = Stats::default();
    let group_len = 1 + files.copies.len();

    // As many buffers as groups in flight; the number of the buffer is that of the
    // group, too.
    let mut memory = vec![0u8; args.block * args.depth];
    let buffers: Vec<*mut u8> = memory
        .chunks_mut(args.block)
        .map(|chunk| chunk.as_mut_ptr())
        .collect();

    // Room for all groups at once, so that a push cannot fail for long.
    let entries = (group_len * args.depth).next_power_of_two();
    let mut ring: IoUring = IoUring::builder()
        // Only this thread submits, and it runs completions when it waits anyway.
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::try_from(entries)?)
        .map_err(|error| format!("no ring of {entries} entries: {error}"))?;

    // Registered, the buffers are pinned once, and not for each read and write.
    let iovecs: Vec<_> = buffers
        .iter()
        .map(|&ptr| libc::iovec {
            iov_base: ptr.cast(),
            iov_len: args.block,
        })
        .collect();
    // SAFETY: `memory` is not freed before the kernel is done with it: from here on,
    // this function returns only when no group is in flight.
    unsafe { ring.submitter().register_buffers(&iovecs) }
        .map_err(|error| format!("cannot register {} buffers: {error}", iovecs.len()))?;

    let mut in_flight: Vec<Option<InFlight>> = (0..args.depth).map(|_| None).collect();
    let mut free: Vec<usize> = (0..args.depth).collect();
    let mut todo = blocks(files.size, args.block).peekable();
    let mut failure: Option<Box<dyn Error>> = None;
    let mut meter = Meter::new(files.size);

    loop {
        // Fill the ring with groups, one for each free buffer. After a failure, only
        // what is on its way is waited for.
        while failure.is_none() && todo.peek().is_some() {
            let Some(slot) = free.pop() else { break };
            let Some(block) = todo.next() else { break };
            match start(&mut ring, files, block, slot, buffers[slot]) {
                Ok(group) => {
                    stats.sqes += group_len as u64;
                    in_flight[slot] = Some(group);
                }
                Err(error) => {
                    free.push(slot);
                    failure = Some(error);
                }
            }
        }
        let waiting = args.depth - free.len();
        if waiting == 0 {
            break;
        }

        // One system call submits the new groups and waits for some of those that
        // are on their way. At least as many CQEs come as there are groups, so this
        // does not wait for what does not come.
        stats.enters += 1;
        match ring.submit_and_wait(waiting.div_ceil(2)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Buffers are still in use: there is nowhere to return to.
            Err(error) => Abandon::because(&error),
        }

        for cqe in ring.completion() {
            stats.cqes += 1;
            let slot = slot_of(cqe.user_data());
            let Some(group) = &mut in_flight[slot] else {
                continue;
            };
            // A member that failed comes before its leader; the leader comes last,
            // and then the outcome is known.
            let progress = (group.tracker).feed(cqe.user_data(), cqe.result(), cqe.flags());
            if let Progress::Done(outcome) = progress {
                let block = group.block;
                in_flight[slot] = None;
                free.push(slot);
                stats.blocks += 1;
                meter.add(block.len);
                if let Some(what) = Failure::of(files, block, &outcome) {
                    failure.get_or_insert(what.into());
                }
            }
        }
    }
    meter.end();
    match failure {
        Some(failure) => Err(failure),
        None => Ok(stats),
    }
}

/// Puts the group that copies one block into the submission queue.
fn start(
    ring: &mut IoUring,
    files: &Files,
    block: Block,
    slot: usize,
    buffer: *mut u8,
) -> Result<InFlight> {
    let group = copy_block(files, block, slot, buffer)?;
    let tracker = group.tracker();
    // SAFETY: The group uses buffer `slot`, which no other group does until the
    // leader's CQE gives it back, and which lives as long as groups are in flight.
    unsafe { group.push(&mut ring.submission()) }?;
    Ok(InFlight { block, tracker })
}

/// The group that copies one block.
fn copy_block(files: &Files, block: Block, slot: usize, buffer: *mut u8) -> Result<Group> {
    let source = types::Fd(files.source.as_raw_fd());
    let index = slot as u16;

    // The leader runs first, and alone.
    let read = opcode::ReadFixed::new(source, buffer, block.len, index)
        .offset(block.offset)
        .build()
        .user_data(user_data(slot, 0));

    // The members run when it has succeeded. They do not wait for each other.
    let writes = files.copies.iter().zip(1..).map(|((copy, _), member)| {
        let copy = types::Fd(copy.as_raw_fd());
        opcode::WriteFixed::new(copy, buffer, block.len, index)
            .offset(block.offset)
            .build()
            .user_data(user_data(slot, member))
    });

    let group = Group::builder(read)
        .members(writes)
        // Nothing to say, unless a write fails.
        .members_skip_success()
        .build()?;
    Ok(group)
}

/// Which group, and which request of it.
fn user_data(slot: usize, request: u64) -> u64 {
    (slot as u64) << 32 | request
}

fn slot_of(user_data: u64) -> usize {
    (user_data >> 32) as usize
}

/// What went wrong with a block.
///
/// The results of a group tell what failed by itself. If a write failed, it has an
/// error, or a length that is too short, and all others have done their work. If the
/// read failed, nothing was written: members that were not run have `-EIO`, which is
/// not theirs.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn of(files: &Files, block: Block, outcome: &Outcome) -> Option<Self> {
        let Block { offset, len } = block;
        let whole = Some(len as i32);
        if outcome.leader != whole {
            let path = files.source_path.display();
            let what = describe(outcome.leader, "read", len);
            return Some(Self(format!("{path}: at {offset}: {what}")));
        }
        // No CQE: the member succeeded.
        let failed: Vec<_> = outcome
            .members
            .iter()
            .zip(&files.copies)
            .filter(|(result, _)| result.is_some() && **result != whole)
            .map(|(result, (_, path))| {
                let what = describe(*result, "wrote", len);
                format!("{}: at {offset}: {what}", path.display())
            })
            .collect();
        (!failed.is_empty()).then(|| Self(failed.join("; ")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failure {}

fn describe(result: Option<i32>, did: &str, len: u32) -> String {
    match result {
        Some(error) if error < 0 => io::Error::from_raw_os_error(-error).to_string(),
        Some(count) => format!("{did} {count} of {len} bytes"),
        None => "no result".to_owned(),
    }
}

/// The way out when groups are in flight that cannot be waited for: their buffers
/// must not be freed, so the process ends as it is.
struct Abandon;

impl Abandon {
    fn because(error: &io::Error) -> ! {
        eprintln!("copy: io_uring_enter: {error}");
        std::process::exit(BAD.into())
    }
}

/// How far it is, for copies that take long: on a terminal often, and in place; into
/// a file seldom, as lines.
struct Meter {
    total: u64,
    done: u64,
    shown: Instant,
    terminal: bool,
    spoke: bool,
}

impl Meter {
    fn new(total: u64) -> Self {
        Self {
            total,
            done: 0,
            shown: Instant::now(),
            terminal: io::stderr().is_terminal(),
            spoke: false,
        }
    }

    fn add(&mut self, bytes: u32) {
        self.done += u64::from(bytes);
        let often = if self.terminal { 200 } else { 5000 };
        if self.shown.elapsed() < Duration::from_millis(often) {
            return;
        }
        self.shown = Instant::now();
        self.spoke = true;
        let line = format!(
            "copied {} of {} MiB ({} %)",
            self.done >> 20,
            self.total >> 20,
            self.done * 100 / self.total.max(1)
        );
        let (start, end) = if self.terminal {
            ("\r", "")
        } else {
            ("", "\n")
        };
        eprint!("{start}{line}{end}");
        let _ = io::stderr().flush();
    }

    fn end(&self) {
        if self.terminal && self.spoke {
            eprint!("\r\x1b[K");
        }
    }
}

fn report(files: &Files, stats: &Stats, elapsed: Duration) {
    let Stats {
        blocks,
        sqes,
        cqes,
        enters,
    } = *stats;
    let copies = files.copies.len() as u64;
    // A read and a write for each copy, of each block, and the read that says that
    // there is no more.
    let loop_calls = blocks * (1 + copies) + 1;
    let rows = [
        ("bytes", files.size, "to each copy"),
        ("copies", copies, ""),
        ("blocks", blocks, "one group each"),
        ("SQEs", sqes, "a read, and a write for each copy"),
        ("CQEs", cqes, "one a group: the members skip theirs"),
        ("io_uring_enter", enters, "system calls"),
        ("read and write", loop_calls, "would have been needed"),
    ];
    for (name, number, what) in rows {
        let line = format!("{name:<16}{number:>14}   {what}");
        println!("{}", line.trim_end());
    }
    println!(
        "{:<16}{:>12.2} s   {:.1} MiB/s read and {:.1} MiB/s written",
        "elapsed",
        elapsed.as_secs_f64(),
        rate(files.size, elapsed),
        rate(files.size * copies, elapsed)
    );
}

fn rate(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / elapsed.as_secs_f64().max(1e-9)
}

/// Reads everything back, shows the checksums, and says whether they are the same.
fn compare(files: &Files) -> Result<bool> {
    let wanted = checksum(&files.source_path)?;
    println!("{wanted}  {}", files.source_path.display());
    let mut same = true;
    for (_, path) in &files.copies {
        let got = checksum(path)?;
        println!("{got}  {}", path.display());
        if got != wanted {
            eprintln!("copy: {} differs from its source", path.display());
            same = false;
        }
    }
    Ok(same)
}

fn checksum(path: &Path) -> Result<String> {
    let said = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(said)?;
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut part).map_err(said)?;
        if count == 0 {
            break;
        }
        hash.update(&part[..count]);
    }
    let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex)
}

fn parse(args: impl Iterator<Item = std::ffi::OsString>) -> Result<Args> {
    let (mut block, mut depth) = (256 << 10, 8);
    let mut paths = Vec::new();
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut number = |name: &str| -> Result<usize> {
            let value = args.next().ok_or(format!("{name} needs a number"))?;
            let value = value.to_string_lossy();
            size(&value).ok_or(format!("{name} {value}: no number that fits").into())
        };
        match arg.to_str() {
            Some("--block") => block = number("--block")?,
            Some("-h" | "--help") => {
                println!("{USAGE}");
                std::process::exit(GOOD.into());
            }
            Some("--depth") => depth = number("--depth")?,
            Some(option) if option.starts_with("--") => {
                return Err(format!("{option} is not known").into());
            }
            _ => paths.push(PathBuf::from(arg)),
        }
    }
    // How many buffers can be registered; and a read takes no more than 2 GiB.
    if depth > 1 << 14 {
        return Err("--depth: at most 16384".into());
    }
    if block.checked_mul(depth).is_none_or(|bytes| bytes > 1 << 30) {
        return Err("the buffers, block times depth, take more than 1024M".into());
    }
    if paths.len() < 2 {
        return Err("a source and a destination are needed".into());
    }
    let source = paths.remove(0);
    // What a submission queue can hold.
    if (1 + paths.len()) * depth > 1 << 15 {
        return Err("too many copies for this depth: 32768 SQEs at a time".into());
    }
    Ok(Args {
        source,
        copies: paths,
        block,
        depth,
    })
}

/// A number above 0, in bytes, KiB or MiB.
fn size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix(['K', 'k', 'M', 'm']) {
        Some(digits) if text.ends_with(['K', 'k']) => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    let number: usize = digits.parse().ok()?;
    number.checked_mul(unit).filter(|&number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_file_and_no_more() {
        for (size, block) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (8, 4)] {
            let mut end = 0;
            for part in blocks(size, block) {
                assert_eq!(part.offset, end);
                assert!(part.len > 0 && part.len as usize <= block);
                end += u64::from(part.len);
            }
            assert_eq!(end, size);
        }
    }

    #[test]
    fn sizes_are_understood() {
        assert_eq!(size("256K"), Some(256 << 10));
        assert_eq!(size("2m"), Some(2 << 20));
        assert_eq!(size("7"), Some(7));
        for bad in ["", "0", "K", "-1", "1G", "99999999999999999999"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn user_data_names_group_and_request() {
        assert_eq!(slot_of(user_data(5, 3)), 5);
        assert_ne!(user_data(5, 3), user_data(5, 4));
    }
}
