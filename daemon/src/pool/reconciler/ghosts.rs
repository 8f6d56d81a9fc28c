//! Adopts the registrations of another owner: takes them up among those that it sweeps, watches
//! that their host stays dead, and tells how far it got.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::command::CommandError;
use super::super::ghosts::{
    self, Adoption, AdoptionEnd, AdoptionStatus, Ghost, Look, Refusal, Sight,
};
use super::super::ledger::Entry;
use super::Reconciler;
use super::requests::Reply;

/// The last adoption, and who waits to hear that it is told of.
pub(super) struct Adopting {
    adoption: Adoption,
    reply: Option<Reply>,
}

impl Adopting {
    pub(super) fn status(&self) -> &AdoptionStatus {
        self.adoption.status()
    }
}

impl Reconciler {
    pub(super) fn adopt(
        &mut self,
        owner: &str,
        ids: &[i64],
        token: u64,
        reply: Reply,
        now: Instant,
    ) {
        match self.admit_adoption(owner, ids, now) {
            Ok(found) => {
                let owner: Arc<str> = owner.into();
                for ghost in &found {
                    if let Some(since) = ghost.dead_since() {
                        self.ledger.adopt(&owner, ghost, since, now);
                    }
                }
                info!(owner = %owner, registrations = found.len(), "another owner's are to go");
                let targets = found.into_iter().map(|ghost| (ghost.facts.id, ghost.name));
                self.adoption = Some(Adopting {
                    adoption: Adoption::new(token, owner, targets),
                    reply: Some(reply),
                });
                // Judged by lists from now on.
                self.order.link.nudge();
            }
            Err(refusal) => drop(reply.send(Err(CommandError::NotAdopted(refusal)))),
        }
    }

    /// Judges anew what was shown to whoever asks: this task's own view is what counts.
    fn admit_adoption(
        &self,
        owner: &str,
        ids: &[i64],
        now: Instant,
    ) -> Result<Vec<Ghost>, Refusal> {
        let last = self.adoption.as_ref().map(|adopting| &adopting.adoption);
        if let Some(last) = last.filter(|last| last.is_under_way()) {
            return Err(Refusal::UnderWay(last.status().owner.to_string()));
        }
        let spec = &self.order.spec;
        let sight = Sight {
            azure_pool: &spec.azure.pool,
            seen: &self.ghosts,
            usable: self.azure.borrow().usable,
            interval: spec.azure.poll_interval,
            grace: spec.offline_grace,
            is_meant: true,
        };
        let judged = ghosts::judge(&[sight], owner, &self.shared.owner, now)?;
        let wanted = judged.into_iter().flatten();
        let found: Vec<Ghost> = wanted
            .filter(|ghost| ids.contains(&ghost.facts.id))
            .cloned()
            .collect();
        let is_here = |ghost: &&Ghost| {
            let entry = self.ledger.get(&ghost.name);
            entry.is_some_and(|entry| entry.adopted.is_none() || entry.is_gone())
        };
        match found.iter().find(is_here) {
            Some(ghost) => Err(Refusal::Named(ghost.name.clone())),
            None => Ok(found),
        }
    }

    /// Ends an adoption that is done, or whose owner lives.
    pub(super) fn watch_adoption(&mut self, now: Instant) {
        let Some(adopting) = &mut self.adoption else {
            return;
        };
        let owner = Arc::clone(&adopting.status().owner);
        let (ledger, in_flight) = (&self.ledger, &self.in_flight);
        let grace = self.order.spec.offline_grace.as_secs();
        let lives = self.ghosts.living(&owner);
        let has_ended = adopting.adoption.take_in(lives, |target| {
            let entry = ledger.get(&target.name).filter(|entry| !entry.is_gone());
            entry.map_or(Look::Gone, |entry| Look::There {
                in_flight: in_flight.doing(&target.name).is_some(),
                detail: waits_for(entry, grace, now),
            })
        });
        let status = adopting.status();
        let (gone, all) = (status.gone(), status.targets.len());
        match &status.end {
            Some(AdoptionEnd::Done) if has_ended => {
                info!(owner = %owner, gone, all, "another owner's registrations are gone");
            }
            Some(AdoptionEnd::Lives(agent)) if has_ended => {
                warn!(
                    owner = %owner, agent = %agent, gone, all,
                    "an agent of the owner whose registrations were to go is alive: they stay"
                );
            }
            _ => {}
        }
        if adopting.adoption.is_called_off() {
            self.ledger
                .forget_adopted(|name| in_flight.doing(name).is_some());
        }
    }

    /// Answers whoever asked, when the published status tells of it.
    pub(super) fn answer_adoption(&mut self) {
        let reply = self
            .adoption
            .as_mut()
            .and_then(|adopting| adopting.reply.take());
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }
}

/// Says why a registration that is to go is still there.
fn waits_for(entry: &Entry, grace: u64, now: Instant) -> String {
    if !entry.last_error.is_empty() {
        return entry.last_error.clone();
    }
    match entry.dead_since {
        Some(since) if now.duration_since(since).as_secs() >= grace => String::new(),
        Some(since) => {
            let left = grace - now.duration_since(since).as_secs();
            format!("offline and unassigned; judged in {left}s")
        }
        None => "Azure's lists were interrupted; it is judged anew".to_owned(),
    }
}
