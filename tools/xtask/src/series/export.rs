// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask series export`: the series as `git send-email` takes it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, ensure, Context as _, Result};

use super::{git, Base, Series};
use crate::{cache, paths, run};

/// The cover letter, beside the patches: a subject, a blank line, the text.
const COVER: &str = "patches/cover-letter.msg";

/// What `git format-patch` leaves to be filled in.
const COVER_SUBJECT: &str = "*** SUBJECT HERE ***";
const COVER_TEXT: &str = "*** BLURB HERE ***";

/// Who is told beside those that MAINTAINERS names: there is Rust in it, and a new
/// interface to applications.
const LISTS: [&str; 2] = [
    "rust-for-linux@vger.kernel.org",
    "linux-api@vger.kernel.org",
];

/// Arguments of `cargo xtask series export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Made if it is not there.
    dir: PathBuf,
    /// Which posting of the series this is.
    #[arg(short = 'v', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Ask for comments only: [RFC PATCH].
    #[arg(long)]
    rfc: bool,
    /// The commit that has the tree which the series is made for, for the line `base-commit:`.
    #[arg(long, value_name = "COMMIT", value_parser = commit)]
    base: Option<String>,
    /// Send as this person, who certifies what Documentation/process/submitting-patches.rst says.
    #[arg(long, value_name = "NAME <MAIL>", value_parser = Person::parse)]
    signoff: Option<Person>,
}

/// A person with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) mail: String,
}

impl Person {
    fn parse(text: &str) -> Result<Self, String> {
        let why = || format!("`{text}` is not of the form `NAME <MAIL>`");
        let (name, rest) = text.split_once('<').ok_or_else(why)?;
        let mail = rest.strip_suffix('>').ok_or_else(why)?;
        let (user, host) = mail.split_once('@').ok_or_else(why)?;
        let name = name.trim();
        let plain = |text: &str| {
            !text.is_empty()
                && !text.contains(|letter: char| {
                    letter.is_whitespace() || letter.is_control() || "<>@,;\"".contains(letter)
                })
        };
        let named = name.contains(char::is_alphabetic)
            && !name.contains(|letter: char| letter.is_control() || "<>@\"".contains(letter));
        if named && plain(user) && plain(host) && host.contains('.') && !host.ends_with('.') {
            Ok(Self {
                name: name.to_owned(),
                mail: mail.to_owned(),
            })
        } else {
            Err(why())
        }
    }
}

fn commit(text: &str) -> Result<String, String> {
    let hex = text.chars().all(|letter| letter.is_ascii_hexdigit());
    if hex && matches!(text.len(), 40 | 64) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a whole commit id is needed, of 40 digits: `git rev-parse TAG^{commit}`".to_owned())
    }
}

/// Writes the series as mails, and says how to send them.
pub(super) fn run(args: &Args) -> Result<()> {
    let series = Series::load()?;
    let pristine = super::fetched()?;
    let version = Base::load(&paths::kernel()?)?.version;
    let names = write(&series, &pristine, &version, args)?;
    for name in &names {
        println!("{}", name.display());
    }
    let recipients = Recipients::find(&pristine, &names[1..])?;
    println!("\n{}", recipients.command(&args.dir));
    if args.signoff.is_none() {
        println!(
            "\nThere is no Signed-off-by, and without one it will not be taken: whoever sends it gives \
             it, with --signoff 'NAME <MAIL>'."
        );
    }
    Ok(())
}

