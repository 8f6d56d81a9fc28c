//! Takes in how actions ended and what changed between passes: the ledger, the breaker, the
//! counts and the log learn it here.

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::agent::{AgentState, Keep};
use crate::azure::JobRequest;

use super::super::apply::ApplyError;
use super::super::apply::keep::Heard;
use super::super::apply::launch::{LaunchFailed, Launched};
use super::super::apply::leave::Left;
use super::super::ending::Ending;
use super::super::ledger::Entry;
use super::super::ledger::Verdict;
use super::super::plan::{self, ReapReason, Staying};
use super::Reconciler;

/// Vacancies remembered; beyond it their successors are not timed.
const VACANCIES_KEPT: usize = 1000;

/// How an action ended.
#[derive(Debug)]
pub(super) enum Ended {
    Launch(Result<Launched, LaunchFailed>),
    Spare(Result<(), LaunchFailed>),
    NoteDrain(Result<(), ApplyError>),
    Doorbell(Result<Option<Ending>, ApplyError>),
    Heard(Heard),
    Keep {
        keep: Keep,
        staying: Staying,
        result: Result<Option<Ending>, ApplyError>,
    },
    Leave(Result<Left, ApplyError>),
    Remove {
        reason: ReapReason,
        /// It was disabled in Azure before it was looked at.
        disables: bool,
        result: Result<String, ApplyError>,
    },
    Deregister {
        /// The job it had, as far as Azure told.
        job: Option<JobRequest>,
        result: Result<(), ApplyError>,
    },
}

/// An action that ended, and whose.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) name: String,
    pub(super) ended: Ended,
}

impl Reconciler {
    pub(super) fn ended(&mut self, done: Done) {
        let now = Instant::now();
        let began = self.in_flight.end(&done.name).unwrap_or(now);
        let name = done.name;
        match done.ended {
            Ended::Launch(result) => self.launch_ended(&name, result, began, now),
            Ended::Spare(result) => self.spare_ended(&name, result, began, now),
            Ended::NoteDrain(result) => self.plain(&name, "note_drain", result, now),
            Ended::Doorbell(result) => self.doorbell_ended(&name, result, began, now),
            Ended::Heard(heard) => self.heard_ended(&name, heard, began, now),
            Ended::Keep {
                keep,
                staying,
                result,
            } => self.keep_ended(&name, &keep, staying, result, began, now),
            Ended::Leave(result) => self.leave_ended(&name, result, now),
            Ended::Remove {
                reason,
                disables,
                result,
            } => {
                if disables && result.is_err() {
                    self.ledger.entry(&name, now).disabled_for_nothing();
                }
                self.remove_ended(&name, reason, result, began, now);
            }
            Ended::Deregister { job, result } => self.deregister_ended(&name, job, result, now),
        }
    }

    fn launch_ended(
        &mut self,
        name: &str,
        result: Result<Launched, LaunchFailed>,
        began: Instant,
        now: Instant,
    ) {
        let pool = self.order.spec.name.clone();
        let entry = self.ledger.entry(name, now);
        match result {
            Ok(launched) => {
                entry.launched(launched.azure_agent_id, began, now);
                if entry.spare {
                    self.shared.metrics.spare_promoted(&pool);
                }
                self.shared.metrics.agent_created(&pool);
                if let Some(since) = self.vacancies.pop_front() {
                    self.shared
                        .metrics
                        .replaced(&pool, now.duration_since(since));
                }
                self.order.link.hurry();
            }
            Err(LaunchFailed {
                error: ApplyError::Cancelled,
                ..
            }) => {}
            Err(failed) => {
                let text = chain(&failed.error).to_string();
                let (created, id) = (failed.created, failed.azure_agent_id);
                let its_fault =
                    created && !failed.error.is_azures() && !failed.error.is_transient();
                entry.not_launched(created, id, its_fault, text.clone(), now);
                if entry.spare && failed.azure_agent_id.is_none() && !failed.error.is_azures() {
                    entry.launch_failed = true; // It would fail again.
                }
                self.failed += 1;
                self.shared
                    .metrics
                    .launch_failed(&pool, failed.error.kind());
                if failed.error.is_azures() {
                    self.order.link.nudge();
                }
                // An image that vanished under the alias is found out by looking again.
                self.image_at = None;
                self.launch_failure(name, text, began, now);
            }
        }
    }

