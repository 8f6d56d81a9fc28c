//! All jobs: what is known of each, who watches it, and how it is cancelled.
//!
//! The ledger is the one place where a job changes. A change goes to the record on disk, to
//! whoever asks from now on, and to those who watch, in this order.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use iap_common::error::chain;

use super::error::ProvisionError;
use super::job::{Job, JobEvent, JobState};
use super::record::Records;
use super::request::{JobRequest, PackageSource};

/// Jobs that may wait at a time; their scripts are in memory.
const MAX_QUEUED: usize = 20;
/// Ended jobs whose records are kept.
const KEPT_RECORDS: usize = 50;
/// Events a slow watcher may lag behind before it misses some.
const EVENT_BUFFER: usize = 1024;

/// See the module.
pub(super) struct Ledger {
    records: Records,
    entries: watch::Sender<BTreeMap<String, Entry>>,
}

struct Entry {
    job: Arc<Job>,
    cancel: CancellationToken,
    /// Gone when the job has ended, which ends the watchers' streams.
    events: Option<broadcast::Sender<JobEvent>>,
}

/// Whether a change is worth writing down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// A state changed.
    OnDisk,
    /// Progress, of interest only while it is made.
    InMemory,
}

impl Ledger {
    /// Returns the ledger of the jobs recorded in the past. Those that had not ended when the
    /// daemon did have failed, but for those that only had to clean up.
    pub(super) fn load(records: Records) -> Self {
        let mut entries = BTreeMap::new();
        for (id, mut job) in records.load() {
            if !job.state.has_ended() {
                let state = job.state;
                let why = match state {
                    JobState::Queued => "daemon restarted before the job's turn came",
                    _ => "daemon restarted",
                };
                job.break_off(JobState::Failed, why, Timestamp::now());
                save(&records, &job);
            }
            let entry = Entry {
                job: Arc::new(job),
                cancel: CancellationToken::new(),
                events: None,
            };
            entries.insert(id, entry);
        }
        let ledger = Self {
            records,
            entries: watch::Sender::new(entries),
        };
        ledger.forget_old();
        ledger
    }

