// SPDX-License-Identifier: GPL-2.0-only
//! A program: SQEs, what the application does between them, and the ring.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use io_uring::opcode;
use io_uring::squeue::Flags;

use crate::ring::RingMode;
use crate::sqe::{RawSqe, IOSQE_HAS_EXT_FLAGS};

/// What an SQE is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A NOP with this result
    Nop(i32),
    /// The same, completed by task work
    NopTw(i32),
    /// Reads a byte from a pipe
    Read(u8),
    /// Waits until there is something in a pipe
    Poll(u8),
    /// Writes its number where the application sees in which order that was done
    Write,
    /// Reads from a file
    ReadFile,
    /// Reads beyond the end of a file, and gets less
    ReadShort,
    /// Reads from a block device, past the page cache
    ReadDevice,
    /// Syncs a file
    Fsync,
    /// Syncs a pipe: an error that links do not notice
    FsyncPipe,
    /// Reads into a buffer of a group of buffers that is not there
    NoBuffer,
    /// A timer
    Timer(Timer),
    /// A LINK_TIMEOUT: one that expires soon, or never
    Deadline(bool),
    /// Cancels a request by its number
    Cancel(u8),
    /// The same, and counts what it finds
    CancelAll(u8),
    /// Cancels everything
    CancelAny,
    /// Removes a timer by its number
    Remove(u8),
    /// Tells each time that there is something in a pipe, until it is stopped
    PollMany(u8),
    /// A timer that expires three times, soon
    TimerMany,
    /// Posts a CQE to another ring
    Message,
    /// Sends its number on a socket, as [`Write`](Self::Write) writes it
    Send,
    /// Receives a byte from a connection
    Receive(u8),
    /// Receives what comes from a connection, into buffers of the ring, until it is stopped
    ReceiveMany(u8),
    /// Accepts a connection
    Accept(u8),
    /// Accepts each connection that is made, until it is stopped
    AcceptMany(u8),
    /// Sends a byte on a socket that nobody reads, without a copy: a CQE more says when the byte is
    /// not needed any more
    SendZeroCopy,
}

impl What {
    /// It may post several times.
    pub const fn is_multishot(self) -> bool {
        self.is_endless() || matches!(self, Self::TimerMany)
    }

    /// It posts each time that something comes, until it is stopped.
    pub const fn is_endless(self) -> bool {
        self.takes_all() || matches!(self, Self::PollMany(_))
    }

    /// The same, and leaves nothing of what comes to others.
    pub const fn takes_all(self) -> bool {
        matches!(self, Self::ReceiveMany(_) | Self::AcceptMany(_))
    }

    /// It accepts connections, into the ring's table of files. Its CQEs say where they are.
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Accept(_) | Self::AcceptMany(_))
    }

    /// It sends or writes its number.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Send)
    }

    /// It may do what it does with a registered buffer.
    pub const fn takes_buffer(self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Write
                | Self::ReadFile
                | Self::ReadShort
                | Self::ReadDevice
                | Self::SendZeroCopy
        )
    }

    /// Where that comes from which it waits for.
    pub const fn source(self) -> Option<Source> {
        Some(match self {
            Self::Read(number) | Self::Poll(number) | Self::PollMany(number) => {
                Source::Pipe(number)
            }
            Self::Receive(number) | Self::ReceiveMany(number) => Source::Connection(number),
            Self::Accept(number) | Self::AcceptMany(number) => Source::Listener(number),
            _ => return None,
        })
    }
}

/// Where something comes from. Those that have the same number are fed and hung up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A pipe, in which there may be bytes
    Pipe(u8),
    /// A connection, the same
    Connection(u8),
    /// A socket to which connections are made
    Listener(u8),
}

impl Source {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Pipe(number) | Self::Connection(number) | Self::Listener(number) => number,
        }
    }
}

/// When a timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Soon, which is a failure
    Short,
    /// Soon, which is none
    Soft,
    /// Never
    Long,
}

