//! One call to the daemon: it has a deadline, is not silent for long, and is told with `-v`.

use std::time::Duration;

use tokio::time::{self, Instant};
use tonic::{Response, Status};

use crate::error::CliError;
use crate::progress::{say_detail, say_waiting};
use crate::rows::time::{age, took};

/// How long an ordinary call may take. The daemon answers from memory, or after a few calls to
/// Incus and Azure that have deadlines of their own.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest silence.
const SILENCE: Duration = Duration::from_secs(10);

/// Waits for a call's answer, or for the head of its stream, within the usual deadline.
pub(crate) async fn call<T>(
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    patient_call(DEADLINE, rpc).await
}

/// Waits for a call's answer within `deadline`, and says so when it takes long.
pub(crate) async fn patient_call<T>(
    deadline: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    let name = name::<T>();
    let tell = |waited: Duration| {
        say_waiting(&format!(
            "waiting for iapd to answer {name}, for {} of at most {}; why so long? see: iapctl \
             status",
            age(waited),
            age(deadline)
        ));
    };
    telling(quiet_call(deadline, rpc), tell).await
}

/// Opens a stream, for those who say themselves what they wait for.
pub(crate) async fn open<T>(
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    quiet_call(DEADLINE, rpc).await
}

/// Waits for a call's answer within `deadline`, for those who say themselves what they wait for.
pub(crate) async fn quiet_call<T>(
    deadline: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    let begun = Instant::now();
    let answer = time::timeout(deadline, rpc).await;
    say_detail(|| {
        let end = match &answer {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(status)) => format!("{:?}", status.code()),
            Err(_) => "no answer".to_owned(),
        };
        let took = took_ms(begun.elapsed());
        format!("{}: {end} after {took}", name::<T>())
    });
    match answer {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CliError::NoAnswer(deadline.as_secs())),
    }
}

/// Returns how long something took that is quick as a rule: `3 ms`, `1.2s`.
pub(super) fn took_ms(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => took(duration),
    }
}

/// Waits for `work` and tells every ten seconds how long it has been.
async fn telling<T>(work: impl Future<Output = T>, mut tell: impl FnMut(Duration)) -> T {
    let begun = Instant::now();
    let mut beat = time::interval_at(begun + SILENCE, SILENCE);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            value = &mut work => return value,
            _ = beat.tick() => tell(begun.elapsed()),
        }
    }
}

/// Returns the name of the call that answers with `T`, for people: `ListPools`.
fn name<T>() -> &'static str {
    let path = std::any::type_name::<T>();
    let last = path.rsplit("::").next().unwrap_or(path);
    let last = last.trim_end_matches('>');
    last.strip_suffix("Response").unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use iap_common::v1;

    use super::*;

    #[test]
    fn calls_are_named_as_in_the_interface() {
        assert_eq!(name::<v1::ListPoolsResponse>(), "ListPools");
        assert_eq!(
            name::<tonic::Streaming<v1::WatchAgentsResponse>>(),
            "WatchAgents"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_long_is_told_every_ten_seconds() {
        let mut told = Vec::new();
        let work = time::sleep(Duration::from_secs(25));
        telling(work, |waited| told.push(waited.as_secs())).await;
        assert_eq!(told, [10, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_deadline() {
        let never = std::future::pending::<Result<Response<v1::ListPoolsResponse>, Status>>();
        let error = quiet_call(Duration::from_secs(30), never)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the daemon did not answer within 30 s");
    }
}
