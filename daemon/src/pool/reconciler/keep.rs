//! Keeping for debugging: operators' wishes for it, and what came of making an instance stay.

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::info;

use crate::agent::{AgentState, Drain, Keep};

use super::super::apply::ApplyError;
use super::super::apply::keep::Heard;
use super::super::command::CommandError;
use super::super::ending::Ending;
use super::super::events::EventKind;
use super::super::plan::{self, ReapReason, Staying};
use super::Reconciler;

impl Reconciler {
    /// Takes in the wish that an agent is kept, or is kept longer or less long.
    pub(super) fn admit_keep(&mut self, name: &str, mut keep: Keep) -> Result<(), CommandError> {
        self.check_known(&[name.to_owned()])?;
        let state = self.state(name);
        let Some(entry) = self.ledger.get_mut(name) else {
            return Ok(());
        };
        match state {
            AgentState::Starting
            | AgentState::Idle
            | AgentState::Busy
            | AgentState::Unknown
            | AgentState::Kept => {}
            _ => return Err(CommandError::CannotKeep(name.to_owned(), state.as_str())),
        }
        if state != AgentState::Kept && entry.drain() == Drain::Force {
            return Err(CommandError::CannotKeep(name.to_owned(), "leaving at once"));
        }
        if let Some(old) = entry.keep()
            && keep.reason.is_empty()
        {
            keep.reason.clone_from(&old.reason);
        }
        entry.keep_wish = Some(keep);
        entry.retry_at = None;
        Ok(())
    }

    /// Ends the time of a kept agent, or takes the wish back. Returns whether it is kept by now:
    /// then it goes.
    pub(super) fn admit_release(&mut self, name: &str) -> Result<bool, CommandError> {
        self.check_known(&[name.to_owned()])?;
        let not_kept = || CommandError::NotKept(name.to_owned());
        let entry = self.ledger.get_mut(name).ok_or_else(not_kept)?;
        let keep = entry.keep().ok_or_else(not_kept)?;
        let until = Keep::end_after(Timestamp::now(), std::time::Duration::ZERO);
        entry.keep_wish = Some(Keep {
            until: until.min(keep.until),
            ..keep.clone()
        });
        entry.retry_at = None;
        Ok(entry.is_kept())
    }

    fn state(&self, name: &str) -> AgentState {
        let doing = self.in_flight.doing(name);
        match self.ledger.get(name) {
            Some(entry) => plan::state_of(entry, doing, Instant::now()),
            None => AgentState::Deregistering,
        }
    }

    /// An instance is about to be made to stay: it counts from now on.
    pub(super) fn begin_keep(&mut self, name: &str, keep: &Keep) {
        if let Some(entry) = self.ledger.get_mut(name)
            && entry.keep().is_none()
        {
            entry.keep_wish = Some(keep.clone());
        }
    }

    pub(super) fn heard_ended(&mut self, name: &str, heard: Heard, began: Instant, now: Instant) {
        let entry = self.ledger.entry(name, now);
        entry.heard = true;
        if let Some(job) = heard.job {
            entry.past.job = Some(job);
        }
        match heard.ending {
            Some(ending) => self.take_ending(name, ending, began, now),
            // Its job rang: when it does end, it goes without an answer.
            None => entry.answered = true,
        }
    }

    pub(super) fn keep_ended(
        &mut self,
        name: &str,
        keep: &Keep,
        staying: Staying,
        result: Result<Option<Ending>, ApplyError>,
        began: Instant,
        now: Instant,
    ) {
        let ending = match result {
            Ok(ending) => ending,
            Err(error) => {
                self.keep_failed(name, staying, &error, now);
                return;
            }
        };
        let entry = self.ledger.entry(name, now);
        entry.worked();
        if !keep.has_ended() || matches!(staying, Staying::Noted) {
            return;
        }
        entry.past.ended_at.get_or_insert_with(Timestamp::now);
        let until = keep.until.to_string();
        let (reason, by) = (&keep.reason, &keep.by);
        info!(agent = %name, reason, by, until, "kept for debugging");
        let verdict = self.ledger.entry(name, now).kept_as(staying, ending);
        self.judge_launches(name, verdict, began, now);
        if matches!(staying, Staying::InsteadOf(ReapReason::NeverOnline, _)) {
            self.never_came_online(name, began, now);
        }
    }

    fn keep_failed(&mut self, name: &str, staying: Staying, error: &ApplyError, now: Instant) {
        self.ledger.entry(name, now).not_kept(staying);
        match error {
            ApplyError::NotProven(why) => self.not_proven(name, why, now),
            _ => self.action_failed(name, "keep", error, now),
        }
    }

    /// Says that one goes which would be kept if the pool did not keep others.
    pub(super) fn no_room(&mut self, name: &str, now: Instant) {
        let max = self.order.spec.keep.as_ref().map_or(0, |keep| keep.max);
        let text = format!("not kept for debugging: {max} are kept already");
        let entry = self.ledger.entry(name, now);
        let note = &mut entry.past.ending.get_or_insert_default().note;
        if !note.is_empty() {
            note.push_str("; ");
        }
        note.push_str(&text);
        info!(agent = %name, max, "not kept for debugging: the pool keeps its most already");
    }

    /// Tells that an agent is gone that was kept, if it was.
    pub(super) fn tell_released(&self, name: &str) {
        let since = self.ledger.get(name).and_then(|e| e.past.kept_since);
        let Some(since) = since else { return };
        let message = format!("kept since {since:.0}");
        let kind = EventKind::AgentReleased.as_str();
        self.shared
            .store
            .event(kind, &self.order.spec.name, name, &message);
    }
}
