//! Looks: what Incus has, what the image alias points at, what Azure listed last.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::agent::{Drain, InstanceFacts, RegistrationFacts};
use crate::incus;

use super::super::apply::launch::AGENT_VERSION_PROPERTY;
use super::super::ledger::Entry;
use super::super::observe::{self, RegistrationList};
use super::super::status::{ImageStatus, PoolKey};
use super::{Reconciler, Trigger};

/// The alias and the project are looked up again when they were not for this long: an event may be
/// lost.
const IMAGE_INTERVAL: Duration = Duration::from_secs(60);

impl Reconciler {
    pub(super) async fn observe(&mut self, trigger: Trigger) {
        let project = self.shared.incus.project(&self.order.spec.instance.project);
        let now = Instant::now();
        // A new Azure list changes nothing in Incus: the last look is good enough.
        let fresh = self.listed_at.is_some_and(|at| {
            self.incus_error.is_none()
                && now.duration_since(at) < self.order.spec.reconcile_interval
        });
        if trigger != Trigger::Azure || self.is_stale || !fresh {
            self.list_instances(&project).await;
        }
        if self
            .image_at
            .is_none_or(|at| now.duration_since(at) >= IMAGE_INTERVAL)
        {
            self.look_at_image(&project).await;
            self.look_at_project(&project).await;
            self.look_for_storage_pool(&project).await;
        }
        self.take_azure_view();
        self.recognise_unreachable();
    }

    async fn list_instances(&mut self, project: &incus::Project) {
        let began = Instant::now();
        let listed = match project.instances().await {
            // Incus deletes no project that has instances: of a pool that left with its project,
            // none is left.
            Err(error) if self.order.removed && error.is_not_found() => Ok(Vec::new()),
            listed => listed,
        };
        match listed {
            Ok(instances) => {
                let name = &self.order.spec.name;
                if self.incus_error.take().is_some() {
                    info!("Incus answers again");
                }
                self.foreign = observe::foreign_instances(&instances, name);
                let key = PoolKey::of(&self.order.spec);
                let own = observe::own_instances(&instances, &self.shared.owner, &key);
                self.seen.instances = Some(own);
                self.bare = instances;
                self.bare.retain(observe::is_unreachable);
                self.instances_known = true;
                self.is_stale = false;
            }
            Err(error) => {
                let text = chain(&error).to_string();
                if self.incus_error.as_ref() != Some(&text) {
                    warn!(error = %text, "cannot list instances, will retry");
                }
                self.incus_error = Some(text);
                self.seen.instances = None;
            }
        }
        self.listed_at = Some(began);
    }

    /// Takes in those of which Incus tells next to nothing. Not before Azure's list was taken in:
    /// after a restart nobody else knows whose they are, and one that is left out is replaced.
    fn recognise_unreachable(&mut self) {
        let known = |name: &str| self.known_instance(name);
        let found = observe::unreachable_instances(&self.bare, known);
        if let Some(instances) = &mut self.seen.instances {
            instances.extend(found);
        }
    }

    /// Returns what is known of an instance without asking Incus: what it was at the last look, or,
    /// after a restart, what Azure says of an agent of that name that has our tags.
    fn known_instance(&self, name: &str) -> Option<InstanceFacts> {
        let before = self.ledger.get(name).and_then(|e| e.instance.clone());
        if before.is_some() {
            return before;
        }
        let view = self.azure.borrow();
        let facts = RegistrationFacts::of(view.list.as_ref()?.agents.get(name)?);
        let spec = &self.order.spec;
        facts
            .is_of(&self.shared.owner, &spec.name, &spec.instance.project)
            .then(|| InstanceFacts {
                name: name.to_owned(),
                status: incus::Status::Error,
                status_text: String::new(),
                // Whether it is outdated is for its own keys to say.
                spec: self.spec_hash.clone(),
                spare: false,
                azure_agent_id: Some(facts.id),
                drain: Drain::No,
                keep: None,
                image: String::new(),
                created_at: None,
                location: String::new(),
            })
    }

