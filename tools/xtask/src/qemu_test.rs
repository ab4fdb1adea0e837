// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask qemu-test`: boots kernels, runs the tests in them, and judges.

use std::{
    fmt::Write as _,
    fs,
    io::{stderr, IsTerminal as _},
    iter,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context as _, Result};
use harness::protocol::{
    skip_reason, Groups, Job, Message, Outcome, Session, Suite, SuiteKind, Task, TestResult,
    KSELFTEST, NOT_RUN, SEED_ENV, STORM_ENV, VERSION,
};
use indicatif::{ProgressBar, ProgressStyle};
use regex::Regex;
use serde::Serialize;

use crate::{
    build, cache, disk, example,
    follow::{quoted, Limits, Run, Watcher},
    guest::{self, Built, Program},
    interrupt, ktap, kunit,
    kvm::{self, Accel},
    log_rules::{Finding, Rules},
    profile::Profile,
    progress::{self, say},
    qemu::{self, Console, Disk, Machine},
    report,
    run_dir::{RunDir, DISK},
    selftest::{self, Selftest},
    sheet::{self, files, junit, Case, Kind, Sheet, Status},
    verdict::Verdict,
};

/// What a test gets on a bare machine. Most need milliseconds.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the file system that the tests may use.
const DISK_SIZE: u64 = 512 << 20;

/// Between two lines of progress where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// After so many failures there is nothing more to learn from the rest.
const MAX_FAILURES: u32 = 10;
/// Of a test that was skipped.
const NO_REASON: &str = "no reason given";

/// So many failures come with the command that repeats them; the rest is in the
/// files.
const REPEATED: usize = 10;

/// Arguments of `cargo xtask qemu-test`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 passed, 1 a test failed, 3 the kernel complained or died, 4 the guest was lost, 5 infrastructure error (nothing is known), 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: build::Options,
    /// Which kernels, by their profiles in ci/config, separated by commas.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "default",
        value_parser = Profile::to_boot
    )]
    pub(crate) profile: Vec<Profile>,
    /// Only tests whose name matches this regular expression. May be repeated.
    #[arg(long, value_name = "REGEX")]
    pub(crate) filter: Vec<String>,
    /// Take each --filter for a whole name.
    #[arg(long)]
    pub(crate) exact: bool,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: kvm::Choice,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) smp: u32,
    /// Memory of the guest in MiB. Default: 1024, with KASAN or KCSAN 2048.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..))]
    pub(crate) mem: Option<u32>,
    /// Run the tests so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Skip the rest once so many tests have failed. 0: run all of them.
    #[arg(long, value_name = "N", default_value_t = MAX_FAILURES)]
    pub(crate) max_failures: u32,
    /// Let the storm, a test that otherwise takes a few seconds, go on for so long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) storm: Option<u64>,
    /// What the tests that throw dice begin with. They print it, and do the same again with it;
    /// what runs side by side need not meet in the same way.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Boot this bzImage instead of building one.
    #[arg(long, value_name = "BZIMAGE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Write the results into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the results into this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Print the commands that would be run, and run none.
    #[arg(long)]
    pub(crate) show_command: bool,
    /// Multiply every time-out by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub(crate) timeout_scale: f64,
}

pub(crate) fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1000.0 => Ok(factor),
        _ => Err("not a number between 0 and 1000".to_owned()),
    }
}

/// Which kernel a run is about.
struct Subject {
    profile: Profile,
    bzimage: PathBuf,
    sha256: String,
    config: String,
    /// As given with `--kernel`.
    given: bool,
    kunit: kunit::Expected,
}

/// The results of one kernel, for `--json`.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    profile: String,
    kernel: PathBuf,
    kernel_sha256: String,
    uname: Option<String>,
    /// Of this checkout.
    commit: Option<String>,
    /// In seconds since 1970.
    began: i64,
    accel: Accel,
    smp: u32,
    mem_mib: u32,
    pub(crate) seconds: f64,
    passed: u32,
    failed: u32,
    skipped: u32,
    not_run: u32,
    tests: Vec<TestResult>,
    /// What the kernel has tested itself when it booted.
    kunit: Vec<kunit::TestResult>,
    /// The test that was running when the run ended early.
    interrupted_test: Option<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) causes: String,
    failures: Vec<Failure>,
    /// Does all of it again.
    command: String,
    pub(crate) directory: PathBuf,
    #[serde(skip)]
    pub(crate) interrupted: bool,
    /// What one sees of it, in whole lines.
    #[serde(skip)]
    text: String,
}

impl Report {
    /// Whether the guest came to its tests, so that something can be said of the kernel
    /// there.
    pub(crate) fn came_to_tests(&self) -> bool {
        self.passed + self.failed + self.skipped > 0 || self.interrupted_test.is_some()
    }
}

/// A test that has failed, over all rounds.
#[derive(Serialize)]
struct Failure {
    test: String,
    /// How often it failed.
    failed: usize,
    /// How often it passed or failed.
    of: usize,
    /// Does it again.
    command: Option<String>,
}

/// The results of a command, for `--json`.
#[derive(Serialize)]
struct Reports<'a> {
    verdict: Verdict,
    exit_status: u8,
    runs: &'a [Report],
}

/// How much longer things may take, all in all.
pub(crate) fn slowdown(accel: Accel, config: &str, scale: f64) -> u32 {
    let factor = f64::from(accel.slowdown() * guest::slowdown(config)) * scale;
    (factor.ceil() as u32).max(1)
}

/// Waiting on the host, for a guest that is so much slower.
pub(crate) fn limits(slowdown: u32, test_timeout: Duration) -> Limits {
    Limits {
        boot: Duration::from_secs(60) * slowdown,
        // Init itself waits, kills, looks for leaks and reports; this strikes only
        // if it cannot.
        silence: test_timeout + Duration::from_secs(30) * slowdown,
        power_off: Duration::from_secs(10) * slowdown,
    }
}

