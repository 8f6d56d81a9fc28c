//! What an operator may ask a pool's task for. The only edge that goes back from gRPC.

use tokio::sync::oneshot;

use crate::agent::{Drain, Keep};

use super::ghosts::Refusal;

/// Who asks, for the log.
#[derive(Debug, Clone)]
pub struct Asker {
    /// From the socket's peer credentials; `None` when they are not known.
    pub uid: Option<u32>,
}

/// Which of a pool's agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// These; all of them are known, or nothing is done.
    Named(Vec<String>),
    /// All that are there.
    All,
    /// Those built from another image or spec than the pool's present one.
    Outdated,
}

/// One request to a pool's task.
#[derive(Debug)]
pub enum PoolCommand {
    /// Agents shall finish and go.
    Drain {
        /// The agents.
        chosen: Chosen,
        /// How urgently.
        drain: Drain,
        /// Why, in the asker's words.
        reason: String,
        /// Who asks.
        asker: Asker,
        /// Answered when the wish is on the instances.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// An agent shall be removed now.
    Reap {
        /// The agent.
        name: String,
        /// Also with a job.
        force: bool,
        /// Who asks.
        asker: Asker,
        /// Answered when its instance is gone.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// An agent shall be kept for debugging when it has ended, or be kept longer.
    Keep {
        /// The agent.
        name: String,
        /// Until when, and why; without a reason the former one stands.
        keep: Keep,
        /// Who asks.
        asker: Asker,
        /// Answered when the wish is on the instance.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// A kept agent shall go, or not be kept.
    Release {
        /// The agent.
        name: String,
        /// Who asks.
        asker: Asker,
        /// Answered when its instance is gone; when it is not kept yet, when that is noted on it.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Registrations of another owner, whose host is gone for good, shall be removed.
    Adopt {
        /// Whose.
        owner: String,
        /// Which, by Azure's id; what its owner has beside them stays.
        ids: Vec<i64>,
        /// Tells this adoption from others in the pool's status.
        token: u64,
        /// Who asks.
        asker: Asker,
        /// Answered when the pool's status tells of it.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// What waits for its next try shall be tried now.
    Retry {
        /// Who asks.
        asker: Asker,
        /// Answered at once.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
}

/// Why a command was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such agents in this pool.
    #[error("no such agent: {}", .0.join(", "))]
    NoSuchAgent(Vec<String>),
    /// It has a job, and nobody said force.
    #[error("agent {name} has a job: {job}")]
    Busy {
        /// The agent.
        name: String,
        /// Its job, for people.
        job: String,
    },
    /// It was not shown to be dead, and nobody said force.
    #[error("agent {name} is not removed: {why}")]
    NotProven {
        /// The agent.
        name: String,
        /// What speaks against it.
        why: &'static str,
    },
    /// Azure does not let its registration go.
    #[error("the registration of agent {name} stays: Azure says {words}")]
    Registered {
        /// The agent.
        name: String,
        /// Azure's own.
        words: String,
    },
    /// It is kept for debugging, and is not drained.
    #[error("agent {0} is kept for debugging")]
    Kept(String),
    /// It is not kept for debugging.
    #[error("agent {0} is not kept for debugging")]
    NotKept(String),
    /// It cannot be kept in this state.
    #[error("agent {0} cannot be kept: it is {1}")]
    CannotKeep(String, &'static str),
    /// Another owner's registrations stay.
    #[error(transparent)]
    NotAdopted(Refusal),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// It did not work now: a server does not answer, or too much waits already.
    #[error("{0}")]
    NotNow(String),
    /// The pool's task has ended; the pool is not configured any more.
    #[error("the pool is gone")]
    PoolGone,
}
