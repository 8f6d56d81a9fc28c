//! The Incus client: typed calls, bounded in time, over the server's unix socket or TLS. It knows neither
//! Azure nor pools, keeps no state but its connections, and never decides: it does what it is
//! asked, once, and tells what the server said.
//!
//! ```text
//!  instances images files exec operations     one file per part of the API, calls of `Project`
//!        │       storage  │     │              calls of `Incus`
//!        └───────┴──┬──┴─────┴──┘
//!               transport                      frame, limits, repeats, connections
//!                   │            events        a websocket of its own, reconnecting
//!                   └──────┬───────┘
//!                unix socket, or TLS           endpoint: which address serves
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::calls::CallObserver;

use transport::{Ask, Endpoint, Transport, path};

pub use cluster::{ClusterMember, MemberState, Memory, Resources};
pub use error::{CallSite, IncusError};
pub use events::{Lifecycle, StreamEvent};
pub use exec::{OutputStream, StreamLine};
pub use files::{FileInfo, FileKind, FileMeta};
pub use operations::{Operation, OperationId, OperationStatus, Waited};
pub use projects::Restrictions;
pub use requests::{Exec, ImageSource, InstancePatch, NewInstance, RemoteImage, StopMode};
pub use storage::{StoragePool, StorageSpace};
pub use transport::{Remote, RemoteError};
pub use trust::{ClientKey, Token, TrustError, fingerprint};
pub use types::{
    Address, Devices, Image, Instance, InstanceState, Interface, Profile, Server, Status,
};

mod cluster;
mod error;
mod events;
mod exec;
mod files;
mod images;
mod instances;
mod operations;
mod projects;
mod requests;
#[cfg(test)]
pub(crate) mod scripted;
mod storage;
mod tls;
mod transport;
mod trust;
mod types;
pub(crate) mod untrusted;

/// How long the client waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// For a fresh connection to prove itself; then another is tried, with twice the limit, three
    /// in all.
    pub greeting: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For a call as a whole, where its caller gives no deadline.
    pub call: Duration,
    /// For one turn of waiting for an operation.
    pub wait: Duration,
    /// Without a frame from the event stream, which the server pings every 10 s.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            call: Duration::from_secs(30),
            wait: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

/// A server. Clones share its connections.
#[derive(Clone)]
pub struct Incus {
    transport: Arc<Transport>,
}

/// A project of a server.
#[derive(Clone)]
pub struct Project {
    incus: Incus,
    name: String,
}

impl Incus {
    /// Returns a client of the server at a socket. Connects when it is first used.
    pub fn new(socket: PathBuf, observer: CallObserver) -> Self {
        Self::with_limits(socket, observer, Limits::default())
    }

    /// Does the same with other limits.
    pub fn with_limits(socket: PathBuf, observer: CallObserver, limits: Limits) -> Self {
        Self {
            transport: Arc::new(Transport::new(Endpoint::Unix(socket), observer, limits)),
        }
    }

    /// Returns a client of a server that is reached over TLS.
    pub fn remote(remote: Remote, observer: CallObserver) -> Self {
        let limits = Limits::default();
        Self {
            transport: Arc::new(Transport::new(Endpoint::Tls(remote), observer, limits)),
        }
    }

    /// Returns the calls that concern one project.
    pub fn project(&self, name: &str) -> Project {
        Project {
            incus: self.clone(),
            name: name.to_owned(),
        }
    }

    /// Returns where the server listens, for people.
    pub fn place(&self) -> String {
        self.transport.place()
    }

    /// Returns whether the server is on another host.
    pub fn is_remote(&self) -> bool {
        self.transport.is_remote()
    }

    /// Asks the server what it is and what it can do.
    pub async fn server(&self) -> Result<Server, IncusError> {
        self.transport
            .sync(Ask::get("server", path(&[], &[])))
            .await
    }

    /// Lists the instances of all projects that we may see.
    pub async fn instances_all_projects(&self) -> Result<Vec<Instance>, IncusError> {
        let query = [("recursion", "1"), ("all-projects", "true")];
        self.transport
            .sync(Ask::get("instance_list", path(&["instances"], &query)))
            .await
    }
}

impl Project {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the server it belongs to.
    pub fn incus(&self) -> &Incus {
        &self.incus
    }

    fn transport(&self) -> &Transport {
        &self.incus.transport
    }

    /// Returns a path in this project.
    fn path(&self, parts: &[&str], query: &[(&str, &str)]) -> String {
        let mut all = vec![("project", self.name.as_str())];
        all.extend_from_slice(query);
        path(parts, &all)
    }

    /// Returns the path of an instance or a part of it.
    fn instance_path(&self, name: &str, parts: &[&str], query: &[(&str, &str)]) -> String {
        let mut all = vec!["instances", name];
        all.extend_from_slice(parts);
        self.path(&all, query)
    }
}

/// Turns "not found" into `None`.
fn found<T>(result: Result<T, IncusError>) -> Result<Option<T>, IncusError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
