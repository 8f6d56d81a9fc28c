//! The agent's environment: what the process was started with, and `.env` on top.
//!
//! It is a value passed along rather than the process environment, which cannot be changed safely.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::clock::Clock;

/// Arguments may also come as variables with this prefix; jobs do not get to see them.
const INPUT_PREFIX: &str = "VSTS_AGENT_INPUT_";

/// Capabilities longer than this are left out by the real listener.
const MAX_CAPABILITY: usize = 1024;

/// Tools the listener looks for on the path.
const TOOLS: [&str; 8] = [
    "bash", "curl", "docker", "git", "java", "make", "npm", "python3",
];

/// What a signal to terminate does, which differs between the builds of the real agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSigterm {
    /// .NET 8 builds (4.x) clean up as for SIGINT, for at most 30 s.
    CleanUp,
    /// .NET 10 builds (5.x) die at once.
    Die,
}

/// Variables by name.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process environment and `.env` in the agent's root.
    ///
    /// # Errors
    /// Fails when there is a `.env` that cannot be read.
    pub fn load(root: &Path) -> io::Result<Self> {
        let process = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        let file = match fs::read_to_string(root.join(".env")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Self::new(process, &file))
    }

    /// Lays the lines of a `.env` file over variables.
    pub fn new(process: impl IntoIterator<Item = (String, String)>, file: &str) -> Self {
        let mut variables: BTreeMap<_, _> = process.into_iter().collect();
        for line in file.trim_start_matches('\u{feff}').lines() {
            if let Some((name, value)) = line.split_once('=')
                && !name.is_empty()
            {
                variables.insert(name.to_owned(), value.to_owned());
            }
        }
        Self(variables)
    }

    /// Returns a variable unless it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Tells whether a test switch is on.
    pub fn switch(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// Returns all variables.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the variables a worker starts with.
    pub fn for_worker(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all()
            .filter(|(name, _)| !name.starts_with(INPUT_PREFIX))
    }

    /// Returns an argument given as a variable.
    pub fn input(&self, argument: &str) -> Option<&str> {
        self.get(&format!("{INPUT_PREFIX}{argument}"))
    }

    /// Returns the clock with the scale given for tests.
    pub fn clock(&self) -> Clock {
        Clock::new(self.get("FAKE_AGENT_TIME_SCALE"))
    }

    /// Returns what SIGTERM does: as `FAKE_AGENT_SIGTERM` says, else as the agent's major version does.
    pub fn on_sigterm(&self, version: &str) -> OnSigterm {
        match self.get("FAKE_AGENT_SIGTERM") {
            Some("net8") => OnSigterm::CleanUp,
            Some("net10") => OnSigterm::Die,
            _ if version.starts_with("5.") => OnSigterm::Die,
            _ => OnSigterm::CleanUp,
        }
    }

    /// Returns what the listener reports about its surroundings: variables and tools.
    pub fn capabilities(&self) -> BTreeMap<String, String> {
        let ignored: Vec<_> = self
            .get("VSO_AGENT_IGNORE")
            .unwrap_or("")
            .split(',')
            .collect();
        let mut capabilities: BTreeMap<_, _> = self
            .for_worker()
            .filter(|(name, value)| {
                value.len() < MAX_CAPABILITY
                    && *name != "VSO_AGENT_IGNORE"
                    && !ignored
                        .iter()
                        .any(|ignored| ignored.trim().eq_ignore_ascii_case(name))
            })
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for tool in TOOLS {
            let found = self
                .get("PATH")
                .unwrap_or("")
                .split(':')
                .map(|directory| Path::new(directory).join(tool))
                .find(|path| path.is_file());
            if let Some(path) = found {
                capabilities.insert(tool.to_owned(), path.display().to_string());
            }
        }
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, OnSigterm};

    fn environment(pairs: &[(&str, &str)], file: &str) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
            file,
        )
    }

    #[test]
    fn the_env_file_wins_and_may_use_names_a_shell_cannot() {
        let env = environment(
            &[("A", "process"), ("B", "1")],
            "A=file\nagent.disableupdate=1\nno value\nURL=a=b\n",
        );
        assert_eq!(env.get("A"), Some("file"));
        assert_eq!(env.get("URL"), Some("a=b"));
        assert!(env.switch("agent.disableupdate") && env.switch("B") && !env.switch("C"));
    }

    #[test]
    fn input_variables_reach_neither_workers_nor_capabilities() {
        let env = environment(&[("VSTS_AGENT_INPUT_ONCE", "true"), ("label", "x")], "");
        assert_eq!(env.input("ONCE"), Some("true"));
        assert_eq!(env.for_worker().collect::<Vec<_>>(), [("label", "x")]);
        assert_eq!(
            env.capabilities().into_keys().collect::<Vec<_>>(),
            ["label"]
        );
    }

    #[test]
    fn capabilities_leave_out_what_is_ignored_or_long() {
        let long = "x".repeat(1024);
        let env = environment(
            &[
                ("VSO_AGENT_IGNORE", "Secret,other"),
                ("SECRET", "s"),
                ("long", &long),
                ("k", "v"),
            ],
            "",
        );
        assert_eq!(env.capabilities().into_keys().collect::<Vec<_>>(), ["k"]);
    }

    #[test]
    fn sigterm_follows_the_build_unless_told_otherwise() {
        let plain = environment(&[], "");
        assert_eq!(plain.on_sigterm("4.275.0"), OnSigterm::CleanUp);
        assert_eq!(plain.on_sigterm("5.278.0"), OnSigterm::Die);
        let told = environment(&[("FAKE_AGENT_SIGTERM", "net10")], "");
        assert_eq!(told.on_sigterm("4.275.0"), OnSigterm::Die);
    }
}
