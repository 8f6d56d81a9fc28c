//! `PoolService`.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use iap_common::v1;
use iap_common::v1::pool_service_server::PoolService;

use crate::pool::command::PoolCommand;

use super::{Services, convert, peer, status};

type PoolStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPoolsResponse, Status>> + Send>>;

impl Services {
    pub(super) fn all_pools(&self) -> Vec<v1::Pool> {
        let mut pools: Vec<v1::Pool> = self
            .statuses()
            .iter()
            .map(|status| convert::pool(status))
            .collect();
        // Until Incus answers for the first time the pools' tasks have not begun.
        let spec = self.reloader.spec();
        let missing = spec
            .pools
            .iter()
            .filter(|spec| !pools.iter().any(|p| p.name == spec.name));
        let waiting: Vec<v1::Pool> = missing
            .map(|spec| v1::Pool {
                name: spec.name.clone(),
                state: v1::PoolState::Starting.into(),
                agent_count: spec.agent_count,
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
            v1::Pool {
                last_pass: None,
                azure,
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
        let name = request.into_inner().name;
        let pools = self.all_pools();
        match pools.iter().find(|pool| pool.name == name) {
            Some(pool) => Ok(Response::new(v1::GetPoolResponse {
                pool: Some(pool.clone()),
            })),
            None => Err(status::no_such(
                "pool",
                &name,
                pools.iter().map(|pool| pool.name.as_str()),
            )),
        }
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
        let pools = Arc::clone(&self.pools.borrow());
        let Some(pool) = pools.iter().find(|pool| pool.key().name == name) else {
            if self.reloader.spec().pools.iter().any(|p| p.name == name) {
                return Err(status::starting(&name, self.incus.borrow().problem()));
            }
            let known = pools.iter().map(|pool| pool.key().name.as_str());
            return Err(status::no_such("pool", &name, known));
        };
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
}
