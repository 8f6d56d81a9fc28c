//! What operators want for a while: pauses, deadlines, recycling.

use std::cmp::Reverse;

use super::model::Model;
use super::*;

fn by(second: i64) -> Drain {
    Drain::FinishBy(Reverse(second))
}

fn pause_of(plan: &Plan) -> Vec<&str> {
    let paused = |action: &&Action| {
        let reason = DrainReason::Paused;
        matches!(action, Action::NoteDrain { drain: Drain::Finish, reason: r, .. } if *r == reason)
    };
    plan.actions
        .iter()
        .filter(paused)
        .map(Action::name)
        .collect()
}

#[test]
fn a_paused_pool_starts_none_lets_idle_ones_leave_and_busy_ones_finish() {
    let mut world = World::new(3);
    world.paused = true;
    world.agent("busy", 1, true);
    world.agent("idle", 2, false);
    world
        .in_flight
        .begin("new", Doing::Launch, Some(Turn::default()), world.now);
    let plan = world.step();
    assert_eq!(plan.launch, 0);
    assert_eq!(pause_of(&plan), ["idle"]);
    assert_eq!(
        plan.actions[0],
        Action::CancelLaunch { name: "new".into() },
        "{plan:?}"
    );
    assert_eq!(plan.actions.len(), 2);
}

#[test]
fn a_booted_guest_without_agent_goes_when_its_pool_pauses() {
    let mut world = World::new(1);
    world.paused = true;
    world.azure_usable = false;
    world.instance("spare", Status::Running, None);
    let plan = world.step();
    assert!(
        matches!(
            plan.actions[..],
            [Action::Remove {
                reason: ReapReason::Surplus,
                proof: Proof::None,
                ..
            }]
        ),
        "{plan:?}"
    );
}

#[test]
fn a_pause_that_ends_refills_the_pool_and_gives_nobody_back() {
    let mut model = Model::new(2);
    assert!(model.settle());
    let before: Vec<String> = model.world.instances.keys().cloned().collect();
    model.world.paused = true;
    assert!(model.settle());
    assert!(model.world.instances.is_empty() && model.world.registrations.is_empty());
    model.world.paused = false;
    assert!(model.settle());
    assert_eq!(model.world.instances.len(), 2);
    assert!(
        before
            .iter()
            .all(|name| !model.world.instances.contains_key(name))
    );
}

#[test]
fn a_deadline_kills_a_busy_agent_when_it_has_passed_and_not_before() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.instances.get_mut("a").unwrap().drain = by(100);
    world.registrations.get_mut("a").unwrap().enabled = false;
    world.wait(99);
    assert_eq!(world.step(), nothing());
    world.wait(1);
    let plan = world.step();
    assert!(
        matches!(
            plan.actions[..],
            [Action::Remove {
                reason: ReapReason::Deadline,
                proof: Proof::None,
                ..
            }]
        ),
        "{plan:?}"
    );
}

#[test]
fn a_deadline_may_be_brought_forward_and_is_noted() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.instances.get_mut("a").unwrap().drain = by(500);
    world.look();
    world.ledger.entry("a", world.now).wish = by(200);
    let note = Action::NoteDrain {
        name: "a".into(),
        drain: by(200),
        reason: DrainReason::Requested,
    };
    assert_eq!(world.plan().actions, [note]);
    world.look();
    world.ledger.entry("a", world.now).wish = by(900);
    let drain = world.ledger.entry("a", world.now).drain();
    assert_eq!(drain, by(500), "the more urgent one stands");
}

#[test]
fn recycled_agents_are_replaced_a_few_at_a_time_and_busy_ones_are_left() {
    let mut world = World::new(8);
    for number in 0..8i64 {
        let name = format!("a{number}");
        world.agent(&name, number + 1, number < 3);
        world.instances.get_mut(&name).unwrap().drain = Drain::Recycle;
    }
    let plan = world.step();
    assert_eq!(plan.actions.len(), 2, "{plan:?}");
    for action in &plan.actions {
        assert!(matches!(
            action,
            Action::NoteDrain {
                drain: Drain::Finish,
                reason: DrainReason::Requested,
                ..
            }
        ));
        assert!(world.registrations[action.name()].job.is_none());
    }
}

#[test]
fn a_wish_to_be_recycled_is_noted_first() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    world.look();
    world.ledger.entry("a", world.now).wish = Drain::Recycle;
    let note = Action::NoteDrain {
        name: "a".into(),
        drain: Drain::Recycle,
        reason: DrainReason::Requested,
    };
    assert_eq!(world.plan().actions, [note]);
}
