//! Asks before a job is killed, or something else that nobody can take back.

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
    if !can_ask() {
        return Err(CliError::usage(
            "jobs would fail, and nobody can be asked here",
            "pass --yes",
        ));
    }
    for agent in agents {
        let answer = ask(&format!("Type {} to let its job fail: ", agent.name))?;
        if answer.trim() != agent.name {
            return Err(CliError::usage(
                "not confirmed, nothing was done",
                "type the name, or pass --yes",
            ));
        }
    }
    Ok(())
}

/// Has `word` typed, of what nobody can take back.
pub(super) fn confirm_by_typing(word: &str, meaning: &str) -> Result<(), CliError> {
    if !can_ask() {
        let what = "nothing was done: nobody can be asked here";
        return Err(CliError::usage(what, "pass --yes"));
    }
    let answer = ask(&format!("Type {word} {meaning}: "))?;
    if answer.trim() == word {
        return Ok(());
    }
    Err(CliError::usage(
        "not confirmed, nothing was done",
        format!("type {word}, or pass --yes"),
    ))
}

/// Asks whether to go on, unless `yes`.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        let what = "nothing was done: nobody can be asked here";
        return Err(CliError::usage(what, "pass --yes"));
    }
    ask_whether(question)
}

/// Asks whether to go on.
pub(crate) fn ask_whether(question: &str) -> Result<(), CliError> {
    let answer = ask(&format!("{question} [y/N] "))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::usage(
            "not confirmed, nothing was done",
            "answer y, or pass --yes",
        )),
    }
}

/// Returns whether there is somebody to ask.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(question: &str) -> Result<String, CliError> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|source| CliError::Read {
            path: "the answer".into(),
            source,
        })?;
    Ok(answer)
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
