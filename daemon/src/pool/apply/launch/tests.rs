use hyper::Method;

use super::*;
use crate::incus::CallSite;

/// What Incus says of a guest that it cannot reach, with a status of its own.
fn refused(status: u16) -> Result<i32, IncusError> {
    Err(IncusError::Refused {
        call: Box::new(CallSite {
            kind: "exec",
            instance: Some("linux-a".to_owned()),
            method: Method::POST,
            path: "/1.0/instances/linux-a/exec".to_owned(),
        }),
        status,
        message: "VM agent isn't currently running".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_guest_agent_has_until_the_start_deadline_of_virtual_machines() {
    let began = Instant::now();
    let up = began + VM_START_DEADLINE - Duration::from_secs(5);
    let looks = || async move {
        if Instant::now() < up {
            refused(500)
        } else {
            Ok(0)
        }
    };
    until_answered(looks).await.unwrap();
    assert!(began.elapsed() >= VM_START_DEADLINE - Duration::from_secs(5));

    let began = Instant::now();
    let error = until_answered(|| async { refused(500) }).await.unwrap_err();
    assert!(matches!(error, ApplyError::NoGuestAgent), "{error}");
    assert!(began.elapsed() > VM_START_DEADLINE);
    assert!(began.elapsed() < VM_START_DEADLINE + Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_vanishes_while_it_boots_is_not_waited_for() {
    let began = Instant::now();
    let mut looks = 0;
    let look = || {
        looks += 1;
        let answer = if looks < 3 {
            refused(500)
        } else {
            refused(404)
        };
        async { answer }
    };
    let error = until_answered(look).await.unwrap_err();
    assert!(matches!(error, ApplyError::Vanished), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}
