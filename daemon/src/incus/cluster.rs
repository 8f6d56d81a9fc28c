//! The members of a cluster, and what is left of each.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Incus;
use super::error::IncusError;
use super::storage::StorageSpace;
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

/// What is left of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MemberState {
    /// Its memory.
    #[serde(rename = "sysinfo")]
    pub system: SystemInfo,
    /// Its storage pools by name.
    #[serde(deserialize_with = "or_default")]
    pub storage_pools: BTreeMap<String, PoolState>,
}

/// Memory in bytes, as the kernel counts it in `sysinfo(2)`: what files are kept in is not free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SystemInfo {
    /// All that there is.
    #[serde(rename = "total_ram")]
    pub total: u64,
    /// What nothing is in.
    #[serde(rename = "free_ram")]
    pub free: u64,
    /// Buffers, which can be had.
    #[serde(rename = "buffered_ram")]
    pub buffers: u64,
}

/// A storage pool on a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PoolState {
    /// How full it is.
    pub space: StorageSpace,
}

/// What a server is made of. Incus answers with what it found out a while ago, 6.0.4 for as long
/// as it runs: only what does not change is to be relied on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Its processors.
    pub cpu: Processors,
    /// Its memory.
    pub memory: Memory,
}

/// Processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Processors {
    /// How many.
    pub total: usize,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What is used and not for files.
    pub used: u64,
    /// All that there is.
    pub total: u64,
}

impl Incus {
    /// Lists the members of the cluster.
    pub async fn cluster_members(&self) -> Result<Vec<ClusterMember>, IncusError> {
        let path = path(&["cluster", "members"], &[("recursion", "1")]);
        self.transport.sync(Ask::get("member_list", path)).await
    }

    /// Asks a member how it is now.
    pub async fn member_state(&self, member: &str) -> Result<MemberState, IncusError> {
        let path = path(&["cluster", "members", member, "state"], &[]);
        self.transport
            .sync(Ask::get("member_state_get", path))
            .await
    }

    /// Asks a member what it is made of, or the server where there is no cluster.
    pub async fn resources(&self, member: Option<&str>) -> Result<Resources, IncusError> {
        let target = member.map(|member| ("target", member));
        let path = path(&["resources"], target.as_slice());
        self.transport.sync(Ask::get("resources_get", path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Scripted, json, refusal};

    #[tokio::test]
    async fn a_member_tells_its_memory_its_pools_and_its_processors() {
        let server = Scripted::new(|head| match head.split(' ').nth(1) {
            Some("/1.0/cluster/members/c2/state") => json(
                200,
                r#"{"sysinfo":{"uptime":750,"load_averages":[1,2,3],"total_ram":2400,
                    "free_ram":1400,"shared_ram":17,"buffered_ram":282,"processes":303},
                    "storage_pools":{"fast":{"space":{"used":40,"total":100},
                    "inodes":{"used":0,"total":0}}}}"#,
            ),
            Some("/1.0/resources?target=c2") => json(
                200,
                r#"{"cpu":{"architecture":"x86_64","total":4},
                    "memory":{"used":900,"total":2500,"nodes":[]},"load":{"Processes":9}}"#,
            ),
            Some("/1.0/resources") => json(200, r#"{"cpu":{"total":2}}"#),
            _ => refusal(404, 404, "Not Found"),
        });
        let state = server.incus.member_state("c2").await.unwrap();
        assert_eq!((state.system.free, state.system.buffers), (1400, 282));
        assert_eq!(state.system.total, 2400);
        let space = state.storage_pools["fast"].space;
        assert_eq!((space.used, space.total), (40, 100));
        let resources = server.incus.resources(Some("c2")).await.unwrap();
        assert_eq!(resources.cpu.total, 4);
        assert_eq!((resources.memory.used, resources.memory.total), (900, 2500));
        assert_eq!(server.incus.resources(None).await.unwrap().cpu.total, 2);
    }
}
