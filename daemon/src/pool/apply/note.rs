//! Small words to an instance: the wish to go, and the answer to its doorbell.

use std::time::Duration;

use hyper::body::Bytes;
use serde::Deserialize;

use crate::agent::{Drain, key};
use crate::incus::{FileMeta, InstancePatch};

use super::{ApplyError, Context};

const FILE_DEADLINE: Duration = Duration::from_secs(10);
/// The hook writes about a hundred bytes; the file is the guest's, so it is not trusted.
const STATUS_CAP: usize = 4096;
const STATUS_PATH: &str = "/run/iapd/status.json";
const VERDICT_PATH: &str = "/run/iapd/verdict";
const VERDICT: FileMeta = FileMeta {
    uid: 0,
    gid: 0,
    mode: 0o644,
};

/// Writes the wish to go onto an instance, where it survives everything but the instance.
pub async fn drain(context: &Context, name: &str, drain: Drain) -> Result<(), ApplyError> {
    let patch = InstancePatch::config(key::DRAIN, drain.as_value());
    context
        .project
        .patch(name, &patch)
        .await
        .map_err(ApplyError::incus("cannot note the drain on the instance"))
}

/// How the agent's unit ended, as its guest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// Exit status of the agent, if it exited.
    pub exit_status: Option<i32>,
}

#[derive(Deserialize)]
struct StatusFile {
    #[serde(default)]
    exit_code: String,
    #[serde(default)]
    exit_status: String,
}

impl Ending {
    /// Reads what the hook wrote. A hostile file yields an ending of which nothing is known.
    pub fn parse(content: &[u8]) -> Self {
        let Ok(file) = serde_json::from_slice::<StatusFile>(content) else {
            return Self::default();
        };
        let exited = file.exit_code == "exited";
        Self {
            exit_status: exited.then(|| file.exit_status.parse().ok()).flatten(),
        }
    }
}

/// Reads how the agent ended and lets its machine go.
pub async fn answer_doorbell(context: &Context, name: &str) -> Result<Ending, ApplyError> {
    let read = context
        .project
        .read_file(name, STATUS_PATH, None, STATUS_CAP, FILE_DEADLINE)
        .await;
    let ending = match read {
        Ok(content) => Ending::parse(&content),
        // Rung by a job, or gone already.
        Err(_) => return Ok(Ending::default()),
    };
    match context
        .project
        .push_file(
            name,
            VERDICT_PATH,
            &VERDICT,
            Bytes::from_static(b"go\n"),
            FILE_DEADLINE,
        )
        .await
    {
        Ok(()) => Ok(ending),
        Err(error) if error.is_not_found() => Ok(ending),
        Err(source) => Err(ApplyError::Incus {
            doing: "cannot answer the agent's doorbell",
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_read_from_the_hooks_file() {
        let text = br#"{"result":"success","exit_code":"exited","exit_status":"0","ended":1}"#;
        assert_eq!(
            Ending::parse(text),
            Ending {
                exit_status: Some(0)
            }
        );
        let text = br#"{"result":"signal","exit_code":"killed","exit_status":"KILL","ended":1}"#;
        assert_eq!(Ending::parse(text), Ending { exit_status: None });
    }

    #[test]
    fn a_hostile_status_file_says_nothing() {
        for text in [
            &b"\xff\xfe"[..],
            b"[]",
            b"{\"exit_status\":7}",
            b"",
            b"{\"exit_code\":",
        ] {
            assert_eq!(Ending::parse(text), Ending::default());
        }
    }
}
