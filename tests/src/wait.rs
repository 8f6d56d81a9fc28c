//! Waiting for values, with bounds. A test never sleeps and hopes.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` returns something, at most for `limit`. `what` says what is waited for.
pub async fn until<T, F>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        let last = match look().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if began.elapsed() > limit {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks for a while and fails as soon as `look` returns something that must not be.
pub async fn never<T: Debug, F>(
    what: &str,
    time: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    while began.elapsed() < time {
        if let Some(value) = look().await? {
            bail!("{what}: {value:?}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}