/// A `--filter`.
struct Filter {
    text: String,
    pattern: Regex,
    /// Whether it matches no test for the guest.
    idle: bool,
}

/// The tests that are to be run, and those of KUnit that are to count.
struct Selection {
    filters: Vec<Filter>,
    /// Tests for the guest.
    tests: Vec<String>,
}

impl Selection {
    /// Of all tests for the guest. Those of KUnit are known when they have run.
    fn new(all: &[String], filters: &[String], exact: bool) -> Result<Self> {
        ensure!(!all.is_empty(), "the test binary holds no test");
        let filters = filters.iter().map(|text| {
            let pattern = if exact {
                format!("^{}$", regex::escape(text))
            } else {
                text.clone()
            };
            let pattern = Regex::new(&pattern)
                .with_context(|| format!("--filter {text:?} is no regular expression"))?;
            Ok(Filter {
                text: text.clone(),
                idle: !all.iter().any(|test| pattern.is_match(test)),
                pattern,
            })
        });
        let mut selection = Self {
            filters: filters.collect::<Result<_>>()?,
            tests: Vec::new(),
        };
        let taken = all.iter().filter(|test| selection.takes(test));
        selection.tests = taken.cloned().collect();
        Ok(selection)
    }

    fn takes(&self, test: &str) -> bool {
        let matches = |filter: &Filter| filter.pattern.is_match(test);
        self.filters.is_empty() || self.filters.iter().any(matches)
    }

    /// Refuses filters that can match nothing. Every one: a typo in one of several is as
    /// bad as in the only one.
    fn check(&self, all: &[String], expected: &kunit::Expected) -> Result<()> {
        for Filter { text, idle, .. } in &self.filters {
            ensure!(
                !idle || expected.may_match(text),
                "no test matches --filter {text:?}; there are {}, for example {}",
                all.len(),
                all[0]
            );
        }
        Ok(())
    }

    /// Of the results of KUnit those that count, and a failure for each filter that
    /// matches nothing at all.
    fn of_kunit(&self, mut results: Vec<kunit::TestResult>) -> Vec<kunit::TestResult> {
        let absent = |filter: &&Filter| {
            let mut names = results.iter().map(|result| &result.test);
            filter.idle && !names.any(|name| filter.pattern.is_match(name))
        };
        let absent: Vec<_> = self
            .filters
            .iter()
            .filter(absent)
            .map(|filter| kunit::TestResult::absent(&filter.text, &results))
            .collect();
        results.retain(|result| self.takes(&result.test));
        results.extend(absent);
        results
    }
}

/// The tests for the guest that these filters leave.
pub(crate) fn select(all: &[String], filters: &[String], exact: bool) -> Result<Vec<String>> {
    let selection = Selection::new(all, filters, exact)?;

    selection.check(all, &kunit::Expected::default())?;
    Ok(selection.tests)
}

/// The command that does the same again: for one test, or for all that were chosen.
fn reproduction(
    args: &Args,
    subject: &Subject,
    accel: Accel,
    mem: u32,
    test: Option<&str>,
) -> String {
    let mut words = ["cargo", "xtask", "qemu-test"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: &str| {
        words.extend([name.to_owned(), value.to_owned()]);
    };
    option("--profile", subject.profile.name());
    if subject.given {
        option("--kernel", &subject.bzimage.display().to_string());
    } else {
        let build::Options {
            llvm,
            kdir,
            tarball,
            jobs: _,
        } = &args.options;
        if llvm != "1" {
            option("--llvm", llvm);
        }
        for (name, path) in [("--kdir", kdir), ("--tarball", tarball)] {
            if let Some(path) = path {
                option(name, &path.display().to_string());
            }
        }
    }
    option("--smp", &args.smp.to_string());
    option("--mem", &mem.to_string());
    option("--accel", accel.name());
    if args.repeat > 1 {
        option("--repeat", &args.repeat.to_string());
    }
    if args.max_failures != MAX_FAILURES {
        option("--max-failures", &args.max_failures.to_string());
    }
    for (name, value) in [("--storm", args.storm), ("--seed", args.seed)] {
        if let Some(value) = value {
            option(name, &value.to_string());
        }
    }
    if args.timeout_scale != 1.0 {
        option("--timeout-scale", &args.timeout_scale.to_string());
    }
    match test {
        Some(test) => option("--filter", test),
        None => {
            for filter in &args.filter {
                option("--filter", filter);
            }
        }
    }
    if test.is_some() || args.exact {
        words.push("--exact".to_owned());
    }
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    quoted(&words)
}

/// What one sees while the tests run: a bar on a terminal, lines elsewhere.
struct Live {
    bar: Option<ProgressBar>,
    spoke: Instant,
    total: u32,
    skips: bool,
}

impl Live {
    fn new(total: u32) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::from(total));
            let style = ProgressStyle::with_template(
                "{prefix:>12.bold.green} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix("Testing");
            bar.set_message("booting");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            spoke: Instant::now(),
            total,
            // On a terminal the bar says enough.
            skips: !stderr().is_terminal(),
        }
    }

    fn line(&self, verb: &str, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(verb, text)),
            None => say(verb, text),
        }
    }

    fn state(&self, session: &Session) -> String {
        let mut state = format!(
            "{}/{}, {} failed",
            session.results.len(),
            self.total,
            session.count(&[Outcome::Failed, Outcome::Timeout])
        );
        if let Some(test) = session.running() {
            state += ": ";
            state += test;
        }
        state
    }
}

