//! Agents that have ended, one record each, and the jobs they had.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, named_params};

use super::schema::time;
use super::{Store, StoreError};

/// An agent that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAgent {
    /// Its name; never used twice.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Incus project it lived in.
    pub project: String,
    /// Fingerprint of its image; empty when not known.
    pub image: String,
    /// Azure's id, if it was registered.
    pub azure_agent_id: Option<i64>,
    /// When its instance was made.
    pub created_at: Option<Timestamp>,
    /// When it was first seen online.
    pub online_at: Option<Timestamp>,
    /// When it was seen to be over.
    pub ended_at: Timestamp,
    /// A word of [`crate::pool::ending::EndReason`].
    pub reason: String,
    /// More words; may be empty.
    pub detail: String,
    /// Exit status of its listener, if it exited.
    pub exit_status: Option<i32>,
    /// The job it had.
    pub job: Option<EndedJob>,
}

/// A job, as far as Azure told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndedJob {
    /// Its number in Azure's queue.
    pub request_id: i64,
    /// Its name in the pipeline.
    pub name: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run.
    pub run: String,
    /// Whom it ran for; may be empty.
    pub requested_for: String,
    /// When it was queued.
    pub queued_at: Option<Timestamp>,
    /// When an agent was chosen.
    pub assigned_at: Option<Timestamp>,
    /// When the agent took it.
    pub received_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended, in Azure's word; empty when Azure did not say.
    pub result: String,
}

/// Which ended agents to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Ended since then.
    pub since: Option<Timestamp>,
    /// Of this pool.
    pub pool: Option<String>,
    /// Only those that had a job.
    pub with_job: bool,
    /// Only those whose job did not succeed.
    pub failed: bool,
    /// At most so many, the newest.
    pub limit: u32,
}

