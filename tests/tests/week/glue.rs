//! One life of iapd: the pool's loop as `pool/reconciler.rs` has it, around the real ledger, plan,
//! in-flight map and breaker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use iapd::agent::AgentState;
use iapd::incus::Instance;
use iapd::pool::breaker::Breaker;
use iapd::pool::in_flight::InFlight;
use iapd::pool::ledger::Ledger;
use iapd::pool::observe::Observation;
use iapd::pool::plan::{self, MemberView, Situation};
use iapd::pool::spec::KeepSpec;

use super::calls::Calls;
use super::clock::{MINUTE, Shared, Tasks};
use super::glue_act::Ended;
use super::glue_azure::Poller;
use super::invariants::Invariants;
use super::model_incus::No;

/// What is wanted: the configuration and operators' intents, which outlive iapd.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) count: usize,
    pub(super) paused: bool,
    pub(super) removed: bool,
    pub(super) spec: String,
    pub(super) keep: Option<KeepSpec>,
    pub(super) reconcile_interval: u64,
    pub(super) poll_interval: u64,
    pub(super) reaper_interval: u64,
    pub(super) startup_grace: u64,
    pub(super) offline_grace: u64,
}

/// What a look at Incus brought.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) began: Instant,
    pub(super) listed: Option<Result<Vec<Instance>, No>>,
    pub(super) image: Option<Result<String, No>>,
    pub(super) operations: Result<Vec<String>, No>,
}

/// Something that a life of iapd waited for.
pub(super) enum Done {
    Looked(u64, Box<Look>),
    Listed(u64, Instant, Result<Vec<iapd::azure::Agent>, No>),
    Acted(u64, String, Box<Ended>),
}

/// The alias is looked up again when it was not for this long.
const IMAGE_INTERVAL: u64 = MINUTE;
const CREATES_AT_ONCE: usize = 2;

/// See the module.
pub(super) struct Daemon {
    pub(super) world: Shared,
    pub(super) life: u64,
    pub(super) wanted: Rc<RefCell<Wanted>>,
    pub(super) ledger: Ledger,
    pub(super) in_flight: InFlight,
    /// The simulated Incus is no cluster.
    members: MemberView,
    pub(super) breaker: Breaker,
    pub(super) poller: Poller,
    pub(super) gate: Rc<Cell<usize>>,
    pub(super) seen: Observation,
    pub(super) image: Option<String>,
    pub(super) image_at: Option<u64>,
    pub(super) listed_at: Option<Instant>,
    pub(super) incus_failed: bool,
    is_stale: bool,
    pub(super) planned_at: Option<Instant>,
    alive_at: Option<Instant>,
    pub(super) looking: bool,
    again: bool,
    /// Actions that ended during a look are taken in after it.
    waiting: Vec<(String, Ended)>,
    pub(super) alarm: u64,
    pub(super) finished: bool,
}

