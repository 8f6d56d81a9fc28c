//! Makes a pool's status: what is there, and in words why it is not what is wanted.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::agent::{AgentState, Doing, Drain};

use super::super::azure_link::{AzureView, CredentialState};
use super::super::ledger::Entry;
use super::super::plan;
use super::super::spec::InstanceKind;
use super::super::status::{AgentStatus, AzureStatus, ImageStatus, PassReport, PoolStatus};
use super::super::why;
use super::Reconciler;

/// What people are told of an agent that somebody disabled on Azure's pages.
const DISABLED: &str = "disabled in Azure, not by iapd";

/// Returns whether it gets no jobs because of somebody else, while that still says anything.
fn is_disabled_by_others(entry: &Entry, state: AgentState) -> bool {
    use AgentState::{Busy, Idle, Starting};
    matches!(state, Busy | Idle | Starting)
        && (entry.was_disabled_by_others || entry.is_disabled_by_others())
}

/// Returns what is known of Azure. After a reload that changed the way there it is what was known
/// before, until the new way was tried.
fn azure_status(view: &AzureView, before: &AzureStatus) -> AzureStatus {
    if view.list.is_none() && view.breaker.failures == 0 {
        return AzureStatus {
            unanswered_since: view.unanswered_since,
            ..before.clone()
        };
    }
    AzureStatus {
        pool_id: view.pool_id,
        usable: view.usable,
        credential: view.credential,
        clock: view.clock,
        breaker: view.breaker.clone(),
        listed_at: view.list.as_ref().map(|list| list.at),
        unanswered_since: view.unanswered_since,
        waiting_jobs: view
            .list
            .as_ref()
            .and_then(|list| u32::try_from(list.waiting_jobs.as_ref()?.len()).ok()),
        ..before.clone()
    }
}

impl Reconciler {
    pub(super) fn status(&self, report: PassReport, now: Instant) -> PoolStatus {
        let agents: Vec<AgentStatus> = self
            .ledger
            .iter()
            .filter(|(name, entry)| !entry.is_gone() || self.in_flight.doing(name).is_some())
            // Those of another owner are no agents of this pool.
            .filter(|(_, entry)| entry.adopted.is_none())
            .map(|(name, entry)| self.agent_status(name, entry, now))
            .collect();
        let view = self.azure.borrow();
        let list = view.list.as_ref();
        let waiting = list.and_then(|list| list.waiting_jobs.as_deref());
        let waiting = waiting.unwrap_or_default();
        let azure = AzureStatus {
            job_waits: self.waits.summary(waiting, report.ended_at),
            ..azure_status(&view, &self.publish.borrow().azure)
        };
        let launches = self.breaker.status(now);
        let states: Vec<AgentState> = agents.iter().map(|agent| agent.state).collect();
        let wait_reasons = view.list.as_ref().map_or_else(Vec::new, |list| {
            let all = list.agents.values();
            let capabilities: Vec<_> = all.map(|agent| &agent.capabilities).collect();
            let shortage = self.room.shortage().map(|shortage| shortage.limit);
            let limit = shortage.or(launches.limit());
            why::wait_reasons(waiting, &capabilities, &states, limit)
        });
        drop(view);
        let members = self.member_statuses(&agents);
        let mut status = PoolStatus {
            members,
            spec: Arc::clone(&self.order.spec),
            spec_hash: self.spec_hash.clone(),
            removed: self.order.removed,
            wanted: self.wanted(),
            is_paused: self.intent.pause.is_some(),
            intents_revision: self.intents_revision,
            agents,
            foreign: self.foreign.clone(),
            looks_cloned: plan::looks_cloned(&self.ledger),
            problems: Vec::new(),
            instances_known: self.instances_known,
            wait_reasons,
            incus_reachable: self.incus_error.is_none(),
            was_seen: self.instances_known && self.seen.registrations.is_some(),
            image: self.image.clone(),
            no_room: self.room.shortage().map(|shortage| shortage.words.clone()),
            launches,
            azure,
            ghosts: self.ghosts.clone(),
            adoption: self
                .adoption
                .as_ref()
                .map(|adoption| adoption.status().clone()),
            last_pass: Some(report),
        };
        status.problems = self.problems(&status);
        status
    }

