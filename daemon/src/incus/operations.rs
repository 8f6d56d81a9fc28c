//! Operations: what the server does in the background, and waiting for it.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::error::{CallSite, IncusError};
use super::transport::{Ask, outcome, path};
use super::types::{instance_of, or_default, time};
use super::{Incus, found};
use crate::calls::CallOutcome;

const WAIT: &str = "operation_wait";
/// How the server describes an exec, seen with 6.0.4.
const EXEC: &str = "Executing command";
/// What Incus calls making an instance, from whatever source.
const CREATING: &str = "Creating instance";
/// The first turn of waiting; each is twice the one before. Incus 6.0 was seen to miss the end of an
/// operation that it was asked to wait for right away, and to answer when the turn was over.
const FIRST_TURN: Duration = Duration::from_secs(1);
/// The wait before asking again after a wait broke off, and the longest one when that goes on.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How waiting for an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Waited {
    /// The operation has ended, well or not.
    Ended(Operation),
    /// The server does not know it (any more): look at what it was about.
    Forgotten,
    /// The deadline came first.
    StillRunning,
}

/// The name of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(String);

impl OperationId {
    /// Takes an id as the API writes it, alone or as the end of a path.
    pub fn new(id: &str) -> Self {
        let path = id.split('?').next().unwrap_or_default();
        Self(path.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Returns the id alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for OperationId {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationStatus {
    /// It has not ended.
    Running,
    /// It ended well.
    Success,
    /// It ended badly.
    Failure,
    /// It was cancelled.
    Cancelled,
}

/// Something the server does in the background.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// `task`, `websocket` or `token`.
    pub class: String,
    /// What it does, such as `Creating instance`.
    pub description: String,
    /// How far it is.
    pub status: OperationStatus,
    /// Why it failed; empty otherwise.
    pub err: String,
    /// The paths of what it is about.
    pub resources: Vec<String>,
    /// Results, depending on what it does.
    pub metadata: Value,
    /// When it began.
    pub created_at: Option<Timestamp>,
}

impl Operation {
    /// Returns whether it goes on and makes, changes or removes an instance of this name, in any
    /// project. A command that runs in it, such as somebody's shell, does none of that.
    pub fn is_running_on(&self, instance: &str) -> bool {
        self.status == OperationStatus::Running
            && self.description != EXEC
            && self
                .resources
                .iter()
                .any(|path| instance_of(path) == Some(instance))
    }

    /// Returns whether it goes on and makes an instance of this name, in any project.
    pub fn is_creating(&self, instance: &str) -> bool {
        // Operations have no kind but in words. Others on the instance are none of that: an exec may
        // last for as long as somebody has a shell open.
        self.description == CREATING && self.is_running_on(instance)
    }

    /// Returns the name of the first instance it is about.
    pub fn instance(&self) -> Option<&str> {
        self.resources.iter().find_map(|path| instance_of(path))
    }

    /// Returns it when it ended well, else what went wrong.
    pub fn result(self) -> Result<Self, IncusError> {
        let message = match self.status {
            OperationStatus::Success => return Ok(self),
            OperationStatus::Running => "it has not ended".to_owned(),
            OperationStatus::Cancelled => "cancelled".to_owned(),
            OperationStatus::Failure => self.err.clone(),
        };
        Err(IncusError::Operation {
            call: self.site(),
            message,
        })
    }

    /// Returns the error of not having waited for its end any longer.
    pub fn unfinished(self, after: Duration) -> IncusError {
        IncusError::Unfinished {
            call: self.site(),
            id: self.id,
            after,
        }
    }

    fn site(&self) -> Box<CallSite> {
        Box::new(CallSite {
            kind: "operation",
            instance: self.instance().map(str::to_owned),
            method: Method::GET,
            path: path(&["operations", self.id.as_str()], &[]),
        })
    }

    /// Returns the fingerprint of the image it made.
    pub fn fingerprint(&self) -> Option<&str> {
        self.metadata.get("fingerprint")?.as_str()
    }
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            id: String,
            #[serde(default)]
            class: String,
            #[serde(default)]
            description: String,
            status_code: i64,
            #[serde(default, deserialize_with = "or_default")]
            err: String,
            #[serde(default, deserialize_with = "or_default")]
            resources: BTreeMap<String, Vec<String>>,
            #[serde(default)]
            metadata: Value,
            #[serde(default, deserialize_with = "time")]
            created_at: Option<Timestamp>,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            id: OperationId::new(&raw.id),
            class: raw.class,
            description: raw.description,
            status: match raw.status_code {
                200 => OperationStatus::Success,
                400 => OperationStatus::Failure,
                401 => OperationStatus::Cancelled,
                _ => OperationStatus::Running,
            },
            err: raw.err,
            resources: raw.resources.into_values().flatten().collect(),
            metadata: raw.metadata,
            created_at: raw.created_at,
        })
    }
}

