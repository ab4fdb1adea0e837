// SPDX-License-Identifier: GPL-2.0-only
//! Rings, pipes and sockets for the tests.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use harness::pace::Patience;
use harness::ring::{Ring, RingMode, Setup, PATIENCE};
use harness::skip;
use harness::sqe::Support;

/// A ring of 64 entries in this mode.
pub(crate) fn ring(mode: RingMode) -> Ring {
    build(Setup::new(mode))
}

/// A ring on a kernel with groups, or the test is skipped. A kernel with groups
/// has every mode.
pub(crate) fn build(setup: Setup) -> Ring {
    let groups = Support::query().is_ok_and(|support| support.groups());
    if !groups {
        skip!("the kernel has no SQE groups");
    }
    let ring = setup
        .build()
        .unwrap_or_else(|error| panic!("{setup:?}: {error}"));
    assert!(
        ring.has_groups(),
        "the query knows of groups and the ring does not"
    );
    ring
}

pub(crate) struct Pipe {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> Self {
        let mut fds = [-1; 2];
        // SAFETY: The kernel writes two descriptors.
        let ret = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(ret, 0, "pipe2: {}", std::io::Error::last_os_error());
        // SAFETY: Both are new, and nobody else's.
        let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Self { read, write }
    }

    /// Writing never waits; reading does.
    pub(crate) fn nonblocking(&self) {
        // SAFETY: No pointers.
        let ret = unsafe { libc::fcntl(self.write.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(ret, 0, "fcntl: {}", std::io::Error::last_os_error());
    }

    /// Puts bytes in; there is room for what tests put.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        file(&self.write)
            .write_all(bytes)
            .expect("writing to a pipe");
    }

    /// How many bytes are in it.
    pub(crate) fn filled(&self) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        let ret = unsafe { libc::ioctl(self.read.as_raw_fd(), libc::FIONREAD, &mut count) };
        assert_eq!(ret, 0, "FIONREAD: {}", std::io::Error::last_os_error());
        count as usize
    }

    /// Takes out what is in it.
    pub(crate) fn drain(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.filled()];
        file(&self.read)
            .read_exact(&mut bytes)
            .expect("reading from a pipe");
        bytes
    }
}

/// A descriptor as something with methods, without giving it away.
fn file(fd: &impl AsFd) -> File {
    let fd = fd.as_fd().try_clone_to_owned();
    File::from(fd.expect("duplicating a descriptor"))
}

/// Waits, within [`PATIENCE`], for something that happens beside the ring.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut patience = Patience::new(PATIENCE);
    while !is_so() {
        assert!(!patience.is_over(), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What `poll` says of a descriptor at once.
pub(crate) fn poll_now(fd: &impl AsRawFd, events: libc::c_short) -> libc::c_short {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: One element.
    let ret = unsafe { libc::poll(&mut poll, 1, 0) };
    assert!(ret >= 0, "poll: {}", std::io::Error::last_os_error());
    poll.revents
}

/// Two UDP sockets on the loopback, the first connected to the second.
pub(crate) fn udp_pair() -> (std::net::UdpSocket, std::net::UdpSocket) {
    let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("binding a UDP socket");
    let (from, to) = (bind(), bind());
    from.connect(to.local_addr().expect("its address"))
        .expect("connecting a UDP socket");
    (from, to)
}

/// Executes a program that does next to nothing. Only by system calls: for processes that
/// have just been forked, too.
pub(crate) fn become_another_program() -> ! {
    let path = c"/proc/self/exe";
    let list = [path.as_ptr(), c"--list".as_ptr(), std::ptr::null()];
    // SAFETY: C strings, and a list that ends with null. The new program lists the tests,
    // to nowhere. If it cannot be had, this process ends all the same.
    unsafe {
        let fd = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY);
        libc::dup2(fd, 1);
        libc::execv(path.as_ptr(), list.as_ptr());
        libc::_exit(1)
    }
}

/// Workers of io_uring that this process has.
pub(crate) fn workers() -> usize {
    worker_files("comm").count()
}

/// What a file in `/proc` says of each of these workers.
pub(crate) fn worker_files(name: &'static str) -> impl Iterator<Item = String> {
    std::fs::read_dir("/proc/self/task")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(move |task| {
            let of = |name| std::fs::read_to_string(task.path().join(name)).ok();
            of("comm")?.starts_with("iou-wrk").then(|| of(name))?
        })
}

/// Requests of a ring that have armed a poll, and timers of none: until then a worker has
/// them, where they can be told to stop and need not hear it.
pub(crate) fn polls(ring: &Ring) -> usize {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.fd()))
        .expect("/proc is mounted");
    info.lines()
        .skip_while(|line| *line != "PollList:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .count()
}