impl Store {
    /// Keeps the record of an agent that has ended. Later records of the same agent add to it: a
    /// daemon that was restarted in between knows the result of the job and nothing of the guest,
    /// nor that it was killed.
    pub fn agent_ended(&self, agent: EndedAgent) {
        self.write("ended agent", move |connection| {
            let job = agent.job.as_ref();
            let at = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
            connection
                .prepare_cached(
                    "INSERT INTO ended_agents VALUES (:name, :pool, :project, :image,
                     :azure_agent_id, :created_at, :online_at, :ended_at, :reason, :detail,
                     :exit_status, :request_id, :job_name, :pipeline, :run, :requested_for,
                     :queued_at, :assigned_at, :received_at, :finished_at, :result)
                     ON CONFLICT (name) DO UPDATE SET
                       azure_agent_id = COALESCE(excluded.azure_agent_id, azure_agent_id),
                       created_at = COALESCE(created_at, excluded.created_at),
                       online_at = COALESCE(online_at, excluded.online_at),
                       ended_at = MIN(ended_at, excluded.ended_at),
                       image = CASE image WHEN '' THEN excluded.image ELSE image END,
                       reason = CASE
                         WHEN excluded.reason = 'unseen' THEN reason
                         WHEN excluded.job_request_id IS NULL
                           AND job_result <> '' THEN reason
                         WHEN excluded.created_at IS NULL
                           AND (reason IN ('forced', 'deadline', 'out-of-memory')
                             OR reason = 'disk-full'
                               AND excluded.reason IN ('job-failed', 'job-ended')) THEN reason
                         ELSE excluded.reason END,
                       detail = CASE WHEN excluded.created_at IS NULL THEN detail
                                ELSE excluded.detail END,
                       exit_status = COALESCE(excluded.exit_status, exit_status),
                       job_request_id = COALESCE(excluded.job_request_id, job_request_id),
                       job_name = COALESCE(excluded.job_name, job_name),
                       job_pipeline = COALESCE(excluded.job_pipeline, job_pipeline),
                       job_run = COALESCE(excluded.job_run, job_run),
                       job_requested_for =
                         COALESCE(NULLIF(excluded.job_requested_for, ''), job_requested_for),
                       job_queued_at = COALESCE(excluded.job_queued_at, job_queued_at),
                       job_assigned_at = COALESCE(excluded.job_assigned_at, job_assigned_at),
                       job_received_at = COALESCE(excluded.job_received_at, job_received_at),
                       job_finished_at = COALESCE(excluded.job_finished_at, job_finished_at),
                       job_result = COALESCE(NULLIF(excluded.job_result, ''), job_result)",
                )?
                .execute(named_params! {
                    ":name": agent.name,
                    ":pool": agent.pool,
                    ":project": agent.project,
                    ":image": agent.image,
                    ":azure_agent_id": agent.azure_agent_id,
                    ":created_at": at(agent.created_at),
                    ":online_at": at(agent.online_at),
                    ":ended_at": agent.ended_at.as_millisecond(),
                    ":reason": agent.reason,
                    ":detail": agent.detail,
                    ":exit_status": agent.exit_status,
                    ":request_id": job.map(|job| job.request_id),
                    ":job_name": job.map(|job| &job.name),
                    ":pipeline": job.map(|job| &job.pipeline),
                    ":run": job.map(|job| &job.run),
                    ":requested_for": job.map(|job| &job.requested_for),
                    ":queued_at": at(job.and_then(|job| job.queued_at)),
                    ":assigned_at": at(job.and_then(|job| job.assigned_at)),
                    ":received_at": at(job.and_then(|job| job.received_at)),
                    ":finished_at": at(job.and_then(|job| job.finished_at)),
                    ":result": job.map(|job| &job.result),
                })?;
            Ok(())
        });
    }

    /// Lists ended agents, the newest first.
    pub async fn ended_agents(&self, filter: AgentFilter) -> Result<Vec<EndedAgent>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM ended_agents
                 WHERE ended_at >= :since
                   AND (:pool IS NULL OR pool = :pool)
                   AND (NOT :with_job OR job_request_id IS NOT NULL)
                   AND (NOT :failed OR job_result <> 'succeeded')
                 ORDER BY ended_at DESC, name LIMIT :limit",
            )?;
            let since = filter.since.map_or(i64::MIN, Timestamp::as_millisecond);
            let rows = statement.query_map(
                named_params! {
                    ":since": since,
                    ":pool": filter.pool,
                    ":with_job": filter.with_job || filter.failed,
                    ":failed": filter.failed,
                    ":limit": filter.limit,
                },
                read,
            )?;
            rows.collect()
        })
        .await
    }

    /// Returns the record of one agent.
    pub async fn ended_agent(&self, name: &str) -> Result<Option<EndedAgent>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT * FROM ended_agents WHERE name = ?1")?
                .query_row([name], read)
                .optional()
        })
        .await
    }

    /// Returns the agent that had a job.
    pub async fn agent_of_job(&self, request_id: i64) -> Result<Option<EndedAgent>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM ended_agents WHERE job_request_id = ?1
                     ORDER BY ended_at DESC LIMIT 1",
                )?
                .query_row([request_id], read)
                .optional()
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<EndedAgent> {
    let request_id: Option<i64> = row.get("job_request_id")?;
    let text = |column: &str| {
        row.get::<_, Option<String>>(column)
            .map(Option::unwrap_or_default)
    };
    let job = match request_id {
        None => None,
        Some(request_id) => Some(EndedJob {
            request_id,
            name: text("job_name")?,
            pipeline: text("job_pipeline")?,
            run: text("job_run")?,
            requested_for: text("job_requested_for")?,
            queued_at: time(row.get("job_queued_at")?),
            assigned_at: time(row.get("job_assigned_at")?),
            received_at: time(row.get("job_received_at")?),
            finished_at: time(row.get("job_finished_at")?),
            result: text("job_result")?,
        }),
    };
    Ok(EndedAgent {
        name: row.get("name")?,
        pool: row.get("pool")?,
        project: row.get("project")?,
        image: row.get("image")?,
        azure_agent_id: row.get("azure_agent_id")?,
        created_at: time(row.get("created_at")?),
        online_at: time(row.get("online_at")?),
        ended_at: time(row.get("ended_at")?).unwrap_or_default(),
        reason: row.get("reason")?,
        detail: row.get("detail")?,
        exit_status: row.get("exit_status")?,
        job,
    })
}
