//! A daemon that answers what a test tells it to, over gRPC on a unix socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iap_common::v1;
use iap_common::v1::agent_service_server::AgentServiceServer;
use iap_common::v1::daemon_service_server::DaemonServiceServer;
use iap_common::v1::history_service_server::HistoryServiceServer;
use iap_common::v1::image_service_server::ImageServiceServer;
use iap_common::v1::pool_service_server::PoolServiceServer;
use iap_common::v1::provision_service_server::ProvisionServiceServer;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

mod services;

/// What happens on a stream.
#[derive(Clone)]
pub(crate) enum Beat<M> {
    Say(M),
    Pause(u64),
    Fail(Status),
    Hang,
}

/// What the streams of one kind do: the first one opened the first script, and so on; the last
/// script is repeated.
pub(crate) type Scripts<M> = Vec<Vec<Beat<M>>>;

/// The answers.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) status: v1::GetStatusResponse,
    pub(crate) version: String,
    pub(crate) config: v1::GetConfigResponse,
    pub(crate) checked: v1::CheckConfigResponse,
    pub(crate) reloaded: v1::ReloadConfigResponse,
    pub(crate) abilities: Vec<v1::AuthAbility>,
    pub(crate) checks: Vec<v1::Check>,
    pub(crate) pools: Vec<v1::Pool>,
    pub(crate) pool_changes: Scripts<Vec<v1::Pool>>,
    pub(crate) agents: Vec<v1::Agent>,
    pub(crate) agent_changes: Scripts<Vec<v1::Agent>>,
    pub(crate) ghosts: v1::ListGhostsResponse,
    pub(crate) adoption_plan: Scripts<v1::AdoptGhostsResponse>,
    pub(crate) adoption: Scripts<v1::AdoptGhostsResponse>,
    pub(crate) agent_log: Scripts<&'static str>,
    pub(crate) jobs: Vec<v1::ProvisionJob>,
    pub(crate) job_events: Scripts<v1::watch_provision_job_response::Event>,
    pub(crate) job_log: Scripts<&'static str>,
    pub(crate) images: Vec<v1::Image>,
    pub(crate) rolled_back: v1::RollbackImageResponse,
    pub(crate) pruned: v1::PruneImagesResponse,
    pub(crate) ended: Vec<v1::EndedAgent>,
    pub(crate) evidence: Vec<v1::EvidenceFile>,
    pub(crate) audit: Vec<v1::AuditEntry>,
    pub(crate) members: Vec<v1::Member>,
    pub(crate) events: Scripts<v1::Event>,
    /// Calls that fail, by the RPC's name.
    pub(crate) errors: HashMap<&'static str, Status>,
}

/// A running fake.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    state: Arc<State>,
    runtime: Runtime,
}

struct State {
    answers: Answers,
    calls: Mutex<Vec<String>>,
    opened: Mutex<HashMap<&'static str, usize>>,
}

type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl Fake {
    pub(crate) fn start(answers: Answers) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = State {
            answers,
            calls: Mutex::default(),
            opened: Mutex::default(),
        };
        let fake = Self {
            directory,
            state: Arc::new(state),
            runtime: runtime(),
        };
        fake.serve();
        fake
    }

    /// Breaks all connections, as a crash does, and serves again.
    pub(crate) fn crash(&mut self) {
        std::mem::replace(&mut self.runtime, runtime()).shutdown_background();
        std::fs::remove_file(self.socket()).unwrap();
        self.serve();
    }

    fn serve(&self) {
        let _in_runtime = self.runtime.enter();
        let listener = UnixListener::bind(self.socket()).unwrap();
        let state = &self.state;
        let server = Server::builder()
            .add_service(PoolServiceServer::from_arc(state.clone()))
            .add_service(AgentServiceServer::from_arc(state.clone()))
            .add_service(ProvisionServiceServer::from_arc(state.clone()))
            .add_service(ImageServiceServer::from_arc(state.clone()))
            .add_service(DaemonServiceServer::from_arc(state.clone()))
            .add_service(HistoryServiceServer::from_arc(state.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        self.runtime.spawn(server);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join("iapd.sock")
    }

    /// Returns a directory that the test may use.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the mutating calls so far, a line each.
    pub(crate) fn calls(&self) -> String {
        self.state.calls.lock().unwrap().join("\n")
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

impl State {
    /// Fails the call that a test wants to fail.
    fn check(&self, rpc: &'static str) -> Result<(), Status> {
        self.answers
            .errors
            .get(rpc)
            .map_or(Ok(()), |status| Err(status.clone()))
    }

    fn record(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    /// Plays the next script of a kind of stream.
    fn play<T, M>(
        &self,
        rpc: &'static str,
        scripts: &[Vec<Beat<T>>],
        message: fn(T) -> M,
    ) -> Result<Response<Messages<M>>, Status>
    where
        T: Clone + Send + 'static,
        M: Send + 'static,
    {
        self.check(rpc)?;
        let turn = {
            let mut opened = self.opened.lock().unwrap();
            let turn = opened.entry(rpc).or_default();
            *turn += 1;
            *turn - 1
        };
        let script = scripts
            .get(turn)
            .or(scripts.last())
            .cloned()
            .unwrap_or_default();
        let beats = tokio_stream::iter(script).then(move |beat| async move {
            match beat {
                Beat::Say(value) => Some(Ok(message(value))),
                Beat::Fail(status) => Some(Err(status)),
                Beat::Pause(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    None
                }
                Beat::Hang => std::future::pending().await,
            }
        });
        Ok(Response::new(Box::pin(beats.filter_map(|beat| beat))))
    }
}

/// Returns what the daemon ends its streams with when it stops.
pub(crate) fn stopping() -> Status {
    let details = ErrorDetails::with_error_info("STOPPING", "iapd", HashMap::new());
    Status::with_error_details(tonic::Code::Unavailable, "the daemon is stopping", details)
}

/// Returns the error for a name that is not known, with the daemon's hint.
pub(crate) fn not_found(message: &str, hint: &str) -> Status {
    let mut details = ErrorDetails::with_error_info("NOT_FOUND", "iapd", HashMap::new());
    details.set_help(vec![tonic_types::HelpLink::new(hint, "")]);
    Status::with_error_details(tonic::Code::NotFound, message, details)
}

/// Returns a pause by Ana, of just now.
pub(crate) fn pause(reason: &str, until: Option<prost_types::Timestamp>) -> v1::Pause {
    v1::Pause {
        reason: reason.to_owned(),
        who: Some(v1::Who {
            uid: Some(1000),
            user: "ana".to_owned(),
        }),
        since: super::data::ago(0),
        until,
        host_wide: false,
    }
}

/// Returns how many minutes ahead a time is, as the time itself: calls are compared as text.
fn rounded(at: Option<prost_types::Timestamp>) -> Option<prost_types::Timestamp> {
    let now = super::data::ago(0)?.seconds;
    let seconds = (at?.seconds - now + 30) / 60;
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}
