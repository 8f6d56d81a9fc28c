//! The course of a simulated time: chaos, then calm, then the pool's removal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::clock::{DAY, HOUR, MINUTE, SECOND, Shared, Tasks};
use super::glue::{Daemon, Done, Wanted};
use super::invariants::Invariants;
use super::world::{Event, World};

/// What a seed came to.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) steps: u64,
    pub(crate) jobs: usize,
    pub(crate) agents: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) wrongs: Vec<String>,
    pub(crate) story: String,
}

impl Told {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.jobs += other.jobs;
        self.agents += other.agents;
        for (what, times) in &other.counts {
            *self.counts.entry(what).or_default() += times;
        }
    }
}

struct Course {
    world: Shared,
    tasks: Tasks<Done>,
    daemon: Daemon,
    wanted: Rc<RefCell<Wanted>>,
    checks: Invariants,
    most: usize,
    /// Between two jobs, two mishaps, two wishes of operators.
    means: [u64; 3],
}

/// Runs a seed.
pub(crate) fn run(seed: u64, length: u64) -> Told {
    // The breakers draw their waits here.
    fastrand::seed(seed);
    let mut course = Course::new(seed);
    course.until(length, |_| false);
    course.calm_down();
    course.until(10 * DAY, |course| course.world.borrow().jobs_are_done());
    // What is kept for debugging is released, and what backs off is tried again.
    course.until(4 * HOUR, |_| false);
    course.is_whole();
    course.wanted.borrow_mut().removed = true;
    course.wake(false);
    course.until(2 * HOUR, |course| course.daemon.finished);
    course.is_gone();
    course.told()
}

