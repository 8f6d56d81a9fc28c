//! Incus and its guests, as far as an agent's life goes: instances, create operations, ephemeral
//! instances that go when they stop, and what runs inside.

use std::collections::BTreeMap;

use iapd::agent::key;
use iapd::incus::{Instance, Status};

use super::clock::{MINUTE, SECOND};
use super::world::{Event, Mishap, World};

/// An instance that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) name: String,
    pub(super) config: BTreeMap<String, String>,
}

/// What the agent's unit in a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    NotStarted,
    Listener(i64),
    /// With a job.
    Worker(i64, u64),
    /// It ended with this status, and its hook waits for an answer.
    Hook(i32),
    Ended,
}

/// An instance and its guest.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) shown: Instance,
    /// Its create operation runs.
    pub(super) is_made: bool,
    pub(super) made_since: u64,
    pub(super) runs: bool,
    pub(super) booted: bool,
    pub(super) frozen: bool,
    /// When it was frozen last, and was no more.
    pub(super) thawed_at: Option<u64>,
    pub(super) contact: bool,
    pub(super) unit: Unit,
    pub(super) told_to_stay: bool,
    /// Deleting it fails.
    pub(super) refuses: bool,
    /// What killing its job is excused by.
    pub(super) excuse: Option<&'static str>,
    /// From then on by the wall clock, an operator's deadline excuses it too.
    pub(super) deadline: Option<i64>,
    /// iapd cannot know of it, or was told by its job that it is over.
    pub(super) uncounted: bool,
    /// Removing it was tried in vain.
    pub(super) removal_failed: bool,
}

/// How a create operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Create {
    Running,
    Success,
    Failure(String),
    Forgotten,
}

/// See the module.
#[derive(Default)]
pub(super) struct Incus {
    pub(super) machines: BTreeMap<String, Machine>,
    operations: BTreeMap<String, (Create, u64)>,
    /// What the alias points at.
    pub(super) image: String,
    /// Names that were used.
    pub(super) made: u64,
}

/// What a call came to when it reached its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    /// No answer, or none that counts.
    Lost,
    /// What it is about is not there.
    Gone,
    /// The server does not do it, in its words.
    Refused(&'static str),
    /// There is one of this name.
    Conflict,
    /// Azure wants to be left alone for so many milliseconds.
    Paused(u64),
}

impl World {
    pub(super) fn create(&mut self, order: &Order) -> Result<(), No> {
        if self.incus.machines.contains_key(&order.name) {
            return Err(No::Refused("UNIQUE constraint failed"));
        }
        let slow = self.is_wrong(Mishap::CreatesAreSlow);
        let length = match (slow, self.calm, self.random.u32(..1000)) {
            (_, false, 0) => self.between(35 * MINUTE, 50 * MINUTE),
            (true, _, _) => self.between(10 * SECOND, 5 * MINUTE),
            (false, false, 1..20) => self.between(10 * SECOND, 2 * MINUTE),
            _ => self.between(150, 3 * SECOND),
        };
        let mut config = order.config.clone();
        config.insert(key::BASE_IMAGE.into(), self.incus.image.clone());
        let shown = Instance {
            name: order.name.clone(),
            project: "default".into(),
            status: Status::Stopped,
            status_text: "Stopped".into(),
            kind: "container".into(),
            ephemeral: true,
            created_at: None,
            location: "none".into(),
            config,
            expanded_config: BTreeMap::new(),
            expanded_devices: BTreeMap::new(),
            profiles: Vec::new(),
        };
        let machine = Machine {
            shown,
            is_made: true,
            made_since: self.now,
            runs: false,
            booted: false,
            frozen: false,
            thawed_at: None,
            contact: true,
            unit: Unit::NotStarted,
            told_to_stay: false,
            refuses: false,
            excuse: None,
            deadline: None,
            uncounted: false,
            removal_failed: false,
        };
        self.incus.machines.insert(order.name.clone(), machine);
        let operation = (Create::Running, self.now);
        self.incus.operations.insert(order.name.clone(), operation);
        self.incus.made += 1;
        self.after(length, Event::CreateEnds(order.name.clone()));
        Ok(())
    }

    pub(super) fn create_ends(&mut self, name: &str) {
        if !self.incus.machines.get(name).is_some_and(|m| m.is_made) {
            return; // The host went down meanwhile.
        }
        let fails = self.is_wrong(Mishap::CreatesFail) || (!self.calm && self.chance(8));
        let result = if fails {
            self.incus.machines.remove(name);
            self.count("create failed");
            Create::Failure("no space left on device".into())
        } else {
            let boot = self.between(100, 2 * SECOND);
            self.after(boot, Event::Boots(name.into()));
            if self.is_wrong(Mishap::GuestsVanish) || (!self.calm && self.chance(5)) {
                let length = self.between(200, 20 * SECOND);
                self.after(length, Event::Vanishes(name.into()));
            }
            if let Some(machine) = self.incus.machines.get_mut(name) {
                machine.is_made = false;
                machine.runs = true;
                show(machine, Status::Running);
            }
            Create::Success
        };
        self.tell(|| format!("incus: create of {name}: {result:?}"));
        let operation = (result, self.now);
        self.incus.operations.insert(name.into(), operation);
        self.event();
    }

