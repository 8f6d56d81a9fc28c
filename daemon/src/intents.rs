//! What operators want for a while, beside the configuration: pauses of a pool or of the whole
//! host, and another number of agents. The only wishes that neither Incus nor Azure can keep, so
//! they are in a small file in the state directory.
//!
//! ```text
//!  grpc ──change──► Intents ──► intents.json
//!                      └──watch──► pool tasks, which let them lapse by their own clock
//! ```
//!
//! Wishes for single agents are not here: an instance carries its own ([`crate::agent::Drain`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

mod file;

pub use file::IntentsError;
use file::{IntentsFile, Loaded};

/// Who asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Who {
    /// From the socket's peer credentials; `None` when they are not known.
    pub uid: Option<u32>,
    /// That user's name; empty when it has none.
    #[serde(default)]
    pub user: String,
}

/// No new agents: idle ones leave, busy ones finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why, in the asker's words.
    pub reason: String,
    /// Who asked.
    pub who: Who,
    /// Since when.
    pub since: Timestamp,
    /// When it lapses by itself.
    pub until: Option<Timestamp>,
}

/// Another number of agents than the configured one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountOverride {
    /// How many agents to keep.
    pub count: u32,
    /// Who asked.
    pub who: Who,
    /// Since when.
    pub since: Timestamp,
    /// When it lapses by itself.
    pub until: Option<Timestamp>,
}

/// What is wanted of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolIntents {
    /// See [`Pause`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// See [`CountOverride`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountOverride>,
}

impl PoolIntents {
    fn is_empty(&self) -> bool {
        self.pause.is_none() && self.count.is_none()
    }
}

/// All that is wanted, as one value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntentSet {
    /// Counts changes in this run of the daemon, so that one can be waited for.
    pub revision: u64,
    /// All pools pause.
    pub host: Option<Pause>,
    /// Single pools, by name.
    pub pools: BTreeMap<String, PoolIntents>,
    /// Cluster members that are to be without agents, by name.
    pub members: BTreeMap<String, Pause>,
    /// The host is shutting down. In no file: it is over when the host is back.
    pub shutdown: Option<Pause>,
}

/// What holds for one pool at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effective {
    /// The pause of the pool, else that of the host.
    pub pause: Option<Pause>,
    /// That pause is the host's.
    pub host_wide: bool,
    /// Another number of agents.
    pub count: Option<CountOverride>,
    /// When the first of these lapses.
    pub next_lapse: Option<Timestamp>,
}

impl Effective {
    /// Returns how many agents are wanted where so many are configured.
    pub fn wanted(&self, configured: u32) -> u32 {
        match (&self.pause, &self.count) {
            (Some(_), _) => 0,
            (None, Some(count)) => count.count,
            (None, None) => configured,
        }
    }
}

impl IntentSet {
    /// Returns what holds for a pool at `now`.
    pub fn effective(&self, pool: &str, now: Timestamp) -> Effective {
        let own = self.pools.get(pool);
        let holds = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
        let own_pause = own
            .and_then(|own| own.pause.as_ref())
            .filter(|pause| holds(pause.until));
        let host = self.host.as_ref().filter(|pause| holds(pause.until));
        let shutdown = self.shutdown.as_ref();
        let count = own
            .and_then(|own| own.count.as_ref())
            .filter(|count| holds(count.until));
        let lapses = [
            own_pause.and_then(|pause| pause.until),
            host.and_then(|pause| pause.until),
            count.and_then(|count| count.until),
        ];
        Effective {
            pause: own_pause.or(host).or(shutdown).cloned(),
            host_wide: own_pause.is_none() && host.or(shutdown).is_some(),
            count: count.cloned(),
            next_lapse: lapses.into_iter().flatten().min(),
        }
    }

    /// Returns whether all pools pause at `now`.
    pub fn is_host_paused(&self, now: Timestamp) -> bool {
        self.host
            .as_ref()
            .is_some_and(|pause| pause.until.is_none_or(|until| now < until))
    }

    /// Forgets what has lapsed.
    fn prune(&mut self, now: Timestamp) {
        let lapsed = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
        self.host.take_if(|pause| lapsed(pause.until));
        for pool in self.pools.values_mut() {
            pool.pause.take_if(|pause| lapsed(pause.until));
            pool.count.take_if(|count| lapsed(count.until));
        }
        self.pools.retain(|_, pool| !pool.is_empty());
    }
}

/// Keeps what is wanted. The only writer of the file.
pub struct Intents {
    /// Held while a change is made and written: changes come one after the other.
    file: Mutex<IntentsFile>,
    set: watch::Sender<Arc<IntentSet>>,
    trouble: Option<String>,
}

impl Intents {
    /// Reads what earlier runs of the daemon were told. Never fails: what cannot be read is told
    /// by [`Self::trouble`].
    pub fn load(state_dir: &Path) -> Self {
        let Loaded { file, set, trouble } = IntentsFile::load(state_dir);
        if let Some(trouble) = &trouble {
            warn!("{trouble}");
        }
        let (set, _) = watch::channel(Arc::new(set));
        Self {
            file: Mutex::new(file),
            set,
            trouble,
        }
    }

    /// Returns a receiver of all that is wanted.
    pub fn watch(&self) -> watch::Receiver<Arc<IntentSet>> {
        self.set.subscribe()
    }

    /// Returns all that is wanted.
    pub fn now(&self) -> Arc<IntentSet> {
        Arc::clone(&self.set.borrow())
    }

    /// Returns what is wrong with the file, in words.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Changes what is wanted: on disk first, then for everybody. Returns the new revision. Waits
    /// for the disk.
    pub fn change(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut IntentSet),
    ) -> Result<u64, IntentsError> {
        let file = self.file.lock().expect("no panic while held");
        let mut set = IntentSet::clone(&self.set.borrow());
        change(&mut set);
        set.prune(now);
        file.save(&set)?;
        set.revision += 1;
        let revision = set.revision;
        self.set.send_replace(Arc::new(set));
        Ok(revision)
    }

    /// Tells everybody that the host is shutting down, or that it is not after all.
    pub fn set_shutdown(&self, pause: Option<Pause>) {
        let _changes_wait = self.file.lock().expect("no panic while held");
        self.set.send_modify(|set| {
            let set = Arc::make_mut(set);
            set.shutdown = pause;
            set.revision += 1;
        });
    }
}

#[cfg(test)]
mod tests;
