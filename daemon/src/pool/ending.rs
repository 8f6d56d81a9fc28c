//! Why an agent ended, from what is known of its end. Pure.

use jiff::Timestamp;

use crate::agent::Keep;
use crate::azure::JobRequest;

use super::plan::ReapReason;
use super::spec::KeepWhen;

/// Why an agent ended. A fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its job succeeded, perhaps with issues.
    JobSucceeded,
    /// Its job failed.
    JobFailed,
    /// Its job was cancelled.
    JobCancelled,
    /// It had a job, and Azure does not say how that ended.
    JobEnded,
    /// The kernel killed something of it for want of memory.
    OutOfMemory,
    /// Its job failed, or it did, with no room left to write to.
    DiskFull,
    /// It never came online.
    NeverOnline,
    /// It was offline in Azure for the grace period, without a worker; or its cluster member was
    /// lost, and it with that.
    LostContact,
    /// Its launch failed or was broken off.
    LaunchFailed,
    /// Its instance vanished before it came online.
    Vanished,
    /// Its listener gave up before it had a job.
    AgentFailed,
    /// It was asked to leave and had no job.
    Drained,
    /// Somebody disabled it in Azure, and it had no job.
    DisabledInAzure,
    /// It was not needed.
    Surplus,
    /// It was built from an old image or spec.
    Outdated,
    /// Somebody removed it by force.
    Forced,
    /// It was not done by the deadline of its drain.
    Deadline,
    /// Somebody asked for its removal.
    Requested,
    /// Its instance was stopped from outside.
    Stopped,
    /// It ended while this daemon was not looking.
    Unseen,
    /// Its instance went away without a word.
    Gone,
}

impl EndReason {
    /// Returns the word used in tables, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSucceeded => "job-succeeded",
            Self::JobFailed => "job-failed",
            Self::JobCancelled => "job-cancelled",
            Self::JobEnded => "job-ended",
            Self::OutOfMemory => "out-of-memory",
            Self::DiskFull => "disk-full",
            Self::NeverOnline => "never-online",
            Self::LostContact => "lost-contact",
            Self::LaunchFailed => "launch-failed",
            Self::Vanished => "vanished",
            Self::AgentFailed => "agent-failed",
            Self::Drained => "drained",
            Self::DisabledInAzure => "disabled-in-azure",
            Self::Surplus => "surplus",
            Self::Outdated => "outdated",
            Self::Forced => "forced",
            Self::Deadline => "deadline",
            Self::Requested => "requested",
            Self::Stopped => "stopped",
            Self::Unseen => "unseen",
            Self::Gone => "gone",
        }
    }
}

/// How an agent's unit ended, as its guest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// Exit status of the agent, if it exited.
    pub exit_status: Option<i32>,
    /// The kernel killed a process of the unit for want of memory.
    pub out_of_memory: bool,
    /// The directory in which nothing could be written any more when it ended.
    pub full: Option<&'static str>,
    /// What is to be known of the evidence, such as what is missing; may be empty.
    pub note: String,
}

impl Ending {
    /// Returns what is to be known of it beside its reason; may be empty.
    pub fn detail(&self) -> String {
        let full = self
            .full
            .map(|directory| format!("nothing more could be written to {directory}"));
        let note = Some(self.note.clone()).filter(|note| !note.is_empty());
        let parts: Vec<String> = full.into_iter().chain(note).collect();
        parts.join("; ")
    }
}

/// What is remembered of an agent for the time after it.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// When its instance was made, by Incus's clock.
    pub created_at: Option<Timestamp>,
    /// Fingerprint of its image.
    pub image: String,
    /// When it was first seen online.
    pub online_at: Option<Timestamp>,
    /// When it was first seen to be over.
    pub ended_at: Option<Timestamp>,
    /// The last job it was seen with.
    pub job: Option<JobRequest>,
    /// What its guest told.
    pub ending: Option<Ending>,
    /// Why we removed it, if we did.
    pub reaped: Option<ReapReason>,
    /// Why it was kept for debugging, where that says how it ended.
    pub kept: Option<KeepWhen>,
    /// Since when it was kept for debugging.
    pub kept_since: Option<Timestamp>,
    /// Its cluster member could not be reached when its instance was seen last.
    pub out_of_reach: bool,
    /// The same at any time.
    pub was_out_of_reach: bool,
}

