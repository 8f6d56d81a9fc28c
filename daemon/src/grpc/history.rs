//! `HistoryService`.

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use iap_common::v1;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::history_service_server::HistoryService;

use crate::store::{AgentFilter, AuditEntry, EndedAgent, EndedJob};

use super::convert::timestamp;
use super::events::EventStream;
use super::{Services, status};

const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 1000;

#[tonic::async_trait]
impl HistoryService for Services {
    async fn list_ended_agents(
        &self,
        request: Request<v1::ListEndedAgentsRequest>,
    ) -> Result<Response<v1::ListEndedAgentsResponse>, Status> {
        let request = request.into_inner();
        let filter = AgentFilter {
            since: time(request.since)?,
            // A pool that is not configured any more has a history all the same.
            pool: Some(request.pool).filter(|pool| !pool.is_empty()),
            with_job: request.with_job,
            failed: request.failed,
            limit: limit(request.limit),
        };
        let agents = self.store.ended_agents(filter).await;
        let agents = agents.map_err(|error| status::store(&error))?;
        Ok(Response::new(v1::ListEndedAgentsResponse {
            agents: agents.into_iter().map(ended_agent).collect(),
        }))
    }

    async fn get_ended_agent(
        &self,
        request: Request<v1::GetEndedAgentRequest>,
    ) -> Result<Response<v1::GetEndedAgentResponse>, Status> {
        let key = request.into_inner().key;
        let key = key.ok_or_else(|| status::bad_request("name an agent or a job"))?;
        let found = match &key {
            Key::Name(name) => self.store.ended_agent(name).await,
            Key::RequestId(id) => self.store.agent_of_job(*id).await,
        };
        let found = found.map_err(|error| status::store(&error))?;
        let Some(agent) = found else {
            return Err(match key {
                Key::Name(name) => self.no_such_agent(&name),
                Key::RequestId(id) => status::no_such("job", &id.to_string(), []),
            });
        };
        let files = self.store.evidence().list(&agent.name).await;
        let files = files.map_err(|error| status::evidence(&error))?;
        Ok(Response::new(v1::GetEndedAgentResponse {
            agent: Some(ended_agent(agent)),
            evidence: files
                .into_iter()
                .map(|(name, size)| v1::EvidenceFile { name, size })
                .collect(),
        }))
    }

    type StreamEventsStream = EventStream;

    async fn stream_events(
        &self,
        request: Request<v1::StreamEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        let since = time(request.since)?;
        let stream = self.events(request, since).await?;
        Ok(Response::new(stream))
    }

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        let request = request.into_inner();
        let since = time(request.since)?;
        let entries = self.store.audit_entries(since, limit(request.limit)).await;
        let entries = entries.map_err(|error| status::store(&error))?;
        Ok(Response::new(v1::ListAuditEntriesResponse {
            entries: entries.into_iter().map(audit_entry).collect(),
        }))
    }
}

fn limit(asked: u32) -> u32 {
    match asked {
        0 => DEFAULT_LIMIT,
        asked => asked.min(LARGEST_LIMIT),
    }
}

fn time(field: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    field
        .map(|field| Timestamp::new(field.seconds, field.nanos))
        .transpose()
        .map_err(|_| status::bad_request("`since` is no point in time"))
}

fn ended_agent(agent: EndedAgent) -> v1::EndedAgent {
    let (job_result, job_finished_at) = agent.job.as_ref().map_or_else(Default::default, |job| {
        (job.result.clone(), job.finished_at.map(timestamp))
    });
    v1::EndedAgent {
        name: agent.name,
        pool: agent.pool,
        reason: agent.reason,
        detail: agent.detail,
        created_at: agent.created_at.map(timestamp),
        online_at: agent.online_at.map(timestamp),
        ended_at: Some(timestamp(agent.ended_at)),
        exit_status: agent.exit_status,
        azure_agent_id: agent.azure_agent_id.unwrap_or(0),
        image_fingerprint: agent.image,
        project: agent.project,
        job: agent.job.map(job),
        job_result,
        job_finished_at,
    }
}

fn job(job: EndedJob) -> v1::Job {
    v1::Job {
        request_id: job.request_id,
        name: job.name,
        pipeline: job.pipeline,
        run: job.run,
        requested_for: job.requested_for,
        queued_at: job.queued_at.map(timestamp),
        assigned_at: job.assigned_at.map(timestamp),
        received_at: job.received_at.map(timestamp),
    }
}

fn audit_entry(entry: AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        at: Some(timestamp(entry.at)),
        uid: entry.uid,
        user: entry.user,
        command: entry.command,
        target: entry.target,
        outcome: entry.outcome,
    }
}
