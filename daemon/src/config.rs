//! The configuration: from a YAML file to a [`DaemonSpec`], or to everything that is wrong with it.
//!
//! ```text
//! text ─► places   where each key stands (saphyr-parser)
//!   └───► value    what it says (serde_yaml), merges carried out
//!           └─ check ─► file     known keys and right types only, by the schema of `file`
//!                         └─ resolve ─► DaemonSpec   defaults, durations, paths, cross-checks
//! ```
//!
//! Each step reports what is wrong by key, takes it out, and lets the next one go on: a person
//! sees all problems at once, each with its line and column. [`parse`] touches nothing outside its
//! arguments; only [`load`] looks at files. The format is that of an earlier tool, written in Go,
//! whose files work unchanged.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::pool::spec::DaemonSpec;

mod check;
mod describe;
mod diff;
mod duration;
mod effective;
mod file;
mod origins;
mod places;
mod problem;
mod resolve;
mod secrets;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use check::nearest;
pub use describe::{credential as describe_credential, describe};
pub use diff::diff;
pub use problem::Problem;

use places::{Position, Tree};
use problem::Report;
use value::Lenient;

/// Where the configuration is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/iapd/config.yaml";

/// The same on every virtual machine in Azure.
const IDENTITY_ENDPOINT: &str = "http://169.254.169.254";

/// What the meaning of a file depends on besides its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The file's name in messages.
    pub config_file: PathBuf,
    /// The file's directory, absolute: where relative paths in it begin.
    pub config_dir: PathBuf,
    /// The host's name, for agents' names.
    pub host_name: String,
    /// `$CREDENTIALS_DIRECTORY`: where systemd puts a service's credentials.
    pub credentials_dir: Option<PathBuf>,
    /// The state directory unless configured.
    pub state_dir: PathBuf,
    /// Incus's socket unless configured.
    pub incus_socket: PathBuf,
    /// The machine's metadata service, which knows the machine's managed identity.
    pub identity_endpoint: String,
}

impl Environment {
    /// Returns this process's environment, for the file at [`DEFAULT_PATH`].
    pub fn detect() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let host_name = nix::unistd::gethostname().unwrap_or_default();
        let incus_socket = variable("INCUS_SOCKET")
            .map(PathBuf::from)
            .or_else(|| variable("INCUS_DIR").map(|dir| Path::new(&dir).join("unix.socket")))
            .unwrap_or_else(default_incus_socket);
        Self {
            config_file: DEFAULT_PATH.into(),
            config_dir: Path::new(DEFAULT_PATH)
                .parent()
                .unwrap_or(Path::new("/"))
                .to_owned(),
            host_name: host_name.to_string_lossy().into_owned(),
            credentials_dir: variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            state_dir: "/var/lib/iapd".into(),
            incus_socket,
            // The variable of Microsoft's own libraries.
            identity_endpoint: variable("AZURE_POD_IDENTITY_AUTHORITY_HOST")
                .and_then(|value| value.into_string().ok())
                .unwrap_or_else(|| IDENTITY_ENDPOINT.to_owned()),
        }
    }

    fn for_file(&self, path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            config_file: path.to_owned(),
            config_dir: absolute.parent().unwrap_or(Path::new("/")).to_owned(),
            ..self.clone()
        }
    }
}

/// Newer packages of Incus keep the socket below `/run`.
fn default_incus_socket() -> PathBuf {
    let places = ["/run/incus/unix.socket", "/var/lib/incus/unix.socket"];
    let there = places.iter().find(|path| Path::new(path).exists());
    there.unwrap_or(&places[1]).into()
}

/// A configuration that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What it asks for.
    pub spec: DaemonSpec,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
    /// The line of each key that the file has.
    pub lines: BTreeMap<String, usize>,
}

/// Returns a whole configuration with its defaults, as YAML, and behind each value where it comes
/// from; secrets are masked.
pub fn effective_yaml(spec: &DaemonSpec, lines: &BTreeMap<String, usize>) -> String {
    origins::annotate(&effective::value(spec), lines)
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration at {0}")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the configuration at {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is wrong, in all these ways.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Reads the configuration at `path`, and looks at who else can read the secrets in it.
pub fn load(path: &Path, env: &Environment) -> Result<Loaded, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })?;
    let env = env.for_file(path);
    let (spec, mut report) = read(&bytes, &env).map_err(ConfigError::Invalid)?;
    secrets::check_files(path, &spec, &mut report);
    finish(spec, report).map_err(ConfigError::Invalid)
}

/// Reads a configuration from memory.
pub fn parse(bytes: &[u8], env: &Environment) -> Result<Loaded, Vec<Problem>> {
    let (spec, report) = read(bytes, env)?;
    finish(spec, report)
}

/// Returns the JSON Schema of the configuration file.
pub fn schema() -> String {
    let mut text = format!("{:#}", file::schema().as_value());
    text.push('\n');
    text
}

fn finish(spec: DaemonSpec, report: Report<'_>) -> Result<Loaded, Vec<Problem>> {
    let lines = report.places.lines();
    let warnings = report.finish()?;
    Ok(Loaded {
        lines,
        spec,
        warnings,
    })
}

/// Returns the specification, which is good if the report has no errors.
fn read<'a>(bytes: &[u8], env: &'a Environment) -> Result<(DaemonSpec, Report<'a>), Vec<Problem>> {
    let whole =
        |at: Position, message: String| vec![Problem::new(&env.config_file, at, "", message)];
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = position_after(&bytes[..error.valid_up_to()]);
        whole(at, "is not UTF-8 text here".to_owned())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = Tree::parse(text).map_err(|error| whole(error.at, error.message))?;
    let Lenient(mut value) = serde_yaml::from_str(text).map_err(|error| {
        let at = error.location();
        let at = at.map_or(Position::START, |at| Position {
            line: at.line(),
            column: at.column(),
        });
        let message = error.to_string();
        // The place is given already.
        let message = message.split(" at line ").next().unwrap_or_default();
        whole(at, format!("is not YAML: {message}"))
    })?;
    if value.is_null() {
        return Err(whole(Position::START, "is empty".to_owned()));
    }

    let mut report = Report::new(&env.config_file, tree.places());
    for duplicate in std::mem::take(&mut report.places.duplicates) {
        let message = format!("is given twice; first in line {}", duplicate.first.line);
        report.error_at(duplicate.at, &duplicate.key, message);
    }
    value::merge(&mut value, "", &mut report);
    let file = if check::check(file::schema().as_value(), &mut value, "", &mut report) {
        serde_yaml::from_value(value).expect("a value checked against the schema has its type")
    } else {
        file::File::default()
    };
    let spec = resolve::resolve(file, env, &mut report);
    Ok((spec, report))
}

fn position_after(bytes: &[u8]) -> Position {
    let text = String::from_utf8_lossy(bytes);
    let line = text.rsplit('\n').next().unwrap_or_default();
    Position {
        line: text.matches('\n').count() + 1,
        column: line.chars().count() + 1,
    }
}
