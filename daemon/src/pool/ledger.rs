//! What a pool task remembers between passes: since when, by our own clock, things are as they
//! are. Everything here may be lost; a restart then waits a little longer before it removes
//! something, and never less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{Drain, InstanceFacts, Keep, RegistrationFacts};
use crate::incus;

use super::ending::Past;
use super::ghosts::Ghost;
use super::observe::Observation;

mod outcome;

pub use outcome::Verdict;

/// What is remembered of one agent.
#[derive(Debug, Clone)]
pub struct Entry {
    /// First seen, as an instance or as a registration.
    pub first_seen: Instant,
    /// Its instance was there once.
    pub had_instance: bool,
    /// The instance, while it is there.
    pub instance: Option<InstanceFacts>,
    /// The registration, as last seen.
    pub registration: Option<RegistrationFacts>,
    /// Its create operation is known to have ended: it may be touched.
    pub settled: bool,
    /// It was made to become an agent when it is needed; see [`Self::is_spare`].
    pub spare: bool,
    /// Since when it is known to run as a spare.
    pub spare_since: Option<Instant>,
    /// Azure's id, from the marker or from our own call.
    pub azure_agent_id: Option<i64>,
    /// Since when it is known to be registered.
    pub registered_since: Option<Instant>,
    /// Successful Azure lists that began after that.
    pub lists_since_registered: u32,
    /// Seen online at least once.
    pub was_online: bool,
    /// Seen with a job at least once.
    pub was_busy: bool,
    /// Since when each list said offline and unassigned, without a gap.
    pub dead_since: Option<Instant>,
    /// Since when its instance is stopped, frozen or in error.
    pub down_since: Option<Instant>,
    /// When its instance was first seen to show `Ready`.
    pub ready_since: Option<Instant>,
    /// How it ended was asked and told, as far as that goes.
    pub heard: bool,
    /// Its doorbell was answered.
    pub answered: bool,
    /// When its listener was last asked to end.
    pub left_at: Option<Instant>,
    /// How often it was.
    pub leaves: u32,
    /// Its launch failed after it was registered; or it is a spare, and nothing will come of it.
    pub launch_failed: bool,
    /// How often in a row its agent could not be started, and Azure was not why.
    pub unfit: u32,
    /// A removal was called off for want of proof: only the long patience counts.
    pub doubted: bool,
    /// When our own launch of it ended well.
    pub launched_at: Option<Instant>,
    /// When that launch began.
    pub launch_began: Option<Instant>,
    /// It came online, or its end is accounted for: nothing more follows from its start.
    pub proven: bool,
    /// Its end was noticed.
    pub end_seen: bool,
    /// Its end was told, with all that is known of it.
    pub end_told: bool,
    /// Its registration was deleted by us; lists that began before say nothing of it.
    pub deregistered_at: Option<Instant>,
    /// A drain wish that is not on the instance yet.
    pub wish: Drain,
    /// A wish that it stays for debugging that is not on the instance yet.
    pub keep_wish: Option<Keep>,
    /// An operator asked for its removal; `true` also with a job.
    pub remove_wish: Option<bool>,
    /// Nothing is tried on it before.
    pub retry_at: Option<Instant>,
    /// Failed tries in a row.
    pub failures: u32,
    /// Those of them in which Incus refused to remove the instance.
    pub removal_failures: u32,
    /// Why the last one failed.
    pub last_error: String,
    /// It was asked to leave while its instance was there.
    pub was_draining: bool,
    /// It was asked to because somebody else had disabled it in Azure.
    pub was_disabled_by_others: bool,
    /// Its member was lost, and its slot was given to another.
    pub was_replaced: bool,
    /// It is a registration of this owner that an operator has removed here. Never an agent of
    /// this pool.
    pub adopted: Option<Arc<str>>,
    /// For its record.
    pub past: Past,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            first_seen: now,
            had_instance: false,
            instance: None,
            registration: None,
            settled: false,
            spare: false,
            spare_since: None,
            azure_agent_id: None,
            registered_since: None,
            lists_since_registered: 0,
            was_online: false,
            was_busy: false,
            dead_since: None,
            down_since: None,
            ready_since: None,
            heard: false,
            answered: false,
            left_at: None,
            leaves: 0,
            launch_failed: false,
            unfit: 0,
            doubted: false,
            launched_at: None,
            launch_began: None,
            proven: false,
            end_seen: false,
            end_told: false,
            deregistered_at: None,
            wish: Drain::No,
            keep_wish: None,
            remove_wish: None,
            retry_at: None,
            failures: 0,
            removal_failures: 0,
            last_error: String::new(),
            was_draining: false,
            was_disabled_by_others: false,
            was_replaced: false,
            adopted: None,
            past: Past::default(),
        }
    }

    /// Returns whether it is no agent, but waits to become one. One whose registration exists is
    /// an agent, even if that is not noted on it.
    pub fn is_spare(&self) -> bool {
        self.spare && self.azure_agent_id.is_none()
    }

    /// Returns the wish to go, from the instance or not there yet.
    pub fn drain(&self) -> Drain {
        self.wish.max(
            self.instance
                .as_ref()
                .map_or(Drain::No, |instance| instance.drain),
        )
    }

    /// Returns whether Azure gives it no jobs although nobody here wants it to go.
    pub fn is_disabled_by_others(&self) -> bool {
        let is_disabled = |facts: &RegistrationFacts| !facts.enabled;
        self.registration.as_ref().is_some_and(is_disabled)
            && !self.drain().leaves()
            && self.keep().is_none()
    }

    /// Records that a removal was called off after the agent had been disabled in Azure: kept, it
    /// gets no other job, so it leaves after the one that it may have.
    pub fn disabled_for_nothing(&mut self) {
        self.wish = self.wish.max(Drain::Finish);
    }

    /// Returns the wish that it stays for debugging: the latest one, from the instance or not there
    /// yet.
    pub fn keep(&self) -> Option<&Keep> {
        let noted = self.instance.as_ref().and_then(|i| i.keep.as_ref());
        self.keep_wish.as_ref().or(noted)
    }

    /// Returns whether its agent has ended and its instance stays for debugging.
    pub fn is_kept(&self) -> bool {
        self.instance.as_ref().is_some_and(InstanceFacts::is_kept)
    }

    /// Records that an action on it failed: the next try waits, doubling to a minute.
    pub fn failed(&mut self, error: String, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(Duration::from_secs(60));
        self.retry_at = Some(now + wait);
        self.last_error = error;
    }

    /// Records that an action on it worked.
    pub fn worked(&mut self) {
        self.failures = 0;
        self.removal_failures = 0;
        self.retry_at = None;
        self.last_error.clear();
    }

    /// Records that its registration was deleted at `now`.
    pub fn deregistered(&mut self, now: Instant) {
        self.deregistered_at = Some(now);
        self.registration = None;
    }

    /// Returns whether nothing is left of it but the memory that keeps old lists from reviving it.
    pub fn is_gone(&self) -> bool {
        self.instance.is_none() && self.deregistered_at.is_some()
    }

    /// Returns whether nothing is left of it, and nobody was told: somebody else deleted its
    /// registration, or the answer to our own deletion was lost.
    pub fn is_untold(&self) -> bool {
        let was_more_than_a_wish = self.had_instance || self.azure_agent_id.is_some();
        // The end of a spare is nobody's business, and that of another owner's agent not ours.
        let is_ours = !self.is_spare() && self.adopted.is_none();
        self.is_gone() && was_more_than_a_wish && !self.end_told && is_ours
    }

    /// Returns whether an action may be tried at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }
}

