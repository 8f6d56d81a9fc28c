//! Waits until agents are gone, and is never silent meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use iap_common::v1::WatchAgentsRequest;
use iap_common::v1::agent_service_client::AgentServiceClient;
use jiff::Timestamp;
use tonic::transport::Channel;

use super::report::{Report, Result as Outcome};
use super::view::Crowd;
use crate::args::OutputArgs;
use crate::commands::Done;
use crate::error::CliError;
use crate::feed::Feed;
use crate::progress::{Mode, say};
use crate::rows::agent::Agent;
use crate::rows::time::age;
use crate::wait::{Wait, Waited};

/// Returns the command that waits for these agents again.
pub(super) fn again(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("iapctl agents drain --watch {}", names.join(" "))
}

/// Waits until no agent of `names` is listed any more.
pub(super) async fn until_gone(
    mut client: AgentServiceClient<Channel>,
    names: BTreeSet<String>,
    mode: Mode,
    timeout: Option<Duration>,
    output: &OutputArgs,
) -> Result<Done, CliError> {
    let mut wait = Wait::new(timeout)?;
    let mut crowd = Crowd::new(names.clone(), Timestamp::now());
    let mut report = Report::new(mode);
    if names.is_empty() {
        return finish(&crowd, report, output);
    }
    let open = async || {
        let names = names.iter().cloned().collect();
        client
            .watch_agents(WatchAgentsRequest {
                pool: String::new(),
                names,
            })
            .await
    };
    let mut feed = Feed::new(open, report.notes());
    loop {
        let next = wait
            .on(feed.next_endless(), || {
                report.beat(&crowd, Timestamp::now());
            })
            .await;
        match next {
            Waited::For(message) => {
                let now = Timestamp::now();
                let agents = message?.agents.into_iter().map(Agent::from).collect();
                let changes = crowd.update(agents, now);
                report.changes(&crowd, &changes, now);
                if crowd.gone() == crowd.size() {
                    return finish(&crowd, report, output);
                }
            }
            Waited::Interrupted => {
                report.end();
                say("detached: the drain goes on");
                say(&format!(
                    "still running: {}",
                    again(&crowd.remaining_names())
                ));
                return Ok(Done::Detached);
            }
            Waited::TimedOut => {
                report.end();
                let left = crowd.remaining_names();
                return Err(CliError::TimedOut {
                    what: format!(
                        "{} of {} agents are still there after {}; the drain goes on",
                        left.len(),
                        crowd.size(),
                        age(timeout.unwrap_or_default())
                    ),
                    hint: format!("wait again: {}", again(&left)),
                });
            }
        }
    }
}

fn finish(crowd: &Crowd, report: Report, output: &OutputArgs) -> Result<Done, CliError> {
    report.end();
    let names = crowd.gone_names();
    let text = format!("drained: {}/{}\n", crowd.gone(), crowd.size());
    let outcome = Outcome {
        state: "drained",
        agents: &names,
    };
    output.answer(&names.join("\n"), &text, &outcome)?;
    Ok(Done::Yes)
}
