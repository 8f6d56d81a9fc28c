use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::Result;
use iap_tests::azure_sim::{
    AgentPackage, AzureSim, CredentialKind, DEFAULT_ORG, Deployment, EntraClient, JobRequest,
    JobResult, JobState, Pat, ServerUrlForm, SimOptions, Timings,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::raw_agent::{Admin, PAT, RawAgent};

const SOON: Duration = Duration::from_secs(10);

async fn start() -> Result<(AzureSim, Admin)> {
    let sim = AzureSim::start(SimOptions::default()).await?;
    let admin = Admin::new(&sim);
    Ok((sim, admin))
}

#[tokio::test]
async fn a_registered_agent_runs_a_job_over_the_unix_socket() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("azure.sock");
    let options = SimOptions {
        unix_socket: Some(socket.clone()),
        ..SimOptions::default()
    };
    let sim = AzureSim::start(options).await?;
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o666);
    let admin = Admin::new(&sim);
    let mut agent = RawAgent::register(&admin, "stove-01", Some(&socket)).await?;

    let challenge = agent.post_session().await?;
    assert_eq!(challenge.status(), StatusCode::UNAUTHORIZED);
    let challenges = challenge.headers().get_all("www-authenticate").iter();
    let challenges: Vec<&str> = challenges.map(|value| value.to_str().unwrap()).collect();
    assert!(challenges[0].starts_with("Bearer "), "{challenges:?}");
    assert!(challenges[1].starts_with("Basic "), "{challenges:?}");

    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let script = JobRequest::new("linux")
        .named("Build")
        .running("echo $HOME");
    let id = sim.queue_job(script)?;
    let message = agent.receive(&session, &key).await?;
    assert_eq!(message.kind, "PipelineAgentJobRequest");
    let job = message.body;
    assert_eq!(job["jobDisplayName"], "Build");
    assert_eq!(job["variables"]["sim.script"]["value"], "ZWNobyAkSE9NRQ==");
    assert_eq!(
        agent.acknowledge(&session, message.id).await?,
        StatusCode::NO_CONTENT
    );

    let renewed: Value = agent.renew(id).await?.error_for_status()?.json().await?;
    assert!(renewed["lockedUntil"].is_string());
    let listed = admin.request(Method::GET, "/agents?includeAssignedRequest=True");
    let listed: Value = listed.send().await?.json().await?;
    assert_eq!(listed["value"][0]["assignedRequest"]["requestId"], id);
    assert_eq!(listed["value"][0]["status"], "online");
    assert_eq!(admin.delete(agent.id).await?, StatusCode::CONFLICT);

    let log = agent
        .plan_request(&job, "/logs/1")
        .body("hello\n")
        .send()
        .await?;
    assert_eq!(log.status(), StatusCode::OK);
    assert_eq!(
        agent.complete(&job, "succeeded").await?,
        StatusCode::NO_CONTENT
    );
    let next = sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(agent.end(&session).await?, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete(agent.id).await?, StatusCode::NO_CONTENT);

    let done = sim.wait_job(id, SOON).await?;
    assert_eq!(done.result, Some(JobResult::Succeeded));
    assert_eq!(done.agent.as_deref(), Some("stove-01"));
    assert_eq!((done.deliveries, done.runs), (1, 1));
    assert_eq!(sim.job_output(id), "hello\n");
    let next = sim.job(next).unwrap();
    assert_eq!(
        next.state,
        JobState::Queued,
        "an agent that shuts down got another job"
    );
    assert_eq!(sim.jobs_run_more_than_once(), 0);
    assert_eq!(sim.session_posts().len(), 1);

    let admins: Vec<String> = sim
        .journal()
        .into_iter()
        .filter(|entry| entry.credential == CredentialKind::Pat)
        .map(|entry| entry.method)
        .collect();
    assert_eq!(admins, ["POST", "GET", "DELETE", "DELETE"]);
    let journal = serde_json::to_string(&sim.journal())?;
    for secret in [PAT, &agent.token] {
        assert!(!journal.contains(secret));
    }
    Ok(())
}

