//! Looks at what is left of the host before agents are made.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use super::super::apply;
use super::super::plan::Plan;
use super::super::room::{self, Amount, Room, Shortage};
use super::Reconciler;

/// A look at the storage pool counts for this long: filling a pool of agents asks a few times.
const STORAGE_AGE: Duration = Duration::from_secs(5);

/// What was seen of the host's room.
#[derive(Default)]
pub(super) struct RoomSeen {
    /// The storage pool of the root disks, as the profiles have it.
    pub(super) storage_pool: Option<String>,
    storage: Option<(Instant, String, Amount)>,
    shortage: Option<Shortage>,
}

impl RoomSeen {
    /// Returns why no agents are made now, if the host is full.
    pub(super) fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref()
    }
}

impl Reconciler {
    /// Takes out of the plan what the host has no room for. Nothing is asked while nothing is to
    /// be made.
    pub(super) async fn leave_room(&mut self, plan: &mut Plan, now: Instant) {
        let shortage = if plan.launch > 0 || plan.spare {
            self.look_at_room(now).await.shortage()
        } else {
            None
        };
        let is_short = shortage.is_some();
        plan.spare &= !is_short;
        // Without a spare the pool is as it should be.
        let shortage = shortage.filter(|_| plan.launch > 0);
        match (&self.room.shortage, &shortage) {
            (None, Some(new)) => warn!(reason = %new.words, "the host is full, making no agents"),
            (Some(_), None) => info!("the host is not full any more"),
            _ => {}
        }
        if is_short {
            plan.launch = 0;
        }
        self.room.shortage = shortage;
    }

    async fn look_at_room(&mut self, now: Instant) -> Room {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let spec = &self.order.spec.instance;
        let pool = spec.storage_pool.as_ref();
        let storage = match pool.or(self.room.storage_pool.as_ref()).cloned() {
            Some(pool) => self.look_at_storage(pool, now).await,
            None => None,
        };
        Room {
            memory: room::memory(&meminfo),
            storage,
        }
    }

    async fn look_at_storage(&mut self, pool: String, now: Instant) -> Option<(String, Amount)> {
        if let Some((at, name, space)) = &self.room.storage
            && *name == pool
            && now.duration_since(*at) < STORAGE_AGE
        {
            return Some((pool, *space));
        }
        match self.shared.incus.storage_space(&pool).await {
            Ok(space) => {
                let space = Amount {
                    free: space.total.saturating_sub(space.used),
                    total: space.total,
                };
                self.room.storage = Some((now, pool.clone(), space));
                Some((pool, space))
            }
            Err(error) => {
                // Not known is not full.
                debug!(error = %chain(&error), pool, "cannot ask how full the storage pool is");
                None
            }
        }
    }

    /// Finds the storage pool of the root disks, when the spec names none.
    pub(super) async fn look_for_storage_pool(&mut self, project: &crate::incus::Project) {
        let spec = &self.order.spec.instance;
        if spec.storage_pool.is_some() {
            return;
        }
        match apply::instance::root_pool(project, &spec.profiles).await {
            Ok(pool) => self.room.storage_pool = pool,
            Err(error) => debug!(error = %chain(&error), "cannot read the profiles"),
        }
    }
}
