//! Names for the shell's Tab key, asked of the daemon. It runs inside the shell: quick, silent,
//! and without an answer when there is no daemon.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use futures_util::future::join_all;
use iap_common::socket;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::image_service_client::ImageServiceClient;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use iap_common::v1::{
    Agent, EndedAgent, ListAgentsRequest, ListEndedAgentsRequest, ListGhostsRequest,
    ListImagesRequest, ListMembersRequest, ListPoolsRequest, ListProvisionJobsRequest,
};
use jiff::Timestamp;
use tonic::transport::Channel;

use crate::commands::connect;
use crate::hosts::{Book, HOST_VARIABLE, Hosts, Way};
use crate::rows::image::Image;
use crate::rows::plain;

/// A person waits with a finger on the key.
const DEADLINE: Duration = Duration::from_millis(400);
/// ssh has to log in first.
const SSH_DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn pools(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let answer = PoolServiceClient::new(channel)
            .list_pools(ListPoolsRequest {})
            .await
            .ok()?;
        let pools = answer.into_inner().pools.into_iter().map(|pool| {
            let counts = pool.counts.unwrap_or_default();
            (
                pool.name,
                format!("{} busy, {} idle", counts.busy, counts.idle),
            )
        });
        Some(pools.collect())
    })
}

pub(crate) fn members(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let answer = DaemonServiceClient::new(channel)
            .list_members(ListMembersRequest {})
            .await
            .ok()?;
        let members = answer.into_inner().members.into_iter();
        let members = members.map(|member| (member.name, format!("{} agents", member.agents)));
        Some(members.collect())
    })
}

/// Other hosts that have registrations.
pub(crate) fn owners(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let answer = AgentServiceClient::new(channel)
            .list_ghosts(ListGhostsRequest::default())
            .await
            .ok()?;
        let ghosts = answer.into_inner().ghosts.into_iter();
        let mut counts = BTreeMap::<String, (usize, usize)>::new();
        for ghost in ghosts.filter(|ghost| !ghost.ours) {
            let (all, online) = counts.entry(ghost.owner).or_default();
            *all += 1;
            *online += usize::from(ghost.online);
        }
        let owners = counts.into_iter();
        let told = owners.map(|(owner, (all, online))| {
            let help = format!("{all} registrations, {online} online");
            (owner, help)
        });
        Some(told.collect())
    })
}

pub(crate) fn agents(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| present(channel, |_| true).await)
}

/// Agents that are kept for debugging, or are to be.
pub(crate) fn kept_agents(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        present(channel, |agent| agent.keep.is_some()).await
    })
}

/// Agents, and after them those that have ended lately.
pub(crate) fn agents_ever(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel: Channel| {
        let mut all = present(channel.clone(), |_| true).await?;
        let ended = ended(channel, false).await.unwrap_or_default();
        all.extend(ended.into_iter().map(|agent| {
            let help = format!("ended: {}", agent.reason);
            (agent.name, help)
        }));
        Some(all)
    })
}

async fn present(channel: Channel, wanted: fn(&Agent) -> bool) -> Option<Vec<(String, String)>> {
    let request = ListAgentsRequest::default();
    let answer = AgentServiceClient::new(channel)
        .list_agents(request)
        .await
        .ok()?;
    let agents = answer.into_inner().agents.into_iter().filter(wanted);
    let agents = agents.map(|agent| {
        let agent = crate::rows::agent::Agent::from(agent);
        let job = agent
            .job
            .as_ref()
            .map_or_else(String::new, |job| format!(": {}", job.text()));
        let help = format!("{}{job}", agent.state_text());
        (agent.name, help)
    });
    Some(agents.collect())
}

pub(crate) fn jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let request = ListProvisionJobsRequest {};
        let answer = ProvisionServiceClient::new(channel)
            .list_provision_jobs(request)
            .await
            .ok()?;
        let jobs = answer.into_inner().jobs.into_iter().map(|job| {
            let job = crate::rows::provision::ProvisionJob::from(job);
            let help = format!("{}: {}", job.target, job.state);
            (job.id, help)
        });
        Some(jobs.collect())
    })
}

