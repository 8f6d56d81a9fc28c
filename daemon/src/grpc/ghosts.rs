//! Registrations without an instance here, and the removal of those of a host that is gone: a part
//! of `AgentService`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tonic::{Request, Status};

use iap_common::v1;

use crate::agent::AgentState;
use crate::pool::PoolHandle;
use crate::pool::command::PoolCommand;
use crate::pool::ghosts::{self, AdoptionStatus, Ghost, Sight, TargetState, Whose};
use crate::pool::status::{AgentStatus, PoolStatus};

use super::adoption::{AdoptionStream, Part};
use super::{Services, convert, peer, status};

/// Registrations in one request; an Azure pool has no more agents.
const LARGEST_ADOPTION: usize = 10_000;

/// An Azure pool, as one pool of ours sees it that uses it.
struct AzurePool {
    handle: PoolHandle,
    status: Arc<PoolStatus>,
    is_meant: bool,
}

impl AzurePool {
    fn url(&self) -> &str {
        &self.handle.key().azure_url
    }

    fn azure_pool(&self) -> &str {
        &self.handle.key().azure_pool
    }

    fn sight(&self) -> Sight<'_> {
        let spec = &self.status.spec;
        Sight {
            azure_pool: self.azure_pool(),
            seen: &self.status.ghosts,
            usable: self.status.azure.usable,
            interval: spec.azure.poll_interval,
            grace: spec.offline_grace,
            is_meant: self.is_meant,
        }
    }

    /// Returns what waits for its removal, and why.
    fn adopted(&self) -> BTreeMap<i64, &str> {
        let adoption = self.status.adoption.as_ref();
        let lasting = adoption.filter(|adoption: &&AdoptionStatus| adoption.end.is_none());
        let targets = lasting.into_iter().flat_map(|adoption| &adoption.targets);
        targets
            .filter(|target| target.state == TargetState::There)
            .map(|target| (target.id, target.detail.as_str()))
            .collect()
    }

    fn ghost(&self, ghost: &Ghost, whose: Whose<'_>) -> v1::Ghost {
        let sight = self.sight();
        v1::Ghost {
            name: ghost.name.clone(),
            azure_agent_id: ghost.facts.id,
            azure_url: self.url().to_owned(),
            azure_pool: self.azure_pool().to_owned(),
            owner: ghost.owner().to_owned(),
            ours: matches!(whose, Whose::Ours { .. }),
            pool: ghost.facts.pool.clone().unwrap_or_default(),
            online: ghost.facts.online,
            job: ghost.facts.job.as_ref().map(convert::job),
            since: ghost.since.map(wall).map(convert::timestamp),
            outlook: ghosts::outlook(ghost, whose, sight.seen.listed, sight.grace),
        }
    }
}

/// Returns when that was by the wall clock.
fn wall(at: Instant) -> Timestamp {
    let ago = SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::MAX);
    let then = Timestamp::now().checked_sub(ago);
    then.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whether its instance is here, or about to be.
fn is_here(agent: &AgentStatus) -> bool {
    !agent.instance_status.is_empty() || agent.state == AgentState::Creating
}

impl Services {
    pub(super) fn ghosts(&self, pool: &str) -> Result<v1::ListGhostsResponse, Status> {
        self.check_pool(pool)?;
        let azure_pools = self.azure_pools(pool);
        let now = Instant::now();
        let flaws = azure_pools.iter().filter(|azure| azure.is_meant);
        let flaws = flaws.filter_map(|azure| azure.sight().flaw(now));
        let unseen = self.unseen_pools().into_iter();
        let unseen = unseen.filter(|unseen| pool.is_empty() || unseen == pool);
        let unseen = unseen.map(|unseen| format!("pool {unseen} was not looked at yet"));
        let mut ghosts: Vec<v1::Ghost> = azure_pools
            .iter()
            .filter(|azure| azure.is_meant)
            .flat_map(|azure| self.ghosts_of(azure, &azure_pools))
            .collect();
        // Ours first, then owner by owner.
        ghosts.sort_by(|a, b| {
            let key = |ghost: &v1::Ghost| (!ghost.ours, ghost.owner.clone(), ghost.name.clone());
            key(a).cmp(&key(b))
        });
        Ok(v1::ListGhostsResponse {
            ghosts,
            warnings: flaws.chain(unseen).collect(),
        })
    }

    fn ghosts_of(&self, azure: &AzurePool, all: &[AzurePool]) -> Vec<v1::Ghost> {
        let ours = self.incus.borrow().owner.clone();
        let statuses = self.statuses();
        let same = statuses.iter().filter(|status| {
            let own = &status.spec.azure;
            own.url == azure.url() && own.pool == azure.azure_pool()
        });
        // An agent by its name: names are unique in an Azure pool.
        let known: BTreeMap<&str, (&AgentStatus, bool)> = same
            .flat_map(|status| {
                let agents = status.agents.iter();
                agents.map(|agent| (agent.name.as_str(), (agent, status.looks_cloned)))
            })
            .collect();
        let living: BTreeSet<&str> = all
            .iter()
            .flat_map(|azure| azure.status.ghosts.all.iter())
            .filter(|ghost| !ghost.facts.is_dead())
            .map(Ghost::owner)
            .collect();
        let adopted = azure.adopted();
        let seen = azure.status.ghosts.all.iter();
        seen.filter_map(|ghost| {
            let agent = known.get(ghost.name.as_str());
            let whose = if ghost.owner() != ours {
                Whose::Others {
                    lives: living.contains(ghost.owner()),
                    adopted: adopted.get(&ghost.facts.id).copied(),
                }
            } else if agent.is_some_and(|(agent, _)| is_here(agent)) {
                return None;
            } else {
                Whose::Ours {
                    watched: agent.map(|(agent, _)| agent.detail.as_str()),
                    looks_cloned: agent.is_some_and(|(_, looks_cloned)| *looks_cloned),
                }
            };
            Some(azure.ghost(ghost, whose))
        })
        .collect()
    }

