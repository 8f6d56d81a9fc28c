//! Everything the simulator knows, behind one mutex, and the way to touch it.
//!
//! ```text
//!   handlers, admin, library ──► Hub::with(|state, now| ...) ──► expire ► act ► schedule
//!                                       │ something changed
//!                                       └──► wakes held polls, waiting tests
//! ```
//!
//! All rules are plain functions on [`State`] that are handed the time. Nothing here does I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};

use super::{
    agents::Agent,
    auth::Credentials,
    clock::{Clock, Timings},
    entra::Entra,
    errors::ApiError,
    faults::Faults,
    jobs::{Job, JobRequest},
    journal::Journal,
    options::{Deployment, SimOptions, Switches},
    packages::AgentPackage,
    sessions::{Session, SessionPost},
};

/// An organisation or collection.
#[derive(Debug)]
pub(super) struct Org {
    pub(super) name: String,
    pub(super) instance_id: String,
}

/// An agent pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) id: u64,
    pub(super) org: usize,
    pub(super) name: String,
    pub(super) auto_update: bool,
    pub(super) min_agent_version: Option<String>,
    pub(super) created: Timestamp,
}

/// The whole state. Ids are unique over all organisations, so that one map per kind does.
#[derive(Debug)]
pub(super) struct State {
    pub(super) orgs: Vec<Org>,
    pub(super) pools: BTreeMap<u64, Pool>,
    pub(super) agents: BTreeMap<u64, Agent>,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) jobs: BTreeMap<u64, Job>,
    /// Jobs that are queued, assigned or running, oldest first.
    pub(super) open_jobs: BTreeSet<u64>,
    /// Jobs to assign to the next idle agent that is being disabled.
    pub(super) ambushes: Vec<JobRequest>,
    /// How many job messages come back after having been deleted.
    pub(super) duplicate_deliveries: u32,
    pub(super) session_posts: Vec<SessionPost>,
    pub(super) feature_flags: BTreeMap<String, bool>,
    pub(super) package: Option<AgentPackage>,
    pub(super) credentials: Credentials,
    pub(super) entra: Entra,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    pub(super) switches: Switches,
    initial_switches: Switches,
    pub(super) timings: Timings,
    pub(super) deployment: Deployment,
    pub(super) clock: Clock,
    pub(super) random: fastrand::Rng,
    /// Scheme, host and port of the service.
    pub(super) public_url: String,
    /// The same of the token endpoint.
    pub(super) token_url: String,
    last_id: BTreeMap<Kind, u64>,
    generation: u64,
}

/// What has an id of its own sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pool,
    Agent,
    Request,
    Message,
}

impl State {
    pub(super) fn new(options: &SimOptions, public_url: String, token_url: String) -> Self {
        let mut random = options
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let orgs = options.orgs.iter().map(|name| Org {
            name: name.trim_matches('/').to_owned(),
            instance_id: guid(&mut random),
        });
        Self {
            orgs: orgs.collect(),
            pools: BTreeMap::new(),
            agents: BTreeMap::new(),
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            open_jobs: BTreeSet::new(),
            ambushes: Vec::new(),
            duplicate_deliveries: 0,
            session_posts: Vec::new(),
            feature_flags: BTreeMap::new(),
            package: None,
            credentials: Credentials::default(),
            entra: Entra::default(),
            faults: Faults::default(),
            journal: Journal::default(),
            switches: options.switches.clone(),
            initial_switches: options.switches.clone(),
            timings: options.timings.clone(),
            deployment: options.deployment,
            clock: Clock::default(),
            random,
            public_url,
            token_url,
            // Distinct ranges, so that an id used in the wrong place is noticed.
            last_id: BTreeMap::from([
                (Kind::Pool, 10),
                (Kind::Agent, 40),
                (Kind::Request, 4710),
                (Kind::Message, 16),
            ]),
            generation: 0,
        }
    }

    /// Forgets what happened and keeps what was set up: organisations, pools, credentials, the package.
    ///
    /// Numbers go on counting, so that nothing from before is taken for something new.
    pub(super) fn reset(&mut self) {
        self.clear_faults();
        self.agents.clear();
        self.sessions.clear();
        self.jobs.clear();
        self.open_jobs.clear();
        self.session_posts.clear();
        self.feature_flags.clear();
        self.credentials.forget_issued();
        self.entra.forget_requests();
        self.journal.clear();
        self.switches = self.initial_switches.clone();
        self.clock = Clock::default();
        for pool in self.pools.values_mut() {
            pool.auto_update = true;
            pool.min_agent_version = None;
        }
        self.touch();
    }

    /// Notes a change that somebody may be waiting for.
    pub(super) fn touch(&mut self) {
        self.generation += 1;
    }

    pub(super) fn next_id(&mut self, kind: Kind) -> u64 {
        let last = self.last_id.entry(kind).or_default();
        *last += 1;
        *last
    }

    pub(super) fn guid(&mut self) -> String {
        guid(&mut self.random)
    }

    /// Returns an unguessable string with a telling start.
    pub(super) fn secret(&mut self, prefix: &str) -> String {
        format!("{prefix}-{:032x}", self.random.u128(..))
    }

