//! What thinking costs: from an observation to a plan, through the ledger, for as many agents as
//! many hosts have. Nothing outside is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::Timestamp;

use iapd::agent::{Drain, InstanceFacts, RegistrationFacts};
use iapd::incus::Status;
use iapd::pool::breaker::Allowance;
use iapd::pool::in_flight::InFlight;
use iapd::pool::ledger::Ledger;
use iapd::pool::observe::{Observation, RegistrationList};
use iapd::pool::plan::{self, MemberView, Plan, Situation};

use super::report::line;

const POOLS: usize = 200;
const ROUNDS: usize = 21;
/// For `GOAL` agents, from observation to plan.
const TARGET: Duration = Duration::from_millis(10);
const GOAL: usize = 10_000;
/// Twice the agents may cost this many times as much: a few caches are missed on the way.
const LINEAR: f64 = 2.6;

/// What happened to the agents since the last look.
#[derive(Debug, Clone, Copy)]
enum Happened {
    Nothing,
    AllAreToLeave,
    AllVanished,
}

impl Happened {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happened",
            Self::AllAreToLeave => "all are to leave",
            Self::AllVanished => "all vanished",
        }
    }

    /// What is to be planned for so many agents: launches and actions.
    fn expected(self, agents: usize) -> (usize, usize) {
        match self {
            Self::Nothing => (0, 0),
            Self::AllAreToLeave => (0, agents),
            Self::AllVanished => (agents, agents),
        }
    }
}

/// Measures and prints.
pub fn run() -> anyhow::Result<()> {
    let profile = match cfg!(debug_assertions) {
        true => "debug",
        false => "release",
    };
    line(&format!(
        "{POOLS} pools, {profile} build, the quickest of {ROUNDS} rounds"
    ));
    for happened in [
        Happened::Nothing,
        Happened::AllAreToLeave,
        Happened::AllVanished,
    ] {
        let mut last: Option<Duration> = None;
        for agents in [2_500, 5_000, GOAL, 20_000] {
            let took = measure(agents, happened)?;
            let each = took / u32::try_from(agents)?;
            let ratio = last.map_or_else(String::new, |last| {
                let ratio = took.as_secs_f64() / last.as_secs_f64();
                let verdict = if ratio <= LINEAR {
                    "linear"
                } else {
                    "not linear"
                };
                format!(", {ratio:.2} x half as many: {verdict}")
            });
            let verdict = match (agents, took <= TARGET) {
                (GOAL, true) => format!(" (target {TARGET:?}: met)"),
                (GOAL, false) => format!(" (target {TARGET:?}: missed)"),
                _ => String::new(),
            };
            line(&format!(
                "{:<17} {agents:>6} agents: {took:>10.2?}{verdict}, {each:?} an agent{ratio}",
                happened.words()
            ));
            last = Some(took);
        }
    }
    Ok(())
}

fn measure(agents: usize, happened: Happened) -> anyhow::Result<Duration> {
    let each = agents / POOLS;
    let mut pools: Vec<Pool> = (0..POOLS).map(|number| Pool::new(number, each)).collect();
    // Seen online, and calm.
    for pool in &mut pools {
        let plan = pool.look(&pool.observe(Happened::Nothing));
        ensure!(plan == Plan::default(), "planned in a calm pool: {plan:?}");
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut before: Vec<Pool> = pools.clone();
        let seen: Vec<Observation> = before.iter().map(|pool| pool.observe(happened)).collect();
        let began = Instant::now();
        let plans: Vec<Plan> = before
            .iter_mut()
            .zip(&seen)
            .map(|(pool, seen)| pool.look(seen))
            .collect();
        rounds.push(began.elapsed());
        let launches = plans.iter().map(|plan| plan.launch).sum();
        let actions = plans.iter().map(|plan| plan.actions.len()).sum();
        ensure!(
            (launches, actions) == happened.expected(each * POOLS),
            "{launches} launches and {actions} actions when {}",
            happened.words()
        );
    }
    Ok(rounds.into_iter().min().unwrap_or_default())
}

#[derive(Clone)]
struct Pool {
    instances: BTreeMap<String, InstanceFacts>,
    registrations: BTreeMap<String, RegistrationFacts>,
    ledger: Ledger,
}

impl Pool {
    fn new(number: usize, agents: usize) -> Self {
        let mut pool = Self {
            instances: BTreeMap::new(),
            registrations: BTreeMap::new(),
            ledger: Ledger::default(),
        };
        let now = tokio::time::Instant::now();
        for agent in 0..agents {
            let name = format!("linux-{number:03}-build-host-a{agent:04}");
            let id = i64::try_from(number * agents + agent).unwrap_or_default();
            pool.ledger.entry(&name, now).settled = true;
            pool.instances.insert(name.clone(), instance(&name, id));
            pool.registrations.insert(name, registration(id));
        }
        pool
    }

    fn observe(&self, happened: Happened) -> Observation {
        let mut instances = self.instances.clone();
        match happened {
            Happened::Nothing => {}
            Happened::AllAreToLeave => {
                for instance in instances.values_mut() {
                    instance.drain = Drain::Finish;
                }
            }
            Happened::AllVanished => instances.clear(),
        }
        Observation {
            instances: Some(instances),
            registrations: Some(Arc::new(RegistrationList {
                began: tokio::time::Instant::now(),
                agents: self.registrations.clone(),
            })),
            azure_gaps: 0,
        }
    }

    fn look(&mut self, seen: &Observation) -> Plan {
        let now = tokio::time::Instant::now();
        let in_flight = InFlight::default();
        let members = MemberView::default();
        self.ledger.take_in(seen, now, |_| false);
        let situation = Situation {
            wanted: self.instances.len(),
            spares: 0,
            paused: false,
            removed: false,
            spec_hash: SPEC,
            image: Some(IMAGE),
            startup_grace: Duration::from_secs(60),
            offline_grace: Duration::from_secs(300),
            incus_seen: true,
            azure_usable: true,
            azure_listed: seen.registrations.as_ref().map(|list| list.began),
            launches: Allowance::All,
            keep: None,
            members: &members,
            now,
            wall: Timestamp::UNIX_EPOCH,
        };
        plan::plan(&situation, &self.ledger, &in_flight)
    }
}

const SPEC: &str = "7d3c9f0a41be";
const IMAGE: &str = "f2b1c3d4e5f60718293a4b5c6d7e8f901a2b3c4d5e6f708192a3b4c5d6e7f809";

fn instance(name: &str, id: i64) -> InstanceFacts {
    InstanceFacts {
        name: name.to_owned(),
        status: Status::Running,
        status_text: "Running".to_owned(),
        spec: SPEC.to_owned(),
        azure_agent_id: Some(id),
        spare: false,
        drain: Drain::No,
        keep: None,
        image: IMAGE.to_owned(),
        created_at: Some(Timestamp::UNIX_EPOCH),
        location: String::new(),
    }
}

fn registration(id: i64) -> RegistrationFacts {
    RegistrationFacts {
        id,
        enabled: true,
        online: true,
        job: None,
        owner: Some("owner".to_owned()),
        pool: Some("linux".to_owned()),
        project: Some("default".to_owned()),
    }
}
