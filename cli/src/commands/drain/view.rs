//! What is said about agents that go. Pure: agents and a clock in, text out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::progress::{Line, bar};
use crate::rows::agent::Agent;
use crate::rows::time::{Time, age, took};
use crate::rows::{Column, Row, column, plain};

/// Lines of agents on a terminal; the rest is counted.
const LINES: usize = 20;

/// What an agent would do if it were drained.
#[derive(Serialize, PartialEq)]
pub(in crate::commands) struct Forecast {
    name: String,
    state: String,
    would: &'static str,
    job: Option<String>,
    requested_for: Option<String>,
}

/// Returns what draining `agents` would mean for each.
pub(super) fn forecasts(agents: Vec<Agent>, force: bool) -> Vec<Forecast> {
    let would = |agent: &Agent| match (agent.is_busy(), force, agent.draining) {
        _ if agent.is_kept() => "stay: it is kept for debugging",
        (true, true, _) => "be stopped, its job fails",
        (true, false, _) if agent.is_to_be_kept() => "finish its job, then stay: it is to be kept",
        (true, false, true) => "go on draining",
        (true, false, false) => "finish its job, then go",
        (false, false, _) if agent.state == "unknown" => "go when it is known to have no job",
        _ => "go at once",
    };
    forecast(agents, would)
}

/// Returns what replacing `agents` would mean for each.
pub(in crate::commands) fn replacements(agents: Vec<Agent>) -> Vec<Forecast> {
    let would = |agent: &Agent| match (agent.is_busy(), agent.state.as_str()) {
        (true, _) => "be replaced when its job ends",
        (_, "idle" | "starting" | "registering") => "be replaced when its turn comes",
        (_, "spare") => "be made anew at once",
        _ => "go on as it is",
    };
    forecast(agents, would)
}

fn forecast(agents: Vec<Agent>, would: impl Fn(&Agent) -> &'static str) -> Vec<Forecast> {
    let now = Timestamp::now();
    let forecast = |agent: Agent| Forecast {
        would: would(&agent),
        job: agent.job.as_ref().map(|job| job.with_run_time(now)),
        requested_for: agent.job.as_ref().and_then(|job| job.requester()),
        state: agent.state_text(),
        name: agent.name,
    };
    agents.into_iter().map(forecast).collect()
}

impl Row for Forecast {
    const PLURAL: &'static str = "agents";
    const SINGULAR: &'static str = "agent";

    fn columns(_: bool) -> Vec<Column> {
        ["AGENT", "STATE", "WOULD", "JOB", "FOR"].map(column).into()
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<String> {
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.name.clone(),
            self.state.clone(),
            self.would.to_owned(),
            or_nothing(&self.job),
            or_nothing(&self.requested_for),
        ]
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The agents that are waited for.
pub(super) struct Crowd {
    names: BTreeSet<String>,
    present: BTreeMap<String, Agent>,
    /// Those that stay for debugging: nobody waits for them.
    kept: BTreeSet<String>,
    /// A snapshot was taken. Before that nothing is known to be gone.
    seen: bool,
    /// Everybody of this pool, or of all pools where it is empty, also who comes later.
    everybody: Option<String>,
    /// Pools of which the daemon has not seen all yet: nobody of theirs is known to be gone.
    unseen: Vec<String>,
    begun: Timestamp,
}

/// What a new snapshot changed.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) text: String,
    /// Its instance and its registration are gone.
    pub(super) gone: bool,
}

impl Crowd {
    pub(super) fn new(names: BTreeSet<String>, begun: Timestamp) -> Self {
        Self {
            names,
            present: BTreeMap::new(),
            kept: BTreeSet::new(),
            seen: false,
            everybody: None,
            unseen: Vec::new(),
            begun,
        }
    }

    /// Returns the crowd of all agents of a pool, or of all pools when it is empty.
    pub(super) fn everybody(pool: &str, begun: Timestamp) -> Self {
        Self {
            everybody: Some(pool.to_owned()),
            ..Self::new(BTreeSet::new(), begun)
        }
    }

    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Returns the pool that all agents to wait for are of, or an empty text.
    pub(super) fn pool(&self) -> &str {
        self.everybody.as_deref().unwrap_or_default()
    }

    /// Returns whether nobody is left.
    pub(super) fn is_done(&self) -> bool {
        match &self.everybody {
            None => self.gone() == self.size(),
            Some(_) => self.seen && self.present.is_empty() && self.blind_spots().is_empty(),
        }
    }

