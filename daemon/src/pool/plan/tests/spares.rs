//! Spares: made after the agents, invisible, promoted into empty slots, gone when not wanted.

use super::*;

/// Longer than a guest takes to boot or to vanish.
const LASTS: u64 = 15;

fn promote(name: &str) -> Action {
    Action::Promote {
        name: name.into(),
        image: IMAGE.into(),
    }
}

fn remove(name: &str, reason: ReapReason) -> Action {
    Action::Remove {
        name: name.into(),
        azure_agent_id: None,
        reason,
        proof: Proof::None,
    }
}

/// A pool with an idle agent and a spare, which has lasted.
fn world() -> World {
    let mut world = World::new(1);
    world.spares = 1;
    world.agent("a", 1, false);
    world.spare("s");
    world.step();
    world.wait(LASTS);
    world
}

#[test]
fn a_spare_is_made_when_every_slot_is_filled_or_being_filled_and_one_at_a_time() {
    let mut world = World::new(2);
    world.spares = 2;
    let plan = world.step();
    assert_eq!((plan.launch, plan.spare), (2, true));
    world
        .in_flight
        .begin("new", Doing::Launch, Some(Turn::default()), world.now);
    world.launches = Allowance::Nothing;
    assert_eq!(world.step().launch, 0);
    assert!(!world.step().spare, "a slot is empty");
    world.launches = Allowance::All;
    world.agent("a", 1, false);
    assert!(world.step().spare);
    world
        .in_flight
        .begin("one", Doing::Spare, Some(Turn::default()), world.now);
    assert_eq!(world.step(), nothing(), "one is being made");
}

#[test]
fn no_spare_is_made_without_image_or_azure_or_leave_of_the_breaker() {
    let mut world = World::new(1);
    world.spares = 1;
    world.agent("a", 1, false);
    world.image = None;
    assert_eq!(world.step(), nothing());
    world.image = Some(IMAGE);
    world.azure_usable = false;
    assert_eq!(world.step(), nothing());
    world.azure_usable = true;
    world.launches = Allowance::Nothing;
    assert_eq!(world.step(), nothing());
    world.launches = Allowance::One;
    assert!(world.step().spare);
}

#[test]
fn after_a_failure_the_next_spare_is_made_when_the_one_before_has_lasted() {
    let mut world = World::new(1);
    world.spares = 2;
    world.agent("a", 1, false);
    world.launches = Allowance::One;
    world.spare("s");
    assert!(!world.step().spare);
    world.wait(LASTS);
    assert!(world.step().spare);
}

#[test]
fn a_pool_with_its_spares_is_left_alone_and_is_settled_when_they_have_lasted() {
    let mut world = World::new(1);
    world.spares = 1;
    world.agent("a", 1, false);
    let is_settled =
        |world: &World| is_settled(&world.situation(), &world.ledger, &world.in_flight);
    world.look();
    assert!(!is_settled(&world), "the spare may fail");
    world.spare("s");
    assert_eq!(world.step(), nothing());
    assert!(!is_settled(&world), "it may vanish");
    assert_eq!(world.watch(LASTS), nothing());
    assert!(is_settled(&world));
}

#[test]
fn an_empty_slot_is_filled_with_the_oldest_spare_and_the_rest_launched() {
    let mut world = World::new(3);
    world.spares = 2;
    world.spare("z-old");
    world.step();
    world.wait(10);
    world.spare("a-young");
    let plan = world.step();
    assert_eq!(plan.actions, [promote("z-old"), promote("a-young")]);
    assert_eq!((plan.launch, plan.spare), (1, true));
}

#[test]
fn the_doorbell_makes_an_agent_of_a_spare_while_the_old_one_is_still_finishing() {
    let mut world = world();
    world.instances.get_mut("a").unwrap().status = Status::Ready;
    let plan = world.step();
    assert_eq!(plan.actions, [go("a", false), promote("s")]);
    assert_eq!((plan.launch, plan.spare), (0, true));
}

#[test]
fn a_spare_is_promoted_without_an_image_but_not_without_azure() {
    let mut world = world();
    world.wanted = 2;
    world.azure_usable = false;
    assert_eq!(world.step(), nothing());
    world.azure_usable = true;
    world.image = None;
    assert_eq!(world.step().actions, [promote("s")]);
}

#[test]
fn a_spare_whose_creation_may_not_have_ended_is_neither_promoted_nor_made_again() {
    let mut world = world();
    world.wanted = 2;
    world.look();
    world.ledger.entry("s", world.now).settled = false;
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    assert_eq!((plan.launch, plan.spare), (1, false));
}