    async fn look_at_image(&mut self, project: &incus::Project) {
        self.image_at = Some(Instant::now());
        let alias = &self.order.spec.instance.image;
        let found = async {
            match project.alias(alias).await? {
                Some(fingerprint) => project.image(&fingerprint).await,
                None => Ok(None),
            }
        };
        match found.await {
            Ok(Some(image)) => {
                if image.fingerprint != self.image.fingerprint {
                    info!(alias, image = %image.fingerprint, "new agents are made from this image");
                }
                let version = image.properties.get(AGENT_VERSION_PROPERTY);
                self.image = ImageStatus {
                    agent_version: version.cloned().unwrap_or_default(),
                    created_at: image.created_at,
                    fingerprint: image.fingerprint,
                };
                self.image_error = None;
            }
            Ok(None) => {
                self.image = ImageStatus::default();
                self.image_error = None;
            }
            Err(error) => {
                // Not known is not missing: the last answer stands.
                self.image_error = Some(chain(&error).to_string());
                self.image_at = None;
            }
        }
    }

    /// Once a minute and not for each launch: for the answer, Incus goes through all that the
    /// project has.
    async fn look_at_project(&mut self, project: &incus::Project) {
        match project.restrictions().await {
            Ok(restrictions) => self.restrictions = Some(restrictions),
            Err(error) => debug!(error = %chain(&error), "cannot read the project"),
        }
    }

    /// Reduces the last Azure list to what concerns this pool.
    fn take_azure_view(&mut self) {
        let view = Arc::clone(&self.azure.borrow_and_update());
        self.seen.azure_gaps = view.gaps;
        self.ghosts.interrupted(view.gaps);
        let Some(list) = &view.list else { return };
        if self
            .seen
            .registrations
            .as_ref()
            .is_some_and(|old| old.began == list.began)
        {
            return;
        }
        let all = list.agents.iter();
        let all: Vec<_> = all
            .map(|(name, agent)| (name.clone(), RegistrationFacts::of(agent)))
            .collect();
        let agents = all
            .iter()
            .filter(|(name, facts)| self.concerns_us(name, facts))
            .cloned()
            .collect();
        self.ghosts.take_in(all, list.began, Instant::now());
        let list = RegistrationList {
            began: list.began,
            agents,
        };
        self.seen.registrations = Some(Arc::new(list));
    }

    fn concerns_us(&self, name: &str, facts: &RegistrationFacts) -> bool {
        let spec = &self.order.spec;
        let tagged = facts.is_of(&self.shared.owner, &spec.name, &spec.instance.project);
        // Tags are lost when the agent's own report replaces them; its id is not.
        let known = self
            .ledger
            .get(name)
            .and_then(|entry| entry.azure_agent_id)
            .or_else(|| {
                let instances = self.seen.instances.as_ref()?;
                instances.get(name)?.azure_agent_id
            });
        tagged || known == Some(facts.id)
    }

    /// Finds out whether instances that an earlier life of the daemon created may be touched:
    /// not while an operation of theirs runs.
    pub(super) async fn settle_found(&mut self) {
        let found = |(name, entry): &(&String, &Entry)| {
            entry.instance.is_some() && !entry.settled && self.in_flight.doing(name).is_none()
        };
        let names: Vec<String> = self
            .ledger
            .iter()
            .filter(found)
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        match self.shared.incus.operations().await {
            Ok(operations) => {
                for name in names {
                    let running = operations.iter().any(|o| o.is_running_on(&name));
                    if let (false, Some(entry)) = (running, self.ledger.get_mut(&name)) {
                        if entry.is_spare() {
                            info!(spare = %name, "found a spare of an earlier run");
                        } else {
                            info!(agent = %name, "found an agent of an earlier run");
                        }
                        entry.settled = true;
                    }
                }
            }
            Err(error) => debug!(error = %chain(&error), "cannot list operations"),
        }
    }
}
