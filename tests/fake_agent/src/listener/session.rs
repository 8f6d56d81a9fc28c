//! Creating the session, as often as it takes.

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::gethostname;

use crate::clock::stamp;
use crate::diag::Diag;
use crate::error::{CallError, chain};
use crate::exit::Exit;
use crate::files::Settings;
use crate::policy::{AfterSessionFailure, SESSION_RETRY, after_session_failure};
use crate::server::{Server, Session};

use super::Context;

/// Client objects that are connected before a session: generic, messages, job requests.
const CONNECTIONS: usize = 3;
/// What .NET calls the processor.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "ARM64"
} else {
    "X64"
};

/// Creates a session; the exit code when there is no hope.
pub(super) async fn create(
    context: &Context,
    server: &Server,
    settings: &Settings,
) -> Result<Session, Exit> {
    let diag = &context.diag;
    let host = gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let os = os_description();
    let mut capabilities = if settings.skip_capabilities_scan {
        BTreeMap::new()
    } else {
        context.env.capabilities()
    };
    for (name, value) in [
        ("Agent.Name", settings.agent_name.as_str()),
        ("Agent.Version", context.version.as_str()),
        ("Agent.OS", "Linux"),
        ("Agent.OSArchitecture", ARCHITECTURE),
        ("Agent.ComputerName", host.as_str()),
        ("Agent.HomeDirectory", &context.root.0.to_string_lossy()),
        ("InteractiveSession", "False"),
    ] {
        capabilities.insert(name.to_owned(), value.to_owned());
    }

    let (mut conflicts, mut skews, mut failed) = (0, 0, false);
    loop {
        let attempt = async {
            for _ in 0..CONNECTIONS {
                server.connect().await?;
            }
            server
                .create_session(&host, &context.version, &os, &capabilities)
                .await
        };
        let error = match attempt.await {
            Ok(session) => {
                if failed {
                    diag.timed("Agent reconnected.");
                }
                return Ok(session);
            }
            Err(error) => error,
        };
        conflicts += u32::from(error.class() == Some("TaskAgentSessionConflictException"));
        skews += u32::from(error.is_clock_skew());
        match after_session_failure(&error, conflicts, skews) {
            AfterSessionFailure::Retry => {}
            AfterSessionFailure::RetryConflict => {
                diag.error("A session for this agent already exists.");
            }
            AfterSessionFailure::RetrySkew => diag.error(
                "The local machine's clock may be out of sync with the server time by more than \
                 five minutes. Please sync your clock with your domain or internet time and try \
                 again.",
            ),
            AfterSessionFailure::Revoked => return Err(Exit::Success),
            hopeless => {
                explain(diag, &hopeless);
                diag.error(&format!("Failed to create session. {}", chain(&error)));
                return Err(Exit::Terminated);
            }
        }
        if !failed {
            failed = true;
            report(diag, &error);
        }
        context.clock.sleep(SESSION_RETRY).await;
    }
}

fn explain(diag: &Diag, hopeless: &AfterSessionFailure) {
    diag.error(match hopeless {
        AfterSessionFailure::AgentGone => {
            "The agent no longer exists on the server. Please reconfigure the agent."
        }
        AfterSessionFailure::GiveUpConflict => {
            "Stop retry on SessionConflictException after retried for 240 seconds."
        }
        AfterSessionFailure::GiveUpSkew => {
            "Stopped retrying OAuth token request exception after 1800 seconds."
        }
        _ => return,
    });
}

/// Says once that the service cannot be reached.
pub(super) fn report(diag: &Diag, error: &CallError) {
    diag.error(&format!(
        "{}: Agent connect error: {}. Retrying until reconnected.",
        stamp(),
        chain(error)
    ));
}

fn os_description() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || "Linux".to_owned(),
            |name| name.trim_matches('"').to_owned(),
        )
}
