//! The configuration file as it is written: every key with its type, range, default and meaning.
//! Its JSON Schema is made from these types, and files are checked against that schema, so each of
//! these facts has this one home. What the keys add up to is worked out in `resolve`.
//!
//! Every field is optional here, `required` ones too: by the time a file has this type, what is
//! missing or wrong has been reported and dropped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::pool::spec::KeepWhen;

/// Configuration of iapd, the daemon that keeps pools of Azure Pipelines agents in Incus.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "iapd configuration", extend("patternProperties" = {"^x-": true}))]
pub(super) struct File {
    /// The pools of agents to keep.
    pub(super) pools: Option<Vec<Pool>>,
    /// How often the daemon looks.
    pub(super) daemon: Option<Daemon>,
    /// How Incus is reached.
    pub(super) incus: Option<Incus>,
    /// The port of `/metrics` (Prometheus); 0 switches it off.
    #[schemars(range(min = 0, max = 65535), extend("default" = 9922))]
    pub(super) metrics_port: Option<u16>,
    /// The IP address that `/metrics` listens on.
    #[schemars(extend("default" = "127.0.0.1"))]
    pub(super) metrics_address: Option<String>,
    /// The socket that iapctl talks to.
    pub(super) socket: Option<Socket>,
    /// Who this daemon is to Incus and Azure, when several share them. Derived from the machine
    /// unless given.
    pub(super) owner: Option<String>,
    /// Directory of the daemon's own records. Absolute.
    #[schemars(extend("default" = "/var/lib/iapd"))]
    pub(super) state_dir: Option<String>,
    /// How much is kept of agents that have ended.
    pub(super) history: Option<History>,
    /// What happens to jobs when the host shuts down.
    pub(super) shutdown: Option<Shutdown>,
}

/// A pool of like agents.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pool {
    /// The pool's name, unique in this file: letters, digits, `-`, `_` and `.`, first a letter. Also
    /// the pool's name in Azure unless `azure.pool` is given, and the first part of its agents' names.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// How many agents to keep.
    #[schemars(required, range(min = 1, max = 1000))]
    pub(super) agent_count: Option<u32>,
    /// How many more instances to keep booted, without an agent. When an agent ends, one of them
    /// becomes its successor at once; Azure knows nothing of them before.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub(super) spares: Option<u32>,
    /// The second part of its agents' names. The host's name unless given.
    pub(super) agent_prefix: Option<String>,
    /// How long a registered agent must be offline, without a job, before it is removed.
    #[schemars(extend("default" = "5m"))]
    pub(super) offline_grace_period: Option<DurationText>,
    /// Environment of the agent and its jobs. Azure publishes it to everyone who may see the agent:
    /// no place for secrets.
    pub(super) env: Option<BTreeMap<String, String>>,
    /// Agents to keep for debugging when they end. None unless given.
    pub(super) keep: Option<Keep>,
    /// The organisation and its agent pool.
    #[schemars(required)]
    pub(super) azure: Option<Azure>,
    /// What its instances are made of.
    #[schemars(required)]
    pub(super) incus: Option<Instance>,
}

/// Agents to keep for debugging when they end: with their files, out of service, for a while.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Keep {
    /// Which: those whose job failed (`job-failed`), those that never came online
    /// (`never-online`), or a list of both.
    #[schemars(required)]
    pub(super) when: Option<KeepWhenTexts>,
    /// How long.
    #[schemars(extend("default" = "2h"))]
    pub(super) ttl: Option<DurationText>,
    /// At most so many at a time; further ones end as usual.
    #[schemars(range(min = 1, max = 100), extend("default" = 1))]
    pub(super) max: Option<u32>,
}

/// One or several words for how an agent ended. The checker makes a list of a single one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct KeepWhenTexts(pub(super) Vec<String>);

impl JsonSchema for KeepWhenTexts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "KeepWhen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words = KeepWhen::ALL.map(KeepWhen::as_str);
        json_schema!({
            "type": ["array", "string"],
            "items": {"type": "string", "enum": words},
            "minItems": 1,
            // Of a single word, since `enum` would hold of a list as well.
            "pattern": format!("^({})$", words.join("|")),
            "examples": ["job-failed", words],
        })
    }
}

