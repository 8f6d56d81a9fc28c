//! Decides what to do: a pure function from what is wanted, what is seen, what is remembered and
//! what is in flight, to a list of actions. No I/O, no clock, no log line. Planning again after
//! the actions took effect yields nothing.
//!
//! What it must never do: touch a busy agent without an operator's force or deadline, act on missing
//! information, keep more than `agent_count` agents, touch an instance whose creation has not
//! ended.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::agent::{self, AgentState, Doing, Drain, Evidence};
use crate::incus;

use super::breaker::Allowance;
use super::in_flight::InFlight;
use super::ledger::{Entry, Ledger};
use super::spec::KeepSpec;

mod action;
mod keep;
mod members;
mod reasons;
mod slots;
mod spares;

pub use action::Action;
use keep::Room;
pub use keep::Staying;
pub use members::{MemberView, replaced};
use members::{is_leaving, is_lost, is_out_of_reach, is_superseded, may_be_dead};
pub use reasons::{DrainReason, Proof, ReapReason};
use slots::Slots;
use spares::Spares;
pub use spares::is_proven as is_proven_spare;

/// What a new agent may take beyond `startupGracePeriod` before it counts as never come online:
/// Azure's own view of it lags.
const STARTUP_SLACK: Duration = Duration::from_secs(60);
/// Azure lists that have to have missed it as well.
const STARTUP_LISTS: u32 = 2;
/// Azure lists that have to have shown another owner's registration dead since it was to go.
const ADOPTED_LISTS: u32 = 2;
/// How long an instance has to be stopped before it is deleted: an ephemeral one that was
/// powered off is shown as stopped for a moment before Incus deletes it.
const STOPPED_GRACE: Duration = Duration::from_secs(5);
/// How long a listener may take to end before it is asked again: the unit kills it after 60 s.
const LISTENER_STOP: Duration = Duration::from_secs(90);
/// How often a listener is asked before its machine is taken away: it hangs.
const LEAVES: u32 = 4;
/// Failed starts in a row after which an instance is given up for another one: what it is that keeps
/// files or commands from getting into it may never end (Incus 6.0 was seen to lose its own way into
/// a container).
const UNFIT_AFTER: u32 = 2;
/// Failed removals in a row after which an agent is called stuck and gives its slot up.
const STUCK_AFTER: u32 = 3;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// New agents to launch, under names of the caller's choice.
    pub launch: usize,
    /// Whether to make a spare, under a name of the caller's choice.
    pub spare: bool,
    /// What to do to agents that are there.
    pub actions: Vec<Action>,
}

/// What the decision rests on.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// How many agents are wanted; 0 when the pool is draining or paused.
    pub wanted: usize,
    /// How many spares are, while agents are wanted.
    pub spares: usize,
    /// An operator paused the pool or the host.
    pub paused: bool,
    /// The pool left the configuration.
    pub removed: bool,
    /// Hash of what an agent is built from now.
    pub spec_hash: &'a str,
    /// What the image alias points at; `None` when it does not exist or is not known.
    pub image: Option<&'a str>,
    /// How long a new agent may take to come online.
    pub startup_grace: Duration,
    /// How long a registered agent may be offline.
    pub offline_grace: Duration,
    /// The last look at Incus worked.
    pub incus_seen: bool,
    /// The Azure pool is known and its last list worked.
    pub azure_usable: bool,
    /// When that list began: ages end there, since what Azure did not say since is not known.
    pub azure_listed: Option<Instant>,
    /// What the pool's breaker allows to be launched.
    pub launches: Allowance,
    /// What of the cluster's members matters.
    pub members: &'a MemberView,
    /// Which agents are kept for debugging when they end.
    pub keep: Option<&'a KeepSpec>,
    /// The moment to plan for.
    pub now: Instant,
    /// The same by the wall clock, which operators' deadlines are told in.
    pub wall: Timestamp,
}

/// Returns an agent's state from its entry.
pub fn state_of(entry: &Entry, doing: Option<Doing>, now: Instant) -> AgentState {
    agent::state(&Evidence {
        instance: entry.instance.as_ref(),
        registration: entry.registration.as_ref(),
        doing,
        was_online: entry.was_online,
        ready_since: entry.ready_since,
        spare: entry.is_spare(),
        stuck: entry.removal_failures >= STUCK_AFTER,
        now,
    })
}

