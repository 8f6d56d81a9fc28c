//! Removes builders that nobody works on and images that nobody asked for: those of a daemon that
//! died, and those that could not be removed when their job ended.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{Incus, IncusError, Instance, OperationId, Waited};

use super::ledger::Ledger;
use super::ownership::{self, BUILDER_KEY, OWNER_KEY};
use super::publish;

/// Nothing is left behind but by an accident, so looking seldom is enough.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Incus may be down when the daemon starts; doubles up to [`EVERY`].
const FIRST_RETRY: Duration = Duration::from_secs(2);
const REMOVE_DEADLINE: Duration = Duration::from_secs(60);

/// Sweeps at once, and again from time to time. Never returns.
pub(super) async fn sweep(incus: &Incus, owner: &str, ledger: &Ledger) {
    let mut retry = FIRST_RETRY;
    loop {
        match sweep_once(incus, owner, ledger).await {
            Ok(()) => {
                retry = FIRST_RETRY;
                sleep(EVERY).await;
            }
            Err(error) => {
                warn!(error = %chain(&error), "left builders or images not removed");
                sleep(retry).await;
                retry = (retry * 2).min(EVERY);
            }
        }
    }
}

async fn sweep_once(incus: &Incus, owner: &str, ledger: &Ledger) -> Result<(), IncusError> {
    let instances = incus.instances_all_projects().await?;
    let mut failed = Ok(());
    for instance in instances
        .iter()
        .filter(|instance| is_left(instance, owner, ledger))
    {
        if let Err(error) = remove_left(incus, ledger, instance, REMOVE_DEADLINE).await {
            failed = Err(error);
        }
    }
    // Not only those of builders that were left: a publish may have outlived its builder's removal,
    // or the daemon may have died between the two.
    for (project, jobs) in ledger.without_image() {
        match publish::discard(&incus.project(&project), &jobs).await {
            // The project is gone, and its images with it.
            Err(error) if error.is_not_found() => {}
            Err(error) => failed = Err(error),
            Ok(()) => {}
        }
    }
    failed
}

async fn remove_left(
    incus: &Incus,
    ledger: &Ledger,
    left: &Instance,
    deadline: Duration,
) -> Result<(), IncusError> {
    let job = left.config.get(BUILDER_KEY).and_then(|id| ledger.job(id));
    if let Some(id) = job.and_then(|job| job.publish_operation.clone()) {
        until_published(incus, &OperationId::new(&id), deadline).await?;
    }
    let project = incus.project(&left.project);
    ownership::remove(incus, &project, &left.name, deadline).await?;
    let builder = &left.name;
    info!(builder, project = left.project, "left builder removed");
    Ok(())
}

/// Waits until a builder is not read from any more. Fails when that goes on.
async fn until_published(
    incus: &Incus,
    id: &OperationId,
    deadline: Duration,
) -> Result<(), IncusError> {
    let Some(operation) = incus.operation(id).await? else {
        return Ok(());
    };
    match incus.wait(id, deadline).await? {
        Waited::Ended(_) | Waited::Forgotten => Ok(()),
        Waited::StillRunning => Err(operation.unfinished(deadline)),
    }
}

fn is_left(instance: &Instance, owner: &str, ledger: &Ledger) -> bool {
    let Some(job) = instance.config.get(BUILDER_KEY) else {
        return false;
    };
    instance.config.get(OWNER_KEY).is_some_and(|of| of == owner)
        && ledger.job(job).is_none_or(|job| job.state.has_ended())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::incus::scripted::{Scripted, json, refusal};

    use super::super::PackageSource;
    use super::super::job::JobState;
    use super::super::ledger::Keep;
    use super::super::record::Records;
    use super::super::request::JobRequest;
    use super::*;

    const PUBLISHING: &str =
        r#"{"id":"a","class":"task","description":"Downloading image","status_code":103}"#;

    #[tokio::test]
    async fn a_builder_is_left_alone_while_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::load(Records::new(folder.path()));
        let request = JobRequest {
            base: "debian/12".to_owned(),
            target: "linux".to_owned(),
            scripts: Vec::new(),
            vm: false,
            project: "default".to_owned(),
            no_docker: false,
            keep_on_failure: false,
            package: PackageSource::Version("latest".to_owned()),
            expected_sha256: None,
            azure_pool: None,
            profiles: Vec::new(),
            requested_by: "uid 0".to_owned(),
        };
        let (job, _) = ledger.add(&request).unwrap();
        ledger.change(&job.id, Keep::OnDisk, |job| {
            job.publish_operation = Some("a".to_owned());
            job.end(JobState::Failed, None, Timestamp::now());
        });
        let left: Instance = serde_json::from_value(serde_json::json!({
            "name": ownership::name_of(&job.id),
            "project": "default",
            "status": "Stopped",
            "status_code": 102,
            "type": "container",
            "config": ownership::marks("us", &job.id),
        }))
        .unwrap();
        assert!(is_left(&left, "us", &ledger) && !is_left(&left, "them", &ledger));

        let deadline = Duration::from_millis(300);
        let publishing = Scripted::new(|_| json(200, PUBLISHING));
        let error = remove_left(&publishing.incus, &ledger, &left, deadline).await;
        assert!(
            matches!(error, Err(IncusError::Unfinished { .. })),
            "{error:?}"
        );
        let requests = publishing.requests();
        assert!(
            requests
                .iter()
                .all(|line| line.starts_with("GET /1.0/operations/a")),
            "{requests:?}"
        );

        // Long over: Incus knows neither the operation nor the builder.
        let over = Scripted::new(|head| match head.contains("/operations?") {
            true => json(200, "{}"),
            false => refusal(404, 404, "not found"),
        });
        remove_left(&over.incus, &ledger, &left, deadline)
            .await
            .unwrap();
    }
}