impl Watcher for Live {
    fn message(&mut self, message: &Message, session: &Session) {
        match message {
            Message::Begin { kernel, cpus, .. } => {
                self.line("Booted", &format!("{kernel}, {cpus} CPUs"));
            }
            Message::Slow { times } => {
                let test = session.running().unwrap_or_default();
                let text =
                    format!("{test} is given {times} times its time, for the machine is busy");
                self.line("Note", &text);
            }
            Message::Start { test, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(test.clone());
                }
            }
            Message::Result {
                test,
                outcome,
                ms,
                output,
            } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(session.results.len() as u64);
                }
                match outcome {
                    Outcome::Passed => {}
                    Outcome::Failed => self.line("Failed", &format!("{test} ({ms} ms)")),
                    Outcome::Timeout => {
                        self.line("Failed", &format!("{test} (time-out after {ms} ms)"));
                    }
                    Outcome::Skipped
                        if self.skips
                            && !skip_reason(output).is_some_and(|why| why.starts_with(NOT_RUN)) =>
                    {
                        self.line(
                            "Skipped",
                            &format!("{test}: {}", skip_reason(output).unwrap_or(NO_REASON)),
                        );
                    }
                    Outcome::Skipped => {}
                }
            }
            _ => {}
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.line("Kernel", &report::headline(finding));
    }

    fn note(&mut self, text: &str) {
        self.line("Note", text);
    }

    fn tick(&mut self, session: &Session) {
        if self.bar.is_none() && self.spoke.elapsed() >= EVERY {
            self.spoke = Instant::now();
            say("Testing", self.state(session));
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

/// Runs `cargo xtask qemu-test`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.kernel.is_some() && args.profile.len() > 1 {
        bail!("--kernel names one kernel, so there can be only one --profile");
    }
    if args.show_command {
        return show(&args);
    }
    match execute(&args) {
        Ok(code) => Ok(code),
        // 1 would say that a test has failed.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

fn execute(args: &Args) -> Result<ExitCode> {
    files::check([&args.json, &args.junit])?;
    qemu::check()?;
    let rules = Rules::load()?;
    if let Some(kernel) = &args.kernel {
        guest::check_image(kernel)?;
    }
    let built = guest::build(&[Program::Init, Program::Tests])?;
    let selftest = selftest::build(args.kernel.is_none() && args.options.kdir.is_none())?;
    let example = example::build()?;
    let mut all = guest::list_tests(&built)?;
    all.extend(selftest.iter().flat_map(|selftest| selftest.tests.clone()));
    let selection = Selection::new(&all, &args.filter, args.exact)?;
    for profile in &args.profile {
        selection.check(&all, &expected(args, profile)?)?;
    }

    let files: Vec<_> = selftest
        .iter()
        .map(|selftest| (selftest::PATH, selftest.file.as_path()))
        .chain(example.iter().map(|file| (example::PATH, file.as_path())))
        .collect();
    let (mut reports, mut sheets) = (Vec::new(), Vec::new());
    for profile in &args.profile {
        let subject = subject(args, profile)?;
        let (report, sheet) = run_one(
            args,
            &subject,
            &Load::rules(args, &built, files.clone(), &selection.tests),
            |results| selection.of_kunit(results),
            &rules,
        )?;
        report::print(&report.text);
        let interrupted = report.interrupted;
        reports.push(report);
        sheets.push(sheet);
        if interrupted {
            progress::line(format_args!("interrupted"));
            break;
        }
    }
    let verdict = reports
        .iter()
        .map(|report| report.verdict)
        .max()
        .context("nothing was run")?;
    let written = save(args, verdict, &reports, &sheets);
    let sum = |count: fn(&Report) -> u32| reports.iter().map(count).sum::<u32>();
    report::print(&report::closing(
        sum(|report| report.passed),
        sum(|report| report.failed),
        sum(|report| report.skipped),
    ));
    let directories: Vec<_> = reports
        .iter()
        .map(|report| report.directory.display().to_string())
        .collect();
    let elsewhere = format!("and the results are in {}", directories.join(" and "));
    let verdict = files::ends_with(verdict, written, &elsewhere);
    if reports.iter().any(|report| report.interrupted) {
        return Ok(interrupt::STATUS.into());
    }
    Ok(verdict.into())
}

/// Writes what was asked for. One that cannot be written does not keep the other from it.
fn save(args: &Args, verdict: Verdict, reports: &[Report], sheets: &[Sheet]) -> Result<()> {
    let json = args.json.as_ref().map_or(Ok(()), |path| {
        let json = serde_json::to_vec_pretty(&Reports {
            verdict,
            exit_status: verdict.status(),
            runs: reports,
        })
        .context("cannot encode the results")?;
        files::write(path, &json)
    });
    let junit = args.junit.as_ref().map_or(Ok(()), |path| {
        let sheets: Vec<_> = sheets.iter().collect();
        files::write(path, &junit::document("cargo xtask qemu-test", &sheets)?)
    });
    json.and(junit)
}

/// What the kernel of a profile should test itself. One that is built has what its profile
/// asks for, or the build fails.
fn expected(args: &Args, profile: &Profile) -> Result<kunit::Expected> {
    let config = args.kernel.as_deref().and_then(guest::config_beside);
    let config = config.as_deref().map(read).transpose()?;
    Ok(kunit::Expected::new(
        &build::request(profile)?,
        config.as_deref(),
    ))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn subject(args: &Args, profile: &Profile) -> Result<Subject> {
    let (bzimage, config, given) = match &args.kernel {
        Some(kernel) => (kernel.clone(), guest::config_beside(kernel), true),
        None => {
            let kernel = build::ensure_kernel(profile.clone(), &args.options)?;
            (kernel.image, Some(kernel.config), false)
        }
    };
    let config = match config {
        Some(path) => read(&path)?,
        None => String::new(),
    };
    let image = fs::read(&bzimage).with_context(|| format!("cannot read {}", bzimage.display()))?;
    Ok(Subject {
        kunit: expected(args, profile)?,
        profile: profile.clone(),
        sha256: cache::sha256(&image),
        bzimage,
        config,
        given,
    })
}

/// Boots the kernel that `--kernel` names and judges it by these tests, without a word on the
/// result.
pub(crate) fn judge(args: &Args, built: &[Built], tests: &[String]) -> Result<Report> {
    judge_load(args, &Load::rules(args, built, Vec::new(), tests))
}

/// As [`judge`], by what another command has the guest do.
pub(crate) fn judge_load(args: &Args, load: &Load<'_>) -> Result<Report> {
    let profile = args.profile.first().context("no profile")?;
    let (report, _) = run_one(
        args,
        &subject(args, profile)?,
        load,
        |_| Vec::new(),
        &Rules::load()?,
    )?;
    Ok(report)
}

/// What the tests are told.
fn environment(args: &Args) -> Vec<(String, String)> {
    [(STORM_ENV, args.storm), (SEED_ENV, args.seed)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())))
        .collect()
}

/// What the kernel of a profile must be.
fn groups(profile: &Profile) -> Groups {
    match profile.name() {
        "off" | "base" => Groups::Absent,
        _ => Groups::Required,
    }
}

/// What a guest is given to do.
pub(crate) struct Load<'a> {
    pub(crate) built: &'a [Built],
    pub(crate) suites: Vec<Suite>,
    /// What the tests are told.
    pub(crate) env: Vec<(String, String)>,
    /// What else is taken into the guest: where to, and from where.
    pub(crate) files: Vec<(&'a str, &'a Path)>,
    /// What else the kernel is told.
    pub(crate) append: &'a str,
}

