//! Whatever happens in whatever order: busy agents are not touched, the count is kept, and a plan
//! that took effect leaves nothing to plan.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::model::Model;
use super::*;

/// Something that happens to a pool from outside.
#[derive(Debug, Clone)]
enum Happening {
    Step,
    Wait(u64),
    JobFor(usize),
    JobEnds(usize),
    Scale(usize),
    Spares(usize),
    HalfPromoted(usize),
    NewImage(bool),
    AzureLost,
    AzureBack,
    Vanishes(usize),
    Stops(usize),
    Ghost(bool),
    Pause(bool),
    Recycle(usize),
    DrainBy(usize, i64),
    Disabled(usize),
    Keep(usize, i64),
    Policy(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Step),
        2 => (1u64..400).prop_map(Happening::Wait),
        3 => (0usize..8).prop_map(Happening::JobFor),
        3 => (0usize..8).prop_map(Happening::JobEnds),
        1 => (0usize..8).prop_map(Happening::Scale),
        1 => (0usize..4).prop_map(Happening::Spares),
        1 => (0usize..8).prop_map(Happening::HalfPromoted),
        1 => any::<bool>().prop_map(Happening::NewImage),
        1 => Just(Happening::AzureLost),
        1 => Just(Happening::AzureBack),
        1 => (0usize..8).prop_map(Happening::Vanishes),
        1 => (0usize..8).prop_map(Happening::Stops),
        1 => any::<bool>().prop_map(Happening::Ghost),
        1 => any::<bool>().prop_map(Happening::Pause),
        1 => (0usize..8).prop_map(Happening::Recycle),
        1 => (0usize..8).prop_map(Happening::Disabled),
        1 => (0usize..8, 0i64..3000).prop_map(|(n, by)| Happening::DrainBy(n, by)),
        1 => (0usize..8, 0i64..600).prop_map(|(n, until)| Happening::Keep(n, until)),
        1 => any::<bool>().prop_map(Happening::Policy),
    ]
}

fn nth<T>(map: &BTreeMap<String, T>, n: usize) -> Option<String> {
    map.keys().nth(n).cloned()
}

fn happen(model: &mut Model, happening: &Happening) {
    let world = &mut model.world;
    match happening {
        Happening::Step => {
            // Whose deadline has passed may be killed.
            let before: Vec<String> = busy(world)
                .into_iter()
                .filter(|name| !is_overdue(world, name))
                .collect();
            let plan = model.step();
            check(&plan, &before);
        }
        Happening::Wait(seconds) => world.wait(*seconds),
        Happening::JobFor(n) => {
            let name = nth(&world.instances, *n);
            let registration = name.and_then(|name| world.registrations.get_mut(&name));
            if let Some(registration) = registration.filter(|r| r.online && r.enabled) {
                registration.job = Some(JobRequest::default());
            }
        }
        Happening::JobEnds(n) => {
            let Some(name) = nth(&world.instances, *n) else {
                return;
            };
            let busy = world
                .registrations
                .get(&name)
                .is_some_and(|r| r.job.is_some());
            if let Some(instance) = world.instances.get_mut(&name).filter(|_| busy) {
                instance.status = Status::Ready;
            }
        }
        Happening::Scale(wanted) => world.wanted = *wanted,
        Happening::Spares(spares) => world.spares = *spares,
        Happening::HalfPromoted(n) => {
            // Registered, and the daemon was killed before it noted that.
            let name = nth(&world.instances, *n);
            if let Some(name) = name.filter(|name| world.instances[name].spare) {
                world.registration(&name, 5000, false, false);
            }
        }
        Happening::NewImage(newer) => world.image = Some(if *newer { "newer" } else { IMAGE }),
        Happening::AzureLost => {
            world.azure_usable = false;
            world.gaps += 1;
        }
        Happening::AzureBack => world.azure_usable = true,
        Happening::Vanishes(n) => {
            let Some(name) = nth(&world.instances, *n) else {
                return;
            };
            world.instances.remove(&name);
            if let Some(registration) = world.registrations.get_mut(&name) {
                registration.online = false;
            }
        }
        Happening::Stops(n) => {
            let Some(name) = nth(&world.instances, *n) else {
                return;
            };
            if let Some(instance) = world.instances.get_mut(&name) {
                instance.status = Status::Stopped;
            }
            if let Some(registration) = world.registrations.get_mut(&name) {
                registration.online = false;
                registration.job = None;
            }
        }
        Happening::Disabled(n) => {
            let name = nth(&world.instances, *n);
            if let Some(registration) = name.and_then(|n| world.registrations.get_mut(&n)) {
                registration.enabled = false;
            }
        }
        Happening::Pause(paused) => world.paused = *paused,
        Happening::Recycle(n) => wish(world, *n, Drain::Recycle),
        Happening::DrainBy(n, by) => wish(world, *n, Drain::FinishBy(Reverse(*by))),
        Happening::Keep(n, until) => {
            world.look();
            let name = nth(&world.instances, *n);
            let entry = name.and_then(|name| world.ledger.get_mut(&name));
            if let Some(entry) = entry.filter(|entry| entry.azure_agent_id.is_some()) {
                entry.keep_wish = Some(super::keep::asked(*until));
            }
        }
        Happening::Policy(keeps) => world.keep = keeps.then(super::keep::policy),
        Happening::Ghost(busy) => world.registration("ghost", 4000, false, *busy),
    }
}

