//! What is found after the daemon was killed, and what is seen of a machine that powers off.

use super::*;

#[test]
fn a_registered_agent_found_offline_is_looked_at_once_and_then_waited_for() {
    let mut world = World::new(1);
    world.instance("a", Status::Running, Some(1));
    world.registration("a", 1, false, false);
    let plan = world.step();
    assert!(
        matches!(
            plan.actions[..],
            [Action::Remove {
                reason: ReapReason::LaunchFailed,
                proof: Proof::NotStarted,
                ..
            }]
        ),
        "{plan:?}"
    );
    assert_eq!(plan.launch, 0, "it holds its slot until that is sure");
    world.ledger.entry("a", world.now).doubted = true;
    assert_eq!(world.step(), nothing());
}

#[test]
fn an_agent_of_this_life_or_one_that_is_online_is_not_looked_at() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    world.instance("b", Status::Running, Some(2));
    world.registration("b", 2, false, false);
    world.look();
    world.ledger.entry("b", world.now).launched_at = Some(world.now);
    assert_eq!(world.step(), nothing());
}

#[test]
fn an_instance_under_somebody_elses_operation_holds_its_slot_and_drives_nobody_out() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    world.agent("b", 2, false);
    world.look();
    world.instance("c", Status::Running, None);
    world.look();
    world.ledger.entry("c", world.now).settled = false;
    assert_eq!(world.plan(), nothing());
    world.instances.remove("b");
    world.registrations.remove("b");
    world.look();
    world.ledger.entry("c", world.now).settled = false;
    assert_eq!(world.plan().launch, 0);
}

#[test]
fn an_instance_that_an_earlier_life_has_not_finished_creating_holds_its_slot() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    // So it is shown until it has started.
    world.instance("b", Status::Stopped, None);
    world.look();
    world.ledger.entry("b", world.now).settled = false;
    assert_eq!(world.plan(), nothing());
}

#[test]
fn a_machine_that_powers_off_and_is_not_shown_as_ready_any_more_takes_no_slot() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.step();
    world.instances.get_mut("a").unwrap().status = Status::Ready;
    assert_eq!(world.step().launch, 1);
    world.ledger.entry("a", world.now).answered = true;
    world.agent("b", 2, false);
    world.instances.get_mut("a").unwrap().status = Status::Running;
    assert_eq!(world.step(), nothing());
}
