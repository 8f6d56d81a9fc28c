//! The images of targets: which there are, the way back to an older one, and the removal of those
//! that nobody needs.
//!
//! ```text
//!  Provisioner ── list, dry runs ──────────────────────────────► Incus   (reads)
//!  (handle)    ── Change ─► task: when nothing else works on ──► Incus   (alias, images)
//!                           the target
//! ```
//!
//! What is changed is chosen anew in the task, from what Incus says then, so that a change never
//! rests on a list that a publish or another change has overtaken.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::agent::key;
use crate::incus::{Image, Incus, Project};

use super::publish::{self, AGENT_VERSION, BASE, BASE_FINGERPRINT, JOB, SCRIPTS, TARGET};
use super::queue::Target;
use super::{Command, JobState, Provisioner};

mod change;
mod choose;
mod error;

pub(super) use change::{Change, prune};
pub use choose::PruneRule;
pub use error::ImageError;

/// An image of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetImage {
    /// SHA-256 of it.
    pub fingerprint: String,
    /// Its Incus project.
    pub project: String,
    /// The alias that it was made for, or that points at it.
    pub target: String,
    /// That alias points at it.
    pub is_current: bool,
    /// A provision job made it.
    pub is_provisioned: bool,
    /// `container` or `virtual-machine`.
    pub kind: String,
    /// Version of the agent in it; empty when not known.
    pub agent_version: String,
    /// Its base as it was asked for.
    pub base: String,
    /// Fingerprint of the base.
    pub base_fingerprint: String,
    /// `name:SHA-256` of the scripts that ran in it.
    pub scripts: Vec<String>,
    /// The job that made it.
    pub job: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Bytes in the image store.
    pub size: u64,
    /// Instances made of it, whoever's.
    pub instances: usize,
}

/// A wish to point a target at an older image.
#[derive(Debug, Clone)]
pub struct RollBack {
    /// Which.
    pub target: Target,
    /// How the wanted image's fingerprint begins; empty: the one before.
    pub to: String,
    /// The present image as the asker knows it; empty: whatever it is.
    pub expected: String,
    /// Who asks, and why.
    pub by: String,
}

/// What a rollback changes, or has changed.
#[derive(Debug, Clone)]
pub struct RolledBack {
    /// The image before; `None` when there was no alias.
    pub from: Option<TargetImage>,
    /// The image now.
    pub to: TargetImage,
}

/// What was removed of a target's images, or would be.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// These.
    pub images: Vec<TargetImage>,
    /// Not these, and why.
    pub failed: Vec<(TargetImage, String)>,
}

impl Provisioner {
    /// Lists the images of all targets in these projects, and of these aliases there, a project
    /// and a target after the other, each with the newest first. A project that does not exist is
    /// an error. Without projects, those of the aliases and of jobs are meant, as far as they
    /// exist.
    pub async fn images(
        &self,
        asked: &BTreeSet<String>,
        aliases: &BTreeSet<Target>,
    ) -> Result<Vec<TargetImage>, ImageError> {
        let mut projects = asked.clone();
        if asked.is_empty() {
            projects.extend(aliases.iter().map(|alias| alias.project.clone()));
            projects.extend(self.jobs().iter().map(|job| job.project.clone()));
        }
        let uses = uses(&self.incus).await?;
        let mut found = Vec::new();
        for name in &projects {
            let project = self.incus.project(name);
            let images = match images(&project, &self.ledger.failed_jobs(name)).await {
                Err(ImageError::NoSuchProject(_)) if asked.is_empty() => continue,
                images => images?,
            };
            let made = images.iter().filter(|image| choose::is_provisioned(image));
            let made_for = made.filter_map(|image| image.properties.get(TARGET));
            let of_project = aliases.iter().filter(|alias| alias.project == *name);
            let targets: BTreeSet<&String> =
                made_for.chain(of_project.map(|name| &name.alias)).collect();
            for target in targets {
                let listed = choose::images_of(&images, target);
                found.extend(
                    listed
                        .into_iter()
                        .map(|image| seen(image, name, target, &uses)),
                );
            }
        }
        Ok(found)
    }

    /// Returns what a rollback would change.
    pub async fn way_back(&self, wish: &RollBack) -> Result<RolledBack, ImageError> {
        self.ledger.check_no_job(&wish.target)?;
        let project = self.incus.project(&wish.target.project);
        let failed = self.ledger.failed_jobs(project.name());
        change::way_back(&project, &failed, wish).await
    }

