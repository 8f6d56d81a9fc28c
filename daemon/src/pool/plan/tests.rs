use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::agent::{InstanceFacts, Keep, RegistrationFacts};
use crate::azure::JobRequest;
use crate::incus::Status;
use crate::pool::in_flight::Turn;
use crate::pool::observe::{Observation, RegistrationList};

mod disabled;
mod drains;
mod ghosts;
mod intents;
mod keep;
mod members;
mod model;
mod properties;
mod restarts;
mod spares;

const SPEC: &str = "spec";
const IMAGE: &str = "image";

/// The answer that lets a machine go.
fn go(name: &str, heard: bool) -> Action {
    Action::AnswerDoorbell {
        name: name.into(),
        heard,
        no_room: false,
    }
}

/// A pool's world, moved on by hand.
struct World {
    wanted: usize,
    spares: usize,
    paused: bool,
    startup_grace: Duration,
    removed: bool,
    azure_usable: bool,
    image: Option<&'static str>,
    launches: Allowance,
    members: MemberView,
    keep: Option<KeepSpec>,
    instances: BTreeMap<String, InstanceFacts>,
    registrations: BTreeMap<String, RegistrationFacts>,
    gaps: u64,
    ledger: Ledger,
    in_flight: InFlight,
    now: Instant,
    began: Instant,
}

impl World {
    fn new(wanted: usize) -> Self {
        let began = Instant::now() + Duration::from_secs(1000);
        Self {
            wanted,
            spares: 0,
            paused: false,
            removed: false,
            startup_grace: Duration::from_secs(60),
            azure_usable: true,
            image: Some(IMAGE),
            launches: Allowance::All,
            members: MemberView::default(),
            keep: None,
            instances: BTreeMap::new(),
            registrations: BTreeMap::new(),
            gaps: 0,
            ledger: Ledger::default(),
            in_flight: InFlight::default(),
            now: began,
            began,
        }
    }

    /// The wall clock: seconds since the world began.
    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.now.duration_since(self.began)
    }

    fn instance(&mut self, name: &str, status: Status, id: Option<i64>) -> &mut InstanceFacts {
        let facts = InstanceFacts {
            name: name.into(),
            status,
            status_text: String::new(),
            spec: SPEC.into(),
            azure_agent_id: id,
            spare: false,
            drain: Drain::No,
            image: IMAGE.into(),
            created_at: None,
            keep: None,
            location: String::new(),
        };
        self.instances.entry(name.into()).or_insert(facts)
    }

    fn registration(&mut self, name: &str, id: i64, online: bool, busy: bool) {
        let facts = RegistrationFacts {
            id,
            enabled: true,
            online,
            job: busy.then(JobRequest::default),
            owner: None,
            pool: None,
            project: None,
        };
        self.registrations.insert(name.into(), facts);
    }

    /// An agent that is online, with a job or without.
    fn agent(&mut self, name: &str, id: i64, busy: bool) {
        self.instance(name, Status::Running, Some(id));
        self.registration(name, id, true, busy);
    }

    /// A spare that runs.
    fn spare(&mut self, name: &str) {
        self.instance(name, Status::Running, None).spare = true;
    }

    /// Looks at the world; found instances count as settled.
    fn look(&mut self) {
        // Each look has a list of its own.
        self.now += Duration::from_millis(1);
        let list = RegistrationList {
            began: self.now,
            agents: self.registrations.clone(),
        };
        let seen = Observation {
            instances: Some(self.instances.clone()),
            registrations: Some(Arc::new(list)),
            azure_gaps: self.gaps,
        };
        let in_flight = &self.in_flight;
        self.ledger
            .take_in(&seen, self.now, |name| in_flight.doing(name).is_some());
        for name in self.instances.keys() {
            self.ledger.entry(name, self.now).settled = true;
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.situation(), &self.ledger, &self.in_flight)
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            wanted: if self.paused { 0 } else { self.wanted },
            spares: self.spares,
            paused: self.paused,
            removed: self.removed,
            spec_hash: SPEC,
            image: self.image,
            startup_grace: self.startup_grace,
            offline_grace: Duration::from_secs(300),
            incus_seen: true,
            azure_usable: self.azure_usable,
            azure_listed: Some(self.now),
            launches: self.launches,
            members: &self.members,
            keep: self.keep.as_ref(),
            now: self.now,
            wall: self.wall(),
        }
    }

    fn step(&mut self) -> Plan {
        self.look();
        self.plan()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Looks every ten seconds for a while and returns the last plan.
    fn watch(&mut self, seconds: u64) -> Plan {
        let mut plan = self.step();
        for _ in 0..seconds / 10 {
            self.wait(10);
            plan = self.step();
        }
        plan
    }
}

