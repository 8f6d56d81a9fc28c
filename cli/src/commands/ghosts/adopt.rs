//! `ghosts adopt`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{AdoptGhostsRequest, AdoptGhostsResponse, AdoptionState};
use jiff::Timestamp;
use tonic::Streaming;

use crate::args::{DurationArg, ListOutputArgs};
use crate::commands::confirm::confirm_by_typing;
use crate::commands::{Context, Done, missing, open};
use crate::error::{CliError, daemon_is_gone};
use crate::progress::{Notes, Silence, say, say_waiting};
use crate::rows::ghost::{Adoption, Ghost};
use crate::rows::plain;
use crate::wait::{Wait, Waited};
use crate::{complete, output};

/// Where to see how far it got.
const LOOK: &str = "iapctl ghosts ls";

/// Remove the registrations that a host left in Azure which is gone for good
///
/// Shows what would go and has the owner typed on a terminal; elsewhere it needs --yes. Refused
/// while an agent of that owner is online or has a job: its host lives. Each registration has to
/// have been seen offline and unassigned by this daemon for its pool's offlineGracePeriod, without a
/// gap, and is looked at again before it goes. What was shown is what goes, or less; it ends when
/// an agent of that owner comes online. Waits until all are gone; Ctrl-C stops only the waiting. A
/// restart of iapd ends it: then type it again.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl ghosts adopt --owner 3f9c41d2a8b7 --dry-run
  iapctl ghosts adopt --owner build-2
  iapctl ghosts adopt --owner build-2 --pool linux --yes -o json")]
pub(crate) struct AdoptArgs {
    /// Whose registrations: see iapctl ghosts ls
    #[arg(long, value_name = "OWNER", add = ArgValueCompleter::new(complete::owners))]
    owner: String,
    /// Only in the Azure pool that this pool uses
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Stop waiting after this long; the removal goes on
    #[arg(long, value_name = "DURATION")]
    timeout: Option<DurationArg>,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: AdoptArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    let mut request = AdoptGhostsRequest {
        owner: args.owner.clone(),
        pool: args.pool.clone().unwrap_or_default(),
        only: Vec::new(),
        dry_run: true,
    };
    let mut plan = open(client.adopt_ghosts(request.clone())).await?;
    let plan = plan.message().await?.ok_or_else(missing)?;
    let shown = plan.ghosts.into_iter().filter_map(|told| told.ghost);
    let shown: Vec<Ghost> = shown.map(Ghost::from).collect();
    if args.dry_run {
        args.output.list(&shown)?;
        let count = shown.len();
        let s = if count == 1 { "" } else { "s" };
        Notes::stderr().say(&format!(
            "a dry run: nothing was done; {count} registration{s} would go"
        ));
        return Ok(Done::Yes);
    }
    if !args.yes {
        let table = args.output.table(&shown, Timestamp::now(), false);
        say(table.trim_end());
        confirm_by_typing(&args.owner, "to say that its host is gone for good")?;
    }
    request.only = shown.iter().map(Ghost::key).collect();
    request.dry_run = false;
    let stream = open(client.adopt_ghosts(request)).await?;
    follow(&args, &shown, stream).await
}

/// Tells how far it gets until it is over.
async fn follow(
    args: &AdoptArgs,
    shown: &[Ghost],
    mut stream: Streaming<AdoptGhostsResponse>,
) -> Result<Done, CliError> {
    let mut wait = Wait::new(args.timeout.map(|timeout| timeout.0))?;
    let mut silence = Silence::default();
    let mut last: Option<Adoption> = None;
    loop {
        let told = |last: &Option<Adoption>| {
            let none = "waiting for iapd to begin".to_owned();
            last.as_ref().map_or(none, progress)
        };
        let message = wait
            .on(stream.message(), || {
                if silence.is_too_long(Timestamp::now()) {
                    say_waiting(&told(&last));
                }
            })
            .await;
        let answer = match message {
            Waited::For(Ok(Some(answer))) => answer,
            Waited::For(Ok(None)) => return Err(missing()),
            Waited::For(Err(status)) if daemon_is_gone(&status) => {
                return Err(lost(args, last.as_ref()));
            }
            Waited::For(Err(status)) => return Err(status.into()),
            Waited::Interrupted => {
                Notes::stderr().say(&format!("the removal goes on: {LOOK}"));
                return Ok(Done::Detached);
            }
            Waited::TimedOut => {
                return Err(CliError::TimedOut {
                    what: told(&last),
                    hint: format!("the removal goes on: {LOOK}"),
                });
            }
        };
        let state = answer.state();
        let adoption = Adoption::of(&args.owner, shown, &answer);
        match state {
            AdoptionState::Done => {
                write(args, &adoption)?;
                return Ok(Done::Yes);
            }
            AdoptionState::UnderWay => {
                let is_news = last
                    .as_ref()
                    .is_none_or(|last| last.removed != adoption.removed);
                if is_news {
                    say_waiting(&progress(&adoption));
                    silence.broken(Timestamp::now());
                }
                last = Some(adoption);
            }
            _ => {
                write(args, &adoption)?;
                let why = adoption.message.as_deref().map(plain);
                return Err(CliError::Failed {
                    what: why.unwrap_or_else(|| "it ended early".to_owned()),
                    hints: vec![not_removed(&adoption), format!("look: {LOOK}")],
                });
            }
        }
    }
}

fn write(args: &AdoptArgs, adoption: &Adoption) -> Result<(), CliError> {
    let answer = &args.output.answer;
    if answer.is_names() {
        let removed = adoption.ghosts.iter().filter(|ghost| ghost.is_removed());
        return output::names(removed.map(|ghost| plain(&ghost.name)));
    }
    answer.answer("", &format!("{}\n", adoption.counted()), adoption)
}

/// Says what is waited for: `removed: 3/5; linux-h2-x1x1x: Azure says it is busy`.
fn progress(adoption: &Adoption) -> String {
    let reason = adoption.left().find_map(|ghost| {
        let detail = ghost.detail.as_deref()?;
        Some(format!("; {}: {}", plain(&ghost.name), plain(detail)))
    });
    format!("{}{}", adoption.counted(), reason.unwrap_or_default())
}

fn not_removed(adoption: &Adoption) -> String {
    let left: Vec<String> = adoption.left().map(|ghost| plain(&ghost.name)).collect();
    format!("not removed: {}", left.join(", "))
}

/// The daemon went away in the middle.
fn lost(args: &AdoptArgs, last: Option<&Adoption>) -> CliError {
    let far = last.map_or_else(|| "nothing was heard".to_owned(), Adoption::counted);
    let mut hints: Vec<String> = last.map(not_removed).into_iter().collect();
    hints.push(format!(
        "a restart of iapd ends it: look with {LOOK}, then type it again"
    ));
    CliError::Failed {
        what: format!(
            "the daemon went away while registrations of owner {} were removed; {far} by then",
            args.owner
        ),
        hints,
    }
}
