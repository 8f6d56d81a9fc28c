use super::*;

fn instance(more: &str) -> Instance {
    serde_json::from_str(&format!(r#"{{"name":"a","status_code":103{more}}}"#)).unwrap()
}

#[test]
fn instance_is_read_though_go_writes_null_for_nothing() {
    let read = instance(r#","config":null,"expanded_devices":null,"profiles":null"#);
    assert!(read.config.is_empty() && read.expanded_devices.is_empty());
    assert!(read.profiles.is_empty());
    assert_eq!(read.created_at, None);
    assert!(!read.ephemeral);
}

#[test]
fn time_that_was_never_is_none() {
    let at = |time: &str| instance(&format!(r#","created_at":"{time}""#)).created_at;
    assert_eq!(at("0001-01-01T00:00:00Z"), None);
    assert_eq!(at("1970-01-01T00:00:00Z"), None);
    assert_eq!(
        at("2026-01-02T03:04:05.678901234+01:00")
            .unwrap()
            .to_string(),
        "2026-01-02T02:04:05.678901234Z"
    );
}

#[test]
fn ready_counts_as_running() {
    let status = |code| Status::from_code(code);
    assert!(status(103).is_running() && status(113).is_running());
    for code in [100, 102, 106, 107, 110, 112, 999] {
        assert!(!status(code).is_running(), "{code}");
    }
}

#[test]
fn paths_tell_their_instance() {
    let cases = [
        ("/1.0/instances/a", Some("a")),
        ("/1.0/instances/a?project=p", Some("a")),
        ("/1.0/instances/a/state", Some("a")),
        ("/1.0/instances/", None),
        ("/1.0/instances", None),
        ("/1.0/images/a", None),
    ];
    for (path, instance) in cases {
        assert_eq!(instance_of(path), instance, "{path}");
    }
}

#[test]
fn server_that_does_not_trust_us_is_read() {
    let text = r#"{"api_extensions":["a"],"auth":"untrusted"}"#;
    let server: Server = serde_json::from_str(text).unwrap();
    assert!(!server.is_trusted() && server.has_extension("a"));
    assert_eq!(server.version, "");
}