    /// Brakes launches, and says so when it is news.
    fn launch_failure(&mut self, name: &str, text: String, began: Instant, now: Instant) {
        if self.breaker.status(now).last_error == text {
            debug!(agent = %name, error = %text, "agent failed to start");
        } else {
            warn!(agent = %name, error = %text, "agent failed to start, will retry");
        }
        self.breaker.failed(text, began, now, None);
    }

    fn plain(
        &mut self,
        name: &str,
        doing: &'static str,
        result: Result<(), ApplyError>,
        now: Instant,
    ) {
        match result {
            Ok(()) => self.worked(name),
            Err(error) => self.action_failed(name, doing, &error, now),
        }
    }

    fn worked(&mut self, name: &str) {
        if let Some(entry) = self.ledger.get_mut(name) {
            entry.worked();
        }
    }

    pub(super) fn action_failed(
        &mut self,
        name: &str,
        doing: &'static str,
        error: &ApplyError,
        now: Instant,
    ) {
        let text = chain(error).to_string();
        self.failed += 1;
        self.shared
            .metrics
            .action_failed(&self.order.spec.name, doing);
        let entry = self.ledger.entry(name, now);
        if entry.last_error == text {
            debug!(agent = %name, action = doing, error = %text, "action failed again");
        } else {
            warn!(agent = %name, action = doing, error = %text, "action failed, will retry");
        }
        entry.failed(text, now);
    }

    fn doorbell_ended(
        &mut self,
        name: &str,
        result: Result<Option<Ending>, ApplyError>,
        began: Instant,
        now: Instant,
    ) {
        self.ledger.entry(name, now).answered = true;
        match result {
            Ok(Some(ending)) => self.take_ending(name, ending, began, now),
            Ok(None) => {}
            Err(error) => {
                // It ends without an answer, five seconds later.
                debug!(agent = %name, error = %chain(&error), "doorbell not answered");
            }
        }
    }

    /// Takes in what a guest told of its agent's end.
    pub(super) fn take_ending(&mut self, name: &str, ending: Ending, began: Instant, now: Instant) {
        let verdict = self.ledger.entry(name, now).told(ending);
        self.judge_launches(name, verdict, began, now);
    }

