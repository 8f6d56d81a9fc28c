use serde_json::json;

use super::*;

/// An image of a day in January, made here for `target`; by somebody else when that is empty.
fn image(name: &str, day: u8, target: &str, aliases: &[&str]) -> Image {
    let aliases: Vec<_> = aliases.iter().map(|name| json!({"name": name})).collect();
    let properties = match target {
        "" => json!({"os": "debian"}),
        target => json!({TARGET: target, JOB: "91c2e0"}),
    };
    serde_json::from_value(json!({
        "fingerprint": name,
        "type": "container",
        "properties": properties,
        "created_at": format!("2026-01-{day:02}T00:00:00Z"),
        "aliases": aliases,
    }))
    .unwrap()
}

fn replacing(mut image: Image, replaced: &str) -> Image {
    image
        .properties
        .insert(REPLACES.to_owned(), replaced.to_owned());
    image
}

/// Five images of `linux`, `img1` to `img5`, of which the alias points at one.
fn five(current: &str) -> Vec<Image> {
    (1..=5)
        .map(|day| {
            let name = format!("img{day}");
            let aliases: &[&str] = if name == current { &["linux"] } else { &[] };
            image(&name, day, "linux", aliases)
        })
        .collect()
}

fn back(images: &[Image], to: &str) -> Result<String, String> {
    way_back(images, "linux", "ci", to)
        .map(|(_, to)| to.fingerprint.clone())
        .map_err(|error| error.to_string())
}

fn old(images: &[Image], rule: &PruneRule, used: &[&str]) -> Vec<String> {
    let used = used.iter().map(|name| (*name).to_owned()).collect();
    outdated(images, "linux", rule, &used)
        .into_iter()
        .map(|image| image.fingerprint.clone())
        .collect()
}

fn keep(keep: usize) -> PruneRule {
    PruneRule {
        keep,
        ..PruneRule::default()
    }
}

#[test]
fn the_way_back_leads_to_the_newest_older_image_of_the_target() {
    let mut images = five("img4");
    images.push(image("other", 3, "windows", &[]));
    images.push(image("foreign", 3, "", &[]));
    assert_eq!(back(&images, "").as_deref(), Ok("img3"));
}

#[test]
fn after_a_rollback_and_a_new_image_the_way_back_leads_past_the_bad_one() {
    // From 5 back to 4; then 6 took the place of 4.
    let mut images = five("");
    images.push(replacing(image("img6", 6, "linux", &["linux"]), "img4"));
    assert_eq!(back(&images, "").as_deref(), Ok("img4"));
    images.retain(|image| image.fingerprint != "img4");
    assert_eq!(back(&images, "").as_deref(), Ok("img5"), "4 is gone");
}

#[test]
fn what_somebody_else_made_is_gone_back_to_when_the_target_was_it() {
    let mut images = vec![
        image("foreign", 1, "", &[]),
        replacing(image("img1", 2, "linux", &["linux"]), "foreign"),
    ];
    assert_eq!(back(&images, "").as_deref(), Ok("foreign"));
    images[1].properties.remove(REPLACES);
    let error = "linux has no image older than the present one, img1";
    assert_eq!(back(&images, "").unwrap_err(), error);
}

#[test]
fn without_an_alias_there_is_a_way_only_to_a_named_image() {
    let images = five("");
    let error = "there is no image alias linux in Incus project ci";
    assert_eq!(back(&images, "").unwrap_err(), error);
    assert_eq!(back(&images, "img2").as_deref(), Ok("img2"));
}

#[test]
fn a_named_image_is_any_of_the_targets_but_the_present_one() {
    let images = five("img3");
    assert_eq!(back(&images, "IMG5").as_deref(), Ok("img5"), "forward, too");
    for (to, error) in [
        ("img3", "linux is image img3 already"),
        ("img9", "linux has no image img9"),
        ("img", "more than one image of linux begins with img"),
    ] {
        assert_eq!(back(&images, to).unwrap_err(), error);
    }
}

#[test]
fn only_old_unnamed_images_of_the_target_are_outdated() {
    let images = vec![
        image("oldest", 1, "linux", &[]),
        image("named", 2, "linux", &["rollback"]),
        image("other", 3, "windows", &[]),
        image("foreign", 4, "", &[]),
        image("old", 5, "linux", &[]),
        image("third", 6, "linux", &[]),
        image("current", 8, "linux", &["linux"]),
        image("second", 7, "linux", &[]),
    ];
    let found = old(&images, &PruneRule::default(), &[]);
    assert_eq!(found, ["old", "oldest"]);
    assert!(old(&images[..1], &PruneRule::default(), &[]).is_empty());
}

#[test]
fn what_instances_are_made_of_stays() {
    assert_eq!(old(&five("img5"), &keep(2), &["img2"]), ["img3", "img1"]);
}

#[test]
fn after_a_rollback_those_kept_are_counted_from_the_present_image_on() {
    let images = five("img3");
    let found = old(&images, &keep(2), &[]);
    assert_eq!(found, ["img1"], "4 and 5 are newer");
    assert_eq!(old(&images, &keep(1), &[]), ["img2", "img1"]);
    assert_eq!(
        old(&images, &keep(0), &[]),
        ["img2", "img1"],
        "3 has a name"
    );
    let newer = PruneRule {
        newer: true,
        ..keep(2)
    };
    assert_eq!(old(&images, &newer, &[]), ["img5", "img4", "img1"]);
}

#[test]
fn the_image_that_a_new_one_took_the_place_of_outlives_those_that_were_rolled_back_from() {
    // From 5 back to 1; then 6 took the place of 1.
    let mut images = five("");
    images.push(replacing(image("img6", 6, "linux", &["linux"]), "img1"));
    assert_eq!(old(&images, &keep(3), &[]), ["img3", "img2"]);
    let alone = old(&images, &keep(1), &[]);
    assert_eq!(alone, ["img5", "img4", "img3", "img2", "img1"]);
}

#[test]
fn of_what_can_go_only_what_was_confirmed_goes() {
    let only = ["img1", "img5"].map(str::to_owned).into();
    let rule = PruneRule {
        only: Some(only),
        ..keep(2)
    };
    assert_eq!(old(&five("img5"), &rule, &[]), ["img1"]);
}