fn nothing() -> Plan {
    Plan::default()
}

#[test]
fn an_empty_pool_is_filled() {
    let mut world = World::new(3);
    assert_eq!(
        world.step(),
        Plan {
            launch: 3,
            ..Plan::default()
        }
    );
}

#[test]
fn launches_in_flight_hold_their_slots() {
    let mut world = World::new(3);
    world
        .in_flight
        .begin("p-h-a0001", Doing::Launch, Some(Turn::default()), world.now);
    assert_eq!(world.step().launch, 2);
}

#[test]
fn nothing_is_launched_without_image_or_azure_or_leave_of_the_breaker() {
    let mut world = World::new(3);
    world.image = None;
    assert_eq!(world.step(), nothing());
    world.image = Some(IMAGE);
    world.azure_usable = false;
    assert_eq!(world.step(), nothing());
    world.azure_usable = true;
    world.launches = Allowance::Nothing;
    assert_eq!(world.step(), nothing());
    world.launches = Allowance::One;
    assert_eq!(world.step().launch, 1);
}

#[test]
fn the_next_try_waits_until_a_failed_one_was_heard() {
    let mut world = World::new(2);
    world.launches = Allowance::One;
    world.instance("a", Status::Running, Some(1));
    world.registration("a", 1, false, false);
    world.look();
    world.ledger.entry("a", world.now).launched_at = Some(world.now);
    assert_eq!(world.step(), nothing());
    // It gave up before it was online: its slot is free, and nobody knows why yet.
    world.instances.get_mut("a").unwrap().status = Status::Ready;
    let plan = world.step();
    assert_eq!((plan.launch, plan.actions), (0, vec![go("a", false)]));
    let entry = world.ledger.entry("a", world.now);
    (entry.answered, entry.proven) = (true, true);
    assert_eq!(world.step().launch, 1);
}

#[test]
fn a_full_pool_is_left_alone() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    world.agent("b", 2, true);
    assert_eq!(world.step(), nothing());
}

#[test]
fn nothing_is_done_while_incus_does_not_answer() {
    let mut world = World::new(2);
    world.agent("a", 1, false);
    world.look();
    let situation = Situation {
        wanted: 0,
        spares: 0,
        paused: true,
        removed: true,
        spec_hash: "other",
        image: None,
        startup_grace: Duration::ZERO,
        offline_grace: Duration::ZERO,
        incus_seen: false,
        azure_usable: true,
        azure_listed: Some(world.now),
        members: &MemberView::default(),
        launches: Allowance::All,
        keep: None,
        now: world.now,
        wall: world.wall(),
    };
    assert_eq!(plan(&situation, &world.ledger, &world.in_flight), nothing());
}

#[test]
fn the_doorbell_frees_the_slot_and_is_answered_once() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.step();
    world.instances.get_mut("a").unwrap().status = Status::Ready;
    let plan = world.step();
    assert_eq!(plan.launch, 1);
    assert_eq!(plan.actions, [go("a", false)]);
    world.ledger.get_mut("a").unwrap().answered = true;
    assert_eq!(world.step().actions, []);
}

