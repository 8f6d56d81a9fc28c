//! The loop of one pool: wake, observe, plan, begin actions, publish, wait. It is the only writer
//! of its pool's instances and registrations.
//!
//! ```text
//!   timer, Incus event, Azure list, command, action ended, new spec
//!        └─► observe (Incus list; last Azure list) ─► ledger ─► plan ─► actions (own tasks)
//!                                                                  └─► PoolStatus
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::agent::AgentState;
use crate::beat::{Beat, Pulse};
use crate::incus::{self, Incus, Restrictions};
use crate::intents::{Effective, IntentSet};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::registration::KeyStock;
use crate::store::Store;

use super::apply::{AgentVersions, Context};
use super::azure_link::{AzureLink, AzureView};
use super::breaker::Breaker;
use super::command::PoolCommand;
use super::ghosts::Seen;
use super::in_flight::InFlight;
use super::ledger::Ledger;
use super::observe::Observation;
use super::placement::Placement;
use super::plan::{self, MemberView, Plan, Situation};
use super::spec::PoolSpec;
use super::status::{ImageStatus, PassReport, PoolStatus};
use super::waits::Waits;

mod act;
mod ended;
mod ghosts;
mod history;
mod intents;
mod keep;
mod look;
mod members;
mod report;
mod requests;
mod room;
mod spare;
mod waker;

use requests::Requests;
use room::RoomSeen;
pub use waker::Waker;

/// How long actions may go on after the daemon was told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// While events come and nothing is on its way, looking without a reason is this much rarer.
const CALM: u32 = 3;
/// Passes do not follow each other faster, so that a storm of events costs little.
const CLOSEST_PASSES: Duration = Duration::from_millis(25);
/// A pass takes no longer, or its task is stuck: six calls to Incus (instances, alias, image,
/// project, profile, operations or storage) with the client's limit of 30 s each, and as much again for a host in trouble.
const LONGEST_PASS: Duration = Duration::from_secs(6 * 30 * 2);
/// The wait for the next pass is drawn around the interval, this far.
const JITTER: f64 = 0.1;

/// What a pool's task is to do; replaced whole by a reload.
#[derive(Clone)]
pub struct Order {
    /// What is wanted.
    pub spec: Arc<PoolSpec>,
    /// It left the configuration: idle agents leave, busy ones finish.
    pub removed: bool,
    /// Its Azure side.
    pub link: AzureLink,
}

/// What all pools' tasks share.
#[derive(Clone)]
pub struct Shared {
    /// Whose instances they are.
    pub owner: Arc<str>,
    /// The Incus server.
    pub incus: Incus,
    /// Where new agents go, and their turn there.
    pub placement: Arc<Placement>,
    /// Ready-made keys.
    pub keys: Arc<KeyStock>,
    /// Agent versions by image.
    pub versions: Arc<AgentVersions>,
    /// What operators want for a while.
    pub intents: watch::Receiver<Arc<IntentSet>>,
    /// Where counts go.
    pub metrics: Arc<Metrics>,
    /// Where records of ended agents go.
    pub store: Store,
}

/// Why a pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The first pass.
    Startup,
    /// Nothing happened for a while, or something is due.
    Timer,
    /// An Incus event.
    IncusEvent,
    /// A new Azure list, or the end of them.
    Azure,
    /// An operator.
    Command,
    /// An action ended.
    ActionEnded,
    /// A new spec.
    Spec,
    /// An operator wants something for a while.
    Intents,
    /// A cluster member is not as it was.
    Members,
}

impl Trigger {
    /// Returns the word used in logs and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Timer => "timer",
            Self::IncusEvent => "incus_event",
            Self::Azure => "azure",
            Self::Command => "command",
            Self::ActionEnded => "action_ended",
            Self::Spec => "spec",
            Self::Intents => "intents",
            Self::Members => "members",
        }
    }
}

/// The task of one pool.
pub struct Reconciler {
    shared: Shared,
    orders: watch::Receiver<Order>,
    intents: watch::Receiver<Arc<IntentSet>>,
    azure: watch::Receiver<Arc<AzureView>>,
    members: watch::Receiver<Arc<Members>>,
    commands: mpsc::Receiver<PoolCommand>,
    waker: Waker,
    publish: watch::Sender<Arc<PoolStatus>>,
    beat: Beat,

    order: Order,
    /// What operators want of this pool, as of the last pass.
    intent: Effective,
    intents_revision: u64,
    spec_hash: String,
    own_gate: Arc<Semaphore>,
    ledger: Ledger,
    /// What of the cluster's members matters, as of the last pass.
    member_view: MemberView,
    in_flight: InFlight,
    running: JoinSet<ended::Done>,
    breaker: Breaker,
    requests: Requests,
    random: fastrand::Rng,

