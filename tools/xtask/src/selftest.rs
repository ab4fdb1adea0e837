// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's own selftest of groups, `tools/testing/selftests/io_uring`, built for the
//! guest as the kernel builds it: with its makefile, and with the headers that a kernel with
//! the series exports.
//!
//! It takes no kernel tree with the series, and does not wait for one that is being built:
//! around the files of the selftest there are links into the source as it came.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{bail, ensure, Context as _, Result};
use harness::protocol::{Suite, SuiteKind, KSELFTEST};

use crate::{
    build,
    cache::{self, Cache, Parts},
    fetch, paths,
    progress::say,
    run, run_dir,
    series::{self, Base, Patched, Series},
};

/// Where it is in a kernel tree, and below `kernel/` here.
const DIR: &str = "tools/testing/selftests/io_uring";

/// Its one program.
const PROGRAM: &str = "sqe_group";

/// Where that is in the guest.
pub(crate) const PATH: &str = "/bin/sqe_group";

/// What its makefile needs of the tree around it.
const AROUND: [&str; 6] = [
    "scripts",
    "tools/include",
    "tools/scripts",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
];

/// Headers that are for userspace, in the tree.
const UAPI: &str = "include/uapi";

/// The selftest, built.
#[derive(Clone, Debug)]
pub(crate) struct Selftest {
    /// The program, which is static.
    pub(crate) file: PathBuf,
    /// Its tests by their full names.
    pub(crate) tests: Vec<String>,
}

impl Selftest {
    /// What of it a job is to run: those of the tests that are its own.
    pub(crate) fn suite(tests: &[String]) -> Suite {
        let own = tests.iter().filter(|test| test.starts_with(KSELFTEST));
        Suite {
            kind: SuiteKind::Kselftest,
            program: PATH.to_owned(),
            tests: own.cloned().collect(),
        }
    }
}

/// Builds it, or says why it is left out: where the kernel's source is not there and may
/// not be fetched.
///
/// # Errors
///
/// If it cannot be built though the source is there.
pub(crate) fn build(may_fetch: bool) -> Result<Option<Selftest>> {
    let base = Base::load(&paths::kernel()?)?;
    let source = match fetch::cached_source(&Cache::open()?, &base) {
        Some(source) => source,
        None if may_fetch => series::fetched()?,
        None => {
            say(
                "Skipped",
                format!(
                    "{KSELFTEST}{PROGRAM}: the source of Linux {} is not in the cache; `cargo xtask \
                     build` gets it",
                    base.version
                ),
            );
            return Ok(None);
        }
    };
    let place = run_dir::target()?.join("kselftest");
    let file = make(&source, &base.version, &place)
        .with_context(|| format!("the selftest in kernel/{DIR} cannot be built"))?;
    let tests = list(&file)?;
    Ok(Some(Selftest { file, tests }))
}

