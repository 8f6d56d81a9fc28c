//! Builders as instances: how they are known as ours, left to their operator, and removed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::incus::{Incus, IncusError, InstancePatch, Project, StopMode, Waited};

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
pub(super) async fn keep(
    incus: &Incus,
    project: &Project,
    name: &str,
    job: &str,
    deadline: Duration,
) -> Result<bool, IncusError> {
    until_created(incus, name, Instant::now() + deadline).await?;
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
    until_created(incus, name, end).await?;
    if project.instance(name).await?.is_none() {
        return Ok(());
    }
    project.stop(name, StopMode::Force, CALL_DEADLINE).await?;
    project.delete(name, CALL_DEADLINE).await
}

/// Waits until nothing creates the instance any more: a create whose answer was lost may still run,
/// and what touches the instance before it ends can make it undeletable. Fails when it goes on.
async fn until_created(incus: &Incus, name: &str, end: Instant) -> Result<(), IncusError> {
    let operations = incus.operations().await?;
    for operation in operations.into_iter().filter(|o| o.is_creating(name)) {
        let left = end.saturating_duration_since(Instant::now());
        if incus.wait(&operation.id, left).await? == Waited::StillRunning {
            return Err(operation.unfinished(left));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::incus::scripted::{Scripted, json, refusal};

    use super::*;

    fn operation(description: &str, status: u16) -> String {
        format!(
            r#"{{"id":"a","class":"task","description":"{description}","status_code":{status},
            "resources":{{"instances":["/1.0/instances/iapd-build-91c2e0"]}},"metadata":null}}"#
        )
    }

    /// Returns a server with one operation that goes on for ever, and no instance.
    fn busy(description: &'static str) -> Scripted {
        Scripted::new(move |head| {
            let operation = operation(description, 103);
            if head.contains("/operations/a") {
                json(200, &operation)
            } else if head.contains("/operations") {
                json(200, &format!(r#"{{"running":[{operation}]}}"#))
            } else {
                refusal(404, 404, "Instance not found")
            }
        })
    }

    #[tokio::test]
    async fn an_instance_is_left_alone_while_it_is_created() {
        let server = busy("Creating instance");
        let project = server.incus.project("default");
        let name = name_of("91c2e0");
        let deadline = Duration::from_millis(300);
        let removed = remove(&server.incus, &project, &name, deadline).await;
        let error = removed.unwrap_err();
        assert!(matches!(error, IncusError::Unfinished { .. }), "{error}");
        let kept = keep(&server.incus, &project, &name, "91c2e0", deadline).await;
        assert!(matches!(kept, Err(IncusError::Unfinished { .. })));
        let requests = server.requests();
        assert!(
            requests
                .iter()
                .all(|line| line.starts_with("GET /1.0/operations")),
            "{requests:?}"
        );
    }

    #[tokio::test]
    async fn a_shell_in_a_builder_does_not_hold_up_its_removal() {
        let server = busy("Executing command");
        let project = server.incus.project("default");
        let deadline = Duration::from_secs(60);
        let removed = remove(&server.incus, &project, &name_of("91c2e0"), deadline).await;
        removed.unwrap();
        assert!(!server.requests().iter().any(|line| line.contains("/wait")));
    }
}