    seen: Observation,
    /// All that has an owner's tag in the Azure pool.
    ghosts: Seen,
    adoption: Option<ghosts::Adopting>,
    /// Instances of the last list on members that cannot be reached, whoever's they are.
    bare: Vec<incus::Instance>,
    foreign: Vec<String>,
    /// Instances were listed once.
    instances_known: bool,
    listed_at: Option<Instant>,
    /// The last pass planned for this moment: what was due by then has had its chance.
    planned_at: Option<Instant>,
    /// An action changed something since: the last look may not be planned on.
    is_stale: bool,
    incus_error: Option<String>,
    image: ImageStatus,
    image_error: Option<String>,
    image_at: Option<Instant>,
    /// What the project forbids, as far as known.
    restrictions: Option<Restrictions>,
    room: RoomSeen,
    /// When agents with a job ended that have no successor yet.
    vacancies: VecDeque<Instant>,
    /// When there was an instance or an action last. Something may be registered since, of which
    /// only a later list tells.
    alive_at: Option<Instant>,
    waits: Waits,
    passes: u64,
    failed: usize,
}

impl Reconciler {
    /// Makes the task; see [`super::new`].
    pub(super) fn new(
        shared: Shared,
        mut orders: watch::Receiver<Order>,
        commands: mpsc::Receiver<PoolCommand>,
        waker: Waker,
        publish: watch::Sender<Arc<PoolStatus>>,
    ) -> Self {
        let order = orders.borrow_and_update().clone();
        let removed = order.removed;
        Self {
            azure: order.link.watch(),
            spec_hash: order.spec.spec_hash(),
            own_gate: Arc::new(Semaphore::new(shared.placement.width())),
            members: shared.placement.watch(),
            member_view: MemberView::default(),
            intents: shared.intents.clone(),
            intent: Effective::default(),
            intents_revision: 0,
            shared,
            orders,
            commands,
            waker,
            publish,
            beat: Beat::default(),
            order,
            ledger: Ledger::default(),
            in_flight: InFlight::default(),
            running: JoinSet::new(),
            breaker: Breaker::default(),
            requests: Requests::default(),
            random: fastrand::Rng::new(),
            seen: Observation::default(),
            ghosts: Seen::default(),
            adoption: None,
            bare: Vec::new(),
            foreign: Vec::new(),
            instances_known: false,
            listed_at: None,
            planned_at: None,
            is_stale: true,
            incus_error: None,
            image: ImageStatus::default(),
            image_error: None,
            image_at: None,
            restrictions: None,
            room: RoomSeen::default(),
            vacancies: VecDeque::new(),
            // Something was found of a pool that begins its life removed.
            alive_at: removed.then(Instant::now),
            waits: Waits::default(),
            passes: 0,
            failed: 0,
        }
    }