impl<'a> Load<'a> {
    /// The tests of the rules.
    fn rules(
        args: &Args,
        built: &'a [Built],
        files: Vec<(&'a str, &'a Path)>,
        tests: &[String],
    ) -> Self {
        Self {
            built,
            suites: suites(tests),
            env: environment(args),
            files,
            append: "",
        }
    }
}

/// The tests by the program that has them.
fn suites(tests: &[String]) -> Vec<Suite> {
    let libtest = tests.iter().filter(|test| !test.starts_with(KSELFTEST));
    let libtest = Suite {
        kind: SuiteKind::Libtest,
        program: Program::Tests.path(),
        tests: libtest.cloned().collect(),
    };
    vec![libtest, Selftest::suite(tests)]
}

fn run_one(
    args: &Args,
    subject: &Subject,
    load: &Load<'_>,
    of_kunit: impl FnOnce(Vec<kunit::TestResult>) -> Vec<kunit::TestResult>,
    rules: &Rules,
) -> Result<(Report, Sheet)> {
    let Load {
        built,
        suites,
        env,
        files,
        append,
    } = load;
    let (accels, obstacle) = kvm::candidates(args.accel);
    if let Some(why) = obstacle {
        say("Note", format!("TCG instead of KVM: {why}"));
    }
    // The job is written before it is known which one works.
    let slowest = accels
        .iter()
        .map(|accel| slowdown(*accel, &subject.config, args.timeout_scale))
        .max()
        .unwrap_or(1);
    let timeout = TEST_TIMEOUT * slowest + Duration::from_secs(args.storm.unwrap_or(0));
    let mem_mib = args.mem.unwrap_or_else(|| guest::memory(&subject.config));

    let dir = RunDir::create(subject.profile.name())?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let image = dir.join(DISK);
    disk::make(&image, DISK_SIZE, None)?;
    guest::pack(
        &dir,
        built,
        files,
        &Job {
            version: VERSION,
            task: Task::Tests {
                suites: suites.clone(),
                repeat: args.repeat,
                timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                max_failures: args.max_failures,
            },
            groups: groups(&subject.profile),
            disk: true,
            slowdown: slowest,
            env: env.clone(),
            settings: Vec::new(),
        },
    )?;
    let machine = Machine {
        kernel: subject.bzimage.clone(),
        smp: args.smp,
        mem_mib,
        disks: vec![Disk::virtio(image)],
        console: Console::File,
        icount: false,
        // The last word is the caller's.
        append: format!("{} {append}", guest::for_leaks(&subject.config))
            .trim()
            .to_owned(),
    };
    let tests: Vec<_> = suites
        .iter()
        .flat_map(|suite| &suite.tests)
        .cloned()
        .collect();
    let total = u32::try_from(tests.len())
        .ok()
        .and_then(|count| count.checked_mul(args.repeat))
        .context("too many tests")?;
    say(
        "Running",
        format!(
            "{total} tests on {} in {}",
            subject.profile,
            dir.path().display()
        ),
    );
    let mut live = Live::new(total);
    let (accel, run) = qemu::run(
        &machine,
        &dir,
        &accels,
        |accel| {
            limits(
                slowdown(accel, &subject.config, args.timeout_scale),
                timeout,
            )
        },
        rules,
        &guard,
        &mut live,
    )?;
    drop(live);

    // After Ctrl-C nobody knows what would have come.
    let kunit = if run.interrupted {
        Vec::new()
    } else {
        let ktap = ktap::parse(run.scanner.texts());
        of_kunit(kunit::results(ktap, &subject.kunit))
    };
    if !kunit.is_empty() {
        let (passed, failed, skipped) = kunit::count(&kunit);
        say(
            "KUnit",
            format!("{passed} passed, {failed} failed, {skipped} skipped, when it booted"),
        );
        for test in kunit.iter().filter(|test| test.outcome == Outcome::Skipped) {
            let why = skip_reason(&test.output).unwrap_or(NO_REASON);
            say("Skipped", format!("{}: {why}", test.test));
        }
    }
    let mut report = summarize(
        args,
        subject,
        (accel, &run),
        kunit,
        total,
        mem_mib,
        dir.path(),
    );
    report.text = in_words(args, subject, &run, &report);
    let sheet = filled_in(args, subject, &run, &report, &tests);
    report.failures = sheet
        .failures()
        .iter()
        .map(|failure| Failure {
            test: failure.name.to_owned(),
            failed: failure.rounds.len(),
            of: failure.of,
            command: failure.first.command.clone(),
        })
        .collect();
    sheet.publish(&dir);
    Ok((report, sheet))
}

