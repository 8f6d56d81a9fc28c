//! What the standing of a cluster's members makes of the agents on them.
//!
//! An agent on a member that the cluster has lost is not known to be dead: its guest may run on,
//! with its job. It gives its slot up only when the member is offline for the grace period *and*
//! Azure shows the agent offline without a job. Nothing is done to it meanwhile. When the member
//! is back, the agent is one of the pool again; if its slot was filled, it is the first to go, or
//! is removed when it is dead: Incus starts guests again that ran when their host went down, and
//! no agent starts in them.

use std::collections::BTreeSet;

use crate::incus;

use super::super::ledger::{Entry, Ledger};
use super::Situation;

/// What of the members a plan needs; all empty without a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberView {
    /// Members that the cluster cannot reach.
    pub offline: BTreeSet<String>,
    /// Those of them that are so for the grace period.
    pub lost: BTreeSet<String>,
    /// Members whose agents are to finish and go.
    pub leaving: BTreeSet<String>,
    /// No member takes a new agent of this pool.
    pub none_takes: bool,
}

fn is_on(entry: &Entry, members: &BTreeSet<String>) -> bool {
    entry
        .instance
        .as_ref()
        .is_some_and(|instance| members.contains(&instance.location))
}

/// Returns whether nothing can be done to it, since its member cannot be reached.
pub(super) fn is_out_of_reach(situation: &Situation<'_>, entry: &Entry) -> bool {
    is_on(entry, &situation.members.offline)
}

/// Returns whether it may be dead on a member that cannot be reached: nothing takes its slot yet, and
/// nobody goes because of it. After a restart it may have been replaced before.
pub(super) fn may_be_dead(situation: &Situation<'_>, entry: &Entry) -> bool {
    let is_dead = entry.azure_agent_id.is_none() || entry.dead_since.is_some();
    is_out_of_reach(situation, entry) && is_dead
}

/// Returns whether its member is to be without agents.
pub(super) fn is_leaving(situation: &Situation<'_>, entry: &Entry) -> bool {
    is_on(entry, &situation.members.leaving)
}

/// Returns whether its slot is another's for good: that one took it, and nothing shows that this
/// one is alive.
pub(super) fn is_superseded(situation: &Situation<'_>, entry: &Entry) -> bool {
    entry.was_replaced && situation.azure_usable && entry.dead_since.is_some()
}

/// Returns whether its slot may be filled by another, as nothing runs on it as far as anybody can
/// tell.
pub(super) fn is_lost(situation: &Situation<'_>, entry: &Entry) -> bool {
    let unknown = entry
        .instance
        .as_ref()
        .is_some_and(|instance| instance.status == incus::Status::Error);
    let is_dead = entry.azure_agent_id.is_none() || entry.dead_since.is_some();
    unknown && is_on(entry, &situation.members.lost) && situation.azure_usable && is_dead
}

/// Returns the agents on lost members whose slots so many launches fill.
pub fn replaced(situation: &Situation<'_>, ledger: &Ledger, launches: usize) -> Vec<String> {
    ledger
        .iter()
        .filter(|(_, entry)| !entry.was_replaced && is_lost(situation, entry))
        .map(|(name, _)| name.clone())
        .take(launches)
        .collect()
}
