//! The parts of Incus's objects that the daemon reads. Absent, null and unknown fields are
//! tolerated: servers from 6.0 on differ in what they send.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// Device name to its settings.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// The server, as `GET /1.0` describes it. It keeps most to itself towards callers it does not
/// trust.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Optional features, by name.
    pub api_extensions: BTreeSet<String>,
    /// `trusted` when we may do more than look.
    pub auth: String,
    /// The version of Incus.
    pub version: String,
    /// The name of the host or cluster member that answered.
    pub name: String,
    /// Whether it is a cluster.
    pub is_clustered: bool,
    /// SHA-256 of its certificate.
    pub certificate_fingerprint: String,
    /// The storage drivers in use, such as `btrfs`.
    pub storage: String,
    /// The instance drivers, such as `lxc | qemu`.
    pub driver: String,
    /// The kernel's version.
    pub kernel_version: String,
    /// The kernel's architecture, such as `x86_64`.
    pub architecture: String,
}

impl Server {
    /// Returns whether the server has an optional feature.
    pub fn has_extension(&self, name: &str) -> bool {
        self.api_extensions.contains(name)
    }

    /// Returns whether the server lets us do more than look.
    pub fn is_trusted(&self) -> bool {
        self.auth == "trusted"
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Raw {
            #[serde(deserialize_with = "or_default")]
            api_extensions: BTreeSet<String>,
            auth: String,
            #[serde(deserialize_with = "or_default")]
            environment: Environment,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Environment {
            server_version: String,
            server_name: String,
            server_clustered: bool,
            certificate_fingerprint: String,
            storage: String,
            driver: String,
            kernel_version: String,
            kernel_architecture: String,
        }
        let Raw {
            api_extensions,
            auth,
            environment,
        } = Raw::deserialize(deserializer)?;
        Ok(Self {
            api_extensions,
            auth,
            version: environment.server_version,
            name: environment.server_name,
            is_clustered: environment.server_clustered,
            certificate_fingerprint: environment.certificate_fingerprint,
            storage: environment.storage,
            driver: environment.driver,
            kernel_version: environment.kernel_version,
            architecture: environment.kernel_architecture,
        })
    }
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It runs.
    Running,
    /// It runs and its guest has reported itself ready.
    Ready,
    /// It does not run.
    Stopped,
    /// It is suspended.
    Frozen,
    /// Its state cannot be told, as when its cluster member is lost.
    Error,
    /// It is about to run.
    Starting,
    /// It is about to stop.
    Stopping,
    /// None of these.
    Other,
}

impl Status {
    /// Returns whether the guest is up.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Ready)
    }

    /// Returns the meaning of a status code of the API.
    fn from_code(code: i64) -> Self {
        match code {
            103 => Self::Running,
            113 => Self::Ready,
            102 => Self::Stopped,
            110 => Self::Frozen,
            112 => Self::Error,
            106 => Self::Starting,
            107 => Self::Stopping,
            _ => Self::Other,
        }
    }
}

/// An instance, without its run-time state.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its name, unique in its project.
    pub name: String,
    /// Its project.
    #[serde(default)]
    pub project: String,
    /// What it is doing.
    #[serde(rename = "status_code", deserialize_with = "status")]
    pub status: Status,
    /// The same in the server's words.
    #[serde(rename = "status", default)]
    pub status_text: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Whether it is deleted when it stops.
    #[serde(default)]
    pub ephemeral: bool,
    /// When it was made.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// The cluster member it is on; `none` without a cluster.
    #[serde(default)]
    pub location: String,
    /// Its own configuration.
    #[serde(default, deserialize_with = "or_default")]
    pub config: BTreeMap<String, String>,
    /// The same with its profiles'.
    #[serde(default, deserialize_with = "or_default")]
    pub expanded_config: BTreeMap<String, String>,
    /// Its devices with its profiles'.
    #[serde(default, deserialize_with = "or_default")]
    pub expanded_devices: Devices,
    /// Its profiles.
    #[serde(default, deserialize_with = "or_default")]
    pub profiles: Vec<String>,
}

/// The run-time state of an instance; expensive for the server to find out.
#[derive(Debug, Clone, Deserialize)]
pub struct InstanceState {
    /// What it is doing.
    #[serde(rename = "status_code", deserialize_with = "status")]
    pub status: Status,
    /// The host's process id of its init; 0 when it does not run.
    #[serde(default)]
    pub pid: i64,
    /// How many processes it has; -1 when unknown.
    #[serde(default)]
    pub processes: i64,
    /// Its network interfaces.
    #[serde(default, deserialize_with = "or_default")]
    pub network: BTreeMap<String, Interface>,
}

/// A network interface in a guest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<Address>,
    /// `broadcast`, `loopback`, ...
    #[serde(rename = "type")]
    pub kind: String,
}

/// An address of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address without its mask.
    pub address: String,
    /// `local`, `link` or `global`.
    pub scope: String,
}

/// A profile.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its devices.
    #[serde(default, deserialize_with = "or_default")]
    pub devices: Devices,
    /// Its configuration.
    #[serde(default, deserialize_with = "or_default")]
    pub config: BTreeMap<String, String>,
}

/// An image in the server's store.
#[derive(Debug, Clone)]
pub struct Image {
    /// SHA-256 of it.
    pub fingerprint: String,
    /// `container` or `virtual-machine`.
    pub kind: String,
    /// What was recorded about it.
    pub properties: BTreeMap<String, String>,
    /// When it was made; for an image that does not say, when it was put into the store.
    pub created_at: Option<Timestamp>,
    /// The names that point at it.
    pub aliases: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            fingerprint: String,
            #[serde(rename = "type", default)]
            kind: String,
            #[serde(default, deserialize_with = "or_default")]
            properties: BTreeMap<String, String>,
            #[serde(default, deserialize_with = "time")]
            created_at: Option<Timestamp>,
            #[serde(default, deserialize_with = "time")]
            uploaded_at: Option<Timestamp>,
            #[serde(default, deserialize_with = "or_default")]
            aliases: Vec<Alias>,
            #[serde(default)]
            size: u64,
        }
        #[derive(Deserialize)]
        struct Alias {
            name: String,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            fingerprint: raw.fingerprint,
            kind: raw.kind,
            properties: raw.properties,
            created_at: raw.created_at.or(raw.uploaded_at),
            aliases: raw.aliases.into_iter().map(|alias| alias.name).collect(),
            size: raw.size,
        })
    }
}

/// Returns the instance that a path such as `/1.0/instances/a/state?project=b` is about.
pub(super) fn instance_of(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix("/1.0/instances/")?
        .split(['/', '?'])
        .next()?;
    (!name.is_empty()).then_some(name)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    i64::deserialize(deserializer).map(Status::from_code)
}

/// Go writes empty lists and maps as null.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Go writes "no time" as midnight of 1 January of the year 1, a published image says 1970.
pub(super) fn time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(Timestamp::from_str(&text)
        .ok()
        .filter(|time| *time > Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
