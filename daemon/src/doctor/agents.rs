//! What the pools' tasks know already: agents that did not start, that cannot be removed, and
//! registrations without a machine.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::agent::AgentState;
use crate::pool::status::{AgentStatus, PoolStatus};

use super::check::{Check, Topic};
use super::count;

const STARTS: Topic = Topic {
    id: "agent-starts",
    title: "agent starts",
    why: "a pool whose agents do not start backs off and runs out of agents",
};
const REMOVALS: Topic = Topic {
    id: "agent-removals",
    title: "agent removals",
    why: "what cannot be removed takes space, and its name stays taken",
};
const GHOSTS: Topic = Topic {
    id: "ghosts",
    title: "ghosts",
    why: "Azure offers a registration without a machine to pipelines as if it could run something",
};
const UNKNOWN: Topic = Topic {
    id: "lost-agents",
    title: "lost agents",
    why: "an agent that Azure lost sight of fills a slot until it is known to be dead",
};
const KEPT: Topic = Topic {
    id: "kept-agents",
    title: "kept agents",
    why: "a kept agent takes memory and disk beside those that work",
};
const FOREIGN: Topic = Topic {
    id: "earlier-tool",
    title: "earlier tool",
    why: "instances of the earlier tool take memory and take jobs until they end by themselves",
};

/// Who has not looked into a kept machine by then has forgotten it.
const KEPT_LONG: SignedDuration = SignedDuration::from_hours(24);
/// A failure longer ago says nothing of today.
const LATELY: SignedDuration = SignedDuration::from_hours(24);

/// Judges all pools, those that left the configuration too.
pub(super) fn judge_all(statuses: &[Arc<PoolStatus>], now: Timestamp) -> Vec<Check> {
    if statuses.is_empty() {
        return vec![STARTS.skipped("no pool is at work")];
    }
    let checks = statuses.iter().flat_map(|status| judge(status, now));
    checks.collect()
}

fn judge(status: &PoolStatus, now: Timestamp) -> Vec<Check> {
    if status.last_pass.is_none() {
        let check = STARTS.skipped("the pool's task has not looked yet");
        return vec![check.about(&status.spec.name)];
    }
    let mut checks = vec![starts(status, now), removals(status), ghosts(status)];
    checks.extend(unknown(status));
    checks.extend(kept(status, now));
    checks.extend(foreign(status));
    checks
        .into_iter()
        .map(|check| check.about(&status.spec.name))
        .collect()
}

fn starts(status: &PoolStatus, now: Timestamp) -> Check {
    let launches = &status.launches;
    let pool = &status.spec.name;
    let ago = launches.last_error_at.map(|at| now.duration_since(at));
    let has_vanished = launches.last_error.contains("vanished before its agent");
    let look = if has_vanished {
        "raise the kernel limits that this page complains of, then: "
    } else {
        ""
    };
    let retry = format!("{look}iapctl pools retry {pool}\niapctl pools show {pool}");
    if launches.open {
        let tries = count(launches.failures as usize, "failure");
        let finding = format!("{tries} in a row: {}", launches.last_error);
        return STARTS.error(finding, retry);
    }
    match ago {
        Some(ago) if ago < LATELY => STARTS.notice(
            format!(
                "one failed {} min ago: {}",
                ago.as_mins(),
                launches.last_error
            ),
            format!("iapctl pools show {pool}\njournalctl -u iapd -g {pool} --since -1day"),
        ),
        _ => STARTS.ok("none failed lately"),
    }
}

fn removals(status: &PoolStatus) -> Check {
    let stuck: Vec<&AgentStatus> = status
        .agents
        .iter()
        .filter(|agent| agent.state == AgentState::Stuck)
        .collect();
    let [first, ..] = stuck.as_slice() else {
        return REMOVALS.ok("none refused");
    };
    let finding = format!(
        "{} cannot be removed: {}: {}",
        count(stuck.len(), "agent"),
        names(&stuck),
        first.detail
    );
    let project = &status.spec.instance.project;
    let fix = format!(
        "incus info {} --project {project} --show-log\njournalctl -u incus -n 50",
        first.name
    );
    REMOVALS.warning(finding, fix)
}

fn ghosts(status: &PoolStatus) -> Check {
    let ghosts: Vec<&AgentStatus> = status
        .agents
        .iter()
        .filter(|agent| agent.state == AgentState::Deregistering)
        .filter(|agent| agent.instance_status.is_empty())
        .collect();
    if status.looks_cloned {
        return GHOSTS.warning(
            "an agent of this host is online in Azure that has no instance here: is there a clone \
             of this host?",
            "stop the clone, or give it an `owner` of its own in its configuration",
        );
    }
    let failing = ghosts.iter().find(|agent| !agent.detail.is_empty());
    if let Some(failing) = failing {
        let finding = format!(
            "{} cannot be deleted: {}: {}",
            count(ghosts.len(), "registration"),
            names(&ghosts),
            failing.detail
        );
        let fix =
            "it is tried again; by hand: delete it in Azure, Organization settings > Agent pools";
        return GHOSTS.warning(finding, fix);
    }
    match ghosts.len() {
        0 => GHOSTS.ok("none"),
        some => GHOSTS.ok(format!("{} on the way out", count(some, "registration"))),
    }
}

fn unknown(status: &PoolStatus) -> Option<Check> {
    let lost: Vec<&AgentStatus> = status
        .agents
        .iter()
        .filter(|agent| agent.state == AgentState::Unknown)
        .collect();
    let first = lost.first()?;
    let finding = format!("{}: {}", names(&lost), first.detail);
    let fix = format!("iapctl agents logs {0}\niapctl agents show {0}", first.name);
    Some(UNKNOWN.notice(finding, fix))
}

