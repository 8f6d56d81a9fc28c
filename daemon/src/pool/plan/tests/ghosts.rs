//! Registrations whose instance is gone, or was never there.

use super::*;
use crate::pool::ghosts::Ghost;

#[test]
fn the_registration_goes_when_the_instance_is_gone() {
    let mut world = World::new(0);
    world.agent("a", 5, true);
    world.step();
    world.instances.clear();
    let plan = world.step();
    assert_eq!(
        plan.actions,
        [Action::Deregister {
            name: "a".into(),
            azure_agent_id: 5,
            ghost: false,
        }]
    );
}

#[test]
fn a_deleted_registration_is_not_revived_by_an_old_list() {
    let mut world = World::new(0);
    world.agent("a", 5, false);
    world.step();
    world.instances.clear();
    world.step();
    let began = world.now;
    world.wait(1);
    world.ledger.entry("a", world.now).deregistered(world.now);
    let agents = world.registrations.clone();
    let seen = Observation {
        instances: Some(BTreeMap::new()),
        registrations: Some(Arc::new(RegistrationList { began, agents })),
        azure_gaps: 0,
    };
    world.ledger.take_in(&seen, world.now, |_| false);
    assert_eq!(world.plan(), nothing());
    assert!(world.ledger.get("a").is_none_or(Entry::is_gone));
}

#[test]
fn a_ghost_is_swept_after_the_grace_period_only() {
    let mut world = World::new(0);
    world.registration("g", 9, false, false);
    assert_eq!(world.watch(290), nothing());
    let plan = world.watch(20);
    assert_eq!(
        plan.actions,
        [Action::Deregister {
            name: "g".into(),
            azure_agent_id: 9,
            ghost: true,
        }]
    );
}

#[test]
fn a_ghost_with_a_job_is_kept() {
    let mut world = World::new(0);
    world.registration("g", 9, false, true);
    assert_eq!(world.watch(3600), nothing());
}

#[test]
fn nothing_is_swept_while_an_agent_of_ours_is_online_without_an_instance() {
    let mut world = World::new(0);
    world.registration("g", 9, false, false);
    world.registration("clone", 10, true, false);
    assert_eq!(world.watch(3600), nothing());
}

#[test]
fn one_that_an_operator_names_goes_at_once() {
    let mut world = World::new(0);
    world.registration("g", 9, true, false);
    assert_eq!(world.watch(3600), nothing());
    for force in [false, true] {
        world.ledger.get_mut("g").unwrap().remove_wish = Some(force);
        let last_look = Action::Deregister {
            name: "g".into(),
            azure_agent_id: 9,
            ghost: !force,
        };
        assert_eq!(world.step().actions, [last_look]);
    }
}

/// A registration of another owner, seen dead for `seconds`, that an operator has removed now.
fn adopted(world: &mut World, seconds: u64) {
    world.registration("g", 9, false, false);
    let ghost = Ghost {
        name: "g".into(),
        facts: world.registrations["g"].clone(),
        since: None,
    };
    let since = world.now - Duration::from_secs(seconds);
    world.ledger.adopt(&"gone".into(), &ghost, since, world.now);
}

#[test]
fn an_adopted_registration_goes_when_two_lists_since_then_agree() {
    let mut world = World::new(0);
    adopted(&mut world, 300);
    assert_eq!(world.plan(), nothing(), "no list since then");
    world.wait(1);
    assert_eq!(world.step(), nothing(), "one list");
    world.wait(1);
    let plan = world.step();
    assert_eq!(
        plan.actions,
        [Action::Deregister {
            name: "g".into(),
            azure_agent_id: 9,
            ghost: true,
        }]
    );
}

#[test]
fn an_adopted_registration_stays_while_it_is_in_doubt() {
    let mut interrupted = World::new(0);
    adopted(&mut interrupted, 300);
    interrupted.gaps += 1;
    assert_eq!(interrupted.watch(290), nothing(), "judged anew");
    let mut alive = World::new(0);
    adopted(&mut alive, 300);
    alive.registration("g", 9, true, false);
    assert_eq!(alive.watch(3600), nothing());
    let mut unusable = World::new(0);
    adopted(&mut unusable, 300);
    unusable.azure_usable = false;
    assert_eq!(unusable.watch(3600), nothing());
}

#[test]
fn an_adopted_agent_that_is_online_is_no_clone_of_ours() {
    let mut world = World::new(0);
    adopted(&mut world, 300);
    world.registration("g", 9, true, false);
    world.registration("ours", 10, false, false);
    let plan = world.watch(310);
    assert!(!looks_cloned(&world.ledger));
    let swept: Vec<&str> = plan.actions.iter().map(Action::name).collect();
    assert_eq!(swept, ["ours"]);
}

#[test]
fn an_adopted_registration_is_forgotten_but_for_what_is_in_flight() {
    let mut world = World::new(0);
    adopted(&mut world, 300);
    world.ledger.forget_adopted(|name| name == "g");
    assert!(world.ledger.get("g").is_some());
    world.ledger.forget_adopted(|_| false);
    assert!(world.ledger.get("g").is_none());
}

#[test]
fn a_gap_in_azures_lists_begins_the_grace_period_anew() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    world.step();
    world.registration("a", 1, false, false);
    world.watch(290);
    world.gaps += 1;
    assert_eq!(world.watch(290), nothing());
    let plan = world.watch(20);
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::Offline,
            proof: Proof::AzureAndProbe,
            ..
        }]
    ));
}
