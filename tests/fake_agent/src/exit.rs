//! Exit codes of the listener and the results a worker reports through its own.

use std::fmt;
use std::process::ExitCode;

/// How the listener ends (`Constants.Agent.ReturnCode` of the real one, and our own alarm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    Terminated = 1,
    Retryable = 2,
    Updating = 3,
    RunOnceUpdating = 4,
    /// An admin credential was found where a job could read it.
    Leak = 97,
    /// Ended by SIGTERM after cleaning up, as the .NET 8 builds do.
    Sigterm = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Result of a job; the worker's exit code is 100 plus this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskResult {
    Succeeded = 0,
    SucceededWithIssues = 1,
    Failed = 2,
    Canceled = 3,
    Skipped = 4,
    Abandoned = 5,
}

const RESULTS: [(TaskResult, &str, &str); 6] = [
    (TaskResult::Succeeded, "Succeeded", "succeeded"),
    (
        TaskResult::SucceededWithIssues,
        "SucceededWithIssues",
        "succeededWithIssues",
    ),
    (TaskResult::Failed, "Failed", "failed"),
    (TaskResult::Canceled, "Canceled", "canceled"),
    (TaskResult::Skipped, "Skipped", "skipped"),
    (TaskResult::Abandoned, "Abandoned", "abandoned"),
];

impl TaskResult {
    /// Reads what a worker's exit code says; any code outside 100 to 105 is a crash, which counts as failed.
    pub fn from_worker_exit(code: Option<i32>) -> Self {
        RESULTS
            .into_iter()
            .find(|(result, ..)| code == Some(100 + *result as i32))
            .map_or(Self::Failed, |(result, ..)| result)
    }

    /// Reads a result in any capitalisation.
    pub fn parse(text: &str) -> Option<Self> {
        RESULTS
            .into_iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(text))
            .map(|(result, ..)| result)
    }

    /// Returns the spelling used in JSON.
    pub fn wire(self) -> &'static str {
        RESULTS[self as usize].2
    }

    /// Returns the code a worker ends with.
    pub fn worker_exit(self) -> u8 {
        100 + self as u8
    }
}

impl fmt::Display for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(RESULTS[*self as usize].1)
    }
}

#[cfg(test)]
mod tests {
    use super::{RESULTS, TaskResult};

    #[test]
    fn worker_exit_codes_carry_the_result() {
        for (result, name, wire) in RESULTS {
            assert_eq!(
                TaskResult::from_worker_exit(Some(i32::from(result.worker_exit()))),
                result
            );
            assert_eq!(TaskResult::parse(wire), Some(result));
            assert_eq!((result.to_string().as_str(), result.wire()), (name, wire));
        }
    }

    #[test]
    fn any_other_worker_exit_is_a_failed_job() {
        for code in [None, Some(0), Some(1), Some(99), Some(106), Some(134)] {
            assert_eq!(TaskResult::from_worker_exit(code), TaskResult::Failed);
        }
    }
}
