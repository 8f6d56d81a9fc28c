//! `events`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::StreamEventsRequest;

use crate::args::{DurationArg, Format, ListOutputArgs, OutputArgs};
use crate::commands::{Context, Done};
use crate::error::CliError;
use crate::feed::Feed;
use crate::progress::Notes;
use crate::rows::fleet::OnHost;
use crate::rows::history::Event;
use crate::rows::time::ago;
use crate::{complete, fleet, output};

/// List what happened to pools and agents, the oldest first
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl events --since 1h
  iapctl events --follow --type agent-ended --type launches-failing")]
pub(crate) struct EventsArgs {
    /// Go on as things happen
    #[arg(short, long)]
    follow: bool,
    /// Only this type, such as agent-ended or launches-failing; repeatable
    #[arg(
        long = "type",
        value_name = "TYPE",
        add = ArgValueCompleter::new(complete::event_types)
    )]
    types: Vec<String>,
    /// Only this pool's
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Only this long ago or less, such as 30m or 24h; without it the newest 100
    #[arg(long, value_name = "DURATION")]
    since: Option<DurationArg>,
    #[command(flatten)]
    output: ListOutputArgs,
}

/// Without a time to begin at, so many are enough.
const NEWEST: u32 = 100;
/// With one, nobody reads more.
const MOST: u32 = 10_000;

pub(super) async fn run(context: &Context, args: EventsArgs) -> Result<Done, CliError> {
    if args.follow && args.output.answer.format == Format::Yaml {
        return Err(CliError::usage(
            "events that are followed have no YAML form",
            "use -o json: an object a line",
        ));
    }
    let request = StreamEventsRequest {
        since: args.since.map(|since| ago(since.0)),
        after_id: 0,
        limit: if args.since.is_some() { MOST } else { NEWEST },
        follow: args.follow,
        pool: args.pool.unwrap_or_default(),
        types: args.types,
    };
    if args.follow {
        let follow =
            async |context: &Context| follow(context, &args.output.answer, request.clone()).await;
        return fleet::each(context, follow).await;
    }
    let oldest_first = |rows: &mut Vec<OnHost<Event>>| rows.sort_by_key(|row| row.what.at());
    let ask = async |context: &Context| {
        let mut client = context.history().await?;
        all(super::call(client.stream_events(request.clone())).await?).await
    };
    fleet::list_sorted(context, &args.output, oldest_first, ask).await
}

/// Writes events as they happen.
async fn follow(
    context: &Context,
    output: &OutputArgs,
    mut request: StreamEventsRequest,
) -> Result<Done, CliError> {
    let mut client = context.history().await?;
    let last = std::cell::Cell::new(0);
    let open = async || {
        // After the daemon was away: what happened since the last one.
        request.after_id = last.get();
        client.stream_events(request.clone()).await
    };
    let mut feed = Feed::new(open, Notes::stderr());
    while let Some(message) = feed.next().await? {
        let Some(event) = message.event else { continue };
        last.set(event.id);
        let event = Event::from(event);
        match output.format {
            Format::Table | Format::Wide => output::line(&event.line())?,
            Format::Name => output::names([event.subject()])?,
            Format::Json | Format::Yaml => {
                let line = event.json_line()?;
                output::data(|out| writeln!(out, "{line}"))?;
            }
        }
    }
    Ok(Done::Yes)
}

async fn all(
    mut stream: tonic::Streaming<iap_common::v1::StreamEventsResponse>,
) -> Result<Vec<Event>, CliError> {
    let mut rows = Vec::new();
    while let Some(message) = stream.message().await? {
        rows.extend(message.event.map(Event::from));
    }
    Ok(rows)
}
