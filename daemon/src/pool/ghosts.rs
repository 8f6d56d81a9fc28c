//! Ghosts: registrations of an Azure pool that carry an owner's tag, and since when each is as it
//! is. Says whether an operator may have those of another owner removed, whose host is gone for
//! good. Pure.
//!
//! ```text
//!  Azure list ─► Seen ─► Ghost (since when offline and unassigned) ─► judge ─► Adoption
//!                                                 adopted ones go the way of our own ghosts ◄┘
//! ```
//!
//! A registration belongs to whoever's tag it carries. One of another owner is touched only after
//! an operator named that owner here, and only while nothing of that owner is alive in the pool.
//! That is remembered nowhere but in the pool's task: a restart ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::RegistrationFacts;

mod adoption;
mod outlook;

pub use adoption::{Adoption, AdoptionEnd, AdoptionStatus, Look, Target, TargetState};
pub use outlook::{Whose, outlook, span};

/// A list may be as old as so many intervals, and a call may take its time.
const FRESH_INTERVALS: u32 = 3;
const FRESH_SLACK: Duration = Duration::from_secs(15);

/// A registration with an owner's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// The agent's name.
    pub name: String,
    /// What Azure says of it.
    pub facts: RegistrationFacts,
    /// Since when each list said the same of whether it is online and of its job, without a gap;
    /// `None` since a list failed.
    pub since: Option<Instant>,
}

impl Ghost {
    /// Returns whose it is.
    pub fn owner(&self) -> &str {
        self.facts.owner.as_deref().unwrap_or_default()
    }

    /// Returns since when each list said that it is offline and unassigned.
    pub fn dead_since(&self) -> Option<Instant> {
        self.since.filter(|_| self.facts.is_dead())
    }

    /// Returns how long it has to be seen dead before it may go; nothing when it may.
    pub fn left(&self, listed: Option<Instant>, grace: Duration) -> Duration {
        let seen = self.dead_since().zip(listed);
        let lasted = seen.map_or(Duration::ZERO, |(since, listed)| {
            listed.saturating_duration_since(since)
        });
        grace.saturating_sub(lasted)
    }
}

/// All registrations with an owner's tag in one Azure pool, as one pool's task has seen them.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In the order of their names.
    pub all: Arc<[Ghost]>,
    /// When the last list began.
    pub listed: Option<Instant>,
    /// Counts interruptions of the lists.
    gaps: u64,
}

impl Seen {
    /// Notes how often the lists were interrupted: what was seen before says nothing any more.
    pub fn interrupted(&mut self, gaps: u64) {
        if std::mem::replace(&mut self.gaps, gaps) != gaps {
            let forget = |ghost: &Ghost| Ghost {
                since: None,
                ..ghost.clone()
            };
            self.all = self.all.iter().map(forget).collect();
        }
    }

    /// Takes a complete list in, which began at `began`.
    pub fn take_in(
        &mut self,
        list: impl IntoIterator<Item = (String, RegistrationFacts)>,
        began: Instant,
        now: Instant,
    ) {
        let before: BTreeMap<i64, &Ghost> = self.all.iter().map(|g| (g.facts.id, g)).collect();
        let tagged = list
            .into_iter()
            .filter(|(_, facts)| facts.owner.is_some())
            .map(|(name, facts)| {
                let was = before.get(&facts.id);
                let since = was.filter(|was| is_alike(&was.facts, &facts));
                Ghost {
                    name,
                    since: since.and_then(|was| was.since).or(Some(now)),
                    facts,
                }
            });
        self.all = tagged.collect();
        self.listed = Some(began);
    }

    /// Forgets a registration that was deleted. A list that began before may yet show it once.
    pub fn forget(&mut self, id: i64) {
        if self.all.iter().any(|ghost| ghost.facts.id == id) {
            let others = self.all.iter().filter(|ghost| ghost.facts.id != id);
            self.all = others.cloned().collect();
        }
    }

    /// Returns the name of an agent of this owner that is online or has a job.
    pub fn living(&self, owner: &str) -> Option<&str> {
        let living = self
            .all
            .iter()
            .find(|g| g.owner() == owner && !g.facts.is_dead());
        living.map(|ghost| ghost.name.as_str())
    }
}

fn is_alike(one: &RegistrationFacts, other: &RegistrationFacts) -> bool {
    let of = |facts: &RegistrationFacts| (facts.online, facts.job.as_ref().map(|j| j.request_id));
    of(one) == of(other)
}

/// One Azure pool, to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Its name in Azure.
    pub azure_pool: &'a str,
    /// What was seen in it.
    pub seen: &'a Seen,
    /// The last attempt to list it worked.
    pub usable: bool,
    /// Between two lists.
    pub interval: Duration,
    /// How long a registration has to be seen dead.
    pub grace: Duration,
    /// Registrations here are to go; else it only tells whether their host lives.
    pub is_meant: bool,
}

