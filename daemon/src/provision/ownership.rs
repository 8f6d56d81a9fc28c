//! Builders as instances: how they are known as ours, left to their operator, and removed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::incus::{
    Incus, IncusError, InstancePatch, Operation, OperationStatus, Project, StopMode,
};

/// Marks an instance as ours to remove; with it goes the job's id.
pub(super) const OWNER_KEY: &str = "user.iapd.owner";
pub(super) const BUILDER_KEY: &str = "user.iapd.builder";
/// What a kept builder carries instead: nobody removes it but its operator.
const KEPT_KEY: &str = "user.iapd.kept-builder";

/// One stop, one delete.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Returns the name of a job's builder.
pub(super) fn name_of(job: &str) -> String {
    format!("iapd-build-{job}")
}

/// Returns the name of the one instance that a job makes of its image.
pub(super) fn warm_name_of(job: &str) -> String {
    format!("{}-warm", name_of(job))
}

/// Returns the keys by which a builder is known as ours.
pub(super) fn marks(owner: &str, job: &str) -> BTreeMap<String, String> {
    [(OWNER_KEY, owner), (BUILDER_KEY, job)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Leaves a builder to its operator. Says whether there is one.
pub(super) async fn keep(project: &Project, name: &str, job: &str) -> Result<bool, IncusError> {
    if project.instance(name).await?.is_none() {
        return Ok(false);
    }
    let mut config: BTreeMap<String, Option<String>> = [OWNER_KEY, BUILDER_KEY]
        .map(|key| (key.to_owned(), None))
        .into();
    config.insert(KEPT_KEY.to_owned(), Some(job.to_owned()));
    let patch = InstancePatch {
        config,
        ephemeral: None,
    };
    project.patch(name, &patch).await?;
    Ok(true)
}

/// Removes an instance, whatever state it is in. Tries again until the deadline.
pub(super) async fn remove(
    incus: &Incus,
    project: &Project,
    name: &str,
    deadline: Duration,
) -> Result<(), IncusError> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_RETRY;
    loop {
        let outcome = remove_once(incus, project, name, end).await;
        if outcome.is_ok() || Instant::now() + pause >= end {
            return outcome;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

async fn remove_once(
    incus: &Incus,
    project: &Project,
    name: &str,
    end: Instant,
) -> Result<(), IncusError> {
    // A create whose answer was lost may still run; nothing may touch the instance before it ends.
    let creates = |operation: &Operation| {
        operation.status == OperationStatus::Running && operation.instance() == Some(name)
    };
    for operation in incus.operations().await?.iter().filter(|o| creates(o)) {
        let left = end.saturating_duration_since(Instant::now());
        incus.wait(&operation.id, left).await?;
    }
    if project.instance(name).await?.is_none() {
        return Ok(());
    }
    project.stop(name, StopMode::Force, CALL_DEADLINE).await?;
    project.delete(name, CALL_DEADLINE).await
}
