//! What people do to a pool, and what goes wrong around it.

use std::cmp::Reverse;
use std::time::Duration;

use iapd::agent::{AgentState, Drain, Keep};
use iapd::incus::Status;
use iapd::pool::plan;
use iapd::pool::spec::{KeepSpec, KeepWhen};

use super::clock::{HOUR, MINUTE, SECOND};
use super::glue::Daemon;
use super::model_incus::{Unit, show};
use super::world::{Event, Mishap, World};

impl World {
    /// Something goes wrong, for seconds or hours.
    pub(super) fn mishap(&mut self) {
        let what = Mishap::ALL[self.random.usize(..Mishap::ALL.len())];
        self.count(what.words());
        let mut length = self.about(10 * MINUTE).max(SECOND);
        if self.chance(100) {
            length *= 10;
        }
        match what {
            Mishap::RefusesRemoval | Mishap::Frozen | Mishap::LostContact => {
                let Some(name) = self.any_machine() else {
                    return;
                };
                self.tell(|| format!("mishap: {} for {length} ms: {name}", what.words()));
                self.befall(&name, what);
                self.after(length, Event::MishapEnds(what, name));
            }
            what => {
                self.tell(|| format!("mishap: {} for {length} ms", what.words()));
                self.begin_wrong(what, length);
            }
        }
    }

    /// An instance whose creation has ended.
    pub(super) fn any_machine(&mut self) -> Option<String> {
        let machines = self.incus.machines.iter();
        let names: Vec<String> = machines
            .filter(|(_, machine)| machine.runs)
            .map(|(name, _)| name.clone())
            .collect();
        let chosen = self.random.usize(..names.len().max(1));
        names.into_iter().nth(chosen)
    }

    fn befall(&mut self, name: &str, what: Mishap) {
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        match what {
            Mishap::RefusesRemoval => {
                machine.refuses = true;
                return;
            }
            Mishap::Frozen if machine.shown.status == Status::Running => {
                machine.frozen = true;
                show(machine, Status::Frozen);
            }
            Mishap::LostContact => machine.contact = false,
            _ => return,
        }
        if let Unit::Listener(agent) | Unit::Worker(agent, _) = machine.unit {
            self.agent_died(agent, false);
        }
    }

    /// It is over.
    pub(super) fn mishap_ends(&mut self, what: Mishap, name: &str) {
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        match what {
            Mishap::RefusesRemoval => machine.refuses = false,
            Mishap::Frozen if machine.frozen => {
                machine.frozen = false;
                machine.thawed_at = Some(self.now);
                show(machine, Status::Running);
            }
            _ => machine.contact = true,
        }
        self.after(SECOND, Event::Connects(name.into()));
    }

    /// From now on all goes well.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        let names: Vec<String> = self.incus.machines.keys().cloned().collect();
        for name in names {
            for what in [Mishap::RefusesRemoval, Mishap::Frozen, Mishap::LostContact] {
                self.mishap_ends(what, &name);
            }
        }
    }

    fn excuse(&mut self, name: &str, excuse: &'static str) {
        if let Some(machine) = self.incus.machines.get_mut(name) {
            machine.excuse = Some(excuse);
        }
    }

    /// Somebody stops an instance behind iapd's back.
    fn stop_behind(&mut self, name: &str) {
        self.excuse(name, "somebody stopped it");
        self.excuse_job(name);
        self.power_off(name);
    }

    /// A job with root rights rings the doorbell of its machine.
    fn ring_falsely(&mut self, name: &str) {
        if let Some(machine) = self.incus.machines.get_mut(name)
            && let Unit::Worker(..) = machine.unit
        {
            machine.uncounted = true;
            show(machine, Status::Ready);
        }
    }

    /// Somebody meddles with an agent in Azure.
    fn meddle(&mut self, name: &str, delete: bool) {
        let agents = self.azure.agents.iter();
        let mut agents = agents.filter(|(_, agent)| agent.name == name && agent.assigned.is_none());
        let Some(id) = agents.next().map(|(id, _)| *id) else {
            return;
        };
        if delete {
            self.azure.agents.remove(&id);
            let length = self.between(SECOND, MINUTE);
            self.after(length, Event::GivesUp(name.into()));
        } else if let Some(agent) = self.azure.agents.get_mut(&id) {
            agent.enabled = false;
        }
    }
}

