//! What stays for debugging after its agent's end: because an operator said so, or because the
//! pool keeps agents that ended like this. Pure, as all of the plan.

use crate::agent::{Drain, Keep};

use super::super::ending;
use super::super::ledger::{Entry, Ledger};
use super::super::spec::KeepWhen;
use super::{Action, Proof, ReapReason, Situation};

/// How an instance is made to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Staying {
    /// It is only written down: its agent goes on as it is.
    Noted,
    /// Its agent has ended and waits to be told whether its machine goes.
    Answered {
        /// What there is to be known of its end is known.
        heard: bool,
    },
    /// It would be removed now: what has to be true for that has to be true for this.
    InsteadOf(ReapReason, Proof),
}

/// How many more a pool may keep by its policy.
pub(super) struct Room(u32);

impl Room {
    pub(super) fn of(situation: &Situation<'_>, ledger: &Ledger) -> Self {
        let max = situation.keep.map_or(0, |policy| policy.max);
        let kept = ledger
            .iter()
            .filter(|(_, entry)| entry.instance.is_some())
            .filter(|(_, entry)| entry.keep().is_some_and(Keep::is_policy))
            .count();
        Self(max.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX)))
    }
}

/// Returns what the pool's policy makes of an agent that ended like this, if there is room.
fn by_policy(situation: &Situation<'_>, when: KeepWhen, room: &mut Room) -> Option<Keep> {
    let policy = policy_for(situation, when)?;
    room.0 = room.0.checked_sub(1)?;
    Some(Keep {
        until: Keep::end_after(situation.wall, policy.ttl),
        reason: when.as_str().to_owned(),
        by: String::new(),
        since: Some(situation.wall),
    })
}

fn policy_for<'a>(
    situation: &Situation<'a>,
    when: KeepWhen,
) -> Option<&'a super::super::spec::KeepSpec> {
    let policy = situation.keep.filter(|_| !situation.removed)?;
    policy.when.contains(&when).then_some(policy)
}

/// Returns the wish that an agent stays, if its time is not over: as of its end now.
fn wished(situation: &Situation<'_>, entry: &Entry) -> Option<Keep> {
    let keep = entry.keep().filter(|keep| !keep.is_over(situation.wall))?;
    let noted = entry.instance.as_ref().and_then(|i| i.keep.as_ref());
    let since = noted.and_then(|noted| noted.since);
    Some(Keep {
        since: since.or(Some(situation.wall)),
        ..keep.clone()
    })
}

fn keep(name: &str, entry: &Entry, keep: Keep, staying: Staying) -> Action {
    // Who is to stay gets no other job, and ends now or with the one it has.
    let drain = match keep.has_ended() {
        true => entry.drain(),
        false => entry.drain().max(Drain::Finish),
    };
    Action::Keep {
        name: name.to_owned(),
        azure_agent_id: entry.azure_agent_id,
        keep,
        drain,
        staying,
    }
}

/// Writes a wish down that is not on the instance yet.
pub(super) fn note(name: &str, entry: &Entry) -> Option<Action> {
    let wish = entry.keep_wish.clone()?;
    let noted = entry.instance.as_ref().and_then(|i| i.keep.as_ref());
    let since = noted.and_then(|noted| noted.since);
    Some(keep(name, entry, Keep { since, ..wish }, Staying::Noted))
}

/// Answers an agent that has ended: its machine goes, or stays.
pub(super) fn answer(
    situation: &Situation<'_>,
    name: &str,
    entry: &Entry,
    room: &mut Room,
) -> Option<Action> {
    if entry.answered {
        return None;
    }
    if let Some(wish) = wished(situation, entry) {
        let heard = entry.heard;
        return Some(keep(name, entry, wish, Staying::Answered { heard }));
    }
    let asks = policy_for(situation, KeepWhen::JobFailed).is_some();
    if let (true, false, Some(azure_agent_id)) = (asks, entry.heard, entry.azure_agent_id) {
        return Some(Action::Hear {
            name: name.to_owned(),
            azure_agent_id,
        });
    }
    let failed = asks && ending::has_failed(&entry.past);
    if failed && let Some(wish) = by_policy(situation, KeepWhen::JobFailed, room) {
        let staying = Staying::Answered { heard: true };
        return Some(keep(name, entry, wish, staying));
    }
    Some(Action::AnswerDoorbell {
        name: name.to_owned(),
        heard: entry.heard,
        no_room: failed,
    })
}

/// Keeps an agent that would be removed, if it is to be kept.
pub(super) fn instead(
    situation: &Situation<'_>,
    entry: &Entry,
    action: Action,
    room: &mut Room,
) -> Action {
    let Action::Remove {
        name,
        reason,
        proof,
        ..
    } = &action
    else {
        return action;
    };
    let wish = match reason {
        // Somebody wants it gone.
        ReapReason::Forced
        | ReapReason::Deadline
        | ReapReason::Requested
        | ReapReason::KeepOver => None,
        ReapReason::NeverOnline => {
            wished(situation, entry).or_else(|| by_policy(situation, KeepWhen::NeverOnline, room))
        }
        _ => wished(situation, entry),
    };
    match wish {
        Some(wish) => keep(name, entry, wish, Staying::InsteadOf(*reason, *proof)),
        None => action,
    }
}

/// Decides for one that is kept: nothing is done to it but what its end asks for.
pub(super) fn kept(situation: &Situation<'_>, name: &str, entry: &Entry) -> Option<Action> {
    let instance = entry.instance.as_ref()?;
    let is_registered = entry.azure_agent_id.is_some() && entry.deregistered_at.is_none();
    let remove = |reason, proof| Action::Remove {
        name: name.to_owned(),
        azure_agent_id: entry.azure_agent_id,
        reason,
        proof,
    };
    if let Some(force) = entry.remove_wish {
        let proof = match is_registered && !force {
            true => Proof::Azure,
            false => Proof::None,
        };
        return Some(remove(ReapReason::Requested, proof));
    }
    if entry.keep_wish.is_some() {
        return note(name, entry);
    }
    if instance.keep.as_ref()?.is_over(situation.wall) {
        // Whether a job is still assigned to it is Azure's to say.
        return match is_registered {
            false => Some(remove(ReapReason::KeepOver, Proof::None)),
            true => situation
                .azure_usable
                .then(|| remove(ReapReason::KeepOver, Proof::Azure)),
        };
    }
    // Its listener went on for a while: one that never came online, and now was told to give up.
    let rings = instance.status.is_running() && entry.ready_since.is_some();
    if rings && !entry.answered {
        let heard = entry.heard;
        let wish = wished(situation, entry)?;
        return Some(keep(name, entry, wish, Staying::Answered { heard }));
    }
    // No list, or a job on it still: its registration waits.
    let may_deregister = is_registered && situation.azure_usable && entry.dead_since.is_some();
    may_deregister.then(|| Action::Deregister {
        name: name.to_owned(),
        azure_agent_id: entry.azure_agent_id.unwrap_or_default(),
        ghost: false,
    })
}
