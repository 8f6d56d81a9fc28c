//! Keeps a small stock of agent keys, so that no agent waits for one. A key takes about 90 ms of
//! a core; they are made one at a time with rests between, to leave the host to its jobs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use iap_common::error::chain;

use crate::registration::{AgentKey, KeyStock};

/// Between two keys.
const REST: Duration = Duration::from_millis(200);
/// Between two looks at a full stock.
const LOOK: Duration = Duration::from_secs(1);

/// Fills the stock until `stop`.
pub(super) async fn run(stock: &KeyStock, stop: CancellationToken) {
    loop {
        let pause = if stock.missing() == 0 {
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
