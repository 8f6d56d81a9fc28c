//! What was done to the system, when and to whom.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

/// One thing that was done.
#[derive(Debug, Clone)]
pub struct Deed {
    /// What, in a word or three.
    pub kind: &'static str,
    /// To which agent, if to one.
    pub target: Option<String>,
    /// When it began, by both clocks.
    pub began: (Instant, Timestamp),
    /// When it was over, if it is.
    pub ended: Option<(Instant, Timestamp)>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Journal {
    deeds: Mutex<Vec<Deed>>,
    refused: Mutex<BTreeMap<String, u32>>,
}

impl Journal {
    /// Notes that something begins and returns its number.
    pub fn begin(&self, kind: &'static str, target: Option<&str>) -> usize {
        let mut deeds = self.lock();
        deeds.push(Deed {
            kind,
            target: target.map(str::to_owned),
            began: (Instant::now(), Timestamp::now()),
            ended: None,
        });
        deeds.len() - 1
    }

    /// Notes that it is over.
    pub fn end(&self, number: usize) {
        if let Some(deed) = self.lock().get_mut(number) {
            deed.ended = Some((Instant::now(), Timestamp::now()));
        }
    }

    /// Notes that something was refused, with the reason.
    pub fn refused(&self, what: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(what.to_owned()).or_default() += 1;
    }

    /// Returns what was refused and how often.
    pub fn refusals(&self) -> BTreeMap<String, u32> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// Returns everything so far.
    pub fn deeds(&self) -> Vec<Deed> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Deed>> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deed {
    /// Returns whether it was going on at some moment between these.
    pub fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.began.0 <= to && self.ended.is_none_or(|ended| ended.0 >= from)
    }
}
