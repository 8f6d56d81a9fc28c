//! `-w` of the lists, of one host or of several.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::{Context, Done};
use crate::args::ListOutputArgs;
use crate::error::{self, CliError};
use crate::feed::{Feed, Outage};
use crate::fleet::{self, exit_code};
use crate::hosts::Host;
use crate::output::Changes;
use crate::progress::Notes;
use crate::rows::Row;
use crate::rows::fleet::OnHost;
use crate::wait::{Wait, Waited};

/// How long a host of several is left alone that failed while it was watched.
const NEXT_TRY: Duration = Duration::from_secs(10);

/// Takes a list as it is now.
type Tell<'a, R> = &'a dyn Fn(Vec<R>) -> Result<(), CliError>;

/// Shows a list and its changes until Ctrl-C; every message of the stream is the whole list.
pub(super) async fn watch_list<M, R: Row + Clone>(
    context: &Context,
    output: &ListOutputArgs,
    open: impl AsyncFn(Channel) -> Result<Response<Streaming<M>>, Status>,
    rows: impl Fn(M) -> Vec<R>,
) -> Result<Done, CliError> {
    let follow = async |context: &Context, notes: Notes, tell: Tell<'_, R>| {
        let channel = context.connect().await?;
        let mut feed = Feed::new(async || open(channel.clone()).await, notes);
        loop {
            tell(rows(feed.next_endless().await?))?;
        }
    };
    Box::pin(watch(context, output, follow)).await
}

/// Shows a list and its changes until Ctrl-C; `list` is asked every `pace`.
pub(super) async fn poll_list<R: Row + Clone>(
    context: &Context,
    output: &ListOutputArgs,
    pace: Duration,
    list: impl AsyncFn(&Context) -> Result<Vec<R>, CliError>,
) -> Result<Done, CliError> {
    let follow = async |context: &Context, notes: Notes, tell: Tell<'_, R>| {
        tell(list(context).await?)?;
        let mut outage = Outage::new(notes);
        loop {
            time::sleep(pace).await;
            match list(context).await {
                Ok(rows) => {
                    outage.is_over();
                    tell(rows)?;
                }
                Err(error) => outage.ride_out(error).await?,
            }
        }
    };
    Box::pin(watch(context, output, follow)).await
}

/// Shows what `follow` tells until Ctrl-C; it ends only when it fails.
async fn watch<R: Row + Clone>(
    context: &Context,
    output: &ListOutputArgs,
    follow: impl AsyncFn(&Context, Notes, Tell<'_, R>) -> Result<(), CliError>,
) -> Result<Done, CliError> {
    if context.is_named() {
        return watch_several(context, output, follow).await;
    }
    let changes = RefCell::new(Changes::new(output));
    let notes = changes.borrow().notes();
    let tell = |rows| changes.borrow_mut().update(rows, Timestamp::now());
    let redraw = || changes.borrow_mut().redraw(Timestamp::now());
    let mut wait = Wait::new(None)?;
    match wait.on(follow(context, notes, &tell), redraw).await {
        Waited::For(ended) => ended.map(|()| Done::Detached),
        Waited::Interrupted | Waited::TimedOut => Ok(Done::Detached),
    }
}

async fn watch_several<R: Row + Clone>(
    context: &Context,
    output: &ListOutputArgs,
    follow: impl AsyncFn(&Context, Notes, Tell<'_, R>) -> Result<(), CliError>,
) -> Result<Done, CliError> {
    let hosts = context.each();
    let changes = RefCell::new(Changes::new(output));
    // The last list of each host; none before the first.
    let lists = RefCell::new(vec![None; hosts.len()]);
    let tell = |index: usize, host: &Host, rows: Vec<R>| {
        let rows = rows.into_iter().map(|row| OnHost::new(&host.name, row));
        if let Some(list) = lists.borrow_mut().get_mut(index) {
            *list = Some(rows.collect::<Vec<_>>());
        }
        let all: Vec<_> = lists.borrow().iter().flatten().flatten().cloned().collect();
        changes.borrow_mut().update(all, Timestamp::now())
    };
    let (tell, follow, changes_of, lists_of) = (&tell, &follow, &changes, &lists);
    let following = hosts.iter().enumerate().map(|(index, (host, context))| {
        let following = fleet::of_one(host, async move {
            loop {
                let tell_rows = |rows| tell(index, host, rows);
                let notes = changes_of.borrow().notes();
                let error = match follow(context, notes, &tell_rows).await {
                    Ok(()) => return Ok(()),
                    Err(error @ CliError::Output(_)) => return Err(error),
                    Err(error) => error,
                };
                let was_there = lists_of.borrow().get(index).is_some_and(Option::is_some);
                if !was_there {
                    // A name with a mistake, or a host that is down: that is for who typed it.
                    error::report_of(&host.name, &error);
                    return Err(error);
                }
                let notes = changes_of.borrow().notes();
                notes.say(&format!(
                    "{}; trying again",
                    iap_common::error::chain(&error)
                ));
                tell(index, host, Vec::new())?;
                time::sleep(NEXT_TRY).await;
            }
        });
        Box::pin(following)
    });
    let mut following: FuturesUnordered<_> = following.collect();
    let all = async {
        let mut codes = Vec::new();
        while let Some(ended) = following.next().await {
            match ended {
                Ok(()) => {}
                Err(error @ CliError::Output(_)) => return Err(error),
                Err(error) => codes.push(error.code()),
            }
        }
        Ok(exit_code(codes, true).map_or(Done::Yes, Done::Failed))
    };
    let mut wait = Wait::new(None)?;
    let redraw = || changes.borrow_mut().redraw(Timestamp::now());
    match wait.on(all, redraw).await {
        Waited::For(ended) => ended,
        Waited::Interrupted | Waited::TimedOut => Ok(Done::Detached),
    }
}