/// An Azure DevOps organisation, its agent pool, and the credential for it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["pat"]},
    {"required": ["patFile"]},
    {"required": ["servicePrincipal"]},
    {"required": ["managedIdentity"]},
    {"required": ["workloadIdentity"]},
]))]
pub(super) struct Azure {
    /// URL of the organisation or collection, such as `https://dev.azure.com/myorganization` or
    /// `http://my-azure-devops-server:8080/tfs`.
    #[schemars(required)]
    pub(super) url: Option<String>,
    /// Personal access token with the scope "Agent Pools (read, manage)". Exactly one of `pat`,
    /// `patFile`, `servicePrincipal`, `managedIdentity` and `workloadIdentity` must be given.
    #[schemars(extend("writeOnly" = true))]
    pub(super) pat: Option<String>,
    /// File that holds the token; read again when it changes. A relative path is taken from
    /// `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), else from this file's directory.
    pub(super) pat_file: Option<String>,
    /// An application in Entra ID that proves itself with a secret or a certificate.
    pub(super) service_principal: Option<ServicePrincipal>,
    /// The identity that Azure gives to the virtual machine that the daemon runs on.
    pub(super) managed_identity: Option<ManagedIdentity>,
    /// An application in Entra ID that trusts the tokens of another identity provider.
    pub(super) workload_identity: Option<WorkloadIdentity>,
    /// Where Entra ID is, for `servicePrincipal` and `workloadIdentity`.
    /// `https://login.microsoftonline.com` unless given.
    pub(super) authority_host: Option<String>,
    /// The agent pool's name in Azure. The pool's name here unless given.
    pub(super) pool: Option<String>,
    /// How often the agents are listed when nothing happens; half as often when nothing has changed
    /// for a while.
    #[schemars(extend("default" = "10s"))]
    pub(super) poll_interval: Option<DurationText>,
    /// File of CA certificates (PEM) to trust besides the system's. A relative path is taken from
    /// this file's directory.
    pub(super) ca_file: Option<String>,
}

/// An application in Entra ID that proves itself with a secret or a certificate.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
// Both ids and exactly one of the files. `oneOf` would say so, too, but not of what may be null.
#[schemars(extend("minProperties" = 3, "maxProperties" = 3))]
pub(super) struct ServicePrincipal {
    /// Id or domain of the directory.
    #[schemars(required)]
    pub(super) tenant_id: Option<String>,
    /// Id of the application.
    #[schemars(required)]
    pub(super) client_id: Option<String>,
    /// File that holds a client secret; read for each token. A relative path is taken like that of
    /// `patFile`. Either this or `certificateFile`.
    pub(super) client_secret_file: Option<String>,
    /// File that holds a certificate and its RSA private key (PEM, without a passphrase); read for
    /// each token. A relative path is taken like that of `patFile`.
    pub(super) certificate_file: Option<String>,
}

/// The identity that Azure gives to the virtual machine that the daemon runs on.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ManagedIdentity {
    /// Client id of a user-assigned identity. The machine's own identity, or its only one, unless
    /// given.
    pub(super) client_id: Option<String>,
}

/// An application in Entra ID that trusts the tokens of another identity provider.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadIdentity {
    /// Id or domain of the directory.
    #[schemars(required)]
    pub(super) tenant_id: Option<String>,
    /// Id of the application.
    #[schemars(required)]
    pub(super) client_id: Option<String>,
    /// File that holds the other provider's token; read for each token, since that provider
    /// renews it. A relative path is taken like that of `patFile`.
    #[schemars(required)]
    pub(super) token_file: Option<String>,
}

/// What the instances of a pool are made of.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Instance {
    /// Image alias, in the project.
    #[schemars(required)]
    pub(super) image: Option<String>,
    /// Incus project.
    #[schemars(extend("default" = "default"))]
    pub(super) project_name: Option<String>,
    /// Profiles, in order.
    #[schemars(extend("default" = ["default"]))]
    pub(super) profiles: Option<Vec<String>>,
    /// Virtual machines instead of system containers.
    #[schemars(extend("default" = false))]
    pub(super) vm: Option<bool>,
    /// CPUs that the guest has. No cap when 0 or absent.
    #[schemars(range(min = 0, max = 8192))]
    pub(super) max_cores: Option<u32>,
    /// Memory that the guest has, GiB. No cap when 0 or absent.
    #[schemars(range(min = 0, max = 65536))]
    pub(super) max_ram_in_gb: Option<u32>,
    /// Processes and threads that a container may have. No cap when 0 or absent.
    #[schemars(range(min = 0, max = 4194304))]
    pub(super) max_processes: Option<u32>,
    /// Size of a tmpfs on `/tmp`, GiB; containers only. None when 0 or absent.
    #[schemars(range(min = 0, max = 65536))]
    pub(super) tmpfs_size_in_gb: Option<u32>,
    /// Whether jobs may run containers (docker) in the agents' containers. A restricted Incus project
    /// may forbid it.
    #[schemars(extend("default" = true))]
    pub(super) nesting: Option<bool>,
    /// Size of the root disk, GiB. The profile's when 0 or absent.
    #[schemars(range(min = 0, max = 1048576))]
    pub(super) disk_size_in_gb: Option<u32>,
    /// Storage pool of the root disk. The profile's unless given.
    pub(super) storage_pool: Option<String>,
    /// Cluster member that they are placed on, or a group of members, as `@name`. Those with the
    /// most room unless given.
    pub(super) target: Option<String>,
    /// How long a new agent may take to come online. 1m for containers and 5m for virtual machines
    /// unless given.
    pub(super) startup_grace_period: Option<DurationText>,
}