impl Daemon {
    /// Somebody wants something. Returns what.
    pub(super) fn operate(&mut self, most: usize) -> &'static str {
        let (what, name) = {
            let mut world = self.world.borrow_mut();
            let name = world.any_machine();
            (world.random.u32(..20), name.unwrap_or_default())
        };
        match what {
            0 | 1 => self.pause(),
            2 | 3 => self.scale(most),
            4 => self.change_spec(),
            5 => self.move_image(),
            6 => self.drain_one(&name, Drain::Recycle),
            7 | 8 => self.drain_one(&name, Drain::Finish),
            9 => self.drain_by(&name),
            10 => {
                let done = self.drain_one(&name, Drain::Force);
                self.world.borrow_mut().excuse(&name, "drained by force");
                done
            }
            11 | 12 => self.keep(&name),
            13 => self.release(&name),
            14 => self.reap(&name, false),
            15 => {
                self.world.borrow_mut().excuse(&name, "removed by force");
                self.reap(&name, true)
            }
            16 => {
                let now = self.now();
                self.breaker.retry_now(now);
                "retries"
            }
            17 => {
                self.world.borrow_mut().stop_behind(&name);
                "stops an instance"
            }
            18 => {
                self.world.borrow_mut().ring_falsely(&name);
                "rings falsely"
            }
            _ => {
                let mut world = self.world.borrow_mut();
                let delete = world.random.bool();
                world.meddle(&name, delete);
                match delete {
                    true => "deletes a registration in Azure",
                    false => "disables an agent in Azure",
                }
            }
        }
    }

    fn pause(&mut self) -> &'static str {
        let mut wanted = self.wanted.borrow_mut();
        wanted.paused = !wanted.paused;
        let mut world = self.world.borrow_mut();
        world.paused_since = wanted.paused.then_some(world.now);
        match wanted.paused {
            true => "pauses",
            false => "resumes",
        }
    }

    fn scale(&mut self, most: usize) -> &'static str {
        self.wanted.borrow_mut().count = self.world.borrow_mut().random.usize(0..=most);
        "scales"
    }

    fn change_spec(&mut self) -> &'static str {
        let mut world = self.world.borrow_mut();
        self.wanted.borrow_mut().spec = format!("spec-{}", world.random.u32(0..4));
        let keeps = world.random.bool();
        self.wanted.borrow_mut().keep = keeps.then(|| KeepSpec {
            when: KeepWhen::ALL.to_vec(),
            ttl: Duration::from_secs(30 * 60),
            max: 2,
        });
        drop(world);
        self.forget_image();
        "changes the spec"
    }

    fn move_image(&mut self) -> &'static str {
        let mut world = self.world.borrow_mut();
        let number = world.random.u32(0..4);
        world.incus.image = format!("image-{number}");
        "moves the image"
    }

    fn drain_one(&mut self, name: &str, drain: Drain) -> &'static str {
        self.drain(name, drain);
        "drains"
    }

    fn drain_by(&mut self, name: &str) -> &'static str {
        let by = {
            let mut world = self.world.borrow_mut();
            let ahead = world.between(0, 2 * HOUR) / 1000;
            let by = world.wall().as_second() + i64::try_from(ahead).unwrap_or_default();
            if let Some(machine) = world.incus.machines.get_mut(name) {
                machine.deadline = Some(machine.deadline.map_or(by, |old| old.min(by)));
            }
            by
        };
        self.drain(name, Drain::FinishBy(Reverse(by)));
        "drains with a deadline"
    }

    fn keep(&mut self, name: &str) -> &'static str {
        let now = self.now();
        let doing = self.in_flight.doing(name);
        let (wall, length) = {
            let mut world = self.world.borrow_mut();
            (world.wall(), world.between(0, 2 * HOUR))
        };
        if let Some(entry) = self.ledger.get_mut(name) {
            let state = plan::state_of(entry, doing, now);
            let can = matches!(
                state,
                AgentState::Starting
                    | AgentState::Idle
                    | AgentState::Busy
                    | AgentState::Unknown
                    | AgentState::Kept
            );
            if can && (state == AgentState::Kept || entry.drain() != Drain::Force) {
                entry.keep_wish = Some(Keep {
                    until: Keep::end_after(wall, Duration::from_millis(length)),
                    reason: "a look".into(),
                    by: "ana".into(),
                    since: None,
                });
                entry.retry_at = None;
            }
        }
        "keeps"
    }

    fn release(&mut self, name: &str) -> &'static str {
        let until = Keep::end_after(self.world.borrow().wall(), Duration::ZERO);
        if let Some(entry) = self.ledger.get_mut(name)
            && let Some(keep) = entry.keep().cloned()
        {
            entry.keep_wish = Some(Keep {
                until: until.min(keep.until),
                ..keep
            });
            entry.retry_at = None;
        }
        "releases"
    }

    fn reap(&mut self, name: &str, force: bool) -> &'static str {
        let now = self.now();
        let doing = self.in_flight.doing(name);
        if let Some(entry) = self.ledger.get_mut(name)
            && (force || plan::state_of(entry, doing, now) != AgentState::Busy)
        {
            entry.remove_wish = Some(force);
            entry.retry_at = None;
        }
        match force {
            true => "removes by force",
            false => "removes",
        }
    }
}
