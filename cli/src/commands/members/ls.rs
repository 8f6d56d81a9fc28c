//! `members ls`.

use clap::Args;
use iap_common::v1::ListMembersRequest;

use crate::args::ListOutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::fleet;
use crate::progress::Notes;
use crate::rows::member::Member;

/// List the members of the Incus cluster with the agents on them
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl members ls
  iapctl members ls -o wide")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    fleet::list(context, &args.output, async |context: &Context| {
        let mut client = context.daemon().await?;
        let answer = call(client.list_members(ListMembersRequest {})).await?;
        let members: Vec<Member> = answer.members.into_iter().map(Member::from).collect();
        if members.is_empty() {
            Notes::stderr().say("Incus is not a cluster: it has no members");
        }
        Ok(members)
    })
    .await
}