/// How often the daemon looks.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Daemon {
    /// How often pools are looked at when nothing happens.
    #[schemars(extend("default" = "5s"))]
    pub(super) reconcile_interval: Option<DurationText>,
    /// How often agents are judged dead or alive.
    #[schemars(extend("default" = "30s"))]
    pub(super) reaper_interval: Option<DurationText>,
    /// How long a cluster member must be offline before its agents, if Azure shows them offline and
    /// without a job, are replaced on other members.
    #[schemars(extend("default" = "2m"))]
    pub(super) member_grace_period: Option<DurationText>,
    /// The connection for Incus's events.
    pub(super) listener: Option<Listener>,
}

/// The connection for Incus's events.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listener {
    /// The wait before the first reconnect; each further one doubles it.
    #[schemars(extend("default" = "1s"))]
    pub(super) retry_delay: Option<DurationText>,
    /// The longest wait before a reconnect.
    #[schemars(extend("default" = "1m"))]
    pub(super) max_retry_delay: Option<DurationText>,
}

/// How Incus is reached.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Incus {
    /// Path of Incus's socket. Where Incus puts it unless given. Absolute.
    pub(super) socket: Option<String>,
    /// An Incus on another host or a cluster, in place of the socket.
    pub(super) remote: Option<Remote>,
}

/// An Incus that is reached over TLS. `iapd --make-client-key` makes the files.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Remote {
    /// Where it listens, such as `https://incus.example.com:8443`. Of a cluster, a list of several
    /// members: when one fails, another serves.
    #[schemars(required)]
    pub(super) url: Option<Texts>,
    /// File of the daemon's certificate (PEM), which the server trusts. A relative path is taken
    /// like that of `patFile`.
    #[schemars(required)]
    pub(super) client_cert: Option<String>,
    /// File of that certificate's key (PEM, without a passphrase). A relative path is taken like
    /// that of `patFile`.
    #[schemars(required)]
    pub(super) client_key: Option<String>,
    /// File of the server's own certificate (PEM), which no other server may have. A relative path
    /// is taken like that of `patFile`.
    #[schemars(required)]
    pub(super) server_cert: Option<String>,
}

/// One or several texts. The checker makes a list of a single one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Texts(pub(super) Vec<String>);

impl JsonSchema for Texts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["array", "string"],
            "items": {"type": "string"},
            "minItems": 1,
        })
    }
}

/// How much is kept of agents that have ended.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct History {
    /// How long records, events and evidence are kept.
    #[schemars(extend("default" = "720h"))]
    pub(super) keep_for: Option<DurationText>,
    /// How much evidence (logs of ended agents) is kept, GiB; the oldest goes first.
    #[schemars(range(min = 0, max = 65536), extend("default" = 1))]
    pub(super) evidence_size_in_gb: Option<u32>,
}

/// What happens to jobs when the host shuts down.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Shutdown {
    /// How long a shutdown of the host waits for running jobs; it does not unless given. logind's
    /// `InhibitDelayMaxSec` has to be at least as long.
    pub(super) wait_for_jobs: Option<DurationText>,
}

/// The socket that iapctl talks to.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Socket {
    /// Its path. Absolute.
    #[schemars(extend("default" = "/run/iapd/iapd.sock"))]
    pub(super) path: Option<String>,
    /// Its mode, in octal digits.
    #[schemars(extend("default" = "0660"))]
    pub(super) mode: Option<String>,
    /// The group whose members may use it.
    #[schemars(extend("default" = "iapd"))]
    pub(super) group: Option<String>,
    /// The group whose members may look but not change, through a second socket beside this one
    /// (`iapd-view.sock`). Without such a group there is no second socket.
    #[schemars(extend("default" = "iapd-view"))]
    pub(super) view_group: Option<String>,
}

/// A duration as Go writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DurationText(pub(super) String);

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\+?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
            "examples": ["30s", "5m", "1h30m"],
        })
    }
}

/// Returns the schema of the file.
pub(super) fn schema() -> Schema {
    // One level of nesting reads better than references, and the checker needs not follow any.
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>()
}