/// All agents of a pool by name.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: BTreeMap<String, Entry>,
    /// Counts interruptions of the Azure lists; see [`Observation::azure_gaps`].
    azure_gaps: u64,
    /// The last Azure list that was taken in.
    azure_list: Option<Instant>,
}

impl Ledger {
    /// Returns all agents, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Entry)> {
        self.entries.iter_mut()
    }

    /// Returns all agents, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// Returns one agent.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Returns one agent to write to.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    /// Returns one agent, made if it is not there.
    pub fn entry(&mut self, name: &str, now: Instant) -> &mut Entry {
        self.entries
            .entry(name.to_owned())
            .or_insert_with(|| Entry::new(now))
    }

    /// Takes up a registration of another owner that an operator has removed here: seen dead since
    /// `since`, it is judged by lists that begin from now on.
    pub fn adopt(&mut self, owner: &Arc<str>, ghost: &Ghost, since: Instant, now: Instant) {
        let entry = self.entry(&ghost.name, now);
        entry.adopted = Some(Arc::clone(owner));
        entry.azure_agent_id = Some(ghost.facts.id);
        entry.registered_since = Some(now);
        entry.registration = Some(ghost.facts.clone());
        entry.dead_since = Some(since);
    }

    /// Forgets the registrations of other owners, those left out that something is being done to.
    pub fn forget_adopted(&mut self, in_flight: impl Fn(&str) -> bool) {
        self.entries
            .retain(|name, entry| entry.adopted.is_none() || entry.is_gone() || in_flight(name));
    }

    /// Takes an observation in. `busy_with` says whether an action is in flight for a name: its
    /// entry is kept even when nothing is seen of it yet. Returns the instances that went away.
    pub fn take_in(
        &mut self,
        seen: &Observation,
        now: Instant,
        in_flight: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut gone = Vec::new();
        if let Some(instances) = &seen.instances {
            for (name, entry) in &mut self.entries {
                if let Some(facts) = instances.get(name) {
                    entry.see_instance(facts, now);
                } else if entry.instance.take().is_some() {
                    gone.push(name.clone());
                }
            }
            for (name, facts) in instances {
                if !self.entries.contains_key(name) {
                    self.entry(name, now).see_instance(facts, now);
                }
            }
        }
        self.take_in_azure(seen, now);
        self.entries.retain(|name, entry| {
            in_flight(name)
                // Its end is yet to be told. They are in order.
                || gone.binary_search(name).is_ok()
                || entry.is_untold()
                || entry.instance.is_some()
                || entry.registration.is_some()
                || match entry.deregistered_at {
                    None => entry.azure_agent_id.is_some(),
                    // Until a list cannot show it any more.
                    Some(at) => self.azure_list.is_none_or(|began| began <= at),
                }
        });
        gone
    }

    fn take_in_azure(&mut self, seen: &Observation, now: Instant) {
        if self.azure_gaps != seen.azure_gaps {
            self.azure_gaps = seen.azure_gaps;
            for entry in self.entries.values_mut() {
                entry.dead_since = None;
            }
        }
        let Some(list) = &seen.registrations else {
            return;
        };
        if self.azure_list == Some(list.began) {
            return;
        }
        self.azure_list = Some(list.began);
        for (name, entry) in &mut self.entries {
            let Some(facts) = list.agents.get(name) else {
                entry.miss_registration(list.began, now);
                continue;
            };
            if entry.deregistered_at.is_none_or(|at| list.began > at) {
                // Deleted, and there all the same: it will be deleted again.
                entry.deregistered_at = None;
                entry.see_registration(facts, list.began, now);
            }
        }
        for (name, facts) in &list.agents {
            if !self.entries.contains_key(name) {
                let entry = self.entry(name, now);
                entry.see_registration(facts, list.began, now);
            }
        }
    }
}