/// What the ring gives to workers is done by one, one after the other.
pub(crate) fn one_worker(ring: &Ring) {
    ring.submitter()
        .register_iowq_max_workers(&mut [1, 1])
        .expect("limiting the number of workers");
}

/// Opens a block device past the page cache, or the test is skipped.
pub(crate) fn open_direct(device: &Path) -> File {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(device);
    match opened {
        Ok(device) => device,
        Err(error) => skip!("{}: {error}", device.display()),
    }
}

/// A block device of null_blk that behaves as a test wants it, as long as this lives.
pub(crate) struct NullBlk(harness::null_blk::NullBlk);

impl NullBlk {
    /// With these attributes, or the test is skipped.
    pub(crate) fn new(attributes: &[(&str, u32)]) -> Self {
        Self::with_bad_sectors(attributes, None)
    }

    /// The same, with sectors that cannot be read or written: from, and to.
    pub(crate) fn with_bad_sectors(attributes: &[(&str, u32)], bad: Option<(u32, u32)>) -> Self {
        match harness::null_blk::NullBlk::with_bad_sectors(attributes, bad) {
            Ok(made) => Self(made),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => skip!("{error}"),
            Err(error) => panic!("making a device of null_blk: {error}"),
        }
    }

    pub(crate) fn open(&self) -> File {
        open_direct(self.0.node())
    }

    /// Writes that were merged with others before the device saw them. The file is
    /// described in Documentation/block/stat.rst.
    pub(crate) fn write_merges(&self) -> u64 {
        let name = self.0.node().file_name().expect("a device has a name");
        let stat = Path::new("/sys/block").join(name).join("stat");
        let stat = std::fs::read_to_string(stat).expect("statistics of the device");
        let merges = stat.split_whitespace().nth(5).expect("write merges");
        merges.parse().expect("a number")
    }
}

/// While this lives, the kernel finds no memory for requests beyond those that a ring
/// has at hand.
pub(crate) struct NoRequests(());

impl NoRequests {
    const CACHE: &'static str = "/sys/kernel/slab/io_kiocb/failslab";
    const FAULT: &'static str = "/sys/kernel/debug/failslab";

    /// Or the test is skipped.
    pub(crate) fn new() -> Self {
        let fault = Path::new(Self::FAULT);
        if !fault.exists() || !Path::new(Self::CACHE).exists() {
            skip!("the kernel cannot inject faults");
        }
        let settings = [
            ("interval", "1"),
            ("space", "0"),
            ("times", "-1"),
            ("verbose", "0"),
            ("task-filter", "N"),
            ("ignore-gfp-wait", "N"),
            ("cache-filter", "Y"),
            // Last, or all of the system would be without memory for a moment.
            ("probability", "100"),
        ];
        std::fs::write(Self::CACHE, "1").expect("choosing the cache of requests");
        for (name, value) in settings {
            std::fs::write(fault.join(name), value)
                .unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
        }
        Self(())
    }
}

impl Drop for NoRequests {
    fn drop(&mut self) {
        let _ = std::fs::write(Path::new(Self::FAULT).join("probability"), "0");
        let _ = std::fs::write(Self::CACHE, "0");
    }
}
