//! Removes builders that nobody works on: those of a daemon that died, and those that could not be
//! removed when their job ended.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{Incus, IncusError, Instance};

use super::job::JobState;
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
                warn!(error = %chain(&error), "left builders not removed");
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
        let project = incus.project(&instance.project);
        let removed = async {
            ownership::remove(incus, &project, &instance.name, REMOVE_DEADLINE).await?;
            let builder = &instance.name;
            info!(builder, project = instance.project, "left builder removed");
            // It may have been published when the daemon died.
            match instance.config.get(BUILDER_KEY) {
                Some(job) if has_failed(ledger, job) => publish::discard(&project, job).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            failed = Err(error);
        }
    }
    failed
}

fn is_left(instance: &Instance, owner: &str, ledger: &Ledger) -> bool {
    let Some(job) = instance.config.get(BUILDER_KEY) else {
        return false;
    };
    instance.config.get(OWNER_KEY).is_some_and(|of| of == owner)
        && ledger.job(job).is_none_or(|job| job.state.has_ended())
}

fn has_failed(ledger: &Ledger, job: &str) -> bool {
    ledger
        .job(job)
        .is_some_and(|job| matches!(job.state, JobState::Failed | JobState::Cancelled))
}
