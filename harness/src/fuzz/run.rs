// SPDX-License-Identifier: GPL-2.0-only
//! Runs programs, and asks the model whether what came of them is allowed.

use std::cell::RefCell;
use std::collections::{btree_map, BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use io_uring::opcode;
use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, TimeoutFlags, Timespec};
use model::accept::{Cancel, Case, Ending, Outside, Rejection, Request, Seen, Target, NEVER};
use model::form::{self, Asked, Bad, Memory};
use model::Link;

use super::program::{End, LinkFlag, Op, Program, Source, Step, Submitter, Timer, What};
use crate::pace::Patience;
use crate::protocol::SLOWDOWN_ENV;
use crate::ring::{
    submit_some, Buffers, Cqe, Ring, RingMode, Setup, SyncCancel, IORING_REGISTER_ENABLE_RINGS,
    IORING_REGISTER_PBUF_RING, IORING_REGISTER_RING_FDS, IORING_REGISTER_SYNC_CANCEL,
    IORING_UNREGISTER_RING_FDS, MARKER,
};
use crate::sqe::{ExtEntry, RawSqe, Support, IOSQE_EXT_SQE_GROUP, IOSQE_HAS_EXT_FLAGS};

const IORING_NOP_INJECT_RESULT: u32 = 1 << 0;
const IORING_NOP_TW: u32 = 1 << 4;
const IORING_ASYNC_CANCEL_ALL: u32 = 1 << 0;
const IORING_ASYNC_CANCEL_ANY: u32 = 1 << 2;
const IORING_ASYNC_CANCEL_OP: u32 = 1 << 5;
const IORING_CQE_F_BUFFER: u32 = 1 << 0;
const IORING_CQE_F_MORE: u32 = 1 << 1;
const IORING_CQE_F_NOTIF: u32 = 1 << 3;
const IORING_CQE_BUFFER_SHIFT: u32 = 16;
/// So often does a timer expire that does so several times.
const SHOTS: u32 = 3;
const IORING_REGISTER_BUFFERS: u32 = 0;
const IORING_REGISTER_FILES_UPDATE: u32 = 6;
const IORING_RECVSEND_FIXED_BUF: u16 = 1 << 2;
/// Where a ring's table of files has what all programs use. What they wait for is before it, by the
/// number of each.
const PIPES: u32 = 0;
const CONNECTIONS: u32 = 4;
const LISTENERS: u32 = 8;
const MARKS: u32 = 12;
const FILE: u32 = 13;
const DEVICE: u32 = 14;
const FSYNC_PIPE: u32 = 15;
const SOCKET: u32 = 16;
/// Behind it is place for connections that are accepted: more than are ever made at a time.
const ACCEPTED: u32 = 17;
const FILES: u32 = ACCEPTED + 64;

/// The group of buffers for those who receive several times. There is no group 0.
const GROUP: u16 = 1;
/// Buffers in it: more than are ever taken at a time.
const PARTS: u16 = 64;
/// The size of each.
const PART: u32 = 16;
/// So many SQEs of a ring are taken at a time by an SQPOLL thread that has several,
/// `IORING_SQPOLL_CAP_ENTRIES_VALUE`.
const CAP: usize = 8;
/// No entry of an SQ has this index.
const NO_INDEX: u32 = u32::MAX;

const ECANCELED: i32 = -libc::ECANCELED;
const EINVAL: i32 = -libc::EINVAL;
const ENOENT: i32 = -libc::ENOENT;
const EALREADY: i32 = -libc::EALREADY;
const ETIME: i32 = -libc::ETIME;

/// What is read of a file or a device, and what there is of the file.
const BLOCK: u32 = 512;
/// What a read beyond the end asks for.
const TOO_MUCH: u32 = 2 * BLOCK;

/// How long to wait for a CQE that may come late, on a bare machine. On one that is as slow as a
/// debug kernel under emulation this is a minute.
const PATIENCE: Duration = Duration::from_secs(3);

/// After this time no more explanations are looked for: it has to do with CQEs on their way.
const CONFIRM: Duration = Duration::from_millis(50);

/// Why a program is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule that is broken, and how
    pub rule: String,
    /// The CQEs that were posted
    pub details: String,
    /// The program, if it is not the one that was run last
    pub program: Option<Program>,
}

impl Failure {
    fn new(rule: String) -> Self {
        Self {
            rule,
            details: String::new(),
            program: None,
        }
    }
}

/// Registered buffers of a ring: what is read, and the numbers.
const SINK: u16 = 0;
const NUMBERS: u16 = 1;

/// All but [`REFUSED`] and fsync.
fn restrictions() -> Vec<Restriction> {
    let register = [
        IORING_REGISTER_BUFFERS,
        IORING_REGISTER_FILES_UPDATE,
        IORING_REGISTER_ENABLE_RINGS,
        IORING_REGISTER_RING_FDS,
        IORING_REGISTER_PBUF_RING,
        IORING_UNREGISTER_RING_FDS,
        IORING_REGISTER_SYNC_CANCEL,
    ];
    let opcodes = (0..=opcode::SendMsgZc::CODE).filter(|code| *code != opcode::Fsync::CODE);
    let mut all = vec![Restriction::sqe_flags_allowed(!REFUSED.bits())];
    all.extend(opcodes.map(Restriction::sqe_op));
    all.extend(register.map(|op| Restriction::register_op(op as u8)));
    all
}

/// The flag that a restricted ring refuses.
const REFUSED: Flags = Flags::ASYNC;

/// How long to wait for a CQE that need not come.
const LATE: Duration = Duration::from_millis(10);

/// Files, and memory that is never freed.
struct World {
    file: File,
    device: Option<File>,
    /// What is sent on it goes to the other one, which keeps it as long as there is room
    socket: UdpSocket,
    _sink: UdpSocket,
    /// Byte n is n, for those who write their number
    numbers: &'static [u8],
    /// What is read
    sink: *mut u8,
    /// What is received, in parts
    parts: *mut u8,
    soon: &'static Timespec,
    never: &'static Timespec,
    /// Gets messages
    mailbox: RefCell<Ring>,
}