/// What can be wrong with a NOP, found at different depths of its initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No such opcode
    Opcode,
    /// A flag that the opcode does not take
    Flag,
    /// A field that the opcode does not take
    Field,
    /// A personality that is not registered
    Personality,
    /// An extended flag that does not exist
    ExtFlag,
    /// Something that only the opcode's own preparation sees
    Prep,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Opcode,
        Self::Flag,
        Self::Field,
        Self::Personality,
        Self::ExtFlag,
        Self::Prep,
    ];

    /// What an SQE with it completes with.
    pub const fn error(self) -> i32 {
        match self {
            Self::Flag => -libc::EOPNOTSUPP,
            _ => -libc::EINVAL,
        }
    }

    /// Spoils an SQE, which must be that of a NOP if other opcodes may not mind.
    pub fn put_into(self, sqe: &mut RawSqe) {
        let any_minds = matches!(self, Self::Opcode | Self::Personality | Self::ExtFlag);
        assert!(any_minds || sqe.opcode == opcode::Nop::CODE, "{self:?}");
        match self {
            Self::Opcode => sqe.opcode = 0xfe,
            Self::Flag => sqe.flags |= Flags::BUFFER_SELECT.bits(),
            Self::Field => sqe.ioprio = 1,
            Self::Personality => {
                sqe.flags |= IOSQE_HAS_EXT_FLAGS;
                sqe.ext_personality = 77;
            }
            Self::ExtFlag => {
                sqe.flags |= IOSQE_HAS_EXT_FLAGS;
                sqe.ext_flags |= 0x20;
            }
            Self::Prep => sqe.op_flags |= 1 << 31,
        }
    }

    /// Whether it is found before most flags are looked at.
    pub const fn is_early(self) -> bool {
        matches!(self, Self::Opcode | Self::Flag | Self::ExtFlag)
    }
}

/// Which link flag an SQE has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFlag {
    /// `IOSQE_IO_LINK`
    Link,
    /// `IOSQE_IO_HARDLINK`
    Hard,
}

/// An SQE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its number in the program, from 1, and each once
    pub id: u8,
    /// What it is for
    pub what: What,
    /// Its link flag
    pub link: Option<LinkFlag>,
    /// `IOSQE_IO_DRAIN`
    pub drain: bool,
    /// `IOSQE_CQE_SKIP_SUCCESS`
    pub skip: bool,
    /// `IOSQE_ASYNC`
    pub worker: bool,
    /// `IOSQE_EXT_SQE_GROUP`
    pub group: bool,
    /// `IOSQE_HAS_EXT_FLAGS`, whatever else
    pub extended: bool,
    /// It has a personality, which is registered
    pub personality: bool,
    /// What is wrong with it; a NOP only
    pub flaw: Option<Flaw>,
    /// Its `user_data` is that of the request with this number
    pub twin: Option<u8>,
    /// Its file, if it has one, is used by its place in the ring's table
    pub fixed_file: bool,
    /// Its memory is a buffer that is registered, if it reads, writes or sends without a copy
    pub fixed_buffer: bool,
}

impl Op {
    /// A request without flags.
    pub const fn new(id: u8, what: What) -> Self {
        Self {
            id,
            what,
            link: None,
            drain: false,
            skip: false,
            worker: false,
            group: false,
            extended: false,
            personality: false,
            flaw: None,
            twin: None,
            fixed_file: false,
            fixed_buffer: false,
        }
    }

    /// The number in its `user_data`.
    pub const fn name(&self) -> u8 {
        match self.twin {
            Some(other) => other,
            None => self.id,
        }
    }

    /// The next element waits for this one.
    #[must_use]
    pub const fn link(mut self) -> Self {
        self.link = Some(LinkFlag::Link);
        self
    }

    /// The same, and runs in any case.
    #[must_use]
    pub const fn hardlink(mut self) -> Self {
        self.link = Some(LinkFlag::Hard);
        self
    }

    /// It waits for all that came before.
    #[must_use]
    pub const fn drain(mut self) -> Self {
        self.drain = true;
        self
    }

    /// No CQE if it succeeds.
    #[must_use]
    pub const fn skip(mut self) -> Self {
        self.skip = true;
        self
    }

    /// It is for a worker from the beginning.
    #[must_use]
    pub const fn worker(mut self) -> Self {
        self.worker = true;
        self
    }

