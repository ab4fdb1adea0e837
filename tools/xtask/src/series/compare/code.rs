// SPDX-License-Identifier: GPL-2.0-only
//! The machine code and the data in objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    process::Command,
};

use anyhow::{ensure, Context as _, Result};
use serde::Deserialize;

use crate::{profile::Profile, run, toolchain::Llvm};

/// Sections that say nothing of what runs, or, `__bug_table` alone, in which line of
/// the source a warning stands. Code is taken apart instead.
const IGNORED: [&str; 10] = [
    ".text",
    ".init.text",
    ".exit.text",
    ".comment",
    ".discard",
    ".llvm_addrsig",
    ".note",
    ".strtab",
    ".symtab",
    "__bug_table",
];

/// Lines of a difference that are shown.
const SHOWN: usize = 12;

/// A function or a section of data, by the object it is in and its name.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Part {
    object: String,
    name: String,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, name } = self;
        write!(f, "{object}: {name}")
    }
}

/// What is in the objects of a directory: instructions and relocations, or bytes.
#[derive(Debug, Default)]
pub(super) struct Code(BTreeMap<Part, Vec<String>>);

/// A difference that is as it should be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    profiles: BTreeSet<String>,
    object: String,
    name: String,
    /// For the reader of the file, who must be given one.
    reason: String,
}

/// `ci/expected-code.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    #[serde(default)]
    difference: Vec<Allowed>,
}

impl Code {
    /// Takes the objects of `dir` apart. `root` is what their names leave out.
    pub(super) fn read(llvm: &Llvm, root: &Path, dir: &str) -> Result<Self> {
        let mut objects = Vec::new();
        let place = root.join(dir);
        for entry in
            std::fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))?
        {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "o") {
                objects.push(path);
            }
        }
        ensure!(
            !objects.is_empty(),
            "there is no object in {}",
            place.display()
        );
        let objdump = |options: &[&str]| {
            run::output(
                Command::new(llvm.program("llvm-objdump"))
                    .args(options)
                    .args(&objects),
            )
        };
        let mut code = Self::default();
        code.add(
            root,
            &objdump(&["-d", "-r", "--no-show-raw-insn", "--no-leading-addr"])?,
        );
        code.add(root, &objdump(&["-s", "-r"])?);
        Ok(code)
    }

    /// Adds what llvm-objdump printed.
    fn add(&mut self, root: &Path, dump: &str) {
        let prefix = format!("{}/", root.display());
        let mut object = "";
        let mut section = "";
        let mut part = None;
        for line in dump.lines().filter(|line| !line.is_empty()) {
            let after = |start: &str, end: &str| line.strip_prefix(start)?.strip_suffix(end);
            let found = if let Some((path, _)) = line.split_once(":\tfile format ") {
                object = path.strip_prefix(&prefix).unwrap_or(path);
                None
            } else if let Some(name) = after("Disassembly of section ", ":") {
                section = name;
                None
            } else if let Some(name) = after("<", ">:") {
                Some(format!("{name} in {section}"))
            } else if let Some(name) = after("Contents of section ", ":") {
                data(name)
            } else if let Some(name) = after("RELOCATION RECORDS FOR [", "]:") {
                data(name).map(|name| format!("{name}, relocations"))
            } else {
                if let Some(part) = &part {
                    if let Some(lines) = self.0.get_mut(part) {
                        lines.push(normal(line));
                    }
                }
                continue;
            };
            part = found.map(|name| Part {
                object: object.to_owned(),
                name,
            });
            if let Some(part) = &part {
                self.0.entry(part.clone()).or_default();
            }
        }
    }

    /// How many functions and sections of data there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What differs, with the first lines that do.
    pub(super) fn differences(&self, other: &Self) -> BTreeMap<Part, String> {
        let parts: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let mut differences = BTreeMap::new();
        for part in parts {
            let what = match (self.0.get(part), other.0.get(part)) {
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) => first_difference(before, after),
                (Some(_), None) => "is gone".to_owned(),
                (None, _) => "is new".to_owned(),
            };
            differences.insert(part.clone(), what);
        }
        differences
    }
}

/// The name of a section of data that is compared.
fn data(name: &str) -> Option<String> {
    // `.rel` and `.rela`: llvm-objdump tells what is in those by name, too.
    let ignored = name.starts_with(".rel")
        || IGNORED
            .iter()
            .any(|ignored| name == *ignored || name.starts_with(&format!("{ignored}.")));
    (!ignored).then(|| format!("data in {name}"))
}

/// A line without what depends on how many names or lines stood before it: the
/// number in `__UNIQUE_ID_x_123`, and where a function begins in its section.
fn normal(line: &str) -> String {
    use std::sync::LazyLock;

    use regex::Regex;

    static PLACES: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"0x[0-9a-f]+ (<)|^\s*[0-9a-f]{8,16}:\s+(R_)|(__UNIQUE_ID_\w*?_)\d+").ok()
    });
    match PLACES.as_ref() {
        Some(places) => places.replace_all(line, "$1$2$3").trim().to_owned(),
        None => line.to_owned(),
    }
}

/// The lines of both from the first that differs on.
fn first_difference(before: &[String], after: &[String]) -> String {
    let same = before
        .iter()
        .zip(after)
        .take_while(|(before, after)| before == after)
        .count();
    let mut text = format!(
        "{} lines on the base, {} with the series",
        before.len(),
        after.len()
    );
    for (sign, lines) in [('-', before), ('+', after)] {
        for line in lines[same..].iter().take(SHOWN / 2) {
            text.push_str(&format!("\n    {sign} {line}"));
        }
    }
    text
}

