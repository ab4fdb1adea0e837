// SPDX-License-Identifier: GPL-2.0-only
//! Starting, watching and reaping processes as PID 1.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    io::{self, Read as _, Write as _},
    mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use harness::pace::Patience;
use harness::protocol::{GROUPS_ENV, SLOWDOWN_ENV};

use crate::{diagnose, setup, Context as _, Result};

/// Where programs are started that do not ask for another place.
pub(crate) const TMP_DIR: &str = "/tmp";

/// How patient init is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For a killed process to go away.
    pub(crate) death: Duration,
    /// For the rings of a dead process to be torn down.
    pub(crate) teardown: Duration,
    /// The factor that these contain.
    slowdown: u32,
}

impl Limits {
    /// The patience that suits a machine so many times slower than bare metal.
    pub(crate) fn scaled(slowdown: u32) -> Self {
        let slowdown = slowdown.max(1);
        Self {
            death: Duration::from_secs(3) * slowdown,
            teardown: Duration::from_secs(3) * slowdown,
            slowdown,
        }
    }
}

/// What PID 1 knows of the machine.
pub(crate) struct Guest {
    has_groups: bool,
    pub(crate) limits: Limits,
    /// Where programs are started.
    pub(crate) dir: &'static str,
    /// What the job wants in the environment of every program.
    env: Vec<(String, String)>,
    /// Statuses of reaped processes that somebody may still ask for.
    statuses: HashMap<libc::pid_t, libc::c_int>,
    /// Kernel workers known to hang in the teardown of a ring, reported once.
    stuck_workers: HashSet<libc::pid_t>,
}

/// How a watched process ended.
pub(crate) enum End {
    /// By itself, with this wait status.
    Exited(libc::c_int),
    /// It was killed, having run out of time. What it was doing then.
    TimedOut(String),
}

/// A wait status in words, and as a shell would give it.
pub(crate) fn explain(status: libc::c_int) -> (String, i32) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (format!("died of signal {signal}"), 128 + signal)
    } else {
        let code = libc::WEXITSTATUS(status);
        (format!("exited with {code}"), code)
    }
}

struct Running {
    pid: libc::pid_t,
    /// Becomes readable when the process ends.
    pidfd: OwnedFd,
    output: io::PipeReader,
}

impl Guest {
    pub(crate) fn new(has_groups: bool, limits: Limits, env: Vec<(String, String)>) -> Self {
        Self {
            has_groups,
            limits,
            dir: TMP_DIR,
            env,
            statuses: HashMap::new(),
            stuck_workers: HashSet::new(),
        }
    }

