//! Agents on members of a cluster that are lost, come back, or are to be without agents.

use super::*;

const GRACE: Duration = Duration::from_secs(300);

impl World {
    /// Two members with an idle agent each.
    fn two_members() -> Self {
        let mut world = Self::new(2);
        for (name, id, member) in [("p-h-aaaaa", 1, "m1"), ("p-h-bbbbb", 2, "m2")] {
            world.agent(name, id, false);
            world.place(name, member);
        }
        world.step();
        world
    }

    fn place(&mut self, name: &str, member: &str) {
        self.instances.get_mut(name).unwrap().location = member.into();
    }

    fn lose(&mut self, name: &str, member: &str) {
        self.instances.get_mut(name).unwrap().status = Status::Error;
        self.members.offline.insert(member.into());
    }

    fn azure_says_dead(&mut self, name: &str) {
        self.registrations.get_mut(name).unwrap().online = false;
    }

    fn is_back(&mut self, name: &str) {
        self.members = MemberView::default();
        self.instances.get_mut(name).unwrap().status = Status::Running;
    }
}

#[test]
fn an_agent_of_a_lost_member_is_replaced_only_when_azure_shows_it_dead_too() {
    let mut world = World::two_members();
    world.lose("p-h-bbbbb", "m2");
    assert_eq!(
        world.step(),
        Plan::default(),
        "offline, not yet for the grace"
    );
    world.members.lost.insert("m2".into());
    assert_eq!(
        world.step(),
        Plan::default(),
        "online in Azure: its guest runs on"
    );
    world.azure_says_dead("p-h-bbbbb");
    let plan = world.step();
    assert_eq!(plan.launch, 1);
    let replaced = replaced(&world.situation(), &world.ledger, plan.launch);
    assert_eq!(replaced, ["p-h-bbbbb"]);
    assert_eq!(plan.actions, [], "nothing can be done to it");
}

#[test]
fn nobody_goes_because_of_an_agent_that_was_replaced_before_a_restart() {
    let mut world = World::two_members();
    world.agent("p-h-ccccc", 3, false);
    world.place("p-h-ccccc", "m1");
    world.lose("p-h-bbbbb", "m2");
    world.azure_says_dead("p-h-bbbbb");
    assert_eq!(world.step(), Plan::default(), "not lost for the grace yet");
    world.members.lost.insert("m2".into());
    assert_eq!(world.step(), Plan::default(), "its slot is filled");
    world.is_back("p-h-bbbbb");
    world.now += GRACE * 2;
    let plan = world.step();
    let names: Vec<&str> = plan.actions.iter().map(Action::name).collect();
    assert_eq!((plan.launch, names), (0, vec!["p-h-bbbbb"]));
}

#[test]
fn an_agent_with_a_job_on_a_lost_member_is_never_replaced() {
    let mut world = World::two_members();
    world.lose("p-h-bbbbb", "m2");
    world.members.lost.insert("m2".into());
    world.registration("p-h-bbbbb", 2, false, true);
    assert_eq!(world.step(), Plan::default());
    world.now += GRACE * 2;
    assert_eq!(world.step(), Plan::default());
}

#[test]
fn without_azure_nobody_is_replaced() {
    let mut world = World::two_members();
    world.lose("p-h-bbbbb", "m2");
    world.members.lost.insert("m2".into());
    world.azure_says_dead("p-h-bbbbb");
    world.azure_usable = false;
    assert_eq!(world.step(), Plan::default());
}

#[test]
fn an_agent_that_is_offline_for_long_is_left_alone_while_its_member_is_out_of_reach() {
    let mut world = World::two_members();
    world.launches = Allowance::Nothing;
    world.lose("p-h-bbbbb", "m2");
    world.azure_says_dead("p-h-bbbbb");
    world.step();
    world.now += GRACE * 2;
    assert_eq!(world.step().actions, []);
}

#[test]
fn an_agent_whose_member_is_back_in_time_keeps_its_slot() {
    let mut world = World::two_members();
    world.lose("p-h-bbbbb", "m2");
    world.azure_says_dead("p-h-bbbbb");
    assert_eq!(world.step(), Plan::default());
    world.is_back("p-h-bbbbb");
    world.registration("p-h-bbbbb", 2, true, false);
    assert_eq!(world.step(), Plan::default());
}

#[test]
fn an_agent_that_was_replaced_goes_when_its_member_is_back() {
    let mut world = World::two_members();
    world.lose("p-h-bbbbb", "m2");
    world.members.lost.insert("m2".into());
    world.azure_says_dead("p-h-bbbbb");
    let now = world.now;
    let launch = world.step().launch;
    for name in replaced(&world.situation(), &world.ledger, launch) {
        world.ledger.entry(&name, now).was_replaced = true;
    }
    // The other one took its slot.
    world.agent("p-h-ccccc", 3, false);
    world.place("p-h-ccccc", "m1");
    assert_eq!(world.step(), Plan::default(), "replaced once");
    world.is_back("p-h-bbbbb");
    let remove = Action::Remove {
        name: "p-h-bbbbb".into(),
        azure_agent_id: Some(2),
        reason: ReapReason::Replaced,
        proof: Proof::AzureAndProbe,
    };
    assert_eq!(
        world.step().actions,
        [remove],
        "dead, and nobody goes for it"
    );
    world.registration("p-h-bbbbb", 2, true, false);
    let surplus = Action::NoteDrain {
        name: "p-h-bbbbb".into(),
        drain: Drain::Finish,
        reason: DrainReason::Surplus,
    };
    assert_eq!(world.step().actions, [surplus]);
}

#[test]
fn agents_of_a_member_that_leaves_finish_and_go_and_busy_ones_keep_their_jobs() {
    let mut world = World::two_members();
    world.registration("p-h-bbbbb", 2, true, true);
    world.members.leaving = ["m1", "m2"].map(str::to_owned).into();
    let mut plan = world.step();
    plan.actions.sort_by(|a, b| a.name().cmp(b.name()));
    let leaves = |name: &str| Action::NoteDrain {
        name: name.into(),
        drain: Drain::Finish,
        reason: DrainReason::MemberLeaves,
    };
    assert_eq!(plan.actions, [leaves("p-h-aaaaa"), leaves("p-h-bbbbb")]);
    for instance in world.instances.values_mut() {
        instance.drain = Drain::Finish;
    }
    let leave = Action::Leave {
        name: "p-h-aaaaa".into(),
        azure_agent_id: 1,
    };
    let plan = world.step();
    assert!(plan.actions.contains(&leave), "{plan:?}");
    assert_eq!(plan.launch, 0, "it holds its slot until it is gone");
}

#[test]
fn nothing_is_launched_while_no_member_takes_it() {
    let mut world = World::new(2);
    world.members.none_takes = true;
    assert_eq!(world.step(), Plan::default());
    world.members.none_takes = false;
    assert_eq!(world.step().launch, 2);
}
