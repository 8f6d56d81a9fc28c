//! Jobs on disk: `<state directory>/provision/<id>/job.json`, and beside it the job's log.
//!
//! Records are a few KiB and written when a state changes, so they are written in place instead of
//! being handed to a thread: what a caller is told is on disk already. They are not synced: a host
//! that loses power loses its builders' guests too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::error::ProvisionError;
use super::job::Job;

/// The folder of all records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("provision"),
        }
    }

    /// Returns where a job's log is.
    pub(super) fn log_path(&self, id: &str) -> PathBuf {
        self.folder.join(id).join("log")
    }

    /// Writes a job's record, all of it or nothing.
    pub(super) fn save(&self, job: &Job) -> Result<(), ProvisionError> {
        let folder = self.folder.join(&job.id);
        let path = folder.join("job.json");
        let unfinished = folder.join("job.json.new");
        let text = serde_json::to_vec_pretty(job).expect("a job is plain data");
        let write = || {
            fs::create_dir_all(&folder)?;
            let mut file = File::create(&unfinished)?;
            file.write_all(&text)?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|source| ProvisionError::Disk {
            what: "write",
            path: path.clone(),
            source,
        })
    }

    /// Returns every job there is a record of. One that cannot be read is left out with a warning.
    pub(super) fn load(&self) -> BTreeMap<String, Job> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    warn!(path = %self.folder.display(), %error, "provision records not readable");
                }
                return BTreeMap::new();
            }
        };
        let mut jobs = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path().join("job.json");
            let read = fs::read(&path)
                .and_then(|text| Ok(serde_json::from_slice::<Job>(&text)?))
                .map(|job| Job {
                    log_path: self.log_path(&job.id),
                    ..job
                });
            match read {
                // The folder's name is what the record is found by.
                Ok(job) if entry.file_name().to_str() == Some(&job.id) => {
                    jobs.insert(job.id.clone(), job);
                }
                Ok(job) => warn!(path = %path.display(), job = job.id, "record in a wrong folder"),
                Err(error) => warn!(path = %path.display(), %error, "provision record left out"),
            }
        }
        jobs
    }

    /// Removes a job's record and log.
    pub(super) fn remove(&self, id: &str) {
        let path = self.folder.join(id);
        if let Err(error) = fs::remove_dir_all(&path) {
            warn!(path = %path.display(), %error, "old provision record not removed");
        }
    }
}
