//! What operators want for a while: taken in at each pass, and awaited when it lapses.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::info;

use super::Reconciler;

/// Instants and the wall clock may drift apart: nothing by the latter is awaited for longer.
const LONGEST_WALL_WAIT: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Takes in what operators want for a while, as of `wall`.
    pub(super) fn take_intents(&mut self, wall: Timestamp) {
        let set = Arc::clone(&self.intents.borrow_and_update());
        let intent = set.effective(&self.order.spec.name, wall);
        self.intents_revision = set.revision;
        if intent == self.intent {
            return;
        }
        match (&self.intent.pause, &intent.pause) {
            (old, Some(pause)) if old.as_ref() != Some(pause) => info!(
                reason = pause.reason,
                user = pause.who.user,
                until = pause.until.map(|until| until.to_string()),
                "paused: no new agents, idle ones leave, busy ones finish"
            ),
            (Some(_), None) => info!("paused no more"),
            _ => {}
        }
        if self.intent.count != intent.count {
            let count = intent.count.as_ref().map(|count| count.count);
            let configured = self.order.spec.agent_count;
            info!(count, configured, "number of agents changed for a while");
        }
        self.intent = intent;
    }

    /// Returns the cluster members that an operator wants to be without agents.
    pub(super) fn drained_members(&self) -> Vec<String> {
        self.intents.borrow().members.keys().cloned().collect()
    }

    /// Returns how many agents to keep.
    pub(super) fn wanted(&self) -> u32 {
        if self.order.removed {
            0
        } else {
            self.intent.wanted(self.order.spec.agent_count)
        }
    }

    /// When a wish of an operator lapses, or a deadline passes.
    pub(super) fn operators_due_at(&self, now: Instant) -> Option<Instant> {
        let wall = Timestamp::now();
        let deadlines = self
            .ledger
            .iter()
            .filter(|(name, entry)| {
                entry.instance.is_some() && self.in_flight.doing(name).is_none()
            })
            .filter_map(|(_, entry)| {
                let keep = entry.instance.as_ref().and_then(|i| i.keep.as_ref());
                let keep = keep.filter(|keep| keep.has_ended());
                keep.map_or_else(|| entry.drain().deadline(), |keep| Some(keep.until))
            });
        let first = deadlines.chain(self.intent.next_lapse).min()?;
        let ahead = Duration::try_from(first.duration_since(wall)).unwrap_or_default();
        // Set back or forward, the wall clock is looked at again after a while.
        Some(now + ahead.min(LONGEST_WALL_WAIT))
    }
}