    /// The group goes on with the next SQE.
    #[must_use]
    pub const fn grouped(mut self) -> Self {
        self.group = true;
        self
    }

    /// Bit 7 is set, and nothing else.
    #[must_use]
    pub const fn extended(mut self) -> Self {
        self.extended = true;
        self
    }

    /// It uses a registered personality.
    #[must_use]
    pub const fn personality(mut self) -> Self {
        self.personality = true;
        self
    }

    /// It has the `user_data` of another one.
    #[must_use]
    pub const fn twin(mut self, of: u8) -> Self {
        self.twin = Some(of);
        self
    }

    /// Its file is a registered one.
    #[must_use]
    pub const fn fixed_file(mut self) -> Self {
        self.fixed_file = true;
        self
    }

    /// Its buffer is a registered one.
    #[must_use]
    pub const fn fixed_buffer(mut self) -> Self {
        self.fixed_buffer = true;
        self
    }

    /// It is malformed. Of NOPs only.
    #[must_use]
    pub fn flawed(mut self, flaw: Flaw) -> Self {
        assert!(
            matches!(self.what, What::Nop(_)),
            "only a NOP can be flawed"
        );
        self.flaw = Some(flaw);
        self
    }

    /// Its opcode.
    pub const fn code(&self) -> u8 {
        match self.what {
            What::Nop(_) | What::NopTw(_) => opcode::Nop::CODE,
            What::Read(_)
            | What::ReadFile
            | What::ReadShort
            | What::ReadDevice
            | What::NoBuffer => opcode::Read::CODE,
            What::Poll(_) | What::PollMany(_) => opcode::PollAdd::CODE,
            What::Write => opcode::Write::CODE,
            What::Fsync | What::FsyncPipe => opcode::Fsync::CODE,
            What::Timer(_) | What::TimerMany => opcode::Timeout::CODE,
            What::Deadline(_) => opcode::LinkTimeout::CODE,
            What::Cancel(_) | What::CancelAll(_) | What::CancelAny => opcode::AsyncCancel::CODE,
            What::Remove(_) => opcode::TimeoutRemove::CODE,
            What::Message => opcode::MsgRingData::CODE,
            What::Send => opcode::Send::CODE,
            What::Receive(_) | What::ReceiveMany(_) => opcode::Recv::CODE,
            What::Accept(_) | What::AcceptMany(_) => opcode::Accept::CODE,
            What::SendZeroCopy => opcode::SendZc::CODE,
        }
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])+ $name:ident($($arg:ident: $type:ty),*) = $what:expr;)+) => {
        $(
            $(#[$doc])+
            pub const fn $name(id: u8 $(, $arg: $type)*) -> Op {
                Op::new(id, $what)
            }
        )+
    };
}

