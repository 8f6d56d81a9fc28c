use super::*;
use crate::incus::scripted::{Scripted, answer, json, refusal};

async fn ask(server: &Scripted, ask: Ask) -> Result<Vec<String>, IncusError> {
    server.incus.transport.sync(ask).await
}

fn list() -> Ask {
    Ask::get("instance_list", path(&["instances"], &[]))
}

#[test]
fn paths_are_encoded() {
    assert_eq!(path(&[], &[]), "/1.0");
    assert_eq!(
        path(
            &["instances", "a b/c?d%e", "state"],
            &[("project", "p&q=r s"), ("x", "ü")]
        ),
        "/1.0/instances/a%20b%2Fc%3Fd%25e/state?project=p%26q%3Dr+s&x=%C3%BC"
    );
}

#[test]
fn only_posts_are_not_repeated() {
    let repeats = |method| Ask::new("x", method, path(&[], &[])).repeat;
    assert!(!repeats(Method::POST));
    for method in [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ] {
        assert!(repeats(method));
    }
}

#[tokio::test]
async fn refusal_tells_the_servers_words_and_the_call() {
    let server = Scripted::new(|_| refusal(404, 404, "Instance not found"));
    let error = ask(&server, list().instance("a-1")).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "instance_list of a-1 (GET /1.0/instances): refused with status 404: Instance not found"
    );
}

#[tokio::test]
async fn refusal_without_a_frame_is_told_as_it_is() {
    let server = Scripted::new(|_| answer(503, "", "Shutting down\n"));
    let error = ask(&server, list()).await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .ends_with("refused with status 503: Shutting down"),
        "{error}"
    );
}

#[tokio::test]
async fn refusal_in_an_answer_that_began_well_is_one() {
    let server = Scripted::new(|_| refusal(200, 403, "not yours"));
    assert!(ask(&server, list()).await.unwrap_err().is_not_permitted());
}

#[tokio::test]
async fn answers_that_are_not_the_api_are_not_understood() {
    for body in ["<html>", "{}", r#"{"type":"sync","metadata":{"a":1}}"#] {
        let server = Scripted::new(move |_| answer(200, "", body));
        let error = ask(&server, list()).await.unwrap_err();
        assert!(
            matches!(error, IncusError::Malformed { .. }),
            "{body}: {error}"
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn answer_beyond_its_cap_is_an_error() {
    let server = Scripted::new(|_| json(200, r#"["1234567890"]"#));
    let error = ask(&server, list().part(0, 20)).await.unwrap_err();
    assert!(
        matches!(error, IncusError::TooLarge { cap: 20, .. }),
        "{error}"
    );
    ask(&server, list()).await.unwrap();
}

#[tokio::test]
async fn server_that_hangs_up_is_tried_three_times() {
    let server = Scripted::new(|_| Vec::new());
    let error = ask(&server, list()).await.unwrap_err();
    assert!(matches!(error, IncusError::Broken { .. }), "{error}");
    assert_eq!(server.requests(), ["GET /1.0/instances"; 3]);
}

#[tokio::test]
async fn connections_are_kept_for_the_next_call() {
    let server = Scripted::new(|_| json(200, "[]"));
    for _ in 0..3 {
        ask(&server, list()).await.unwrap();
    }
    assert_eq!(server.incus.transport.idle.lock().unwrap().len(), 1);
}
