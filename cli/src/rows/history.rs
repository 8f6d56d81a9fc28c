//! Agents that have ended with the jobs they had, events, and the audit trail.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::agent::Job;
use crate::error::CliError;
use crate::fleet;

use super::time::{Time, age, clock, size, took, waited};
use super::{
    API_VERSION, Column, NOTHING, Row, Show, column, filled, number, or_nothing, plain, short,
    state, time_column,
};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct EndedAgent {
    name: String,
    pool: String,
    reason: String,
    detail: Option<String>,
    created_at: Option<Time>,
    online_at: Option<Time>,
    ended_at: Option<Time>,
    exit_status: Option<i32>,
    azure_agent_id: Option<i64>,
    image_fingerprint: Option<String>,
    project: Option<String>,
    job: Option<Job>,
    job_result: Option<String>,
    job_finished_at: Option<Time>,
}

impl From<v1::EndedAgent> for EndedAgent {
    fn from(agent: v1::EndedAgent) -> Self {
        Self {
            name: agent.name,
            pool: agent.pool,
            reason: agent.reason,
            detail: filled(agent.detail),
            created_at: Time::of(agent.created_at),
            online_at: Time::of(agent.online_at),
            ended_at: Time::of(agent.ended_at),
            exit_status: agent.exit_status,
            azure_agent_id: (agent.azure_agent_id != 0).then_some(agent.azure_agent_id),
            image_fingerprint: filled(agent.image_fingerprint),
            project: filled(agent.project),
            job: agent.job.map(Job::from),
            job_result: filled(agent.job_result),
            job_finished_at: Time::of(agent.job_finished_at),
        }
    }
}

impl EndedAgent {
    pub(crate) fn ended_at(&self) -> Option<Time> {
        self.ended_at
    }

    /// Returns how long its job waited for an agent to be chosen.
    fn wait_time(&self) -> Option<String> {
        Some(waited(self.job.as_ref()?.waited()?))
    }

    /// Returns how long its job took.
    fn run_time(&self) -> Option<String> {
        let since = self.job.as_ref()?.since()?;
        Some(took(since.until(self.job_finished_at.or(self.ended_at)?)))
    }

    fn job_text(&self) -> String {
        self.job
            .as_ref()
            .map_or_else(|| NOTHING.to_owned(), Job::text)
    }
}

