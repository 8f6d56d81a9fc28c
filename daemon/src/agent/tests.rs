use super::*;

fn instance(status: incus::Status, marked: bool) -> InstanceFacts {
    InstanceFacts {
        name: "p-h-abcde".into(),
        status,
        status_text: String::new(),
        spec: "s".into(),
        azure_agent_id: marked.then_some(7),
        spare: false,
        drain: Drain::No,
        image: "i".into(),
        created_at: None,
        keep: None,
        location: String::new(),
    }
}

fn registration(online: bool, busy: bool) -> RegistrationFacts {
    RegistrationFacts {
        id: 7,
        enabled: true,
        online,
        job: busy.then(azure::JobRequest::default),
        owner: None,
        pool: None,
        project: None,
    }
}

/// One row: instance, registration, what is being done, was it online, seconds since it rang.
type Row = (
    Option<(incus::Status, bool)>,
    Option<(bool, bool)>,
    Option<Doing>,
    bool,
    Option<u64>,
    AgentState,
);

#[tokio::test(start_paused = true)]
async fn states_follow_from_what_is_seen() {
    use incus::Status::{Error, Frozen, Ready, Running, Starting, Stopped};
    let launch = Some(Doing::Launch);
    let rows: &[Row] = &[
        (None, None, launch, false, None, AgentState::Creating),
        (None, None, None, false, None, AgentState::Deregistering),
        (
            None,
            Some((false, true)),
            None,
            true,
            None,
            AgentState::Deregistering,
        ),
        (
            Some((Stopped, false)),
            None,
            launch,
            false,
            None,
            AgentState::Creating,
        ),
        (
            Some((Starting, false)),
            None,
            None,
            false,
            None,
            AgentState::Creating,
        ),
        (
            Some((Stopped, true)),
            None,
            None,
            true,
            None,
            AgentState::Stopping,
        ),
        (
            Some((Running, false)),
            None,
            launch,
            false,
            None,
            AgentState::Registering,
        ),
        (
            Some((Running, true)),
            None,
            None,
            false,
            None,
            AgentState::Starting,
        ),
        (
            Some((Running, true)),
            Some((false, false)),
            None,
            false,
            None,
            AgentState::Starting,
        ),
        (
            Some((Running, true)),
            Some((true, false)),
            None,
            true,
            None,
            AgentState::Idle,
        ),
        (
            Some((Running, true)),
            Some((true, true)),
            None,
            true,
            None,
            AgentState::Busy,
        ),
        (
            Some((Running, true)),
            Some((false, true)),
            None,
            true,
            None,
            AgentState::Busy,
        ),
        (
            Some((Running, true)),
            Some((false, false)),
            None,
            true,
            None,
            AgentState::Unknown,
        ),
        (
            Some((Ready, true)),
            Some((true, true)),
            None,
            true,
            Some(1),
            AgentState::Finishing,
        ),
        // Rung by its job, long ago: not believed any more.
        (
            Some((Ready, true)),
            Some((true, true)),
            None,
            true,
            Some(11),
            AgentState::Busy,
        ),
        (
            Some((Ready, true)),
            Some((true, false)),
            None,
            true,
            Some(11),
            AgentState::Idle,
        ),
        (
            Some((Frozen, true)),
            Some((true, false)),
            None,
            true,
            None,
            AgentState::Unknown,
        ),
        (
            Some((Frozen, true)),
            Some((true, true)),
            None,
            true,
            None,
            AgentState::Busy,
        ),
        (
            Some((Error, true)),
            None,
            None,
            true,
            None,
            AgentState::Unknown,
        ),
        (
            Some((Running, true)),
            Some((true, false)),
            Some(Doing::Remove),
            true,
            None,
            AgentState::Stopping,
        ),
    ];
    let start = Instant::now();
    let now = start + Duration::from_secs(60);
    for (number, (inst, reg, doing, was_online, rang, expected)) in rows.iter().enumerate() {
        let instance = inst.map(|(status, marked)| instance(status, marked));
        let registration = reg.map(|(online, busy)| registration(online, busy));
        let evidence = Evidence {
            instance: instance.as_ref(),
            registration: registration.as_ref(),
            doing: *doing,
            was_online: *was_online,
            ready_since: rang.map(|ago| now - Duration::from_secs(ago)),
            spare: false,
            stuck: false,
            now,
        };
        assert_eq!(state(&evidence), *expected, "row {number}");
    }
}

#[test]
fn a_spare_is_no_agent_whatever_happens_to_it_until_it_becomes_one() {
    use incus::Status::{Frozen, Running, Starting, Stopped};
    let state_of = |status: Option<incus::Status>, doing| {
        let instance = status.map(|status| instance(status, false));
        state(&Evidence {
            instance: instance.as_ref(),
            registration: None,
            doing,
            was_online: false,
            ready_since: None,
            spare: true,
            stuck: false,
            now: Instant::now(),
        })
    };
    for doing in [None, Some(Doing::Spare), Some(Doing::Remove)] {
        assert_eq!(state_of(None, doing), AgentState::Spare, "{doing:?}");
    }
    for status in [Starting, Running, Frozen, Stopped] {
        for doing in [None, Some(Doing::Spare), Some(Doing::Remove)] {
            let state = state_of(Some(status), doing);
            assert_eq!(state, AgentState::Spare, "{status:?} {doing:?}");
            assert!(!state.holds_slot());
        }
    }
    let promoted = state_of(Some(Running), Some(Doing::Launch));
    assert_eq!(promoted, AgentState::Registering);
}

#[test]
fn an_instance_whose_registration_is_noted_is_no_spare() {
    let bare = serde_json::json!({"name": "p-h-abcde", "status_code": 103});
    let mut instance: incus::Instance = serde_json::from_value(bare).unwrap();
    let facts = |instance: &incus::Instance| InstanceFacts::of(instance);
    assert!(!facts(&instance).spare);
    instance.config.insert(key::SPARE.into(), "true".into());
    assert!(facts(&instance).spare);
    instance
        .config
        .insert(key::AZURE_AGENT_ID.into(), "7".into());
    assert!(!facts(&instance).spare);
}

#[test]
fn drain_wishes_survive_as_configuration_values() {
    let by = |second| Drain::FinishBy(std::cmp::Reverse(second));
    let all = [
        Drain::No,
        Drain::Recycle,
        Drain::Finish,
        by(1_800_000_000),
        by(1_700_000_000),
        Drain::Force,
    ];
    assert!(all.is_sorted(), "each is more urgent than the one before");
    for drain in all {
        assert_eq!(Drain::parse(drain.as_value().as_deref()), drain);
    }
    assert_eq!(Drain::parse(Some("anything")), Drain::Finish);
    assert_eq!(Drain::parse(Some("finish;by=soon")), Drain::Finish);
    assert_eq!(by(i64::MAX).deadline(), None, "no such time");
}