#[test]
fn one_that_failed_to_become_an_agent_waits_and_another_is_launched() {
    let mut world = world();
    world.wanted = 2;
    world.look();
    let now = world.now;
    world.ledger.entry("s", now).failed("no".into(), now);
    let plan = world.plan();
    assert_eq!((plan.launch, plan.spare), (1, false), "{plan:?}");
    assert_eq!(plan.actions, []);
}

#[test]
fn a_half_promoted_spare_is_an_agent_and_goes_on() {
    let mut world = World::new(1);
    world.spares = 1;
    world.spare("s");
    world.registration("s", 7, false, false);
    let plan = world.step();
    assert_eq!(plan.actions, [Action::Adopt { name: "s".into() }]);
    assert_eq!((plan.launch, plan.spare), (0, true));
    world.paused = true;
    let Some(Action::Remove { azure_agent_id, .. }) = world.step().actions.pop() else {
        panic!("it is not wanted any more");
    };
    assert_eq!(azure_agent_id, Some(7));
}

#[test]
fn spares_go_when_the_pool_is_paused_removed_or_empty_and_when_there_are_too_many() {
    for change in [
        |world: &mut World| world.paused = true,
        |world: &mut World| world.removed = true,
        |world: &mut World| world.wanted = 0,
        |world: &mut World| world.spares = 0,
    ] {
        let mut world = world();
        change(&mut world);
        let plan = world.step();
        assert!(plan.actions.contains(&remove("s", ReapReason::Surplus)));
        assert!(!plan.spare);
    }
    let mut world = world();
    world.spare("younger");
    assert_eq!(
        world.step().actions,
        [remove("younger", ReapReason::Surplus)]
    );
}

#[test]
fn a_spare_that_waits_for_its_turn_is_called_off_when_it_is_not_wanted() {
    let mut world = World::new(1);
    world.spares = 1;
    world.agent("a", 1, false);
    world
        .in_flight
        .begin("s", Doing::Spare, Some(Turn::default()), world.now);
    let called_off = [Action::CancelLaunch { name: "s".into() }];
    assert_eq!(world.step(), nothing());
    world.launches = Allowance::Nothing;
    assert_eq!(world.step().actions, called_off);
    world.launches = Allowance::All;
    world.spares = 0;
    assert_eq!(world.step().actions, called_off);
}

#[test]
fn an_outdated_spare_is_removed_and_never_promoted() {
    let mut world = world();
    world.wanted = 2;
    world.image = Some("newer");
    let plan = world.step();
    assert!(plan.actions.contains(&remove("s", ReapReason::Outdated)));
    assert_eq!((plan.launch, plan.spare), (1, true));
}

#[test]
fn old_spares_are_made_anew_one_at_a_time_and_only_in_a_full_pool() {
    let mut world = World::new(1);
    world.spares = 2;
    world.agent("a", 1, false);
    world.spare("s1");
    world.step();
    world.wait(60);
    world.spare("s2");
    assert_eq!(world.watch(3500), nothing());
    world.wait(100);
    assert_eq!(world.step().actions, [remove("s1", ReapReason::Aged)]);
    world.launches = Allowance::Nothing;
    assert_eq!(world.step(), nothing(), "another may not come up");
    world.launches = Allowance::All;
    world.instances.remove("s1");
    let plan = world.step();
    assert_eq!((plan.actions, plan.spare), (vec![], true));
}

#[test]
fn operators_and_failures_take_a_spare_away() {
    let mut drained = world();
    drained.look();
    drained.ledger.entry("s", drained.now).wish = Drain::Finish;
    assert_eq!(drained.plan().actions, [remove("s", ReapReason::Requested)]);
    assert!(drained.plan().spare, "another takes its place");
    let mut recycled = world();
    recycled.look();
    recycled.ledger.entry("s", recycled.now).wish = Drain::Recycle;
    assert_eq!(recycled.plan().actions, [remove("s", ReapReason::Outdated)]);
    let mut broken = world();
    broken.look();
    broken.ledger.entry("s", broken.now).launch_failed = true;
    assert_eq!(
        broken.plan().actions,
        [remove("s", ReapReason::LaunchFailed)]
    );
}

#[test]
fn a_spare_that_does_not_run_is_made_again_and_one_that_stopped_is_removed() {
    let mut frozen = world();
    frozen.instances.get_mut("s").unwrap().status = Status::Frozen;
    let plan = frozen.step();
    assert_eq!((plan.actions, plan.spare), (vec![], true));
    let mut stopped = world();
    stopped.instances.get_mut("s").unwrap().status = Status::Stopped;
    assert_eq!(stopped.step().actions, []);
    let plan = stopped.watch(10);
    assert_eq!(plan.actions, [remove("s", ReapReason::Stopped)]);
    assert!(plan.spare);
}
