//! What the pools' tasks know already: agents that did not start, that cannot be removed, and
//! registrations without a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::agent::AgentState;
use crate::pool::ghosts::Ghost;
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
const OTHERS: Topic = Topic {
    id: "other-ghosts",
    title: "other hosts' ghosts",
    why: "what a host that is gone left in Azure stays there, and hides what is missing",
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
/// A host that was not seen for this long may be gone for good. Updates and repairs are over by then.
const LONG_GONE: Duration = Duration::from_secs(24 * 60 * 60);
/// A failure longer ago says nothing of today.
const LATELY: SignedDuration = SignedDuration::from_hours(24);

/// Judges all pools, those that left the configuration too.
pub(super) fn judge_all(statuses: &[Arc<PoolStatus>], now: Timestamp) -> Vec<Check> {
    if statuses.is_empty() {
        return vec![STARTS.skipped("no pool is at work")];
    }
    let mut checks: Vec<Check> = statuses.iter().flat_map(|s| judge(s, now)).collect();
    let mut told = BTreeSet::new();
    for status in statuses {
        // Pools that share an Azure pool see the same.
        let azure = &status.spec.azure;
        if told.insert((&azure.url, &azure.pool)) {
            checks.extend(others(status, statuses).map(|check| check.about(&status.spec.name)));
        }
    }
    checks
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

/// Names the owners of which nothing has been alive for long.
fn others(status: &PoolStatus, all: &[Arc<PoolStatus>]) -> Option<Check> {
    let seen = &status.ghosts;
    let agents = all.iter().flat_map(|status| &status.agents);
    let agents: BTreeSet<&str> = agents.map(|agent| agent.name.as_str()).collect();
    // Whoever has an agent that a pool here knows is this host.
    let ours = seen
        .all
        .iter()
        .filter(|ghost| agents.contains(&*ghost.name));
    let ours: BTreeSet<&str> = ours.map(Ghost::owner).collect();
    let mut counts = BTreeMap::<&str, usize>::new();
    for ghost in seen.all.iter() {
        let owner = ghost.owner();
        let is_long = ghost.left(seen.listed, LONG_GONE).is_zero();
        if is_long && !ours.contains(owner) && seen.living(owner).is_none() {
            *counts.entry(owner).or_default() += 1;
        }
    }
    let (first, _) = counts.first_key_value()?;
    let list = counts.iter().map(|(owner, number)| {
        format!(
            "{} of owner {}",
            count(*number, "registration"),
            owner.escape_default()
        )
    });
    let finding = format!(
        "offline for more than a day: {}",
        list.collect::<Vec<_>>().join(", ")
    );
    // What somebody else wrote is not to be pasted into a shell.
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let owner = if first.chars().all(is_word) {
        first
    } else {
        "OWNER"
    };
    let fix = format!(
        "iapctl ghosts ls\nif that host is gone for good: iapctl ghosts adopt --owner {owner}"
    );
    Some(OTHERS.notice(finding, fix))
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
    use crate::agent::{Keep, RegistrationFacts};

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
    fn owners_that_were_not_seen_for_a_day_are_named() {
        let facts = |id, owner: &str, online| RegistrationFacts {
            id,
            enabled: true,
            online,
            job: None,
            owner: Some(owner.to_owned()),
            pool: None,
            project: None,
        };
        let list = || {
            [
                ("a", facts(1, "gone", false)),
                ("b", facts(2, "lives", false)),
                ("c", facts(3, "lives", true)),
                ("d", facts(4, "$(x)", false)),
            ]
            .map(|(name, facts)| (name.to_owned(), facts))
        };
        let start = tokio::time::Instant::now();
        let mut status = status("linux");
        status.ghosts.take_in(list(), start, start);
        assert!(others(&status, &[]).is_none());
        let later = start + LONG_GONE;
        status.ghosts.take_in(list(), later, later);
        let check = others(&status, &[]).unwrap();
        assert_eq!(check.severity, Severity::Notice);
        assert_eq!(
            check.finding,
            "offline for more than a day: 1 registration of owner $(x), 1 registration of owner \
             gone"
        );
        assert!(check.fix.ends_with("adopt --owner OWNER"), "{}", check.fix);
        let mut own = status.clone();
        own.agents = vec![agent("a", AgentState::Deregistering)];
        let check = others(&status, &[Arc::new(own)]).unwrap();
        assert!(!check.finding.contains("owner gone"), "{}", check.finding);
        let twins = [Arc::new(status.clone()), Arc::new(status)];
        let checks = judge_all(&twins, now());
        let told = checks.iter().filter(|check| check.id == OTHERS.id).count();
        assert_eq!(told, 1, "two pools of ours in one Azure pool");
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
