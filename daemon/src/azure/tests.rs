use std::collections::BTreeMap;
use std::sync::Mutex;

use iap_common::error::chain;
use tokio::fs::File;
use tokio_util::sync::CancellationToken;

use self::script::{Reply, Script};
use super::*;
use crate::calls::CallOutcome;

pub(super) mod script;

const PAT: &str = "s3cretpatvalue0123456789";
const SOON: Duration = Duration::from_millis(200);

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn azure(script: &Script) -> Azure {
    watched(script, Deadlines::default(), Arc::new(|_| ()))
}

fn watched(script: &Script, deadlines: Deadlines, observer: CallObserver) -> Azure {
    let url = format!("{}/contoso/", script.url);
    Azure::with_deadlines(&url, Credential::Pat(PAT.into()), None, observer, deadlines).unwrap()
}

fn impatient() -> Deadlines {
    Deadlines {
        connect: SOON,
        call: SOON,
        list: SOON,
        pause: Duration::ZERO,
        silence: SOON,
    }
}

fn new_agent() -> NewAgent {
    NewAgent {
        name: "stove-01".into(),
        version: "4.275.0".into(),
        os_description: "Debian".into(),
        public_key: PublicKey {
            modulus: vec![0xd9, 0x6d],
            exponent: vec![1, 0, 1],
        },
        system_capabilities: BTreeMap::from([("iap.pool".into(), "linux".into())]),
    }
}

async fn download(azure: &Azure, url: &str) -> (Result<String, AzureError>, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let to = File::create(file.path()).await.unwrap();
    let result = azure
        .download(url, to, |_, _| (), CancellationToken::new())
        .await;
    (result, std::fs::read(file.path()).unwrap())
}

#[tokio::test]
async fn every_request_carries_the_token_and_asks_for_no_sign_in_page() {
    let script = Script::of(vec![Reply::json(200, r#"{"count":0,"value":[]}"#)]).await;
    assert_eq!(azure(&script).agents(11).await.unwrap(), []);
    let request = script.requests().remove(0).to_lowercase();
    let token = "authorization: basic onmzy3jldhbhdhzhbhvlmdeymzq1njc4oq==";
    let agent = concat!("user-agent: iapd/", env!("CARGO_PKG_VERSION"));
    for header in [
        token,
        agent,
        "x-tfs-fedauthredirect: suppress",
        "accept: application/json",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
}

#[tokio::test]
async fn a_registration_is_written_as_the_agent_itself_writes_it() {
    let answer = r#"{"id":42,"name":"stove-01","authorization":{"clientId":"c1",
        "authorizationUrl":"https://a/token"},
        "properties":{"ServerUrl":{"$type":"System.String","$value":"https://a/contoso/"}}}"#;
    let script = Script::of(vec![Reply::json(200, answer)]).await;
    let created = azure(&script).create_agent(11, &new_agent()).await.unwrap();
    assert_eq!((created.id, created.client_id.as_str()), (42, "c1"));
    assert_eq!(created.server_url.unwrap(), "https://a/contoso/");
    let request = script.requests().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let line = "POST /contoso/_apis/distributedtask/pools/11/agents?api-version=6.0 HTTP/1.1";
    assert_eq!(head.lines().next().unwrap(), line);
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"name": "stove-01", "version": "4.275.0", "osDescription": "Debian",
            "maxParallelism": 1, "provisioningState": "Provisioned",
            "authorization": {"publicKey": {"exponent": "AQAB", "modulus": "2W0="}},
            "systemCapabilities": {"Agent.Name": "stove-01", "Agent.Version": "4.275.0",
                "iap.pool": "linux"}})
    );
}

