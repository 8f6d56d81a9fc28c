use serde_json::json;

use super::*;

fn new(alias: ImageSource) -> NewInstance {
    NewInstance {
        name: "a".to_owned(),
        kind: "virtual-machine".to_owned(),
        alias,
        profiles: vec!["default".to_owned(), "ci".to_owned()],
        config: BTreeMap::from([("limits.cpu".to_owned(), "2".to_owned())]),
        devices: BTreeMap::from([(
            "tmp".to_owned(),
            BTreeMap::from([("type".to_owned(), "disk".to_owned())]),
        )]),
        ephemeral: true,
        start: true,
        target: Some("m1".to_owned()),
    }
}

#[test]
fn instance_is_asked_for_in_the_words_of_the_api() {
    assert_eq!(
        new(ImageSource::Alias("runner".to_owned())).body(),
        json!({
            "name": "a",
            "type": "virtual-machine",
            "source": {"type": "image", "alias": "runner"},
            "profiles": ["default", "ci"],
            "config": {"limits.cpu": "2"},
            "devices": {"tmp": {"type": "disk"}},
            "ephemeral": true,
            "start": true,
        })
    );
}

#[test]
fn remote_image_is_pulled() {
    let remote = RemoteImage {
        server: "https://images.example".to_owned(),
        protocol: "simplestreams".to_owned(),
        alias: "debian/12".to_owned(),
        certificate: None,
        kind: "container".to_owned(),
    };
    assert_eq!(
        new(ImageSource::Remote(remote)).body()["source"],
        json!({
            "type": "image",
            "mode": "pull",
            "server": "https://images.example",
            "protocol": "simplestreams",
            "alias": "debian/12",
            "image_type": "container",
        })
    );
}

#[test]
fn patch_unsets_with_an_empty_value_and_leaves_out_what_it_does_not_change() {
    assert_eq!(
        InstancePatch::config("user.a", None).body(),
        json!({"config": {"user.a": ""}})
    );
    let patch = InstancePatch {
        ephemeral: Some(false),
        ..InstancePatch::default()
    };
    assert_eq!(patch.body(), json!({"config": {}, "ephemeral": false}));
}
