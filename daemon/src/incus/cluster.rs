//! The members of a cluster.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Incus;
use super::error::IncusError;
use super::transport::{Ask, path};
use super::types::or_default;

/// A member, as the one that answered sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterMember {
    /// Its name.
    #[serde(rename = "server_name")]
    pub name: String,
    /// `Online`, `Offline`, `Evacuated`, ...
    pub status: String,
    /// The same in a sentence.
    pub message: String,
    /// The groups it is in.
    #[serde(deserialize_with = "or_default")]
    pub groups: Vec<String>,
    /// Its configuration, `scheduler.instance` among it.
    #[serde(deserialize_with = "or_default")]
    pub config: BTreeMap<String, String>,
}

impl Incus {
    /// Lists the members of the cluster.
    pub async fn cluster_members(&self) -> Result<Vec<ClusterMember>, IncusError> {
        let path = path(&["cluster", "members"], &[("recursion", "1")]);
        self.transport.sync(Ask::get("member_list", path)).await
    }

    /// Asks how many processors a member has.
    pub async fn member_cores(&self, member: &str) -> Result<usize, IncusError> {
        #[derive(Deserialize)]
        struct Resources {
            cpu: Cpu,
        }
        #[derive(Deserialize)]
        struct Cpu {
            total: usize,
        }
        let path = path(&["resources"], &[("target", member)]);
        let resources: Resources = self.transport.sync(Ask::get("resources_get", path)).await?;
        Ok(resources.cpu.total)
    }
}
