//! What systemd is told: ready once the socket serves, then one line of status.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::AgentState;
use crate::supervisor::Pools;

use super::health::IncusHealth;

/// `systemctl status` is read by people.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells systemd until `stop`. Outside of systemd it tells nobody.
pub(super) async fn tell(
    pools: watch::Receiver<Pools>,
    incus: watch::Receiver<Arc<IncusHealth>>,
    stop: CancellationToken,
) {
    // The listener is bound and accepts: a client that connects now waits for its answer only.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut last = String::new();
    loop {
        let line = summary(&pools.borrow(), &incus.borrow());
        if line != last {
            let _ = sd_notify::notify(&[NotifyState::Status(&line)]);
            last = line;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn summary(pools: &Pools, incus: &IncusHealth) -> String {
    if let Some(problem) = incus.problem() {
        return problem;
    }
    let statuses: Vec<_> = pools.iter().map(crate::pool::PoolHandle::status).collect();
    let count = |state| {
        let agents = statuses.iter().flat_map(|status| &status.agents);
        agents.filter(|agent| agent.state == state).count()
    };
    let degraded = statuses
        .iter()
        .filter(|status| !status.problems.is_empty())
        .count();
    let (busy, idle) = (count(AgentState::Busy), count(AgentState::Idle));
    let attention = match degraded {
        0 => String::new(),
        _ => format!(", {degraded} pools need attention: iapctl status"),
    };
    format!(
        "{} pools, {busy} agents busy, {idle} idle{attention}",
        statuses.len()
    )
}
