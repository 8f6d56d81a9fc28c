//! Profiles and images, good and bad.

use super::*;
use crate::doctor::Severity;
use crate::doctor::tests::{pool, severities};

fn device(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = settings
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

fn devices(all: &[(&str, &[(&str, &str)])]) -> Devices {
    all.iter()
        .map(|(name, settings)| ((*name).to_owned(), device(settings)))
        .collect()
}

const ROOT: (&str, &[(&str, &str)]) =
    ("root", &[("type", "disk"), ("path", "/"), ("pool", "fast")]);
const NIC: (&str, &[(&str, &str)]) = ("eth0", &[("type", "nic"), ("network", "incusbr0")]);

#[test]
fn profiles_have_to_exist_and_give_a_root_disk_and_a_way_out() {
    use Severity::{Error, Notice, Ok, Warning};
    let bridge: (&str, &[(&str, &str)]) = (
        "azure",
        &[("type", "disk"), ("source", "/srv"), ("path", "/srv")],
    );
    let whole = Some(devices(&[ROOT, NIC]));
    let bridged = Some(devices(&[ROOT, bridge]));
    let cases: [(&str, Option<Devices>, &[Severity]); 5] = [
        ("whole", whole, &[Ok, Ok, Ok]),
        ("gone", None, &[Error]),
        ("bare", Some(devices(&[])), &[Ok, Error, Warning]),
        ("closed", Some(devices(&[ROOT])), &[Ok, Ok, Warning]),
        ("bridged", bridged, &[Ok, Ok, Notice]),
    ];
    for (name, profile, expected) in cases {
        let (checks, storage) = judge_profiles(&pool("linux"), &[profile]);
        assert_eq!(severities(&checks), expected, "{name}");
        let has_root = expected.get(1) == Some(&Ok);
        assert_eq!(storage.as_deref(), has_root.then_some("fast"), "{name}");
    }
}

#[test]
fn a_later_profile_replaces_a_device_and_a_configured_storage_pool_replaces_the_disk() {
    let other: (&str, &[(&str, &str)]) =
        ("root", &[("type", "disk"), ("path", "/"), ("pool", "slow")]);
    let mut pool = pool("linux");
    pool.instance.profiles = vec!["default".into(), "ci".into()];
    let profiles = vec![Some(devices(&[ROOT, NIC])), Some(devices(&[other]))];
    assert_eq!(judge_profiles(&pool, &profiles).1.as_deref(), Some("slow"));
    pool.instance.storage_pool = Some("nvme".into());
    assert_eq!(judge_profiles(&pool, &profiles).1.as_deref(), Some("nvme"));
}

#[test]
fn images_have_to_exist_to_fit_and_not_to_be_old() {
    let now: Timestamp = "2026-11-25T09:00:00Z".parse().unwrap();
    let image = |kind: &str, days: i64, version: Option<&str>| Image {
        fingerprint: "9fd8".into(),
        kind: kind.into(),
        properties: version
            .map(|version| (AGENT_VERSION_PROPERTY.to_owned(), version.to_owned()))
            .into_iter()
            .collect(),
        created_at: Some(now - jiff::SignedDuration::from_hours(days * 24)),
        aliases: vec![],
        size: 0,
    };
    let cases = [
        (
            image("container", 3, Some("4.2")),
            Severity::Ok,
            "linux-runner, 3 days old, agent 4.2",
        ),
        (
            image("container", 31, None),
            Severity::Notice,
            "linux-runner is 31 days old, agent version not recorded in it",
        ),
        (
            image("virtual-machine", 0, None),
            Severity::Error,
            "linux-runner is an image for a virtual machine, and the pool makes a container",
        ),
    ];
    for (image, severity, finding) in cases {
        let check = judge_image(&pool("linux"), &Ok(Some(image)), now);
        assert_eq!((check.severity, &*check.finding), (severity, finding));
    }
    let check = judge_image(&pool("linux"), &Ok(None), now);
    assert_eq!(check.severity, Severity::Error);
    assert!(
        check.fix.starts_with("iapctl provision --base "),
        "{}",
        check.fix
    );
    let check = judge_image(&pool("linux"), &Err(Failure::Late), now);
    assert_eq!(check.severity, Severity::Skipped);
}

#[test]
fn what_a_restricted_project_forbids_is_told_with_both_ways_out() {
    use Severity::{Error, Ok};
    let restricted = Restrictions::new([("restricted", "true")]);
    let mut pool = pool("linux");
    assert_eq!(
        judge_restrictions(&pool, &Restrictions::default()).severity,
        Ok
    );
    pool.instance.tmpfs_gib = Some(2);
    let check = judge_restrictions(&pool, &restricted);
    assert_eq!(check.severity, Error);
    assert!(check.finding.ends_with("forbids nesting and a tmpfs"));
    let allow = "restricted.containers.nesting=allow    # or set incus.nesting: false";
    assert!(check.fix.contains(allow), "{}", check.fix);
    assert!(check.fix.contains("restricted.devices.disk=allow"));

    pool.instance.tmpfs_gib = None;
    pool.instance.nesting = false;
    let check = judge_restrictions(&pool, &restricted);
    assert_eq!(check.severity, Ok);
    assert!(check.finding.contains("cannot use docker"));
    pool.instance.nesting = true;
    pool.instance.kind = InstanceKind::VirtualMachine;
    assert_eq!(judge_restrictions(&pool, &restricted).severity, Ok);
}
