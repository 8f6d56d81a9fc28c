//! What the listener does after a failure, as tables without any I/O.
//!
//! The classes and numbers are those of the real listener's `MessageListener.cs` and `JobDispatcher.cs`.

use std::time::Duration;

use crate::error::CallError;
use crate::exit::Exit;

/// Pause between attempts to create a session.
pub const SESSION_RETRY: Duration = Duration::from_secs(30);
/// How long conflicts are tried against, counted as attempts times [`SESSION_RETRY`].
pub const CONFLICT_LIMIT: Duration = Duration::from_secs(240);
/// How long a wrong clock is tried against.
pub const SKEW_LIMIT: Duration = Duration::from_secs(1800);
/// Pause between lock renewals.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(60);
/// How long after its end a lock is still tried to be renewed.
pub const LOCK_GRACE: Duration = Duration::from_secs(300);
/// Retries of the renewal that has to succeed before the worker starts.
pub const FIRST_RENEW_RETRIES: u32 = 5;
/// Shortest time a cancelled job gets.
pub const MIN_CANCEL_TIMEOUT: Duration = Duration::from_secs(60);
/// What a worker gets on top of the cancel timeout before it is killed.
pub const KILL_AFTER_CANCEL: Duration = Duration::from_secs(60);

/// What follows a failed attempt to create a session.
#[derive(Debug, PartialEq, Eq)]
pub enum AfterSessionFailure {
    /// Try again after [`SESSION_RETRY`].
    Retry,
    /// Try again, but count it as a conflict with another session.
    RetryConflict,
    /// Try again, but count it as a wrong clock.
    RetrySkew,
    /// Too many conflicts.
    GiveUpConflict,
    /// The clock has been wrong for too long.
    GiveUpSkew,
    /// The agent is gone from the pool.
    AgentGone,
    /// Hopeless.
    GiveUp,
    /// The token was revoked: end quietly.
    Revoked,
}

/// Decides after a failed session creation; the counts include this failure.
pub fn after_session_failure(error: &CallError, conflicts: u32, skews: u32) -> AfterSessionFailure {
    match (error, error.class()) {
        (_, Some("TaskAgentSessionConflictException")) => {
            if SESSION_RETRY * conflicts >= CONFLICT_LIMIT {
                AfterSessionFailure::GiveUpConflict
            } else {
                AfterSessionFailure::RetryConflict
            }
        }
        (_, Some("TaskAgentNotFoundException")) => AfterSessionFailure::AgentGone,
        (_, Some("TaskAgentAccessTokenExpiredException")) => AfterSessionFailure::Revoked,
        (_, Some("TaskAgentPoolNotFoundException" | "AccessDeniedException"))
        | (CallError::Unauthorized(_), _) => AfterSessionFailure::GiveUp,
        _ if error.is_clock_skew() => {
            if SESSION_RETRY * skews >= SKEW_LIMIT {
                AfterSessionFailure::GiveUpSkew
            } else {
                AfterSessionFailure::RetrySkew
            }
        }
        _ => AfterSessionFailure::Retry,
    }
}

/// What follows a failed poll for messages.
#[derive(Debug, PartialEq, Eq)]
pub enum AfterPollFailure {
    Retry,
    RecreateSession,
    End(Exit),
}

/// Decides after a failed poll.
pub fn after_poll_failure(error: &CallError, may_recover: bool) -> AfterPollFailure {
    match (error, error.class()) {
        (_, Some("TaskAgentSessionExpiredException")) if may_recover => {
            AfterPollFailure::RecreateSession
        }
        (_, Some("TaskAgentAccessTokenExpiredException")) => AfterPollFailure::End(Exit::Success),
        (
            _,
            Some(
                "TaskAgentNotFoundException"
                | "TaskAgentPoolNotFoundException"
                | "TaskAgentSessionExpiredException"
                | "AccessDeniedException",
            ),
        )
        | (CallError::Unauthorized(_), _) => AfterPollFailure::End(Exit::Retryable),
        _ => AfterPollFailure::Retry,
    }
}

/// Tells whether a failed renewal means that the job is no longer this agent's.
pub fn is_lock_lost(error: &CallError) -> bool {
    matches!(
        error.class(),
        Some("TaskAgentJobNotFoundException" | "TaskAgentJobTokenExpiredException")
    )
}

