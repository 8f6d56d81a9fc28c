//! Provisioning: making the images that agents are started from.
//!
//! A job lives in the daemon, not with who asked for it. It is queued, its builder is set up step
//! by step and published, and the target's alias is pointed at the new image in one request, so
//! that a job which fails leaves everything as it was.
//!
//! ```text
//!  Provisioner ──create──► queue ──► run ──► steps ──► builder ─► Incus    (set up a guest)
//!  (handle)    ──cancel──►  (task)     │       ├─────► package_cache ─► Azure
//!      ▲                               │       └─────► publish ─► Incus    (image, alias)
//!      │                               ▼
//!      └── jobs, events ◄── ledger ◄── progress ──► log, record            (files)
//! ```
//!
//! What a job looks like from outside is [`Job`], what may be asked for [`JobRequest`]. The images
//! of earlier jobs, the way back to one and the removal of old ones are `images`. Nothing here
//! knows gRPC, pools or the configuration: the credential to ask Azure with is looked up when it is
//! needed.

mod builder;
mod context;
mod error;
mod guest_os;
mod images;
mod job;
mod ledger;
mod log;
mod ownership;
mod package_cache;
mod progress;
mod publish;
mod queue;
mod record;
mod request;
mod run;
mod steps;
mod sweep;
mod task;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper::body::Bytes;
use tokio::sync::{broadcast, mpsc};

pub use self::error::ProvisionError;
use self::images::Change;
pub use self::images::{ImageError, PruneRule, Pruned, RollBack, RolledBack, TargetImage};
pub use self::job::{Job, JobEvent, JobState, Step, StepKind, StepState};
use self::ledger::Ledger;
use self::package_cache::PackageCache;
pub use self::queue::Target;
use self::queue::Waiting;
use self::record::Records;
pub use self::request::{JobRequest, PackageSource, Script};
pub use self::task::ProvisionTask;
use crate::azure::Azure;
use crate::incus::Incus;

/// Finds the client of a pool's Azure organisation, or of any. A reload of the configuration
/// changes what it finds.
pub type AzureLookup = Arc<dyn Fn(Option<&str>) -> Result<Azure, NoAzure> + Send + Sync>;

/// Why there is no client to ask with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAzure {
    /// There is no such pool, or none at all.
    NotConfigured,
    /// The pool has not begun, because Incus has not answered since the daemon started.
    NotYet,
}

/// What a caller waits for a cancelled job to clean up, before it is told that it is under way.
const CANCEL_WAIT: Duration = Duration::from_secs(20);
/// The task takes commands at once, so few ever wait.
const COMMANDS: usize = 64;

/// A handle of the provision task. Cheap to clone.
#[derive(Clone)]
pub struct Provisioner {
    ledger: Arc<Ledger>,
    packages: PackageCache,
    azure: AzureLookup,
    incus: Incus,
    commands: mpsc::Sender<Command>,
}

/// What the task is told.
enum Command {
    Run(Box<Waiting>),
    Change(Box<Change>),
    /// A job has been cancelled that may be waiting.
    Look,
}

impl Provisioner {
    /// Returns the handle and the task that carries the jobs out, with the jobs of earlier times.
    ///
    /// `owner` marks builders as this daemon's own.
    pub fn new(
        state_dir: &Path,
        incus: Incus,
        azure: AzureLookup,
        owner: String,
    ) -> (Self, ProvisionTask) {
        let ledger = Arc::new(Ledger::load(Records::new(state_dir)));
        let packages = PackageCache::new(state_dir);
        let (commands, received) = mpsc::channel(COMMANDS);
        let task = ProvisionTask::new(
            Arc::clone(&ledger),
            packages.clone(),
            incus.clone(),
            Arc::clone(&azure),
            owner,
            received,
        );
        (
            Self {
                ledger,
                packages,
                azure,
                incus,
                commands,
            },
            task,
        )
    }

    /// Queues a job and returns it.
    pub fn create(&self, mut request: JobRequest) -> Result<Arc<Job>, ProvisionError> {
        let mut problems = request.normalise();
        problems.extend(self.package_problem(&request));
        if !problems.is_empty() {
            return Err(ProvisionError::Invalid(problems));
        }
        let (job, cancel) = self.ledger.add(&request)?;
        let waiting = Waiting {
            job: job.id.clone(),
            request,
            cancel,
        };
        if self
            .commands
            .try_send(Command::Run(Box::new(waiting)))
            .is_err()
        {
            self.ledger.withdraw(&job.id);
            return Err(ProvisionError::Stopping);
        }
        Ok(job)
    }

    /// Returns all jobs, the newest first.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.ledger.jobs()
    }

    /// Returns one job.
    pub fn job(&self, id: &str) -> Option<Arc<Job>> {
        self.ledger.job(id)
    }

    /// Returns a job and what happens to it from here on. The events end when the job has ended;
    /// who lags behind asks for the job again.
    pub fn subscribe(&self, id: &str) -> Option<(Arc<Job>, broadcast::Receiver<JobEvent>)> {
        self.ledger.subscribe(id)
    }

    /// Returns the file that a job's whole log is in. It grows by whole lines until the job ends.
    pub fn log_path(&self, id: &str) -> Option<PathBuf> {
        self.ledger.job(id).map(|job| job.log_path.clone())
    }

    /// Cancels a job, waiting or running, and waits a while for it to clean up. Repeating it is no
    /// error.
    pub async fn cancel(&self, id: &str, by: &str) -> Result<Arc<Job>, ProvisionError> {
        self.ledger.cancel(id, &format!("cancelled by {by}"))?;
        // A task that has stopped has ended its jobs.
        let told = self.commands.send(Command::Look).await;
        if told.is_ok() {
            let ended = tokio::time::timeout(CANCEL_WAIT, self.ledger.ended(id)).await;
            drop(ended);
        }
        self.ledger
            .job(id)
            .ok_or_else(|| ProvisionError::NotFound(id.to_owned()))
    }

    /// Stores an agent package for a later job and returns its SHA-256 and size.
    pub async fn store_package<E>(
        &self,
        chunks: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(String, u64), ProvisionError>
    where
        E: Error + Send + Sync + 'static,
    {
        let stored = self.packages.store(chunks).await?;
        // What was uploaded last is among what is kept.
        self.packages.prune(&self.ledger.wanted_packages());
        Ok(stored)
    }

    fn package_problem(&self, request: &JobRequest) -> Option<String> {
        match (&request.package, &request.azure_pool) {
            (PackageSource::Uploaded { sha256 }, _) => (request::is_sha256(sha256)
                && !self.packages.contains(sha256))
            .then(|| format!("agent package {sha256}: was not uploaded, or too long ago")),
            (PackageSource::Version(_), pool) => {
                match (self.azure)(pool.as_deref()) {
                    // One that is on its way is there when its turn comes.
                    Ok(_) | Err(NoAzure::NotYet) => return None,
                    Err(NoAzure::NotConfigured) => {}
                }
                Some(match pool {
                    Some(pool) => format!("pool {pool:?}: is not configured"),
                    None => "no pool is configured, so there is no Azure organisation to ask for \
                             the agent package: upload one"
                        .to_owned(),
                })
            }
        }
    }
}
