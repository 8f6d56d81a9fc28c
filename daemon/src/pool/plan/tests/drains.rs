//! Agents that are asked to go.

use super::*;

#[test]
fn a_draining_agent_is_disabled_first_and_left_while_it_is_busy() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.instances.get_mut("a").unwrap().drain = Drain::Finish;
    let leave = Action::Leave {
        name: "a".into(),
        azure_agent_id: 1,
    };
    assert_eq!(world.step().actions, std::slice::from_ref(&leave));
    world.registrations.get_mut("a").unwrap().enabled = false;
    assert_eq!(world.step(), nothing());
    world.registrations.get_mut("a").unwrap().job = None;
    assert_eq!(world.step().actions, [leave]);
}

#[test]
fn an_agent_that_does_not_end_when_asked_again_and_again_is_removed() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    world.instances.get_mut("a").unwrap().drain = Drain::Finish;
    world.look();
    world.ledger.entry("a", world.now).leaves = 3;
    assert!(matches!(world.step().actions[..], [Action::Leave { .. }]));
    world.ledger.entry("a", world.now).leaves = 4;
    assert!(matches!(
        world.step().actions[..],
        [Action::Remove {
            reason: ReapReason::NotLeaving,
            proof: Proof::Azure,
            ..
        }]
    ));
}

#[test]
fn a_forced_drain_is_noted_before_it_kills() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.look();
    world.ledger.entry("a", world.now).wish = Drain::Force;
    assert!(matches!(
        world.plan().actions[..],
        [Action::NoteDrain {
            drain: Drain::Force,
            ..
        }]
    ));
    world.instances.get_mut("a").unwrap().drain = Drain::Force;
    let plan = world.step();
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::Forced,
            proof: Proof::None,
            ..
        }]
    ));
}

#[test]
fn a_removed_pool_lets_busy_agents_finish_and_idle_ones_leave() {
    let mut world = World::new(0);
    world.removed = true;
    world.agent("busy", 1, true);
    world.agent("idle", 2, false);
    let plan = world.step();
    let drain = Action::NoteDrain {
        name: "idle".into(),
        drain: Drain::Finish,
        reason: DrainReason::PoolRemoved,
    };
    assert_eq!(
        plan,
        Plan {
            actions: vec![drain],
            ..Plan::default()
        }
    );
}