/// Returns whether an agent was built from something else than the pool's present image and spec.
pub fn is_outdated(entry: &Entry, spec_hash: &str, image: Option<&str>) -> bool {
    entry.instance.as_ref().is_some_and(|instance| {
        instance.spec != spec_hash
            || image.is_some_and(|image| !instance.image.is_empty() && instance.image != image)
    })
}

fn is_to_be_replaced(situation: &Situation<'_>, entry: &Entry) -> bool {
    entry.drain() == Drain::Recycle || is_outdated(entry, situation.spec_hash, situation.image)
}

/// Decides what to do.
pub fn plan(situation: &Situation<'_>, ledger: &Ledger, in_flight: &InFlight) -> Plan {
    let mut plan = Plan::default();
    if !situation.incus_seen {
        return plan;
    }
    let sweep = !looks_cloned(ledger);
    let mut room = Room::of(situation, ledger);
    for (name, entry) in ledger.iter() {
        if in_flight.doing(name).is_none() && entry.is_due(situation.now) {
            let action = act_on(situation, name, entry, sweep, &mut room);
            plan.actions
                .extend(action.map(|action| keep::instead(situation, entry, action, &mut room)));
        }
    }
    let slots = Slots::count(situation, ledger, in_flight, &plan);
    let mut spares = Spares::count(situation, ledger, in_flight, &plan);
    adjust_count(situation, &slots, &mut spares, &mut plan);
    spares.adjust(situation, &slots, &mut plan);
    plan
}

/// Returns whether all agents that are wanted are there and online, and spares have lasted:
/// nothing is being tried, so nothing fails any more.
pub fn is_settled(situation: &Situation<'_>, ledger: &Ledger, in_flight: &InFlight) -> bool {
    let slots = Slots::count(situation, ledger, in_flight, &Plan::default());
    let spares = Spares::count(situation, ledger, in_flight, &Plan::default());
    situation.incus_seen && slots.online >= situation.wanted && spares.are_proven()
}

/// Returns whether a registration of ours is online that has no instance here: another host
/// with the same identity may own it, so nothing is swept.
pub fn looks_cloned(ledger: &Ledger) -> bool {
    ledger.iter().any(|(_, entry)| {
        !entry.had_instance
            && entry.adopted.is_none()
            && entry
                .registration
                .as_ref()
                .is_some_and(|facts| facts.online)
    })
}

