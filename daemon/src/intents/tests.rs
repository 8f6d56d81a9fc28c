use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pause(reason: &str, until: Option<i64>) -> Pause {
    Pause {
        reason: reason.into(),
        who: Who {
            uid: Some(1000),
            user: "ana".into(),
        },
        since: at(0),
        until: until.map(at),
    }
}

fn pause_pool(intents: &Intents, pool: &str, pause: Pause) -> Result<u64, IntentsError> {
    intents.change(at(0), |set| {
        set.pools.entry(pool.into()).or_default().pause = Some(pause);
    })
}

#[test]
fn what_is_wanted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let intents = Intents::load(dir.path());
    assert_eq!(*intents.now(), IntentSet::default());
    pause_pool(&intents, "linux", pause("cert swap", Some(600))).unwrap();
    intents
        .change(at(0), |set| {
            set.host = Some(pause("kernel", None));
            set.pools.entry("vm".into()).or_default().count = Some(CountOverride {
                count: 3,
                who: Who::default(),
                since: at(0),
                until: None,
            });
        })
        .unwrap();
    let again = Intents::load(dir.path());
    assert_eq!(again.trouble(), None);
    let (before, after) = (intents.now(), again.now());
    assert_eq!(
        (&before.host, &before.pools, after.revision),
        (&after.host, &after.pools, 0)
    );
}

#[test]
fn a_pause_lapses_and_the_hosts_stands_behind_the_pools() {
    let mut set = IntentSet::default();
    set.pools.entry("linux".into()).or_default().pause = Some(pause("own", Some(100)));
    set.host = Some(pause("host", Some(200)));
    let seen = |second| {
        let effective = set.effective("linux", at(second));
        (
            effective.pause.map(|pause| pause.reason),
            effective.host_wide,
            effective.next_lapse.map(Timestamp::as_second),
        )
    };
    assert_eq!(seen(99), (Some("own".into()), false, Some(100)));
    assert_eq!(seen(100), (Some("host".into()), true, Some(200)));
    assert_eq!(seen(200), (None, false, None));
    assert!(set.effective("other", at(99)).host_wide);
}

#[test]
fn a_pause_counts_more_than_another_number_and_that_more_than_the_configured_one() {
    let count = CountOverride {
        count: 7,
        who: Who::default(),
        since: at(0),
        until: None,
    };
    let mut effective = Effective::default();
    assert_eq!(effective.wanted(4), 4);
    effective.count = Some(count);
    assert_eq!(effective.wanted(4), 7);
    effective.pause = Some(pause("", None));
    assert_eq!(effective.wanted(4), 0);
}

#[test]
fn what_has_lapsed_is_forgotten_with_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let intents = Intents::load(dir.path());
    pause_pool(&intents, "linux", pause("", Some(10))).unwrap();
    intents.change(at(10), |_| {}).unwrap();
    assert!(intents.now().pools.is_empty());
    assert_eq!(intents.now().revision, 2);
}

#[test]
fn a_damaged_file_is_set_aside_and_the_daemon_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("intents.json"), "{\"version\": 1, \"po").unwrap();
    let intents = Intents::load(dir.path());
    assert!(intents.trouble().unwrap().contains("set aside as"));
    pause_pool(&intents, "linux", pause("", None)).unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names
            .into_iter()
            .any(|name| name.starts_with("intents.json.damaged-"))
    );
    assert_eq!(Intents::load(dir.path()).now().pools.len(), 1);
}

#[test]
fn a_file_of_a_newer_daemon_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intents.json");
    let newer = r#"{"version": 2, "pools": "whatever that means"}"#;
    std::fs::write(&path, newer).unwrap();
    let intents = Intents::load(dir.path());
    assert!(intents.trouble().unwrap().contains("a newer iapd"));
    let refused = pause_pool(&intents, "linux", pause("", None)).unwrap_err();
    assert!(matches!(refused, IntentsError::LeftAlone(_)), "{refused:?}");
    assert!(intents.now().pools.is_empty());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
}
