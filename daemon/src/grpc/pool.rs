//! `PoolService`.

use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tracing::info;

use iap_common::v1;
use iap_common::v1::pool_service_server::PoolService;
use iap_common::v1::scale_pool_request::Change;

use crate::agent::Drain;
use crate::intents::{CountOverride, Pause};
use crate::pool::PoolHandle;
use crate::pool::command::{Chosen, PoolCommand};

use super::{Services, convert, intents, peer, status};

type PoolStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPoolsResponse, Status>> + Send>>;

/// A time for the log.
fn told(until: Option<Timestamp>) -> Option<String> {
    until.map(|until| until.to_string())
}

impl Services {
    /// Returns a pool whose task has begun.
    fn handle(&self, name: &str) -> Result<PoolHandle, Status> {
        let pools = Arc::clone(&self.pools.borrow());
        let found = pools.iter().find(|pool| pool.key().name == name);
        found.cloned().ok_or_else(|| {
            if self.reloader.spec().pools.iter().any(|p| p.name == name) {
                return status::starting(name, self.incus.borrow().problem());
            }
            let known = pools.iter().map(|pool| pool.key().name.as_str());
            status::no_such("pool", name, known)
        })
    }

    pub(super) fn all_pools(&self) -> Vec<v1::Pool> {
        let mut pools: Vec<v1::Pool> = self
            .statuses()
            .iter()
            .map(|status| convert::pool(status, &self.intent(&status.spec.name)))
            .collect();
        // Until Incus answers for the first time the pools' tasks have not begun.
        let spec = self.reloader.spec();
        let missing = spec
            .pools
            .iter()
            .filter(|spec| !pools.iter().any(|p| p.name == spec.name));
        let waiting: Vec<v1::Pool> = missing
            .map(|spec| (spec, self.intent(&spec.name)))
            .map(|(spec, intent)| v1::Pool {
                pause: intents::pause_message(&intent),
                count_override: intents::count_message(&intent),
                wanted: intent.wanted(spec.agent_count),
                name: spec.name.clone(),
                state: v1::PoolState::Starting.into(),
                agent_count: spec.agent_count,
                spares: spec.spares,
                counts: Some(v1::AgentCounts::default()),
                problems: self.incus.borrow().problem().into_iter().collect(),
                image: Some(v1::PoolImage {
                    alias: spec.instance.image.clone(),
                    ..v1::PoolImage::default()
                }),
                project: spec.instance.project.clone(),
                instance_type: spec.instance.kind.api_name().to_owned(),
                ..v1::Pool::default()
            })
            .collect();
        pools.extend(waiting);
        pools
    }
}

/// What watchers compare: everything but the report of the pass itself.
fn without_pass(pools: &[v1::Pool]) -> Vec<v1::Pool> {
    pools
        .iter()
        .map(|pool| {
            let azure = pool.azure.clone().map(|azure| v1::AzurePool {
                snapshot_age: None,
                ..azure
            });
            // Waits grow all the time; a watcher is told of it once a minute.
            let job_waits = pool.job_waits.map(|waits| v1::JobWaits {
                p95: waits.p95.map(|p95| prost_types::Duration {
                    seconds: p95.seconds - p95.seconds % 60,
                    nanos: 0,
                }),
                ..waits
            });
            v1::Pool {
                last_pass: None,
                azure,
                job_waits,
                ..pool.clone()
            }
        })
        .collect()
}

#[tonic::async_trait]
impl PoolService for Services {
    async fn list_pools(
        &self,
        _request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        Ok(Response::new(v1::ListPoolsResponse {
            pools: self.all_pools(),
        }))
    }

    async fn get_pool(
        &self,
        request: Request<v1::GetPoolRequest>,
    ) -> Result<Response<v1::GetPoolResponse>, Status> {
        let pool = Some(self.one_pool(&request.into_inner().name)?);
        Ok(Response::new(v1::GetPoolResponse { pool }))
    }

    type WatchPoolsStream = PoolStream;

