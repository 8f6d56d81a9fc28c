//! What can go wrong: towards callers ([`ProvisionError`]) and inside a job ([`StepError`]).

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use crate::azure::AzureError;
use crate::incus::IncusError;

use super::job::JobState;

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The request makes no sense; each problem in words.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Too many jobs wait already.
    #[error("{0} jobs are queued already")]
    QueueFull(usize),
    /// There is no such job, or it is too long ago.
    #[error("no provision job {0}")]
    NotFound(String),
    /// What has ended cannot be cancelled.
    #[error("job {id} has already {}", match state { JobState::Failed => "failed", _ => "succeeded" })]
    AlreadyEnded {
        /// The job.
        id: String,
        /// How it ended.
        state: JobState,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// The uploaded package is not one.
    #[error("the upload is not an agent package: {0}")]
    NotAPackage(String),
    /// There is no room for another package.
    #[error("agent packages would take more than {} GiB: wait for the jobs that need them", .0 >> 30)]
    CacheFull(u64),
    /// The upload broke off.
    #[error("the upload broke off")]
    Upload(#[source] Box<dyn Error + Send + Sync>),
    /// The uploader went quiet.
    #[error("the upload sent nothing for {} s", .0.as_secs())]
    UploadStalled(Duration),
    /// The state directory does not take it.
    #[error("cannot {what} {}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Why a step failed, and its job with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error("cancelled")]
    Cancelled,
    #[error("cannot {what}")]
    Incus {
        what: &'static str,
        #[source]
        source: IncusError,
    },
    #[error("cannot {what}")]
    Azure {
        what: &'static str,
        #[source]
        source: AzureError,
    },
    #[error("cannot {what}: {message}")]
    Operation { what: &'static str, message: String },
    #[error("{what} took longer than {} s", after.as_secs())]
    TimedOut { what: String, after: Duration },
    #[error("{what} ended with exit code {code}")]
    Exit { what: String, code: i32 },
    #[error("{what}: {said} (exit code {code})")]
    Script {
        what: &'static str,
        said: String,
        code: i32,
    },
    #[error("{0}")]
    Refused(String),
    #[error("the agent package's SHA-256 is {found}, expected {expected}")]
    Checksum { expected: String, found: String },
    #[error("cannot {what} {}", path.display())]
    Disk {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl StepError {
    /// Returns a closure that wraps an Incus error with what was tried.
    pub(super) fn incus(what: &'static str) -> impl FnOnce(IncusError) -> Self {
        move |source| Self::Incus { what, source }
    }
}
