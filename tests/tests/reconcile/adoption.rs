//! What a host that is gone for good left in Azure is removed on another, and nothing else is.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use iap_tests::azure_sim::{FaultAction, FaultRule, Matching};
use iap_tests::host::{Host, ORG, PAT, binary};
use iap_tests::wait;
use iapd::azure::{Azure, Credential, NewAgent};
use iapd::registration::AgentKey;
use serde_json::Value;
use tokio::process::Command;

use super::neighbour::Neighbour;
use super::world::{GRACE, queue, runs_once, settled_host};
use crate::SOON;

/// A session's lifetime in Azure, and more.
const SESSION: Duration = Duration::from_secs(400);
/// Nobody's agent.
const STRANGER: &str = "stranger";

fn iapctl(host: &Host, arguments: &str) -> Command {
    let mut command = Command::new(binary("iapctl"));
    command
        .args(arguments.split_whitespace())
        .env("IAPD_SOCKET", host.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(host: &Host, arguments: &str) -> anyhow::Result<Output> {
    let output = tokio::time::timeout(SOON, iapctl(host, arguments).output());
    output.await.context("it does not end")?.map_err(Into::into)
}

/// Runs a command that has to fail, and returns its exit code and what it said.
async fn refused(host: &Host, arguments: &str) -> anyhow::Result<(Option<i32>, String)> {
    let output = run(host, arguments).await?;
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

async fn json(host: &Host, arguments: &str) -> anyhow::Result<Value> {
    let output = run(host, arguments).await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Returns what is going to happen, by agent.
async fn outlooks(host: &Host) -> anyhow::Result<BTreeMap<String, String>> {
    let document = json(host, "ghosts ls -o json").await?;
    let ghosts = document["ghosts"].as_array().context("a list")?;
    let text = |ghost: &Value, key: &str| ghost[key].as_str().unwrap_or_default().to_owned();
    let all = ghosts
        .iter()
        .map(|ghost| (text(ghost, "name"), text(ghost, "outlook")));
    Ok(all.collect())
}

/// Registers an agent as somebody does who does not use iapd.
async fn stranger(host: &Host) -> anyhow::Result<()> {
    let credential = Credential::Pat(PAT.into());
    let azure = Azure::new(&host.sim.url(ORG), credential, None, Arc::new(|_| ()))?;
    let agent = NewAgent {
        name: STRANGER.into(),
        version: "4.275.0".into(),
        os_description: "Linux".into(),
        public_key: AgentKey::generate()?.public(),
        system_capabilities: BTreeMap::new(),
    };
    azure
        .create_agent(host.azure_pool.try_into()?, &agent)
        .await?;
    Ok(())
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Takes a host away: its daemon and its machines, also one that it had just begun to make. Azure
/// finds out. Returns what it leaves there.
async fn lose(
    host: &Host,
    neighbour: &mut Neighbour,
    mine: &[String],
) -> anyhow::Result<Vec<String>> {
    neighbour.kill();
    let theirs = |name: &String| name != STRANGER && !mine.contains(name);
    for instance in host.instances().await?.iter().filter(|name| theirs(name)) {
        host.incus(&["delete", "-f", instance])?;
    }
    host.sim.advance(SESSION);
    Ok(host.registrations().into_iter().filter(theirs).collect())
}

/// Waits until all that the neighbour has may be adopted.
async fn adoptable(host: &Host, agents: &[String]) -> anyhow::Result<()> {
    wait::until("what may be adopted", SOON, async || {
        let outlooks = outlooks(host).await?;
        let can = |agent| {
            outlooks.get(agent).map(String::as_str) == Some("another host's: can be adopted")
        };
        Ok(agents.iter().all(can).then_some(()))
    })
    .await
    .with_context(|| host.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_of_a_host_that_is_gone_are_adopted_by_name_and_no_others() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let mut neighbour = Neighbour::new(&host, 2)?;
    neighbour.start()?;
    neighbour.idle(2).await?;
    for _ in 0..2 {
        let job = queue(&host, Duration::from_millis(300))?;
        runs_once(&host, job).await?;
    }
    // Azure knows first: the daemons' lists may show agents that are done.
    let theirs = wait::until("agents that had no job yet", SOON, async || {
        let theirs = neighbour.idle(2).await?;
        let ours = host.agents().await?.into_iter().map(|agent| agent.name);
        let both = sorted(ours.chain(theirs.clone()).collect());
        let azure = host.sim.agents(host.azure_pool);
        let is_new = azure
            .iter()
            .all(|a| a.online && a.last_completed_request.is_none());
        let same = sorted(azure.into_iter().map(|a| a.name).collect()) == both;
        Ok((is_new && same && both.len() == 3).then_some(theirs))
    })
    .await
    .with_context(|| host.log())?;
    stranger(&host).await?;
    let mine: Vec<String> = host.agents().await?.into_iter().map(|a| a.name).collect();

    // While the neighbour lives.
    wait::until("the neighbour to be seen", SOON, async || {
        let seen = outlooks(&host).await?;
        let lives =
            |agent| seen.get(agent).map(String::as_str) == Some("another host's, which lives");
        Ok((theirs.iter().all(lives) && seen.len() == theirs.len()).then_some(()))
    })
    .await?;
    let (code, said) = refused(&host, "ghosts adopt --owner neighbour --yes").await?;
    assert_eq!(code, Some(5), "{said}");
    assert!(
        said.contains("owner neighbour lives: 2 agents are online"),
        "{said}"
    );
    let (code, said) = refused(&host, "ghosts adopt --owner neighbor --yes").await?;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("did you mean neighbour?"), "{said}");
    let owner = host.daemon_status().await?.owner;
    let (code, said) = refused(&host, &format!("ghosts adopt --owner {owner} --yes")).await?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("is this host"), "{said}");

    let theirs = lose(&host, &mut neighbour, &mine).await?;
    let began = std::time::Instant::now();
    adoptable(&host, &theirs).await?;
    assert!(began.elapsed() >= GRACE, "after {:?}", began.elapsed());
    let (code, said) = refused(&host, "ghosts adopt --owner neighbour").await?;
    let log = || format!("{}\n{}", host.log(), neighbour.log());
    assert_eq!(code, Some(2), "nobody can be asked: {said}\n{}", log());
    let answer = json(&host, "ghosts adopt --owner neighbour --yes -o json").await?;
    assert_eq!(
        (&answer["removed"], &answer["total"]),
        (&theirs.len().into(), &theirs.len().into())
    );
    let removed = answer["ghosts"].as_array().context("a list")?.iter();
    let removed = removed.filter_map(|ghost| Some(ghost["name"].as_str()?.to_owned()));
    assert_eq!(sorted(removed.collect()), sorted(theirs.clone()));

    let mut left = mine.clone();
    left.push(STRANGER.into());
    assert_eq!(sorted(host.registrations()), sorted(left), "{}", host.log());
    assert_eq!(host.instances().await?, mine);
    wait::until("nobody's ghosts to be told of", SOON, async || {
        Ok(outlooks(&host).await?.is_empty().then_some(()))
    })
    .await?;
    let (code, said) = refused(&host, "ghosts adopt --owner neighbour --yes").await?;
    assert_eq!(code, Some(4), "{said}");

    let audit = json(&host, "audit ls -o json").await?.to_string();
    for name in &theirs {
        assert!(audit.contains(name.as_str()), "{audit}");
    }
    let events = String::from_utf8(run(&host, "events").await?.stdout)?;
    for kind in ["ghosts-adopted", "ghost-removed", "adoption-ended"] {
        assert!(events.contains(kind), "{kind}: {events}");
    }
    // They were never agents here.
    let ended = events.lines().filter(|line| line.contains("agent-ended"));
    for line in ended {
        assert!(
            !theirs.iter().any(|name| line.contains(name.as_str())),
            "{line}"
        );
    }
    Ok(())
}

/// Begins an adoption that Azure holds up, and returns it once it waits.
async fn held_up(host: &Host) -> anyhow::Result<tokio::process::Child> {
    let busy = FaultAction::status(409);
    host.sim
        .fault(FaultRule::new(Matching::new("DELETE", "*/agents/*"), busy));
    let adopting = iapctl(host, "ghosts adopt --owner neighbour --yes").spawn()?;
    wait::until("the adoption to be held up", SOON, async || {
        let seen = outlooks(host).await?;
        let held = |outlook: &String| outlook.starts_with("adopted: ") && outlook.contains("busy");
        Ok(seen.values().any(held).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    Ok(adopting)
}

async fn ended(adopting: tokio::process::Child) -> anyhow::Result<(Option<i32>, String, String)> {
    let output = tokio::time::timeout(SOON, adopting.wait_with_output());
    let output = output.await.context("it does not end")??;
    Ok((
        output.status.code(),
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_ends_with_the_daemon_and_when_its_owner_returns() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    let mut neighbour = Neighbour::new(&host, 1)?;
    neighbour.start()?;
    neighbour.idle(1).await?;
    let mine: Vec<String> = host.agents().await?.into_iter().map(|a| a.name).collect();
    let theirs = lose(&host, &mut neighbour, &mine).await?;
    adoptable(&host, &theirs).await?;

    // A restart forgets what was confirmed.
    let adopting = held_up(&host).await?;
    let (code, said) = refused(&host, "ghosts adopt --owner neighbour --yes").await?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("being removed"), "{said}");
    host.stop_daemon().await?;
    let (code, _, said) = ended(adopting).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the daemon went away"), "{said}");
    assert!(
        said.contains(&format!("not removed: {}", theirs[0])),
        "{said}"
    );
    host.sim.clear_faults();
    host.start_daemon().await?;
    adoptable(&host, &theirs).await?;
    wait::never("it was removed all the same", GRACE, async || {
        let left = host.registrations();
        Ok((!left.contains(&theirs[0])).then_some(left))
    })
    .await?;

    // Its owner returns.
    let adopting = held_up(&host).await?;
    neighbour.start()?;
    let (code, answer, said) = ended(adopting).await?;
    assert_eq!(
        (code, answer.as_str()),
        (Some(1), "removed: 0/1\n"),
        "{said}"
    );
    assert!(said.contains("owner neighbour lives: agent"), "{said}");
    host.sim.clear_faults();
    // It sweeps its own ghost itself.
    let new = neighbour.idle(1).await?;
    assert_ne!(new, theirs);
    wait::never("a neighbour's agent was touched", GRACE * 2, async || {
        let left = host.registrations();
        Ok((!left.contains(&new[0])).then_some(left))
    })
    .await
}
