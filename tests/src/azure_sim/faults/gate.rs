//! Gates that hold requests.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Matching;

/// When a held request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldAt {
    /// Before anything has been done.
    Before,
    /// When everything has been done but the answer is not yet sent.
    After,
}

/// Holds matching requests until released or dropped.
#[derive(Debug)]
pub struct Gate {
    pub(in crate::azure_sim) shared: Arc<GateShared>,
}

#[derive(Debug)]
pub(in crate::azure_sim) struct GateShared {
    pub(in crate::azure_sim) id: u64,
    pub(in crate::azure_sim) at: HoldAt,
    pub(super) matching: Matching,
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    /// Waits until this many requests have come to the gate.
    pub async fn wait_arrived(&self, count: usize, timeout: Duration) -> Result<()> {
        let mut arrived = self.shared.arrived.subscribe();
        let waiting = arrived.wait_for(|seen| *seen >= count);
        let seen = tokio::time::timeout(timeout, waiting).await;
        seen.with_context(|| format!("fewer than {count} requests came to the gate"))??;
        Ok(())
    }

    /// Returns how many requests have come to the gate, held or gone on.
    pub fn arrived(&self) -> usize {
        self.shared.arrived()
    }

    /// Lets everything pass, now and later.
    pub fn release(&self) {
        self.shared.release();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

impl GateShared {
    pub(super) fn new(id: u64, matching: Matching, at: HoldAt) -> Self {
        let (open, arrived) = (watch::Sender::new(false), watch::Sender::new(0));
        Self {
            id,
            at,
            matching,
            open,
            arrived,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(in crate::azure_sim) fn arrived(&self) -> usize {
        *self.arrived.borrow()
    }

    pub(in crate::azure_sim) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits at the gate.
    pub(in crate::azure_sim) async fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        // An error means that the sender is gone, and it lives in self.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}
