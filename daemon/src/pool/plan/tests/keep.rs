//! What stays for debugging, and for how long.

use std::time::Duration;

use super::model::Model;
use super::*;
use crate::pool::spec::KeepWhen;

pub(super) fn policy() -> KeepSpec {
    KeepSpec {
        when: KeepWhen::ALL.to_vec(),
        ttl: Duration::from_secs(100),
        max: 1,
    }
}

/// An operator's wish.
pub(super) fn asked(until: i64) -> Keep {
    Keep {
        until: Timestamp::from_second(until).unwrap(),
        reason: "look".into(),
        by: "ana".into(),
        since: None,
    }
}

fn keeping() -> World {
    let mut world = World::new(1);
    world.keep = Some(policy());
    world
}

/// An agent whose job failed, and that has told so.
fn failed(world: &mut World, name: &str, id: i64) {
    world.agent(name, id, true);
    world.look();
    world.instances.get_mut(name).unwrap().status = Status::Ready;
    world.look();
    let entry = world.ledger.get_mut(name).unwrap();
    entry.heard = true;
    entry.past.job = Some(JobRequest {
        result: Some("failed".into()),
        ..JobRequest::default()
    });
}

/// One that is kept already, for 100 seconds.
fn kept(world: &mut World, name: &str, id: i64, by: &str) {
    world.instance(name, Status::Running, Some(id)).keep = Some(Keep {
        by: by.into(),
        since: Some(world.wall()),
        ..asked(100)
    });
    world.look();
    let now = world.now;
    world.ledger.entry(name, now).deregistered(now);
}

fn stays(plan: &Plan) -> Vec<(&str, &Keep, Staying)> {
    let keeps = plan.actions.iter().filter_map(|action| match action {
        Action::Keep {
            name,
            keep,
            staying,
            ..
        } => Some((name.as_str(), keep, *staying)),
        _ => None,
    });
    keeps.collect()
}

#[test]
fn how_a_job_ended_is_asked_only_where_failed_ones_are_kept() {
    for (policy, action) in [
        (None, go("a", false)),
        (
            Some(policy()),
            Action::Hear {
                name: "a".into(),
                azure_agent_id: 2,
            },
        ),
    ] {
        let mut world = World::new(1);
        world.keep = policy;
        world.agent("a", 2, true);
        world.look();
        world.instances.get_mut("a").unwrap().status = Status::Ready;
        assert_eq!(world.step().actions, [action]);
    }
}

#[test]
fn an_agent_whose_job_failed_stays_and_is_replaced_and_goes_when_its_time_is_over() {
    let mut world = keeping();
    failed(&mut world, "a", 2);
    let wall = world.wall();
    let plan = world.plan();
    let [(name, keep, staying)] = stays(&plan)[..] else {
        panic!("{plan:?}");
    };
    assert_eq!((name, staying), ("a", Staying::Answered { heard: true }));
    assert_eq!(
        keep.until,
        Timestamp::from_second(wall.as_second() + 100).unwrap()
    );
    assert_eq!(
        (keep.reason.as_str(), keep.since),
        ("job-failed", Some(wall))
    );
    assert_eq!(plan.launch, 1, "it is replaced at once");

    let mut model = Model::new(1);
    model.world.keep = Some(policy());
    failed(&mut model.world, "a", 2);
    model.step();
    assert!(model.world.instances["a"].is_kept());
    model.world.wait(90);
    model.step();
    assert!(!model.world.registrations.contains_key("a"));
    assert!(model.world.instances.contains_key("a"));
    model.world.wait(20);
    let plan = model.step();
    assert!(
        matches!(
            plan.actions[..],
            [Action::Remove {
                reason: ReapReason::KeepOver,
                proof: Proof::None,
                ..
            }]
        ),
        "{plan:?}"
    );
    assert_eq!(plan.launch, 0);
}

#[test]
fn a_job_that_did_not_fail_or_of_which_nothing_is_known_keeps_nothing() {
    for result in [Some("succeeded"), Some("canceled"), None] {
        let mut world = keeping();
        failed(&mut world, "a", 2);
        let entry = world.ledger.get_mut("a").unwrap();
        entry.past.job.as_mut().unwrap().result = result.map(str::to_owned);
        assert_eq!(world.plan().actions, [go("a", true)], "{result:?}");
    }
}

#[test]
fn no_more_than_the_most_are_kept_and_those_of_operators_do_not_count() {
    let mut world = keeping();
    world.wanted = 4;
    kept(&mut world, "k", 7, "ana");
    failed(&mut world, "a", 2);
    failed(&mut world, "b", 4);
    let plan = world.plan();
    assert_eq!(stays(&plan).len(), 1);
    let told: Vec<&Action> = plan
        .actions
        .iter()
        .filter(|action| matches!(action, Action::AnswerDoorbell { no_room: true, .. }))
        .collect();
    assert_eq!(told.len(), 1, "{plan:?}");

    let mut world = keeping();
    kept(&mut world, "k", 7, "");
    failed(&mut world, "a", 2);
    assert!(stays(&world.plan()).is_empty());
}

