//! The images of a target after it was provisioned more than once: the way back, and what is
//! removed.

use std::collections::BTreeSet;

use iapd::incus::ImageSource;
use iapd::provision::{ImageError, JobState, PruneRule, RollBack, Target};

use crate::bed::Bed;
use crate::hanging;
use crate::server::Server;

fn wish(target: &Target) -> RollBack {
    RollBack {
        target: target.clone(),
        to: String::new(),
        expected: String::new(),
        by: "a test: it is broken".to_owned(),
    }
}

async fn made(bed: &Bed, target: &str) -> String {
    let job = bed.provision(bed.request(target)).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job.image_fingerprint.clone().unwrap()
}

/// Returns the target's images as they are listed, the present one with a star.
async fn listed(bed: &Bed, target: &Target) -> Vec<String> {
    let projects = BTreeSet::from([target.project.clone()]);
    let images = bed.provisioner.images(&projects, &BTreeSet::new()).await;
    let ours = images.unwrap().into_iter().filter(|image| {
        assert_eq!(image.project, target.project);
        image.target == target.alias
    });
    ours.map(|image| match image.is_current {
        true => format!("{}*", image.fingerprint),
        false => image.fingerprint,
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_goes_back_and_forward_and_old_images_go() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let alias = bed.target("back");
    let target = Target {
        project: bed.project.name().to_owned(),
        alias: alias.clone(),
    };
    let keep = |keep: usize| PruneRule {
        keep,
        ..PruneRule::default()
    };
    let first = made(&bed, &alias).await;
    let none_older = bed.provisioner.roll_back(wish(&target)).await;
    assert!(matches!(none_older, Err(ImageError::NoneOlder { .. })));
    let second = made(&bed, &alias).await;
    let present = |image: &str| format!("{image}*");
    assert_eq!(
        listed(&bed, &target).await,
        [present(&second), first.clone()]
    );

    // A job for the target, waiting or running, has it to itself.
    let mut request = bed.request(&alias);
    request.scripts = vec![hanging()];
    let job = bed.provisioner.create(request).unwrap();
    for result in [
        bed.provisioner.way_back(&wish(&target)).await.map(drop),
        bed.provisioner.roll_back(wish(&target)).await.map(drop),
        bed.provisioner
            .prune(target.clone(), keep(1))
            .await
            .map(drop),
    ] {
        let refused = result.unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("provision job {} for {alias} is", job.id)),
            "{refused}"
        );
    }
    bed.provisioner.cancel(&job.id, "ana").await.unwrap();
    bed.ended(&job.id).await;

    let overtaken = RollBack {
        expected: first.clone(),
        ..wish(&target)
    };
    let overtaken = bed.provisioner.roll_back(overtaken).await;
    assert!(matches!(overtaken, Err(ImageError::Moved { .. })));
    let change = bed.provisioner.roll_back(wish(&target)).await.unwrap();
    assert_eq!(change.to.fingerprint, first);
    assert_eq!(change.from.unwrap().fingerprint, second);
    assert_eq!(
        bed.project.alias(&alias).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        listed(&bed, &target).await,
        [second.clone(), present(&first)]
    );

    // What is newer than the present image stays until it is asked for.
    let prunable = bed.provisioner.prunable(&target, &keep(1)).await;
    assert!(prunable.unwrap().images.is_empty());

    // The next image knows that it took the place of the first, past the second.
    let third = made(&bed, &alias).await;
    let back = bed.provisioner.way_back(&wish(&target)).await.unwrap();
    assert_eq!(back.to.fingerprint, first);
    let of_second = ImageSource::Fingerprint(second.clone());
    let one = bed.start_instance(of_second, "one", false).await;
    let pruned = bed
        .provisioner
        .prune(target.clone(), keep(1))
        .await
        .unwrap();
    let gone: Vec<_> = pruned
        .images
        .iter()
        .map(|image| &image.fingerprint)
        .collect();
    assert_eq!(gone, [&first], "the second has an instance");
    assert!(pruned.failed.is_empty());
    bed.remove(&one).await;
    let pruned = bed
        .provisioner
        .prune(target.clone(), keep(1))
        .await
        .unwrap();
    assert_eq!(pruned.images.len(), 1);
    assert_eq!(listed(&bed, &target).await, [present(&third)]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_does_not_exist_has_no_images_to_list() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let projects = BTreeSet::from(["it-nowhere".to_owned()]);
    let listed = bed.provisioner.images(&projects, &BTreeSet::new()).await;
    let error = listed.unwrap_err().to_string();
    assert_eq!(error, "there is no Incus project it-nowhere");
    bed.end().await;
}
