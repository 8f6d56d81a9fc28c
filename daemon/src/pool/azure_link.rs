//! A pool's side of Azure: the client, and one task per Azure pool that lists its agents beside
//! the passes. Passes use the last list with its age; nobody waits for Azure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::azure::{self, Azure, AzureError, CredentialClock, JobRequest};

use super::breaker::{Allowance, Breaker, BreakerStatus};

/// While something is awaited from Azure (an agent coming online, a drain) lists follow each
/// other this fast, if the configured interval is not shorter.
const HURRIED_INTERVAL: Duration = Duration::from_secs(2);
/// How long a hurry lasts after it was last asked for.
const HURRY_LASTS: Duration = Duration::from_secs(5);
/// Lists never follow each other faster.
const CLOSEST: Duration = Duration::from_millis(500);
/// The number of waiting jobs may be this old.
const LONGEST_JOBS_AGE: Duration = Duration::from_secs(30);
/// And counting them is worth no longer wait: the agents are what matters.
const JOBS_DEADLINE: Duration = Duration::from_secs(5);
/// After so many lists that told nothing new they follow each other more slowly.
const CALM_AFTER: u32 = 12;
/// By this factor, but never more slowly than people can wait for what they see, if the configured
/// interval is not longer: the end of a job is heard by its doorbell, its begin only here.
const CALM_FACTOR: u32 = 2;
const CALM_INTERVAL: Duration = Duration::from_secs(30);
/// A list that takes longer is told: calls have a minute, and until then nothing has failed.
const SLOW: Duration = Duration::from_secs(10);
/// While the credential is rejected, its file is looked at this often.
const TOKEN_LOOK: Duration = Duration::from_secs(2);

/// What Azure thinks of the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialState {
    /// Not used yet.
    #[default]
    Untried,
    /// The last call was let in.
    Accepted,
    /// The last call was not.
    Rejected,
}

/// One complete list.
#[derive(Debug, Clone)]
pub struct AzureList {
    /// When the call began.
    pub began: Instant,
    /// By the wall clock, when it ended.
    pub at: Timestamp,
    /// All agents of the Azure pool by name.
    pub agents: Arc<BTreeMap<String, azure::Agent>>,
    /// Unfinished jobs that no agent has yet; `None` when that is not known.
    pub waiting_jobs: Option<Arc<[JobRequest]>>,
}

impl AzureList {
    /// Jobs that wait are always news: somebody looks when they will be taken.
    fn says_the_same_as(&self, old: &Self) -> bool {
        let waits = self.waiting_jobs.as_ref().is_some_and(|j| !j.is_empty());
        !waits && self.agents == old.agents
    }
}

/// What is known of an Azure pool.
#[derive(Debug, Clone, Default)]
pub struct AzureView {
    /// Its id, once it was found.
    pub pool_id: Option<i32>,
    /// The last complete list.
    pub list: Option<AzureList>,
    /// The last attempt worked.
    pub usable: bool,
    /// Counts the failures: ages of what lists say begin again after each.
    pub gaps: u64,
    /// What Azure thinks of the credential.
    pub credential: CredentialState,
    /// How long it lasts, as far as that is known.
    pub clock: CredentialClock,
    /// Failures in a row and the next attempt.
    pub breaker: BreakerStatus,
    /// Since when a list is awaited that takes long.
    pub unanswered_since: Option<Timestamp>,
}

/// A pool's handle on Azure. Cheap to clone.
#[derive(Clone)]
pub struct AzureLink {
    azure: Azure,
    pool: String,
    view: watch::Receiver<Arc<AzureView>>,
    wish: Arc<Wish>,
}

#[derive(Default)]
struct Wish {
    now: Notify,
    hurry: Notify,
    retry: Notify,
}

impl AzureLink {
    /// Makes a link to the Azure pool named `pool`, and the task that keeps it up to date.
    pub fn new(azure: Azure, pool: &str, interval: Duration) -> (Self, AzurePoller) {
        let (publish, view) = watch::channel(Arc::new(AzureView::default()));
        let link = Self {
            azure,
            pool: pool.to_owned(),
            view,
            wish: Arc::default(),
        };
        let poller = AzurePoller {
            azure: link.azure.clone(),
            pool: link.pool.clone(),
            interval,
            wish: Arc::clone(&link.wish),
            publish,
            breaker: Breaker::default(),
            hurried_until: None,
            unchanged: 0,
            not_before: None,
            jobs_at: None,
            waiting_jobs: None,
        };
        (link, poller)
    }

