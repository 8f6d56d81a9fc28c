//! How the Incus and Azure clients report their calls to whoever counts them. The clients know
//! nothing of metrics; the composition root passes an observer in.

use std::sync::Arc;
use std::time::Duration;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// The server did what it was asked for, or said that it was so already.
    Ok,
    /// The server refused (HTTP 4xx, 203 from Azure).
    Refused,
    /// The server failed (HTTP 5xx) or its operation ended in failure.
    Failed,
    /// No answer: not connected, timed out, broken off.
    Unreachable,
}

/// One finished call.
#[derive(Debug, Clone, Copy)]
pub struct CallReport {
    /// What was asked, such as `instance_create`; a small fixed set per client.
    pub kind: &'static str,
    /// How it ended.
    pub outcome: CallOutcome,
    /// From the first attempt to connect until the answer was read.
    pub elapsed: Duration,
}

/// Is told of every finished call.
pub type CallObserver = Arc<dyn Fn(CallReport) + Send + Sync>;
