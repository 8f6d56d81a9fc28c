//! The stand-in agent against the simulator: what each says on the wire has to fit the other.
//!
//! The agent runs from its package as a plain process, with nothing but the files an orchestrator puts
//! beside it.

#[path = "azure_agent_pair/world.rs"]
mod world;

use std::time::Duration;

use anyhow::{Context, Result};
use iap_tests::azure_sim::{
    CredentialKind, JobRequest, JobResult, JobState, NamedFault, SimOptions, Switches, Timings,
};
use nix::sys::signal::Signal;

use world::{PAT, PATIENCE, World, stamped};

const FAST: f64 = 100.0;

#[tokio::test]
async fn a_job_runs_through_the_socket_and_only_the_placeholder_remains() -> Result<()> {
    let sockets = tempfile::tempdir()?;
    let socket = sockets.path().join("azure.sock");
    let world = World::with(SimOptions {
        unix_socket: Some(socket.clone()),
        // Nothing could be reached under this name.
        public_url: Some("https://dev.azure.invalid".to_owned()),
        // Where tokens come from cannot be guessed from it.
        token_url: Some("https://vssps.azure.invalid".to_owned()),
        timings: Timings::scaled(FAST),
        switches: Switches {
            strict_api_version: true,
            ..Switches::default()
        },
        ..SimOptions::default()
    })
    .await?;
    world.register("placeholder").await?;
    let job = JobRequest::new("linux").named("Build").demanding("stove");
    let job = job
        .running("echo hello from $(pwd)")
        .lasting(Duration::from_millis(1500));
    let job = world.sim.queue_job(job)?;
    assert_eq!(
        world.sim.job(job).context("the job")?.state,
        JobState::Queued
    );

    let registration = world.register("stove-01").await?;
    let package = world.install(&registration)?;
    let socket = socket.to_string_lossy();
    let agent = package.start(&[("FAKE_AGENT_SOCKET", &socket), ("stove", "1")])?;
    let done = world.sim.wait_job(job, PATIENCE).await?;
    let end = agent.end().await?;

    assert_eq!(
        (done.result, done.agent.as_deref()),
        (Some(JobResult::Succeeded), Some("stove-01"))
    );
    let output = world.sim.job_output(job);
    assert!(
        output.starts_with("hello from /") && output.ends_with("/_work/1/s\n"),
        "{output}"
    );
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(
        stamped(&end.stdout),
        [
            "Scanning for tool capabilities.",
            "Connecting to the server.",
            "TIME: Listening for Jobs",
            "TIME: Running job: Build",
            "TIME: Job Build completed with result: Succeeded",
        ]
    );
    assert_eq!(end.stderr, "");

    world.delete_agent("stove-01").await?;
    let left: Vec<_> = world
        .sim
        .agents(world.pool)
        .into_iter()
        .map(|agent| agent.name)
        .collect();
    assert_eq!(left, ["placeholder"]);

    let from_agent: Vec<_> = world
        .sim
        .journal()
        .into_iter()
        .filter(|entry| entry.user_agent.starts_with("VstsAgentCore"))
        .collect();
    assert_eq!(from_agent[0].credential, CredentialKind::None);
    assert_eq!(from_agent[0].status, Some(401));
    assert!(from_agent.iter().all(|entry| matches!(
        entry.credential,
        CredentialKind::None | CredentialKind::AgentToken | CredentialKind::JobToken
    )));
    let calls: Vec<(&str, &str)> = from_agent
        .iter()
        .filter(|entry| entry.status.is_some_and(|status| status != 401))
        .map(|entry| {
            let last = entry.path.rsplit('/').next();
            (entry.method.as_str(), last.unwrap_or_default())
        })
        .collect();
    let start = [
        ("POST", "token"),
        ("GET", "connectionData"),
        ("POST", "events"),
        ("GET", "connectionData"),
        ("GET", "DistributedTask.Agent.CheckPsModulesLocations"),
        ("GET", "connectionData"),
        ("GET", "connectionData"),
        ("GET", "connectionData"),
        ("POST", "sessions"),
        ("GET", "DistributedTask.Agent.UseEnhancedLogging"),
    ];
    assert_eq!(calls[..start.len()], start);
    let renewals = from_agent
        .iter()
        .filter(|entry| entry.method == "PATCH")
        .count();
    assert!(renewals >= 2, "{renewals} renewals");
    Ok(())
}

