//! Commands in guests: their exit code, their output, or their output line by line while they run.
//!
//! A running exec keeps Incus from shutting down for minutes, so nothing that lasts belongs here
//! but the steps of provisioning.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Project;
use super::error::{CallSite, IncusError};
use super::operations::Operation;
use super::requests::Exec;
use super::transport::Ask;

use stream::Running;

pub(super) use lines::Splitter;
pub use lines::{OutputStream, StreamLine};

mod lines;
mod stream;

impl Project {
    /// Runs a command without output and returns its exit code. After the deadline it goes on
    /// running: the server cannot cancel it.
    pub async fn exec(
        &self,
        name: &str,
        exec: &Exec,
        deadline: Duration,
    ) -> Result<i32, IncusError> {
        let ask = self.exec_ask("exec", name, exec.body());
        let site = ask.site();
        let operation = self.carry_out(ask, deadline).await?;
        exit_code(&operation, site)
    }

    /// Runs a command and returns its exit code, its output and its error output, each at most
    /// `cap` bytes of the beginning.
    pub async fn exec_output(
        &self,
        name: &str,
        exec: &Exec,
        deadline: Duration,
        cap: usize,
    ) -> Result<(i32, Vec<u8>, Vec<u8>), IncusError> {
        let end = Instant::now() + deadline;
        let mut body = exec.body();
        body["record-output"] = json!(true);
        let ask = self.exec_ask("exec", name, body);
        let site = ask.site();
        let operation = self.carry_out(ask, deadline).await?;
        let code = exit_code(&operation, site)?;
        let stdout = self
            .recorded(name, &operation.metadata["output"]["1"], cap, end)
            .await;
        let stderr = self
            .recorded(name, &operation.metadata["output"]["2"], cap, end)
            .await;
        Ok((code, stdout?, stderr?))
    }

    /// Runs a command and hands over its output line by line. Returns its exit code once the
    /// command has ended, even if it has left something behind that holds its output open.
    ///
    /// Ends the command and returns [`IncusError::Cancelled`] when `stop` says so; dropping the
    /// future ends the command as well.
    pub async fn exec_stream(
        &self,
        name: &str,
        exec: &Exec,
        stop: CancellationToken,
        on_line: impl FnMut(StreamLine) + Send,
    ) -> Result<i32, IncusError> {
        let mut body = exec.body();
        body["wait-for-websocket"] = json!(true);
        let ask = self.exec_ask("exec_stream", name, body);
        let site = ask.site();
        // Boxed, as these futures hold four websockets.
        let running = Box::pin(Running::start(self, ask, &stop)).await?;
        let operation = Box::pin(running.follow(self, &stop, on_line)).await?;
        exit_code(&operation, site)
    }

    fn exec_ask(&self, kind: &'static str, name: &str, body: Value) -> Ask {
        // Environments are nobody's business, so these bodies are not logged.
        let path = self.instance_path(name, &["exec"], &[]);
        Ask::new(kind, Method::POST, path)
            .instance(name)
            .json(body)
            .private()
    }

    /// Reads one recorded output and removes the record.
    async fn recorded(
        &self,
        name: &str,
        path: &Value,
        cap: usize,
        end: Instant,
    ) -> Result<Vec<u8>, IncusError> {
        let Some(record) = path.as_str().and_then(|path| path.rsplit('/').next()) else {
            return Ok(Vec::new());
        };
        let path = self.instance_path(name, &["logs", "exec-output", record], &[]);
        // The command has ended: what it said is worth a moment even when it ended late.
        let left = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_secs(1));
        let read = Ask::get("exec_output", path.clone())
            .instance(name)
            .private()
            .within(left)
            .part(0, cap);
        let output = self.transport().call(read).await.map(|answer| answer.body);
        let remove = Ask::new("exec_output_delete", Method::DELETE, path).instance(name);
        if let Err(error) = self.transport().done(remove.within(left)).await {
            // It goes with the instance.
            tracing::debug!(%error, "recorded output was not removed");
        }
        output
    }
}

fn exit_code(operation: &Operation, call: Box<CallSite>) -> Result<i32, IncusError> {
    operation
        .metadata
        .get("return")
        .and_then(Value::as_i64)
        .and_then(|code| i32::try_from(code).ok())
        .ok_or_else(|| {
            let source = serde::de::Error::custom("the operation has no exit code");
            IncusError::Malformed { call, source }
        })
}