impl Sight<'_> {
    /// Returns why what was seen is not good enough to judge by.
    pub fn flaw(&self, now: Instant) -> Option<String> {
        let pool = self.azure_pool;
        let Some(listed) = self.seen.listed else {
            return Some(format!("Azure pool {pool} was not listed yet"));
        };
        let age = now.saturating_duration_since(listed);
        let is_old = age > self.interval * FRESH_INTERVALS + FRESH_SLACK;
        (is_old || !self.usable).then(|| {
            let age = age.as_secs();
            format!("the last list of Azure pool {pool} is {age}s old, and there is no newer one")
        })
    }
}

/// Why the registrations of an owner are not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are swept without being asked.
    #[error("owner {0} is this host")]
    Ours(String),
    /// Nothing carries that owner's tag.
    #[error("owner {owner} has no registrations")]
    Unknown {
        /// Who was named.
        owner: String,
        /// Whom there are.
        known: Vec<String>,
    },
    /// What was seen is old, or nothing was.
    #[error("{0}")]
    Unseen(String),
    /// Its host is not gone.
    #[error("owner {owner} lives: {} online or with a job: {}", count(names.len()), some(names))]
    Lives {
        /// Who was named.
        owner: String,
        /// Which agents say so.
        names: Vec<String>,
    },
    /// It may yet come back.
    #[error(
        "owner {owner} may come back: {} not been seen offline and unassigned for {}s without a \
         gap: {}", has(names.len()), grace.as_secs(), some(names)
    )]
    TooEarly {
        /// Who was named.
        owner: String,
        /// Which registrations.
        names: Vec<String>,
        /// How long each has to be.
        grace: Duration,
        /// How long that takes yet.
        left: Duration,
    },
    /// One at a time.
    #[error("the registrations of owner {0} are being removed in this Azure pool")]
    UnderWay(String),
    /// An agent here has the name of one of them.
    #[error("{0} is the name of an agent here")]
    Named(String),
}

/// Names in a message; more are counted.
const NAMED: usize = 5;

fn some(names: &[String]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn count(agents: usize) -> String {
    match agents {
        1 => "an agent is".to_owned(),
        more => format!("{more} agents are"),
    }
}

fn has(registrations: usize) -> String {
    match registrations {
        1 => "a registration has".to_owned(),
        more => format!("{more} registrations have"),
    }
}

/// Returns what an owner has in the pools that are meant, by pool, when all of it may go; `ours`
/// is who we are.
pub fn judge<'a>(
    sights: &[Sight<'a>],
    owner: &str,
    ours: &str,
    now: Instant,
) -> Result<Vec<Vec<&'a Ghost>>, Refusal> {
    if owner == ours {
        return Err(Refusal::Ours(owner.to_owned()));
    }
    let meant = || sights.iter().filter(|sight| sight.is_meant);
    if let Some(flaw) = meant().find_map(|sight| sight.flaw(now)) {
        return Err(Refusal::Unseen(flaw));
    }
    let names = |wanted: &dyn Fn(&Sight<'_>, &Ghost) -> bool| -> Vec<String> {
        let all = sights.iter().flat_map(|sight| {
            let own = sight.seen.all.iter().filter(|g| g.owner() == owner);
            own.filter(|ghost| wanted(sight, ghost))
        });
        all.map(|ghost| ghost.name.clone()).collect()
    };
    if names(&|sight, _| sight.is_meant).is_empty() {
        let all = meant().flat_map(|sight| sight.seen.all.iter().map(Ghost::owner));
        let known: BTreeSet<&str> = all.filter(|known| *known != ours).collect();
        return Err(Refusal::Unknown {
            owner: owner.to_owned(),
            known: known.into_iter().map(str::to_owned).collect(),
        });
    }
    // Wherever it is seen to live: a host has one owner in all its pools.
    let living = names(&|_, ghost| !ghost.facts.is_dead());
    if !living.is_empty() {
        return Err(Refusal::Lives {
            owner: owner.to_owned(),
            names: living,
        });
    }
    let left = |sight: &Sight<'_>, ghost: &Ghost| ghost.left(sight.seen.listed, sight.grace);
    let early = names(&|sight, ghost| sight.is_meant && !left(sight, ghost).is_zero());
    if !early.is_empty() {
        let all = meant().flat_map(|sight| {
            let own = sight.seen.all.iter().filter(|g| g.owner() == owner);
            own.map(|ghost| (left(sight, ghost), sight.grace))
        });
        let (left, grace) = all.max().unwrap_or_default();
        return Err(Refusal::TooEarly {
            owner: owner.to_owned(),
            names: early,
            grace,
            left,
        });
    }
    let of = |sight: &Sight<'a>| {
        let own = sight.seen.all.iter().filter(|g| g.owner() == owner);
        own.filter(|_| sight.is_meant).collect()
    };
    Ok(sights.iter().map(of).collect())
}

#[cfg(test)]
mod tests;
