//! The one table from errors to gRPC codes, with a stable reason and a hint for people.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use iap_common::error::chain;

use crate::config::nearest;
use crate::incus::IncusError;
use crate::intents::IntentsError;
use crate::pool::command::CommandError;
use crate::pool::ghosts::{Refusal, span};
use crate::provision::{ImageError, ProvisionError};
use crate::store::StoreError;

const DOMAIN: &str = "iapd";

fn status(code: Code, reason: &str, message: impl Into<String>, hint: Option<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    if let Some(hint) = hint {
        details.add_help_link(hint, "");
    }
    Status::with_error_details(code, message, details)
}

pub(super) fn bad_request(message: impl Into<String>) -> Status {
    status(Code::InvalidArgument, "BAD_REQUEST", message, None)
}

pub(super) fn stopping() -> Status {
    status(
        Code::Unavailable,
        "STOPPING",
        "the daemon is stopping",
        None,
    )
}

/// The daemon has not seen yet what it is asked about.
pub(super) fn starting(pool: &str, why: Option<String>) -> Status {
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    status(
        Code::Unavailable,
        "STARTING",
        format!("the daemon has just started and has not seen the agents of pool {pool} yet{why}"),
        None,
    )
}

/// Not found, with the nearest name there is.
pub(super) fn no_such<'a, I>(kind: &str, name: &str, known: I) -> Status
where
    I: IntoIterator<Item = &'a str>,
{
    let reason = format!("NO_SUCH_{}", kind.to_uppercase().replace(' ', "_"));
    let hint = nearest(name, known.into_iter()).map(|near| format!("did you mean {near}?"));
    status(
        Code::NotFound,
        &reason,
        format!("no such {kind}: {name}"),
        hint,
    )
}

pub(super) fn command(error: CommandError) -> Status {
    let message = error.to_string();
    match error {
        CommandError::NoSuchAgent(_) => status(Code::NotFound, "NO_SUCH_AGENT", message, None),
        CommandError::Busy { .. } => {
            let hint = "wait for it with iapctl agents drain, or use --force: the job fails";
            status(
                Code::FailedPrecondition,
                "AGENT_BUSY",
                message,
                Some(hint.into()),
            )
        }
        CommandError::NotProven { name, .. } => {
            let hint = format!("remove it all the same: iapctl agents reap {name} --force");
            let code = Code::FailedPrecondition;
            status(code, "NOT_PROVEN", message, Some(hint))
        }
        CommandError::Registered { .. } => {
            let hint = "it can go when Azure has given its job up; cancel the job there";
            let code = Code::FailedPrecondition;
            status(code, "AGENT_BUSY", message, Some(hint.into()))
        }
        CommandError::Kept(name) => {
            let hint = format!("let it go: iapctl agents release {name}");
            let code = Code::FailedPrecondition;
            status(code, "AGENT_KEPT", message, Some(hint))
        }
        CommandError::NotKept(_) => {
            let hint = "keep it: iapctl agents keep AGENT --for 2h";
            let code = Code::FailedPrecondition;
            status(code, "AGENT_NOT_KEPT", message, Some(hint.into()))
        }
        CommandError::CannotKeep(..) => {
            let hint = "those that are starting, idle, busy, unknown or kept can be";
            let code = Code::FailedPrecondition;
            status(code, "CANNOT_KEEP", message, Some(hint.into()))
        }
        CommandError::NotAdopted(refusal) => not_adopted(refusal),
        CommandError::Failed(_) => status(Code::Internal, "FAILED", message, None),
        CommandError::NotNow(_) => {
            let hint = "try again in a while; what is wrong? see: iapctl status";
            status(Code::Unavailable, "NOT_NOW", message, Some(hint.into()))
        }
        CommandError::PoolGone => status(Code::NotFound, "POOL_GONE", message, None),
    }
}

/// Another owner's registrations stay.
pub(super) fn not_adopted(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    let refused = |reason, hint: &str| {
        let hint = Some(hint.to_owned());
        status(Code::FailedPrecondition, reason, message.clone(), hint)
    };
    match refusal {
        Refusal::Unknown { owner, known } => {
            let near = nearest(&owner, known.iter().map(String::as_str));
            let hint = match (near, known.as_slice()) {
                (Some(near), _) => format!("did you mean {near}?"),
                (None, []) => "no other host has registrations there".to_owned(),
                (None, known) => format!("other owners there: {}", known.join(", ")),
            };
            status(Code::NotFound, "NO_SUCH_OWNER", message, Some(hint))
        }
        Refusal::Ours(_) => refused(
            "OWN_GHOSTS",
            "iapd sweeps its own ghosts by itself; see: iapctl ghosts ls",
        ),
        Refusal::Unseen(_) => {
            let hint = "why there is no newer one: iapctl status";
            refused("NOT_LISTED", hint)
        }
        Refusal::Lives { .. } => refused(
            "OWNER_LIVES",
            "only a host that is gone for good can be adopted: stop iapd there, and its agents",
        ),
        Refusal::TooEarly { left, .. } => {
            let hint = format!("it can be tried in {}, if they stay so", span(left));
            refused("TOO_EARLY", &hint)
        }
        Refusal::UnderWay(_) => refused("UNDER_WAY", "see how far it got: iapctl ghosts ls"),
        Refusal::Named(_) => refused("NAME_TAKEN", "look at it: iapctl agents ls"),
    }
}