    /// Returns the pools that the daemon has to look at before anybody is known to be gone.
    fn blind_spots(&self) -> Vec<&str> {
        let concerns = |unseen: &&String| match self.everybody.as_deref() {
            Some("") => true,
            Some(pool) => pool == *unseen,
            None => self.names.iter().any(|name| is_of(name, unseen)),
        };
        let spots = self.unseen.iter().filter(concerns);
        spots.map(String::as_str).collect()
    }

    pub(super) fn size(&self) -> usize {
        self.names.len()
    }

    pub(super) fn gone(&self) -> usize {
        self.size() - self.remaining_names().len()
    }

    /// Returns how many stay for debugging.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn gone_names(&self) -> Vec<String> {
        self.names
            .difference(&self.remaining_names())
            .cloned()
            .collect()
    }

    /// Returns the agents that are not known to be gone.
    pub(super) fn remaining_names(&self) -> BTreeSet<String> {
        if self.seen {
            self.present.keys().cloned().collect()
        } else {
            self.names.clone()
        }
    }

    /// Takes a snapshot of the agents and returns what changed. In the first one, all do.
    pub(super) fn update(
        &mut self,
        agents: Vec<Agent>,
        unseen: Vec<String>,
        now: Timestamp,
    ) -> Vec<Change> {
        self.unseen = unseen;
        let (staying, mut agents): (Vec<Agent>, Vec<Agent>) =
            agents.into_iter().partition(Agent::is_kept);
        let concerns =
            |agent: &&Agent| self.everybody.is_some() || self.names.contains(&agent.name);
        self.kept = staying
            .iter()
            .filter(concerns)
            .map(|agent| agent.name.clone())
            .collect();
        if self.everybody.is_some() {
            agents.retain(|agent| !agent.is_foreign());
            self.names
                .extend(agents.iter().map(|agent| agent.name.clone()));
        }
        if !self.blind_spots().is_empty() {
            // Who is missing may be there: what was known of them stands.
            let listed: BTreeSet<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
            let kept = self.present.values().filter(|agent| {
                !listed.contains(agent.name.as_str()) && self.unseen.contains(&agent.pool)
            });
            let kept: Vec<Agent> = kept.cloned().collect();
            if !self.seen {
                return Vec::new();
            }
            agents.extend(kept);
        }
        let first = !std::mem::replace(&mut self.seen, true);
        let agents = agents
            .into_iter()
            .filter(|agent| self.names.contains(&agent.name));
        let next: BTreeMap<String, Agent> =
            agents.map(|agent| (agent.name.clone(), agent)).collect();
        let mut changes = Vec::new();
        for name in &self.names {
            let (before, after) = (self.present.get(name), next.get(name));
            match (before, after) {
                (_, Some(agent)) if before.is_none_or(|old| differs(old, agent)) => {
                    changes.push(Change {
                        name: name.clone(),
                        state: agent.state.clone(),
                        text: waits_for(agent, now),
                        gone: false,
                    });
                }
                (None, None) if !first => {}
                (_, None) if self.kept.contains(name) => changes.push(Change {
                    name: name.clone(),
                    state: "kept".to_owned(),
                    text: staying
                        .iter()
                        .find(|agent| agent.name == *name)
                        .and_then(|agent| agent.kept_until(now))
                        .map_or_else(String::new, |until| format!("for debugging {until}")),
                    gone: true,
                }),
                (_, None) => changes.push(Change {
                    name: name.clone(),
                    state: "gone".to_owned(),
                    text: if first {
                        "is not there: gone already".to_owned()
                    } else {
                        "instance and registration removed".to_owned()
                    },
                    gone: true,
                }),
                _ => {}
            }
        }
        self.present = next;
        changes
    }

    /// Returns what is still waited for, in one line: `2 of 3 gone, 1 busy; longest ...`.
    pub(super) fn summary(&self, now: Timestamp) -> String {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for agent in self.present.values() {
            *states.entry(&agent.state).or_default() += 1;
        }
        let mut text = format!("{} of {} gone", self.gone(), self.size());
        for (state, count) in states {
            text = format!("{text}, {count} {state}");
        }
        if self.kept() > 0 {
            text = format!("{text}, {} kept", self.kept());
        }
        let jobs = self.present.values().filter_map(|agent| agent.job.as_ref());
        if let Some(job) = jobs.min_by_key(|job| job.since()) {
            text = format!("{text}; longest: {}", job.with_run_time(now));
        }
        let deadlines = self
            .present
            .values()
            .filter_map(|agent| agent.drain_deadline);
        if let Some(deadline) = deadlines.min() {
            text = format!("{text}; deadline {}", in_time(deadline, now));
        }
        let unseen = self.blind_spots();
        if !unseen.is_empty() {
            text = format!(
                "{text}; the daemon has not seen all of {} yet",
                unseen.join(", ")
            );
        }
        text
    }