#[tokio::test]
async fn a_name_reused_after_a_kill_conflicts_and_a_fresh_one_does_not() -> Result<()> {
    let mut timings = Timings::scaled(FAST);
    // However slow this machine is, the session outlives the attempts.
    timings.session_lapse = Duration::from_secs(3000);
    let world = World::with(SimOptions {
        timings,
        ..SimOptions::default()
    })
    .await?;
    let package = world.install(&world.register("stove-01").await?)?;

    let first = package.start(&[])?;
    world.wait_online("stove-01").await?;
    first.signal_listener(Signal::SIGKILL).await?;
    assert_eq!(first.end().await?.code, Some(137));

    let second = package.start(&[])?.end().await?;
    assert_eq!(second.code, Some(1), "{second:?}");
    let conflicts = second
        .stderr
        .matches("A session for this agent already exists.")
        .count();
    assert_eq!(conflicts, 7);
    assert!(
        second
            .stderr
            .contains("Stop retry on SessionConflictException after retried for 240")
    );
    assert_eq!(world.sim.session_posts().len(), 1 + 8);

    let package = world.install(&world.register("stove-02").await?)?;
    let fresh = package.start(&[])?;
    world.wait_online("stove-02").await?;
    fresh.signal_listener(Signal::SIGINT).await?;
    let end = fresh.end().await?;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    Ok(())
}

#[tokio::test]
async fn a_key_the_service_no_longer_knows_ends_the_start() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    world.delete_agent("stove-01").await?;
    let end = package.start(&[])?.end().await?;
    assert_eq!(end.code, Some(2), "{end:?}");
    assert_eq!(end.stdout, "");
    assert!(
        end.stderr.contains("The client is not valid"),
        "{}",
        end.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_wrong_clock_ends_the_start_and_says_so() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    for seconds in [3600, -3600] {
        world.sim.named_fault(NamedFault::ClockSkew { seconds });
        let end = package.start(&[])?.end().await?;
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(
            end.stderr.contains("Current server time is"),
            "{}",
            end.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_job_whose_first_renewal_fails_is_not_run_and_the_agent_ends_well() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    world.sim.named_fault(NamedFault::FirstRenewFails {
        times: 6,
        agent: None,
    });
    let job = world
        .sim
        .queue_job(JobRequest::new("linux").named("Build"))?;
    let end = package.start(&[])?.end().await?;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    assert!(end.stdout.contains("Running job: Build"));
    assert!(!end.stdout.contains("completed"), "{}", end.stdout);
    assert_ne!(
        world.sim.job(job).context("the job")?.result,
        Some(JobResult::Succeeded)
    );
    Ok(())
}

#[tokio::test]
async fn an_update_restarts_the_listener_which_then_takes_the_job() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    world.wait_online("stove-01").await?;
    let version = "4.276.0".to_owned();
    world.sim.named_fault(NamedFault::AgentRefresh {
        version: version.clone(),
        agent: None,
    });
    let agents = world.sim.wait_agents(world.pool, PATIENCE, |agents| {
        agents
            .iter()
            .any(|agent| agent.version == version && agent.online)
    });
    agents.await?;
    let job = world.sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Succeeded)
    );
    let end = agent.end().await?;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    assert_eq!(end.stdout.matches("Listening for Jobs").count(), 2);
    Ok(())
}

#[tokio::test]
async fn an_update_waits_for_the_job_and_the_listener_started_anew_takes_another() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    // The script ends when the file is there, which is after the update was ordered.
    let proceed = tempfile::tempdir()?;
    let file = proceed.path().join("proceed");
    let script = format!("until [ -e {} ]; do sleep 0.05; done", file.display());
    let first = world
        .sim
        .queue_job(JobRequest::new("linux").running(script))?;
    let begun = world
        .sim
        .wait_job_until(first, PATIENCE, |job| job.runs > 0);
    begun.await?;
    let second = world.sim.queue_job(JobRequest::new("linux"))?;
    let (pool, version) = (world.pool, "4.276.0");
    world.sim.set_pool_update(pool, true, Some(version));
    let waits = world.sim.wait_agents(pool, PATIENCE, |agents| {
        let state = agents[0].update_state.as_deref();
        state == Some("Waiting for current job finish running.")
    });
    assert_eq!(waits.await?[0].assigned_request, Some(first));
    std::fs::write(file, "")?;

    for job in [first, second] {
        let done = world.sim.wait_job(job, PATIENCE).await?;
        assert_eq!(done.result, Some(JobResult::Succeeded));
    }
    let end = agent.end().await?;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    assert_eq!(end.stdout.matches("Listening for Jobs").count(), 2);
    assert_eq!(world.sim.agents(pool)[0].version, version);
    let asked = world
        .sim
        .journal()
        .into_iter()
        .any(|entry| entry.path.contains("/packages/agent/") && entry.path.ends_with(version));
    assert!(asked, "the package was not asked for");
    Ok(())
}