/// Writes the cover letter and a mail a patch.
fn write(series: &Series, pristine: &Path, version: &str, args: &Args) -> Result<Vec<PathBuf>> {
    let Args {
        dir,
        version: posting,
        rfc,
        base,
        signoff,
    } = args;
    let (subject, text) = cover(&series.kernel)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // What is sent is all that is in there: mails of an earlier posting would go with it.
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        ensure!(
            path.extension() != Some("patch".as_ref()),
            "{} is there already: name a new directory",
            path.display()
        );
    }
    let repository = git::small_as(series, pristine, signoff.as_ref())?;
    let mut options = vec!["--cover-letter".to_owned()];
    if let Some(posting) = posting {
        options.push(format!("--reroll-count={posting}"));
    }
    if *rfc {
        options.push("--rfc".to_owned());
    }
    if signoff.is_some() {
        options.push("--signoff".to_owned());
    }
    let names = git::format(repository.path(), dir, &options)?;
    let letter = names.first().context("git has written no cover letter")?;
    let found =
        fs::read_to_string(letter).with_context(|| format!("cannot read {}", letter.display()))?;
    let applies = match base {
        Some(commit) => format!("base-commit: {commit}"),
        None => format!("The series applies to Linux {version}."),
    };
    let filled = fill(&found, &subject, &text, &applies)?;
    cache::write_whole(letter, filled.as_bytes())?;
    Ok(names)
}

/// Subject and text of the cover letter.
fn cover(kernel: &Path) -> Result<(String, String)> {
    let path = kernel.join(COVER);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (subject, text) = text
        .strip_prefix("Subject: ")
        .and_then(|rest| rest.split_once("\n\n"))
        .with_context(|| format!("{} does not begin with `Subject: ...`", path.display()))?;
    Ok((subject.trim().to_owned(), text.trim().to_owned()))
}

/// Makes a cover letter of what git has written for one.
fn fill(found: &str, subject: &str, text: &str, applies: &str) -> Result<String> {
    for place in [COVER_SUBJECT, COVER_TEXT] {
        ensure!(
            found.matches(place).count() == 1,
            "git's cover letter has not one `{place}`"
        );
    }
    let filled = found
        .replacen(COVER_SUBJECT, subject, 1)
        .replacen(COVER_TEXT, text, 1);
    Ok(format!("{}\n\n{applies}\n", filled.trim_end()))
}

/// Whom the mails go to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recipients {
    to: BTreeSet<String>,
    cc: BTreeSet<String>,
}

impl Recipients {
    /// Asks the tree: who maintains what the mails change, and lists.
    fn find(pristine: &Path, mails: &[PathBuf]) -> Result<Self> {
        let ask = |what: &[&str]| {
            run::output(
                Command::new("perl")
                    .arg("scripts/get_maintainer.pl")
                    // There is no history to look at.
                    .args(["--no-git", "--no-git-fallback", "--norolestats"])
                    .args(what)
                    .args(mails)
                    .current_dir(pristine),
            )
            .context("the tree cannot be asked for its maintainers")
        };
        Self::new(&ask(&["--nol", "--nor"])?, &ask(&["--nom"])?)
    }

