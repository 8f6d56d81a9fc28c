use super::*;

fn instance(status: incus::Status, marked: bool) -> InstanceFacts {
    InstanceFacts {
        name: "p-h-abcde".into(),
        status,
        status_text: String::new(),
        spec: "s".into(),
        azure_agent_id: marked.then_some(7),
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
            stuck: false,
            now,
        };
        assert_eq!(state(&evidence), *expected, "row {number}");
    }
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
