//! The members of the Incus cluster, if it is one: watched, and judged by our own clock. What
//! becomes of agents on a member that is lost or leaves is for the plan to decide; this module
//! only says which members these are, and never from a list that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{ClusterMember, Incus, IncusError};

mod room;

use room::Rooms;
pub use room::{Amount, HostRoom};

/// Between two lists of a cluster's members.
const INTERVAL: Duration = Duration::from_secs(3);
/// Between two looks whether a server has become a cluster.
const ALONE: Duration = Duration::from_secs(60);
/// The same where the server is on another host, of which it tells the memory.
const REMOTE: Duration = Duration::from_secs(15);

/// Whether a member can run agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Online,
    /// The cluster has not heard of it for a while. What runs there may run on.
    Offline,
    /// Its instances were moved or stopped, or are about to be.
    Evacuated,
    /// Something else: it gets nothing new.
    Other,
}

impl Standing {
    fn of(status: &str) -> Self {
        match status.to_ascii_lowercase().as_str() {
            "online" => Self::Online,
            "offline" => Self::Offline,
            "evacuating" | "evacuated" => Self::Evacuated,
            _ => Self::Other,
        }
    }
}

/// Which new instances the cluster's administrator lets a member have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    All,
    /// Those for one of its groups, or for itself.
    Group,
    /// Those for itself.
    Manual,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it can run agents.
    pub standing: Standing,
    /// The same in Incus's words.
    pub message: String,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// How many processors it has; 1 until it said so.
    pub cores: usize,
    /// Since when each list says offline.
    offline_since: Option<Instant>,
    takes: Takes,
}

impl Member {
    /// Returns whether a new instance may be placed on it: one for `target`, a member or a group
    /// (`@name`), or for any.
    pub fn takes(&self, target: Option<&str>) -> bool {
        self.is_meant_for(target) && self.standing == Standing::Online
    }

    /// Returns the same as if it were online.
    pub fn is_meant_for(&self, target: Option<&str>) -> bool {
        match target.map(|target| target.strip_prefix('@').ok_or(target)) {
            Some(Err(member)) => self.name == member,
            Some(Ok(group)) => {
                self.takes != Takes::Manual && self.groups.iter().any(|own| own == group)
            }
            None => self.takes == Takes::All,
        }
    }
}

/// All members at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// By name; empty without a cluster.
    pub all: BTreeMap<String, Member>,
    /// What is left of those that are online.
    pub rooms: BTreeMap<String, HostRoom>,
    /// The memory of a server on another host that is no cluster, as far as it is known.
    pub server_memory: Option<Amount>,
    /// When the list was fetched.
    at: Option<Instant>,
}

impl Members {
    /// Returns whether there is a cluster.
    pub fn is_cluster(&self) -> bool {
        !self.all.is_empty()
    }

    /// Returns the processors of all members together.
    pub fn cores(&self) -> usize {
        self.all.values().map(|member| member.cores).sum()
    }

    /// Returns those with a standing.
    pub fn standing(&self, standing: Standing) -> BTreeSet<String> {
        self.names(|member| member.standing == standing)
    }

    /// Returns those of which each list said for `grace` that they are offline.
    pub fn lost(&self, grace: Duration) -> BTreeSet<String> {
        self.names(|member| {
            member
                .offline_since
                .zip(self.at)
                .is_some_and(|(since, at)| at.duration_since(since) >= grace)
        })
    }