pub(super) fn incus(error: &IncusError) -> Status {
    let message = chain(error).to_string();
    if error.is_not_found() {
        status(Code::NotFound, "GONE", message, None)
    } else if error.is_transient() {
        status(Code::Unavailable, "INCUS_UNREACHABLE", message, None)
    } else {
        status(Code::Internal, "INCUS", message, None)
    }
}

pub(super) fn store(error: &StoreError) -> Status {
    let message = chain(error).to_string();
    match error {
        StoreError::Off(_) => status(Code::FailedPrecondition, "HISTORY_OFF", message, None),
        StoreError::TimedOut => status(Code::Unavailable, "HISTORY_BUSY", message, None),
        StoreError::Sqlite(_) => status(Code::Internal, "HISTORY", message, None),
    }
}

pub(super) fn evidence(error: &std::io::Error) -> Status {
    let message = format!("cannot read the evidence: {error}");
    match error.kind() {
        std::io::ErrorKind::InvalidInput => bad_request(message),
        _ => status(Code::Internal, "EVIDENCE", message, None),
    }
}

pub(super) fn intents(error: &IntentsError) -> Status {
    let message = chain(error).to_string();
    match error {
        IntentsError::LeftAlone(_) => {
            let hint = "move the file away and restart iapd, or run the iapd that wrote it";
            let reason = "INTENTS_LEFT_ALONE";
            status(Code::FailedPrecondition, reason, message, Some(hint.into()))
        }
        IntentsError::Write { .. } => status(Code::Internal, "DISK", message, None),
    }
}

/// A change asked for through the viewers' socket.
pub(super) fn only_looks(command: &str, group: &str) -> Status {
    status(
        Code::PermissionDenied,
        "ONLY_LOOKS",
        format!("you may look but not change: \"{command}\" is for members of group {group}"),
        Some(format!(
            "join group {group}: sudo usermod -aG {group} $USER, then log in again"
        )),
    )
}

pub(super) fn internal(message: impl Into<String>) -> Status {
    status(Code::Internal, "INTERNAL", message, None)
}

pub(super) fn not_ready(message: impl Into<String>) -> Status {
    status(Code::FailedPrecondition, "NOT_READY", message, None)
}

pub(super) fn provision(error: &ProvisionError) -> Status {
    let message = chain(error).to_string();
    match error {
        ProvisionError::Invalid(_) | ProvisionError::NotAPackage(_) => {
            status(Code::InvalidArgument, "BAD_REQUEST", message, None)
        }
        ProvisionError::QueueFull(_) => {
            status(Code::ResourceExhausted, "QUEUE_FULL", message, None)
        }
        ProvisionError::CacheFull(_) => {
            status(Code::ResourceExhausted, "CACHE_FULL", message, None)
        }
        ProvisionError::NotFound(_) => {
            let hint = "list them with iapctl provision ls";
            status(Code::NotFound, "NO_SUCH_JOB", message, Some(hint.into()))
        }
        ProvisionError::AlreadyEnded { .. } => {
            status(Code::FailedPrecondition, "ALREADY_ENDED", message, None)
        }
        ProvisionError::Stopping => stopping(),
        ProvisionError::Upload(_) | ProvisionError::UploadStalled(_) => {
            status(Code::Aborted, "UPLOAD", message, None)
        }
        ProvisionError::Disk { .. } => status(Code::Internal, "DISK", message, None),
    }
}

/// A target of several projects, without the one that is meant.
pub(super) fn ambiguous_target(target: &str, projects: &[String]) -> Status {
    status(
        Code::InvalidArgument,
        "AMBIGUOUS_TARGET",
        format!(
            "there is a target {target} in projects {}",
            projects.join(", ")
        ),
        Some("name one with --project".into()),
    )
}

pub(super) fn image(error: &ImageError) -> Status {
    let message = chain(error).to_string();
    let refused = |reason, hint: Option<String>| {
        status(Code::FailedPrecondition, reason, message.clone(), hint)
    };
    let look = |target: &str| Some(format!("look at its images: iapctl images ls {target}"));
    match error {
        ImageError::NoAlias { target, .. } => refused("NO_ALIAS", look(target)),
        ImageError::NoneOlder { target, .. } => refused("NONE_OLDER", look(target)),
        ImageError::IsCurrent { target, .. } => refused("IS_CURRENT", look(target)),
        ImageError::Moved { target, .. } => refused("MOVED", look(target)),
        ImageError::JobUnderWay { job, .. } => {
            let hint = format!("wait for it: iapctl provision watch {job}");
            refused("JOB_UNDER_WAY", Some(hint))
        }
        ImageError::NoSuchImage { target, .. } => {
            status(Code::NotFound, "NO_SUCH_IMAGE", message, look(target))
        }
        ImageError::Ambiguous { target, .. } => {
            status(Code::InvalidArgument, "AMBIGUOUS", message, look(target))
        }
        ImageError::NoSuchProject(_) => status(Code::NotFound, "NO_SUCH_PROJECT", message, None),
        ImageError::Stopping => stopping(),
        ImageError::Incus { source, .. } if source.is_transient() => {
            status(Code::Unavailable, "INCUS_UNREACHABLE", message, None)
        }
        ImageError::Incus { .. } => status(Code::Internal, "INCUS", message, None),
    }
}
