//! What must hold whatever happens, judged by what is true and by records of its own: nothing of
//! iapd's memory is believed here.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use iapd::agent::{Doing, key};
use iapd::azure::Agent;
use iapd::pool::observe::Observation;
use iapd::pool::plan::{Action, DrainReason, Plan, Proof, ReapReason};

use super::clock::{MINUTE, SECOND};
use super::glue::{Daemon, Wanted};
use super::glue_act::Ended;
use super::glue_launch::Why;
use super::model_incus::Unit;
use super::world::World;

/// See the module.
#[derive(Default)]
pub(super) struct Invariants {
    /// Since when lists follow each other without a gap, and the last one's beginning.
    lists: Option<(u64, u64)>,
    /// The last of them in which an agent was online or had a job.
    alive: BTreeMap<String, u64>,
    /// Failures in a row, and the last one's time.
    failures: BTreeMap<String, (u32, u64)>,
    /// Launches since the last success, or since somebody intervened.
    launches: u64,
    launches_since: u64,
}

impl Invariants {
    /// Nothing is remembered, so nothing is known to have lasted.
    pub(super) fn restarted(&mut self, now: u64) {
        *self = Self {
            launches_since: now,
            ..Self::default()
        };
    }

    /// Somebody intervened: no wait is owed any more.
    pub(super) fn intervened(&mut self, now: u64) {
        self.failures.clear();
        self.launches = 0;
        self.launches_since = now;
    }

    pub(super) fn listed(&mut self, began: u64, agents: Option<&[Agent]>) {
        let Some(agents) = agents else {
            self.lists = None;
            return;
        };
        if self.lists.is_none() {
            self.alive.clear();
        }
        self.lists = Some((self.lists.map_or(began, |lists| lists.0), began));
        for agent in agents {
            if agent.online || agent.assigned.is_some() {
                self.alive.insert(agent.name.clone(), began);
            }
        }
    }

    /// For how long Azure's lists have called an agent dead.
    fn dead_for(&self, name: &str) -> u64 {
        let Some((first, last)) = self.lists else {
            return 0;
        };
        last - self.alive.get(name).copied().unwrap_or(first).max(first)
    }

    /// Judges a plan before anything of it is done.
    pub(super) fn planned(
        &mut self,
        daemon: &Daemon,
        seen: &Observation,
        wanted: &Wanted,
        plan: &Plan,
    ) {
        let world = &mut *daemon.world.borrow_mut();
        if plan.launch > 0 {
            world.tell(|| format!("iapd: launches {}", plan.launch));
        }
        if seen.instances.is_none() && *plan != Plan::default() {
            world.violation(format!("acts without knowing the instances: {plan:?}"));
        }
        let usable = daemon.poller.usable && self.lists.is_some();
        if (!usable || wanted.paused || wanted.removed) && plan.launch > 0 {
            let (paused, removed) = (wanted.paused, wanted.removed);
            world.violation(format!(
                "launches: Azure usable {usable}, paused {paused}, removed {removed}"
            ));
        }
        let mut names = BTreeSet::new();
        for action in &plan.actions {
            let name = action.name();
            if !names.insert(name) {
                world.violation(format!("plans two actions for {name}: {plan:?}"));
            }
            let doing = daemon.in_flight.doing(name);
            if doing.is_some() && !matches!(action, Action::CancelLaunch { .. }) {
                world.violation(format!("plans {action:?} during {doing:?}"));
            }
            self.has_reason(world, wanted, usable, action);
        }
        self.count_agents(daemon, world, wanted, plan);
        self.count_launches(world, wanted, plan);
    }

    fn has_reason(&self, world: &mut World, wanted: &Wanted, usable: bool, action: &Action) {
        let name = action.name();
        let dead_for = self.dead_for(name);
        let long_dead = dead_for >= wanted.offline_grace;
        let fine = match action {
            Action::Adopt { .. } => usable && !wanted.paused && !wanted.removed,
            Action::Leave { .. } => usable,
            Action::Deregister { ghost: true, .. } => usable && long_dead,
            Action::Remove { reason, proof, .. } => match reason {
                ReapReason::Offline => usable && long_dead && *proof != Proof::None,
                ReapReason::NeverOnline => {
                    let machine = world.incus.machines.get(name);
                    let age = machine.map_or(u64::MAX, |m| world.now - m.made_since);
                    usable && age >= wanted.startup_grace + MINUTE && *proof == Proof::AzureAndProbe
                }
                ReapReason::NotLeaving => usable && *proof != Proof::None,
                ReapReason::LaunchFailed => *proof != Proof::None,
                _ => true,
            },
            _ => true,
        };
        if !fine {
            world.violation(format!(
                "{action:?} after {dead_for} ms dead, usable {usable}"
            ));
        }
    }

