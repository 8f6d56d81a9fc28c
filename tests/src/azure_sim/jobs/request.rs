//! What a test asks for, and the results a job can have.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job a test wants run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JobRequest {
    /// The organisation; the first one if absent.
    pub org: Option<String>,
    /// The pool's name.
    pub pool: String,
    /// What the agent prints; `Job <number>` if absent.
    pub display_name: Option<String>,
    /// What an agent must have.
    pub demands: Vec<String>,
    /// How long the fake agent works on it, in real milliseconds.
    pub duration_ms: u64,
    /// How the fake agent ends it.
    pub result: Option<JobResult>,
    /// Shell text the fake agent runs; a non-zero exit means failure.
    pub script: Option<String>,
    /// The fake agent's worker crashes.
    pub crash: bool,
    /// How long the fake agent ignores a cancellation, in real milliseconds.
    pub ignore_cancel_ms: u64,
    /// The pipeline's name; `ci` if absent.
    pub pipeline: Option<String>,
}

impl JobRequest {
    /// Returns a job that succeeds at once.
    pub fn new(pool: impl Into<String>) -> Self {
        Self {
            pool: pool.into(),
            ..Self::default()
        }
    }

    /// Names the job.
    #[must_use]
    pub fn named(self, display_name: impl Into<String>) -> Self {
        Self {
            display_name: Some(display_name.into()),
            ..self
        }
    }

    /// Makes the job last.
    #[must_use]
    pub fn lasting(self, duration: std::time::Duration) -> Self {
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            duration_ms,
            ..self
        }
    }

    /// Makes the job run a shell script.
    #[must_use]
    pub fn running(self, script: impl Into<String>) -> Self {
        Self {
            script: Some(script.into()),
            ..self
        }
    }

    /// Makes the job end in this way.
    #[must_use]
    pub fn ending(self, result: JobResult) -> Self {
        Self {
            result: Some(result),
            ..self
        }
    }

    /// Adds a demand.
    #[must_use]
    pub fn demanding(mut self, demand: impl Into<String>) -> Self {
        self.demands.push(demand.into());
        self
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobResult {
    /// All steps succeeded.
    Succeeded,
    /// It succeeded but warned.
    SucceededWithIssues,
    /// A step failed.
    Failed,
    /// Somebody canceled it.
    Canceled,
    /// It was not run.
    Skipped,
    /// Nothing was heard of its agent for too long.
    Abandoned,
}

impl JobResult {
    const ALL: [Self; 6] = [
        Self::Succeeded,
        Self::SucceededWithIssues,
        Self::Failed,
        Self::Canceled,
        Self::Skipped,
        Self::Abandoned,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::SucceededWithIssues => "succeededWithIssues",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Abandoned => "abandoned",
        }
    }

    /// Reads a result as clients write it: a name in any case, or the number.
    pub(in crate::azure_sim) fn read(value: &Value) -> Option<Self> {
        if let Some(number) = value.as_u64() {
            return Self::ALL.get(usize::try_from(number).ok()?).copied();
        }
        let text = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|result| result.name().eq_ignore_ascii_case(text))
    }
}