    /// Takes in what an agent's end says of launches.
    pub(super) fn judge_launches(
        &mut self,
        name: &str,
        verdict: Verdict,
        began: Instant,
        now: Instant,
    ) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Worked(began) => self.breaker.try_succeeded(began),
            Verdict::Failed(code) => {
                let text = format!("the agent ended with exit code {code} before it came online");
                self.shared
                    .metrics
                    .launch_failed(&self.order.spec.name, "agent_exit");
                self.launch_failure(name, text, began, now);
            }
        }
    }

    fn leave_ended(&mut self, name: &str, result: Result<Left, ApplyError>, now: Instant) {
        match result {
            Ok(left) => self.ledger.entry(name, now).left(left, now),
            Err(error) => {
                self.action_failed(name, "leave", &error, now);
                if matches!(error, ApplyError::Stop(_)) {
                    self.ledger.entry(name, now).leaves += 1;
                }
            }
        }
    }

    fn remove_ended(
        &mut self,
        name: &str,
        reason: ReapReason,
        result: Result<String, ApplyError>,
        began: Instant,
        now: Instant,
    ) {
        self.requests.removed(name, result.as_ref().err());
        match result {
            Ok(_) if self.ledger.get(name).is_some_and(Entry::is_spare) => {
                self.spare_removed(name, reason, now);
            }
            Ok(note) => {
                info!(agent = %name, reason = reason.as_str(), "agent removed");
                self.shared
                    .metrics
                    .agent_reaped(&self.order.spec.name, reason.as_str());
                self.ledger.entry(name, now).removed(reason, note);
                if reason == ReapReason::NeverOnline {
                    self.never_came_online(name, began, now);
                }
            }
            Err(ApplyError::NotProven(why)) => self.not_proven(name, why, now),
            Err(error) => {
                self.action_failed(name, "remove", &error, now);
                let incus = matches!(error, ApplyError::Incus { .. });
                self.ledger.entry(name, now).not_removed(incus);
            }
        }
    }

    /// Brakes launches for an agent that never came online.
    pub(super) fn never_came_online(&mut self, name: &str, began: Instant, now: Instant) {
        let text = format!(
            "agent {name} never came online: does its guest reach Azure (network, proxy, a \
             private CA in the image)?"
        );
        self.launch_failure(name, text, began, now);
    }

    /// An agent was not shown to be dead: it is left as it is for a while.
    pub(super) fn not_proven(&mut self, name: &str, why: &'static str, now: Instant) {
        debug!(agent = %name, why, "kept");
        let pause = self.order.spec.reaper_interval;
        self.ledger.entry(name, now).not_proven(why, pause, now);
    }

    fn deregister_ended(
        &mut self,
        name: &str,
        job: Option<JobRequest>,
        result: Result<(), ApplyError>,
        now: Instant,
    ) {
        let is_ours = self.ledger.get(name).is_none_or(|e| e.adopted.is_none());
        if job.is_some() && is_ours {
            self.ledger.entry(name, now).past.job = job;
        }
        // A kept one that is released has an instance yet.
        if self.ledger.get(name).is_none_or(|e| e.instance.is_none()) {
            self.requests.removed(name, result.as_ref().err());
        }
        match result {
            Ok(()) => {
                info!(agent = %name, "registration deleted");
                self.shared
                    .metrics
                    .registration_deleted(&self.order.spec.name);
                let entry = self.ledger.entry(name, now);
                entry.worked();
                entry.deregistered(now);
                if let Some(id) = entry.azure_agent_id {
                    self.ghosts.forget(id);
                }
                self.keep_record(name);
                self.order.link.hurry();
            }
            Err(error) => {
                self.action_failed(name, "deregister", &error, now);
                self.ledger.entry(name, now).not_deregistered();
            }
        }
    }

    /// Takes in that instances are not there any more.
    pub(super) fn note_gone(&mut self, gone: &[String], now: Instant) {
        for name in gone {
            // Its action tells what became of it.
            let in_hand = self.in_flight.doing(name).is_some();
            let Some(entry) = self.ledger.get_mut(name) else {
                continue;
            };
            if entry.is_spare() {
                self.spare_gone(name, in_hand, now);
                continue;
            }
            entry.past.ended_at.get_or_insert_with(Timestamp::now);
            info!(agent = %name, had_job = entry.was_busy, "instance is gone");
            // One that was lost with its member says nothing of the launches of others.
            let unproven = entry.launched_at.is_some()
                && !entry.was_online
                && !entry.proven
                && !entry.past.out_of_reach;
            if unproven && !in_hand {
                let began = entry.launch_began.unwrap_or(now);
                self.shared
                    .metrics
                    .launch_failed(&self.order.spec.name, "vanished");
                let text = chain(&ApplyError::Vanished).to_string();
                self.launch_failure(name, text, began, now);
            }
            self.tell_released(name);
            self.keep_record(name);
        }
    }

    /// Notices agents that came online and agents that ended.
    pub(super) fn note_progress(&mut self, now: Instant, wall: Timestamp) {
        let names: Vec<String> = self.ledger.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let doing = self.in_flight.doing(&name);
            let Some(entry) = self.ledger.get_mut(&name) else {
                continue;
            };
            if let Some(job) = &entry.past.job {
                let (queued, assigned) = (job.queue_time, job.assign_time);
                self.waits.note(job.request_id, queued, assigned, wall);
            }
            if entry.was_online {
                entry.past.online_at.get_or_insert_with(Timestamp::now);
            }
            if let Verdict::Worked(began) = entry.came_online() {
                self.breaker.try_succeeded(began);
                let took = now.duration_since(began);
                info!(agent = %name, elapsed = ?took, "agent is online");
                self.shared.metrics.came_online(&self.order.spec.name, took);
            }
            let state = plan::state_of(entry, doing, now);
            let ended = matches!(state, AgentState::Finishing | AgentState::Kept)
                || entry.instance.is_none();
            if entry.is_spare() {
                self.note_spare(&name, now);
            } else if ended && entry.had_instance && !entry.end_seen {
                entry.end_seen = true;
                entry.past.ended_at.get_or_insert_with(Timestamp::now);
                if self.vacancies.len() < VACANCIES_KEPT {
                    self.vacancies.push_back(now);
                }
            }
        }
    }
}
