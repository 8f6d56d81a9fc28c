//! Small words to an instance: the wish to go, and the answer to its doorbell.

use std::time::Duration;

use hyper::body::Bytes;
use serde::Deserialize;

use crate::agent::{Drain, key};
use crate::incus::{FileMeta, InstancePatch};

use super::super::ending::Ending;
use super::{ApplyError, Context, evidence};

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

#[derive(Deserialize)]
struct StatusFile {
    #[serde(default)]
    result: String,
    #[serde(default)]
    exit_code: String,
    #[serde(default)]
    exit_status: String,
    #[serde(default)]
    full: String,
}

/// The directories whose room the hook looks at.
const ROOMS: [&str; 2] = ["/home/agent", "/tmp"];

/// Reads what the hook wrote. A hostile file yields an ending of which nothing is known.
pub(crate) fn parse(content: &[u8]) -> Ending {
    let Ok(file) = serde_json::from_slice::<StatusFile>(content) else {
        return Ending::default();
    };
    let exited = file.exit_code == "exited";
    Ending {
        exit_status: exited.then(|| file.exit_status.parse().ok()).flatten(),
        // systemd's word, see SERVICE_RESULT in systemd.exec(5).
        out_of_memory: file.result == "oom-kill",
        full: ROOMS.into_iter().find(|directory| *directory == file.full),
        note: String::new(),
    }
}

/// What a machine is told whose agent has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// It may power off.
    Go,
    /// It stays.
    Keep,
}

/// Lets the machine of an agent go that has ended. Unless that is known already, reads how it
/// ended before, and keeps what it left.
pub async fn answer_doorbell(
    context: &Context,
    name: &str,
    heard: bool,
) -> Result<Option<Ending>, ApplyError> {
    if heard {
        give_verdict(context, name, Verdict::Go).await?;
        return Ok(None);
    }
    let Some(mut ending) = read_ending(context, name).await else {
        return Ok(Some(Ending::default()));
    };
    ending.note = evidence::collect(context, name).await;
    give_verdict(context, name, Verdict::Go).await?;
    Ok(Some(ending))
}

/// Reads how the agent ended. Nothing is read when a job rang, or the machine is gone already.
pub(super) async fn read_ending(context: &Context, name: &str) -> Option<Ending> {
    let read = context
        .project
        .read_file(name, STATUS_PATH, None, STATUS_CAP, FILE_DEADLINE)
        .await;
    read.ok().map(|content| parse(&content))
}

/// Answers the hook that waits in the guest.
pub(super) async fn give_verdict(
    context: &Context,
    name: &str,
    verdict: Verdict,
) -> Result<(), ApplyError> {
    let word = match verdict {
        Verdict::Go => &b"go\n"[..],
        Verdict::Keep => b"keep\n",
    };
    match context
        .project
        .push_file(
            name,
            VERDICT_PATH,
            &VERDICT,
            Bytes::from_static(word),
            FILE_DEADLINE,
        )
        .await
    {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
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
            parse(text),
            Ending {
                exit_status: Some(0),
                ..Ending::default()
            }
        );
        let text = br#"{"result":"signal","exit_code":"killed","exit_status":"KILL","ended":1}"#;
        assert_eq!(parse(text), Ending::default());
        let text = br#"{"result":"oom-kill","exit_code":"killed","exit_status":"KILL","ended":1}"#;
        assert!(parse(text).out_of_memory);
        let text = br#"{"result":"success","exit_code":"exited","exit_status":"0","full":"/tmp"}"#;
        assert_eq!(parse(text).full, Some("/tmp"));
        assert_eq!(parse(br#"{"full":""}"#).full, None);
        // Only what the hook can have written.
        assert_eq!(parse(br#"{"full":"/tmp\n\u001b[2J"}"#).full, None);
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
            assert_eq!(parse(text), Ending::default());
        }
    }
}
