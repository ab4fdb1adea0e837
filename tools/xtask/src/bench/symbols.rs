// SPDX-License-Identifier: GPL-2.0-only
//! By how much functions have grown from one vmlinux to another.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSymbol as _, SymbolKind};
use serde::{Deserialize, Serialize};

/// Functions shown of those that existed before.
const SHOWN: usize = 12;

/// What differs in the code of two kernels.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text {
    /// Bytes of functions that only the second has.
    pub(super) new: i64,
    /// How many these are.
    pub(super) functions: usize,
    /// Bytes by which functions of both have grown, and by which they have shrunk.
    pub(super) grown: i64,
    pub(super) shrunk: i64,
    /// Bytes of functions that only the first has.
    pub(super) gone: i64,
    /// Those of both that changed most: name, bytes before, bytes now.
    pub(super) changed: Vec<(String, i64, i64)>,
}

impl Text {
    /// What the feature adds to a kernel.
    pub(super) fn total(&self) -> i64 {
        self.new + self.grown - self.shrunk - self.gone
    }

    pub(super) fn compare(before: &Path, now: &Path) -> Result<Self> {
        Ok(Self::of(&functions(before)?, &functions(now)?))
    }

    fn of(before: &BTreeMap<String, i64>, now: &BTreeMap<String, i64>) -> Self {
        let mut text = Self::default();
        for (name, &size) in now {
            match before.get(name) {
                None => {
                    text.new += size;
                    text.functions += 1;
                }
                Some(&old) if old != size => {
                    if size > old {
                        text.grown += size - old;
                    } else {
                        text.shrunk += old - size;
                    }
                    text.changed.push((name.clone(), old, size));
                }
                Some(_) => {}
            }
        }
        text.gone = before
            .iter()
            .filter(|(name, _)| !now.contains_key(*name))
            .map(|(_, size)| size)
            .sum();
        text.changed
            .sort_by_key(|(_, old, size)| std::cmp::Reverse((size - old).abs()));
        text.changed.truncate(SHOWN);
        text
    }
}

/// The sizes of all functions, those of one name together.
fn functions(vmlinux: &Path) -> Result<BTreeMap<String, i64>> {
    let context = || format!("cannot read the symbols of {}", vmlinux.display());
    let image = fs::read(vmlinux).with_context(context)?;
    let file = object::File::parse(&*image).with_context(context)?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols() {
        if symbol.kind() == SymbolKind::Text && symbol.size() > 0 {
            let name = symbol.name().with_context(context)?;
            *functions.entry(name.to_owned()).or_default() += symbol.size().cast_signed();
        }
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_counted() {
        let map = |list: &[(&str, i64)]| {
            list.iter()
                .map(|(name, size)| ((*name).to_owned(), *size))
                .collect()
        };
        let before = map(&[("same", 5), ("more", 10), ("less", 20), ("gone", 7)]);
        let now = map(&[("same", 5), ("more", 14), ("less", 19), ("new", 100)]);
        let text = Text::of(&before, &now);
        assert_eq!(text.total(), 100 + 4 - 1 - 7);
        assert_eq!((text.new, text.functions, text.gone), (100, 1, 7));
        assert_eq!((text.grown, text.shrunk), (4, 1));
        assert_eq!(text.changed[0], ("more".to_owned(), 10, 14));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        fs::write(&path, "text").unwrap();
        let error = functions(&path).unwrap_err();
        assert!(error.to_string().contains("symbols"), "{error:#}");
    }
}