    fn new(people: &str, lists: &str) -> Result<Self> {
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(ToOwned::to_owned)
                .collect()
        };
        let to: BTreeSet<_> = lines(people).into_iter().collect();
        if to.is_empty() {
            bail!("MAINTAINERS names nobody for the files of the series");
        }
        let mut cc: BTreeSet<_> = lines(lists)
            .into_iter()
            .filter(|line| !to.contains(line))
            .collect();
        cc.extend(LISTS.map(ToOwned::to_owned));
        Ok(Self { to, cc })
    }

    /// What to type.
    fn command(&self, dir: &Path) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut command = "git send-email --no-chain-reply-to --suppress-cc=all".to_owned();
        for (option, people) in [("--to", &self.to), ("--cc", &self.cc)] {
            for person in people {
                command.push_str(&format!(" \\\n  {option}={}", quoted(person)));
            }
        }
        command.push_str(&format!(
            " \\\n  {}/*.patch",
            quoted(&dir.display().to_string())
        ));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{write as put, World},
        *,
    };

    fn args(dir: &Path) -> Args {
        Args {
            dir: dir.to_owned(),
            version: None,
            rfc: false,
            base: None,
            signoff: None,
        }
    }

    fn with_cover() -> World {
        let world = World::new();
        put(
            &world.kernel.join(COVER),
            "Subject: io_uring: all of it\n\nThe problem.\n",
        );
        world
    }

    #[test]
    fn mails_come_with_a_cover_letter_and_without_a_signature() {
        let world = with_cover();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("mails");
        let names = write(&world.series(), &world.tree, "7.3.4", &args(&dir)).unwrap();
        assert_eq!(names.len(), 3);
        let letter = fs::read_to_string(&names[0]).unwrap();
        for part in [
            "Subject: [PATCH 0/2] io_uring: all of it\n",
            "\nThe problem.\n",
            "io_uring: first\n  io_uring: second\n",
            "3 files changed",
            "\nThe series applies to Linux 7.3.4.\n",
        ] {
            assert!(letter.contains(part), "{part}: {letter}");
        }
        assert!(!letter.contains("***"));
        for name in &names {
            let text = fs::read_to_string(name).unwrap();
            assert!(!text.contains("Signed-off-by"), "{text}");
        }
        // A second posting does not go out with the first.
        let error = write(&world.series(), &world.tree, "7.3.4", &args(&dir)).unwrap_err();
        assert!(error.to_string().contains("new directory"), "{error}");
    }

    #[test]
    fn a_person_signs_and_sends() {
        let world = with_cover();
        let dir = tempfile::tempdir().unwrap();
        let base = "0123456789abcdef0123456789abcdef01234567";
        let args = Args {
            version: Some(3),
            rfc: true,
            base: Some(base.to_owned()),
            signoff: Some(Person::parse("A. Übung <a@mail.example>").unwrap()),
            ..args(dir.path())
        };
        let names = write(&world.series(), &world.tree, "7.3.4", &args).unwrap();
        let letter = fs::read_to_string(&names[0]).unwrap();
        assert!(letter.contains("[RFC PATCH v3 0/2] "), "{letter}");
        assert!(letter.ends_with(&format!("\nbase-commit: {base}\n")));
        let mail = fs::read_to_string(&names[1]).unwrap();
        assert!(
            mail.contains("[RFC PATCH v3 1/2] io_uring: first"),
            "{mail}"
        );
        assert!(
            mail.contains(concat!("\nSigned-off", "-by: A. Übung <a@mail.example>\n")),
            "{mail}"
        );
        let from = mail
            .lines()
            .find(|line| line.starts_with("From: "))
            .unwrap();
        assert!(from.ends_with("<a@mail.example>"), "{from}");
    }

    #[test]
    fn who_is_no_person_does_not_sign() {
        for text in [
            "",
            "A B",
            "a@b.c",
            "<a@b.c>",
            "A <a>",
            "A <a@b>",
            "A <a@b.c> x",
            "A <a b@c.d>",
            "A\nB <a@b.c>",
            "1 <a@b.c>",
        ] {
            assert!(Person::parse(text).is_err(), "{text}");
        }
        assert_eq!(Person::parse("A B <a@b.c>").unwrap().name, "A B");
    }

    #[test]
    fn a_base_is_a_whole_commit() {
        commit(&"a".repeat(40)).unwrap();
        for text in ["v7.3.4", "abcdef", &"g".repeat(40)] {
            assert!(commit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_told_once_and_ours_always() {
        let recipients = Recipients::new(
            "A O'B <a@b.c>\n",
            "A O'B <a@b.c>\nrust-for-linux@vger.kernel.org\nio-uring@vger.kernel.org\n",
        )
        .unwrap();
        let command = recipients.command(Path::new("out dir"));
        assert_eq!(command.matches("--to=").count(), 1);
        assert!(command.contains(r"--to='A O'\''B <a@b.c>'"), "{command}");
        assert_eq!(command.matches("--cc=").count(), 3);
        for list in LISTS {
            assert_eq!(command.matches(list).count(), 1, "{command}");
        }
        assert!(command.ends_with("'out dir'/*.patch"), "{command}");
        Recipients::new("\n", "x@y.z\n").unwrap_err();
    }
}
