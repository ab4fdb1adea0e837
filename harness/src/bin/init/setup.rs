// SPDX-License-Identifier: GPL-2.0-only
//! What the guest needs before the first program runs.

use std::{
    env,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use harness::protocol::{DISK_DIR, FEAT_SQE_GROUP, PORT, PORT_ENV, PROGRAMS_DIR};

use crate::{Context as _, Result};

/// Probing of virtio devices may still be under way when init starts.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> Result<()> {
    fs::create_dir_all(target).context(|| format!("cannot make {target}"))?;
    let text = |text: &str| CString::new(text).context(|| format!("odd name {text:?}"));
    let (c_source, c_target, c_kind, c_options) =
        (text(source)?, text(target)?, text(kind)?, text(options)?);
    // SAFETY: all four are C strings that live until the call returns.
    let status = unsafe {
        libc::mount(
            c_source.as_ptr(),
            c_target.as_ptr(),
            c_kind.as_ptr(),
            flags,
            c_options.as_ptr().cast(),
        )
    };
    if status == 0 {
        Ok(())
    } else {
        let error = io::Error::last_os_error();
        Err(format!(
            "cannot mount {source} ({kind}) at {target}: {error}"
        ))
    }
}

/// The file systems that every program may expect, and those that this kernel
/// happens to have.
pub(crate) fn mounts() -> Result<()> {
    mount("proc", "/proc", "proc", 0, "")?;
    mount("sysfs", "/sys", "sysfs", 0, "")?;
    mount("devtmpfs", "/dev", "devtmpfs", 0, "")?;
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")?;
    mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777")?;
    for (source, target) in [
        ("devpts", "/dev/pts"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        // For block devices of null_blk that behave as a test wants them.
        ("configfs", "/sys/kernel/config"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        // Absent from some profiles; a test that needs one skips itself.
        let _ = mount(source, target, source, 0, "");
    }
    Ok(())
}

/// Gives the next test an empty `/tmp`, and removes what the last one left on
/// the disk.
pub(crate) fn fresh_directories() -> Result<()> {
    // SAFETY: a C string, and a flag.
    let status = unsafe { libc::umount2(c"/tmp".as_ptr(), libc::MNT_DETACH) };
    if status != 0 {
        return Err(format!(
            "cannot unmount /tmp: {}",
            io::Error::last_os_error()
        ));
    }
    mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777")?;
    if let Ok(entries) = fs::read_dir(DISK_DIR) {
        for entry in entries.flatten() {
            if entry.file_name() != "lost+found" {
                let path = entry.path();
                // What cannot be removed is the next test's problem only if it
                // uses the same name, and then it says so itself.
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
    Ok(())
}

/// Waits for a disk that the host attached.
fn wait_for(device: &str) -> Result<()> {
    let start = Instant::now();
    while fs::metadata(device).is_err() {
        if start.elapsed() > DEVICE_PATIENCE {
            return Err(format!("there is no disk {device}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Mounts the disk that the host attached.
pub(crate) fn disk() -> Result<()> {
    wait_for("/dev/vda")?;
    mount("/dev/vda", DISK_DIR, "ext4", 0, "")
}

/// Mounts the second disk, which has programs and cannot be written.
pub(crate) fn programs() -> Result<()> {
    wait_for("/dev/vdb")?;
    mount("/dev/vdb", PROGRAMS_DIR, "ext4", libc::MS_RDONLY, "")
}

/// Writes values into files of the kernel's.
pub(crate) fn write(settings: &[(String, String)]) -> Result<()> {
    for (file, value) in settings {
        fs::write(file, value).context(|| format!("cannot write {value:?} into {file}"))?;
    }
    Ok(())
}

/// Lifts what would limit a program on an ordinary system: tests register
/// buffers and open files by the thousand.
pub(crate) fn limits() {
    for (resource, value) in [
        (libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY),
        (libc::RLIMIT_NOFILE, 1 << 20),
        (libc::RLIMIT_NPROC, libc::RLIM_INFINITY),
        (libc::RLIMIT_CORE, 0),
    ] {
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // A test that really needs more fails by itself, with a better message.
        // SAFETY: the pointer is to a live struct of the right type.
        let _ = unsafe { libc::setrlimit(resource, &limit) };
    }
}

/// Brings `lo` up.
pub(crate) fn loopback() -> Result<()> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        // A kernel without a network; tests of sockets skip themselves.
        return Ok(());
    }
    // SAFETY: the call above gave us the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    let mut call = |code: libc::Ioctl| {
        // SAFETY: both codes take a pointer to an ifreq, which is live.
        if unsafe { libc::ioctl(socket.as_raw_fd(), code, &mut request) } < 0 {
            return Err(format!(
                "cannot bring lo up: {}",
                io::Error::last_os_error()
            ));
        }
        // SAFETY: both codes use this field of the union.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        Ok(())
    };
    // The SIOC* constants have the type of C's unsigned long, whatever ioctl takes.
    call(libc::SIOCGIFFLAGS as libc::Ioctl)?;
    call(libc::SIOCSIFFLAGS as libc::Ioctl)
}

/// Opens the way to the host.
pub(crate) fn results_port() -> Result<File> {
    match env::var(PORT_ENV) {
        Ok(terminal) => raw_terminal(&terminal),
        Err(_) => virtio_port(),
    }
}

/// A terminal that passes on what is written to it as it is.
fn raw_terminal(device: &str) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .open(device)
        .context(|| format!("cannot open the results port {device}"))?;
    // SAFETY: all zeroes is a valid termios.
    let mut settings: libc::termios = unsafe { mem::zeroed() };
    // SAFETY: the descriptor is open, and the pointers are to a live struct of the right type.
    let status = unsafe {
        libc::tcgetattr(file.as_raw_fd(), &mut settings);
        libc::cfmakeraw(&mut settings);
        libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &settings)
    };
    if status != 0 {
        return Err(format!(
            "{device} is no terminal: {}",
            io::Error::last_os_error()
        ));
    }
    Ok(file)
}

/// The virtio-serial port of the results, found by its name.
fn virtio_port() -> Result<File> {
    let start = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT {
                let device = std::path::Path::new("/dev").join(entry.file_name());
                return OpenOptions::new()
                    .write(true)
                    .open(&device)
                    .context(|| format!("cannot open the results port {}", device.display()));
            }
        }
        if start.elapsed() > DEVICE_PATIENCE {
            return Err(format!("there is no virtio-serial port {PORT}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// `uname -srvm`.
pub(crate) fn kernel() -> Result<String> {
    // SAFETY: all zeroes is a valid utsname.
    let mut name: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live struct of the right type.
    if unsafe { libc::uname(&mut name) } != 0 {
        return Err(format!("uname: {}", io::Error::last_os_error()));
    }
    let text = |field: &[libc::c_char]| -> String {
        field
            .iter()
            .take_while(|c| **c != 0)
            .map(|c| char::from(c.cast_unsigned()))
            .collect()
    };
    Ok([
        text(&name.sysname),
        text(&name.release),
        text(&name.version),
        text(&name.machine),
    ]
    .join(" "))
}

/// Processors on line.
pub(crate) fn cpus() -> u32 {
    thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// Whether the kernel says that it has SQE groups.
pub(crate) fn has_groups() -> Result<bool> {
    // struct io_uring_params is 120 bytes; `features` is its sixth u32.
    let mut params = [0_u32; 30];
    // SAFETY: the pointer is to 120 writable bytes, as the call wants them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_io_uring_setup,
            1,
            ptr::from_mut(&mut params).cast::<libc::c_void>(),
        )
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(format!(
            "io_uring_setup: {error}: no io_uring in this kernel?"
        ));
    }
    // SAFETY: the call above gave us the descriptor, which fits a C int.
    drop(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
    Ok(params[5] & FEAT_SQE_GROUP != 0)
}

/// The kernel's taint flags.
pub(crate) fn taint() -> Result<u64> {
    let path = "/proc/sys/kernel/tainted";
    fs::read_to_string(path)
        .context(|| format!("cannot read {path}"))?
        .trim()
        .parse()
        .context(|| format!("{path} holds no number"))
}

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Makes kmemleak forget what it found before the tests.
pub(crate) fn clear_leaks() {
    if fs::metadata(KMEMLEAK).is_ok() {
        // Boot leaves false positives, which are not ours. A kernel that refuses
        // reports them at the end, where they are seen.
        let _ = fs::write(KMEMLEAK, "scan").and_then(|()| fs::write(KMEMLEAK, "clear"));
    }
}

/// Lets kmemleak look for what the tests leaked. It announces a find in the
/// kernel log by itself; this is the list.
pub(crate) fn find_leaks() -> String {
    if fs::metadata(KMEMLEAK).is_err() {
        return String::new();
    }
    // Objects younger than five seconds are not reported, and one that is moved
    // while it is scanned is found only by the second scan.
    thread::sleep(Duration::from_secs(6));
    let scan = || fs::write(KMEMLEAK, "scan");
    match scan().and_then(|()| scan()) {
        Ok(()) => fs::read_to_string(KMEMLEAK).unwrap_or_default(),
        Err(error) => format!("kmemleak: cannot scan: {error}"),
    }
}