    fn agent_status(&self, name: &str, entry: &Entry, now: Instant) -> AgentStatus {
        let doing = self.in_flight.doing(name);
        let state = plan::state_of(entry, doing, now);
        let instance = entry.instance.as_ref();
        let registration = entry.registration.as_ref();
        let image = Some(self.image.fingerprint.as_str()).filter(|image| !image.is_empty());
        let is_kept = state == AgentState::Kept;
        let registration_is_left = !is_kept || entry.deregistered_at.is_none();
        AgentStatus {
            name: name.to_owned(),
            state,
            detail: self.detail(name, entry, state, doing, now),
            draining: entry.drain().leaves() && !is_kept,
            leave_by: entry.drain().deadline().filter(|_| !is_kept),
            keep: entry.keep().cloned(),
            created_at: instance.and_then(|instance| instance.created_at),
            azure_agent_id: entry.azure_agent_id.filter(|_| registration_is_left),
            job: registration
                .and_then(|facts| facts.job.clone())
                .or_else(|| entry.past.job.clone().filter(|_| is_kept)),
            image: instance
                .map(|instance| instance.image.clone())
                .unwrap_or_default(),
            outdated: !is_kept && plan::is_outdated(entry, &self.spec_hash, image),
            instance_status: instance.map(|i| i.status_text.clone()).unwrap_or_default(),
            online: registration.map(|facts| facts.online),
            enabled: registration.is_some_and(|facts| facts.enabled),
            disabled_by_others: is_disabled_by_others(entry, state),
            location: instance
                .map(|instance| instance.location.clone())
                .unwrap_or_default(),
        }
    }

    fn detail(
        &self,
        name: &str,
        entry: &Entry,
        state: AgentState,
        doing: Option<Doing>,
        now: Instant,
    ) -> String {
        if !entry.last_error.is_empty() {
            return entry.last_error.clone();
        }
        match state {
            AgentState::Creating | AgentState::Spare if self.in_flight.waits(name) => {
                "waits for its turn".into()
            }
            AgentState::Spare => spare(entry, doing).into(),
            AgentState::Registering if doing.is_none() && !entry.settled => {
                "its creation may not have ended".into()
            }
            AgentState::Registering if doing.is_none() => "waits for Azure".into(),
            AgentState::Unknown => match entry.dead_since {
                Some(since) => {
                    let left = self
                        .order
                        .spec
                        .offline_grace
                        .saturating_sub(now.duration_since(since))
                        .as_secs();
                    format!("offline and unassigned; judged in {left}s")
                }
                None => "not known to be dead".into(),
            },
            AgentState::Kept => kept(entry),
            _ if entry.drain() == Drain::Force => "leaves at once".into(),
            AgentState::Busy if is_disabled_by_others(entry, state) => {
                format!("{DISABLED}: is replaced when its job ends")
            }
            _ if is_disabled_by_others(entry, state) => format!("{DISABLED}: is leaving"),
            AgentState::Busy
                if entry
                    .keep()
                    .is_some_and(|keep| !keep.is_over(Timestamp::now())) =>
            {
                "is kept when its job ends".into()
            }
            AgentState::Busy if entry.drain().leaves() => "leaves when its job ends".into(),
            AgentState::Idle | AgentState::Starting if entry.drain().leaves() => {
                "is leaving".into()
            }
            AgentState::Idle | AgentState::Starting if entry.drain() == Drain::Recycle => {
                "is replaced when its turn comes".into()
            }
            _ => String::new(),
        }
    }