impl Course {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.incus.image = "image-0".into();
        let most = world.random.usize(1..=5);
        let intervals = [5, 10, 30];
        let wanted = Wanted {
            count: most,
            paused: false,
            removed: false,
            spec: "spec-0".into(),
            keep: None,
            reconcile_interval: intervals[world.random.usize(..3)] * SECOND,
            poll_interval: intervals[world.random.usize(..3)] * SECOND,
            reaper_interval: 30 * SECOND,
            startup_grace: MINUTE,
            offline_grace: [2, 5, 10][world.random.usize(..3)] * MINUTE,
        };
        let means = [
            world.between(2 * MINUTE, 15 * MINUTE),
            world.between(5 * MINUTE, 2 * HOUR),
            world.between(10 * MINUTE, 3 * HOUR),
        ];
        for event in [Event::JobArrives, Event::Mishap, Event::Operator] {
            world.after(MINUTE, event);
        }
        world.after(0, Event::Begins(0));
        let world = Rc::new(RefCell::new(world));
        let wanted = Rc::new(RefCell::new(wanted));
        Self {
            tasks: Tasks::new(&world),
            daemon: Daemon::new(&world, &wanted),
            world,
            wanted,
            checks: Invariants::default(),
            most,
            means,
        }
    }

    /// Goes on for a while, or until something is so.
    fn until(&mut self, length: u64, done: impl Fn(&Self) -> bool) {
        let end = self.world.borrow().now + length;
        loop {
            let event = {
                let mut world = self.world.borrow_mut();
                if world.now >= end || world.wrongs.len() > 20 {
                    return;
                }
                world.next_event()
            };
            match event {
                Some(event) => self.happen(event),
                None => return,
            }
            if done(self) {
                return;
            }
        }
    }

    fn lives(&self) -> bool {
        self.daemon.life == self.world.borrow().life
    }

    fn wake(&mut self, by_azure: bool) {
        if self.lives() {
            self.daemon
                .wake(&mut self.tasks, by_azure, &mut self.checks);
        }
    }

    fn happen(&mut self, event: Event) {
        let calm = self.world.borrow().calm;
        match event {
            Event::Task(id) => {
                if let Some(done) = self.tasks.go_on(id) {
                    self.done(done);
                }
            }
            Event::Begins(life) if life == self.world.borrow().life => self.begin(),
            Event::Alarm(life, alarm) if self.daemon.is_alarm(life, alarm) => self.wake(false),
            Event::Poll(life, alarm) if self.daemon.poller.is_alarm(life, alarm) => {
                if self.lives() && !self.daemon.finished {
                    self.daemon.poller.ask(&mut self.tasks);
                }
            }
            Event::Begins(_) | Event::Alarm(..) | Event::Poll(..) => {}
            Event::Wake => self.wake(false),
            Event::JobArrives | Event::Mishap | Event::Operator if calm => {}
            Event::JobArrives => {
                let mut world = self.world.borrow_mut();
                world.job_arrives();
                let next = world.about(self.means[0]);
                world.after(next, Event::JobArrives);
            }
            Event::Mishap => self.mishap(),
            Event::Operator if self.daemon.looking || !self.lives() => {
                self.world.borrow_mut().after(SECOND, Event::Operator);
            }
            Event::Operator => {
                let what = self.daemon.operate(self.most);
                let mut world = self.world.borrow_mut();
                world.tell(|| format!("somebody {what}"));
                world.count(what);
                let next = world.about(self.means[2]);
                world.after(next, Event::Operator);
                self.checks.intervened(world.now);
                drop(world);
                self.wake(false);
            }
            other => self.world.borrow_mut().happen(other),
        }
    }

    /// Something goes wrong: around iapd, or with it.
    fn mishap(&mut self) {
        let what = {
            let mut world = self.world.borrow_mut();
            let next = world.about(self.means[1]);
            world.after(next, Event::Mishap);
            world.random.u32(..20)
        };
        match what {
            0..4 => self.kill("iapd is killed"),
            4 => {
                self.world.borrow_mut().reboot();
                self.kill("the host goes down");
            }
            5 => {
                let mut world = self.world.borrow_mut();
                let hours = world.between(0, 48);
                world.wall_off += i64::try_from(hours * HOUR).unwrap_or_default()
                    - i64::try_from(DAY).unwrap_or_default();
                world.count("the clock is set");
            }
            _ => self.world.borrow_mut().mishap(),
        }
    }

    /// iapd is gone. Requests on their way may still arrive.
    fn kill(&mut self, what: &'static str) {
        let mut world = self.world.borrow_mut();
        world.tell(|| what.to_owned());
        world.count(what);
        world.life += 1;
        let life = world.life;
        let length = world.about(2 * MINUTE);
        world.after(length, Event::Begins(life));
        let mut random = world.random.fork();
        drop(world);
        self.tasks.drop_unless(|| random.bool());
    }

    fn begin(&mut self) {
        self.daemon = Daemon::new(&self.world, &self.wanted);
        self.checks.restarted(self.world.borrow().now);
        self.daemon.poller.ask(&mut self.tasks);
        self.wake(false);
    }

    fn done(&mut self, done: Done) {
        let now = self.world.borrow().life;
        match done {
            Done::Looked(life, look) if life == now => {
                self.daemon.looked(&mut self.tasks, *look, &mut self.checks);
            }
            Done::Listed(life, began, listed) if life == now => {
                let at = Invariants::began(&self.world.borrow(), began);
                if !matches!(listed, Err(super::model_incus::No::Paused(_))) {
                    let agents = listed.as_deref().ok();
                    self.checks.listed(at, agents);
                }
                if self.daemon.poller.listed(began, listed) {
                    self.wake(true);
                }
            }
            Done::Acted(life, name, ended) if life == now => {
                let ended = (name, *ended);
                self.daemon.acted(&mut self.tasks, ended, &mut self.checks);
            }
            Done::Looked(..) | Done::Listed(..) | Done::Acted(..) => {}
        }
    }

    fn calm_down(&mut self) {
        let mut world = self.world.borrow_mut();
        world.calm_down();
        world.paused_since = None;
        // Whatever the clock was set to, nobody is kept for debugging any more.
        world.wall_off += i64::try_from(30 * DAY).unwrap_or_default();
        let mut wanted = self.wanted.borrow_mut();
        wanted.paused = false;
        wanted.count = self.most;
        wanted.keep = None;
        world.tell(|| "all goes well from now on".into());
    }

    /// All jobs have ended as they should, and the pool is what is wanted.
    fn is_whole(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let wanted = self.wanted.borrow();
        let mut wrongs = Vec::new();
        if !world.jobs_are_done() {
            wrongs.push("jobs still wait or run".to_owned());
        }
        for (id, job) in &world.azure.jobs {
            let ended = matches!(job.result, Some("succeeded" | "failed"));
            if job.runs != 1 || !(ended || job.excused) {
                let (runs, result) = (job.runs, job.result);
                wrongs.push(format!("job {id} ran {runs} times and {result:?}"));
            }
        }
        let names: Vec<&String> = world.incus.machines.keys().collect();
        if names.len() != wanted.count {
            wrongs.push(format!("{names:?} are there, of {}", wanted.count));
        }
        for (name, machine) in &world.incus.machines {
            let agent = world.agent_named(name);
            let fine = agent.is_some_and(|agent| agent.online && agent.enabled);
            let config = &machine.shown.config;
            let spec = config.get(iapd::agent::key::SPEC);
            let image = config.get(iapd::agent::key::BASE_IMAGE);
            let old = spec != Some(&wanted.spec) || image != Some(&world.incus.image);
            if !fine || old {
                wrongs.push(format!("{name} is not as wanted: online {fine}, old {old}"));
            }
        }
        if world.azure.agents.len() != wanted.count {
            let agents: Vec<&String> = world.azure.agents.values().map(|a| &a.name).collect();
            wrongs.push(format!("{agents:?} are registered, of {}", wanted.count));
        }
        for wrong in wrongs {
            world.violation(format!("in the end {wrong}"));
        }
    }

    /// Nothing is left of a removed pool.
    fn is_gone(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let (machines, agents) = (world.incus.machines.len(), world.azure.agents.len());
        if !self.daemon.finished || machines + agents > 0 {
            let finished = self.daemon.finished;
            world.violation(format!(
                "of the removed pool {machines} instances and {agents} registrations are left, \
                 finished: {finished}"
            ));
        }
    }

    fn told(self) -> Told {
        let world = self.world.borrow();
        Told {
            steps: world.steps,
            jobs: world.azure.jobs.len(),
            agents: world.incus.made,
            counts: world.counts.clone(),
            wrongs: world.wrongs.clone(),
            story: world.story.clone(),
        }
    }
}

impl World {
    /// What happens to Incus, Azure and guests.
    fn happen(&mut self, event: Event) {
        match event {
            Event::CreateEnds(name) => self.create_ends(&name),
            Event::Boots(name) => self.boots(&name),
            Event::Vanishes(name) => self.vanishes(&name),
            Event::Connects(name) => self.connects(&name),
            Event::GivesUp(name) => self.gives_up(&name),
            Event::HookEnds(name) => self.hook_ends(&name),
            Event::PowersOff(name) => self.powers_off(&name),
            Event::Sweeps(name) => self.sweep(&name),
            Event::JobEnds(name, job) => self.job_ends(&name, job),
            Event::Delivers(job, assignment) => self.delivers(job, assignment),
            Event::LockDue(job, assignment) => self.lock_due(job, assignment),
            Event::SessionDue(agent, session) => self.session_due(agent, session),
            Event::Assigns => self.assigns(),
            Event::Ambush(agent) => self.ambush(agent),
            Event::MishapEnds(what, name) => self.mishap_ends(what, &name),
            Event::Late(late) => self.late(late),
            other => unreachable!("{other:?} is not the world's"),
        }
    }
}
