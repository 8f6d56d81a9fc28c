use std::time::Duration;

use anyhow::Result;
use iap_tests::azure_sim::{
    AzureSim, FaultAction, FaultRule, HoldAt, JobRequest, JobState, Matching, NamedFault, PatMode,
    SimOptions,
};
use reqwest::{Method, StatusCode, redirect::Policy};
use serde_json::{Value, json};

use crate::raw_agent::{Admin, PAT, RawAgent};

const SOON: Duration = Duration::from_secs(10);

async fn start() -> Result<(AzureSim, Admin)> {
    let sim = AzureSim::start(SimOptions::default()).await?;
    let admin = Admin::new(&sim);
    Ok((sim, admin))
}

#[tokio::test]
async fn a_rejected_pat_meets_with_each_of_the_services_answers() -> Result<()> {
    let (sim, mut admin) = start().await?;
    admin.client = reqwest::Client::builder()
        .redirect(Policy::none())
        .build()?;
    for (mode, status) in [
        (PatMode::Unauthorized, 401),
        (PatMode::SignInPage, 203),
        (PatMode::SignInRedirect, 302),
        (PatMode::Valid, 200),
    ] {
        sim.set_pat_mode(mode);
        let response = admin.request(Method::GET, "/agents").send().await?;
        assert_eq!(response.status().as_u16(), status);
        if mode == PatMode::SignInPage {
            assert!(response.text().await?.starts_with("<!DOCTYPE html>"));
        }
    }
    sim.remove_pat(PAT);
    let response = admin.request(Method::GET, "/agents").send().await?;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn a_lost_answer_leaves_the_agent_registered() -> Result<()> {
    let (sim, admin) = start().await?;
    sim.named_fault(NamedFault::LosePostResponse { times: 1 });
    assert!(admin.post_agent("stove-01", None).await.is_err());
    assert_eq!(sim.agents(admin.pool)[0].name, "stove-01");
    let entry = sim.journal().pop().unwrap();
    assert_eq!((entry.status, entry.broken_off), (None, true));
    assert_eq!(
        admin.post_agent("stove-02", None).await?.status(),
        StatusCode::OK
    );
    Ok(())
}

#[tokio::test]
async fn a_gate_holds_the_answer_of_a_request_that_was_carried_out() -> Result<()> {
    let (sim, admin) = start().await?;
    let gate = sim.hold(Matching::new("POST", "*/agents"), HoldAt::After);
    let register = admin.post_agent("stove-01", None);
    let release = async {
        gate.wait_arrived(1, SOON).await?;
        sim.wait_agents(admin.pool, SOON, |agents| agents.len() == 1)
            .await?;
        let answered = sim.journal().iter().any(|entry| entry.status.is_some());
        assert!(!answered, "the answer was not held");
        gate.release();
        Ok(())
    };
    let (response, ()) = tokio::try_join!(register, release)?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_held_request_is_carried_out_after_its_client_has_left() -> Result<()> {
    let (sim, admin) = start().await?;
    let gate = sim.hold(
        Matching::new("POST", "*/agents").agent("stove-*"),
        HoldAt::Before,
    );
    tokio::select! {
        _ = admin.post_agent("stove-01", None) => panic!("the gate was open"),
        arrived = gate.wait_arrived(1, SOON) => arrived?,
    }
    assert!(sim.agents(admin.pool).is_empty());
    drop(gate);
    sim.wait_agents(admin.pool, SOON, |agents| agents.len() == 1)
        .await?;
    Ok(())
}

#[tokio::test]
async fn answers_are_refused_cut_off_and_garbled_as_ordered() -> Result<()> {
    let (sim, admin) = start().await?;
    let list = Matching::new("GET", "*/agents");
    let get = || admin.request(Method::GET, "/agents").send();
    let order = |action: FaultAction| sim.fault(FaultRule::new(list.clone(), action).times(1));

    order(FaultAction::too_many_requests(7));
    let limited = get().await?;
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.headers()["retry-after"], "7");

    order(FaultAction::error(404, "TaskAgentPoolNotFoundException"));
    let error: Value = get().await?.json().await?;
    assert_eq!(error["typeKey"], "TaskAgentPoolNotFoundException");

    order(FaultAction::CloseBefore);
    assert!(get().await.is_err());

    order(FaultAction::Truncate);
    assert!(get().await?.bytes().await.is_err());

    order(FaultAction::InvalidJson);
    assert!(get().await?.json::<Value>().await.is_err());

    order(FaultAction::WrongContentType);
    assert_eq!(get().await?.headers()["content-type"], "text/plain");

    order(FaultAction::SignInPage);
    assert_eq!(get().await?.status().as_u16(), 203);

    order(FaultAction::Hang);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), get())
            .await
            .is_err()
    );

    sim.named_fault(NamedFault::RateLimitDelayWith200 { seconds: 3 });
    let slowed = get().await?;
    assert_eq!(
        (slowed.status(), &slowed.headers()["retry-after"]),
        (StatusCode::OK, &"3".parse()?)
    );
    sim.clear_faults();
    assert!(get().await?.headers().get("retry-after").is_none());
    Ok(())
}