    fn command(&self, argv: &[String]) -> Result<Command> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| "the job names no program".to_owned())?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.dir)
            .env_clear()
            .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
            .env("HOME", "/tmp")
            .env("TMPDIR", "/tmp")
            .env("TERM", env::var_os("TERM").unwrap_or("linux".into()))
            .env(GROUPS_ENV, if self.has_groups { "yes" } else { "no" })
            .env(SLOWDOWN_ENV, self.limits.slowdown.to_string())
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn start(&self, argv: &[String]) -> Result<Running> {
        let cannot = || format!("cannot start {}", argv.join(" "));
        let (output, writer) = io::pipe().context(cannot)?;
        // SAFETY: the descriptor is open; the flag keeps a forgotten grandchild
        // that holds the other end from blocking init.
        if unsafe { libc::fcntl(output.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error()).context(cannot);
        }
        let child = self
            .command(argv)?
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context(cannot)?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .context(cannot)?;
        let pid = child.id().cast_signed();
        // SAFETY: no pointers are passed. The child is not reaped yet, so the
        // number is still its own.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context(cannot);
        }
        // SAFETY: the call above gave us the descriptor, which fits a C int.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        Ok(Running { pid, pidfd, output })
    }

    /// Reaps whoever is dead, orphans included.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a live int.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.statuses.insert(pid, status);
        }
    }

    /// Runs a program to its end or to the deadline, and hands on its output as
    /// it comes. Says when it is given more time, and how many times it has had it then,
    /// as the machine is slow.
    pub(crate) fn watch(
        &mut self,
        argv: &[String],
        timeout: Option<Duration>,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
        mut slow: impl FnMut(u32) -> Result<()>,
    ) -> Result<End> {
        self.statuses.clear();
        let mut running = self.start(argv)?;
        let mut patience = timeout.map(Patience::new);
        let mut buffer = vec![0; 64 << 10];
        loop {
            drain(&mut running.output, &mut buffer, &mut sink)?;
            self.reap();
            if let Some(status) = self.statuses.remove(&running.pid) {
                drain(&mut running.output, &mut buffer, &mut sink)?;
                return Ok(End::Exited(status));
            }
            let left = match &mut patience {
                Some(patience) => {
                    let steps = patience.steps();
                    if patience.is_over() {
                        break;
                    }
                    if patience.steps() > steps {
                        slow(patience.steps())?;
                    }
                    patience.left()
                }
                None => Duration::MAX,
            };
            wait_readable(&running, left);
        }
        let doing = diagnose::processes();
        // SAFETY: no pointers are passed. The process is not reaped yet, so the
        // group is still its own.
        unsafe { libc::kill(-running.pid, libc::SIGKILL) };
        let mut patience = Patience::new(self.limits.death);
        loop {
            drain(&mut running.output, &mut buffer, &mut sink)?;
            self.reap();
            if self.statuses.remove(&running.pid).is_some() {
                return Ok(End::TimedOut(doing));
            }
            if patience.is_over() {
                return Ok(End::TimedOut(format!(
                    "{doing}It did not die of SIGKILL within {:.0?}; it is stuck in the kernel:\n{}",
                    patience.elapsed(),
                    diagnose::processes()
                )));
            }
            wait_readable(&running, Duration::from_millis(100));
        }
    }

    /// Ends every process but init, wherever it has put itself. Says what would
    /// not end.
    pub(crate) fn sweep(&mut self) -> Option<String> {
        let mut patience = Patience::new(self.limits.death);
        loop {
            // To -1 from PID 1: everybody else. As long as one is alive it may
            // still fork.
            // SAFETY: no pointers are passed.
            unsafe { libc::kill(-1, libc::SIGKILL) };
            self.reap();
            // SAFETY: a null status is allowed.
            let status =
                unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
            if status < 0 {
                self.statuses.clear();
                return None;
            }
            if patience.is_over() {
                return Some(format!(
                    "a process survives SIGKILL; it is stuck in the kernel:\n{}",
                    diagnose::processes()
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the kernel has torn down the rings of dead processes.
    ///
    /// The kernel does that in a worker that waits for the ring's last request.
    /// It complains about a request that never comes only after five minutes, and
    /// then in a way that names no test.
    pub(crate) fn rings_gone(&mut self) -> Option<String> {
        let mut patience = Patience::new(self.limits.teardown);
        loop {
            let busy: Vec<_> = diagnose::ring_exit_workers()
                .into_iter()
                .filter(|pid| !self.stuck_workers.contains(pid))
                .collect();
            if busy.is_empty() {
                return None;
            }
            if patience.is_over() {
                let stacks: String = busy.iter().map(|pid| diagnose::task(*pid, *pid)).collect();
                self.stuck_workers.extend(busy);
                return Some(format!(
                    "a ring is not torn down {:.0?} after its process ended; the kernel waits for a request that does not complete:\n{stacks}",
                    patience.elapsed()
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Passes on what the pipe holds now.
fn drain(
    output: &mut io::PipeReader,
    buffer: &mut [u8],
    sink: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    loop {
        match output.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error).context(|| "cannot read a program's output".to_owned())
            }
        }
    }
}

/// Waits for output or for the end, but not for long: orphans want to be reaped.
fn wait_readable(running: &Running, left: Duration) {
    let wait = left.min(Duration::from_millis(200)).as_millis();
    // SAFETY: all zeroes is a valid array of pollfd.
    let mut fds: [libc::pollfd; 2] = unsafe { mem::zeroed() };
    fds[0].fd = running.pidfd.as_raw_fd();
    fds[1].fd = running.output.as_raw_fd();
    for fd in &mut fds {
        fd.events = libc::POLLIN;
    }
    // SAFETY: the pointer is to as many live entries as are said to be there.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, wait.max(1) as libc::c_int) };
    // A program that has closed its output but goes on would make this spin.
    if ready > 0 && fds[0].revents == 0 && fds[1].revents & libc::POLLIN == 0 {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the job's program, and hands on its output as text. Its status, as a
/// shell reports it.
pub(crate) fn stream(
    guest: &mut Guest,
    argv: &[String],
    mut send: impl FnMut(&str) -> Result<()>,
) -> Result<i32> {
    // A character may be cut by the pipe; it is sent when it is whole.
    let mut pending = Vec::new();
    let sink = |bytes: &[u8]| {
        pending.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&pending) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => pending.len(),
        };
        if whole > 0 {
            send(&String::from_utf8_lossy(&pending[..whole]))?;
            pending.drain(..whole);
        }
        Ok(())
    };
    let end = guest.watch(argv, None, sink, |_| Ok(()))?;
    if !pending.is_empty() {
        send(&String::from_utf8_lossy(&pending))?;
    }
    if let Some(left) = guest.sweep().or_else(|| guest.rings_gone()) {
        send(&left)?;
        return Ok(1);
    }
    match end {
        End::Exited(status) => Ok(explain(status).1),
        End::TimedOut(_) => Ok(124),
    }
}

/// An interactive shell on the console, until it ends.
pub(crate) fn shell(guest: &mut Guest, argv: &[String]) -> Result<()> {
    let tty = "/dev/ttyS0";
    let busybox = argv.first().cloned().unwrap_or_default();
    let installed = Command::new(&busybox)
        .args(["--install", "-s", "/bin"])
        .status()
        .context(|| format!("cannot run {busybox}"))?;
    if !installed.success() {
        return Err(format!("{busybox} --install: {installed}"));
    }
    let open = || {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(tty)
            .context(|| format!("cannot open {tty}"))
    };
    let groups = if guest.has_groups {
        "has SQE groups"
    } else {
        "has no SQE groups"
    };
    writeln!(
        open()?,
        "\n{} {groups}.\nThe tests are /bin/group, the example is /bin/copy, an ext4 file system is at /disk.\nLeave with `exit`.",
        setup::kernel()?
    )
    .context(|| format!("cannot write to {tty}"))?;
    let mut command = guest.command(argv)?;
    command
        .env("PS1", "sqe-group:\\w# ")
        .stdin(open()?)
        .stdout(open()?)
        .stderr(open()?);
    // SAFETY: only system calls that may follow a fork, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            // Job control and Ctrl-C need a session with a terminal.
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command
        .spawn()
        .context(|| format!("cannot start {}", argv.join(" ")))?;
    let pid = child.id().cast_signed();
    guest.statuses.clear();
    while !guest.statuses.contains_key(&pid) {
        guest.reap();
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
