use std::collections::BTreeMap;
use std::path::Path;

use iap_common::error::chain;

use super::*;
use crate::azure::tests::script::{Reply, Script};

const SECRET: &str = "s3cret~value+0123456789";

fn granted() -> Reply {
    Reply::json(
        200,
        r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t0ken"}"#,
    )
}

fn application(script: &Script, proof: Proof) -> Entra {
    let application = Application {
        authority: format!("{}/login/", script.url),
        tenant_id: "tenant1".into(),
        client_id: "client1".into(),
        proof,
    };
    Entra::application(application, Wires::default(), Arc::new(|_| ())).unwrap()
}

fn machine(script: &Script, client_id: Option<&str>) -> Entra {
    let client_id = client_id.map(str::to_owned);
    Entra::managed_identity(client_id, &script.url, Wires::default(), Arc::new(|_| ())).unwrap()
}

fn file(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("proof");
    std::fs::write(&path, text).unwrap();
    path
}

/// Returns the first line of a request and its form.
fn asked(request: &str) -> (&str, BTreeMap<String, String>) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let form = url::form_urlencoded::parse(body.as_bytes());
    (head.lines().next().unwrap(), form.into_owned().collect())
}

#[tokio::test]
async fn a_secret_is_sent_as_a_form_to_the_tenants_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::of(vec![granted()]).await;
    let path = file(directory.path(), &format!("{SECRET}\n"));
    let entra = application(&script, Proof::Secret(path));
    let token = entra.current().await.unwrap();
    assert_eq!(token.header().to_str().unwrap(), "Bearer t0ken");
    let request = script.requests().remove(0);
    let (line, form) = asked(&request);
    assert_eq!(line, "POST /login/tenant1/oauth2/v2.0/token HTTP/1.1");
    let expected = [
        ("client_id", "client1"),
        ("client_secret", SECRET),
        ("grant_type", "client_credentials"),
        ("scope", "499b84ac-1321-427f-aa17-267ca6975798/.default"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(form, BTreeMap::from(expected));
    assert!(!request.to_lowercase().contains("authorization"));
    assert!(!entra.has_changed().await);
    std::fs::write(directory.path().join("proof"), "another").unwrap();
    assert!(entra.has_changed().await);
}

#[tokio::test]
async fn a_federated_token_and_a_certificate_are_sent_as_assertions() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::of(vec![granted(), granted()]).await;
    let path = file(directory.path(), "header.claims.signature");
    let entra = application(&script, Proof::FederatedToken(path.clone()));
    entra.current().await.unwrap();
    assert_eq!(entra.clock().expires_at, None);
    std::fs::write(&path, include_str!("../test-certificate.pem")).unwrap();
    let entra = application(&script, Proof::Certificate(path));
    entra.current().await.unwrap();
    assert!(entra.clock().expires_at.is_some());
    for request in script.requests() {
        let (_, form) = asked(&request);
        assert_eq!(form["client_assertion_type"], ASSERTION);
        assert_eq!(form["client_assertion"].split('.').count(), 3);
        assert!(!form.contains_key("client_secret"));
    }
}

#[tokio::test]
async fn the_machines_identity_is_asked_for_without_a_form() {
    let answer = |token: &str, until: i64| {
        let body = format!(
            r#"{{"access_token":"{token}","refresh_token":"","expires_in":"86400",
            "expires_on":"{until}","resource":"r","token_type":"Bearer"}}"#
        );
        Reply::json(200, &body)
    };
    let in_an_hour = Timestamp::now().as_second() + 3600;
    let script = Script::of(vec![answer("a", in_an_hour), answer("b", 1)]).await;
    let entra = machine(&script, None);
    entra.current().await.unwrap();
    let left = entra
        .clock()
        .token_expires_at
        .unwrap()
        .duration_since(Timestamp::now());
    assert!(left.as_secs() < 3610, "{left}");
    machine(&script, Some("client1")).current().await.unwrap();
    let start = "GET /metadata/identity/oauth2/token?api-version=2018-02-01\
                 &resource=499b84ac-1321-427f-aa17-267ca6975798";
    let requests = script.requests();
    assert_eq!(asked(&requests[0]).0, format!("{start} HTTP/1.1"));
    assert_eq!(
        asked(&requests[1]).0,
        format!("{start}&client_id=client1 HTTP/1.1")
    );
    assert!(
        requests[0]
            .to_lowercase()
            .contains("\r\nmetadata: true\r\n")
    );
}

#[tokio::test]
async fn a_refusal_is_told_in_azures_words_without_the_secret_and_its_ids() {
    let directory = tempfile::tempdir().unwrap();
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let body = serde_json::json!({
        "error": "invalid_client",
        "error_description": format!("AADSTS7000215: Invalid client secret {SECRET} ({encoded}).\
            \r\nTrace ID: 4457d068\r\nCorrelation ID: 6b3474d8\r\nTimestamp: 2026-11-25 06:31:41Z"),
        "error_codes": [7_000_215],
    });
    let script = Script::of(vec![Reply::json(401, &body.to_string())]).await;
    let path = file(directory.path(), SECRET);
    let entra = application(&script, Proof::Secret(path));
    let error = entra.current().await.unwrap_err();
    assert!(error.is_rejected() && !error.is_transient());
    assert_eq!(
        error.to_string(),
        "cannot get a token from Entra ID: Azure rejected the credential: \
         AADSTS7000215: Invalid client secret *** (***)."
    );
    assert!(!format!("{error:?}").contains("s3cret"));
    assert!(entra.clock().rejected_at.is_some());
}

#[tokio::test]
async fn what_passes_by_itself_is_transient() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), SECRET);
    for (reply, transient) in [
        (Reply::json(503, "{}"), true),
        (Reply::with(429, &["Retry-After: 7"], ""), true),
        (Reply::json(200, r#"{"token_type":"Bearer"}"#), true),
        (Reply::json(200, r#"{"access_token":"two words"}"#), true),
        (Reply::Reset, true),
        (Reply::json(404, "no such page"), false),
    ] {
        let script = Script::of(vec![reply]).await;
        let entra = application(&script, Proof::Secret(path.clone()));
        let error = entra.current().await.unwrap_err();
        let text = chain(&error).to_string();
        assert_eq!(error.is_transient(), transient, "{text}");
        assert!(!error.is_rejected() && !error.may_have_worked(), "{text}");
        assert!(
            text.contains("Entra ID") && !text.contains("two words"),
            "{text}"
        );
        assert!(entra.clock().rejected_at.is_none());
    }
}

#[tokio::test]
async fn a_file_that_is_no_proof_is_for_somebody_to_mend() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::of(vec![]).await;
    let path = file(directory.path(), "two words");
    for (proof, reason) in [
        (Proof::Secret(path.clone()), "odd characters"),
        (Proof::Certificate(path.clone()), "no private key"),
        (
            Proof::FederatedToken(directory.path().join("none")),
            "cannot read",
        ),
    ] {
        let error = application(&script, proof).current().await.unwrap_err();
        assert!(error.is_rejected(), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!chain(&error).to_string().contains("two words"));
    }
}
