//! The Azure client and the registration files against the simulator.

#[path = "azure_client/access.rs"]
mod access;
#[path = "azure_client/entra.rs"]
mod entra;
#[path = "azure_client/faults.rs"]
mod faults;
#[path = "azure_client/listener.rs"]
mod listener;
#[path = "azure_client/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use iap_tests::azure_sim::{
    AgentPackage, CredentialKind, DEFAULT_ORG, FaultAction, JobRequest, ServerUrlForm, SimOptions,
};
use iapd::azure::{Deadlines, Deleted, Deployment};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::listener::Listener;
use self::world::World;

#[tokio::test]
async fn a_pool_is_found_by_its_name() {
    let world = World::new().await;
    let pool = world.azure.find_pool("LINUX").await.unwrap().unwrap();
    assert_eq!(
        (pool.id, pool.name.as_str(), pool.auto_update),
        (world.pool, "linux", Some(true))
    );
    assert_eq!(world.azure.find_pool("windows").await.unwrap(), None);
    assert_eq!(world.azure.deployment().await.unwrap(), Deployment::Hosted);
}

#[tokio::test]
async fn a_registration_is_seen_found_and_deleted() {
    let world = World::new().await;
    let created = world.register("stove-01").await;
    assert_eq!(created.name, "stove-01");
    assert_eq!(
        created.authorization_url,
        world.sim.authorization_url(DEFAULT_ORG)
    );

    let again = world
        .azure
        .create_agent(world.pool, &world.agent("stove-01"))
        .await
        .unwrap_err();
    assert!(again.is_conflict() && !again.is_transient(), "{again}");

    let listed = world.azure.agents(world.pool).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id, listed[0].version.as_str()),
        (created.id, "4.275.0")
    );
    assert!(listed[0].enabled && !listed[0].online && listed[0].assigned.is_none());
    let names: BTreeSet<_> = listed[0].capabilities.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        BTreeSet::from(["Agent.Name", "Agent.Version", "stove"])
    );
    assert!(listed[0].created_on.is_some());

    let found = world
        .azure
        .agent_named(world.pool, "Stove-01")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, created.id);
    assert_eq!(
        world
            .azure
            .agent_named(world.pool, "stove-02")
            .await
            .unwrap(),
        None
    );
    let agent = world
        .azure
        .agent(world.pool, created.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(agent.name, "stove-01");

    for _ in 0..2 {
        let deleted = world
            .azure
            .delete_agent(world.pool, created.id)
            .await
            .unwrap();
        assert_eq!(deleted, Deleted::Gone);
    }
    assert_eq!(
        world.azure.agent(world.pool, created.id).await.unwrap(),
        None
    );
    assert_eq!(world.azure.agents(world.pool).await.unwrap(), []);
    assert!(
        world
            .sim
            .journal()
            .iter()
            .all(|entry| entry.user_agent.starts_with("iapd/"))
    );
}

#[tokio::test]
async fn a_missing_pool_is_an_error_and_not_an_empty_one() {
    let world = World::new().await;
    let error = world.azure.agents(world.pool + 1).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_transient(), "{error}");
    assert!(world.azure.agent(world.pool + 1, 1).await.is_err());
}

#[tokio::test]
async fn user_capabilities_are_replaced_and_win() {
    let world = World::new().await;
    let id = world.register("stove-01").await.id;
    for value in ["first", "second"] {
        let capabilities = BTreeMap::from([
            ("iap.owner".to_owned(), value.to_owned()),
            ("stove".to_owned(), value.to_owned()),
        ]);
        world
            .azure
            .set_user_capabilities(world.pool, id, &capabilities)
            .await
            .unwrap();
        let agent = world.azure.agent(world.pool, id).await.unwrap().unwrap();
        assert_eq!(agent.capabilities["iap.owner"], value);
        assert_eq!(agent.capabilities["stove"], value);
    }
}

