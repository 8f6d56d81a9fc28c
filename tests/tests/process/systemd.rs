//! What the daemon tells systemd.

use std::collections::BTreeSet;
use std::process::Stdio;

use iap_tests::host::{Host, HostOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;

use super::program::iapd;
use crate::QUICK;

/// systemd's end of the notifications.
struct Told(UnixDatagram);

impl Told {
    /// Waits for a notification with such a line and returns all its lines.
    async fn until(&self, what: &str, line: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut seen = BTreeSet::new();
        let found = tokio::time::timeout(QUICK, async {
            let mut buffer = vec![0; 4096];
            loop {
                let length = self.0.recv(&mut buffer).await?;
                let text = String::from_utf8(buffer[..length].to_vec())?;
                if text.lines().any(&line) {
                    return Ok::<_, anyhow::Error>(text);
                }
                seen.insert(text);
            }
        });
        found
            .await
            .map_err(|_| anyhow::anyhow!("waited for {what}, got {seen:?}"))?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_readiness_status_life_and_reloads() -> anyhow::Result<()> {
    let host = Host::prepare(HostOptions {
        image: Some("it-no-such-image".to_owned()),
        ..HostOptions::default()
    })
    .await?;
    let path = host.dir().join("notify.sock");
    let told = Told(UnixDatagram::bind(&path)?);
    let mut daemon = iapd(&host.config_path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = Pid::from_raw(i32::try_from(daemon.id().expect("it runs"))?);
    told.until("readiness", |line| line == "READY=1").await?;
    for _ in 0..3 {
        told.until("a sign of life", |line| line == "WATCHDOG=1")
            .await?;
    }
    told.until("a status with the pool", |line| {
        line.starts_with("STATUS=1 pools, 0 agents busy")
    })
    .await?;

    std::fs::write(host.config_path(), "pools: many\n")?;
    kill(pid, Signal::SIGHUP)?;
    let reloading = told
        .until("the reload", |line| line == "RELOADING=1")
        .await?;
    let at = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        at.is_some_and(|at| at.parse::<u64>().is_ok()),
        "{reloading}"
    );
    told.until("its end", |line| line == "READY=1").await?;
    let status = told
        .until("a status with the problem", |line| {
            line.starts_with("STATUS=") && line.contains("the old configuration runs on")
        })
        .await?;
    assert!(status.contains("config.yaml:1:"), "{status}");

    kill(pid, Signal::SIGTERM)?;
    told.until("the end", |line| line == "STOPPING=1").await?;
    assert!(daemon.wait().await?.success());
    Ok(())
}
