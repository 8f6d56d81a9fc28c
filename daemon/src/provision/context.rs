//! What every step of one job works with, and the one way in which a step waits for Incus.
//!
//! Cancelling never drops a request that makes something: the step sees the token when the answer
//! is there. Operations that are under way then are noted, and settled before the builder goes,
//! since nothing may touch an instance before its create has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use iap_common::error::chain;

use crate::incus::{Incus, Operation, OperationId, OperationStatus, Project, Waited};

use super::error::StepError;
use super::progress::Progress;

/// How often an operation is looked at for its progress, and the job for its cancellation.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Context {
    pub(super) incus: Incus,
    pub(super) project: Project,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
    /// Operations that have begun and are not known to have ended.
    open: Mutex<Vec<OperationId>>,
}

impl Context {
    pub(super) fn new(
        incus: Incus,
        project: Project,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            incus,
            project,
            progress,
            cancel,
            open: Mutex::new(Vec::new()),
        }
    }

    /// Fails when the job is cancelled.
    pub(super) fn check(&self) -> Result<(), StepError> {
        if self.cancel.is_cancelled() {
            Err(StepError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Carries out what may be dropped at any time, until the job is cancelled.
    pub(super) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        self.cancel
            .run_until_cancelled(work)
            .await
            .unwrap_or(Err(StepError::Cancelled))
    }

    /// Waits until an operation has ended well. `None` when Incus has forgotten it meanwhile: look
    /// at what it was to make.
    pub(super) async fn wait(
        &self,
        what: &'static str,
        id: OperationId,
        deadline: Duration,
    ) -> Result<Option<Operation>, StepError> {
        self.open().push(id.clone());
        let end = Instant::now() + deadline;
        loop {
            let wait = self.incus.wait(&id, LOOK_EVERY);
            match self.cancel.run_until_cancelled(wait).await {
                None => return Err(StepError::Cancelled),
                Some(Ok(Waited::Ended(operation))) => {
                    self.has_ended(&id);
                    return match operation.status {
                        OperationStatus::Success => Ok(Some(operation)),
                        _ => Err(StepError::Operation {
                            what,
                            message: operation.err,
                        }),
                    };
                }
                Some(Ok(Waited::Forgotten)) => {
                    self.has_ended(&id);
                    return Ok(None);
                }
                Some(Ok(Waited::StillRunning)) => self.report(&id).await,
                // A wait changes nothing, so it is asked again while there is time.
                Some(Err(error)) if error.is_transient() => {
                    debug!(operation = %id, error = %chain(&error), "operation not seen");
                    self.pause(LOOK_EVERY).await?;
                }
                Some(Err(source)) => return Err(StepError::Incus { what, source }),
            }
            if Instant::now() >= end {
                return Err(StepError::TimedOut {
                    what: what.to_owned(),
                    after: deadline,
                });
            }
        }
    }

    /// Waits a moment.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), StepError> {
        self.unless_cancelled(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await
    }

    /// Ends what operations are still under way, with or without success. For the clean-up: heeds
    /// no cancellation, and takes no longer than `deadline`. Says whether all are known to have ended.
    pub(super) async fn settle(&self, deadline: Duration) -> bool {
        let mut settled = true;
        let open = std::mem::take(&mut *self.open());
        let end = Instant::now() + deadline;
        for id in open {
            if let Err(error) = self.incus.cancel(&id).await {
                // Most operations cannot be cancelled; they are waited for.
                debug!(operation = %id, error = %chain(&error), "operation not cancelled");
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.incus.wait(&id, left).await {
                Ok(Waited::Ended(_) | Waited::Forgotten) => {}
                Ok(Waited::StillRunning) => {
                    settled = false;
                    warn!(operation = %id, "operation still runs");
                }
                Err(error) => {
                    // It may go on all the same.
                    settled = false;
                    warn!(operation = %id, error = %chain(&error), "operation not seen");
                }
            }
        }
        settled
    }

    async fn report(&self, id: &OperationId) {
        // Only for show: an error here is not one of the operation.
        if let Ok(Some(operation)) = self.incus.operation(id).await
            && let Some((detail, percent)) = progress_of(&operation.metadata)
        {
            self.progress.waiting(&detail, percent);
        }
    }

    fn has_ended(&self, id: &OperationId) {
        self.open().retain(|open| open != id);
    }

    fn open(&self) -> MutexGuard<'_, Vec<OperationId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads how far an operation is. Incus tells it twice: in words under a key that ends in
/// `_progress`, and in parts under `progress`. What was moved to the end is unpacked or registered
/// next, about which Incus says nothing for as long as it takes.
fn progress_of(metadata: &Value) -> Option<(String, Option<u8>)> {
    let metadata = metadata.as_object()?;
    let told = metadata.iter().find(|(key, _)| key.ends_with("_progress"));
    let words = told.and_then(|(_, value)| value.as_str());
    let is_download = told.is_some_and(|(key, _)| key.starts_with("download"));
    let percent = metadata
        .get("progress")
        .and_then(|progress| progress.get("percent"))
        .and_then(|percent| percent.as_str()?.parse().ok())
        .or_else(|| words?.split_once('%')?.0.rsplit(' ').next()?.parse().ok())
        .filter(|percent| (1..=100).contains(percent));
    match (words, percent) {
        (_, Some(100)) if is_download => Some(("unpacking the image".to_owned(), Some(100))),
        (_, Some(100)) => Some(("registering the image".to_owned(), Some(100))),
        (Some(words), percent) => Some((words.to_owned(), percent)),
        (None, Some(percent)) => Some((String::new(), Some(percent))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_is_read_from_words_or_parts() {
        let parts = json!({"create_image_from_container_pack_progress": "Image pack: 32% (9MB/s)",
            "progress": {"stage": "create_image_from_container_pack", "percent": "32"}});
        assert_eq!(
            progress_of(&parts),
            Some(("Image pack: 32% (9MB/s)".to_owned(), Some(32)))
        );
        let words = json!({"download_progress": "rootfs: 7% (1.50MB/s)"});
        assert_eq!(
            progress_of(&words),
            Some(("rootfs: 7% (1.50MB/s)".to_owned(), Some(7)))
        );
        let no_percent =
            json!({"create_image_from_container_pack_progress": "Image pack: 12.3MB (4MB/s)"});
        assert_eq!(
            progress_of(&no_percent),
            Some(("Image pack: 12.3MB (4MB/s)".to_owned(), None))
        );
        assert_eq!(progress_of(&json!(null)), None);
        assert_eq!(progress_of(&json!({"fds": {}})), None);
    }

    #[test]
    fn what_comes_after_the_last_percent_has_a_name() {
        let done = json!({"create_image_from_container_pack_progress": "Image pack: 100% (9MB/s)"});
        let next = |done| progress_of(&done).map(|(next, _)| next);
        assert_eq!(next(done).as_deref(), Some("registering the image"));
        let done = json!({"download_progress": "rootfs: 100% (9MB/s)"});
        assert_eq!(next(done).as_deref(), Some("unpacking the image"));
    }
}
