//! Registrations whose instance is gone, or was never there.

use super::*;

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
