//! Asks before a job is killed.

use std::io::{IsTerminal, Write};

use jiff::Timestamp;

use crate::error::CliError;
use crate::progress::say;
use crate::rows::agent::Agent;

/// Shows whose jobs would fail and has their agents' names typed, unless `yes`.
pub(super) fn confirm_jobs_lost(agents: &[Agent], yes: bool) -> Result<(), CliError> {
    let now = Timestamp::now();
    for agent in agents {
        say(&format!("{}  {}", agent.name, loss(agent, now)));
    }
    if yes || agents.is_empty() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(CliError::usage(
            "jobs would fail, and nobody can be asked here",
            "pass --yes",
        ));
    }
    for agent in agents {
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "Type {} to let its job fail: ", agent.name);
        let _ = stderr.flush();
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|source| CliError::Read {
                path: "the answer".into(),
                source,
            })?;
        if answer.trim() != agent.name {
            return Err(CliError::usage(
                "not confirmed, nothing was done",
                "type the name, or pass --yes",
            ));
        }
    }
    Ok(())
}

fn loss(agent: &Agent, now: Timestamp) -> String {
    match &agent.job {
        Some(job) => {
            let requester = job
                .requester()
                .map_or_else(String::new, |who| format!(" for {who}"));
            format!("loses its job: {}{requester}", job.with_run_time(now))
        }
        None => "loses its job".to_owned(),
    }
}