impl Daemon {
    pub(super) fn new(world: &Shared, wanted: &Rc<RefCell<Wanted>>) -> Self {
        let calls = Calls::new(world);
        let removed = wanted.borrow().removed;
        Self {
            life: calls.life,
            poller: Poller::new(calls, wanted.borrow().poll_interval),
            world: Rc::clone(world),
            wanted: Rc::clone(wanted),
            ledger: Ledger::default(),
            in_flight: InFlight::default(),
            members: MemberView::default(),
            breaker: Breaker::default(),
            gate: Rc::new(Cell::new(CREATES_AT_ONCE)),
            seen: Observation::default(),
            image: None,
            image_at: None,
            listed_at: None,
            incus_failed: false,
            is_stale: true,
            planned_at: None,
            alive_at: removed.then(|| world.borrow().instant()),
            looking: false,
            again: false,
            waiting: Vec::new(),
            alarm: 0,
            finished: false,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.world.borrow().instant()
    }

    /// Something happened: look, and plan. After a new Azure list the last look may do.
    pub(super) fn wake(
        &mut self,
        tasks: &mut Tasks<Done>,
        by_azure: bool,
        checks: &mut Invariants,
    ) {
        if self.finished {
            return;
        }
        if self.looking {
            self.again = true;
            return;
        }
        let began = self.now();
        let interval = Duration::from_millis(self.wanted.borrow().reconcile_interval);
        let fresh = self
            .listed_at
            .is_some_and(|at| !self.incus_failed && began.duration_since(at) < interval);
        if by_azure && !self.is_stale && fresh {
            let look = Look {
                began,
                listed: None,
                image: None,
                operations: Err(No::Lost),
            };
            self.pass(tasks, look, checks);
            return;
        }
        self.looking = true;
        let now = self.world.borrow().now;
        let image_due = self.image_at.is_none_or(|at| now >= at + IMAGE_INTERVAL);
        let calls = Calls::new(&self.world);
        self.is_stale = false;
        let life = self.life;
        tasks.spawn(async move {
            let listed = Some(calls.incus(|world| Ok(world.instances())).await);
            let image = match image_due {
                true => Some(calls.incus(|world| Ok(world.incus.image.clone())).await),
                false => None,
            };
            let operations = calls.incus(|world| Ok(world.operations())).await;
            let look = Look {
                began,
                listed,
                image,
                operations,
            };
            Done::Looked(life, Box::new(look))
        });
    }

    pub(super) fn looked(&mut self, tasks: &mut Tasks<Done>, look: Look, checks: &mut Invariants) {
        self.looking = false;
        self.pass(tasks, look, checks);
        let waiting = std::mem::take(&mut self.waiting);
        let again = std::mem::take(&mut self.again) || !waiting.is_empty();
        for (name, ended) in waiting {
            self.ended(&name, ended, checks);
        }
        if again {
            self.wake(tasks, false, checks);
        }
    }

    /// Takes in how an action ended, and looks again.
    pub(super) fn acted(
        &mut self,
        tasks: &mut Tasks<Done>,
        (name, ended): (String, Ended),
        checks: &mut Invariants,
    ) {
        if self.looking {
            self.waiting.push((name, ended));
        } else {
            self.ended(&name, ended, checks);
            self.wake(tasks, false, checks);
        }
    }

    fn pass(&mut self, tasks: &mut Tasks<Done>, look: Look, checks: &mut Invariants) {
        self.take_look(&look);
        let now = self.now();
        let in_flight = &self.in_flight;
        let gone = self
            .ledger
            .take_in(&self.seen, now, |name| in_flight.doing(name).is_some());
        self.note_gone(&gone, now);
        self.tell_ends(now);
        self.settle_found(&look);
        self.note_progress();
        let wanted = self.wanted.borrow().clone();
        let situation = self.situation(&wanted, now);
        let plan = plan::plan(&situation, &self.ledger, &self.in_flight);
        if plan::is_settled(&situation, &self.ledger, &self.in_flight) {
            self.breaker.succeeded();
        }
        checks.planned(self, &self.seen, &wanted, &plan);
        self.planned_at = Some(now);
        if self.seen.instances.as_ref().is_none_or(|i| !i.is_empty()) || !self.in_flight.is_empty()
        {
            self.alive_at = Some(now);
        }
        self.begin(tasks, plan, now, checks);
        if self.is_waiting_for_azure(now, wanted.removed) {
            self.poller.hurry(&self.world);
        }
        self.finished = self.is_finished(wanted.removed);
        self.set_alarm(now);
    }

    /// There is no history here to tell them to.
    fn tell_ends(&mut self, now: Instant) {
        let untold = self.ledger.iter().filter(|(_, entry)| entry.is_untold());
        let untold: Vec<String> = untold.map(|(name, _)| name.clone()).collect();
        for name in untold {
            self.ledger.entry(&name, now).end_told = true;
        }
    }

    fn situation<'a>(&'a self, wanted: &'a Wanted, now: Instant) -> Situation<'a> {
        Situation {
            wanted: match wanted.paused || wanted.removed {
                true => 0,
                false => wanted.count,
            },
            // The simulated pools keep none.
            spares: 0,
            paused: wanted.paused,
            removed: wanted.removed,
            spec_hash: &wanted.spec,
            image: self.image.as_deref(),
            startup_grace: Duration::from_millis(wanted.startup_grace),
            offline_grace: Duration::from_millis(wanted.offline_grace),
            incus_seen: self.seen.instances.is_some(),
            azure_usable: self.poller.usable && self.poller.pool_known.get(),
            azure_listed: self.poller.list.as_ref().map(|(began, _)| *began),
            launches: self.breaker.allowance(now),
            keep: wanted.keep.as_ref(),
            members: &self.members,
            now,
            wall: self.world.borrow().wall(),
        }
    }

    fn is_waiting_for_azure(&self, now: Instant, removed: bool) -> bool {
        let waits = self.ledger.iter().any(|(name, entry)| {
            let state = plan::state_of(entry, self.in_flight.doing(name), now);
            let busy = matches!(state, AgentState::Busy | AgentState::Kept);
            state == AgentState::Starting
                || (entry.drain().leaves() && entry.instance.is_some() && !busy)
                || (entry.instance.is_none() && entry.deregistered_at.is_some())
        });
        waits || (removed && self.has_no_instance())
    }

    fn has_no_instance(&self) -> bool {
        self.in_flight.is_empty()
            && self
                .seen
                .instances
                .as_ref()
                .is_some_and(|all| all.is_empty())
    }

    fn is_finished(&self, removed: bool) -> bool {
        let listed = self.seen.registrations.as_ref().map(|list| list.began);
        removed
            && self.has_no_instance()
            && self
                .alive_at
                .is_none_or(|at| listed.is_some_and(|began| began > at))
            && self.ledger.iter().all(|(_, entry)| entry.is_gone())
    }

    pub(super) fn is_alarm(&self, life: u64, alarm: u64) -> bool {
        life == self.life && alarm == self.alarm
    }

    /// Something was changed since the last look.
    pub(super) fn changed(&mut self) {
        self.is_stale = true;
        self.alive_at = Some(self.now());
    }

    /// Looks the alias up with the next look.
    pub(super) fn forget_image(&mut self) {
        self.image_at = None;
    }
}
