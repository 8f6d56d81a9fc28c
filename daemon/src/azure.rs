//! A client of Azure DevOps' agent pools: one organisation or collection and one credential.
//!
//! It knows the wire and nothing of Incus or of our pools. Every call has a deadline, is made
//! once and is reported to the observer; what a failure means for an agent is the caller's
//! business. Answers are complete or an error, since agents are deleted on their strength.
//!
//! ```text
//! agents, jobs, packages, access ──► transport ──► reqwest
//!   (one API call each)               │  ▲ auth  (the token: read again when its file changes, or
//!                                     │  │        fetched from Entra ID and renewed ahead of its end)
//!                                     │  └ pace  (the pause that Azure asked for)
//!                                     └ error, wire (what the answer says), clock (and when)
//! ```

mod access;
mod agents;
mod answer;
mod auth;
mod clock;
mod error;
mod jobs;
mod pace;
mod packages;
mod transport;
mod types;
pub(crate) mod untrusted;
mod wire;

use std::fmt::{Debug, Formatter};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

pub use self::auth::{Application, Credential, CredentialClock, Proof};
pub use self::error::{AzureError, Operation};
use self::transport::{Request, Transport};
pub use self::types::{
    Agent, AgentPool, CreatedAgent, Deleted, Deployment, JobRequest, NewAgent, Package, PublicKey,
};
use crate::calls::CallObserver;

/// How long calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a connection stands.
    pub connect: Duration,
    /// A whole call: Azure slows callers down by up to 30 s before it refuses them.
    pub call: Duration,
    /// A call that lists.
    pub list: Duration,
    /// A pause that Azure asked for is waited out up to this long.
    pub pause: Duration,
    /// A download has no end in sight, so this bounds the time without a byte.
    pub silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(60),
            list: Duration::from_secs(90),
            pause: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        }
    }
}

/// Azure DevOps, as seen with one credential. Clones share their connections, the cached token
/// and the pause that Azure asked for.
#[derive(Clone)]
pub struct Azure(Arc<Inner>);

struct Inner {
    transport: Transport,
    deployment: OnceCell<Deployment>,
}

impl Azure {
    /// Makes a client of the organisation or collection at `url`. Does not connect.
    ///
    /// `ca_file` names certificates (PEM) to trust besides the system's.
    pub fn new(
        url: &str,
        credential: Credential,
        ca_file: Option<&Path>,
        observer: CallObserver,
    ) -> Result<Self, AzureError> {
        Self::with_deadlines(url, credential, ca_file, observer, Deadlines::default())
    }

    /// Makes a client with other deadlines than the usual ones.
    pub fn with_deadlines(
        url: &str,
        credential: Credential,
        ca_file: Option<&Path>,
        observer: CallObserver,
        deadlines: Deadlines,
    ) -> Result<Self, AzureError> {
        let transport = Transport::new(url, credential, ca_file, observer, deadlines)?;
        Ok(Self(Arc::new(Inner {
            transport,
            deployment: OnceCell::new(),
        })))
    }

    /// Returns the organisation's or collection's URL, without a trailing slash.
    pub fn url(&self) -> &str {
        self.transport().url()
    }

    /// Returns whether Azure asked for a pause in the last minutes.
    pub fn is_throttled(&self) -> bool {
        self.transport().is_throttled()
    }

    /// Returns how far this host's clock is ahead of Azure's by the date of the last answer,
    /// negative when it is behind; `None` before the first.
    pub fn clock_offset(&self) -> Option<jiff::SignedDuration> {
        self.transport().clock_offset()
    }

    /// Returns whether the next call is made with another token than the last one was, because
    /// its file has changed.
    pub async fn has_new_token(&self) -> bool {
        self.transport().has_new_token().await
    }

    /// Returns what is known of how long the credential lasts.
    pub fn clock(&self) -> CredentialClock {
        self.transport().clock()
    }

    /// Returns whether this is Azure DevOps Services or a server of one's own. Asked once.
    pub async fn deployment(&self) -> Result<Deployment, AzureError> {
        self.0
            .deployment
            .get_or_try_init(|| self.ask_deployment())
            .await
            .copied()
    }

    /// Finds the agent pool called `name`, ignoring case as Azure does.
    pub async fn find_pool(&self, name: &str) -> Result<Option<AgentPool>, AzureError> {
        let request = Request::get(Operation::FindPool, "distributedtask/pools")
            .query("poolName", name)
            .query("poolType", "automation");
        let pools: Vec<wire::Pool> = self.transport().list(request).await?;
        let pool = pools
            .into_iter()
            .find(|pool| pool.name.eq_ignore_ascii_case(name));
        Ok(pool.map(AgentPool::from))
    }

    async fn ask_deployment(&self) -> Result<Deployment, AzureError> {
        let data = self.connection_data().await?;
        Ok(data
            .deployment()
            .unwrap_or_else(|| Deployment::of_host(self.transport().host())))
    }

    async fn connection_data(&self) -> Result<wire::ConnectionData, AzureError> {
        // Has no released version: the location service never left preview.
        let request = Request::get(Operation::ConnectionData, "connectionData")
            .version("6.0-preview.1")
            .query("connectOptions", "0")
            .query("lastChangeId", "0")
            .query("lastChangeId64", "0");
        self.transport().json(request).await
    }

    fn transport(&self) -> &Transport {
        &self.0.transport
    }
}

impl Debug for Azure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Azure")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
