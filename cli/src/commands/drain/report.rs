//! Shows a drain while it goes on: drawn on a terminal, a line for each change elsewhere, and a
//! line every ten seconds when nothing changes.

use jiff::Timestamp;
use serde::Serialize;

use super::view::{Change, Crowd};
use crate::progress::{Mode, Notes, Screen, Silence, say, say_json};
use crate::rows::time::{Time, clock};

/// How the wait ended, for programs.
#[derive(Serialize)]
pub(super) struct Result<'a> {
    pub(super) state: &'static str,
    pub(super) agents: &'a [String],
    /// How many stay for debugging.
    pub(super) kept: usize,
    /// Null when the daemon does not tell.
    pub(super) jobs_killed: Option<usize>,
}

/// A change, for programs.
#[derive(Serialize)]
struct Event<'a> {
    ts: Time,
    /// Null in an event about all of them.
    agent: Option<&'a str>,
    state: &'a str,
    detail: &'a str,
    gone: usize,
    total: usize,
}

/// The place where progress is shown.
pub(super) struct Report {
    mode: Mode,
    screen: Option<Screen>,
    silence: Silence,
}

impl Report {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            screen: (mode == Mode::Tty).then(Screen::stderr),
            silence: Silence::default(),
        }
    }

    pub(super) fn notes(&self) -> Notes {
        Notes::above(self.screen.as_ref())
    }

    /// Shows what changed.
    pub(super) fn changes(&mut self, crowd: &Crowd, changes: &[Change], now: Timestamp) {
        for change in changes {
            self.silence.broken(now);
            let Change {
                name,
                state,
                text,
                gone,
            } = change;
            let line = format!("{}  {name}  {state}  {text}", clock(now));
            match (self.mode, &self.screen) {
                (Mode::Tty, Some(screen)) if *gone => screen.say(&line),
                (Mode::Plain, _) => say(line.trim_end()),
                (Mode::Json, _) => say_json(&Event {
                    ts: Time(now),
                    agent: Some(name),
                    state,
                    detail: text,
                    gone: crowd.gone(),
                    total: crowd.size(),
                }),
                _ => {}
            }
        }
        self.draw(crowd, now);
    }

    /// Says what is waited for when nothing was said for too long.
    pub(super) fn beat(&mut self, crowd: &Crowd, now: Timestamp) {
        self.draw(crowd, now);
        if !self.silence.is_too_long(now) {
            return;
        }
        let summary = crowd.summary(now);
        match self.mode {
            Mode::Plain => say(&format!("{}  waiting: {summary}", clock(now))),
            Mode::Json => say_json(&Event {
                ts: Time(now),
                agent: None,
                state: "waiting",
                detail: &summary,
                gone: crowd.gone(),
                total: crowd.size(),
            }),
            Mode::Tty | Mode::Silent => {}
        }
    }

    fn draw(&mut self, crowd: &Crowd, now: Timestamp) {
        if let Some(screen) = &mut self.screen {
            screen.draw(crowd.frame(now));
        }
    }

    /// Takes away what is drawn.
    pub(super) fn end(self) {
        if let Some(screen) = self.screen {
            screen.clear();
        }
    }
}