    /// Returns the terminal's lines: the sum first, then an agent each.
    pub(super) fn frame(&self, now: Timestamp) -> Vec<Line> {
        let since = std::time::Duration::try_from(now.duration_since(self.begun));
        let done = bar(self.gone() as u64, self.size() as u64, 18);
        let mut lines = vec![Line {
            text: format!("{done} {}", self.summary(now)),
            right: took(since.unwrap_or_default()),
        }];
        let width = self
            .present
            .keys()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);
        for agent in self.present.values().take(LINES) {
            let text = waits_for(agent, now);
            let line = format!("  {:width$}  {:<13}  {text}", agent.name, agent.state);
            lines.push(line.trim_end().to_owned().into());
        }
        if let Some(more @ 1..) = self.present.len().checked_sub(LINES) {
            lines.push(format!("  and {more} more").into());
        }
        lines
    }
}

/// Returns `in 1h58m`, or that it has passed.
fn in_time(at: Time, now: Timestamp) -> String {
    match at.ahead(now) {
        Duration::ZERO => "has passed".to_owned(),
        ahead => format!("in {}", age(ahead)),
    }
}

/// Whether an agent of this name may be of this pool: a hint for who was never seen.
fn is_of(agent: &str, pool: &str) -> bool {
    agent
        .strip_prefix(pool)
        .is_some_and(|rest| rest.starts_with('-'))
}

/// Whether a change is worth a line; the time that a job runs is not.
fn differs(old: &Agent, new: &Agent) -> bool {
    let job = |agent: &Agent| agent.job.as_ref().map(|job| job.text());
    old.state != new.state || old.detail != new.detail || job(old) != job(new)
}

/// Returns what an agent waits for before it is gone.
fn waits_for(agent: &Agent, now: Timestamp) -> String {
    let detail = agent.detail.as_deref().map(plain);
    if let (true, Some(job)) = (agent.is_busy(), &agent.job) {
        let who = job.requester();
        let who = who.map_or_else(String::new, |who| format!(" for {who}"));
        return format!("waiting: {}{who}", job.with_run_time(now));
    }
    let usual = match agent.state.as_str() {
        "busy" => "waiting for its job",
        "idle" | "starting" => "waiting for Azure to say that it has no job",
        "finishing" | "stopping" => "its instance is being removed",
        "deregistering" => "its registration is being removed",
        _ => "",
    };
    detail.unwrap_or_else(|| usual.to_owned())
}

#[cfg(test)]
mod tests {
    use iap_common::v1;

    use super::*;

    const NOW: i64 = 10_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn agent(name: &str, state: v1::AgentState) -> Agent {
        Agent::from(v1::Agent {
            name: name.to_owned(),
            state: state.into(),
            ..v1::Agent::default()
        })
    }

    fn busy(name: &str, minutes: i64) -> Agent {
        let received_at = prost_types::Timestamp {
            seconds: NOW - minutes * 60,
            nanos: 0,
        };
        Agent::from(v1::Agent {
            name: name.to_owned(),
            state: v1::AgentState::Busy.into(),
            job: Some(v1::Job {
                name: "Build".to_owned(),
                pipeline: "webshop-ci".to_owned(),
                received_at: Some(received_at),
                ..v1::Job::default()
            }),
            ..v1::Agent::default()
        })
    }

    fn crowd(names: &[&str]) -> Crowd {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Crowd::new(names, Timestamp::from_second(NOW - 90).unwrap())
    }

    #[test]
    fn agents_are_gone_only_when_they_are_listed_no_more() {
        let mut crowd = crowd(&["a", "b"]);
        let both = vec![busy("a", 11), agent("b", v1::AgentState::Deregistering)];
        crowd.update(both, vec![], now());
        assert_eq!(crowd.gone(), 0);
        let changes = crowd.update(vec![busy("a", 12)], vec![], now());
        assert_eq!(crowd.gone_names(), ["b"]);
        let gone: Vec<(&str, bool)> = changes
            .iter()
            .map(|change| (change.name.as_str(), change.gone))
            .collect();
        assert_eq!(
            gone,
            [("b", true)],
            "a's job grew older, which is no change"
        );
    }

