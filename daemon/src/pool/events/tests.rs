use std::sync::Arc;

use crate::azure::JobRequest;
use crate::pool::azure_link::CredentialState;
use crate::pool::ghosts::{AdoptionEnd, AdoptionStatus, Target, TargetState};
use crate::pool::spec_hash;
use crate::pool::status::{AzureStatus, ImageStatus, PoolStatus};

use super::*;

fn pool(agents: Vec<AgentStatus>) -> PoolStatus {
    PoolStatus {
        wanted: 0,
        is_paused: false,
        intents_revision: 0,
        wait_reasons: Vec::new(),
        was_seen: true,
        spec: Arc::new(spec_hash::tests::spec()),
        spec_hash: String::new(),
        removed: false,
        agents,
        foreign: Vec::new(),
        problems: Vec::new(),
        instances_known: true,
        looks_cloned: false,
        incus_reachable: true,
        image: ImageStatus {
            fingerprint: "abc".into(),
            ..ImageStatus::default()
        },
        no_room: None,
        members: Vec::new(),
        launches: super::super::breaker::BreakerStatus::default(),
        azure: AzureStatus {
            usable: true,
            listed_at: Some(jiff::Timestamp::UNIX_EPOCH),
            ..AzureStatus::default()
        },
        ghosts: crate::pool::ghosts::Seen::default(),
        adoption: None,
        last_pass: None,
    }
}

fn agent(state: AgentState) -> AgentStatus {
    AgentStatus {
        leave_by: None,
        name: "a".into(),
        state,
        detail: "offline".into(),
        draining: false,
        created_at: None,
        azure_agent_id: None,
        job: Some(JobRequest {
            pipeline: "ci".into(),
            job_name: "Build".into(),
            ..JobRequest::default()
        }),
        image: String::new(),
        outdated: false,
        instance_status: String::new(),
        online: None,
        enabled: true,
        disabled_by_others: false,
        keep: None,
        location: String::new(),
    }
}

fn told(old: &PoolStatus, new: &PoolStatus) -> Vec<(&'static str, String)> {
    let events = between(old, new).into_iter();
    events.map(|e| (e.kind.as_str(), e.message)).collect()
}

#[test]
fn each_step_of_an_agents_life_is_told_once() {
    use AgentState::{Busy, Creating, Idle, Registering, Unknown};
    let states = [Creating, Creating, Registering, Idle, Busy, Busy, Unknown];
    let mut before = pool(Vec::new());
    let mut all = Vec::new();
    for state in states {
        let after = pool(vec![agent(state)]);
        all.extend(told(&before, &after));
        before = after;
    }
    let words: Vec<(&str, &str)> = all.iter().map(|(kind, text)| (*kind, &**text)).collect();
    assert_eq!(
        words,
        [
            ("agent-creating", ""),
            ("agent-idle", ""),
            ("agent-busy", "ci Build"),
            ("agent-troubled", "offline"),
        ]
    );
}

#[test]
fn a_wish_to_go_is_told() {
    let before = pool(vec![agent(AgentState::Busy)]);
    let mut after = before.clone();
    after.agents[0].draining = true;
    assert_eq!(told(&before, &after), [("agent-draining", String::new())]);
    assert!(told(&after, &after).is_empty());
    after.agents[0].disabled_by_others = true;
    let why = "offline".to_owned();
    assert_eq!(told(&before, &after), [("agent-draining", why)]);
}

#[test]
fn troubles_of_the_pool_are_told_when_they_begin_and_when_they_end() {
    let good = pool(Vec::new());
    let mut bad = good.clone();
    bad.launches.open = true;
    bad.incus_reachable = false;
    bad.azure.usable = false;
    bad.azure.credential = CredentialState::Rejected;
    bad.image.fingerprint = String::new();
    bad.removed = true;
    bad.is_paused = true;
    let kinds = |old, new| -> Vec<&str> { told(old, new).into_iter().map(|t| t.0).collect() };
    assert_eq!(
        kinds(&good, &bad),
        [
            "pool-removed",
            "pool-paused",
            "launches-failing",
            "incus-lost",
            "azure-lost",
            "credential-rejected",
            "image-missing"
        ]
    );
    assert_eq!(
        kinds(&bad, &good),
        [
            "pool-resumed",
            "launches-recovered",
            "incus-recovered",
            "azure-recovered"
        ]
    );
    let mut moved = good.clone();
    moved.image.fingerprint = "def".into();
    assert_eq!(kinds(&good, &moved), ["image-moved"]);
}

#[test]
fn azure_is_back_also_by_new_credentials_but_not_for_the_first_time() {
    let good = pool(Vec::new());
    let mut bad = good.clone();
    bad.azure.usable = false;
    // Of the new way there nothing was listed yet.
    bad.azure.listed_at = None;
    assert_eq!(told(&bad, &good), [("azure-recovered", String::new())]);
    bad.was_seen = false;
    assert!(told(&bad, &good).is_empty());
}

#[test]
fn an_adoption_is_told_from_its_beginning_to_its_end() {
    let target = |id: i64, state| Target {
        id,
        name: format!("a{id}"),
        state,
        detail: String::new(),
    };
    let with = |first, second, end| {
        let mut pool = pool(Vec::new());
        pool.adoption = Some(AdoptionStatus {
            token: 7,
            owner: "gone".into(),
            targets: vec![target(1, first), target(2, second)],
            end,
        });
        pool
    };
    use TargetState::{Gone, Stays, There};
    let before = pool(Vec::new());
    let begun = with(There, There, None);
    let half = with(Gone, There, None);
    let done = with(Gone, Gone, Some(AdoptionEnd::Done));
    let early = with(Gone, Stays, Some(AdoptionEnd::Lives("a2".into())));
    let text = |kind, message: &str| (kind, message.to_owned());
    assert_eq!(
        told(&before, &begun),
        [text(
            "ghosts-adopted",
            "owner gone: 2 registrations are to go"
        )]
    );
    assert_eq!(told(&begun, &half), [text("ghost-removed", "owner gone")]);
    assert_eq!(
        told(&half, &done),
        [
            text("ghost-removed", "owner gone"),
            text("adoption-ended", "owner gone; removed 2/2")
        ]
    );
    assert_eq!(
        told(&half, &early),
        [text(
            "adoption-ended",
            "owner gone lives: agent a2 is online or has a job; removed 1/2"
        )]
    );
    assert!(told(&done, &done).is_empty());
    let again = told(&done, &{
        let mut next = begun.clone();
        next.adoption.as_mut().unwrap().token = 8;
        next
    });
    assert_eq!(again.len(), 1, "another one: {again:?}");
}

#[test]
fn the_types_that_can_be_asked_for_are_those_that_are_told() {
    assert_eq!(
        EventKind::ALL.map(EventKind::as_str),
        iap_common::events::TYPES
    );
}
