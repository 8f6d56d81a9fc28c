//! Spares: instances that are booted and registered nowhere. Which of them become agents, which
//! go, and whether one more is made. Agents come first: a spare is made when every slot is filled
//! or being filled, and one at a time. Pure, as all of the plan.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{Doing, Drain};

use super::super::breaker::Allowance;
use super::super::in_flight::InFlight;
use super::super::ledger::{Entry, Ledger};
use super::slots::Slots;
use super::{Action, Plan, Proof, ReapReason, Situation, is_to_be_replaced};

/// A spare that runs for so long has booted: guests that cannot are gone by then.
const PROVEN: Duration = Duration::from_secs(10);
/// What runs in an idle guest (timers, caches, leases) makes it less like a fresh one by the hour.
const OLDEST: Duration = Duration::from_secs(60 * 60);

/// Returns whether it runs long enough to say that spares can be made.
pub fn is_proven(entry: &Entry, now: Instant) -> bool {
    let since = entry.spare_since;
    entry.is_spare() && since.is_some_and(|since| now.duration_since(since) >= PROVEN)
}

/// Returns how many are wanted: none where no slot can become empty.
fn wanted(situation: &Situation<'_>) -> usize {
    let none = situation.paused || situation.removed || situation.wanted == 0;
    if none { 0 } else { situation.spares }
}

/// Returns why a spare goes that is as it is, if it does.
pub(super) fn unwanted(situation: &Situation<'_>, entry: &Entry) -> Option<ReapReason> {
    if wanted(situation) == 0 {
        Some(ReapReason::Surplus)
    } else if entry.drain() >= Drain::Finish {
        Some(ReapReason::Requested)
    } else if entry.launch_failed {
        Some(ReapReason::LaunchFailed)
    } else if is_to_be_replaced(situation, entry) {
        Some(ReapReason::Outdated)
    } else {
        None
    }
}

/// A spare that can become an agent.
struct Ready {
    name: String,
    image: String,
    since: Instant,
}

/// The spares of a pool, without those that go.
pub(super) struct Spares {
    wanted: usize,
    /// The oldest first.
    ready: Vec<Ready>,
    /// Those that may not be touched now: not known to be made yet, or waiting after a failure.
    resting: usize,
    /// Those that have not run for long.
    unproven: usize,
    making: usize,
    /// Those of them that wait for their turn.
    waiting: Vec<String>,
}

impl Spares {
    pub(super) fn count(
        situation: &Situation<'_>,
        ledger: &Ledger,
        in_flight: &InFlight,
        plan: &Plan,
    ) -> Self {
        let making = in_flight.spares();
        let waiting = making.iter().filter(|spare| spare.1);
        let mut spares = Self {
            wanted: wanted(situation),
            ready: Vec::new(),
            resting: 0,
            unproven: 0,
            making: making.len(),
            waiting: waiting.map(|spare| spare.0.to_owned()).collect(),
        };
        for (name, entry) in ledger.iter().filter(|(_, entry)| entry.is_spare()) {
            let Some(instance) = &entry.instance else {
                continue;
            };
            let is_in_hand = matches!(
                in_flight.doing(name),
                Some(Doing::Launch | Doing::Spare | Doing::Remove)
            );
            let is_planned = plan.actions.iter().any(|action| action.name() == name);
            if is_in_hand || is_planned || unwanted(situation, entry).is_some() {
                continue;
            }
            if !entry.settled {
                spares.resting += 1;
                continue;
            }
            if !instance.status.is_running() {
                continue; // Stopped, it goes; frozen, it is of no use until somebody thaws it.
            }
            spares.unproven += usize::from(!is_proven(entry, situation.now));
            let is_free = in_flight.doing(name).is_none() && entry.is_due(situation.now);
            if !is_free {
                spares.resting += 1;
                continue;
            }
            spares.ready.push(Ready {
                name: name.clone(),
                image: instance.image.clone(),
                since: entry.spare_since.unwrap_or(situation.now),
            });
        }
        spares
            .ready
            .sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        spares
    }

    /// Returns whether as many as are wanted have lasted.
    pub(super) fn are_proven(&self) -> bool {
        self.ready.len() + self.resting >= self.wanted + self.unproven
    }

    /// Makes agents of up to so many.
    pub(super) fn promote(&mut self, most: usize) -> Vec<Action> {
        let promoted = self.ready.drain(..most.min(self.ready.len()));
        promoted
            .map(|Ready { name, image, .. }| Action::Promote { name, image })
            .collect()
    }

    /// Brings the number of spares to what is wanted, and old ones up to date.
    pub(super) fn adjust(mut self, situation: &Situation<'_>, slots: &Slots, plan: &mut Plan) {
        let held = self.ready.len() + self.resting + self.making;
        let cancelled = match situation.launches {
            // They would only fail as well.
            Allowance::Nothing => self.waiting.len(),
            _ => held.saturating_sub(self.wanted).min(self.waiting.len()),
        };
        let cancel = |name| Action::CancelLaunch { name };
        plan.actions
            .extend(self.waiting.drain(..cancelled).map(cancel));
        let surplus = (held - cancelled).saturating_sub(self.wanted);
        let youngest = self.ready.len().saturating_sub(surplus);
        for spare in self.ready.drain(youngest..) {
            plan.actions.push(remove(spare, ReapReason::Surplus));
        }
        let promoted = plan.actions.iter();
        let promoted = promoted.filter(|action| matches!(action, Action::Promote { .. }));
        let begun = plan.launch + promoted.count();
        // Agents first: no spare is made that would only take the place of an agent.
        let is_filled = slots.held() + begun >= situation.wanted;
        if !is_filled || self.making > 0 || !situation.azure_usable || situation.image.is_none() {
            return;
        }
        if held < self.wanted {
            plan.spare = match situation.launches {
                Allowance::All => true,
                Allowance::One => {
                    let tried = slots.launching + slots.unproven + begun + self.unproven;
                    tried == 0
                }
                Allowance::Nothing => false,
            };
        } else if situation.launches == Allowance::All
            && let Some(oldest) = self.ready.into_iter().next()
            && situation.now.duration_since(oldest.since) >= OLDEST
        {
            plan.actions.push(remove(oldest, ReapReason::Aged));
        }
    }
}

fn remove(spare: Ready, reason: ReapReason) -> Action {
    Action::Remove {
        name: spare.name,
        azure_agent_id: None,
        reason,
        proof: Proof::None,
    }
}
