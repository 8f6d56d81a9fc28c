//! What members of the viewers' group may call. The socket that a call came through says what its
//! caller may do, so the kernel decides and no group is looked up here. Both sockets have the same
//! services; before those of the viewers' socket stands a list of the calls that only look. What
//! is not on it, known or not, is refused and written down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{Either, Ready, ready};
use hyper::{Request, Response};
use jiff::Timestamp;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::debug;

use crate::store::AuditEntry;

use super::{Services, peer, status};

/// Calls that change nothing, here or elsewhere, and show no secret.
const READS: &[&str] = &[
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/iap.v1.AgentService/GetAgent",
    "/iap.v1.AgentService/ListAgents",
    "/iap.v1.AgentService/ListGhosts",
    "/iap.v1.AgentService/StreamAgentLog",
    "/iap.v1.AgentService/WatchAgents",
    "/iap.v1.DaemonService/CheckAuth",
    "/iap.v1.DaemonService/Diagnose",
    "/iap.v1.DaemonService/GetConfig",
    "/iap.v1.DaemonService/GetStatus",
    "/iap.v1.DaemonService/GetVersion",
    "/iap.v1.DaemonService/ListMembers",
    "/iap.v1.HistoryService/GetEndedAgent",
    "/iap.v1.HistoryService/ListAuditEntries",
    "/iap.v1.HistoryService/ListEndedAgents",
    "/iap.v1.HistoryService/StreamEvents",
    "/iap.v1.ImageService/ListImages",
    "/iap.v1.PoolService/GetPool",
    "/iap.v1.PoolService/ListPools",
    "/iap.v1.PoolService/WatchPools",
    "/iap.v1.ProvisionService/GetProvisionJob",
    "/iap.v1.ProvisionService/ListProvisionJobs",
    "/iap.v1.ProvisionService/StreamProvisionLog",
    "/iap.v1.ProvisionService/WatchProvisionJob",
];

/// Calls for operators only, each with its name in the audit trail.
const CHANGES: &[(&str, &str)] = &[
    ("/iap.v1.AgentService/AdoptGhosts", "ghosts adopt"),
    ("/iap.v1.AgentService/DrainAgents", "agents drain"),
    ("/iap.v1.AgentService/ReapAgent", "agents reap"),
    ("/iap.v1.AgentService/KeepAgent", "agents keep"),
    ("/iap.v1.AgentService/ReleaseAgent", "agents release"),
    // Looks with the daemon's eyes at any file that the text names.
    ("/iap.v1.DaemonService/CheckConfig", "config check"),
    ("/iap.v1.DaemonService/DrainMember", "members drain"),
    ("/iap.v1.DaemonService/PauseHost", "drain"),
    ("/iap.v1.DaemonService/ReloadConfig", "config reload"),
    ("/iap.v1.DaemonService/ResumeHost", "resume"),
    ("/iap.v1.DaemonService/ResumeMember", "members resume"),
    ("/iap.v1.ImageService/PruneImages", "images prune"),
    ("/iap.v1.ImageService/RollbackImage", "images rollback"),
    ("/iap.v1.PoolService/PausePool", "pools pause"),
    ("/iap.v1.PoolService/RecyclePool", "pools recycle"),
    ("/iap.v1.PoolService/ResumePool", "pools resume"),
    ("/iap.v1.PoolService/RetryPool", "pools retry"),
    ("/iap.v1.PoolService/ScalePool", "pools scale"),
    (
        "/iap.v1.ProvisionService/CancelProvisionJob",
        "provision cancel",
    ),
    ("/iap.v1.ProvisionService/CreateProvisionJob", "provision"),
    (
        "/iap.v1.ProvisionService/UploadAgentPackage",
        "provision upload",
    ),
];
/// Stands in for a call that does not exist: its name is the caller's.
const UNKNOWN: &str = "unknown call";

/// The same refusal again within this time is not written down again: who may only look shall not
/// be able to fill the disk.
const SAME_REFUSAL: Duration = Duration::from_secs(60);

