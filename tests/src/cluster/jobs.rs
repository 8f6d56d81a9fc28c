//! Sixty jobs through a pool spread over three members, of which one is lost under running jobs and
//! comes back, and one is drained and evacuated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use iap_common::v1::{self, Member, MemberState};

use super::{Cluster, SOON, members, until_member};
use crate::azure_sim::{JobRequest, JobResult};
use crate::host::{AZURE_POOL, Host};
use crate::wait;

const JOBS: usize = 60;
const AGENTS: u32 = 6;
/// For all jobs, on a busy machine of few cores.
const LONG: Duration = Duration::from_secs(900);

/// See the module.
pub(super) async fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let host = Host::start(cluster.options(AGENTS, "5s")?).await?;
    host.wait_idle(AGENTS as usize, SOON).await?;
    let spread: Vec<u32> = members(&host).await?.values().map(|m| m.agents).collect();
    cluster.say(&format!("{AGENTS} idle agents, by member: {spread:?}"));
    assert_eq!(spread, [2, 2, 2], "{}", host.log());

    let jobs: Vec<u64> = (0..JOBS)
        .map(|n| {
            let job = JobRequest::new(AZURE_POOL).named(format!("job {n}"));
            let lasting = Duration::from_secs(4);
            host.sim
                .queue_job(job.lasting(lasting))
                .expect("the pool exists")
        })
        .collect();
    let done = || {
        let ended = |id: &&u64| host.sim.job(**id).is_some_and(|job| job.result.is_some());
        jobs.iter().filter(ended).count()
    };
    let until_done = async |count: usize| {
        wait::until(&format!("{count} jobs to be done"), LONG, async || {
            Ok((done() >= count).then_some(()))
        })
        .await
        .with_context(|| host.log())
    };

    until_done(10).await?;
    let lost = until_member(&host, "c2", "at work", |member| member.busy > 0).await?;
    cluster.run(&["kill", "c2"])?;
    cluster.say(&format!(
        "{} jobs done; c2 killed with {} jobs",
        done(),
        lost.busy
    ));
    let offline = |member: &Member| member.state() == MemberState::Offline;
    let seen = until_member(&host, "c2", "offline", offline).await?;
    cluster.say(&format!(
        "{} jobs done; c2 is offline with {} agents",
        done(),
        seen.agents
    ));
    // Its guests ended with their jobs: others take their slots.
    wait::until("the pool to be full without c2", SOON, async || {
        let agents = host.agents().await?;
        let elsewhere = agents.iter().filter(|agent| agent.location != "c2");
        Ok((elsewhere.count() >= AGENTS as usize).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    cluster.say(&format!(
        "{} jobs done; {AGENTS} agents on c1 and c3",
        done()
    ));

    until_done(25).await?;
    cluster.run(&["start", "c2"])?;
    let online = |member: &Member| member.state() == MemberState::Online;
    until_member(&host, "c2", "online", online).await?;
    cluster.say(&format!("{} jobs done; c2 is back", done()));
    until_member(&host, "c2", "at work again", |member| member.busy > 0).await?;

    let mut daemon = host.daemon_service().await?;
    let drain = v1::DrainMemberRequest {
        name: "c3".into(),
        reason: "new disks".into(),
    };
    let member = daemon.drain_member(drain).await?.into_inner().member;
    let member = member.context("no member")?;
    cluster.say(&format!(
        "{} jobs done; c3 drains, with {} agents",
        done(),
        member.agents
    ));
    until_member(&host, "c3", "empty", |member| member.agents == 0).await?;
    cluster.incus(&["cluster", "evacuate", "c3", "--force"])?;
    until_member(&host, "c3", "evacuated", |member| {
        member.state() == MemberState::Evacuated
    })
    .await?;
    cluster.say(&format!("{} jobs done; c3 is empty and evacuated", done()));

    let mut runs = BTreeMap::new();
    let mut agents = BTreeSet::new();
    let mut given_back = 0;
    for job in &jobs {
        let ended = host.sim.wait_job(*job, LONG).await?;
        assert_eq!(
            ended.result,
            Some(JobResult::Succeeded),
            "{ended:?}\n{}",
            host.log()
        );
        *runs.entry(ended.runs).or_insert(0) += 1;
        given_back += usize::from(ended.runs > 1);
        agents.extend(ended.agent);
    }
    cluster.say(&format!(
        "{JOBS} jobs done by {} agents; runs and how many jobs had so many: {runs:?}",
        agents.len()
    ));
    assert_eq!(given_back, 0, "no job was run twice: {runs:?}");
    assert_eq!(agents.len(), JOBS, "each agent takes one job and no more");
    until_member(&host, "c3", "without agents", |member| member.agents == 0).await?;

    cluster.incus(&["cluster", "restore", "c3", "--force"])?;
    let resume = v1::ResumeMemberRequest { name: "c3".into() };
    assert!(daemon.resume_member(resume).await?.into_inner().was_drained);
    host.empty(SOON).await?;
    cluster.say("nothing is left: no instance, no registration");
    Ok(())
}