#[tokio::test]
async fn expired_agent_tokens_are_replaced_by_new_ones() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    sim.named_fault(NamedFault::ExpireAgentTokens);
    assert_eq!(
        agent.post_session().await?.status(),
        StatusCode::UNAUTHORIZED
    );
    agent.fetch_token().await?;
    sim.advance(Duration::from_secs(3001));
    assert_eq!(
        agent.post_session().await?.status(),
        StatusCode::UNAUTHORIZED
    );
    sim.named_fault(NamedFault::ClockSkew { seconds: 900 });
    let url = agent.authorization_url().to_owned();
    let refused: Value = agent.ask_token(&url, &url).await?.json().await?;
    let description = refused["error_description"].as_str().unwrap();
    assert!(
        description.contains("Current server time is"),
        "{description}"
    );
    Ok(())
}

#[tokio::test]
async fn a_job_assigned_while_its_agent_is_disabled_goes_back_when_the_session_ends() -> Result<()>
{
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, _) = agent.begin().await?;
    sim.assign_while_stopping(JobRequest::new("linux"));
    let disable = json!({"id": agent.id, "enabled": false});
    let path = format!("/agents/{}", agent.id);
    admin
        .request(Method::PATCH, &path)
        .json(&disable)
        .send()
        .await?
        .error_for_status()?;
    let state = sim.agents(admin.pool).remove(0);
    assert!(!state.enabled);
    let job = state.assigned_request.unwrap();
    agent.end(&session).await?;
    let job = sim.job(job).unwrap();
    assert_eq!(
        (job.state, job.requeues, job.runs),
        (JobState::Queued, 1, 0)
    );
    Ok(())
}

#[tokio::test]
async fn a_deleted_message_can_come_back() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    sim.named_fault(NamedFault::DuplicateDelivery { times: 1 });
    sim.queue_job(JobRequest::new("linux"))?;
    let first = agent.receive(&session, &key).await?;
    agent.acknowledge(&session, first.id).await?;
    let second = agent.receive(&session, &key).await?;
    assert_ne!(first.id, second.id);
    assert_eq!(first.body["requestId"], second.body["requestId"]);
    Ok(())
}

#[tokio::test]
async fn an_agent_deleted_behind_its_back_keeps_its_job_locked() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let job = sim.queue_job(JobRequest::new("linux"))?;
    agent.receive(&session, &key).await?;
    agent.renew(job).await?.error_for_status()?;
    let fault = NamedFault::DeleteAgentExternally {
        agent: "stove-01".to_owned(),
    };
    assert!(sim.named_fault(fault.clone()));
    assert!(!sim.named_fault(fault));
    let renewed: Value = agent.renew(job).await?.json().await?;
    assert_eq!(renewed["typeKey"], "TaskAgentNotFoundException");
    assert_eq!(sim.job(job).unwrap().state, JobState::Running);
    Ok(())
}

