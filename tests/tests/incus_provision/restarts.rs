//! Jobs across a restart of the daemon, and its stop.

use iapd::provision::{JobState, ProvisionError, StepKind, StepState};

use crate::bed::{Bed, script};
use crate::server::Server;
use crate::{hanging, step};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_fails_what_ran_and_removes_its_builder() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let mut request = bed.request(&bed.target("restart"));
    request.scripts = vec![hanging()];
    let job = bed.provisioner.create(request.clone()).unwrap();
    let queued = bed.provisioner.create(request).unwrap();
    bed.until_line(&job.id, "hanging").await;
    let builder = format!("iapd-build-{}", job.id);
    assert!(bed.has_instance(&builder).await);

    // As after kill -9: nothing gets to clean up.
    let bed = bed.restart_hard().await;
    let failed = bed.provisioner.job(&job.id).unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert_eq!(failed.error.as_deref(), Some("daemon restarted"));
    assert_eq!(step(&failed, StepKind::Script).state, StepState::Failed);
    assert_eq!(
        bed.provisioner.job(&queued.id).unwrap().state,
        JobState::Failed
    );
    bed.until_gone(&builder).await;
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_publishing_leaves_neither_builder_nor_image() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("half");
    let job = bed.provisioner.create(bed.request(&target)).unwrap();
    bed.until(&job.id, |job| job.publish_operation.is_some())
        .await;
    let bed = bed.restart_hard().await;
    assert_eq!(
        bed.provisioner.job(&job.id).unwrap().state,
        JobState::Failed
    );
    bed.until_gone(&format!("iapd-build-{}", job.id)).await;
    bed.until_no_images_of(&target).await;
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_failed_job_goes_also_when_its_builder_has_gone_before() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("left");
    let mut request = bed.request(&target);
    request.scripts = vec![script("bad.sh", "exit 3\n")];
    let failed = bed.provision(request).await;
    assert_eq!(failed.state, JobState::Failed);
    bed.publish_as(&target, &failed.id).await;
    let strange = bed.target("strange");
    bed.publish_as(&strange, "nobody").await;
    assert_eq!(bed.images_of(&target).await.len(), 1);

    let bed = bed.restart_hard().await;
    bed.until_no_images_of(&target).await;
    assert_eq!(bed.images_of(&strange).await.len(), 1, "not of our jobs");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_the_alias_was_switched_is_a_success() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("switched");
    let job = bed.provisioner.create(bed.request(&target)).unwrap();
    bed.until(&job.id, |job| job.image_fingerprint.is_some())
        .await;
    let bed = bed.restart_hard().await;
    let job = bed.provisioner.job(&job.id).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    assert_eq!(job.error, None);
    assert_eq!(
        bed.project.alias(&target).await.unwrap(),
        job.image_fingerprint
    );
    bed.until_gone(&format!("iapd-build-{}", job.id)).await;
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cancels_what_runs_and_removes_its_builder() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let mut request = bed.request(&bed.target("stop"));
    request.scripts = vec![hanging()];
    let job = bed.provisioner.create(request.clone()).unwrap();
    bed.until_line(&job.id, "hanging").await;
    bed.stop().await;
    let stopped = bed.provisioner.job(&job.id).unwrap();
    assert_eq!(stopped.state, JobState::Cancelled);
    assert_eq!(stopped.error.as_deref(), Some("daemon stopped"));
    assert!(matches!(
        bed.provisioner.create(request),
        Err(ProvisionError::Stopping)
    ));
    bed.assert_no_builders().await;
    bed.end().await;
}