    /// Returns all jobs, the newest first.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> = self
            .entries
            .borrow()
            .values()
            .map(|entry| Arc::clone(&entry.job))
            .collect();
        jobs.sort_by(|a, b| {
            b.created_at
                .cmp(&a.created_at)
                .then_with(|| a.id.cmp(&b.id))
        });
        jobs
    }

    /// Returns one job.
    pub(super) fn job(&self, id: &str) -> Option<Arc<Job>> {
        self.entries
            .borrow()
            .get(id)
            .map(|entry| Arc::clone(&entry.job))
    }

    /// Returns a job and what happens to it from here on.
    pub(super) fn subscribe(&self, id: &str) -> Option<(Arc<Job>, broadcast::Receiver<JobEvent>)> {
        let entries = self.entries.borrow();
        let entry = entries.get(id)?;
        let events = entry
            .events
            .as_ref()
            .map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe);
        Some((Arc::clone(&entry.job), events))
    }

    /// Returns where a job's log is.
    pub(super) fn log_path(&self, id: &str) -> Option<PathBuf> {
        self.job(id).map(|job| job.log_path.clone())
    }

    /// Enters a new job at the end of the queue.
    pub(super) fn add(
        &self,
        request: &JobRequest,
    ) -> Result<(Arc<Job>, CancellationToken), ProvisionError> {
        let cancel = CancellationToken::new();
        let mut added = Err(ProvisionError::QueueFull(MAX_QUEUED));
        self.entries.send_if_modified(|entries| {
            let queued = entries
                .values()
                .filter(|entry| entry.job.state == JobState::Queued);
            if queued.count() >= MAX_QUEUED {
                return false;
            }
            let id = std::iter::repeat_with(|| format!("{:06x}", fastrand::u32(..1 << 24)))
                .find(|id| !entries.contains_key(id))
                .expect("there are far more names than jobs");
            let log_path = self.records.log_path(&id);
            let job = Arc::new(Job::new(id.clone(), request, log_path, Timestamp::now()));
            let entry = Entry {
                job: Arc::clone(&job),
                cancel: cancel.clone(),
                events: Some(broadcast::channel(EVENT_BUFFER).0),
            };
            entries.insert(id, entry);
            added = Ok(job);
            true
        });
        let job = added?;
        if let Err(error) = self.records.save(&job) {
            self.entries.send_modify(|entries| {
                entries.remove(&job.id);
            });
            return Err(error);
        }
        Ok((job, cancel))
    }

    /// Takes back a job that never came into the queue.
    pub(super) fn withdraw(&self, id: &str) {
        self.entries.send_modify(|entries| {
            entries.remove(id);
        });
        self.records.remove(id);
    }

    /// Changes a job and tells everybody. A job that has ended stays as it is.
    pub(super) fn change(&self, id: &str, keep: Keep, change: impl FnOnce(&mut Job)) {
        let mut told = None;
        self.entries.send_if_modified(|entries| {
            let Some(entry) = entries.get_mut(id) else {
                return false;
            };
            if entry.job.state.has_ended() {
                return false;
            }
            let job = Arc::make_mut(&mut entry.job);
            change(job);
            let ended = job.state.has_ended();
            // Still under the lock, so that the record on disk is the newest.
            if keep == Keep::OnDisk {
                save(&self.records, job);
            }
            let events = if ended {
                entry.events.take()
            } else {
                entry.events.clone()
            };
            told = Some((Arc::clone(&entry.job), events, ended));
            true
        });
        let Some((job, events, ended)) = told else {
            return;
        };
        if let Some(events) = events {
            // Nobody may be watching.
            drop(events.send(JobEvent::Job(job)));
        }
        if ended {
            self.forget_old();
        }
    }

    /// Passes a line of output on to those who watch.
    pub(super) fn line(&self, id: &str, step: usize, text: &str, at: Timestamp) {
        let entries = self.entries.borrow();
        if let Some(events) = entries.get(id).and_then(|entry| entry.events.as_ref()) {
            drop(events.send(JobEvent::Line {
                step,
                text: text.into(),
                at,
            }));
        }
    }

    /// Asks a job to end. Says whether that is possible; the job ends later.
    pub(super) fn cancel(&self, id: &str, why: &str) -> Result<(), ProvisionError> {
        let job = self
            .job(id)
            .ok_or_else(|| ProvisionError::NotFound(id.to_owned()))?;
        match job.state {
            JobState::Queued | JobState::Running => {}
            JobState::Cancelled => return Ok(()),
            state @ (JobState::Succeeded | JobState::Failed) => {
                return Err(ProvisionError::AlreadyEnded {
                    id: id.to_owned(),
                    state,
                });
            }
        }
        self.change(id, Keep::OnDisk, |job| {
            job.cancelled.get_or_insert_with(|| why.to_owned());
        });
        if let Some(entry) = self.entries.borrow().get(id) {
            entry.cancel.cancel();
        }
        Ok(())
    }

    /// Waits until a job has ended.
    pub(super) async fn ended(&self, id: &str) {
        let has_ended = |entries: &BTreeMap<String, Entry>| {
            entries
                .get(id)
                .is_none_or(|entry| entry.job.state.has_ended())
        };
        self.entries
            .subscribe()
            .wait_for(has_ended)
            .await
            .map(drop)
            .expect("the ledger owns the sender");
    }

    /// Returns the jobs that have not ended.
    pub(super) fn unfinished(&self) -> Vec<Arc<Job>> {
        let mut jobs = self.jobs();
        jobs.retain(|job| !job.state.has_ended());
        jobs
    }

    /// Returns the SHA-256 of the uploaded packages that jobs wait for or work with.
    pub(super) fn wanted_packages(&self) -> HashSet<String> {
        let jobs = self.unfinished().into_iter();
        jobs.filter_map(|job| match &job.package {
            PackageSource::Uploaded { sha256 } => Some(sha256.clone()),
            PackageSource::Version(_) => None,
        })
        .collect()
    }

    /// Returns the ids of the jobs whose image nobody needs, by their project.
    pub(super) fn without_image(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut by_project = BTreeMap::<_, BTreeSet<_>>::new();
        for job in self.jobs() {
            if matches!(job.state, JobState::Failed | JobState::Cancelled) {
                let ids = by_project.entry(job.project.clone()).or_default();
                ids.insert(job.id.clone());
            }
        }
        by_project
    }

    fn forget_old(&self) {
        let ended: Vec<_> = self
            .jobs()
            .into_iter()
            .filter(|job| job.state.has_ended())
            .skip(KEPT_RECORDS)
            .collect();
        if ended.is_empty() {
            return;
        }
        self.entries.send_modify(|entries| {
            for job in &ended {
                entries.remove(&job.id);
            }
        });
        for job in &ended {
            self.records.remove(&job.id);
        }
    }
}

/// A record that cannot be written does not end its job: the image is what is wanted.
fn save(records: &Records, job: &Job) {
    if let Err(error) = records.save(job) {
        error!(job = job.id, error = %chain(&error), "provision record not written");
    }
}

#[cfg(test)]
mod tests;
