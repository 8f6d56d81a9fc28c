//! Images and the aliases that point at them.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::error::IncusError;
use super::operations::OperationId;
use super::requests::RemoteImage;
use super::transport::Ask;
use super::types::Image;
use super::{Project, found};

/// Removing an image from the store removes a subvolume or a large file.
const DELETION: Duration = Duration::from_secs(120);

impl Project {
    /// Asks what an alias points at.
    pub async fn alias(&self, alias: &str) -> Result<Option<String>, IncusError> {
        #[derive(Deserialize)]
        struct Entry {
            target: String,
        }
        let path = self.path(&["images", "aliases", alias], &[]);
        let entry: Option<Entry> = found(self.transport().sync(Ask::get("alias_get", path)).await)?;
        Ok(entry.map(|entry| entry.target))
    }

    /// Asks for an image.
    pub async fn image(&self, fingerprint: &str) -> Result<Option<Image>, IncusError> {
        let path = self.path(&["images", fingerprint], &[]);
        found(self.transport().sync(Ask::get("image_get", path)).await)
    }

    /// Lists its images.
    pub async fn images(&self) -> Result<Vec<Image>, IncusError> {
        let path = self.path(&["images"], &[("recursion", "1")]);
        self.transport().sync(Ask::get("image_list", path)).await
    }

    /// Points an alias at an image, in one step when it exists.
    pub async fn point_alias(
        &self,
        alias: &str,
        description: &str,
        fingerprint: &str,
    ) -> Result<(), IncusError> {
        let switch = || {
            let path = self.path(&["images", "aliases", alias], &[]);
            Ask::new("alias_switch", Method::PUT, path)
                .json(json!({"description": description, "target": fingerprint}))
        };
        match self.transport().done(switch()).await {
            Err(error) if error.is_not_found() => {}
            result => return result,
        }
        let path = self.path(&["images", "aliases"], &[]);
        let body = json!({"name": alias, "description": description, "target": fingerprint});
        let create = Ask::new("alias_create", Method::POST, path).json(body);
        match self.transport().done(create).await {
            Err(error) if error.is_conflict() => self.transport().done(switch()).await,
            result => result,
        }
    }

    /// Removes an alias. One that is gone already is fine.
    pub async fn delete_alias(&self, alias: &str) -> Result<(), IncusError> {
        let path = self.path(&["images", "aliases", alias], &[]);
        let ask = Ask::new("alias_delete", Method::DELETE, path);
        found(self.transport().done(ask).await).map(drop)
    }

    /// Removes an image and waits until it is gone. One that is gone already is fine.
    pub async fn delete_image(&self, fingerprint: &str) -> Result<(), IncusError> {
        let path = self.path(&["images", fingerprint], &[]);
        let ask = Ask::new("image_delete", Method::DELETE, path);
        let Err(error) = self.carry_out(ask, DELETION).await else {
            return Ok(());
        };
        match self.image(fingerprint).await {
            Ok(None) => Ok(()),
            _ => Err(error),
        }
    }

    /// Begins to make an image of a stopped instance; the ended operation names its fingerprint.
    pub async fn publish(
        &self,
        instance: &str,
        properties: BTreeMap<String, String>,
    ) -> Result<OperationId, IncusError> {
        let body = json!({
            "source": {"type": "instance", "name": instance},
            "properties": properties,
            "public": false,
        });
        let ask = Ask::new("image_publish", Method::POST, self.path(&["images"], &[]))
            .instance(instance)
            .json(body);
        self.transport()
            .begin(ask)
            .await
            .map(|operation| operation.id)
    }

    /// Begins to fetch an image from another server; the ended operation names its fingerprint.
    pub async fn copy_image(&self, source: &RemoteImage) -> Result<OperationId, IncusError> {
        let body = json!({"source": source.source(), "auto_update": false, "public": false});
        let ask = Ask::new("image_copy", Method::POST, self.path(&["images"], &[])).json(body);
        self.transport()
            .begin(ask)
            .await
            .map(|operation| operation.id)
    }
}