#[tokio::test]
async fn an_agents_token_is_good_for_its_own_things_only() -> Result<()> {
    let (_sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    let mut other = RawAgent::register(&admin, "stove-02", None).await?;
    agent.fetch_token().await?;
    other.fetch_token().await?;
    let (foreign, _) = other.begin().await?;
    for (method, rest) in [
        (Method::GET, String::new()),
        (Method::GET, "/agents".to_owned()),
        (Method::DELETE, format!("/agents/{}", other.id)),
        (Method::DELETE, format!("/agents/{}", agent.id)),
        (Method::GET, "/jobrequests".to_owned()),
        (Method::DELETE, format!("/sessions/{foreign}")),
        (Method::GET, format!("/messages?sessionId={foreign}")),
    ] {
        let response = agent.request(method.clone(), &rest).send().await?;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {rest}");
    }
    let body = json!({"name": "stove-03"});
    let response = agent
        .request(Method::POST, "/agents")
        .json(&body)
        .send()
        .await?;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test]
async fn errors_name_the_exception_twice() -> Result<()> {
    let (_sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    let taken = admin.post_agent("STOVE-01", None).await?;
    assert_eq!(taken.status(), StatusCode::CONFLICT);
    let taken: Value = taken.json().await?;
    assert_eq!(taken["typeKey"], "TaskAgentExistsException");
    assert_eq!(
        taken["typeName"],
        "Microsoft.TeamFoundation.DistributedTask.WebApi.TaskAgentExistsException, \
         Microsoft.TeamFoundation.DistributedTask.WebApi"
    );
    agent.fetch_token().await?;
    agent.begin().await?;
    let conflict = agent.post_session().await?;
    assert_eq!(conflict.status(), StatusCode::CONFLICT);
    let conflict: Value = conflict.json().await?;
    assert_eq!(conflict["typeKey"], "TaskAgentSessionConflictException");
    let expired: Value = agent.poll("none", 0).await?.json().await?;
    assert_eq!(expired["typeKey"], "TaskAgentSessionExpiredException");
    let missing = admin.request(Method::GET, "/agents/999").send().await?;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn a_poll_without_a_message_is_held_and_answers_202_with_no_body() -> Result<()> {
    let options = SimOptions {
        timings: Timings::scaled(500.0),
        ..SimOptions::default()
    };
    let sim = AzureSim::start(options).await?;
    let admin = Admin::new(&sim);
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, _) = agent.begin().await?;
    let before = std::time::Instant::now();
    let empty = agent.poll(&session, 0).await?;
    assert!(
        before.elapsed() >= Duration::from_millis(90),
        "the poll was not held"
    );
    assert_eq!(empty.status(), StatusCode::ACCEPTED);
    assert_eq!(empty.headers()["content-length"], "0");
    Ok(())
}

#[tokio::test]
async fn a_message_reaches_both_polls_of_a_session() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let polls =
        async { tokio::try_join!(agent.receive(&session, &key), agent.receive(&session, &key)) };
    let queued = async { sim.queue_job(JobRequest::new("linux")) };
    let ((one, two), id) = tokio::try_join!(polls, queued)?;
    assert_eq!(one.id, two.id);
    assert_eq!(sim.job(id).unwrap().deliveries, 2);
    Ok(())
}

#[tokio::test]
async fn a_silent_agent_loses_its_session_and_its_job_is_abandoned() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let id = sim.queue_job(JobRequest::new("linux"))?;
    let message = agent.receive(&session, &key).await?;
    agent.acknowledge(&session, message.id).await?;
    agent.renew(id).await?.error_for_status()?;

    sim.advance(Duration::from_secs(301));
    let gone = sim
        .wait_agents(admin.pool, SOON, |agents| !agents[0].online)
        .await?;
    assert_eq!(gone[0].assigned_request, Some(id));
    assert_eq!(admin.delete(agent.id).await?, StatusCode::CONFLICT);
    sim.advance(Duration::from_secs(300));
    assert_eq!(
        sim.wait_job(id, SOON).await?.result,
        Some(JobResult::Abandoned)
    );
    assert_eq!(
        agent.complete(&message.body, "succeeded").await?,
        StatusCode::NOT_FOUND
    );
    assert_eq!(admin.delete(agent.id).await?, StatusCode::NO_CONTENT);
    Ok(())
}

