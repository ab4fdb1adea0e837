// SPDX-License-Identifier: GPL-2.0-only
//! Writes an initramfs: a cpio archive in the `newc` format, which the kernel
//! unpacks into its first file system.
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel.)

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Write},
    path::Path,
};

use anyhow::{ensure, Context as _, Result};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// Headers and data begin at multiples of this.
const ALIGN: u64 = 4;
/// The archive is a multiple of this long, as tapes once wanted it and some tools
/// still do.
const BLOCK: u64 = 512;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

#[derive(Default)]
struct Entry<'a> {
    path: &'a str,
    mode: u32,
    links: u32,
    size: u64,
    device: (u32, u32),
}

/// An archive that is being written.
pub(crate) struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        let path = relative(path)?;
        self.parents(path)?;
        self.make_directory(path)
    }

    /// Adds a regular file with these contents.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> Result<()> {
        self.stream(path, permissions, contents.len() as u64, &mut &*contents)
    }

    /// Adds a copy of a file on the host.
    pub(crate) fn copy(&mut self, path: &str, permissions: u32, source: &Path) -> Result<()> {
        let context = || format!("cannot pack {} as {path}", source.display());
        let mut file = File::open(source).with_context(context)?;
        let size = file.metadata().with_context(context)?.len();
        self.stream(path, permissions, size, &mut file)
            .with_context(context)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let path = relative(path)?;
        self.parents(path)?;
        self.header(&Entry {
            path,
            mode: SYMLINK | 0o777,
            links: 1,
            size: target.len() as u64,
            ..Entry::default()
        })?;
        self.put(target.as_bytes())?;
        self.pad(ALIGN)
    }

    /// Adds a character device.
    pub(crate) fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        device: (u32, u32),
    ) -> Result<()> {
        let path = relative(path)?;
        self.parents(path)?;
        self.header(&Entry {
            path,
            mode: CHARACTER_DEVICE | permissions,
            links: 1,
            device,
            ..Entry::default()
        })
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.header(&Entry {
            path: TRAILER,
            links: 1,
            ..Entry::default()
        })?;
        self.pad(BLOCK)?;
        self.out.flush().context("cannot write the initramfs")?;
        Ok(self.out)
    }

    fn stream(
        &mut self,
        path: &str,
        permissions: u32,
        size: u64,
        contents: &mut dyn io::Read,
    ) -> Result<()> {
        let path = relative(path)?;
        self.parents(path)?;
        self.header(&Entry {
            path,
            mode: REGULAR | permissions,
            links: 1,
            size,
            ..Entry::default()
        })?;
        // The header has been written: a file that shrinks now would shift all
        // that follows, and one that grows must not.
        let copied = io::copy(&mut contents.take(size), &mut self.out)
            .context("cannot write the initramfs")?;
        ensure!(
            copied == size,
            "{path} became shorter while it was being packed"
        );
        self.written += size;
        self.pad(ALIGN)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        for (at, _) in path.match_indices('/') {
            self.make_directory(&path[..at])?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &str) -> Result<()> {
        if self.directories.insert(path.to_owned()) {
            self.header(&Entry {
                path,
                mode: DIRECTORY | 0o755,
                links: 2,
                ..Entry::default()
            })?;
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Entry {
            path,
            mode,
            links,
            size,
            device,
        } = *entry;
        let size = u32::try_from(size)
            .with_context(|| format!("{path} is too big for an initramfs: {size} bytes"))?;
        // With the NUL that ends it.
        let name = u32::try_from(path.len() + 1).context("a path is too long")?;
        let inode = self.inode;
        self.inode += 1;
        let (uid, gid, mtime) = (0, 0, 0);
        let (major, minor) = (0, 0);
        let checksum = 0;
        let mut header = MAGIC.to_owned();
        for field in [
            inode, mode, uid, gid, links, mtime, size, major, minor, device.0, device.1, name,
            checksum,
        ] {
            header += &format!("{field:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad(ALIGN)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .context("cannot write the initramfs")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&[0; BLOCK as usize][..missing as usize])
    }
}

/// Paths in the archive have no leading slash.
fn relative(path: &str) -> Result<&str> {
    let path = path.trim_matches('/');
    ensure!(!path.is_empty(), "an archive cannot hold its own root");
    ensure!(!path.contains('\0'), "{path:?} holds a NUL");
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        process::{Command, Stdio},
    };

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Read {
        mode: u32,
        device: (u32, u32),
        data: Vec<u8>,
        position: usize,
    }

    /// A reader of its own, as strict as the kernel's.
    fn parse(archive: &[u8]) -> BTreeMap<String, Read> {
        let mut entries = BTreeMap::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0);
            assert_eq!(&archive[at..at + 6], b"070701", "at {at}");
            let field = |index: usize| {
                let start = at + 6 + 8 * index;
                let text = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + name_size];
            let (nul, name) = name.split_last().unwrap();
            assert_eq!(*nul, 0);
            let name = String::from_utf8(name.to_vec()).unwrap();
            let start = (at + 110 + name_size).next_multiple_of(4);
            let end = start + size;
            if name == "TRAILER!!!" {
                assert_eq!(size, 0);
                assert!(archive[end..].iter().all(|byte| *byte == 0));
                assert_eq!(archive.len() % 512, 0);
                return entries;
            }
            let read = Read {
                mode,
                device: (field(9), field(10)),
                data: archive[start..end].to_vec(),
                position: entries.len(),
            };
            assert!(entries.insert(name.clone(), read).is_none(), "{name} twice");
            at = end.next_multiple_of(4);
        }
    }

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.file("/init", 0o755, b"#!").unwrap();
        archive
            .character_device("dev/console", 0o600, (5, 1))
            .unwrap();
        archive.directory("/proc").unwrap();
        archive.directory("/proc/").unwrap();
        archive.file("a/b/c", 0o644, b"").unwrap();
        archive.file("a/b/d", 0o644, &vec![7; 100_001]).unwrap();
        archive.symlink("/bin/sh", "busybox").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn everything_comes_back() {
        let entries = parse(&sample());
        let paths: Vec<_> = entries.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "a",
                "a/b",
                "a/b/c",
                "a/b/d",
                "bin",
                "bin/sh",
                "dev",
                "dev/console",
                "init",
                "proc"
            ]
        );
        assert_eq!(entries["init"].mode, 0o100_755);
        assert_eq!(entries["init"].data, b"#!");
        assert_eq!(entries["dev/console"].mode, 0o020_600);
        assert_eq!(entries["dev/console"].device, (5, 1));
        assert_eq!(entries["proc"].mode, 0o040_755);
        assert_eq!(entries["a/b/c"].data, b"");
        assert_eq!(entries["a/b/d"].data, vec![7; 100_001]);
        assert_eq!(entries["bin/sh"].mode, 0o120_777);
        assert_eq!(entries["bin/sh"].data, b"busybox");
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it() {
        let entries = parse(&sample());
        for (path, entry) in &entries {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(entries[parent].position < entry.position, "{path}");
            }
        }
    }

    #[test]
    fn every_length_is_padded() {
        for length in 0..20 {
            let name = "n".repeat(length + 1);
            let mut archive = Archive::new(Vec::new());
            archive.file(&name, 0o644, &vec![b'x'; length]).unwrap();
            archive.file("last", 0o644, b"last").unwrap();
            let entries = parse(&archive.finish().unwrap());
            assert_eq!(entries[&name].data.len(), length);
            assert_eq!(entries["last"].data, b"last");
        }
    }

    #[test]
    fn a_file_of_the_host_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::write(&source, vec![3; 70_000]).unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.copy("bin/program", 0o755, &source).unwrap();
        let entries = parse(&archive.finish().unwrap());
        assert_eq!(entries["bin/program"].data, vec![3; 70_000]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut archive = Archive::new(Vec::new());
        let error = archive
            .copy("init", 0o755, Path::new("/does/not/exist"))
            .unwrap_err();
        assert!(format!("{error:#}").contains("/does/not/exist"));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let mut contents: &[u8] = b"short";
        assert!(archive.stream("f", 0o644, 10, &mut contents).is_err());
    }

    #[test]
    fn what_cpio_cannot_hold_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.directory("/").is_err());
        assert!(archive.file("a\0b", 0o644, b"").is_err());
        assert!(archive
            .stream("big", 0o644, 1 << 32, &mut io::empty())
            .is_err());
    }

    #[test]
    fn cpio_reads_it_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, sample()).unwrap();
        let output = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::from(File::open(&path).unwrap()))
            .output();
        // A check by an independent reader, where there is one.
        let Ok(output) = output else { return };
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "init\ndev\ndev/console\nproc\na\na/b\na/b/c\na/b/d\nbin\nbin/sh\n"
        );
    }
}
