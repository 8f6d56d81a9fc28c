//! Credentials of Entra ID: each kind against the simulator's token endpoints, and what goes wrong
//! with them.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iap_common::error::chain;
use iap_tests::azure_sim::{
    CredentialKind, EntraClient, EntraMode, EntraRequest, MachineIdentity, Pat, Right, SimOptions,
    Timings,
};
use iapd::azure::{Application, Azure, AzureError, Credential, Deadlines, Proof};
use tempfile::TempDir;

use crate::world::{PAT, World};

const SECRET: &str = "s3cret~entra.value0123456789";
const FEDERATED: &str = "header.claims.f3deratedsignature";
const CERTIFICATE: &str = include_str!("../../src/azure_sim/test-certificate.pem");

/// An organisation, the application `app` of the tenant `contoso`, and files with its proofs.
struct Directory {
    world: World,
    files: TempDir,
}

impl Directory {
    async fn new() -> Self {
        Self::with(Duration::from_secs(3600), Right::Manage).await
    }

    async fn with(token_life: Duration, right: Right) -> Self {
        let timings = Timings {
            entra_token_life: token_life,
            ..Timings::default()
        };
        let options = SimOptions {
            timings,
            ..SimOptions::default()
        };
        let world = World::with(options, Deadlines::default()).await;
        world.sim.add_entra_client(EntraClient {
            tenant: "contoso".into(),
            client_id: "app".into(),
            secret: SECRET.into(),
            certificate: Some(CERTIFICATE.into()),
            federated_tokens: vec![FEDERATED.into()],
            right,
        });
        let files = tempfile::tempdir().unwrap();
        Self { world, files }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.files.path().join("proof");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn application(&self, proof: Proof) -> Azure {
        self.client(Credential::Application(Application {
            authority: format!("http://{}/_sim/entra", self.world.sim.address()),
            tenant_id: "contoso".into(),
            client_id: "app".into(),
            proof,
        }))
    }

    fn with_secret(&self, secret: &str) -> Azure {
        self.application(Proof::Secret(self.file(secret)))
    }

    fn machine(&self, client_id: Option<&str>) -> Azure {
        self.client(Credential::ManagedIdentity {
            client_id: client_id.map(str::to_owned),
            endpoint: format!("http://{}/_sim/machine", self.world.sim.address()),
        })
    }

    fn client(&self, credential: Credential) -> Azure {
        Azure::new(self.world.azure.url(), credential, None, Arc::new(|_| ())).unwrap()
    }

    async fn fails(&self, azure: &Azure) -> AzureError {
        let error = azure.agents(self.world.pool).await.unwrap_err();
        let text = format!("{} {error:?}", chain(&error));
        for secret in [SECRET, FEDERATED, "sim-entra-", "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{text}");
        }
        error
    }

    fn requests(&self) -> Vec<EntraRequest> {
        self.world.sim.entra_requests()
    }
}

#[tokio::test]
async fn every_kind_of_credential_manages_agents_with_one_token() {
    for (name, text, proof) in [
        ("secret", SECRET, Proof::Secret as fn(PathBuf) -> Proof),
        ("certificate", CERTIFICATE, Proof::Certificate),
        ("federated token", FEDERATED, Proof::FederatedToken),
    ] {
        let directory = Directory::new().await;
        let azure = directory.application(proof(directory.file(text)));
        assert_eq!(azure.clock().token_expires_at, None);
        manages(&directory, &azure).await;
        let requests = directory.requests();
        assert_eq!(requests.len(), 1, "{name}: {requests:?}");
        let kind = if name == "secret" {
            "client_secret"
        } else {
            "client_assertion"
        };
        assert_eq!((requests[0].proof, requests[0].granted), (kind, true));
        assert_eq!(azure.clock().expires_at.is_some(), name == "certificate");
        assert!(azure.clock().token_expires_at.is_some());
        assert_eq!(azure.clock().rejected_at, None);
    }
}

async fn manages(directory: &Directory, azure: &Azure) {
    let world = &directory.world;
    let agent = world.agent("stove-01");
    let created = azure.create_agent(world.pool, &agent).await.unwrap();
    for _ in 0..3 {
        assert_eq!(azure.agents(world.pool).await.unwrap().len(), 1);
    }
    azure.delete_agent(world.pool, created.id).await.unwrap();
    let journal = world.sim.journal();
    assert!(
        journal
            .iter()
            .all(|entry| entry.credential == CredentialKind::Entra)
    );
}

#[tokio::test]
async fn the_machines_own_identity_and_a_named_one_manage_agents() {
    let directory = Directory::new().await;
    let error = directory.fails(&directory.machine(None)).await;
    assert!(error.is_rejected() && error.to_string().contains("Identity not found"));
    for (client_id, own) in [("first", true), ("second", false)] {
        directory.world.sim.add_machine_identity(MachineIdentity {
            client_id: client_id.into(),
            own,
            right: Right::Manage,
        });
    }
    for client_id in [None, Some("second")] {
        let azure = directory.machine(client_id);
        manages(&directory, &azure).await;
        assert!(azure.clock().token_expires_at.is_some());
    }
    let asked: Vec<bool> = directory.requests().iter().map(|r| r.granted).collect();
    assert_eq!(asked, [false, true, true]);
}

