//! Why a call to Azure failed, in terms that policy can ask about.

use std::fmt::{Display, Formatter};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;

/// What was asked of Azure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who runs the service, and who we are to it.
    ConnectionData,
    /// An agent pool by name.
    FindPool,
    /// All agents of a pool.
    ListAgents,
    /// One agent.
    GetAgent,
    /// One agent by name.
    FindAgent,
    /// A new registration.
    CreateAgent,
    /// A registration's end.
    DeleteAgent,
    /// No more jobs for an agent.
    DisableAgent,
    /// An agent's user capabilities.
    SetCapabilities,
    /// The pool's queued and running jobs.
    ListJobs,
    /// Where the agent package is.
    FindPackage,
    /// The agent package itself.
    DownloadPackage,
    /// Whether agents may be changed.
    ProbeRights,
    /// An access token of an application.
    GetToken,
    /// An access token of the machine's managed identity.
    GetMachineToken,
}

impl Operation {
    /// Returns its name in metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConnectionData => "connection_data",
            Self::FindPool => "pool_find",
            Self::ListAgents => "agent_list",
            Self::GetAgent => "agent_get",
            Self::FindAgent => "agent_find",
            Self::CreateAgent => "agent_create",
            Self::DeleteAgent => "agent_delete",
            Self::DisableAgent => "agent_disable",
            Self::SetCapabilities => "agent_set_capabilities",
            Self::ListJobs => "job_list",
            Self::FindPackage => "package_find",
            Self::DownloadPackage => "package_download",
            Self::ProbeRights => "rights_probe",
            Self::GetToken => "token_get",
            Self::GetMachineToken => "machine_token_get",
        }
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ConnectionData => "ask Azure what it is",
            Self::FindPool => "find the agent pool",
            Self::ListAgents => "list the pool's agents",
            Self::GetAgent => "look at the agent",
            Self::FindAgent => "find the agent",
            Self::CreateAgent => "register the agent",
            Self::DeleteAgent => "delete the registration",
            Self::DisableAgent => "disable the agent",
            Self::SetCapabilities => "set the agent's capabilities",
            Self::ListJobs => "list the pool's jobs",
            Self::FindPackage => "find the agent package",
            Self::DownloadPackage => "download the agent package",
            Self::ProbeRights => "change agents of the pool",
            Self::GetToken => "get a token from Entra ID",
            Self::GetMachineToken => "get a token of this machine's managed identity",
        })
    }
}

