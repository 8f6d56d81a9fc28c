//! A simulated time of jobs: the plan, the ledger, the in-flight map and the breakers of iapd,
//! against models of Incus and Azure in which everything goes wrong, by a clock that nobody waits
//! for. A seed says everything: `WEEK_SEED=7 cargo test -p iap-tests --test week` tells its story,
//! `WEEK_SEEDS=2000` tries more of them, `WEEK_HOURS=168` a whole week of each.

use std::collections::BTreeMap;
use std::io::Write;
use std::iter;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

mod week {
    pub(super) mod calls;
    pub(super) mod clock;
    pub(super) mod course;
    pub(super) mod glue;
    pub(super) mod glue_act;
    pub(super) mod glue_azure;
    pub(super) mod glue_begin;
    pub(super) mod glue_ended;
    pub(super) mod glue_launch;
    pub(super) mod glue_look;
    pub(super) mod guest;
    pub(super) mod invariants;
    pub(super) mod model_azure;
    pub(super) mod model_incus;
    pub(super) mod model_jobs;
    pub(super) mod operator;
    pub(super) mod world;
}

use week::clock::HOUR;
use week::course::{Told, run};

/// So many are tried, within two minutes of two cores.
const SEEDS: u64 = 200;
/// So long everything goes wrong; then come a calm time and the pool's removal.
const HOURS: u64 = 12;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn tell(seed: u64, told: &Told) {
    say(&format!(
        "seed {seed}: {} steps, {} jobs, {} agents",
        told.steps, told.jobs, told.agents
    ));
    for (what, times) in &told.counts {
        say(&format!("{times:>7} x {what}"));
    }
}

#[test]
fn whatever_goes_wrong_every_job_runs_once_and_nothing_is_left_over() {
    let length = setting("WEEK_HOURS").unwrap_or(HOURS) * HOUR;
    if let Some(seed) = setting("WEEK_SEED") {
        let told = run(seed, length);
        tell(seed, &told);
        if !told.wrongs.is_empty() {
            say(&told.story);
        }
        assert_eq!(told.wrongs, Vec::<String>::new(), "seed {seed}");
        return;
    }
    let seeds = setting("WEEK_SEEDS").unwrap_or(SEEDS);
    let (all, failed) = tried(seeds, length);
    tell(seeds, &all);
    assert_eq!(failed, BTreeMap::new(), "see one with WEEK_SEED=<seed>");
}

/// Runs these seeds, on all cores. Returns what happened in all, and what went wrong with which.
fn tried(seeds: u64, length: u64) -> (Told, BTreeMap<u64, String>) {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(0);
    let numbers = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds);
    let (done, ended) = mpsc::channel();
    let mut all = Told::default();
    let mut failed = BTreeMap::new();
    thread::scope(|scope| {
        for _ in 0..cores {
            let done = done.clone();
            scope.spawn(move || {
                for seed in iter::from_fn(numbers) {
                    let _ = done.send((seed, run(seed, length)));
                }
            });
        }
        drop(done);
        for (seed, told) in ended {
            all.add(&told);
            if let Some(first) = told.wrongs.first() {
                failed.insert(seed, first.clone());
            }
        }
    });
    (all, failed)
}
