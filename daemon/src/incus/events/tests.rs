use super::*;

#[test]
fn lifecycle_event_is_read() {
    let text = r#"{"type":"lifecycle","timestamp":"2026-01-02T03:04:05Z","location":"m1",
        "metadata":{"action":"instance-ready","source":"/1.0/instances/a-1?project=p",
        "requestor":{"username":"root"}},"project":"p"}"#;
    assert_eq!(
        lifecycle(text).unwrap(),
        Some(Lifecycle {
            action: "instance-ready".to_owned(),
            instance: Some("a-1".to_owned()),
            project: "p".to_owned(),
            location: "m1".to_owned(),
        })
    );
}

#[test]
fn event_about_something_else_has_no_instance() {
    let text = r#"{"type":"lifecycle","metadata":{"action":"image-created",
        "source":"/1.0/images/abc"},"project":"p","location":"none"}"#;
    assert_eq!(lifecycle(text).unwrap().unwrap().instance, None);
}

#[test]
fn other_events_are_passed_over() {
    let text = r#"{"type":"logging","metadata":{"message":"x","level":"info"}}"#;
    assert_eq!(lifecycle(text).unwrap(), None);
    assert!(lifecycle("not json").is_err());
}