/// Why Azure could not be asked, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// The configured URL is none of an organisation or collection.
    #[error("cannot use {url:?} as an organisation's URL: {reason}")]
    Url {
        /// As configured, without what could be a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The additional CA certificates cannot be read.
    #[error("cannot read the CA certificates in {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file of additional CA certificates holds none.
    #[error("no CA certificate in {path}")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The TLS client cannot be made: bad certificates, or no trust store.
    #[error("cannot prepare TLS (is the package ca-certificates installed?)")]
    Tls {
        /// What the library said.
        #[source]
        source: reqwest::Error,
    },
    /// The configured token is none.
    #[error("cannot use the configured token: {reason}")]
    Token {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file of the credential cannot be read.
    #[error("cannot read the credential in {path}")]
    ReadToken {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file of the credential holds none.
    #[error("cannot use the credential in {path}: {reason}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Azure will not have this credential, or not for this.
    #[error("cannot {operation}: Azure rejected the credential: {reason}")]
    Rejected {
        /// What was asked.
        operation: Operation,
        /// How Azure answered.
        status: StatusCode,
        /// The status and what it means.
        reason: String,
    },
    /// Azure answered with another status than success.
    #[error("cannot {operation}: HTTP {}{} ({path})", .status.as_u16(), said(.type_key, .message))]
    Status {
        /// What was asked.
        operation: Operation,
        /// How Azure answered.
        status: StatusCode,
        /// The exception's class; empty when the answer was not Azure's own.
        type_key: String,
        /// Azure's words; may be empty.
        message: String,
        /// What was asked for.
        path: String,
        /// How long Azure wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Not asked: Azure wants to be left alone for a while.
    #[error("cannot {operation}: Azure asked for a pause, which lasts another {} s", .retry_after.as_secs_f32().ceil())]
    Paused {
        /// What would have been asked.
        operation: Operation,
        /// What is left of the pause.
        retry_after: Duration,
    },
    /// No answer, or half of one.
    #[error("cannot {operation}: no answer from Azure")]
    Unreachable {
        /// What was asked.
        operation: Operation,
        /// What the connection died of.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("cannot {operation}: no answer from Azure within {} s", .after.as_secs_f32())]
    TimedOut {
        /// What was asked.
        operation: Operation,
        /// The deadline.
        after: Duration,
    },
    /// A successful answer that cannot be understood.
    #[error("cannot {operation}: Azure's answer makes no sense")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// A successful answer that lacks something, or has too much of it.
    #[error("cannot {operation}: Azure's answer {reason}")]
    Unusable {
        /// What was asked.
        operation: Operation,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent was registered, and Azure did not say how it can prove itself.
    #[error("cannot register the agent: Azure registered agent {agent_id} without an OAuth client")]
    NoAuthorization {
        /// The registration, to be deleted.
        agent_id: i64,
    },
    /// What was downloaded cannot be written.
    #[error("cannot write the downloaded file")]
    Write {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no token, and others wait for the same one.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// The caller gave up.
    #[error("cannot {operation}: cancelled")]
    Cancelled {
        /// What was asked.
        operation: Operation,
    },
}

impl AzureError {
    /// Returns whether the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self.own() {
            Self::Paused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::Unusable { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            _ => false,
        }
    }

    /// Returns whether Azure may have done what was asked, although it did not say so.
    pub fn may_have_worked(&self) -> bool {
        self.is_transient()
            // Nothing was asked without a token.
            && !matches!(self, Self::Paused { .. } | Self::Shared(_))
            && !matches!(self, Self::Status { status, .. } if status.is_client_error())
    }

    fn own(&self) -> &Self {
        match self {
            Self::Shared(error) => error.own(),
            own => own,
        }
    }

    /// Returns whether Azure itself says that the agent or its pool does not exist. Any other
    /// `404` (a wrong URL, a proxy) says nothing about agents.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::NOT_FOUND, type_key, .. }
            if type_key.starts_with("TaskAgent"))
    }

    /// Returns whether something of that name, or in that state, is in the way.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { status, type_key, .. }
            if *status == StatusCode::CONFLICT || type_key == "TaskAgentExistsException")
    }

    /// Returns whether the credential is no good, or not good enough, or cannot be read: somebody
    /// has to act.
    pub fn is_rejected(&self) -> bool {
        matches!(
            self.own(),
            Self::Rejected { .. }
                | Self::Token { .. }
                | Self::ReadToken { .. }
                | Self::TokenFile { .. }
        )
    }

    /// Returns whether it is the token that Azure would not have, rather than what was asked with
    /// it: another token may fare better.
    pub(super) fn is_about_the_token(&self) -> bool {
        matches!(self, Self::Rejected { status, .. }
            if matches!(status.as_u16(), 203 | 302 | 303 | 401))
    }

    /// Returns how long Azure wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.own() {
            Self::Paused { retry_after, .. } => Some(*retry_after),
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the class of Azure's exception; empty when there is none.
    pub(super) fn type_key(&self) -> &str {
        match self {
            Self::Status { type_key, .. } => type_key,
            _ => "",
        }
    }
}

fn said(type_key: &str, message: &str) -> String {
    match (type_key.is_empty(), message.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!(": {message}"),
        (false, true) => format!(" {type_key}"),
        (false, false) => format!(" {type_key}: {message}"),
    }
}
