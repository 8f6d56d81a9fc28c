//! Logs of agents that have ended, from what was kept of them.

use futures_util::stream;
use tonic::{Response, Status};

use iap_common::v1;

use crate::pool::apply::evidence::LOG_FILE;

use super::agent::LogStream;
use super::{Services, status};

/// Bytes in a message.
const PART: u64 = 256 * 1024;

impl Services {
    /// Streams an evidence file of an ended agent.
    pub(super) async fn ended_log(
        &self,
        name: String,
        file: String,
        tail_bytes: u64,
    ) -> Result<Response<LogStream>, Status> {
        let file = if file.is_empty() {
            LOG_FILE.to_owned()
        } else {
            file
        };
        let evidence = self.store.evidence().clone();
        let files = evidence.list(&name).await;
        let files = files.map_err(|error| status::evidence(&error))?;
        let Some((_, size)) = files.iter().find(|(known, _)| *known == file) else {
            return Err(self.no_such_file(&name, &file, &files).await);
        };
        let from = match tail_bytes {
            0 => 0,
            tail => size.saturating_sub(tail),
        };
        let start = Some((evidence, name, file, from));
        let parts = stream::unfold(start, |state| async move {
            let (evidence, name, file, from) = state?;
            match evidence.read(&name, &file, from, PART).await {
                // Its end, or it was cleared away meanwhile.
                Ok(None) => None,
                Ok(Some(chunk)) if chunk.is_empty() => None,
                Ok(Some(chunk)) => {
                    let from = from + chunk.len() as u64;
                    let message = v1::StreamAgentLogResponse { chunk };
                    Some((Ok(message), Some((evidence, name, file, from))))
                }
                Err(error) => Some((Err(status::evidence(&error)), None)),
            }
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn no_such_file(&self, name: &str, file: &str, files: &[(String, u64)]) -> Status {
        if !files.is_empty() {
            let known = files.iter().map(|(known, _)| known.as_str());
            return status::no_such("file", file, known);
        }
        match self.store.ended_agent(name).await {
            Ok(Some(agent)) => status::not_ready(format!(
                "agent {name} has ended ({}) and left no log: {}",
                agent.reason, agent.detail
            )),
            Ok(None) => self.no_such_log(name),
            Err(error) => status::store(&error),
        }
    }
}
