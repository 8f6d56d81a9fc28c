//! Lets jobs end before the host goes down, if the configuration wants that. While agents have
//! jobs a lock of logind's delays a shutdown; when one has begun, the host pauses: no new agents,
//! idle ones leave, busy ones finish. The lock is given up with the last job, or when the
//! configured time is over.
//!
//! ```text
//!  a job runs ──► lock ──► shutdown begins ──► pause ──► no job runs, or time is up ──► no lock
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::agent::AgentState;
use crate::intents::{Intents, Pause, Who};
use crate::logind::{DelayLock, Logind};
use crate::pool::PoolHandle;
use crate::pool::spec::DaemonSpec;
use crate::supervisor::Pools;

/// Between two looks: below the 5 s that logind waits unless told to wait longer.
const LOOK: Duration = Duration::from_secs(2);
/// Before a lock that was refused is asked for again.
const RETRY: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct HostShutdown {
    logind: Logind,
    intents: Arc<Intents>,
    lock: Option<DelayLock>,
    retry_at: Option<Instant>,
    /// Since when a shutdown is known to wait.
    since: Option<Instant>,
}

impl HostShutdown {
    pub(super) fn new(logind: Logind, intents: Arc<Intents>) -> Self {
        Self {
            logind,
            intents,
            lock: None,
            retry_at: None,
            since: None,
        }
    }

    /// Looks now and then, until `stop`.
    pub(super) async fn run(
        mut self,
        specs: watch::Receiver<Arc<DaemonSpec>>,
        pools: watch::Receiver<Pools>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let wait = specs.borrow().shutdown_wait;
            let busy = busy(&pools.borrow());
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look(wait, busy) => {}
            }
        }
    }

    /// Looks, and holds the lock or lets it go. Without a time to wait it does nothing.
    async fn look(&mut self, wait: Option<Duration>, busy: usize) {
        let Some(wait) = wait else {
            self.lock = None;
            self.set_since(None);
            return;
        };
        if self.lock.as_mut().is_some_and(DelayLock::is_lost) {
            warn!("the lock that delays a shutdown of the host is lost");
            self.lock = None;
        }
        if self.lock.is_some() || self.since.is_some() {
            self.look_for_shutdown(wait, busy).await;
        }
        let is_over = self.since.is_some_and(|since| since.elapsed() >= wait);
        if busy == 0 || is_over {
            if self.lock.take().is_some() && self.since.is_some() {
                info!(busy, "the host may shut down");
            }
        } else if self.lock.is_none() && self.since.is_none() {
            self.take_lock().await;
        }
    }

    async fn look_for_shutdown(&mut self, wait: Duration, busy: usize) {
        match self.logind.is_preparing_for_shutdown().await {
            Ok(true) if self.since.is_none() => {
                info!(busy, ?wait, "the host is shutting down: waiting for jobs");
                self.set_since(Some(Instant::now()));
            }
            Ok(false) if self.since.is_some() => {
                info!("the host does not shut down after all");
                self.set_since(None);
            }
            Ok(_) => {}
            // Not known is not changed.
            Err(error) => debug!(error = %chain(&error), "cannot ask logind"),
        }
    }

    fn set_since(&mut self, since: Option<Instant>) {
        if self.since.is_some() != since.is_some() {
            self.intents.set_shutdown(since.map(|_| Pause {
                reason: "the host is shutting down".to_owned(),
                who: Who::default(),
                since: Timestamp::now(),
                until: None,
            }));
        }
        self.since = since;
    }

    async fn take_lock(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        match self.logind.delay_shutdown("Azure Pipelines jobs run").await {
            Ok(lock) => {
                debug!("a shutdown of the host would wait for jobs");
                self.lock = Some(lock);
                self.retry_at = None;
            }
            Err(error) => {
                warn!(
                    error = %chain(&error),
                    "a shutdown of the host does not wait for jobs; see: iapctl doctor"
                );
                self.retry_at = Some(now + RETRY);
            }
        }
    }
}

/// Returns how many agents have a job, or have not yet handed its logs over.
fn busy(pools: &Pools) -> usize {
    let statuses = pools.iter().map(PoolHandle::status);
    statuses
        .flat_map(|status| status.agents.clone())
        .filter(|agent| matches!(agent.state, AgentState::Busy | AgentState::Finishing))
        .count()
}

#[cfg(test)]
mod tests;
