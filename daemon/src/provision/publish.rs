//! From a stopped builder to an image that agents are started from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{Image, IncusError, NewInstance, Project};

use super::context::Context;
use super::error::StepError;
use super::images::{self, PruneRule};
use super::ownership;

/// Image properties.
pub(super) const TARGET: &str = "iapd.target";
pub(super) const JOB: &str = "iapd.job";
pub(super) const BASE: &str = "iapd.base";
pub(super) const BASE_FINGERPRINT: &str = "iapd.base-fingerprint";
pub(super) const AGENT_VERSION: &str = "iapd.agent-version";
pub(super) const SCRIPTS: &str = "iapd.scripts";
/// The image that the target was when this one was made: what to go back to.
pub(super) const REPLACES: &str = "iapd.replaces";

/// Packing tens of GiB on a slow disk.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(60 * 60);
const WARM_DEADLINE: Duration = Duration::from_secs(30 * 60);
const REMOVE_DEADLINE: Duration = Duration::from_secs(60);

/// Makes an image of a stopped instance and returns its fingerprint.
pub(super) async fn publish(
    cx: &Context,
    instance: &str,
    properties: BTreeMap<String, String>,
    job: &str,
) -> Result<String, StepError> {
    let what = "publish the image";
    let begun = cx.project.publish(instance, properties).await;
    let operation = begun.map_err(StepError::incus(what))?;
    // Operations of this kind do not name the instance they read, so who comes after a crash could
    // not tell that the builder is in use.
    cx.progress
        .job(|job| job.publish_operation = Some(operation.to_string()));
    let ended = cx.wait(what, operation, PUBLISH_DEADLINE).await?;
    let told = ended.and_then(|operation| {
        operation
            .metadata
            .get("fingerprint")?
            .as_str()
            .map(str::to_owned)
    });
    if let Some(fingerprint) = told {
        return Ok(fingerprint);
    }
    let images = cx.project.images().await.map_err(StepError::incus(what))?;
    images
        .into_iter()
        .find(|image| {
            image
                .properties
                .get(JOB)
                .is_some_and(|made_by| made_by == job)
        })
        .map(|image| image.fingerprint)
        .ok_or_else(|| StepError::Operation {
            what,
            message: "there is no image".to_owned(),
        })
}

/// Creates one instance of the image and removes it: the first one unpacks the image, which takes
/// longer than all that follow.
pub(super) async fn warm(cx: &Context, new: &NewInstance) -> Result<(), StepError> {
    let what = "create an instance of the new image";
    let operation = cx
        .project
        .create(new)
        .await
        .map_err(StepError::incus(what))?;
    cx.wait(what, operation, WARM_DEADLINE).await?;
    // The image is as good with it still there; the sweep finds it.
    let removed = ownership::remove(&cx.incus, &cx.project, &new.name, REMOVE_DEADLINE).await;
    if let Err(error) = removed {
        let name = &new.name;
        cx.progress.line(&format!(
            "warning: {name} is not removed yet: {}",
            chain(&error)
        ));
    }
    Ok(())
}

/// Points a target's alias at an image, in one request.
pub(super) async fn point_at(
    project: &Project,
    target: &str,
    description: &str,
    image: &str,
) -> Result<(), IncusError> {
    let Err(error) = project.point_alias(target, description, image).await else {
        return Ok(());
    };
    // It may have been done and only the answer lost.
    match project.alias(target).await {
        Ok(Some(points_at)) if points_at == image => Ok(()),
        _ => Err(error),
    }
}

/// Removes the target's old images beyond the newest few. What cannot be removed is left: it only
/// takes space.
pub(super) async fn prune(project: &Project, failed: &BTreeSet<String>, target: &str) {
    let pruned = images::prune(project, failed, target, &PruneRule::default()).await;
    if let Err(error) = pruned {
        warn!(target_alias = target, error = %chain(&error), "old images not listed");
    }
}

/// Removes what jobs that did not end well have published.
pub(super) async fn discard(project: &Project, jobs: &BTreeSet<String>) -> Result<(), IncusError> {
    for fingerprint in unwanted(project.images().await?, jobs) {
        project.delete_image(&fingerprint).await?;
        info!(fingerprint, "image of a job that did not end well removed");
    }
    Ok(())
}

/// Returns the images of these jobs that nobody has a purpose for.
fn unwanted(images: Vec<Image>, jobs: &BTreeSet<String>) -> Vec<String> {
    images
        .into_iter()
        .filter(|image| is_unwanted(image, jobs))
        .map(|image| image.fingerprint)
        .collect()
}

/// Returns whether one of these jobs made an image. One with an alias has been given a purpose by
/// somebody.
pub(super) fn is_unwanted(image: &Image, jobs: &BTreeSet<String>) -> bool {
    let made_by = image.properties.get(JOB);
    image.aliases.is_empty() && made_by.is_some_and(|job| jobs.contains(job))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(name: &str, day: u8, target: &str, aliases: &[&str]) -> Image {
        let aliases: Vec<_> = aliases.iter().map(|name| json!({"name": name})).collect();
        let properties = match target {
            "" => json!({"os": "debian"}),
            target => json!({TARGET: target, JOB: "91c2e0"}),
        };
        serde_json::from_value(json!({
            "fingerprint": name,
            "type": "container",
            "properties": properties,
            "created_at": format!("2026-01-{day:02}T00:00:00Z"),
            "aliases": aliases,
        }))
        .unwrap()
    }

    #[test]
    fn only_unnamed_images_of_the_jobs_are_unwanted() {
        let images = || {
            vec![
                image("left", 1, "linux", &[]),
                image("named", 2, "linux", &["rescued"]),
                image("foreign", 3, "", &[]),
            ]
        };
        assert_eq!(unwanted(images(), &["91c2e0".to_owned()].into()), ["left"]);
        assert!(unwanted(images(), &["0e2c19".to_owned()].into()).is_empty());
    }
}
