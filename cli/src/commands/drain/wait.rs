//! Waits until agents are gone, and is never silent meanwhile.

use std::time::Duration;

use iap_common::v1::WatchAgentsRequest;
use iap_common::v1::agent_service_client::AgentServiceClient;
use jiff::Timestamp;
use tonic::transport::Channel;

use super::Target;
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

/// How a wait is to end.
pub(super) struct Gone<'a> {
    pub(super) target: Target,
    pub(super) timeout: Option<Duration>,
    pub(super) output: &'a OutputArgs,
}

impl Gone<'_> {
    /// Waits until nobody of the crowd is left.
    pub(super) async fn until(
        self,
        mut client: AgentServiceClient<Channel>,
        mut crowd: Crowd,
        mode: Mode,
    ) -> Result<Done, CliError> {
        let mut wait = Wait::new(self.timeout)?;
        let mut report = Report::new(mode);
        if crowd.is_done() {
            return self.finish(&crowd, report);
        }
        let (pool, names) = (crowd.pool().to_owned(), crowd.names().clone());
        let open = async || {
            let names = names.iter().cloned().collect();
            let pool = pool.clone();
            client
                .watch_agents(WatchAgentsRequest { pool, names })
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
                    let message = message?;
                    let agents = message.agents.into_iter().map(Agent::from).collect();
                    let changes = crowd.update(agents, message.unseen_pools, now);
                    report.changes(&crowd, &changes, now);
                    if crowd.is_done() {
                        return self.finish(&crowd, report);
                    }
                }
                Waited::Interrupted => {
                    report.end();
                    say("detached: the drain goes on");
                    let again = self.target.again(&crowd.remaining_names());
                    say(&format!("still running: {again}"));
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
                            age(self.timeout.unwrap_or_default())
                        ),
                        hint: format!("wait again: {}", self.target.again(&left)),
                    });
                }
            }
        }
    }

    fn finish(&self, crowd: &Crowd, report: Report) -> Result<Done, CliError> {
        report.end();
        let names = crowd.gone_names();
        let kept = match crowd.kept() {
            0 => String::new(),
            kept => format!(", {kept} kept"),
        };
        let mut text = format!("drained: {}/{}{kept}\n", crowd.gone(), crowd.size());
        if let Some(undo) = self.target.undo() {
            text = format!("{text}undo: {undo}\n");
        }
        let outcome = Outcome {
            state: "drained",
            agents: &names,
            kept: crowd.kept(),
        };
        self.output.answer(&names.join("\n"), &text, &outcome)?;
        Ok(Done::Yes)
    }
}
