//! `AgentService`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use iap_common::v1;
use iap_common::v1::agent_service_server::AgentService;

use crate::agent::Drain;
use crate::pool::apply::evidence::{LOG_CAP, LOG_FILE};
use crate::pool::command::{Chosen, PoolCommand};
use crate::pool::{LogRead, PoolHandle};

use super::adoption::AdoptionStream;
use super::{Services, convert, peer, status};

type AgentStream = Pin<Box<dyn Stream<Item = Result<v1::WatchAgentsResponse, Status>> + Send>>;
pub(super) type LogStream =
    Pin<Box<dyn Stream<Item = Result<v1::StreamAgentLogResponse, Status>> + Send>>;

/// Looks that may fail in a row while an agent is there.
const FAILURES: u32 = 10;
/// Between two looks at a log that is followed. No exec is held open for it.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Names in one request.
const LARGEST_DRAIN: usize = 1000;
/// Seconds; a deadline further ahead is a mistake.
const LONGEST_DEADLINE: i64 = 366 * 86_400;

/// Reads how urgently agents shall go.
fn urgency(request: &v1::DrainAgentsRequest) -> Result<Drain, Status> {
    if request.force {
        return Ok(Drain::Force);
    }
    let Some(deadline) = request.deadline else {
        return Ok(Drain::Finish);
    };
    let ahead = Duration::try_from(deadline)
        .ok()
        .and_then(|ahead| i64::try_from(ahead.as_secs()).ok())
        .filter(|seconds| *seconds <= LONGEST_DEADLINE)
        .ok_or_else(|| status::bad_request("a deadline is 0 seconds to 366 days ahead"))?;
    Ok(Drain::FinishBy(Reverse(
        Timestamp::now().as_second() + ahead,
    )))
}

impl Services {
    /// Returns which agents of which pools are meant. All or nothing: nobody is drained when a
    /// name is wrong.
    async fn chosen(
        &self,
        request: &v1::DrainAgentsRequest,
    ) -> Result<Vec<(PoolHandle, Chosen)>, Status> {
        let v1::DrainAgentsRequest {
            names, pool, all, ..
        } = request;
        let pools = Arc::clone(&self.pools.borrow());
        match (names.len(), pool.as_str(), all) {
            (1..=LARGEST_DRAIN, "", false) => {}
            (0, "", true) => {
                let all = pools.iter().map(|pool| (pool.clone(), Chosen::All));
                return Ok(all.collect());
            }
            (0, name, false) if !name.is_empty() => {
                self.check_pool(name)?;
                let own = pools.iter().filter(|pool| pool.key().name == *name);
                return Ok(own.map(|pool| (pool.clone(), Chosen::All)).collect());
            }
            _ => {
                return Err(status::bad_request(format!(
                    "name 1 to {LARGEST_DRAIN} agents, or a pool, or all"
                )));
            }
        }
        let mut by_pool: BTreeMap<_, (PoolHandle, Vec<String>)> = BTreeMap::new();
        for name in names {
            let Some((pool, _, _)) = self.find_agent(name) else {
                // It has gone since it was listed, which is what is asked for.
                if matches!(self.store.ended_agent(name).await, Ok(Some(_))) {
                    continue;
                }
                return Err(self.no_such_agent(name));
            };
            let entry = by_pool
                .entry(pool.key().clone())
                .or_insert_with(|| (pool, Vec::new()));
            entry.1.push(name.clone());
        }
        let named = by_pool.into_values();
        Ok(named
            .map(|(pool, names)| (pool, Chosen::Named(names)))
            .collect())
    }

    /// Returns the pools whose instances or registrations were not listed since the start.
    pub(super) fn unseen_pools(&self) -> Vec<String> {
        let statuses = self.statuses();
        let seen = |name: &str| {
            let mut own = statuses.iter().filter(|status| status.spec.name == name);
            own.clone().next().is_some() && own.all(|status| status.was_seen)
        };
        let spec = self.reloader.spec();
        let configured = spec.pools.iter().map(|pool| pool.name.clone());
        let all = configured.chain(statuses.iter().map(|status| status.spec.name.clone()));
        let mut unseen: Vec<String> = all.filter(|name| !seen(name)).collect();
        unseen.sort();
        unseen.dedup();
        unseen
    }

    fn agents(&self, pool: &str, names: &[String]) -> Vec<v1::Agent> {
        self.statuses()
            .iter()
            .filter(|status| pool.is_empty() || status.spec.name == pool)
            .flat_map(|status| convert::agents(status))
            .filter(|agent| names.is_empty() || names.contains(&agent.name))
            .collect()
    }

