//! Keeps the record of agents that have ended: once when their instance is gone, and again, with
//! the result of their job, when their registration is. Tells events.

use jiff::Timestamp;
use tracing::debug;

use iap_common::error::chain;

use crate::agent::Drain;
use crate::azure::JobRequest;
use crate::store::{AgentFilter, EndedAgent, EndedJob};

use super::super::ending::{self, Circumstances};
use super::super::events::{self, EventKind};
use super::super::ledger::Entry;
use super::super::status::PoolStatus;
use super::super::waits::WINDOW;
use super::Reconciler;

/// Records that are read to know how long jobs waited before a restart.
const RECALLED: u32 = 1000;

impl Reconciler {
    /// Takes up from the records how long jobs waited before this daemon was started.
    pub(super) async fn recall_waits(&mut self) {
        let now = Timestamp::now();
        let filter = AgentFilter {
            since: Some(now - WINDOW),
            pool: Some(self.order.spec.name.clone()),
            with_job: true,
            failed: false,
            limit: RECALLED,
        };
        match self.shared.store.ended_agents(filter).await {
            Ok(agents) => {
                for job in agents.into_iter().filter_map(|agent| agent.job) {
                    let (queued, assigned) = (job.queued_at, job.assigned_at);
                    self.waits.note(job.request_id, queued, assigned, now);
                }
            }
            Err(error) => debug!(error = %chain(&error), "cannot tell how long jobs waited"),
        }
    }

    /// Keeps the record of an agent as far as it is known now.
    pub(super) fn keep_record(&mut self, name: &str) {
        let Some(entry) = self.ledger.get_mut(name) else {
            return;
        };
        // Never more than a wish, or never an agent here.
        let is_wish = !entry.had_instance && entry.azure_agent_id.is_none();
        if is_wish || entry.adopted.is_some() {
            return;
        }
        let spec = &self.order.spec;
        let record = record(entry);
        // Once: with the job's result where there was a job, and when no instance is kept of it.
        let is_last = entry.instance.is_none()
            && (entry.deregistered_at.is_some() || entry.azure_agent_id.is_none());
        if is_last && !std::mem::replace(&mut entry.end_told, true) {
            self.tell_end(name, &record);
        }
        self.shared.store.agent_ended(EndedAgent {
            name: name.to_owned(),
            pool: spec.name.clone(),
            project: spec.instance.project.clone(),
            ..record
        });
    }

    /// Tells the end of agents that nothing is left of, as long as nothing else is to come of them.
    pub(super) fn note_untold(&mut self) {
        let untold = self.ledger.iter().filter(|(name, entry)| {
            entry.is_untold() && self.in_flight.doing(name.as_str()).is_none()
        });
        let untold: Vec<String> = untold.map(|(name, _)| name.clone()).collect();
        for name in untold {
            self.keep_record(&name);
        }
    }

    fn tell_end(&self, name: &str, record: &EndedAgent) {
        let job = record.job.as_ref().map_or_else(String::new, |job| {
            format!(": {} {} {}", job.pipeline, job.run, job.name)
        });
        let message = format!("{}{}", record.reason, job);
        let kind = EventKind::AgentEnded.as_str();
        self.shared
            .store
            .event(kind, &self.order.spec.name, name, message.trim_end());
    }

    /// Tells what happened between two statuses.
    pub(super) fn tell_events(&self, old: &PoolStatus, new: &PoolStatus) {
        for event in events::between(old, new) {
            self.shared.store.event(
                event.kind.as_str(),
                &new.spec.name,
                &event.agent,
                &event.message,
            );
        }
    }
}

fn record(entry: &Entry) -> EndedAgent {
    let past = &entry.past;
    let at = Circumstances {
        had_instance: entry.had_instance,
        was_registered: entry.azure_agent_id.is_some(),
        was_online: entry.was_online,
        was_draining: entry.drain() != Drain::No || entry.was_draining,
        was_disabled_by_others: entry.was_disabled_by_others,
        launch_failed: entry.launch_failed,
    };
    let ending = past.ending.clone().unwrap_or_default();
    let detail = if !entry.had_instance {
        "it ended while iapd was not looking, so there is no evidence".to_owned()
    } else if past.ending.is_none() && past.reaped.is_none() {
        "it went before anything could be collected".to_owned()
    } else {
        ending.detail()
    };
    EndedAgent {
        name: String::new(),
        pool: String::new(),
        project: String::new(),
        image: past.image.clone(),
        azure_agent_id: entry.azure_agent_id,
        created_at: past.created_at,
        online_at: past.online_at,
        ended_at: past.ended_at.unwrap_or_else(Timestamp::now),
        reason: ending::reason(past, at).as_str().to_owned(),
        detail,
        exit_status: ending.exit_status,
        job: past.job.as_ref().map(job),
    }
}

fn job(job: &JobRequest) -> EndedJob {
    EndedJob {
        request_id: job.request_id,
        name: job.job_name.clone(),
        pipeline: job.pipeline.clone(),
        run: job.run.clone(),
        requested_for: job.requested_for.clone(),
        queued_at: job.queue_time,
        assigned_at: job.assign_time,
        received_at: job.receive_time,
        finished_at: job.finish_time,
        result: job.result.clone().unwrap_or_default(),
    }
}