    /// Never more agents than wanted: what is there in truth, plus what is begun.
    fn count_agents(&self, daemon: &Daemon, world: &mut World, wanted: &Wanted, plan: &Plan) {
        if plan.launch == 0 {
            return;
        }
        let goes = |name: &str| {
            let is_it = |action: &&Action| action.name() == name;
            let planned = plan.actions.iter().find(is_it);
            let none = Proof::None;
            daemon.in_flight.doing(name) == Some(Doing::Remove)
                || matches!(planned, Some(Action::Remove { proof, .. }) if *proof == none)
        };
        let machines = world.incus.machines.iter().filter(|(name, machine)| {
            let ended = matches!(machine.unit, Unit::Hook(_) | Unit::Ended);
            let stands = machine.runs && !ended || machine.is_made;
            let wedged = machine.is_made && world.now > machine.made_since + 25 * MINUTE;
            let kept = machine.shown.config.contains_key(key::KEPT_SINCE);
            let exempt = machine.uncounted || machine.removal_failed || wedged || kept;
            stands && !exempt && !goes(name)
        });
        let there: BTreeSet<&str> = machines.map(|(name, _)| name.as_str()).collect();
        let launches = daemon.in_flight.launches();
        let begun = launches
            .iter()
            .filter(|(name, _)| !world.incus.machines.contains_key(*name))
            .count();
        let all = there.len() + begun + plan.launch;
        if all > wanted.count {
            let (launch, count) = (plan.launch, wanted.count);
            let text = format!("launches {launch} beside {begun} begun and {there:?}, of {count}");
            world.violation(text);
        }
    }

    /// What fails is not tried again and again.
    fn count_launches(&mut self, world: &mut World, wanted: &Wanted, plan: &Plan) {
        if world.azure.last_success > self.launches_since {
            self.launches = 0;
            self.launches_since = world.azure.last_success;
        }
        self.launches += plan.launch as u64;
        let elapsed = world.now - self.launches_since;
        // One after 1, 2, 4, ... seconds, a fifth more or less; then one in four minutes.
        let ramp = u64::from(64 - (elapsed / SECOND).leading_zeros());
        let allowed = wanted.count as u64 + ramp + 2 + elapsed / (4 * MINUTE);
        if self.launches > allowed {
            let launches = self.launches;
            let text = format!("{launches} launches in {elapsed} ms without success: a storm");
            world.violation(text);
            self.launches = 0;
        }
    }

    /// An action begins: not too soon after it failed.
    pub(super) fn begins(&mut self, world: &mut World, action: &Action) {
        let name = action.name();
        world.tell(|| format!("iapd: begins {action:?}"));
        let is_asked_for = matches!(
            action,
            Action::NoteDrain {
                reason: DrainReason::Requested,
                ..
            }
        );
        if is_asked_for {
            return; // By an operator, who does not wait for what failed before.
        }
        if let Some((times, at)) = self.failures.get(name) {
            let owed = SECOND << (*times).min(5);
            if world.now < at + owed {
                let since = world.now - at;
                let text = format!("{action:?} {since} ms after failure {times} on it");
                world.violation(text);
            }
        }
    }

    pub(super) fn ended(&mut self, world: &mut World, name: &str, ended: &Ended) {
        let failed = match ended {
            Ended::Noted(Err(why))
            | Ended::Left(Err(why))
            | Ended::Kept(_, _, Err(why))
            | Ended::Removed(_, _, Err(why))
            | Ended::Deregistered(Err(why)) => !matches!(why, Why::NotProven(_)),
            _ => false,
        };
        if failed {
            let (times, at) = self.failures.entry(name.to_owned()).or_default();
            *times += 1;
            *at = world.now;
            world.count("action failed");
        } else {
            self.failures.remove(name);
        }
    }

    /// Returns the beginning of a list in milliseconds.
    pub(super) fn began(world: &World, began: Instant) -> u64 {
        world.millis(began)
    }
}
