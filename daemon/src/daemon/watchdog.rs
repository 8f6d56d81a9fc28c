//! systemd's watchdog: fed while the loops that do the work turn. A daemon that only looks alive
//! is restarted; its agents live on meanwhile, and it finds them again.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::beat::Pulse;
use crate::supervisor::Pools;

/// What would not be told apart from a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// Feeds the watchdog until `stop`. Without one it only waits for that.
pub(super) async fn feed(
    supervisor: Pulse,
    pools: watch::Receiver<Pools>,
    stop: CancellationToken,
) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        stop.cancelled().await;
        return;
    };
    let mut ticks = interval((patience / 2).max(SHORTEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let stuck = stuck(loops(&supervisor, &pools.borrow()), Instant::now());
        if stuck.is_empty() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        tell(&stuck, &told);
        told = stuck;
    }
}

fn loops(supervisor: &Pulse, pools: &Pools) -> Vec<(String, Pulse)> {
    let pools = pools
        .iter()
        .map(|pool| (format!("pool {}", pool.key().name), pool.pulse()));
    std::iter::once(("supervisor of the pools".to_owned(), supervisor.clone()))
        .chain(pools)
        .collect()
}

/// Says once what is stuck, and when nothing is any more.
fn tell(stuck: &[String], told: &[String]) {
    for name in stuck.iter().filter(|name| !told.contains(name)) {
        error!(
            what = %name,
            "stuck: its loop has not come round; the watchdog gets no sign of life, \
             systemd will restart the daemon"
        );
    }
    if stuck.is_empty() && !told.is_empty() {
        info!("nothing is stuck any more");
    }
}

/// Returns which loops do not turn.
fn stuck(loops: impl IntoIterator<Item = (String, Pulse)>, now: Instant) -> Vec<String> {
    loops
        .into_iter()
        .filter(|(_, pulse)| pulse.stuck_for(now).is_some())
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use crate::beat::Beat;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn only_a_loop_that_does_not_keep_its_word_is_stuck() {
        let (supervisor, pool) = (Beat::default(), Beat::default());
        let loops = || [("supervisor", &supervisor), ("pool", &pool)];
        let look = || {
            let pulses = loops().map(|(name, beat)| (name.to_owned(), beat.pulse()));
            stuck(pulses, Instant::now())
        };
        assert!(look().is_empty(), "a loop that has not begun is not stuck");
        advance(10 * MINUTE).await;
        assert!(look().is_empty());

        supervisor.again_within(MINUTE);
        pool.again_within(3 * MINUTE);
        advance(MINUTE).await;
        assert!(look().is_empty());
        advance(MINUTE).await;
        assert_eq!(look(), ["supervisor"]);
        supervisor.again_within(MINUTE / 2);
        assert!(look().is_empty(), "it came round after all");
        advance(2 * MINUTE).await;
        assert_eq!(look(), ["supervisor", "pool"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_has_ended_is_not_stuck() {
        let pool = Beat::default();
        pool.again_within(MINUTE);
        let pulse = pool.pulse();
        drop(pool);
        advance(2 * MINUTE).await;
        assert_eq!(pulse.stuck_for(Instant::now()), None);
    }
}