    pub(super) fn check_pool(&self, pool: &str) -> Result<(), Status> {
        let pools = self.all_pools();
        if pool.is_empty() || pools.iter().any(|known| known.name == pool) {
            return Ok(());
        }
        Err(status::no_such(
            "pool",
            pool,
            pools.iter().map(|pool| pool.name.as_str()),
        ))
    }

    pub(super) fn no_such_agent(&self, name: &str) -> Status {
        if let Err(status) = self.check_agents_known(false) {
            return status;
        }
        let agents = self.agents("", &[]);
        let foreign = |agent: &v1::Agent| agent.state() == v1::AgentState::Foreign;
        if agents.iter().any(|a| a.name == name && foreign(a)) {
            return status::not_ready(format!(
                "{name} was made by the earlier tool and is left alone: it ends with its job"
            ));
        }
        let own = agents.iter().filter(|agent| !foreign(agent));
        status::no_such("agent", name, own.map(|agent| agent.name.as_str()))
    }
}

#[tonic::async_trait]
impl AgentService for Services {
    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let pool = request.into_inner().pool;
        self.check_pool(&pool)?;
        self.check_agents_known(false)?;
        Ok(Response::new(v1::ListAgentsResponse {
            agents: self.agents(&pool, &[]),
        }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let name = request.into_inner().name;
        let (_, pool, agent) = self
            .find_agent(&name)
            .ok_or_else(|| self.no_such_agent(&name))?;
        let agent = Some(convert::agent(&pool, &agent));
        Ok(Response::new(v1::GetAgentResponse { agent }))
    }

    type WatchAgentsStream = AgentStream;

    async fn watch_agents(
        &self,
        request: Request<v1::WatchAgentsRequest>,
    ) -> Result<Response<AgentStream>, Status> {
        let v1::WatchAgentsRequest { pool, names } = request.into_inner();
        self.check_pool(&pool)?;
        // Whoever names agents waits for their end, and that takes both sides.
        self.check_agents_known(!names.is_empty())?;
        let services = self.clone();
        let stream = super::changes::changes(self, move || {
            let agents = services.agents(&pool, &names);
            let unseen_pools = services.unseen_pools();
            let key = (agents.clone(), unseen_pools.clone());
            let message = v1::WatchAgentsResponse {
                agents,
                unseen_pools,
            };
            (key, message)
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain_agents(
        &self,
        request: Request<v1::DrainAgentsRequest>,
    ) -> Result<Response<v1::DrainAgentsResponse>, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let drain = urgency(&request)?;
        let v1::DrainAgentsRequest { names, reason, .. } = &request;
        for (pool, chosen) in self.chosen(&request).await? {
            let (asker, reason) = (asker.clone(), reason.clone());
            let target = match &chosen {
                Chosen::Named(names) => names.join(" "),
                _ => format!("all of pool {}", pool.key().name),
            };
            let command = match drain {
                Drain::Force => "agents drain --force",
                _ => "agents drain",
            };
            let drained = pool
                .command(|reply| PoolCommand::Drain {
                    chosen,
                    drain,
                    reason,
                    asker: asker.clone(),
                    reply,
                })
                .await
                .map_err(status::command);
            self.audit(&asker, command, target, drained)?;
        }
        let mut agents = self.agents(&request.pool, names);
        agents.retain(|agent| {
            let state = agent.state();
            state != v1::AgentState::Foreign && state != v1::AgentState::Kept
        });
        Ok(Response::new(v1::DrainAgentsResponse { agents }))
    }

    async fn reap_agent(
        &self,
        request: Request<v1::ReapAgentRequest>,
    ) -> Result<Response<v1::ReapAgentResponse>, Status> {
        let asker = peer::asker(&request);
        let v1::ReapAgentRequest { name, force } = request.into_inner();
        let (pool, _, _) = self
            .find_agent(&name)
            .ok_or_else(|| self.no_such_agent(&name))?;
        let target = name.clone();
        let reaped = pool
            .command(|reply| PoolCommand::Reap {
                name,
                force,
                asker: asker.clone(),
                reply,
            })
            .await
            .map_err(status::command);
        self.audit(&asker, "agents reap", target, reaped)?;
        Ok(Response::new(v1::ReapAgentResponse {}))
    }

    async fn keep_agent(
        &self,
        request: Request<v1::KeepAgentRequest>,
    ) -> Result<Response<v1::KeepAgentResponse>, Status> {
        let answer = self.keep(request).await?;
        Ok(Response::new(answer))
    }

    async fn release_agent(
        &self,
        request: Request<v1::ReleaseAgentRequest>,
    ) -> Result<Response<v1::ReleaseAgentResponse>, Status> {
        let answer = self.release(request).await?;
        Ok(Response::new(answer))
    }

    async fn list_ghosts(
        &self,
        request: Request<v1::ListGhostsRequest>,
    ) -> Result<Response<v1::ListGhostsResponse>, Status> {
        Ok(Response::new(self.ghosts(&request.into_inner().pool)?))
    }

    type AdoptGhostsStream = AdoptionStream;

    async fn adopt_ghosts(
        &self,
        request: Request<v1::AdoptGhostsRequest>,
    ) -> Result<Response<AdoptionStream>, Status> {
        Ok(Response::new(self.adopt(request).await?))
    }

    type StreamAgentLogStream = LogStream;

    async fn stream_agent_log(
        &self,
        request: Request<v1::StreamAgentLogRequest>,
    ) -> Result<Response<LogStream>, Status> {
        let v1::StreamAgentLogRequest {
            name,
            follow,
            tail_bytes,
            file,
        } = request.into_inner();
        let pool = match self.find_agent(&name) {
            Some((pool, _, agent)) if !agent.instance_status.is_empty() => pool,
            // Gone, or all but its registration.
            _ => return self.ended_log(name, file, tail_bytes).await,
        };
        if !file.is_empty() {
            return Err(status::not_ready(format!(
                "agent {name} has not ended: its files are collected when it does"
            )));
        }
        let from = match tail_bytes {
            0 => 0,
            tail => {
                let size = pool
                    .log_size(&name)
                    .await
                    .map_err(|error| status::incus(&error))?;
                size.unwrap_or(0).saturating_sub(tail)
            }
        };
        let start = Tail {
            services: self.clone(),
            pool,
            name,
            from,
            follow,
            failures: 0,
            ended: false,
        };
        let stream = stream::unfold(start, |mut tail| async move {
            let chunk = tail.next().await?;
            tail.ended = chunk.is_err();
            let message = chunk.map(|chunk| v1::StreamAgentLogResponse { chunk });
            Some((message, tail))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A log that is being read.
struct Tail {
    services: Services,
    pool: PoolHandle,
    name: String,
    from: u64,
    follow: bool,
    /// Looks that failed since the last one that worked.
    failures: u32,
    ended: bool,
}

impl Tail {
    /// Returns the next part, or `None` at the end.
    async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        while !self.ended {
            match self.pool.read_log(&self.name, self.from).await {
                Ok(LogRead::Bytes(bytes)) if !bytes.is_empty() => {
                    self.from += bytes.len() as u64;
                    self.failures = 0;
                    return Some(Ok(bytes));
                }
                // Not begun yet, or gone: the agent's own end tells which.
                Ok(LogRead::Bytes(_)) if self.follow => {}
                Ok(LogRead::Gone) if self.follow && self.is_alive() => {}
                Ok(LogRead::Gone) if self.follow => {
                    self.ended = true;
                    return self.last_words().await.map(Ok);
                }
                Ok(LogRead::Gone) if self.from == 0 && !self.follow => {
                    return Some(Err(self.services.no_such_log(&self.name)));
                }
                Ok(_) => return None,
                // A guest that goes down answers all sorts of things before it is gone.
                Err(error) if self.follow && (error.is_transient() || self.failures < FAILURES) => {
                    self.failures += 1;
                }
                Err(error) if error.is_not_found() => return None,
                Err(error) => return Some(Err(status::incus(&error))),
            }
            tokio::select! {
                () = self.services.stop.cancelled() => return Some(Err(status::stopping())),
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            }
        }
        None
    }

    /// Returns what the agent wrote after the last look: its log was kept when it ended.
    async fn last_words(&self) -> Option<Vec<u8>> {
        let evidence = self.services.store.evidence();
        let whole = evidence.read(&self.name, LOG_FILE, 0, LOG_CAP).await;
        let whole = whole.ok().flatten()?;
        // Of a longer log only the end was kept, and where that begins is not known.
        let from = usize::try_from(self.from).ok()?;
        let rest = whole.get(from..).filter(|rest| !rest.is_empty())?;
        ((whole.len() as u64) < LOG_CAP).then(|| rest.to_vec())
    }

    fn is_alive(&self) -> bool {
        let status: Arc<_> = self.pool.status();
        status
            .agents
            .iter()
            .any(|a| a.name == self.name && !a.instance_status.is_empty())
    }
}

impl Services {
    pub(super) fn no_such_log(&self, name: &str) -> Status {
        match self.find_agent(name) {
            Some(_) => status::not_ready(format!("agent {name} has written no log yet")),
            None => self.no_such_agent(name),
        }
    }
}