fn summarize(
    args: &Args,
    subject: &Subject,
    (accel, run): (Accel, &Run<'_>),
    kunit: Vec<kunit::TestResult>,
    total: u32,
    mem_mib: u32,
    dir: &Path,
) -> Report {
    let evidence = report::evidence(run, &kunit);
    let session = &run.session;
    let interrupted_test = session.running().map(str::to_owned);
    let (passed, failed, skipped) = count(run);
    let own = kunit::count(&kunit);
    Report {
        verdict: evidence.judge(),
        profile: subject.profile.to_string(),
        kernel: subject.bzimage.clone(),
        kernel_sha256: subject.sha256.clone(),
        commit: sheet::commit(),
        began: sheet::now().saturating_sub_unsigned(run.elapsed.as_secs()),
        uname: session.guest.as_ref().map(|guest| guest.kernel.clone()),
        accel,
        smp: args.smp,
        mem_mib,
        seconds: run.elapsed.as_secs_f64(),
        passed: passed + own.0,
        failed: failed + own.1,
        skipped: skipped + own.2,
        not_run: total.saturating_sub(passed + failed + skipped),
        tests: session.results.clone(),
        kunit,
        interrupted_test,
        findings: run.scanner.findings().to_vec(),
        causes: report::causes(run, evidence, dir),
        failures: Vec::new(),
        command: reproduction(args, subject, accel, mem_mib, None),
        directory: dir.to_owned(),
        interrupted: run.interrupted,
        text: String::new(),
    }
}

/// How many tests in the guest passed, failed and were skipped, all things considered: one that
/// took the guest with it has failed, and so has one that made the kernel complain,
/// whatever it says itself.
fn count(run: &Run<'_>) -> (u32, u32, u32) {
    let session = &run.session;
    // On Ctrl-C nobody knows.
    let died = u32::from(session.running().is_some() && !run.interrupted);
    let complained = session.results.iter().filter(|result| {
        result.outcome == Outcome::Passed
            && complaints_during(run.scanner.findings(), result)
                .next()
                .is_some()
    });
    let complained = u32::try_from(complained.count()).unwrap_or(u32::MAX);
    (
        session.count(&[Outcome::Passed]) - complained,
        session.count(&[Outcome::Failed, Outcome::Timeout]) + complained + died,
        session.count(&[Outcome::Skipped]),
    )
}

/// What the kernel complained of while this test was running, in this round of it.
fn complaints_during<'a>(
    findings: &'a [Finding],
    result: &'a TestResult,
) -> impl Iterator<Item = &'a Finding> {
    findings.iter().filter(|finding| {
        finding.test.as_deref() == Some(&result.test) && finding.round == result.round
    })
}

/// The run as reports tell it.
fn filled_in(
    args: &Args,
    subject: &Subject,
    run: &Run<'_>,
    report: &Report,
    tests: &[String],
) -> Sheet {
    let trouble = report::trouble(run, report::evidence(run, &report.kunit));
    let again = |name: &str| reproduction(args, subject, report.accel, report.mem_mib, Some(name));
    let case = |name: &str, round, ms, status: Status| Case {
        command: matches!(status, Status::Failed { .. }).then(|| again(name)),
        name: name.to_owned(),
        round,
        ms,
        status,
    };
    let own = report.kunit.iter().map(|result| {
        let status = status(result.outcome, &result.output, "");
        case(&result.test, 1, None, status)
    });
    let results = report.tests.iter().map(|result| {
        let complaints: String = complaints_during(&report.findings, result)
            .map(|finding| report::headline(finding) + "\n")
            .collect();
        let status = status(result.outcome, &result.output, &complaints);
        case(&result.test, result.round, Some(result.ms), status)
    });
    let mut cases: Vec<_> = own.chain(results).collect();
    let rounds = (1..=args.repeat).flat_map(|round| iter::repeat(round).zip(tests));
    for (round, test) in rounds.skip(report.tests.len()) {
        let running = report.interrupted_test.as_deref() == Some(test);
        let first = cases
            .last()
            .is_none_or(|case| case.status != Status::NotRun);
        cases.push(case(
            test,
            round,
            None,
            if running && first && !report.interrupted {
                Status::Failed {
                    kind: Kind::Lost,
                    output: trouble.clone(),
                }
            } else {
                Status::NotRun
            },
        ));
    }
    let mut facts = vec![
        ("profile", subject.profile.to_string()),
        (
            "kernel",
            report
                .uname
                .clone()
                .unwrap_or_else(|| "did not say".to_owned()),
        ),
        (
            "image",
            format!(
                "{}, SHA-256 {}",
                subject.bzimage.display(),
                &subject.sha256[..16]
            ),
        ),
        (
            "guest",
            format!(
                "{}, {} CPUs, {} MiB",
                report.accel.name(),
                report.smp,
                report.mem_mib
            ),
        ),
    ];
    if args.repeat > 1 {
        facts.push(("rounds", args.repeat.to_string()));
    }
    facts.push(("files", report.directory.display().to_string()));
    let facts = facts.into_iter();
    Sheet {
        title: format!("Tests on {}", subject.profile),
        name: subject.profile.to_string(),
        verdict: report.verdict,
        interrupted: report.interrupted,
        began: report.began,
        seconds: report.seconds,
        facts: facts
            .map(|(name, value)| (name.to_owned(), value))
            .chain(sheet::common_facts())
            .collect(),
        cases,
        complaints: report::complaints(run),
        trouble,
        command: report.command.clone(),
    }
}

