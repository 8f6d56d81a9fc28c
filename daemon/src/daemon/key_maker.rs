//! Keeps a stock of agent keys, so that no agent waits for one. A key takes about 70 ms of a core;
//! they are made one at a time with rests between, and all but a few while no agent is launched.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use iap_common::error::chain;

use crate::registration::{AgentKey, KeyStock};

/// Between two keys.
const REST: Duration = Duration::from_millis(200);
/// Between two looks at a stock that is full or in use.
const LOOK: Duration = Duration::from_secs(1);
/// So many are made however many agents are launched: there are hosts that are never calm.
const AT_LEAST: usize = 2;
/// So long after the last launch the next one is not expected. A full host launches one agent a
/// second and more.
const CALM: Duration = Duration::from_secs(3);

/// Fills the stock until `stop`.
pub(super) async fn run(stock: &KeyStock, stop: CancellationToken) {
    loop {
        let can_wait = stock.kept() >= AT_LEAST && stock.calm_for() < CALM;
        let pause = if stock.is_full() || can_wait {
            LOOK
        } else {
            match tokio::task::spawn_blocking(AgentKey::generate).await {
                Ok(Ok(key)) => stock.put(key),
                Ok(Err(error)) => warn!(error = %chain(&error), "cannot make an agent key"),
                Err(_) => return,
            }
            REST
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
