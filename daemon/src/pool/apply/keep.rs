//! Keeping: an agent's instance stays after its end, for people to look into.
//!
//! Two things would take it away. Incus deletes an ephemeral instance when it stops: that is
//! cleared first, which works on a running one. And the agent's unit powers the machine off when
//! it ends: its hook, told to keep, takes that from the unit (`agent-ended.sh`), so that what the
//! job left in memory and in `/tmp` is there as well. Where that comes too late or does not work,
//! the machine powers off and is there, stopped, with all its files; started again it is a plain
//! system, since the agent's unit does not outlive a boot.

use std::time::Duration;

use tracing::debug;

use iap_common::error::chain;

use crate::agent::{Drain, Keep, key};
use crate::azure::JobRequest;
use crate::incus::InstancePatch;

use super::super::ending::Ending;
use super::super::plan::Staying;
use super::note::{self, Verdict};
use super::{ApplyError, Context, evidence, remove};

/// How long Azure is asked for the result of a job: less than what the hook waits.
const RESULT_PATIENCE: Duration = Duration::from_millis(2500);
/// Between two such questions.
const RESULT_PAUSE: Duration = Duration::from_millis(200);

/// How an agent ended, as its guest and Azure tell it.
#[derive(Debug, Default)]
pub struct Heard {
    /// What its guest told; `None` when the agent has not ended: its job rang.
    pub ending: Option<Ending>,
    /// The job it had, if Azure says.
    pub job: Option<JobRequest>,
}

/// Takes in how an agent ended, and keeps what it left.
pub async fn hear(context: &Context, name: &str, id: i64) -> Heard {
    let Some(mut ending) = note::read_ending(context, name).await else {
        return Heard::default();
    };
    let (note, job) = tokio::join!(
        evidence::collect(context, name),
        tokio::time::timeout(RESULT_PATIENCE, result(context, name, id)),
    );
    ending.note = note;
    Heard {
        ending: Some(ending),
        job: job.ok().flatten(),
    }
}

/// Returns the job that an agent had, once Azure says that it has ended.
async fn result(context: &Context, name: &str, id: i64) -> Option<JobRequest> {
    let pool = context.link.view().pool_id?;
    loop {
        match context.link.azure().agent(pool, id).await {
            Ok(Some(agent)) if agent.assigned.is_none() => return agent.last_completed,
            Ok(None) => return None,
            Ok(Some(_)) => {}
            Err(error) => debug!(agent = name, error = %chain(&error), "cannot ask for the result"),
        }
        tokio::time::sleep(RESULT_PAUSE).await;
    }
}

/// Makes an agent's instance stay. Returns what its guest told of its end, where that was asked.
pub async fn keep(
    context: &Context,
    name: &str,
    azure_agent_id: Option<i64>,
    wish: (&Keep, Drain),
    staying: Staying,
) -> Result<Option<Ending>, ApplyError> {
    let (keep, drain) = wish;
    if let Staying::InsteadOf(_, proof) = staying {
        remove::prove(context, name, azure_agent_id, proof).await?;
    }
    let mut patch = InstancePatch::config(key::DRAIN, drain.as_value());
    let pairs = keep.pairs().map(|(key, value)| (key.to_owned(), value));
    patch.config.extend(pairs);
    // One that is to be kept no more, and has a job, goes with it as it would have.
    let is_called_off = !keep.has_ended() && keep.is_over(jiff::Timestamp::now());
    patch.ephemeral = Some(is_called_off);
    context
        .project
        .patch(name, &patch)
        .await
        .map_err(ApplyError::incus("cannot make the instance stay"))?;
    match staying {
        Staying::Noted => Ok(None),
        Staying::InsteadOf(..) => Ok(Some(Ending {
            note: evidence::collect(context, name).await,
            ..Ending::default()
        })),
        Staying::Answered { heard } => {
            note::give_verdict(context, name, Verdict::Keep).await?;
            // The machine stays: there is no hurry any more.
            if let Some(id) = azure_agent_id
                && let Err(error) = remove::disable(context, name, id).await
            {
                debug!(agent = name, error = %chain(&error), "cannot disable a kept agent");
            }
            if heard {
                return Ok(None);
            }
            let mut ending = note::read_ending(context, name).await.unwrap_or_default();
            ending.note = evidence::collect(context, name).await;
            Ok(Some(ending))
        }
    }
}
