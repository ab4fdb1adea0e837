// SPDX-License-Identifier: GPL-2.0-only
//! Files that the user has asked for, with `--json` and `--junit`.

use std::{
    fs,
    path::{absolute, Path, PathBuf},
};

use anyhow::{ensure, Context as _, Result};

use crate::{cache, progress, verdict::Verdict};

/// Whether a file is made anew, rather than written to where it is: a device or a pipe is
/// not to be replaced.
fn is_made(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Says before a run, and not after it, that one of these files cannot be written.
pub(crate) fn check<'a>(wanted: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Result<()> {
    for path in wanted.into_iter().flatten() {
        let fail = || {
            format!(
                "cannot write {}; name a file in a directory that is there and may be written to",
                path.display()
            )
        };
        ensure!(
            !path.is_dir(),
            "{} is a directory; name a file",
            path.display()
        );
        if is_made(path) {
            let whole = absolute(path).with_context(fail)?;
            let dir = whole.parent().with_context(fail)?;
            tempfile::tempfile_in(dir).with_context(fail)?;
        } else {
            let open = fs::OpenOptions::new().write(true).open(path);
            open.with_context(fail)?;
        }
    }
    Ok(())
}

/// Writes one of them, whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let fail = || format!("cannot write {}", path.display());
    if is_made(path) {
        cache::write_whole(&absolute(path).with_context(fail)?, content)
    } else {
        fs::write(path, content).with_context(fail)
    }
}

/// What a command ends with that may not have written all files: a verdict that was bad
/// stays, and for one that was good something is missing. `elsewhere` says where the results
/// are all the same.
pub(crate) fn ends_with(verdict: Verdict, written: Result<()>, elsewhere: &str) -> Verdict {
    let Err(error) = written else {
        return verdict;
    };
    progress::line(format_args!(
        "error: {error:#}; the verdict stands: {}, {elsewhere}",
        verdict.words()
    ));
    match verdict {
        Verdict::Passed => Verdict::Infrastructure,
        bad => bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        check([&Some(file.clone()), &None]).unwrap();
        assert!(!file.exists(), "nothing is left of the try");
        for bad in [dir.path().to_owned(), dir.path().join("none/file")] {
            let error = check([&Some(file.clone()), &Some(bad.clone())]).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(&bad.display().to_string()), "{text}");
            assert!(text.contains("name a file"), "{text}");
        }
        check([&Some("/dev/null".into())]).unwrap();
    }

    #[test]
    fn a_file_is_replaced_and_a_device_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old and longer").unwrap();
        write(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        write(Path::new("/dev/null"), b"new").unwrap();
        assert!(!is_made(Path::new("/dev/null")));
    }

    /// `/dev/full` is a disk without room.
    #[test]
    fn a_full_disk_costs_the_file_and_not_the_verdict() {
        let full = || write(Path::new("/dev/full"), b"x");
        let text = format!("{:#}", full().unwrap_err());
        assert!(
            text.contains("/dev/full") && text.contains("No space left"),
            "{text}"
        );
        for verdict in [Verdict::Failed, Verdict::Splat, Verdict::Lost] {
            assert_eq!(ends_with(verdict, full(), "see here"), verdict);
        }
        assert_eq!(
            ends_with(Verdict::Passed, full(), ""),
            Verdict::Infrastructure
        );
        assert_eq!(ends_with(Verdict::Passed, Ok(()), ""), Verdict::Passed);
    }
}
