//! Registrations without an instance here, and what became of those that were to go.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::agent::Job;
use super::time::{Time, age};
use super::{Column, NOTHING, Row, column, filled, or_nothing, plain, state, time_column, word};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Ghost {
    pub(crate) name: String,
    azure_agent_id: i64,
    azure_url: String,
    azure_pool: String,
    pub(crate) owner: String,
    ours: bool,
    pool: Option<String>,
    online: bool,
    job: Option<Job>,
    since: Option<Time>,
    outlook: String,
}

impl From<v1::Ghost> for Ghost {
    fn from(ghost: v1::Ghost) -> Self {
        Self {
            name: ghost.name,
            azure_agent_id: ghost.azure_agent_id,
            azure_url: ghost.azure_url,
            azure_pool: ghost.azure_pool,
            owner: ghost.owner,
            ours: ghost.ours,
            pool: filled(ghost.pool),
            online: ghost.online,
            job: ghost.job.map(Job::from),
            since: Time::of(ghost.since),
            outlook: ghost.outlook,
        }
    }
}

impl Ghost {
    /// Returns what tells it from all others.
    pub(crate) fn key(&self) -> v1::GhostKey {
        v1::GhostKey {
            azure_url: self.azure_url.clone(),
            azure_pool: self.azure_pool.clone(),
            azure_agent_id: self.azure_agent_id,
        }
    }

    fn owner_cell(&self) -> String {
        let owner = plain(&self.owner);
        match self.ours {
            true => format!("{owner} (this host)"),
            false => owner,
        }
    }
}

impl Row for Ghost {
    const PLURAL: &'static str = "ghosts";
    const SINGULAR: &'static str = "ghost";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![column("AGENT"), column("OWNER"), column("AZURE-POOL")];
        if wide {
            columns.extend([column("AZURE-URL"), column("AZURE-ID")]);
        }
        columns.extend([
            column("POOL"),
            state("AZURE"),
            column("JOB"),
            time_column(wide, "SINCE", "SINCE"),
            column("OUTLOOK"),
        ]);
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            plain(&self.name),
            self.owner_cell(),
            plain(&self.azure_pool),
        ];
        if wide {
            cells.extend([self.azure_url.clone(), self.azure_agent_id.to_string()]);
        }
        let since = self.since.map(|since| match wide {
            true => since.to_string(),
            false => age(since.age(now)),
        });
        let online = if self.online { "online" } else { "offline" };
        cells.extend([
            or_nothing(self.pool.as_deref().map(plain).as_deref()),
            online.to_owned(),
            self.job
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), Job::text),
            or_nothing(since.as_deref()),
            plain(&self.outlook),
        ]);
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// How far the removal of another owner's registrations got, for programs.
#[derive(Serialize)]
pub(crate) struct Adoption {
    pub(crate) owner: String,
    pub(crate) state: String,
    pub(crate) removed: usize,
    pub(crate) total: usize,
    /// What was shown and confirmed, each with what became of it.
    pub(crate) ghosts: Vec<Adopted>,
    pub(crate) message: Option<String>,
}

/// One of them.
#[derive(Serialize)]
pub(crate) struct Adopted {
    pub(crate) name: String,
    pub(crate) azure_pool: String,
    pub(crate) azure_agent_id: i64,
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
}

impl Adopted {
    /// Returns one that was confirmed as the daemon tells of it; one that it tells nothing of had
    /// gone when the removal began.
    fn of(ghost: &Ghost, answer: &v1::AdoptGhostsResponse) -> Self {
        let told = answer.ghosts.iter().find(|told| {
            let told = told.ghost.as_ref();
            told.is_some_and(|told| Ghost::from(told.clone()).key() == ghost.key())
        });
        let state = told.map_or(v1::AdoptedGhostState::Removed, |told| told.state());
        Self {
            name: ghost.name.clone(),
            azure_pool: ghost.azure_pool.clone(),
            azure_agent_id: ghost.azure_agent_id,
            state: word(state.as_str_name(), "ADOPTED_GHOST_STATE_"),
            detail: told.and_then(|told| filled(told.detail.clone())),
        }
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.state == "removed"
    }
}

impl Adoption {
    /// Returns how far the removal of what was confirmed got.
    pub(crate) fn of(owner: &str, shown: &[Ghost], answer: &v1::AdoptGhostsResponse) -> Self {
        let ghosts = shown.iter().map(|ghost| Adopted::of(ghost, answer));
        let ghosts: Vec<Adopted> = ghosts.collect();
        Self {
            owner: owner.to_owned(),
            state: word(answer.state().as_str_name(), "ADOPTION_STATE_"),
            removed: ghosts.iter().filter(|ghost| ghost.is_removed()).count(),
            total: ghosts.len(),
            ghosts,
            message: filled(answer.message.clone()),
        }
    }

    /// Returns `removed: 3/5`.
    pub(crate) fn counted(&self) -> String {
        format!("removed: {}/{}", self.removed, self.total)
    }

    /// Returns those that are still there.
    pub(crate) fn left(&self) -> impl Iterator<Item = &Adopted> {
        self.ghosts.iter().filter(|ghost| !ghost.is_removed())
    }
}
