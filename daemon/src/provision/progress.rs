//! How a running job tells what it does: which step runs, its detail, bytes, percent and lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::job::{Job, Step, StepKind, StepState};
use super::ledger::{Keep, Ledger};
use super::log::JobLog;

/// Watchers need no more progress than they can see.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// The voice of one running job. Shared by the callbacks of a step.
pub(super) struct Progress {
    ledger: Arc<Ledger>,
    job: String,
    inner: Mutex<Inner>,
}

struct Inner {
    log: JobLog,
    /// Index of the step that runs.
    step: usize,
    reported: Option<Instant>,
}

impl Progress {
    pub(super) fn new(ledger: Arc<Ledger>, job: String, log: JobLog) -> Self {
        Self {
            ledger,
            job,
            inner: Mutex::new(Inner {
                log,
                step: 0,
                reported: None,
            }),
        }
    }

    /// Begins a step; the one before is done. The n-th of its kind, counted from 0.
    pub(super) fn begin(&self, kind: StepKind, n: usize) {
        let now = Timestamp::now();
        let mut begun = None;
        self.ledger.change(&self.job, Keep::OnDisk, |job| {
            job.end_step(StepState::Done, now);
            let found = job
                .steps
                .iter_mut()
                .enumerate()
                .filter(|(_, step)| step.kind == kind)
                .nth(n);
            if let Some((index, step)) = found {
                step.state = StepState::Running;
                step.started_at = Some(now);
                begun = Some((index, step.title.clone()));
            }
        });
        if let Some((index, title)) = begun {
            let mut inner = self.inner();
            inner.step = index;
            inner.reported = None;
            inner.log.begin(&title, now);
        }
    }

    /// Says what came out of the running step, in the log too.
    pub(super) fn detail(&self, detail: &str) {
        self.line(detail);
        self.result(detail);
    }

    /// Says what came out of the running step.
    pub(super) fn result(&self, detail: &str) {
        self.step(Keep::OnDisk, |step| detail.clone_into(&mut step.detail));
    }

    /// Ends the running step as skipped.
    pub(super) fn skip(&self, why: &str) {
        self.line(why);
        self.step(Keep::OnDisk, |step| {
            why.clone_into(&mut step.detail);
            step.state = StepState::Skipped;
            step.ended_at = Some(Timestamp::now());
        });
    }

    /// Ends the running step.
    pub(super) fn end(&self, state: StepState) {
        self.job(|job| job.end_step(state, Timestamp::now()));
    }

    /// Says how many bytes have been moved.
    pub(super) fn bytes(&self, bytes: u64, total: u64) {
        if self.is_due(bytes >= total && total > 0) {
            self.step(Keep::InMemory, |step| {
                step.bytes = bytes;
                step.total_bytes = total;
            });
        }
    }

    /// Says what the running step waits for, and how much of it is done when that is known.
    pub(super) fn waiting(&self, detail: &str, percent: Option<u8>) {
        if self.is_due(percent == Some(100)) {
            self.step(Keep::InMemory, |step| {
                detail.clone_into(&mut step.detail);
                step.percent = percent.unwrap_or(step.percent);
            });
        }
    }

    /// Takes a line of output.
    pub(super) fn line(&self, text: &str) {
        let now = Timestamp::now();
        let mut inner = self.inner();
        let text = inner.log.line(text, now);
        let step = inner.step;
        drop(inner);
        self.ledger.line(&self.job, step, &text, now);
    }

    /// Returns the last lines of the running step.
    pub(super) fn tail(&self) -> Vec<String> {
        self.inner().log.tail()
    }

    /// Changes what is known of the job.
    pub(super) fn job(&self, change: impl FnOnce(&mut Job)) {
        self.ledger.change(&self.job, Keep::OnDisk, change);
    }

    fn step(&self, keep: Keep, change: impl FnOnce(&mut Step)) {
        let index = self.inner().step;
        self.ledger.change(&self.job, keep, |job| {
            if let Some(step) = job.steps.get_mut(index) {
                change(step);
            }
        });
    }

    fn is_due(&self, always: bool) -> bool {
        let mut inner = self.inner();
        let now = Instant::now();
        let due = always || inner.reported.is_none_or(|last| now - last >= REPORT_EVERY);
        if due {
            inner.reported = Some(now);
        }
        due
    }

    /// Nothing in here can be left half done, so a poisoned lock is as good as any.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
