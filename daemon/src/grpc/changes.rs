//! Watches: a full snapshot first, another after each change, an end when the daemon stops.
//! Nothing is queued for a slow client: it gets the newest snapshot when it is ready for one.

use futures_util::future::select_all;
use futures_util::stream;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::Status;

use crate::pool::PoolHandle;
use crate::supervisor::Pools;

use super::{Services, status};

struct Watcher<F, K> {
    services: Services,
    pools: watch::Receiver<Pools>,
    snapshot: F,
    last: Option<K>,
    ended: bool,
}

/// Sends what `snapshot` returns whenever the first part of it, which is compared, has changed.
pub(super) fn changes<F, K, T>(
    services: &Services,
    snapshot: F,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static
where
    F: Fn() -> (K, T) + Send + 'static,
    K: PartialEq + Send + 'static,
    T: Send + 'static,
{
    let start = Watcher {
        services: services.clone(),
        pools: services.pools.clone(),
        snapshot,
        last: None,
        ended: false,
    };
    stream::unfold(start, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let next = watch.next().await;
        watch.ended = next.is_err();
        Some((next, watch))
    })
}

impl<F, K, T> Watcher<F, K>
where
    F: Fn() -> (K, T),
    K: PartialEq,
{
    async fn next(&mut self) -> Result<T, Status> {
        loop {
            // Marked as seen before looking: what changes in between is a change.
            let statuses = self.pools.borrow_and_update().iter().map(seen).collect();
            let (key, message) = (self.snapshot)();
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key);
                return Ok(message);
            }
            tokio::select! {
                () = self.services.stop.cancelled() => return Err(status::stopping()),
                () = any_change(&mut self.pools, statuses) => {}
            }
        }
    }
}

fn seen(pool: &PoolHandle) -> StatusReceiver {
    let mut status = pool.watch();
    status.mark_unchanged();
    status
}

type StatusReceiver = watch::Receiver<std::sync::Arc<crate::pool::status::PoolStatus>>;

/// Resolves when the set of pools or one of their statuses changes.
async fn any_change(pools: &mut watch::Receiver<Pools>, mut statuses: Vec<StatusReceiver>) {
    let one = async {
        if statuses.is_empty() {
            return std::future::pending().await;
        }
        let changes = statuses.iter_mut().map(|status| Box::pin(status.changed()));
        let _ = select_all(changes).await;
    };
    tokio::select! {
        _ = pools.changed() => {}
        () = one => {}
    }
}
