//! Agents: one instance, one registration, one job.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::time::{Time, age};
use super::{Column, NOTHING, Row, Show, column, filled, or_nothing, plain, short, word};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) pool: String,
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
    pub(crate) draining: bool,
    created_at: Option<Time>,
    azure_agent_id: Option<i64>,
    pub(crate) job: Option<Job>,
    image_fingerprint: Option<String>,
    pub(crate) outdated: bool,
    instance_status: Option<String>,
    azure_status: Option<String>,
    azure_enabled: bool,
    project: Option<String>,
    location: Option<String>,
    pub(crate) drain_deadline: Option<Time>,
}

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Job {
    pub(crate) request_id: i64,
    name: String,
    pipeline: String,
    run: String,
    requested_for: Option<String>,
    queued_at: Option<Time>,
    assigned_at: Option<Time>,
    received_at: Option<Time>,
}

impl From<v1::Agent> for Agent {
    fn from(agent: v1::Agent) -> Self {
        Self {
            state: word(agent.state().as_str_name(), "AGENT_STATE_"),
            name: agent.name,
            pool: agent.pool,
            detail: filled(agent.detail),
            draining: agent.draining,
            created_at: Time::of(agent.created_at),
            azure_agent_id: (agent.azure_agent_id != 0).then_some(agent.azure_agent_id),
            job: agent.job.map(Job::from),
            image_fingerprint: filled(agent.image_fingerprint),
            outdated: agent.outdated,
            instance_status: filled(agent.instance_status),
            azure_status: filled(agent.azure_status),
            azure_enabled: agent.azure_enabled,
            project: filled(agent.project),
            location: filled(agent.location),
            drain_deadline: Time::of(agent.drain_deadline),
        }
    }
}

impl From<v1::Job> for Job {
    fn from(job: v1::Job) -> Self {
        Self {
            request_id: job.request_id,
            name: job.name,
            pipeline: job.pipeline,
            run: job.run,
            requested_for: filled(job.requested_for),
            queued_at: Time::of(job.queued_at),
            assigned_at: Time::of(job.assigned_at),
            received_at: Time::of(job.received_at),
        }
    }
}

impl Job {
    /// Returns `pipeline run job`, each where Azure said it.
    pub(crate) fn text(&self) -> String {
        let parts = [&self.pipeline, &self.run, &self.name];
        let known: Vec<String> = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| plain(part))
            .collect();
        if known.is_empty() {
            format!("job {}", self.request_id)
        } else {
            known.join(" ")
        }
    }

    /// Returns when the agent took it, else when it was given to the agent.
    pub(crate) fn since(&self) -> Option<Time> {
        self.received_at.or(self.assigned_at)
    }

    pub(crate) fn requester(&self) -> Option<String> {
        self.requested_for.as_deref().map(plain)
    }

    /// Returns the job with the time it has run: `webshop-ci 20261123.7 Build (11m)`.
    pub(crate) fn with_run_time(&self, now: Timestamp) -> String {
        match self.since() {
            Some(since) => format!("{} ({})", self.text(), age(since.age(now))),
            None => self.text(),
        }
    }
}

impl Agent {
    pub(crate) fn is_busy(&self) -> bool {
        self.state == "busy"
    }

    /// Whether the earlier tool made it; it is left alone.
    pub(crate) fn is_foreign(&self) -> bool {
        self.state == "foreign"
    }

    /// Returns the state, and that it was asked to go.
    pub(crate) fn state_text(&self) -> String {
        if self.draining && matches!(self.state.as_str(), "busy" | "idle" | "starting") {
            format!("{},draining", self.state)
        } else {
            self.state.clone()
        }
    }

    fn age(&self, now: Timestamp) -> String {
        self.created_at
            .map_or_else(|| NOTHING.to_owned(), |time| age(time.age(now)))
    }

    fn image(&self) -> String {
        let image = or_nothing(self.image_fingerprint.as_deref().map(short));
        if self.outdated {
            format!("{image} (outdated)")
        } else {
            image
        }
    }

    fn azure(&self) -> String {
        let status = or_nothing(self.azure_status.as_deref());
        if self.azure_status.is_some() && !self.azure_enabled {
            format!("{status},disabled")
        } else {
            status
        }
    }
}

impl Row for Agent {
    const PLURAL: &'static str = "agents";
    const SINGULAR: &'static str = "agent";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            column("AGENT"),
            column("POOL"),
            column("STATE"),
            column(if wide { "CREATED" } else { "AGE" }),
            column("JOB"),
            column(if wide { "RUNNING-SINCE" } else { "RUN" }),
            column("IMAGE"),
        ];
        if wide {
            let more = ["AZURE-ID", "INSTANCE", "AZURE", "PROJECT", "DETAIL"];
            columns.extend(more.map(column));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let since = self.job.as_ref().and_then(Job::since);
        let time = |time: Option<Time>| {
            let text = time.map(|time| {
                if wide {
                    time.to_string()
                } else {
                    age(time.age(now))
                }
            });
            or_nothing(text.as_deref())
        };
        let mut cells = vec![
            self.name.clone(),
            self.pool.clone(),
            self.state_text(),
            time(self.created_at),
            self.job
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), Job::text),
            time(since),
            self.image(),
        ];
        if wide {
            cells.extend([
                self.azure_agent_id
                    .map_or_else(|| NOTHING.to_owned(), |id| id.to_string()),
                or_nothing(self.instance_status.as_deref()),
                self.azure(),
                or_nothing(self.project.as_deref()),
                self.detail
                    .as_deref()
                    .map_or_else(|| NOTHING.to_owned(), plain),
            ]);
        }
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Show for Agent {
    fn name(&self) -> &str {
        &self.name
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("agent", self.name.clone()),
            ("pool", self.pool.clone()),
            ("state", self.state_text()),
        ];
        if let Some(detail) = &self.detail {
            lines.push(("detail", plain(detail)));
        }
        if let Some(deadline) = self.drain_deadline {
            lines.push(("deadline", format!("killed at {}", deadline.local(now))));
        }
        lines.push(("age", self.age(now)));
        if let Some(job) = &self.job {
            lines.push(("job", job.with_run_time(now)));
            if let Some(requester) = job.requester() {
                lines.push(("requested for", requester));
            }
        }
        lines.push(("image", self.image()));
        let place = match (&self.project, &self.location) {
            (Some(project), Some(location)) => format!(", project {project} on {location}"),
            (Some(project), None) => format!(", project {project}"),
            _ => String::new(),
        };
        lines.push((
            "instance",
            format!("{}{place}", or_nothing(self.instance_status.as_deref())),
        ));
        let id = self.azure_agent_id.map_or_else(
            || "not registered".to_owned(),
            |id| format!("{}, id {id}", self.azure()),
        );
        lines.push(("azure", id));
        lines
    }
}
