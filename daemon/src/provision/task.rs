//! The task that owns the running jobs: starts those whose turn it is, and sees to it that every
//! job ends, also when the daemon stops. Images are changed by nothing else: what operators ask
//! for is done here, too, when no job works on the same target.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use crate::incus::Incus;

use super::context::Context;
use super::images::Change;
use super::job::JobState;
use super::ledger::{Keep, Ledger};
use super::log::JobLog;
use super::package_cache::PackageCache;
use super::progress::Progress;
use super::queue::{self, Target, Waiting};
use super::run::carry_out;
use super::steps::{BOOT, IMAGE_SERVER, Steps};
use super::sweep::sweep;
use super::{AzureLookup, Command};

/// What running jobs get to remove their builders when the daemon stops; it has 20 s for all of it.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const STOPPED: &str = "daemon stopped";

/// Carries out the jobs of a [`super::Provisioner`].
pub struct ProvisionTask {
    ledger: Arc<Ledger>,
    packages: PackageCache,
    incus: Incus,
    azure: AzureLookup,
    owner: String,
    image_server: String,
    boot: Duration,
    commands: mpsc::Receiver<Command>,
    waiting: VecDeque<Waiting>,
    running: JoinSet<()>,
    /// What each running job makes, by its task.
    targets: HashMap<Id, (String, Target)>,
    /// Changes of images whose turn has not come.
    asked: VecDeque<Change>,
    changing: JoinSet<()>,
    /// What each change that is under way concerns, by its task.
    changed: HashMap<Id, Target>,
}

impl ProvisionTask {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        packages: PackageCache,
        incus: Incus,
        azure: AzureLookup,
        owner: String,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            ledger,
            packages,
            incus,
            azure,
            owner,
            image_server: IMAGE_SERVER.to_owned(),
            boot: BOOT,
            commands,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            targets: HashMap::new(),
            asked: VecDeque::new(),
            changing: JoinSet::new(),
            changed: HashMap::new(),
        }
    }

    /// Takes `images:` from another simplestreams server than the usual one.
    #[must_use]
    pub fn with_image_server(mut self, url: &str) -> Self {
        url.clone_into(&mut self.image_server);
        self
    }

    /// Gives guests another time to boot than the usual one.
    #[must_use]
    pub fn with_boot_deadline(mut self, deadline: Duration) -> Self {
        self.boot = deadline;
        self
    }

    /// Runs until `stop`. Jobs that have not ended then are cancelled and their builders removed.
    pub async fn run(mut self, stop: CancellationToken) {
        let (incus, owner, ledger) = (
            self.incus.clone(),
            self.owner.clone(),
            Arc::clone(&self.ledger),
        );
        let mut sweeping = std::pin::pin!(sweep(&incus, &owner, &ledger));
        loop {
            self.end_cancelled();
            self.start_changes();
            self.start_next();
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut sweeping => {}
                Some(command) = self.commands.recv() => match command {
                    Command::Run(waiting) => self.waiting.push_back(*waiting),
                    Command::Change(change) => self.asked.push_back(*change),
                    Command::Look => {}
                },
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Some(ended) = self.changing.join_next_with_id() => self.change_ended(ended),
            }
        }
        self.stop().await;
    }

    /// Begins the changes that nothing is in the way of. One whose target has a job is refused: it
    /// would wait for an hour. A job that has ended and is tidying up is waited for.
    fn start_changes(&mut self) {
        let (running, mut changed) = (self.running_targets(), self.changed_targets());
        let asked = std::mem::take(&mut self.asked).into_iter();
        for change in asked.filter(|change| !change.is_given_up()) {
            match self.ledger.check_no_job(change.target()) {
                Ok(()) => self.asked.push_back(change),
                Err(under_way) => change.refuse(under_way),
            }
        }
        while let Some(change) = queue::take_change(&mut self.asked, &running, &changed) {
            let target = change.target().clone();
            changed.push(target.clone());
            let failed = self.ledger.failed_jobs(&target.project);
            let incus = self.incus.clone();
            let task = self.changing.spawn(change.carry_out(incus, failed));
            self.changed.insert(task.id(), target);
        }
    }

    fn running_targets(&self) -> Vec<Target> {
        let targets = self.targets.values();
        targets.map(|(_, target)| target.clone()).collect()
    }

    fn changed_targets(&self) -> Vec<Target> {
        self.changed.values().cloned().collect()
    }

    fn start_next(&mut self) {
        let (mut running, changed) = (self.running_targets(), self.changed_targets());
        while let Some(next) = queue::take_next(&mut self.waiting, &running, &changed) {
            let target = Target::of(&next.request);
            running.push(target.clone());
            let job = next.job.clone();
            let span = info_span!("provision", job, target = next.request.target);
            let steps = self.steps(next);
            let task = self
                .running
                .spawn(carry_out(steps, Arc::clone(&self.ledger)).instrument(span));
            self.targets.insert(task.id(), (job, target));
        }
    }

    fn steps(&self, next: Waiting) -> Steps {
        let Waiting {
            job,
            request,
            cancel,
        } = next;
        let log = JobLog::open(&self.ledger.log_path(&job).unwrap_or_default());
        let progress = Progress::new(Arc::clone(&self.ledger), job.clone(), log);
        let project = self.incus.project(&request.project);
        Steps {
            cx: Context::new(self.incus.clone(), project, progress, cancel),
            job,
            request,
            owner: self.owner.clone(),
            azure: Arc::clone(&self.azure),
            packages: self.packages.clone(),
            image_server: self.image_server.clone(),
            boot: self.boot,
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some((job, _)) = self.targets.remove(&id) else {
            return;
        };
        if let Some(error) = panic {
            error!(job, %error, "provision job broke off");
            self.end(&job, JobState::Failed, "internal error: the job broke off");
        }
        self.packages.prune(&self.ledger.wanted_packages());
    }

    fn change_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                error!(%error, "a change of images broke off");
                error.id()
            }
        };
        self.changed.remove(&id);
    }

    /// Ends jobs that were cancelled before their turn.
    fn end_cancelled(&mut self) {
        let (cancelled, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiting| waiting.cancel.is_cancelled());
        self.waiting = waiting;
        for waiting in cancelled {
            self.ledger.change(&waiting.job, Keep::OnDisk, |job| {
                let why = job.cancelled.clone();
                job.end(JobState::Cancelled, why, Timestamp::now());
            });
        }
    }

    async fn stop(mut self) {
        self.commands.close();
        self.asked.clear();
        for job in self.ledger.unfinished() {
            // Errs only for a job that has ended meanwhile.
            drop(self.ledger.cancel(&job.id, STOPPED));
        }
        self.end_cancelled();
        let ended = timeout(STOP_DEADLINE, async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.ended(ended);
            }
            while self.changing.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            warn!("provision jobs did not end in time; their builders go at the next start");
            self.running.shutdown().await;
            self.changing.shutdown().await;
        }
        // Also those whose command was never taken.
        for job in self.ledger.unfinished() {
            self.end(&job.id, JobState::Cancelled, STOPPED);
        }
    }

    fn end(&self, job: &str, state: JobState, why: &str) {
        self.ledger.change(job, Keep::OnDisk, |job| {
            job.break_off(state, why, Timestamp::now());
        });
    }
}
