//! The actions that have begun and not ended, by agent. They outlive passes and are an input of
//! each plan: one action an agent, never two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::Doing;

/// Whether a launch has its turn at the gate yet, and how to call it off while it has not.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    has_begun: Arc<AtomicBool>,
    cancelled: CancellationToken,
}

impl Turn {
    /// Records that work on the host begins: it is too late to cancel.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Resolves when the launch is called off.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Calls the launch off if it has not begun.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    fn is_waiting(&self) -> bool {
        !self.has_begun.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Flight {
    doing: Doing,
    since: Instant,
    turn: Option<Turn>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct InFlight {
    flights: BTreeMap<String, Flight>,
}

impl InFlight {
    /// Records the beginning of an action. A launch brings its turn, and so does a spare.
    pub fn begin(&mut self, name: &str, doing: Doing, turn: Option<Turn>, now: Instant) {
        self.flights.insert(
            name.to_owned(),
            Flight {
                doing,
                since: now,
                turn,
            },
        );
    }

    /// Records its end and returns when it began.
    pub fn end(&mut self, name: &str) -> Option<Instant> {
        self.flights.remove(name).map(|flight| flight.since)
    }

    /// Returns whether an action that is to wait for its turn still does.
    pub fn waits(&self, name: &str) -> bool {
        let flight = self.flights.get(name);
        let turn = flight.and_then(|flight| flight.turn.as_ref());
        turn.is_some_and(Turn::is_waiting)
    }

    /// Returns what is being done to an agent.
    pub fn doing(&self, name: &str) -> Option<Doing> {
        self.flights.get(name).map(|flight| flight.doing)
    }

    /// Returns since when something is being done to an agent.
    pub fn since(&self, name: &str) -> Option<Instant> {
        self.flights.get(name).map(|flight| flight.since)
    }

    /// Returns the launches, and whether each still waits for its turn.
    pub fn launches(&self) -> Vec<(&str, bool)> {
        self.turns(Doing::Launch)
    }

    /// Returns the spares that are being made, and whether each still waits for its turn.
    pub fn spares(&self) -> Vec<(&str, bool)> {
        self.turns(Doing::Spare)
    }

    fn turns(&self, doing: Doing) -> Vec<(&str, bool)> {
        self.flights
            .iter()
            .filter(|(_, flight)| flight.doing == doing)
            .map(|(name, flight)| {
                (
                    name.as_str(),
                    flight.turn.as_ref().is_some_and(Turn::is_waiting),
                )
            })
            .collect()
    }

    /// Calls off a launch that waits for its turn.
    pub fn cancel(&self, name: &str) {
        if let Some(turn) = self
            .flights
            .get(name)
            .and_then(|flight| flight.turn.as_ref())
        {
            turn.cancel();
        }
    }

    /// Calls off all launches that wait for their turn.
    pub fn cancel_waiting(&self) {
        for flight in self.flights.values() {
            if let Some(turn) = &flight.turn {
                turn.cancel();
            }
        }
    }

    /// Returns how many actions are in flight.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Returns whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}
