//! What is left of the hosts that Incus runs on, where it is not this one: asked of each member of
//! a cluster, or of the one remote server, now and then and for all pools together.
//!
//! Storage is told as it is. Memory is not: a member's state leaves out what the kernel keeps files
//! in, which on a host that works is most of it; and what a server is made of, where that is
//! counted, may be from long ago. So memory without anything in it counts where there is plenty,
//! else what the server is made of, while its answers differ from each other. What nobody tells is
//! not known, and whoever decides takes it for enough.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::debug;

use iap_common::error::chain;

use crate::incus::{Incus, IncusError, MemberState, Memory, StorageSpace};

/// A look at a member counts for this long: filling pools of agents asks a few times.
const AGE: Duration = Duration::from_secs(5);
/// A server takes longer to say what it is made of, and is asked less often.
const RESOURCES_AGE: Duration = Duration::from_secs(15);
/// What was told last is not known any more after this long.
const KEPT: Duration = Duration::from_secs(40);
/// A member that does not answer keeps nobody from seeing that another is lost.
const DEADLINE: Duration = Duration::from_secs(3);
/// With so much memory without anything in it, no host of any size is short of it.
const PLENTY: u64 = 2 << 30;

/// What is left of something, and how much there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// What is left.
    pub free: u64,
    /// What there is.
    pub total: u64,
}

impl From<StorageSpace> for Amount {
    fn from(space: StorageSpace) -> Self {
        Self {
            free: space.total.saturating_sub(space.used),
            total: space.total,
        }
    }
}

/// What is left of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRoom {
    /// Memory that can be had, or more than that; `None` when it is not known.
    pub memory: Option<Amount>,
    /// Its storage pools by name.
    pub storage: BTreeMap<String, Amount>,
}

/// What was told of one host.
#[derive(Default)]
struct Told {
    /// Its state, and when it said so.
    state: Option<(Instant, MemberState)>,
    /// The last answer about what it is made of, and when it was asked for.
    memory: Option<(Instant, Memory)>,
    /// When that answer was another than the one before.
    changed_at: Option<Instant>,
}

impl Told {
    fn take_memory(&mut self, memory: Memory, now: Instant) {
        if self.memory.is_some_and(|(_, old)| old != memory) {
            self.changed_at = Some(now);
        }
        self.memory = Some((now, memory));
    }

    /// Returns what was counted, unless it is from long ago.
    fn counted(&self, now: Instant) -> Option<Amount> {
        let is_new = |at: Instant| now.duration_since(at) < KEPT;
        let (_, memory) = self
            .memory
            .filter(|_| self.changed_at.is_some_and(is_new))?;
        Some(Amount {
            free: memory.total.saturating_sub(memory.used),
            total: memory.total,
        })
    }

    fn room(&self, now: Instant) -> HostRoom {
        let state = self.state.as_ref();
        let state = state.filter(|(at, _)| now.duration_since(*at) < KEPT);
        let empty = state.map(|(_, state)| Amount {
            free: state.system.free.saturating_add(state.system.buffers),
            total: state.system.total,
        });
        let pools = state.map(|(_, state)| &state.storage_pools);
        let pools = pools.into_iter().flatten();
        HostRoom {
            memory: match empty {
                Some(empty) if empty.free >= PLENTY => Some(empty),
                _ => self.counted(now),
            },
            storage: pools
                .map(|(name, pool)| (name.clone(), pool.space.into()))
                .collect(),
        }
    }
}

/// Asks, and remembers what was told.
#[derive(Default)]
pub(super) struct Rooms {
    told: BTreeMap<String, Told>,
    looked_at: Option<Instant>,
}

impl Rooms {
    /// Returns what is left of each of these members.
    pub(super) async fn of_members(
        &mut self,
        incus: &Incus,
        members: &[&str],
        now: Instant,
    ) -> BTreeMap<String, HostRoom> {
        self.told.retain(|name, _| members.contains(&&**name));
        if self
            .looked_at
            .is_none_or(|at| now.duration_since(at) >= AGE)
        {
            self.looked_at = Some(now);
            let states = members.iter().map(|name| incus.member_state(name));
            let states = join_all(states.map(|state| timeout(DEADLINE, state))).await;
            for (name, state) in members.iter().zip(states) {
                let told = self.told.entry((*name).to_owned()).or_default();
                if let Some(state) = answered(name, state) {
                    told.state = Some((now, state));
                }
            }
            let short = members.iter().filter(|name| {
                let told = self.told.get(**name);
                told.is_some_and(|told| told.room(now).memory.is_none_or(|m| m.free < PLENTY))
            });
            let short: Vec<&str> = short.copied().collect();
            let asks = short.iter().map(|name| (*name, Some(*name)));
            self.ask_for_memory(incus, asks.collect(), now).await;
        }
        let all = self.told.iter();
        all.map(|(name, told)| (name.clone(), told.room(now)))
            .collect()
    }

    /// Returns the memory of the one server, which is not this host.
    pub(super) async fn of_server(&mut self, incus: &Incus, now: Instant) -> Option<Amount> {
        self.told.retain(|name, _| name.is_empty());
        self.told.entry(String::new()).or_default();
        self.ask_for_memory(incus, vec![("", None)], now).await;
        self.told.get("").and_then(|told| told.counted(now))
    }

    async fn ask_for_memory(
        &mut self,
        incus: &Incus,
        mut asks: Vec<(&str, Option<&str>)>,
        now: Instant,
    ) {
        asks.retain(|(name, _)| {
            let asked_at = self.told.get(*name).and_then(|told| told.memory);
            asked_at.is_none_or(|(at, _)| now.duration_since(at) >= RESOURCES_AGE)
        });
        let answers = asks.iter().map(|(_, member)| incus.resources(*member));
        let answers = join_all(answers.map(|answer| timeout(DEADLINE, answer))).await;
        for ((name, _), answer) in asks.iter().zip(answers) {
            if let (Some(told), Some(made)) = (self.told.get_mut(*name), answered(name, answer)) {
                told.take_memory(made.memory, now);
            }
        }
    }
}

type Answer<T> = Result<Result<T, IncusError>, tokio::time::error::Elapsed>;

fn answered<T>(member: &str, answer: Answer<T>) -> Option<T> {
    match answer {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            debug!(member, error = %chain(&error), "cannot ask what is left of it");
            None
        }
        Err(_) => {
            debug!(member, "does not say what is left of it");
            None
        }
    }
}

#[cfg(test)]
mod tests;
