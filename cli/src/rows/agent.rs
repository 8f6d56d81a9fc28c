//! Agents: one instance, one registration, one job.

use std::time::Duration;

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::time::{Time, age};
use super::{
    Column, NOTHING, Row, Show, column, filled, or_nothing, plain, short, state, time_column, word,
};

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
    keep: Option<Keep>,
}

#[derive(Serialize, PartialEq, Clone)]
struct Keep {
    until: Option<Time>,
    reason: Option<String>,
    user: Option<String>,
    since: Option<Time>,
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
            keep: agent.keep.map(Keep::from),
        }
    }
}

impl From<v1::Keep> for Keep {
    fn from(keep: v1::Keep) -> Self {
        Self {
            until: Time::of(keep.until),
            reason: filled(keep.reason),
            user: filled(keep.user),
            since: Time::of(keep.since),
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
    /// Returns `pipeline #run job`, each where Azure said it.
    pub(crate) fn text(&self) -> String {
        let parts = [("", &self.pipeline), ("#", &self.run), ("", &self.name)];
        let known: Vec<String> = parts
            .into_iter()
            .filter(|(_, part)| !part.is_empty())
            .map(|(mark, part)| format!("{mark}{}", plain(part)))
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

    /// Returns how long it waited until an agent was chosen.
    pub(crate) fn waited(&self) -> Option<Duration> {
        Some(self.queued_at?.until(self.assigned_at?))
    }

    pub(crate) fn requester(&self) -> Option<String> {
        self.requested_for.as_deref().map(plain)
    }

    /// Returns the job with the time it has run: `webshop-ci #20261123.7 Build (11m)`.
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

    /// Whether its agent has ended and its instance stays for debugging.
    pub(crate) fn is_kept(&self) -> bool {
        self.state == "kept"
    }

    /// Whether its instance will stay for debugging when its agent has ended.
    pub(crate) fn is_to_be_kept(&self) -> bool {
        self.keep.is_some() && !self.is_kept()
    }

    /// Returns until when it is kept: `until 15:02`.
    pub(crate) fn kept_until(&self, now: Timestamp) -> Option<String> {
        let until = self.keep.as_ref()?.until?;
        Some(format!("until {}", until.local(now)))
    }

    /// Returns by whom and why it is kept: `until 15:02 by ana "flaky test"`.
    pub(crate) fn keep_text(&self, now: Timestamp) -> Option<String> {
        let keep = self.keep.as_ref()?;
        let reason = keep.reason.as_deref().map(plain);
        let why = match (&keep.user, reason) {
            (Some(user), Some(reason)) => format!(" by {} \"{reason}\"", plain(user)),
            (Some(user), None) => format!(" by {}", plain(user)),
            (None, Some(reason)) => format!(": {reason}, as the pool is configured"),
            (None, None) => String::new(),
        };
        let when = match self.is_kept() {
            true => "",
            false => ", once its job has ended",
        };
        Some(format!("{}{why}{when}", self.kept_until(now)?))
    }

    /// Returns the command that opens a shell in its instance.
    pub(crate) fn way_in(&self) -> String {
        let project = self.project.as_deref().unwrap_or("default");
        let place = format!("{} --project {project}", self.name);
        let start = match self.instance_status.as_deref() {
            Some("Stopped") => format!("incus start {place} && "),
            _ => String::new(),
        };
        format!("{start}incus exec {place} -- su - agent")
    }

    /// Returns the state, and that it was asked to go or is to be kept.
    pub(crate) fn state_text(&self) -> String {
        let is_live = matches!(self.state.as_str(), "busy" | "idle" | "starting");
        if is_live && self.keep.is_some() {
            return format!("{},keep", self.state);
        }
        if self.draining && is_live {
            format!("{},draining", self.state)
        } else {
            self.state.clone()
        }
    }

    fn state_cell(&self, now: Timestamp) -> String {
        match self.kept_until(now) {
            Some(until) if self.is_kept() => format!("kept ({until})"),
            _ => self.state_text(),
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
            state("STATE"),
            time_column(wide, "CREATED", "AGE"),
            column("JOB"),
            time_column(wide, "RUNNING-SINCE", "RUN"),
            column("IMAGE"),
        ];
        if wide {
            let more = [
                "AZURE-ID", "INSTANCE", "AZURE", "PROJECT", "MEMBER", "DETAIL",
            ];
            columns.extend(more.map(column));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let job = self.job.as_ref().filter(|_| !self.is_kept());
        let since = job.and_then(Job::since);
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
            self.state_cell(now),
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
                or_nothing(self.location.as_deref()),
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
        if let Some(kept) = self.keep_text(now) {
            lines.push(("kept", kept));
        }
        if self.is_kept() {
            lines.push(("get in", self.way_in()));
            lines.push(("let go", format!("iapctl agents release {}", self.name)));
        }
        if let Some(deadline) = self.drain_deadline {
            lines.push(("deadline", format!("killed at {}", deadline.local(now))));
        }
        lines.push(("age", self.age(now)));
        if let Some(job) = &self.job {
            let text = match self.is_kept() {
                true => format!("{}, which has ended", job.text()),
                false => job.with_run_time(now),
            };
            lines.push(("job", text));
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
