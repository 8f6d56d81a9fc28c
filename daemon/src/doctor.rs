//! Looks at the host, Incus and Azure for what is wrong or will be, and says how to mend it.
//!
//! ```text
//!  Doctor::diagnose ─┬─ server ─► instances ─► storage      Incus: one after the other, pools at once
//!                    ├─ azure                               a call per pool, all at once
//!                    └─ agents kernel capacity host         statuses, /proc, files
//!                               └─────────► Vec<Check> ─► grpc ─► iapctl doctor
//! ```
//!
//! It changes nothing. Each part fetches facts and gives them to a pure function that judges them.
//! All outside calls share one deadline; what cannot be looked at is a check that was skipped, with
//! the reason, and never a failure of the whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use iap_common::error::chain;

use crate::incus::Incus;
use crate::pool::PoolHandle;
use crate::pool::spec::DaemonSpec;
use crate::pool::status::{PoolKey, PoolStatus};
use crate::reload::Reloader;
use crate::supervisor::Pools;

pub use check::{Check, Severity};

mod agents;
mod azure;
mod capacity;
mod check;
mod host;
mod instances;
mod kernel;
mod qgroups;
mod server;
mod shutdown;
mod storage;

/// For all calls together: below the half minute that `iapctl` waits for an ordinary answer.
const TIME: Duration = Duration::from_secs(20);

/// What the checks look at. Cheap to clone.
#[derive(Clone)]
pub struct Doctor {
    /// The configuration in force, and its file.
    pub reloader: Arc<Reloader>,
    /// All pools.
    pub pools: watch::Receiver<Pools>,
    /// The Incus server.
    pub incus: Incus,
    /// Which projects' event streams are connected.
    pub events: watch::Receiver<BTreeMap<String, bool>>,
}

impl Doctor {
    /// Makes all checks.
    pub async fn diagnose(&self) -> Vec<Check> {
        let spec = self.reloader.spec();
        let handles = Arc::clone(&self.pools.borrow());
        let statuses: Vec<Arc<PoolStatus>> = handles.iter().map(PoolHandle::status).collect();
        let deadline = Deadline::after(TIME);
        let (incus, azure, local, shutdown) = tokio::join!(
            Box::pin(self.incus_side(&spec, deadline)),
            Box::pin(azure::examine(&spec, &handles, deadline)),
            self.local_side(&spec, deadline),
            shutdown::examine(&spec),
        );
        let agents = agents::judge_all(&statuses, jiff::Timestamp::now());
        [incus, agents, azure, local, shutdown].concat()
    }

    async fn incus_side(&self, spec: &DaemonSpec, deadline: Deadline) -> Vec<Check> {
        let events = self.events.borrow().clone();
        let answer = deadline.call(self.incus.server()).await;
        let is_there = answer.is_ok();
        let mut checks = server::judge(&answer, &events, spec, &server::Access::look(spec));
        if !is_there {
            checks.extend(instances::skipped("Incus does not answer"));
            checks.extend(storage::skipped("Incus does not answer"));
            return checks;
        }
        let looked = futures_util::future::join_all(
            spec.pools
                .iter()
                .map(|pool| instances::examine(&self.incus, pool, deadline)),
        )
        .await;
        let mut storage_pools: Vec<String> = Vec::new();
        for (found, storage_pool) in looked {
            checks.extend(found);
            storage_pools.extend(storage_pool);
        }
        storage_pools.sort();
        storage_pools.dedup();
        let examined = futures_util::future::join_all(
            storage_pools
                .iter()
                .map(|name| storage::examine(&self.incus, name, spec.incus.is_remote(), deadline)),
        );
        checks.extend(examined.await.into_iter().flatten());
        checks
    }

    /// Looks at files, on a thread that may block: the state directory may be on a dead network.
    async fn local_side(&self, spec: &Arc<DaemonSpec>, deadline: Deadline) -> Vec<Check> {
        let (spec, reloader) = (Arc::clone(spec), Arc::clone(&self.reloader));
        let look = tokio::task::spawn_blocking(move || {
            let mut checks = if spec.incus.is_remote() {
                let reason = "the agents are on other hosts: look there";
                [kernel::skipped(reason), capacity::skipped(reason)].concat()
            } else {
                let mut checks = kernel::judge(&kernel::Limits::read(), &spec.pools);
                checks.extend(capacity::judge(&capacity::Size::read(), &spec.pools));
                checks
            };
            checks.extend(host::examine(&spec, &reloader));
            checks
        });
        match timeout_at(deadline.0, look).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(_)) | Err(_) => host::skipped("the host's files cannot be read in time"),
        }
    }
}

/// Returns the handle of a configured pool; `None` while its task has not begun.
fn handle<'a>(
    handles: &'a [PoolHandle],
    pool: &crate::pool::spec::PoolSpec,
) -> Option<&'a PoolHandle> {
    let key = PoolKey::of(pool);
    handles.iter().find(|handle| *handle.key() == key)
}

/// When all calls have to have ended.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Makes a call in the time that is left.
    async fn call<T, E>(self, call: impl Future<Output = Result<T, E>>) -> Result<T, Failure<E>> {
        match timeout_at(self.0, call).await {
            Ok(result) => result.map_err(Failure::Error),
            Err(_) => Err(Failure::Late),
        }
    }
}

/// Why a call gave no answer.
#[derive(Debug)]
enum Failure<E> {
    Error(E),
    /// The doctor's own time was up.
    Late,
}

impl<E: std::error::Error + 'static> Failure<E> {
    /// Returns the reason with its causes.
    fn text(&self) -> String {
        match self {
            Self::Error(error) => chain(error).to_string(),
            Self::Late => format!("no answer within {} s", TIME.as_secs()),
        }
    }
}

/// Returns `one thing`, `3 things`.
fn count(number: usize, thing: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{s}")
}

#[cfg(test)]
mod tests;