#[test]
fn a_job_that_rings_the_doorbell_gains_one_spare_agent_for_a_while_and_no_more() {
    let mut world = World::new(1);
    world.agent("a", 1, true);
    world.step();
    world.instances.get_mut("a").unwrap().status = Status::Ready;
    assert_eq!(world.step().launch, 1);
    world.agent("b", 2, false);
    world.ledger.entry("a", world.now).answered = true;
    let plan = world.watch(30);
    // The pool is one over: the idle one leaves, the busy one is not touched.
    assert_eq!(plan.launch, 0);
    let drain = Action::NoteDrain {
        name: "b".into(),
        drain: Drain::Finish,
        reason: DrainReason::Surplus,
    };
    assert_eq!(plan.actions, [drain]);
}

#[test]
fn offline_agent_is_kept_while_azure_is_unreachable() {
    let mut world = World::new(1);
    world.agent("a", 1, false);
    world.step();
    world.registration("a", 1, false, false);
    world.step();
    world.azure_usable = false;
    world.wait(3600);
    assert_eq!(world.plan(), nothing());
}

#[test]
fn an_agent_that_never_comes_online_is_removed_after_its_startup_time() {
    let mut world = World::new(1);
    world.instance("a", Status::Running, Some(1));
    world.registration("a", 1, false, false);
    world.look();
    world.ledger.entry("a", world.now).launched_at = Some(world.now);
    assert_eq!(world.watch(110), nothing());
    let plan = world.watch(20);
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::NeverOnline,
            proof: Proof::AzureAndProbe,
            ..
        }]
    ));
}

#[test]
fn a_virtual_machine_that_boots_slowly_has_five_minutes_to_come_online() {
    let mut world = World::new(1);
    world.startup_grace = Duration::from_secs(300);
    world.instance("a", Status::Running, Some(1));
    world.registration("a", 1, false, false);
    world.look();
    world.ledger.entry("a", world.now).launched_at = Some(world.now);
    assert_eq!(world.watch(350), nothing(), "five minutes and the slack");
    let plan = world.watch(20);
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::NeverOnline,
            ..
        }]
    ));
}

#[test]
fn a_stopped_instance_is_deleted_and_its_slot_filled() {
    let mut world = World::new(1);
    world.instance("a", Status::Stopped, Some(1));
    world.registration("a", 1, false, false);
    world.step();
    world.wait(6);
    let plan = world.step();
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::Stopped,
            ..
        }]
    ));
    assert_eq!(plan.launch, 1);
}

#[test]
fn a_frozen_agent_is_judged_by_azure_alone() {
    let mut world = World::new(1);
    world.instance("a", Status::Frozen, Some(1));
    world.registration("a", 1, true, true);
    assert_eq!(world.watch(3600), nothing());
    world.registration("a", 1, false, false);
    let plan = world.watch(320);
    assert!(matches!(
        plan.actions[..],
        [Action::Remove {
            reason: ReapReason::Offline,
            proof: Proof::AzureUnprobed,
            ..
        }]
    ));
}

#[test]
fn nothing_touches_an_instance_whose_creation_may_not_have_ended() {
    let mut world = World::new(1);
    world.instance("a", Status::Running, None);
    world.step();
    world.ledger.entry("a", world.now).settled = false;
    world.wait(3600);
    assert_eq!(world.plan(), nothing());
}

#[test]
fn a_guest_without_agent_becomes_one_or_waits_for_azure() {
    let mut world = World::new(1);
    world.instance("a", Status::Running, None);
    let plan = world.step();
    assert_eq!(
        plan,
        Plan {
            actions: vec![Action::Adopt { name: "a".into() }],
            ..Plan::default()
        }
    );
    world.azure_usable = false;
    assert_eq!(world.step(), nothing());
}

#[test]
fn a_guest_in_which_no_agent_can_be_started_is_tried_again_and_then_given_up() {
    let mut world = World::new(1);
    world.instance("a", Status::Running, None);
    world.step();
    world.ledger.entry("a", world.now).unfit = 1;
    assert_eq!(world.step().actions, [Action::Adopt { name: "a".into() }]);
    world.ledger.entry("a", world.now).unfit = 2;
    assert_eq!(
        world.step().actions,
        [Action::Remove {
            name: "a".into(),
            azure_agent_id: None,
            reason: ReapReason::LaunchFailed,
            proof: Proof::None,
        }]
    );
}

