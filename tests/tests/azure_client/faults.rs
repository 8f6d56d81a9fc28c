//! What goes wrong: rejected credentials, refusals, silence, lost and useless answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iap_tests::azure_sim::{FaultAction, NamedFault, Pat, PatMode, SimOptions};
use iapd::azure::{Azure, AzureError, Credential, Deadlines, Deleted};
use serde_json::json;

use crate::world::{AGENTS, PAT, World};

#[tokio::test]
async fn a_rejected_credential_is_told_from_everything_else_and_recovers() {
    let world = World::new().await;
    for (mode, words) in [
        (
            PatMode::Unauthorized,
            "HTTP 401: TF400813: The user '' is not authorized",
        ),
        (
            PatMode::SignInPage,
            "HTTP 203 with an HTML page: the token is expired or revoked",
        ),
        (
            PatMode::SignInRedirect,
            "HTTP 302 to 127.0.0.1: the token is expired or revoked",
        ),
    ] {
        world.sim.set_pat_mode(mode);
        let error = world.failed_list().await;
        assert!(error.is_rejected() && !error.is_transient() && !error.is_not_found());
        assert!(error.to_string().ends_with(words), "{error}");
        // None of these may pass for a successful deletion.
        assert!(
            world
                .azure
                .delete_agent(world.pool, 41)
                .await
                .unwrap_err()
                .is_rejected()
        );
    }
    world.sim.set_pat_mode(PatMode::Valid);
    world.azure.agents(world.pool).await.unwrap();
}

#[tokio::test]
async fn a_token_that_may_only_read_says_what_it_lacks() {
    let world = World::new().await;
    world.sim.add_pat(Pat::read_only("readonlytoken"));
    let credential = Credential::Pat("readonlytoken".into());
    let azure = Azure::new(world.azure.url(), credential, None, Arc::new(|_| ())).unwrap();
    azure.agents(world.pool).await.unwrap();
    let error = azure
        .create_agent(world.pool, &world.agent("stove-01"))
        .await
        .unwrap_err();
    assert!(error.is_rejected() && !error.is_transient());
    let text = error.to_string();
    assert!(text.contains("needs Manage permissions"), "{text}");
    assert!(text.contains("Agent Pools (read & manage)"), "{text}");
}

#[tokio::test]
async fn a_replaced_token_file_is_picked_up_without_a_restart() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "expired").unwrap();
    let credential = Credential::PatFile(file.path().to_owned());
    let azure = Azure::new(world.azure.url(), credential, None, Arc::new(|_| ())).unwrap();
    assert!(azure.agents(world.pool).await.unwrap_err().is_rejected());
    std::fs::write(file.path(), format!("{PAT}\n")).unwrap();
    azure.agents(world.pool).await.unwrap();
}

#[tokio::test]
async fn what_azure_will_not_do_on_demand_is_transient_and_never_an_empty_list() {
    let world = World::new().await;
    world.register("stove-01").await;
    for action in [
        FaultAction::status(500),
        FaultAction::status(502),
        FaultAction::error(503, "ServiceUnavailableException"),
        FaultAction::CloseBefore,
        FaultAction::CloseAfter,
        FaultAction::Truncate,
        FaultAction::InvalidJson,
        FaultAction::Reply {
            status: 200,
            headers: BTreeMap::new(),
            type_key: None,
            body: Some(json!({"count": 2, "value": [{"id": 41, "name": "stove-01"}]})),
        },
    ] {
        let name = format!("{action:?}");
        world.fault("GET", AGENTS, action);
        let error = world.failed_list().await;
        assert!(error.is_transient(), "{name}: {error}");
        assert!(
            !error.is_rejected() && !error.is_not_found(),
            "{name}: {error}"
        );
        assert_eq!(
            world.azure.agents(world.pool).await.unwrap().len(),
            1,
            "{name}"
        );
    }
    world.fault("GET", AGENTS, FaultAction::WrongContentType);
    assert!(world.failed_list().await.is_rejected());
}

#[tokio::test]
async fn a_hang_ends_at_the_deadline_and_a_delay_does_not() {
    let short = Duration::from_millis(300);
    let deadlines = Deadlines {
        list: short,
        ..Deadlines::default()
    };
    let world = World::with(SimOptions::default(), deadlines).await;
    world.fault("GET", AGENTS, FaultAction::Hang);
    let error = world.failed_list().await;
    assert!(matches!(error, AzureError::TimedOut { .. }), "{error}");
    assert!(error.is_transient());
    let world = World::new().await;
    world.sim.named_fault(NamedFault::SlowList { ms: 200 });
    world.azure.agents(world.pool).await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_stops_all_calls_of_the_client_for_as_long_as_azure_said() {
    let impatient = Deadlines {
        pause: Duration::ZERO,
        ..Deadlines::default()
    };
    let world = World::with(SimOptions::default(), impatient).await;
    world.fault("GET", AGENTS, FaultAction::too_many_requests(7));
    let error = world.failed_list().await;
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let error = world.azure.clone().find_pool("linux").await.unwrap_err();
    assert!(error.is_transient() && error.retry_after().unwrap() > Duration::from_secs(5));
    assert_eq!(world.sim.journal().len(), 1);

    let world = World::with(SimOptions::default(), impatient).await;
    world
        .sim
        .named_fault(NamedFault::RateLimitDelayWith200 { seconds: 9 });
    world.azure.agents(world.pool).await.unwrap();
    assert!(world.failed_list().await.retry_after().unwrap() > Duration::from_secs(7));
    assert_eq!(world.sim.journal().len(), 1);
}

#[tokio::test]
async fn a_short_pause_is_waited_out() {
    let world = World::new().await;
    world
        .sim
        .named_fault(NamedFault::RateLimitDelayWith200 { seconds: 1 });
    world.azure.agents(world.pool).await.unwrap();
    let asked = std::time::Instant::now();
    world.azure.agents(world.pool).await.unwrap();
    assert!(asked.elapsed() > Duration::from_millis(900));
    assert!(world.azure.is_throttled());
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_found_by_name_and_not_made_twice() {
    let world = World::new().await;
    world
        .sim
        .named_fault(NamedFault::LosePostResponse { times: 1 });
    let error = world
        .azure
        .create_agent(world.pool, &world.agent("stove-01"))
        .await
        .unwrap_err();
    assert!(matches!(error, AzureError::Unreachable { .. }), "{error}");
    assert_eq!(world.count("POST"), 1);
    let stray = world
        .azure
        .agent_named(world.pool, "stove-01")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        world
            .azure
            .delete_agent(world.pool, stray.id)
            .await
            .unwrap(),
        Deleted::Gone
    );
    world.register("stove-01").await;
}

#[tokio::test]
async fn a_registration_without_authorization_is_an_error_that_names_what_to_delete() {
    let world = World::new().await;
    world
        .sim
        .switch(|switches| switches.no_authorization = true);
    let error = world
        .azure
        .create_agent(world.pool, &world.agent("stove-01"))
        .await
        .unwrap_err();
    let AzureError::NoAuthorization { agent_id } = error else {
        panic!("{error}")
    };
    assert_eq!(
        world
            .azure
            .delete_agent(world.pool, agent_id)
            .await
            .unwrap(),
        Deleted::Gone
    );
    assert_eq!(world.azure.agents(world.pool).await.unwrap(), []);
}
