//! What is wanted of a pool: the configuration, checked, with its defaults filled in.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::store::Retention;

/// A value that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value into custody.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Hands the value out, to be sent where it belongs and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Display for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Everything the daemon does, as one value. A reload replaces it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    /// The pools, in the file's order.
    pub pools: Vec<PoolSpec>,
    /// Where Incus is.
    pub incus: IncusSpec,
    /// `host:port` of `/metrics`; `None` when it is switched off (port 0).
    pub metrics: Option<std::net::SocketAddr>,
    /// The gRPC socket.
    pub socket: SocketSpec,
    /// The configured owner; derived from the machine when absent.
    pub owner: Option<String>,
    /// Where records that Incus and Azure cannot keep are kept.
    pub state_dir: PathBuf,
    /// The wait before the first reconnect to the Incus event stream, and the longest one.
    pub listener_retry: RetrySpec,
    /// How much history is kept.
    pub retention: Retention,
    /// How long a shutdown of the host waits for jobs; `None`: it does not.
    pub shutdown_wait: Option<std::time::Duration>,
}

/// Where Incus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncusSpec {
    /// On this host, behind a unix socket.
    Socket(PathBuf),
    /// On another, or on the members of a cluster.
    Remote(RemoteSpec),
}

impl IncusSpec {
    /// Returns whether agents run on another host than the daemon.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }
}

impl Display for IncusSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Remote(remote) => f.write_str(&remote.urls.join(", ")),
        }
    }
}

/// An Incus that is reached over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSpec {
    /// Where it listens; each will do.
    pub urls: Vec<String>,
    /// Our certificate, PEM.
    pub client_cert: PathBuf,
    /// Its key, PEM.
    pub client_key: PathBuf,
    /// The server's certificate, PEM: the only one that is accepted.
    pub server_cert: PathBuf,
}

/// The gRPC socket's place and rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSpec {
    /// Its path.
    pub path: PathBuf,
    /// Its mode bits, such as `0o660`.
    pub mode: u32,
    /// Its group's name.
    pub group: String,
    /// The group whose members may only look, through a socket of their own.
    pub view_group: String,
}

/// Exponential waits between reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySpec {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// What is wanted of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// The pool's name here; unique.
    pub name: String,
    /// How many agents to keep, 0 to 1000.
    pub agent_count: u32,
    /// How many more instances to keep booted and unregistered, 0 to 1000.
    pub spares: u32,
    /// Second part of agents' names: `agentPrefix`, else the host's name.
    pub agent_prefix: String,
    /// How long a registered agent may be offline before it is reaped.
    pub offline_grace: Duration,
    /// How long a new agent may take to come online.
    pub startup_grace: Duration,
    /// Set in the agent's environment. Azure publishes it as capabilities: no place for secrets.
    pub env: BTreeMap<String, String>,
    /// Which Azure pool its agents belong to.
    pub azure: AzureSpec,
    /// What its instances are made of.
    pub instance: InstanceSpec,
    /// How often to look without being woken.
    pub reconcile_interval: Duration,
    /// How often to judge whether agents are dead.
    pub reaper_interval: Duration,
    /// How long a cluster member has to be offline before its agents are replaced on others.
    pub member_grace: Duration,
    /// Which agents are kept for debugging when they end; none when absent.
    pub keep: Option<KeepSpec>,
}

impl PoolSpec {
    /// Returns how many instances the host has to carry for it.
    pub fn guests(&self) -> u32 {
        self.agent_count.saturating_add(self.spares)
    }
}

/// Which agents are kept for debugging when they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepSpec {
    /// Those that ended so.
    pub when: Vec<KeepWhen>,
    /// For how long.
    pub ttl: Duration,
    /// At most so many at a time. Those that operators keep do not count.
    pub max: u32,
}

/// How long agents are kept unless something else is said.
pub const KEEP_TTL: Duration = Duration::from_secs(2 * 60 * 60);

/// How an agent ended that a pool keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepWhen {
    /// Its job failed.
    JobFailed,
    /// It never came online.
    NeverOnline,
}

impl KeepWhen {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::JobFailed, Self::NeverOnline];

    /// Returns the word used in the configuration and on instances.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobFailed => "job-failed",
            Self::NeverOnline => "never-online",
        }
    }
}

/// An Azure DevOps organisation and an agent pool in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureSpec {
    /// Organisation or collection URL, without a trailing slash.
    pub url: String,
    /// The agent pool's name in Azure.
    pub pool: String,
    /// What the daemon proves itself with.
    pub credential: CredentialSpec,
    /// How often the agents are listed when nothing happens.
    pub poll_interval: Duration,
    /// Additional CA certificates, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Where the credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSpec {
    /// A personal access token in the configuration itself.
    Pat(Secret),
    /// A file that holds one; read again when it changes.
    PatFile(PathBuf),
    /// An application in Entra ID.
    Application(ApplicationSpec),
    /// The identity that Azure gives to the machine.
    ManagedIdentity {
        /// Which one, if the machine has several.
        client_id: Option<String>,
        /// Where the machine's metadata service is.
        endpoint: String,
    },
}

/// An application in Entra ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationSpec {
    /// Where Entra ID is, without a trailing slash.
    pub authority_host: String,
    /// Its directory.
    pub tenant_id: String,
    /// Its id.
    pub client_id: String,
    /// What it proves itself with.
    pub proof: ProofSpec,
}

/// What an application proves itself with. The files are read for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofSpec {
    /// A service principal's secret.
    ClientSecret(PathBuf),
    /// A service principal's certificate and its private key, PEM.
    Certificate(PathBuf),
    /// A token of an identity provider that the application trusts.
    FederatedToken(PathBuf),
}

impl ProofSpec {
    /// Returns the file that it is in.
    pub fn file(&self) -> &PathBuf {
        match self {
            Self::ClientSecret(file) | Self::Certificate(file) | Self::FederatedToken(file) => file,
        }
    }
}

/// Containers or virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceKind {
    /// A system container.
    Container,
    /// A virtual machine.
    VirtualMachine,
}

impl InstanceKind {
    /// Returns the name that the Incus API uses.
    pub fn api_name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

/// What an instance is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Container or virtual machine.
    pub kind: InstanceKind,
    /// Incus project.
    pub project: String,
    /// Image alias in that project.
    pub image: String,
    /// Profiles, in order.
    pub profiles: Vec<String>,
    /// A real cap: the guest sees that many CPUs.
    pub max_cores: Option<u32>,
    /// Memory cap, GiB.
    pub max_ram_gib: Option<u32>,
    /// Size of a tmpfs on the agent's work folder's `/tmp`, GiB; none when absent.
    pub tmpfs_gib: Option<u32>,
    /// Root disk size, GiB.
    pub disk_gib: Option<u32>,
    /// Storage pool of the root disk; the profile's when absent.
    pub storage_pool: Option<String>,
    /// Cap on processes.
    pub max_processes: Option<u32>,
    /// Containers may run containers; without meaning for virtual machines.
    pub nesting: bool,
    /// Cluster member, or group of members (`@name`), that they are placed on; any when absent.
    pub target: Option<String>,
}
