// SPDX-License-Identifier: GPL-2.0-only
//! Requests on files and sockets, and the job that groups are for: read a block, and
//! write it to several files.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

use harness::{group::Group, null_blk::NullBlk, protocol::DISK_DIR, ring::RingMode};
use io_uring::{
    opcode,
    squeue::{Entry, Flags},
    types,
};

use crate::{
    clock::Clock,
    meter::{measure, Rounds, Turn},
    requests::{chain, BATCHES, ENTRIES},
    ring::{name, Ring, MODES},
    Result,
};

/// The image of an ext4 file system that the host has attached.
const IMAGE: &str = "/dev/vda";

/// A read or a write that is not about moving bytes.
const SMALL: usize = 512;

/// How long the block device takes, in nanoseconds.
const LATENCY: u32 = 10_000;

/// Blocks, in bytes.
const BLOCKS: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Destinations.
const COPIES: [u32; 5] = [1, 2, 4, 8, 16];

/// Memory as O_DIRECT wants it.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; 4096]);

/// A block in memory.
struct Block(Vec<Page>);

impl Block {
    fn new(len: usize, fill: u8) -> Self {
        Self(vec![Page([fill; 4096]); len.div_ceil(size_of::<Page>())])
    }

    fn as_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().flat_map(|page| page.0)
    }
}

/// One block to several files, everywhere and in every way.
pub(crate) fn copies(disk: &Disk, groups: bool) -> Result<()> {
    let places = [
        Place {
            name: "tmpfs",
            dir: "/tmp".into(),
            flags: 0,
        },
        Place {
            name: "ext4",
            dir: disk.dir.clone(),
            flags: 0,
        },
        Place {
            name: "direct",
            dir: disk.dir.clone(),
            flags: libc::O_DIRECT,
        },
    ];
    for place in &places {
        for block in BLOCKS {
            for mode in [RingMode::DeferTaskrun, RingMode::Default] {
                for copies in COPIES {
                    Copy::new(place, block, copies)?.measure(mode, groups)?;
                }
            }
        }
    }
    Ok(())
}

/// A file system on null_blk, which keeps what is written in memory.
pub(crate) struct Disk {
    dir: PathBuf,
    _device: NullBlk,
}

impl Disk {
    /// Puts the host's image on the device, but for what is zero, and mounts it.
    pub(crate) fn mount() -> Result<Self> {
        let image = File::open(IMAGE).map_err(|error| format!("{IMAGE}: {error}"))?;
        let len = io::Seek::seek(&mut &image, io::SeekFrom::End(0))?;
        let device = NullBlk::new(&[
            ("memory_backed", 1),
            ("size", u32::try_from(len >> 20)?),
            ("irqmode", 2),
            ("completion_nsec", LATENCY),
        ])?;
        let target = OpenOptions::new().write(true).open(device.node())?;
        let mut chunk = vec![0; 64 << 10];
        let mut at = 0;
        while at < len {
            let part = chunk.len().min(usize::try_from(len - at)?);
            image.read_exact_at(&mut chunk[..part], at)?;
            if chunk[..part].iter().any(|byte| *byte != 0) {
                target.write_all_at(&chunk[..part], at)?;
            }
            at += part as u64;
        }
        target.sync_all()?;
        drop(target);

        fs::create_dir_all(DISK_DIR)?;
        let source = CString::new(device.node().as_os_str().as_bytes())?;
        let dir = CString::new(DISK_DIR)?;
        // SAFETY: C strings that live until the call returns, and no data.
        let status = unsafe {
            libc::mount(
                source.as_ptr(),
                dir.as_ptr(),
                c"ext4".as_ptr(),
                libc::MS_NOATIME,
                std::ptr::null(),
            )
        };
        if status != 0 {
            let error = io::Error::last_os_error();
            return Err(format!("cannot mount {}: {error}", device.node().display()).into());
        }
        Ok(Self {
            dir: DISK_DIR.into(),
            _device: device,
        })
    }
}

/// Sends of 64 bytes on a UNIX socket, then receives of the same.
pub(crate) fn sockets() -> Result<()> {
    const LEN: u32 = 64;
    let (near, far) = UnixStream::pair()?;
    let out = [1_u8; LEN as usize];
    let mut back = [0_u8; LEN as usize];
    let (near, far) = (types::Fd(near.as_raw_fd()), types::Fd(far.as_raw_fd()));
    let send = opcode::Send::new(near, out.as_ptr(), LEN).build();
    let receive = opcode::Recv::new(far, back.as_mut_ptr(), LEN).build();
    for mode in MODES {
        for size in BATCHES {
            let sends = vec![send.clone(); size as usize];
            let receives = vec![receive.clone(); size as usize];
            let mut ring = Ring::new(mode, ENTRIES)?;
            let turn = Turn {
                what: "socket/plain",
                ring: name(mode),
                size,
                requests: 2 * size,
                clock: Clock::Machine,
                rounds: Rounds::Few,
            };
            measure(&turn, || {
                ring.turn(&sends, sends.len())?;
                ring.turn(&receives, receives.len())?;
                Ok(2)
            })?;
        }
    }
    Ok(())
}