    fn image_problem(&self, image: &ImageStatus) -> Option<String> {
        let instance = &self.order.spec.instance;
        if self.order.removed {
            return None; // Nothing is made for it any more.
        }
        if let Some(error) = &self.image_error {
            return Some(format!("cannot look at image {}: {error}", instance.image));
        }
        if !image.fingerprint.is_empty() || self.image_at.is_none() {
            return None;
        }
        let project = match instance.project.as_str() {
            "default" => String::new(),
            project => format!(" --project {project}"),
        };
        let vm = match instance.kind {
            InstanceKind::Container => "",
            InstanceKind::VirtualMachine => " --vm",
        };
        Some(format!(
            "image {0} does not exist in Incus project {1}: run iapctl provision --base \
             ubuntu/24.04 --target {0}{project}{vm}",
            instance.image, instance.project
        ))
    }

    /// Says why the pool is not as wanted, most important first.
    fn problems(&self, status: &PoolStatus) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(error) = &self.incus_error {
            problems.push(format!("Incus does not answer: {error}"));
        }
        if status.azure.credential == CredentialState::Rejected {
            let error = &status.azure.breaker.last_error;
            problems.push(format!("Azure rejects the credential: {error}"));
        } else if !status.azure.usable && !status.azure.breaker.last_error.is_empty() {
            problems.push(format!(
                "Azure is not usable: {}",
                status.azure.breaker.last_error
            ));
        }
        problems.extend(self.image_problem(&status.image));
        if let Some(words) = &status.no_room {
            problems.push(if self.members.borrow().is_cluster() {
                words.clone()
            } else {
                format!("the host is full: {words}")
            });
        }
        problems.extend(self.member_problems());
        if status.launches.open {
            let limit = status.launches.limit().map_or_else(String::new, |limit| {
                format!("{} (see iapctl doctor), ", limit.words())
            });
            problems.push(format!(
                "{limit}agents fail to start: {}",
                status.launches.last_error
            ));
        }
        let stuck = status
            .agents
            .iter()
            .filter(|a| a.state == AgentState::Stuck);
        for agent in stuck {
            problems.push(format!(
                "{} cannot be removed: {}",
                agent.name, agent.detail
            ));
        }
        let disabled: Vec<&str> = status
            .agents
            .iter()
            .filter(|agent| agent.disabled_by_others)
            .map(|agent| agent.name.as_str())
            .collect();
        if !disabled.is_empty() {
            problems.push(format!(
                "{DISABLED}, so no more jobs go there: {}; each is replaced as soon as it has no \
                 job",
                disabled.join(", ")
            ));
        }
        if status.looks_cloned {
            problems.push(
                "an agent of this host is online in Azure that has no instance here: is there a \
                 clone of this host? Registrations are not swept until it is gone"
                    .into(),
            );
        }
        if !status.foreign.is_empty() {
            problems.push(format!(
                "left alone: {} instances of the earlier tool ({})",
                status.foreign.len(),
                status.foreign.join(", ")
            ));
        }
        problems
    }
}

/// Says what a spare is doing.
fn spare(entry: &Entry, doing: Option<Doing>) -> &'static str {
    let instance = entry.instance.as_ref();
    match doing {
        Some(Doing::Spare) => "is being made",
        Some(Doing::Remove) => "is being removed",
        _ if !entry.settled => "its creation may not have ended",
        _ if !instance.is_some_and(|instance| instance.status.is_running()) => {
            "its instance does not run"
        }
        _ => "becomes an agent when one ends",
    }
}

/// Says what of a kept agent is not as one expects.
fn kept(entry: &Entry) -> String {
    let is_running = entry
        .instance
        .as_ref()
        .is_some_and(|instance| instance.status.is_running());
    let has_job = entry.registration.as_ref().is_some_and(|r| r.job.is_some());
    match (is_running, has_job) {
        (false, _) => "its instance does not run; its files are there".into(),
        (true, true) => "Azure has not given its job up yet".into(),
        (true, false) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_way_to_azure_says_nothing_before_it_was_tried() {
        let mut before = AzureStatus {
            usable: true,
            pool_id: Some(7),
            ..AzureStatus::default()
        };
        let mut view = AzureView::default();
        assert!(azure_status(&view, &before).usable);
        before.usable = false;
        assert!(!azure_status(&view, &before).usable);
        view.breaker.failures = 1;
        let failed = azure_status(&view, &before);
        assert_eq!((failed.usable, failed.pool_id), (false, None));
    }
}
