//! Images, aliases, profiles.

use std::collections::BTreeMap;

use iapd::incus::{ImageSource, RemoteImage, StopMode, Waited};

use crate::bed::{
    IMAGE, LONG, ended_well, name, new_instance, project, with_cleanup, with_instance,
};

#[tokio::test]
async fn image_is_published_pointed_at_and_removed() {
    with_instance("publish", |project, instance| async move {
        project
            .stop(&instance, StopMode::Force, LONG)
            .await
            .unwrap();
        let properties = BTreeMap::from([("iapd.test".to_owned(), instance.clone())]);
        let id = project.publish(&instance, properties).await.unwrap();
        let made = ended_well(&project, &id).await;
        let fingerprint = made.fingerprint().unwrap().to_owned();

        let image = project.image(&fingerprint).await.unwrap().unwrap();
        assert_eq!(image.kind, "container");
        assert_eq!(image.properties["iapd.test"], instance);
        assert!(image.created_at.is_some());
        assert!(image.size > 0);

        // With what has to survive the way into the path. Incus 7.0 takes no spaces any more.
        let alias = format!("{instance}/new%20#est");
        let base = project.alias(IMAGE).await.unwrap().unwrap();
        assert_eq!(project.alias(&alias).await.unwrap(), None);
        project.point_alias(&alias, "first", &base).await.unwrap();
        assert_eq!(project.alias(&alias).await.unwrap().as_ref(), Some(&base));
        project
            .point_alias(&alias, "second", &fingerprint)
            .await
            .unwrap();
        assert_eq!(
            project.alias(&alias).await.unwrap().as_ref(),
            Some(&fingerprint)
        );
        let images = project.images().await.unwrap();
        let listed = images
            .iter()
            .find(|image| image.fingerprint == fingerprint)
            .unwrap();
        assert_eq!(listed.aliases, [alias.as_str()]);

        let copy = name("copy");
        let mut new = new_instance(&copy);
        new.alias = ImageSource::Fingerprint(fingerprint.clone());
        new.start = false;
        let id = project.create(&new).await.unwrap();
        with_cleanup(&project, &copy, async {
            ended_well(&project, &id).await;
            let made = project.instance(&copy).await.unwrap().unwrap();
            assert_eq!(made.config["volatile.base_image"], fingerprint);
        })
        .await;

        project.delete_alias(&alias).await.unwrap();
        project.delete_alias(&alias).await.unwrap();
        project.delete_image(&fingerprint).await.unwrap();
        project.delete_image(&fingerprint).await.unwrap();
        assert!(project.image(&fingerprint).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn image_server_that_does_not_answer_fails_the_operation() {
    let project = project();
    let remote = RemoteImage {
        server: "https://127.0.0.1:1".to_owned(),
        protocol: "simplestreams".to_owned(),
        alias: "debian/12".to_owned(),
        certificate: None,
        kind: "container".to_owned(),
    };
    let error = match project.copy_image(&remote).await {
        Err(error) => error,
        Ok(id) => match project.incus().wait(&id, LONG).await.unwrap() {
            Waited::Ended(operation) => operation.result().unwrap_err(),
            other => panic!("{other:?}"),
        },
    };
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn profile_tells_its_devices() {
    let project = project();
    let profile = project.profile("default").await.unwrap().unwrap();
    assert!(profile.devices["root"].contains_key("pool"));
    assert!(project.profile("it-incus-nowhere").await.unwrap().is_none());
}
