//! Jobs, as Azure treats them: they wait, are assigned to an idle agent, received by its listener,
//! locked while its worker renews that, and given up when it does not.

use super::clock::{HOUR, MINUTE, SECOND};
use super::model_azure::Registered;
use super::model_incus::{Machine, Unit};
use super::world::{Event, World};

/// A job's lock that nobody renews is kept so long.
const LOCK: u64 = 10 * MINUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waits,
    Assigned,
    Runs,
    Done,
}

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) stage: Stage,
    agent: Option<i64>,
    assignment: u32,
    pub(super) runs: u32,
    pub(super) result: Option<&'static str>,
    /// What became of it is not iapd's doing.
    pub(super) excused: bool,
    length: u64,
}

impl Job {
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }
}

impl World {
    /// Queues a job.
    pub(super) fn job_arrives(&mut self) -> u64 {
        self.azure.next_job += 1;
        let id = self.azure.next_job;
        let length = match self.random.u32(..100) {
            0 => self.between(HOUR, 3 * HOUR),
            1..20 => self.between(10 * MINUTE, 40 * MINUTE),
            _ => self.between(10 * SECOND, 8 * MINUTE),
        };
        let job = Job {
            stage: Stage::Waits,
            agent: None,
            assignment: 0,
            runs: 0,
            result: None,
            excused: false,
            length,
        };
        self.azure.jobs.insert(id, job);
        self.azure.open.insert(id);
        let length = self.between(50, 2 * SECOND);
        self.after(length, Event::Assigns);
        id
    }

    /// Whether all jobs have ended.
    pub(super) fn jobs_are_done(&self) -> bool {
        self.azure.open.is_empty()
    }

    pub(super) fn assigns(&mut self) {
        let waiting = self.azure.open.iter().copied();
        let waits = |job: &u64| self.azure.jobs[job].stage == Stage::Waits;
        let waiting: Vec<u64> = waiting.filter(waits).collect();
        for job in waiting {
            let agents = self.azure.agents.iter();
            let free = agents
                .filter(|(_, a)| a.enabled && a.session.is_some() && a.assigned.is_none())
                .map(|(id, _)| *id);
            let free: Vec<i64> = free.collect();
            if free.is_empty() {
                return;
            }
            let chosen = free[self.random.usize(..free.len())];
            self.assign(job, chosen);
        }
    }

    fn assign(&mut self, id: u64, agent: i64) {
        let Some(job) = self.azure.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Assigned;
        job.agent = Some(agent);
        job.assignment += 1;
        let assignment = job.assignment;
        if let Some(agent) = self.azure.agents.get_mut(&agent) {
            agent.assigned = Some(id);
            let name = agent.name.clone();
            self.tell(|| format!("azure: job {id} is assigned to {name}"));
        }
        let length = self.between(50, 3 * SECOND);
        self.after(length, Event::Delivers(id, assignment));
        self.after(LOCK, Event::LockDue(id, assignment));
    }

    /// The assignment that a disabling came too late for.
    pub(super) fn ambush(&mut self, agent: i64) {
        let is_idle = |agent: &&Registered| agent.session.is_some() && agent.assigned.is_none();
        if self.azure.agents.get(&agent).filter(is_idle).is_some() {
            self.count("assigned while disabled");
            let job = self.job_arrives();
            self.assign(job, agent);
        }
    }

    /// A message reaches its agent, or waits on.
    pub(super) fn delivers(&mut self, id: u64, assignment: u32) {
        let Some(job) = self.azure.jobs.get(&id) else {
            return;
        };
        let Some(agent) = job
            .agent
            .filter(|_| job.stage == Stage::Assigned && job.assignment == assignment)
        else {
            return;
        };
        let length = job.length;
        let name = self.azure.agents.get(&agent).map(|a| a.name.clone());
        let machine = name.and_then(|name| self.incus.machines.get_mut(&name));
        let ready =
            |m: &&mut Machine| m.runs && m.contact && !m.frozen && m.unit == Unit::Listener(agent);
        let Some(machine) = machine.filter(ready) else {
            self.after(10 * SECOND, Event::Delivers(id, assignment));
            return;
        };
        machine.unit = Unit::Worker(agent, id);
        let name = machine.shown.name.clone();
        self.after(length, Event::JobEnds(name.clone(), id));
        if let Some(job) = self.azure.jobs.get_mut(&id) {
            job.stage = Stage::Runs;
            job.runs += 1;
            if job.runs > 1 {
                self.violation(format!("job {id} runs again"));
            }
        }
        self.tell(|| format!("guest: {name} runs job {id}"));
    }

    /// A lock is renewed, or lapses.
    pub(super) fn lock_due(&mut self, id: u64, assignment: u32) {
        let Some(job) = self.azure.jobs.get(&id) else {
            return;
        };
        if job.assignment != assignment {
            return;
        }
        match job.stage {
            Stage::Assigned => {
                self.count("assignment lapsed");
                self.requeue(id);
            }
            Stage::Runs => {
                let machine = self
                    .incus
                    .machines
                    .values()
                    .find(|m| matches!(m.unit, Unit::Worker(_, runs) if runs == id && m.runs));
                if machine.is_some_and(|m| m.contact && !m.frozen) {
                    self.after(LOCK, Event::LockDue(id, assignment));
                    return;
                }
                // Cut off for long enough, Azure gives it up, and that is nobody's doing here.
                let excused = job.excused || machine.is_some();
                let name = machine.map(|machine| machine.shown.name.clone());
                self.count("job abandoned");
                if !excused {
                    self.violation(format!("job {id} was lost"));
                }
                if let Some(job) = self.azure.jobs.get_mut(&id) {
                    job.excused = true;
                }
                self.finish(id, "abandoned");
                if let Some(name) = name {
                    // Its worker gives up a little later, unless it has ended by then.
                    self.after(5 * MINUTE, Event::JobEnds(name, id));
                }
            }
            Stage::Waits | Stage::Done => {}
        }
    }

    pub(super) fn requeue(&mut self, id: u64) {
        self.count("job given back");
        self.tell(|| format!("azure: job {id} goes back to the queue"));
        let Some(job) = self.azure.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Waits;
        let agent = job.agent.take();
        if let Some(agent) = agent.and_then(|agent| self.azure.agents.get_mut(&agent)) {
            agent.assigned = None;
        }
        self.after(SECOND, Event::Assigns);
    }

    /// A job has a result.
    pub(super) fn finish(&mut self, id: u64, result: &'static str) {
        let Some(job) = self.azure.jobs.get_mut(&id) else {
            return;
        };
        if job.stage == Stage::Done {
            return;
        }
        job.stage = Stage::Done;
        job.result = Some(result);
        self.azure.open.remove(&id);
        if let Some(agent) = job
            .agent
            .and_then(|agent| self.azure.agents.get_mut(&agent))
        {
            agent.assigned = None;
            agent.last = Some((id, result));
        }
        self.tell(|| format!("azure: job {id} {result}"));
        self.after(SECOND, Event::Assigns);
    }
}
