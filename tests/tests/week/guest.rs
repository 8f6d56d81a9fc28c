//! What happens inside guests: boot, listener, worker, the hook that waits for the host's answer,
//! power off.

use iapd::incus::Status;

use super::clock::{MINUTE, SECOND};
use super::model_incus::{No, Unit, show};
use super::world::{Event, Mishap, World};

/// From the last look at an instance until it is stopped.
const UNSEEN: u64 = SECOND;

impl World {
    /// A guest that is up and can be talked to.
    fn guest(&mut self, name: &str, doing: &str) -> Result<&mut super::model_incus::Machine, No> {
        let machine = self.touch(name, doing)?;
        match (machine.runs, machine.frozen) {
            (false, _) => Err(No::Refused("Instance is not running")),
            (true, true) => Err(No::Lost),
            (true, false) => Ok(machine),
        }
    }

    pub(super) fn boots(&mut self, name: &str) {
        if let Some(machine) = self.incus.machines.get_mut(name) {
            machine.booted = true;
        }
    }

    /// Kernel limits, a bad image: a guest is gone, and no error says why.
    pub(super) fn vanishes(&mut self, name: &str) {
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        if machine.runs && machine.shown.ephemeral {
            machine.excuse = Some("the guest vanished");
            self.count("guest vanished");
            self.excuse_job(name);
            self.power_off(name);
        }
    }

    pub(super) fn push(&mut self, name: &str) -> Result<(), No> {
        let machine = self.touch(name, "writes into")?;
        match machine.frozen {
            true => Err(No::Lost),
            false => Ok(()),
        }
    }

    /// The start script: makes the agent's unit, once.
    pub(super) fn start(&mut self, name: &str, agent: i64) -> Result<i32, No> {
        let machine = self.guest(name, "starts the agent of")?;
        match machine.unit {
            Unit::NotStarted => machine.unit = Unit::Listener(agent),
            Unit::Listener(runs) if runs == agent => return Ok(0),
            other => {
                if matches!(other, Unit::Listener(_) | Unit::Worker(..)) {
                    self.violation(format!("starts a second agent in {name}"));
                }
                return Ok(1);
            }
        }
        let (never, fails) = (Mishap::NeverOnline, Mishap::ListenersFail);
        if self.is_wrong(never) || (!self.calm && self.chance(5)) {
            self.count("agent never online");
        } else if self.is_wrong(fails) || (!self.calm && self.chance(5)) {
            let length = self.between(SECOND, 20 * SECOND);
            self.after(length, Event::GivesUp(name.into()));
        } else {
            let length = self.between(SECOND, 8 * SECOND);
            self.after(length, Event::Connects(name.into()));
        }
        Ok(0)
    }

    pub(super) fn gives_up(&mut self, name: &str) {
        let listens = |m: &&mut super::model_incus::Machine| matches!(m.unit, Unit::Listener(_));
        if self.incus.machines.get_mut(name).filter(listens).is_some() {
            self.count("listener gave up");
            self.unit_ends(name, 1);
        }
    }

    /// A listener asks for a session, or for its session again.
    pub(super) fn connects(&mut self, name: &str) {
        let Some(machine) = self.incus.machines.get(name).filter(|m| m.runs) else {
            return;
        };
        let (Unit::Listener(agent) | Unit::Worker(agent, _)) = machine.unit else {
            return;
        };
        if machine.frozen || !machine.contact {
            self.after(30 * SECOND, Event::Connects(name.into()));
        } else if !self.session(agent) && matches!(machine_unit(self, name), Unit::Listener(_)) {
            // "The agent no longer exists on the server."
            self.unit_ends(name, 1);
        }
    }

    /// The agent's unit has ended: its hook rings and waits.
    pub(super) fn unit_ends(&mut self, name: &str, status: i32) {
        let rings = self.calm || !self.chance(30);
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        if let Unit::Listener(agent) | Unit::Worker(agent, _) = machine.unit {
            let contact = machine.contact;
            self.agent_died(agent, contact);
        }
        if status == 0 {
            self.azure.last_success = self.now;
        }
        if let Some(machine) = self.incus.machines.get_mut(name) {
            machine.unit = Unit::Hook(status);
            if rings {
                show(machine, Status::Ready);
            }
        }
        self.tell(|| format!("guest: the agent of {name} ended with {status}"));
        self.after(5 * SECOND, Event::HookEnds(name.into()));
        self.event();
    }

    /// The host's answer to the hook.
    pub(super) fn answer(&mut self, name: &str, stay: bool) -> Result<(), No> {
        let machine = self.guest(name, "answers")?;
        if matches!(machine.unit, Unit::Hook(_)) {
            machine.told_to_stay = stay;
            self.after(50, Event::HookEnds(name.into()));
        }
        Ok(())
    }