/// What a result says, and what the kernel said meanwhile.
fn status(outcome: Outcome, output: &str, complaints: &str) -> Status {
    let failed = |kind| Status::Failed {
        kind,
        output: sheet::end_of(&format!("{complaints}{output}")),
    };
    match outcome {
        Outcome::Failed => failed(Kind::Failed),
        Outcome::Timeout => failed(Kind::TimeOut),
        Outcome::Passed if !complaints.is_empty() => failed(Kind::Complaint),
        Outcome::Passed => Status::Passed,
        Outcome::Skipped => Status::Skipped {
            why: skip_reason(output).unwrap_or(NO_REASON).to_owned(),
        },
    }
}

/// The tests that failed, each once, in the order in which they ran.
pub(crate) fn failures(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let own = report
        .kunit
        .iter()
        .filter(|test| test.outcome == Outcome::Failed)
        .map(|test| test.test.as_str());
    let failed = report
        .tests
        .iter()
        .filter(|test| matches!(test.outcome, Outcome::Failed | Outcome::Timeout))
        .map(|test| test.test.as_str());
    let complained = report
        .findings
        .iter()
        .filter_map(|finding| finding.test.as_deref());
    for name in own
        .chain(failed)
        .chain(report.interrupted_test.as_deref())
        .chain(complained)
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn in_words(args: &Args, subject: &Subject, run: &Run<'_>, report: &Report) -> String {
    let mut text = String::new();
    for test in &report.kunit {
        if test.outcome == Outcome::Failed {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "---- {} failed\n{}\n",
                test.test,
                test.output.trim_end()
            );
        }
    }
    for test in &report.tests {
        let what = match test.outcome {
            Outcome::Failed => "failed",
            Outcome::Timeout => "failed (time-out)",
            Outcome::Passed | Outcome::Skipped => continue,
        };
        let round = if args.repeat > 1 {
            format!(", round {}", test.round)
        } else {
            String::new()
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "---- {} {what} after {} ms{round}",
            test.test, test.ms
        );
        text += test.output.trim_end();
        text += "\n\n";
    }
    if !report.interrupted {
        text += &report.causes;
    }
    let names = failures(report);
    if !names.is_empty() && !report.interrupted {
        text += "\nTo run one of them again:\n";
        for name in names.iter().take(REPEATED) {
            let command = reproduction(args, subject, report.accel, report.mem_mib, Some(name));
            let _ = writeln!(text, "    {command}");
        }
        if names.len() > REPEATED {
            let _ = writeln!(text, "    ... and {} more", names.len() - REPEATED);
        }
        text.push('\n');
        text += &table(report, &names);
    } else if report.verdict != Verdict::Passed && !report.interrupted {
        let command = reproduction(args, subject, report.accel, report.mem_mib, None);
        let _ = writeln!(text, "\nTo run it again:\n    {command}\n");
    }
    if report.not_run > 0 {
        let _ = writeln!(text, "{} not run", report.not_run);
    }
    if !report.interrupted {
        let _ = writeln!(
            text,
            "{} on {}, {}, {} CPUs: {:.1} s",
            report.verdict.words(),
            report.profile,
            report.accel.name(),
            report.smp,
            report.seconds
        );
        let advice = report::advice(run, report.verdict);
        if !advice.is_empty() {
            let _ = writeln!(text, "{advice}");
        }
    }
    text
}

/// The failures at a glance.
fn table(report: &Report, names: &[&str]) -> String {
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    names.iter().fold(String::new(), |mut text, name| {
        let results: Vec<_> = report
            .tests
            .iter()
            .filter(|test| test.test == *name && test.outcome != Outcome::Skipped)
            .collect();
        let bad = results
            .iter()
            .filter(|test| matches!(test.outcome, Outcome::Failed | Outcome::Timeout))
            .count();
        let mut what = Vec::new();
        let own = |test: &kunit::TestResult| test.test == *name && test.outcome == Outcome::Failed;
        if report.kunit.iter().any(own) {
            what.push("failed".to_owned());
        }
        if bad > 0 {
            what.push(if results.len() > 1 {
                format!("failed {bad} of {} times", results.len())
            } else if results[0].outcome == Outcome::Timeout {
                "time-out".to_owned()
            } else {
                "failed".to_owned()
            });
        }
        for finding in &report.findings {
            if finding.test.as_deref() == Some(name) {
                what.push(finding.rule.clone());
            }
        }
        if report.interrupted_test.as_deref() == Some(name) {
            what.push("never ended".to_owned());
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:width$}  {}", what.join(", "));
        text
    })
}