/// Puts the list before services.
#[derive(Clone)]
pub(super) struct LookOnlyLayer {
    services: Services,
    refused: Arc<Refusals>,
}

impl LookOnlyLayer {
    pub(super) fn new(services: Services) -> Self {
        Self {
            services,
            refused: Arc::default(),
        }
    }

    fn refuse(&self, request: &Request<Body>) -> Status {
        let path = request.uri().path();
        let command = command(path);
        let asker = peer::peer(request.extensions());
        let group = self.services.reloader.spec().socket.group.clone();
        let refusal = status::only_looks(command, &group);
        debug!(call = path, uid = asker.uid, "refused: a viewer's call");
        if self.refused.is_new(asker.uid, command, Instant::now()) {
            self.services.store.audit(AuditEntry {
                at: Timestamp::now(),
                uid: asker.uid,
                user: String::new(),
                command: command.to_owned(),
                target: String::new(),
                outcome: "refused: may only look".to_owned(),
            });
        }
        refusal
    }
}

impl<S> Layer<S> for LookOnlyLayer {
    type Service = LookOnly<S>;

    fn layer(&self, inner: S) -> LookOnly<S> {
        LookOnly {
            inner,
            layer: self.clone(),
        }
    }
}

/// Services behind the list.
#[derive(Clone)]
pub(super) struct LookOnly<S> {
    inner: S,
    layer: LookOnlyLayer,
}

impl<S> Service<Request<Body>> for LookOnly<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if READS.contains(&request.uri().path()) {
            return Either::Right(self.inner.call(request));
        }
        let refusal = self.layer.refuse(&request);
        Either::Left(ready(Ok(refusal.into_http())))
    }
}

fn command(path: &str) -> &'static str {
    let found = CHANGES.iter().find(|(change, _)| *change == path);
    found.map_or(UNKNOWN, |(_, command)| command)
}

/// Which refusals were written down lately. As many as there are viewers and commands.
#[derive(Default)]
struct Refusals(Mutex<HashMap<(Option<u32>, &'static str), Instant>>);

impl Refusals {
    fn is_new(&self, uid: Option<u32>, command: &'static str, now: Instant) -> bool {
        let mut written = self.0.lock().expect("no panic while held");
        written.retain(|_, at| now.duration_since(*at) < SAME_REFUSAL);
        let is_new = !written.contains_key(&(uid, command));
        if is_new {
            written.insert((uid, command), now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use iap_common::v1;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn paths(descriptors: &[u8]) -> BTreeSet<String> {
        let files = FileDescriptorSet::decode(descriptors).unwrap().file;
        let mut paths = BTreeSet::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let (service, method) = (service.name(), method.name());
                    paths.insert(format!("/{}.{service}/{method}", file.package()));
                }
            }
        }
        paths
    }

    #[test]
    fn each_call_there_is_is_either_for_viewers_or_for_operators() {
        let mut there_are = paths(v1::DESCRIPTORS);
        assert!(there_are.contains("/iap.v1.PoolService/ScalePool"));
        there_are.extend(paths(tonic_health::pb::FILE_DESCRIPTOR_SET));
        there_are.extend(paths(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        let changes = CHANGES.iter().map(|(path, _)| path);
        let listed: Vec<String> = READS.iter().chain(changes).map(|&p| p.into()).collect();
        let distinct: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(listed.len(), distinct.len(), "one is on both lists");
        assert_eq!(distinct, there_are);
    }

    #[test]
    fn the_same_refusal_is_written_down_once_a_minute() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.is_new(Some(7), "drain", now));
        assert!(!refusals.is_new(Some(7), "drain", now + SAME_REFUSAL / 2));
        assert!(refusals.is_new(Some(8), "drain", now));
        assert!(refusals.is_new(Some(7), "resume", now));
        assert!(refusals.is_new(Some(7), "drain", now + SAME_REFUSAL));
    }
}
