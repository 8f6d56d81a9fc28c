//! Console lines and the trace logs in `_diag`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::clock::stamp;
use crate::environment::Environment;
use crate::files::Root;

/// Writes to the console and to one trace log.
#[derive(Debug, Clone)]
pub struct Diag {
    source: &'static str,
    file: Arc<Mutex<File>>,
}

impl Diag {
    /// Opens the listener's log.
    ///
    /// # Errors
    /// Fails when the directory cannot be written, as the real agent does.
    pub fn listener(root: &Root, env: &Environment) -> io::Result<Self> {
        Self::open("Agent", &directory(root, env.get("AGENT_DIAGLOGPATH")))
    }

    /// Opens a worker's log.
    ///
    /// # Errors
    /// Fails when the directory cannot be written.
    pub fn worker(root: &Root, env: &Environment) -> io::Result<Self> {
        Self::open("Worker", &directory(root, env.get("WORKER_DIAGLOGPATH")))
    }

    fn open(source: &'static str, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        let path = directory.join(format!("{source}_{time}-utc.log"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            source,
            file: Arc::new(Mutex::new(file)),
        })
    }

    /// Writes a line to the trace log only.
    pub fn trace(&self, text: &str) {
        self.log("INFO", text);
    }

    /// Writes a line to stdout.
    pub fn line(&self, text: &str) {
        // The console may be gone; the agent goes on without it.
        let _ = writeln!(io::stdout(), "{text}");
        self.log("INFO", text);
    }

    /// Writes a line to stdout that starts with the time.
    pub fn timed(&self, text: &str) {
        self.line(&format!("{}: {text}", stamp()));
    }

    /// Writes a line to stderr.
    pub fn error(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
        self.log("ERR ", text);
    }

    fn log(&self, level: &str, text: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not end a job.
        let _ = writeln!(file, "[{} {level} {}] {text}", stamp(), self.source);
    }
}

fn directory(root: &Root, given: Option<&str>) -> std::path::PathBuf {
    given.map_or_else(|| root.0.join("_diag"), Into::into)
}
