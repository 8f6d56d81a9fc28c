//! A job's whole log in a file, and the last lines of a step in memory for its error.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use tracing::warn;

/// Lines of a failing step that are shown with its error.
const TAIL_LINES: usize = 200;
/// A script that prints without end must not fill the disk.
const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// A line longer than this is cut: lines are kept in memory and sent to watchers.
const MAX_LINE_BYTES: usize = 4096;

/// The log of one job.
pub(super) struct JobLog {
    /// `None` when it could not be opened or has failed; the job goes on without.
    file: Option<File>,
    written: u64,
    tail: VecDeque<String>,
}

impl JobLog {
    /// Opens the log; its folder is there since the job's record is.
    pub(super) fn open(path: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .inspect_err(|error| warn!(path = %path.display(), %error, "no provision log"))
            .ok();
        Self {
            file,
            written: 0,
            tail: VecDeque::new(),
        }
    }

    /// Begins a step: its tail starts anew.
    pub(super) fn begin(&mut self, title: &str, now: Timestamp) {
        self.tail.clear();
        self.write(&format!("{now:.3} == {title}\n"));
    }

    /// Adds a line of the running step and returns it as it was kept.
    pub(super) fn line(&mut self, text: &str, now: Timestamp) -> String {
        let text = shorten(text);
        self.write(&format!("{now:.3}    {text}\n"));
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        text
    }

    /// Returns the last lines of the step that runs.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn write(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        if self.written > MAX_LOG_BYTES {
            return;
        }
        self.written += text.len() as u64;
        let text = if self.written > MAX_LOG_BYTES {
            "(log cut here: too long)\n"
        } else {
            text
        };
        // One write for each line, so that whoever follows the file sees whole lines at once.
        if let Err(error) = file.write_all(text.as_bytes()) {
            warn!(%error, "provision log not written");
            self.file = None;
        }
    }
}

/// Cuts a line that is too long and takes out what would drive a terminal: colours, and what a
/// progress display has overwritten.
fn shorten(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut end = text.len().min(MAX_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut line = String::with_capacity(end);
    let mut chars = text[..end].chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC [ parameters letter; anything else is one character.
            if chars.next() == Some('[') {
                let _letter = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            line.push(c);
        }
    }
    if end < text.len() {
        line.push_str(" ...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_holds_the_last_lines_of_the_running_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = JobLog::open(&path);
        log.begin("one", Timestamp::UNIX_EPOCH);
        log.line("of the first step", Timestamp::UNIX_EPOCH);
        log.begin("two", Timestamp::UNIX_EPOCH);
        for n in 0..TAIL_LINES + 5 {
            log.line(&n.to_string(), Timestamp::UNIX_EPOCH);
        }
        let tail = log.tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.first().map(String::as_str), Some("5"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("of the first step"),
            "the file keeps everything"
        );
        assert_eq!(text.lines().count(), TAIL_LINES + 8);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = shorten(&"ä".repeat(MAX_LINE_BYTES));
        assert!(line.ends_with("ä ..."));
        assert!(line.len() <= MAX_LINE_BYTES + 4);
    }

    #[test]
    fn what_drives_a_terminal_is_taken_out() {
        assert_eq!(
            shorten("\u{1b}[1;31mred\u{1b}[0m\tand\u{7} not\r"),
            "red\tand not"
        );
        assert_eq!(shorten("10%\r50%\r100%"), "100%");
    }

    #[test]
    fn an_endless_log_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = JobLog::open(&path);
        log.written = MAX_LOG_BYTES;
        log.line("the straw", Timestamp::UNIX_EPOCH);
        log.line("and more", Timestamp::UNIX_EPOCH);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "(log cut here: too long)\n"
        );
    }
}
