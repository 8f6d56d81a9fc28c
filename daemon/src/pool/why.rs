//! Why jobs wait, in words. Pure: agents, jobs and capabilities in, text out. What is wrong with
//! the pool itself is told among its problems, and a pause by itself.

use std::collections::BTreeMap;

use crate::agent::AgentState;
use crate::azure::JobRequest;

use super::host_limit::HostLimit;

/// Jobs that no agent can take are named up to this many; the rest is like them.
const NAMED: usize = 3;

type Capabilities = BTreeMap<String, String>;

/// Returns why `waiting` jobs wait, most important first; nothing when none does. `limit` is what
/// keeps agents from being started.
pub fn wait_reasons(
    waiting: &[JobRequest],
    agents: &[&BTreeMap<String, String>],
    states: &[AgentState],
    limit: Option<HostLimit>,
) -> Vec<String> {
    if waiting.is_empty() {
        return Vec::new();
    }
    let unmet = waiting
        .iter()
        .filter_map(|job| Some((job, unmet(job, agents)?)));
    let unmet = unmet
        .take(NAMED)
        .map(|(job, demand)| format!("{}: no agent of the Azure pool has {demand}", name(job)));
    let limit = limit.map(|limit| {
        let limit = limit.words();
        format!("no more agents can be started: {limit}; what to do: iapctl doctor")
    });
    let mut reasons: Vec<String> = limit.into_iter().chain(unmet).collect();
    let count = |wanted: fn(AgentState) -> bool| states.iter().filter(|s| wanted(**s)).count();
    let busy = count(|state| state == AgentState::Busy);
    let starting = count(|state| {
        use AgentState::{Creating, Registering, Starting};
        matches!(state, Creating | Registering | Starting)
    });
    let idle = count(|state| state == AgentState::Idle);
    match (busy, starting, idle) {
        (_, _, 1..) => {}
        (0, 0, 0) => reasons.push("the pool has no agent that could take one".into()),
        (1, 0, 0) => reasons.push("at capacity: the only agent is busy".into()),
        (1.., 0, 0) => reasons.push(format!("at capacity: all {busy} agents are busy")),
        (0, 1, 0) => reasons.push("an agent is starting".into()),
        (0, starting, 0) => reasons.push(format!("{starting} agents are starting")),
        (busy, starting, 0) => reasons.push(format!("busy agents: {busy}, starting: {starting}")),
    }
    reasons
}

fn name(job: &JobRequest) -> String {
    let parts = [("", &job.pipeline), ("#", &job.run), ("", &job.job_name)];
    let known: Vec<String> = parts
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(mark, part)| format!("{mark}{part}"))
        .collect();
    if known.is_empty() {
        format!("job {}", job.request_id)
    } else {
        known.join(" ")
    }
}

/// Returns the demand that keeps a job from all agents. While there is no agent nothing is known
/// about demands.
fn unmet(job: &JobRequest, agents: &[&Capabilities]) -> Option<String> {
    let meets_all = |agent: &&Capabilities| job.demands.iter().all(|d| is_met(d, agent));
    if agents.is_empty() || agents.iter().any(meets_all) {
        return None;
    }
    let alone = job
        .demands
        .iter()
        .find(|demand| !agents.iter().any(|agent| is_met(demand, agent)));
    Some(match alone {
        Some(demand) => format!("\"{demand}\", which it demands"),
        None => format!("all of what it demands ({})", job.demands.join(", ")),
    })
}

/// `Name`, `Name -equals Value`, `Name -gtVersion 2.1.0`. Of what is not understood it is not
/// said that it is missing.
fn is_met(demand: &str, capabilities: &Capabilities) -> bool {
    let mut words = demand.trim().splitn(3, ' ');
    let name = words.next().unwrap_or_default();
    let held = capabilities
        .iter()
        .find(|(held, _)| held.eq_ignore_ascii_case(name));
    let Some((_, value)) = held else { return false };
    match (words.next(), words.next()) {
        (Some(operator), Some(wanted)) if operator.eq_ignore_ascii_case("-equals") => {
            value.eq_ignore_ascii_case(wanted.trim())
        }
        (Some(operator), Some(wanted)) if operator.eq_ignore_ascii_case("-gtversion") => {
            version(value) >= version(wanted)
        }
        _ => true,
    }
}

fn version(text: &str) -> Vec<u64> {
    let parts = text.trim().split('.');
    parts.map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use AgentState::{Busy, Idle, Starting};

    fn job(demands: &[&str]) -> JobRequest {
        JobRequest {
            pipeline: "ci".into(),
            run: "20261125.1".into(),
            job_name: "Build".into(),
            demands: demands.iter().map(|demand| (*demand).to_owned()).collect(),
            ..JobRequest::default()
        }
    }

    fn agent(capabilities: &[(&str, &str)]) -> Capabilities {
        let pairs = capabilities.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn nothing_waits_without_reason() {
        assert!(wait_reasons(&[], &[], &[Busy], Some(HostLimit::Memory)).is_empty());
        let reasons = |states: &[AgentState]| wait_reasons(&[job(&[])], &[], states, None);
        assert_eq!(
            reasons(&[Busy, Busy]),
            ["at capacity: all 2 agents are busy"]
        );
        assert_eq!(reasons(&[Busy, Starting]), ["busy agents: 1, starting: 1"]);
        assert_eq!(reasons(&[Busy]), ["at capacity: the only agent is busy"]);
        assert_eq!(reasons(&[Starting]), ["an agent is starting"]);
        assert_eq!(reasons(&[]), ["the pool has no agent that could take one"]);
        assert!(reasons(&[Idle]).is_empty(), "Azure gives it one soon");
    }

    #[test]
    fn a_limit_of_the_host_comes_first_and_says_what_to_do() {
        let reasons = wait_reasons(&[job(&[])], &[], &[Busy], Some(HostLimit::Storage));
        assert_eq!(
            reasons,
            [
                "no more agents can be started: the storage pool of the instances is full; what \
                 to do: iapctl doctor",
                "at capacity: the only agent is busy"
            ]
        );
    }

    #[test]
    fn a_demand_that_no_agent_meets_is_named() {
        let agents = [
            agent(&[("Agent.Version", "4.275.0"), ("stove", "1")]),
            agent(&[("Agent.Version", "4.275.0"), ("kettle", "blue")]),
        ];
        let agents: Vec<&Capabilities> = agents.iter().collect();
        let why = |demands: &[&str]| wait_reasons(&[job(demands)], &agents, &[Idle], None);
        assert!(why(&["Agent.Version -gtVersion 2.163.1", "STOVE"]).is_empty());
        assert_eq!(
            why(&["kettle -equals red"]),
            [
                "ci #20261125.1 Build: no agent of the Azure pool has \"kettle -equals red\", which \
              it demands"
            ]
        );
        assert_eq!(
            why(&["Agent.Version -gtVersion 4.300.0"]).len(),
            1,
            "too old"
        );
        assert_eq!(
            why(&["stove", "kettle"]),
            [
                "ci #20261125.1 Build: no agent of the Azure pool has all of what it demands \
              (stove, kettle)"
            ]
        );
        assert!(why(&["kettle -like b*"]).is_empty(), "not understood");
    }
}
