//! Pauses and counts: what the requests of several services share. A wish is kept first; the
//! answer waits a while for the pools to take it into account, so that whoever looks next sees it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tonic::Status;
use tracing::info;

use iap_common::v1;

use crate::intents::{CountOverride, Effective, IntentSet, Pause, Who};
use crate::pool::PoolHandle;
use crate::pool::command::Asker;

use super::{Services, convert, peer, status};

/// A pass takes milliseconds, and longer while Incus is slow; the wish is kept all the same.
const TAKEN_IN: Duration = Duration::from_secs(10);
/// Reasons are for a table's cell.
const LONGEST_REASON: usize = 500;
/// As in the configuration.
const LARGEST_COUNT: u32 = 1000;

/// Reads a moment that has to be ahead.
pub(super) fn until(field: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let Some(field) = field else { return Ok(None) };
    let at = Timestamp::new(field.seconds, field.nanos)
        .map_err(|_| status::bad_request("there is no such time"))?;
    if at <= Timestamp::now() {
        return Err(status::bad_request(format!("{at:.0} is past")));
    }
    Ok(Some(at))
}

pub(super) fn count(count: u32) -> Result<u32, Status> {
    if count > LARGEST_COUNT {
        return Err(status::bad_request(format!(
            "a pool has 0 to {LARGEST_COUNT} agents"
        )));
    }
    Ok(count)
}

/// Checks a reason for people.
pub(super) fn check_reason(reason: &str) -> Result<(), Status> {
    if reason.len() > LONGEST_REASON {
        return Err(status::bad_request(format!(
            "a reason has at most {LONGEST_REASON} bytes"
        )));
    }
    Ok(())
}

/// Makes a pause of a request.
pub(super) fn pause(reason: String, until: Option<Timestamp>) -> Result<Pause, Status> {
    check_reason(&reason)?;
    Ok(Pause {
        reason,
        who: Who::default(),
        since: Timestamp::now(),
        until,
    })
}

/// Makes another count of a request.
pub(super) fn count_override(
    wanted: u32,
    until: Option<Timestamp>,
) -> Result<CountOverride, Status> {
    Ok(CountOverride {
        count: count(wanted)?,
        who: Who::default(),
        since: Timestamp::now(),
        until,
    })
}

impl Services {
    /// Returns what operators want of a pool now.
    pub(super) fn intent(&self, pool: &str) -> Effective {
        self.intents.now().effective(pool, Timestamp::now())
    }

    /// Keeps a wish and waits until all pools have taken it in. `change` learns who asks.
    pub(super) async fn change_intents(
        &self,
        asker: Asker,
        change: impl FnOnce(&mut IntentSet, Who) + Send + 'static,
    ) -> Result<(), Status> {
        let intents = Arc::clone(&self.intents);
        // The user's name may come over the network, and the disk may be slow.
        let changed = tokio::task::spawn_blocking(move || {
            let who = peer::who(&asker);
            intents.change(Timestamp::now(), |set| change(set, who))
        });
        let revision = match changed.await {
            Ok(changed) => changed.map_err(|error| status::intents(&error))?,
            Err(error) => return Err(status::internal(format!("the change was lost: {error}"))),
        };
        let pools = Arc::clone(&self.pools.borrow());
        let all = async {
            for pool in pools.iter() {
                taken_in(pool, revision).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(TAKEN_IN) => {
                info!("not all pools have taken the change into account yet");
            }
        }
        Ok(())
    }

    /// Returns one pool as it is, or the error for a name that is none.
    pub(super) fn one_pool(&self, name: &str) -> Result<v1::Pool, Status> {
        let pools = self.all_pools();
        match pools.iter().find(|pool| pool.name == name) {
            Some(pool) => Ok(pool.clone()),
            None => Err(status::no_such(
                "pool",
                name,
                pools.iter().map(|pool| pool.name.as_str()),
            )),
        }
    }
}

async fn taken_in(pool: &PoolHandle, revision: u64) {
    // An error: the pool's task has ended, and launches nothing any more.
    let _ = pool
        .watch()
        .wait_for(|status| status.intents_revision >= revision)
        .await;
}

fn who(who: &Who) -> v1::Who {
    v1::Who {
        uid: who.uid,
        user: who.user.clone(),
    }
}

pub(super) fn pause_message(effective: &Effective) -> Option<v1::Pause> {
    Some(v1::Pause {
        host_wide: effective.host_wide,
        ..plain_pause(effective.pause.as_ref()?)
    })
}

pub(super) fn plain_pause(pause: &Pause) -> v1::Pause {
    v1::Pause {
        reason: pause.reason.clone(),
        who: Some(who(&pause.who)),
        since: Some(convert::timestamp(pause.since)),
        until: pause.until.map(convert::timestamp),
        host_wide: false,
    }
}

pub(super) fn count_message(effective: &Effective) -> Option<v1::CountOverride> {
    let count = effective.count.as_ref()?;
    Some(v1::CountOverride {
        count: count.count,
        who: Some(who(&count.who)),
        since: Some(convert::timestamp(count.since)),
        until: count.until.map(convert::timestamp),
    })
}
