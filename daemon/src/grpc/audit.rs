//! Writes down who asked for what, and what came of it.

use jiff::Timestamp;
use tonic::Status;

use crate::pool::command::Asker;
use crate::store::AuditEntry;

use super::Services;

impl Services {
    /// Keeps an entry of a call that changes something, and passes its result on.
    pub(super) fn audit<T>(
        &self,
        asker: &Asker,
        command: &str,
        target: impl Into<String>,
        result: Result<T, Status>,
    ) -> Result<T, Status> {
        self.store.audit(AuditEntry {
            at: Timestamp::now(),
            uid: asker.uid,
            user: String::new(),
            command: command.to_owned(),
            target: target.into(),
            outcome: match &result {
                Ok(_) => "ok".to_owned(),
                Err(status) => status.message().to_owned(),
            },
        });
        result
    }
}
