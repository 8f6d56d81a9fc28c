//! What `auth check` finds out, and that finding out changes nothing.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::path::PathBuf;
use std::sync::Arc;

use iap_tests::azure_sim::{Pat, PatMode};
use iapd::auth_check::{Ability, Subject, Verdict, check};
use iapd::azure::{Azure, Credential};
use iapd::config::{self, Environment};
use iapd::pool::spec::{CredentialSpec, PoolSpec};

use crate::world::{PAT, World};

const NO_FILE: &str = "/nowhere/azure-pat";

/// Returns a pool of agents in the world's organisation.
fn pool(world: &World, azure_pool: &str) -> PoolSpec {
    let text = format!(
        "pools:\n- {{name: local, agentCount: 1, azure: {{url: '{}', patFile: '{NO_FILE}', pool: \
         {azure_pool}}}, incus: {{image: i}}}}\n",
        world.azure.url()
    );
    let loaded = config::parse(text.as_bytes(), &Environment::detect()).unwrap();
    loaded.spec.pools[0].clone()
}

async fn abilities(world: &World, credential: Credential, azure_pool: &str) -> Vec<Ability> {
    let mut subjects = Vec::new();
    let client = || Azure::new(world.azure.url(), credential, None, Arc::new(|_| ()));
    Subject::add(&mut subjects, &pool(world, azure_pool), client).unwrap();
    let mut checked = check(subjects).await;
    assert_eq!(checked.len(), 1);
    assert_eq!(checked[0].pools, ["local"]);
    let file = CredentialSpec::PatFile(PathBuf::from(NO_FILE));
    assert_eq!(checked[0].credential, file);
    checked.remove(0).abilities
}

fn table(abilities: &[Ability]) -> String {
    let line = |ability: &Ability| {
        let Ability {
            azure_pool,
            name,
            verdict,
            detail,
            fix,
        } = ability;
        format!("{azure_pool}|{name}|{verdict:?}|{detail}|{fix}")
    };
    abilities.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_good_credential_has_every_ability_and_nothing_is_changed() {
    let world = World::new().await;
    world.register("stove-01").await;
    let before = world.azure.agents(world.pool).await.unwrap();
    let abilities = abilities(&world, Credential::Pat(PAT.into()), "linux").await;
    assert!(abilities.iter().all(|a| a.verdict == Verdict::Yes));
    assert_eq!(world.azure.agents(world.pool).await.unwrap(), before);
    insta::assert_snapshot!(table(&abilities), @"
    |get a token|Yes|token in /nowhere/azure-pat|
    |reach Azure|Yes||
    |sign in|Yes|as sim-admin|
    linux|see the pool|Yes|id 11|
    linux|list agents|Yes|1 there|
    linux|manage agents|Yes|a change to an agent that does not exist was refused for that alone|
    ");
}

#[tokio::test]
async fn what_a_credential_lacks_is_said_with_what_to_do() {
    let world = World::new().await;
    world.sim.add_pat(Pat::read_only("readonlytoken"));
    let reader = || Credential::Pat("readonlytoken".into());
    let of_reader = abilities(&world, reader(), "linux").await;
    insta::assert_snapshot!(table(&of_reader[5..]), @"linux|manage agents|No|HTTP 403: Access denied. The identity needs Manage permissions.; it needs the scope Agent Pools (read & manage), and its owner must be an administrator of the agent pool|the token needs the scope Agent Pools (read & manage), its owner the role Administrator (Organization settings > Agent pools > linux > Security)");
    let of_nobody = abilities(&world, reader(), "windows").await;
    insta::assert_snapshot!(table(&of_nobody[3..]), @r#"
    windows|see the pool|No|there is none of this name, or it is not shown to us|create "windows" under Organization settings > Agent pools, or set azure.pool; if it is there, the token needs the scope Agent Pools (read & manage), its owner the role Reader (Organization settings > Agent pools > windows > Security)
    windows|list agents|Unknown|not tried|
    windows|manage agents|Unknown|not tried|
    "#);
    world.sim.set_pat_mode(PatMode::SignInPage);
    let rejected = abilities(&world, reader(), "linux").await;
    insta::assert_snapshot!(table(&rejected), @"
    |get a token|Yes|token in /nowhere/azure-pat|
    |reach Azure|Yes||
    |sign in|No|HTTP 203 with an HTML page: the token is expired or revoked|make a token of scope Agent Pools (read & manage) in this organisation and write it into /nowhere/azure-pat
    linux|see the pool|Unknown|not tried|
    linux|list agents|Unknown|not tried|
    linux|manage agents|Unknown|not tried|
    ");
    let no_file = Credential::PatFile(PathBuf::from(NO_FILE));
    let without_token = abilities(&world, no_file, "linux").await;
    insta::assert_snapshot!(table(&without_token[..1]), @"|get a token|No|cannot read the credential in /nowhere/azure-pat: No such file or directory (os error 2)|write a good token into /nowhere/azure-pat");
}