    /// Returns the client.
    pub fn azure(&self) -> &Azure {
        &self.azure
    }

    /// Returns the Azure pool's name.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Returns what is known now.
    pub fn view(&self) -> Arc<AzureView> {
        Arc::clone(&self.view.borrow())
    }

    /// Returns a receiver of what is known.
    pub fn watch(&self) -> watch::Receiver<Arc<AzureView>> {
        self.view.clone()
    }

    /// Returns whether both are the same link.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wish, &other.wish)
    }

    /// Asks for a list soon: something changed, or a call failed.
    pub fn nudge(&self) {
        self.wish.now.notify_one();
    }

    /// Asks for a list now, also while failures hold them back. A pause that Azure asked for is
    /// kept all the same.
    pub fn retry(&self) {
        self.wish.retry.notify_one();
    }

    /// Asks for quicker lists for a while.
    pub fn hurry(&self) {
        self.wish.hurry.notify_one();
    }
}

/// Keeps an [`AzureLink`] up to date.
pub struct AzurePoller {
    azure: Azure,
    pool: String,
    interval: Duration,
    wish: Arc<Wish>,
    publish: watch::Sender<Arc<AzureView>>,
    breaker: Breaker,
    hurried_until: Option<Instant>,
    /// So many lists in a row told nothing new.
    unchanged: u32,
    /// Azure asked to be left alone until then.
    not_before: Option<Instant>,
    /// When waiting jobs were counted, and how many there were.
    jobs_at: Option<Instant>,
    waiting_jobs: Option<Arc<[JobRequest]>>,
}

