use super::*;

fn request() -> JobRequest {
    JobRequest {
        base: "images:ubuntu/24.04".to_owned(),
        target: "linux".to_owned(),
        scripts: vec![Script {
            name: "tools.sh".to_owned(),
            content: b"true\n".to_vec(),
        }],
        vm: false,
        project: String::new(),
        no_docker: false,
        keep_on_failure: false,
        package: PackageSource::Version(String::new()),
        expected_sha256: None,
        azure_pool: None,
        profiles: Vec::new(),
        requested_by: "uid 0".to_owned(),
    }
}

#[test]
fn defaults_are_filled_in() {
    let mut request = request();
    assert_eq!(request.normalise(), Vec::<String>::new());
    assert_eq!(request.project, "default");
    assert_eq!(request.profiles, ["default"]);
    assert_eq!(request.package, PackageSource::Version(LATEST.to_owned()));
}

#[test]
fn every_problem_is_reported_at_once() {
    let mut request = request();
    request.base = "docker:ubuntu".to_owned();
    request.target = "a b".to_owned();
    request.project = "x/y".to_owned();
    request.package = PackageSource::Version("newest".to_owned());
    request.expected_sha256 = Some("1234".to_owned());
    request.scripts = vec![
        Script {
            name: "../evil".to_owned(),
            content: b"true".to_vec(),
        },
        Script {
            name: "empty.sh".to_owned(),
            content: Vec::new(),
        },
        Script {
            name: "dos.sh".to_owned(),
            content: b"#!/bin/sh\r\ntrue\r\n".to_vec(),
        },
    ];
    let problems = request.normalise();
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert!(
        problems[0].contains("unknown image server \"docker\""),
        "{}",
        problems[0]
    );
}

#[test]
fn a_target_that_only_some_versions_of_incus_take_is_refused_before_anything_is_built() {
    for target in ["linux-", "linux.", "ubuntu/24.04_", "new est"] {
        let mut request = request();
        request.target = target.to_owned();
        let problems = request.normalise();
        assert_eq!(problems.len(), 1, "{target}: {problems:?}");
        assert!(problems[0].contains("first and last"), "{problems:?}");
    }
}

#[test]
fn a_checksum_is_taken_in_any_case_and_compared_with_the_upload() {
    let mut request = request();
    request.package = PackageSource::Uploaded {
        sha256: "AB".repeat(32),
    };
    request.expected_sha256 = Some("ab".repeat(32));
    assert_eq!(request.normalise(), Vec::<String>::new());
    request.expected_sha256 = Some("cd".repeat(32));
    assert_eq!(request.normalise().len(), 1);
}

#[test]
fn bases_are_told_apart_by_their_server() {
    let parse = |text| Base::parse(text).ok();
    assert_eq!(
        parse("images:ubuntu/24.04"),
        Some(Base::Images("ubuntu/24.04".to_owned()))
    );
    assert_eq!(
        parse("images:debian/12/cloud"),
        Some(Base::Images("debian/12/cloud".to_owned()))
    );
    assert_eq!(
        parse("local:debian-min"),
        Some(Base::Local("debian-min".to_owned()))
    );
    assert_eq!(
        parse("debian-min"),
        Some(Base::Either("debian-min".to_owned()))
    );
    for wrong in [
        "",
        "images:",
        "local:",
        "ubuntu:24.04",
        "-x",
        "a//b",
        "a/",
        "a b",
        ":x",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_version_is_numbers_and_dots() {
    for (text, fine) in [
        ("4.275.0", true),
        ("5.278.0", true),
        ("4", false),
        ("v4.1.0", false),
        ("4..1", false),
    ] {
        assert_eq!(is_version(text), fine, "{text}");
    }
}

#[test]
fn a_script_is_not_shown_in_debug_output() {
    let script = Script {
        name: "a.sh".to_owned(),
        content: b"TOKEN=1".to_vec(),
    };
    assert_eq!(format!("{script:?}"), "Script(a.sh, 7 bytes)");
}