    /// Points a target at an older image, when nothing else works on it.
    pub async fn roll_back(&self, wish: RollBack) -> Result<RolledBack, ImageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Change::RollBack(wish, reply), answer).await
    }

    /// Returns what a removal of a target's old images would remove.
    pub async fn prunable(&self, target: &Target, rule: &PruneRule) -> Result<Pruned, ImageError> {
        self.ledger.check_no_job(target)?;
        let project = self.incus.project(&target.project);
        let failed = self.ledger.failed_jobs(project.name());
        let images = change::outdated(&project, &failed, &target.alias, rule).await?;
        Ok(Pruned {
            images,
            failed: Vec::new(),
        })
    }

    /// Removes a target's old images, when nothing else works on it.
    pub async fn prune(&self, target: Target, rule: PruneRule) -> Result<Pruned, ImageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Change::Prune(target, rule, reply), answer).await
    }

    async fn ask<T>(
        &self,
        change: Change,
        answer: oneshot::Receiver<Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let told = self.commands.send(Command::Change(Box::new(change))).await;
        told.map_err(|_| ImageError::Stopping)?;
        // The task drops what it has not begun when it stops.
        answer.await.unwrap_or(Err(ImageError::Stopping))
    }
}

impl super::Ledger {
    /// Returns the jobs of a project whose images nobody may start anything from.
    pub(super) fn failed_jobs(&self, project: &str) -> BTreeSet<String> {
        self.without_image().remove(project).unwrap_or_default()
    }

    /// Fails while a job for a target has not ended.
    pub(super) fn check_no_job(&self, target: &Target) -> Result<(), ImageError> {
        let under_way = self.unfinished().into_iter();
        let mut for_target = under_way.filter(|job| Target::of_job(job) == *target);
        match for_target.next() {
            None => Ok(()),
            Some(job) => Err(ImageError::JobUnderWay {
                target: job.target.clone(),
                job: job.id.clone(),
                state: match job.state {
                    JobState::Queued => "queued",
                    _ => "running",
                },
            }),
        }
    }
}

/// Lists a project's images, without what the sweep is about to remove: the images of jobs that
/// did not end well. A project that does not exist is an error.
async fn images(project: &Project, failed: &BTreeSet<String>) -> Result<Vec<Image>, ImageError> {
    let mut images = match project.images().await {
        Err(error) if error.is_not_found() => {
            return Err(ImageError::NoSuchProject(project.name().to_owned()));
        }
        images => images.map_err(ImageError::incus("list images"))?,
    };
    images.retain(|image| !publish::is_unwanted(image, failed));
    Ok(images)
}

/// Counts the instances of each image, in all projects: several can share their images.
async fn uses(incus: &Incus) -> Result<BTreeMap<String, usize>, ImageError> {
    let instances = incus.instances_all_projects().await;
    let instances = instances.map_err(ImageError::incus("list the instances made of images"))?;
    let mut uses = BTreeMap::new();
    for mut instance in instances {
        if let Some(image) = instance.config.remove(key::BASE_IMAGE) {
            *uses.entry(image).or_default() += 1;
        }
    }
    Ok(uses)
}

fn seen(image: &Image, project: &str, target: &str, uses: &BTreeMap<String, usize>) -> TargetImage {
    let property = |key: &str| image.properties.get(key).cloned().unwrap_or_default();
    TargetImage {
        fingerprint: image.fingerprint.clone(),
        project: project.to_owned(),
        target: target.to_owned(),
        is_current: choose::is_current(image, target),
        is_provisioned: choose::is_provisioned(image),
        kind: image.kind.clone(),
        agent_version: property(AGENT_VERSION),
        base: property(BASE),
        base_fingerprint: property(BASE_FINGERPRINT),
        scripts: scripts(&property(SCRIPTS)),
        job: property(JOB),
        created_at: image.created_at,
        size: image.size,
        instances: uses.get(&image.fingerprint).copied().unwrap_or(0),
    }
}

/// Reads `a.sh:<SHA-256> b c.sh:<SHA-256>`: names may have spaces, and end with their hash.
fn scripts(property: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut name = String::new();
    for word in property.split(' ') {
        name.push_str(word);
        let hash = word.rsplit_once(':').map_or("", |(_, hash)| hash);
        if super::request::is_sha256(hash) {
            found.push(std::mem::take(&mut name));
        } else {
            name.push(' ');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_apart_by_their_hashes() {
        let (a, b) = ("ab".repeat(32), "cd".repeat(32));
        let listed = scripts(&format!("a.sh:{a} my tools: 2.sh:{b}"));
        assert_eq!(listed, [format!("a.sh:{a}"), format!("my tools: 2.sh:{b}")]);
        assert!(scripts("").is_empty());
    }
}
