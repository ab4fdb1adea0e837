// SPDX-License-Identifier: GPL-2.0-only
//! What a profile asks of the kernel's configuration, and whether it got it.

use std::{collections::BTreeMap, fs};

use anyhow::{bail, Context as _, Result};

use crate::profile::Profile;

/// The fragments of a profile.
#[derive(Debug)]
pub(super) struct Request {
    /// Name and text of each, in the order in which they apply.
    fragments: Vec<(String, String)>,
}

/// Value of an option as `.config` has it; `n` for one that is not set.
type Values = BTreeMap<String, String>;

impl Request {
    /// Reads the fragments of a profile.
    pub(super) fn load(profile: &Profile) -> Result<Self> {
        let mut fragments = Vec::new();
        for path in profile.fragments()? {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            fragments.push((format!("ci/config/{name}"), text));
        }
        Ok(Self { fragments })
    }

    /// Asks no more for these options, whatever a fragment says.
    pub(super) fn forget(&mut self, options: &[String]) {
        let about = |line: &str| {
            let mut found = parse(line).into_keys();
            found.any(|option| options.contains(&option))
        };
        for (_, text) in &mut self.fragments {
            *text = text
                .lines()
                .filter(|line| !about(line))
                .map(|line| format!("{line}\n"))
                .collect();
        }
    }

    /// Whether another asks for the same, but for these options.
    pub(super) fn is_but_for(&self, other: &Self, options: &[String]) -> bool {
        let values = |request: &Self| {
            let mut values = parse(&request.text());
            values.retain(|option, _| !options.contains(option));
            values
        };
        values(self) == values(other)
    }

    /// All of it, for `KCONFIG_ALLCONFIG`.
    pub(super) fn text(&self) -> String {
        self.fragments
            .iter()
            .map(|(_, text)| format!("{text}\n"))
            .collect()
    }

    /// Whether a `.config` has every value that was asked for. A later fragment
    /// overrides an earlier one.
    ///
    /// # Errors
    ///
    /// Names every line that did not survive, and its fragment.
    pub(super) fn check(&self, config: &str) -> Result<()> {
        let mut wanted: BTreeMap<String, (String, &str)> = BTreeMap::new();
        for (name, text) in &self.fragments {
            for (option, value) in parse(text) {
                wanted.insert(option, (value, name));
            }
        }
        let found = parse(config);
        let lost: Vec<_> = wanted
            .iter()
            .filter_map(|(option, (value, fragment))| {
                let found = found.get(option).map_or("n", String::as_str);
                (found != value).then(|| format!("{option}={value} of {fragment} became {found}"))
            })
            .collect();
        if !lost.is_empty() {
            bail!(
                "the kernel's configuration is not what was asked for: {} (an option that does not \
                 exist, or depends on one that is off)",
                lost.join("; ")
            );
        }
        Ok(())
    }
}

fn parse(text: &str) -> Values {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("# CONFIG_") {
                let option = rest.strip_suffix(" is not set")?;
                return Some((format!("CONFIG_{option}"), "n".to_owned()));
            }
            let (option, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((format!("CONFIG_{option}"), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fragments: &[&str]) -> Request {
        let fragments = fragments
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("f{index}"), (*text).to_owned()))
            .collect();
        Request { fragments }
    }

    const CONFIG: &str = "# Linux\nCONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\n";

    #[test]
    fn what_survived_is_accepted() {
        request(&[
            "CONFIG_A=y\n# a comment\n\nCONFIG_N=8\n",
            "# CONFIG_OFF is not set\n",
        ])
        .check(CONFIG)
        .unwrap();
        // Not set, and not even known.
        request(&["CONFIG_ELSE=n\n"]).check(CONFIG).unwrap();
    }

    #[test]
    fn every_line_that_was_lost_is_named_with_its_fragment() {
        let error = request(&[
            "CONFIG_A=y\nCONFIG_GONE=y\n",
            "CONFIG_N=4\n# CONFIG_A is not set\n",
        ])
        .check(CONFIG)
        .unwrap_err()
        .to_string();
        for part in [
            "CONFIG_GONE=y of f0 became n",
            "CONFIG_N=4 of f1 became 8",
            "CONFIG_A=n of f1",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_forgotten_is_not_asked_for() {
        let mut request = request(&[
            "CONFIG_A=y\n",
            "# CONFIG_GO\nCONFIG_GONE=y\n# CONFIG_GO is not set\nCONFIG_N=8\n",
        ]);
        request.check(CONFIG).unwrap_err();
        request.forget(&["CONFIG_GONE".to_owned(), "CONFIG_GO".to_owned()]);
        assert_eq!(request.text(), "CONFIG_A=y\n\n# CONFIG_GO\nCONFIG_N=8\n\n");
        request.check(CONFIG).unwrap();
    }

    #[test]
    fn what_differs_in_these_options_only_is_alike() {
        let on = request(&["CONFIG_A=y\n", "# On\nCONFIG_GO=y\n"]);
        let off = request(&["CONFIG_A=y\n", "# Off\n# CONFIG_GO is not set\n"]);
        let more = request(&["CONFIG_A=y\nCONFIG_B=y\nCONFIG_GO=y\n"]);
        let options = ["CONFIG_GO".to_owned()];
        assert!(on.is_but_for(&off, &options));
        assert!(!on.is_but_for(&off, &[]));
        assert!(!on.is_but_for(&more, &options));
    }

    #[test]
    fn the_later_fragment_wins() {
        request(&["CONFIG_A=n\n", "CONFIG_A=y\n"])
            .check(CONFIG)
            .unwrap();
        request(&["CONFIG_A=y\n", "# CONFIG_A is not set\n"])
            .check(CONFIG)
            .unwrap_err();
    }
}