impl World {
    fn new() -> io::Result<Self> {
        let dir = env::temp_dir().join(format!("fuzz-{}", std::process::id()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&dir)?;
        file.write_all(&[7; BLOCK as usize])?;
        // Nobody else needs the name.
        std::fs::remove_file(&dir)?;
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open("/dev/nullb0");
        let [socket, sink] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let (socket, _sink) = (socket?, sink?);
        socket.connect(_sink.local_addr()?)?;
        let numbers: Vec<u8> = (0..=u8::MAX).collect();
        let room = Box::leak(vec![0u8; 4 * 4096].into_boxed_slice());
        let skip = room.as_ptr().align_offset(4096);
        Ok(Self {
            file,
            device: device.ok(),
            socket,
            _sink,
            numbers: numbers.leak(),
            sink: room[skip..].as_mut_ptr(),
            parts: vec![0u8; PART as usize * usize::from(PARTS)]
                .leak()
                .as_mut_ptr(),
            soon: Box::leak(Box::new(Timespec::new().nsec(200_000))),
            never: Box::leak(Box::new(Timespec::new().sec(3600))),
            mailbox: RefCell::new(Setup::new(RingMode::Default).build()?),
        })
    }
}

/// A [`Source`], and its other end, which is gone after a hang-up.
enum Wire {
    Pipe {
        read: io::PipeReader,
        write: Option<io::PipeWriter>,
    },
    Connection {
        near: UnixStream,
        far: Option<UnixStream>,
    },
    Listener {
        listener: TcpListener,
        callers: Option<Vec<TcpStream>>,
    },
}

impl Wire {
    fn new(source: Source) -> io::Result<Self> {
        Ok(match source {
            Source::Pipe(_) => {
                let (read, write) = io::pipe()?;
                Self::Pipe {
                    read,
                    write: Some(write),
                }
            }
            Source::Connection(_) => {
                let (near, far) = UnixStream::pair()?;
                Self::Connection {
                    near,
                    far: Some(far),
                }
            }
            Source::Listener(_) => Self::Listener {
                listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
                callers: Some(Vec::new()),
            },
        })
    }

    /// What requests wait for.
    fn fd(&self) -> RawFd {
        match self {
            Self::Pipe { read, .. } => read.as_raw_fd(),
            Self::Connection { near, .. } => near.as_raw_fd(),
            Self::Listener { listener, .. } => listener.as_raw_fd(),
        }
    }