    pub(super) fn add_org(&mut self, name: &str) -> usize {
        let name = name.trim_matches('/');
        self.org_named(name).unwrap_or_else(|| {
            let instance_id = self.guid();
            self.orgs.push(Org {
                name: name.to_owned(),
                instance_id,
            });
            self.orgs.len() - 1
        })
    }

    pub(super) fn org_named(&self, name: &str) -> Option<usize> {
        let name = name.trim_matches('/');
        self.orgs
            .iter()
            .position(|org| org.name.eq_ignore_ascii_case(name))
    }

    /// Splits a request path into the organisation and what follows its base path.
    pub(super) fn split_path<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let mut found: Option<(usize, &'p str)> = None;
        for (index, org) in self.orgs.iter().enumerate() {
            let end = org.name.len() + 1;
            let (Some(start), Some(rest)) = (path.get(1..end), path.get(end..)) else {
                continue;
            };
            let ends_here = rest.is_empty() || rest.starts_with('/');
            if ends_here
                && start.eq_ignore_ascii_case(&org.name)
                && found.is_none_or(|(_, shorter)| rest.len() < shorter.len())
            {
                found = Some((index, rest));
            }
        }
        found
    }

    /// Returns the URL of an organisation, without a slash at its end.
    pub(super) fn org_url(&self, org: usize) -> String {
        let name = self.orgs.get(org).map_or("", |org| org.name.as_str());
        format!("{}/{name}", self.public_url)
    }

    pub(super) fn instance_id(&self, org: usize) -> &str {
        self.orgs
            .get(org)
            .map_or("", |org| org.instance_id.as_str())
    }

    pub(super) fn pool(&self, org: usize, id: u64) -> Result<&Pool, ApiError> {
        let pool = self.pools.get(&id).filter(|pool| pool.org == org);
        pool.ok_or_else(|| ApiError::pool_not_found(id))
    }

    pub(super) fn pool_name(&self, id: u64) -> &str {
        self.pools.get(&id).map_or("", |pool| pool.name.as_str())
    }

    pub(super) fn agent(&self, pool: u64, id: u64) -> Result<&Agent, ApiError> {
        let agent = self.agents.get(&id).filter(|agent| agent.pool == pool);
        agent.ok_or_else(|| ApiError::agent_not_found(id))
    }

    pub(super) fn agent_mut(&mut self, pool: u64, id: u64) -> Result<&mut Agent, ApiError> {
        let agent = self.agents.get_mut(&id).filter(|agent| agent.pool == pool);
        agent.ok_or_else(|| ApiError::agent_not_found(id))
    }

    pub(super) fn agents_of(&self, pool: u64) -> impl Iterator<Item = &Agent> {
        self.agents.values().filter(move |agent| agent.pool == pool)
    }

    pub(super) fn scaled(&self, pick: fn(&Timings) -> Duration) -> Duration {
        self.timings.scale(pick(&self.timings))
    }

    pub(super) fn lock_until(&self, now: Timestamp) -> Timestamp {
        now + self.scaled(|timings| timings.lock_length)
    }
}

fn guid(random: &mut fastrand::Rng) -> String {
    let bits = (random.u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// The state with its lock, and the bell that is rung when it changed.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Requests that go on although their client may have left.
    pub(super) detached: Mutex<JoinSet<()>>,
}

impl Hub {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            detached: Mutex::new(JoinSet::new()),
        }
    }

    /// Carries out one step on the state: what is due first, then the action, then assignments.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let (result, generation) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = state.clock.now();
            state.expire(now);
            let result = act(&mut state, now);
            let now = state.clock.now();
            state.expire(now);
            state.schedule(now);
            (result, state.generation)
        };
        self.changed.send_if_modified(|seen| {
            let news = generation > *seen;
            *seen = generation.max(*seen);
            news
        });
        result
    }

    /// Subscribes to changes; subscribe before looking, so that none is missed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until the look at the state returns something.
    pub(super) async fn wait_for<R>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&mut State) -> Option<R>,
    ) -> Option<R> {
        let mut changes = self.changes();
        let looking = async {
            loop {
                if let Some(found) = self.with(|state, _| look(state)) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(timeout, looking).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use crate::azure_sim::testing;

    #[test]
    fn the_longest_base_path_names_the_organisation() {
        let (mut state, _) = testing::state();
        let outer = state.add_org("tfs");
        let inner = state.add_org("tfs/DefaultCollection");
        for (path, expected) in [
            ("/sim-org/_apis", Some((0, "/_apis"))),
            ("/SIM-ORG", Some((0, ""))),
            ("/sim-organ/_apis", None),
            ("/tfs/_apis", Some((outer, "/_apis"))),
            ("/tfs/defaultcollection/_apis", Some((inner, "/_apis"))),
            ("/", None),
        ] {
            assert_eq!(state.split_path(path), expected, "{path}");
        }
    }

    #[test]
    fn guids_have_the_shape_of_version_four() {
        let (mut state, _) = testing::state();
        let guid = state.guid();
        assert_eq!(guid.len(), 36);
        assert_eq!(&guid[14..15], "4");
        assert!("89ab".contains(&guid[19..20]), "{guid}");
    }
}
