//! What can go wrong, what an operator should do about it, and the exit code for it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use iap_common::client::ConnectError;
use iap_common::error::chain;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::rows::plain;
use crate::{fleet, style};

mod access;

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const TIMED_OUT: u8 = 3;
pub(crate) const NOT_FOUND: u8 = 4;
pub(crate) const REFUSED: u8 = 5;
pub(crate) const NOT_PERMITTED: u8 = 6;
pub(crate) const UNREACHABLE: u8 = 7;
pub(crate) const DETACHED: u8 = 130;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Connect(ConnectError),
    /// The daemon refused a call, or went away in the middle of it.
    #[error("{}", status_text(.0))]
    Rpc(Box<Status>),
    #[error("the daemon did not answer within {0} s")]
    NoAnswer(u64),
    /// A daemon on another host was not reached.
    #[error("{what}")]
    Host {
        what: String,
        hints: Vec<String>,
        code: u8,
    },
    /// The command line asks for something that cannot be.
    #[error("{what}")]
    Usage { what: String, hint: String },
    /// A wait ended before what it waited for; that goes on.
    #[error("{what}")]
    TimedOut { what: String, hint: String },
    /// What is asked for does not fit what is.
    #[error("{what}")]
    Refused { what: String, hint: String },
    /// The daemon answered, and the answer is a failure.
    #[error("{what}")]
    Failed { what: String, hints: Vec<String> },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot run {program}")]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Rpc(Box::new(status))
    }
}

impl CliError {
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// Returns whether the daemon does not know what was named.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == NOT_FOUND
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Host { code, .. } => *code,
            Self::Connect(ConnectError::NotPermitted(_)) => NOT_PERMITTED,
            Self::Connect(_) | Self::NoAnswer(_) => UNREACHABLE,
            Self::Rpc(status) => status_code(status),
            Self::Usage { .. } => USAGE,
            Self::TimedOut { .. } => TIMED_OUT,
            Self::Refused { .. } => REFUSED,
            Self::Failed { .. }
            | Self::Read { .. }
            | Self::Run { .. }
            | Self::Output(_)
            | Self::Runtime(_) => FAILED,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Connect(ConnectError::NoSocket(_)) => vec![
                "is the daemon running? see: systemctl status iapd".to_owned(),
                "a daemon with another socket: --socket PATH or IAPD_SOCKET".to_owned(),
            ],
            Self::Connect(ConnectError::NotListening(_)) => {
                vec!["start the daemon: systemctl start iapd".to_owned()]
            }
            Self::Connect(ConnectError::NotPermitted(path)) => vec![access::hint(path)],
            Self::Connect(ConnectError::Other { .. }) | Self::NoAnswer(_) => {
                vec!["what does the daemon say? see: journalctl -u iapd -n 50".to_owned()]
            }
            Self::Rpc(status) => status_hints(status),
            Self::Usage { hint, .. } | Self::TimedOut { hint, .. } | Self::Refused { hint, .. } => {
                vec![hint.clone()]
            }
            Self::Failed { hints, .. } | Self::Host { hints, .. } => hints.clone(),
            Self::Read { .. } | Self::Run { .. } | Self::Output(_) | Self::Runtime(_) => vec![],
        }
    }
}

/// Whether the daemon went away, so that a watch should try again.
pub(crate) fn daemon_is_gone(status: &Status) -> bool {
    // Where the connection broke. How that is told depends on the moment; a status that the
    // daemon sent has no source.
    let broke = std::error::Error::source(status).is_some();
    // With an ErrorInfo the daemon says that something else is unavailable, or that it is itself
    // about to go, or has just come.
    broke
        || status.code() == Code::Unavailable
            && status
                .get_error_details()
                .error_info()
                .is_none_or(|info| matches!(info.reason.as_str(), "STOPPING" | "STARTING"))
}

/// Whether the daemon is there and has not seen its agents yet.
fn is_starting(status: &Status) -> bool {
    let details = status.get_error_details();
    details
        .error_info()
        .is_some_and(|info| info.reason == "STARTING")
}

fn status_text(status: &Status) -> String {
    // The transport's own words ("tcp connect error", "h2 protocol error") help nobody.
    if std::error::Error::source(status).is_some() {
        return "the connection to the daemon was lost".to_owned();
    }
    match (status.message(), status.code()) {
        ("", code) => code.description().to_lowercase(),
        (message, _) => plain(message),
    }
}

fn status_code(status: &Status) -> u8 {
    if daemon_is_gone(status) {
        return UNREACHABLE;
    }
    match status.code() {
        Code::InvalidArgument => USAGE,
        Code::NotFound => NOT_FOUND,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => REFUSED,
        Code::PermissionDenied | Code::Unauthenticated => NOT_PERMITTED,
        _ => FAILED,
    }
}

fn status_hints(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut hints: Vec<String> = details.help().map_or_else(Vec::new, |help| {
        help.links
            .iter()
            .map(|link| plain(&link.description))
            .collect()
    });
    if hints.is_empty() {
        if is_starting(status) {
            hints.push("what keeps it from looking? see: iapctl status".to_owned());
        } else if daemon_is_gone(status) {
            hints.push("is the daemon running? see: systemctl status iapd".to_owned());
        } else if status.code() == Code::Unimplemented {
            hints.push("iapd is older than iapctl; compare: iapctl version".to_owned());
        }
    }
    hints
}

/// Writes `error:` and `hint:` lines to stderr and returns the exit code. A reader of stdout that
/// went away (`| head -1`) is no error.
pub(crate) fn report(error: &CliError) -> ExitCode {
    if let CliError::Output(source) = error
        && source.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    tell(error, "");
    ExitCode::from(error.code())
}

/// Writes the lines of an error of the host `name`.
pub(crate) fn report_of(name: &str, error: &CliError) {
    // That it is about this host is in its words.
    let about = match error {
        CliError::Host { .. } => String::new(),
        _ => format!("{name}: "),
    };
    tell(error, &about);
}

fn tell(error: &CliError, about: &str) {
    let mut stderr = anstream::stderr().lock();
    // Where stderr cannot be written to, the exit code is all there is left to say.
    let (bad, tip) = (style::BAD, style::HINT);
    let _ = writeln!(stderr, "{bad}error:{bad:#} {about}{}", chain(error));
    for hint in error.hints() {
        let _ = writeln!(stderr, "{tip}hint:{tip:#} {}", fleet::addressed(&hint));
    }
}