    async fn watch_pools(
        &self,
        _request: Request<v1::WatchPoolsRequest>,
    ) -> Result<Response<PoolStream>, Status> {
        let services = self.clone();
        let stream = super::changes::changes(self, move || {
            let pools = services.all_pools();
            (without_pass(&pools), v1::WatchPoolsResponse { pools })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn retry_pool(
        &self,
        request: Request<v1::RetryPoolRequest>,
    ) -> Result<Response<v1::RetryPoolResponse>, Status> {
        let asker = peer::asker(&request);
        let name = request.into_inner().name;
        let pool = self.handle(&name)?;
        let retried = pool
            .command(|reply| PoolCommand::Retry {
                asker: asker.clone(),
                reply,
            })
            .await
            .map_err(status::command);
        self.audit(&asker, "pools retry", name, retried)?;
        Ok(Response::new(v1::RetryPoolResponse {}))
    }

    async fn pause_pool(
        &self,
        request: Request<v1::PausePoolRequest>,
    ) -> Result<Response<v1::PausePoolResponse>, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let v1::PausePoolRequest {
            name,
            reason,
            until,
        } = request;
        self.one_pool(&name)?;
        let pause = intents::pause(reason, intents::until(until)?)?;
        info!(
            pool = %name, reason = pause.reason, uid = asker.uid, until = told(pause.until),
            "pause requested"
        );
        let key = name.clone();
        let changed = self
            .change_intents(asker.clone(), move |set, who| {
                set.pools.entry(key).or_default().pause = Some(Pause { who, ..pause });
            })
            .await;
        self.audit(&asker, "pools pause", &*name, changed)?;
        let pool = Some(self.one_pool(&name)?);
        Ok(Response::new(v1::PausePoolResponse { pool }))
    }

    async fn resume_pool(
        &self,
        request: Request<v1::ResumePoolRequest>,
    ) -> Result<Response<v1::ResumePoolResponse>, Status> {
        let asker = peer::asker(&request);
        let name = request.into_inner().name;
        let before = self.one_pool(&name)?;
        let was_paused = before.pause.is_some_and(|pause| !pause.host_wide);
        info!(pool = %name, was_paused, uid = asker.uid, "end of pause requested");
        let key = name.clone();
        let changed = self
            .change_intents(asker.clone(), move |set, _| {
                if let Some(pool) = set.pools.get_mut(&key) {
                    pool.pause = None;
                }
            })
            .await;
        self.audit(&asker, "pools resume", &*name, changed)?;
        let pool = Some(self.one_pool(&name)?);
        Ok(Response::new(v1::ResumePoolResponse { pool, was_paused }))
    }

    async fn scale_pool(
        &self,
        request: Request<v1::ScalePoolRequest>,
    ) -> Result<Response<v1::ScalePoolResponse>, Status> {
        let asker = peer::asker(&request);
        let v1::ScalePoolRequest {
            name,
            change,
            until,
        } = request.into_inner();
        self.one_pool(&name)?;
        let until = intents::until(until)?;
        let count = match change {
            Some(Change::Count(count)) => Some(intents::count_override(count, until)?),
            Some(Change::Reset(_)) => None,
            None => return Err(status::bad_request("say a count, or reset it")),
        };
        info!(
            pool = %name, count = count.as_ref().map(|count| count.count), uid = asker.uid,
            until = told(until), "another number of agents requested"
        );
        let key = name.clone();
        let changed = self
            .change_intents(asker.clone(), move |set, who| {
                set.pools.entry(key).or_default().count =
                    count.map(|count| CountOverride { who, ..count });
            })
            .await;
        self.audit(&asker, "pools scale", &*name, changed)?;
        let pool = Some(self.one_pool(&name)?);
        Ok(Response::new(v1::ScalePoolResponse { pool }))
    }

    async fn recycle_pool(
        &self,
        request: Request<v1::RecyclePoolRequest>,
    ) -> Result<Response<v1::RecyclePoolResponse>, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let chosen = match request.scope() {
            v1::RecycleScope::All => Chosen::All,
            v1::RecycleScope::Outdated => Chosen::Outdated,
            v1::RecycleScope::Unspecified => return Err(status::bad_request("say which agents")),
        };
        let pool = self.handle(&request.name)?;
        let recycled = pool
            .command(|reply| PoolCommand::Drain {
                chosen,
                drain: Drain::Recycle,
                reason: "recycle".into(),
                asker: asker.clone(),
                reply,
            })
            .await
            .map_err(status::command);
        self.audit(&asker, "pools recycle", request.name, recycled)?;
        Ok(Response::new(v1::RecyclePoolResponse {}))
    }
}
