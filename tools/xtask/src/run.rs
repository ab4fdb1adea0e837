// SPDX-License-Identifier: GPL-2.0-only
//! Running other programs.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{bail, Context as _, Result};

/// Lines of a failed program's output that its error shows.
const TAIL: usize = 12;

/// Makes the program end when this one does, whatever the reason: an orphaned
/// make would go on writing to a cache that the next run takes to be its own.
fn tie(command: &mut Command) -> &mut Command {
    // SAFETY: `prctl` is async-signal-safe, takes plain integers, and touches
    // nothing of the parent between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        })
    }
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    format!("`{}`", words.join(" "))
}

fn tail(output: &str) -> String {
    let lines: Vec<_> = output
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The last line of an error: a failed program's own last word, without its command
/// line and what else it said.
pub(crate) fn last_word(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .lines()
        .next_back()
        .unwrap_or_default()
        .to_owned()
}

/// Runs the program and returns what it wrote to stdout.
///
/// # Errors
///
/// Fails if it cannot be started, and with the end of its stderr if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// As [`output`], for output that need not be text.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = tie(command.stdin(Stdio::null()))
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}",
            describe(command),
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr))
        );
    }
    Ok(output.stdout)
}

/// Runs the program and hands every line of its stdout and stderr, in the order in
/// which they were written, to `line`. Failure of the program is not an error.
///
/// # Errors
///
/// Fails if the program cannot be started or its output not be read.
pub(crate) fn lines(
    command: &mut Command,
    mut line: impl FnMut(&str) -> Result<()>,
) -> Result<ExitStatus> {
    let what = describe(command);
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let stderr = writer.try_clone().context("cannot make a pipe")?;
    let mut child = tie(command.stdin(Stdio::null()).stdout(writer).stderr(stderr))
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    // The command holds the writing ends: without this, the reader never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = reader
            .read_until(b'\n', &mut buffer)
            .with_context(|| format!("cannot read the output of {what}"))?;
        if read == 0 {
            break;
        }
        line(String::from_utf8_lossy(&buffer).trim_end())?;
    }
    child
        .wait()
        .with_context(|| format!("cannot wait for {what}"))
}

/// As [`lines`], but failure of the program is an error that shows the end of its output.
pub(crate) fn checked_lines(
    command: &mut Command,
    mut line: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut seen = String::new();
    let status = lines(command, |text| {
        seen.push_str(text);
        seen.push('\n');
        line(text)
    })?;
    if !status.success() {
        bail!("{} failed ({status}):\n{}", describe(command), tail(&seen));
    }
    Ok(())
}

/// Runs the program while calling `tick` a few times a second, for progress that
/// is seen from outside. Its stdout is dropped.
///
/// # Errors
///
/// As [`output`].
pub(crate) fn watched(command: &mut Command, mut tick: impl FnMut()) -> Result<()> {
    let what = describe(command);
    let mut child = tie(command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped()))
    .spawn()
    .with_context(|| format!("cannot start {what}"))?;
    let stderr = child.stderr.take().context("stderr was not taken before")?;
    // Drained aside: a full pipe would stop the program.
    let reader = std::thread::spawn(move || io::read_to_string(stderr).unwrap_or_default());
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for {what}"))?
        {
            break status;
        }
        tick();
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    tick();
    let stderr = reader.join().unwrap_or_default();
    if !status.success() {
        bail!("{what} failed ({status}):\n{}", tail(&stderr));
    }
    Ok(())
}

/// Runs the program on this terminal.
///
/// # Errors
///
/// Fails if it cannot be started.
pub(crate) fn attached(command: &mut Command) -> Result<ExitStatus> {
    tie(command)
        .status()
        .with_context(|| format!("cannot start {}", describe(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keeps_the_order_of_both_streams() {
        let mut seen = Vec::new();
        let status = lines(
            Command::new("sh").args(["-c", "echo one; echo two >&2; echo three; exit 3"]),
            |line| {
                seen.push(line.to_owned());
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_failure_shows_the_command_and_the_end_of_its_stderr() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("`sh -c") && text.ends_with("why"), "{text}");
        assert_eq!(last_word(&error), "why");
    }

    #[test]
    fn watched_does_not_stop_at_a_full_pipe() {
        let error = watched(
            Command::new("sh").args(["-c", "yes x | head -c 200000 >&2; echo end >&2; exit 1"]),
            || {},
        )
        .unwrap_err();
        assert!(format!("{error:#}").ends_with("end"));
    }
}
