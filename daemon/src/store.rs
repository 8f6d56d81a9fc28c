//! What is over: ended agents with their jobs and evidence, and the audit trail. Incus and Azure
//! know what exists; this is what they forget. Losing it loses history and nothing else.
//!
//! ```text
//!   pool tasks ──events, ends──┐                        ┌─► history.db (SQLite, WAL)
//!   grpc ────────audit─────────┴─► bounded queue ─► own thread
//!   grpc ◄───────answers────────────────────────────────┘
//!   pool actions ──files──► evidence/<agent>/  ([`evidence`])
//! ```
//!
//! Nobody waits for a write: when the queue is full, the write is dropped and counted. A database
//! that is damaged is set aside, and one that a newer iapd wrote is left alone; the daemon goes on
//! either way and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, warn};

use iap_common::error::chain;

mod agents;
mod audit;
mod events;
pub mod evidence;
mod schema;

pub use agents::{AgentFilter, EndedAgent, EndedJob};
pub use audit::AuditEntry;
pub use events::Event;
use evidence::Evidence;

/// Writes that may wait. A busy host ends a few agents a second.
const QUEUE: usize = 1024;
/// How long an answer may take; the disk may be busy with everybody's jobs.
const ANSWER: Duration = Duration::from_secs(10);
/// How long what waits may take when the daemon stops.
const FLUSH: Duration = Duration::from_secs(5);
/// Who looks on at events and is further behind reads them from the database.
const LOOKERS_BEHIND: usize = 1024;
/// Retention is enforced this often, counted in writes.
const SWEEP_EVERY: u32 = 256;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records and evidence older than this go.
    pub age: Duration,
    /// Evidence beyond this many bytes goes, the oldest first.
    pub evidence_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 24 * 3600),
            evidence_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Why history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error("history is off: {0}")]
    Off(String),
    /// The thread is busy or gone.
    #[error("history does not answer within {} s", ANSWER.as_secs())]
    TimedOut,
    /// SQLite says no.
    #[error("cannot read history")]
    Sqlite(#[source] rusqlite::Error),
}

enum Message {
    Work(Box<dyn FnOnce(&mut Connection) + Send>),
    Stop(oneshot::Sender<()>),
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    queue: Result<mpsc::Sender<Message>, Arc<str>>,
    warning: Option<Arc<str>>,
    dropped: Counter,
    evidence: Evidence,
    newest_event: Arc<AtomicI64>,
    lookers: broadcast::Sender<Event>,
}

