//! How what was done to an agent ended, taken into its entry. Pure: whoever did it logs, counts
//! and brakes.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{Drain, Keep};

use super::super::apply::leave::Left;
use super::super::ending::Ending;
use super::super::plan::{ReapReason, Staying};
use super::Entry;

/// Between two looks at an agent that got a job while it was leaving.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// What an ending says of launches, the first time it says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or nothing new.
    Nothing,
    /// The launch that began then worked.
    Worked(Instant),
    /// Its agent failed with this exit status before it came online.
    Failed(i32),
}

impl Entry {
    /// Its launch, which began at `began`, ended well.
    pub fn launched(&mut self, azure_agent_id: i64, began: Instant, now: Instant) {
        self.settled = true;
        self.azure_agent_id = Some(azure_agent_id);
        self.registered_since = Some(now);
        self.launched_at = Some(now);
        self.launch_began = Some(began);
        // It may be the second launch of this instance: what the first came to is over.
        self.launch_failed = false;
        self.unfit = 0;
        self.doubted = false;
        self.dead_since = None;
        self.registration = None;
        self.lists_since_registered = 0;
        self.worked();
    }

    /// Its launch failed: before or after its instance was `created`, before or after it was
    /// registered under `azure_agent_id`, and by the instance's own fault or not.
    pub fn not_launched(
        &mut self,
        created: bool,
        azure_agent_id: Option<i64>,
        its_fault: bool,
        error: String,
        now: Instant,
    ) {
        self.settled |= created;
        if let Some(id) = azure_agent_id {
            self.azure_agent_id = Some(id);
            self.registered_since = Some(now);
            self.launch_failed = true;
        }
        if its_fault {
            self.unfit = self.unfit.saturating_add(1);
        }
        self.failed(error, now);
    }

    /// It came online, if that is news. Returns what follows from it.
    pub fn came_online(&mut self) -> Verdict {
        if !self.was_online || self.proven {
            return Verdict::Nothing;
        }
        self.proven = true;
        if std::mem::take(&mut self.launch_failed) {
            // Only the answer to its start was lost.
            self.worked();
        }
        self.launch_began.map_or(Verdict::Nothing, Verdict::Worked)
    }

    /// Its guest told how its agent ended. Returns what follows from it.
    pub fn told(&mut self, ending: Ending) -> Verdict {
        let exit_status = ending.exit_status;
        self.past.ending = Some(ending);
        match exit_status {
            Some(0) => {
                // One that was found running says nothing of launches, and each says it once.
                let began = self.launch_began.filter(|_| !self.proven);
                self.proven = true;
                began.map_or(Verdict::Nothing, Verdict::Worked)
            }
            Some(code) if !self.proven && !self.was_online => {
                self.proven = true; // Counted once.
                Verdict::Failed(code)
            }
            _ => Verdict::Nothing,
        }
    }

    /// It was asked to leave, and this is how far that got.
    pub fn left(&mut self, left: Left, now: Instant) {
        self.worked();
        match left {
            Left::Stopping => {
                self.left_at = Some(now);
                self.leaves += 1;
            }
            Left::Busy => self.retry_at = Some(now + BUSY_PAUSE),
        }
    }

    /// Its instance was removed.
    pub fn removed(&mut self, reason: ReapReason, note: String) {
        self.worked();
        self.remove_wish = None;
        self.proven = true; // Its end is accounted for.
        // How a kept one ended was known before.
        if self.past.kept_since.is_none() {
            self.past.reaped = Some(reason);
        }
        self.past.ending.get_or_insert_default().note = note;
    }

    /// Its instance could not be removed; because of Incus if `refused`.
    pub fn not_removed(&mut self, refused: bool) {
        self.removal_failures += u32::from(refused);
        // Whoever asked was told that it failed; it is not done behind their back later.
        self.remove_wish = None;
    }

    /// Its registration could not be deleted. A drain by force goes on; whoever asked for the removal
    /// was told that it failed, and it is not done behind their back later.
    pub fn not_deregistered(&mut self) {
        if self.wish != Drain::Force {
            self.remove_wish = None;
        }
    }

    /// It was not shown to be dead: it is left as it is for a while.
    pub fn not_proven(&mut self, why: &str, pause: Duration, now: Instant) {
        self.retry_at = Some(now + pause);
        self.last_error = format!("kept: {why}");
        self.doubted = true;
        self.remove_wish = None;
        // A doubt begins the observation again.
        self.dead_since = None;
    }

    /// Its instance stays now. Returns what follows from what its guest told, if that was asked.
    pub fn kept_as(&mut self, staying: Staying, ending: Option<Ending>) -> Verdict {
        match staying {
            Staying::InsteadOf(reason, _) => {
                self.proven = true; // Its end is accounted for.
                self.past.reaped.get_or_insert(reason);
                self.past.ending.get_or_insert_default().note = ending.unwrap_or_default().note;
                Verdict::Nothing
            }
            Staying::Answered { .. } | Staying::Noted => {
                self.answered = true;
                ending.map_or(Verdict::Nothing, |ending| self.told(ending))
            }
        }
    }

    /// Its instance could not be made to stay.
    pub fn not_kept(&mut self, staying: Staying) {
        let is_noted = self.instance.as_ref().is_some_and(|i| i.keep.is_some());
        // Decided anew, by what is true then. An operator's wish stands.
        if self.keep_wish.as_ref().is_some_and(Keep::is_policy) && !is_noted {
            self.keep_wish = None;
        }
        if let Staying::InsteadOf(_, proof) = staying
            && proof.disables()
        {
            // It gets no other job: it leaves after the one it may have.
            self.wish = self.wish.max(Drain::Finish);
        }
    }
}
