//! Runs the real program and writes its whole effect as text for a snapshot.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fake::Fake;

/// Returns the program with nothing of this session's settings.
pub(crate) fn command(fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iapctl"));
    command
        .args(arguments)
        .current_dir(fake.directory())
        .env_clear()
        .env("PATH", "/nowhere")
        .env("TZ", noon())
        .env("IAPD_SOCKET", fake.socket())
        .stdin(Stdio::null());
    command
}

/// Returns a time zone in which it is between noon and one: a time some hours away is of today,
/// and is shown without its date, at whatever hour the tests run.
fn noon() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let hour = i64::try_from(now.as_secs() / 3600 % 24).unwrap();
    // POSIX counts the hours west of Greenwich.
    format!("<NOON>{}", hour - 12)
}

/// Runs `iapctl` with `arguments`, which are words without spaces, and returns what it did.
pub(crate) fn iapctl(fake: &Fake, arguments: &str) -> String {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run(fake, &words)
}

/// Runs `iapctl` with arguments that may have spaces in them, and returns what it did.
pub(crate) fn run(fake: &Fake, arguments: &[&str]) -> String {
    let output = command(fake, arguments).output().unwrap();
    effect(fake, &output)
}

/// Returns stdout, stderr and the exit code; what differs from run to run is replaced.
pub(crate) fn effect(fake: &Fake, output: &Output) -> String {
    let mut text = stable(fake, &output.stdout);
    let stderr = stable(fake, &output.stderr);
    if !stderr.is_empty() {
        let _ = write!(text, "--- stderr\n{stderr}");
    }
    let _ = match output.status.code() {
        Some(0) => Ok(()),
        Some(code) => writeln!(text, "--- exit {code}"),
        None => writeln!(text, "--- killed"),
    };
    text
}

/// Runs `iapctl` until its stderr has a line with `mark`, then presses Ctrl-C.
pub(crate) fn interrupted(fake: &Fake, arguments: &str, mark: &str) -> String {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = command(fake, &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(mark) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    press_ctrl_c(&child);
    stderr.read_to_string(&mut said).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = said.into_bytes();
    effect(fake, &output)
}

/// Makes files in the test's directory by a shell script. Programs have to be made by another
/// process: a program this one has open for writing while another test forks cannot be run
/// ("text file busy").
pub(crate) fn make(fake: &Fake, script: &str) {
    let mut shell = Command::new("sh");
    let status = shell
        .args(["-c", script])
        .current_dir(fake.directory())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Returns a copy of the program, in the test's directory.
pub(crate) fn copy_of_program(fake: &Fake) -> PathBuf {
    make(
        fake,
        concat!("cp '", env!("CARGO_BIN_EXE_iapctl"), "' iapctl"),
    );
    fake.directory().join("iapctl")
}

/// An `iapctl` that watches a list.
pub(crate) struct Watching {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
}

impl Watching {
    pub(crate) fn start(fake: &Fake, arguments: &str) -> Self {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        Self::of(command(fake, &words))
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdout,
            said: String::new(),
        }
    }

    /// Waits for so many more lines on stdout.
    pub(crate) fn lines(mut self, count: usize) -> Self {
        for _ in 0..count {
            let size = self.stdout.read_line(&mut self.said).unwrap();
            assert_ne!(size, 0, "it ended after: {}", self.said);
        }
        self
    }

    /// Presses Ctrl-C and returns the effect.
    pub(crate) fn interrupt(self, fake: &Fake) -> String {
        press_ctrl_c(&self.child);
        let mut output = self.child.wait_with_output().unwrap();
        output.stdout = self.said.into_bytes();
        effect(fake, &output)
    }
}

fn press_ctrl_c(child: &Child) {
    let id = i32::try_from(child.id()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGINT).unwrap();
}

fn stable(fake: &Fake, bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let text = text.replace(&*fake.directory().to_string_lossy(), "[dir]");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "[version]");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(found) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(found);
        out.push_str(before);
        let end = digits
            .find(|c: char| !(c.is_ascii_digit() || "-:.TZ".contains(c)))
            .unwrap_or(digits.len());
        let (word, after) = digits.split_at(end);
        out.push_str(if is_time(word) { "[time]" } else { word });
        rest = after;
    }
    out + rest
}

/// Whether a word is a point in time: `2026-11-24T11:32:55.5Z` or `11:32:55`.
fn is_time(word: &str) -> bool {
    let colons = word.matches(':').count() == 2;
    let date = word.len() >= 20 && word.contains('T') && word.ends_with('Z');
    let clock = word.len() == 8 && !word.contains('-');
    colons && (date || clock)
}
