//! Whose words a command's words are, while it acts on one of several hosts, and how the commands
//! in hints are spelt so that they go to the right one.

use std::sync::OnceLock;

use crate::hosts::Host;

tokio::task_local! {
    static HERE: Host;
}

/// The host of a run that is about one that was named.
static ONLY: OnceLock<String> = OnceLock::new();

/// First words of commands, as hints have them.
const NOUNS: [&str; 13] = [
    "agents",
    "audit",
    "auth",
    "config",
    "doctor",
    "drain",
    "events",
    "ghosts",
    "jobs",
    "pools",
    "provision",
    "resume",
    "status",
];

/// Runs `work` as what is done on one host of several.
pub(crate) async fn of_one<T>(host: &Host, work: impl Future<Output = T>) -> T {
    HERE.scope(host.clone(), work).await
}

/// Returns the name of the host that this is about, of several.
pub(crate) fn here() -> Option<String> {
    HERE.try_with(|host| host.name.clone()).ok()
}

/// Returns `text` with the host's name before each line, when this is about one of several.
pub(crate) fn prefixed(text: &str) -> String {
    let Some(name) = here() else {
        return text.to_owned();
    };
    let lines = text.lines().map(|line| format!("{name}: {line}"));
    let text: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    text.join("\n")
}

/// Settles that this run is about one host, given so.
pub(crate) fn only(given: &str) {
    // There is one run in a process.
    let _ = ONLY.set(given.to_owned());
}

/// Returns a hint with its commands addressed to the host that it is about.
pub(crate) fn addressed(hint: &str) -> String {
    let given = HERE.try_with(|host| host.given.clone()).ok().flatten();
    match given.as_ref().or_else(|| ONLY.get()) {
        Some(given) => readdressed(hint, given),
        None => hint.to_owned(),
    }
}

fn readdressed(hint: &str, given: &str) -> String {
    let mut parts = hint.split("iapctl ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("iapctl ");
        let word = part.split(|c: char| !c.is_ascii_lowercase()).next();
        if word.is_some_and(|word| NOUNS.contains(&word)) {
            text.push_str("--host ");
            text.push_str(given);
            text.push(' ');
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_hints_go_to_the_host_that_they_are_about() {
        assert_eq!(
            readdressed("undo: iapctl resume; see iapctl pools ls", "ssh://b"),
            "undo: iapctl --host ssh://b resume; see iapctl --host ssh://b pools ls"
        );
        assert_eq!(
            readdressed("iapctl 0.1 is older", "ssh://b"),
            "iapctl 0.1 is older"
        );
    }
}