    pub(super) fn hook_ends(&mut self, name: &str) {
        let Some(machine) = self.incus.machines.get_mut(name) else {
            return;
        };
        if !matches!(machine.unit, Unit::Hook(_)) {
            return;
        }
        if machine.frozen {
            self.after(30 * SECOND, Event::HookEnds(name.into()));
            return;
        }
        machine.unit = Unit::Ended;
        if !machine.told_to_stay {
            self.after(700, Event::PowersOff(name.into()));
        }
    }

    pub(super) fn powers_off(&mut self, name: &str) {
        if self.incus.machines.get(name).is_some_and(|m| m.runs) {
            self.power_off(name);
        }
    }

    /// How the agent's unit ended, if it did.
    pub(super) fn status_file(&mut self, name: &str) -> Result<i32, No> {
        match self.guest(name, "reads from")?.unit {
            Unit::Hook(status) => Ok(status),
            _ => Err(No::Gone),
        }
    }

    /// SIGINT to the unit: an idle listener closes its session, a job is cancelled.
    pub(super) fn interrupt(&mut self, name: &str) -> Result<i32, No> {
        let hangs = !self.calm && self.chance(20);
        let machine = self.guest(name, "interrupts the agent of")?;
        let (unit, contact) = (machine.unit, machine.contact);
        match unit {
            Unit::Listener(_) if hangs => self.count("listener hangs"),
            Unit::Listener(agent) => {
                if contact {
                    self.session_ends(agent);
                }
                self.unit_ends(name, 0);
            }
            Unit::Worker(_, job) => {
                // One that Azure gave up is cancelled all the same.
                if !self.azure.jobs[&job].is_done() {
                    self.may_be_killed(name);
                }
                if contact {
                    self.finish(job, "canceled");
                }
                self.unit_ends(name, 0);
            }
            _ => {}
        }
        Ok(0)
    }

    /// Whether a worker runs, as the probe tells it.
    pub(super) fn probe(&mut self, name: &str) -> Result<i32, No> {
        if self.is_wrong(Mishap::ProbesFail) {
            return Ok(1);
        }
        match self.guest(name, "probes")?.unit {
            Unit::Worker(..) => Ok(10),
            _ => Ok(0),
        }
    }

    /// Whether its listener was never started.
    pub(super) fn look_for_start(&mut self, name: &str) -> Result<i32, No> {
        match self.guest(name, "looks into")?.unit {
            Unit::NotStarted => Ok(0),
            _ => Ok(10),
        }
    }

    /// A job's worker ends, and with it the agent.
    pub(super) fn job_ends(&mut self, name: &str, job: u64) {
        let result = match self.random.u32(..10) {
            0 => "failed",
            _ => "succeeded",
        };
        let Some(machine) = self.incus.machines.get(name) else {
            return;
        };
        if !matches!(machine.unit, Unit::Worker(_, runs) if runs == job) || !machine.runs {
            return;
        }
        if machine.frozen {
            self.after(MINUTE, Event::JobEnds(name.into(), job));
            return;
        }
        if machine.contact {
            self.finish(job, result);
        } else {
            self.excuse_job(name);
        }
        self.unit_ends(name, 0);
    }

    /// What becomes of a guest's job is not iapd's doing.
    pub(super) fn excuse_job(&mut self, name: &str) {
        if let Unit::Worker(_, job) = machine_unit(self, name)
            && let Some(job) = self.azure.jobs.get_mut(&job)
        {
            job.excused = true;
        }
    }

    /// Someone is about to take a guest's power away, or its job: is there a cause?
    pub(super) fn may_be_killed(&mut self, name: &str) {
        let Some(machine) = self.incus.machines.get(name) else {
            return;
        };
        let wall = self.wall().as_second();
        let is_excused = machine.excuse.is_some() || machine.deadline.is_some_and(|by| by <= wall);
        // What has begun to run since the last look at it is not known to.
        let was_frozen = machine.thawed_at.is_some_and(|at| self.now - at < UNSEEN);
        let (frozen, contact) = (machine.frozen || was_frozen, machine.contact);
        match machine.unit {
            Unit::Worker(_, job) => {
                let ends = self.azure.jobs.get(&job).is_some_and(|job| job.is_done());
                if !(is_excused || (frozen && ends)) {
                    self.violation(format!("kills job {job} on {name}"));
                }
                self.excuse_job(name);
                self.count("job killed with cause");
            }
            Unit::Listener(agent) => {
                let assigned = self.azure.agents.get(&agent).and_then(|a| a.assigned);
                if let Some(job) = assigned.filter(|_| !is_excused && contact && !frozen) {
                    self.violation(format!("stops {name}, which job {job} is assigned to"));
                }
            }
            _ => {}
        }
    }
}

fn machine_unit(world: &World, name: &str) -> Unit {
    let machine = world.incus.machines.get(name);
    machine.map_or(Unit::Ended, |machine| machine.unit)
}
