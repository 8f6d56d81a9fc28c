//! What systemd is told: ready once the socket serves, then one line of status.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::AgentState;
use crate::reload::{ConfigState, Reloader};
use crate::supervisor::Pools;

use super::health::IncusHealth;

/// `systemctl status` is read by people.
const INTERVAL: Duration = Duration::from_secs(5);

/// What the line of status is made from.
pub(super) struct Told {
    pub(super) pools: watch::Receiver<Pools>,
    pub(super) incus: watch::Receiver<Arc<IncusHealth>>,
    pub(super) reloader: Arc<Reloader>,
}

/// Tells systemd until `stop`. Outside of systemd it tells nobody.
pub(super) async fn tell(told: &Told, stop: CancellationToken) {
    // The listener is bound and accepts: a client that connects now waits for its answer only.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut last = String::new();
    loop {
        let summary = summary(&told.pools.borrow(), &told.incus.borrow());
        let line = status(&summary, &told.reloader.state());
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

/// Tells systemd that the configuration is read again, and since when.
pub(super) fn tell_reloading() {
    let mut state = vec![NotifyState::Reloading];
    state.extend(NotifyState::monotonic_usec_now());
    let _ = sd_notify::notify(&state);
}

/// Returns one line, whatever its parts hold: another would be another assignment.
fn status(summary: &str, config: &ConfigState) -> String {
    let refused = match (config.problems.first(), config.refused_at) {
        (Some(problem), Some(at)) => {
            format!("; the reload at {at:.0} failed, the old configuration runs on: {problem}")
        }
        _ => String::new(),
    };
    format!("{summary}{refused}").replace(char::is_control, " ")
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use jiff::Timestamp;

    use crate::config::Problem;

    use super::*;

    #[test]
    fn the_status_says_in_one_line_when_and_why_a_reload_failed() {
        let mut config = ConfigState {
            loaded_at: Timestamp::UNIX_EPOCH,
            refused_at: None,
            problems: Vec::new(),
            warnings: Vec::new(),
            effective_yaml: String::new(),
        };
        assert_eq!(
            status("1 pools, 2 agents busy", &config),
            "1 pools, 2 agents busy"
        );
        config.refused_at = Some(Timestamp::UNIX_EPOCH);
        config.problems = vec![Problem {
            file: PathBuf::from("config.yaml"),
            line: 3,
            column: 5,
            key: "metricPort".to_owned(),
            message: "unknown\nMAINPID=1".to_owned(),
        }];
        assert_eq!(
            status("1 pools, 2 agents busy", &config),
            "1 pools, 2 agents busy; the reload at 1970-01-01T00:00:00Z failed, the old \
             configuration runs on: config.yaml:3:5: metricPort: unknown MAINPID=1"
        );
    }
}