#[tokio::test]
async fn a_registration_without_an_oauth_client_names_the_agent_to_delete() {
    for answer in [
        r#"{"id":42}"#,
        r#"{"id":42,"authorization":null}"#,
        r#"{"id":42,"authorization":{"clientId":"","authorizationUrl":"https://a/token"}}"#,
        r#"{"id":42,"authorization":{"clientId":"c1"}}"#,
    ] {
        let script = Script::of(vec![Reply::json(200, answer)]).await;
        let error = azure(&script)
            .create_agent(11, &new_agent())
            .await
            .unwrap_err();
        assert!(
            matches!(error, AzureError::NoAuthorization { agent_id: 42 }),
            "{error}"
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_lost_answer_is_transient_and_the_call_is_not_repeated() {
    for lost in [
        Reply::Reset,
        Reply::Bytes(Vec::new()),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"id\":4".to_vec()),
    ] {
        let script = Script::of(vec![lost, Reply::json(200, "{}")]).await;
        let error = azure(&script)
            .create_agent(11, &new_agent())
            .await
            .unwrap_err();
        assert!(matches!(error, AzureError::Unreachable { .. }), "{error:?}");
        assert!(error.is_transient() && !error.is_not_found());
        assert!(!chain(&error).to_string().contains(&script.url));
        assert_eq!(script.requests().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_at_the_deadline() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{";
    for stall in [Reply::Stall(Vec::new()), Reply::Stall(head.to_vec())] {
        let script = Script::of(vec![stall]).await;
        let azure = watched(&script, impatient(), Arc::new(|_| ()));
        let error = azure.agents(11).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot list the pool's agents: no answer from Azure within 0.2 s"
        );
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/contoso", listener.local_addr().unwrap());
    drop(listener);
    let azure = Azure::new(&url, Credential::Pat(PAT.into()), None, Arc::new(|_| ())).unwrap();
    let error = azure.find_pool("linux").await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        chain(&error).to_string().contains("refused"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let elsewhere = Script::of(vec![Reply::json(200, "{}")]).await;
    let location = format!("Location: {}/_signin", elsewhere.url);
    let script = Script::of(vec![Reply::with(302, &[&location], "")]).await;
    let error = azure(&script).agents(11).await.unwrap_err();
    assert!(error.is_rejected(), "{error}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn deleting_what_is_gone_succeeds_and_what_is_busy_says_so() {
    let refusal = |key: &str| format!(r#"{{"message":"in Azure's words","typeKey":"{key}"}}"#);
    let script = Script::of(vec![
        Reply::with(204, &[], ""),
        Reply::json(404, &refusal("TaskAgentNotFoundException")),
        Reply::json(409, &refusal("TaskAgentJobStillRunningException")),
        Reply::json(400, &refusal("TaskAgentJobStillRunningException")),
        Reply::with(
            404,
            &["Content-Type: text/html"],
            "<html>no such page</html>",
        ),
    ])
    .await;
    let azure = azure(&script);
    let busy = Deleted::Busy("in Azure's words".into());
    for expected in [&Deleted::Gone, &Deleted::Gone, &busy, &busy] {
        assert_eq!(&azure.delete_agent(11, 42).await.unwrap(), expected);
    }
    assert!(azure.delete_agent(11, 42).await.is_err());
}

#[tokio::test]
async fn a_silent_server_is_told_from_its_address_whether_it_is_hosted() {
    let script = Script::of(vec![
        Reply::json(200, "{}"),
        Reply::json(200, r#"{"deploymentType":"hosted"}"#),
        Reply::json(200, r#"{"deploymentType":2}"#),
    ])
    .await;
    for expected in [
        Deployment::OnPremises,
        Deployment::Hosted,
        Deployment::OnPremises,
    ] {
        let azure = azure(&script);
        assert_eq!(azure.deployment().await.unwrap(), expected);
        assert_eq!(azure.deployment().await.unwrap(), expected);
    }
    assert_eq!(script.requests().len(), 3);
    assert_eq!(Deployment::of_host("dev.azure.com"), Deployment::Hosted);
    assert_eq!(
        Deployment::of_host("Contoso.VisualStudio.com"),
        Deployment::Hosted
    );
    assert_eq!(
        Deployment::of_host("visualstudio.com.example"),
        Deployment::OnPremises
    );
}

#[tokio::test]
async fn calls_are_reported_with_their_outcome() {
    let script = Script::of(vec![
        Reply::json(200, r#"{"count":0,"value":[]}"#),
        Reply::with(203, &["Content-Type: text/html"], "<html>"),
        Reply::json(404, r#"{"typeKey":"TaskAgentNotFoundException"}"#),
        Reply::json(200, r#"{"count":3,"value":[]}"#),
        Reply::json(500, "{}"),
        Reply::Reset,
        Reply::with(429, &["Retry-After: 60"], ""),
    ])
    .await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = Arc::clone(&seen);
    let observer: CallObserver =
        Arc::new(move |report| observer.lock().unwrap().push((report.kind, report.outcome)));
    let deadlines = Deadlines {
        pause: Duration::ZERO,
        ..Deadlines::default()
    };
    let azure = watched(&script, deadlines, observer);
    let _ = azure.agents(11).await;
    let _ = azure.agents(11).await;
    let _ = azure.agent(11, 42).await;
    for _ in 0..5 {
        let _ = azure.agents(11).await;
    }
    assert_eq!(
        *seen.lock().unwrap(),
        [
            ("agent_list", CallOutcome::Ok),
            ("agent_list", CallOutcome::Refused),
            ("agent_get", CallOutcome::Ok),
            ("agent_list", CallOutcome::Failed),
            ("agent_list", CallOutcome::Failed),
            ("agent_list", CallOutcome::Unreachable),
            // The last call was held back: nothing happened that could be counted.
            ("agent_list", CallOutcome::Refused),
        ]
    );
}

#[tokio::test]
async fn a_download_is_hashed_and_a_foreign_host_never_sees_the_token() {
    let foreign = Script::of(vec![Reply::with(200, &[], "hello"); 2]).await;
    let location = format!("Location: {}/a.tar.gz", foreign.url);
    let script = Script::of(vec![
        Reply::with(200, &[], "hello"),
        Reply::with(302, &[&location], ""),
    ])
    .await;
    let azure = azure(&script);
    let own = format!("{}/contoso/a.tar.gz", script.url);
    for url in [&own, &own, &format!("{}/a.tar.gz", foreign.url)] {
        let (hash, content) = download(&azure, url).await;
        assert_eq!(
            (hash.unwrap().as_str(), content.as_slice()),
            (HELLO, &b"hello"[..])
        );
    }
    for request in script.requests() {
        assert!(request.to_lowercase().contains("authorization: basic"));
    }
    for request in foreign.requests() {
        assert!(
            !request.to_lowercase().contains("authorization"),
            "{request}"
        );
        assert!(!request.to_lowercase().contains("x-tfs"), "{request}");
    }
    assert_eq!((script.requests().len(), foreign.requests().len()), (2, 2));
}

#[tokio::test]
async fn a_download_reports_progress_and_its_size() {
    let script = Script::of(vec![Reply::with(200, &[], "hello")]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let to = File::create(file.path()).await.unwrap();
    let mut seen = Vec::new();
    let progress = |done, total| seen.push((done, total));
    azure(&script)
        .download(&script.url, to, progress, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(seen.first(), Some(&(0, Some(5))));
    assert_eq!(seen.last(), Some(&(5, Some(5))));
}

#[tokio::test]
async fn a_download_that_falls_silent_breaks_off_or_is_cancelled_ends() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhel".to_vec();
    let script = Script::of(vec![
        Reply::Stall(half.clone()),
        Reply::Stall(Vec::new()),
        Reply::Bytes(half.clone()),
        Reply::Stall(half),
    ])
    .await;
    let azure = watched(&script, impatient(), Arc::new(|_| ()));
    for _ in 0..2 {
        let error = download(&azure, &script.url).await.0.unwrap_err();
        assert!(matches!(error, AzureError::TimedOut { .. }), "{error}");
    }
    let error = download(&azure, &script.url).await.0.unwrap_err();
    assert!(matches!(error, AzureError::Unreachable { .. }), "{error}");

    let patient = self::azure(&script);
    let file = tempfile::NamedTempFile::new().unwrap();
    let to = File::create(file.path()).await.unwrap();
    let stop = CancellationToken::new();
    let cancel = |done, _| {
        if done > 0 {
            stop.cancel();
        }
    };
    let error = patient
        .download(&script.url, to, cancel, stop.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, AzureError::Cancelled { .. }), "{error}");
}

#[tokio::test]
async fn a_page_in_place_of_the_package_is_an_error() {
    let html = &["Content-Type: text/html"][..];
    let script = Script::of(vec![
        Reply::with(200, html, "<html>sign in</html>"),
        Reply::with(203, html, "<html>sign in</html>"),
        Reply::with(404, &[], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
        Reply::with(302, &["Location: /contoso/again"], ""),
    ])
    .await;
    let azure = azure(&script);
    let url = format!("{}/contoso/a.tar.gz", script.url);
    assert!(download(&azure, &url).await.0.unwrap_err().is_rejected());
    assert!(download(&azure, &url).await.0.unwrap_err().is_rejected());
    let missing = download(&azure, &url).await.0.unwrap_err();
    assert!(
        !missing.is_rejected() && !missing.is_transient(),
        "{missing}"
    );
    let circles = download(&azure, &url).await.0.unwrap_err();
    assert!(
        circles.to_string().contains("redirected in circles"),
        "{circles}"
    );

    let foreign = Script::of(vec![
        Reply::with(200, html, "<html>sign in</html>"),
        Reply::with(403, &[], ""),
    ])
    .await;
    for _ in 0..2 {
        let error = download(&azure, &foreign.url).await.0.unwrap_err();
        assert!(
            !error.is_rejected(),
            "a foreign host cannot reject our credential: {error}"
        );
    }
}

#[test]
fn the_client_does_not_print_its_credential() {
    let url = "https://dev.azure.com/contoso";
    let azure = Azure::new(url, Credential::Pat(PAT.into()), None, Arc::new(|_| ())).unwrap();
    assert_eq!(
        format!("{azure:?}"),
        r#"Azure { url: "https://dev.azure.com/contoso", .. }"#
    );
}