#[tokio::test]
async fn deleting_an_agent_ends_its_poll_and_its_tokens() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, _) = agent.begin().await?;
    let deleted = async {
        while sim
            .sessions()
            .iter()
            .all(|session| session.polls_in_flight == 0)
        {
            tokio::task::yield_now().await;
        }
        admin.delete(agent.id).await
    };
    let (poll, deleted) = tokio::try_join!(agent.poll(&session, 0), deleted)?;
    assert_eq!(deleted, StatusCode::NO_CONTENT);
    let poll: Value = poll.json().await?;
    assert_eq!(poll["typeKey"], "TaskAgentNotFoundException");
    let url = agent.authorization_url();
    let refused = agent.ask_token(url, url).await?;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let refused: Value = refused.json().await?;
    assert_eq!(refused["error"], "invalid_client");
    assert_eq!(refused["error_description"], refused["errordescription"]);
    Ok(())
}

#[tokio::test]
async fn a_collection_of_a_server_on_premises_has_its_token_endpoint_elsewhere() -> Result<()> {
    let org = "tfs/DefaultCollection";
    let options = SimOptions {
        orgs: vec![org.to_owned()],
        deployment: Deployment::OnPremises,
        token_listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
        ..SimOptions::default()
    };
    let sim = AzureSim::start(options).await?;
    sim.add_pat(Pat::manage(PAT));
    let pool = sim.add_pool(org, "linux");
    let admin = Admin {
        client: Client::new(),
        url: sim.url(org),
        pool,
    };
    let data = admin
        .client
        .get(format!("{}/_apis/connectionData", admin.url));
    let data: Value = data.basic_auth("", Some(PAT)).send().await?.json().await?;
    assert_eq!(data["deploymentType"], "onPremises");
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    assert!(!agent.authorization_url().starts_with(&admin.url));
    let guessed = format!("{}/_apis/oauth2/token", admin.url);
    let guessed = agent.ask_token(&guessed, agent.authorization_url()).await?;
    assert_eq!(guessed.status(), StatusCode::NOT_FOUND);
    agent.fetch_token().await?;
    agent.begin().await?;
    Ok(())
}

