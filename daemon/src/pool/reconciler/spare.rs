//! What became of spares: made, lasting, gone. One that cannot be made, or does not last, brakes
//! launches as a failed launch does: agents are made in the same way.

use tokio::time::Instant;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::agent::Doing;

use super::super::apply::ApplyError;
use super::super::apply::launch::LaunchFailed;
use super::super::plan::{self, ReapReason};
use super::Reconciler;

impl Reconciler {
    pub(super) fn spare_ended(
        &mut self,
        name: &str,
        result: Result<(), LaunchFailed>,
        began: Instant,
        now: Instant,
    ) {
        let entry = self.ledger.entry(name, now);
        match result {
            Ok(()) => {
                entry.settled = true;
                entry.launch_began = Some(began);
                entry.worked();
            }
            Err(LaunchFailed {
                error: ApplyError::Cancelled,
                ..
            }) => {}
            Err(failed) => {
                entry.settled |= failed.created;
                entry.launch_failed = failed.created;
                entry.failed(chain(&failed.error).to_string(), now);
                self.failed += 1;
                // An image that vanished under the alias is found out by looking again.
                self.image_at = None;
                self.spare_failure(name, &failed.error, began, now);
            }
        }
    }

    /// Notices a spare that has lasted: instances can be made.
    pub(super) fn note_spare(&mut self, name: &str, now: Instant) {
        if self.in_flight.doing(name) == Some(Doing::Launch) {
            return; // What follows is about its agent.
        }
        let Some(entry) = self.ledger.get_mut(name) else {
            return;
        };
        if entry.instance.is_none() || entry.proven || !plan::is_proven_spare(entry, now) {
            return;
        }
        entry.proven = true;
        if let Some(began) = entry.launch_began {
            self.breaker.try_succeeded(began);
        }
    }

    /// Takes in that a spare was removed.
    pub(super) fn spare_removed(&mut self, name: &str, reason: ReapReason, now: Instant) {
        info!(spare = %name, reason = reason.as_str(), "spare removed");
        if reason == ReapReason::Stopped {
            self.spare_gone(name, false, now);
        }
        let entry = self.ledger.entry(name, now);
        entry.worked();
        entry.remove_wish = None;
        entry.proven = true; // Its end is accounted for.
    }

    /// Takes in that a spare is not there any more, or has stopped. Somebody may have removed one
    /// that had lasted.
    pub(super) fn spare_gone(&mut self, name: &str, in_hand: bool, now: Instant) {
        let Some(entry) = self.ledger.get_mut(name) else {
            return;
        };
        let has_lasted = entry.proven || plan::is_proven_spare(entry, now);
        let began = entry.launch_began.unwrap_or(now);
        entry.proven = true;
        if in_hand {
            return; // Its action tells what became of it.
        }
        info!(spare = %name, has_lasted, "spare is gone");
        if !has_lasted {
            self.spare_failure(name, &ApplyError::Vanished, began, now);
        }
    }

    fn spare_failure(&mut self, name: &str, error: &ApplyError, began: Instant, now: Instant) {
        let pool = &self.order.spec.name;
        self.shared.metrics.launch_failed(pool, error.kind());
        let text = format!("a spare cannot be made: {}", chain(error));
        if self.breaker.status(now).last_error == text {
            debug!(spare = %name, error = %text, "spare failed to start");
        } else {
            warn!(spare = %name, error = %text, "spare failed to start, will retry");
        }
        self.breaker.failed(text, began, now, None);
    }
}
