// SPDX-License-Identifier: GPL-2.0-only
//! Profiles: the kernels that can be built, one a file in `ci/config/`.

use std::{fmt, fs, path::PathBuf, str::FromStr};

use anyhow::{bail, ensure, Context as _, Result};

use crate::paths;

/// The fragment that every profile starts from. Not a profile itself.
const COMMON: &str = "common";
/// The tree without the series, with nothing but the common fragment.
const BASE: &str = "base";
/// Profiles that are only built.
const NOT_BOOTED: [&str; 2] = ["i386", "norust"];
/// The profile whose kernel is a program of the host's.
const UML: &str = "uml";

/// What a kernel is built to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arch {
    /// A PC, of 64 bits or 32.
    X86,
    /// Another Linux: user mode Linux.
    Uml,
}

impl Arch {
    /// The name in the kernel's words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Uml => "um",
        }
    }

    /// What is started, in the build directory.
    pub(crate) fn image(self) -> &'static str {
        match self {
            Self::X86 => "arch/x86/boot/bzImage",
            Self::Uml => "linux",
        }
    }
}

/// One kernel that can be built: a fragment in `ci/config/` on the patched tree,
/// or `base`, the common fragment on the tree as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile(String);

impl Profile {
    /// Whether this is the unpatched tree.
    pub(crate) fn is_base(&self) -> bool {
        self.0 == BASE
    }

    /// The kernel that is a program of the host's.
    pub(crate) fn uml() -> Self {
        Self(UML.to_owned())
    }

    /// What its kernel runs on.
    pub(crate) fn arch(&self) -> Arch {
        if self.0 == UML {
            Arch::Uml
        } else {
            Arch::X86
        }
    }

    /// The name, as given on the command line and used for directories.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The profile of this name, if its kernel is one to boot.
    pub(crate) fn to_boot(name: &str) -> Result<Self> {
        ensure!(
            !NOT_BOOTED.contains(&name),
            "profile {name} is built, not booted: `cargo xtask series compare --profile {name}`"
        );
        ensure!(
            name != UML,
            "profile {name} is no guest's: `cargo xtask bench --native`"
        );
        name.parse()
    }

    /// All profiles of this checkout, sorted by name, `base` first.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let dir = paths::fragments()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "config")
            {
                if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) {
                    if stem != COMMON {
                        names.push(stem.to_owned());
                    }
                }
            }
        }
        names.sort();
        Ok([BASE.to_owned()]
            .into_iter()
            .chain(names)
            .map(Self)
            .collect())
    }

    /// The fragments that make up the configuration, in the order in which they
    /// are applied.
    pub(crate) fn fragments(&self) -> Result<Vec<PathBuf>> {
        let dir = paths::fragments()?;
        let fragment = |name: &str| dir.join(format!("{name}.config"));
        // What all others have in common is a machine.
        let common = (self.arch() == Arch::X86).then_some(COMMON);
        let own = (!self.is_base()).then_some(self.name());
        Ok(common.into_iter().chain(own).map(fragment).collect())
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = Self::all()?;
        match all.iter().find(|profile| profile.0 == name) {
            Some(profile) => Ok(profile.clone()),
            None => {
                let names: Vec<_> = all.iter().map(Self::name).collect();
                bail!(
                    "no profile `{name}` in ci/config; there are: {}",
                    names.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_booted_is_refused_with_the_way_out() {
        assert_eq!(Profile::to_boot("off").unwrap().name(), "off");
        for name in NOT_BOOTED {
            name.parse::<Profile>().unwrap();
            let error = Profile::to_boot(name).unwrap_err().to_string();
            assert!(error.contains("series compare --profile"), "{error}");
        }
        assert!(Profile::to_boot("of").is_err());
        let error = Profile::to_boot(UML).unwrap_err().to_string();
        assert!(error.contains("bench --native"), "{error}");
    }

    #[test]
    fn what_is_no_machine_has_nothing_of_one() {
        let names = |profile: &Profile| -> Vec<_> {
            let fragments = profile.fragments().unwrap();
            let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            fragments.iter().map(name).collect()
        };
        assert_eq!(names(&Profile(BASE.to_owned())), [COMMON]);
        assert_eq!(names(&Profile::default()), [COMMON, "default"]);
        assert_eq!(names(&Profile::uml()), [UML]);
    }
}
