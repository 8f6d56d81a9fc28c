//! Events: kept for a while, and passed on to whoever looks on as they happen.

use jiff::Timestamp;
use rusqlite::named_params;

use super::schema::time;
use super::{Store, StoreError};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up, over restarts too.
    pub id: i64,
    /// When it was noticed.
    pub at: Timestamp,
    /// A word of [`crate::pool::events::EventKind`].
    pub kind: String,
    /// Whose it is.
    pub pool: String,
    /// To which agent; empty when to the pool.
    pub agent: String,
    /// More words; may be empty.
    pub message: String,
}

impl Store {
    /// Keeps an event and tells those who look on.
    pub fn event(&self, kind: &str, pool: &str, agent: &str, message: &str) {
        let event = Event {
            id: self.next_event(),
            at: Timestamp::now(),
            kind: kind.to_owned(),
            pool: pool.to_owned(),
            agent: agent.to_owned(),
            message: message.to_owned(),
        };
        let kept = event.clone();
        self.write("event", move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO events
                     VALUES (:id, :at, :kind, :pool, :agent, :message)",
                )?
                .execute(named_params! {
                    ":id": kept.id,
                    ":at": kept.at.as_millisecond(),
                    ":kind": kept.kind,
                    ":pool": kept.pool,
                    ":agent": kept.agent,
                    ":message": kept.message,
                })?;
            Ok(())
        });
        // Nobody looks on: fine.
        let _ = self.lookers.send(event);
    }

    /// Lists the newest events after `id` and since then, the oldest first.
    pub async fn events_after(
        &self,
        id: i64,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM (SELECT * FROM events WHERE id > ?1 AND at >= ?2
                 ORDER BY id DESC LIMIT ?3) ORDER BY id",
            )?;
            let since = since.map_or(i64::MIN, Timestamp::as_millisecond);
            let rows = statement.query_map((id, since, limit), |row| {
                Ok(Event {
                    id: row.get("id")?,
                    at: time(row.get("at")?).unwrap_or_default(),
                    kind: row.get("kind")?,
                    pool: row.get("pool")?,
                    agent: row.get("agent")?,
                    message: row.get("message")?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}
