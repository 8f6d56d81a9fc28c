//! The configuration in force: read at start and again on request, applied whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::config::{self, ConfigError, Environment, Loaded, Problem};
use crate::pool::spec::DaemonSpec;

/// What is told of the configuration.
#[derive(Debug, Clone)]
pub struct ConfigState {
    /// When the one in force was read.
    pub loaded_at: Timestamp,
    /// When the last reload was refused, if it was.
    pub refused_at: Option<Timestamp>,
    /// Why.
    pub problems: Vec<Problem>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
    /// The whole of it as YAML, secrets masked.
    pub effective_yaml: String,
}

/// What a reload came to.
#[derive(Debug, Clone, Default)]
pub struct ReloadReport {
    /// Not empty: nothing was applied.
    pub problems: Vec<Problem>,
    /// What changes, a line each.
    pub changes: Vec<String>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
}

/// See the module.
pub struct Reloader {
    path: PathBuf,
    environment: Environment,
    specs: watch::Sender<Arc<DaemonSpec>>,
    state: Mutex<ConfigState>,
}

impl Reloader {
    /// Reads the configuration for the first time.
    pub fn load(path: &Path, environment: Environment) -> Result<Self, ConfigError> {
        let loaded = config::load(path, &environment)?;
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let state = ConfigState {
            loaded_at: Timestamp::now(),
            refused_at: None,
            problems: Vec::new(),
            warnings: loaded.warnings,
            effective_yaml: config::effective_yaml(&loaded.spec, &loaded.lines),
        };
        let (specs, _) = watch::channel(Arc::new(loaded.spec));
        Ok(Self {
            path: path.to_owned(),
            environment,
            specs,
            state: Mutex::new(state),
        })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is wanted now.
    pub fn spec(&self) -> Arc<DaemonSpec> {
        Arc::clone(&self.specs.borrow())
    }

    /// Returns a receiver of what is wanted.
    pub fn watch(&self) -> watch::Receiver<Arc<DaemonSpec>> {
        self.specs.subscribe()
    }

    /// Returns what to tell of the configuration.
    pub fn state(&self) -> ConfigState {
        self.state.lock().expect("no panic while held").clone()
    }

    /// Checks a text without applying it; returns its warnings.
    pub fn check(&self, content: &[u8]) -> Result<Vec<Problem>, Vec<Problem>> {
        config::parse(content, &self.environment).map(|loaded| loaded.warnings)
    }

    /// Reads the file again. Applies it when nothing is wrong with it and `dry_run` is not set.
    pub fn reload(&self, dry_run: bool) -> ReloadReport {
        let loaded = match config::load(&self.path, &self.environment) {
            Ok(loaded) => loaded,
            Err(error) => return self.refuse(error, dry_run),
        };
        let old = self.spec();
        let report = ReloadReport {
            problems: Vec::new(),
            changes: config::diff(&old, &loaded.spec),
            warnings: loaded.warnings.clone(),
        };
        if !dry_run {
            self.apply(loaded, &old, &report.changes);
        }
        report
    }

    fn apply(&self, loaded: Loaded, old: &DaemonSpec, changes: &[String]) {
        info!(changes = changes.len(), "configuration reloaded");
        for change in changes {
            info!("{change}");
        }
        // What only a start can change keeps its value; the difference names it.
        let spec = DaemonSpec {
            incus: old.incus.clone(),
            metrics: old.metrics,
            socket: old.socket.clone(),
            owner: old.owner.clone(),
            state_dir: old.state_dir.clone(),
            retention: old.retention,
            ..loaded.spec
        };
        *self.state.lock().expect("no panic while held") = ConfigState {
            loaded_at: Timestamp::now(),
            refused_at: None,
            problems: Vec::new(),
            warnings: loaded.warnings,
            effective_yaml: config::effective_yaml(&spec, &loaded.lines),
        };
        self.specs.send_replace(Arc::new(spec));
    }

    fn refuse(&self, error: ConfigError, dry_run: bool) -> ReloadReport {
        let problems = match error {
            ConfigError::Invalid(problems) => problems,
            other => vec![Problem {
                file: self.path.clone(),
                line: 0,
                column: 0,
                key: String::new(),
                message: chain(&other).to_string(),
            }],
        };
        if !dry_run {
            for problem in &problems {
                warn!("{problem}");
            }
            warn!(
                problems = problems.len(),
                "configuration not reloaded, the old one stays"
            );
            let mut state = self.state.lock().expect("no panic while held");
            state.refused_at = Some(Timestamp::now());
            state.problems.clone_from(&problems);
        }
        ReloadReport {
            problems,
            ..ReloadReport::default()
        }
    }
}

/// Returns this host's name.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
