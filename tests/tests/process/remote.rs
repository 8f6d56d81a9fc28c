//! An Incus on another host, as far as one can tell: reached over TLS only.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use iap_common::v1::{Agent, AgentState};
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions, binary};
use iap_tests::wait;
use tokio::process::Command;

use super::program::{Ended, run};
use crate::SOON;
use iap_tests::private_incus::PrivateIncus;

/// Making an image takes a while.
const LONG: Duration = Duration::from_secs(180);

async fn make_client_key(dir: &Path, more: &[&str]) -> anyhow::Result<Ended> {
    let mut command = Command::new(binary("iapd"));
    run(command.arg("--make-client-key").arg(dir).args(more)).await
}

/// Returns the lines of the configuration.
fn remote(url: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "  remote:\n    url: {url}\n    clientCert: {dir}/incus-client.crt\n    \
         clientKey: {dir}/incus-client.key\n    serverCert: {dir}/incus-server.crt\n"
    )
}

async fn incus_error(host: &Host) -> anyhow::Result<String> {
    wait::until("what is wrong with Incus", SOON, async || {
        let incus = host.daemon_status().await?.incus.unwrap_or_default();
        Ok(Some(incus.error).filter(|error| !error.is_empty()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_and_images_are_made_over_tls_as_over_the_socket() -> anyhow::Result<()> {
    let Some(incus) = PrivateIncus::start().await? else {
        return Ok(());
    };
    let url = incus.listen()?;
    let keys = tempfile::tempdir()?;
    let token = incus.incus(&["config", "trust", "add", "iapd"])?;
    let token = token.lines().last().context("no token")?;
    let made = make_client_key(keys.path(), &["--trust-token", token]).await?;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(
        made.stdout.contains(&format!("    url: {url}\n")),
        "{made:?}"
    );
    let again = make_client_key(keys.path(), &["--trust-token", token]).await?;
    assert_eq!(again.code, Some(1), "a token is good for once: {again:?}");

    // The first address is that of nobody: the other one serves.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let urls = format!("[https://{nobody}, {url}]");
    let host = Host::start(HostOptions {
        testbed: Some(incus.testbed()),
        incus_remote: Some(remote(&urls, keys.path())),
        ..HostOptions::default()
    })
    .await?;
    let first = host.wait_idle(1, SOON).await?;
    let status = host.daemon_status().await?;
    let told = status.incus.unwrap_or_default();
    assert!(told.socket.contains(&url), "{told:?}");
    wait::until("the events", SOON, async || {
        let status = host.daemon_status().await?;
        Ok(status
            .incus
            .unwrap_or_default()
            .events_connected
            .then_some(()))
    })
    .await?;

    let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{ended:?}");
    assert_eq!(ended.runs, 1);
    // The next one may be there before the first is gone.
    wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        let is_next =
            |agent: &Agent| agent.state() == AgentState::Idle && agent.name != first[0].name;
        Ok(matches!(agents.as_slice(), [agent] if is_next(agent)).then_some(()))
    })
    .await?;
    // What it left behind was read over TLS.
    let request = v1::StreamAgentLogRequest {
        name: first[0].name.clone(),
        follow: false,
        tail_bytes: 0,
        file: String::new(),
    };
    let mut log = host
        .agent_service()
        .await?
        .stream_agent_log(request)
        .await?
        .into_inner();
    let line = log.message().await?.context("no log of the ended agent")?;
    assert!(!line.chunk.is_empty());

    provision(&host).await?;
    host.empty(SOON).await?;
    incus.incus(&["image", "delete", "made-over-tls"])?;
    Ok(())
}

/// Makes an image, which takes files, commands that are followed, and publishing.
async fn provision(host: &Host) -> anyhow::Result<()> {
    let mut client = ProvisionServiceClient::new(host.channel().await?);
    let package = std::env::var("IAPD_TEST_AGENT_PACKAGE").context("no agent package")?;
    let chunk = std::fs::read(package)?;
    let chunks: Vec<_> = chunk
        .chunks(1 << 20)
        .map(|chunk| v1::UploadAgentPackageRequest {
            chunk: chunk.to_vec(),
        })
        .collect();
    let uploaded = client
        .upload_agent_package(tokio_stream::iter(chunks))
        .await?;
    let request = v1::CreateProvisionJobRequest {
        base: format!("local:{}", host.testbed.runner),
        target: "made-over-tls".to_owned(),
        agent_package: Some(v1::AgentPackage {
            source: Some(v1::agent_package::Source::UploadedSha256(
                uploaded.into_inner().sha256,
            )),
            ..v1::AgentPackage::default()
        }),
        ..v1::CreateProvisionJobRequest::default()
    };
    let job = client.create_provision_job(request).await?.into_inner().job;
    let id = job.context("no job")?.id;
    let job = wait::until("the image", LONG, async || {
        let request = v1::GetProvisionJobRequest { id: id.clone() };
        let job = client
            .clone()
            .get_provision_job(request)
            .await?
            .into_inner()
            .job;
        Ok(job.filter(|job| job.ended_at.is_some()))
    })
    .await?;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{job:?}");
    let project = host.testbed.project();
    assert!(project.alias("made-over-tls").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_certificate_and_one_that_does_not_trust_us_are_told_apart()
-> anyhow::Result<()> {
    let Some(incus) = PrivateIncus::start().await? else {
        return Ok(());
    };
    let url = incus.listen()?;
    let keys = tempfile::tempdir()?;
    let made = make_client_key(keys.path(), &[]).await?;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stdout.contains("incus config trust add-certificate"));
    let (client, pinned) = ("incus-client.crt", keys.path().join("incus-server.crt"));
    let client = keys.path().join(client);
    std::fs::copy(&client, &pinned)?;
    let mut host = Host::start(HostOptions {
        testbed: Some(incus.testbed()),
        incus_remote: Some(remote(&url, keys.path())),
        ..HostOptions::default()
    })
    .await?;
    let error = incus_error(&host).await?;
    assert!(error.contains("the one that is trusted here"), "{error}");

    host.stop_daemon().await?;
    std::fs::copy(incus.dir().join("server.crt"), &pinned)?;
    host.start_daemon().await?;
    let error = incus_error(&host).await?;
    assert!(error.contains("does not trust this client"), "{error}");
    assert!(
        error.contains("incus config trust add-certificate"),
        "{error}"
    );
    assert!(host.instances().await?.is_empty());

    let client = client.display().to_string();
    incus.incus(&["config", "trust", "add-certificate", &client])?;
    host.wait_idle(1, SOON).await?;
    host.empty(SOON).await
}
