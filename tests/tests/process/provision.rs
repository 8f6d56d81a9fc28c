//! Provisioning over the socket.

use std::time::{Duration, Instant};

use iap_common::v1;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use iap_tests::host::{Host, HostOptions};
use iap_tests::wait;
use nix::sys::signal::Signal;
use tokio_stream::StreamExt;

use crate::QUICK;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_way_does_not_hold_up_a_stop() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions::default()).await?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.start_daemon().await?;
    let mut client = ProvisionServiceClient::new(host.channel().await?);
    let begin = v1::UploadAgentPackageRequest {
        chunk: vec![0x1f, 0x8b],
    };
    let chunks = tokio_stream::once(begin).chain(tokio_stream::pending());
    let upload = client.upload_agent_package(chunks);
    let stop = async {
        let packages = host.config_path().with_file_name("state/packages");
        wait::until("the upload to begin", QUICK, async || {
            Ok(std::fs::read_dir(&packages)
                .is_ok_and(|mut files| files.next().is_some())
                .then_some(()))
        })
        .await?;
        host.signal(Signal::SIGTERM)?;
        anyhow::Ok((Instant::now(), packages))
    };
    let (uploaded, stopped) = tokio::join!(upload, stop);
    let (began, packages) = stopped?;
    let refused = uploaded.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("stopping"), "{refused:?}");
    assert_eq!(host.wait_for_exit().await?, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(std::fs::read_dir(packages)?.count(), 0, "nothing is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_a_configured_pool_is_taken_before_incus_has_answered() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions {
        incus_socket: Some("/nonexistent/unix.socket".into()),
        ..HostOptions::default()
    })
    .await?;
    host.write_config(1)?;
    host.start_daemon().await?;
    let mut client = ProvisionServiceClient::new(host.channel().await?);
    let request = |pool: &str| v1::CreateProvisionJobRequest {
        base: "local:debian-min".to_owned(),
        target: "never-made".to_owned(),
        agent_package: Some(v1::AgentPackage {
            pool: pool.to_owned(),
            ..v1::AgentPackage::default()
        }),
        ..v1::CreateProvisionJobRequest::default()
    };
    for pool in ["", &host.pool] {
        let job = client.create_provision_job(request(pool)).await?;
        assert!(job.into_inner().job.is_some());
    }
    let refused = client.create_provision_job(request("nowhere")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    Ok(())
}
