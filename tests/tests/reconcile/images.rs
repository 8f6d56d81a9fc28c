//! Images over the socket: what is listed, and what a rollback makes of a pool's agents.

use iap_common::v1;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::image_service_client::ImageServiceClient;
use iap_tests::host::{Host, HostOptions};
use iap_tests::testbed::Testbed;
use iap_tests::wait;
use tonic::Code;

use super::world::{options, settled};
use crate::SOON;

/// Publishes the test bed's runner once more, as a provision job would, and points the alias at it.
async fn publish(host: &Host, alias: &str, job: &str) -> anyhow::Result<String> {
    let copy = format!("{alias}-{job}");
    host.incus(&["init", &host.testbed.runner, &copy])?;
    let properties = [
        format!("iapd.target={alias}"),
        format!("iapd.job={job}"),
        format!("iapd.agent-version=4.275.{}", job.len()),
    ];
    let mut arguments = vec!["publish", &copy, "--alias", &copy, "--compression", "none"];
    arguments.extend(properties.iter().map(String::as_str));
    let made = host.incus(&arguments);
    host.incus(&["delete", &copy])?;
    made?;
    let project = host.testbed.project();
    let image = project.alias(&copy).await?.expect("just made");
    project.delete_alias(&copy).await?;
    project.point_alias(alias, "", &image).await?;
    Ok(image)
}

async fn clean_up(testbed: &Testbed, alias: &str) -> anyhow::Result<()> {
    let project = testbed.project();
    project.delete_alias(alias).await?;
    for image in project.images().await? {
        if image
            .properties
            .get("iapd.target")
            .is_some_and(|of| of == alias)
        {
            project.delete_image(&image.fingerprint).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_replaces_idle_agents_by_ones_of_the_older_image() -> anyhow::Result<()> {
    let testbed = Testbed::get();
    let alias = format!("rc-img-{}", std::process::id());
    let told = rolled_back_and_pruned(&alias).await;
    clean_up(&testbed, &alias).await?;
    told
}

async fn rolled_back_and_pruned(alias: &str) -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions {
        image: Some(alias.to_owned()),
        ..options(2)
    })
    .await?;
    let older = publish(&host, alias, "older").await?;
    let newer = publish(&host, alias, "newest").await?;
    host.start_daemon().await?;
    settled(&host, 2).await?;

    let mut images = ImageServiceClient::new(host.channel().await?);
    let of_target = v1::ListImagesRequest {
        target: alias.to_owned(),
        ..v1::ListImagesRequest::default()
    };
    let listed = images.list_images(of_target.clone()).await?.into_inner();
    let seen: Vec<_> = listed
        .images
        .iter()
        .map(|image| (image.fingerprint.as_str(), image.current, image.agents))
        .collect();
    assert_eq!(seen, [(&*newer, true, 2), (&*older, false, 0)]);
    assert_eq!(listed.images[0].pools, [host.pool.clone()]);
    assert_eq!(listed.images[0].agent_version, "4.275.6");
    assert_eq!(listed.images[0].instances, 2);

    let request = v1::RollbackImageRequest {
        target: alias.to_owned(),
        reason: "it is broken".to_owned(),
        dry_run: true,
        ..v1::RollbackImageRequest::default()
    };
    let told = images.rollback_image(request.clone()).await?.into_inner();
    assert_eq!((told.idle_agents, told.busy_agents), (2, 0));
    assert_eq!(told.pools, [host.pool.clone()]);
    assert_eq!(told.to.map(|image| image.fingerprint), Some(older.clone()));
    let request = v1::RollbackImageRequest {
        dry_run: false,
        ..request
    };
    images.rollback_image(request.clone()).await?;
    wait::until("all agents to be of the older image", SOON, async || {
        let agents = host.agents().await?;
        let all = agents.iter().all(|agent| agent.image_fingerprint == older);
        Ok((all && agents.len() == 2).then_some(()))
    })
    .await
    .map_err(|error| error.context(host.log()))?;
    settled(&host, 2).await?;
    let again = images.rollback_image(request).await;
    let again = again.expect_err("there is none older");
    assert_eq!(again.code(), Code::FailedPrecondition, "{again:?}");

    let prune = v1::PruneImagesRequest {
        target: alias.to_owned(),
        keep: Some(1),
        dry_run: true,
        ..v1::PruneImagesRequest::default()
    };
    let told = images.prune_images(prune.clone()).await?.into_inner();
    assert!(told.images.is_empty(), "what is newer stays: {told:?}");
    let prune = v1::PruneImagesRequest {
        newer: v1::NewerImages::Remove.into(),
        dry_run: false,
        ..prune
    };
    let gone = images.prune_images(prune).await?.into_inner();
    assert_eq!(gone.problems, []);
    let gone: Vec<_> = gone.images.iter().map(|i| i.fingerprint.as_str()).collect();
    assert_eq!(gone, [&*newer]);
    let listed = images.list_images(of_target).await?.into_inner();
    assert_eq!(listed.images.len(), 1);

    let mut history = HistoryServiceClient::new(host.channel().await?);
    let request = v1::ListAuditEntriesRequest::default();
    let audit = history.list_audit_entries(request).await?.into_inner();
    let audit: Vec<_> = audit
        .entries
        .iter()
        .map(|e| format!("{} {}", e.command, e.target))
        .collect();
    let (from, to) = (&newer[..12], &older[..12]);
    assert_eq!(
        audit,
        [
            format!("images prune {alias}: {from}"),
            format!("images rollback {alias} (it is broken)"),
            format!("images rollback {alias}: {from} -> {to} (it is broken)"),
        ]
    );
    Ok(())
}
