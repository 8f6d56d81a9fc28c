//! Azure DevOps, per pool: whether it answers, takes the credential and has the pool; what the
//! pool is set to; and whether its clock is ours.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::azure::{AgentPool, AzureError};
use crate::pool::PoolHandle;
use crate::pool::spec::{CredentialSpec, DaemonSpec, PoolSpec};
use crate::pool::status::PoolStatus;

use super::check::{Check, Topic};
use super::{Deadline, Failure, count, handle};

const REACHABLE: Topic = Topic {
    id: "azure-reachable",
    title: "Azure",
    why: "without Azure no agent can be registered, and none is removed; those that run go on",
};
const CREDENTIAL: Topic = Topic {
    id: "azure-credential",
    title: "credential",
    why: "it registers and removes agents; without it the pool runs out of them",
};
const POOL: Topic = Topic {
    id: "azure-pool",
    title: "Azure pool",
    why: "agents are registered in it, and pipelines name it",
};
const UPDATES: Topic = Topic {
    id: "azure-auto-update",
    title: "agent updates",
    why: "a single-use agent that Azure tells to update itself ends without having run its job, \
          and so does its successor, until the image holds the version that Azure wants",
};
const BREAKER: Topic = Topic {
    id: "azure-breaker",
    title: "Azure breaker",
    why: "after failures Azure is asked more and more seldom, up to every five minutes",
};
const CLOCK: Topic = Topic {
    id: "clock",
    title: "clock",
    why: "agents prove themselves with a time that Azure accepts for five minutes; guests have the \
          host's clock",
};

/// Azure's tokens name a time span; the agent's own has five minutes to each side.
const WRONG: SignedDuration = SignedDuration::from_secs(240);
/// A clock that is kept by NTP is never that far off.
const ADRIFT: SignedDuration = SignedDuration::from_secs(30);

/// What asking for the pool came to.
enum Looked {
    Found(AgentPool),
    NoPool,
    Failed(Failure<AzureError>),
    /// The pool's task has not begun, so there is no client.
    NoClient,
}

/// Looks at Azure for each configured pool.
pub(super) async fn examine(
    spec: &DaemonSpec,
    handles: &[PoolHandle],
    deadline: Deadline,
) -> Vec<Check> {
    let looks = spec.pools.iter().map(async |pool| {
        let Some(handle) = handle(handles, pool) else {
            return (pool, Looked::NoClient, None, None);
        };
        let azure = handle.azure();
        let looked = match deadline.call(azure.find_pool(&pool.azure.pool)).await {
            Ok(Some(found)) => Looked::Found(found),
            Ok(None) => Looked::NoPool,
            Err(failure) => Looked::Failed(failure),
        };
        (pool, looked, Some(handle.status()), azure.clock_offset())
    });
    let mut checks = Vec::new();
    let mut clocks = BTreeMap::new();
    for (pool, looked, status, offset) in futures_util::future::join_all(looks).await {
        checks.extend(judge(pool, &looked, status.as_deref()));
        let clock = clocks.entry(pool.azure.url.as_str()).or_insert(offset);
        *clock = offset.or(*clock);
    }
    checks.extend(
        clocks
            .into_iter()
            .map(|(url, offset)| judge_clock(url, offset)),
    );
    checks
}

fn judge(pool: &PoolSpec, looked: &Looked, status: Option<&PoolStatus>) -> Vec<Check> {
    let url = &pool.azure.url;
    let rest = |reason: &str| [&CREDENTIAL, &POOL, &UPDATES].map(|topic| topic.skipped(reason));
    let mut checks = match looked {
        Looked::Found(found) => vec![
            REACHABLE.ok(format!("{url} answers")),
            accepted(status),
            POOL.ok(format!("\"{}\" has id {}", found.name, found.id)),
            judge_updates(found),
        ],
        Looked::NoPool => vec![
            REACHABLE.ok(format!("{url} answers")),
            accepted(status),
            missing(pool),
            UPDATES.skipped("there is no such pool"),
        ],
        Looked::NoClient => {
            let reason = "the pool's task has not begun: it waits for Incus";
            let mut checks = vec![REACHABLE.skipped(reason)];
            checks.extend(rest(reason));
            checks
        }
        Looked::Failed(failure) => failed(pool, failure),
    };
    checks.extend(status.and_then(|status| judge_breaker(looked, status)));
    checks
        .into_iter()
        .map(|check| check.about(&pool.name))
        .collect()
}

