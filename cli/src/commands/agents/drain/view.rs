//! What is said about agents that go. Pure: agents and a clock in, text out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::progress::{Line, bar};
use crate::rows::agent::Agent;
use crate::rows::time::took;
use crate::rows::{Column, Row, column, plain};

/// Lines of agents on a terminal; the rest is counted.
const LINES: usize = 20;

/// What an agent would do if it were drained.
#[derive(Serialize, PartialEq)]
pub(super) struct Forecast {
    name: String,
    state: String,
    would: &'static str,
    job: Option<String>,
}

/// Returns what draining `agents` would mean for each.
pub(super) fn forecasts(agents: Vec<Agent>, force: bool) -> Vec<Forecast> {
    let now = Timestamp::now();
    let forecast = |agent: Agent| Forecast {
        would: match (agent.is_busy(), force, agent.draining) {
            (true, true, _) => "be stopped, its job fails",
            (true, false, true) => "go on draining",
            (true, false, false) => "finish its job, then go",
            _ => "go at once",
        },
        job: agent.job.as_ref().map(|job| job.with_run_time(now)),
        state: agent.state_text(),
        name: agent.name,
    };
    agents.into_iter().map(forecast).collect()
}

impl Row for Forecast {
    const PLURAL: &'static str = "agents";
    const SINGULAR: &'static str = "agent";

    fn columns(_: bool) -> Vec<Column> {
        ["AGENT", "STATE", "WOULD", "JOB"].map(column).into()
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<String> {
        let job = self.job.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.name.clone(),
            self.state.clone(),
            self.would.to_owned(),
            job,
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
    /// A snapshot was taken. Before that nothing is known to be gone.
    seen: bool,
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
            seen: false,
            begun,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.names.len()
    }

    pub(super) fn gone(&self) -> usize {
        self.size() - self.remaining_names().len()
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
    pub(super) fn update(&mut self, agents: Vec<Agent>, now: Timestamp) -> Vec<Change> {
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
        let jobs = self.present.values().filter_map(|agent| agent.job.as_ref());
        match jobs.min_by_key(|job| job.since()) {
            Some(job) => format!("{text}; longest: {}", job.with_run_time(now)),
            None => text,
        }
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

/// Whether a change is worth a line; the time that a job runs is not.
fn differs(old: &Agent, new: &Agent) -> bool {
    let job = |agent: &Agent| agent.job.as_ref().map(|job| job.text());
    old.state != new.state || old.detail != new.detail || job(old) != job(new)
}

/// Returns what an agent waits for before it is gone.
fn waits_for(agent: &Agent, now: Timestamp) -> String {
    let detail = agent.detail.as_deref().map(plain);
    if let (true, Some(job)) = (agent.is_busy(), &agent.job) {
        return format!("waiting: {}", job.with_run_time(now));
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
        crowd.update(both, now());
        assert_eq!(crowd.gone(), 0);
        let changes = crowd.update(vec![busy("a", 12)], now());
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
        crowd.update(vec![], now());
        assert_eq!(crowd.summary(now()), "2 of 2 gone");
    }

    #[test]
    fn agents_that_nobody_asked_for_are_not_counted() {
        let mut crowd = crowd(&["a"]);
        crowd.update(vec![busy("a", 1), busy("replacement", 1)], now());
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
        crowd.update(vec![busy("linux-h1-k3v9x", 11), stuck], now());
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
        crowd.update(agents, now());
        let frame = crowd.frame(now());
        assert_eq!(frame.len(), 22);
        assert_eq!(frame.last().unwrap().text, "  and 10 more");
    }
}