fn wish(world: &mut World, n: usize, drain: Drain) {
    world.look();
    let entry = nth(&world.instances, n).and_then(|name| world.ledger.get_mut(&name));
    if let Some(entry) = entry {
        entry.wish = entry.wish.max(drain);
    }
}

fn is_overdue(world: &World, name: &str) -> bool {
    let noted = world.instances.get(name).map(|facts| facts.drain);
    let drain = noted.max(world.ledger.get(name).map(Entry::drain));
    // The look that comes with a step takes a millisecond.
    let soon = world.wall() + Duration::from_millis(1);
    drain.and_then(Drain::deadline).is_some_and(|by| by <= soon)
}

/// Agents with a job whose machine runs.
fn busy(world: &World) -> Vec<String> {
    let has_job = |name: &String| {
        world
            .registrations
            .get(name)
            .is_some_and(|r| r.job.is_some())
    };
    let running = world
        .instances
        .values()
        .filter(|i| i.status == Status::Running);
    running
        .map(|instance| instance.name.clone())
        .filter(has_job)
        .collect()
}

fn check(plan: &Plan, busy: &[String]) {
    for action in &plan.actions {
        let harmless = matches!(
            action,
            Action::NoteDrain {
                drain: Drain::Recycle | Drain::Finish | Drain::FinishBy(_),
                ..
            } | Action::Leave { .. }
                | Action::Keep {
                    staying: Staying::Noted,
                    ..
                }
        );
        assert!(
            harmless || !busy.contains(&action.name().to_owned()),
            "{action:?} on a busy one"
        );
    }
    let mut names: Vec<&str> = plan.actions.iter().map(Action::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names.len(),
        plan.actions.len(),
        "two actions for one agent: {plan:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_busy_agents_stay_and_the_pool_settles(
        wanted in 0usize..8,
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut model = Model::new(wanted);
        for happening in &happenings {
            happen(&mut model, happening);
            prop_assert_eq!(model.killed_busy, 0, "after {:?}", happening);
        }
        model.world.azure_usable = true;
        model.world.paused = false;
        model.world.keep = None;
        model.end_all_jobs();
        prop_assert!(model.settle(), "does not settle");
        let world = &model.world;
        let (spares, agents): (Vec<_>, Vec<_>) =
            world.instances.values().partition(|instance| instance.spare);
        prop_assert_eq!(agents.len(), world.wanted);
        let wanted = if world.wanted == 0 { 0 } else { world.spares };
        prop_assert_eq!(spares.len(), wanted);
        let instances: Vec<&String> = agents.iter().map(|instance| &instance.name).collect();
        let registrations: Vec<&String> = world.registrations.keys().collect();
        prop_assert_eq!(instances, registrations, "something is left over");
        for instance in world.instances.values() {
            prop_assert_eq!(Some(instance.image.as_str()), world.image);
        }
        for registration in world.registrations.values() {
            prop_assert!(registration.enabled, "a slot is held by one that gets no jobs");
        }
    }
}
