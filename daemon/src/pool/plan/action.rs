//! What a plan is made of: one thing to do to one agent, or to one spare.

use crate::agent::{Doing, Drain, Keep};

use super::{DrainReason, Proof, ReapReason, Staying};

/// One thing to do to one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Register and start the agent of an instance that is there.
    Adopt {
        /// The agent.
        name: String,
    },
    /// Register and start the agent of a spare.
    Promote {
        /// The spare, and the agent.
        name: String,
        /// Fingerprint of what it was made from.
        image: String,
    },
    /// Give up a launch, or a spare, that waits for its turn.
    CancelLaunch {
        /// The agent.
        name: String,
    },
    /// Write the wish to go onto the instance.
    NoteDrain {
        /// The agent.
        name: String,
        /// How urgent.
        drain: Drain,
        /// Why.
        reason: DrainReason,
    },
    /// Answer the doorbell: the machine may go.
    AnswerDoorbell {
        /// The agent.
        name: String,
        /// What there is to be known of its end is known.
        heard: bool,
        /// It would be kept for debugging if the pool did not keep others.
        no_room: bool,
    },
    /// Take in how an agent ended, while its machine waits for the answer.
    Hear {
        /// The agent.
        name: String,
        /// Azure's id.
        azure_agent_id: i64,
    },
    /// Make its instance stay for debugging.
    Keep {
        /// The agent.
        name: String,
        /// Azure's id, if it is registered.
        azure_agent_id: Option<i64>,
        /// Until when, and why.
        keep: Keep,
        /// The wish to go that comes with it.
        drain: Drain,
        /// How.
        staying: Staying,
    },
    /// Disable it in Azure; when it has no job, stop its listener.
    Leave {
        /// The agent.
        name: String,
        /// Azure's id.
        azure_agent_id: i64,
    },
    /// Stop and delete its instance.
    Remove {
        /// The agent.
        name: String,
        /// Azure's id, if it is registered.
        azure_agent_id: Option<i64>,
        /// Why.
        reason: ReapReason,
        /// What has to be shown first.
        proof: Proof,
    },
    /// Delete the registration of an agent whose instance is gone.
    Deregister {
        /// The agent.
        name: String,
        /// Azure's id.
        azure_agent_id: i64,
        /// No instance of it was ever seen here.
        ghost: bool,
    },
}

impl Action {
    /// Returns the agent it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Adopt { name }
            | Self::Promote { name, .. }
            | Self::CancelLaunch { name }
            | Self::NoteDrain { name, .. }
            | Self::AnswerDoorbell { name, .. }
            | Self::Hear { name, .. }
            | Self::Keep { name, .. }
            | Self::Leave { name, .. }
            | Self::Remove { name, .. }
            | Self::Deregister { name, .. } => name,
        }
    }

    /// Returns what the agent shows while it is in flight.
    pub fn doing(&self) -> Doing {
        match self {
            Self::Adopt { .. } | Self::Promote { .. } | Self::CancelLaunch { .. } => Doing::Launch,
            Self::NoteDrain { .. } | Self::AnswerDoorbell { .. } | Self::Hear { .. } => Doing::Note,
            Self::Keep { .. } => Doing::Keep,
            Self::Leave { .. } => Doing::Leave,
            Self::Remove {
                proof: Proof::None, ..
            } => Doing::Remove,
            Self::Remove { .. } => Doing::Judge,
            Self::Deregister { .. } => Doing::Deregister,
        }
    }
}
