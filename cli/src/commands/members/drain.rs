//! `members drain`.

use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{DrainMemberRequest, ListMembersRequest, Member};
use tokio::time::sleep;

use crate::args::DurationArg;
use crate::commands::{Context, Done, call, missing};
use crate::error::CliError;
use crate::progress::Notes;
use crate::wait::{Wait, Waited};
use crate::{complete, output};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A wait is never silent.
const TELL: Duration = Duration::from_secs(10);

/// Let the agents of a member finish and go, and place no new ones on it
///
/// Others take their place on the other members. Idle agents leave at once, busy ones with the end
/// of their job; nothing is killed. Waits until none is left; Ctrl-C stops only the waiting. Then
/// incus cluster evacuate finds nothing of iapd's to stop. Holds until iapctl members resume, over
/// restarts of the daemon.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl members drain h2 -m 'new disks'
  iapctl members drain h2 --detach")]
pub(crate) struct DrainArgs {
    /// Name of the member
    #[arg(value_name = "MEMBER", add = ArgValueCompleter::new(complete::members))]
    name: String,
    /// Why, for whoever looks
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do not wait
    #[arg(long, conflicts_with = "timeout")]
    detach: bool,
    /// Stop waiting after this long; the drain goes on
    #[arg(long, value_name = "DURATION")]
    timeout: Option<DurationArg>,
}

pub(super) async fn run(context: &Context, args: DrainArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let name = args.name;
    let request = DrainMemberRequest {
        name: name.clone(),
        reason: args.reason,
    };
    let answer = call(client.drain_member(request)).await?;
    let mut member = answer.member.ok_or_else(missing)?;
    if args.detach {
        output::line(&format!("{name}: no new agents; {}", left(&member)))?;
        return Ok(Done::Yes);
    }
    let notes = Notes::stderr();
    let mut wait = Wait::new(args.timeout.map(|timeout| timeout.0))?;
    let mut told: Option<Instant> = None;
    while member.agents > 0 {
        if told.is_none_or(|at| at.elapsed() >= TELL) {
            notes.say(&format!("{name}: waiting, {}", left(&member)));
            told = Some(Instant::now());
        }
        let look = async {
            sleep(LOOK).await;
            call(client.list_members(ListMembersRequest {})).await
        };
        let members = match wait.on(look, || {}).await {
            Waited::For(answer) => answer?.members,
            Waited::Interrupted => {
                notes.say(&format!(
                    "the drain goes on: iapctl members ls; undo: iapctl members resume {name}"
                ));
                return Ok(Done::Detached);
            }
            Waited::TimedOut => {
                return Err(CliError::TimedOut {
                    what: format!("{name} is not empty yet: {}", left(&member)),
                    hint: "the drain goes on: iapctl members ls".to_owned(),
                });
            }
        };
        let found = members.into_iter().find(|found| found.name == name);
        member = found.ok_or_else(missing)?;
    }
    output::line(&format!("{name}: drained"))?;
    notes.say(&format!("undo: iapctl members resume {name}"));
    Ok(Done::Yes)
}

/// Says who is still there: `3 agents left, 1 of them busy`.
fn left(member: &Member) -> String {
    let s = if member.agents == 1 { "" } else { "s" };
    format!("{} agent{s} left, {} busy", member.agents, member.busy)
}
