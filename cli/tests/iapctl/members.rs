//! `members`.

use iap_common::v1::{GetStatusResponse, Member, MemberState, PoolMember, Space, StorageSpace};
use insta::assert_snapshot;

use super::data::{answers, pools, status};
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
        idle: agents - busy,
        memory: Some(Space {
            free: 21 << 30,
            total: 64 << 30,
        }),
        storage: vec![StorageSpace {
            storage_pool: "default".to_owned(),
            free: 310 << 30,
            total: 900 << 30,
        }],
        ..Member::default()
    }
}

fn members() -> Vec<Member> {
    let mut full = member("h1", MemberState::Online, 4, 3);
    full.full = "storage pool default on h1 has 1.2 GiB left, and no agent is made below \
                 5.5 GiB"
        .to_owned();
    full.storage[0].free = 1280 << 20;
    let mut draining = member("h2", MemberState::Online, 1, 1);
    draining.drain = Some(super::fake::pause("new disks", None));
    draining.memory = None;
    let lost = Member {
        memory: None,
        storage: vec![],
        ..member("h3", MemberState::Offline, 2, 1)
    };
    vec![full, draining, lost]
}

#[test]
fn a_cluster_shows_in_the_status_and_in_the_pool_with_the_room_of_each_member() {
    let mut linux = pools().remove(0);
    let on = |member: &Member, leaving| PoolMember {
        name: member.name.clone(),
        state: member.state,
        leaving,
        agents: member.agents,
        busy: member.busy,
        idle: member.idle,
        full: member.full.clone(),
    };
    linux.members = members()
        .iter()
        .map(|member| on(member, member.drain.is_some()))
        .collect();
    let fake = Fake::start(Answers {
        status: GetStatusResponse {
            members: members(),
            ..status()
        },
        pools: vec![linux],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "status"), @r#"
    iapd     [version] on h1, up 3h12m, owner 5f2c9a, 14.3 MiB
    config   /etc/iapd/config.yaml, loaded 1h00m ago
    incus    ok  6.0.4, storage btrfs, /var/lib/incus/unix.socket
    azure    ok  https://dev.azure.com/acme (linux, linux-vm), seen 4s ago
    metrics  http://127.0.0.1:9464/metrics

    POOL   STATE  BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux  ok        6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -

    MEMBER  STATE            AGENTS  BUSY  IDLE  CORES  MEMORY-FREE  DISK-FREE  DRAIN
    h1      online,full           4     3     1      8     21.0 GiB    1.2 GiB  -
    h2      online,draining       1     1     0      8            -  310.0 GiB  drained by ana "new disks"
    h3      offline               2     1     1      8            -          -  -
    "#);
    assert_snapshot!(iapctl(&fake, "pools show linux"), @"
    pool         linux
    state        ok
    agents       8 wanted: 6 busy, 2 idle, 0 starting, 0 leaving, 0 troubled; 1 outdated, 0 kept
    spares       1 of 1, unknown to Azure
    queued       3 jobs wait for an agent
                 at capacity: all 8 agents are busy
    waits        95 % of the jobs 6m10s or less; 42 jobs, of the last hour and waiting now
    image        linux@9fd8d5c0ffee, agent 4.275.0, made 3d ago
    instances    container, project default, profiles default
    members      h1: online; 4 agents, 3 busy, 1 idle; full: storage pool default on h1 has 1.2 GiB left, and no agent is made below 5.5 GiB
                 h2: online, draining; 1 agent, 1 busy, 0 idle
                 h3: offline; 2 agents, 1 busy, 1 idle
    azure        https://dev.azure.com/acme, pool Linux builders (12)
    incus calls  ok
    azure calls  ok
    last pass    #812 (timer) 3s ago, took 12 ms: 0 started, 0 in flight, 0 failed
    spec         1f2e3d
    ");
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
    MEMBER  STATE           AGENTS  BUSY  IDLE  CORES  MEMORY-FREE  DISK-FREE  DRAIN
    h1      online               4     3     1      8     21.0 GiB  310.0 GiB  -
    h2      online,drained       0     0     0      8     21.0 GiB  310.0 GiB  drained by ana "new disks"
    h3      offline              2     1     1      8     21.0 GiB  310.0 GiB  -
    "#);
    assert_snapshot!(iapctl(&fake, "members ls -o wide"), @r#"
    MEMBER  STATE           AGENTS  BUSY  IDLE  CORES  MEMORY-FREE  DISK-FREE  GROUPS       MESSAGE              FULL  DRAIN
    h1      online               4     3     1      8     21.0 GiB  310.0 GiB  default,ssd  fully operational    -     -
    h2      online,drained       0     0     0      8     21.0 GiB  310.0 GiB  default,ssd  fully operational    -     drained by ana "new disks"
    h3      offline              2     1     1      8     21.0 GiB  310.0 GiB  default,ssd  no heartbeat for 2m  -     -
    "#);
}

#[test]
fn where_incus_is_no_cluster_there_are_no_members() {
    assert_snapshot!(iapctl(&Fake::start(answers()), "members ls"), @"
    MEMBER  STATE  AGENTS  BUSY  IDLE  CORES  MEMORY-FREE  DISK-FREE  DRAIN
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
