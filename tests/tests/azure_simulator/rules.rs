//! What the service insists on, one rule a test, and the switches for what is only inferred of it.

use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::{
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use iap_tests::azure_sim::{
    AgentPackage, AzureSim, CredentialKind, JobRequest, JobState, Pat, SimOptions, Timings,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::raw_agent::{Admin, PAT, RawAgent, key_json};

const SOON: Duration = Duration::from_secs(10);

async fn start() -> Result<(AzureSim, Admin)> {
    let sim = AzureSim::start(SimOptions::default()).await?;
    let admin = Admin::new(&sim);
    Ok((sim, admin))
}

async fn online(admin: &Admin, name: &str) -> Result<(RawAgent, String, [u8; 32])> {
    let mut agent = RawAgent::register(admin, name, None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    Ok((agent, session, key))
}

#[tokio::test]
async fn a_replaced_agent_is_what_the_request_says_and_its_old_key_is_worthless() -> Result<()> {
    let (sim, admin) = start().await?;
    let (agent, _, _) = online(&admin, "stove-01").await?;
    let before = sim.agents(admin.pool).remove(0);
    assert!(before.system_capabilities.contains_key("bash"));
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let path = format!("/agents/{}", agent.id);
    let replace = async |body: Value| -> Result<reqwest::Response> {
        let request = admin.request(Method::PUT, &path).json(&body);
        Ok(request.send().await?)
    };
    let body = json!({
        "id": agent.id, "name": "stove-01", "version": "4.276.0", "maxParallelism": 2,
        "authorization": {"publicKey": key_json(key.public_key())},
    });
    let replaced = replace(body.clone()).await?.error_for_status()?;
    let replaced: Value = replaced.json().await?;
    assert_eq!(
        (&replaced["id"], &replaced["version"]),
        (&json!(agent.id), &json!("4.276.0"))
    );
    assert_eq!(replaced["authorization"]["clientId"], before.client_id);
    assert_eq!(replaced["systemCapabilities"], json!({}));

    let after = sim.agents(admin.pool).remove(0);
    assert_eq!(
        (after.max_parallelism, after.os_description.as_str()),
        (2, "")
    );
    assert_eq!(after.session, before.session);
    let url = agent.authorization_url();
    let refused: Value = agent.ask_token(url, url).await?.json().await?;
    assert_eq!(refused["error"], "invalid_client");

    sim.switch(|switches| switches.replace_renews_client_id = true);
    let renewed: Value = replace(body).await?.json().await?;
    assert_ne!(renewed["authorization"]["clientId"], before.client_id);
    let nameless = replace(json!({"version": "1"})).await?;
    assert_eq!(nameless.status(), StatusCode::BAD_REQUEST);
    Ok(())
}

#[tokio::test]
async fn a_change_of_an_agent_leaves_alone_what_it_may_not_change() -> Result<()> {
    let (sim, admin) = start().await?;
    let (agent, _, _) = online(&admin, "stove-01").await?;
    admin.register("stove-02", None).await?;
    let before = sim.agents(admin.pool).remove(0);
    let change = async |body: Value| -> Result<StatusCode> {
        let path = format!("/agents/{}", agent.id);
        let request = admin.request(Method::PATCH, &path).json(&body);
        Ok(request.send().await?.status())
    };
    let body = json!({
        "id": agent.id, "enabled": false, "maxParallelism": 3, "osDescription": "Plan 9",
        "systemCapabilities": {}, "userCapabilities": {"stove": "2"},
    });
    assert_eq!(change(body).await?, StatusCode::OK);
    let after = sim.agents(admin.pool).remove(0);
    assert!(!after.enabled);
    assert_eq!(
        (after.max_parallelism, after.os_description.as_str()),
        (3, "Plan 9")
    );
    assert_eq!(after.version, before.version);
    assert_eq!(after.system_capabilities, before.system_capabilities);
    assert!(after.user_capabilities.is_empty());
    for (body, status) in [
        (json!({"id": agent.id + 1}), 400),
        (json!({"name": " "}), 400),
        (json!({"name": "STOVE-02"}), 409),
        (json!({"name": "STOVE-01"}), 200),
    ] {
        assert_eq!(change(body.clone()).await?.as_u16(), status, "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_refused_at_registration() -> Result<()> {
    let (sim, admin) = start().await?;
    for modulus in ["", "AQAB", "not base64"] {
        let key = json!({"publicKey": {"exponent": "AQAB", "modulus": modulus}});
        let body = json!({"name": "stove-01", "authorization": key});
        let request = admin.request(Method::POST, "/agents").json(&body);
        assert_eq!(
            request.send().await?.status(),
            StatusCode::BAD_REQUEST,
            "{modulus}"
        );
    }
    assert!(sim.agents(admin.pool).is_empty());
    Ok(())
}

#[tokio::test]
async fn a_token_of_another_scope_is_known_and_may_do_nothing_here() -> Result<()> {
    let (sim, admin) = start().await?;
    sim.add_pat(Pat {
        scopes: vec!["vso.code".to_owned()],
        ..Pat::manage("coder")
    });
    let pool = format!("/_apis/distributedtask/pools/{}", admin.pool);
    for (path, status) in [
        ("/_apis/connectionData", 200),
        ("/_apis/distributedtask/pools", 403),
        (&format!("{pool}/agents"), 403),
        (&format!("{pool}/jobrequests"), 403),
    ] {
        let request = admin.client.get(format!("{}{path}", admin.url));
        let response = request.basic_auth("", Some("coder")).send().await?;
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn everything_below_an_unknown_pool_says_that_there_is_none() -> Result<()> {
    let (sim, mut admin) = start().await?;
    let (mut agent, session, _) = online(&admin, "stove-01").await?;
    let elsewhere = sim.add_pool("other-org", "linux");
    for pool in [999, elsewhere] {
        admin.pool = pool;
        agent.move_to(&admin);
        let id = agent.id;
        let messages = format!("/messages?sessionId={session}");
        for request in [
            admin.request(Method::GET, ""),
            admin.request(Method::GET, "/agents"),
            admin.request(Method::GET, &format!("/agents/{id}")),
            admin.request(Method::DELETE, &format!("/agents/{id}")),
            admin.request(Method::GET, "/jobrequests"),
            agent.request(Method::GET, &messages),
            agent.request(Method::DELETE, &format!("/sessions/{session}")),
        ] {
            let response = request.send().await?;
            let (url, status) = (response.url().clone(), response.status());
            let error: Value = response.json().await?;
            assert_eq!(status, StatusCode::NOT_FOUND, "{url}");
            assert_eq!(error["typeKey"], "TaskAgentPoolNotFoundException", "{url}");
        }
        let error: Value = agent.post_session().await?.json().await?;
        assert_eq!(error["typeKey"], "TaskAgentPoolNotFoundException");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_may_do_what_its_work_needs_and_nothing_to_agents() -> Result<()> {
    let (sim, admin) = start().await?;
    let archive = tempfile::NamedTempFile::new()?;
    sim.set_package(AgentPackage::new("4.275.0", archive.path())?);
    let (agent, session, _) = online(&admin, "stove-01").await?;
    let (other, _, _) = online(&admin, "stove-02").await?;
    let demand = JobRequest::new("linux").demanding("Agent.Name -equals stove-02");
    let job = sim.queue_job(demand)?;
    assert_eq!(sim.job(job).unwrap().state, JobState::Assigned);

    let org = |method, path: &str| {
        let request = admin.client.request(method, format!("{}{path}", admin.url));
        request.bearer_auth(&agent.token)
    };
    let own = format!("/agents/{}", agent.id);
    let others = format!("/agents/{}", other.id);
    let update = |agent: &str| format!("{agent}/updates?currentState=Downloading");
    let packages = "/_apis/distributedtask/packages/agent/linux-x64";
    let flag = "/_apis/FeatureAvailability/FeatureFlags/Any.Flag";
    for (request, status) in [
        (org(Method::GET, "/_apis/connectionData"), 200),
        (org(Method::OPTIONS, "/_apis/"), 200),
        (org(Method::GET, flag), 200),
        (org(Method::GET, packages), 200),
        (org(Method::POST, "/_apis/customerintelligence/events"), 204),
        (agent.request(Method::PUT, &update(&own)), 200),
        (org(Method::GET, "/_apis/distributedtask/pools"), 403),
        (agent.request(Method::GET, &own), 403),
        (agent.request(Method::PATCH, &own), 403),
        (agent.request(Method::PUT, &own), 403),
        (
            agent.request(Method::PUT, &format!("{own}/usercapabilities")),
            403,
        ),
        (agent.request(Method::PUT, &update(&others)), 403),
        (
            agent.request(Method::GET, &format!("/jobrequests/{job}")),
            403,
        ),
    ] {
        let response = request.json(&json!({})).send().await?;
        let (url, found) = (response.url().clone(), response.status().as_u16());
        assert_eq!(found, status, "{url}");
    }
    assert_eq!(agent.renew(job).await?.status(), StatusCode::FORBIDDEN);
    assert_eq!(agent.end(&session).await?, StatusCode::NO_CONTENT);
    Ok(())
}

#[tokio::test]
async fn the_token_endpoint_takes_forms_only() -> Result<()> {
    let (_sim, admin) = start().await?;
    let agent = RawAgent::register(&admin, "stove-01", None).await?;
    let url = agent.authorization_url();
    let form = format!(
        "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
         client-assertion-type%3Ajwt-bearer&client_assertion={}",
        agent.assertion(url)?
    );
    for (content_type, status) in [
        ("application/json", 400),
        ("application/x-www-form-urlencoded; charset=utf-8", 200),
    ] {
        let request = Client::new().post(url).header("Content-Type", content_type);
        let response = request.body(form.clone()).send().await?;
        assert_eq!(response.status().as_u16(), status, "{content_type}");
    }
    Ok(())
}

#[tokio::test]
async fn versions_the_service_does_not_have_are_refused_wherever_they_stand() -> Result<()> {
    let (sim, admin) = start().await?;
    sim.switch(|switches| switches.strict_api_version = true);
    for (path, status, type_key) in [
        ("/agents?api-version=7.1", 200, ""),
        (
            "/agents?api-version=7.2",
            400,
            "VssVersionOutOfRangeException",
        ),
        (
            "/agents?api-version=5.0",
            400,
            "VssVersionOutOfRangeException",
        ),
        (
            "/agents?api-version=new",
            400,
            "VssVersionOutOfRangeException",
        ),
        ("/agents", 400, "VssVersionNotSpecifiedException"),
        ("/jobrequests?api-version=6.0-preview.1", 200, ""),
        (
            "/jobrequests?api-version=7.1",
            400,
            "VssInvalidPreviewVersionException",
        ),
        (
            "/jobrequests?api-version=8.0-preview.1",
            400,
            "VssVersionOutOfRangeException",
        ),
    ] {
        let response = admin.request(Method::GET, path).send().await?;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let body: Value = response.json().await?;
        assert_eq!(body["typeKey"].as_str().unwrap_or_default(), type_key);
    }
    let body = json!({"name": "stove-01"}).to_string();
    for (version, status) in [("7.1", 200), ("9.9", 400)] {
        let content_type = format!("application/json; charset=utf-8; api-version={version}");
        let request = admin.request(Method::POST, "/agents");
        let request = request.header("Content-Type", content_type);
        let response = request.body(body.clone()).send().await?;
        assert_eq!(response.status().as_u16(), status, "{version}");
    }
    Ok(())
}

#[tokio::test]
async fn the_journal_tells_headers_and_bodies_without_their_secrets() -> Result<()> {
    let (sim, admin) = start().await?;
    let body = "\u{feff}{\"name\": \"stove-01\"}";
    let request = admin.request(Method::POST, "/agents?api-version=7.1");
    let request = request.header("X-TFS-FedAuthRedirect", "Suppress");
    let answer = request
        .header("Cookie", format!("session={PAT}"))
        .body(body)
        .send()
        .await?;
    assert_eq!(answer.status(), StatusCode::OK);
    for header in ["activityid", "x-tfs-session"] {
        assert_eq!(answer.headers()[header].len(), 36, "{header}");
    }
    let entry = sim.journal().pop().unwrap();
    assert_eq!(entry.credential, CredentialKind::Pat);
    assert_eq!(entry.query, "api-version=7.1");
    for (name, value) in [
        ("x-tfs-fedauthredirect", "Suppress"),
        ("authorization", "Basic ***"),
        ("cookie", "***"),
    ] {
        assert_eq!(entry.headers[name], value);
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!((entry.body_length, entry.body_sha256), (body.len(), hex));
    assert!(!serde_json::to_string(&sim.journal())?.contains(PAT));

    let stranger = admin.client.get(format!("{}/_apis", admin.url));
    let refused = stranger.send().await?;
    let error = &refused.headers()["x-tfs-serviceerror"];
    assert!(error.to_str()?.starts_with("TF400813"), "{error:?}");
    assert_eq!(refused.text().await?, "");
    Ok(())
}

#[tokio::test]
async fn a_poll_whose_client_leaves_does_not_end_the_session() -> Result<()> {
    let (sim, admin) = start().await?;
    let (agent, session, _) = online(&admin, "stove-01").await?;
    let in_flight = async |count: u32| {
        while sim.sessions()[0].polls_in_flight != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = agent.poll(&session, 0) => panic!("there was no message"),
        waited = tokio::time::timeout(SOON, in_flight(1)) => waited?,
    }
    tokio::time::timeout(SOON, in_flight(0)).await?;
    sim.advance(Duration::from_secs(299));
    assert_eq!(sim.sessions()[0].id, session);
    Ok(())
}

#[tokio::test]
async fn a_completion_has_to_name_the_job_whose_plan_it_is_about() -> Result<()> {
    let (sim, admin) = start().await?;
    let (agent, session, key) = online(&admin, "stove-01").await?;
    let id = sim.queue_job(JobRequest::new("linux"))?;
    let message = agent.receive(&session, &key).await?;
    let mut wrong = message.body.clone();
    wrong["requestId"] = json!(id + 1);
    assert_eq!(
        agent.complete(&wrong, "succeeded").await?,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(sim.job(id).unwrap().state, JobState::Running);
    assert_eq!(
        agent.complete(&message.body, "succeeded").await?,
        StatusCode::NO_CONTENT
    );
    Ok(())
}

#[tokio::test]
async fn switches_change_what_agents_see_of_messages_jobs_and_deletion() -> Result<()> {
    let options = SimOptions {
        timings: Timings {
            poll_hold: Duration::ZERO,
            ..Timings::default()
        },
        ..SimOptions::default()
    };
    let sim = AzureSim::start(options).await?;
    let admin = Admin::new(&sim);
    sim.switch(|switches| {
        switches.empty_poll_answers_204 = true;
        switches.received_at_message_delete = true;
        switches.top_is_bare_array = true;
        switches.finished_is_token_expired = true;
        switches.deleted_agent_is_unauthorized = true;
        switches.recheck_waiting_jobs = true;
        switches.any_audience = true;
    });
    let (agent, session, key) = online(&admin, "stove-01").await?;
    let empty = agent.poll(&session, 0).await?;
    assert_eq!(empty.status(), StatusCode::NO_CONTENT);
    let url = agent.authorization_url();
    let token = agent.ask_token(url, "urn:anything").await?;
    assert_eq!(token.status(), StatusCode::OK);

    let id = sim.queue_job(JobRequest::new("linux"))?;
    let message = agent.receive(&session, &key).await?;
    assert_eq!(sim.job(id).unwrap().state, JobState::Assigned);
    agent.acknowledge(&session, message.id).await?;
    assert_eq!(sim.job(id).unwrap().state, JobState::Running);
    agent.complete(&message.body, "succeeded").await?;
    let late: Value = agent.renew(id).await?.json().await?;
    assert_eq!(late["typeKey"], "TaskAgentJobTokenExpiredException");
    let list = admin.request(Method::GET, "/jobrequests?$top=5");
    let list: Value = list.send().await?.json().await?;
    assert_eq!(list[0]["requestId"], id);

    let waiting = sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(sim.job(waiting).unwrap().state, JobState::Queued);
    assert_eq!(admin.delete(agent.id).await?, StatusCode::NO_CONTENT);
    assert_eq!(sim.job(waiting).unwrap().state, JobState::NoAgentMatches);
    let gone = agent.poll(&session, 0).await?;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}
