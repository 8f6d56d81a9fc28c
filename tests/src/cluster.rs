//! What iapd does with a real cluster: jobs through members that are lost, drained and come back; room
//! that one member has and another has not; agents whose member is cut off for good.
//!
//! The cluster is that of `tests/testbed/cluster`: three servers on this machine's loopback.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use iap_common::v1::{self, Member};

use crate::host::{Host, HostOptions, binary};
use crate::testbed::Testbed;
use crate::wait;

mod jobs;
mod loss;
mod room;

const SOON: Duration = Duration::from_secs(120);

/// Runs it all. The last part leaves a cluster of two.
pub async fn run() -> anyhow::Result<()> {
    let cluster = Cluster::get()?;
    let only = std::env::var("CLUSTER_ONLY").ok();
    let is_wanted = |part| only.as_deref().is_none_or(|only| only == part);
    if is_wanted("jobs") {
        jobs::run(&cluster).await.context("jobs")?;
    }
    if is_wanted("room") {
        room::run(&cluster).await.context("room")?;
    }
    if is_wanted("restart") {
        loss::restart(&cluster).await.context("restart")?;
    }
    if is_wanted("removal") {
        loss::removal(&cluster).await.context("removal")?;
    }
    Ok(())
}

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
        let certificate = keys.join("incus-client.crt").display().to_string();
        match self.incus(&["config", "trust", "add-certificate", &certificate]) {
            Err(error) if !error.to_string().contains("already") => return Err(error),
            _ => {}
        }
        Ok(format!(
            "  remote:\n    url: [https://127.0.0.1:8552, https://127.0.0.1:8551, \
             https://127.0.0.1:8553]\n    clientCert: {0}/incus-client.crt\n    \
             clientKey: {0}/incus-client.key\n    serverCert: {1}/c1/cluster.crt\n",
            keys.display(),
            self.dir.display()
        ))
    }

    /// Runs Incus's own client on the member that no part of this takes down.
    fn incus(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("timeout")
            .args(["120", "incus", "-q"])
            .args(arguments)
            .env("INCUS_SOCKET", self.testbed().socket)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "incus {arguments:?}: {said}");
        Ok(())
    }

    /// Returns what a host needs to drive it, over TLS.
    fn options(&self, agents: u32, member_grace: &str) -> anyhow::Result<HostOptions> {
        Ok(HostOptions {
            count: agents,
            testbed: Some(self.testbed()),
            incus_remote: Some(self.trust()?),
            pool_extra: "    offlineGracePeriod: 20s\n".into(),
            daemon_extra: format!("  memberGracePeriod: {member_grace}\n"),
            ..HostOptions::default()
        })
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

/// Waits until a member is as wanted.
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
