//! `ImageService`. Which images there are is asked of the provisioner, who uses them is known from
//! pools' statuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use iap_common::v1;
use iap_common::v1::image_service_server::ImageService;

use crate::agent::AgentState;
use crate::pool::command::Asker;
use crate::pool::status::{AgentStatus, PoolStatus};
use crate::provision::{PruneRule, Pruned, RollBack, RolledBack, Target, TargetImage};

use super::convert::timestamp;
use super::{Services, intents, peer, status};

/// What the audit trail calls these.
const ROLLBACK: &str = "images rollback";
const PRUNE: &str = "images prune";

/// What one agent makes of another image for its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is replaced at once.
    Now,
    /// It is replaced when its job ends.
    WithItsJob,
    /// It is what it would be, or on its way already.
    Never,
}

fn turn(agent: &AgentStatus, image: &str) -> Turn {
    if agent.image == image || agent.draining {
        return Turn::Never;
    }
    match agent.state {
        AgentState::Busy => Turn::WithItsJob,
        AgentState::Creating
        | AgentState::Registering
        | AgentState::Starting
        | AgentState::Idle
        | AgentState::Unknown => Turn::Now,
        AgentState::Finishing
        | AgentState::Stopping
        | AgentState::Deregistering
        | AgentState::Stuck
        | AgentState::Kept
        | AgentState::Spare => Turn::Never,
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// Returns a pool's alias in its project.
fn target_of(pool: &crate::pool::spec::PoolSpec) -> Target {
    Target {
        project: pool.instance.project.clone(),
        alias: pool.instance.image.clone(),
    }
}

/// What is used, and by whom.
struct Users {
    /// Pools' names and targets.
    pools: Vec<(String, Target)>,
    statuses: Vec<Arc<PoolStatus>>,
}

impl Users {
    fn pools_of(&self, image: &TargetImage) -> Vec<String> {
        let of = |target: &Target| target.project == image.project && target.alias == image.target;
        let pools = self.pools.iter().filter(|(_, target)| of(target));
        pools.map(|(pool, _)| pool.clone()).collect()
    }

    fn message(&self, image: &TargetImage) -> v1::Image {
        let origin = if image.is_provisioned {
            v1::ImageOrigin::Provisioned
        } else {
            v1::ImageOrigin::Foreign
        };
        let in_project = |status: &&Arc<PoolStatus>| status.spec.instance.project == image.project;
        let agents = self.statuses.iter().filter(in_project);
        let agents = agents.flat_map(|status| &status.agents);
        // Spares are instances of it, and no agents yet.
        let agents = agents.filter(|agent| agent.state != AgentState::Spare);
        v1::Image {
            fingerprint: image.fingerprint.clone(),
            project: image.project.clone(),
            target: image.target.clone(),
            current: image.is_current,
            origin: origin.into(),
            instance_type: image.kind.clone(),
            agent_version: image.agent_version.clone(),
            base: image.base.clone(),
            base_fingerprint: image.base_fingerprint.clone(),
            scripts: image.scripts.clone(),
            job: image.job.clone(),
            created_at: image.created_at.map(timestamp),
            size: image.size,
            pools: if image.is_current {
                self.pools_of(image)
            } else {
                Vec::new()
            },
            agents: count(agents.filter(|agent| agent.image == image.fingerprint)),
            instances: u32::try_from(image.instances).unwrap_or(u32::MAX),
        }
    }

    fn rolled_back(&self, change: &RolledBack) -> v1::RollbackImageResponse {
        let pools = self.pools_of(&change.to);
        let statuses = self.statuses.iter();
        let turns: Vec<Turn> = statuses
            .filter(|status| target_of(&status.spec) == target_of_image(&change.to))
            .flat_map(|status| &status.agents)
            .map(|agent| turn(agent, &change.to.fingerprint))
            .collect();
        let of = |which: Turn| count(turns.iter().filter(|turn| **turn == which));
        v1::RollbackImageResponse {
            from: change.from.as_ref().map(|image| self.message(image)),
            to: Some(self.message(&change.to)),
            pools,
            idle_agents: of(Turn::Now),
            busy_agents: of(Turn::WithItsJob),
        }
    }
}

fn target_of_image(image: &TargetImage) -> Target {
    Target {
        project: image.project.clone(),
        alias: image.target.clone(),
    }
}

/// Returns who asks and why, for the alias's description and the log.
fn by(asker: &Asker, reason: &str) -> String {
    let who = asker
        .uid
        .map_or_else(|| "somebody".to_owned(), |uid| format!("uid {uid}"));
    match reason {
        "" => who,
        reason => format!("{who}: {reason}"),
    }
}

impl Services {
    fn users(&self) -> Users {
        let statuses = self.statuses();
        let spec = self.reloader.spec();
        let leaving = statuses.iter().filter(|status| status.removed);
        let pools = spec
            .pools
            .iter()
            .chain(leaving.map(|status| &*status.spec))
            .map(|pool| (pool.name.clone(), target_of(pool)))
            .collect();
        Users { pools, statuses }
    }

    /// Lists the images in these projects, or in all that are known here.
    async fn images(
        &self,
        users: &Users,
        projects: Vec<String>,
        target: &str,
    ) -> Result<Vec<TargetImage>, Status> {
        let aliases = users.pools.iter().map(|(_, target)| target.clone());
        let aliases: BTreeSet<Target> = aliases.collect();
        let projects = projects.into_iter().collect();
        let images = self.provisioner.images(&projects, &aliases).await;
        let mut images = images.map_err(|error| status::image(&error))?;
        if !target.is_empty() {
            let known: BTreeSet<String> = images.iter().map(|i| i.target.clone()).collect();
            images.retain(|image| image.target == target);
            if images.is_empty() {
                let known = known.iter().map(String::as_str);
                return Err(status::no_such("target", target, known));
            }
        }
        Ok(images)
    }

    /// Returns the one target that is meant.
    async fn one_target(
        &self,
        users: &Users,
        alias: &str,
        project: &str,
    ) -> Result<Target, Status> {
        if alias.is_empty() {
            return Err(status::bad_request("name a target"));
        }
        let filled = Some(project.to_owned()).filter(|project| !project.is_empty());
        let images = self.images(users, filled.into_iter().collect(), alias);
        let targets: BTreeSet<Target> = images.await?.iter().map(target_of_image).collect();
        let mut targets = targets.into_iter();
        match (targets.next(), targets.next()) {
            (Some(target), None) => Ok(target),
            (one, another) => {
                let all = one.into_iter().chain(another).chain(targets);
                let projects: Vec<String> = all.map(|target| target.project).collect();
                Err(status::ambiguous_target(alias, &projects))
            }
        }
    }

    async fn roll_back(
        &self,
        request: v1::RollbackImageRequest,
        asker: &Asker,
    ) -> Result<v1::RollbackImageResponse, Status> {
        intents::check_reason(&request.reason)?;
        let users = self.users();
        let target = self.one_target(&users, &request.target, &request.project);
        let wish = RollBack {
            target: target.await?,
            to: request.to,
            expected: request.expected,
            by: by(asker, &request.reason),
        };
        let change = if request.dry_run {
            self.provisioner.way_back(&wish).await
        } else {
            self.provisioner.roll_back(wish).await
        };
        let change = change.map_err(|error| status::image(&error))?;
        Ok(users.rolled_back(&change))
    }

    async fn prune(
        &self,
        request: v1::PruneImagesRequest,
    ) -> Result<v1::PruneImagesResponse, Status> {
        let newer = request.newer() == v1::NewerImages::Remove;
        let only: BTreeSet<String> = request.only.into_iter().collect();
        let mut rule = PruneRule {
            newer,
            only: (!only.is_empty()).then_some(only),
            ..PruneRule::default()
        };
        if let Some(keep) = request.keep {
            rule.keep = usize::try_from(keep).unwrap_or(usize::MAX);
        }
        let users = self.users();
        let images = self.images(&users, request.projects, &request.target);
        let targets: BTreeSet<Target> = images.await?.iter().map(target_of_image).collect();
        let mut answer = v1::PruneImagesResponse::default();
        for target in targets {
            let pruned = if request.dry_run {
                self.provisioner.prunable(&target, &rule).await
            } else {
                self.provisioner.prune(target.clone(), rule.clone()).await
            };
            match pruned {
                Ok(pruned) => add(&mut answer, &users, &pruned),
                // Of one target, and while nothing is gone, the refusal is the answer.
                Err(error) if !request.target.is_empty() && answer.images.is_empty() => {
                    return Err(status::image(&error));
                }
                Err(error) => answer.problems.push(v1::PruneProblem {
                    message: iap_common::error::chain(&error).to_string(),
                    project: target.project,
                    target: target.alias,
                    fingerprint: String::new(),
                }),
            }
        }
        Ok(answer)
    }
}

fn add(answer: &mut v1::PruneImagesResponse, users: &Users, pruned: &Pruned) {
    let images = pruned.images.iter().map(|image| users.message(image));
    answer.images.extend(images);
    let failed = pruned.failed.iter();
    answer
        .problems
        .extend(failed.map(|(image, error)| v1::PruneProblem {
            project: image.project.clone(),
            target: image.target.clone(),
            fingerprint: image.fingerprint.clone(),
            message: error.clone(),
        }));
}

fn short(image: &v1::Image) -> String {
    image.fingerprint.chars().take(12).collect()
}

/// Returns what the audit trail says of a removal that has been carried out.
fn removed(target: &str, answer: &Result<v1::PruneImagesResponse, Status>) -> String {
    let of = if target.is_empty() { "all" } else { target };
    match answer {
        Ok(answer) if answer.images.is_empty() => format!("{of}: none"),
        Ok(answer) => {
            let images: Vec<String> = answer.images.iter().map(short).collect();
            format!("{of}: {}", images.join(", "))
        }
        Err(_) => of.to_owned(),
    }
}

/// Returns what the audit trail says of a rollback.
fn moved(
    request: &v1::RollbackImageRequest,
    answer: &Result<v1::RollbackImageResponse, Status>,
) -> String {
    let change = answer.as_ref().map_or_else(
        |_| String::new(),
        |answer| {
            let from = answer.from.as_ref().map(short);
            let to = answer.to.as_ref().map(short).unwrap_or_default();
            format!(": {} -> {to}", from.as_deref().unwrap_or("nothing"))
        },
    );
    let why = match request.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!("{}{change}{why}", request.target)
}

#[tonic::async_trait]
impl ImageService for Services {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let v1::ListImagesRequest { projects, target } = request.into_inner();
        let users = self.users();
        let images = self.images(&users, projects, &target).await?;
        Ok(Response::new(v1::ListImagesResponse {
            images: images.iter().map(|image| users.message(image)).collect(),
        }))
    }

    async fn rollback_image(
        &self,
        request: Request<v1::RollbackImageRequest>,
    ) -> Result<Response<v1::RollbackImageResponse>, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let answer = self.roll_back(request.clone(), &asker).await;
        if request.dry_run {
            return answer.map(Response::new);
        }
        let answer = self.audit(&asker, ROLLBACK, moved(&request, &answer), answer)?;
        Ok(Response::new(answer))
    }

    async fn prune_images(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let (target, dry_run) = (request.target.clone(), request.dry_run);
        let answer = self.prune(request).await;
        if dry_run {
            return answer.map(Response::new);
        }
        let answer = self.audit(&asker, PRUNE, removed(&target, &answer), answer)?;
        Ok(Response::new(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_trail_says_from_where_to_where_and_why() {
        let request = v1::RollbackImageRequest {
            target: "linux".to_owned(),
            reason: "node is broken".to_owned(),
            ..v1::RollbackImageRequest::default()
        };
        let image = |fingerprint: &str| v1::Image {
            fingerprint: fingerprint.to_owned(),
            ..v1::Image::default()
        };
        let answer = v1::RollbackImageResponse {
            from: Some(image("41ba0c5eed1122334455")),
            to: Some(image("9fd8d5c0ffee00112233")),
            ..v1::RollbackImageResponse::default()
        };
        assert_eq!(
            moved(&request, &Ok(answer)),
            "linux: 41ba0c5eed11 -> 9fd8d5c0ffee (node is broken)"
        );
        let gone = v1::PruneImagesResponse {
            images: vec![image("41ba0c5eed1122334455"), image("9fd8d5c0ffee00112233")],
            problems: Vec::new(),
        };
        assert_eq!(removed("", &Ok(gone)), "all: 41ba0c5eed11, 9fd8d5c0ffee");
        let refused = moved(&request, &Err(Status::internal("no")));
        assert_eq!(refused, "linux (node is broken)");
    }
}
