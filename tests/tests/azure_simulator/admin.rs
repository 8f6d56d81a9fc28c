//! The simulator's own interface under `/_sim/`: setting up, taking back, starting over.

use anyhow::Result;
use iap_tests::azure_sim::{AzureSim, JobRequest, SimOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::raw_agent::{Admin, PAT, RawAgent};

struct Interface {
    base: String,
    client: reqwest::Client,
}

impl Interface {
    fn of(sim: &AzureSim) -> Self {
        Self {
            base: format!("http://{}/_sim", sim.address()),
            client: reqwest::Client::new(),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Result<StatusCode> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        Ok(request.json(&body).send().await?.status())
    }

    async fn read(&self, path: &str) -> Result<Value> {
        let request = self.client.get(format!("{}{path}", self.base));
        Ok(request.send().await?.error_for_status()?.json().await?)
    }
}

async fn start() -> Result<(AzureSim, Admin, Interface)> {
    let sim = AzureSim::start(SimOptions::default()).await?;
    let (admin, interface) = (Admin::new(&sim), Interface::of(&sim));
    Ok((sim, admin, interface))
}

#[tokio::test]
async fn a_personal_access_token_can_be_taken_back() -> Result<()> {
    let (_sim, admin, interface) = start().await?;
    let list = async || -> Result<StatusCode> {
        let request = admin.request(Method::GET, "/agents");
        Ok(request.send().await?.status())
    };
    let secret = || json!({"secret": PAT});
    assert_eq!(list().await?, StatusCode::OK);
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        let removed = interface.send(Method::DELETE, "/pats", secret()).await?;
        assert_eq!(removed, status);
        assert_eq!(list().await?, StatusCode::UNAUTHORIZED);
    }
    interface.send(Method::POST, "/pats", secret()).await?;
    assert_eq!(list().await?, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_pool_that_wants_newer_agents_says_so_to_those_that_are_online() -> Result<()> {
    let (sim, admin, interface) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let path = format!("/pools/{}", admin.pool);
    let change = json!({"minAgentVersion": "4.280.0"});
    interface.send(Method::PATCH, &path, change).await?;
    let pool = interface.read("/pools").await?.as_array().unwrap()[0].clone();
    assert_eq!(pool["minAgentVersion"], "4.280.0");

    let message = agent.receive(&session, &key).await?;
    assert_eq!(message.kind, "AgentRefresh");
    assert_eq!(message.body["targetVersion"], "4.280.0");
    agent.acknowledge(&session, message.id).await?;
    let update = format!("/agents/{}/updates?currentState=Downloading", agent.id);
    let update = agent.request(Method::PUT, &update).json(&json!({}));
    let update: Value = update.send().await?.json().await?;
    assert_eq!(
        update["pendingUpdate"]["reason"]["code"],
        "minAgentVersionRequired"
    );
    let seen = interface.read("/agents").await?[0].clone();
    assert_eq!(seen["updateState"], "Downloading");
    let waiting = sim.queue_job(JobRequest::new("linux"))?;
    assert_eq!(sim.job(waiting).unwrap().agent, None);

    let change = json!({"autoUpdate": false, "minAgentVersion": ""});
    interface.send(Method::PATCH, &path, change).await?;
    let pool = interface.read("/pools").await?.as_array().unwrap()[0].clone();
    assert_eq!(pool["autoUpdate"], false);
    assert!(pool["minAgentVersion"].is_null());
    let unknown = interface.send(Method::PATCH, "/pools/999", json!({}));
    assert_eq!(unknown.await?, StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn clearing_faults_puts_clocks_and_credentials_right_too() -> Result<()> {
    let (sim, admin, interface) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    for fault in [
        json!({"named": "expire_pat"}),
        json!({"named": "clock_skew", "seconds": 3600}),
        json!({"named": "assign_while_stopping", "job": {"pool": "linux"}}),
        json!({"named": "duplicate_delivery", "times": 3}),
    ] {
        let ordered = interface.send(Method::POST, "/faults", fault).await?;
        assert_eq!(ordered, StatusCode::NO_CONTENT);
    }
    assert!(agent.fetch_token().await.is_err());
    let list = || admin.request(Method::GET, "/agents").send();
    assert_eq!(
        list().await?.status(),
        StatusCode::NON_AUTHORITATIVE_INFORMATION
    );

    interface
        .send(Method::DELETE, "/faults", Value::Null)
        .await?;
    assert_eq!(list().await?.status(), StatusCode::OK);
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let disable = json!({"enabled": false});
    let path = format!("/agents/{}", agent.id);
    let disable = admin.request(Method::PATCH, &path).json(&disable);
    disable.send().await?.error_for_status()?;
    assert_eq!(sim.agents(admin.pool)[0].assigned_request, None);
    let enable = admin.request(Method::PATCH, &path);
    enable.json(&json!({"enabled": true})).send().await?;
    sim.queue_job(JobRequest::new("linux"))?;
    let message = agent.receive(&session, &key).await?;
    agent.acknowledge(&session, message.id).await?;
    assert_eq!(sim.sessions()[0].messages, 0, "the message came back");
    Ok(())
}

#[tokio::test]
async fn a_reset_forgets_what_happened_and_keeps_what_was_set_up() -> Result<()> {
    let (sim, admin, interface) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, _) = agent.begin().await?;
    let job = sim.queue_job(JobRequest::new("linux"))?;
    sim.switch(|switches| switches.no_queue_check = true);
    sim.set_pool_update(admin.pool, false, Some("9.0"));
    sim.set_feature_flag("Any.Flag", true);
    for fault in [
        json!({"named": "expire_pat"}),
        json!({"named": "slow_list", "ms": 1}),
    ] {
        interface.send(Method::POST, "/faults", fault).await?;
    }
    let reset = interface.send(Method::POST, "/reset", Value::Null).await?;
    assert_eq!(reset, StatusCode::NO_CONTENT);

    for path in [
        "/agents",
        "/sessions",
        "/session-posts",
        "/jobs",
        "/journal",
        "/faults",
    ] {
        assert_eq!(interface.read(path).await?, json!([]), "{path}");
    }
    assert_eq!(interface.read("/switches").await?["noQueueCheck"], false);
    let pools = interface.read("/pools").await?;
    assert_eq!(
        (&pools[0]["id"], &pools[0]["autoUpdate"]),
        (&json!(admin.pool), &json!(true))
    );
    let gone = agent.poll(&session, 0).await?;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
    let again = admin.register("stove-01", None).await?;
    assert!(again["id"].as_u64() > Some(agent.id), "{again}");
    assert!(sim.queue_job(JobRequest::new("linux"))? > job);
    Ok(())
}