    #[test]
    fn before_the_first_snapshot_nobody_is_known_to_be_gone() {
        let mut crowd = crowd(&["a", "b"]);
        assert_eq!(crowd.summary(now()), "0 of 2 gone");
        crowd.update(vec![], vec![], now());
        assert_eq!(crowd.summary(now()), "2 of 2 gone");
    }

    #[test]
    fn agents_that_nobody_asked_for_are_not_counted() {
        let mut crowd = crowd(&["a"]);
        crowd.update(vec![busy("a", 1), busy("replacement", 1)], vec![], now());
        assert_eq!((crowd.gone(), crowd.size()), (0, 1));
    }

    #[test]
    fn the_terminal_shows_the_sum_and_what_each_waits_for() {
        let mut crowd = crowd(&["a", "linux-h1-k3v9x", "c"]);
        let stuck = Agent::from(v1::Agent {
            name: "c".to_owned(),
            state: v1::AgentState::Stuck.into(),
            detail: "Incus refuses: dataset is busy".to_owned(),
            ..v1::Agent::default()
        });
        crowd.update(vec![busy("linux-h1-k3v9x", 11), stuck], vec![], now());
        let lines: Vec<String> = crowd
            .frame(now())
            .iter()
            .map(|line| format!("{}|{}", line.text, line.right))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        [######------------] 1 of 3 gone, 1 busy, 1 stuck; longest: webshop-ci Build (11m)|1m30s
          c               stuck          Incus refuses: dataset is busy|
          linux-h1-k3v9x  busy           waiting: webshop-ci Build (11m)|
        ");
    }

    #[test]
    fn more_agents_than_fit_are_counted() {
        let names: Vec<String> = (0..30).map(|index| format!("a{index:02}")).collect();
        let mut crowd = Crowd::new(names.iter().cloned().collect(), now());
        let agents = names.iter().map(|name| busy(name, 1)).collect();
        crowd.update(agents, vec![], now());
        let frame = crowd.frame(now());
        assert_eq!(frame.len(), 22);
        assert_eq!(frame.last().unwrap().text, "  and 10 more");
    }

    #[test]
    fn everybody_is_who_comes_as_well_and_nobody_is_gone_before_the_daemon_looked() {
        let mut crowd = Crowd::everybody("linux", now());
        let of_linux = |mut agent: Agent| {
            agent.pool = "linux".to_owned();
            agent
        };
        let unseen = || vec!["linux".to_owned(), "other".to_owned()];
        crowd.update(vec![], unseen(), now());
        assert!(!crowd.is_done(), "the daemon has just started");
        crowd.update(vec![of_linux(busy("linux-h-a", 1))], vec![], now());
        crowd.update(vec![], unseen(), now());
        assert_eq!((crowd.gone(), crowd.is_done()), (0, false), "it restarted");
        let late = of_linux(agent("linux-h-b", v1::AgentState::Starting));
        crowd.update(vec![late], vec!["other".to_owned()], now());
        assert_eq!((crowd.gone(), crowd.size()), (1, 2));
        crowd.update(vec![], vec!["other".to_owned()], now());
        assert!(crowd.is_done());
    }

    #[test]
    fn nobody_waits_for_who_is_kept() {
        let kept = |name| agent(name, v1::AgentState::Kept);
        let mut everybody = Crowd::everybody("", now());
        everybody.update(vec![busy("a", 1), kept("k")], vec![], now());
        assert_eq!((everybody.size(), everybody.kept()), (1, 1));
        assert!(!everybody.is_done());
        let changes = everybody.update(vec![kept("a"), kept("k")], vec![], now());
        assert_eq!(changes.len(), 1);
        assert_eq!((&*changes[0].state, changes[0].gone), ("kept", true));
        assert!(everybody.is_done());
        assert_eq!(everybody.summary(now()), "1 of 1 gone, 2 kept");

        let mut named = crowd(&["a"]);
        named.update(vec![kept("a"), kept("k")], vec![], now());
        assert_eq!((named.is_done(), named.kept()), (true, 1));
    }

    #[test]
    fn a_deadline_is_counted_down() {
        let mut crowd = crowd(&["a"]);
        let mut agent = busy("a", 1);
        agent.drain_deadline = Some(Time(Timestamp::from_second(NOW + 7100).unwrap()));
        crowd.update(vec![agent], vec![], now());
        let summary = crowd.summary(now());
        assert!(summary.ends_with("; deadline in 1h58m"), "{summary}");
    }
}
