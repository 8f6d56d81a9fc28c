//! `-w` of the lists.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time;
use tonic::{Response, Status, Streaming};

use super::Done;
use crate::args::ListOutputArgs;
use crate::error::CliError;
use crate::feed::{Feed, Outage};
use crate::output::Changes;
use crate::rows::Row;
use crate::wait::{Wait, Waited};

/// Shows a list and its changes until Ctrl-C; every message of the stream is the whole list.
pub(super) async fn watch_list<M, R: Row>(
    output: &ListOutputArgs,
    open: impl AsyncFnMut() -> Result<Response<Streaming<M>>, Status>,
    rows: impl Fn(M) -> Vec<R>,
) -> Result<Done, CliError> {
    let mut changes = Changes::new(output);
    let mut feed = Feed::new(open, changes.notes());
    let mut wait = Wait::new(None)?;
    while let Waited::For(message) = wait
        .on(feed.next_endless(), || changes.redraw(Timestamp::now()))
        .await
    {
        changes.update(rows(message?), Timestamp::now())?;
    }
    Ok(Done::Detached)
}

/// Shows a list and its changes until Ctrl-C; `list` is asked every `pace`.
pub(super) async fn poll_list<R: Row>(
    output: &ListOutputArgs,
    pace: Duration,
    mut list: impl AsyncFnMut() -> Result<Vec<R>, CliError>,
) -> Result<Done, CliError> {
    let mut changes = Changes::new(output);
    let mut outage = Outage::new(changes.notes());
    let mut wait = Wait::new(None)?;
    changes.update(list().await?, Timestamp::now())?;
    loop {
        let next = async {
            time::sleep(pace).await;
            loop {
                match list().await {
                    Ok(rows) => return Ok::<_, CliError>(rows),
                    Err(error) => outage.ride_out(error).await?,
                }
            }
        };
        let Waited::For(rows) = wait.on(next, || changes.redraw(Timestamp::now())).await else {
            return Ok(Done::Detached);
        };
        outage.is_over();
        changes.update(rows?, Timestamp::now())?;
    }
}
