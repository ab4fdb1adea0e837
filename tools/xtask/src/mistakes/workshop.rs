// SPDX-License-Identifier: GPL-2.0-only
//! Makes kernels with a mistake in them, one after the other.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context as _, Result};

use super::list::Mistake;
use crate::{
    build,
    cache::{self, Cache},
    profile::Profile,
    progress::{self, say},
    run,
    series::{edited, Variant},
};

/// Of the tree and the build directory in the cache.
const NAME: &str = "mistakes";

/// What to put back into a tree of the developer's, in case that we are killed.
const UNDO: &str = ".sqe-group-undo.json";

/// Where the kernels come from. Other subcommands flatten these into their arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Source {
    #[command(flatten)]
    pub(crate) options: build::Options,
    /// Which kernel to put the mistakes into, by its profile in ci/config.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) profile: Profile,
    /// Put the mistakes into this tree, which has the series, and take them out again.
    #[arg(long, value_name = "DIR", requires = "make", conflicts_with_all = ["kdir", "tarball"])]
    pub(crate) tree: Option<PathBuf>,
    /// With --tree: the command that builds it.
    #[arg(long, value_name = "COMMAND", requires = "kernel")]
    pub(crate) make: Option<String>,
    /// With --tree: what COMMAND leaves.
    #[arg(long, value_name = "BZIMAGE", requires = "tree")]
    pub(crate) kernel: Option<PathBuf>,
}

/// A tree of the developer's.
struct Own<'a> {
    tree: &'a Path,
    make: &'a str,
    kernel: &'a Path,
}

/// Makes one kernel at a time: nobody else makes some in the same place meanwhile.
pub(crate) struct Workshop<'a> {
    source: &'a Source,
    own: Option<Own<'a>>,
    _lock: File,
}

/// A kernel with a mistake in it. When this is dropped, a tree of the developer's is as
/// it was; the cache's own tree for mistakes is of use to nobody else.
pub(crate) struct Made {
    /// To be booted as long as this lives.
    pub(crate) bzimage: PathBuf,
    /// How long it took to build.
    pub(crate) took: Duration,
    undo: Option<Undo>,
}

impl<'a> Workshop<'a> {
    /// Waits until nobody else is there.
    pub(crate) fn open(source: &'a Source) -> Result<Self> {
        let own = match source {
            Source {
                tree: Some(tree),
                make: Some(make),
                kernel: Some(kernel),
                ..
            } => Some(Own { tree, make, kernel }),
            _ => None,
        };
        let path = match &own {
            Some(Own { tree, .. }) => {
                ensure!(
                    tree.join("io_uring/group").is_dir(),
                    "{} does not have the series: `cargo xtask series tree DIR` makes a tree that has",
                    tree.display()
                );
                tree.join(".sqe-group-lock")
            }
            None => Cache::open()?.dir("build")?.join(format!("{NAME}.lock")),
        };
        let lock =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say("Waiting", "another run puts mistakes into this tree");
                lock.lock()
                    .with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        if let Some(Own { tree, .. }) = &own {
            if let Some(undo) = Undo::left_in(tree)? {
                say(
                    "Restoring",
                    format!("{}, where a run was killed", tree.display()),
                );
                undo.run()?;
            }
        }
        Ok(Self {
            source,
            own,
            _lock: lock,
        })
    }

    /// Builds the kernel with a mistake, or the one without.
    ///
    /// # Errors
    ///
    /// If an edit has no place, and if it cannot be built.
    pub(crate) fn make(&mut self, mistake: Option<&Mistake>) -> Result<Made> {
        let edits = mistake.map_or(&[][..], |mistake| &mistake.edits);
        let began = Instant::now();
        let (bzimage, undo) = match &self.own {
            None => {
                let variant = Variant {
                    name: NAME,
                    series: true,
                    patches: None,
                    edits,
                };
                let Source {
                    options, profile, ..
                } = self.source;
                let kernel = build::ensure_variant(profile.clone(), options, &variant)?;
                (kernel.image, None)
            }
            Some(Own { tree, make, kernel }) => {
                let files = edited(edits, |path| read(tree, path))?;
                let undo = Undo::prepare(tree, &files)?;
                run_make(make)?;
                ensure!(
                    kernel.exists(),
                    "{make:?} succeeded and left no {}",
                    kernel.display()
                );
                (kernel.to_path_buf(), Some(undo))
            }
        };
        Ok(Made {
            bzimage,
            took: began.elapsed(),
            undo,
        })
    }
}

impl Made {
    /// Takes the mistake out, and says so if that fails.
    pub(crate) fn undo(mut self) -> Result<()> {
        match self.undo.take() {
            Some(undo) => undo.run(),
            None => Ok(()),
        }
    }
}

/// A file of a tree.
pub(super) fn read(tree: &Path, path: &Path) -> Result<Option<Vec<u8>>> {
    let place = tree.join(path);
    let content = fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
    Ok(Some(content))
}