    fn names(&self, fits: impl Fn(&Member) -> bool) -> BTreeSet<String> {
        let found = self.all.values().filter(|member| fits(member));
        found.map(|member| member.name.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn of(list: Vec<ClusterMember>) -> Self {
        Self::default().take_in(list, Instant::now())
    }

    /// Returns what a list makes of what was known.
    fn take_in(&self, list: Vec<ClusterMember>, now: Instant) -> Self {
        let all = list.into_iter().map(|listed| {
            let old = self.all.get(&listed.name);
            let standing = Standing::of(&listed.status);
            let since = || old.and_then(|old| old.offline_since).unwrap_or(now);
            let takes = match listed.config.get("scheduler.instance").map(String::as_str) {
                Some("group") => Takes::Group,
                Some("manual") => Takes::Manual,
                _ => Takes::All,
            };
            let member = Member {
                standing,
                message: listed.message,
                groups: listed.groups,
                cores: old.map_or(1, |old| old.cores),
                offline_since: (standing == Standing::Offline).then(since),
                takes,
                name: listed.name,
            };
            (member.name.clone(), member)
        });
        Self {
            all: all.collect(),
            at: Some(now),
            ..Self::default()
        }
    }

    /// Returns the same after a list that failed: how long a member is offline begins anew.
    fn miss(&self) -> Self {
        let mut missed = self.clone();
        for member in missed.all.values_mut() {
            member.offline_since = None;
        }
        missed
    }
}

/// Looks at the members.
pub struct Watcher {
    incus: Incus,
    members: watch::Sender<Arc<Members>>,
    /// Members that said how many processors they have.
    asked: BTreeSet<String>,
    rooms: Rooms,
}

impl Watcher {
    /// Makes a watcher and the receiver of what it sees.
    pub fn new(incus: Incus) -> (Self, watch::Receiver<Arc<Members>>) {
        let (members, receiver) = watch::channel(Arc::default());
        let watcher = Self {
            incus,
            members,
            asked: BTreeSet::new(),
            rooms: Rooms::default(),
        };
        (watcher, receiver)
    }

    /// Looks now and then, until `stop`.
    pub async fn run(mut self, stop: &CancellationToken) {
        loop {
            let pause = match stop.run_until_cancelled(self.look()).await {
                Some(true) => INTERVAL,
                Some(false) if self.incus.is_remote() => REMOTE,
                Some(false) => ALONE,
                None => return,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once; returns whether there is a cluster, as far as is known.
    pub async fn look(&mut self) -> bool {
        let old = Arc::clone(&self.members.borrow());
        let new = match self.list(&old).await {
            Ok(Some(list)) => old.take_in(list, Instant::now()),
            Ok(None) => Members::default(),
            Err(error) => {
                if old
                    .all
                    .values()
                    .any(|member| member.offline_since.is_some())
                {
                    warn!(error = %chain(&error), "cannot list the cluster's members");
                }
                old.miss()
            }
        };
        let new = self.ask_for_cores(new).await;
        let new = self.ask_for_rooms(new).await;
        for member in new.all.values() {
            let before = old.all.get(&member.name).map(|old| old.standing);
            if before.is_some_and(|before| before != member.standing) {
                info!(
                    member = member.name,
                    message = member.message,
                    "{:?}",
                    member.standing
                );
            }
        }
        let is_cluster = new.is_cluster();
        // Ages move on with each list; the plan wants them, and nobody needs to be woken for it.
        let wakes = new.all != old.all || new.all.values().any(|m| m.offline_since.is_some());
        self.members.send_if_modified(|members| {
            *members = Arc::new(new);
            wakes
        });
        is_cluster
    }

    async fn list(&self, old: &Members) -> Result<Option<Vec<ClusterMember>>, IncusError> {
        if !old.is_cluster() && !self.incus.server().await?.is_clustered {
            return Ok(None);
        }
        match self.incus.cluster_members().await {
            // The last member but this one left, and the cluster with it.
            Err(error) if error.is_not_found() => Ok(None),
            list => list.map(Some),
        }
    }

    async fn ask_for_cores(&mut self, mut members: Members) -> Members {
        for member in members.all.values_mut() {
            if member.standing != Standing::Online || self.asked.contains(&member.name) {
                continue;
            }
            if let Ok(made) = self.incus.resources(Some(&member.name)).await {
                member.cores = made.cpu.total.max(1);
                self.asked.insert(member.name.clone());
            }
        }
        members
    }

    /// What the kernel of this host tells is read where it is needed.
    async fn ask_for_rooms(&mut self, mut members: Members) -> Members {
        let now = Instant::now();
        if members.is_cluster() {
            let online = members.standing(Standing::Online);
            let online: Vec<&str> = online.iter().map(String::as_str).collect();
            members.rooms = self.rooms.of_members(&self.incus, &online, now).await;
        } else if self.incus.is_remote() {
            members.server_memory = self.rooms.of_server(&self.incus, now).await;
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, status: &str) -> ClusterMember {
        ClusterMember {
            name: name.into(),
            status: status.into(),
            groups: vec!["default".into(), "ssd".into()],
            ..ClusterMember::default()
        }
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_member_is_lost_when_each_list_said_offline_for_the_grace() {
        let grace = Duration::from_secs(120);
        let began = Instant::now();
        let list = |b| vec![listed("a", "Online"), listed("b", b)];
        let first = Members::default().take_in(list("Offline"), began);
        assert!(first.lost(grace).is_empty());
        let later = first.take_in(list("Offline"), began + grace);
        assert_eq!(names(&later.lost(grace)), ["b"]);
        let back = later.take_in(list("Online"), began + grace * 2);
        assert!(back.lost(grace).is_empty());
        let again = back.take_in(list("Offline"), began + grace * 3);
        assert!(again.lost(grace).is_empty(), "its time begins anew");
    }

    #[test]
    fn a_list_that_failed_says_nothing_of_how_long_a_member_is_offline() {
        let grace = Duration::from_secs(120);
        let began = Instant::now();
        let list = || vec![listed("a", "Offline")];
        let gap = Members::default().take_in(list(), began).miss();
        assert_eq!(names(&gap.standing(Standing::Offline)), ["a"]);
        let after = gap.take_in(list(), began + grace);
        assert!(after.lost(grace).is_empty());
        assert_eq!(
            names(&after.take_in(list(), began + grace * 2).lost(grace)),
            ["a"]
        );
    }

    #[test]
    fn members_take_what_is_meant_for_them_and_what_their_administrator_allows() {
        let with = |scheduler: &str, status: &str| {
            let mut member = listed("a", status);
            member
                .config
                .insert("scheduler.instance".into(), scheduler.into());
            let members = Members::default().take_in(vec![member], Instant::now());
            [None, Some("a"), Some("b"), Some("@ssd"), Some("@gpu")]
                .map(|target| members.all["a"].takes(target))
        };
        assert_eq!(with("all", "Online"), [true, true, false, true, false]);
        assert_eq!(with("group", "Online"), [false, true, false, true, false]);
        assert_eq!(with("manual", "Online"), [false, true, false, false, false]);
        for status in ["Offline", "Evacuated", "Evacuating", "Blocked"] {
            assert_eq!(with("all", status), [false; 5], "{status}");
        }
    }
}
