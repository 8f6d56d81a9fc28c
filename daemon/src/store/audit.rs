//! The audit trail: who asked for what through the socket, and what came of it.

use jiff::Timestamp;
use nix::unistd::{Uid, User};
use rusqlite::named_params;

use super::schema::time;
use super::{Store, StoreError};

/// One thing that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who, from the socket's peer credentials; `None` when they are not known.
    pub uid: Option<u32>,
    /// That user's name; empty when there is none.
    pub user: String,
    /// What, such as `agents drain`.
    pub command: String,
    /// To what, such as an agent's name.
    pub target: String,
    /// `ok`, or why it was refused or failed.
    pub outcome: String,
}

impl Store {
    /// Keeps an entry. A user without a name is looked up, which may take a while where names come
    /// from the network.
    pub fn audit(&self, mut entry: AuditEntry) {
        self.write("audit entry", move |connection| {
            if let (true, Some(uid)) = (entry.user.is_empty(), entry.uid) {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                entry.user = user.map(|user| user.name).unwrap_or_default();
            }
            connection
                .prepare_cached(
                    "INSERT INTO audit (at, uid, user, command, target, outcome)
                     VALUES (:at, :uid, :user, :command, :target, :outcome)",
                )?
                .execute(named_params! {
                    ":at": entry.at.as_millisecond(),
                    ":uid": entry.uid,
                    ":user": entry.user,
                    ":command": entry.command,
                    ":target": entry.target,
                    ":outcome": entry.outcome,
                })?;
            Ok(())
        });
    }

    /// Lists entries, the newest first.
    pub async fn audit_entries(
        &self,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM audit WHERE at >= ?1 ORDER BY at DESC, id DESC LIMIT ?2",
            )?;
            let since = since.map_or(i64::MIN, Timestamp::as_millisecond);
            let rows = statement.query_map((since, limit), |row| {
                Ok(AuditEntry {
                    at: time(row.get("at")?).unwrap_or_default(),
                    uid: row.get("uid")?,
                    user: row.get("user")?,
                    command: row.get("command")?,
                    target: row.get("target")?,
                    outcome: row.get("outcome")?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}
