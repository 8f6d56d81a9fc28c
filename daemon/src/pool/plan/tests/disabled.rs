//! Agents that get no jobs: disabled in Azure by somebody else, or by a removal that was called
//! off.

use super::*;

fn disable(world: &mut World, name: &str) {
    world.registrations.get_mut(name).unwrap().enabled = false;
}

fn leaves(name: &str, id: i64) -> Plan {
    Plan {
        launch: 0,
        spare: false,
        actions: vec![Action::Leave {
            name: name.into(),
            azure_agent_id: id,
        }],
    }
}

#[test]
fn an_idle_agent_that_somebody_disabled_leaves_and_is_replaced_once() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    world.agent("b", 2, false);
    world.step();
    disable(&mut world, "a");
    let note = Action::NoteDrain {
        name: "a".into(),
        drain: Drain::Finish,
        reason: DrainReason::Disabled,
    };
    assert_eq!(world.step().actions, [note]);
    world.instances.get_mut("a").unwrap().drain = Drain::Finish;
    assert_eq!(world.step(), leaves("a", 1), "its slot is not free yet");
    world.instances.remove("a");
    world.registrations.remove("a");
    assert_eq!(world.step().launch, 1);
    world.agent("c", 3, false);
    assert_eq!(world.step(), nothing(), "the new one may get jobs");
}

#[test]
fn a_busy_agent_that_somebody_disabled_is_left_to_its_job() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    disable(&mut world, "a");
    assert_eq!(world.watch(3600), nothing());
}

#[test]
fn nobody_leaves_for_being_disabled_while_azure_is_unreachable() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    disable(&mut world, "a");
    world.look();
    world.azure_usable = false;
    assert_eq!(world.plan(), nothing());
}

#[test]
fn an_agent_disabled_for_a_removal_that_was_called_off_leaves() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    world.step();
    disable(&mut world, "a");
    let now = world.now;
    world.ledger.entry("a", now).disabled_for_nothing();
    let note = Action::NoteDrain {
        name: "a".into(),
        drain: Drain::Finish,
        // Not somebody else's doing.
        reason: DrainReason::Requested,
    };
    assert_eq!(world.step().actions, [note]);
    world.instances.get_mut("a").unwrap().drain = Drain::Finish;
    assert_eq!(world.step(), leaves("a", 1));
}

#[test]
fn what_an_operator_wants_is_not_weakened_by_a_removal_that_was_called_off() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.look();
    let now = world.now;
    let entry = world.ledger.entry("a", now);
    entry.wish = Drain::Force;
    entry.disabled_for_nothing();
    assert_eq!(entry.wish, Drain::Force);
}
