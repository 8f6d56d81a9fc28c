//! Keeps the record of agents that have ended: once when their instance is gone, and again, with
//! the result of their job, when their registration is.

use jiff::Timestamp;

use crate::agent::Drain;
use crate::azure::JobRequest;
use crate::store::{EndedAgent, EndedJob};

use super::super::ending::{self, Circumstances};
use super::super::ledger::Entry;
use super::Reconciler;

impl Reconciler {
    /// Keeps the record of an agent as far as it is known now.
    pub(super) fn keep_record(&self, name: &str) {
        let Some(entry) = self.ledger.get(name) else {
            return;
        };
        // Never more than a wish.
        if !entry.had_instance && entry.azure_agent_id.is_none() {
            return;
        }
        let spec = &self.order.spec;
        self.shared.store.agent_ended(EndedAgent {
            name: name.to_owned(),
            pool: spec.name.clone(),
            project: spec.instance.project.clone(),
            ..record(entry)
        });
    }
}

fn record(entry: &Entry) -> EndedAgent {
    let past = &entry.past;
    let at = Circumstances {
        had_instance: entry.had_instance,
        was_registered: entry.azure_agent_id.is_some(),
        was_online: entry.was_online,
        was_draining: entry.drain() != Drain::No || entry.was_draining,
    };
    let ending = past.ending.clone().unwrap_or_default();
    let detail = if !entry.had_instance {
        "it ended while iapd was not looking, so there is no evidence".to_owned()
    } else if past.ending.is_none() && past.reaped.is_none() {
        "it went before anything could be collected".to_owned()
    } else {
        ending.note
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
