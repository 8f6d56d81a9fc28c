//! Azure assigns a job in the moment of a drain; jobs play with the doorbell.

use std::time::Duration;

use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::AZURE_POOL;
use iap_tests::wait;

use super::world::{drain, queue, running, runs_once, settled, settled_host};
use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_assigned_while_its_agent_is_drained_is_not_lost() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    for round in 0..3 {
        let before = settled(&host, 1).await?.remove(0);
        let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(1));
        host.sim
            .assign_while_stopping(job.named(format!("ambush {round}")));
        drain(&host, &before).await?;
        let job = wait::until("the ambush", SOON, async || {
            Ok(host
                .sim
                .jobs()
                .into_iter()
                .nth(round)
                .map(|job| job.request_id))
        })
        .await?;
        let ran = runs_once(&host, job).await?;
        assert!(
            ran.agent.as_ref() == Some(&before) || ran.requeues > 0,
            "{ran:?}"
        );
        let after = settled(&host, 1).await?.remove(0);
        assert_ne!(before, after);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_leaves_after_its_job_is_waited_for_quietly() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let job = queue(&host, Duration::from_secs(6))?;
    let agent = running(&host, job).await?;
    drain(&host, &agent).await?;
    let passes = async || {
        let pass = host.status().await?.last_pass;
        anyhow::Ok(pass.map_or(0, |pass| pass.number))
    };
    let before = passes().await?;
    runs_once(&host, job).await?;
    // A look a second and one for each event, not one as soon as the last has ended.
    let after = passes().await?;
    assert!(after - before < 60, "{before} to {after}\n{}", host.log());
    let left = settled(&host, 1).await?;
    assert_ne!(left[0], agent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_rings_the_doorbell_runs_to_its_end_and_gains_nothing() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    // Past the time that a ring is believed, with and without taking it back.
    let script = r#"
set -e
ring() {
  sudo curl -sf -o /dev/null --unix-socket /dev/incus/sock -X PATCH -d "{\"state\":\"$1\"}" http://incus/1.0
}
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do ring Ready; ring Ready; ring Started; sleep 1; done
ring Ready
echo rang
"#;
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running(script))?;
    let most = async {
        let mut most = 0;
        while host.sim.job(job).is_some_and(|job| job.result.is_none()) {
            most = most.max(host.instances().await?.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(most)
    };
    let (ended, most) = tokio::join!(host.sim.wait_job(job, SOON), most);
    let (ended, most) = (ended?, most?);
    let output = host.sim.job_output(job);
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{output}");
    assert_eq!(ended.runs, 1);
    assert!(output.contains("rang"), "{output}");
    assert!(most <= 2, "{most} instances at once");
    settled(&host, 1).await?;
    runs_once(&host, queue(&host, Duration::ZERO)?).await?;
    Ok(())
}