ops! {
    /// A NOP with this result.
    nop(result: i32) = What::Nop(result);
    /// A NOP with this result, completed by task work.
    nop_tw(result: i32) = What::NopTw(result);
    /// Reads a byte from a pipe.
    read(pipe: u8) = What::Read(pipe);
    /// Waits until there is something in a pipe.
    poll(pipe: u8) = What::Poll(pipe);
    /// Writes its number.
    write() = What::Write;
    /// Reads from a file.
    read_file() = What::ReadFile;
    /// Reads beyond the end of a file.
    read_short() = What::ReadShort;
    /// Reads from a block device.
    read_device() = What::ReadDevice;
    /// Syncs a file.
    fsync() = What::Fsync;
    /// Syncs a pipe, which can't be.
    fsync_pipe() = What::FsyncPipe;
    /// Reads, but there is no buffer.
    no_buffer() = What::NoBuffer;
    /// A timer.
    timer(kind: Timer) = What::Timer(kind);
    /// A LINK_TIMEOUT, that expires soon or never.
    deadline(soon: bool) = What::Deadline(soon);
    /// Cancels a request.
    cancel(target: u8) = What::Cancel(target);
    /// Cancels a request, and counts.
    cancel_all(target: u8) = What::CancelAll(target);
    /// Cancels everything.
    cancel_any() = What::CancelAny;
    /// Removes a timer.
    remove(target: u8) = What::Remove(target);
    /// Waits for each time that something comes into a pipe.
    poll_many(pipe: u8) = What::PollMany(pipe);
    /// A timer that expires three times.
    timer_many() = What::TimerMany;
    /// A message to another ring.
    message() = What::Message;
    /// Sends its number.
    send() = What::Send;
    /// Receives a byte from a connection.
    receive(connection: u8) = What::Receive(connection);
    /// Receives all that comes from a connection.
    receive_many(connection: u8) = What::ReceiveMany(connection);
    /// Accepts a connection.
    accept(listener: u8) = What::Accept(listener);
    /// Accepts all connections.
    accept_many(listener: u8) = What::AcceptMany(listener);
    /// Sends a byte without a copy.
    send_zero_copy() = What::SendZeroCopy;
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
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
            twin,
            fixed_file,
            fixed_buffer,
        } = self;
        match what {
            What::Nop(result) => write!(f, "nop({id}, {result})"),
            What::NopTw(result) => write!(f, "nop_tw({id}, {result})"),
            What::Read(pipe) => write!(f, "read({id}, {pipe})"),
            What::Poll(pipe) => write!(f, "poll({id}, {pipe})"),
            What::Write => write!(f, "write({id})"),
            What::ReadFile => write!(f, "read_file({id})"),
            What::ReadShort => write!(f, "read_short({id})"),
            What::ReadDevice => write!(f, "read_device({id})"),
            What::Fsync => write!(f, "fsync({id})"),
            What::FsyncPipe => write!(f, "fsync_pipe({id})"),
            What::NoBuffer => write!(f, "no_buffer({id})"),
            What::Timer(timer) => write!(f, "timer({id}, Timer::{timer:?})"),
            What::Deadline(soon) => write!(f, "deadline({id}, {soon})"),
            What::Cancel(target) => write!(f, "cancel({id}, {target})"),
            What::CancelAll(target) => write!(f, "cancel_all({id}, {target})"),
            What::CancelAny => write!(f, "cancel_any({id})"),
            What::Remove(target) => write!(f, "remove({id}, {target})"),
            What::PollMany(pipe) => write!(f, "poll_many({id}, {pipe})"),
            What::TimerMany => write!(f, "timer_many({id})"),
            What::Message => write!(f, "message({id})"),
            What::Send => write!(f, "send({id})"),
            What::Receive(connection) => write!(f, "receive({id}, {connection})"),
            What::ReceiveMany(connection) => write!(f, "receive_many({id}, {connection})"),
            What::Accept(listener) => write!(f, "accept({id}, {listener})"),
            What::AcceptMany(listener) => write!(f, "accept_many({id}, {listener})"),
            What::SendZeroCopy => write!(f, "send_zero_copy({id})"),
        }?;
        if let Some(other) = twin {
            write!(f, ".twin({other})")?;
        }
        match link {
            Some(LinkFlag::Link) => f.write_str(".link()")?,
            Some(LinkFlag::Hard) => f.write_str(".hardlink()")?,
            None => {}
        }
        for (set, call) in [
            (drain, ".drain()"),
            (skip, ".skip()"),
            (worker, ".worker()"),
            (extended, ".extended()"),
            (personality, ".personality()"),
            (fixed_file, ".fixed_file()"),
            (fixed_buffer, ".fixed_buffer()"),
        ] {
            if *set {
                f.write_str(call)?;
            }
        }
        if let Some(flaw) = flaw {
            write!(f, ".flawed(Flaw::{flaw:?})")?;
        }
        if *group {
            f.write_str(".grouped()")?;
        }
        Ok(())
    }
}

/// Which of two threads submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitter {
    /// That which has set up the ring
    First,
    /// The other one
    Second,
    /// Both at the same time, half of the SQEs each, if the ring allows it
    Both,
}

/// What the application does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Submits SQEs, by one of two threads
    Submit {
        /// The SQEs
        ops: Vec<Op>,
        /// Who submits them
        by: Submitter,
        /// The index of this SQE in the SQ array is invalid
        hole: Option<u8>,
    },
    /// Puts a byte into a pipe, sends one on a connection, and connects to a listener: those with
    /// this number
    Feed(u8),
    /// Closes the write end of a pipe and the other end of a connection, and shuts down a listener
    Hangup(u8),
    /// Takes CQEs out of the ring
    Reap,
    /// Cancels a request by its number, with a system call of its own
    SyncCancel(u8),
}