impl Past {
    /// Takes in the job it has. A list that is a little old does not undo a result.
    pub fn see_job(&mut self, job: &JobRequest) {
        let has_result =
            |known: &JobRequest| known.request_id == job.request_id && known.result.is_some();
        if !self.job.as_ref().is_some_and(has_result) {
            self.job = Some(job.clone());
        }
    }

    /// Takes in that it was kept, and why: all that is left to know after a restart.
    pub fn see_kept(&mut self, keep: &Keep) {
        let mut known = KeepWhen::ALL.into_iter();
        self.kept = known.find(|when| when.as_str() == keep.reason);
        self.kept_since = keep.since;
    }
}

/// Returns whether its job is known to have failed. What is not known has not failed.
pub fn has_failed(past: &Past) -> bool {
    let out_of_memory = past.ending.as_ref().is_some_and(|end| end.out_of_memory);
    past.job.as_ref().is_some_and(|job| {
        out_of_memory || matches!(job.result.as_deref(), Some("failed" | "abandoned"))
    })
}

/// What else a reason follows from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances {
    /// Its instance was seen by this run of the daemon.
    pub had_instance: bool,
    /// It was registered.
    pub was_registered: bool,
    /// It was seen online.
    pub was_online: bool,
    /// It was asked to leave.
    pub was_draining: bool,
    /// It was asked to leave because somebody had disabled it in Azure.
    pub was_disabled_by_others: bool,
    /// Its launch failed after it was registered.
    pub launch_failed: bool,
}

impl Circumstances {
    fn why_it_left(self) -> EndReason {
        if self.was_disabled_by_others {
            EndReason::DisabledInAzure
        } else {
            EndReason::Drained
        }
    }
}

/// Returns why an agent ended.
pub fn reason(past: &Past, at: Circumstances) -> EndReason {
    let had_no_room = past.ending.as_ref().is_some_and(|end| end.full.is_some());
    match how_it_ended(past, at) {
        // A job that succeeded, or that somebody cancelled, did so whatever it has left.
        EndReason::JobFailed | EndReason::JobEnded | EndReason::AgentFailed if had_no_room => {
            EndReason::DiskFull
        }
        reason => reason,
    }
}

