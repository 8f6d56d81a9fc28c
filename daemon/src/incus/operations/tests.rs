use super::*;
use crate::incus::scripted::{Scripted, json, refusal};

const FAILED: &str = r#"{"id":"a","status_code":400,"err":"UNIQUE constraint failed",
    "resources":{"instances":["/1.0/instances/x-1?project=p"]},"metadata":null}"#;
const ENDED: &str = r#"{"id":"a","status_code":200,"err":"","metadata":{"return":3}}"#;
const RUNNING: &str = r#"{"id":"a","status_code":103,"err":"","resources":null}"#;

async fn waited(
    answers: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    deadline: Duration,
) -> (Result<Waited, IncusError>, Vec<String>) {
    let server = Scripted::new(answers);
    let waited = server.incus.wait(&OperationId::new("a"), deadline).await;
    (waited, server.requests())
}

#[test]
fn id_is_taken_out_of_a_path() {
    for text in [
        "abc",
        "/1.0/operations/abc",
        "/1.0/operations/abc?project=p",
    ] {
        assert_eq!(OperationId::new(text).as_str(), "abc");
    }
}

#[test]
fn failure_is_told_with_its_instance() {
    let operation: Operation = serde_json::from_str(FAILED).unwrap();
    assert_eq!(operation.instance(), Some("x-1"));
    let error = operation.result().unwrap_err();
    assert!(error.is_conflict() && !error.is_transient());
    assert_eq!(
        error.to_string(),
        "operation of x-1 (GET /1.0/operations/a): the operation failed: UNIQUE constraint failed"
    );
}

#[test]
fn only_what_goes_on_is_running_on_an_instance() {
    let mut operation: Operation = serde_json::from_str(FAILED).unwrap();
    assert!(!operation.is_running_on("x-1"));
    operation.status = OperationStatus::Running;
    assert!(operation.is_running_on("x-1"));
    assert!(!operation.is_running_on("x"));
}

#[test]
fn a_shell_in_an_instance_is_not_its_making() {
    let mut operation: Operation = serde_json::from_str(FAILED).unwrap();
    operation.status = OperationStatus::Running;
    operation.description = "Executing command".to_owned();
    assert!(!operation.is_creating("x-1"));
    operation.description = "Creating instance".to_owned();
    assert!(operation.is_creating("x-1") && !operation.is_creating("x"));
    operation.status = OperationStatus::Success;
    assert!(!operation.is_creating("x-1"));
}

#[tokio::test]
async fn failed_operation_is_looked_at_when_its_wait_is_refused() {
    let (waited, requests) = waited(
        |head| {
            if head.contains("/wait") {
                refusal(200, 404, "no image")
            } else {
                json(200, FAILED)
            }
        },
        Duration::from_secs(5),
    )
    .await;
    let Ok(Waited::Ended(operation)) = waited else {
        panic!("{waited:?}")
    };
    assert_eq!(operation.status, OperationStatus::Failure);
    assert_eq!(
        requests,
        [
            "GET /1.0/operations/a/wait?timeout=1",
            "GET /1.0/operations/a"
        ]
    );
}

#[tokio::test]
async fn failure_is_known_even_when_its_operation_is_forgotten_right_after() {
    let (waited, _) = waited(
        |head| {
            if head.contains("/wait") {
                refusal(200, 500, "no space left")
            } else {
                refusal(404, 404, "Operation not found")
            }
        },
        Duration::from_secs(5),
    )
    .await;
    let Ok(Waited::Ended(operation)) = waited else {
        panic!("{waited:?}")
    };
    assert_eq!(
        (operation.status, operation.err.as_str()),
        (OperationStatus::Failure, "no space left")
    );
}

#[tokio::test]
async fn wait_takes_turns_until_the_end() {
    let turns = std::sync::atomic::AtomicU32::new(0);
    let (waited, requests) = waited(
        move |head| match head.contains("/wait") {
            true if turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => {
                refusal(200, 500, "context deadline exceeded")
            }
            true => json(200, ENDED),
            false => json(200, RUNNING),
        },
        Duration::from_secs(60),
    )
    .await;
    let Ok(Waited::Ended(operation)) = waited else {
        panic!("{waited:?}")
    };
    assert_eq!(operation.metadata["return"], 3);
    let turns: Vec<_> = requests
        .iter()
        .filter(|request| request.contains("/wait"))
        .collect();
    assert_eq!(
        turns,
        [
            "GET /1.0/operations/a/wait?timeout=1",
            "GET /1.0/operations/a/wait?timeout=2",
            "GET /1.0/operations/a/wait?timeout=4",
        ]
    );
}

#[tokio::test]
async fn operation_nobody_knows_is_forgotten() {
    let (waited, _) = waited(
        |_| refusal(404, 404, "Operation not found"),
        Duration::from_secs(5),
    )
    .await;
    assert_eq!(waited.unwrap(), Waited::Forgotten);
}

#[tokio::test]
async fn wait_that_may_not_be_is_an_error() {
    let (waited, requests) =
        waited(|_| refusal(403, 403, "not yours"), Duration::from_secs(5)).await;
    assert!(waited.unwrap_err().is_not_permitted());
    assert_eq!(requests.len(), 1);
}

#[tokio::test]
async fn a_wait_that_breaks_off_again_and_again_is_asked_for_ever_less_often() {
    let (waited, requests) = waited(
        |_| refusal(503, 503, "shutting down"),
        Duration::from_millis(1500),
    )
    .await;
    assert!(!matches!(waited, Ok(Waited::Ended(_) | Waited::Forgotten)));
    let waits = requests.iter().filter(|r| r.contains("/wait")).count();
    // At 0, 0.2, 0.6 and 1.4 seconds, or fewer on a busy machine; the pause alone would make eight.
    assert!((2..=5).contains(&waits), "{requests:?}");
}
