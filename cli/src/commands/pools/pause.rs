//! `pools pause` and `pools resume`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{PausePoolRequest, ResumePoolRequest};
use jiff::Timestamp;

use crate::args::{SeveralArgs, UntilArgs};
use crate::commands::{Context, Done, call, missing};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::pool::Pool;
use crate::{complete, fleet, output};

/// Start no new agents in a pool: idle ones leave, busy ones finish
///
/// Returns at once; iapctl pools drain waits until all are gone. Survives restarts of the daemon
/// and reloads of its configuration. A second pause takes the place of the first. While a pool has
/// no agent anywhere, Azure fails new jobs for it at once.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools pause linux -m 'cert swap' --for 30m
  iapctl pools pause linux -m 'until the cache is fixed' --until 18:00")]
pub(crate) struct PauseArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    /// Why, for whoever looks
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    until: UntilArgs,
    #[command(flatten)]
    several: SeveralArgs,
}

pub(super) async fn run(context: &Context, args: PauseArgs) -> Result<Done, CliError> {
    let what = format!("pause pool {}", args.name);
    let request = PausePoolRequest {
        name: args.name,
        reason: args.reason,
        until: args.until.at()?,
    };
    let act = async |context: &Context| pause_one(context, request.clone()).await;
    fleet::change(context, &what, args.several.yes, act).await
}

async fn pause_one(context: &Context, request: PausePoolRequest) -> Result<Done, CliError> {
    let answer = call(context.pools().await?.pause_pool(request)).await?;
    let pool = Pool::from(answer.pool.ok_or_else(missing)?);
    let paused = pool.paused(Timestamp::now()).ok_or_else(missing)?;
    output::line(&format!("{}: {paused}", pool.name))?;
    Notes::stderr().say(&format!("undo: iapctl pools resume {}", pool.name));
    Ok(Done::Yes)
}

/// End the pause of a pool: it is filled again
///
/// Agents that were leaving go all the same and are replaced. A pause of the whole host stands:
/// iapctl resume.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools resume linux")]
pub(crate) struct ResumeArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    #[command(flatten)]
    several: SeveralArgs,
}

pub(super) async fn resume(context: &Context, args: ResumeArgs) -> Result<Done, CliError> {
    let what = format!("resume pool {}", args.name);
    let act = async |context: &Context| resume_one(context, args.name.clone()).await;
    fleet::change(context, &what, args.several.yes, act).await
}

async fn resume_one(context: &Context, name: String) -> Result<Done, CliError> {
    let request = ResumePoolRequest { name };
    let answer = call(context.pools().await?.resume_pool(request)).await?;
    let pool = Pool::from(answer.pool.ok_or_else(missing)?);
    if let Some(paused) = pool.paused(Timestamp::now()) {
        return Err(CliError::Refused {
            what: format!("{} stays {paused}", pool.name),
            hint: "end the pause of the whole host: iapctl resume".to_owned(),
        });
    }
    let what = if answer.was_paused {
        "resumed"
    } else {
        "was not paused"
    };
    output::line(&format!("{}: {what}", pool.name))?;
    Ok(Done::Yes)
}
