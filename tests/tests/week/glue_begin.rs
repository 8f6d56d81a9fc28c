//! Begins what was planned, as `pool/reconciler/act.rs` does, and sets the alarm for the next pass.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use iapd::agent::{AgentState, Doing};
use iapd::pool::in_flight::Turn;
use iapd::pool::names::{agent_name_stem, new_agent_name};
use iapd::pool::plan::{self, Action, Plan};

use super::calls::Calls;
use super::clock::Tasks;
use super::glue::{Daemon, Done};
use super::glue_act::{Ended, carry_out};
use super::glue_launch::{Means, adopt, launch};
use super::invariants::Invariants;
use super::model_azure::POOL;
use super::world::Event;

/// While nothing is expected, looking without a reason is this much rarer.
const CALM: u32 = 3;

impl Daemon {
    pub(super) fn begin(
        &mut self,
        tasks: &mut Tasks<Done>,
        plan: Plan,
        now: Instant,
        checks: &mut Invariants,
    ) {
        for _ in 0..plan.launch {
            let name = self.new_name();
            self.ledger.entry(&name, now);
            self.begin_launch(tasks, name, false, now);
        }
        for action in plan.actions {
            let name = action.name().to_owned();
            if let Action::CancelLaunch { .. } = action {
                self.in_flight.cancel(&name);
                continue;
            }
            checks.begins(&mut self.world.borrow_mut(), &action);
            if let Action::Adopt { .. } = action {
                self.begin_launch(tasks, name, true, now);
                continue;
            }
            self.in_flight.begin(&name, action.doing(), None, now);
            if let Action::Keep { keep, .. } = &action
                && let Some(entry) = self.ledger.get_mut(&name)
                && entry.keep().is_none()
            {
                entry.keep_wish = Some(keep.clone());
            }
            let (means, life) = (self.means(), self.life);
            let course = carry_out(means, action);
            tasks.spawn(async move { Done::Acted(life, name, Box::new(course.await)) });
        }
    }

    pub(super) fn begin_launch(
        &mut self,
        tasks: &mut Tasks<Done>,
        name: String,
        found: bool,
        now: Instant,
    ) {
        let turn = Turn::default();
        let launch_turn = Some(turn.clone());
        self.in_flight.begin(&name, Doing::Launch, launch_turn, now);
        let (means, life) = (self.means(), self.life);
        tasks.spawn(async move {
            let result = match found {
                true => adopt(means, name.clone(), turn).await,
                false => launch(means, name.clone(), turn).await,
            };
            Done::Acted(life, name, Box::new(Ended::Launch(result)))
        });
    }

    pub(super) fn new_name(&mut self) -> String {
        let mut world = self.world.borrow_mut();
        let stem = agent_name_stem(POOL, "host");
        loop {
            let name = new_agent_name(&stem, &mut world.random);
            if self.ledger.get(&name).is_none() && world.agent_named(&name).is_none() {
                return name;
            }
        }
    }

    pub(super) fn means(&self) -> Means {
        let wanted = self.wanted.borrow();
        Means {
            calls: Calls::new(&self.world),
            spec_hash: wanted.spec.clone(),
            poll_interval: wanted.poll_interval,
            pool_known: Rc::clone(&self.poller.pool_known),
            gate: Rc::clone(&self.gate),
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn set_alarm(&mut self, now: Instant) {
        let wanted = self.wanted.borrow();
        let jitter = 0.9 + 0.2 * self.world.borrow_mut().random.f64();
        let mut interval = Duration::from_millis(wanted.reconcile_interval).mul_f64(jitter);
        if self.is_calm(now) {
            interval *= CALM;
        }
        let due = self.listed_at.map_or(now + interval, |at| at + interval);
        let wall = self.world.borrow().wall();
        let deadlines = self.ledger.iter().filter_map(|(_, entry)| {
            let keep = entry.instance.as_ref().and_then(|i| i.keep.as_ref());
            let at = keep.map_or_else(|| entry.drain().deadline(), |keep| Some(keep.until))?;
            let ahead = Duration::try_from(at.duration_since(wall)).unwrap_or_default();
            Some(now + ahead.min(Duration::from_secs(60)))
        });
        let retries = self
            .ledger
            .iter()
            .filter(|(name, _)| self.in_flight.doing(name).is_none())
            .filter_map(|(_, entry)| entry.retry_at)
            .chain(self.breaker.next_try())
            .chain(deadlines)
            .filter(|at| self.planned_at.is_none_or(|planned| *at > planned));
        let at = retries
            .fold(due, Instant::min)
            .max(now + Duration::from_millis(25));
        self.alarm += 1;
        let mut world = self.world.borrow_mut();
        let ahead = world.millis(at).saturating_sub(world.now) + 1;
        world.after(ahead, Event::Alarm(self.life, self.alarm));
    }

    pub(super) fn is_calm(&self, now: Instant) -> bool {
        self.in_flight.is_empty()
            && !self.incus_failed
            && self.ledger.iter().all(|(_, entry)| {
                let state = plan::state_of(entry, None, now);
                matches!(
                    state,
                    AgentState::Idle | AgentState::Busy | AgentState::Kept
                )
            })
    }
}
