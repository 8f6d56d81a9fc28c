//! Leaving: the one safe way to end an idle agent. Azure may assign a job between any look and
//! any stop, so: disable, look twice a poll apart, then ask the listener to end. A job that came
//! in the last moment goes back to Azure's queue when the listener closes its session.

use std::time::Duration;

use tracing::debug;

use super::{ApplyError, Context, shell};

/// A poll apart, but a drain has not to wait longer than this for its second look.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long after an agent was disabled Azure may still show that a job was on its way to it.
pub(super) fn pause_between_looks(context: &Context) -> Duration {
    context.spec.azure.poll_interval.min(LONGEST_PAUSE)
}
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Its listener was asked to end.
    Stopping,
    /// It has a job and ends with it.
    Busy,
}

/// Disables an agent and, when it has no job, stops its listener.
pub async fn leave(context: &Context, name: &str, id: i64) -> Result<Left, ApplyError> {
    let pool = context.link.view().pool_id.ok_or(ApplyError::NoPool)?;
    let azure = context.link.azure();
    match azure.disable_agent(pool, id, name).await {
        Ok(()) => {}
        // Deleted from outside: nothing can be assigned to it.
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            return Err(ApplyError::Azure {
                doing: "cannot disable the agent",
                source: error,
            });
        }
    }
    context.link.nudge();
    for look in 0..2 {
        if look > 0 {
            tokio::time::sleep(pause_between_looks(context)).await;
        }
        let agent = azure
            .agent(pool, id)
            .await
            .map_err(ApplyError::azure("cannot look at the agent in Azure"))?;
        if agent.is_some_and(|agent| agent.assigned.is_some()) {
            debug!(
                agent = name,
                look, "a job is assigned to it: it leaves when that ends"
            );
            return Ok(Left::Busy);
        }
    }
    let exec = shell("iapd-stop", include_str!("../../guest/stop.sh"), Vec::new());
    match context.project.exec(name, &exec, STOP_DEADLINE).await {
        Ok(0) => Ok(Left::Stopping),
        Ok(code) => Err(ApplyError::Stop(code)),
        Err(error) if error.is_not_found() => Ok(Left::Stopping),
        Err(error) => Err(ApplyError::Incus {
            doing: "cannot stop the agent's listener",
            source: error,
        }),
    }
}