#[tokio::test]
async fn a_wrong_proof_is_rejected_in_azures_words_and_a_corrected_file_is_seen() {
    let directory = Directory::new().await;
    let azure = directory.with_secret("wrong");
    let error = directory.fails(&azure).await;
    assert!(error.is_rejected() && !error.is_transient());
    assert_eq!(
        error.to_string(),
        "cannot get a token from Entra ID: Azure rejected the credential: \
         AADSTS7000215: Invalid client secret provided."
    );
    assert!(azure.clock().rejected_at.is_some());
    assert!(!azure.has_new_token().await);
    directory.file(SECRET);
    assert!(azure.has_new_token().await);
    until(async || azure.agents(directory.world.pool).await.is_ok()).await;

    let azure = directory.application(Proof::FederatedToken(directory.file("a.b.c")));
    let error = directory.fails(&azure).await;
    assert!(error.is_rejected() && error.to_string().contains("AADSTS50027"));
    directory.world.sim.set_entra_mode(EntraMode::SecretExpired);
    let error = directory.fails(&directory.with_secret(SECRET)).await;
    assert!(error.is_rejected() && error.to_string().contains("AADSTS7000222"));
}

#[tokio::test]
async fn another_certificate_than_the_registered_one_is_rejected() {
    let directory = Directory::new().await;
    directory.world.sim.add_entra_client(EntraClient {
        tenant: "contoso".into(),
        client_id: "other".into(),
        certificate: Some(CERTIFICATE.replace("MII", "MIJ")),
        ..EntraClient::default()
    });
    let azure = directory.client(Credential::Application(Application {
        authority: format!("http://{}/_sim/entra", directory.world.sim.address()),
        tenant_id: "contoso".into(),
        client_id: "other".into(),
        proof: Proof::Certificate(directory.file(CERTIFICATE)),
    }));
    let error = directory.fails(&azure).await;
    assert!(error.is_rejected(), "{error}");
    assert!(error.to_string().contains("AADSTS700027"), "{error}");
}

#[tokio::test]
async fn an_outage_of_entra_id_is_transient_and_does_not_touch_the_token_in_hand() {
    let directory = Directory::new().await;
    let holding = directory.with_secret(SECRET);
    holding.agents(directory.world.pool).await.unwrap();
    for mode in [EntraMode::Unavailable, EntraMode::Throttled] {
        directory.world.sim.set_entra_mode(mode);
        let error = directory.fails(&directory.with_secret(SECRET)).await;
        assert!(error.is_transient() && !error.is_rejected(), "{error}");
        assert!(error.to_string().contains("Entra ID"), "{error}");
        holding.agents(directory.world.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_before_any_call_fails() {
    let directory = Directory::with(Duration::from_secs(2), Right::Manage).await;
    let azure = directory.with_secret(SECRET);
    until(async || {
        azure.agents(directory.world.pool).await.unwrap();
        directory.requests().len() == 3
    })
    .await;
    let refused = directory.world.sim.journal();
    assert!(refused.iter().all(|entry| entry.status == Some(200)));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_within_the_call_unless_it_is_young() {
    let directory = Directory::with(Duration::from_secs(10), Right::Manage).await;
    directory.world.sim.add_machine_identity(MachineIdentity {
        client_id: "first".into(),
        ..MachineIdentity::default()
    });
    let azure = directory.machine(None);
    azure.agents(directory.world.pool).await.unwrap();
    directory.world.sim.expire_entra_tokens();
    let error = directory.fails(&azure).await;
    assert!(error.is_rejected(), "{error}");
    assert!(azure.clock().rejected_at.is_some());
    until(async || azure.agents(directory.world.pool).await.is_ok()).await;
    let asked: Vec<bool> = directory
        .requests()
        .iter()
        .map(|r| r.bypass_cache)
        .collect();
    assert_eq!(asked, [false, true]);
}

#[tokio::test]
async fn a_principal_that_was_not_added_to_the_organisation_costs_one_token() {
    let directory = Directory::with(Duration::from_secs(3600), Right::Nothing).await;
    let azure = directory.with_secret(SECRET);
    for _ in 0..5 {
        let error = directory.fails(&azure).await;
        assert!(error.is_rejected(), "{error}");
        assert!(error.to_string().contains("HTTP 401"), "{error}");
        let hint = "has the principal been added to the organisation?";
        assert!(error.to_string().ends_with(hint), "{error}");
    }
    assert_eq!(directory.requests().len(), 1);
}

#[tokio::test]
async fn a_principal_that_may_only_look_says_what_it_lacks() {
    let directory = Directory::with(Duration::from_secs(3600), Right::Read).await;
    let azure = directory.with_secret(SECRET);
    azure.agents(directory.world.pool).await.unwrap();
    assert!(!azure.is_administrator("linux").await.unwrap());
    let error = azure.may_manage(directory.world.pool).await.unwrap_err();
    let hint = "its principal must be an administrator of the agent pool";
    assert!(error.is_rejected() && error.to_string().ends_with(hint));
    assert_eq!(
        directory.requests().len(),
        1,
        "a 403 is not the token's fault"
    );
}

#[tokio::test]
async fn a_token_file_replaced_within_a_tick_is_used_within_the_call() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let old = "x".repeat(PAT.len());
    world.sim.add_pat(Pat::manage(old.clone()));
    std::fs::write(file.path(), &old).unwrap();
    let modified = file.as_file().metadata().unwrap().modified().unwrap();
    let credential = Credential::PatFile(file.path().to_owned());
    let azure = Azure::new(world.azure.url(), credential, None, Arc::new(|_| ())).unwrap();
    azure.agents(world.pool).await.unwrap();
    world.sim.remove_pat(&old);
    std::fs::write(file.path(), PAT).unwrap();
    file.as_file().set_modified(modified).unwrap();
    azure.agents(world.pool).await.unwrap();
    assert_eq!(world.sim.journal().len(), 3);
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < Duration::from_secs(10), "not in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
