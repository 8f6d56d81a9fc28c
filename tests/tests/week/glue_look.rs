//! What a look brings into a life of iapd, as `pool/reconciler/look.rs` takes it in.

use std::sync::Arc;

use tokio::time::Instant;

use iapd::agent::RegistrationFacts;
use iapd::pool::ledger::Verdict;
use iapd::pool::observe::{RegistrationList, own_instances};
use iapd::pool::status::PoolKey;

use super::glue::{Daemon, Look};
use super::glue_launch::{AZURE_POOL, AZURE_URL};
use super::model_azure::{OWNER, POOL, PROJECT};

impl Daemon {
    pub(super) fn take_look(&mut self, look: &Look) {
        match &look.listed {
            None => {}
            Some(Ok(instances)) => {
                let key = PoolKey {
                    name: POOL.into(),
                    project: PROJECT.into(),
                    azure_url: AZURE_URL.into(),
                    azure_pool: AZURE_POOL.into(),
                };
                self.seen.instances = Some(own_instances(instances, OWNER, &key));
                self.incus_failed = false;
                self.listed_at = Some(look.began);
            }
            Some(Err(_)) => {
                self.seen.instances = None;
                self.incus_failed = true;
                self.listed_at = Some(look.began);
            }
        }
        match &look.image {
            Some(Ok(image)) => {
                self.image = Some(image.clone());
                self.image_at = Some(self.world.borrow().now);
            }
            Some(Err(_)) => self.image_at = None,
            None => {}
        }
        self.take_azure();
    }

    pub(super) fn take_azure(&mut self) {
        self.seen.azure_gaps = self.poller.gaps;
        let Some((began, agents)) = &self.poller.list else {
            return;
        };
        if self
            .seen
            .registrations
            .as_ref()
            .is_some_and(|old| old.began == *began)
        {
            return;
        }
        let known = |name: &String| {
            let entry = self.ledger.get(name).and_then(|entry| entry.azure_agent_id);
            let instance = self.seen.instances.as_ref().and_then(|all| all.get(name));
            entry.or_else(|| instance?.azure_agent_id)
        };
        let concerns = |agent: &&iapd::azure::Agent| {
            let facts = RegistrationFacts::of(agent);
            facts.is_of(OWNER, POOL, PROJECT) || known(&agent.name) == Some(agent.id)
        };
        let agents = agents.iter().filter(concerns);
        let agents = agents.map(|agent| (agent.name.clone(), RegistrationFacts::of(agent)));
        self.seen.registrations = Some(Arc::new(RegistrationList {
            began: *began,
            agents: agents.collect(),
        }));
    }

    pub(super) fn settle_found(&mut self, look: &Look) {
        let Ok(running) = &look.operations else {
            return;
        };
        let found: Vec<String> = self
            .ledger
            .iter()
            .filter(|(name, entry)| {
                entry.instance.is_some() && !entry.settled && self.in_flight.doing(name).is_none()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in found {
            if !running.contains(&name)
                && let Some(entry) = self.ledger.get_mut(&name)
            {
                entry.settled = true;
            }
        }
    }

    pub(super) fn note_gone(&mut self, gone: &[String], now: Instant) {
        for name in gone {
            let in_hand = self.in_flight.doing(name).is_some();
            let Some(entry) = self.ledger.get(name) else {
                continue;
            };
            let unproven = entry.launched_at.is_some() && !entry.was_online && !entry.proven;
            if unproven && !in_hand {
                let began = entry.launch_began.unwrap_or(now);
                self.breaker.failed("vanished".into(), began, now, None);
            }
        }
    }

    pub(super) fn note_progress(&mut self) {
        let names: Vec<String> = self.ledger.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(entry) = self.ledger.get_mut(&name)
                && let Verdict::Worked(began) = entry.came_online()
            {
                self.breaker.try_succeeded(began);
            }
        }
    }
}