fn how_it_ended(past: &Past, at: Circumstances) -> EndReason {
    if past
        .ending
        .as_ref()
        .is_some_and(|ending| ending.out_of_memory)
    {
        return EndReason::OutOfMemory;
    }
    let result = past.job.as_ref().and_then(|job| job.result.as_deref());
    match past.reaped {
        Some(ReapReason::Forced) => return EndReason::Forced,
        Some(ReapReason::Deadline) => return EndReason::Deadline,
        // After a restart it seems to be one whose launch was broken off.
        Some(ReapReason::NeverOnline | ReapReason::LaunchFailed) if past.was_out_of_reach => {
            return EndReason::LostContact;
        }
        // Azure may have been out of reach meanwhile, and tells of a job only afterwards.
        Some(ReapReason::NeverOnline) if result.is_none() => return EndReason::NeverOnline,
        Some(ReapReason::LaunchFailed) if result.is_none() => return EndReason::LaunchFailed,
        Some(ReapReason::Surplus) => return EndReason::Surplus,
        Some(ReapReason::NotLeaving) => return at.why_it_left(),
        Some(ReapReason::Outdated | ReapReason::Aged) => return EndReason::Outdated,
        Some(ReapReason::Requested) => return EndReason::Requested,
        Some(ReapReason::Replaced) if past.job.is_none() => return EndReason::LostContact,
        // Stopped, or offline, after it had ended well: the rest says more.
        Some(
            ReapReason::Stopped
            | ReapReason::Offline
            | ReapReason::KeepOver
            | ReapReason::Replaced
            | ReapReason::NeverOnline
            | ReapReason::LaunchFailed,
        )
        | None => {}
    }
    // Azure's word on the job counts, whatever its guest claimed, unless it only says that it has
    // not heard of it.
    match result {
        Some("succeeded" | "succeededWithIssues") => return EndReason::JobSucceeded,
        Some("failed") => return EndReason::JobFailed,
        Some("canceled" | "cancelled") => return EndReason::JobCancelled,
        _ if past.reaped == Some(ReapReason::Offline) || past.out_of_reach => {
            return EndReason::LostContact;
        }
        Some("abandoned") => return EndReason::JobFailed,
        _ => {}
    }
    match past.kept {
        Some(KeepWhen::JobFailed) => return EndReason::JobFailed,
        Some(KeepWhen::NeverOnline) => return EndReason::NeverOnline,
        None => {}
    }
    if past.job.is_some() {
        return EndReason::JobEnded;
    }
    let exit_status = past.ending.as_ref().and_then(|ending| ending.exit_status);
    match exit_status {
        _ if !at.had_instance => EndReason::Unseen,
        // It ended before this run of the daemon, whose record tells how.
        _ if past.kept_since.is_some() && !at.was_online => EndReason::Unseen,
        _ if at.was_draining => at.why_it_left(),
        Some(0) => EndReason::Gone,
        Some(_) => EndReason::AgentFailed,
        None if past.reaped == Some(ReapReason::Stopped) => {
            if at.was_registered && !at.launch_failed {
                EndReason::Stopped
            } else {
                // Incus or iapd went down while it was made.
                EndReason::LaunchFailed
            }
        }
        None if !at.was_online => EndReason::Vanished,
        None => EndReason::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(result: Option<&str>) -> Past {
        Past {
            job: Some(JobRequest {
                result: result.map(str::to_owned),
                ..JobRequest::default()
            }),
            ..Past::default()
        }
    }

    fn reaped(why: ReapReason) -> Past {
        Past {
            reaped: Some(why),
            ..job(None)
        }
    }

    fn exited(status: i32) -> Past {
        Past {
            ending: Some(Ending {
                exit_status: Some(status),
                ..Ending::default()
            }),
            ..Past::default()
        }
    }

    /// As it is, and its guest says that there was no room left.
    fn full(past: Past) -> Past {
        let ending = past.ending.clone().unwrap_or_default();
        Past {
            ending: Some(Ending {
                full: Some("/home/agent"),
                ..ending
            }),
            ..past
        }
    }

    fn kept(kept: Option<KeepWhen>) -> Past {
        Past {
            kept,
            kept_since: Some(Timestamp::UNIX_EPOCH),
            reaped: Some(ReapReason::KeepOver),
            ..Past::default()
        }
    }

    const SEEN: Circumstances = Circumstances {
        had_instance: true,
        was_registered: true,
        was_online: true,
        was_draining: false,
        was_disabled_by_others: false,
        launch_failed: false,
    };

    #[test]
    fn a_detail_names_the_full_directory() {
        let mut ending = Ending::default();
        assert_eq!(ending.detail(), "");
        ending.full = Some("/tmp");
        assert_eq!(ending.detail(), "nothing more could be written to /tmp");
        ending.note = "it wrote no log".into();
        assert_eq!(
            ending.detail(),
            "nothing more could be written to /tmp; it wrote no log"
        );
    }

    #[test]
    fn every_end_has_its_reason() {
        let unseen = Circumstances {
            had_instance: false,
            ..SEEN
        };
        let draining = Circumstances {
            was_draining: true,
            ..SEEN
        };
        let disabled = Circumstances {
            was_disabled_by_others: true,
            ..draining
        };
        let offline = Circumstances {
            was_online: false,
            ..SEEN
        };
        let unregistered = Circumstances {
            was_registered: false,
            ..offline
        };
        let half_launched = Circumstances {
            launch_failed: true,
            ..offline
        };
        let reaped_with = |why, result| Past {
            job: job(Some(result)).job,
            ..reaped(why)
        };
        let lost = |result| Past {
            out_of_reach: true,
            ..job(result)
        };
        let without_job = |past: Past| Past { job: None, ..past };
        let oom = Past {
            ending: Some(Ending {
                out_of_memory: true,
                ..Ending::default()
            }),
            ..job(Some("failed"))
        };
        for (past, at, reason_is) in [
            (job(Some("succeeded")), SEEN, EndReason::JobSucceeded),
            (
                job(Some("succeededWithIssues")),
                SEEN,
                EndReason::JobSucceeded,
            ),
            (job(Some("failed")), draining, EndReason::JobFailed),
            (job(Some("canceled")), SEEN, EndReason::JobCancelled),
            (job(Some("canceled")), unseen, EndReason::JobCancelled),
            (job(None), SEEN, EndReason::JobEnded),
            (full(oom.clone()), SEEN, EndReason::OutOfMemory),
            (oom, SEEN, EndReason::OutOfMemory),
            (full(job(Some("failed"))), SEEN, EndReason::DiskFull),
            (full(job(Some("abandoned"))), SEEN, EndReason::DiskFull),
            (full(job(None)), SEEN, EndReason::DiskFull),
            (full(exited(3)), offline, EndReason::DiskFull),
            // It left nothing free, and needed nothing more.
            (full(job(Some("succeeded"))), SEEN, EndReason::JobSucceeded),
            (full(job(Some("canceled"))), SEEN, EndReason::JobCancelled),
            (full(Past::default()), draining, EndReason::Drained),
            (
                full(reaped_with(ReapReason::Deadline, "failed")),
                SEEN,
                EndReason::Deadline,
            ),
            (reaped(ReapReason::Forced), SEEN, EndReason::Forced),
            (reaped(ReapReason::Offline), SEEN, EndReason::LostContact),
            // It was, while Azure was out of reach.
            (
                reaped_with(ReapReason::NeverOnline, "succeeded"),
                offline,
                EndReason::JobSucceeded,
            ),
            (
                without_job(reaped(ReapReason::NeverOnline)),
                offline,
                EndReason::NeverOnline,
            ),
            (
                reaped_with(ReapReason::LaunchFailed, "failed"),
                half_launched,
                EndReason::JobFailed,
            ),
            // It was only slow to power off.
            (
                reaped_with(ReapReason::Offline, "succeeded"),
                SEEN,
                EndReason::JobSucceeded,
            ),
            (
                reaped_with(ReapReason::Offline, "abandoned"),
                SEEN,
                EndReason::LostContact,
            ),
            (lost(None), SEEN, EndReason::LostContact),
            (without_job(lost(None)), SEEN, EndReason::LostContact),
            (
                Past {
                    was_out_of_reach: true,
                    ..without_job(reaped(ReapReason::LaunchFailed))
                },
                offline,
                EndReason::LostContact,
            ),
            (lost(Some("succeeded")), SEEN, EndReason::JobSucceeded),
            (reaped(ReapReason::Stopped), SEEN, EndReason::JobEnded),
            (
                without_job(reaped(ReapReason::Stopped)),
                SEEN,
                EndReason::Stopped,
            ),
            (
                without_job(reaped(ReapReason::Stopped)),
                unregistered,
                EndReason::LaunchFailed,
            ),
            (
                without_job(reaped(ReapReason::Stopped)),
                half_launched,
                EndReason::LaunchFailed,
            ),
            (Past::default(), unregistered, EndReason::Vanished),
            // A guest may claim what it wants.
            (
                Past {
                    job: job(Some("succeeded")).job,
                    ..kept(Some(KeepWhen::JobFailed))
                },
                SEEN,
                EndReason::JobSucceeded,
            ),
            (Past::default(), draining, EndReason::Drained),
            (Past::default(), disabled, EndReason::DisabledInAzure),
            (Past::default(), unseen, EndReason::Unseen),
            (kept(None), offline, EndReason::Unseen),
            (kept(None), draining, EndReason::Drained),
            (
                kept(Some(KeepWhen::JobFailed)),
                offline,
                EndReason::JobFailed,
            ),
            (
                kept(Some(KeepWhen::NeverOnline)),
                offline,
                EndReason::NeverOnline,
            ),
            (Past::default(), offline, EndReason::Vanished),
            (Past::default(), SEEN, EndReason::Gone),
            (exited(0), SEEN, EndReason::Gone),
            (exited(3), offline, EndReason::AgentFailed),
        ] {
            assert_eq!(reason(&past, at), reason_is, "{past:?} {at:?}");
        }
    }
}