impl Incus {
    /// Lists the operations of all projects that we may see.
    pub async fn operations(&self) -> Result<Vec<Operation>, IncusError> {
        let query = [("recursion", "1"), ("all-projects", "true")];
        let ask = Ask::get("operation_list", path(&["operations"], &query)).private();
        let by_status: BTreeMap<String, Vec<Operation>> = self.transport.sync(ask).await?;
        Ok(by_status.into_values().flatten().collect())
    }

    /// Asks for an operation; the server forgets it about 5 s after it has ended.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, IncusError> {
        let ask = Ask::get("operation_get", path(&["operations", id.as_str()], &[])).private();
        found(self.transport.sync(ask).await)
    }

    /// Asks for an operation to be cancelled. One that is gone needs no cancelling.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), IncusError> {
        let path = path(&["operations", id.as_str()], &[]);
        let ask = Ask::new("operation_cancel", Method::DELETE, path);
        found(self.transport.done(ask).await).map(drop)
    }

    /// Waits for an operation to end, in turns, over broken connections. Reported as one call.
    pub async fn wait(&self, id: &OperationId, deadline: Duration) -> Result<Waited, IncusError> {
        let begun = Instant::now();
        let waited = self.wait_in_turns(id, deadline).await;
        let outcome = match &waited {
            Ok(Waited::Ended(operation)) if operation.status != OperationStatus::Success => {
                CallOutcome::Failed
            }
            _ => outcome(&Method::GET, &waited),
        };
        self.transport.report(WAIT, outcome, begun.elapsed());
        waited
    }

    async fn wait_in_turns(
        &self,
        id: &OperationId,
        deadline: Duration,
    ) -> Result<Waited, IncusError> {
        let end = Instant::now() + deadline;
        let mut turn = FIRST_TURN;
        let mut pause = PAUSE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Waited::StillRunning);
            }
            turn = turn.min(self.transport.limits().wait);
            let waited = self.wait_turn(id, turn.min(left), left).await;
            turn *= 2;
            match waited {
                Ok(Some(waited)) => return Ok(waited),
                Ok(None) => pause = PAUSE,
                Err(error) if !error.is_transient() => return Err(error),
                Err(_) if Instant::now() >= end => return Ok(Waited::StillRunning),
                Err(error) if end.saturating_duration_since(Instant::now()) < PAUSE => {
                    return Err(error);
                }
                Err(_) => {
                    sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits once. `None` when there is nothing new.
    async fn wait_turn(
        &self,
        id: &OperationId,
        turn: Duration,
        left: Duration,
    ) -> Result<Option<Waited>, IncusError> {
        let answer = turn + self.transport.limits().answer;
        let seconds = (turn.as_secs() + u64::from(turn.subsec_nanos() > 0)).to_string();
        let path = path(
            &["operations", id.as_str(), "wait"],
            &[("timeout", &seconds)],
        );
        let ask = Ask::get(WAIT, path)
            .private()
            .unreported()
            .answered_within(answer)
            .within(left.min(answer));
        let site = ask.site();
        let answer = match self.transport.call(ask).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(Some(Waited::Forgotten)),
            Err(error) => return Err(error),
        };
        let refusal = match answer.result::<Operation>(site) {
            Ok(operation) => return Ok(ended(operation)),
            Err(refusal @ IncusError::Refused { .. }) => refusal,
            Err(error) => return Err(error),
        };
        // The head of the answer is sent before the wait begins. What follows is the error the
        // operation failed with, or that the turn is over; only the operation itself tells which.
        match self.operation(id).await? {
            Some(operation) => Ok(ended(operation)),
            None if refusal.is_transient() => Ok(Some(Waited::Forgotten)),
            None => Ok(Some(Waited::Ended(failed(id, refusal)))),
        }
    }
}

fn ended(operation: Operation) -> Option<Waited> {
    (operation.status != OperationStatus::Running).then_some(Waited::Ended(operation))
}

/// What is known of an operation that failed and was forgotten right after.
fn failed(id: &OperationId, refusal: IncusError) -> Operation {
    let err = match refusal {
        IncusError::Refused { message, .. } => message,
        other => other.to_string(),
    };
    Operation {
        id: id.clone(),
        class: String::new(),
        description: String::new(),
        status: OperationStatus::Failure,
        err,
        resources: Vec::new(),
        metadata: Value::Null,
        created_at: None,
    }
}

#[cfg(test)]
mod tests;
