// SPDX-License-Identifier: GPL-2.0-only
//! Counts what requests cost, in a guest whose clock counts instructions
//! (`cargo xtask bench`), or, on a kernel that is a program of the host's, takes the time.
//! Prints a [`harness::bench::Record`] a line.
//!
//! Whatever is measured is measured as a *turn*: fill in SQEs, one system call or the
//! two that do the same, look at each CQE. All of it counts, in user space and in the
//! kernel. The program is the same on each kernel, so a difference is the kernel's.

mod clock;
mod copy;
mod flight;
mod meter;
mod requests;
mod ring;

use std::{env, error::Error, fs, io::Write as _, process::ExitCode};

use harness::{
    bench::{Extent, Memory, Record},
    ring::{Ring as AnyRing, RingMode},
};

use ring::Ring;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let argument = env::args().nth(1).unwrap_or_default();
    let extent = [Extent::Quick, Extent::Full, Extent::Native]
        .into_iter()
        .find(|extent| extent.name() == argument)
        .ok_or("usage: bench quick|full|native (it is meant for `cargo xtask bench`)")?;
    let native = extent == Extent::Native;
    if !native {
        clock::check()?;
    }
    let groups = AnyRing::new(RingMode::Default)?.has_groups();

    tell(&Record::Memory(memory()?))?;
    // With more than one it is up to the scheduler when another one is started, which
    // then stays.
    let ring = Ring::new(RingMode::Default, 1)?;
    let limits = ring.limit_workers([1, 1])?;
    if native {
        return requests::timed(groups);
    }
    requests::inline(groups)?;
    requests::queued()?;
    flight::sizes(groups)?;
    if extent == Extent::Full {
        flight::in_flight(groups)?;
        let disk = copy::Disk::mount()?;
        copy::sockets()?;
        copy::small(&disk)?;
        // Copies are made side by side if they can.
        ring.limit_workers(limits)?;
        copy::copies(&disk, groups)?;
    }
    Ok(())
}

/// Prints a record. The line is whole, or the host sees that it is not.
fn tell(record: &Record) -> Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)?;
    Ok(())
}

/// What the allocator says of requests.
fn memory() -> Result<Memory> {
    let read = |name: &str| -> Result<u32> {
        let path = format!("/sys/kernel/slab/io_kiocb/{name}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(text.trim().parse()?)
    };
    Ok(Memory {
        size: read("object_size")?,
        slot: read("slab_size")?,
        objects: read("objs_per_slab")?,
        order: read("order")?,
    })
}