/// Brings the program up to date.
fn make(source: &Path, version: &str, place: &Path) -> Result<PathBuf> {
    fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    let lock = place.join("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock().context("cannot wait for another run")?;

    let headers = place.join("headers");
    let tree = place.join("tree");
    let out = place.join("out");
    let program = out.join(PROGRAM);
    let own = paths::kernel()?.join(DIR);
    let uapi = uapi(source)?;

    let mut inputs = Parts::default();
    inputs.add(version);
    inputs.add(source.as_os_str().as_encoded_bytes());
    for (path, content) in &uapi {
        inputs.add(path.as_os_str().as_encoded_bytes());
        inputs.add(content);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&own).with_context(|| format!("cannot read {}", own.display()))? {
        files.push(entry?.file_name());
    }
    files.sort();
    for name in &files {
        let path = own.join(name);
        inputs.add(name.as_encoded_bytes());
        inputs.add(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let inputs = inputs.digest();
    let stamp = place.join("built");
    if program.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == inputs) {
        return Ok(program);
    }

    say("Building", format!("the selftest {PROGRAM}"));
    install_headers(source, version, &headers)?;
    for dir in [&tree, &out] {
        cache::remove_dir(dir)?;
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    for path in AROUND {
        let link = tree.join(path);
        let parent = link.parent().context("a path below the tree")?;
        fs::create_dir_all(parent)
            .and_then(|()| symlink(source.join(path), &link))
            .with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    // The makefile asks for its neighbours, so a link would not do.
    let test = tree.join(DIR);
    for name in &files {
        let content = own.join(name);
        let content =
            fs::read(&content).with_context(|| format!("cannot read {}", content.display()))?;
        cache::write_whole(&test.join(name), &content)?;
    }
    let changed = tree.join("usr/include");
    for (path, content) in &uapi {
        let raw = tree.join("uapi").join(path);
        cache::write_whole(&raw, content)?;
        let exported = changed.join(path);
        let parent = exported.parent().context("a path below the tree")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        run::output(
            Command::new("sh")
                .arg(source.join("scripts/headers_install.sh"))
                .arg(&raw)
                .arg(&exported)
                // Where its program is.
                .current_dir(&headers),
        )?;
    }
    let mut command = Command::new("make");
    build::forget_makes(&mut command)
        .arg("-C")
        .arg(&test)
        .arg(format!("OUTPUT={}", out.display()))
        // The changed ones come first.
        .arg(format!(
            "KHDR_INCLUDES=-isystem {} -isystem {}",
            changed.display(),
            headers.join("usr/include").display()
        ))
        .args(["CC=cc", "USERCFLAGS=-Werror", "USERLDFLAGS=-static"]);
    run::checked_lines(&mut command, |_| Ok(()))?;
    ensure!(
        program.exists(),
        "make succeeded and left no {}",
        program.display()
    );
    cache::write_whole(&stamp, inputs.as_bytes())?;
    Ok(program)
}

/// The headers for userspace that the series changes or brings, by their paths below
/// [`UAPI`].
fn uapi(source: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let series = Series::load()?;
    let patched = Patched::new(&series, source)?;
    let mut headers = Vec::new();
    for path in series.touched()?.into_iter().chain(series.added()) {
        if let Ok(below) = path.strip_prefix(UAPI) {
            let content = patched
                .content(&path)?
                .with_context(|| format!("the series leaves no {}", path.display()))?;
            headers.push((below.to_owned(), content));
        }
    }
    Ok(headers)
}

/// All that the kernel exports, as it came. Takes half a minute, once.
fn install_headers(source: &Path, version: &str, into: &Path) -> Result<()> {
    let stamp = into.join("installed");
    let wanted = format!("{version} {}", source.display());
    match fs::read_to_string(&stamp) {
        Ok(there) if there == wanted => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", stamp.display()))
        }
    }
    cache::remove_dir(into)?;
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    let mut command = Command::new("make");
    build::forget_makes(&mut command)
        .arg("-C")
        .arg(source)
        .arg(format!("O={}", into.display()))
        .args(["ARCH=x86", "headers"]);
    run::checked_lines(&mut command, |_| Ok(()))?;
    cache::write_whole(&stamp, wanted.as_bytes())
}

/// The tests in it, which the host can ask as the program is static.
fn list(file: &Path) -> Result<Vec<String>> {
    let output = Command::new(file)
        .arg("-l")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", file.display()))?;
    // It says so on stderr, and that it has skipped its tests.
    let text = String::from_utf8_lossy(&output.stderr);
    let tests = names(&text).with_context(|| format!("{} -l says:\n{text}", file.display()))?;
    ensure!(
        !tests.is_empty(),
        "{} has no tests; it says:\n{text}",
        file.display()
    );
    Ok(tests)
}

/// What a fixture of the list has.
#[derive(Default)]
struct Fixture<'a> {
    name: &'a str,
    variants: Vec<&'a str>,
    tests: Vec<&'a str>,
}

impl Fixture<'_> {
    /// Each test with each variant, by the names that `-r` takes.
    fn names(&self) -> Vec<String> {
        let Self {
            name,
            variants,
            tests,
        } = self;
        let all = |middle: &str| -> Vec<String> {
            let full = |test: &&str| format!("{KSELFTEST}{name}.{middle}{test}");
            tests.iter().map(full).collect()
        };
        if variants.is_empty() {
            all("")
        } else {
            let each = |variant: &&str| all(&format!("{variant}."));
            variants.iter().flat_map(each).collect()
        }
    }
}

/// Reads the list that kselftest_harness.h prints: three columns, in which a fixture's
/// variants stand beside its tests, and rules between fixtures.
fn names(list: &str) -> Result<Vec<String>> {
    const VARIANT: usize = 21;
    const TEST: usize = 47;
    let mut names = Vec::new();
    let mut fixture = Fixture::default();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with("---") {
            names.extend(fixture.names());
            fixture = Fixture::default();
            continue;
        }
        let mut at = 0;
        for word in line.split(' ') {
            match (word, at) {
                ("", _) => {}
                (name, 0) => fixture.name = name,
                (name, VARIANT) => fixture.variants.push(name),
                (name, TEST) => fixture.tests.push(name),
                (name, _) => bail!("{name:?} is in none of the columns of the list"),
            }
            at += word.len() + 1;
        }
    }
    names.extend(fixture.names());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_by_its_columns() {
        let row = |fixture: &str, variant: &str, test: &str| {
            format!("{fixture:<20} {variant:<25} {test}\n")
        };
        let list = row("# FIXTURE", "VARIANT", "TEST")
            + &row("global", "", "announced")
            + &"-".repeat(80)
            + "\n"
            + &row("rings", "plain", "drain")
            + &row("", "sqpoll", "chain")
            + &row("", "", "cancel");
        assert_eq!(
            names(&list).unwrap(),
            [
                "kselftest::global.announced",
                "kselftest::rings.plain.drain",
                "kselftest::rings.plain.chain",
                "kselftest::rings.plain.cancel",
                "kselftest::rings.sqpoll.drain",
                "kselftest::rings.sqpoll.chain",
                "kselftest::rings.sqpoll.cancel",
            ]
        );
        // A name that is wider than its column.
        let wide = row("a_fixture_with_a_long_name", "plain", "drain");
        let error = names(&wide).unwrap_err().to_string();
        assert!(error.contains("none of the columns"), "{error}");
        assert_eq!(names("").unwrap(), [""; 0]);
    }

    #[test]
    fn a_job_gets_its_own_tests() {
        let all = ["drain::a", "kselftest::rings.plain.drain"].map(str::to_owned);
        assert_eq!(Selftest::suite(&all).tests, all[1..]);
    }
}
