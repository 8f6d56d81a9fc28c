//! `ghosts`.

use iap_common::v1::*;
use insta::assert_snapshot;
use tonic::Status;

use super::data::{ago, answers};
use super::fake::{Answers, Beat, Fake, stopping};
use super::images::typed;
use super::run::{iapctl, interrupted};

fn ghost(id: i64, owner: &str, outlook: &str) -> Ghost {
    Ghost {
        name: format!("linux-{owner}-{id}"),
        azure_agent_id: id,
        azure_url: "https://dev.azure.com/acme".to_owned(),
        azure_pool: "fleet".to_owned(),
        owner: owner.to_owned(),
        ours: owner == "h1",
        pool: "linux".to_owned(),
        online: false,
        job: None,
        since: ago(7500),
        outlook: outlook.to_owned(),
    }
}

pub(crate) fn ghosts() -> Vec<Ghost> {
    let lives = "another host's, which lives";
    vec![
        ghost(1, "h1", "swept in 4m"),
        ghost(11, "h2", "another host's: can be adopted"),
        ghost(12, "h2", "another host's: can be adopted"),
        Ghost {
            online: true,
            job: Some(Job {
                pipeline: "webshop-ci".to_owned(),
                run: "20261123.7".to_owned(),
                name: "Build\u{1b}[31m".to_owned(),
                ..Job::default()
            }),
            since: None,
            ..ghost(21, "h3", lives)
        },
    ]
}

fn answer(state: AdoptionState, ghosts: &[(i64, AdoptedGhostState, &str)]) -> AdoptGhostsResponse {
    let ghosts = ghosts.iter().map(|(id, state, detail)| AdoptedGhost {
        ghost: Some(ghost(*id, "h2", "another host's: can be adopted")),
        state: (*state).into(),
        detail: (*detail).to_owned(),
    });
    AdoptGhostsResponse {
        state: state.into(),
        ghosts: ghosts.collect(),
        message: String::new(),
    }
}

const PRESENT: AdoptedGhostState = AdoptedGhostState::Present;
const REMOVED: AdoptedGhostState = AdoptedGhostState::Removed;

fn plan() -> Vec<Beat<AdoptGhostsResponse>> {
    let both = [(11, PRESENT, ""), (12, PRESENT, "")];
    vec![Beat::Say(answer(AdoptionState::DryRun, &both))]
}

/// A daemon with an adoption that goes like this.
fn adopting(adoption: Vec<Beat<AdoptGhostsResponse>>) -> Fake {
    Fake::start(Answers {
        ghosts: ListGhostsResponse {
            ghosts: ghosts(),
            warnings: vec![],
        },
        adoption_plan: vec![plan()],
        adoption: vec![adoption],
        ..answers()
    })
}

fn half() -> Beat<AdoptGhostsResponse> {
    let reason = "Azure says the agent is busy";
    Beat::Say(answer(
        AdoptionState::UnderWay,
        &[(11, REMOVED, ""), (12, PRESENT, reason)],
    ))
}

fn done() -> Beat<AdoptGhostsResponse> {
    Beat::Say(answer(
        AdoptionState::Done,
        &[(11, REMOVED, ""), (12, REMOVED, "")],
    ))
}

