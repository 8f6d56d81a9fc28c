//! What a caller may ask for, and whether it makes sense. Everything that can be known without
//! Incus and Azure is judged here, and all of it at once.

use std::fmt::{Debug, Formatter};

use serde::{Deserialize, Serialize};

/// More scripts than this are a mistake.
const MAX_SCRIPTS: usize = 64;
/// Scripts are kept in memory while their job waits.
const MAX_SCRIPT_BYTES: usize = 1024 * 1024;
const MAX_ALIAS: usize = 128;

/// A wish for an image.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// `images:ubuntu/24.04`, `local:alias` or a bare alias.
    pub base: String,
    /// Alias that shall point at the new image.
    pub target: String,
    /// Run in this order, as root.
    pub scripts: Vec<Script>,
    /// Make a virtual machine image.
    pub vm: bool,
    /// Incus project; empty means `default`.
    pub project: String,
    /// Do not install docker.
    pub no_docker: bool,
    /// Leave the builder there when a step fails.
    pub keep_on_failure: bool,
    /// Which agent package goes in.
    pub package: PackageSource,
    /// What the package's SHA-256 has to be, in hex; Azure's own value when there is none.
    pub expected_sha256: Option<String>,
    /// The configured pool whose Azure organisation is asked for the package; any when `None`.
    pub azure_pool: Option<String>,
    /// The builder's profiles; empty means `default`.
    pub profiles: Vec<String>,
    /// Who asks, for the record.
    pub requested_by: String,
}

/// A user script.
#[derive(Clone)]
pub struct Script {
    /// File name, shown as the step's name.
    pub name: String,
    /// What is run.
    pub content: Vec<u8>,
}

// Scripts may carry what their authors would not want in a log.
impl Debug for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({}, {} bytes)", self.name, self.content.len())
    }
}

/// Where the agent package comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageSource {
    /// Asked of Azure: a version, or `latest`.
    Version(String),
    /// In the cache already.
    Uploaded {
        /// Its SHA-256 in hex, which is its name there.
        sha256: String,
    },
}

/// The version that means whatever is the newest.
pub(super) const LATEST: &str = "latest";

impl JobRequest {
    /// Fills in defaults and returns what is wrong, in the caller's words.
    pub(super) fn normalise(&mut self) -> Vec<String> {
        for text in [&mut self.base, &mut self.target, &mut self.project] {
            *text = text.trim().to_owned();
        }
        if self.project.is_empty() {
            "default".clone_into(&mut self.project);
        }
        if self.profiles.is_empty() {
            self.profiles.push("default".to_owned());
        }

        let mut problems = Vec::from_iter(Base::parse(&self.base).err());
        let mut check = |fine: bool, problem: &dyn Fn() -> String| {
            if !fine {
                problems.push(problem());
            }
        };
        // Incus 7.0 refuses an alias that ends otherwise, which would be known only at the end.
        let ends_well = self.target.ends_with(|c: char| c.is_ascii_alphanumeric());
        check(is_alias(&self.target) && ends_well, &|| {
            format!(
                "target {:?}: not an image alias (letters, digits, . _ - /, a letter or digit \
                 first and last)",
                self.target
            )
        });
        check(is_name(&self.project), &|| {
            format!("project {:?}: not a name", self.project)
        });
        for profile in &self.profiles {
            check(is_name(profile), &|| {
                format!("profile {profile:?}: not a name")
            });
        }

        check(self.scripts.len() <= MAX_SCRIPTS, &|| {
            format!(
                "{} scripts: at most {MAX_SCRIPTS} are taken",
                self.scripts.len()
            )
        });
        for script in &self.scripts {
            check(is_file_name(&script.name), &|| {
                format!("script {:?}: not a file name", script.name)
            });
            check(!script.content.is_empty(), &|| {
                format!("script {}: is empty", script.name)
            });
            check(script.content.len() <= MAX_SCRIPT_BYTES, &|| {
                format!(
                    "script {}: larger than {MAX_SCRIPT_BYTES} bytes",
                    script.name
                )
            });
            check(!has_windows_first_line(&script.content), &|| {
                format!(
                    "script {}: its lines end in CR LF, no interpreter is found so",
                    script.name
                )
            });
        }

        if let Some(expected) = &mut self.expected_sha256 {
            *expected = expected.trim().to_lowercase();
        }
        if self.expected_sha256.as_ref().is_some_and(String::is_empty) {
            self.expected_sha256 = None;
        }
        match &mut self.package {
            PackageSource::Version(version) => {
                *version = version.trim().to_owned();
                if version.is_empty() {
                    LATEST.clone_into(version);
                }
                check(version == LATEST || is_version(version), &|| {
                    format!("agent version {version:?}: neither \"latest\" nor like 4.275.0")
                });
            }
            PackageSource::Uploaded { sha256 } => {
                *sha256 = sha256.trim().to_lowercase();
                check(is_sha256(sha256), &|| {
                    format!("agent package {sha256:?}: not a SHA-256 in hex")
                });
            }
        }
        if let Some(expected) = &self.expected_sha256 {
            check(is_sha256(expected), &|| {
                format!("sha256 {expected:?}: not a SHA-256 in hex")
            });
            if let PackageSource::Uploaded { sha256 } = &self.package {
                check(sha256 == expected, &|| {
                    format!("the uploaded package's SHA-256 is {sha256}, not {expected}")
                });
            }
        }
        problems
    }
}

/// Where the base image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// On the image server.
    Images(String),
    /// An alias of this Incus.
    Local(String),
    /// An alias of this Incus, else on the image server.
    Either(String),
}

impl Base {
    /// Reads `images:ubuntu/24.04`, `local:alias`, `alias`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (remote, alias) = match text.split_once(':') {
            Some((remote, alias)) => (Some(remote), alias),
            None => (None, text),
        };
        if !is_alias(alias) {
            return Err(format!("base {text:?}: not an image alias"));
        }
        match remote {
            None => Ok(Self::Either(alias.to_owned())),
            Some("local") => Ok(Self::Local(alias.to_owned())),
            Some("images") => Ok(Self::Images(alias.to_owned())),
            Some(other) => Err(format!(
                "base {text:?}: unknown image server {other:?} (there are \"images:\" and \"local:\")"
            )),
        }
    }
}

fn is_alias(text: &str) -> bool {
    (1..=MAX_ALIAS).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.ends_with('/')
        && !text.contains("//")
}

fn is_name(text: &str) -> bool {
    is_alias(text) && !text.contains('/')
}

fn is_file_name(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains('/')
        && !text.chars().any(char::is_control)
}

/// Whether the text is like `4.275.0`.
pub(super) fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    (2..=4).contains(&parts.len())
        && parts
            .iter()
            .all(|p| (1..=8).contains(&p.len()) && p.chars().all(|c| c.is_ascii_digit()))
}

/// Whether the text is a SHA-256 in lower-case hex; what is not must not become a path.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn has_windows_first_line(content: &[u8]) -> bool {
    content.starts_with(b"#!")
        && content
            .split(|b| *b == b'\n')
            .next()
            .is_some_and(|line| line.ends_with(b"\r"))
}

#[cfg(test)]
mod tests;
