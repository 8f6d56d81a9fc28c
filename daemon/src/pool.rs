//! A pool: a task that keeps so many agents alive, and the handle by which the rest of the daemon
//! sees it and asks it for something.
//!
//! ```text
//!  Order (spec, Azure link) ──watch──► Reconciler ──watch──► PoolStatus
//!  PoolCommand ──────────────mpsc────►     │
//!  Incus events ─────────────notify──►     └─► apply/* ─► Incus, Azure
//! ```

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::beat::Pulse;
use crate::incus::{Incus, IncusError};

pub mod apply;
pub mod azure_client;
pub mod azure_link;
pub mod breaker;
pub mod command;
pub mod ending;
pub mod events;
pub mod gate;
pub mod ghosts;
pub mod host_limit;
pub mod in_flight;
pub mod ledger;
pub mod names;
pub mod observe;
pub mod placement;
pub mod plan;
pub mod reconciler;
pub mod room;
pub mod spec;
mod spec_hash;
pub mod status;
pub mod waits;
pub mod why;

use command::{CommandError, PoolCommand};
use reconciler::{Order, Reconciler, Shared, Waker};
use status::{AzureStatus, ImageStatus, PoolKey, PoolStatus};

/// Commands that may wait for a pool's task; more are an error to the caller.
const COMMANDS: usize = 64;
/// Where the agent's output is in the guest.
const LOG_PATH: &str = "/home/agent/azp-agent.log";
/// The most that one read of it returns.
pub const LOG_CHUNK: usize = 256 * 1024;

/// What the rest of the daemon has of a pool. Cheap to clone.
#[derive(Clone)]
pub struct PoolHandle {
    key: PoolKey,
    status: watch::Receiver<Arc<PoolStatus>>,
    commands: mpsc::Sender<PoolCommand>,
    incus: Incus,
    orders: watch::Receiver<Order>,
    pulse: Pulse,
}

/// A part of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRead {
    /// What is there from the asked place on, perhaps nothing yet.
    Bytes(Vec<u8>),
    /// The instance or its log is not there.
    Gone,
}

impl PoolHandle {
    /// Returns which pool it is.
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// Returns the pool as it is.
    pub fn status(&self) -> Arc<PoolStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// Returns a receiver of what it is.
    pub fn watch(&self) -> watch::Receiver<Arc<PoolStatus>> {
        self.status.clone()
    }

    /// Returns whether its task makes progress.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Returns the client of its Azure organisation.
    pub fn azure(&self) -> crate::azure::Azure {
        self.orders.borrow().link.azure().clone()
    }

    /// Sends a command and waits for its answer.
    pub async fn command(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<(), CommandError>>) -> PoolCommand,
    ) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(make(reply)) {
            Ok(()) => answer.await.unwrap_or(Err(CommandError::PoolGone)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CommandError::NotNow(
                "too many commands wait for the pool".into(),
            )),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CommandError::PoolGone),
        }
    }

    /// Returns the size of a live agent's log, or `None` when there is none.
    pub async fn log_size(&self, agent: &str) -> Result<Option<u64>, IncusError> {
        let project = self.incus.project(&self.key.project);
        let info = project.head_file(agent, LOG_PATH, LOG_DEADLINE).await?;
        Ok(info.map(|info| info.size.unwrap_or(0)))
    }

    /// Reads a live agent's log from a place on, at most [`LOG_CHUNK`] bytes.
    pub async fn read_log(&self, agent: &str, from: u64) -> Result<LogRead, IncusError> {
        let Some(size) = self.log_size(agent).await? else {
            return Ok(LogRead::Gone);
        };
        if size <= from {
            return Ok(LogRead::Bytes(Vec::new()));
        }
        let project = self.incus.project(&self.key.project);
        let range = Some((from, (size - from).min(LOG_CHUNK as u64)));
        match project
            .read_file(agent, LOG_PATH, range, LOG_CHUNK, LOG_DEADLINE)
            .await
        {
            Ok(bytes) => Ok(LogRead::Bytes(bytes)),
            Err(error) if error.is_not_found() => Ok(LogRead::Gone),
            Err(error) => Err(error),
        }
    }
}

const LOG_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes a pool's handle and its task, which the caller runs.
pub fn new(
    shared: Shared,
    orders: watch::Receiver<Order>,
    waker: Waker,
) -> (PoolHandle, Reconciler) {
    let order = orders.borrow().clone();
    let first = PoolStatus {
        spec_hash: order.spec.spec_hash(),
        spec: Arc::clone(&order.spec),
        removed: order.removed,
        wanted: 0,
        is_paused: false,
        intents_revision: 0,
        agents: Vec::new(),
        foreign: Vec::new(),
        looks_cloned: false,
        problems: Vec::new(),
        instances_known: false,
        wait_reasons: Vec::new(),
        incus_reachable: true,
        was_seen: false,
        image: ImageStatus::default(),
        no_room: None,
        members: Vec::new(),
        launches: breaker::BreakerStatus::default(),
        azure: AzureStatus::default(),
        ghosts: ghosts::Seen::default(),
        adoption: None,
        last_pass: None,
    };
    let (publish, status) = watch::channel(Arc::new(first));
    let (sender, commands) = mpsc::channel(COMMANDS);
    let incus = shared.incus.clone();
    let reconciler = Reconciler::new(shared, orders.clone(), commands, waker, publish);
    let handle = PoolHandle {
        key: PoolKey::of(&order.spec),
        status,
        commands: sender,
        incus,
        orders,
        pulse: reconciler.pulse(),
    };
    (handle, reconciler)
}
