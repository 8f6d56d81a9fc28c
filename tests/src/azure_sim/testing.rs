//! Small worlds for the unit tests of this module.

use jiff::Timestamp;
use serde_json::json;

use super::{errors::ApiError, jobs::JobState, options::SimOptions, state::State};

/// Returns a state with one organisation and the pool `linux`, and the pool's id.
pub(super) fn state() -> (State, u64) {
    let options = SimOptions {
        seed: Some(7),
        ..SimOptions::default()
    };
    let url = "http://127.0.0.1:8787".to_owned();
    let mut state = State::new(&options, url.clone(), url);
    let pool = state.add_pool(0, "linux");
    (state, pool)
}

/// Registers an agent without a key.
pub(super) fn add_agent(state: &mut State, pool: u64, name: &str) -> u64 {
    let body = json!({"name": name, "version": "4.275.0", "systemCapabilities": {"stove": "1"}});
    let body = serde_json::from_value(body).unwrap();
    state
        .create_agent(pool, body, super::clock::wall())
        .unwrap()
}

/// Gives an agent a session.
pub(super) fn add_session(
    state: &mut State,
    pool: u64,
    agent: u64,
    now: Timestamp,
) -> Result<String, ApiError> {
    let body = json!({"ownerName": "host-of-40", "agent": {"id": agent}});
    state.create_session(pool, serde_json::from_value(body).unwrap(), now)
}

pub(super) fn job_state(state: &State, id: u64) -> JobState {
    state.jobs[&id].state()
}
