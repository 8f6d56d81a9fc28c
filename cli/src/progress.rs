//! What goes on while a command waits, on stderr: lines drawn again on a terminal, plain lines in
//! a pipe, JSON objects for programs. What is said is up to the command; how it looks, to this.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use crate::args::ProgressChoice;
use crate::fleet;
use crate::rows::time::Time;

/// How progress is shown, decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Tty,
    Plain,
    Json,
    Silent,
}

impl Mode {
    pub(crate) fn of(choice: ProgressChoice) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match choice {
            // A dumb terminal cannot be drawn on, whatever is wished for.
            ProgressChoice::Auto | ProgressChoice::Tty if terminal && !dumb => Self::Tty,
            ProgressChoice::Auto | ProgressChoice::Tty | ProgressChoice::Plain => Self::Plain,
            ProgressChoice::Json => Self::Json,
            ProgressChoice::None => Self::Silent,
        }
    }
}

/// How this run speaks, for those who have nothing to do with how it was called.
static VOICE: OnceLock<Voice> = OnceLock::new();

#[derive(Clone, Copy)]
struct Voice {
    mode: Mode,
    verbose: bool,
}

/// Settles how this run speaks.
pub(crate) fn speak(mode: Mode, verbose: bool) {
    // There is one run in a process; tests do not settle it.
    let _ = VOICE.set(Voice { mode, verbose });
}

/// Writes what only `-v` shows. It is no progress: `--progress none` does not silence it.
pub(crate) fn say_detail(text: impl FnOnce() -> String) {
    if VOICE.get().is_some_and(|voice| voice.verbose) {
        say(&format!("debug: {}", text()));
    }
}

/// A wait that belongs to no agent and no step, for programs.
#[derive(Serialize)]
struct Waiting<'a> {
    ts: Time,
    state: &'static str,
    detail: &'a str,
}

/// Says what is waited for.
pub(crate) fn say_waiting(text: &str) {
    match VOICE.get().map(|voice| voice.mode) {
        Some(Mode::Silent) => {}
        Some(Mode::Json) => say_json(&Waiting {
            ts: Time(Timestamp::now()),
            state: "waiting",
            detail: text,
        }),
        _ => Notes::stderr().say(text),
    }
}

/// Writes a line to stderr. Nobody reading it is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(anstream::stderr(), "{}", fleet::prefixed(text));
}

/// An event on one host of several, for programs.
#[derive(Serialize)]
struct Hosted<'a, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(flatten)]
    event: &'a E,
}

/// Writes an object as a line to stderr.
pub(crate) fn say_json(event: &impl Serialize) {
    let host = fleet::here();
    if let Ok(text) = serde_json::to_string(&Hosted { host, event }) {
        let _ = writeln!(anstream::stderr(), "{text}");
    }
}

/// Returns a bar of `width` characters: `[######------]`.
pub(crate) fn bar(done: u64, total: u64, width: usize) -> String {
    let done = usize::try_from(done.min(total)).unwrap_or(usize::MAX);
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let full = done.saturating_mul(width).checked_div(total).unwrap_or(0);
    format!(
        "[{}{}]",
        "#".repeat(full),
        "-".repeat(width.saturating_sub(full))
    )
}

/// A line on a terminal: text that is cut where the terminal ends, and a short one at its right
/// edge.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) right: String,
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self {
            text,
            right: String::new(),
        }
    }
}

/// Lines on a terminal that are drawn again and again.
pub(crate) struct Screen {
    lines: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Screen {
    pub(crate) fn stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(10))
    }

    pub(crate) fn stdout() -> Self {
        Self::on(ProgressDrawTarget::stdout_with_hz(10))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        Self {
            lines: MultiProgress::with_draw_target(target),
            bars: Vec::new(),
        }
    }

    /// Draws `lines` in place of those drawn before.
    pub(crate) fn draw(&mut self, mut lines: Vec<Line>) {
        cut_to_height(&mut lines);
        for surplus in self.bars.drain(lines.len().min(self.bars.len())..) {
            self.lines.remove(&surplus);
        }
        let style = ProgressStyle::with_template("{wide_msg} {prefix}")
            .expect("the template has no mistake");
        for (index, line) in lines.into_iter().enumerate() {
            if self.bars.len() == index {
                let bar = ProgressBar::new_spinner().with_style(style.clone());
                self.bars.push(self.lines.add(bar));
            }
            if let Some(bar) = self.bars.get(index) {
                bar.set_prefix(line.right);
                bar.set_message(line.text);
            }
        }
        // The drawing rate is bounded; what the last line draws is the whole screen.
        if let Some(bar) = self.bars.last() {
            bar.tick();
        }
    }

    /// Writes a line above the drawn ones, for good.
    pub(crate) fn say(&self, text: &str) {
        let _ = self.lines.println(text);
    }

    /// Leaves the drawn lines as they are, for good.
    pub(crate) fn keep(self) {
        for bar in &self.bars {
            bar.abandon();
        }
    }

    /// Takes the drawn lines away.
    pub(crate) fn clear(self) {
        let _ = self.lines.clear();
    }
}

/// What does not fit on the screen would not be drawn at all, and nobody would know of it.
fn cut_to_height(lines: &mut Vec<Line>) {
    let Some((_, terminal_size::Height(height))) = terminal_size::terminal_size() else {
        return;
    };
    // The cursor has the last line.
    let room = usize::from(height).saturating_sub(1).max(2);
    if lines.len() > room {
        let hidden = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("and {hidden} more").into());
    }
}

/// Sees to it that a wait is never silent for long.
#[derive(Default)]
pub(crate) struct Silence {
    last: Option<Timestamp>,
}

impl Silence {
    /// The longest silence, in seconds.
    const LIMIT: i64 = 10;

    /// Notes that something was said.
    pub(crate) fn broken(&mut self, now: Timestamp) {
        self.last = Some(now);
    }

    /// Whether something should be said now; then it is taken as said.
    pub(crate) fn is_too_long(&mut self, now: Timestamp) -> bool {
        let last = *self.last.get_or_insert(now);
        let too_long = now.duration_since(last).as_secs() >= Self::LIMIT;
        if too_long {
            self.last = Some(now);
        }
        too_long
    }
}

/// Where remarks go that are neither the answer nor progress.
pub(crate) struct Notes(Option<MultiProgress>);

impl Notes {
    pub(crate) fn stderr() -> Self {
        Self(None)
    }

    /// Returns the place above the lines of `screen`, which writing below would break.
    pub(crate) fn above(screen: Option<&Screen>) -> Self {
        Self(screen.map(|screen| screen.lines.clone()))
    }

    pub(crate) fn say(&self, text: &str) {
        let text = format!("note: {}", fleet::addressed(text));
        match &self.0 {
            Some(lines) => {
                let _ = lines.println(fleet::prefixed(&text));
            }
            None => say(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, 8, 8), "[--------]");
        assert_eq!(bar(3, 8, 8), "[###-----]");
        assert_eq!(bar(9, 8, 8), "[########]");
        assert_eq!(bar(0, 0, 4), "[----]");
    }

    #[test]
    fn silence_is_too_long_after_ten_seconds_and_then_after_ten_more() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut silence = Silence::default();
        let told: Vec<i64> = (0..45)
            .filter(|second| {
                if *second == 15 {
                    silence.broken(at(15));
                }
                silence.is_too_long(at(*second))
            })
            .collect();
        assert_eq!(told, [10, 25, 35]);
    }
}
