//! The bodies the daemon sends to Incus.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::types::Devices;

/// An image on another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    /// The server's URL.
    pub server: String,
    /// `simplestreams` or `incus`.
    pub protocol: String,
    /// The alias there.
    pub alias: String,
    /// The server's certificate, when the system does not trust it.
    pub certificate: Option<String>,
    /// `container` or `virtual-machine`.
    pub kind: String,
}

/// What an instance is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A local image by its alias.
    Alias(String),
    /// A local image by its fingerprint.
    Fingerprint(String),
    /// An image the server fetches first.
    Remote(RemoteImage),
}

/// An instance to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstance {
    /// Its name; makes the request safe to look at again.
    pub name: String,
    /// `container` or `virtual-machine`.
    pub kind: String,
    /// What it is made from.
    pub alias: ImageSource,
    /// Its profiles, in order.
    pub profiles: Vec<String>,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
    /// Its devices.
    pub devices: Devices,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
    /// Whether it is started at once, in the same operation.
    pub start: bool,
    /// The cluster member or group (`@name`) it is placed on.
    pub target: Option<String>,
}

impl NewInstance {
    /// Returns the body of the request; the target travels in the query.
    pub fn body(&self) -> Value {
        let source = match &self.alias {
            ImageSource::Alias(alias) => json!({"type": "image", "alias": alias}),
            ImageSource::Fingerprint(fingerprint) => {
                json!({"type": "image", "fingerprint": fingerprint})
            }
            ImageSource::Remote(remote) => remote.source(),
        };
        json!({
            "name": self.name,
            "type": self.kind,
            "source": source,
            "profiles": self.profiles,
            "config": self.config,
            "devices": self.devices,
            "ephemeral": self.ephemeral,
            "start": self.start,
        })
    }
}

impl RemoteImage {
    pub(super) fn source(&self) -> Value {
        let mut source = json!({
            "type": "image",
            "mode": "pull",
            "server": self.server,
            "protocol": self.protocol,
            "alias": self.alias,
            "image_type": self.kind,
        });
        if let Some(certificate) = &self.certificate {
            source["certificate"] = json!(certificate);
        }
        source
    }
}

/// Changes to an instance. What is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstancePatch {
    /// Keys to set, or to unset (`None`).
    pub config: BTreeMap<String, Option<String>>,
    /// Whether it is deleted when it stops.
    pub ephemeral: Option<bool>,
}

impl InstancePatch {
    /// Returns a change of a single key; `None` unsets it.
    pub fn config(key: &str, value: Option<String>) -> Self {
        Self {
            config: BTreeMap::from([(key.to_owned(), value)]),
            ephemeral: None,
        }
    }

    pub(super) fn body(&self) -> Value {
        // An empty value unsets a key.
        let config: BTreeMap<&str, &str> = self
            .config
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref().unwrap_or_default()))
            .collect();
        let mut body = json!({"config": config});
        if let Some(ephemeral) = self.ephemeral {
            body["ephemeral"] = json!(ephemeral);
        }
        body
    }
}

/// How an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// At once.
    Force,
    /// By asking the guest, which gets this long.
    Clean {
        /// How long; whole seconds count.
        timeout: Duration,
    },
}

/// A command to run in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Additions to the environment.
    pub environment: BTreeMap<String, String>,
    /// The user id it runs as.
    pub user: u32,
    /// The group id it runs as.
    pub group: u32,
    /// Where it runs.
    pub cwd: Option<String>,
}

impl Exec {
    /// Returns a command run by root in its home.
    pub fn root<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    pub(super) fn body(&self) -> Value {
        let mut body = json!({
            "command": self.command,
            "environment": self.environment,
            "user": self.user,
            "group": self.group,
            "interactive": false,
        });
        if let Some(cwd) = &self.cwd {
            body["cwd"] = json!(cwd);
        }
        body
    }
}

#[cfg(test)]
mod tests;
