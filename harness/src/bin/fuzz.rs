// SPDX-License-Identifier: GPL-2.0-only
//! Runs random programs in the guest, until one of them is not accepted. Started by
//! `cargo xtask fuzz`, which tells what to do in its first argument.

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use harness::fuzz::{
    generate::{self, Random, Shape},
    report::{Line, Progress, Task},
    run::{Failure, Runner, Session},
    shrink, Program, Step,
};
use harness::pace::Patience;
use harness::protocol::{MARK, MARK_RUN};

/// Programs that a ring runs before there is a new one.
const PROGRAMS: u64 = 32;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// A program that takes so many times the patience hangs.
const HANGS: u32 = 4;

fn say(line: &Line) -> Result<(), Box<dyn Error>> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// The program that runs, for whoever sees that it does not end.
#[derive(Default)]
struct Running {
    program: Option<(Program, u64, Patience)>,
}

fn set(running: &Mutex<Running>, program: Option<(Program, u64, Patience)>) {
    running
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .program = program;
}

/// Ends the process if a program hangs.
fn watch(running: &Mutex<Running>) {
    loop {
        thread::sleep(EVERY);
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((program, seed, patience)) = &mut running.program else {
            continue;
        };
        if patience.is_over() {
            let source = program.source(&name("hangs", *seed), "Does not come to an end");
            // If nobody listens there is nobody to tell.
            let _ = say(&Line::Hangs {
                source,
                seed: *seed,
            });
            std::process::exit(1);
        }
    }
}

/// What a test is called: by the rule, as all are.
fn name(rule: &str, seed: u64) -> String {
    let rule = rule.split([':', ',', ' ']).next().unwrap_or(rule);
    format!("{}_fuzz_{seed}", rule.to_lowercase())
}

/// Files that are open in all of the guest.
fn open_files() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first
        .parse()
        .map_err(|_| io::Error::other("/proc/sys/fs/file-nr is no number"))
}

struct Fuzzer {
    task: Task,
    runner: Runner,
    running: Arc<Mutex<Running>>,
    progress: Progress,
    /// The kernel's log, which shows what was running when it complained
    log: Option<File>,
    began: Instant,
    spoke: Instant,
}

/// A program that was not accepted, with all that ran on its ring before.
struct Found {
    program: Program,
    failure: Failure,
    seed: u64,
    nth: u64,
}

impl Found {
    fn new(program: Program, failure: Failure, seed: u64, nth: u64) -> Self {
        Self {
            program: failure.program.clone().unwrap_or(program),
            failure,
            seed,
            nth,
        }
    }
}

impl Fuzzer {
    fn over(&self) -> bool {
        let Task {
            seed: _,
            count,
            seconds,
        } = self.task;
        (count > 0 && self.progress.programs >= count)
            || (seconds > 0 && self.began.elapsed() >= Duration::from_secs(seconds))
    }

    fn progress(&mut self) -> Progress {
        self.progress.ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress
    }

    /// Runs the programs of a ring.
    fn ring(&mut self, seed: u64) -> Result<Option<Found>, Box<dyn Error>> {
        let mut random = Random::new(seed);
        let shape = Shape::random(&mut random);
        let mut session: Option<Session> = None;
        self.progress.seed = seed;
        if let Some(log) = &mut self.log {
            // A mark that is lost costs a reader's comfort, and nothing else.
            let _ = log.write_all(format!("<6>{MARK}{MARK_RUN}fuzz --seed {seed}\n").as_bytes());
        }
        for nth in 0..PROGRAMS {
            if self.over() {
                break;
            }
            let program = generate::program(&mut random, shape);
            let patience = Patience::new(self.runner.patience() * HANGS);
            set(&self.running, Some((program.clone(), seed, patience)));
            self.progress.programs += 1;
            self.progress.sqes += program.len() as u64;
            self.progress.groups += groups(&program);
            let ring = match session.take() {
                Some(session) => session,
                None => Session::new(&program)?,
            };
            match self.runner.run(&program, ring) {
                Ok(ring) => session = ring,
                Err(failure) => return Ok(Some(Found::new(program, failure, seed, nth))),
            }
            if self.spoke.elapsed() >= EVERY {
                self.spoke = Instant::now();
                let progress = self.progress();
                say(&Line::Progress(progress))?;
            }
        }
        set(&self.running, None);
        let Some(session) = session else {
            return Ok(None);
        };
        let late = session.finish(self.runner.patience()).err();
        // It says which program it was.
        Ok(late.and_then(|failure| {
            let program = failure.program.clone()?;
            Some(Found::new(program, failure, seed, PROGRAMS - 1))
        }))
    }

    fn shrink(&mut self, found: &Found) -> Result<(), Box<dyn Error>> {
        let Found {
            program,
            failure,
            seed,
            nth,
        } = found;
        let progress = self.progress();
        say(&Line::Found {
            progress,
            rule: failure.rule.clone(),
        })?;
        // Each attempt ends by itself, and there are many.
        set(&self.running, None);
        let shrunk = shrink::shrink(&mut self.runner, program);
        let alone = shrunk.is_some();
        let (program, failure) = shrunk.unwrap_or_else(|| (program.clone(), failure.clone()));
        let Failure { rule, details, .. } = failure;
        let comment = format!("{rule}\n{details}");
        say(&Line::Shrunk {
            source: program.source(&name(&rule, *seed), &comment),
            sqes: program.len() as u64,
            rule,
            seed: *seed,
            count: nth + 1,
            alone,
        })
    }

    /// Whether all files are closed again, which may take a moment.
    fn closed(&self, files: u64) -> io::Result<bool> {
        /// What others in the guest may have opened meanwhile.
        const OTHERS: u64 = 16;
        let mut patience = Patience::new(self.runner.patience());
        while open_files()? > files + OTHERS {
            if patience.is_over() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    fn run(&mut self) -> Result<ExitCode, Box<dyn Error>> {
        let files = open_files()?;
        let mut seed = self.task.seed;
        while !self.over() {
            if let Some(found) = self.ring(seed)? {
                self.shrink(&found)?;
                return Ok(ExitCode::FAILURE);
            }
            seed = seed.wrapping_add(1);
        }
        let progress = self.progress();
        say(&Line::Progress(progress))?;
        if self.closed(files)? {
            return Ok(ExitCode::SUCCESS);
        }
        let rule = format!(
            "X5: {} files were open before, and now {}",
            files,
            open_files()?
        );
        say(&Line::Found { progress, rule })?;
        Ok(ExitCode::FAILURE)
    }
}

/// Leaders of a program.
fn groups(program: &Program) -> u64 {
    let mut count = 0;
    for step in &program.steps {
        if let Step::Submit { ops, .. } = step {
            let mut inside = false;
            for op in ops {
                count += u64::from(op.group && !inside);
                inside = op.group;
            }
        }
    }
    count
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let task = env::args()
        .nth(1)
        .ok_or("this is the guest's part of the fuzzer; start it with `cargo xtask fuzz`")?;
    let task: Task = serde_json::from_str(&task)?;
    let runner = Runner::new()?;
    let running = Arc::new(Mutex::new(Running::default()));
    let watched = Arc::clone(&running);
    thread::spawn(move || watch(&watched));
    let mut fuzzer = Fuzzer {
        task,
        runner,
        running,
        progress: Progress::default(),
        log: OpenOptions::new().write(true).open("/dev/kmsg").ok(),
        began: Instant::now(),
        spoke: Instant::now(),
    };
    fuzzer.run()
}