#[test]
fn one_that_never_came_online_stays_after_the_same_proof_as_for_its_removal() {
    let mut world = keeping();
    world.instance("a", Status::Running, Some(2));
    world.registration("a", 2, false, false);
    world.look();
    let now = world.now;
    world.ledger.entry("a", now).launched_at = Some(now);
    world.wait(200);
    world.look();
    let plan = world.step();
    let [(_, keep, staying)] = stays(&plan)[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(keep.reason, "never-online");
    let reason = ReapReason::NeverOnline;
    assert_eq!(staying, Staying::InsteadOf(reason, Proof::AzureAndProbe));
}

#[test]
fn an_operators_wish_is_noted_first_and_its_agent_leaves() {
    let mut model = Model::new(1);
    model.world.agent("a", 1, false);
    model.world.look();
    let now = model.world.now;
    model.world.ledger.entry("a", now).keep_wish = Some(asked(1000));
    let plan = model.step();
    assert_eq!(stays(&plan), [("a", &asked(1000), Staying::Noted)]);
    assert_eq!(model.world.instances["a"].drain, Drain::Finish);
    let plan = model.step();
    assert!(
        matches!(plan.actions[..], [Action::Leave { .. }]),
        "{plan:?}"
    );
    let plan = model.step();
    let [(_, keep, staying)] = stays(&plan)[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(staying, Staying::Answered { heard: false });
    assert!(keep.has_ended());
    model.world.wait(1);
    let plan = model.step();
    assert!(
        matches!(plan.actions[..], [Action::Deregister { .. }]),
        "{plan:?}"
    );
    assert_eq!(model.world.instances.len(), 2, "it was replaced");
}

#[test]
fn a_wish_for_one_that_somebody_froze_is_noted() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.instances.get_mut("a").unwrap().status = Status::Frozen;
    world.look();
    let now = world.now;
    world.ledger.entry("a", now).keep_wish = Some(asked(1000));
    let plan = world.step();
    assert_eq!(stays(&plan), [("a", &asked(1000), Staying::Noted)]);
}

#[test]
fn a_busy_agent_that_is_to_be_kept_is_left_until_its_job_ends() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.registrations.get_mut("a").unwrap().enabled = false;
    let instance = world.instances.get_mut("a").unwrap();
    (instance.keep, instance.drain) = (Some(asked(1000)), Drain::Finish);
    assert_eq!(world.step(), nothing());
    world.wait(2000);
    assert_eq!(world.step(), nothing(), "its time is over, its job is not");
}

#[test]
fn one_that_powered_off_before_it_was_told_to_stay_is_kept_stopped() {
    let mut world = World::new(0);
    world.instance("a", Status::Stopped, Some(1)).keep = Some(asked(1000));
    world.look();
    world.wait(6);
    let plan = world.step();
    let [(_, keep, staying)] = stays(&plan)[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(
        staying,
        Staying::InsteadOf(ReapReason::Stopped, Proof::None)
    );
    assert!(keep.has_ended());
}

#[test]
fn nothing_but_its_time_or_a_person_touches_one_that_is_kept() {
    for status in [
        Status::Running,
        Status::Stopped,
        Status::Frozen,
        Status::Error,
    ] {
        let mut world = World::new(0);
        kept(&mut world, "a", 1, "");
        let instance = world.instances.get_mut("a").unwrap();
        (instance.status, instance.drain) = (status, Drain::Force);
        instance.image = "older".into();
        world.paused = true;
        world.wait(50);
        assert_eq!(world.step(), nothing(), "{status:?}");
        let now = world.now;
        world.ledger.entry("a", now).remove_wish = Some(false);
        assert_eq!(world.plan().actions.len(), 1);
    }
}

#[test]
fn one_whose_registration_is_left_goes_only_when_azure_can_be_asked() {
    let mut world = World::new(0);
    kept(&mut world, "a", 1, "");
    world.ledger.get_mut("a").unwrap().deregistered_at = None;
    world.registration("a", 1, false, true);
    world.wait(200);
    world.azure_usable = false;
    assert_eq!(world.step(), nothing());
    world.azure_usable = true;
    let plan = world.step();
    assert!(
        matches!(
            plan.actions[..],
            [Action::Remove {
                reason: ReapReason::KeepOver,
                proof: Proof::Azure,
                ..
            }]
        ),
        "{plan:?}"
    );
}

#[test]
fn one_that_is_kept_longer_is_noted_and_keeps_the_time_of_its_end() {
    let mut world = World::new(0);
    kept(&mut world, "a", 1, "");
    let since = world.instances["a"].keep.clone().unwrap().since;
    let now = world.now;
    world.ledger.entry("a", now).keep_wish = Some(asked(5000));
    let plan = world.step();
    let longer = Keep {
        since,
        ..asked(5000)
    };
    assert_eq!(stays(&plan), [("a", &longer, Staying::Noted)]);
}