/// Aliases that there are images of.
pub(crate) fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let mut counts = BTreeMap::<String, usize>::new();
        for image in listed_images(channel).await? {
            *counts.entry(image.target).or_default() += 1;
        }
        let targets = counts.into_iter();
        let told = targets.map(|(target, count)| (target, format!("{count} images")));
        Some(told.collect())
    })
}

/// Images that a target could be.
pub(crate) fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let images = listed_images(channel).await?.into_iter();
        let images = images.filter(|image| !image.current).map(|image| {
            let image = Image::from(image);
            let version = image.agent_version.as_deref().unwrap_or("-");
            let age = image.age(Timestamp::now()).unwrap_or_default();
            let help = format!("{}: agent {version}, {age}", image.target);
            (image.short().to_owned(), help)
        });
        Some(images.collect())
    })
}

async fn listed_images(channel: Channel) -> Option<Vec<iap_common::v1::Image>> {
    let answer = ImageServiceClient::new(channel)
        .list_images(ListImagesRequest::default())
        .await
        .ok()?;
    Some(answer.into_inner().images)
}

/// Types of events.
pub(crate) fn event_types(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_str().unwrap_or_default();
    let types = iap_common::events::TYPES.into_iter();
    types
        .filter(|name| name.starts_with(current))
        .map(CompletionCandidate::new)
        .collect()
}

/// Jobs that have ended, by Azure's number.
pub(crate) fn ended_jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current, async |channel| {
        let agents = ended(channel, true).await?;
        let jobs = agents.into_iter().filter_map(|agent| {
            let job = crate::rows::agent::Job::from(agent.job?);
            let help = format!("{}: {}", job.text(), agent.job_result);
            Some((job.request_id.to_string(), help))
        });
        Some(jobs.collect())
    })
}

/// Lists the agents that ended last.
async fn ended(channel: Channel, with_job: bool) -> Option<Vec<EndedAgent>> {
    let request = ListEndedAgentsRequest {
        with_job,
        limit: 50,
        ..ListEndedAgentsRequest::default()
    };
    let answer = HistoryServiceClient::new(channel)
        .list_ended_agents(request)
        .await
        .ok()?;
    Some(answer.into_inner().agents)
}

/// Names and groups of the hosts files.
pub(crate) fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_str().unwrap_or_default();
    let names = Book::load().map_or_else(|_| Vec::new(), |book| book.names());
    candidates(current, names)
}

/// Returns the hosts that the line so far names, else the one here.
fn meant() -> Option<Hosts> {
    let path = std::env::var_os(socket::PATH_VARIABLE)
        .map_or_else(|| PathBuf::from(socket::DEFAULT_PATH), PathBuf::from);
    let mut given = Vec::new();
    let mut words = std::env::args();
    while let Some(word) = words.next() {
        if word == "--host" {
            given.extend(words.next());
        } else if let Some(host) = word.strip_prefix("--host=") {
            given.push(host.to_owned());
        }
    }
    if given.is_empty() {
        given.extend(std::env::var(HOST_VARIABLE).ok());
    }
    let given = given.iter().flat_map(|hosts| hosts.split(','));
    let given: Vec<String> = given
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    Hosts::of(&given, &path).ok()
}

/// Returns the names that begin with `current`, each with its help, of all hosts that are meant
/// and answer in time.
fn names(
    current: &OsStr,
    list: impl AsyncFn(Channel) -> Option<Vec<(String, String)>>,
) -> Vec<CompletionCandidate> {
    let (Some(current), Some(hosts)) = (current.to_str(), meant()) else {
        return Vec::new();
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return Vec::new();
    };
    let list = &list;
    let asked = hosts.all.iter().map(|host| {
        Box::pin(async move {
            let deadline = match host.way {
                Way::Socket(_) => DEADLINE,
                Way::Ssh(_) => SSH_DEADLINE,
            };
            let listed = async { list(connect(host).await.ok()?).await };
            tokio::time::timeout(deadline, listed).await.ok().flatten()
        })
    });
    let listed = runtime.block_on(join_all(asked));
    candidates(current, listed.into_iter().flatten().flatten())
}

/// Returns those that begin with `current`; a name that several hosts have is one.
fn candidates(
    current: &str,
    names: impl IntoIterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    let mut seen = HashSet::new();
    names
        .into_iter()
        .filter(|(name, _)| name.starts_with(current) && seen.insert(name.clone()))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(plain(&help).into())))
        .collect()
}
