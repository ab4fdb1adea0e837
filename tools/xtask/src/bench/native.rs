// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask bench --native`: the time of requests, as a second witness. Two kernels run as
//! programs of the host's, in turns, and what is shown is the one over the other.

use std::{fs, ops::RangeInclusive, process::ExitCode};

use anyhow::{ensure, Context as _, Result};
use harness::{bench::Extent, protocol::Groups};
use serde::Serialize;

use super::{
    boot::{self, Found, Outcome, Subject},
    document,
    results::{Kernel, RINGS},
    table::Table,
    Args,
};
use crate::{
    build,
    guest::{self, Program},
    interrupt,
    log_rules::Rules,
    profile::Profile,
    progress::{self, say},
    report,
    run_dir::RunDir,
};

/// Boots of each kernel, if the user does not say how many.
const BOOTS: u32 = 5;

/// What a request without a group may take, over what it takes on the base.
const STEADY: RangeInclusive<f64> = 0.8..=1.25;

/// NOPs of a chain or a group.
const SIZES: [u32; 4] = [2, 8, 32, 128];

/// The same on two kernels. Where other results have instructions, these have cycles of the
/// time stamp counter.
#[derive(Serialize)]
struct Times {
    base: Kernel,
    patched: Kernel,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Args {
        options,
        repeat,
        json,
        write,
        ..
    } = args;
    let rules = Rules::load()?;
    let (base, patched) = build::ensure_pair(&Profile::uml(), &options)?;
    let built = guest::build(&[Program::Init, Program::Bench])?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let subjects = [
        Subject {
            name: "native-base",
            image: base.image,
            groups: Groups::Absent,
        },
        Subject {
            name: "native-patched",
            image: patched.image,
            groups: Groups::Required,
        },
    ];

    let boots = repeat.unwrap_or(BOOTS);
    let mut found = [Vec::new(), Vec::new()];
    // In turns: what else the host does, and how fast its processor is, changes slowly.
    for _ in 0..boots {
        for (subject, found) in subjects.iter().zip(&mut found) {
            match boot::boot(subject, &built, Extent::Native, &rules, &guard)? {
                Outcome::Found(boot) => found.push(boot),
                Outcome::Bad(verdict) => return Ok(verdict.into()),
                Outcome::Interrupted => {
                    progress::line(format_args!("interrupted"));
                    return Ok(interrupt::STATUS.into());
                }
            }
        }
    }
    drop(guard);
    let [base, patched] = found.map(joined);
    let times = Times {
        base: base?,
        patched: patched?,
    };

    let tables = [
        ("native", requests(&times)),
        ("native-groups", groups(&times)),
    ];
    for (_, table) in &tables {
        report::print(&table.plain());
    }
    let dir = RunDir::create("bench-native")?;
    let all = serde_json::to_vec_pretty(&times).context("cannot encode the results")?;
    let path = dir.join("results.json");
    fs::write(&path, &all).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some(path) = json {
        fs::write(&path, &all).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report::print(&format!("\nall numbers: {}\n", dir.path().display()));
    if !steady(&times) {
        say(
            "Note",
            "the machine has not kept its speed: what should be alike is not, and the ratios mean \
             nothing; run this again",
        );
        ensure!(!write, "nothing was written into Documentation");
    }
    if write {
        document::fill_in(&tables)?;
        report::print("Documentation/performance.rst has these tables\n");
    }
    report::print(&report::closing(2 * boots, 0, 0));
    Ok(ExitCode::SUCCESS)
}

/// All boots of a kernel, of which the best counts.
fn joined(boots: Vec<Found>) -> Result<Kernel> {
    let mut known = None;
    let mut samples = Vec::new();
    for boot in boots {
        known = Some((boot.kernel, boot.memory));
        samples.push(boot.samples);
    }
    let (kernel, memory) = known.context("nothing was booted")?;
    Ok(Kernel::new(kernel, memory, samples))
}

/// Whether no request without a group takes more or less than on the base by more than the
/// series can be the reason for. Some machines run at half their speed for a while.
fn steady(times: &Times) -> bool {
    let Times { base, patched } = times;
    base.samples.iter().all(|sample| {
        let now = patched.cost(&sample.what, &sample.ring, sample.size);
        now.is_none_or(|now| STEADY.contains(&(now / sample.per_request())))
    })
}

fn ratio(over: Option<f64>, under: Option<f64>) -> Option<String> {
    over.zip(under)
        .map(|(over, under)| format!("{:.2}", over / under))
}

/// Requests without a group: the time on the patched kernel, over that on the base.
fn requests(times: &Times) -> Table {
    let Times { base, patched } = times;
    let mut table = Table::new(
        "Time of a request without a group, patched over base",
        &["NOPs", RINGS[0], RINGS[1], RINGS[2]],
    );
    let chains = SIZES.map(|size| ("time/linked", size, format!("in chains of {size}")));
    let plain = ("time/plain", 1, "side by side".to_owned());
    for (what, size, label) in [plain].into_iter().chain(chains) {
        let over = |ring| ratio(patched.cost(what, ring, size), base.cost(what, ring, size));
        table.row(label, RINGS.into_iter().map(over).collect());
    }
    table
}

/// The same NOPs in three ways, on the patched kernel: groups over each of the others.
fn groups(times: &Times) -> Table {
    let patched = &times.patched;
    let mut table = Table::new(
        "Time of NOPs in groups, over that of as many in other ways",
        &["NOPs", "/plain", "/chain"],
    );
    for ring in RINGS {
        for size in SIZES {
            let group = patched.cost("time/group", ring, size);
            table.row(
                format!("1+{}, {ring}", size - 1),
                vec![
                    ratio(group, patched.cost("time/plain", ring, 1)),
                    ratio(group, patched.cost("time/linked", ring, size)),
                ],
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use harness::bench::{Memory, Sample};

    use super::*;

    fn boot(samples: &[(&str, u32, f64)]) -> Found {
        let sample = |&(what, size, cost): &(&str, u32, f64)| Sample {
            what: what.to_owned(),
            ring: RINGS[0].to_owned(),
            size,
            requests: 1,
            instructions: cost,
            spread: 0.0,
            syscalls: 1.0,
            switches: 0.0,
            wakeups: 0.0,
        };
        Found {
            kernel: "Linux".to_owned(),
            samples: samples.iter().map(sample).collect(),
            memory: Memory {
                size: 256,
                slot: 256,
                objects: 16,
                order: 0,
            },
        }
    }

    #[test]
    fn the_best_boots_are_compared() {
        let times = Times {
            base: joined(vec![
                boot(&[("time/plain", 1, 300.0)]),
                boot(&[("time/plain", 1, 200.0)]),
            ])
            .unwrap(),
            patched: joined(vec![boot(&[
                ("time/plain", 1, 210.0),
                ("time/group", 32, 252.0),
            ])])
            .unwrap(),
        };
        assert!(requests(&times).plain().contains("1.05"));
        assert!(groups(&times).plain().contains("1.20"));
        assert!(joined(Vec::new()).is_err());
        assert!(steady(&times));
    }

    #[test]
    fn a_machine_that_slows_down_is_noticed() {
        let times = Times {
            base: joined(vec![boot(&[("time/plain", 1, 100.0)])]).unwrap(),
            patched: joined(vec![boot(&[("time/plain", 1, 190.0)])]).unwrap(),
        };
        assert!(!steady(&times));
    }
}