fn run_make(make: &str) -> Result<()> {
    let mut log = String::new();
    let status = run::lines(Command::new("sh").args(["-c", make]), |line| {
        log.push_str(line);
        log.push('\n');
        Ok(())
    })?;
    if !status.success() {
        bail!("{make:?} failed ({status}):\n{}", build::errors(&log));
    }
    Ok(())
}

/// What a tree had before, kept in it until it has that again.
struct Undo {
    tree: PathBuf,
    before: BTreeMap<PathBuf, String>,
    done: bool,
}

impl Undo {
    /// Writes these files into the tree.
    fn prepare(tree: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Self> {
        let mut before = BTreeMap::new();
        for path in files.keys() {
            let place = tree.join(path);
            let text = fs::read_to_string(&place)
                .with_context(|| format!("cannot read {}", place.display()))?;
            before.insert(path.clone(), text);
        }
        if !before.is_empty() {
            let text = serde_json::to_vec(&before).context("cannot write what to put back")?;
            cache::write_whole(&tree.join(UNDO), &text)?;
        }
        let undo = Self {
            tree: tree.to_owned(),
            before,
            done: false,
        };
        for (path, content) in files {
            cache::write_whole(&tree.join(path), content)?;
        }
        Ok(undo)
    }

    /// What a run has left that was killed.
    fn left_in(tree: &Path) -> Result<Option<Self>> {
        let path = tree.join(UNDO);
        if !path.exists() {
            return Ok(None);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Self {
            tree: tree.to_owned(),
            before: serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged", path.display()))?,
            done: false,
        }))
    }

    fn run(mut self) -> Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> Result<()> {
        self.done = true;
        for (path, text) in &self.before {
            cache::write_whole(&self.tree.join(path), text.as_bytes())?;
        }
        let path = self.tree.join(UNDO);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Err(error) = self.restore() {
            progress::line(format_args!(
                "error: {} still has a mistake in it: {error:#}",
                self.tree.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Edit;

    /// A tree of one file, whose "kernel" is a copy of that.
    fn world() -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("io_uring/group")).unwrap();
        fs::write(tree.join("io_uring/a.c"), "right\n").unwrap();
        let copy = format!(
            "! grep -q broken {0}/io_uring/a.c && cp {0}/io_uring/a.c {0}/bzImage",
            tree.display()
        );
        let options = Source {
            options: build::Options {
                llvm: "1".to_owned(),
                kdir: None,
                tarball: None,
                jobs: None,
            },
            profile: Profile::default(),
            make: Some(copy),
            kernel: Some(tree.join("bzImage")),
            tree: Some(tree),
        };
        (dir, options)
    }

    fn mistake(find: &str, replace: &str) -> Mistake {
        Mistake {
            name: "x".to_owned(),
            v1: None,
            what: "It is wrong.".to_owned(),
            edits: vec![Edit {
                file: "io_uring/a.c".into(),
                find: find.to_owned(),
                replace: replace.to_owned(),
            }],
            tests: Vec::new(),
            found: None,
        }
    }

    fn source(options: &Source) -> String {
        let tree = options.tree.as_ref().unwrap();
        assert!(!tree.join(UNDO).exists());
        fs::read_to_string(tree.join("io_uring/a.c")).unwrap()
    }

    #[test]
    fn a_mistake_is_in_its_kernel_and_nowhere_else() {
        let (_dir, options) = world();
        let mut workshop = Workshop::open(&options).unwrap();
        let read = |made: &Made| fs::read_to_string(&made.bzimage).unwrap();
        for word in ["wrong", "worse"] {
            let made = workshop.make(Some(&mistake("right", word))).unwrap();
            assert_eq!(read(&made), format!("{word}\n"));
            made.undo().unwrap();
            assert_eq!(source(&options), "right\n");
        }
        drop(workshop.make(Some(&mistake("right", "wrong"))).unwrap());
        assert_eq!(source(&options), "right\n");
        assert_eq!(read(&workshop.make(None).unwrap()), "right\n");
    }

    #[test]
    fn a_mistake_that_cannot_be_made_leaves_nothing() {
        let (_dir, options) = world();
        let mut workshop = Workshop::open(&options).unwrap();
        assert!(workshop.make(Some(&mistake("left", "wrong"))).is_err());
        assert!(workshop.make(Some(&mistake("right", "broken"))).is_err());
        assert_eq!(source(&options), "right\n");
    }

    #[test]
    fn what_a_run_left_that_was_killed_is_put_back() {
        let (_dir, options) = world();
        let mut workshop = Workshop::open(&options).unwrap();
        let made = workshop.make(Some(&mistake("right", "wrong"))).unwrap();
        std::mem::forget(made);
        drop(workshop);
        Workshop::open(&options).unwrap();
        assert_eq!(source(&options), "right\n");
    }
}