/// How all of it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Sources are fed, timers are removed
    Feed,
    /// Sources are hung up, timers are removed
    Hangup,
    /// The ring is closed
    Close,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// In which mode its ring is
    pub mode: RingMode,
    /// Entries of the SQ
    pub entries: u32,
    /// Entries of the CQ, if not twice that of the other
    pub cq_entries: Option<u32>,
    /// `SUBMIT_ALL` beside the mode
    pub submit_all: bool,
    /// The ring refuses `IOSQE_ASYNC`, and to sync
    pub restricted: bool,
    /// The ring's SQPOLL thread takes SQEs of another ring too, and not too many at a time. It has
    /// `SUBMIT_ALL`, so that it is known how many
    pub attached: bool,
    /// What is done
    pub steps: Vec<Step>,
    /// And at last
    pub end: End,
}

/// Entries of an SQ, if nothing else is said.
const ENTRIES: u32 = 64;

impl Program {
    /// A program that does nothing, in a ring of 64 entries.
    pub const fn new(mode: RingMode) -> Self {
        Self {
            mode,
            entries: ENTRIES,
            cq_entries: None,
            submit_all: false,
            restricted: false,
            attached: false,
            steps: Vec::new(),
            end: End::Feed,
        }
    }

    /// The size of the submission queue.
    #[must_use]
    pub const fn entries(mut self, entries: u32) -> Self {
        self.entries = entries;
        self
    }

    /// The size of the completion queue.
    #[must_use]
    pub const fn cq_entries(mut self, entries: u32) -> Self {
        self.cq_entries = Some(entries);
        self
    }

    /// Adds `SUBMIT_ALL` to the mode.
    #[must_use]
    pub const fn submit_all(mut self) -> Self {
        self.submit_all = true;
        self
    }

    /// The ring has restrictions: no `IOSQE_ASYNC`, and no fsync.
    #[must_use]
    pub const fn restricted(mut self) -> Self {
        self.restricted = true;
        self
    }

    /// The ring's SQPOLL thread has another ring, which has groups too.
    #[must_use]
    pub const fn attached(mut self) -> Self {
        self.attached = true;
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Submits SQEs.
    #[must_use]
    pub fn submit(self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.step(Step::Submit {
            ops: ops.into_iter().collect(),
            by: Submitter::First,
            hole: None,
        })
    }

    /// A second thread submits SQEs.
    #[must_use]
    pub fn submit_by_other(self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.step(Step::Submit {
            ops: ops.into_iter().collect(),
            by: Submitter::Second,
            hole: None,
        })
    }

    /// Two threads submit half of these SQEs each, at the same time.
    #[must_use]
    pub fn submit_by_both(self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.step(Step::Submit {
            ops: ops.into_iter().collect(),
            by: Submitter::Both,
            hole: None,
        })
    }

    /// Submits SQEs, one of which has an invalid index in the SQ array.
    #[must_use]
    pub fn submit_with_hole(self, hole: u8, ops: impl IntoIterator<Item = Op>) -> Self {
        self.step(Step::Submit {
            ops: ops.into_iter().collect(),
            by: Submitter::First,
            hole: Some(hole),
        })
    }

    /// Feeds the sources with this number.
    #[must_use]
    pub fn feed(self, source: u8) -> Self {
        self.step(Step::Feed(source))
    }

    /// Hangs them up.
    #[must_use]
    pub fn hangup(self, source: u8) -> Self {
        self.step(Step::Hangup(source))
    }

    /// Takes CQEs out of the ring.
    #[must_use]
    pub fn reap(self) -> Self {
        self.step(Step::Reap)
    }

    /// Cancels a request with a system call of its own.
    #[must_use]
    pub fn sync_cancel(self, target: u8) -> Self {
        self.step(Step::SyncCancel(target))
    }

    /// How it ends, if not with [`End::Feed`].
    #[must_use]
    pub const fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Its SQEs, in the order in which they are submitted.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.steps.iter().flat_map(|step| match step {
            Step::Submit { ops, .. } => ops.as_slice(),
            _ => &[],
        })
    }

