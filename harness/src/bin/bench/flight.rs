// SPDX-License-Identifier: GPL-2.0-only
//! How cost grows: with the size of a group, and with the number of groups.

use std::{io, os::fd::AsRawFd as _};

use harness::ring::RingMode;
use io_uring::{opcode, squeue::Entry, types};

use crate::{
    clock::Clock,
    meter::{measure, Rounds, Turn},
    requests::{chain, group, nop},
    ring::{name, Ring},
    Result,
};

/// The modes in which task work, and so a group's second half, runs differently.
const MODES: [RingMode; 2] = [RingMode::DeferTaskrun, RingMode::Default];

/// Members of the groups, and groups: powers of two up to these.
const MEMBERS: u32 = 12;
const GROUPS: u32 = 10;

/// Room for the largest of both.
const ENTRIES: u32 = 8192;

/// `user_data` of what is cancelled.
const VICTIM: u32 = 1 << 20;

/// Groups of 1 + 1 to 1 + 4096, a NOP each, and as many NOPs without a group.
pub(crate) fn sizes(groups: bool) -> Result<()> {
    for mode in MODES {
        for members in (0..=MEMBERS).map(|power| 1 << power) {
            let size = members + 1;
            let sqes: Vec<_> = (0..size).map(nop).collect();
            let mut forms = vec![
                ("size/plain", sqes.clone()),
                ("size/linked", chain(sqes.clone())),
            ];
            if groups {
                forms.push(("size/group", group(sqes)?));
            }
            for (what, sqes) in forms {
                let mut ring = Ring::new(mode, ENTRIES)?;
                let turn = Turn {
                    what,
                    ring: name(mode),
                    size: members,
                    requests: size,
                    clock: Clock::Machine,
                    rounds: Rounds::Few,
                };
                measure(&turn, || ring.turn(&sqes, sqes.len()).map(|()| 1))?;
            }
        }
    }
    Ok(())
}

/// A pipe to which nobody writes, and a byte for what is never read.
struct Waits {
    pipe: io::PipeReader,
    _writer: io::PipeWriter,
    byte: Box<u8>,
}

impl Waits {
    fn new() -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        Ok(Self {
            pipe,
            _writer: writer,
            byte: Box::default(),
        })
    }

    fn read(&mut self, user_data: u32) -> Entry {
        opcode::Read::new(types::Fd(self.pipe.as_raw_fd()), &mut *self.byte, 1)
            .build()
            .user_data(user_data.into())
    }
}

/// 1 to 1024 groups at the same time.
pub(crate) fn in_flight(groups: bool) -> Result<()> {
    for mode in MODES {
        for count in (0..=GROUPS).map(|power| 1 << power) {
            if groups {
                together(mode, count)?;
            }
            // The first is the measure of the second.
            for as_groups in [false, true] {
                if groups || !as_groups {
                    beside(mode, count, as_groups)?;
                }
            }
        }
    }
    Ok(())
}

/// So many groups of 1 + 1 NOPs in one submission: all wait for their members when the
/// first of them is issued.
fn together(mode: RingMode, count: u32) -> Result<()> {
    let mut sqes = Vec::new();
    for _ in 0..count {
        sqes.extend(group(vec![nop(0), nop(1)])?);
    }
    let mut ring = Ring::new(mode, ENTRIES)?;
    let turn = Turn {
        what: "together/group",
        ring: name(mode),
        size: count,
        requests: sqes.len() as u32,
        clock: Clock::Machine,
        rounds: Rounds::Few,
    };
    measure(&turn, || ring.turn(&sqes, sqes.len()).map(|()| 1))
}

/// What is done while so many groups, or requests, wait for a pipe: NOPs, and starting
/// and cancelling one more.
fn beside(mode: RingMode, count: u32, as_groups: bool) -> Result<()> {
    let mut waits = Waits::new()?;
    let mut element = |user_data: u32| -> Result<Vec<Entry>> {
        let read = waits.read(user_data + 1);
        if as_groups {
            group(vec![nop(user_data), read])
        } else {
            Ok(vec![read.user_data(user_data.into())])
        }
    };
    let victim = element(VICTIM)?;
    let mut others = Vec::new();
    for index in 0..count {
        others.extend(element(2 * index)?);
    }

    // After what it reads into: what is in flight ends with the ring.
    let mut ring = Ring::new(mode, ENTRIES)?;
    ring.enter(&others, 0)?;
    ring.settle()?;
    let (plain, cancel) = if as_groups {
        ("beside/group", "cancel/group")
    } else {
        ("beside/plain", "cancel/plain")
    };
    let nops: Vec<_> = (0..32).map(nop).collect();
    let turn = Turn {
        what: plain,
        ring: name(mode),
        size: count,
        requests: nops.len() as u32,
        clock: Clock::Machine,
        rounds: Rounds::Few,
    };
    measure(&turn, || ring.turn(&nops, nops.len()).map(|()| 1))?;

    let end = [opcode::AsyncCancel::new(VICTIM.into()).build()];
    let turn = Turn {
        what: cancel,
        size: count,
        requests: victim.len() as u32 + 1,
        ..turn
    };
    measure(&turn, || {
        ring.enter(&victim, 0)?;
        ring.enter(&end, victim.len() + 1)?;
        Ok(2)
    })
}
