//! Looks at what is left of the host before agents are made; of another host, or of the members of
//! a cluster, it is known already.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use iap_common::error::chain;

use crate::members::{Amount, Member, Members};

use super::super::apply;
use super::super::placement::Wish;
use super::super::plan::Plan;
use super::super::room::{self, Room, Shortage};
use super::Reconciler;

/// A look at the storage pool counts for this long: filling a pool of agents asks a few times.
const STORAGE_AGE: Duration = Duration::from_secs(5);

/// What was seen of the host's room.
#[derive(Default)]
pub(super) struct RoomSeen {
    /// The storage pool of the root disks, as the profiles have it.
    pub(super) storage_pool: Option<String>,
    storage: Option<(Instant, String, Amount)>,
    /// Members that were full when an agent was to be made last.
    full: BTreeSet<String>,
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
        let members = Arc::clone(&self.members.borrow());
        let shortage = if plan.launch == 0 && !plan.spare {
            None
        } else if members.is_cluster() {
            self.look_at_members(&members)
        } else {
            self.look_at_room(&members, now).await.shortage(None)
        };
        let is_short = shortage.is_some();
        plan.spare &= !is_short;
        // Without a spare the pool is as it should be.
        let shortage = shortage.filter(|_| plan.launch > 0);
        match (&self.room.shortage, &shortage) {
            (None, Some(new)) => warn!(reason = %new.words, "no room, making no agents"),
            (Some(_), None) => info!("there is room again"),
            _ => {}
        }
        if is_short {
            plan.launch = 0;
        }
        self.room.shortage = shortage;
    }

    /// Returns the storage pool of the root disks, as far as it is known.
    pub(super) fn storage_pool(&self) -> Option<&String> {
        let named = self.order.spec.instance.storage_pool.as_ref();
        named.or(self.room.storage_pool.as_ref())
    }

    /// Returns where new agents may go.
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish {
            target: self.order.spec.instance.target.as_deref(),
            leaving: &self.member_view.leaving,
            storage: self.storage_pool().map(String::as_str),
        }
    }

    fn look_at_members(&mut self, members: &Members) -> Option<Shortage> {
        let wish = self.wish();
        let takes = |member: &Member| wish.fits(member);
        let shortage = room::cluster_shortage(members, takes, wish.storage);
        let open = members.all.values().filter(|member| takes(member));
        let mut full = BTreeSet::new();
        for member in open {
            let Some(short) = room::member_shortage(members, &member.name, wish.storage) else {
                continue;
            };
            if !self.room.full.contains(&member.name) {
                warn!(member = member.name, reason = %short.words, "a member is full, making no agents there");
            }
            full.insert(member.name.clone());
        }
        for member in self.room.full.difference(&full) {
            info!(member, "a member is not full any more");
        }
        self.room.full = full;
        shortage
    }

    async fn look_at_room(&mut self, members: &Members, now: Instant) -> Room {
        let memory = if self.shared.incus.is_remote() {
            members.server_memory
        } else {
            let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            room::memory(&meminfo)
        };
        let storage = match self.storage_pool().cloned() {
            Some(pool) => self.look_at_storage(pool, now).await,
            None => None,
        };
        Room { memory, storage }
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
                let space = Amount::from(space);
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
