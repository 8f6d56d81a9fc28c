//! The gRPC side: what `proto/iap/v1` promises, answered from pools' statuses and passed on as
//! commands. Holds no state and names neither Incus nor Azure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use iap_common::v1;
use iap_common::v1::agent_service_server::AgentServiceServer;
use iap_common::v1::daemon_service_server::DaemonServiceServer;
use iap_common::v1::history_service_server::HistoryServiceServer;
use iap_common::v1::image_service_server::ImageServiceServer;
use iap_common::v1::pool_service_server::PoolServiceServer;
use iap_common::v1::provision_service_server::ProvisionServiceServer;

use crate::daemon::health::IncusHealth;
use crate::doctor::Doctor;
use crate::intents::Intents;
use crate::members::Members;
use crate::pool::PoolHandle;
use crate::pool::status::PoolStatus;
use crate::provision::Provisioner;
use crate::reload::Reloader;
use crate::store::Store;
use crate::supervisor::Pools;

use viewers::LookOnlyLayer;

mod adoption;
mod agent;
mod audit;
mod changes;
mod convert;
mod daemon;
mod ended_log;
mod events;
mod ghosts;
mod history;
mod image;
mod intents;
mod keep;
mod members;
mod peer;
mod pool;
mod provision;
mod status;
mod viewers;

/// Finds clients that are gone without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A package upload comes in pieces of 1 MiB; scripts travel whole.
const LARGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// What the services answer from. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// All pools.
    pub pools: watch::Receiver<Pools>,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
    /// What operators want for a while.
    pub intents: Arc<Intents>,
    /// Makes images.
    pub provisioner: Provisioner,
    /// Whether Incus answers, and what it is.
    pub incus: watch::Receiver<Arc<IncusHealth>>,
    /// Looks for what is wrong.
    pub doctor: Doctor,
    /// The members of the cluster.
    pub members: watch::Receiver<Arc<Members>>,
    /// Which projects' event streams are connected.
    pub events: watch::Receiver<BTreeMap<String, bool>>,
    /// What is over.
    pub store: Store,
    /// When the daemon started.
    pub started_at: jiff::Timestamp,
    /// Ends all streams: an open one would keep the server from stopping.
    pub stop: CancellationToken,
}

impl Services {
    fn statuses(&self) -> Vec<Arc<PoolStatus>> {
        self.pools.borrow().iter().map(PoolHandle::status).collect()
    }

    /// Fails while a configured pool has not seen its agents: an agent that is not listed then is
    /// not gone. With `registrations` it has to have seen Azure, too; else having tried will do.
    fn check_agents_known(&self, registrations: bool) -> Result<(), tonic::Status> {
        let statuses = self.statuses();
        for pool in &self.reloader.spec().pools {
            let known = statuses.iter().any(|status| {
                let azure = &status.azure;
                let listed = azure.listed_at.is_some();
                status.spec.name == pool.name
                    && status.instances_known
                    && (listed || !registrations && azure.breaker.failures > 0)
            });
            if !known {
                let why = self.incus.borrow().problem();
                return Err(status::starting(&pool.name, why));
            }
        }
        Ok(())
    }

    /// Returns the pool that has an agent, and the agent's status.
    fn find_agent(
        &self,
        name: &str,
    ) -> Option<(
        PoolHandle,
        Arc<PoolStatus>,
        crate::pool::status::AgentStatus,
    )> {
        let pools = Arc::clone(&self.pools.borrow());
        pools.iter().find_map(|pool| {
            let status = pool.status();
            let agent = status
                .agents
                .iter()
                .find(|agent| agent.name == name)?
                .clone();
            Some((pool.clone(), status, agent))
        })
    }
}

/// Where the services are to be had.
#[derive(Default)]
pub struct Listeners {
    /// For those who may do everything.
    pub operators: Option<UnixListener>,
    /// For those who may only look.
    pub viewers: Option<UnixListener>,
}

/// Serves until `stop`, then until calls in hand have ended.
pub async fn serve(
    listeners: Listeners,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let routes = routes(services.clone()).await;
    let all = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(routes.clone());
    let reads = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(LookOnlyLayer::new(services))
        .add_routes(routes);
    let operators = async {
        match listeners.operators {
            Some(listener) => {
                let connections = UnixListenerStream::new(listener);
                let stop = stop.clone().cancelled_owned();
                all.serve_with_incoming_shutdown(connections, stop).await
            }
            None => Ok(()),
        }
    };
    let viewers = async {
        match listeners.viewers {
            Some(listener) => {
                let connections = UnixListenerStream::new(listener);
                let stop = stop.clone().cancelled_owned();
                reads.serve_with_incoming_shutdown(connections, stop).await
            }
            None => Ok(()),
        }
    };
    tokio::try_join!(operators, viewers).map(|_| ())
}

async fn routes(services: Services) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PoolServiceServer<Services>>().await;
    health.set_serving::<AgentServiceServer<Services>>().await;
    health
        .set_serving::<ProvisionServiceServer<Services>>()
        .await;
    health.set_serving::<ImageServiceServer<Services>>().await;
    health.set_serving::<DaemonServiceServer<Services>>().await;
    health.set_serving::<HistoryServiceServer<Services>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were compiled by our own build script");
    Routes::new(health_service)
        .add_service(reflection)
        .add_service(PoolServiceServer::new(services.clone()))
        .add_service(AgentServiceServer::new(services.clone()))
        .add_service(
            ProvisionServiceServer::new(services.clone())
                .max_decoding_message_size(LARGEST_MESSAGE),
        )
        .add_service(ImageServiceServer::new(services.clone()))
        .add_service(HistoryServiceServer::new(services.clone()))
        .add_service(DaemonServiceServer::new(services))
}