/// Reading is what was tried; whether it may also manage is seen by what became of the agents.
fn accepted(status: Option<&PoolStatus>) -> Check {
    let registered = status.map_or(0, |status| {
        let agents = status.agents.iter();
        agents
            .filter(|agent| agent.azure_agent_id.is_some())
            .count()
    });
    CREDENTIAL.ok(if registered > 0 {
        format!(
            "accepted, and {} registered with it",
            count(registered, "agent")
        )
    } else {
        "accepted for looking; whether it may register agents is not tried".to_owned()
    })
}

fn missing(pool: &PoolSpec) -> Check {
    POOL.error(
        format!(
            "no agent pool \"{}\" at {}, or the credential may not see it",
            pool.azure.pool, pool.azure.url
        ),
        "create it in Azure: Organization settings > Agent pools > Add pool, self-hosted\n\
         or set azure.pool to the name it has there, then: iapctl config reload\n\
         or make the credential's owner an administrator of the pool (its Security page)",
    )
}

fn failed(pool: &PoolSpec, failure: &Failure<AzureError>) -> Vec<Check> {
    let url = &pool.azure.url;
    let text = failure.text();
    let (first, reason) = match failure {
        Failure::Error(error) if error.is_rejected() => {
            let checks = vec![
                REACHABLE.ok(format!("{url} is where it should be")),
                CREDENTIAL.error(text, renew(pool)),
                POOL.skipped("the credential is rejected"),
                UPDATES.skipped("the credential is rejected"),
            ];
            return checks;
        }
        Failure::Error(AzureError::Paused { .. }) => {
            (REACHABLE.skipped(text), "Azure asked for a pause")
        }
        Failure::Error(_) | Failure::Late => {
            let fix = format!(
                "curl -sS -o /dev/null -w '%{{http_code}}\\n' {url}    # from this host\n\
                 behind a proxy: systemctl edit iapd, and there Environment=HTTPS_PROXY=...; \
                 with a private CA: azure.caFile"
            );
            (REACHABLE.error(text, fix), "Azure does not answer")
        }
    };
    let mut checks = vec![first];
    checks.extend([&CREDENTIAL, &POOL, &UPDATES].map(|topic| topic.skipped(reason)));
    checks
}

fn renew(pool: &PoolSpec) -> String {
    let place = match &pool.azure.credential {
        CredentialSpec::PatFile(path) => format!(
            "write it into {}; it is read again by itself",
            path.display()
        ),
        _ => "put it into the configuration, then: iapctl config reload".to_owned(),
    };
    format!(
        "make a new token in Azure: User settings > Personal access tokens, scope Agent Pools \
         (Read & manage)\n{place}"
    )
}

fn judge_updates(found: &AgentPool) -> Check {
    match found.auto_update {
        Some(true) => UPDATES.notice(
            "Azure may tell the pool's agents to update themselves",
            format!(
                "in Azure: Organization settings > Agent pools > {} > Settings, switch off \
                 \"Allow agents in this pool to automatically update\"\n\
                 and keep the image's agent recent: tasks can demand a version all the same",
                found.name
            ),
        ),
        Some(false) => UPDATES.ok("switched off for the pool"),
        None => UPDATES.skipped("Azure does not tell whether the pool's agents are updated"),
    }
}

/// What is wrong still is told by the look just made; then only the wait is worth a word.
fn judge_breaker(looked: &Looked, status: &PoolStatus) -> Option<Check> {
    let breaker = &status.azure.breaker;
    if !breaker.open {
        return None;
    }
    let failures = count(breaker.failures as usize, "failure");
    let retry = format!("iapctl pools retry {}", status.spec.name);
    Some(match looked {
        Looked::Found(_) => BREAKER.warning(
            format!(
                "{failures} in a row, though it answers now: {}",
                breaker.last_error
            ),
            retry,
        ),
        _ => BREAKER.notice(
            format!("{failures} in a row: it waits before it asks again"),
            format!("when Azure is mended: {retry}"),
        ),
    })
}

fn judge_clock(url: &str, offset: Option<SignedDuration>) -> Check {
    let Some(offset) = offset else {
        return CLOCK.skipped("Azure has not told its time").about(url);
    };
    let seconds = offset.as_secs();
    let finding = match seconds {
        0 | 1 => "the same as Azure's".to_owned(),
        _ if seconds > 0 => format!("{seconds} s ahead of Azure's"),
        _ => format!("{} s behind Azure's", -seconds),
    };
    let fix = "timedatectl set-ntp true\ntimedatectl timesync-status";
    let check = if offset.abs() >= WRONG {
        CLOCK.error(finding, fix)
    } else if offset.abs() >= ADRIFT {
        CLOCK.warning(finding, fix)
    } else {
        CLOCK.ok(finding)
    };
    check.about(url)
}

#[cfg(test)]
mod tests;
