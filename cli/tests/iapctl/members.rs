//! `members`.

use iap_common::v1::{Member, MemberState};
use insta::assert_snapshot;

use super::data::answers;
use super::fake::{Answers, Fake};
use super::run::iapctl;

fn member(name: &str, state: MemberState, agents: u32, busy: u32) -> Member {
    Member {
        name: name.to_owned(),
        state: state.into(),
        message: "fully operational".to_owned(),
        agents,
        busy,
        cores: 8,
        groups: vec!["default".to_owned(), "ssd".to_owned()],
        drain: None,
    }
}

fn fake() -> Fake {
    let mut drained = member("h2", MemberState::Online, 0, 0);
    drained.drain = Some(super::fake::pause("new disks", None));
    let offline = Member {
        message: "no heartbeat for 2m".to_owned(),
        ..member("h3", MemberState::Offline, 2, 1)
    };
    Fake::start(Answers {
        members: vec![member("h1", MemberState::Online, 4, 3), drained, offline],
        ..answers()
    })
}

#[test]
fn members_are_listed_with_their_agents() {
    let fake = fake();
    assert_snapshot!(iapctl(&fake, "members ls"), @r#"
    MEMBER  STATE           AGENTS  BUSY  CORES  DRAIN
    h1      online               4     3      8  -
    h2      online,drained       0     0      8  drained by ana "new disks"
    h3      offline              2     1      8  -
    "#);
    assert_snapshot!(iapctl(&fake, "members ls -o wide"), @r#"
    MEMBER  STATE           AGENTS  BUSY  CORES  GROUPS       MESSAGE              DRAIN
    h1      online               4     3      8  default,ssd  fully operational    -
    h2      online,drained       0     0      8  default,ssd  fully operational    drained by ana "new disks"
    h3      offline              2     1      8  default,ssd  no heartbeat for 2m  -
    "#);
}

#[test]
fn where_incus_is_no_cluster_there_are_no_members() {
    assert_snapshot!(iapctl(&Fake::start(answers()), "members ls"), @"
    MEMBER  STATE  AGENTS  BUSY  CORES  DRAIN
    --- stderr
    note: Incus is not a cluster: it has no members
    No members.
    ");
}

#[test]
fn draining_a_member_waits_until_it_is_empty() {
    let fake = fake();
    assert_snapshot!(iapctl(&fake, "members drain h2 -m disks"), @"
    h2: drained
    --- stderr
    note: undo: iapctl members resume h2
    ");
    assert_snapshot!(iapctl(&fake, "members drain h1 --timeout 1s"), @"
    --- stderr
    note: h1: waiting, 4 agents left, 3 busy
    error: h1 is not empty yet: 4 agents left, 3 busy
    hint: the drain goes on: iapctl members ls
    --- exit 3
    ");
    assert_snapshot!(iapctl(&fake, "members drain h1 --detach"), @"h1: no new agents; 4 agents left, 3 busy");
    assert_snapshot!(fake.calls(), @r#"
    DrainMemberRequest { name: "h2", reason: "disks" }
    DrainMemberRequest { name: "h1", reason: "" }
    DrainMemberRequest { name: "h1", reason: "" }
    "#);
}

#[test]
fn a_member_is_resumed() {
    let fake = fake();
    assert_snapshot!(iapctl(&fake, "members resume h2"), @"h2: resumed");
    assert_snapshot!(fake.calls(), @r#"ResumeMemberRequest { name: "h2" }"#);
}
