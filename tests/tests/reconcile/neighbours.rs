//! Pools and daemons that share an Azure pool leave each other's agents alone.

use std::time::Duration;

use iap_tests::wait;

use super::neighbour::Neighbour;
use super::world::{GRACE, queue, reload, runs_once, settled, settled_host};
use crate::SOON;

fn of(names: &[String], prefix: &str) -> Vec<String> {
    names
        .iter()
        .filter(|name| name.starts_with(prefix))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pools_in_one_azure_pool_keep_to_their_own_agents() -> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let one = host.config(2);
    let (head, pool) = one.split_once("pools:\n").expect("a pool");
    let name = format!("name: {}\n", host.pool);
    let second = pool.replacen(&name, &format!("name: {}-x\n", host.pool), 1);
    let both = format!("{head}pools:\n{pool}{second}");
    reload(&host, &both)?;
    let all = settled(&host, 4).await?;
    let (first, other) = (format!("{}-h-", host.pool), format!("{}-x-h-", host.pool));
    assert_eq!(
        (of(&all, &first).len(), of(&all, &other).len()),
        (2, 2),
        "{all:?}"
    );

    let jobs: Vec<u64> = (0..6)
        .map(|_| queue(&host, Duration::from_millis(300)))
        .collect::<anyhow::Result<_>>()?;
    for job in jobs {
        runs_once(&host, job).await?;
    }
    let all = settled(&host, 4).await?;
    let left = of(&all, &first);
    assert_eq!(left.len(), 2, "{all:?}");

    reload(&host, &one)?;
    let after = settled(&host, 2).await?;
    assert_eq!(after, left, "the other pool's end touches nobody else");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_with_pools_of_one_name_keep_to_their_own_agents() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    let ours = host.registrations().remove(0);
    let mut neighbour = Neighbour::new(&host, 1)?;
    neighbour.start()?;
    let all_theirs = neighbour.idle(1).await?;
    let theirs = &all_theirs[0];
    assert_ne!(ours, *theirs);
    let touched = async |mine: &str| {
        wait::never("a neighbour's agent was touched", GRACE * 2, async || {
            let (instances, registrations) = (host.instances().await?, host.registrations());
            let there = instances.iter().any(|name| name == mine)
                && registrations.iter().any(|name| name == mine);
            Ok((!there).then_some((instances, registrations)))
        })
        .await
    };
    touched(&ours).await?;
    neighbour.kill();
    touched(theirs).await?;
    neighbour.start()?;
    assert_eq!(neighbour.idle(1).await?, all_theirs);

    // Ours leaves altogether; theirs stays.
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("ours to leave", SOON, async || {
        let alone = host.registrations() == all_theirs;
        Ok((alone && host.instances().await? == all_theirs).then_some(()))
    })
    .await?;
    host.stop_daemon().await?;
    assert_eq!(neighbour.idle(1).await?, all_theirs);
    Ok(())
}