#[tokio::test]
async fn read_only_tokens_read_and_entra_tokens_write() -> Result<()> {
    let (sim, admin) = start().await?;
    sim.add_pat(Pat::read_only("reader"));
    let agents = format!(
        "{}/_apis/distributedtask/pools/{}/agents",
        admin.url, admin.pool
    );
    let read = admin
        .client
        .get(&agents)
        .basic_auth("anyone", Some("reader"))
        .send()
        .await?;
    assert_eq!(read.status(), StatusCode::OK);
    let body = json!({"name": "stove-01"});
    let write = admin
        .client
        .post(&agents)
        .basic_auth("", Some("reader"))
        .json(&body);
    assert_eq!(write.send().await?.status(), StatusCode::FORBIDDEN);

    let client = EntraClient {
        tenant: "contoso".to_owned(),
        client_id: "app".to_owned(),
        secret: "hush".to_owned(),
        ..EntraClient::default()
    };
    sim.add_entra_client(client);
    let base = admin.url.trim_end_matches(DEFAULT_ORG);
    let form = "grant_type=client_credentials&client_id=app&client_secret=hush&scope=\
                499b84ac-1321-427f-aa17-267ca6975798%2F.default";
    let token = admin
        .client
        .post(format!("{base}_sim/entra/contoso/oauth2/v2.0/token"))
        .body(form);
    let token: Value = token.send().await?.error_for_status()?.json().await?;
    let write = admin
        .client
        .post(&agents)
        .bearer_auth(token["access_token"].as_str().unwrap());
    assert_eq!(write.json(&body).send().await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn the_agent_package_is_listed_with_its_digest_and_downloads() -> Result<()> {
    let (sim, admin) = start().await?;
    let archive = tempfile::NamedTempFile::new()?;
    fs::write(&archive, "abc")?;
    sim.set_package(AgentPackage::new("4.275.0", archive.path())?);
    let list = format!(
        "{}/_apis/distributedtask/packages/agent/linux-x64?$top=1",
        admin.url
    );
    let list = admin
        .client
        .get(list)
        .basic_auth("", Some(PAT))
        .send()
        .await?;
    let list: Value = list.json().await?;
    let package = &list["value"][0];
    assert_eq!(
        package["hashValue"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        package["version"],
        json!({"major": 4, "minor": 275, "patch": 0})
    );
    let file = admin
        .client
        .get(package["downloadUrl"].as_str().unwrap())
        .send()
        .await?;
    assert_eq!(file.bytes().await?, "abc");
    Ok(())
}

#[tokio::test]
async fn job_requests_are_listed_by_what_is_asked() -> Result<()> {
    let (sim, admin) = start().await?;
    admin.register("placeholder", None).await?;
    let jobs: Vec<u64> = (0..3)
        .map(|_| sim.queue_job(JobRequest::new("linux")).unwrap())
        .collect();
    sim.cancel_job(jobs[0]);
    let unmatched = sim.queue_job(JobRequest::new("linux").demanding("kettle"))?;
    assert_eq!(sim.job(unmatched).unwrap().state, JobState::NoAgentMatches);
    let ids = async |query: &str| -> Result<Vec<u64>> {
        let request = admin.request(Method::GET, &format!("/jobrequests?{query}"));
        let list: Value = request.send().await?.error_for_status()?.json().await?;
        let list = list["value"].as_array().unwrap();
        Ok(list
            .iter()
            .map(|job| job["requestId"].as_u64().unwrap())
            .collect())
    };
    assert_eq!(ids("").await?, [jobs[2], jobs[1], jobs[0]]);
    assert_eq!(ids("completedRequestCount=0").await?, [jobs[2], jobs[1]]);
    assert_eq!(ids("$top=1").await?, [jobs[2]]);
    assert_eq!(
        ids(&format!("$top=5&continuationToken={}", jobs[1])).await?,
        [jobs[0]]
    );
    let both = admin.request(Method::GET, "/jobrequests?$top=1&completedRequestCount=0");
    assert_eq!(both.send().await?.status(), StatusCode::BAD_REQUEST);
    let one = admin.request(Method::GET, &format!("/jobrequests/{}", jobs[1]));
    let one: Value = one.send().await?.json().await?;
    assert_eq!(one["matchedAgents"][0]["name"], "placeholder");
    assert!(one.get("assignTime").is_none());
    Ok(())
}

#[tokio::test]
async fn the_admin_interface_does_what_the_library_does() -> Result<()> {
    let (sim, admin) = start().await?;
    let base = format!("http://{}/_sim", sim.address());
    let post = async |path: &str, body: Value| -> Result<reqwest::Response> {
        let request = admin.client.post(format!("{base}{path}")).json(&body);
        Ok(request.send().await?.error_for_status()?)
    };
    let read = async |path: &str| -> Result<Value> {
        Ok(admin
            .client
            .get(format!("{base}{path}"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    };
    assert_eq!(read("/health").await?["ok"], true);
    post("/pats", json!({"secret": "another"})).await?;
    post("/pools", json!({"name": "windows"})).await?;
    post("/switches", json!({"noQueueCheck": true})).await?;
    let job = json!({"pool": "windows", "durationMs": 5, "result": "failed", "script": "true"});
    let job: Value = post("/jobs", job).await?.json().await?;
    assert_eq!(job["state"], "queued");
    let path = format!("/jobs/{}", job["requestId"]);
    post(&format!("{path}/cancel"), json!({})).await?;
    assert_eq!(read(&path).await?["result"], "canceled");
    let output = admin
        .client
        .get(format!("{base}{path}/output"))
        .send()
        .await?;
    assert_eq!(output.text().await?, "");
    admin.register("stove-01", None).await?;
    assert_eq!(read("/agents").await?[0]["name"], "stove-01");
    assert_eq!(read("/sessions").await?, json!([]));
    assert_eq!(read("/journal").await?[0]["credential"], "pat");
    post("/faults", json!({"named": "slow_list", "ms": 1})).await?;
    let hang_up = json!({"match": {"path": "*/agents"}, "action": {"kind": "closeBefore"}});
    post("/faults", hang_up).await?;
    assert_eq!(read("/faults").await?.as_array().unwrap().len(), 2);
    let cleared = admin.client.delete(format!("{base}/faults")).send().await?;
    assert_eq!(cleared.status(), StatusCode::NO_CONTENT);
    post("/clock", json!({"advanceMs": 3_600_000})).await?;
    post("/pat-mode", json!({"mode": "unauthorized"})).await?;
    let refused = admin.request(Method::GET, "/agents").send().await?;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn switches_change_what_is_only_inferred() -> Result<()> {
    let (sim, admin) = start().await?;
    let made = admin.register("stove-01", None).await?;
    assert_eq!(
        made["properties"]["ServerUrl"]["$value"],
        format!("{}/", admin.url)
    );
    assert!(made["authorization"]["clientId"].is_string());
    let path = format!("/agents/{}", made["id"]);
    let read = async || -> Result<Value> {
        let request = admin.request(Method::GET, &format!("{path}?includeAssignedRequest=true"));
        Ok(request.send().await?.json().await?)
    };
    let plain = read().await?;
    assert!(plain.get("authorization").is_none());
    assert!(plain.get("assignedRequest").is_none());

    sim.switch(|switches| {
        switches.authorization_in_get = true;
        switches.absent_as_null = true;
        switches.delete_answers_200 = true;
        switches.server_url = ServerUrlForm::Plain;
    });
    let full = read().await?;
    assert_eq!(
        full["authorization"]["clientId"],
        made["authorization"]["clientId"]
    );
    assert!(full["assignedRequest"].is_null() && full.get("assignedRequest").is_some());
    let second = admin.register("stove-02", None).await?;
    assert_eq!(second["properties"]["ServerUrl"], format!("{}/", admin.url));
    let id = made["id"].as_u64().unwrap();
    assert_eq!(admin.delete(id).await?, StatusCode::OK);

    sim.switch(|switches| {
        switches.no_authorization = true;
        switches.server_url = ServerUrlForm::Absent;
    });
    let third = admin.register("stove-03", None).await?;
    assert!(third.get("authorization").is_none());
    assert!(third.get("properties").is_none());

    sim.switch(|switches| switches.strict_api_version = true);
    for (path, status) in [
        ("/agents", 400),
        ("/agents?api-version=7.1", 200),
        ("/agents?api-version=4.1", 400),
        ("/jobrequests?api-version=7.1", 400),
        ("/jobrequests?api-version=7.1-preview.1", 200),
    ] {
        let response = admin.request(Method::GET, path).send().await?;
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    let accept = "application/json; api-version=7.1-preview.1";
    let response = admin
        .request(Method::GET, "/agents")
        .header("Accept", accept);
    assert_eq!(response.send().await?.status(), StatusCode::OK);
    Ok(())
}
