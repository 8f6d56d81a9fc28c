//! Which daemons are meant: those of `--host`, of a group in a hosts file, or the one whose socket
//! is here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::CliError;

pub(crate) mod ssh;

/// One daemon, and the way to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// As it is shown.
    pub(crate) name: String,
    /// As `--host` takes it; `None` = it was not named, it is the one here.
    pub(crate) given: Option<String>,
    pub(crate) way: Way,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Socket(PathBuf),
    Ssh(ssh::Target),
}

/// Everything that is meant; never empty.
pub(crate) struct Hosts {
    pub(crate) all: Vec<Host>,
    /// Whether answers name their hosts: there are several, or as many as a group has.
    pub(crate) named: bool,
}

/// Environment variable that names hosts.
pub(crate) const HOST_VARIABLE: &str = "IAPCTL_HOST";

/// The socket here, among other hosts.
const LOCAL: &str = "local";

impl Hosts {
    /// Returns the daemon with its socket here.
    pub(crate) fn local(socket: &Path) -> Self {
        let host = Host {
            name: LOCAL.to_owned(),
            given: None,
            way: Way::Socket(socket.to_owned()),
        };
        Self {
            all: vec![host],
            named: false,
        }
    }

    /// Returns what the values of `--host` mean; `socket` is the one here.
    pub(crate) fn of(given: &[String], socket: &Path) -> Result<Self, CliError> {
        if given.is_empty() {
            return Ok(Self::local(socket));
        }
        // A hosts file that is not needed may have mistakes.
        let needs_file = |text: &String| !text.contains("://") && text != LOCAL;
        let book = if given.iter().any(needs_file) {
            Book::load()?
        } else {
            Book::default()
        };
        book.hosts(given, socket)
    }
}

/// The names and groups of the hosts files.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Book {
    #[serde(default)]
    hosts: BTreeMap<String, String>,
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
}

impl Book {
    /// Reads the files that are there; what this user's says comes before the host's.
    pub(crate) fn load() -> Result<Self, CliError> {
        let mut all = Self::default();
        for path in paths().into_iter().rev() {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CliError::Read { path, source }),
            };
            let book = Self::parse(&text).map_err(|error| {
                CliError::usage(
                    format!("{}: {error}", path.display()),
                    "it has hosts: {NAME: ssh://HOST} and groups: {NAME: [HOST, ...]}",
                )
            })?;
            all.hosts.extend(book.hosts);
            all.groups.extend(book.groups);
        }
        Ok(all)
    }

    fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        // An empty file has nothing to say.
        Ok(serde_yaml::from_str::<Option<Self>>(text)?.unwrap_or_default())
    }

    /// Returns what may stand behind `--host`, with what it means.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let groups = self.groups.iter();
        let groups = groups.map(|(name, members)| (format!("@{name}"), members.join(", ")));
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|(name, place)| (name.clone(), place.clone()));
        groups.chain(hosts).collect()
    }

    fn hosts(&self, given: &[String], socket: &Path) -> Result<Hosts, CliError> {
        let mut all: Vec<Host> = Vec::new();
        let mut named = false;
        for text in given {
            let members = match text.strip_prefix('@') {
                Some(group) => {
                    named = true;
                    self.group(group)?
                }
                None => std::slice::from_ref(text),
            };
            for member in members {
                let host = self.host(member, socket)?;
                if !all.iter().any(|other| other.way == host.way) {
                    all.push(host);
                }
            }
        }
        let names: Vec<String> = all.iter().map(|host| host.name.clone()).collect();
        for host in &mut all {
            if names.iter().filter(|name| **name == host.name).count() > 1 {
                host.name = host.given.clone().unwrap_or_default();
            }
        }
        let named = named || all.len() > 1;
        Ok(Hosts { all, named })
    }

    fn group(&self, name: &str) -> Result<&[String], CliError> {
        match self.groups.get(name) {
            Some(members) if !members.is_empty() => Ok(members),
            Some(_) => Err(CliError::usage(
                format!("nobody is in group @{name}"),
                format!("name its hosts in {}", places()),
            )),
            None => {
                let known: Vec<String> = self.groups.keys().map(|key| format!("@{key}")).collect();
                let known = match known.as_slice() {
                    [] => "there are no groups".to_owned(),
                    known => format!("the groups are {}", known.join(", ")),
                };
                Err(CliError::usage(
                    format!("there is no group @{name}"),
                    format!("{known}; they are in {}", places()),
                ))
            }
        }
    }

    fn host(&self, text: &str, socket: &Path) -> Result<Host, CliError> {
        let place = self.hosts.get(text).map_or(text, String::as_str);
        let wrong = |why: &str| {
            CliError::usage(
                format!("--host {text}: {why}"),
                "a host is ssh://[USER@]HOST[:PORT], unix:///PATH, local, or a name or @GROUP of \
                 the hosts file",
            )
        };
        let (name, way) = if place == LOCAL {
            (LOCAL.to_owned(), Way::Socket(socket.to_owned()))
        } else if let Some(path) = place.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(wrong("the path of a socket begins with a slash"));
            }
            (path.to_owned(), Way::Socket(path.into()))
        } else {
            let target = place.strip_prefix("ssh://").unwrap_or(place);
            if target.contains("://") {
                return Err(wrong("there is no such way to a host"));
            }
            let target = ssh::Target::parse(target).map_err(wrong)?;
            (target.host.clone(), Way::Ssh(target))
        };
        let is_name = self.hosts.contains_key(text);
        Ok(Host {
            name: if is_name { text.to_owned() } else { name },
            given: Some(text.to_owned()),
            way,
        })
    }
}

/// Returns where hosts files are looked for, the one that has the last word first.
fn paths() -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(var("HOME")?).join(".config")));
    let user = config.map(|directory| directory.join("iapd/hosts.yaml"));
    user.into_iter()
        .chain(["/etc/iapd/hosts.yaml".into()])
        .collect()
}

fn places() -> String {
    let paths: Vec<String> = paths()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" or ")
}

#[cfg(test)]
mod tests;