    /// Returns the Azure pools that our pools use; `pool` says of which pool's the call is, if not
    /// of all.
    fn azure_pools(&self, pool: &str) -> Vec<AzurePool> {
        let pools = Arc::clone(&self.pools.borrow());
        let mut found: Vec<AzurePool> = Vec::new();
        for handle in pools.iter() {
            let new = AzurePool {
                status: handle.status(),
                handle: handle.clone(),
                is_meant: pool.is_empty() || handle.key().name == pool,
            };
            let same = |old: &&mut AzurePool| {
                old.url() == new.url() && old.azure_pool() == new.azure_pool()
            };
            match found.iter_mut().find(same) {
                None => found.push(new),
                Some(old) => {
                    let is_meant = old.is_meant || new.is_meant;
                    if old.status.ghosts.listed.is_none() && new.status.ghosts.listed.is_some() {
                        *old = new;
                    }
                    old.is_meant = is_meant;
                }
            }
        }
        found
    }

    pub(super) async fn adopt(
        &self,
        request: Request<v1::AdoptGhostsRequest>,
    ) -> Result<AdoptionStream, Status> {
        let asker = peer::asker(&request);
        let request = request.into_inner();
        let owner = request.owner.clone();
        if owner.is_empty() {
            return Err(status::bad_request("name the owner"));
        }
        if !request.dry_run && !(1..=LARGEST_ADOPTION).contains(&request.only.len()) {
            return Err(status::bad_request(format!(
                "name the 1 to {LARGEST_ADOPTION} registrations that were confirmed"
            )));
        }
        let planned = self.plan_adoption(&request);
        if request.dry_run {
            return Ok(super::adoption::dry_run(planned?));
        }
        let target = match &planned {
            Ok(parts) => {
                let ghosts = parts.iter().flat_map(|part| &part.ghosts);
                let names: Vec<&str> = ghosts.map(|ghost| ghost.name.as_str()).collect();
                format!("{owner}: {}", names.join(" "))
            }
            Err(_) => owner.clone(),
        };
        let begun = match planned {
            Ok(parts) => begin(parts, &owner, &asker).await,
            Err(refused) => Err(refused),
        };
        let parts = self.audit(&asker, "ghosts adopt", target, begun)?;
        Ok(super::adoption::follow(parts, self.stop.clone()))
    }

    /// Judges what is asked for, and returns what would go, by Azure pool.
    fn plan_adoption(&self, request: &v1::AdoptGhostsRequest) -> Result<Vec<Part>, Status> {
        let (owner, pool) = (&request.owner, &request.pool);
        self.check_pool(pool)?;
        if pool.is_empty() {
            self.check_agents_known(true)?;
        }
        let azure_pools = self.azure_pools(pool);
        if !azure_pools.iter().any(|azure| azure.is_meant) {
            return Err(status::starting(pool, self.incus.borrow().problem()));
        }
        let sights: Vec<Sight<'_>> = azure_pools.iter().map(AzurePool::sight).collect();
        let ours = self.incus.borrow().owner.clone();
        let judged = ghosts::judge(&sights, owner, &ours, Instant::now());
        let judged = judged.map_err(status::not_adopted)?;
        let is_wanted = |azure: &AzurePool, ghost: &Ghost| {
            request.dry_run
                || request.only.iter().any(|key| {
                    key.azure_url == azure.url()
                        && key.azure_pool == azure.azure_pool()
                        && key.azure_agent_id == ghost.facts.id
                })
        };
        let parts = azure_pools.iter().zip(judged).map(|(azure, ghosts)| {
            let wanted = ghosts.into_iter().filter(|ghost| is_wanted(azure, ghost));
            let whose = Whose::Others {
                lives: false,
                adopted: None,
            };
            let ghosts = wanted.map(|ghost| azure.ghost(ghost, whose)).collect();
            Part::new(azure.handle.clone(), ghosts)
        });
        Ok(parts.filter(|part| !part.ghosts.is_empty()).collect())
    }
}

/// Has each pool's task begin. When the first refuses, nothing was done; when a later one does, the
/// others go on and it is told.
async fn begin(
    mut parts: Vec<Part>,
    owner: &str,
    asker: &crate::pool::command::Asker,
) -> Result<Vec<Part>, Status> {
    for (index, part) in parts.iter_mut().enumerate() {
        let ids = part.ghosts.iter().map(|ghost| ghost.azure_agent_id);
        let ids: Vec<i64> = ids.collect();
        let token = part.token;
        let asked = part.handle.command(|reply| PoolCommand::Adopt {
            owner: owner.to_owned(),
            ids,
            token,
            asker: asker.clone(),
            reply,
        });
        match asked.await {
            Ok(()) => {}
            Err(refused) if index == 0 => return Err(status::command(refused)),
            Err(refused) => part.refused = Some(refused.to_string()),
        }
    }
    Ok(parts)
}