/// Decides for one agent that nothing is being done to.
fn act_on(
    situation: &Situation<'_>,
    name: &str,
    entry: &Entry,
    sweep: bool,
    room: &mut Room,
) -> Option<Action> {
    let now = situation.now;
    let Some(instance) = &entry.instance else {
        return deregister(situation, name, entry, sweep);
    };
    if !entry.settled {
        return None; // Its creation may not have ended.
    }
    if instance.is_kept() {
        return keep::kept(situation, name, entry);
    }
    let remove = |reason, proof| {
        Some(Action::Remove {
            name: name.to_owned(),
            azure_agent_id: entry.azure_agent_id,
            reason,
            proof,
        })
    };
    let note = |drain| Action::NoteDrain {
        name: name.to_owned(),
        drain,
        reason: DrainReason::Requested,
    };
    if entry.drain() == Drain::Force {
        if instance.drain != Drain::Force && instance.status.is_running() {
            return Some(note(Drain::Force));
        }
        return remove(ReapReason::Forced, Proof::None);
    }
    if entry
        .drain()
        .deadline()
        .is_some_and(|by| by <= situation.wall)
    {
        return remove(ReapReason::Deadline, Proof::None);
    }
    if let Some(force) = entry.remove_wish {
        let proof = match entry.azure_agent_id {
            Some(_) if !force => Proof::Azure,
            _ => Proof::None,
        };
        return remove(ReapReason::Requested, proof);
    }
    let down_for = |grace| {
        entry
            .down_since
            .is_some_and(|since| now.duration_since(since) >= grace)
    };
    let is_moving = matches!(
        instance.status,
        incus::Status::Starting | incus::Status::Stopping | incus::Status::Stopped
    );
    if entry.is_spare() && !is_moving {
        return spares::unwanted(situation, entry).and_then(|reason| remove(reason, Proof::None));
    }
    match instance.status {
        incus::Status::Stopped if down_for(STOPPED_GRACE) => {
            return remove(ReapReason::Stopped, Proof::None);
        }
        incus::Status::Starting | incus::Status::Stopping | incus::Status::Stopped => return None,
        // Somebody paused it, or its cluster member is lost: Azure alone decides.
        incus::Status::Frozen | incus::Status::Error | incus::Status::Other => {
            if is_out_of_reach(situation, entry) {
                return None; // Nothing can be done to it before its member is back.
            }
            if instance.drain < entry.wish && instance.status == incus::Status::Frozen {
                return Some(note(entry.wish));
            }
            if let Some(note) = keep::note(name, entry) {
                return Some(note);
            }
            return is_dead(situation, entry)
                .then(|| remove(ReapReason::Offline, Proof::AzureUnprobed))
                .flatten();
        }
        incus::Status::Running | incus::Status::Ready => {}
    }
    if entry.azure_agent_id.is_none() || instance.azure_agent_id.is_none() {
        // Launched since the last look: its marker is not seen yet.
        if entry.launched_at.is_some() {
            return None;
        }
        return unregistered(situation, name, entry);
    }
    let state = state_of(entry, None, now);
    if state == AgentState::Finishing {
        return keep::answer(situation, name, entry, room);
    }
    if let Some(note) = keep::note(name, entry) {
        return Some(note);
    }
    if entry.launch_failed && state != AgentState::Busy {
        return remove(ReapReason::LaunchFailed, Proof::AzureAndProbe);
    }
    if state == AgentState::Starting && may_be_broken_off(situation, entry) {
        return remove(ReapReason::LaunchFailed, Proof::NotStarted);
    }
    if instance.drain < entry.wish {
        return Some(note(entry.wish));
    }
    if is_superseded(situation, entry) {
        return remove(ReapReason::Replaced, Proof::AzureAndProbe);
    }
    if never_came_online(situation, entry) {
        return remove(ReapReason::NeverOnline, Proof::AzureAndProbe);
    }
    if entry.was_online && is_dead(situation, entry) {
        return remove(ReapReason::Offline, Proof::AzureAndProbe);
    }
    let is_waiting = matches!(state, AgentState::Idle | AgentState::Starting);
    if is_waiting && situation.azure_usable && entry.is_disabled_by_others() {
        // It would hold its slot for good. A busy one ends with its job anyway.
        return Some(Action::NoteDrain {
            name: name.to_owned(),
            drain: Drain::Finish,
            reason: DrainReason::Disabled,
        });
    }
    if is_leaving(situation, entry) && !entry.drain().leaves() {
        return Some(Action::NoteDrain {
            name: name.to_owned(),
            drain: Drain::Finish,
            reason: DrainReason::MemberLeaves,
        });
    }
    let id = instance.azure_agent_id?;
    if entry.drain().leaves() && situation.azure_usable {
        if entry.leaves >= LEAVES && state != AgentState::Busy {
            return remove(ReapReason::NotLeaving, Proof::Azure);
        }
        let must_disable = entry
            .registration
            .as_ref()
            .is_some_and(|facts| facts.enabled);
        let asked = entry
            .left_at
            .is_some_and(|at| now.duration_since(at) < LISTENER_STOP);
        if must_disable || (state != AgentState::Busy && !asked) {
            return Some(Action::Leave {
                name: name.to_owned(),
                azure_agent_id: id,
            });
        }
    }
    None
}

/// A guest whose agent was never registered: wanted, it becomes an agent; else it goes.
fn unregistered(situation: &Situation<'_>, name: &str, entry: &Entry) -> Option<Action> {
    let name = name.to_owned();
    let stays = !situation.removed && !situation.paused && !is_leaving(situation, entry);
    let unwanted = if !stays || entry.drain().leaves() {
        Some(ReapReason::Surplus)
    } else if is_to_be_replaced(situation, entry) {
        Some(ReapReason::Outdated)
    } else if entry.unfit >= UNFIT_AFTER {
        Some(ReapReason::LaunchFailed)
    } else {
        None
    };
    match unwanted {
        Some(reason) => Some(Action::Remove {
            name,
            azure_agent_id: entry.azure_agent_id,
            reason,
            proof: Proof::None,
        }),
        None if situation.azure_usable => Some(Action::Adopt { name }),
        None => None,
    }
}

/// Found after a restart, registered and not online: the daemon may have been killed before it
/// started the listener. Worth one look into the guest, since nothing can come of waiting.
fn may_be_broken_off(situation: &Situation<'_>, entry: &Entry) -> bool {
    entry.launched_at.is_none()
        && !entry.was_online
        && !entry.doubted
        && situation.azure_usable
        && entry.lists_since_registered > 0
        && entry.dead_since.is_some()
}

