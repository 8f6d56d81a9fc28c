//! Changes of a target's images, each made while nothing else works on the target.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{Incus, Project};

use super::choose::{self, PruneRule};
use super::error::ImageError;
use super::publish;
use super::{Pruned, RollBack, RolledBack, Target, TargetImage, images, seen, uses};

type Reply<T> = oneshot::Sender<Result<T, ImageError>>;

/// A change that somebody waits for.
pub(in super::super) enum Change {
    RollBack(RollBack, Reply<RolledBack>),
    Prune(Target, PruneRule, Reply<Pruned>),
}

impl Change {
    /// Returns what nothing else may work on meanwhile.
    pub(in super::super) fn target(&self) -> &Target {
        match self {
            Self::RollBack(wish, _) => &wish.target,
            Self::Prune(target, ..) => target,
        }
    }

    /// Returns whether nobody waits any more: it must not happen behind anybody's back.
    pub(in super::super) fn is_given_up(&self) -> bool {
        match self {
            Self::RollBack(_, reply) => reply.is_closed(),
            Self::Prune(.., reply) => reply.is_closed(),
        }
    }

    /// Says that it is not made.
    pub(in super::super) fn refuse(self, error: ImageError) {
        // Who went away meanwhile is not told.
        match self {
            Self::RollBack(_, reply) => drop(reply.send(Err(error))),
            Self::Prune(.., reply) => drop(reply.send(Err(error))),
        }
    }

    /// Makes it, to the end, also when who asked goes away. `failed` are the jobs whose images do
    /// not count.
    pub(in super::super) async fn carry_out(self, incus: Incus, failed: BTreeSet<String>) {
        let project = incus.project(&self.target().project);
        match self {
            Self::RollBack(wish, reply) => {
                drop(reply.send(roll_back(&project, &failed, &wish).await));
            }
            Self::Prune(target, rule, reply) => {
                drop(reply.send(prune(&project, &failed, &target.alias, &rule).await));
            }
        }
    }
}

/// Returns what a rollback changes, from what Incus says now.
pub(super) async fn way_back(
    project: &Project,
    failed: &BTreeSet<String>,
    wish: &RollBack,
) -> Result<RolledBack, ImageError> {
    let target = &wish.target.alias;
    let images = images(project, failed).await?;
    let (from, to) = choose::way_back(&images, target, project.name(), &wish.to)?;
    let found = from.map_or("none", |from| from.fingerprint.as_str());
    if !wish.expected.is_empty() && wish.expected != found {
        return Err(ImageError::Moved {
            target: target.clone(),
            expected: wish.expected.clone(),
            found: found.to_owned(),
        });
    }
    let uses = uses(project.incus()).await?;
    let seen = |image| seen(image, project.name(), target, &uses);
    Ok(RolledBack {
        from: from.map(seen),
        to: seen(to),
    })
}

async fn roll_back(
    project: &Project,
    failed: &BTreeSet<String>,
    wish: &RollBack,
) -> Result<RolledBack, ImageError> {
    let mut found = way_back(project, failed, wish).await?;
    let (target, image) = (&wish.target.alias, &found.to.fingerprint);
    let description = format!("rolled back by {}", wish.by);
    publish::point_at(project, target, &description, image)
        .await
        .map_err(ImageError::incus("point the alias at the image"))?;
    info!(
        target_alias = target,
        project = project.name(),
        fingerprint = image,
        by = wish.by,
        "rolled back"
    );
    found.to.is_current = true;
    if let Some(from) = &mut found.from {
        from.is_current = false;
    }
    Ok(found)
}

/// Returns the images of a target that nobody needs, from what Incus says now.
pub(super) async fn outdated(
    project: &Project,
    failed: &BTreeSet<String>,
    target: &str,
    rule: &PruneRule,
) -> Result<Vec<TargetImage>, ImageError> {
    let images = images(project, failed).await?;
    let uses = uses(project.incus()).await?;
    let used: BTreeSet<String> = uses.keys().cloned().collect();
    let found = choose::outdated(&images, target, rule, &used);
    Ok(found
        .into_iter()
        .map(|image| seen(image, project.name(), target, &uses))
        .collect())
}

/// Removes the images of a target that nobody needs. Nothing else may work on the target.
pub(in super::super) async fn prune(
    project: &Project,
    failed: &BTreeSet<String>,
    target: &str,
    rule: &PruneRule,
) -> Result<Pruned, ImageError> {
    let mut pruned = Pruned::default();
    for image in outdated(project, failed, target, rule).await? {
        let fingerprint = &image.fingerprint;
        match project.delete_image(fingerprint).await {
            Ok(()) => {
                info!(target_alias = target, fingerprint, "old image removed");
                pruned.images.push(image);
            }
            Err(error) => {
                let error = chain(&error).to_string();
                warn!(
                    target_alias = target,
                    fingerprint, error, "old image not removed"
                );
                pruned.failed.push((image, error));
            }
        }
    }
    Ok(pruned)
}
