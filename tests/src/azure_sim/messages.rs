//! Messages to agents: queued per session, handed out by held polls until deleted.
//!
//! An agent polls twice at once, and its second poll throws away what it gets, so a message goes to every poll that asks
//! for one after the last it names, and stays until it is deleted.

use std::{sync::Arc, time::Duration};

use axum::{extract::State as Shared, http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    auth::Principal,
    call::{Answer, Call, empty, ok},
    crypto::seal,
    errors::ApiError,
    state::{Hub, Kind, State},
};

pub(super) const JOB_REQUEST: &str = "PipelineAgentJobRequest";

/// A message that has not been deleted.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) body: String,
    /// The job request it hands over.
    pub(super) request: Option<u64>,
}

/// Counts a held poll; the session is fresh from the moment the poll ends, however it ends.
struct HeldPoll {
    hub: Arc<Hub>,
    session: String,
}

impl HeldPoll {
    fn new(hub: Arc<Hub>, session: String) -> Self {
        hub.with(|state, now| {
            if let Some(session) = state.sessions.get_mut(&session) {
                session.polls_in_flight += 1;
                session.last_seen = now;
            }
        });
        Self { hub, session }
    }
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        self.hub.with(|state, now| {
            if let Some(session) = state.sessions.get_mut(&self.session) {
                session.polls_in_flight = session.polls_in_flight.saturating_sub(1);
                session.last_seen = now;
            }
        });
    }
}

impl State {
    /// Returns the agent whose token this is.
    pub(super) fn asking_agent(&self, principal: Principal) -> Result<u64, ApiError> {
        match principal {
            Principal::Agent(agent) => Ok(agent),
            _ => Err(ApiError::access_denied("Only agents have sessions.")),
        }
    }

    /// Queues a message for a session.
    pub(super) fn send(&mut self, session: &str, kind: &str, body: &Value, request: Option<u64>) {
        let id = self.next_id(Kind::Message);
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        let (kind, body) = (kind.to_owned(), body.to_string());
        session.queue.push_back(Message {
            id,
            kind,
            body,
            request,
        });
        self.touch();
    }

    /// Hands out the first message after the last one named.
    fn take_message(&mut self, session: &str, last: u64) -> Result<Option<Value>, ApiError> {
        let held = self
            .sessions
            .get(session)
            .ok_or_else(|| ApiError::session_expired(session))?;
        let Some(message) = held.queue.iter().find(|message| message.id > last) else {
            return Ok(None);
        };
        let sealed = seal(&held.key, &message.body);
        let (iv, body) = sealed.ok_or_else(|| ApiError::bad_argument("encryption failed"))?;
        let (id, kind, request) = (message.id, message.kind.clone(), message.request);
        if let Some(request) = request {
            self.note_delivery(request);
        }
        Ok(Some(
            json!({"messageId": id, "messageType": kind, "iv": iv, "body": body}),
        ))
    }

    fn delete_message(&mut self, session: &str, id: u64) {
        let renumbered = self.next_id(Kind::Message);
        let Some(held) = self.sessions.get_mut(session) else {
            return;
        };
        let Some(place) = held.queue.iter().position(|message| message.id == id) else {
            return;
        };
        let Some(message) = held.queue.remove(place) else {
            return;
        };
        if let Some(request) = message.request {
            if self.duplicate_deliveries > 0 {
                self.duplicate_deliveries -= 1;
                held.queue.push_back(Message {
                    id: renumbered,
                    ..message
                });
            }
            self.note_acknowledgement(request);
        }
        self.touch();
    }
}

/// Answers `GET .../messages`.
pub(super) async fn poll(Shared(hub): Shared<Arc<Hub>>, call: Call) -> Result<Response, ApiError> {
    let session = call.query("sessionId").unwrap_or_default().to_owned();
    let last = call.query_id("lastMessageId")?.unwrap_or_default();
    let (until, nothing) = hub.with(|state, now| {
        state.check_version(&call, true)?;
        state.own_session(&call, &session)?;
        let nothing = if state.switches.empty_poll_answers_204 {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::ACCEPTED
        };
        Ok((now + state.scaled(|timings| timings.poll_hold), nothing))
    })?;
    let mut changes = hub.changes();
    let _held = HeldPoll::new(Arc::clone(&hub), session.clone());
    loop {
        let (found, left) = hub.with(|state, now| {
            state.own_session(&call, &session)?;
            let found = state.take_message(&session, last)?;
            Ok((
                found,
                Duration::try_from(until.duration_since(now)).unwrap_or_default(),
            ))
        })?;
        if let Some(message) = found {
            return Ok(ok(message));
        }
        if left.is_zero() {
            return Ok(empty(nothing));
        }
        // Running out of time and a change both mean: look again.
        let _ = tokio::time::timeout(left, changes.changed()).await;
    }
}

/// Answers `DELETE .../messages/{id}`.
pub(super) fn delete(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("message")?;
    let session = call.query("sessionId").unwrap_or_default();
    hub.with(|state, _| {
        state.check_version(call, true)?;
        state.own_session(call, session)?;
        state.delete_message(session, id);
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::azure_sim::{clock::wall, testing};

    #[test]
    fn a_message_is_handed_out_until_it_is_deleted() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let session = testing::add_session(&mut state, pool, agent, wall()).unwrap();
        state.send(&session, "SomethingNew", &json!({}), None);
        let first = state.take_message(&session, 0).unwrap().unwrap();
        let again = state.take_message(&session, 0).unwrap().unwrap();
        assert_eq!(first["messageId"], again["messageId"]);
        let id = first["messageId"].as_u64().unwrap();
        assert_eq!(state.take_message(&session, id), Ok(None));
        state.delete_message(&session, id);
        state.delete_message(&session, id);
        assert_eq!(state.take_message(&session, 0), Ok(None));
    }

    #[test]
    fn polls_of_an_unknown_session_say_it_expired() {
        let (mut state, _) = testing::state();
        let error = state.take_message("nowhere", 0).unwrap_err();
        assert_eq!(error.type_key, "TaskAgentSessionExpiredException");
    }
}