impl Row for EndedAgent {
    const PLURAL: &'static str = "jobs";
    const SINGULAR: &'static str = "job";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            number("ID"),
            column("JOB"),
            state("RESULT"),
            time_column(wide, "ENDED-AT", "ENDED"),
            number("WAIT"),
            number("RUN"),
            column("POOL"),
            column("AGENT"),
            column("REASON"),
        ];
        if wide {
            columns.extend(["REQUESTED-FOR", "EXIT", "IMAGE", "DETAIL"].map(column));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let ended = self.ended_at.map(|time| {
            if wide {
                time.to_string()
            } else {
                age(time.age(now))
            }
        });
        let id = self.job.as_ref().map(|job| job.request_id.to_string());
        let mut cells = vec![
            or_nothing(id.as_deref()),
            self.job_text(),
            or_nothing(self.job_result.as_deref()),
            or_nothing(ended.as_deref()),
            or_nothing(self.wait_time().as_deref()),
            or_nothing(self.run_time().as_deref()),
            self.pool.clone(),
            self.name.clone(),
            self.reason.clone(),
        ];
        if wide {
            let exit = self.exit_status.map(|status| status.to_string());
            let requester = self.job.as_ref().and_then(Job::requester);
            cells.extend([
                or_nothing(requester.as_deref()),
                or_nothing(exit.as_deref()),
                or_nothing(self.image_fingerprint.as_deref().map(short)),
                or_nothing(self.detail.as_deref().map(plain).as_deref()),
            ]);
        }
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// What is left of an agent.
#[derive(Serialize)]
pub(crate) struct EndedAgentWithEvidence {
    #[serde(flatten)]
    agent: EndedAgent,
    evidence: Vec<EvidenceFile>,
}

#[derive(Serialize)]
struct EvidenceFile {
    name: String,
    size: u64,
}

impl EndedAgentWithEvidence {
    /// Reads the daemon's answer; `None` when it lacks the agent.
    pub(crate) fn of(answer: v1::GetEndedAgentResponse) -> Option<Self> {
        let evidence = answer.evidence.into_iter().map(|file| EvidenceFile {
            name: file.name,
            size: file.size,
        });
        Some(Self {
            agent: answer.agent?.into(),
            evidence: evidence.collect(),
        })
    }
}

impl Show for EndedAgentWithEvidence {
    fn name(&self) -> &str {
        &self.agent.name
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let agent = &self.agent;
        let mut lines = vec![
            ("agent", agent.name.clone()),
            ("pool", agent.pool.clone()),
            ("state", format!("ended, {}", agent.reason)),
        ];
        if let Some(detail) = &agent.detail {
            lines.push(("detail", plain(detail)));
        }
        if let Some(job) = &agent.job {
            lines.push(("job", format!("{} (id {})", job.text(), job.request_id)));
            let result = agent.job_result.as_deref().unwrap_or("unknown to Azure");
            let run = agent.run_time();
            let run = run.map_or_else(String::new, |run| format!(" after {run}"));
            lines.push(("result", format!("{result}{run}")));
            if let Some(wait) = agent.wait_time() {
                lines.push(("waited", format!("{wait} for an agent")));
            }
            if let Some(requester) = job.requester() {
                lines.push(("requested for", requester));
            }
        }
        let times = [
            ("created", agent.created_at),
            ("online", agent.online_at),
            ("ended", agent.ended_at),
        ];
        for (label, time) in times {
            let text = time.map(|time| format!("{time} ({} ago)", age(time.age(now))));
            lines.push((label, or_nothing(text.as_deref())));
        }
        if let Some(status) = agent.exit_status {
            lines.push(("exit status", status.to_string()));
        }
        let image = agent.image_fingerprint.as_deref().map(short);
        lines.push(("image", or_nothing(image)));
        let files: Vec<String> = self
            .evidence
            .iter()
            .map(|file| format!("{} ({})", file.name, size(file.size)))
            .collect();
        if files.is_empty() {
            lines.push(("evidence", "none".to_owned()));
        } else {
            let read = format!("iapctl agents logs {} [--file NAME]", agent.name);
            lines.push(("evidence", files.join("\n")));
            lines.push(("read it", read));
        }
        lines
    }
}

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct AuditEntry {
    at: Option<Time>,
    uid: Option<u32>,
    user: Option<String>,
    command: String,
    target: String,
    outcome: String,
}

impl From<v1::AuditEntry> for AuditEntry {
    fn from(entry: v1::AuditEntry) -> Self {
        Self {
            at: Time::of(entry.at),
            uid: entry.uid,
            user: filled(entry.user),
            command: entry.command,
            target: entry.target,
            outcome: entry.outcome,
        }
    }
}

impl AuditEntry {
    pub(crate) fn at(&self) -> Option<Time> {
        self.at
    }
}

impl Row for AuditEntry {
    const PLURAL: &'static str = "entries";
    const SINGULAR: &'static str = "entry";

    fn columns(_: bool) -> Vec<Column> {
        ["AT", "USER", "COMMAND", "TARGET", "OUTCOME"]
            .map(column)
            .into()
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<String> {
        let user = match (&self.user, self.uid) {
            (Some(user), _) => plain(user),
            (None, Some(uid)) => format!("uid {uid}"),
            (None, None) => NOTHING.to_owned(),
        };
        vec![
            or_nothing(self.at.map(|at| at.to_string()).as_deref()),
            user,
            self.command.clone(),
            plain(&self.target),
            plain(&self.outcome),
        ]
    }

    fn name(&self) -> &str {
        &self.target
    }
}

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Event {
    id: i64,
    at: Option<Time>,
    r#type: String,
    pool: String,
    agent: Option<String>,
    message: Option<String>,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self {
            id: event.id,
            at: Time::of(event.at),
            r#type: event.r#type,
            pool: event.pool,
            agent: filled(event.agent),
            message: filled(event.message),
        }
    }
}

impl Event {
    pub(crate) fn at(&self) -> Option<Time> {
        self.at
    }

    /// Returns what it happened to: the agent, else the pool.
    pub(crate) fn subject(&self) -> &str {
        self.agent.as_deref().unwrap_or(&self.pool)
    }

    fn message(&self) -> String {
        or_nothing(self.message.as_deref().map(plain).as_deref())
    }

    /// Returns it as a line by itself, with the local time of day.
    pub(crate) fn line(&self) -> String {
        let at = self.at.map_or_else(|| NOTHING.to_owned(), |at| clock(at.0));
        let message = self.message.as_deref().map(plain).unwrap_or_default();
        let line = format!("{at}  {:<20}  {}  {message}", self.r#type, self.subject());
        line.trim_end().to_owned()
    }

    /// Returns it as an object in one line.
    pub(crate) fn json_line(&self) -> Result<String, CliError> {
        serde_json::to_string(&Line {
            api_version: API_VERSION,
            host: fleet::here(),
            event: self,
        })
        .map_err(|error| CliError::Output(error.into()))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    api_version: &'static str,
    /// The one of several that it happened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    event: &'a Event,
}

impl Row for Event {
    const PLURAL: &'static str = "events";
    const SINGULAR: &'static str = "event";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            time_column(wide, "AT", "AGE"),
            column("TYPE"),
            column("POOL"),
            column("AGENT"),
            column("MESSAGE"),
        ];
        if wide {
            columns.insert(0, number("ID"));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let at = self.at.map(|at| {
            if wide {
                at.to_string()
            } else {
                age(at.age(now))
            }
        });
        let mut cells = vec![
            or_nothing(at.as_deref()),
            self.r#type.clone(),
            self.pool.clone(),
            or_nothing(self.agent.as_deref()),
            self.message(),
        ];
        if wide {
            cells.insert(0, self.id.to_string());
        }
        cells
    }

    fn name(&self) -> &str {
        self.subject()
    }
}