fn never_came_online(situation: &Situation<'_>, entry: &Entry) -> bool {
    let limit = situation.startup_grace + STARTUP_SLACK;
    // Found after a restart: it may have been online before, so the longer patience counts.
    let limit = match entry.launched_at {
        Some(_) => limit,
        None => limit.max(situation.offline_grace),
    };
    !entry.was_online
        && situation.azure_usable
        && entry.lists_since_registered >= STARTUP_LISTS
        && entry.dead_since.is_some()
        && entry
            .registered_since
            .is_some_and(|since| situation.now.duration_since(since) >= limit)
}

fn is_dead(situation: &Situation<'_>, entry: &Entry) -> bool {
    situation.azure_usable
        && entry.azure_agent_id.is_some()
        && entry
            .dead_since
            .zip(situation.azure_listed)
            .is_some_and(|(since, listed)| listed.duration_since(since) >= situation.offline_grace)
}

/// An agent without an instance: its registration goes, at once when we saw the instance go,
/// after the grace period when we only find the registration, or when an operator names it. One of
/// another owner that an operator has removed here was seen dead that long before; lists since then
/// have to agree.
fn deregister(situation: &Situation<'_>, name: &str, entry: &Entry, sweep: bool) -> Option<Action> {
    let azure_agent_id = entry.azure_agent_id?;
    if entry.deregistered_at.is_some() {
        return None;
    }
    let ready = match entry.adopted {
        // That ours are in doubt says nothing of another host's.
        Some(_) => !awaits_lists(entry) && is_dead(situation, entry),
        None => {
            entry.had_instance
                || entry.remove_wish.is_some()
                || (sweep && is_dead(situation, entry))
        }
    };
    let forced = entry.remove_wish == Some(true);
    ready.then(|| Action::Deregister {
        name: name.to_owned(),
        azure_agent_id,
        ghost: !entry.had_instance && !forced,
    })
}

/// Returns whether it is another owner's registration that is to go, and was not listed since as
/// often as it has to be.
pub fn awaits_lists(entry: &Entry) -> bool {
    entry.adopted.is_some() && entry.lists_since_registered < ADOPTED_LISTS
}

/// Brings the number of agents to what is wanted, and old ones up to date, idle ones only.
fn adjust_count(situation: &Situation<'_>, slots: &Slots, spares: &mut Spares, plan: &mut Plan) {
    let staying = slots.staying();
    if staying > situation.wanted {
        let mut surplus = staying - situation.wanted;
        for name in slots.waiting.iter().take(surplus) {
            plan.actions
                .push(Action::CancelLaunch { name: name.clone() });
        }
        surplus -= surplus.min(slots.waiting.len());
        let reason = if situation.removed {
            DrainReason::PoolRemoved
        } else if situation.paused {
            DrainReason::Paused
        } else {
            DrainReason::Surplus
        };
        for candidate in slots.candidates.iter().take(surplus) {
            plan.actions.push(candidate.dismiss(reason));
        }
        return;
    }
    if slots.held() < situation.wanted && situation.azure_usable {
        let missing = situation.wanted - slots.held();
        let begin = match situation.launches {
            Allowance::All => missing,
            Allowance::One => usize::from(slots.launching == 0 && slots.unproven == 0),
            Allowance::Nothing => 0,
        };
        let promoted = spares.promote(begin);
        if situation.image.is_some() && !situation.members.none_takes {
            plan.launch = begin - promoted.len();
        }
        plan.actions.extend(promoted);
    }
    if situation.launches != Allowance::All {
        // They would only fail as well. One that waits may be the one try.
        let keep = usize::from(situation.launches == Allowance::One && slots.is_trying_none());
        for name in slots.waiting.iter().skip(keep) {
            plan.actions
                .push(Action::CancelLaunch { name: name.clone() });
        }
    }
    let is_full = slots.held() >= situation.wanted;
    // A few at a time, and none while what is to take their place may not come up: capacity stays
    // while the pool turns over.
    if !is_full || situation.launches != Allowance::All {
        return;
    }
    let at_once = (situation.wanted / 4).max(1);
    let under_way = slots.leaving_soon + slots.launching + slots.unproven;
    for candidate in slots
        .candidates
        .iter()
        .filter(|c| c.outdated)
        .take(at_once.saturating_sub(under_way))
    {
        plan.actions.push(candidate.dismiss(candidate.replaced_for));
    }
}

#[cfg(test)]
mod tests;