#[test]
fn ghosts_are_listed_with_their_owners_and_what_becomes_of_them() {
    let fake = adopting(vec![]);
    assert_snapshot!(iapctl(&fake, "ghosts ls"), @"
    AGENT        OWNER           AZURE-POOL  POOL   AZURE    JOB                           SINCE  OUTLOOK
    linux-h1-1   h1 (this host)  fleet       linux  offline  -                             2h05m  swept in 4m
    linux-h2-11  h2              fleet       linux  offline  -                             2h05m  another host's: can be adopted
    linux-h2-12  h2              fleet       linux  offline  -                             2h05m  another host's: can be adopted
    linux-h3-21  h3              fleet       linux  online   webshop-ci #20261123.7 Build      -  another host's, which lives
    ");
    assert_snapshot!(iapctl(&fake, "ghost list --pool linux -o wide"), @"
    AGENT        OWNER           AZURE-POOL  AZURE-URL                   AZURE-ID  POOL   AZURE    JOB                           SINCE                 OUTLOOK
    linux-h1-1   h1 (this host)  fleet       https://dev.azure.com/acme  1         linux  offline  -                             [time]  swept in 4m
    linux-h2-11  h2              fleet       https://dev.azure.com/acme  11        linux  offline  -                             [time]  another host's: can be adopted
    linux-h2-12  h2              fleet       https://dev.azure.com/acme  12        linux  offline  -                             [time]  another host's: can be adopted
    linux-h3-21  h3              fleet       https://dev.azure.com/acme  21        linux  online   webshop-ci #20261123.7 Build  -                     another host's, which lives
    ");
    assert_snapshot!(iapctl(&fake, "ghosts ls -o name"), @"
    linux-h1-1
    linux-h2-11
    linux-h2-12
    linux-h3-21
    ");
}

#[test]
fn what_may_be_missing_is_told_beside_the_list() {
    let fake = Fake::start(Answers {
        ghosts: ListGhostsResponse {
            ghosts: vec![ghost(1, "h1", "swept in 4m")],
            warnings: vec!["Azure pool fleet was not listed yet".to_owned()],
        },
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "ghosts ls -o json"), @r#"
    {
      "api_version": "iap.v1",
      "ghosts": [
        {
          "name": "linux-h1-1",
          "azure_agent_id": 1,
          "azure_url": "https://dev.azure.com/acme",
          "azure_pool": "fleet",
          "owner": "h1",
          "ours": true,
          "pool": "linux",
          "online": false,
          "job": null,
          "since": "[time]",
          "outlook": "swept in 4m"
        }
      ]
    }
    --- stderr
    note: some may be missing: Azure pool fleet was not listed yet
    "#);
}

#[test]
fn an_adoption_removes_what_it_has_shown_and_tells_how_far_it_is() {
    let fake = adopting(vec![half(), done()]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --pool linux --yes"), @"
    removed: 2/2
    --- stderr
    note: removed: 1/2; linux-h2-12: Azure says the agent is busy
    ");
    assert_snapshot!(fake.calls(), @r#"AdoptGhostsRequest { owner: "h2", pool: "linux", only: [GhostKey { azure_url: "https://dev.azure.com/acme", azure_pool: "fleet", azure_agent_id: 11 }, GhostKey { azure_url: "https://dev.azure.com/acme", azure_pool: "fleet", azure_agent_id: 12 }], dry_run: false }"#);
    let fake = adopting(vec![half(), done()]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes -o json --progress json"), @r#"
    {
      "api_version": "iap.v1",
      "owner": "h2",
      "state": "done",
      "removed": 2,
      "total": 2,
      "ghosts": [
        {
          "name": "linux-h2-11",
          "azure_pool": "fleet",
          "azure_agent_id": 11,
          "state": "removed",
          "detail": null
        },
        {
          "name": "linux-h2-12",
          "azure_pool": "fleet",
          "azure_agent_id": 12,
          "state": "removed",
          "detail": null
        }
      ],
      "message": null
    }
    --- stderr
    {"ts":"[time]","state":"waiting","detail":"removed: 1/2; linux-h2-12: Azure says the agent is busy"}
    "#);
}

#[test]
fn what_had_gone_before_it_began_is_removed() {
    let one = answer(AdoptionState::Done, &[(12, REMOVED, "")]);
    let fake = adopting(vec![Beat::Say(one)]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes -o name"), @"
    linux-h2-11
    linux-h2-12
    ");
}

#[test]
fn a_dry_run_of_an_adoption_changes_nothing() {
    let fake = adopting(vec![]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --dry-run"), @"
    AGENT        OWNER  AZURE-POOL  POOL   AZURE    JOB  SINCE  OUTLOOK
    linux-h2-11  h2     fleet       linux  offline  -    2h05m  another host's: can be adopted
    linux-h2-12  h2     fleet       linux  offline  -    2h05m  another host's: can be adopted
    --- stderr
    note: a dry run: nothing was done; 2 registrations would go
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn the_owner_is_typed_on_a_terminal() {
    let fake = adopting(vec![done()]);
    let screen = typed(&fake, "ghosts adopt --owner h2", "h2");
    assert!(screen.contains("linux-h2-11"), "{screen}");
    let question = "Type h2 to say that its host is gone for good: ";
    assert!(screen.contains(question), "{screen}");
    assert!(screen.contains("removed: 2/2"), "{screen}");
    let fake = adopting(vec![done()]);
    let screen = typed(&fake, "ghosts adopt --owner h2", "y");
    assert!(
        screen.contains("not confirmed, nothing was done"),
        "{screen}"
    );
    assert!(screen.contains("exit 2"), "{screen}");
    assert_eq!(fake.calls(), "");
}

#[test]
fn without_a_terminal_an_adoption_needs_yes() {
    let fake = adopting(vec![done()]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2"), @"
    --- stderr
    AGENT        OWNER  AZURE-POOL  POOL   AZURE    JOB  SINCE  OUTLOOK
    linux-h2-11  h2     fleet       linux  offline  -    2h05m  another host's: can be adopted
    linux-h2-12  h2     fleet       linux  offline  -    2h05m  another host's: can be adopted
    error: nothing was done: nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn a_refusal_is_told_in_the_daemons_words() {
    let refused = Status::failed_precondition("owner h2 lives: an agent is online: linux-h2-11");
    let fake = Fake::start(Answers {
        adoption_plan: vec![vec![Beat::Fail(refused)]],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes"), @"
    --- stderr
    error: owner h2 lives: an agent is online: linux-h2-11
    --- exit 5
    ");
}

#[test]
fn an_adoption_that_ends_early_says_what_is_left() {
    let mut early = answer(
        AdoptionState::EndedEarly,
        &[(11, REMOVED, ""), (12, AdoptedGhostState::Kept, "")],
    );
    early.message = "owner h2 lives: agent linux-h2-13 is online or has a job".to_owned();
    let fake = adopting(vec![half(), Beat::Say(early)]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes"), @"
    removed: 1/2
    --- stderr
    note: removed: 1/2; linux-h2-12: Azure says the agent is busy
    error: owner h2 lives: agent linux-h2-13 is online or has a job
    hint: not removed: linux-h2-12
    hint: look: iapctl ghosts ls
    --- exit 1
    ");
}

#[test]
fn a_daemon_that_goes_away_ends_an_adoption() {
    let fake = adopting(vec![half(), Beat::Fail(stopping())]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes"), @"
    --- stderr
    note: removed: 1/2; linux-h2-12: Azure says the agent is busy
    error: the daemon went away while registrations of owner h2 were removed; removed: 1/2 by then
    hint: not removed: linux-h2-12
    hint: a restart of iapd ends it: look with iapctl ghosts ls, then type it again
    --- exit 1
    ");
}

#[test]
fn an_adoption_goes_on_when_nobody_waits() {
    let fake = adopting(vec![half(), Beat::Hang]);
    assert_snapshot!(iapctl(&fake, "ghosts adopt --owner h2 --yes --timeout 1s"), @"
    --- stderr
    note: removed: 1/2; linux-h2-12: Azure says the agent is busy
    error: removed: 1/2; linux-h2-12: Azure says the agent is busy
    hint: the removal goes on: iapctl ghosts ls
    --- exit 3
    ");
    let fake = adopting(vec![half(), Beat::Hang]);
    assert_snapshot!(interrupted(&fake, "ghosts adopt --owner h2 --yes", "removed: 1/2"), @"
    --- stderr
    note: removed: 1/2; linux-h2-12: Azure says the agent is busy
    note: the removal goes on: iapctl ghosts ls
    --- exit 130
    ");
}
