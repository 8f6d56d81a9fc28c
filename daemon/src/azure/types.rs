//! What this client takes and gives.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Who runs the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// Azure DevOps Services: Microsoft.
    Hosted,
    /// Azure DevOps Server: somebody else.
    OnPremises,
}

impl Deployment {
    /// Returns whether Microsoft runs it.
    pub fn is_hosted(self) -> bool {
        self == Self::Hosted
    }

    /// Guesses from the host's name, for servers too old to say.
    pub(super) fn of_host(host: &str) -> Self {
        let host = host.to_ascii_lowercase();
        if host == "dev.azure.com" || host.ends_with(".visualstudio.com") {
            Self::Hosted
        } else {
            Self::OnPremises
        }
    }
}

/// An agent pool of the organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPool {
    /// Its id.
    pub id: i32,
    /// Its name as Azure spells it.
    pub name: String,
    /// Whether Azure may update the pool's agents; unknown when not said.
    pub auto_update: Option<bool>,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id in its pool; never used again.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The agent package's version.
    pub version: String,
    /// Whether jobs may be assigned to it.
    pub enabled: bool,
    /// Whether its listener has a session.
    pub online: bool,
    /// The job it has been given and has not ended. This is what makes it busy.
    pub assigned: Option<JobRequest>,
    /// The job it ended last; only when one agent was asked for.
    pub last_completed: Option<JobRequest>,
    /// System and user capabilities; the user's win.
    pub capabilities: BTreeMap<String, String>,
    /// When it was registered.
    pub created_on: Option<Timestamp>,
    /// When it last went online or offline.
    pub status_changed_on: Option<Timestamp>,
}

/// A job, queued or assigned or ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRequest {
    /// Its number in the pool's queue.
    pub request_id: i64,
    /// The job's GUID.
    pub job_id: String,
    /// The job's name in its pipeline.
    pub job_name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's name, such as `20261123.1`.
    pub run: String,
    /// Whom it runs for; empty when Azure does not say, which is the rule.
    pub requested_for: String,
    /// When it was queued.
    pub queue_time: Option<Timestamp>,
    /// When an agent was chosen.
    pub assign_time: Option<Timestamp>,
    /// When that agent took it.
    pub receive_time: Option<Timestamp>,
    /// When it ended.
    pub finish_time: Option<Timestamp>,
    /// How it ended, such as `succeeded`; `None` until then.
    pub result: Option<String>,
    /// What it wants of an agent, such as `Agent.OS -equals Linux`.
    pub demands: Vec<String>,
    /// The agent it was given to.
    pub agent_id: Option<i64>,
}

/// An agent to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// A name that no agent of the pool has.
    pub name: String,
    /// The version of the agent package that will run.
    pub version: String,
    /// Shown to people.
    pub os_description: String,
    /// The key whose private half the agent will prove itself with.
    pub public_key: PublicKey,
    /// What demands are matched against until the agent itself says what it has.
    pub system_capabilities: BTreeMap<String, String>,
}

/// An RSA public key; big-endian, without a sign byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// 256 bytes.
    pub modulus: Vec<u8>,
    /// Usually 65537.
    pub exponent: Vec<u8>,
}

/// A registration as Azure confirmed it: what its listener needs to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedAgent {
    /// Its id in its pool.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The OAuth client that it is.
    pub client_id: String,
    /// Where it gets its tokens; opaque, and the audience of its assertions byte by byte.
    pub authorization_url: String,
    /// The URL that Azure would have it use.
    pub server_url: Option<String>,
}

/// What became of a registration that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, now or since before.
    Gone,
    /// Azure keeps it because it has a job; in Azure's words.
    Busy(String),
}

/// A downloadable agent package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Such as `4.275.0`.
    pub version: String,
    /// Where it is.
    pub download_url: String,
    /// Its SHA-256, lower-case hex; absent when the server does not say one.
    pub sha256: Option<String>,
    /// Its file name; empty when not said.
    pub filename: String,
}