    /// How a create operation stands; ended ones are forgotten soon.
    pub(super) fn create_stands(&self, name: &str) -> Create {
        match self.incus.operations.get(name) {
            Some((Create::Running, _)) => Create::Running,
            Some((state, at)) if self.now < at + 5 * SECOND => state.clone(),
            _ => Create::Forgotten,
        }
    }

    /// Tells an event, which may be lost.
    pub(super) fn event(&mut self) {
        if self.calm || !self.chance(100) {
            let length = self.between(5, 50);
            self.after(length, Event::Wake);
        }
    }

    pub(super) fn operations(&self) -> Vec<String> {
        let running = self.incus.machines.iter().filter(|(_, m)| m.is_made);
        running.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn instances(&self) -> Vec<Instance> {
        let machines = self.incus.machines.values();
        machines.map(|machine| machine.shown.clone()).collect()
    }

    /// An instance to do something to.
    pub(super) fn touch(&mut self, name: &str, doing: &str) -> Result<&mut Machine, No> {
        if self.incus.machines.get(name).is_some_and(|m| m.is_made) {
            self.violation(format!("{doing} {name} while it is being created"));
        }
        self.incus.machines.get_mut(name).ok_or(No::Gone)
    }

    pub(super) fn patch(
        &mut self,
        name: &str,
        pairs: Vec<(&'static str, Option<String>)>,
        ephemeral: Option<bool>,
    ) -> Result<(), No> {
        let machine = self.touch(name, "patches")?;
        for (key, value) in pairs {
            match value {
                Some(value) => machine.shown.config.insert(key.into(), value),
                None => machine.shown.config.remove(key),
            };
        }
        machine.shown.ephemeral = ephemeral.unwrap_or(machine.shown.ephemeral);
        Ok(())
    }

    /// Takes an instance's power away.
    pub(super) fn force_stop(&mut self, name: &str) -> Result<(), No> {
        let machine = self.touch(name, "stops")?;
        if machine.runs {
            self.may_be_killed(name);
            self.power_off(name);
        }
        Ok(())
    }

    /// Deletes an instance that is stopped.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), No> {
        let machine = self.touch(name, "deletes")?;
        if machine.refuses {
            machine.removal_failed = true;
            self.count("deletion refused");
            return Err(No::Refused("Not a Btrfs subvolume"));
        }
        if machine.runs {
            return Err(No::Refused("The instance is running"));
        }
        self.incus.machines.remove(name);
        self.tell(|| format!("incus: {name} is deleted"));
        self.event();
        Ok(())
    }

    pub(super) fn power_off(&mut self, name: &str) {
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        let unit = machine.unit;
        if let (Unit::Worker(_, job), true) = (unit, machine.excuse.is_some())
            && let Some(job) = self.azure.jobs.get_mut(&job)
        {
            job.excused = true;
        }
        machine.runs = false;
        machine.frozen = false;
        machine.unit = Unit::Ended;
        let ephemeral = machine.shown.ephemeral;
        let refuses = machine.refuses;
        show(machine, Status::Stopped);
        if let Unit::Listener(agent) | Unit::Worker(agent, _) = unit {
            self.agent_died(agent, false);
        }
        if ephemeral && !refuses {
            self.after(15, Event::Sweeps(name.into()));
        }
        self.tell(|| format!("incus: {name} is off"));
        self.event();
    }

    /// An ephemeral instance goes when it has stopped.
    pub(super) fn sweep(&mut self, name: &str) {
        if self
            .incus
            .machines
            .get(name)
            .is_some_and(|machine| !machine.runs && machine.shown.ephemeral)
        {
            self.incus.machines.remove(name);
            self.event();
        }
    }

    /// All guests go down, as when the host does.
    pub(super) fn reboot(&mut self) {
        let names: Vec<String> = self.incus.machines.keys().cloned().collect();
        for name in names {
            let Some(machine) = self.incus.machines.get_mut(&name) else {
                continue;
            };
            machine.excuse = Some("the host went down");
            if machine.is_made {
                // Its operation is gone, and so is what it made.
                self.incus.machines.remove(&name);
                let operation = (Create::Failure("gone".into()), self.now);
                self.incus.operations.insert(name, operation);
            } else if machine.runs {
                self.power_off(&name);
            }
        }
    }
}

/// Shows another status.
pub(super) fn show(machine: &mut Machine, status: Status) {
    machine.shown.status = status;
    machine.shown.status_text = format!("{status:?}");
}
