//! An Incus that does not answer, breaks connections off, or says nothing of what happens.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iap_tests::azure_sim::JobRequest;
use iap_tests::host::AZURE_POOL;
use iap_tests::wait;
use serde_json::json;

use super::way::Way;
use crate::SOON;

/// More than are tried before an instance is given up.
const PUSHES: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_answers_for_a_while_cost_no_agent_and_no_job() -> anyhow::Result<()>
{
    let way = Way::idle(2).await?;
    way.proxy.stall_new(true);
    way.proxy.cut_all();
    let jobs = way.queue(2)?;
    way.succeeded(&jobs, SOON).await?;
    // The machines of both end by themselves, unseen.
    wait::until("the guests to end", SOON, async || {
        Ok(way.host.instances().await?.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(
        way.host.registrations().len(),
        2,
        "nothing is done that Incus does not confirm"
    );
    way.proxy.stall_new(false);
    way.settled(2, SOON).await?;
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_doors_are_told_and_opened_ones_found() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    way.proxy.refuse_new(true);
    way.proxy.cut_all();
    wait::until("the problem to be told", SOON, async || {
        let problems = way.host.status().await?.problems;
        Ok(problems
            .into_iter()
            .find(|problem| problem.contains("Incus does not answer")))
    })
    .await?;
    let jobs = way.queue(1)?;
    way.succeeded(&jobs, SOON).await?;
    way.proxy.refuse_new(false);
    way.settled(1, SOON).await?;
    wait::until("the pool to be well", SOON, async || {
        Ok(way.host.status().await?.problems.is_empty().then_some(()))
    })
    .await?;
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_cut_again_and_again_lose_no_job_and_leave_nothing() -> anyhow::Result<()> {
    let way = Way::idle(2).await?;
    let jobs = way.queue(8)?;
    let work = way.succeeded(&jobs, SOON);
    let cuts = async {
        for pause in [170, 310, 530, 230, 410, 290, 610, 370].into_iter().cycle() {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            way.proxy.cut_all();
        }
    };
    tokio::select! {
        done = work => done?,
        () = cuts => unreachable!("the cuts go on"),
    }
    way.settled(2, SOON).await?;
    way.host.empty(SOON).await
}

/// Incus was seen to lose the socket of its own helper in a container for good.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_takes_no_files_is_given_up_for_another() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    let first = way.settled(1, SOON).await?.remove(0);
    let lost = "dial unix /proc/self/fd/51/forkfile.sock: connect: no such file or directory";
    let refused = json!({"type": "error", "error": lost, "error_code": 500});
    let victim: Arc<OnceLock<String>> = Arc::default();
    for _ in 0..PUSHES {
        let (victim, first) = (Arc::clone(&victim), first.clone());
        way.proxy.answer(0, 500, &refused, move |method, path| {
            let name = path.strip_prefix("/1.0/instances/").unwrap_or_default();
            let Some((name, _)) = name.split_once("/files?") else {
                return false;
            };
            method == "POST" && name != first && victim.get_or_init(|| name.to_owned()) == name
        });
    }
    let jobs = way.queue(1)?;
    way.succeeded(&jobs, SOON).await?;
    let agent = wait::until("an agent in another instance", SOON, async || {
        let lost = victim.get();
        let agents = way.settled(1, SOON).await?;
        Ok(agents
            .into_iter()
            .find(|name| lost.is_some_and(|lost| name != lost)))
    })
    .await?;
    assert_ne!(agent, first);
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_from_the_event_stream_agents_are_still_replaced() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    way.proxy.silence_websockets(true);
    for _ in 0..2 {
        let before = way.settled(1, SOON).await?;
        let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_millis(300));
        way.succeeded(&[way.host.sim.queue_job(job)?], SOON).await?;
        wait::until(
            "another agent by the timer",
            Duration::from_secs(25),
            async || {
                let agents = way.host.agents().await?;
                Ok(agents
                    .iter()
                    .any(|agent| !before.contains(&agent.name))
                    .then_some(()))
            },
        )
        .await?;
    }
    way.settled(1, SOON).await?;
    way.proxy.silence_websockets(false);
    way.host.empty(SOON).await
}
