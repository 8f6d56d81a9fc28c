//! Storage pools: what they are and how full.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::IncusError;
use super::transport::{Ask, path};
use super::types::or_default;
use super::{Incus, found};

/// A storage pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StoragePool {
    /// Its name.
    pub name: String,
    /// What keeps its volumes, such as `btrfs` or `dir`.
    pub driver: String,
    /// Its configuration; `source` says what it is made on.
    #[serde(deserialize_with = "or_default")]
    pub config: BTreeMap<String, String>,
    /// `Created` when it can be used.
    pub status: String,
}

/// The space of a storage pool, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StorageSpace {
    /// What is used.
    pub used: u64,
    /// What there is; 0 when the server does not know.
    pub total: u64,
}

impl Incus {
    /// Asks for a storage pool.
    pub async fn storage_pool(&self, name: &str) -> Result<Option<StoragePool>, IncusError> {
        let ask = Ask::get("storage_pool_get", path(&["storage-pools", name], &[]));
        found(self.transport.sync(ask).await)
    }

    /// Asks how full a storage pool is.
    pub async fn storage_space(&self, name: &str) -> Result<StorageSpace, IncusError> {
        #[derive(Deserialize)]
        struct Resources {
            #[serde(default)]
            space: StorageSpace,
        }
        let parts = ["storage-pools", name, "resources"];
        let ask = Ask::get("storage_pool_resources", path(&parts, &[]));
        let resources: Resources = self.transport.sync(ask).await?;
        Ok(resources.space)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Scripted, json, refusal};

    #[tokio::test]
    async fn a_storage_pool_tells_its_driver_its_source_and_its_space() {
        let server = Scripted::new(|head| match head.split(' ').nth(1) {
            Some("/1.0/storage-pools/fast") => json(
                200,
                r#"{"config":{"source":"/disks/fast.img"},"name":"fast","driver":"btrfs",
                    "used_by":[],"status":"Created","locations":["none"]}"#,
            ),
            Some("/1.0/storage-pools/fast/resources") => json(
                200,
                r#"{"space":{"used":40,"total":100},"inodes":{"used":0,"total":0}}"#,
            ),
            _ => refusal(404, 404, "Storage pool not found"),
        });
        let pool = server.incus.storage_pool("fast").await.unwrap().unwrap();
        assert_eq!(
            (&*pool.driver, &*pool.config["source"]),
            ("btrfs", "/disks/fast.img")
        );
        let space = server.incus.storage_space("fast").await.unwrap();
        assert_eq!((space.used, space.total), (40, 100));
        assert_eq!(server.incus.storage_pool("slow").await.unwrap(), None);
    }
}