#[tokio::test]
async fn an_old_agent_of_a_pool_that_updates_nobody_stays_and_works() -> Result<()> {
    let world = World::fast(FAST).await?;
    let least = Some("4.276.0");
    world.sim.set_pool_update(world.pool, false, least);
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    let job = world.sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Succeeded)
    );
    let end = agent.end().await?;
    assert_eq!(end.stdout.matches("Listening for Jobs").count(), 1);
    let mut journal = world.sim.journal().into_iter();
    assert!(!journal.any(|entry| entry.path.contains("/packages/")));
    Ok(())
}

#[tokio::test]
async fn a_canceled_job_ends_as_canceled() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    let job = JobRequest::new("linux").running("echo begun; sleep 60");
    let job = world.sim.queue_job(job)?;
    let begun = world.sim.wait_job_until(job, PATIENCE, |job| job.runs > 0);
    begun.await?;
    world.sim.cancel_job(job);
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Canceled)
    );
    let end = agent.end().await?;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(
        end.stdout.contains("completed with result: Canceled"),
        "{}",
        end.stdout
    );
    Ok(())
}

#[tokio::test]
async fn an_interrupted_agent_cancels_its_job_and_leaves_no_session() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    let job = JobRequest::new("linux").lasting(Duration::from_secs(60));
    let job = world.sim.queue_job(job)?;
    let begun = world.sim.wait_job_until(job, PATIENCE, |job| job.runs > 0);
    begun.await?;
    agent.signal_listener(Signal::SIGINT).await?;
    let end = agent.end().await?;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Canceled)
    );
    assert!(world.sim.sessions().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_killed_agents_job_is_abandoned_when_its_lock_lapses() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    let job = JobRequest::new("linux").lasting(Duration::from_secs(60));
    let job = world.sim.queue_job(job)?;
    let begun = world.sim.wait_job_until(job, PATIENCE, |job| job.runs > 0);
    begun.await?;
    agent.signal_listener(Signal::SIGKILL).await?;
    assert_eq!(agent.end().await?.code, Some(137));
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Abandoned)
    );
    Ok(())
}

#[tokio::test]
async fn an_agent_deleted_under_its_listener_ends_it() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    world.wait_online("stove-01").await?;
    world.sim.named_fault(NamedFault::DeleteAgentExternally {
        agent: "stove-01".to_owned(),
    });
    let end = agent.end().await?;
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(end.stderr.contains("An error occurred: "), "{}", end.stderr);
    Ok(())
}

#[tokio::test]
async fn a_lost_session_is_made_anew() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    let agent = package.start(&[])?;
    world.wait_online("stove-01").await?;
    world.sim.named_fault(NamedFault::DropSession {
        agent: "stove-01".to_owned(),
    });
    let job = world.sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(
        world.sim.wait_job(job, PATIENCE).await?.result,
        Some(JobResult::Succeeded)
    );
    assert_eq!(agent.end().await?.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn an_admin_credential_beside_the_agent_raises_the_alarm() -> Result<()> {
    let world = World::fast(FAST).await?;
    let package = world.install(&world.register("stove-01").await?)?;
    package.write(".env", &format!("AZP_TOKEN={PAT}\n"))?;
    assert_eq!(package.start(&[])?.end().await?.code, Some(97));
    package.write(".env", "AZP_TOKEN=none\n")?;
    package.write("notes", &format!("token: {PAT}"))?;
    assert_eq!(package.start(&[])?.end().await?.code, Some(97));
    Ok(())
}