impl Expected {
    /// Reads the file.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let expected: Self = toml::from_str(&text)
            .with_context(|| format!("{} is not well-formed", path.display()))?;
        for allowed in &expected.difference {
            ensure!(
                !allowed.reason.trim().is_empty(),
                "{}: {} of {} has no reason",
                path.display(),
                allowed.name,
                allowed.object
            );
        }
        Ok(expected)
    }

    /// Takes out of what was found for a profile what is as it should be.
    ///
    /// # Returns
    ///
    /// What should differ and does not: the file is out of date.
    pub(super) fn forgive(
        &self,
        profile: &Profile,
        differences: &mut BTreeMap<Part, String>,
    ) -> Vec<Part> {
        let mut stale = Vec::new();
        for allowed in &self.difference {
            let Allowed {
                profiles,
                object,
                name,
                reason: _,
            } = allowed;
            if !profiles.contains(profile.name()) {
                continue;
            }
            let part = Part {
                object: object.clone(),
                name: name.clone(),
            };
            if differences.remove(&part).is_none() {
                stale.push(part);
            }
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llvm-objdump prints it.
    const CODE: &str = "\
\n/out/io_uring/rw.o:\tfile format elf64-x86-64\n\nDisassembly of section .text:\n\n\
<io_read>:\n\
                \tmovl\t$0x5c, %edi\n\
                \tje\t0x110 <io_read+0x10>\n\
                \tcallq\t0x120 <io_read+0x20>\n\
\t\t0000000000000112:  R_X86_64_PLT32\tfree-0x4\n\
\n<io_write>:\n                \tretq\n";
    const DATA: &str = "\
\n/out/io_uring/rw.o:\tfile format elf64-x86-64\n\
RELOCATION RECORDS FOR [.text]:\nOFFSET\n0000000000000112 R_X86_64_PLT32 free-0x4\n\n\
RELOCATION RECORDS FOR [.rodata]:\n0000000000000010 R_X86_64_64 __UNIQUE_ID_x_11\n\n\
Contents of section .text:\n 0000 55\n\
Contents of section .rodata:\n 0000 01020304  ....\n\
Contents of section .rela.rodata:\n 0000 10000000 12000000  ........\n\
Contents of section __bug_table:\n 0000 7b01  {.\n";

    fn code(code: &str, data: &str) -> Code {
        let mut found = Code::default();
        found.add(Path::new("/out"), code);
        found.add(Path::new("/out"), data);
        found
    }

    fn names(differences: &BTreeMap<Part, String>) -> Vec<String> {
        differences.keys().map(Part::to_string).collect()
    }

    #[test]
    fn what_moved_is_the_same() {
        let before = code(CODE, DATA);
        assert_eq!(before.len(), 4);
        let moved = CODE.replace("0x110 ", "0x210 ").replace("0112:", "0212:");
        let data = DATA
            .replace("_x_11", "_x_12")
            .replace("7b01", "7c01")
            .replace("12000000", "13000000")
            .replace("55", "66");
        assert!(before.differences(&code(&moved, &data)).is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let before = code(CODE, DATA);
        for (from, to, part) in [
            ("$0x5c", "$0x5d", "io_read in .text"),
            ("io_read+0x10", "io_read+0x12", "io_read in .text"),
            ("free-0x4", "kfree-0x4", "io_read in .text"),
            ("\tretq", "\tnop\n\tretq", "io_write in .text"),
            ("01020304", "01020305", "data in .rodata"),
            (
                "__UNIQUE_ID_x",
                "__UNIQUE_ID_y",
                "data in .rodata, relocations",
            ),
        ] {
            let after = code(&CODE.replace(from, to), &DATA.replace(from, to));
            assert_eq!(
                names(&before.differences(&after)),
                [format!("io_uring/rw.o: {part}")],
                "{from}"
            );
        }
    }

    #[test]
    fn what_comes_and_goes_is_a_difference() {
        let before = code(CODE, DATA);
        let after = code(&CODE.replace("<io_write>", "<io_writev>"), DATA);
        let differences = before.differences(&after);
        let told: Vec<_> = differences.values().map(String::as_str).collect();
        assert_eq!(told, ["is gone", "is new"]);
    }

    fn expected(text: &str) -> Result<Expected> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Expected::load(file.path())
    }

    const ALLOWED: &str = "[[difference]]\nprofiles = [\"default\"]\nobject = \"io_uring/rw.o\"\n\
                           name = \"io_read in .text\"\nreason = \"why\"\n";

    #[test]
    fn what_is_expected_is_forgiven_and_must_be_there() {
        let before = code(CODE, DATA);
        let after = code(&CODE.replace("$0x5c", "$0x5d"), DATA);
        let profile = Profile::default();
        let allowed = expected(ALLOWED).unwrap();

        let mut differences = before.differences(&after);
        assert!(allowed.forgive(&profile, &mut differences).is_empty());
        assert!(differences.is_empty());

        let mut none = before.differences(&before);
        assert_eq!(allowed.forgive(&profile, &mut none).len(), 1);

        let other = expected(&ALLOWED.replace("\"default\"", "\"i386\"")).unwrap();
        let mut differences = before.differences(&after);
        assert!(other.forgive(&profile, &mut differences).is_empty());
        assert_eq!(differences.len(), 1);
    }

    #[test]
    fn a_difference_needs_a_reason() {
        let error = expected(&ALLOWED.replace("\"why\"", "\" \"")).unwrap_err();
        assert!(error.to_string().contains("no reason"), "{error}");
        expected(&ALLOWED.replace("reason = \"why\"\n", "")).unwrap_err();
    }
}