/// Reads and writes of a file on ext4 that is in the page cache. ext4 never writes
/// without the leave to wait: each write goes through a worker of io-wq.
pub(crate) fn small(disk: &Disk) -> Result<()> {
    let file = open(&disk.dir.join("small"), 0)?;
    let mut block = Block::new(SMALL, 1);
    file.write_all_at(&[1; SMALL], 0)?;
    let fd = types::Fd(file.as_raw_fd());
    let read = opcode::Read::new(fd, block.as_ptr(), SMALL as u32).build();
    let write = opcode::Write::new(fd, block.as_ptr(), SMALL as u32).build();
    for mode in MODES {
        for size in BATCHES {
            for (what, sqe) in [("read/plain", &read), ("write/plain", &write)] {
                let sqes = vec![sqe.clone(); size as usize];
                let mut ring = Ring::new(mode, ENTRIES)?;
                let turn = Turn {
                    what,
                    ring: name(mode),
                    size,
                    requests: size,
                    clock: Clock::Machine,
                    rounds: if what == "write/plain" {
                        Rounds::Single
                    } else {
                        Rounds::Few
                    },
                };
                measure(&turn, || ring.turn(&sqes, sqes.len()).map(|()| 1))?;
            }
        }
    }
    Ok(())
}

fn open(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path)
}

/// Where copies are made, and how the files are opened.
struct Place {
    name: &'static str,
    dir: PathBuf,
    flags: libc::c_int,
}

/// One block that is to be copied.
struct Copy<'a> {
    place: &'a Place,
    len: usize,
    source: File,
    targets: Vec<File>,
    block: Block,
}

impl<'a> Copy<'a> {
    fn new(place: &'a Place, len: usize, copies: u32) -> Result<Self> {
        let source = place.dir.join("source");
        // Not past the cache: this is only to have the files there at full length.
        let whole = |path: &Path, fill: u8| -> Result<File> {
            let file = open(path, 0)?;
            file.write_all_at(&vec![fill; len], 0)?;
            file.sync_all()?;
            Ok(open(path, place.flags)?)
        };
        let targets = (0..copies)
            .map(|number| whole(&place.dir.join(format!("copy{number}")), 0))
            .collect::<Result<_>>()?;
        Ok(Self {
            place,
            len,
            source: whole(&source, 0xa5)?,
            targets,
            block: Block::new(len, 0),
        })
    }

    fn read(&mut self) -> Entry {
        let fd = types::Fd(self.source.as_raw_fd());
        opcode::Read::new(fd, self.block.as_ptr(), self.len as u32).build()
    }

    fn writes(&mut self) -> Vec<Entry> {
        let buffer = self.block.as_ptr();
        self.targets
            .iter()
            .map(|file| {
                let fd = types::Fd(file.as_raw_fd());
                opcode::Write::new(fd, buffer, self.len as u32).build()
            })
            .collect()
    }

    /// In each way, as one would write it: no more CQEs than are needed to know that
    /// all is done.
    fn measure(mut self, mode: RingMode, groups: bool) -> Result<()> {
        let read = self.read();
        let writes = self.writes();
        let all: Vec<_> = [read.clone()].into_iter().chain(writes.clone()).collect();

        let (source, targets) = (
            self.source.as_raw_fd(),
            self.targets.iter().map(File::as_raw_fd).collect::<Vec<_>>(),
        );
        let (buffer, len) = (self.block.as_ptr(), self.len);
        if mode == RingMode::DeferTaskrun {
            self.way("loop", "none", || {
                call(|| {
                    // SAFETY: The block is as long as is said.
                    unsafe { libc::pread(source, buffer.cast(), len, 0) }
                })?;
                for target in &targets {
                    call(|| {
                        // SAFETY: As above.
                        unsafe { libc::pwrite(*target, buffer.cast(), len, 0) }
                    })?;
                }
                Ok(1 + targets.len() as u32)
            })?;
        }

        let mut ring = Ring::new(mode, ENTRIES)?;
        self.way("two", name(mode), || {
            ring.turn(std::slice::from_ref(&read), 1)?;
            ring.turn(&writes, writes.len())?;
            Ok(2)
        })?;

        let mut sqes = chain(all);
        if let Some((_, before)) = sqes.split_last_mut() {
            for sqe in before {
                *sqe = sqe.clone().flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
            }
        }
        self.way("linked", name(mode), || ring.turn(&sqes, 1).map(|()| 1))?;

        if groups {
            let sqes = Group::builder(read)
                .members(writes)
                .members_skip_success()
                .build()?
                .into_entries();
            self.way("group", name(mode), || ring.turn(&sqes, 1).map(|()| 1))?;
        }
        Ok(())
    }

    fn way(&self, way: &str, ring: &str, run: impl FnMut() -> io::Result<u32>) -> Result<()> {
        let Self {
            place,
            len,
            targets,
            ..
        } = self;
        let copies = targets.len() as u32;
        // What the last way left there would hide that this one does nothing.
        let zeroes = Block::new(*len, 0);
        let bytes: Vec<_> = zeroes.bytes().take(*len).collect();
        for target in self.paths() {
            open(&target, 0)?.write_all_at(&bytes, 0)?;
        }
        measure(
            &Turn {
                what: &format!("copy/{}/{}K/{way}", place.name, len >> 10),
                ring,
                size: copies,
                requests: copies + 1,
                clock: Clock::Process,
                rounds: Rounds::Few,
            },
            run,
        )?;
        for target in self.paths() {
            if fs::read(&target)?.iter().any(|byte| *byte != 0xa5) {
                return Err(format!("{} is no copy, made by {way}", target.display()).into());
            }
        }
        Ok(())
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..self.targets.len()).map(|number| self.place.dir.join(format!("copy{number}")))
    }
}

/// A read or write that has to be whole.
fn call(run: impl FnOnce() -> isize) -> io::Result<()> {
    match run() {
        ..0 => Err(io::Error::last_os_error()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
