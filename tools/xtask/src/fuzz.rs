// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask fuzz`: random programs on the kernel, judged by the model.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use harness::{
    fuzz::report::{self as told, Line, Progress},
    protocol::{Groups, Job, Message, Session, Task, VERSION},
};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    build,
    follow::{quoted, Limits, Run, Watcher},
    guest::{self, Built, Program},
    interrupt,
    kvm::{self, Accel},
    log_rules::{Finding, Rules},
    mistakes::{
        list::{self, Mistake},
        workshop::{Source, Workshop},
    },
    profile::Profile,
    progress::{self, say},
    qemu::{self, Console, Machine},
    qemu_test::{factor, slowdown},
    report,
    run_dir::RunDir,
    sheet::{self, files, junit, Case, Kind, Sheet, Status},
    verdict::Verdict,
};

/// How long it goes on if nothing is said, in seconds.
const TIME: u64 = 60;

/// Between two lines of progress where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// How long a guest may say nothing on a bare machine: it waits for what does not
/// come, and makes small what it has found.
const SILENCE: Duration = Duration::from_secs(180);

/// Arguments of `cargo xtask fuzz`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "With neither --count nor --time it runs for 60 s. A seed gives the same programs each time; --smp 1 makes them run in the same order too, but for time-outs.\n\nExit status: 0 nothing was found, 1 a program is not accepted, 3 the kernel complained or died, 4 the guest was lost, 5 infrastructure error (nothing is known), 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// Where to begin. Default: the time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run so many programs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Run for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time: Option<u64>,
    /// Which kernel: a profile in ci/config.
    #[arg(long, value_name = "NAME", default_value = "default")]
    profile: Profile,
    /// Boot this bzImage instead of building one.
    #[arg(long, value_name = "BZIMAGE")]
    kernel: Option<PathBuf>,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: u32,
    /// Memory of the guest in MiB. Default: 1024, with KASAN or KCSAN 2048.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..))]
    mem: Option<u32>,
    /// Put each of these mistakes of ci/mistakes.toml into the kernel, and see that it is found. May
    /// be repeated.
    #[arg(long, value_name = "REGEX")]
    mistake: Vec<String>,
    /// With --mistake: put it into this tree, which has the series, and take it out again.
    #[arg(long, value_name = "DIR", requires_all = ["mistake", "make"])]
    tree: Option<PathBuf>,
    /// With --tree: the command that builds it, and leaves the kernel that --kernel names.
    #[arg(long, value_name = "COMMAND", requires_all = ["tree", "kernel"])]
    make: Option<String>,
    /// Write the results into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results into this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Multiply every time-out by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    timeout_scale: f64,
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let executed = if args.mistake.is_empty() {
        execute(&args)
    } else {
        find_mistakes(&args)
    };
    match executed {
        Ok(code) => Ok(code),
        // 1 would say that something was found.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

/// The results, for `--json`.
#[derive(Serialize)]
struct Report {
    /// The mistake that is in this kernel.
    mistake: Option<String>,
    verdict: Verdict,
    profile: String,
    seed: u64,
    smp: u32,
    accel: Accel,
    progress: Progress,
    /// Programs until something was found.
    found_after: Progress,
    programs_per_second: f64,
    found: Option<Line>,
    /// The first rule that found something in the kernel's log.
    log: Option<String>,
    causes: String,
    /// Does it again.
    command: String,
    #[serde(skip)]
    sheet: Sheet,
    #[serde(skip)]
    interrupted: bool,
    /// What is to be printed.
    #[serde(skip)]
    text: String,
}

/// What the guest has told, and what one sees of it.
struct Live {
    /// The beginning of a line.
    partial: String,
    last: Progress,
    found: Option<Line>,
    /// What the kernel complained of first, and when.
    complaint: Option<(String, Progress)>,
    /// Lines that are none of ours: the program's last words.
    other: String,
    bar: Option<ProgressBar>,
    spoke: Instant,
    shrinking: bool,
}

fn rate(progress: &Progress) -> f64 {
    progress.programs as f64 * 1000.0 / (progress.ms.max(1) as f64)
}

fn state(progress: &Progress) -> String {
    format!(
        "{} programs, {} SQEs, {} groups, {:.0} programs/s",
        progress.programs,
        progress.sqes,
        progress.groups,
        rate(progress)
    )
}

impl Live {
    fn new() -> Self {
        Self {
            partial: String::new(),
            last: Progress::default(),
            found: None,
            complaint: None,
            other: String::new(),
            bar: progress::spinner("Fuzzing"),
            spoke: Instant::now(),
            shrinking: false,
        }
    }

    fn line(&self, verb: &str, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(verb, text)),
            None => say(verb, text),
        }
    }

    fn take(&mut self, text: &str) {
        self.partial += text;
        while let Some((line, rest)) = self.partial.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.partial = rest;
            match serde_json::from_str(&line) {
                Ok(line) => self.told(line),
                Err(_) => {
                    self.other += &line;
                    self.other.push('\n');
                }
            }
        }
    }

    fn told(&mut self, line: Line) {
        match &line {
            Line::Progress(progress) => {
                self.last = *progress;
                if let Some(bar) = &self.bar {
                    bar.set_message(state(progress));
                }
                return;
            }
            Line::Found { progress, rule } => {
                self.last = *progress;
                self.line("Found", &format!("{rule} ({})", state(progress)));
                self.shrinking = true;
                if let Some(bar) = &self.bar {
                    bar.set_message("making it small");
                }
            }
            Line::Shrunk { .. } | Line::Hangs { .. } => self.shrinking = false,
        }
        self.found = Some(line);
    }
}

