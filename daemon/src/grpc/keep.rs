//! Keeping agents for debugging, and letting them go: a part of `AgentService`.

use std::time::Duration;

use jiff::Timestamp;
use tonic::{Request, Status};

use iap_common::v1;

use crate::agent::{AgentState, Keep};
use crate::pool::command::PoolCommand;
use crate::pool::spec::KEEP_TTL;

use super::{Services, convert, intents, peer, status};

impl Services {
    pub(super) async fn keep(
        &self,
        request: Request<v1::KeepAgentRequest>,
    ) -> Result<v1::KeepAgentResponse, Status> {
        let asker = peer::asker(&request);
        let v1::KeepAgentRequest {
            name,
            until,
            reason,
        } = request.into_inner();
        let until = intents::until(until)?;
        intents::check_reason(&reason)?;
        let (pool, seen, _) = self
            .find_agent(&name)
            .ok_or_else(|| self.no_such_agent(&name))?;
        let length = seen.spec.keep.as_ref().map_or(KEEP_TTL, |keep| keep.ttl);
        let until = match until {
            Some(until) => Keep::end_after(until, Duration::ZERO),
            None => Keep::end_after(Timestamp::now(), length),
        };
        let keep = Keep {
            until,
            reason,
            by: self.user(&asker).await,
            since: None,
        };
        let agent = name.clone();
        let kept = pool
            .command(|reply| PoolCommand::Keep {
                name: agent,
                keep,
                asker: asker.clone(),
                reply,
            })
            .await
            .map_err(status::command);
        let target = format!("{name} until {until:.0}");
        self.audit(&asker, "agents keep", target, kept)?;
        let agent = self
            .find_agent(&name)
            .map(|(_, pool, agent)| convert::agent(&pool, &agent));
        Ok(v1::KeepAgentResponse { agent })
    }

    pub(super) async fn release(
        &self,
        request: Request<v1::ReleaseAgentRequest>,
    ) -> Result<v1::ReleaseAgentResponse, Status> {
        let asker = peer::asker(&request);
        let name = request.into_inner().name;
        let (pool, _, _) = self
            .find_agent(&name)
            .ok_or_else(|| self.no_such_agent(&name))?;
        let agent = name.clone();
        let released = pool
            .command(|reply| PoolCommand::Release {
                name: agent,
                asker: asker.clone(),
                reply,
            })
            .await
            .map_err(status::command);
        self.audit(&asker, "agents release", &*name, released)?;
        let agent = self
            .find_agent(&name)
            // The answer may be quicker than the next status: one that was kept is gone by now.
            .filter(|(_, _, agent)| !matches!(agent.state, AgentState::Kept | AgentState::Stopping))
            .filter(|(_, _, agent)| !agent.instance_status.is_empty())
            .map(|(_, pool, agent)| convert::agent(&pool, &agent));
        Ok(v1::ReleaseAgentResponse { agent })
    }

    /// Returns the name of who asks, never an empty one: that would be the pool's policy.
    async fn user(&self, asker: &crate::pool::command::Asker) -> String {
        let asker = asker.clone();
        let uid = asker.uid;
        // It may come over the network.
        let who = tokio::task::spawn_blocking(move || peer::who(&asker)).await;
        let user = who.map(|who| who.user).unwrap_or_default();
        match (user.is_empty(), uid) {
            (false, _) => user,
            (true, Some(uid)) => format!("uid {uid}"),
            (true, None) => "somebody".to_owned(),
        }
    }
}
