//! Sixty jobs through a pool spread over three members of a real Incus cluster, of which one is lost under running
//! jobs and comes back, and one is drained. Run by `tests/run cluster`, which brings the cluster up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use iap_common::v1::{self, Member, MemberState};
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions, binary};
use iap_tests::testbed::Testbed;
use iap_tests::wait;

const JOBS: usize = 60;
const AGENTS: u32 = 6;
const SOON: Duration = Duration::from_secs(120);
/// For all jobs, on a busy machine of few cores.
const LONG: Duration = Duration::from_secs(900);

/// The cluster that `tests/testbed/cluster up` has made.
struct Cluster {
    dir: PathBuf,
    began: Instant,
}

impl Cluster {
    fn get() -> anyhow::Result<Self> {
        let dir = std::env::var("IAPD_CLUSTER_DIR").unwrap_or("/var/tmp/iapd-cluster".into());
        let dir = PathBuf::from(dir);
        let is_up = dir.join("env").exists();
        ensure!(is_up, "there is no cluster: run tests/run cluster");
        Ok(Self {
            dir,
            began: Instant::now(),
        })
    }

    fn testbed(&self) -> Testbed {
        Testbed {
            socket: self.dir.join("c1/unix.socket"),
            project: "default".into(),
            ..Testbed::get()
        }
    }

    /// Runs the script that made it.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/cluster");
        let status = Command::new(script)
            .args(arguments)
            .env("IAPD_CLUSTER_DIR", &self.dir)
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "cluster {arguments:?}: {status}");
        Ok(())
    }

    /// Makes it trust a daemon and returns the lines of its configuration. The first address is that
    /// of the member that will be lost.
    fn trust(&self) -> anyhow::Result<String> {
        let keys = self.dir.join("keys");
        let made = Command::new(binary("iapd"))
            .arg("--make-client-key")
            .arg(&keys)
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        let added = Command::new("incus")
            .args(["-q", "config", "trust", "add-certificate"])
            .arg(keys.join("incus-client.crt"))
            .env("INCUS_SOCKET", self.testbed().socket)
            .output()?;
        let said = String::from_utf8_lossy(&added.stderr).into_owned();
        ensure!(added.status.success() || said.contains("already"), "{said}");
        Ok(format!(
            "  remote:\n    url: [https://127.0.0.1:8552, https://127.0.0.1:8551, \
             https://127.0.0.1:8553]\n    clientCert: {0}/incus-client.crt\n    \
             clientKey: {0}/incus-client.key\n    serverCert: {1}/c1/cluster.crt\n",
            keys.display(),
            self.dir.display()
        ))
    }

    fn say(&self, text: &str) {
        let at = self.began.elapsed().as_secs();
        let _ = writeln!(std::io::stderr(), "cluster {at:4} s: {text}");
    }
}

async fn members(host: &Host) -> anyhow::Result<BTreeMap<String, Member>> {
    let mut daemon = host.daemon_service().await?;
    let answer = daemon.list_members(v1::ListMembersRequest {}).await?;
    let all = answer.into_inner().members.into_iter();
    Ok(all.map(|member| (member.name.clone(), member)).collect())
}

async fn until_member(
    host: &Host,
    name: &str,
    what: &str,
    is: impl Fn(&Member) -> bool,
) -> anyhow::Result<Member> {
    wait::until(&format!("{name} to be {what}"), SOON, async || {
        Ok(members(host)
            .await?
            .remove(name)
            .filter(|member| is(member)))
    })
    .await
    .with_context(|| host.log())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::get()?;
    let host = Host::start(HostOptions {
        count: AGENTS,
        testbed: Some(cluster.testbed()),
        incus_remote: Some(cluster.trust()?),
        pool_extra: "    offlineGracePeriod: 20s\n".into(),
        daemon_extra: "  memberGracePeriod: 5s\n".into(),
        ..HostOptions::default()
    })
    .await?;
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
    let evacuated = Command::new("incus")
        .args(["-q", "cluster", "evacuate", "c3", "--force"])
        .env("INCUS_SOCKET", cluster.testbed().socket)
        .output()?;
    ensure!(evacuated.status.success(), "{evacuated:?}");
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

    let restored = Command::new("incus")
        .args(["-q", "cluster", "restore", "c3", "--force"])
        .env("INCUS_SOCKET", cluster.testbed().socket)
        .output()?;
    ensure!(restored.status.success(), "{restored:?}");
    let resume = v1::ResumeMemberRequest { name: "c3".into() };
    assert!(daemon.resume_member(resume).await?.into_inner().was_drained);
    host.empty(SOON).await?;
    cluster.say("nothing is left: no instance, no registration");
    Ok(())
}
