//! What a provision job is for everybody who looks at one: its state, its steps, the events it
//! sends. Plain data, kept as it is in the job's record.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::request::{JobRequest, PackageSource};

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Is being carried out, or cleans up after itself.
    Running,
    /// The target alias points at the new image.
    Succeeded,
    /// The target alias is as it was.
    Failed,
    /// Somebody, or the daemon's stop, ended it.
    Cancelled,
}

impl JobState {
    /// Whether nothing will happen to the job any more.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Its turn has not come.
    Pending,
    /// Is being carried out.
    Running,
    /// Went well.
    Done,
    /// Failed, and the job with it.
    Failed,
    /// Was not wanted or not possible; the detail says why.
    Skipped,
    /// Was under way when the job was cancelled.
    Cancelled,
}

/// What a step does; the order is the order of a job's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Finds the base image.
    Resolve,
    /// Creates and starts the builder instance.
    Builder,
    /// Waits until the guest is up and is one we can set up.
    Guest,
    /// Gets the agent package and unpacks it in the guest.
    Agent,
    /// Sudo, certificates, what the agent needs.
    Setup,
    /// Docker.
    Docker,
    /// One user script.
    Script,
    /// Asks the agent's binary for its version.
    Smoke,
    /// Takes out what must differ between instances.
    Generalise,
    /// Writes everything to the disk and stops the builder.
    Stop,
    /// Makes the image.
    Publish,
    /// Unpacks the image once.
    Warm,
    /// Points the alias at the image.
    Promote,
    /// Removes the builder.
    Cleanup,
}

impl StepKind {
    /// Returns the stable identifier.
    pub fn id(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Builder => "builder",
            Self::Guest => "guest",
            Self::Agent => "agent",
            Self::Setup => "setup",
            Self::Docker => "docker",
            Self::Script => "script",
            Self::Smoke => "smoke",
            Self::Generalise => "generalise",
            Self::Stop => "stop",
            Self::Publish => "publish",
            Self::Warm => "warm",
            Self::Promote => "promote",
            Self::Cleanup => "cleanup",
        }
    }
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// What a person reads.
    pub title: String,
    /// How far it is.
    pub state: StepState,
    /// What came out of it, or what it waits for.
    pub detail: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Bytes moved so far.
    pub bytes: u64,
    /// Bytes in all, 0 when unknown.
    pub total_bytes: u64,
    /// 0 to 100, when only that is known.
    pub percent: u8,
}

impl Step {
    fn new(kind: StepKind, title: String) -> Self {
        Self {
            kind,
            title,
            state: StepState::Pending,
            detail: String::new(),
            started_at: None,
            ended_at: None,
            bytes: 0,
            total_bytes: 0,
            percent: 0,
        }
    }
}

/// A provision job as it is seen from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Short and unique: `91c2e0`.
    pub id: String,
    /// How far it is.
    pub state: JobState,
    /// The base as it was asked for.
    pub base: String,
    /// Alias that shall point at the new image.
    pub target: String,
    /// Incus project.
    pub project: String,
    /// Whether it makes a virtual machine image.
    pub vm: bool,
    /// The agent package as it was asked for.
    pub package: PackageSource,
    /// All steps, also those to come.
    pub steps: Vec<Step>,
    /// Why it failed or was cancelled, with its causes.
    pub error: Option<String>,
    /// The last lines of the failing step.
    pub error_lines: Vec<String>,
    /// Where the whole log is; not in the record, since the state directory may move.
    #[serde(skip)]
    pub log_path: PathBuf,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its turn came.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The new image, once the alias points at it.
    pub image_fingerprint: Option<String>,
    /// The operation that makes it. Incus cannot cancel that, and it outlives the daemon.
    pub publish_operation: Option<String>,
    /// What the agent's binary called itself.
    pub agent_version: Option<String>,
    /// The builder that was left there.
    pub kept_builder: Option<String>,
    /// Who asked for it.
    pub requested_by: String,
    /// Why it is to end early: `cancelled by uid 1000`, `daemon stopped`.
    pub cancelled: Option<String>,
}

impl Job {
    /// Returns the job that carries out a request.
    pub(super) fn new(id: String, request: &JobRequest, log_path: PathBuf, now: Timestamp) -> Self {
        Self {
            id,
            state: JobState::Queued,
            base: request.base.clone(),
            target: request.target.clone(),
            project: request.project.clone(),
            vm: request.vm,
            package: request.package.clone(),
            steps: steps_of(request),
            error: None,
            error_lines: Vec::new(),
            log_path,
            created_at: now,
            started_at: None,
            ended_at: None,
            image_fingerprint: None,
            publish_operation: None,
            agent_version: None,
            kept_builder: None,
            requested_by: request.requested_by.clone(),
            cancelled: None,
        }
    }

    /// Ends the job and the step that is under way.
    pub(super) fn end(&mut self, state: JobState, error: Option<String>, now: Timestamp) {
        self.end_step(
            match state {
                JobState::Succeeded => StepState::Done,
                JobState::Cancelled => StepState::Cancelled,
                JobState::Queued | JobState::Running | JobState::Failed => StepState::Failed,
            },
            now,
        );
        self.state = state;
        self.error = error;
        self.ended_at = Some(now);
    }

    /// Ends a job that does not come to its own end. One that has switched the alias has done what
    /// it was asked for: only its clean-up has not ended.
    pub(super) fn break_off(&mut self, state: JobState, why: &str, now: Timestamp) {
        if self.image_fingerprint.is_none() {
            self.end(state, Some(why.to_owned()), now);
            return;
        }
        for step in self
            .steps
            .iter_mut()
            .filter(|s| s.kind == StepKind::Cleanup)
        {
            step.state = StepState::Failed;
            step.detail = format!("{why}: what is left is removed later");
            step.started_at.get_or_insert(now);
            step.ended_at = Some(now);
        }
        self.end(JobState::Succeeded, None, now);
    }

    /// Ends the step that is under way, if there is one.
    pub(super) fn end_step(&mut self, state: StepState, now: Timestamp) {
        for step in self
            .steps
            .iter_mut()
            .filter(|step| step.state == StepState::Running)
        {
            step.state = state;
            step.ended_at = Some(now);
        }
    }
}

fn steps_of(request: &JobRequest) -> Vec<Step> {
    let step = |kind, title: &str| Step::new(kind, title.to_owned());
    let mut steps = vec![
        step(StepKind::Resolve, &format!("resolve base {}", request.base)),
        step(StepKind::Builder, "start builder"),
        step(StepKind::Guest, "wait for the guest"),
        step(StepKind::Agent, "agent package"),
        step(StepKind::Setup, "base setup"),
        step(StepKind::Docker, "docker"),
    ];
    let scripts = request.scripts.iter();
    steps.extend(scripts.map(|s| step(StepKind::Script, &format!("script {}", s.name))));
    steps.extend([
        step(StepKind::Smoke, "smoke test"),
        step(StepKind::Generalise, "generalise"),
        step(StepKind::Stop, "sync and stop"),
        step(StepKind::Publish, "publish"),
        step(StepKind::Warm, "unpack once"),
        step(
            StepKind::Promote,
            &format!("point {} at the new image", request.target),
        ),
        step(StepKind::Cleanup, "remove the builder"),
    ]);
    steps
}

/// What those who watch a job are told.
#[derive(Debug, Clone)]
pub enum JobEvent {
    /// The job as it is now.
    Job(Arc<Job>),
    /// A line of a step's output.
    Line {
        /// Index into [`Job::steps`].
        step: usize,
        /// The line, without its end.
        text: Arc<str>,
        /// When it came.
        at: Timestamp,
    },
}