fn kept(status: &PoolStatus, now: Timestamp) -> Option<Check> {
    let since = |agent: &AgentStatus| agent.keep.as_ref()?.since;
    let kept: Vec<&AgentStatus> = status
        .agents
        .iter()
        .filter(|agent| agent.state == AgentState::Kept)
        .collect();
    let old: Vec<&AgentStatus> = kept
        .iter()
        .copied()
        .filter(|agent| since(agent).is_some_and(|since| now.duration_since(since) > KEPT_LONG))
        .collect();
    if kept.is_empty() {
        return None;
    }
    let [first, ..] = old.as_slice() else {
        return Some(KEPT.ok(format!("{}, each for less than a day", names(&kept))));
    };
    let until = first.keep.as_ref().map(|keep| keep.until);
    let until = until.map(|until| format!(", and stays until {until}"));
    let finding = format!(
        "kept for more than a day: {}{}",
        names(&old),
        until.filter(|_| old.len() == 1).unwrap_or_default()
    );
    let list: Vec<&str> = old.iter().map(|agent| agent.name.as_str()).collect();
    let fix = format!(
        "when nobody needs it any more: iapctl agents release {}",
        list.join(" ")
    );
    Some(KEPT.notice(finding, fix))
}

fn foreign(status: &PoolStatus) -> Option<Check> {
    if status.foreign.is_empty() {
        return None;
    }
    let project = &status.spec.instance.project;
    let finding = format!("left alone: {}", status.foreign.join(", "));
    let fix = format!("wait until they end, or: incus delete -f NAME --project {project}");
    Some(FOREIGN.notice(finding, fix))
}

fn names(agents: &[&AgentStatus]) -> String {
    let names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::{agent, status};
    use super::*;
    use crate::agent::Keep;

    fn now() -> Timestamp {
        "2026-11-25T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn failed_starts_are_red_while_they_last_and_worth_a_word_for_a_day() {
        let cases = [
            (false, None, Severity::Ok),
            (false, Some(5), Severity::Notice),
            (false, Some(25 * 60), Severity::Ok),
            (true, Some(1), Severity::Error),
        ];
        for (open, minutes_ago, expected) in cases {
            let mut status = status("linux");
            status.launches.open = open;
            status.launches.last_error =
                "the instance vanished before its agent was started".into();
            status.launches.last_error_at =
                minutes_ago.map(|minutes| now() - SignedDuration::from_mins(minutes));
            let check = starts(&status, now());
            assert_eq!(check.severity, expected, "{check:?}");
            let names_limits = check.fix.contains("kernel limits");
            assert_eq!(names_limits, expected == Severity::Error, "{}", check.fix);
        }
    }

    #[test]
    fn a_registration_without_an_instance_is_a_ghost_when_it_stays() {
        let mut leaving = agent("linux-h-a", AgentState::Deregistering);
        leaving.instance_status = String::new();
        let mut refused = leaving.clone();
        refused.detail = "Azure says the agent is busy".into();
        // As it is for some seconds after each job.
        let mut lingering = leaving.clone();
        lingering.online = Some(true);
        let mut stopped = leaving.clone();
        stopped.instance_status = "Stopped".into();
        let cases = [
            (leaving, Severity::Ok, "1 registration on the way out"),
            (stopped, Severity::Ok, "none"),
            (
                refused,
                Severity::Warning,
                "1 registration cannot be deleted",
            ),
            (lingering, Severity::Ok, "1 registration on the way out"),
        ];
        for (agent, severity, finding) in cases {
            let mut status = status("linux");
            status.agents = vec![agent];
            let check = ghosts(&status);
            assert_eq!(check.severity, severity, "{finding}");
            assert!(check.finding.starts_with(finding), "{}", check.finding);
        }
        let mut cloned = status("linux");
        cloned.looks_cloned = true;
        assert_eq!(ghosts(&cloned).severity, Severity::Warning);
    }

    #[test]
    fn a_kept_agent_is_worth_a_word_after_a_day() {
        let kept = |name: &str, hours: i64| {
            let mut agent = agent(name, AgentState::Kept);
            agent.keep = Some(Keep {
                until: now() + SignedDuration::from_hours(48),
                reason: "job-failed".into(),
                by: String::new(),
                since: Some(now() - SignedDuration::from_hours(hours)),
            });
            agent
        };
        let mut status = status("linux");
        assert!(super::kept(&status, now()).is_none());
        status.agents = vec![kept("linux-h-a", 23)];
        let check = super::kept(&status, now()).unwrap();
        assert_eq!(check.severity, Severity::Ok);
        status.agents.push(kept("linux-h-b", 25));
        let check = super::kept(&status, now()).unwrap();
        assert_eq!(check.severity, Severity::Notice);
        assert_eq!(
            check.finding,
            "kept for more than a day: linux-h-b, and stays until 2026-11-27T09:00:00Z"
        );
        assert!(check.fix.ends_with("iapctl agents release linux-h-b"));
    }

    #[test]
    fn what_is_stuck_lost_or_foreign_is_named() {
        let mut status = status("linux");
        status.agents = vec![
            agent("linux-h-a", AgentState::Stuck),
            agent("linux-h-b", AgentState::Unknown),
            agent("linux-h-c", AgentState::Busy),
        ];
        status.foreign = vec!["linux-0".into()];
        let checks = judge(&status, now());
        let bad: Vec<(&str, Severity)> = checks
            .iter()
            .filter(|check| check.severity != Severity::Ok)
            .map(|check| (check.id, check.severity))
            .collect();
        assert_eq!(
            bad,
            [
                ("agent-removals", Severity::Warning),
                ("lost-agents", Severity::Notice),
                ("earlier-tool", Severity::Notice),
            ]
        );
        assert!(checks.iter().all(|check| check.subject == "linux"));
    }
}
