//! What the socket offers besides pools and agents: health, reflection, logs; and metrics.

use std::time::Duration;

use iap_common::v1;
use iap_tests::azure_sim::JobRequest;
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::{QUICK, SOON};

/// Every service there is.
const SERVICES: [&str; 5] = [
    "iap.v1.AgentService",
    "iap.v1.DaemonService",
    "iap.v1.ImageService",
    "iap.v1.PoolService",
    "iap.v1.ProvisionService",
];

/// Reads an agent's log to its end.
async fn log(
    host: &Host,
    name: &str,
    follow: bool,
    tail_bytes: u64,
) -> Result<String, tonic::Status> {
    let request = v1::StreamAgentLogRequest {
        name: name.to_owned(),
        follow,
        tail_bytes,
        file: String::new(),
    };
    let mut service = host.agent_service().await.expect("the daemon runs");
    let mut stream = service.stream_agent_log(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await? {
        all.extend(part.chunk);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer_for_every_service() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions::default()).await?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.start_daemon().await?;

    let mut health = HealthClient::new(host.channel().await?);
    for service in ["", SERVICES[0], SERVICES[1], SERVICES[2], SERVICES[3]] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest {
        service: "iap.v1.NoSuchService".to_owned(),
    };
    let refused = health.check(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);

    let mut reflection = ServerReflectionClient::new(host.channel().await?);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::once(request);
    let mut answers = reflection
        .server_reflection_info(requests)
        .await?
        .into_inner();
    let answer = answers
        .message()
        .await?
        .and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        anyhow::bail!("no list of services: {answer:?}");
    };
    for service in SERVICES {
        assert!(
            list.service.iter().any(|found| found.name == service),
            "{service}: {list:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pool_is_not_found_and_the_nearest_is_named() -> anyhow::Result<()> {
    let image = Some("it-no-such-image".to_owned());
    let host = Host::start(HostOptions {
        image,
        ..HostOptions::default()
    })
    .await?;
    wait::until("the pool", QUICK, async || Ok(host.status().await.ok())).await?;
    let mut client = v1::pool_service_client::PoolServiceClient::new(host.channel().await?);
    let name = host.pool.replacen('t', "tt", 1);
    let refused = client
        .get_pool(v1::GetPoolRequest { name: name.clone() })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
    assert!(refused.message().contains(&name), "{refused:?}");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let help = details.help().expect("a hint");
    assert_eq!(
        help.links[0].description,
        format!("did you mean {}?", host.pool)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_log_is_read_whole_by_its_end_and_as_it_grows() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let whole = log(&host, &agent.name, false, 0).await?;
    assert!(whole.contains("Listening for Jobs"), "{whole:?}");
    let end = log(&host, &agent.name, false, 5).await?;
    assert_eq!(end.len(), 5);
    assert!(whole.ends_with(&end), "{end:?} of {whole:?}");
    let refused = log(&host, "nobody", false, 0).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);

    let followed = async { anyhow::Ok(timeout(SOON, log(&host, &agent.name, true, 0)).await??) };
    let job = async {
        let job = JobRequest::new(AZURE_POOL)
            .named("followed")
            .lasting(Duration::from_secs(3));
        let job = host.sim.queue_job(job)?;
        host.sim.wait_job(job, SOON).await
    };
    let (followed, _) = tokio::try_join!(followed, job)?;
    assert!(followed.starts_with(&whole), "{followed:?}");
    assert!(followed.contains("Running job: followed"), "{followed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_in_place_of_the_log_hangs_nobody() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let script = "rm /home/agent/azp-agent.log && mkfifo /home/agent/azp-agent.log";
    host.incus(&["exec", &agent.name, "--", "sh", "-c", script])?;
    // Incus takes it for an empty file.
    assert_eq!(
        timeout(QUICK, log(&host, &agent.name, false, 0)).await??,
        ""
    );
    // Followed, it ends when the agent does; and the agent does not care.
    let followed = async { anyhow::Ok(timeout(SOON, log(&host, &agent.name, true, 0)).await??) };
    let job = async {
        let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
        host.sim.wait_job(job, SOON).await
    };
    let (followed, _) = tokio::try_join!(followed, job)?;
    assert_eq!(followed, "");
    wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        let other = |a: &v1::Agent| a.state() == v1::AgentState::Idle && a.name != agent.name;
        Ok((agents.len() == 1 && other(&agents[0])).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_their_families_and_name_no_agent() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions::default()).await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let text = host
        .config(1)
        .replace("metricsPort: 0", &format!("metricsPort: {port}"));
    std::fs::write(host.config_path(), text)?;
    host.start_daemon().await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
    host.sim.wait_job(job, SOON).await?;
    let url = format!("http://127.0.0.1:{port}/metrics");
    let pool = &host.pool;
    let wanted = [
        "# TYPE iapd_agents gauge".to_owned(),
        "# TYPE iapd_calls counter".to_owned(),
        "# TYPE iapd_agent_replacement_seconds histogram".to_owned(),
        "# TYPE iapd_agent_online_seconds histogram".to_owned(),
        "iapd_build_info{version=".to_owned(),
        format!("iapd_agents{{pool=\"{pool}\",state=\"idle\"}} 1"),
        format!("iapd_agents_wanted{{pool=\"{pool}\"}} 1"),
        format!("iapd_agents_created_total{{pool=\"{pool}\"}} 2"),
        format!("iapd_agent_replacement_seconds_count{{pool=\"{pool}\"}} 1"),
        format!("iapd_agent_online_seconds_count{{pool=\"{pool}\"}} 2"),
        "iapd_calls_total{server=\"incus\",call=\"instance_create\",outcome=\"ok\"} 2".to_owned(),
    ];
    let text = wait::until("all families", SOON, async || {
        let text = reqwest::get(&url).await?.error_for_status()?.text().await?;
        let missing: Vec<&String> = wanted.iter().filter(|line| !text.contains(*line)).collect();
        anyhow::ensure!(missing.is_empty(), "missing {missing:?} in:\n{text}");
        Ok(Some(text))
    })
    .await?;
    assert!(text.contains("server=\"azure\""), "{text}");
    assert!(!text.contains(&agent.name), "{text}");
    let stem = format!("{pool}-h-");
    assert!(!text.contains(&stem), "{text}");
    Ok(())
}
