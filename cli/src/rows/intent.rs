//! Pauses and counts: what operators want of a pool for a while.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::time::Time;
use super::{filled, plain};

#[derive(Serialize, PartialEq, Clone)]
pub(super) struct Who {
    uid: Option<u32>,
    user: Option<String>,
}

#[derive(Serialize, PartialEq, Clone)]
pub(super) struct Pause {
    reason: Option<String>,
    who: Option<Who>,
    since: Option<Time>,
    until: Option<Time>,
    host_wide: bool,
}

#[derive(Serialize, PartialEq, Clone)]
pub(super) struct CountOverride {
    count: u32,
    who: Option<Who>,
    since: Option<Time>,
    until: Option<Time>,
}

impl From<v1::Who> for Who {
    fn from(who: v1::Who) -> Self {
        Self {
            uid: who.uid,
            user: filled(who.user),
        }
    }
}

impl From<v1::Pause> for Pause {
    fn from(pause: v1::Pause) -> Self {
        Self {
            reason: filled(pause.reason),
            who: pause.who.map(Who::from),
            since: Time::of(pause.since),
            until: Time::of(pause.until),
            host_wide: pause.host_wide,
        }
    }
}

impl From<v1::CountOverride> for CountOverride {
    fn from(count: v1::CountOverride) -> Self {
        Self {
            count: count.count,
            who: count.who.map(Who::from),
            since: Time::of(count.since),
            until: Time::of(count.until),
        }
    }
}

impl Who {
    fn text(&self) -> String {
        match (&self.user, self.uid) {
            (Some(user), _) => plain(user),
            (None, Some(uid)) => format!("uid {uid}"),
            (None, None) => "somebody".to_owned(),
        }
    }
}

fn by(who: Option<&Who>) -> String {
    who.map_or_else(String::new, |who| format!(" by {}", who.text()))
}

fn until(at: Option<Time>, now: Timestamp) -> String {
    at.map_or_else(String::new, |at| format!(" until {}", at.local(now)))
}

impl Pause {
    /// Returns it in words: `paused by ana "cert swap" until 14:30 (whole host)`.
    pub(super) fn text(&self, now: Timestamp) -> String {
        self.words("paused", now)
    }

    /// Returns the same of a member of the cluster.
    pub(super) fn drained(&self, now: Timestamp) -> String {
        self.words("drained", now)
    }

    fn words(&self, what: &str, now: Timestamp) -> String {
        let reason = self.reason.as_deref().map(plain);
        let reason = reason.map_or_else(String::new, |reason| format!(" \"{reason}\""));
        let host = if self.host_wide { " (whole host)" } else { "" };
        format!(
            "{what}{}{reason}{}{host}",
            by(self.who.as_ref()),
            until(self.until, now)
        )
    }
}

impl CountOverride {
    /// Returns it in words: `12 agents until 18:00 by ana, 8 are configured`.
    pub(super) fn text(&self, configured: u32, now: Timestamp) -> String {
        format!(
            "{} agents{}{}, {configured} are configured",
            self.count,
            until(self.until, now),
            by(self.who.as_ref())
        )
    }
}