/// `--show-command`.
fn show(args: &Args) -> Result<ExitCode> {
    for command in guest::shown_commands(&[Program::Init, Program::Tests])? {
        println!("{command}");
    }
    let (accels, _) = kvm::candidates(args.accel);
    for profile in &args.profile {
        let kernel = match &args.kernel {
            Some(kernel) => kernel.clone(),
            None => {
                println!("cargo xtask build --profile {profile}");
                format!("bzImage-{profile}").into()
            }
        };
        let machine = Machine {
            kernel,
            smp: args.smp,
            mem_mib: args.mem.unwrap_or_else(|| guest::memory("")),
            disks: vec![Disk::virtio(Path::new("target/qemu-test/RUN").join(DISK))],
            console: Console::File,
            icount: false,
            append: String::new(),
        };
        for accel in &accels {
            let line = machine.command_line(*accel, Path::new("target/qemu-test/RUN"));
            println!("{}", quoted(&line));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_rules::Scanner;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn subject_of(args: &Args) -> Subject {
        Subject {
            profile: args.profile[0].clone(),
            bzimage: "/build/bzImage".into(),
            sha256: "0123456789abcdef-not-shown".to_owned(),
            config: String::new(),
            given: false,
            kunit: kunit::Expected::default(),
        }
    }

    /// Two rounds of `f1::a`, `f1::b` and `f2::c`: `b` fails in the first, the kernel complains of
    /// `a` in the second, and is lost in `b`.
    fn lost(rules: &Rules) -> Run<'_> {
        let mut session = Session::default();
        let log = "Linux version 7.3.4\nsqe-group: begin\nsqe-group: run f1::a\n\
                   sqe-group: run f1::b\nsqe-group: run f2::c\nsqe-group: run f1::a\n\
                   WARNING: here\nsqe-group: run f1::b\n";
        session
            .push(Message::Begin {
                version: VERSION,
                kernel: "Linux 7.3.4".to_owned(),
                cpus: 2,
                groups: true,
                tests: 6,
            })
            .unwrap();
        for (round, test, result) in [
            (1, "f1::a", Some(Outcome::Passed)),
            (1, "f1::b", Some(Outcome::Failed)),
            (1, "f2::c", Some(Outcome::Skipped)),
            (2, "f1::a", Some(Outcome::Passed)),
            (2, "f1::b", None),
        ] {
            let test = test.to_owned();
            let start = Message::Start {
                test: test.clone(),
                round,
            };
            session.push(start).unwrap();
            if let Some(outcome) = result {
                let output = "skip: no null_blk\n".to_owned();
                let result = Message::Result {
                    test,
                    outcome,
                    ms: 3,
                    output,
                };
                session.push(result).unwrap();
            }
        }
        let mut scanner = Scanner::new(rules);
        scanner.push(log.as_bytes());
        scanner.finish();
        Run {
            session,
            fault: None,
            scanner,
            printed: true,
            status: None,
            timed_out: Some("waited 9 s for a message".to_owned()),
            interrupted: false,
            elapsed: Duration::from_secs(60),
            stderr: String::new(),
        }
    }

    #[test]
    fn reports_tell_each_round_of_each_test() {
        use clap::Parser as _;

        let args = Line::parse_from(["", "--repeat", "2", "--kernel", "/build/bzImage"]).args;
        let subject = subject_of(&args);
        let rules = Rules::parse(include_str!("../../../ci/log-rules.toml")).unwrap();
        let mut run = lost(&rules);
        let all = names(&["f1::a", "f1::b", "f2::c"]);
        let kunit = vec![kunit::TestResult {
            test: "kunit::s::c5_x".to_owned(),
            outcome: Outcome::Failed,
            output: "EXPECTATION FAILED\n".to_owned(),
        }];
        let dir = Path::new("/run");
        let mut report = summarize(&args, &subject, (Accel::Tcg, &run), kunit, 6, 1024, dir);
        assert_eq!(
            (report.passed, report.failed, report.skipped, report.not_run),
            (1, 4, 1, 1)
        );
        let sheet = filled_in(&args, &subject, &run, &report, &all);
        let told: Vec<_> = sheet
            .cases
            .iter()
            .map(|case| {
                let status = match &case.status {
                    Status::Failed { kind, .. } => kind.words(),
                    Status::Passed => "passed",
                    Status::Skipped { why } => why,
                    Status::NotRun => "not run",
                };
                (case.round, case.name.as_str(), status)
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, "kunit::s::c5_x", "failed"),
                (1, "f1::a", "passed"),
                (1, "f1::b", "failed"),
                (1, "f2::c", "no null_blk"),
                (2, "f1::a", "the kernel complained"),
                (2, "f1::b", "never ended"),
                (2, "f2::c", "not run"),
            ]
        );
        assert!(sheet.trouble.contains("waited 9 s") && !sheet.trouble.contains("WARNING"));
        assert_eq!(sheet.complaints.len(), 1);
        let failures = sheet.failures();
        let of_b = failures.iter().find(|failure| failure.name == "f1::b");
        assert_eq!(of_b.unwrap().often().unwrap(), "failed 2 of 2 times");
        let command = failures[0].first.command.as_ref().unwrap();
        assert!(command.contains("--exact") && command.contains("--filter kunit::s::c5_x"));
        let shown = |words: &str| sheet.facts.iter().any(|(_, value)| value.contains(words));
        for words in [
            "0123456789abcdef",
            "Linux 7.3.4",
            "tcg, 2 CPUs, 1024 MiB",
            "/run",
        ] {
            assert!(shown(words), "{words}: {:?}", sheet.facts);
        }
        assert!(!shown("not-shown"));

        // Nobody knows what would have become of the test that was running.
        run.interrupted = true;
        report.interrupted = true;
        let sheet = filled_in(&args, &subject, &run, &report, &all);
        assert_eq!(sheet.cases[5].status, Status::NotRun);
    }

    #[test]
    fn filters_select() {
        let all = names(&["f1::a", "f1::ab", "f2::a"]);
        let select = |filters: &[&str], exact| select(&all, &names(filters), exact);
        assert_eq!(select(&[], false).unwrap(), all);
        assert_eq!(select(&["f1"], false).unwrap(), names(&["f1::a", "f1::ab"]));
        assert_eq!(
            select(&["b$", "f2"], false).unwrap(),
            names(&["f1::ab", "f2::a"])
        );
        assert_eq!(select(&["f1::a"], true).unwrap(), names(&["f1::a"]));
        assert!(select(&["f1::"], true).is_err());
        assert!(select(&["f3"], false).is_err());
        assert!(
            select(&["f1", "f3"], false).is_err(),
            "one of two is a typo"
        );
        assert!(select(&["("], false).is_err());
        assert_eq!(
            select(&["("], true)
                .unwrap_err()
                .to_string()
                .matches("no test")
                .count(),
            1
        );
    }

    #[test]
    fn filters_choose_among_the_tests_of_kunit_too() {
        let result = |test: &str| kunit::TestResult {
            test: test.to_owned(),
            outcome: Outcome::Passed,
            output: String::new(),
        };
        let all = names(&["f1::a", "f2::a"]);
        let own = || vec![result("kunit::s::f1_a"), result("kunit::s::f3_a")];
        let expected = kunit::Expected::new("CONFIG_IO_URING_GROUP_KUNIT_TEST=y\n", None);
        for (filters, exact, tests, counted, failed) in [
            (vec![], false, 2, 2, vec![]),
            (vec!["f1"], false, 1, 1, vec![]),
            (vec!["f2"], false, 1, 0, vec![]),
            (vec!["f2", "kunit::.*f3"], false, 1, 1, vec![]),
            (vec!["kunit"], false, 0, 2, vec![]),
            (vec!["kunit::s::f3_a"], true, 0, 1, vec![]),
            (vec!["kunit::s::f4"], false, 0, 0, vec!["kunit::s::f4"]),
            (vec!["f1", "kunit::f"], false, 1, 1, vec!["kunit::f"]),
        ] {
            let selection = Selection::new(&all, &names(&filters), exact).unwrap();
            selection.check(&all, &expected).unwrap();
            let counts = selection.of_kunit(own());
            assert_eq!(selection.tests.len(), tests, "{filters:?}");
            assert_eq!(kunit::count(&counts).0, counted, "{filters:?}");
            let bad = counts.iter().filter(|test| test.outcome == Outcome::Failed);
            assert!(bad.map(|test| &test.test).eq(&failed), "{filters:?}");
        }
        // Nothing can be meant by these.
        let selection = Selection::new(&all, &names(&["kunit"]), false).unwrap();
        assert!(selection.check(&all, &kunit::Expected::default()).is_err());
        let selection = Selection::new(&all, &names(&["f3"]), false).unwrap();
        assert!(selection.check(&all, &expected).is_err());
    }

    #[test]
    fn every_test_is_run_by_one_program() {
        let all = names(&["f1::a", "kselftest::f.v.t", "f2::a"]);
        let suites = suites(&all);
        assert_eq!(suites[0].tests, names(&["f1::a", "f2::a"]));
        assert_eq!(suites[1].tests, names(&["kselftest::f.v.t"]));
        assert_eq!(suites.len(), 2);
    }

    #[test]
    fn an_empty_binary_is_an_error() {
        assert!(select(&[], &[], false).is_err());
    }

    #[test]
    fn time_outs_follow_the_machine() {
        let debug = "CONFIG_KASAN=y\nCONFIG_PROVE_LOCKING=y\n";
        assert_eq!(slowdown(Accel::Kvm, "", 1.0), 1);
        assert_eq!(slowdown(Accel::Tcg, "", 1.0), 3);
        assert_eq!(slowdown(Accel::Tcg, debug, 1.0), 18);
        assert_eq!(slowdown(Accel::Tcg, debug, 2.0), 36);
        assert_eq!(slowdown(Accel::Kvm, "", 0.01), 1);
        for slowdown in [1, 3, 18] {
            let test = TEST_TIMEOUT * slowdown;
            // Init must have the time to report a hang itself.
            assert!(limits(slowdown, test).silence > test + Duration::from_secs(12) * slowdown);
        }
    }

    #[test]
    fn a_reproduction_is_a_command_that_is_understood() {
        use clap::Parser as _;

        let line = [
            "",
            "--kdir",
            "/a b",
            "--llvm",
            "-19",
            "--filter",
            "f1",
            "--filter",
            "f2 (a|b)",
            "--smp",
            "4",
            "--repeat",
            "3",
            "--max-failures",
            "7",
            "--storm",
            "60",
            "--seed",
            "5",
            "--timeout-scale",
            "2.5",
            "--profile",
            "base",
        ];
        let args = Line::parse_from(line).args;
        let subject = subject_of(&args);
        for (test, filter, exact) in [
            (Some("f1::a"), names(&["f1::a"]), true),
            (None, args.filter.clone(), false),
        ] {
            let command = reproduction(&args, &subject, Accel::Tcg, 1024, test);
            let words = std::process::Command::new("sh")
                .args(["-c", &format!("printf '%s\\n' {command}")])
                .output()
                .unwrap();
            let words = String::from_utf8(words.stdout).unwrap();
            let mut words = words.lines();
            assert!(words.by_ref().take(2).eq(["cargo", "xtask"]));
            let parsed = Line::parse_from(words).args;
            assert_eq!(parsed.profile, args.profile);
            assert_eq!(parsed.filter, filter);
            assert_eq!(parsed.exact, exact);
            assert_eq!(parsed.accel, kvm::Choice::Tcg);
            assert_eq!((parsed.smp, parsed.mem), (4, Some(1024)));
            assert_eq!(parsed.repeat, 3);
            assert_eq!(parsed.max_failures, 7);
            assert_eq!((parsed.storm, parsed.seed), (Some(60), Some(5)));
            assert_eq!(parsed.kernel, None);
            assert_eq!(parsed.options.kdir, args.options.kdir);
            assert_eq!(parsed.options.llvm, "-19");
            assert_eq!(parsed.timeout_scale, 2.5);
        }
    }

    #[test]
    fn a_bad_factor_is_refused() {
        assert!(factor("0").is_err());
        assert!(factor("-1").is_err());
        assert!(factor("NaN").is_err());
        assert!(factor("x").is_err());
        assert_eq!(factor("0.5"), Ok(0.5));
    }
}