impl Store {
    /// Opens the history in the state directory, or says why there is none. `dropped` counts the
    /// writes that are given up.
    pub fn open(state_dir: &Path, retention: Retention, dropped: Counter) -> Self {
        let path = state_dir.join("history.db");
        let evidence = Evidence::new(state_dir);
        let (opened, warning) = match open_or_replace(&path) {
            Ok((connection, warning)) => (Ok(connection), warning),
            Err(why) => (Err(why.clone()), Some(why)),
        };
        if let Some(warning) = &warning {
            warn!(path = %path.display(), "{warning}");
        }
        let newest = opened
            .as_ref()
            .ok()
            .and_then(|connection| schema::newest_event(connection).ok());
        let queue = opened.and_then(|connection| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let evidence = evidence.clone();
            std::thread::Builder::new()
                .name("history".into())
                .spawn(move || work(connection, receiver, &evidence, retention))
                .map(|_| sender)
                .map_err(|error| format!("cannot start its thread: {error}"))
        });
        Self {
            queue: queue.map_err(Arc::from),
            warning: warning.map(Arc::from),
            dropped,
            evidence,
            newest_event: Arc::new(AtomicI64::new(newest.unwrap_or(0))),
            lookers: broadcast::Sender::new(LOOKERS_BEHIND),
        }
    }

    /// Returns what is wrong with it, in words.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Returns how many writes were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Returns the files that ended agents left.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Looks on from now.
    pub fn watch_events(&self) -> broadcast::Receiver<Event> {
        self.lookers.subscribe()
    }

    fn next_event(&self) -> i64 {
        self.newest_event.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets what waits be written, within bounds. Nothing is written after it.
    pub async fn close(&self) {
        let Ok(queue) = &self.queue else { return };
        let (done, closed) = oneshot::channel();
        let close = async {
            let _ = queue.send(Message::Stop(done)).await;
            let _ = closed.await;
        };
        if tokio::time::timeout(FLUSH, close).await.is_err() {
            warn!("history was not written to its end in time");
        }
    }

    /// Queues a write.
    fn write(
        &self,
        what: &'static str,
        write: impl FnOnce(&mut Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        let Ok(queue) = &self.queue else { return };
        let work = Box::new(move |connection: &mut Connection| {
            if let Err(error) = write(connection) {
                warn!(what, error = %chain(&error), "cannot write history");
            }
        });
        if queue.try_send(Message::Work(work)).is_err() {
            self.dropped.inc();
            debug!(what, "history is behind, dropped a write");
        }
    }

    /// Asks and waits for the answer.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self
            .queue
            .as_ref()
            .map_err(|why| StoreError::Off(why.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |connection: &mut Connection| {
            let _ = reply.send(read(connection));
        });
        let ask = async {
            queue.send(Message::Work(work)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER, ask).await {
            Ok(Some(result)) => result.map_err(StoreError::Sqlite),
            Ok(None) | Err(_) => Err(StoreError::TimedOut),
        }
    }
}

/// The thread: does what comes, and sweeps now and then.
fn work(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Message>,
    evidence: &Evidence,
    retention: Retention,
) {
    sweep(&mut connection, evidence, retention);
    let mut until_sweep = SWEEP_EVERY;
    while let Some(message) = queue.blocking_recv() {
        match message {
            Message::Work(work) => work(&mut connection),
            Message::Stop(done) => {
                drop(connection);
                let _ = done.send(());
                return;
            }
        }
        until_sweep -= 1;
        if until_sweep == 0 {
            until_sweep = SWEEP_EVERY;
            sweep(&mut connection, evidence, retention);
        }
    }
}

fn sweep(connection: &mut Connection, evidence: &Evidence, retention: Retention) {
    let oldest = Timestamp::now() - retention.age;
    if let Err(error) = schema::delete_before(connection, oldest) {
        warn!(error = %chain(&error), "cannot remove old history");
    }
    if let Err(error) = evidence.prune(oldest, retention.evidence_bytes) {
        warn!(error = %chain(&error), "cannot remove old evidence");
    }
}

/// Opens the database. A damaged one is set aside and told; `Err` says why there is no history.
fn open_or_replace(path: &Path) -> Result<(Connection, Option<String>), String> {
    match schema::open(path) {
        Ok(connection) => Ok((connection, None)),
        Err(schema::OpenError::Newer { found, known }) => Err(format!(
            "{} was written by a newer iapd (schema {found}, this one knows {known}): it is left \
             as it is, and no history is kept until iapd is upgraded or the file is moved away",
            path.display()
        )),
        Err(schema::OpenError::Sqlite(error)) if is_damage(&error) => {
            let aside = set_aside(path)
                .map_err(|io| format!("{} is damaged and cannot be moved: {io}", path.display()))?;
            let connection = schema::open(path)
                .map_err(|error| format!("cannot make {}: {}", path.display(), chain(&error)))?;
            let warning = format!(
                "the history was damaged ({error}): it is in {} now, and a new one was begun",
                aside.display()
            );
            Ok((connection, Some(warning)))
        }
        Err(error) => Err(format!("cannot open {}: {}", path.display(), chain(&error))),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}

/// Moves a database and its journal out of the way.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let suffix = format!(".damaged-{}", Timestamp::now().as_second());
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    for journal in ["-wal", "-shm"] {
        match std::fs::remove_file(with(journal)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let aside = with(&suffix);
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests;