impl AzurePoller {
    /// Lists until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let began = Instant::now();
            let slow = tell_when_slow(self.publish.clone());
            let result = tokio::select! {
                () = stop.cancelled() => return,
                never = slow => match never {},
                result = self.poll(began) => result,
            };
            self.take(result, began);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pause(began) => {}
            }
        }
    }

    async fn poll(&mut self, began: Instant) -> Result<(i32, AzureList), PollError> {
        let known = self.publish.borrow().pool_id;
        let pool_id = match known {
            Some(id) => id,
            None => match self.azure.find_pool(&self.pool).await? {
                Some(found) => found.id,
                None => {
                    return Err(PollError::NoPool {
                        pool: self.pool.clone(),
                    });
                }
            },
        };
        let jobs_due = self
            .jobs_at
            .is_none_or(|at| began.duration_since(at) >= self.interval.min(LONGEST_JOBS_AGE));
        let agents = self.azure.agents(pool_id).await?;
        if jobs_due {
            self.jobs_at = Some(began);
            self.waiting_jobs = self.list_waiting_jobs(pool_id).await;
        }
        let agents = agents
            .into_iter()
            .map(|agent| (agent.name.clone(), agent))
            .collect();
        let list = AzureList {
            began,
            at: Timestamp::now(),
            agents: Arc::new(agents),
            waiting_jobs: self.waiting_jobs.clone(),
        };
        Ok((pool_id, list))
    }

    /// Only told to people; an old server without this call is no reason to fail.
    async fn list_waiting_jobs(&self, pool_id: i32) -> Option<Arc<[JobRequest]>> {
        let jobs = self.azure.unfinished_jobs(pool_id);
        match tokio::time::timeout(JOBS_DEADLINE, jobs).await {
            Ok(Ok(jobs)) => {
                let waiting = jobs
                    .into_iter()
                    .filter(|j| j.result.is_none() && j.assign_time.is_none());
                Some(waiting.collect())
            }
            Ok(Err(error)) => {
                debug!(error = %chain(&error), "cannot list unfinished jobs");
                None
            }
            Err(_) => {
                debug!("listing unfinished jobs takes too long");
                None
            }
        }
    }

    fn take(&mut self, result: Result<(i32, AzureList), PollError>, began: Instant) {
        let now = Instant::now();
        let mut view = AzureView::clone(&self.publish.borrow());
        view.unanswered_since = None;
        match result {
            Ok((pool_id, list)) => {
                if !view.usable {
                    info!(azure_pool = %self.pool, pool_id, "Azure pool is reachable");
                }
                self.breaker.succeeded();
                self.unchanged = match &view.list {
                    Some(old) if view.usable && list.says_the_same_as(old) => {
                        self.unchanged.saturating_add(1)
                    }
                    _ => 0,
                };
                view.pool_id = Some(pool_id);
                view.list = Some(list);
                view.usable = true;
                view.credential = CredentialState::Accepted;
            }
            // Not asked: nothing is known to be wrong, and the last list stands with its age.
            Err(PollError::Azure(AzureError::Paused { retry_after, .. })) => {
                debug!(azure_pool = %self.pool, ?retry_after, "Azure wants to be left alone");
                self.not_before = Some(now + retry_after);
            }
            Err(error) => {
                let text = chain(&error).to_string();
                if view.usable || view.breaker.last_error != text {
                    warn!(azure_pool = %self.pool, error = %text, "cannot list agents, will retry");
                } else {
                    debug!(azure_pool = %self.pool, error = %text, "cannot list agents");
                }
                self.breaker.failed(text, began, now, error.retry_after());
                view.usable = false;
                view.gaps += 1;
                match &error {
                    PollError::Azure(error) if error.is_rejected() => {
                        view.credential = CredentialState::Rejected;
                    }
                    // The pool may have been deleted and made again under another id.
                    PollError::Azure(error) if error.is_not_found() => view.pool_id = None,
                    _ => {}
                }
            }
        }
        view.clock = self.azure.clock();
        view.breaker = self.breaker.status(now);
        self.publish.send_replace(Arc::new(view));
    }

    /// Waits until the next list is due.
    async fn pause(&mut self, began: Instant) {
        if let Some(at) = self.not_before.take() {
            tokio::time::sleep_until(at).await;
            return;
        }
        loop {
            let now = Instant::now();
            if self.breaker.allowance(now) == Allowance::Nothing {
                self.sit_out().await;
                return;
            }
            let hurried =
                self.hurried_until.is_some_and(|until| now < until) && !self.azure.is_throttled();
            let interval = if hurried {
                self.interval.min(HURRIED_INTERVAL)
            } else {
                jittered(unhurried(self.interval, self.unchanged))
            };
            tokio::select! {
                () = tokio::time::sleep_until(began + interval) => return,
                () = self.wish.now.notified() => {
                    self.unchanged = 0;
                    tokio::time::sleep_until(began + CLOSEST).await;
                    return;
                }
                () = self.wish.retry.notified() => return,
                () = self.wish.hurry.notified() => {
                    self.unchanged = 0;
                    self.hurried_until = Some(Instant::now() + HURRY_LASTS);
                }
            }
        }
    }

    /// Waits for the next try after a failure, for somebody who asks for it sooner, or for a
    /// new token in place of one that was rejected.
    async fn sit_out(&mut self) {
        let Some(next) = self.breaker.next_try() else {
            return;
        };
        let is_rejected = self.publish.borrow().credential == CredentialState::Rejected;
        let new_token = async {
            loop {
                tokio::time::sleep(TOKEN_LOOK).await;
                if is_rejected && self.azure.has_new_token().await {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = self.wish.retry.notified() => {}
            () = new_token => info!(azure_pool = %self.pool, "found a new token"),
        }
    }
}

/// Says that an answer takes long, once it does. Never ends.
async fn tell_when_slow(publish: watch::Sender<Arc<AzureView>>) -> Infallible {
    let began = Timestamp::now();
    tokio::time::sleep(SLOW).await;
    publish.send_modify(|view| Arc::make_mut(view).unanswered_since = Some(began));
    std::future::pending().await
}

/// Returns how far lists are apart that nobody waits for, `unchanged` of which told nothing new.
fn unhurried(interval: Duration, unchanged: u32) -> Duration {
    if unchanged < CALM_AFTER {
        interval
    } else {
        (interval * CALM_FACTOR).min(interval.max(CALM_INTERVAL))
    }
}

/// A tenth less or more, so that hosts do not ask in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Why there is no new list.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Azure(#[from] AzureError),
    #[error(
        "Azure has no agent pool named \"{pool}\", or the credential may not see it: \
         create it under Organization settings > Agent pools, or set azure.pool"
    )]
    NoPool { pool: String },
}

impl PollError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Azure(error) => error.retry_after(),
            Self::NoPool { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
