//! Waits until agents are gone, and is never silent meanwhile.

use std::time::Duration;

use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::{EndedAgent, ListEndedAgentsRequest, WatchAgentsRequest};
use jiff::Timestamp;
use tonic::transport::Channel;

use super::Target;
use super::report::{Report, Result as Outcome};
use super::view::Crowd;
use crate::args::OutputArgs;
use crate::commands::{Done, call};
use crate::error::CliError;
use crate::feed::Feed;
use crate::progress::{Mode, say};
use crate::rows::agent::Agent;
use crate::rows::time::age;
use crate::wait::{Wait, Waited};

/// The newest records of agents, as many as the daemon lists at once.
const RECORDS: u32 = 1000;

/// How a wait is to end.
pub(super) struct Gone<'a> {
    pub(super) target: Target,
    pub(super) history: HistoryServiceClient<Channel>,
    pub(super) timeout: Option<Duration>,
    pub(super) output: &'a OutputArgs,
}

impl Gone<'_> {
    /// Waits until nobody of the crowd is left.
    pub(super) async fn until(
        mut self,
        mut client: AgentServiceClient<Channel>,
        mut crowd: Crowd,
        mode: Mode,
    ) -> Result<Done, CliError> {
        let mut wait = Wait::new(self.timeout)?;
        let mut report = Report::new(mode);
        if crowd.is_done() {
            return self.finish(&crowd, report).await;
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
                        return self.finish(&crowd, report).await;
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

    async fn finish(&mut self, crowd: &Crowd, report: Report) -> Result<Done, CliError> {
        report.end();
        let names = crowd.gone_names();
        let jobs_killed = self.jobs_killed(&names).await;
        let killed = match jobs_killed {
            Some(1) => "1 job killed".to_owned(),
            Some(number) => format!("{number} jobs killed"),
            None => "how many jobs were killed is not known".to_owned(),
        };
        let kept = match crowd.kept() {
            0 => String::new(),
            kept => format!(", {kept} kept"),
        };
        let mut text = format!("drained: {}/{}, {killed}{kept}", crowd.gone(), crowd.size());
        if let Some(undo) = self.target.undo() {
            text = format!("{text}.   undo: {undo}");
        }
        text.push('\n');
        let outcome = Outcome {
            state: "drained",
            agents: &names,
            kept: crowd.kept(),
            jobs_killed,
        };
        self.output.answer(&names.join("\n"), &text, &outcome)?;
        Ok(Done::Yes)
    }

    /// Asks the records of those that are gone: what was seen from here may have missed the end.
    async fn jobs_killed(&mut self, names: &[String]) -> Option<usize> {
        if names.is_empty() {
            return Some(0);
        }
        let request = ListEndedAgentsRequest {
            pool: self.target.pool().to_owned(),
            with_job: true,
            limit: RECORDS,
            ..ListEndedAgentsRequest::default()
        };
        let answer = call(self.history.list_ended_agents(request)).await.ok()?;
        let killed = answer.agents.iter().filter(|agent| was_killed(agent));
        Some(killed.filter(|agent| names.contains(&agent.name)).count())
    }
}

/// Whether an agent was removed before its job had ended, because somebody forced it or its
/// deadline had come. A job that succeeded nonetheless was done.
fn was_killed(agent: &EndedAgent) -> bool {
    agent.job.is_some()
        && matches!(agent.reason.as_str(), "forced" | "deadline")
        && !agent.job_result.starts_with("succeeded")
}