impl Watcher for Live {
    fn message(&mut self, message: &Message, _session: &Session) {
        match message {
            Message::Begin { kernel, cpus, .. } => {
                self.line("Booted", &format!("{kernel}, {cpus} CPUs"));
            }
            Message::Output { text } => self.take(text),
            _ => {}
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.complaint
            .get_or_insert_with(|| (finding.rule.clone(), self.last));
        self.line("Kernel", &report::headline(finding));
    }

    fn note(&mut self, text: &str) {
        self.line("Note", text);
    }

    fn tick(&mut self, _session: &Session) {
        if self.bar.is_none() && self.spoke.elapsed() >= EVERY {
            self.spoke = Instant::now();
            if self.shrinking {
                say("Shrinking", "the program that was found");
            } else {
                say("Fuzzing", state(&self.last));
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The command that does the same again, from `seed` on.
fn reproduction(args: &Args, seed: u64, count: Option<u64>) -> String {
    let mut words: Vec<String> = ["cargo", "xtask", "fuzz"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: &dyn std::fmt::Display| {
        words.extend([name.to_owned(), value.to_string()]);
    };
    option("--profile", &args.profile.name());
    if let Some(kernel) = &args.kernel {
        option("--kernel", &kernel.display());
    }
    option("--smp", &args.smp);
    option("--seed", &seed);
    if let Some(count) = count {
        option("--count", &count);
    }
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    quoted(&words)
}

/// What to begin with if nothing is said.
fn seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs())
}

fn execute(args: &Args) -> Result<ExitCode> {
    files::check([&args.json, &args.junit])?;
    qemu::check()?;
    let rules = Rules::load()?;
    let (bzimage, config) = match &args.kernel {
        Some(kernel) => {
            guest::check_image(kernel)?;
            (kernel.clone(), guest::config_beside(kernel))
        }
        None => {
            let kernel = build::ensure_kernel(args.profile.clone(), &args.options)?;
            (kernel.image, Some(kernel.config))
        }
    };
    let built = guest::build(&[Program::Init, Program::Fuzz])?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let report = judge(args, bzimage, config, &built, &rules, &guard)?;
    report::print(&report.text);
    let written = save(args, std::slice::from_ref(&report), &report.sheet);
    if report.interrupted {
        progress::line(format_args!(
            "interrupted after {}",
            state(&report.progress)
        ));
        written?;
        return Ok(interrupt::STATUS.into());
    }
    let failed = u32::from(report.verdict != Verdict::Passed);
    let passed = report.progress.programs.saturating_sub(failed.into());
    let passed = u32::try_from(passed).unwrap_or(u32::MAX);
    report::print(&report::closing(passed, failed, 0));
    Ok(files::ends_with(report.verdict, written, "as said above").into())
}

/// Writes what was asked for. One that cannot be written does not keep the other from it.
fn save(args: &Args, reports: &[Report], sheet: &Sheet) -> Result<()> {
    let json = args.json.as_ref().map_or(Ok(()), |path| {
        let json = serde_json::to_vec_pretty(reports).context("cannot encode the results")?;
        files::write(path, &json)
    });
    let junit = args.junit.as_ref().map_or(Ok(()), |path| {
        files::write(path, &junit::document("cargo xtask fuzz", &[sheet])?)
    });
    json.and(junit)
}

/// All mistakes so far as one command.
fn of_mistakes(reports: &[Report], began: i64, left: &[Mistake], interrupted: bool) -> Sheet {
    let case = |report: &Report| {
        let name = report.mistake.clone().unwrap_or_default();
        let status = match report.verdict {
            Verdict::Passed => Status::Failed {
                kind: Kind::Failed,
                output: format!("not found in {}", state(&report.progress)),
            },
            Verdict::Infrastructure => Status::Failed {
                kind: Kind::Untried,
                output: report.causes.clone(),
            },
            Verdict::Failed | Verdict::Splat | Verdict::Lost => Status::Passed,
        };
        Case {
            command: Some(sheet::invocation_for("--mistake", &name)),
            name: format!("mistakes::{name}"),
            round: 1,
            ms: Some(report.found_after.ms),
            status,
        }
    };
    let left = left.iter().map(|mistake| Case {
        name: format!("mistakes::{}", mistake.name),
        round: 1,
        ms: None,
        status: Status::NotRun,
        command: None,
    });
    let verdict = |report: &Report| match report.verdict {
        Verdict::Passed => Verdict::Failed,
        Verdict::Infrastructure => Verdict::Infrastructure,
        Verdict::Failed | Verdict::Splat | Verdict::Lost => Verdict::Passed,
    };
    Sheet {
        title: "Mistakes that random programs find".to_owned(),
        name: "mistakes".to_owned(),
        verdict: reports.iter().map(verdict).max().unwrap_or(Verdict::Passed),
        interrupted,
        began,
        seconds: (sheet::now() - began) as f64,
        facts: sheet::common_facts(),
        cases: reports.iter().map(case).chain(left).collect(),
        complaints: Vec::new(),
        trouble: String::new(),
        command: sheet::invocation(),
    }
}

/// How a mistake was found, and after how many programs.
fn how(report: &Report) -> String {
    if report.verdict == Verdict::Passed {
        return "NOT FOUND".to_owned();
    }
    let rule = match (&report.found, &report.log) {
        (Some(Line::Shrunk { rule, .. } | Line::Found { rule, .. }), _) => rule.as_str(),
        (Some(Line::Hangs { .. }), _) => "a program does not come to an end",
        (_, Some(rule)) => rule,
        _ => report.verdict.words(),
    };
    rule.to_owned()
}

/// `--mistake`: sees that known mistakes are found.
fn find_mistakes(args: &Args) -> Result<ExitCode> {
    files::check([&args.json, &args.junit])?;
    qemu::check()?;
    let rules = Rules::load()?;
    let mistakes = list::select(list::load()?, &args.mistake)?;
    let built = guest::build(&[Program::Init, Program::Fuzz])?;
    let source = Source {
        options: args.options.clone(),
        profile: args.profile.clone(),
        tree: args.tree.clone(),
        make: args.make.clone(),
        kernel: args.kernel.clone().filter(|_| args.tree.is_some()),
    };
    let mut workshop = Workshop::open(&source)?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let mut reports = Vec::new();
    let mut interrupted = false;
    let began = sheet::now();
    let mut written = Ok(());
    for (nth, mistake) in mistakes.iter().enumerate() {
        say(
            "Mistake",
            format!("{}/{} {}", nth + 1, mistakes.len(), mistake.name),
        );
        let made = match workshop.make(Some(mistake)) {
            Ok(made) => made,
            // make got the signal too.
            Err(_) if guard.requested() => {
                interrupted = true;
                break;
            }
            Err(error) => return Err(error),
        };
        let config = guest::config_beside(&made.bzimage);
        let mut report = judge(args, made.bzimage.clone(), config, &built, &rules, &guard)?;
        made.undo()?;
        if report.interrupted {
            interrupted = true;
            break;
        }
        report.mistake = Some(mistake.name.clone());
        say(
            "Result",
            format!(
                "{} after {} programs: {}",
                mistake.name,
                report.found_after.programs,
                how(&report)
            ),
        );
        reports.push(report);
        // Each time, so that an interrupted run leaves what it has found out.
        let left = &mistakes[reports.len()..];
        written = save(
            args,
            &reports,
            &of_mistakes(&reports, began, left, !left.is_empty()),
        );
    }
    report::print(&table(&reports));
    let count = |verdict: fn(Verdict) -> bool| {
        let count = reports.iter().filter(|report| verdict(report.verdict));
        u32::try_from(count.count()).unwrap_or(u32::MAX)
    };
    let missed = |verdict| verdict == Verdict::Passed || verdict == Verdict::Infrastructure;
    let left = u32::try_from(mistakes.len() - reports.len()).unwrap_or(u32::MAX);
    report::print(&report::closing(
        count(|verdict| verdict != Verdict::Passed && verdict != Verdict::Infrastructure),
        count(missed),
        left,
    ));
    let whole = of_mistakes(&reports, began, &mistakes[reports.len()..], interrupted);
    whole.publish(&RunDir::create("mistakes")?);
    let verdict = files::ends_with(whole.verdict, written, "as the table says");
    Ok(if interrupted {
        progress::line(format_args!("interrupted"));
        interrupt::STATUS.into()
    } else {
        verdict.into()
    })
}

fn table(reports: &[Report]) -> String {
    let mut rows = vec![["mistake", "programs", "seconds", "found by"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.mistake.clone().unwrap_or_default(),
            report.found_after.programs.to_string(),
            (report.found_after.ms / 1000).to_string(),
            how(report),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    rows.iter().fold(
        String::new(),
        |mut text, [mistake, programs, seconds, how]| {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{mistake:first$}  {programs:>second$}  {seconds:>third$}  {how}"
            );
            text
        },
    )
}

fn uname(run: &Run<'_>) -> String {
    let guest = run.session.guest.as_ref();
    guest.map_or_else(|| "did not say".to_owned(), |guest| guest.kernel.clone())
}

/// Of the whole run: it is one test.
fn status(verdict: Verdict, told: &str, causes: &str) -> Status {
    let kind = match verdict {
        Verdict::Passed => return Status::Passed,
        Verdict::Failed => Kind::Failed,
        Verdict::Splat => Kind::Complaint,
        Verdict::Lost => Kind::Lost,
        Verdict::Infrastructure => Kind::Untried,
    };
    Status::Failed {
        kind,
        output: sheet::end_of(&format!("{causes}{told}")),
    }
}

/// Boots a kernel and fuzzes it.
fn judge(
    args: &Args,
    bzimage: PathBuf,
    config: Option<PathBuf>,
    built: &[Built],
    rules: &Rules,
    guard: &interrupt::Guard,
) -> Result<Report> {
    let config = config
        .map(fs::read_to_string)
        .transpose()
        .context("cannot read the kernel's configuration")?
        .unwrap_or_default();
    let seed = match args.seed {
        Some(seed) => seed,
        None => seed()?,
    };
    let seconds = match (args.count, args.time) {
        (None, None) => TIME,
        (_, time) => time.unwrap_or(0),
    };

    let (accels, obstacle) = kvm::candidates(args.accel);
    if let Some(why) = obstacle {
        say("Note", format!("TCG instead of KVM: {why}"));
    }
    let slow = |accel: Accel| slowdown(accel, &config, args.timeout_scale);
    let task = told::Task {
        seed,
        count: args.count.unwrap_or(0),
        seconds,
    };
    let task = serde_json::to_string(&task).context("cannot encode the task")?;
    let dir = RunDir::create("fuzz")?;
    guest::pack(
        &dir,
        built,
        &[],
        &Job {
            version: VERSION,
            task: Task::Program {
                argv: vec![Program::Fuzz.path(), task],
            },
            groups: Groups::Required,
            disk: false,
            slowdown: accels.iter().copied().map(slow).max().unwrap_or(1),
            env: Vec::new(),
            settings: Vec::new(),
        },
    )?;
    let machine = Machine {
        kernel: bzimage,
        smp: args.smp,
        mem_mib: args.mem.unwrap_or_else(|| guest::memory(&config)),
        disks: Vec::new(),
        console: Console::File,
        icount: false,
        append: String::new(),
    };
    say(
        "Running",
        format!(
            "random programs on {} from seed {seed} in {}",
            args.profile,
            dir.path().display()
        ),
    );
    let mut live = Live::new();
    let (accel, run) = qemu::run(
        &machine,
        &dir,
        &accels,
        |accel| Limits {
            boot: Duration::from_secs(30) * slow(accel),
            silence: SILENCE * slow(accel),
            power_off: Duration::from_secs(20) * slow(accel),
        },
        rules,
        guard,
        &mut live,
    )?;
    let (found, other) = (live.found.take(), std::mem::take(&mut live.other));
    let complaint = live.complaint.take();
    let last = live.last;
    drop(live);

    let evidence = report::evidence(&run, &[]);
    let verdict = evidence.judge();
    let causes = report::causes(&run, evidence, dir.path());
    let mut text = other;
    text += &causes;
    // What was found, and what finds it again.
    let mut told = String::new();
    let mut again = (last.seed, None, "To find it again");
    match &found {
        Some(Line::Shrunk {
            rule,
            source,
            sqes,
            seed,
            count,
            alone,
        }) => {
            // Writing to a String does not fail.
            let _ = writeln!(told, "not accepted: {rule}");
            let how = if *alone {
                format!("as small as it gets, {sqes} SQEs")
            } else {
                "as it was found: it does not fail in a ring of its own".to_owned()
            };
            let _ = writeln!(
                told,
                "{how}; to be pasted into harness/tests/group/fuzz.rs:\n\n{source}"
            );
            again = (*seed, Some(*count), again.2);
        }
        Some(Line::Hangs { source, seed }) => {
            let _ = writeln!(told, "a program does not come to an end:\n\n{source}");
            again = (*seed, None, again.2);
        }
        Some(Line::Found { rule, .. }) => {
            let _ = writeln!(told, "not accepted: {rule}");
        }
        _ => again.2 = "To run from there again",
    }
    text += &told;
    let command = reproduction(args, again.0, again.1);
    if found.is_some() || verdict != Verdict::Passed {
        let _ = writeln!(text, "{}:\n    {command}\n", again.2);
    }
    let _ = writeln!(
        text,
        "{} on {}, {}, {} CPUs, seeds {seed} to {}: {} in {:.1} s",
        verdict.words(),
        args.profile,
        accel.name(),
        args.smp,
        last.seed,
        state(&last),
        run.elapsed.as_secs_f64()
    );
    let advice = report::advice(&run, verdict);
    // What is said of failures is about tests.
    if verdict != Verdict::Failed && !advice.is_empty() {
        let _ = writeln!(text, "{advice}");
    }
    let sheet = Sheet {
        title: format!("Random programs on {}", args.profile),
        name: args.profile.name().to_owned(),
        verdict,
        interrupted: run.interrupted,
        began: sheet::now().saturating_sub_unsigned(run.elapsed.as_secs()),
        seconds: run.elapsed.as_secs_f64(),
        facts: [
            ("profile".to_owned(), args.profile.name().to_owned()),
            ("kernel".to_owned(), uname(&run)),
            (
                "guest".to_owned(),
                format!(
                    "{}, {} CPUs, {} MiB",
                    accel.name(),
                    args.smp,
                    machine.mem_mib
                ),
            ),
            ("programs".to_owned(), state(&last)),
            ("seeds".to_owned(), format!("{seed} to {}", last.seed)),
            ("files".to_owned(), dir.path().display().to_string()),
        ]
        .into_iter()
        .chain(sheet::common_facts())
        .collect(),
        cases: vec![Case {
            name: format!("fuzz::from seed {seed}"),
            round: 1,
            ms: Some(last.ms),
            status: status(verdict, &told, &causes),
            command: Some(command.clone()),
        }],
        complaints: report::complaints(&run),
        trouble: report::trouble(&run, evidence),
        command: reproduction(args, seed, args.count),
    };
    sheet.publish(&dir);
    let (log, found_after) = match complaint {
        Some((rule, then)) => (Some(rule), then),
        None => (None, last),
    };
    Ok(Report {
        mistake: None,
        verdict,
        profile: args.profile.name().to_owned(),
        seed,
        smp: args.smp,
        accel,
        progress: last,
        found_after,
        programs_per_second: rate(&last),
        found,
        log,
        causes,
        command,
        sheet,
        interrupted: run.interrupted,
        text: if run.interrupted { String::new() } else { text },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let mut live = Live::new();
        live.bar = None;
        live
    }

    #[test]
    fn lines_arrive_in_pieces() {
        let mut live = live();
        live.take("{\"kind\":\"progress\",\"programs\":5,\"sqes\":9,");
        live.take("\"groups\":2,\"seed\":7,\"ms\":1000}\nthread panicked");
        assert_eq!(live.last.programs, 5);
        assert_eq!(live.other, "");
        live.take(" at\n");
        assert_eq!(live.other, "thread panicked at\n");
        assert_eq!(
            state(&live.last),
            "5 programs, 9 SQEs, 2 groups, 5 programs/s"
        );
    }

    #[test]
    fn the_last_word_on_a_program_counts() {
        let mut live = live();
        for line in [
            Line::Found {
                progress: Progress::default(),
                rule: "C2: first".to_owned(),
            },
            Line::Shrunk {
                rule: "C2: then".to_owned(),
                source: String::new(),
                sqes: 1,
                seed: 1,
                count: 1,
                alone: true,
            },
        ] {
            let text = serde_json::to_string(&line).unwrap() + "\n";
            live.take(&text);
        }
        assert!(matches!(&live.found, Some(Line::Shrunk { rule, .. }) if rule == "C2: then"));
        assert!(!live.shrinking);
    }

    #[test]
    fn a_reproduction_is_a_command_that_is_understood() {
        use clap::Parser as _;

        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }

        let args = Line::parse_from(["", "--smp", "1", "--profile", "debug", "--time", "9"]).args;
        let command = reproduction(&args, 12, Some(30));
        let words = command.split(' ').skip(2);
        let again = Line::parse_from(words).args;
        assert_eq!(
            (again.seed, again.count, again.time),
            (Some(12), Some(30), None)
        );
        assert_eq!((again.smp, again.profile), (1, args.profile));
    }
}
