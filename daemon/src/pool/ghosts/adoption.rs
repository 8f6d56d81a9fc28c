//! An adoption: the registrations of another owner that an operator saw and had removed.

use std::sync::Arc;

/// What has become of a registration that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    /// It is still there.
    There,
    /// It is gone, by whomever.
    Gone,
    /// It stays: the adoption ended before its turn.
    Stays,
}

/// One registration that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Azure's id.
    pub id: i64,
    /// The agent's name.
    pub name: String,
    /// What has become of it.
    pub state: TargetState,
    /// Why it is still there, in words; may be empty.
    pub detail: String,
}

/// Why an adoption is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptionEnd {
    /// All of it is gone.
    Done,
    /// This agent of the owner is online again, or has a job.
    Lives(String),
}

impl AdoptionEnd {
    /// Returns it in words; nothing when all went well.
    pub fn words(&self, owner: &str) -> String {
        match self {
            Self::Done => String::new(),
            Self::Lives(agent) => {
                format!("owner {owner} lives: agent {agent} is online or has a job")
            }
        }
    }
}

/// What a pool tells of an adoption. It is told until another begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptionStatus {
    /// Tells it from others.
    pub token: u64,
    /// Whose registrations.
    pub owner: Arc<str>,
    /// The registrations.
    pub targets: Vec<Target>,
    /// `None` while it lasts.
    pub end: Option<AdoptionEnd>,
}

impl AdoptionStatus {
    /// Returns how many are gone.
    pub fn gone(&self) -> usize {
        let gone = |target: &&Target| target.state == TargetState::Gone;
        self.targets.iter().filter(gone).count()
    }
}

/// An adoption under way, or the last one.
#[derive(Debug, Clone)]
pub struct Adoption {
    status: AdoptionStatus,
    /// An agent that says that the owner lives.
    lives: Option<String>,
}

impl Adoption {
    /// Begins the adoption of registrations of `owner`, by id and name.
    pub fn new(
        token: u64,
        owner: Arc<str>,
        targets: impl IntoIterator<Item = (i64, String)>,
    ) -> Self {
        let target = |(id, name)| Target {
            id,
            name,
            state: TargetState::There,
            detail: String::new(),
        };
        Self {
            status: AdoptionStatus {
                token,
                owner,
                targets: targets.into_iter().map(target).collect(),
                end: None,
            },
            lives: None,
        }
    }

    /// Returns what there is to tell.
    pub fn status(&self) -> &AdoptionStatus {
        &self.status
    }

    /// Returns whether it goes on.
    pub fn is_under_way(&self) -> bool {
        self.status.end.is_none()
    }

    /// Returns whether nothing more is to be begun: it is over, or its end waits for what is in
    /// flight.
    pub fn is_called_off(&self) -> bool {
        self.lives.is_some() || !self.is_under_way()
    }

    /// Takes in how things are: whether an agent of the owner `lives`, and how each registration
    /// is. Returns whether the adoption has just ended.
    pub fn take_in(&mut self, lives: Option<&str>, look: impl Fn(&Target) -> Look) -> bool {
        if !self.is_under_way() {
            return false;
        }
        if self.lives.is_none() {
            self.lives = lives.map(str::to_owned);
        }
        let there = |target: &&mut Target| target.state == TargetState::There;
        for target in self.status.targets.iter_mut().filter(there) {
            match look(target) {
                Look::Gone => target.state = TargetState::Gone,
                Look::There { in_flight, .. } if self.lives.is_some() && !in_flight => {
                    target.state = TargetState::Stays;
                }
                Look::There { detail, .. } => {
                    target.detail = detail;
                    continue;
                }
            }
            target.detail.clear();
        }
        let is = |state| move |target: &Target| target.state == state;
        if self.status.targets.iter().all(is(TargetState::Gone)) {
            self.status.end = Some(AdoptionEnd::Done);
        } else if !self.status.targets.iter().any(is(TargetState::There)) {
            self.status.end = self.lives.take().map(AdoptionEnd::Lives);
        }
        self.status.end.is_some()
    }
}

/// How a registration that is to go is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is not there.
    Gone,
    /// It is.
    There {
        /// Something is being done to it.
        in_flight: bool,
        /// What it waits for, in words.
        detail: String,
    },
}
