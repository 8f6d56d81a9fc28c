use super::*;
use crate::azure::JobRequest;

const OURS: &str = "here";
const GRACE: Duration = Duration::from_secs(300);
const INTERVAL: Duration = Duration::from_secs(10);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn facts(id: i64, owner: &str, online: bool, busy: bool) -> RegistrationFacts {
    RegistrationFacts {
        id,
        enabled: true,
        online,
        job: busy.then(JobRequest::default),
        owner: (!owner.is_empty()).then(|| owner.to_owned()),
        pool: Some("linux".to_owned()),
        project: None,
    }
}

/// An agent, named after its id: `(id, owner, online, busy)`.
type Agent = (i64, &'static str, bool, bool);

fn list(agents: &[Agent]) -> Vec<(String, RegistrationFacts)> {
    let named = agents.iter().map(|(id, owner, online, busy)| {
        let name = format!("a{id}");
        (name, facts(*id, owner, *online, *busy))
    });
    named.collect()
}

fn sight<'a>(seen: &'a Seen, is_meant: bool) -> Sight<'a> {
    Sight {
        azure_pool: "fleet",
        seen,
        usable: true,
        interval: INTERVAL,
        grace: GRACE,
        is_meant,
    }
}

/// Returns what was seen when Azure listed the same for `lasting`, and that last moment.
fn watched(agents: &[Agent], lasting: Duration) -> (Seen, Instant) {
    let (mut seen, start) = (Seen::default(), Instant::now());
    seen.take_in(list(agents), start, start);
    let now = start + lasting;
    seen.take_in(list(agents), now, now);
    (seen, now)
}

fn judged(seen: &Seen, owner: &str, now: Instant) -> Result<Vec<i64>, Refusal> {
    let found = judge(&[sight(seen, true)], owner, OURS, now)?;
    let ids = found.into_iter().flatten().map(|ghost| ghost.facts.id);
    Ok(ids.collect())
}

#[test]
fn all_that_a_dead_owner_has_may_go_and_nothing_else() {
    let agents = [
        (1, "gone", false, false),
        (2, "gone", false, false),
        (3, OURS, true, false),
        (4, "other", true, true),
        (5, "", false, false),
    ];
    let (seen, now) = watched(&agents, GRACE);
    assert_eq!(seen.all.len(), 4, "without a tag it is nobody's");
    assert_eq!(judged(&seen, "gone", now), Ok(vec![1, 2]));
}

#[test]
fn what_was_deleted_is_not_told_any_more() {
    let (mut seen, now) = watched(
        &[(1, "gone", false, false), (2, "gone", false, false)],
        GRACE,
    );
    seen.forget(1);
    seen.forget(7);
    assert_eq!(judged(&seen, "gone", now), Ok(vec![2]));
}

#[test]
fn refusals_say_what_is_in_the_way() {
    let dead = (1, "gone", false, false);
    let cases: [(&str, &[Agent], Duration, &str, &str); 7] = [
        ("ours", &[dead], GRACE, OURS, "owner here is this host"),
        (
            "unknown",
            &[dead],
            GRACE,
            "gome",
            "owner gome has no registrations",
        ),
        (
            "online",
            &[dead, (2, "gone", true, false)],
            GRACE,
            "gone",
            "owner gone lives: an agent is online or with a job: a2",
        ),
        (
            "busy",
            &[dead, (2, "gone", false, true), (3, "gone", true, true)],
            GRACE,
            "gone",
            "owner gone lives: 2 agents are online or with a job: a2, a3",
        ),
        (
            "early",
            &[dead],
            GRACE - seconds(1),
            "gone",
            "owner gone may come back: a registration has not been seen offline and unassigned \
             for 300s without a gap: a1",
        ),
        (
            "many",
            &[
                dead,
                (2, "gone", true, false),
                (3, "gone", true, false),
                (4, "gone", true, false),
                (5, "gone", true, false),
                (6, "gone", true, false),
                (7, "gone", true, false),
            ],
            GRACE,
            "gone",
            "owner gone lives: 6 agents are online or with a job: a2, a3, a4, a5, a6 and 1 more",
        ),
        (
            "others only",
            &[(4, "other", true, true)],
            GRACE,
            "gone",
            "owner gone has no registrations",
        ),
    ];
    for (what, agents, lasting, owner, words) in cases {
        let (seen, now) = watched(agents, lasting);
        let refusal = judged(&seen, owner, now).expect_err(what);
        assert_eq!(refusal.to_string(), words, "{what}");
    }
    let (seen, now) = watched(&[dead], GRACE - seconds(70));
    let Err(Refusal::TooEarly { left, .. }) = judged(&seen, "gone", now) else {
        panic!("too early");
    };
    assert_eq!(left, seconds(70));
    let (seen, now) = watched(
        &[dead, (4, "other", true, true), (3, OURS, true, false)],
        GRACE,
    );
    let Err(Refusal::Unknown { known, .. }) = judged(&seen, "gome", now) else {
        panic!("unknown");
    };
    assert_eq!(known, ["gone", "other"]);
}

