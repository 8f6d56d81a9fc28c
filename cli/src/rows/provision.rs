//! Provision jobs and their steps.

use std::time::Duration;

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::time::{Time, age, took};
use super::{
    Column, NOTHING, Row, Show, column, filled, number, or_nothing, plain, short, state,
    time_column, word,
};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct ProvisionJob {
    pub(crate) id: String,
    pub(crate) state: String,
    base: String,
    pub(crate) target: String,
    project: Option<String>,
    vm: bool,
    pub(crate) steps: Vec<Step>,
    pub(crate) error: Option<String>,
    pub(crate) error_lines: Vec<String>,
    pub(crate) log_path: Option<String>,
    created_at: Option<Time>,
    started_at: Option<Time>,
    ended_at: Option<Time>,
    pub(crate) image_fingerprint: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) kept_builder: Option<String>,
}

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Step {
    id: String,
    pub(crate) title: String,
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
    pub(crate) started_at: Option<Time>,
    ended_at: Option<Time>,
    pub(crate) bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) percent: u32,
}

impl From<v1::ProvisionJob> for ProvisionJob {
    fn from(job: v1::ProvisionJob) -> Self {
        Self {
            state: word(job.state().as_str_name(), "JOB_STATE_"),
            id: job.id,
            base: job.base,
            target: job.target,
            project: filled(job.project),
            vm: job.vm,
            steps: job.steps.into_iter().map(Step::from).collect(),
            error: filled(job.error),
            error_lines: job.error_lines,
            log_path: filled(job.log_path),
            created_at: Time::of(job.created_at),
            started_at: Time::of(job.started_at),
            ended_at: Time::of(job.ended_at),
            image_fingerprint: filled(job.image_fingerprint),
            agent_version: filled(job.agent_version),
            kept_builder: filled(job.kept_builder),
        }
    }
}

impl From<v1::ProvisionStep> for Step {
    fn from(step: v1::ProvisionStep) -> Self {
        Self {
            state: word(step.state().as_str_name(), "STEP_STATE_"),
            id: step.id,
            title: plain(&step.title),
            detail: filled(plain(&step.detail)),
            started_at: Time::of(step.started_at),
            ended_at: Time::of(step.ended_at),
            bytes: step.bytes,
            total_bytes: step.total_bytes,
            percent: step.percent,
        }
    }
}

impl Step {
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.state == "pending"
    }

    /// Returns how long it ran, so far when it still does.
    pub(crate) fn took(&self, now: Timestamp) -> Option<Duration> {
        let end = self.ended_at.map_or(now, |end| end.0);
        self.started_at.map(|start| start.age(end))
    }
}

impl ProvisionJob {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// Returns the step that runs or failed, with its number from 1.
    pub(crate) fn current_step(&self) -> Option<(usize, &Step)> {
        let step = self
            .steps
            .iter()
            .position(|step| !matches!(step.state.as_str(), "done" | "skipped"));
        step.and_then(|index| Some((index + 1, self.steps.get(index)?)))
    }

    /// Returns how long it ran, so far when it still does.
    pub(crate) fn took(&self, now: Timestamp) -> Option<Duration> {
        let end = self.ended_at.map_or(now, |end| end.0);
        self.started_at.map(|start| start.age(end))
    }

    pub(crate) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or("default")
    }

    pub(crate) fn short_fingerprint(&self) -> String {
        or_nothing(self.image_fingerprint.as_deref().map(short))
    }

    fn step_text(&self) -> String {
        match self.current_step() {
            Some((number, step)) if !self.has_ended() || self.state == "failed" => {
                format!("{number}/{} {}", self.steps.len(), step.title)
            }
            _ => NOTHING.to_owned(),
        }
    }

    fn kind(&self) -> &'static str {
        if self.vm {
            "virtual-machine"
        } else {
            "container"
        }
    }
}

impl Row for ProvisionJob {
    const PLURAL: &'static str = "jobs";
    const SINGULAR: &'static str = "job";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            column("JOB"),
            column("TARGET"),
            state("STATE"),
            column("STEP"),
            time_column(wide, "CREATED", "AGE"),
            number("TOOK"),
            column("BASE"),
            column("IMAGE"),
        ];
        if wide {
            columns.extend(["PROJECT", "TYPE", "AGENT-VERSION", "ERROR"].map(column));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let created = self.created_at.map(|time| {
            if wide {
                time.to_string()
            } else {
                age(time.age(now))
            }
        });
        let mut cells = vec![
            self.id.clone(),
            self.target.clone(),
            self.state.clone(),
            self.step_text(),
            or_nothing(created.as_deref()),
            or_nothing(self.took(now).map(took).as_deref()),
            self.base.clone(),
            self.short_fingerprint(),
        ];
        if wide {
            cells.extend([
                self.project().to_owned(),
                self.kind().to_owned(),
                or_nothing(self.agent_version.as_deref()),
                self.error
                    .as_deref()
                    .map_or_else(|| NOTHING.to_owned(), plain),
            ]);
        }
        cells
    }

    fn name(&self) -> &str {
        &self.id
    }
}

impl Show for ProvisionJob {
    fn name(&self) -> &str {
        &self.id
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("job", self.id.clone()),
            ("state", self.state.clone()),
            ("base", self.base.clone()),
            (
                "target",
                format!(
                    "{} in project {}, {}",
                    self.target,
                    self.project(),
                    self.kind()
                ),
            ),
        ];
        if let Some(created) = self.created_at {
            lines.push(("created", format!("{} ago", age(created.age(now)))));
        }
        if let Some(duration) = self.took(now) {
            lines.push(("took", took(duration)));
        }
        if self.image_fingerprint.is_some() {
            let version = or_nothing(self.agent_version.as_deref());
            lines.push((
                "image",
                format!("{}, agent {version}", self.short_fingerprint()),
            ));
        }
        let steps: Vec<String> = self.steps.iter().map(|step| step.line(now)).collect();
        if !steps.is_empty() {
            lines.push(("steps", steps.join("\n")));
        }
        if let Some(error) = &self.error {
            lines.push(("error", plain(error)));
        }
        if !self.error_lines.is_empty() {
            let tail: Vec<String> = self.error_lines.iter().map(|line| plain(line)).collect();
            lines.push(("last lines", tail.join("\n")));
        }
        if let Some(path) = &self.log_path {
            lines.push(("log", path.clone()));
        }
        if let Some(builder) = &self.kept_builder {
            lines.push(("kept builder", builder.clone()));
        }
        lines
    }
}

impl Step {
    fn line(&self, now: Timestamp) -> String {
        let time = self.took(now).map(took).unwrap_or_default();
        let detail = self.detail.as_deref().unwrap_or_default();
        let line = format!("{:<9}  {:>6}  {}  {detail}", self.state, time, self.title);
        line.trim_end().to_owned()
    }
}
