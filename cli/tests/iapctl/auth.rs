//! `auth check`.

use iap_common::v1::{AuthAbility, AuthVerdict, CredentialKind};
use insta::assert_snapshot;

use super::data::answers;
use super::fake::{Answers, Fake};
use super::run::iapctl;

fn ability(pool: &str, name: &str, verdict: AuthVerdict, detail: &str, fix: &str) -> AuthAbility {
    AuthAbility {
        url: "https://dev.azure.com/acme".to_owned(),
        credential_kind: CredentialKind::Certificate.into(),
        credential_source: "service principal c1, certificate in /etc/iapd/azure.pem".to_owned(),
        pools: vec!["linux".to_owned(), "linux-vm".to_owned()],
        azure_pool: pool.to_owned(),
        ability: name.to_owned(),
        verdict: verdict.into(),
        detail: detail.to_owned(),
        fix: fix.to_owned(),
    }
}

fn good() -> Vec<AuthAbility> {
    let yes = AuthVerdict::Yes;
    vec![
        ability("", "get a token", yes, "", ""),
        ability("", "reach Azure", yes, "", ""),
        ability("", "sign in", yes, "as iapd on h1", ""),
        ability("Linux builds", "see the pool", yes, "id 11", ""),
        ability("Linux builds", "list agents", yes, "4 there", ""),
    ]
}

fn fake(last: AuthAbility) -> Fake {
    let mut abilities = good();
    abilities.push(last);
    Fake::start(Answers {
        abilities,
        ..answers()
    })
}

fn managing(verdict: AuthVerdict, detail: &str, fix: &str) -> AuthAbility {
    ability("Linux builds", "manage agents", verdict, detail, fix)
}

#[test]
fn a_credential_that_can_do_all_makes_the_exit_code_0() {
    let fake = fake(managing(AuthVerdict::Yes, "", ""));
    assert_snapshot!(iapctl(&fake, "auth check --pool linux"), @"
    AZURE                       POOLS            AZURE-POOL    ABILITY        VERDICT  DETAIL
    https://dev.azure.com/acme  linux, linux-vm  -             get a token    yes      -
    https://dev.azure.com/acme  linux, linux-vm  -             reach Azure    yes      -
    https://dev.azure.com/acme  linux, linux-vm  -             sign in        yes      as iapd on h1
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  see the pool   yes      id 11
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  list agents    yes      4 there
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  manage agents  yes      -
    ");
    assert_snapshot!(fake.calls(), @r#"CheckAuthRequest { pool: "linux" }"#);
    let unknown = self::fake(managing(AuthVerdict::Unknown, "it cannot be told", ""));
    assert!(!iapctl(&unknown, "auth check").contains("exit"));
}

#[test]
fn what_is_missing_is_said_with_what_to_do_and_makes_the_exit_code_1() {
    let fake = fake(managing(
        AuthVerdict::No,
        "HTTP 403: Access denied",
        "give the principal the role Administrator",
    ));
    assert_snapshot!(iapctl(&fake, "auth check"), @"
    AZURE                       POOLS            AZURE-POOL    ABILITY        VERDICT  DETAIL
    https://dev.azure.com/acme  linux, linux-vm  -             get a token    yes      -
    https://dev.azure.com/acme  linux, linux-vm  -             reach Azure    yes      -
    https://dev.azure.com/acme  linux, linux-vm  -             sign in        yes      as iapd on h1
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  see the pool   yes      id 11
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  list agents    yes      4 there
    https://dev.azure.com/acme  linux, linux-vm  Linux builds  manage agents  NO       HTTP 403: Access denied

    to manage agents (for linux, linux-vm): give the principal the role Administrator
    --- exit 1
    ");
    assert_snapshot!(iapctl(&fake, "auth check -o wide --no-headers"), @"
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  -             get a token    yes  -
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  -             reach Azure    yes  -
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  -             sign in        yes  as iapd on h1
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  Linux builds  see the pool   yes  id 11
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  Linux builds  list agents    yes  4 there
    https://dev.azure.com/acme  linux, linux-vm  service principal c1, certificate in /etc/iapd/azure.pem  Linux builds  manage agents  NO   HTTP 403: Access denied

    to manage agents (for linux, linux-vm): give the principal the role Administrator
    --- exit 1
    ");
}

#[test]
fn abilities_are_objects_in_json() {
    let fake = Fake::start(Answers {
        abilities: vec![managing(AuthVerdict::No, "HTTP 403", "give it the role")],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "auth check -o json"), @r#"
    {
      "api_version": "iap.v1",
      "abilities": [
        {
          "url": "https://dev.azure.com/acme",
          "credential_kind": "certificate",
          "credential_source": "service principal c1, certificate in /etc/iapd/azure.pem",
          "pools": [
            "linux",
            "linux-vm"
          ],
          "azure_pool": "Linux builds",
          "ability": "manage agents",
          "verdict": "no",
          "detail": "HTTP 403",
          "fix": "give it the role"
        }
      ]
    }
    --- exit 1
    "#);
}