#[tokio::test]
async fn an_agent_made_of_its_files_alone_runs_a_job_that_is_seen_throughout() {
    let world = World::new().await;
    let (azure, pool) = (&world.azure, world.pool);
    let created = world.register("stove-01").await;
    let waiting = JobRequest::new("linux").demanding("stove");
    let job = i64::try_from(world.sim.queue_job(waiting).unwrap()).unwrap();
    let queued = azure.unfinished_jobs(pool).await.unwrap();
    assert_eq!(
        (queued.len(), queued[0].request_id, queued[0].agent_id),
        (1, job, None)
    );
    assert_eq!(queued[0].demands, ["stove"]);
    assert!(queued[0].queue_time.is_some() && queued[0].assign_time.is_none());

    let listener = Listener::start(&world.bundle(&created).await).await;
    let agent = azure.agents(pool).await.unwrap().remove(0);
    let assigned = agent.assigned.unwrap();
    assert!(agent.online);
    assert_eq!(
        (assigned.request_id, assigned.pipeline.as_str()),
        (job, "ci")
    );
    assert_eq!(assigned.agent_id, Some(created.id));
    assert!(assigned.assign_time.is_some() && assigned.receive_time.is_none());
    assert!(!assigned.run.is_empty() && !assigned.job_id.is_empty());

    listener.receive().await;
    let running = azure
        .agent(pool, created.id)
        .await
        .unwrap()
        .unwrap()
        .assigned
        .unwrap();
    assert!(running.receive_time.is_some() && running.result.is_none());
    match azure.delete_agent(pool, created.id).await.unwrap() {
        Deleted::Busy(message) => assert!(message.contains("is running a job"), "{message}"),
        Deleted::Gone => panic!("a busy agent was deleted"),
    }

    listener.finish(job, "failed").await;
    let agent = azure.agent(pool, created.id).await.unwrap().unwrap();
    assert_eq!(agent.assigned, None);
    let last = agent.last_completed.unwrap();
    assert_eq!(
        (last.request_id, last.result.as_deref()),
        (job, Some("failed"))
    );
    assert!(last.finish_time.is_some());
    assert_eq!(azure.unfinished_jobs(pool).await.unwrap(), []);
    assert_eq!(
        azure.delete_agent(pool, created.id).await.unwrap(),
        Deleted::Gone
    );
    let from_guests = world.sim.journal();
    let from_guests = from_guests
        .iter()
        .filter(|entry| entry.user_agent.is_empty());
    assert!(from_guests.clone().count() > 0);
    assert!(
        from_guests
            .into_iter()
            .all(|entry| entry.credential != CredentialKind::Pat)
    );
}

#[tokio::test]
async fn a_disabled_agent_gets_no_job() {
    let world = World::new().await;
    let created = world.register("stove-01").await;
    let _listener = Listener::start(&world.bundle(&created).await).await;
    world
        .azure
        .disable_agent(world.pool, created.id, "stove-01")
        .await
        .unwrap();
    world
        .sim
        .switch(|switches| switches.disabled_agents_match = true);
    world.sim.queue_job(JobRequest::new("linux")).unwrap();
    let agent = world
        .azure
        .agent(world.pool, created.id)
        .await
        .unwrap()
        .unwrap();
    assert!(!agent.enabled && agent.online && agent.assigned.is_none());
}

#[tokio::test]
async fn what_is_only_inferred_of_the_service_may_be_otherwise() {
    let world = World::new().await;
    world.sim.switch(|switches| {
        switches.absent_as_null = true;
        switches.authorization_in_get = true;
        switches.delete_answers_200 = true;
        switches.server_url = ServerUrlForm::Plain;
    });
    let created = world.register("stove-01").await;
    assert_eq!(
        created.server_url.unwrap(),
        format!("{}/", world.sim.url(DEFAULT_ORG))
    );
    let agent = world
        .azure
        .agent(world.pool, created.id)
        .await
        .unwrap()
        .unwrap();
    assert!(agent.assigned.is_none() && agent.last_completed.is_none());
    world.sim.queue_job(JobRequest::new("linux")).unwrap();
    assert_eq!(
        world.azure.unfinished_jobs(world.pool).await.unwrap().len(),
        1
    );
    assert_eq!(
        world
            .azure
            .delete_agent(world.pool, created.id)
            .await
            .unwrap(),
        Deleted::Gone
    );
    world
        .sim
        .switch(|switches| switches.server_url = ServerUrlForm::Absent);
    assert_eq!(world.register("stove-02").await.server_url, None);
}

