//! What a reload changes, for people.

use std::fmt::Display;

use crate::pool::spec::{DaemonSpec, PoolSpec};

use super::describe::{count, kept};
use super::duration::format as duration;

/// Returns a line for each thing that differs; none when nothing does.
pub fn diff(old: &DaemonSpec, new: &DaemonSpec) -> Vec<String> {
    let mut lines = Vec::new();
    for pool in &old.pools {
        match new
            .pools
            .iter()
            .find(|candidate| candidate.name == pool.name)
        {
            Some(new) => diff_pool(pool, new, &mut lines),
            None => lines.push(format!("pool {}: removed; it is drained", pool.name)),
        }
    }
    for pool in &new.pools {
        if !old
            .pools
            .iter()
            .any(|candidate| candidate.name == pool.name)
        {
            let agents = count(pool.agent_count, "agent");
            lines.push(format!("pool {}: added, with {agents}", pool.name));
        }
    }
    if old.listener_retry != new.listener_retry {
        lines.push("listener: other waits between reconnects".to_owned());
    }
    if old.shutdown_wait != new.shutdown_wait {
        let told = |wait: Option<_>| wait.map_or_else(|| "no".to_owned(), duration);
        let (from, to) = (told(old.shutdown_wait), told(new.shutdown_wait));
        lines.push(format!("shutdown: wait for jobs {from} → {to}"));
    }
    for (name, changed) in [
        ("incus", old.incus != new.incus),
        ("metricsAddress and metricsPort", old.metrics != new.metrics),
        ("socket", old.socket != new.socket),
        ("owner", old.owner != new.owner),
        ("stateDir", old.state_dir != new.state_dir),
        ("history", old.retention != new.retention),
    ] {
        if changed {
            lines.push(format!(
                "{name}: changed; takes effect when the daemon is restarted"
            ));
        }
    }
    lines
}

fn diff_pool(old: &PoolSpec, new: &PoolSpec, lines: &mut Vec<String>) {
    let mut change = |what: &str, from: &dyn Display, to: &dyn Display| {
        let (from, to) = (from.to_string(), to.to_string());
        if from != to {
            lines.push(format!("pool {}: {what} {from} → {to}", new.name));
        }
    };
    change("agents", &old.agent_count, &new.agent_count);
    change("spares", &old.spares, &new.spares);
    change("agent prefix", &old.agent_prefix, &new.agent_prefix);
    for (what, from, to) in [
        ("offline grace", old.offline_grace, new.offline_grace),
        ("startup grace", old.startup_grace, new.startup_grace),
        (
            "reconcile interval",
            old.reconcile_interval,
            new.reconcile_interval,
        ),
        ("reaper interval", old.reaper_interval, new.reaper_interval),
        ("member grace", old.member_grace, new.member_grace),
        (
            "poll interval",
            old.azure.poll_interval,
            new.azure.poll_interval,
        ),
    ] {
        change(what, &duration(from), &duration(to));
    }
    let keeps = |pool: &PoolSpec| pool.keep.as_ref().map_or_else(|| "none".to_owned(), kept);
    change("kept for debugging:", &keeps(old), &keeps(new));
    let (from, to) = (old.spec_hash(), new.spec_hash());
    if from != to {
        lines.push(format!(
            "pool {}: what agents are made of changed; idle agents are replaced, busy ones finish",
            new.name
        ));
    }
    if old.azure.credential != new.azure.credential || old.azure.ca_file != new.azure.ca_file {
        lines.push(format!(
            "pool {}: the credential or its CA file changed",
            new.name
        ));
    }
}