#[test]
fn nothing_is_judged_by_an_old_list_or_by_none() {
    let (seen, now) = watched(&[(1, "gone", false, false)], GRACE);
    assert!(judged(&seen, "gone", now + INTERVAL * 3).is_ok());
    let refusal = judged(&seen, "gone", now + seconds(46)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the last list of Azure pool fleet is 46s old, and there is no newer one"
    );
    let failed = Sight {
        usable: false,
        ..sight(&seen, true)
    };
    let refusal = judge(&[failed], "gone", OURS, now).unwrap_err();
    assert!(matches!(refusal, Refusal::Unseen(_)), "{refusal}");
    let refusal = judged(&Seen::default(), "gone", now).unwrap_err();
    assert_eq!(refusal.to_string(), "Azure pool fleet was not listed yet");
}

#[test]
fn a_gap_or_a_sign_of_life_begins_the_grace_period_anew() {
    type Change = dyn Fn(&mut Seen, Instant);
    let dead = [(1, "gone", false, false)];
    let changes: [(&str, &Change); 3] = [
        ("a failed list", &|seen, _| seen.interrupted(1)),
        ("online", &|seen, at| {
            seen.take_in(list(&[(1, "gone", true, false)]), at, at);
        }),
        ("registered anew", &|seen, at| {
            seen.take_in(list(&[(2, "gone", false, false)]), at, at);
        }),
    ];
    for (what, change) in changes {
        let (mut seen, now) = watched(&dead, GRACE);
        change(&mut seen, now + seconds(1));
        let again = now + seconds(2);
        seen.take_in(list(&dead), again, again);
        let refusal = judged(&seen, "gone", again).expect_err(what);
        assert!(
            matches!(refusal, Refusal::TooEarly { left: GRACE, .. }),
            "{what}"
        );
        let later = again + GRACE;
        seen.take_in(list(&dead), later, later);
        assert_eq!(judged(&seen, "gone", later), Ok(vec![1]), "{what}");
    }
}

#[test]
fn a_host_that_lives_in_another_pool_lives() {
    let (meant, now) = watched(&[(1, "gone", false, false)], GRACE);
    let alive = list(&[(7, "gone", true, false)]);
    let mut other = Seen::default();
    other.take_in(alive, now, now);
    let sights = [sight(&meant, true), sight(&other, false)];
    let refusal = judge(&sights, "gone", OURS, now).unwrap_err();
    assert!(matches!(refusal, Refusal::Lives { .. }), "{refusal}");
    // One that could not be listed, and is not meant, is in nobody's way.
    let unseen = Seen::default();
    let sights = [sight(&meant, true), sight(&unseen, false)];
    let found = judge(&sights, "gone", OURS, now).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
}

fn look(gone: &[i64], in_flight: &[i64]) -> impl Fn(&Target) -> Look {
    move |target| match gone.contains(&target.id) {
        true => Look::Gone,
        false => Look::There {
            in_flight: in_flight.contains(&target.id),
            detail: "waits".to_owned(),
        },
    }
}

fn states(adoption: &Adoption) -> Vec<TargetState> {
    let targets = adoption.status().targets.iter();
    targets.map(|target| target.state).collect()
}

