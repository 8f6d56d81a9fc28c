//! Shows a provision job while it runs: its steps drawn again on a terminal; elsewhere the
//! beginning, the lines and the end of each step, and a line every ten seconds when there is
//! none. The lines of a step stand together, since steps run one after the other.

use std::collections::VecDeque;

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use crate::progress::{Mode, Notes, Screen, Silence, say, say_json};
use crate::rows::plain;
use crate::rows::provision::{ProvisionJob, Step};
use crate::rows::time::{Time, megabytes, took};

mod frame;
mod plain_lines;

/// Lines of the running step that stay in sight.
const TAIL: usize = 5;

/// The place where a job is shown.
pub(super) struct Render {
    mode: Mode,
    /// The job's name.
    id: String,
    screen: Option<Screen>,
    job: Option<ProvisionJob>,
    tail: VecDeque<String>,
    /// The step whose lines came last.
    line_step: Option<usize>,
    silence: Silence,
}

/// One change, for programs.
#[derive(Serialize)]
struct Event<'a> {
    op: &'a str,
    /// Counted from 1; null in an event about the job as a whole.
    step: Option<usize>,
    total: usize,
    /// Of the step.
    name: Option<&'a str>,
    state: &'a str,
    bytes: u64,
    total_bytes: u64,
    line: Option<&'a str>,
    ts: Time,
}

impl Render {
    pub(super) fn new(mode: Mode, id: &str) -> Self {
        Self {
            mode,
            id: id.to_owned(),
            screen: (mode == Mode::Tty).then(Screen::stderr),
            job: None,
            tail: VecDeque::new(),
            line_step: None,
            silence: Silence::default(),
        }
    }

    pub(super) fn notes(&self) -> Notes {
        Notes::above(self.screen.as_ref())
    }

    /// Takes the job's new state.
    pub(super) fn job(&mut self, job: &ProvisionJob, now: Timestamp) {
        let before = self.job.replace(job.clone());
        let old = before.as_ref().map_or(&[][..], |job| &job.steps);
        if old.iter().position(Step::is_running) != job.steps.iter().position(Step::is_running) {
            self.tail.clear();
        }
        match self.mode {
            Mode::Plain => {
                if before.is_none() && job.state == "queued" {
                    self.tell(&format!("queued: {}", job.id), now);
                }
                for text in plain_lines::changes(old, &job.steps, now) {
                    self.tell(&text, now);
                }
            }
            Mode::Json => {
                if before.as_ref().map(|job| &job.state) != Some(&job.state) {
                    self.job_event(&job.state, job.steps.len(), now);
                }
                let changed = |(index, step): &(usize, &Step)| old.get(*index) != Some(*step);
                for (index, step) in job.steps.iter().enumerate().filter(changed) {
                    self.event(job.steps.len(), index, step, None, now);
                }
            }
            Mode::Tty | Mode::Silent => {}
        }
        self.draw(now);
    }

    /// Takes a line of a step's output.
    pub(super) fn line(&mut self, line: v1::LogLine, now: Timestamp) {
        let index = usize::try_from(line.step).unwrap_or(usize::MAX);
        let text = plain(&line.text);
        self.line_step = Some(index);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        let Some(job) = &self.job else { return };
        let Some(step) = job.steps.get(index) else {
            return;
        };
        match self.mode {
            Mode::Plain => {
                let at = Time::of(line.at).map_or(now, |at| at.0);
                let text = plain_lines::output(index, step, &text, at);
                self.tell(&text, now);
            }
            Mode::Json => self.event(job.steps.len(), index, step, Some(&text), now),
            Mode::Tty => self.draw(now),
            Mode::Silent => {}
        }
    }

    /// Says what is waited for when nothing was said for too long.
    pub(super) fn beat(&mut self, now: Timestamp) {
        self.draw(now);
        if !self.silence.is_too_long(now) {
            return;
        }
        let state = self.job.as_ref().map_or("waiting", |job| &job.state);
        let steps = self.job.as_ref().map_or(&[][..], |job| &job.steps);
        let running = steps.iter().enumerate().find(|(_, step)| step.is_running());
        match (self.mode, running) {
            (Mode::Plain, Some((index, step))) => say(&plain_lines::still(index, step, now)),
            (Mode::Plain, None) => say(&format!("still {state}: {}", self.id)),
            (Mode::Json, Some((index, step))) => {
                self.event(steps.len(), index, step, None, now);
            }
            (Mode::Json, None) => self.job_event(state, steps.len(), now),
            _ => {}
        }
    }

    /// Whether the operator has seen why the job failed, above.
    pub(super) fn failing_lines_were_shown(&self) -> bool {
        let failed = self
            .job
            .as_ref()
            .and_then(|job| job.steps.iter().position(|step| step.state == "failed"));
        self.mode == Mode::Plain && failed.is_some() && failed == self.line_step
    }

    /// Leaves what is drawn as the record of the job.
    pub(super) fn end(self) {
        if let Some(screen) = self.screen {
            screen.keep();
        }
    }

    fn draw(&mut self, now: Timestamp) {
        if let (Some(screen), Some(job)) = (&mut self.screen, &self.job) {
            screen.draw(frame::frame(job, &self.tail, now));
        }
    }

    fn tell(&mut self, text: &str, now: Timestamp) {
        self.silence.broken(now);
        say(text);
    }

    /// Tells of the job as a whole.
    fn job_event(&self, state: &str, total: usize, now: Timestamp) {
        say_json(&Event {
            op: &self.id,
            step: None,
            total,
            name: None,
            state,
            bytes: 0,
            total_bytes: 0,
            line: None,
            ts: Time(now),
        });
    }

    fn event(&self, total: usize, index: usize, step: &Step, line: Option<&str>, now: Timestamp) {
        say_json(&Event {
            op: &self.id,
            step: Some(index + 1),
            total,
            name: Some(&step.title),
            state: &step.state,
            bytes: step.bytes,
            total_bytes: step.total_bytes,
            line,
            ts: Time(now),
        });
    }
}

/// Returns how far a step is that moves bytes or knows its share.
fn amount(step: &Step) -> Option<String> {
    match (step.bytes, step.total_bytes, step.percent) {
        (_, total @ 1.., _) => Some(format!("{}/{} MB", megabytes(step.bytes), megabytes(total))),
        (bytes @ 1.., 0, _) => Some(format!("{} MB", megabytes(bytes))),
        (0, 0, percent @ 1..) => Some(format!("{percent}%")),
        (0, 0, 0) => None,
    }
}

/// Returns how long a step ran.
fn time_of(step: &Step, now: Timestamp) -> String {
    step.took(now).map(took).unwrap_or_default()
}
