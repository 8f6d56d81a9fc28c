//! The agent's root directory and the files put into it: `.agent`, `.credentials` and the key.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::key::{AgentKey, KeyError};

/// Version told when the package carries none.
const DEFAULT_VERSION: &str = "4.275.0";

/// What keeps an agent from starting; the texts are the real agent's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("Not configured")]
    NotConfigured,
    #[error("Credentials not stored. Must reconfigure.")]
    NoCredentials,
    #[error("RSA key file {} was not found", .0.display())]
    NoKey(PathBuf),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not what the agent can read")]
    Json {
        name: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0}")]
    Invalid(String),
    #[error("the key of the agent cannot be used")]
    Key(#[source] KeyError),
}

/// The directory that holds `bin/` and the agent's files.
#[derive(Debug, Clone)]
pub struct Root(pub PathBuf);

/// `.agent`; only what matters to a plain agent pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub agent_id: i64,
    pub agent_name: String,
    pub pool_id: i64,
    pub server_url: String,
    pub work_folder: String,
    #[serde(default)]
    pub skip_capabilities_scan: bool,
    #[serde(default)]
    pub skip_session_recover: bool,
    /// Marks the agent as hosted by Microsoft; an orchestrator that writes it breaks its agents.
    agent_cloud_id: Option<String>,
}

/// `.credentials` with its key.
#[derive(Debug)]
pub struct Credentials {
    pub client_id: String,
    /// Audience of the assertion.
    pub authorization_url: String,
    /// Where the assertion goes.
    pub endpoint_url: String,
    pub key: AgentKey,
}

#[derive(Deserialize)]
struct CredentialData {
    scheme: String,
    data: BTreeMap<String, String>,
}

impl Root {
    /// Returns the root of the package the running program belongs to.
    ///
    /// # Errors
    /// Fails when the program's own path cannot be told or has no grandparent.
    pub fn of_this_program() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        program
            .parent()
            .and_then(Path::parent)
            .map(|root| Self(root.to_owned()))
            .ok_or_else(|| io::Error::other("the program is not in the bin directory of a package"))
    }

    /// Returns the version the package was made with, or that an update left behind.
    pub fn version(&self) -> String {
        fs::read_to_string(self.version_file())
            .map(|text| text.trim().to_owned())
            .ok()
            .filter(|version| !version.is_empty())
            .unwrap_or_else(|| DEFAULT_VERSION.to_owned())
    }

    /// Returns the file that holds the version.
    pub fn version_file(&self) -> PathBuf {
        self.0.join("bin/version.txt")
    }

    /// Finds the first directory from here up that cannot be listed, which the real agent refuses.
    ///
    /// # Errors
    /// Returns that directory and why.
    pub fn check_permission(&self) -> Result<(), FilesError> {
        for path in self.0.ancestors() {
            fs::read_dir(path).map_err(|source| FilesError::Read {
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Reads `.agent`.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn settings(&self) -> Result<Settings, FilesError> {
        let text = self.read(".agent", FilesError::NotConfigured)?;
        parse_settings(&text)
    }

    /// Reads `.credentials` and `.credentials_rsaparams`.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn credentials(&self) -> Result<Credentials, FilesError> {
        let text = self.read(".credentials", FilesError::NoCredentials)?;
        let name = ".credentials_rsaparams";
        let key = self.read(name, FilesError::NoKey(self.0.join(name)))?;
        parse_credentials(&text, AgentKey::from_json(&key).map_err(FilesError::Key)?)
    }

    fn read(&self, name: &str, missing: FilesError) -> Result<String, FilesError> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text
                .strip_prefix('\u{feff}')
                .map(str::to_owned)
                .unwrap_or(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing),
            Err(source) => Err(FilesError::Read { path, source }),
        }
    }
}

fn parse_settings(text: &str) -> Result<Settings, FilesError> {
    let settings: Settings = serde_json::from_str(text).map_err(|source| FilesError::Json {
        name: ".agent",
        source,
    })?;
    let invalid = |text: &str| Err(FilesError::Invalid(text.to_owned()));
    if settings.agent_cloud_id.is_some() {
        return invalid(".agent has agentCloudId, which only hosted agents have");
    }
    if settings.agent_id <= 0 || settings.pool_id <= 0 || settings.agent_name.is_empty() {
        return invalid(".agent names no agent or no pool");
    }
    if settings.work_folder.is_empty() {
        return invalid(".agent has an empty workFolder");
    }
    if url::Url::parse(&settings.server_url).is_err() {
        return invalid(".agent has no usable serverUrl");
    }
    Ok(settings)
}

fn parse_credentials(text: &str, key: AgentKey) -> Result<Credentials, FilesError> {
    let stored: CredentialData = serde_json::from_str(text).map_err(|source| FilesError::Json {
        name: ".credentials",
        source,
    })?;
    if stored.scheme != "OAuth" {
        return Err(FilesError::Invalid(format!(
            ".credentials has the scheme {}; only OAuth carries the agent's own key",
            stored.scheme
        )));
    }
    let member = |name: &str| {
        stored
            .data
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.clone())
    };
    let required = |name: &str| {
        member(name).ok_or_else(|| FilesError::Invalid(format!(".credentials has no {name}")))
    };
    let authorization_url = required("authorizationUrl")?;
    Ok(Credentials {
        client_id: required("clientId")?,
        endpoint_url: member("oauthEndpointUrl").unwrap_or_else(|| authorization_url.clone()),
        authorization_url,
        key,
    })
}

#[cfg(test)]
mod tests;