#[tokio::test]
async fn a_server_that_calls_itself_something_else_is_reached_where_it_was_configured() {
    let options = SimOptions {
        orgs: vec!["tfs/DefaultCollection".into()],
        deployment: iap_tests::azure_sim::Deployment::OnPremises,
        public_url: Some("http://ado.public.invalid".into()),
        ..SimOptions::default()
    };
    let world = World::with(options, Deadlines::default()).await;
    assert_eq!(
        world.azure.deployment().await.unwrap(),
        Deployment::OnPremises
    );
    let created = world.register("stove-01").await;
    let path = "tfs/DefaultCollection/_apis/oauth2/token";
    assert_eq!(
        created.authorization_url,
        format!("http://ado.public.invalid/{path}")
    );
    let files = world.bundle(&created).await;
    let credentials: Value = serde_json::from_slice(&files[1].content).unwrap();
    let endpoint = format!("http://{}/{path}", world.sim.address());
    assert_eq!(credentials["data"]["oauthEndpointUrl"], endpoint);
    assert_eq!(
        credentials["data"]["authorizationUrl"],
        created.authorization_url
    );
    // The audience is checked byte by byte, and the public name does not resolve.
    Listener::start(&files).await;
    assert!(world.azure.agents(world.pool).await.unwrap()[0].online);
}

#[tokio::test]
async fn the_agent_package_is_found_and_its_download_matches_its_checksum() {
    // The download host has another name than the organisation's, as in reality.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let options = SimOptions {
        listen: ([127, 0, 0, 1], port).into(),
        public_url: Some(format!("http://localhost:{port}")),
        ..SimOptions::default()
    };
    let world = World::with(options, Deadlines::default()).await;
    let azure = &world.azure;
    assert_eq!(azure.agent_package("linux-x64", None).await.unwrap(), None);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("agent.tar.gz");
    std::fs::write(&archive, vec![7; 3_000_000]).unwrap();
    world
        .sim
        .set_package(AgentPackage::new("4.275.0", &archive).unwrap());

    let package = azure
        .agent_package("linux-x64", None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(package.version, "4.275.0");
    assert_eq!(package.filename, "vsts-agent-linux-x64-4.275.0.tar.gz");
    let same = azure
        .agent_package("linux-x64", Some("4.275.0"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(same, package);
    assert_eq!(
        azure
            .agent_package("linux-x64", Some("4.1.0"))
            .await
            .unwrap(),
        None
    );
    assert_eq!(azure.agent_package("osx-x64", None).await.unwrap(), None);

    let target = directory.path().join("download");
    let mut last = (0, None);
    let download = async |url: &str, progress: &mut (u64, Option<u64>)| {
        let to = tokio::fs::File::create(&target).await.unwrap();
        let stop = CancellationToken::new();
        azure
            .download(url, to, |done, total| *progress = (done, total), stop)
            .await
    };
    let hash = download(&package.download_url, &mut last).await.unwrap();
    assert_eq!(Some(hash), package.sha256);
    assert_eq!(last, (3_000_000, Some(3_000_000)));
    assert_eq!(
        std::fs::read(&target).unwrap(),
        std::fs::read(&archive).unwrap()
    );
    let journal = world.sim.journal();
    let fetched = journal
        .iter()
        .find(|entry| entry.path.starts_with("/_download/"))
        .unwrap();
    assert_eq!(fetched.credential, CredentialKind::None);

    world.fault("GET", "/_download/*", FaultAction::Truncate);
    let error = download(&package.download_url, &mut last)
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    let missing = package.download_url.replace("4.275.0", "4.1.0");
    let error = download(&missing, &mut last).await.unwrap_err();
    assert!(!error.is_transient() && !error.is_rejected(), "{error}");
}
