//! The words of events, for those who filter by them. What each means is said where it is told,
//! in the daemon's `pool::events`.

/// All types of events.
pub const TYPES: [&str; 22] = [
    "agent-creating",
    "agent-idle",
    "agent-busy",
    "agent-draining",
    "agent-troubled",
    "agent-kept",
    "agent-released",
    "agent-ended",
    "launches-failing",
    "launches-recovered",
    "host-full",
    "host-has-room",
    "azure-lost",
    "azure-recovered",
    "credential-rejected",
    "incus-lost",
    "incus-recovered",
    "image-moved",
    "image-missing",
    "pool-removed",
    "pool-paused",
    "pool-resumed",
];