#[test]
fn an_adoption_is_done_when_all_is_gone() {
    use TargetState::{Gone, There};
    let targets = [(1, "a1".to_owned()), (2, "a2".to_owned())];
    let mut adoption = Adoption::new(7, "gone".into(), targets);
    assert!(!adoption.take_in(None, look(&[1], &[2])));
    assert_eq!(states(&adoption), [Gone, There]);
    // It is not there any more, and stays so.
    assert!(!adoption.take_in(None, look(&[], &[])));
    assert_eq!(states(&adoption), [Gone, There]);
    assert!(adoption.take_in(None, look(&[1, 2], &[])));
    assert_eq!(adoption.status().end, Some(AdoptionEnd::Done));
    assert!(
        !adoption.take_in(Some("a3"), look(&[1, 2], &[])),
        "told once"
    );
}

#[test]
fn an_adoption_ends_when_its_owner_lives_and_tells_what_stays() {
    use TargetState::{Gone, Stays, There};
    let targets = [1, 2, 3].map(|id| (id, format!("a{id}")));
    let mut adoption = Adoption::new(7, "gone".into(), targets);
    assert!(!adoption.take_in(None, look(&[1], &[2])));
    assert!(!adoption.is_called_off());
    // What is in flight has its end awaited.
    assert!(!adoption.take_in(Some("a9"), look(&[1], &[2])));
    assert!(adoption.is_called_off());
    assert_eq!(states(&adoption), [Gone, There, Stays]);
    assert!(adoption.take_in(None, look(&[1, 2, 3], &[])));
    assert_eq!(
        states(&adoption),
        [Gone, Gone, Stays],
        "3 was only forgotten"
    );
    let status = adoption.status();
    assert_eq!(status.end, Some(AdoptionEnd::Lives("a9".into())));
    assert_eq!(status.gone(), 2);
}

#[test]
fn the_outlook_says_what_is_going_to_happen() {
    let ours = Whose::Ours {
        watched: Some(""),
        looks_cloned: false,
    };
    let failing = Whose::Ours {
        watched: Some("Azure says the agent is busy"),
        looks_cloned: false,
    };
    let cloned = Whose::Ours {
        watched: Some(""),
        looks_cloned: true,
    };
    let stray = Whose::Ours {
        watched: None,
        looks_cloned: false,
    };
    let others = |lives, adopted| Whose::Others { lives, adopted };
    let cases = [
        (ours, false, 60, "swept in 4m"),
        (ours, false, 300, "is being swept"),
        (ours, true, 300, "stays while it is alive"),
        (failing, false, 300, "Azure says the agent is busy"),
        (
            cloned,
            false,
            300,
            "stays while an agent of this host is online elsewhere: a clone?",
        ),
        (
            stray,
            false,
            300,
            "of no configured pool: swept after the next reload or start",
        ),
        (others(true, None), true, 300, "another host's, which lives"),
        (
            others(true, None),
            false,
            300,
            "another host's, which lives",
        ),
        (
            others(false, None),
            false,
            255,
            "another host's: can be adopted in 45s",
        ),
        (
            others(false, None),
            false,
            300,
            "another host's: can be adopted",
        ),
        (
            others(false, Some("")),
            false,
            300,
            "adopted: is being removed",
        ),
        (others(false, Some("waits")), false, 300, "adopted: waits"),
    ];
    for (whose, online, lasting, words) in cases {
        let (seen, _) = watched(&[(1, "x", online, false)], seconds(lasting));
        let [ghost] = &*seen.all else {
            panic!("one was seen");
        };
        assert_eq!(outlook(ghost, whose, seen.listed, GRACE), words);
    }
}

#[test]
fn what_is_left_is_never_told_shorter_than_it_is() {
    let cases = [
        (0, "0s"),
        (1, "1s"),
        (59_001, "1m"),
        (61_000, "2m"),
        (3_600_000, "1h00m"),
        (7_441_000, "2h05m"),
    ];
    for (ms, words) in cases {
        assert_eq!(span(Duration::from_millis(ms)), words, "{ms} ms");
    }
}
