// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask splats`: makes the kernel complain in every way, and sees the rules for its
//! log find it.
//!
//! A rule that was never seen to match may be unable to, for the kernel changes what it
//! prints. So a module does one thing wrong, in a guest of its own, and the run is judged as
//! any other is. `ci/splats.toml` lists what there is, and why there is nothing for the rest
//! of the rules.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{bail, ensure, Context as _, Result};
use harness::protocol::{Suite, SuiteKind, SPLAT_ENV, SPLAT_PATH};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    build,
    guest::{self, Built, Program},
    interrupt, kvm,
    log_rules::{Finding, Rules},
    paths,
    profile::Profile,
    progress::{self, say},
    qemu, qemu_test, report,
    verdict::Verdict,
};

/// The test that loads the module.
const TEST: &str = "planted";

/// What makes nobody complain.
const NOTHING: &str = "nothing";

/// Arguments of `cargo xtask splats`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all were found, 1 one was not, 5 infrastructure error (nothing is known), 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// Only what is planted in kernels of these profiles, separated by commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = Profile::to_boot)]
    profile: Vec<Profile>,
    /// Only what has a name that matches this regular expression. May be repeated.
    #[arg(long, value_name = "REGEX")]
    only: Vec<String>,
    /// Say what there is, and boot nothing.
    #[arg(long)]
    list: bool,
    /// Boot this bzImage instead of building one.
    #[arg(long, value_name = "BZIMAGE", requires_all = ["modules", "profile"])]
    kernel: Option<PathBuf>,
    /// With --kernel: where the modules of ci/splats were built for it.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// How the guest is executed.
    #[arg(long, value_enum, default_value_t)]
    accel: kvm::Choice,
    /// Write the results into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Multiply every time-out by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = qemu_test::factor)]
    timeout_scale: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    splat: Vec<Splat>,
    unplanted: Vec<Unplanted>,
}

/// One thing to do wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Splat {
    /// The rule that is to find it; after a dot, which of several ways.
    name: String,
    /// What happens, in a few words.
    what: String,
    /// The kernel that notices.
    #[serde(default = "debug")]
    profile: String,
    /// Which of the modules does it.
    #[serde(default = "module")]
    module: String,
    /// What else the kernel is told.
    #[serde(default)]
    append: String,
    /// Processors that it takes.
    #[serde(default = "one")]
    smp: u32,
    /// Rules for what comes of it, and is found too.
    #[serde(default)]
    with: Vec<String>,
}

fn one() -> u32 {
    1
}

fn debug() -> String {
    "debug".to_owned()
}

fn module() -> String {
    "splat".to_owned()
}

impl Splat {
    /// The rule that is to find it.
    fn rule(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }
}

/// A rule that nothing is planted for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unplanted {
    rule: String,
    reason: String,
}

/// What came of one.
#[derive(Debug, Serialize)]
struct Outcome {
    planted: String,
    profile: String,
    found: bool,
    verdict: Verdict,
    /// The rules that found something, in the order in which they did.
    rules: Vec<String>,
    seconds: f64,
    directory: PathBuf,
    #[serde(skip)]
    causes: String,
}

/// The results of a command, for `--json`.
#[derive(Serialize)]
struct Results<'a> {
    passed: usize,
    failed: usize,
    skipped: usize,
    splats: &'a [Outcome],
}

/// Runs `cargo xtask splats`.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match execute(&args) {
        Ok(code) => Ok(code),
        // 1 would say that something was not found.
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            Ok(Verdict::Infrastructure.into())
        }
    }
}

