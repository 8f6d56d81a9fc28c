//! Everything goes wrong at once, on a real Incus of the run's own, while jobs flow through two
//! pools and an operator is at work. At the end nothing may be lost, left behind or told wrongly.
//!
//! ```text
//!   jobs ─► two pools of one iapd ─► proxy ─► private Incus
//!            ▲ operator   ▲ kills      ▲ cuts    ▲ restarts, limits, aliases, guests
//!            └─ simulator ─ refusals, lost answers, clocks
//! ```
//!
//! Who does what when is drawn from a seed. How it falls out still depends on the machine: a seed
//! brings the same faults in the same order, not the same interleaving.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub mod azure_faults;
pub mod clock;
pub mod faults;
pub mod guest_faults;
pub mod hostile_jobs;
pub mod journal;
pub mod operator;
pub mod settle;
pub mod verdict;
pub mod world;

use self::world::World;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many jobs are queued.
    pub jobs: usize,
}

/// How long faults may go on.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs it all, prints what came of it and returns it in a line. An error is a finding.
pub async fn run(plan: Plan) -> anyhow::Result<String> {
    let world = Arc::new(World::start(plan.seed).await?);
    world.say(&format!("seed {}, {} jobs", plan.seed, plan.jobs));
    let mut terminated = signal(SignalKind::terminate())?;
    let result = tokio::select! {
        result = storm(&world, plan) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if result.is_err() {
        world.keep_logs();
    }
    world.close().await?;
    result
}

async fn storm(world: &Arc<World>, plan: Plan) -> anyhow::Result<String> {
    world.wait_started().await?;
    let began = Instant::now();
    let stop = CancellationToken::new();
    let mut lanes = JoinSet::new();
    let draw = |lane: u64| fastrand::Rng::with_seed(plan.seed.wrapping_mul(31).wrapping_add(lane));
    lanes.spawn(faults::run(Arc::clone(world), draw(1), stop.clone()));
    lanes.spawn(azure_faults::run(Arc::clone(world), draw(2), stop.clone()));
    lanes.spawn(guest_faults::run(Arc::clone(world), draw(3), stop.clone()));
    lanes.spawn(operator::run(Arc::clone(world), draw(4), stop.clone()));
    let jobs = {
        let feeding = hostile_jobs::feed(world, draw(5), plan.jobs);
        tokio::time::timeout(LIMIT, watched(feeding, &mut lanes))
            .await
            .context("the jobs were not taken in time")??
    };
    stop.cancel();
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    world.say(&format!("calm after {:.0?}", began.elapsed()));
    settle::run(world).await?;
    verdict::judge(world, &jobs).await
}

/// Waits for `work` as long as no lane has failed.
async fn watched<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    lanes: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(ended) = lanes.join_next() => ended??,
        }
    }
}

/// Draws all of a set before anything comes again.
#[derive(Debug)]
pub struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
    rng: fastrand::Rng,
}

impl<T: Clone> Deck<T> {
    /// Makes a deck of these.
    pub fn new(all: &[T], rng: fastrand::Rng) -> Self {
        Self {
            all: all.to_vec(),
            left: Vec::new(),
            rng,
        }
    }

    /// Returns the next.
    pub fn draw(&mut self) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.rng.shuffle(&mut self.left);
        }
        self.left.pop()
    }

    /// Returns a duration in this range of milliseconds.
    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    /// Returns one of these.
    pub fn one_of<'a, U>(&mut self, from: &'a [U]) -> Option<&'a U> {
        (!from.is_empty()).then(|| &from[self.rng.usize(..from.len())])
    }
}

/// Lets time pass, less when the run is over.
pub(crate) async fn pause(time: Duration, stop: &CancellationToken) {
    let _ = tokio::time::timeout(time, stop.cancelled()).await;
}