#[tokio::test]
async fn named_faults_refuse_what_their_names_say() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let name = || Some("stove-01".to_owned());
    let class = async |response: reqwest::Response| -> Result<Value> {
        Ok(response.json::<Value>().await?["typeKey"].take())
    };

    sim.named_fault(NamedFault::ConflictForever { agent: name() });
    for _ in 0..3 {
        let refused = agent.post_session().await?;
        assert_eq!(class(refused).await?, "TaskAgentSessionConflictException");
    }
    sim.clear_faults();
    let (session, key) = agent.begin().await?;
    let job = sim.queue_job(JobRequest::new("linux"))?;
    let message = agent.receive(&session, &key).await?;

    let renewals = async |count: usize| -> Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(agent.renew(job).await?.status().as_u16());
        }
        Ok(statuses)
    };
    sim.named_fault(NamedFault::FirstRenewFails {
        times: 2,
        agent: name(),
    });
    assert_eq!(renewals(3).await?, [500, 500, 200]);
    sim.named_fault(NamedFault::RenewFailsFrom {
        after_ms: 60_000,
        agent: None,
    });
    assert_eq!(renewals(1).await?, [200]);
    sim.advance(Duration::from_secs(61));
    assert_eq!(renewals(2).await?, [500, 500]);
    sim.clear_faults();

    agent.complete(&message.body, "succeeded").await?;
    sim.named_fault(NamedFault::BusyDelete {
        times: 1,
        agent: name(),
    });
    assert_eq!(admin.delete(agent.id).await?, StatusCode::CONFLICT);
    let agent_name = "stove-01".to_owned();
    sim.named_fault(NamedFault::RevokeToken { agent: agent_name });
    let refused = agent.poll(&session, message.id).await?;
    let expected = "TaskAgentAccessTokenExpiredException";
    assert_eq!(class(refused).await?, expected);
    assert_eq!(admin.delete(agent.id).await?, StatusCode::NO_CONTENT);
    Ok(())
}

#[tokio::test]
async fn a_deleted_placeholder_lets_the_next_job_fail_and_costs_no_agent() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, _) = agent.begin().await?;
    agent.end(&session).await?;
    admin.register("placeholder", None).await?;
    let body = json!({"kettle": "1"});
    let placeholder = sim.agents(admin.pool)[1].id;
    let path = format!("/agents/{placeholder}/usercapabilities");
    let labels = admin.request(Method::PUT, &path).json(&body);
    let labels: Value = labels.send().await?.json().await?;
    assert_eq!(labels["userCapabilities"], body);
    let job = || JobRequest::new("linux").demanding("kettle");
    let waiting = sim.queue_job(job())?;

    let pool = "linux".to_owned();
    let fault = NamedFault::PlaceholderDeleted { pool };
    assert!(sim.named_fault(fault.clone()));
    assert!(!sim.named_fault(fault));
    assert_eq!(sim.agents(admin.pool)[0].name, "stove-01");
    assert_eq!(sim.job(waiting).unwrap().state, JobState::Queued);
    let next = sim.queue_job(job())?;
    assert_eq!(sim.job(next).unwrap().state, JobState::NoAgentMatches);
    Ok(())
}

#[tokio::test]
async fn agents_get_updates_cancellations_and_messages_of_unknown_types() -> Result<()> {
    let (sim, admin) = start().await?;
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    agent.fetch_token().await?;
    let (session, key) = agent.begin().await?;
    let name = "stove-01".to_owned();
    assert!(sim.named_fault(NamedFault::UnknownMessage {
        agent: name.clone()
    }));
    let message = agent.receive(&session, &key).await?;
    assert_eq!(message.kind, "SomethingNew");
    agent.acknowledge(&session, message.id).await?;

    let job = sim.queue_job(JobRequest::new("linux"))?;
    let handed = agent.receive(&session, &key).await?;
    agent.acknowledge(&session, handed.id).await?;
    sim.cancel_job(job);
    let message = agent.receive(&session, &key).await?;
    assert_eq!(message.kind, "JobCancellation");
    assert_eq!(message.body["jobId"], handed.body["jobId"]);
    agent.acknowledge(&session, message.id).await?;
    agent.complete(&handed.body, "canceled").await?;

    let version = "4.280.0".to_owned();
    sim.named_fault(NamedFault::AgentRefresh {
        version,
        agent: None,
    });
    let message = agent.receive(&session, &key).await?;
    assert_eq!(
        (message.kind.as_str(), &message.body["agentId"]),
        ("AgentRefresh", &json!(agent.id))
    );
    assert_eq!(
        sim.agents(admin.pool)[0].pending_update.as_deref(),
        Some("4.280.0")
    );
    assert!(sim.named_fault(NamedFault::DropSession { agent: name }));
    let expired: Value = agent.poll(&session, 0).await?.json().await?;
    assert_eq!(expired["typeKey"], "TaskAgentSessionExpiredException");
    Ok(())
}