impl Entry {
    fn see_instance(&mut self, facts: &InstanceFacts, now: Instant) {
        self.had_instance = true;
        self.spare = facts.spare;
        if facts.spare && facts.status.is_running() {
            self.spare_since.get_or_insert(now);
        }
        if let Some(id) = facts.azure_agent_id {
            self.azure_agent_id = Some(id);
            self.registered_since.get_or_insert(now);
        }
        // One ring stands: a machine that powers off is shown as running, and not as ready, in the
        // moment before it is gone.
        if facts.status == incus::Status::Ready {
            self.ready_since.get_or_insert(now);
        }
        since(&mut self.down_since, !facts.status.is_running(), now);
        if facts.drain >= self.wish {
            self.wish = Drain::No;
        }
        if let (Some(noted), Some(wish)) = (&facts.keep, &self.keep_wish)
            && noted.is_like(wish)
        {
            self.keep_wish = None;
        }
        if let Some(keep) = facts.keep.as_ref().filter(|keep| keep.has_ended()) {
            self.past.see_kept(keep);
            // Nothing of it says any more whether launches work.
            self.proven = true;
        }
        self.was_draining |= facts.drain != Drain::No;
        self.past.created_at = facts.created_at.or(self.past.created_at);
        self.past.image.clone_from(&facts.image);
        keep_up(&mut self.instance, facts);
    }

    fn see_registration(&mut self, facts: &RegistrationFacts, began: Instant, now: Instant) {
        self.was_online |= facts.online;
        self.was_busy |= facts.job.is_some();
        self.azure_agent_id.get_or_insert(facts.id);
        let registered = *self.registered_since.get_or_insert(now);
        if facts.online {
            // Whatever kept it from being removed, it is alive.
            self.removal_failures = 0;
        }
        if began >= registered {
            // Registered anew, and the answer was lost: names are unique, so this is the one.
            self.azure_agent_id = Some(facts.id);
            self.lists_since_registered = self.lists_since_registered.saturating_add(1);
        }
        since(&mut self.dead_since, facts.is_dead(), now);
        if let Some(job) = &facts.job {
            self.past.see_job(job);
        }
        keep_up(&mut self.registration, facts);
    }

    /// Not in the list: dead too, if the list was fetched after it was registered.
    fn miss_registration(&mut self, began: Instant, now: Instant) {
        if self.registered_since.is_some_and(|since| began >= since) {
            self.lists_since_registered = self.lists_since_registered.saturating_add(1);
            self.registration = None;
            since(&mut self.dead_since, true, now);
            if self.instance.is_none() || self.is_kept() {
                // Deleted by someone else, or by us: nothing is left to delete.
                self.deregistered_at.get_or_insert(began);
            }
        }
    }
}

/// Most of what is seen was seen before, and comparing is cheaper than copying.
fn keep_up<T: Clone + PartialEq>(known: &mut Option<T>, seen: &T) {
    if known.as_ref() != Some(seen) {
        *known = Some(seen.clone());
    }
}

/// Keeps the first moment of a condition that holds without interruption.
fn since(slot: &mut Option<Instant>, holds: bool, now: Instant) {
    if holds {
        slot.get_or_insert(now);
    } else {
        *slot = None;
    }
}

#[cfg(test)]
mod tests;