    /// Runs until `stop`, or until a removed pool has nothing left.
    pub async fn run(mut self, stop: CancellationToken) {
        let span = info_span!("pool", name = %self.order.spec.name);
        async {
            self.recall_waits().await;
            let mut trigger = Trigger::Startup;
            loop {
                self.beat.again_within(self.longest_round());
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.pass(trigger) => {}
                }
                if self.is_finished() {
                    info!("nothing is left of this pool");
                    return;
                }
                trigger = tokio::select! {
                    () = stop.cancelled() => break,
                    trigger = self.next_trigger() => trigger,
                };
                // Whoever rings without end gets a look now and then.
                if let Some(planned_at) = self.planned_at {
                    tokio::time::sleep_until(planned_at + CLOSEST_PASSES).await;
                }
            }
            self.wind_down().await;
        }
        .instrument(span)
        .await;
    }

    /// Returns whether the task makes progress.
    pub(super) fn pulse(&self) -> Pulse {
        self.beat.pulse()
    }

    /// The longest that a pass and the wait after it may take.
    fn longest_round(&self) -> Duration {
        let interval = self.order.spec.reconcile_interval;
        (interval * CALM).mul_f64(1.0 + JITTER) + LONGEST_PASS
    }

    /// Waits for a reason to look again and takes it in. Cancel-safe: each arm is.
    async fn next_trigger(&mut self) -> Trigger {
        let due = self.due_at();
        let trigger = tokio::select! {
            done = self.running.join_next(), if !self.running.is_empty() => {
                if let Some(done) = done {
                    self.take_done(done);
                }
                Trigger::ActionEnded
            }
            () = self.waker.look.notified() => Trigger::IncusEvent,
            () = self.waker.image.notified() => {
                self.image_at = None;
                Trigger::IncusEvent
            }
            Some(command) = self.commands.recv() => {
                self.take_command(command);
                Trigger::Command
            }
            Ok(()) = self.orders.changed() => {
                self.take_order();
                Trigger::Spec
            }
            Ok(()) = self.intents.changed() => Trigger::Intents,
            Ok(()) = self.azure.changed() => Trigger::Azure,
            Ok(()) = self.members.changed() => Trigger::Members,
            () = tokio::time::sleep_until(due) => Trigger::Timer,
        };
        // What else is ready goes into the same pass.
        while let Some(done) = self.running.try_join_next() {
            self.take_done(done);
        }
        while let Ok(command) = self.commands.try_recv() {
            self.take_command(command);
        }
        trigger
    }

    fn take_done(&mut self, done: Result<ended::Done, tokio::task::JoinError>) {
        match done {
            Ok(done) => {
                self.is_stale = true;
                self.alive_at = Some(Instant::now());
                self.ended(done);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn take_order(&mut self) {
        let order = self.orders.borrow_and_update().clone();
        if !order.link.is(&self.order.link) {
            // Its lists do not continue those of the other.
            self.ghosts = Seen::default();
        }
        self.order = order;
        self.azure = self.order.link.watch();
        self.spec_hash = self.order.spec.spec_hash();
        self.image_at = None;
        info!(spec = %self.spec_hash, removed = self.order.removed, "new spec");
    }

    /// When to look again although nothing happens.
    fn due_at(&self) -> Instant {
        let now = Instant::now();
        let mut interval = self
            .order
            .spec
            .reconcile_interval
            .mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64());
        if self.is_calm(now) {
            interval *= CALM;
        }
        let due = self.listed_at.map_or(now + interval, |at| at + interval);
        let retries = self
            .ledger
            .iter()
            .filter(|(name, _)| self.in_flight.doing(name).is_none())
            .filter_map(|(_, entry)| entry.retry_at)
            .chain(self.breaker.next_try())
            .chain(self.operators_due_at(now))
            // What was due and led to nothing waits for something to change.
            .filter(|at| self.planned_at.is_none_or(|planned| *at > planned));
        retries.fold(due, Instant::min).max(now + CLOSEST_PASSES)
    }

    /// Whether nothing is expected to change but by an event, and events come.
    fn is_calm(&self, now: Instant) -> bool {
        self.waker.is_listening.load(Ordering::Relaxed)
            && self.in_flight.is_empty()
            && self.incus_error.is_none()
            && self.room.shortage().is_none()
            && self.ledger.iter().all(|(_, entry)| {
                let state = plan::state_of(entry, None, now);
                matches!(
                    state,
                    AgentState::Idle | AgentState::Busy | AgentState::Kept | AgentState::Spare
                )
            })
    }

    /// Looks, decides, begins, tells.
    async fn pass(&mut self, trigger: Trigger) {
        let began = Instant::now();
        self.passes += 1;
        self.observe(trigger).await;
        let now = Instant::now();
        let wall = Timestamp::now();
        self.take_intents(wall);
        self.take_members();
        let gone = {
            let in_flight = &self.in_flight;
            self.ledger
                .take_in(&self.seen, now, |name| in_flight.doing(name).is_some())
        };
        self.watch_adoption(now);
        self.note_gone(&gone, now);
        self.note_untold();
        self.settle_found().await;
        self.note_progress(now, wall);
        let mut plan = self.plan(now, wall);
        self.leave_room(&mut plan, now).await;
        self.planned_at = Some(now);
        let started = self.apply(plan, now);
        self.answer_requests();
        self.hurry_azure();
        let took = began.elapsed();
        debug!(
            trigger = trigger.as_str(),
            n = self.passes,
            started,
            in_flight = self.in_flight.len(),
            elapsed = ?took,
            "pass"
        );
        if !self.has_no_instance() {
            self.alive_at = Some(Instant::now());
        }
        let report = PassReport {
            number: self.passes,
            trigger: trigger.as_str(),
            ended_at: Timestamp::now(),
            took,
            started,
            in_flight: self.in_flight.len(),
            failed: std::mem::take(&mut self.failed),
        };
        let status = self.status(report, Instant::now());
        self.tell_events(&self.publish.borrow(), &status);
        self.publish.send_replace(Arc::new(status));
        self.answer_adoption();
    }

    fn plan(&mut self, now: Instant, wall: Timestamp) -> Plan {
        let (plan, replaced, is_settled) = self.decide(now, wall);
        if is_settled {
            self.breaker.succeeded();
        }
        for name in replaced {
            warn!(agent = %name, "its cluster member is lost: another takes its slot");
            self.ledger.entry(&name, now).was_replaced = true;
        }
        plan
    }

    /// Returns what to do, which agents on lost members are replaced by that, and whether all that
    /// are wanted are there.
    fn decide(&self, now: Instant, wall: Timestamp) -> (Plan, Vec<String>, bool) {
        let view = self.azure.borrow();
        let spec = &self.order.spec;
        let situation = Situation {
            wanted: self.wanted() as usize,
            spares: spec.spares as usize,
            paused: self.intent.pause.is_some(),
            removed: self.order.removed,
            spec_hash: &self.spec_hash,
            image: Some(self.image.fingerprint.as_str()).filter(|image| !image.is_empty()),
            startup_grace: spec.startup_grace,
            offline_grace: spec.offline_grace,
            incus_seen: self.seen.instances.is_some(),
            // One that came since is for the next pass: with it, agents on members that cannot be
            // reached are recognised, and without them too many would be made.
            azure_usable: view.usable
                && view.pool_id.is_some()
                && self.seen.registrations.is_some(),
            azure_listed: view.list.as_ref().map(|list| list.began),
            launches: self.breaker.allowance(now),
            members: &self.member_view,
            keep: spec.keep.as_ref(),
            now,
            wall,
        };
        let (ledger, in_flight) = (&self.ledger, &self.in_flight);
        let plan = plan::plan(&situation, ledger, in_flight);
        let replaced = plan::replaced(&situation, ledger, plan.launch);
        (
            plan,
            replaced,
            plan::is_settled(&situation, ledger, in_flight),
        )
    }

    /// While something is awaited from Azure, lists follow each other faster.
    fn hurry_azure(&self) {
        let waiting = self.ledger.iter().any(|(name, entry)| {
            let state = plan::state_of(entry, self.in_flight.doing(name), Instant::now());
            matches!(state, AgentState::Starting)
                // A job may take hours.
                || (entry.drain().leaves()
                    && entry.instance.is_some()
                    && !matches!(state, AgentState::Busy | AgentState::Kept | AgentState::Spare))
                || (state == AgentState::Kept
                    && entry.deregistered_at.is_none()
                    && entry.registration.as_ref().is_some_and(|r| r.job.is_none()))
                || (entry.instance.is_none() && entry.deregistered_at.is_some())
                || plan::awaits_lists(entry)
        });
        // So is the list that shows that nothing is left.
        if waiting || (self.order.removed && self.has_no_instance()) {
            self.order.link.hurry();
        }
    }

    fn context(&self) -> Arc<Context> {
        Arc::new(Context {
            spec: Arc::clone(&self.order.spec),
            spec_hash: self.spec_hash.clone(),
            owner: Arc::clone(&self.shared.owner),
            incus: self.shared.incus.clone(),
            project: self.shared.incus.project(&self.order.spec.instance.project),
            restrictions: self.restrictions.clone(),
            link: self.order.link.clone(),
            placement: Arc::clone(&self.shared.placement),
            leaving: self.member_view.leaving.clone(),
            storage_pool: self.storage_pool().cloned(),
            own_gate: Arc::clone(&self.own_gate),
            keys: Arc::clone(&self.shared.keys),
            versions: Arc::clone(&self.shared.versions),
            evidence: self.shared.store.evidence().clone(),
        })
    }

    /// Nothing is left of a removed pool, and nothing can turn up any more.
    fn is_finished(&self) -> bool {
        let listed = self.seen.registrations.as_ref().map(|list| list.began);
        self.order.removed
            && self.has_no_instance()
            && self
                .alive_at
                .is_none_or(|at| listed.is_some_and(|began| began > at))
            && self.ledger.iter().all(|(_, entry)| entry.is_gone())
    }

    fn has_no_instance(&self) -> bool {
        self.in_flight.is_empty() && self.seen.instances.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Lets actions in hand end, and begins no other. Agents keep running.
    async fn wind_down(&mut self) {
        self.in_flight.cancel_waiting();
        let all = async {
            while let Some(done) = self.running.join_next().await {
                self.take_done(done);
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            warn!(
                in_flight = self.running.len(),
                "actions did not end in time, leaving them"
            );
            self.running.shutdown().await;
        }
    }
}