/// The list of this checkout.
fn load() -> Result<Vec<Splat>> {
    let path = paths::root()?.join("ci/splats.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, &Rules::load()?.names())
        .with_context(|| format!("{} is not as it should be", path.display()))
}

/// What there is to plant. Each rule has something or a reason.
fn parse(text: &str, rules: &[&str]) -> Result<Vec<Splat>> {
    let Raw {
        splat: splats,
        unplanted,
    } = toml::from_str(text)?;
    let mut names = BTreeSet::new();
    let mut covered = BTreeSet::new();
    for splat in &splats {
        let Splat {
            name,
            what,
            profile,
            module: _,
            append: _,
            smp: _,
            with,
        } = splat;
        ensure!(names.insert(name), "{name} is there twice");
        ensure!(!what.is_empty(), "{name} does not say what happens");
        ensure!(
            rules.contains(&splat.rule()),
            "{name}: there is no rule {:?}",
            splat.rule()
        );
        Profile::to_boot(profile).with_context(|| format!("{name} cannot be planted"))?;
        for rule in with {
            ensure!(
                rules.contains(&rule.as_str()),
                "{name} comes with {rule:?}, and there is no rule {rule:?}"
            );
        }
        covered.insert(splat.rule());
    }
    for Unplanted { rule, reason } in &unplanted {
        ensure!(
            rules.contains(&rule.as_str()),
            "nothing is planted for {rule}, which is no rule"
        );
        ensure!(!reason.is_empty(), "{rule} has no reason");
        ensure!(
            covered.insert(rule),
            "something is planted for {rule}, so there can be no reason why not"
        );
    }
    for rule in rules {
        ensure!(
            covered.contains(rule),
            "nothing is planted for {rule}, and there is no reason why not"
        );
    }
    Ok(splats)
}

/// Those that were asked for.
fn select(all: Vec<Splat>, args: &Args) -> Result<Vec<Splat>> {
    let mut patterns = Vec::new();
    for only in &args.only {
        let pattern = Regex::new(only)
            .with_context(|| format!("--only {only:?} is no regular expression"))?;
        ensure!(
            all.iter().any(|splat| pattern.is_match(&splat.name)),
            "nothing matches --only {only:?}: `cargo xtask splats --list` shows what there is"
        );
        patterns.push(pattern);
    }
    let splats: Vec<_> = all
        .into_iter()
        .filter(|splat| {
            let named = |profile: &Profile| profile.name() == splat.profile;
            (patterns.is_empty() || patterns.iter().any(|one| one.is_match(&splat.name)))
                && (args.profile.is_empty() || args.profile.iter().any(named))
        })
        .collect();
    ensure!(
        !splats.is_empty(),
        "nothing of that is planted in this kernel: `cargo xtask splats --list` shows what there is"
    );
    Ok(splats)
}

fn described(splat: &Splat) -> String {
    let Splat {
        name,
        what,
        profile,
        ..
    } = splat;
    format!("{name} ({profile})\n    {what}\n")
}

/// A kernel, and where its modules are.
struct Subject {
    profile: Profile,
    bzimage: PathBuf,
    modules: PathBuf,
}

impl Subject {
    fn get(args: &Args, profile: &str) -> Result<Self> {
        let profile = Profile::to_boot(profile)?;
        if let (Some(kernel), Some(modules)) = (&args.kernel, &args.modules) {
            guest::check_image(kernel)?;
            return Ok(Self {
                profile,
                bzimage: kernel.clone(),
                modules: modules.clone(),
            });
        }
        let source = paths::root()?.join("ci/splats");
        let (kernel, modules) = build::ensure_modules(profile.clone(), &args.options, &source)?;
        Ok(Self {
            profile,
            bzimage: kernel.image,
            modules,
        })
    }
}

fn execute(args: &Args) -> Result<ExitCode> {
    let splats = select(load()?, args)?;
    if args.list {
        let list: String = splats.iter().map(described).collect();
        report::print(&list);
        return Ok(ExitCode::SUCCESS);
    }
    qemu::check()?;
    let built = guest::build(&[Program::Init, Program::Splats])?;
    let guard = interrupt::Guard::install().context("cannot handle Ctrl-C")?;
    let mut profiles: Vec<&str> = Vec::new();
    for splat in &splats {
        if !profiles.contains(&splat.profile.as_str()) {
            profiles.push(&splat.profile);
        }
    }
    ensure!(
        args.kernel.is_none() || profiles.len() == 1,
        "--kernel names one kernel, so there can be only one --profile"
    );

    let mut outcomes = Vec::new();
    'profiles: for profile in profiles {
        let subject = match Subject::get(args, profile) {
            Ok(subject) => subject,
            // make got the signal too.
            Err(_) if guard.requested() => break,
            Err(error) => return Err(error),
        };
        if !control(args, &subject, &built)? {
            break;
        }
        for splat in splats.iter().filter(|splat| splat.profile == profile) {
            let place = format!("{} of {}", outcomes.len() + 1, splats.len());
            say("Planting", format!("{place}: {}", splat.name));
            let Some(outcome) = try_one(args, &subject, &built, splat)? else {
                break 'profiles;
            };
            say(
                if outcome.found { "Found" } else { "NOT FOUND" },
                format!("{}: {}", outcome.planted, how(&outcome)),
            );
            outcomes.push(outcome);
            // Each time, so that an interrupted run leaves what it has found out.
            save(args, &outcomes, splats.len())?;
        }
    }
    let interrupted = outcomes.len() < splats.len();
    for outcome in outcomes.iter().filter(|outcome| !outcome.found) {
        report::print(&format!("---- {}\n{}\n", outcome.planted, outcome.causes));
    }
    report::print(&table(&outcomes));
    let (passed, failed, skipped) = count(&outcomes, splats.len());
    report::print(&report::closing(
        u32::try_from(passed)?,
        u32::try_from(failed)?,
        u32::try_from(skipped)?,
    ));
    Ok(if interrupted {
        progress::line(format_args!("interrupted"));
        interrupt::STATUS.into()
    } else if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Boots a guest in which the module does one thing.
fn boot(
    args: &Args,
    subject: &Subject,
    built: &[Built],
    splat: &Splat,
) -> Result<qemu_test::Report> {
    let Splat {
        name,
        module,
        append,
        ..
    } = splat;
    let module = subject.modules.join(format!("{module}.ko"));
    ensure!(
        module.exists(),
        "there is no {}: build ci/splats for this kernel, or leave out --kernel",
        module.display()
    );
    let run = qemu_test::Args {
        options: args.options.clone(),
        profile: vec![subject.profile.clone()],
        filter: Vec::new(),
        exact: false,
        accel: args.accel,
        smp: splat.smp,
        mem: None,
        repeat: 1,
        max_failures: 0,
        storm: None,
        seed: None,
        kernel: Some(subject.bzimage.clone()),
        json: None,
        junit: None,
        show_command: false,
        timeout_scale: args.timeout_scale,
    };
    let load = qemu_test::Load {
        built,
        suites: vec![Suite {
            kind: SuiteKind::Libtest,
            program: Program::Splats.path(),
            tests: vec![TEST.to_owned()],
        }],
        env: vec![(SPLAT_ENV.to_owned(), name.clone())],
        files: vec![(SPLAT_PATH, Path::new(&module))],
        append,
    };
    qemu_test::judge_load(&run, &load)
}

/// What a kernel complains of by itself shows nothing when something is planted. Returns
/// false if that could not be seen for an interruption.
fn control(args: &Args, subject: &Subject, built: &[Built]) -> Result<bool> {
    say(
        "Control",
        format!("the module that does nothing, on {}", subject.profile),
    );
    let nothing = Splat {
        name: NOTHING.to_owned(),
        what: String::new(),
        profile: subject.profile.to_string(),
        module: module(),
        append: String::new(),
        smp: one(),
        with: Vec::new(),
    };
    let report = boot(args, subject, built, &nothing)?;
    if report.interrupted {
        return Ok(false);
    }
    if report.verdict != Verdict::Passed {
        bail!(
            "with nothing planted the run has not passed ({}), so no find would show anything:\n{}",
            report.verdict.words(),
            report.causes.trim_end()
        );
    }
    Ok(true)
}

/// Plants one thing. Nothing if it was interrupted.
fn try_one(
    args: &Args,
    subject: &Subject,
    built: &[Built],
    splat: &Splat,
) -> Result<Option<Outcome>> {
    let report = boot(args, subject, built, splat)?;
    if report.interrupted {
        return Ok(None);
    }
    let early = |finding: &Finding| finding.test.as_deref() != Some(TEST);
    let early = report.findings.iter().any(early);
    let rules: Vec<_> = report
        .findings
        .iter()
        .map(|finding| finding.rule.clone())
        .collect();
    Ok(Some(Outcome {
        planted: splat.name.clone(),
        profile: subject.profile.to_string(),
        found: is_found(splat.rule(), &splat.with, report.verdict, &rules, early),
        verdict: report.verdict,
        rules,
        seconds: report.seconds,
        causes: format!("{}see {}", report.causes, report.directory.display()),
        directory: report.directory,
    }))
}

/// Whether a run shows what was planted: as a complaint of the kernel, by the rule that is
/// meant, and nothing else but by those that find what comes `with` it. What the kernel
/// complained of before is not what was planted.
fn is_found(rule: &str, with: &[String], verdict: Verdict, rules: &[String], early: bool) -> bool {
    verdict == Verdict::Splat
        && !early
        && rules.iter().any(|found| found == rule)
        && rules
            .iter()
            .all(|found| found == rule || with.contains(found))
}

/// Found, not found, not tried.
fn count(outcomes: &[Outcome], all: usize) -> (usize, usize, usize) {
    let found = outcomes.iter().filter(|outcome| outcome.found).count();
    (found, outcomes.len() - found, all - outcomes.len())
}

fn save(args: &Args, outcomes: &[Outcome], all: usize) -> Result<()> {
    let Some(path) = &args.json else {
        return Ok(());
    };
    let (passed, failed, skipped) = count(outcomes, all);
    let json = serde_json::to_vec_pretty(&Results {
        passed,
        failed,
        skipped,
        splats: outcomes,
    })
    .context("cannot encode the results")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// What was seen.
fn how(outcome: &Outcome) -> String {
    let Outcome {
        verdict,
        rules,
        seconds,
        ..
    } = outcome;
    format!("{}, {}, {seconds:.0} s", verdict.words(), by(rules))
}

/// The rules that found something, each once where it did several times in a row.
fn by(rules: &[String]) -> String {
    let mut rules = rules.to_vec();
    rules.dedup();
    if rules.is_empty() {
        "no rule".to_owned()
    } else {
        rules.join(", ")
    }
}

fn table(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return String::new();
    }
    let mut rows = vec![["planted", "profile", "found by", "seconds"].map(str::to_owned)];
    for outcome in outcomes {
        let by = by(&outcome.rules);
        rows.push([
            outcome.planted.clone(),
            outcome.profile.clone(),
            if outcome.found {
                by
            } else {
                format!("NOT FOUND ({}; {by})", outcome.verdict.words())
            },
            format!("{:.1}", outcome.seconds),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    rows.iter().fold(
        String::new(),
        |mut text, [planted, profile, by, seconds]| {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{planted:first$}  {profile:second$}  {by:third$}  {seconds:>7}"
            );
            text
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = include_str!("../../../ci/splats.toml");

    fn rules() -> Rules {
        Rules::parse(include_str!("../../../ci/log-rules.toml")).unwrap()
    }

    fn list() -> Vec<Splat> {
        parse(LIST, &rules().names()).unwrap()
    }

    #[test]
    fn what_is_listed_is_what_the_module_can_do() {
        let plant = Regex::new(r#"\tPLANT\("([^"]+)","#).unwrap();
        let source = include_str!("../../../ci/splats/splat.c");
        let can: BTreeSet<_> = plant
            .captures_iter(source)
            .map(|captures| captures[1].to_owned())
            .collect();
        let listed: BTreeSet<_> = list()
            .into_iter()
            .filter(|splat| splat.module == module())
            .map(|splat| splat.name)
            .chain([NOTHING.to_owned()])
            .collect();
        assert_eq!(can, listed);
    }

    #[test]
    fn a_list_that_is_wrong_is_refused() {
        let good = "[[splat]]\nname = 'a.x'\nwhat = 'w'\n[[unplanted]]\nrule = 'b'\nreason = 'r'\n";
        assert_eq!(parse(good, &["a", "b"]).unwrap()[0].rule(), "a");
        for (from, to, why) in [
            ("'a.x'", "'c.x'", "no rule \"c\""),
            ("what = 'w'", "what = ''", "what happens"),
            (
                "what = 'w'",
                "what = 'w'\nprofile = 'i386'",
                "cannot be planted",
            ),
            ("what = 'w'", "what = 'w'\nwith = ['c']", "comes with \"c\""),
            ("rule = 'b'", "rule = 'c'", "which is no rule"),
            ("rule = 'b'", "rule = 'a'", "no reason why not"),
            ("'r'", "''", "has no reason"),
        ] {
            let error = parse(&good.replace(from, to), &["a", "b"]).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
        let error = parse(good, &["a", "b", "c"]).unwrap_err();
        assert!(error.to_string().contains("nothing is planted for c"));
    }

    #[test]
    fn only_a_complaint_by_the_rule_that_is_meant_is_a_find() {
        let rules = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let splat =
            |names: &[&str], early| is_found("bug", &[], Verdict::Splat, &rules(names), early);
        assert!(splat(&["bug"], false));
        assert!(!splat(&["bug"], true));
        assert!(splat(&["bug", "bug"], false));
        let with = |names: &[&str]| {
            let oops = rules(&["oops"]);
            is_found("bug", &oops, Verdict::Splat, &rules(names), false)
        };
        assert!(with(&["bug", "oops"]));
        assert!(!with(&["oops"]));
        assert!(!with(&["bug", "warning"]));
        for (verdict, names) in [
            (Verdict::Splat, &["warning"][..]),
            (Verdict::Splat, &["bug", "warning"]),
            (Verdict::Splat, &[]),
            (Verdict::Passed, &[]),
            (Verdict::Lost, &["bug"]),
            (Verdict::Infrastructure, &[]),
        ] {
            assert!(
                !is_found("bug", &[], verdict, &rules(names), false),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_was_missed_stands_out() {
        let outcome = |found, verdict, rules: &[&str]| Outcome {
            planted: "kasan.bounds".to_owned(),
            profile: "debug".to_owned(),
            found,
            verdict,
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            seconds: 12.34,
            directory: PathBuf::new(),
            causes: String::new(),
        };
        let found = outcome(true, Verdict::Splat, &["kasan", "kasan"]);
        let missed = outcome(false, Verdict::Passed, &[]);
        let text = table(&[found, missed]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("planted "), "{text}");
        assert!(
            lines[1].starts_with("kasan.bounds  debug    kasan  "),
            "{text}"
        );
        assert!(lines[1].ends_with(" 12.3"), "{text}");
        assert!(lines[2].contains("NOT FOUND (passed; no rule)"), "{text}");
        assert_eq!(table(&[]), "");
    }
}
