use std::sync::Arc;

use super::super::observe::RegistrationList;
use super::*;

fn registration(online: bool) -> RegistrationFacts {
    RegistrationFacts {
        id: 3,
        enabled: true,
        online,
        job: None,
        owner: None,
        pool: None,
        project: None,
    }
}

fn instance(status: incus::Status) -> InstanceFacts {
    InstanceFacts {
        name: "a".into(),
        status,
        status_text: String::new(),
        spec: String::new(),
        azure_agent_id: Some(3),
        spare: false,
        drain: Drain::No,
        image: String::new(),
        created_at: None,
        keep: None,
        location: String::new(),
    }
}

fn seen(began: Instant, agents: &[(&str, bool)], gaps: u64) -> Observation {
    let agents = agents
        .iter()
        .map(|(name, online)| ((*name).to_owned(), registration(*online)))
        .collect();
    Observation {
        instances: Some(BTreeMap::new()),
        registrations: Some(Arc::new(RegistrationList { began, agents })),
        azure_gaps: gaps,
    }
}

#[tokio::test(start_paused = true)]
async fn being_offline_counts_from_our_own_first_sight_of_it() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    ledger.take_in(&seen(start, &[("a", false)], 0), start, |_| false);
    let later = start + Duration::from_secs(30);
    ledger.take_in(&seen(later, &[("a", false)], 0), later, |_| false);
    assert_eq!(ledger.get("a").unwrap().dead_since, Some(start));
    let online = later + Duration::from_secs(30);
    ledger.take_in(&seen(online, &[("a", true)], 0), online, |_| false);
    assert_eq!(ledger.get("a").unwrap().dead_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_list_in_between_begins_the_count_anew() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    ledger.take_in(&seen(start, &[("a", false)], 0), start, |_| false);
    let later = start + Duration::from_secs(30);
    ledger.take_in(&seen(later, &[("a", false)], 1), later, |_| false);
    assert_eq!(ledger.get("a").unwrap().dead_since, Some(later));
}

#[tokio::test(start_paused = true)]
async fn the_same_list_is_taken_in_once() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    for _ in 0..5 {
        ledger.take_in(&seen(start, &[("a", false)], 0), start, |_| false);
    }
    assert_eq!(ledger.get("a").unwrap().lists_since_registered, 1);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_look_at_incus_forgets_nothing() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    ledger.take_in(&seen(start, &[("a", true)], 0), start, |_| false);
    let unknown = Observation {
        instances: None,
        registrations: None,
        azure_gaps: 0,
    };
    assert!(ledger.take_in(&unknown, start, |_| false).is_empty());
    assert!(ledger.get("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn one_ring_of_the_doorbell_stands_for_the_life_of_an_instance() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    let mut look = |status, after: u64| {
        let now = start + Duration::from_secs(after);
        let facts = instance(status);
        let seen = Observation {
            instances: Some(BTreeMap::from([("a".to_owned(), facts)])),
            registrations: None,
            azure_gaps: 0,
        };
        ledger.take_in(&seen, now, |_| false);
        ledger.get("a").unwrap().ready_since
    };
    use incus::Status::{Ready, Running, Stopped};
    assert_eq!(look(Running, 0), None);
    let rung = look(Ready, 1);
    assert_eq!(rung, Some(start + Duration::from_secs(1)));
    // As Incus was seen to tell it.
    for status in [Stopped, Ready, Running] {
        assert_eq!(look(status, 2), rung, "{status:?}");
    }
    // A job that rings it again and again gains no second window.
    assert_eq!(look(Running, 30), rung);
    assert_eq!(look(Ready, 31), rung);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_goes_after_its_registration_is_there_until_its_end_was_told() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    let entry = ledger.entry("a", start);
    entry.instance = Some(instance(incus::Status::Running));
    entry.azure_agent_id = Some(3);
    entry.deregistered(start);
    let later = start + Duration::from_secs(30);
    let gone = ledger.take_in(&seen(later, &[], 0), later, |_| false);
    assert_eq!(gone, ["a"]);
    assert!(ledger.get("a").is_some());
    ledger.entry("a", later).end_told = true;
    ledger.take_in(&seen(later, &[], 0), later, |_| false);
    assert!(ledger.get("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_goes_unasked_is_remembered_until_its_end_was_told() {
    let mut ledger = Ledger::default();
    let start = Instant::now();
    ledger.take_in(&seen(start, &[("a", false)], 0), start, |_| false);
    for after in [10, 20] {
        let later = start + Duration::from_secs(after);
        ledger.take_in(&seen(later, &[], 0), later, |_| false);
        assert!(ledger.get("a").is_some_and(Entry::is_untold));
    }
    ledger.entry("a", start).end_told = true;
    let later = start + Duration::from_secs(30);
    ledger.take_in(&seen(later, &[], 0), later, |_| false);
    assert!(ledger.get("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_stays_ends_a_removal_and_no_drain_by_force() {
    let mut ledger = Ledger::default();
    for (wish, left) in [(Drain::No, None), (Drain::Force, Some(true))] {
        let entry = ledger.entry("a", Instant::now());
        entry.wish = wish;
        entry.remove_wish = Some(true);
        entry.not_deregistered();
        assert_eq!(entry.remove_wish, left);
    }
}
