//! The database's tables, and how older ones are brought up to date.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

/// Each step brings the schema from its index to the next version. Steps that were released never
/// change.
const STEPS: [&str; 1] = ["
    CREATE TABLE ended_agents (
        name TEXT PRIMARY KEY,
        pool TEXT NOT NULL,
        project TEXT NOT NULL,
        image TEXT NOT NULL,
        azure_agent_id INTEGER,
        created_at INTEGER,
        online_at INTEGER,
        ended_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        exit_status INTEGER,
        job_request_id INTEGER,
        job_name TEXT,
        job_pipeline TEXT,
        job_run TEXT,
        job_requested_for TEXT,
        job_queued_at INTEGER,
        job_assigned_at INTEGER,
        job_received_at INTEGER,
        job_finished_at INTEGER,
        job_result TEXT
    ) STRICT;
    CREATE INDEX ended_agents_by_time ON ended_agents (ended_at);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        uid INTEGER,
        user TEXT NOT NULL,
        command TEXT NOT NULL,
        target TEXT NOT NULL,
        outcome TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_time ON audit (at);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        pool TEXT NOT NULL,
        agent TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
"];

/// Some ten for each agent's life.
const EVENTS_KEPT: i64 = 100_000;
/// Another process (a backup, an operator's sqlite3) may hold the file for a moment.
const BUSY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("schema {found} is newer than {known}")]
    Newer { found: usize, known: usize },
    #[error("SQLite failed")]
    Sqlite(#[from] rusqlite::Error),
}

/// Opens a database, makes it when it is not there, and brings it up to date in one transaction.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // Readers and backups do not wait for the writer, and a crash loses the last moments at most.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(OpenError::Sqlite(damaged(check)));
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let (found, known) = (usize::try_from(version).unwrap_or(usize::MAX), STEPS.len());
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    let transaction = connection.transaction()?;
    for step in &STEPS[found..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(known).unwrap_or(i64::MAX),
    )?;
    transaction.commit()?;
    Ok(connection)
}

fn damaged(words: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(words))
}

/// Deletes what is older.
pub(super) fn delete_before(connection: &Connection, oldest: Timestamp) -> rusqlite::Result<()> {
    let oldest = oldest.as_millisecond();
    connection.execute("DELETE FROM ended_agents WHERE ended_at < ?1", [oldest])?;
    connection.execute("DELETE FROM audit WHERE at < ?1", [oldest])?;
    connection.execute(
        "DELETE FROM events WHERE at < ?1 OR id <= (SELECT MAX(id) FROM events) - ?2",
        [oldest, EVENTS_KEPT],
    )?;
    Ok(())
}

/// Returns the number of the newest event; 0 when there is none.
pub(super) fn newest_event(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT COALESCE(MAX(id), 0) FROM events", [], |row| {
        row.get(0)
    })
}

/// Reads a time as it is kept: milliseconds since 1970.
pub(super) fn time(milliseconds: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds?).ok()
}
