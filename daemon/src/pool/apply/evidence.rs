//! Collects what an agent leaves behind, while its machine waits for its end: the agent's output,
//! its diagnostic logs, the console. What is in the guest is hostile: few files, only regular ones,
//! only their ends, within a time that the waiting hook allows.

use std::time::Duration;

use tracing::debug;

use iap_common::error::chain;

use crate::incus::IncusError;

use super::Context;

/// The hook waits five seconds for its verdict.
const BUDGET: Duration = Duration::from_secs(3);
const READ: Duration = Duration::from_secs(2);
const LOG_PATH: &str = "/home/agent/azp-agent.log";
const DIAG_PATH: &str = "/home/agent/_diag";
/// The file that the agent's output is kept in.
pub const LOG_FILE: &str = "agent.log";
const CONSOLE_FILE: &str = "console.log";
/// How much of its end is kept, in bytes.
pub const LOG_CAP: u64 = 1024 * 1024;
const DIAG_CAP: u64 = 512 * 1024;
const DIAG_FILES: usize = 6;
const NAMES_CAP: usize = 256 * 1024;
const DISK_FULL: &[u8] = b"No space left on device";

/// Keeps what an agent left, and returns what there is to say of it; empty when all is there.
pub(super) async fn collect(context: &Context, name: &str) -> String {
    let mut notes = Vec::new();
    if tokio::time::timeout(BUDGET, all(context, name, &mut notes))
        .await
        .is_err()
    {
        notes.push("collecting took too long, the rest is missing".to_owned());
    }
    if !notes.is_empty() {
        debug!(agent = name, ?notes, "evidence is incomplete");
    }
    notes.join("; ")
}

async fn all(context: &Context, name: &str, notes: &mut Vec<String>) {
    match tail(context, name, LOG_PATH, LOG_CAP).await {
        Ok(log) => {
            if log.windows(DISK_FULL.len()).any(|part| part == DISK_FULL) {
                notes.push("its log says that its disk was full".to_owned());
            }
            save(context, name, LOG_FILE, log, notes).await;
        }
        Err(error) if error.is_not_found() => notes.push("it wrote no log".to_owned()),
        Err(error) => notes.push(format!("its log is missing: {}", chain(&error))),
    }
    // The console says why a guest went down; a container's is there as long as the container is.
    match context.project.console_log(name).await {
        Ok(console) if console.is_empty() => {}
        Ok(console) => save(context, name, CONSOLE_FILE, console, notes).await,
        Err(error) => debug!(agent = name, error = %chain(&error), "no console log"),
    }
    let list = context
        .project
        .list_directory(name, DIAG_PATH, NAMES_CAP, READ);
    let names = match list.await {
        Ok(names) => names,
        Err(error) => {
            debug!(agent = name, error = %chain(&error), "no diagnostic logs");
            return;
        }
    };
    for file in newest(names) {
        let path = format!("{DIAG_PATH}/{file}");
        match tail(context, name, &path, DIAG_CAP).await {
            Ok(content) => save(context, name, &file, content, notes).await,
            Err(error) => debug!(agent = name, file, error = %chain(&error), "not collected"),
        }
    }
}

/// The agent's own logs, whose names end in a date, the newest of each kind first.
fn newest(names: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| {
            let known = name.starts_with("Agent_") || name.starts_with("Worker_");
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            known && name.ends_with(".log") && name.len() < 100 && name.chars().all(plain)
        })
        .collect();
    names.sort_by(|a, b| {
        let date = |name: &str| name.split_once('_').map(|(_, date)| date.to_owned());
        date(b).cmp(&date(a))
    });
    names.truncate(DIAG_FILES);
    names
}

async fn tail(context: &Context, name: &str, path: &str, cap: u64) -> Result<Vec<u8>, IncusError> {
    let info = context.project.head_file(name, path, READ).await?;
    let size = info.and_then(|info| info.size).unwrap_or(0);
    let range = Some((size.saturating_sub(cap), cap));
    let cap = usize::try_from(cap).unwrap_or(usize::MAX);
    context
        .project
        .read_file(name, path, range, cap, READ)
        .await
}

async fn save(
    context: &Context,
    name: &str,
    file: &str,
    content: Vec<u8>,
    notes: &mut Vec<String>,
) {
    if let Err(error) = context.evidence.save(name, file, content).await {
        notes.push(format!("cannot keep {file}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_logs_of_the_agent_are_wanted() {
        let names = [
            "Agent_20261123-100000-utc.log",
            "Worker_20261123-100200-utc.log",
            "Worker_20261123-100100-utc.log",
            "../../etc/shadow",
            "Agent_..\u{2f}x.log",
            "pages",
            "Agent_x.txt",
        ];
        let names = names.map(str::to_owned).to_vec();
        assert_eq!(
            newest(names),
            [
                "Worker_20261123-100200-utc.log",
                "Worker_20261123-100100-utc.log",
                "Agent_20261123-100000-utc.log",
            ]
        );
        let many = (0..1000).map(|n| format!("Agent_2026{n}.log")).collect();
        assert_eq!(newest(many).len(), DIAG_FILES);
    }
}
