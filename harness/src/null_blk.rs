// SPDX-License-Identifier: GPL-2.0-only
//! Block devices of null_blk that behave as is wanted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where they are configured.
const ALL: &str = "/sys/kernel/config/nullb";

/// So that no two have the same name.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A block device, as long as this lives.
pub struct NullBlk {
    config: PathBuf,
    node: PathBuf,
}

impl NullBlk {
    /// A device with these attributes. Where the kernel has no null_blk, or no way to
    /// configure it, the error is `NotFound`.
    pub fn new(attributes: &[(&str, u32)]) -> io::Result<Self> {
        Self::with_bad_sectors(attributes, None)
    }

    /// The same, with sectors that cannot be read or written: from, and to.
    pub fn with_bad_sectors(
        attributes: &[(&str, u32)],
        bad: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        let all = Path::new(ALL);
        if !all.exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "null_blk cannot be configured",
            ));
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("nullb-{}-{number}", std::process::id());
        let made = Self {
            config: all.join(&name),
            node: Path::new("/dev").join(&name),
        };
        fs::create_dir(&made.config)?;
        if let Some((from, to)) = bad {
            made.set("badblocks", format!("+{from}-{to}"))?;
        }
        for &(attribute, value) in attributes.iter().chain(&[("power", 1)]) {
            made.set(attribute, value)?;
        }
        Ok(made)
    }

    fn set(&self, attribute: &str, value: impl ToString) -> io::Result<()> {
        fs::write(self.config.join(attribute), value.to_string())
            .map_err(|error| io::Error::other(format!("{attribute}: {error}")))
    }

    /// The device's node.
    pub fn node(&self) -> &Path {
        &self.node
    }
}

impl Drop for NullBlk {
    fn drop(&mut self) {
        // The guest has no use for an error here, and the next device has its own name.
        let _ = self.set("power", 0);
        let _ = fs::remove_dir(&self.config);
    }
}