/// Returns the range of the pause, in seconds, after so many failed polls in a row.
pub fn poll_pause(failures: u32) -> (u64, u64) {
    if failures <= 5 { (15, 30) } else { (30, 60) }
}

/// Returns the range of the pause, in seconds, after so many failed renewals in a row.
pub fn renew_pause(failures: u32) -> (u64, u64) {
    if failures <= 5 { (5, 15) } else { (15, 30) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(class: &str) -> CallError {
        CallError::Refused {
            class: class.to_owned(),
            message: "no".to_owned(),
        }
    }

    #[test]
    fn the_eighth_session_conflict_is_the_last() {
        let conflict = refused("TaskAgentSessionConflictException");
        for conflicts in 1..8 {
            let next = after_session_failure(&conflict, conflicts, 0);
            assert_eq!(next, AfterSessionFailure::RetryConflict, "{conflicts}");
        }
        let next = after_session_failure(&conflict, 8, 0);
        assert_eq!(next, AfterSessionFailure::GiveUpConflict);
    }

    #[test]
    fn session_failures_end_or_repeat_by_class() {
        use AfterSessionFailure as After;
        for (error, after) in [
            (refused("TaskAgentNotFoundException"), After::AgentGone),
            (refused("TaskAgentPoolNotFoundException"), After::GiveUp),
            (refused("AccessDeniedException"), After::GiveUp),
            (CallError::Unauthorized("x".into()), After::GiveUp),
            (
                refused("TaskAgentAccessTokenExpiredException"),
                After::Revoked,
            ),
            (
                CallError::TokenRequest("The client is not valid.".into()),
                After::Retry,
            ),
            (
                CallError::TokenRequest("Current server time is x".into()),
                After::RetrySkew,
            ),
            (CallError::Status(500), After::Retry),
            (CallError::Timeout(Duration::ZERO), After::Retry),
        ] {
            assert_eq!(after_session_failure(&error, 1, 1), after, "{error:?}");
        }
    }

    #[test]
    fn a_wrong_clock_is_given_half_an_hour() {
        let skew = CallError::TokenRequest("Current server time is x".into());
        assert_eq!(
            after_session_failure(&skew, 0, 59),
            AfterSessionFailure::RetrySkew
        );
        assert_eq!(
            after_session_failure(&skew, 0, 60),
            AfterSessionFailure::GiveUpSkew
        );
    }

    #[test]
    fn poll_failures_end_or_repeat_by_class() {
        use AfterPollFailure as After;
        for (error, after) in [
            (
                refused("TaskAgentNotFoundException"),
                After::End(Exit::Retryable),
            ),
            (
                refused("TaskAgentPoolNotFoundException"),
                After::End(Exit::Retryable),
            ),
            (
                refused("AccessDeniedException"),
                After::End(Exit::Retryable),
            ),
            (
                CallError::Unauthorized("x".into()),
                After::End(Exit::Retryable),
            ),
            (
                refused("TaskAgentAccessTokenExpiredException"),
                After::End(Exit::Success),
            ),
            (
                refused("TaskAgentSessionExpiredException"),
                After::RecreateSession,
            ),
            (
                CallError::TokenRequest("The client is not valid.".into()),
                After::Retry,
            ),
            (CallError::Status(429), After::Retry),
        ] {
            assert_eq!(after_poll_failure(&error, true), after, "{error:?}");
        }
    }

    #[test]
    fn an_expired_session_ends_an_agent_that_must_not_recover() {
        let expired = refused("TaskAgentSessionExpiredException");
        let after = after_poll_failure(&expired, false);
        assert_eq!(after, AfterPollFailure::End(Exit::Retryable));
    }

    #[test]
    fn pauses_grow_from_the_sixth_failure() {
        assert_eq!(
            (poll_pause(1), poll_pause(5), poll_pause(6)),
            ((15, 30), (15, 30), (30, 60))
        );
        assert_eq!(
            (renew_pause(1), renew_pause(5), renew_pause(6)),
            ((5, 15), (5, 15), (15, 30))
        );
    }

    #[test]
    fn a_lock_is_lost_only_when_the_service_says_so() {
        assert!(is_lock_lost(&refused("TaskAgentJobNotFoundException")));
        assert!(is_lock_lost(&refused("TaskAgentJobTokenExpiredException")));
        assert!(!is_lock_lost(&refused("TaskAgentNotFoundException")));
        assert!(!is_lock_lost(&CallError::Status(503)));
    }
}
