//! What one call to Azure tells, and what is made of clocks and breakers.

use super::*;
use crate::agent::AgentState;
use crate::azure::Operation;
use crate::doctor::Severity::{self, Error, Notice, Ok, Skipped, Warning};
use crate::doctor::tests::{agent, pool, severities, status};

fn found(auto_update: Option<bool>) -> Looked {
    Looked::Found(AgentPool {
        id: 12,
        name: "Linux".into(),
        auto_update,
    })
}

fn rejected() -> Looked {
    Looked::Failed(Failure::Error(AzureError::Rejected {
        operation: Operation::FindPool,
        status: reqwest::StatusCode::UNAUTHORIZED,
        reason: "HTTP 401".into(),
    }))
}

fn paused() -> Looked {
    Looked::Failed(Failure::Error(AzureError::Paused {
        operation: Operation::FindPool,
        retry_after: std::time::Duration::from_secs(90),
    }))
}

#[test]
fn one_call_tells_four_things() {
    let cases: [(&str, Looked, [Severity; 4]); 7] = [
        ("fine", found(Some(false)), [Ok, Ok, Ok, Ok]),
        ("updates", found(Some(true)), [Ok, Ok, Ok, Notice]),
        ("silent", found(None), [Ok, Ok, Ok, Skipped]),
        ("no pool", Looked::NoPool, [Ok, Ok, Error, Skipped]),
        ("rejected", rejected(), [Ok, Error, Skipped, Skipped]),
        ("paused", paused(), [Skipped; 4]),
        (
            "late",
            Looked::Failed(Failure::Late),
            [Error, Skipped, Skipped, Skipped],
        ),
    ];
    for (name, looked, expected) in cases {
        assert_eq!(
            severities(&judge(&pool("linux"), &looked, None)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_rejected_token_comes_with_the_file_it_is_in() {
    let mut pool = pool("linux");
    pool.azure.credential = CredentialSpec::PatFile("/etc/iapd/pat".into());
    let checks = judge(&pool, &rejected(), None);
    assert!(checks[1].fix.contains("/etc/iapd/pat"), "{}", checks[1].fix);
}

#[test]
fn agents_that_are_registered_prove_more_than_an_answer() {
    let mut status = status("linux");
    let mut idle = agent("linux-h-a", AgentState::Idle);
    idle.azure_agent_id = Some(7);
    status.agents = vec![idle];
    let checks = judge(&pool("linux"), &found(None), Some(&status));
    assert_eq!(
        checks[1].finding,
        "accepted, and 1 agent registered with it"
    );
}

#[test]
fn an_open_breaker_is_told_and_its_error_when_nothing_else_tells_it() {
    let mut status = status("linux");
    status.azure.breaker.open = true;
    status.azure.breaker.failures = 3;
    status.azure.breaker.last_error = "HTTP 503".into();
    let check = judge_breaker(&found(None), &status).unwrap();
    assert_eq!(
        (check.severity, &*check.finding),
        (
            Warning,
            "3 failures in a row, though it answers now: HTTP 503"
        )
    );
    let check = judge_breaker(&rejected(), &status).unwrap();
    assert_eq!(check.severity, Notice);
    status.azure.breaker.open = false;
    assert_eq!(judge_breaker(&found(None), &status), None);
}

#[test]
fn a_clock_may_be_half_a_minute_off() {
    let cases = [
        (Some(0), Ok, "the same as Azure's"),
        (Some(-29), Ok, "29 s behind Azure's"),
        (Some(31), Warning, "31 s ahead of Azure's"),
        (Some(-239), Warning, "239 s behind Azure's"),
        (Some(300), Error, "300 s ahead of Azure's"),
        (None, Skipped, "Azure has not told its time"),
    ];
    for (seconds, severity, finding) in cases {
        let check = judge_clock("https://azure", seconds.map(SignedDuration::from_secs));
        assert_eq!((check.severity, &*check.finding), (severity, finding));
    }
}
