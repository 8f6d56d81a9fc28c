//! Why agents are asked to leave and removed, and what has to be proven before. Fixed sets: their
//! words are in logs, metrics and records.

/// Why an agent is removed. A fixed set: it labels metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReapReason {
    /// Its instance is stopped and is not coming back.
    Stopped,
    /// It never came online in time.
    NeverOnline,
    /// Offline, unassigned and without a worker for the grace period.
    Offline,
    /// Its launch failed, or was broken off, after it was registered; or it is a spare of which
    /// nothing can be made.
    LaunchFailed,
    /// It was asked to end again and again, and does not.
    NotLeaving,
    /// It was never registered and is not wanted any more.
    Surplus,
    /// It is drained by force.
    Forced,
    /// The deadline of its drain has passed.
    Deadline,
    /// An operator asked for it.
    Requested,
    /// Built from an old image or spec and never registered.
    Outdated,
    /// It was kept for debugging, and its time is over.
    KeepOver,
    /// A spare that has waited for long: it is made anew.
    Aged,
    /// Its cluster member was lost, another took its slot, and it did not come back alive.
    Replaced,
}

impl ReapReason {
    /// Returns the word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::NeverOnline => "never_online",
            Self::Offline => "offline",
            Self::LaunchFailed => "launch_failed",
            Self::NotLeaving => "not_leaving",
            Self::Surplus => "surplus",
            Self::Forced => "forced",
            Self::Deadline => "deadline",
            Self::Requested => "requested",
            Self::Outdated => "outdated",
            Self::KeepOver => "keep_over",
            Self::Aged => "aged",
            Self::Replaced => "replaced",
        }
    }
}

/// Why an agent is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrainReason {
    /// An operator asked for it.
    Requested,
    /// There are more agents than wanted.
    Surplus,
    /// Its image or spec is not the pool's any more.
    Outdated,
    /// Its pool left the configuration.
    PoolRemoved,
    /// Its pool or the host is paused.
    Paused,
    /// Somebody else disabled it in Azure: it gets no jobs.
    Disabled,
    /// Its cluster member is being evacuated or drained.
    MemberLeaves,
}

/// What has to be true right before an agent is removed; the action looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Nothing: an operator's force, or it was never registered.
    None,
    /// Azure says offline and unassigned.
    Azure,
    /// That, and no worker process runs in the guest.
    AzureAndProbe,
    /// Azure says so, and the guest is still none that could be probed: what is frozen does nothing.
    AzureUnprobed,
    /// Azure says so, and its listener was never started in the guest.
    NotStarted,
}

impl Proof {
    /// Returns whether the agent is disabled in Azure before it is looked at.
    pub fn disables(self) -> bool {
        matches!(
            self,
            Self::Azure | Self::AzureAndProbe | Self::AzureUnprobed
        )
    }
}