    fn feed(&mut self, count: usize) -> io::Result<()> {
        let bytes = vec![b'x'; count];
        match self {
            Self::Pipe {
                write: Some(write), ..
            } => write.write_all(&bytes),
            Self::Connection { far: Some(far), .. } => far.write_all(&bytes),
            Self::Listener {
                listener,
                callers: Some(callers),
            } => {
                let address = listener.local_addr()?;
                for _ in 0..count {
                    callers.push(TcpStream::connect(address)?);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hang_up(&mut self) {
        match self {
            Self::Pipe { write, .. } => *write = None,
            Self::Connection { far, .. } => *far = None,
            Self::Listener { listener, callers } => {
                // SAFETY: No pointers. One that does not listen any more is shut down already.
                unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
                *callers = None;
            }
        }
    }

    /// Gives it up. Whether nobody else has it by the time that `patience` is over; if it was hung up
    /// before, that cannot be seen.
    fn let_go(self, patience: &mut Patience) -> bool {
        let other: OwnedFd = match self {
            Self::Pipe {
                read,
                write: Some(write),
            } => {
                drop(read);
                write.into()
            }
            Self::Connection {
                near,
                far: Some(far),
            } => {
                drop(near);
                far.into()
            }
            Self::Listener {
                listener,
                callers: Some(_),
            } => {
                let Ok(address) = listener.local_addr() else {
                    return true;
                };
                drop(listener);
                while TcpStream::connect(address).is_ok() {
                    if patience.is_over() {
                        return false;
                    }
                    thread::sleep(LATE);
                }
                return true;
            }
            _ => return true,
        };
        let mut poll = libc::pollfd {
            fd: other.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        while poll.revents & (libc::POLLERR | libc::POLLHUP) == 0 {
            if patience.is_over() {
                return false;
            }
            // SAFETY: One element.
            unsafe { libc::poll(&mut poll, 1, 20) };
        }
        true
    }
}

/// Where those who write their number do it, and where that is read. It is a socket if one of them
/// sends.
fn marks(program: &Program) -> io::Result<(File, File)> {
    let (read, write): (OwnedFd, OwnedFd) = if program.ops().any(|op| op.what == What::Send) {
        let (near, far) = UnixStream::pair()?;
        (near.into(), far.into())
    } else {
        let (read, write) = io::pipe()?;
        (read.into(), write.into())
    };
    Ok((read.into(), write.into()))
}

/// A thread that submits for another one.
struct Other {
    work: mpsc::Sender<Work>,
    done: mpsc::Receiver<io::Result<usize>>,
}

/// What another thread is to submit.
enum Work {
    /// All that was pushed to a ring, which is lent to it
    All(*mut Ring),
    /// So many SQEs of a ring, which is not touched
    Some(RawFd, u32),
}

// SAFETY: Whoever sends it waits until the other thread has answered, and that one does not touch
// it any more then.
unsafe impl Send for Work {}

impl Other {
    fn new() -> io::Result<Self> {
        let (work, requests) = mpsc::channel::<Work>();
        let (answers, done) = mpsc::channel();
        thread::Builder::new()
            .name("submitter".to_owned())
            .spawn(move || {
                for work in requests {
                    let submitted = match work {
                        // SAFETY: See `Work`: it is lent to us alone.
                        Work::All(ring) => unsafe { &mut *ring }.submit(),
                        Work::Some(ring, n) => submit_some(ring, n),
                    };
                    if answers.send(submitted).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { work, done })
    }

    fn send(&self, work: Work) -> io::Result<()> {
        let gone = |_| io::Error::other("the second thread is gone");
        self.work.send(work).map_err(gone)
    }

    fn done(&self) -> io::Result<usize> {
        let gone = |_| io::Error::other("the second thread is gone");
        self.done.recv().map_err(gone)?
    }

    fn submit(&self, ring: &mut Ring) -> io::Result<usize> {
        self.send(Work::All(std::ptr::from_mut(ring)))?;
        self.done()
    }

    /// Submits `half` of what was pushed while the caller's thread submits as much.
    fn submit_both(&self, ring: &Ring, half: usize) -> io::Result<usize> {
        self.send(Work::Some(ring.fd(), half as u32))?;
        let own = submit_some(ring.fd(), half as u32);
        let taken = self.done()? + own?;
        if taken == 2 * half {
            Ok(taken)
        } else {
            Err(io::Error::other("a submission ended early"))
        }
    }
}

/// Another ring of an SQPOLL thread, in which there are groups at the same time.
struct Companion {
    ring: Ring,
    /// Groups that were submitted to it
    groups: u64,
}

impl Companion {
    /// A leader and its member.
    fn group(number: u64) -> [u64; 2] {
        [2 * number, 2 * number + 1]
    }

    fn push(&mut self) -> io::Result<()> {
        let mut sqes = Self::group(self.groups)
            .map(|user_data| opcode::Nop::new().build().user_data(user_data));
        let leader = sqes[0].raw_mut();
        leader.flags |= IOSQE_HAS_EXT_FLAGS;
        leader.ext_flags = IOSQE_EXT_SQE_GROUP;
        self.groups += 1;
        // SAFETY: NOPs point nowhere.
        unsafe { self.ring.push(&sqes) }
    }

    /// All that was submitted has come, and leaders behind their members.
    fn finish(&mut self, patience: Duration) -> Result<(), Stop> {
        let groups = 0..std::mem::take(&mut self.groups);
        let cqes = self
            .ring
            .collect(2 * groups.end as usize, patience)
            .map_err(|missing| Stop::Rule(format!("C1: in the other ring {missing}")))?;
        for group in groups {
            let place = |user_data| cqes.iter().position(|cqe| cqe.user_data == user_data);
            match Self::group(group).map(place) {
                [Some(leader), Some(member)] if member < leader => {}
                _ => return Err(rule("C2: in the other ring a leader posts early")),
            }
        }
        match cqes.iter().find(|cqe| cqe.result != 0) {
            Some(_) => Err(rule("C3: in the other ring a NOP fails")),
            None => Ok(()),
        }
    }
}

/// A ring, and what it remembers of the programs that it ran.
pub struct Session {
    ring: Ring,
    /// The other ring of its thread
    companion: Option<Companion>,
    memory: Memory,
    personality: u16,
    /// Those of [`GROUP`], if they were needed
    buffers: Option<Buffers>,
    /// [`SINK`] and [`NUMBERS`] are registered
    fixed_buffers: bool,
    /// What ran on it, by its number from 1. That is in the upper bits of each `user_data`
    past: Vec<Past>,
}

/// A program that was accepted. A request that skips its CQE may be on its way all the same, and post
/// one if it fails.
struct Past {
    program: Program,
    case: Case,
    seen: Vec<Seen>,
    /// Not to be closed under such requests
    _wires: BTreeMap<Source, Wire>,
    _marks: (File, File),
}

impl Past {
    /// Whether more has to come, if it is accepted.
    fn judge(&self) -> Result<bool, Failure> {
        match self.case.accept(&self.seen) {
            Ok(()) => Ok(false),
            Err(rejection) if rejection.lacking => Ok(true),
            Err(rejection) => Err(self.failure(rejection)),
        }
    }

    fn failure(&self, rejection: Rejection) -> Failure {
        Failure {
            rule: rejection.rule.to_owned(),
            details: details(&self.program, &self.seen, &[]),
            program: Some(self.program.clone()),
        }
    }
}

/// What was posted.
fn details(program: &Program, seen: &[Seen], strays: &[Cqe]) -> String {
    let mut text = String::from("posted:");
    for cqe in seen {
        let id = program.ops().nth(cqe.request).map_or(0, |op| op.id);
        // Writing to a String does not fail.
        let _ = write!(text, " {id}={}", cqe.res);
    }
    for cqe in strays {
        let _ = write!(text, " {:#x}={}", cqe.user_data, cqe.result);
    }
    if seen.is_empty() && strays.is_empty() {
        text += " nothing";
    }
    text
}

impl Session {
    /// A new ring for programs of this shape.
    pub fn new(program: &Program) -> io::Result<Self> {
        let Program {
            mode,
            entries,
            cq_entries,
            submit_all,
            restricted,
            attached,
            steps: _,
            end: _,
        } = program;
        let mut setup = Setup::new(*mode).entries(*entries);
        if let Some(entries) = cq_entries {
            setup = setup.cq_entries(*entries);
        }
        let companion = match attached {
            true => Some(Setup::new(*mode).build()?),
            false => None,
        };
        if let Some(other) = &companion {
            setup = setup.attach_wq(other.fd());
        }
        if *submit_all || *attached {
            setup = setup.submit_all();
        }
        if *restricted {
            // For a ring that is not enabled yet.
            setup = setup.disabled();
        }
        let mut ring = setup.build()?;
        let personality = ring.submitter().register_personality()?;
        ring.submitter().register_files_sparse(FILES)?;
        ring.leave_files(ACCEPTED..FILES)?;
        if *restricted {
            ring.submitter()
                .register_restrictions(&mut restrictions())?;
            ring.enable()?;
        }
        Ok(Self {
            ring,
            companion: companion.map(|ring| Companion { ring, groups: 0 }),
            memory: Memory::default(),
            personality,
            buffers: None,
            fixed_buffers: false,
            past: Vec::new(),
        })
    }

    /// Looks for what comes late, before the ring is given up.
    ///
    /// # Errors
    ///
    /// Fails if the model does not accept what came of an earlier program.
    pub fn finish(mut self, patience: Duration) -> Result<(), Failure> {
        if !self
            .past
            .iter()
            .flat_map(|past| past.program.ops())
            .any(|op| op.skip)
        {
            return Ok(());
        }
        let mut patience = Patience::new(patience);
        loop {
            thread::sleep(LATE);
            for cqe in self.ring.arrived() {
                if !self.belated(&cqe) {
                    return Err(Failure {
                        details: format!("posted: {:#x}={}", cqe.user_data, cqe.result),
                        ..Failure::new("C1: a CQE of no request".to_owned())
                    });
                }
            }
            let mut lacks = false;
            for past in &self.past {
                lacks |= past.judge()?;
            }
            if !lacks {
                return Ok(());
            }
            if patience.is_over() {
                let mut past = self.past.iter();
                return match past.find_map(|past| Some((past, past.case.accept(&past.seen).err()?)))
                {
                    Some((past, rejection)) => Err(past.failure(rejection)),
                    None => Ok(()),
                };
            }
        }
    }

    /// Takes a CQE of an earlier program. `false` if it is of none.
    fn belated(&mut self, cqe: &Cqe) -> bool {
        let (serial, id) = ((cqe.user_data >> 16) as usize, cqe.user_data as u8);
        let Some(past) = serial.checked_sub(1).and_then(|at| self.past.get_mut(at)) else {
            return false;
        };
        let Some(request) = past.program.ops().position(|op| op.name() == id) else {
            return false;
        };
        // That of a request that was not issued is not waited for.
        if cqe.flags & IORING_CQE_F_NOTIF != 0 {
            let sent = |seen: &Seen| seen.request == request && seen.res >= 0;
            return !past.seen.iter().any(sent);
        }
        let step = past.program.steps.len() as u32 + 1;
        past.seen.push(Seen {
            request,
            res: cqe.result,
            step,
        });
        // By a later program, which cancels timers or everything.
        past.case.outside.push(Outside {
            step,
            cancel: Cancel {
                target: Target::Any,
                counts: true,
            },
            ret: 0,
        });
        true
    }
}

/// Runs programs.
pub struct Runner {
    world: World,
    other: Other,
    patience: Duration,
}

impl Runner {
    /// With the patience that suits this guest.
    ///
    /// # Errors
    ///
    /// Fails if there are no files or no threads to be had.
    pub fn new() -> io::Result<Self> {
        let slowdown = env::var(SLOWDOWN_ENV)
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(Self {
            world: World::new()?,
            other: Other::new()?,
            patience: PATIENCE * slowdown.unwrap_or(1),
        })
    }

    /// Waits for so long for CQEs that do not come.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How long it waits for CQEs that do not come.
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// Runs a program in a ring of its own.
    ///
    /// # Errors
    ///
    /// Fails if the model does not accept what came of it.
    pub fn alone(&mut self, program: &Program) -> Result<(), Failure> {
        let session = Session::new(program)
            .map_err(|error| Failure::new(format!("the ring cannot be set up: {error}")))?;
        match self.run(program, session)? {
            Some(session) => session.finish(self.patience),
            None => Ok(()),
        }
    }

    /// Runs a program in a ring that others may have used before. Gives the ring back, if it was not
    /// closed.
    ///
    /// # Errors
    ///
    /// Fails if the model does not accept what came of it.
    pub fn run(&mut self, program: &Program, session: Session) -> Result<Option<Session>, Failure> {
        let mut run = Run {
            case: Case::new(session.memory),
            seen: Vec::new(),
            strays: Vec::new(),
            belated: false,
            wires: BTreeMap::new(),
            notes: Notes::default(),
            registered: BTreeSet::new(),
            marks: marks(program)
                .map_err(|error| Failure::new(format!("there is no pipe: {error}")))?,
            runner: self,
            program,
            session,
        };
        match run.execute() {
            Ok(()) => run.close(),
            Err(Stop::Rule(rule)) => Err(run.failure(rule)),
            Err(Stop::Error(error)) => Err(run.failure(format!("a system call failed: {error}"))),
        }
    }
}

/// A member that its leader holds is told once, and then only waited for.
fn brief() -> SyncCancel {
    SyncCancel {
        patience: Some(Duration::from_millis(1)),
        ..SyncCancel::default()
    }
}

enum Stop {
    Rule(String),
    Error(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

fn rule(text: &str) -> Stop {
    Stop::Rule(text.to_owned())
}

/// Notifications of what is sent without a copy (C4): which requests have said that one comes, and
/// which have posted it.
#[derive(Default)]
struct Notes {
    owed: BTreeSet<usize>,
    came: BTreeSet<usize>,
}

impl Notes {
    /// A request has posted its own CQE.
    fn sent(&mut self, request: usize, more: bool) -> Result<(), Stop> {
        if self.came.contains(&request) {
            return Err(rule("C4: a notification comes before its request's CQE"));
        }
        if more {
            self.owed.insert(request);
        }
        Ok(())
    }

    /// It has posted its notification, and before that its own CQE with this result, unless that
    /// was dropped. One that was not issued notifies as well, and does not say so before, today.
    fn notified(&mut self, request: usize, res: Option<i32>) -> Result<(), Stop> {
        let owed = self.owed.remove(&request);
        if !self.came.insert(request) || res.is_some_and(|res| res >= 0) && !owed {
            return Err(rule("C1: a notification too many"));
        }
        Ok(())
    }
}

/// A program that runs.
struct Run<'a> {
    runner: &'a Runner,
    program: &'a Program,
    session: Session,
    case: Case,
    seen: Vec<Seen>,
    /// CQEs of nobody
    strays: Vec<Cqe>,
    /// There were CQEs of earlier programs
    belated: bool,
    wires: BTreeMap<Source, Wire>,
    notes: Notes,
    /// Places of the ring's table of files that are this program's
    registered: BTreeSet<u32>,
    marks: (File, File),
}

impl Run<'_> {
    /// What a failure says of the program beside the rule.
    fn failure(&self, rule: String) -> Failure {
        Failure {
            details: details(self.program, &self.seen, &self.strays),
            ..Failure::new(rule)
        }
    }

    /// The step in which nothing more is done, and the one in which all is brought to an end.
    fn last_steps(&self) -> (u32, u32) {
        let count = self.program.steps.len() as u32;
        (count, count + 1)
    }

    /// When the sources with this number are fed first, and when they are hung up.
    fn source_steps(&self, number: u8) -> (u32, u32) {
        let find = |wanted: &Step| {
            let at = self.program.steps.iter().position(|step| step == wanted);
            at.map(|at| at as u32)
        };
        let hangup = find(&Step::Hangup(number));
        let feed =
            find(&Step::Feed(number)).filter(|feed| hangup.is_none_or(|hangup| *feed < hangup));
        let (_, end) = self.last_steps();
        match self.program.end {
            End::Close => (feed.unwrap_or(NEVER), hangup.unwrap_or(NEVER)),
            _ if self.ends_hung_up(number) => (feed.unwrap_or(NEVER), hangup.unwrap_or(end)),
            _ => (feed.unwrap_or(end), hangup.unwrap_or(NEVER)),
        }
    }

    /// Whether the sources with this number are not fed at the end, or that would be no use: one
    /// takes it all.
    fn ends_hung_up(&self, number: u8) -> bool {
        let takes_all = |op: &Op| {
            let source = op.what.source().map(Source::number);
            op.what.takes_all() && source == Some(number)
        };
        self.program.end == End::Hangup
            || self.program.steps.contains(&Step::Hangup(number))
            || self.program.ops().any(takes_all)
    }

    /// Of the first request that has this in its `user_data`.
    fn number(&self, name: u8) -> usize {
        let at = self.program.ops().position(|op| op.name() == name);
        at.unwrap_or(usize::MAX)
    }

    /// Of the request with this number.
    fn position(&self, id: u8) -> usize {
        let at = self.program.ops().position(|op| op.id == id);
        at.unwrap_or(usize::MAX)
    }

    /// An SQE as the model sees it.
    fn request(&self, op: &Op, drains: bool) -> Request {
        let iopoll = self.program.mode.is_iopoll();
        let ok = |res, from| Ending {
            res,
            fails: false,
            from,
        };
        let bad = |res, from| Ending {
            res,
            fails: true,
            from,
        };
        let (_, end) = self.last_steps();
        let polled = iopoll && !matches!(op.what, What::Nop(_) | What::NopTw(_) | What::ReadDevice);
        let restricted = self.program.restricted && (op.worker || op.code() == opcode::Fsync::CODE);
        let zero_copy = op.what == What::SendZeroCopy;
        // What is sent without a copy may not skip its CQE, today.
        let refused = polled && !matches!(op.code(), opcode::Read::CODE | opcode::Write::CODE)
            || zero_copy && op.skip;

        let endings = match op.what {
            _ if polled => vec![bad(-libc::EOPNOTSUPP, 0)],
            What::Nop(res) | What::NopTw(res) => vec![Ending {
                res,
                fails: res < 0,
                from: 0,
            }],
            What::Read(pipe) => {
                let (feed, hangup) = self.source_steps(pipe);
                vec![ok(1, feed), bad(0, hangup)]
            }
            What::Poll(pipe) => {
                let (feed, hangup) = self.source_steps(pipe);
                let (input, hung) = (i32::from(libc::POLLIN), i32::from(libc::POLLHUP));
                vec![ok(input, feed), ok(hung, hangup), ok(input | hung, hangup)]
            }
            // Where there is no room for a CQE, they end with what that would have said.
            What::PollMany(pipe) => {
                let (feed, hangup) = self.source_steps(pipe);
                let (input, hung) = (i32::from(libc::POLLIN), i32::from(libc::POLLHUP));
                vec![ok(input, feed), ok(hung, hangup), ok(input | hung, hangup)]
            }
            What::TimerMany => vec![ok(ETIME, 0)],
            What::Message => vec![ok(0, 0)],
            What::Write | What::Send | What::SendZeroCopy => vec![ok(1, 0)],
            // A connection that has ended is no failure.
            What::Receive(connection) => {
                let (feed, hangup) = self.source_steps(connection);
                vec![ok(1, feed), ok(0, hangup)]
            }
            What::ReceiveMany(connection) => {
                let (feed, hangup) = self.source_steps(connection);
                let received = (1..=PART).map(|count| ok(count as i32, feed));
                received.chain([ok(0, hangup)]).collect()
            }
            What::Accept(listener) | What::AcceptMany(listener) => {
                let (feed, hangup) = self.source_steps(listener);
                let places = (ACCEPTED..FILES).map(|place| ok(place as i32, feed));
                places.chain([bad(EINVAL, hangup)]).collect()
            }
            What::ReadFile => vec![ok(BLOCK as i32, 0)],
            What::ReadShort => vec![bad(BLOCK as i32, 0)],
            What::ReadDevice if self.runner.world.device.is_none() => vec![bad(-libc::EBADF, 0)],
            What::ReadDevice => vec![ok(BLOCK as i32, 0)],
            What::Fsync => vec![ok(0, 0)],
            // io_fsync() does not mark the request as failed.
            What::FsyncPipe => vec![ok(EINVAL, 0)],
            What::NoBuffer => vec![bad(-libc::ENOBUFS, 0)],
            What::Timer(Timer::Short) => vec![bad(ETIME, 0)],
            What::Timer(Timer::Soft) => vec![ok(ETIME, 0)],
            What::Timer(Timer::Long) => vec![bad(ECANCELED, end)],
            What::Deadline(false) => vec![ok(ECANCELED, 0)],
            What::Deadline(true) => [ECANCELED, ETIME, EALREADY, ENOENT]
                .map(|res| ok(res, 0))
                .to_vec(),
            What::Cancel(_) | What::Remove(_) => {
                vec![ok(0, 0), bad(ENOENT, 0), bad(EALREADY, 0)]
            }
            What::CancelAll(_) | What::CancelAny => (0..=i32::from(u8::MAX))
                .map(|count| ok(count, 0))
                .chain([bad(EALREADY, 0)])
                .collect(),
        };
        let cancel = |target, counts| Some(Cancel { target, counts });
        let inline = !op.worker
            && !iopoll
            && !matches!(
                op.what,
                What::ReadFile
                    | What::ReadShort
                    | What::ReadDevice
                    | What::Fsync
                    | What::FsyncPipe
                    // If the other ring is locked.
                    | What::Message
            );
        Request {
            asked: Asked {
                group: op.group,
                link: op.link.map(|link| match link {
                    LinkFlag::Link => Link::Soft,
                    LinkFlag::Hard => Link::Hard,
                }),
                drain: op.drain,
                skip: op.skip,
                timer: op.code() == opcode::Timeout::CODE,
                deadline: matches!(op.what, What::Deadline(_)),
                zero_copy,
                bad: match op.flaw {
                    Some(flaw) if flaw.is_early() => Some(Bad::Early(flaw.error())),
                    _ if restricted => Some(Bad::Refused(-libc::EACCES)),
                    Some(flaw) => Some(Bad::Late(flaw.error())),
                    None if refused => Some(Bad::Late(EINVAL)),
                    None => None,
                },
            },
            endings,
            stops: drains
                || !inline
                || !op.what.writes()
                    && !matches!(op.what, What::Nop(_) | What::NopTw(_) | What::SendZeroCopy),
            inline,
            cancels: match op.what {
                What::Cancel(target) => cancel(Target::Request(self.number(target)), false),
                What::CancelAll(target) => cancel(Target::Request(self.number(target)), true),
                What::Remove(target) => cancel(Target::Timer(self.number(target)), false),
                What::CancelAny => cancel(Target::Any, true),
                _ => None,
            },
            writes: op.what.writes(),
            named: Some(self.number(op.name())).filter(|first| *first != self.position(op.id)),
        }
    }

    fn wire(&mut self, source: Source) -> io::Result<&mut Wire> {
        Ok(match self.wires.entry(source) {
            btree_map::Entry::Vacant(place) => place.insert(Wire::new(source)?),
            btree_map::Entry::Occupied(place) => place.into_mut(),
        })
    }

    /// Those with this number that the program uses.
    fn sources(&self, number: u8) -> impl Iterator<Item = Source> {
        let sources = self.program.sources().into_iter();
        sources.filter(move |source| source.number() == number)
    }

    /// The program's number among those of its ring
    fn serial(&self) -> u64 {
        self.session.past.len() as u64 + 1
    }

    fn user_data(&self, id: u8) -> u64 {
        self.serial() << 16 | u64::from(id)
    }

    /// An SQE as the kernel sees it.
    fn entry(&mut self, op: &Op) -> io::Result<Entry> {
        let Op {
            id,
            what,
            link,
            drain,
            skip,
            worker,
            group,
            extended,
            personality,
            flaw,
            twin: _,
            fixed_file,
            fixed_buffer,
        } = *op;
        let fd = match what.source() {
            Some(source) => self.wire(source)?.fd(),
            None => -1,
        };
        if matches!(what, What::ReceiveMany(_)) {
            self.provide_buffers()?;
        }
        let World {
            file,
            device,
            socket,
            _sink: _,
            numbers,
            sink,
            parts: _,
            soon,
            never,
            mailbox,
        } = &self.runner.world;
        let (soon, never): (*const Timespec, *const Timespec) = (*soon, *never);
        let device = device.as_ref().map_or(-1, |device| device.as_raw_fd());
        let number = numbers[usize::from(id)..].as_ptr();
        let at_start = |fd: RawFd, len| opcode::Read::new(Fd(fd), *sink, len).build();
        let entry = match what {
            What::Nop(_) | What::NopTw(_) => opcode::Nop::new().build(),
            What::Read(_) => opcode::Read::new(Fd(fd), *sink, 1).offset(u64::MAX).build(),
            What::Poll(_) => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build(),
            What::Write => opcode::Write::new(Fd(self.marks.1.as_raw_fd()), number, 1)
                .offset(u64::MAX)
                .build(),
            What::Send => opcode::Send::new(Fd(self.marks.1.as_raw_fd()), number, 1).build(),
            What::SendZeroCopy => opcode::SendZc::new(Fd(socket.as_raw_fd()), number, 1).build(),
            What::Receive(_) => opcode::Recv::new(Fd(fd), *sink, 1).build(),
            What::ReceiveMany(_) => opcode::RecvMulti::new(Fd(fd), GROUP).build(),
            What::Accept(_) => opcode::Accept::new(Fd(fd), null_mut(), null_mut())
                .file_index(Some(DestinationSlot::auto_target()))
                .build(),
            What::AcceptMany(_) => opcode::AcceptMulti::new(Fd(fd))
                .allocate_file_index(true)
                .build(),
            What::ReadFile => at_start(file.as_raw_fd(), BLOCK),
            What::ReadShort => at_start(file.as_raw_fd(), TOO_MUCH),
            What::ReadDevice => at_start(device, BLOCK),
            What::Fsync => opcode::Fsync::new(Fd(file.as_raw_fd())).build(),
            What::FsyncPipe => opcode::Fsync::new(Fd(self.marks.0.as_raw_fd())).build(),
            What::NoBuffer => at_start(file.as_raw_fd(), BLOCK).flags(Flags::BUFFER_SELECT),
            What::Timer(Timer::Short) => opcode::Timeout::new(soon).build(),
            What::Timer(Timer::Soft) => opcode::Timeout::new(soon)
                .flags(TimeoutFlags::ETIME_SUCCESS)
                .build(),
            What::Timer(Timer::Long) => opcode::Timeout::new(never).build(),
            What::Deadline(true) => opcode::LinkTimeout::new(soon).build(),
            What::Deadline(false) => opcode::LinkTimeout::new(never).build(),
            What::Cancel(target) | What::CancelAll(target) => {
                opcode::AsyncCancel::new(self.user_data(target)).build()
            }
            What::CancelAny => opcode::AsyncCancel2::new(CancelBuilder::any().all()).build(),
            What::Remove(target) => opcode::TimeoutRemove::new(self.user_data(target)).build(),
            What::PollMany(_) => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32)
                .multi(true)
                .build(),
            What::Message => {
                let to = Fd(mailbox.borrow().fd());
                opcode::MsgRingData::new(to, 0, self.user_data(id), None).build()
            }
            What::TimerMany => opcode::Timeout::new(soon)
                .count(SHOTS)
                .flags(TimeoutFlags::ETIME_SUCCESS | TimeoutFlags::MULTISHOT)
                .build(),
        };
        let mut entry = entry.user_data(self.user_data(op.name()));
        if fixed_file {
            self.register_file(op, entry.raw_mut())?;
        }
        if fixed_buffer && what.takes_buffer() {
            self.register_buffers()?;
            let sqe = entry.raw_mut();
            (sqe.opcode, sqe.buf_index) = match what {
                What::Write => (opcode::WriteFixed::CODE, NUMBERS),
                What::SendZeroCopy => {
                    sqe.ioprio |= IORING_RECVSEND_FIXED_BUF;
                    (sqe.opcode, NUMBERS)
                }
                _ => (opcode::ReadFixed::CODE, SINK),
            };
        }
        let raw = entry.raw_mut();
        match what {
            What::Nop(result) => {
                raw.op_flags |= IORING_NOP_INJECT_RESULT;
                raw.len = result as u32;
            }
            What::NopTw(result) => {
                raw.op_flags |= IORING_NOP_INJECT_RESULT | IORING_NOP_TW;
                raw.len = result as u32;
            }
            What::CancelAll(_) => raw.op_flags |= IORING_ASYNC_CANCEL_ALL,
            What::CancelAny => raw.op_flags |= IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY,
            _ => {}
        }
        let mut flags = Flags::empty();
        match link {
            Some(LinkFlag::Link) => flags |= Flags::IO_LINK,
            Some(LinkFlag::Hard) => flags |= Flags::IO_HARDLINK,
            None => {}
        }
        for (set, flag) in [
            (drain, Flags::IO_DRAIN),
            (skip, Flags::SKIP_SUCCESS),
            (worker, Flags::ASYNC),
        ] {
            if set {
                flags |= flag;
            }
        }
        raw.flags |= flags.bits();
        if group || extended {
            raw.flags |= IOSQE_HAS_EXT_FLAGS;
            raw.ext_flags = if group { IOSQE_EXT_SQE_GROUP } else { 0 };
        }
        if personality {
            // It was the first one of its ring.
            raw.flags |= IOSQE_HAS_EXT_FLAGS;
            raw.ext_personality = self.session.personality as u8;
        }
        if let Some(flaw) = flaw {
            flaw.put_into(raw);
        }
        Ok(entry)
    }

    /// Has an SQE use its file by its place in the ring's table.
    fn register_file(&mut self, op: &Op, sqe: &mut RawSqe) -> io::Result<()> {
        let place = match (op.what.source(), op.what) {
            (Some(Source::Pipe(number)), _) => PIPES + u32::from(number),
            (Some(Source::Connection(number)), _) => CONNECTIONS + u32::from(number),
            (Some(Source::Listener(number)), _) => LISTENERS + u32::from(number),
            (_, What::Write | What::Send) => MARKS,
            (_, What::ReadFile | What::ReadShort | What::Fsync | What::NoBuffer) => FILE,
            (_, What::ReadDevice) if sqe.fd >= 0 => DEVICE,
            (_, What::FsyncPipe) => FSYNC_PIPE,
            (_, What::SendZeroCopy) => SOCKET,
            _ => return Ok(()),
        };
        if self.registered.insert(place) {
            let ring = &self.session.ring;
            ring.submitter().register_files_update(place, &[sqe.fd])?;
        }
        sqe.fd = place as i32;
        sqe.flags |= Flags::FIXED_FILE.bits();
        Ok(())
    }

    /// Registers the memory of all programs for a ring.
    fn register_buffers(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.session.fixed_buffers, true) {
            return Ok(());
        }
        let World { sink, numbers, .. } = &self.runner.world;
        let all = [
            (*sink, TOO_MUCH as usize),
            (numbers.as_ptr().cast_mut(), numbers.len()),
        ];
        let all = all.map(|(base, len)| libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        });
        // SAFETY: They are never freed. The kernel pins the numbers to be written to, as it always
        // does, and nobody does that.
        unsafe { self.session.ring.submitter().register_buffers(&all) }
    }

    fn provide_buffers(&mut self) -> io::Result<()> {
        let Session { ring, buffers, .. } = &mut self.session;
        if buffers.is_none() {
            let parts = self.runner.world.parts;
            // SAFETY: They are never freed.
            *buffers = Some(unsafe { Buffers::new(ring, GROUP, parts, PART, PARTS) }?);
        }
        Ok(())
    }

    /// Gives the kernel back what a CQE says that it has used.
    fn give_back(&mut self, cqe: &Cqe) -> io::Result<()> {
        if let (Some(buffers), true) = (
            &mut self.session.buffers,
            cqe.flags & IORING_CQE_F_BUFFER != 0,
        ) {
            buffers.give((cqe.flags >> IORING_CQE_BUFFER_SHIFT) as u16);
        }
        let accepts = |op: &Op| op.what.accepts() && self.user_data(op.id) == cqe.user_data;
        if cqe.result >= 0 && self.program.ops().any(accepts) {
            let ring = &self.session.ring;
            ring.submitter()
                .register_files_update(cqe.result as u32, &[-1])?;
        }
        Ok(())
    }

    fn submit(
        &mut self,
        step: u32,
        ops: &[Op],
        by: Submitter,
        hole: Option<u8>,
    ) -> Result<(), Stop> {
        // What is left of a group that was cut goes on behind the first half (F6).
        let both = by == Submitter::Both
            && self.program.takes_both()
            && !self.case.memory().cut
            && ops.len().is_multiple_of(2)
            && hole.is_none();
        let drains = self.program.ops().any(|op| op.drain) || self.case.memory().drains;
        let entries = ops
            .iter()
            .map(|op| self.entry(op))
            .collect::<io::Result<Vec<_>>>()?;
        let mut requests: Vec<_> = ops.iter().map(|op| self.request(op, drains)).collect();
        let hole = hole.map(usize::from).filter(|hole| *hole < ops.len());
        match hole {
            // What has no SQE posts nothing. Its number stays unused.
            Some(hole) => {
                let rest = requests.split_off(hole);
                self.case.submit(step, requests, Some(EINVAL));
                self.case.ignore(rest[..1].to_vec());
                self.case.submit(step, rest[1..].to_vec(), None);
            }
            None if both => {
                // Whoever is first takes the first half.
                let rest = requests.split_off(ops.len() / 2);
                self.case.submit(step, requests, None);
                self.case.submit(step, rest, None);
            }
            None if self.program.attached => {
                let asked: Vec<_> = requests.iter().map(|request| request.asked).collect();
                for taken in form::batches(&asked, CAP) {
                    let batch = requests.drain(..taken).collect();
                    self.case.submit(step, batch, None);
                }
            }
            None => self.case.submit(step, requests, None),
        }

        let Session {
            ring, companion, ..
        } = &mut self.session;
        if let Some(companion) = companion {
            companion.push()?;
        }
        // SAFETY: Buffers, bytes and timespecs are never freed.
        unsafe { ring.push(&entries) }?;
        let index = match hole {
            Some(hole) => Some((hole, ring.set_sq_index(hole as u32, NO_INDEX)?)),
            None => None,
        };
        let submitted = match by {
            Submitter::Both if both => self.runner.other.submit_both(ring, ops.len() / 2),
            Submitter::Second => self.runner.other.submit(ring),
            Submitter::First | Submitter::Both => ring.submit(),
        };
        if let Some((hole, index)) = index {
            // The head is behind all of them now.
            let behind = (ops.len() - hole) as u32;
            ring.set_sq_index(behind.wrapping_neg(), index)?;
        }
        submitted?;
        if let Some(companion) = companion {
            companion.ring.submit()?;
        }
        Ok(())
    }

    fn take(&mut self, step: u32, cqes: Vec<Cqe>) -> Result<(), Stop> {
        for cqe in cqes {
            self.give_back(&cqe)?;
            let (serial, id) = (cqe.user_data >> 16, cqe.user_data as u8);
            let own = || self.program.ops().filter(|op| op.name() == id);
            let more = cqe.flags & IORING_CQE_F_MORE != 0;
            let sends = |request| {
                let op = self.program.ops().nth(request);
                op.is_some_and(|op| op.what == What::SendZeroCopy)
            };
            let own_serial = serial == self.serial();
            match self.program.ops().position(|op| op.name() == id) {
                Some(request) if own_serial && cqe.flags & IORING_CQE_F_NOTIF != 0 => {
                    let mut seen = self.seen.iter();
                    let own = seen.find(|seen| seen.request == request);
                    self.notes.notified(request, own.map(|own| own.res))?;
                }
                // More comes of one that posts several times, and has not said its last.
                Some(request) if own_serial && more && !sends(request) => {
                    let ended = self.seen.iter().filter(|seen| seen.request == request);
                    let over = ended.count() == own().count();
                    if over || !own().any(|op| op.what.is_multishot()) {
                        return Err(rule("C1: more of what posts once, or was done"));
                    }
                }
                Some(request) if own_serial => {
                    if sends(request) {
                        self.notes.sent(request, more)?;
                    }
                    self.seen.push(Seen {
                        request,
                        res: cqe.result,
                        step,
                    });
                }
                _ if self.session.belated(&cqe) => self.belated = true,
                _ => self.strays.push(cqe),
            }
        }
        if self.strays.is_empty() {
            Ok(())
        } else {
            Err(rule("C1: a CQE of no request"))
        }
    }

    fn reap(&mut self, step: u32) -> Result<(), Stop> {
        let cqes = self.session.ring.arrived();
        self.take(step, cqes)
    }

    fn execute(&mut self) -> Result<(), Stop> {
        let program = self.program;
        for (step, what) in program.steps.iter().enumerate() {
            let step = step as u32;
            match what {
                Step::Submit { ops, by, hole } => self.submit(step, ops, *by, *hole)?,
                Step::Feed(number) => {
                    for source in self.sources(*number) {
                        self.wire(source)?.feed(1)?;
                    }
                }
                Step::Hangup(number) => {
                    for source in self.sources(*number) {
                        self.wire(source)?.hang_up();
                    }
                }
                Step::Reap => self.reap(step)?,
                Step::SyncCancel(target) => self.sync_cancel(step, *target),
            }
        }
        let (quiet, end) = self.last_steps();
        self.reap(quiet)?;
        if program.end == End::Close {
            return match self.case.accept(&self.seen) {
                Err(rejection) if !rejection.lacking => Err(rule(rejection.rule)),
                _ => Ok(()),
            };
        }
        self.strike(quiet)?;
        self.bring_to_end(end)?;
        if let Err(mut cqes) = self.session.ring.quiet() {
            // An invalid index may have stood for the last member of a group. Then the rest of
            // that ends with whatever comes next.
            cqes.retain(|cqe| cqe.user_data != MARKER);
            self.take(end, cqes)?;
            self.judge().map_err(|rejection| rule(rejection.rule))?;
        }
        if let Some(companion) = &mut self.session.companion {
            companion.finish(self.runner.patience)?;
        }
        self.messages()?;
        self.marks()
    }

    /// Waits for deadlines that strike by themselves, as long as nothing else ends what they are for.
    fn strike(&mut self, step: u32) -> Result<(), Stop> {
        let mut patience = Patience::new(self.runner.patience);
        while self.case.overdue(&self.seen, step).is_some() {
            if patience.is_over() {
                return Err(rule("X4: a deadline does not strike"));
            }
            self.wait();
            self.reap(step)?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), Rejection> {
        self.case.accept(&self.seen)
    }

    fn bring_to_end(&mut self, end: u32) -> Result<(), Stop> {
        for source in self.program.sources() {
            if self.ends_hung_up(source.number()) {
                self.wire(source)?.hang_up();
            } else {
                // One more, for those who only look whether there is something.
                let ops = self.program.ops();
                let takers = ops.filter(|op| op.what.source() == Some(source)).count();
                self.wire(source)?.feed(takers + 1)?;
            }
        }
        let timers = self
            .program
            .ops()
            .any(|op| op.what == What::Timer(Timer::Long) && !self.program.mode.is_iopoll());
        let endless: Vec<_> = self
            .program
            .ops()
            .filter(|op| op.what.is_endless() && !self.program.mode.is_iopoll())
            .map(Op::name)
            .collect();
        for &name in &endless {
            self.case.outside.push(Outside {
                step: end,
                cancel: Cancel {
                    target: Target::Request(self.number(name)),
                    counts: true,
                },
                ret: 0,
            });
        }
        if timers {
            self.case.outside.push(Outside {
                step: end,
                cancel: Cancel {
                    target: Target::Timers,
                    counts: true,
                },
                ret: 0,
            });
        }
        let brief = brief();
        let mut patience = Patience::new(self.runner.patience);
        let mut wrong: Option<Patience> = None;
        loop {
            if timers {
                // Those that have not begun do so when others have gone.
                let _ = self.session.ring.sync_cancel(&SyncCancel {
                    flags: IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_OP,
                    opcode: opcode::Timeout::CODE,
                    ..brief
                });
            }
            for &name in &endless {
                let _ = self.session.ring.sync_cancel(&SyncCancel {
                    user_data: self.user_data(name),
                    flags: IORING_ASYNC_CANCEL_ALL,
                    ..brief
                });
            }
            self.reap(end)?;
            match self.judge() {
                Ok(()) if self.notes.owed.is_empty() => return Ok(()),
                Ok(()) if patience.is_over() => {
                    return Err(rule("C4: a notification is lost"));
                }
                Ok(()) => wrong = None,
                Err(rejection) => {
                    let moment = wrong.get_or_insert_with(|| Patience::new(CONFIRM));
                    if rejection.lacking {
                        wrong = None;
                        if patience.is_over() {
                            return Err(rule(rejection.rule));
                        }
                    } else if moment.is_over() {
                        return Err(rule(rejection.rule));
                    }
                }
            }
            self.wait();
        }
    }

    /// For a CQE, but not for long.
    fn wait(&mut self) {
        const MOMENT: Duration = Duration::from_millis(2);
        if self.program.mode.is_iopoll() {
            thread::sleep(Duration::from_micros(50));
        } else {
            // That the time is up is as good.
            let _ = self.session.ring.wait_for(1, MOMENT);
        }
    }

    fn sync_cancel(&mut self, step: u32, target: u8) {
        let ret = self.session.ring.sync_cancel(&SyncCancel {
            user_data: self.user_data(target),
            ..brief()
        });
        let ret = match ret {
            Ok(count) => count as i32,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        self.case.outside.push(Outside {
            step,
            cancel: Cancel {
                target: Target::Request(self.number(target)),
                counts: false,
            },
            ret,
        });
    }

    /// The messages that the other ring got, each of a request that was issued.
    fn messages(&self) -> Result<(), Stop> {
        let came = self.runner.world.mailbox.borrow_mut().arrived();
        let count = |name| {
            came.iter()
                .filter(|cqe| cqe.user_data == self.user_data(name))
                .count()
        };
        for op in self.program.ops().filter(|op| op.what == What::Message) {
            let own = self.position(op.id);
            let mut seen = self.seen.iter().filter(|seen| seen.request == own);
            match (seen.next(), count(op.id)) {
                // Which one has posted, of several; or was it skipped, or not taken?
                _ if op.twin.is_some() || self.is_named(op.id) => {}
                (Some(seen), 0) if seen.res == 0 => {
                    return Err(rule("C3: success of a request that has done nothing"));
                }
                (Some(seen), 1) if seen.res < 0 => {
                    return Err(rule("F5, C6: a request that is said not to be issued was"));
                }
                (_, 0 | 1) => {}
                _ => return Err(rule("I1: issued once at most")),
            }
        }
        Ok(())
    }

    /// Whether another request has taken over its number.
    fn is_named(&self, id: u8) -> bool {
        self.program.ops().any(|op| op.twin == Some(id))
    }

    /// The numbers that were written, in their order.
    fn marks(&mut self) -> Result<(), Stop> {
        if !self.program.ops().any(|op| op.what.writes()) {
            return Ok(());
        }
        let mut left: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        if unsafe { libc::ioctl(self.marks.0.as_raw_fd(), libc::FIONREAD, &mut left) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let mut bytes = vec![0; left as usize];
        self.marks.0.read_exact(&mut bytes)?;
        let marks: Vec<_> = bytes.into_iter().map(|id| self.position(id)).collect();
        self.case
            .written(&self.seen, &marks)
            .map_err(|rejection| rule(rejection.rule))
    }

    /// Gives the ring back, or closes it and sees that all goes that its requests held.
    fn close(mut self) -> Result<Option<Session>, Failure> {
        if self.program.end != End::Close {
            // What looks for CQEs at the end has ended a group that was cut.
            self.session.memory = Memory {
                cut: false,
                ..self.case.memory()
            };
            if self.belated {
                for past in &self.session.past {
                    past.judge()?;
                }
            }
            self.session.past.push(Past {
                program: self.program.clone(),
                case: self.case,
                seen: self.seen,
                _wires: self.wires,
                _marks: self.marks,
            });
            return Ok(Some(self.session));
        }
        let failure = self.failure("X5: a closed ring holds a file".to_owned());
        let Self {
            session,
            wires,
            runner,
            ..
        } = self;
        drop(session);
        let mut patience = Patience::new(runner.patience);
        for wire in wires.into_values() {
            if !wire.let_go(&mut patience) {
                return Err(failure);
            }
        }
        Ok(None)
    }
}

impl Program {
    /// Runs the program in a ring of its own, as a test: panics if the model does not accept what
    /// comes of it, and is skipped where there are no groups.
    ///
    /// # Panics
    ///
    /// See above.
    #[track_caller]
    pub fn check(&self) {
        if !Support::query().is_ok_and(|support| support.groups()) {
            crate::skip!("the kernel has no SQE groups");
        }
        let failure = Runner::new()
            .unwrap_or_else(|error| panic!("cannot begin: {error}"))
            .alone(self);
        if let Err(Failure { rule, details, .. }) = failure {
            panic!("{rule}\n  {details}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_comes_once_and_last() {
        let mut notes = Notes::default();
        assert!(notes.sent(1, true).is_ok());
        assert!(notes.notified(1, Some(1)).is_ok() && notes.owed.is_empty());
        assert!(notes.notified(1, Some(1)).is_err());
        // Nobody has said that it comes: that is so for what is not issued.
        assert!(notes.sent(2, false).is_ok() && notes.sent(3, false).is_ok());
        assert!(notes.notified(2, Some(1)).is_err());
        assert!(notes.notified(3, Some(ECANCELED)).is_ok());
        // Before its own CQE, which may have been dropped only.
        assert!(notes.notified(4, None).is_ok());
        assert!(notes.sent(4, true).is_err());
    }
}