    /// Whether its ring may be entered by several threads at a time, so that each takes as many SQEs
    /// as it says: none is bad enough to end a submission.
    pub const fn takes_both(&self) -> bool {
        let one_only = matches!(
            self.mode,
            RingMode::SingleIssuer
                | RingMode::DeferTaskrun
                | RingMode::RegisteredFd
                | RingMode::Sqpoll
                | RingMode::SqRewind
        );
        !one_only && (self.submit_all || matches!(self.mode, RingMode::SubmitAll))
    }

    /// What its requests wait for.
    pub fn sources(&self) -> BTreeSet<Source> {
        self.ops().filter_map(|op| op.what.source()).collect()
    }

    /// Number of SQEs.
    pub fn len(&self) -> usize {
        self.ops().count()
    }

    /// Whether it has no SQE.
    pub fn is_empty(&self) -> bool {
        self.ops().next().is_none()
    }

    /// As a test that can be pasted into `harness/tests/group/fuzz.rs`.
    pub fn source(&self, name: &str, comment: &str) -> String {
        let mut text = String::new();
        for line in comment.lines() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "/// {line}");
        }
        let _ = write!(
            text,
            "#[test]\nfn {name}() {{\n    Program::new(RingMode::{:?})\n",
            self.mode
        );
        let Self {
            mode: _,
            entries,
            cq_entries,
            submit_all,
            restricted,
            attached,
            steps,
            end,
        } = self;
        let mut call = |line: &str| {
            let _ = writeln!(text, "        {line}");
        };
        if *entries != ENTRIES {
            call(&format!(".entries({entries})"));
        }
        if let Some(entries) = cq_entries {
            call(&format!(".cq_entries({entries})"));
        }
        if *submit_all {
            call(".submit_all()");
        }
        if *restricted {
            call(".restricted()");
        }
        if *attached {
            call(".attached()");
        }
        for step in steps {
            match step {
                Step::Submit { ops, by, hole } => {
                    call(&match (by, hole) {
                        (Submitter::Second, _) => ".submit_by_other([".to_owned(),
                        (Submitter::Both, _) => ".submit_by_both([".to_owned(),
                        (Submitter::First, Some(hole)) => format!(".submit_with_hole({hole}, ["),
                        (Submitter::First, None) => ".submit([".to_owned(),
                    });
                    for op in ops {
                        call(&format!("    {op},"));
                    }
                    call("])");
                }
                Step::Feed(source) => call(&format!(".feed({source})")),
                Step::Hangup(source) => call(&format!(".hangup({source})")),
                Step::Reap => call(".reap()"),
                Step::SyncCancel(target) => call(&format!(".sync_cancel({target})")),
            }
        }
        if *end != End::Feed {
            call(&format!(".end(End::{end:?})"));
        }
        call(".check();");
        text + "}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_printed_as_it_is_written() {
        let program = Program::new(RingMode::Sqpoll)
            .entries(8)
            .attached()
            .submit([
                read(1, 0).link().skip().fixed_buffer().grouped(),
                nop(2, -5).flawed(Flaw::Prep),
            ])
            .submit([accept_many(3, 0).grouped(), receive_many(4, 1), send(5)])
            .submit_by_both([nop(6, 0), nop(7, 0)])
            .feed(0)
            .end(End::Close);
        assert_eq!(
            program.source("c2_fuzz_7", "C2: why\nand more"),
            "\
/// C2: why
/// and more
#[test]
fn c2_fuzz_7() {
    Program::new(RingMode::Sqpoll)
        .entries(8)
        .attached()
        .submit([
            read(1, 0).link().skip().fixed_buffer().grouped(),
            nop(2, -5).flawed(Flaw::Prep),
        ])
        .submit([
            accept_many(3, 0).grouped(),
            receive_many(4, 1),
            send(5),
        ])
        .submit_by_both([
            nop(6, 0),
            nop(7, 0),
        ])
        .feed(0)
        .end(End::Close)
        .check();
}
"
        );
    }
}
