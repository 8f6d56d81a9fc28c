//! The poller of Azure's list, as `pool/azure_link.rs` has it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use iapd::azure::Agent;
use iapd::pool::breaker::{Allowance, Breaker};

use super::calls::Calls;
use super::clock::{SECOND, Shared, Tasks};
use super::glue::Done;
use super::model_incus::No;
use super::world::Event;

const HURRIED_INTERVAL: u64 = 2 * SECOND;
const HURRY_LASTS: u64 = 5 * SECOND;
const CLOSEST: u64 = SECOND / 2;

/// See the module.
pub(super) struct Poller {
    calls: Calls,
    interval: u64,
    pub(super) pool_known: Rc<Cell<bool>>,
    pub(super) usable: bool,
    pub(super) gaps: u64,
    pub(super) list: Option<(Instant, Vec<Agent>)>,
    breaker: Breaker,
    began: u64,
    listing: bool,
    hurried_until: u64,
    not_before: u64,
    alarm: u64,
}

impl Poller {
    pub(super) fn new(calls: Calls, interval: u64) -> Self {
        Self {
            calls,
            interval,
            pool_known: Rc::new(Cell::new(false)),
            usable: false,
            gaps: 0,
            list: None,
            breaker: Breaker::default(),
            began: 0,
            listing: false,
            hurried_until: 0,
            not_before: 0,
            alarm: 0,
        }
    }

    pub(super) fn is_alarm(&self, life: u64, alarm: u64) -> bool {
        life == self.calls.life && alarm == self.alarm
    }

    /// Asks for a list.
    pub(super) fn ask(&mut self, tasks: &mut Tasks<Done>) {
        if self.listing {
            return;
        }
        self.listing = true;
        let calls = self.calls.clone();
        let began = calls.world.borrow().instant();
        self.began = calls.world.borrow().now;
        tasks.spawn(async move {
            let listed = calls.azure(|world| Ok(world.agents())).await;
            Done::Listed(calls.life, began, listed)
        });
    }

    /// Takes the answer in. Returns whether there is something new to be known.
    pub(super) fn listed(&mut self, began: Instant, listed: Result<Vec<Agent>, No>) -> bool {
        self.listing = false;
        let world = Rc::clone(&self.calls.world);
        let now = world.borrow().instant();
        let news = match listed {
            Ok(agents) => {
                self.breaker.succeeded();
                self.pool_known.set(true);
                self.usable = true;
                self.list = Some((began, agents));
                true
            }
            Err(No::Paused(length)) => {
                self.not_before = world.borrow().now + length;
                false
            }
            Err(_) => {
                self.breaker.failed("no".into(), began, now, None);
                self.usable = false;
                self.gaps += 1;
                true
            }
        };
        self.set_alarm(&world);
        news
    }

    fn set_alarm(&mut self, world: &Shared) {
        let mut world = world.borrow_mut();
        let now = world.instant();
        let jitter = 0.9 + 0.2 * world.random.f64();
        let interval = match world.now < self.hurried_until {
            true => self.interval.min(HURRIED_INTERVAL),
            false => Duration::from_millis(self.interval)
                .mul_f64(jitter)
                .as_millis()
                .try_into()
                .unwrap_or(self.interval),
        };
        let due = match self.breaker.next_try() {
            Some(next) if self.breaker.allowance(now) == Allowance::Nothing => world.millis(next),
            _ => (self.began + interval).max(self.began + CLOSEST),
        };
        let due = due.max(self.not_before).max(world.now + 1);
        self.alarm += 1;
        let ahead = due - world.now;
        world.after(ahead, Event::Poll(self.calls.life, self.alarm));
    }

    /// Asks for quicker lists for a while.
    pub(super) fn hurry(&mut self, world: &Shared) {
        self.hurried_until = world.borrow().now + HURRY_LASTS;
        if !self.listing {
            self.set_alarm(world);
        }
    }
}