#[test]
fn surplus_idle_agents_leave_and_busy_ones_stay() {
    let mut world = World::new(1);
    world.agent("busy", 1, true);
    world.agent("idle1", 2, false);
    world.agent("idle2", 3, false);
    let plan = world.step();
    assert_eq!(plan.actions.len(), 2);
    assert!(plan.actions.iter().all(|action| {
        action.name() != "busy"
            && matches!(
                action,
                Action::NoteDrain {
                    reason: DrainReason::Surplus,
                    ..
                }
            )
    }));
}

#[test]
fn surplus_launches_that_wait_are_called_off_first() {
    let mut world = World::new(1);
    world.agent("idle", 2, false);
    world
        .in_flight
        .begin("new", Doing::Launch, Some(Turn::default()), world.now);
    assert_eq!(
        world.step().actions,
        [Action::CancelLaunch { name: "new".into() }]
    );
}

#[test]
fn outdated_idle_agents_are_replaced_a_few_at_a_time() {
    let mut world = World::new(8);
    for number in 0..8i64 {
        world.agent(&format!("a{number}"), number + 1, number < 3);
    }
    world.image = Some("newer");
    let plan = world.step();
    assert_eq!(plan.actions.len(), 2, "{plan:?}");
    for action in &plan.actions {
        assert!(matches!(
            action,
            Action::NoteDrain {
                reason: DrainReason::Outdated,
                ..
            }
        ));
    }
}

#[test]
fn a_new_build_that_does_not_come_up_costs_no_more_than_it_was_tried_with() {
    let mut world = World::new(8);
    for number in 0..8i64 {
        world.agent(&format!("a{number}"), number + 1, false);
    }
    world.image = Some("newer");
    world.launches = Allowance::Nothing;
    assert_eq!(world.step(), nothing(), "what replaces them fails");
    world.launches = Allowance::All;
    world.instance("new", Status::Running, Some(9));
    world.registration("new", 9, false, false);
    world.look();
    let now = world.now;
    world.ledger.entry("new", now).launched_at = Some(now);
    world.wanted = 9;
    let plan = world.step();
    assert_eq!(
        plan.actions.len(),
        1,
        "one of two at a time is coming up: {plan:?}"
    );
}

#[test]
fn a_pool_is_settled_when_all_that_are_wanted_are_online_and_not_before() {
    let mut world = World::new(2);
    let is_settled =
        |world: &World| is_settled(&world.situation(), &world.ledger, &world.in_flight);
    world.agent("a", 1, true);
    world.instance("b", Status::Running, Some(2));
    world.registration("b", 2, false, false);
    world.look();
    assert!(!is_settled(&world), "one has not come online");
    world.ledger.entry("b", world.now).settled = false;
    assert!(!is_settled(&world), "nor is it known what it is");
    world.registration("b", 2, true, false);
    world.look();
    assert!(is_settled(&world));
}

#[test]
fn an_outdated_agent_that_leaves_after_its_job_holds_up_no_idle_one() {
    let mut world = World::new(2);
    world.agent("busy", 1, true);
    world.agent("idle", 2, false);
    world.instances.get_mut("busy").unwrap().drain = Drain::Finish;
    world.image = Some("newer");
    let plan = world.step();
    let notes: Vec<&str> = plan
        .actions
        .iter()
        .filter(|action| matches!(action, Action::NoteDrain { .. }))
        .map(Action::name)
        .collect();
    assert_eq!(notes, ["idle"], "{plan:?}");
}

#[test]
fn an_instance_that_refuses_to_go_gives_its_slot_up() {
    let mut world = World::new(1);
    world.instance("a", Status::Stopped, Some(1));
    world.step();
    world.wait(10);
    world.look();
    let now = world.now;
    let entry = world.ledger.entry("a", now);
    entry.removal_failures = 3;
    entry.failed("Not a Btrfs subvolume".into(), now);
    let plan = world.plan();
    assert_eq!(
        plan,
        Plan {
            launch: 1,
            ..Plan::default()
        }
    );
    world.wait(120);
    assert!(matches!(world.plan().actions[..], [Action::Remove { .. }]));
}
