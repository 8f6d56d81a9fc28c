//! Who holds the pool's slots, and who may be asked to give one up. Pure, as all of the plan.

use tokio::time::Instant;

use crate::agent::{AgentState, Doing, Drain};

use super::super::in_flight::InFlight;
use super::super::ledger::Ledger;
use super::{
    Action, DrainReason, Plan, Proof, ReapReason, Situation, is_lost, is_superseded,
    is_to_be_replaced, may_be_dead, state_of,
};

/// An agent that may be asked to go.
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) state: AgentState,
    pub(super) outdated: bool,
    /// Its member was lost, and it was replaced.
    pub(super) was_replaced: bool,
    pub(super) replaced_for: DrainReason,
    pub(super) azure_agent_id: Option<i64>,
    pub(super) first_seen: Instant,
}

impl Candidate {
    pub(super) fn dismiss(&self, reason: DrainReason) -> Action {
        let name = self.name.clone();
        if self.state == AgentState::Registering && self.azure_agent_id.is_none() {
            return Action::Remove {
                name,
                azure_agent_id: None,
                reason: ReapReason::Surplus,
                proof: Proof::None,
            };
        }
        Action::NoteDrain {
            name,
            drain: Drain::Finish,
            reason,
        }
    }
}

/// Who holds the pool's slots.
pub(super) struct Slots {
    /// Launches that wait for their turn.
    pub(super) waiting: Vec<String>,
    /// All launches in flight.
    pub(super) launching: usize,
    /// Agents that are there and not asked to leave.
    pub(super) present: usize,
    /// Those that were launched and have not shown yet whether launches work.
    pub(super) unproven: usize,
    /// Those of them that are idle or busy.
    pub(super) online: usize,
    /// Agents asked to leave that still hold a slot.
    pub(super) leaving: usize,
    /// Those of them that have no job to wait for.
    pub(super) leaving_soon: usize,
    /// Instances that an operation of an earlier life may still be making or removing, that may be
    /// dead out of reach, or that are removed if they prove dead: no slot of theirs is filled, and
    /// nobody goes because of them.
    pub(super) unsettled: usize,
    pub(super) candidates: Vec<Candidate>,
}

impl Slots {
    pub(super) fn count(
        situation: &Situation<'_>,
        ledger: &Ledger,
        in_flight: &InFlight,
        plan: &Plan,
    ) -> Self {
        let launches = in_flight.launches();
        let mut slots = Self {
            waiting: launches
                .iter()
                .filter(|l| l.1)
                .map(|l| l.0.to_owned())
                .collect(),
            launching: launches.len(),
            present: 0,
            unproven: 0,
            online: 0,
            leaving: 0,
            leaving_soon: 0,
            unsettled: 0,
            candidates: Vec::new(),
        };
        for (name, entry) in ledger.iter() {
            let doing = in_flight.doing(name);
            if doing == Some(Doing::Launch) {
                continue; // Counted among the launches.
            }
            if is_lost(situation, entry) || is_superseded(situation, entry) {
                continue; // Its slot is another's.
            }
            // So far they are planned in the ledger's order, one an agent.
            let planned = plan
                .actions
                .binary_search_by(|action| action.name().cmp(name))
                .ok()
                .map(|place| &plan.actions[place]);
            // One that is removed only if it proves dead holds its slot until it does.
            if matches!(
                planned,
                Some(Action::Remove {
                    proof: Proof::None,
                    ..
                })
            ) {
                continue;
            }
            if may_be_dead(situation, entry) || matches!(planned, Some(Action::Remove { .. })) {
                slots.unsettled += 1;
                continue;
            }
            // Also one that is shown as stopped: it is being created, and starts then.
            if !entry.settled && entry.instance.is_some() && !entry.is_spare() {
                slots.unsettled += 1;
                continue;
            }
            let state = state_of(entry, doing, situation.now);
            let new = entry.launched_at.is_some() && !entry.was_online;
            if !state.holds_slot() {
                // It rang before it came online: what that says of launches is not heard yet.
                let rang = state == AgentState::Finishing;
                slots.unproven += usize::from(rang && new && !entry.proven);
                continue;
            }
            if entry.drain().leaves() {
                slots.leaving += 1;
                slots.leaving_soon += usize::from(state != AgentState::Busy);
                continue;
            }
            slots.present += 1;
            slots.unproven += usize::from(new && state != AgentState::Busy);
            slots.online += usize::from(matches!(state, AgentState::Idle | AgentState::Busy));
            let idle = matches!(
                state,
                AgentState::Registering | AgentState::Starting | AgentState::Idle
            );
            // Adopting is about to begin: it can be dropped in the same pass.
            let free = doing.is_none() && (planned.is_none());
            if idle && free && entry.is_due(situation.now) {
                slots.candidates.push(Candidate {
                    name: name.clone(),
                    state,
                    was_replaced: entry.was_replaced,
                    outdated: is_to_be_replaced(situation, entry),
                    replaced_for: match entry.drain() {
                        Drain::Recycle => DrainReason::Requested,
                        _ => DrainReason::Outdated,
                    },
                    azure_agent_id: entry.azure_agent_id,
                    first_seen: entry.first_seen,
                });
            }
        }
        // Those whose slot was filled while their member was lost; old builds, then those that are not
        // ready yet, then the youngest.
        slots.candidates.sort_by(|a, b| {
            (b.was_replaced, b.outdated, a.state, b.first_seen, &a.name).cmp(&(
                a.was_replaced,
                a.outdated,
                b.state,
                a.first_seen,
                &b.name,
            ))
        });
        slots
    }

    /// Returns whether no launch has begun that may still tell whether launches work.
    pub(super) fn is_trying_none(&self) -> bool {
        self.launching == self.waiting.len() && self.unproven == 0
    }

    pub(super) fn staying(&self) -> usize {
        self.launching + self.present
    }

    pub(super) fn held(&self) -> usize {
        self.launching + self.present + self.leaving + self.unsettled
    }
}
