//! Keys made ahead of need: one takes about 70 ms of a CPU that creates of instances want too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key::AgentKey;

/// A bounded stock of keys, each to be used once.
#[derive(Debug)]
pub struct KeyStock {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    keys: Vec<AgentKey>,
    asked_at: Instant,
}

impl KeyStock {
    /// Makes an empty stock.
    pub fn new(capacity: usize) -> Self {
        let held = Held {
            keys: Vec::new(),
            asked_at: Instant::now(),
        };
        Self {
            capacity,
            held: Mutex::new(held),
        }
    }

    /// Takes a key out. When there is none, make one.
    pub fn take(&self) -> Option<AgentKey> {
        let mut held = self.lock();
        held.asked_at = Instant::now();
        held.keys.pop()
    }

    /// Returns how many keys there are.
    pub fn kept(&self) -> usize {
        self.lock().keys.len()
    }

    /// Returns whether no other key would fit in.
    pub fn is_full(&self) -> bool {
        self.kept() >= self.capacity
    }

    /// Returns how long no key was asked for: agents are launched one after the other, and whoever
    /// makes a key meanwhile takes the CPU from them.
    pub fn calm_for(&self) -> Duration {
        self.lock().asked_at.elapsed()
    }

    /// Puts a key in; drops it when the stock is full.
    pub fn put(&self, key: AgentKey) {
        let mut held = self.lock();
        if held.keys.len() < self.capacity {
            held.keys.push(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_is_bounded_and_gives_each_key_once() {
        let stock = KeyStock::new(1);
        assert!(!stock.is_full());
        assert!(stock.take().is_none());
        let key = AgentKey::generate().unwrap();
        let public = key.public();
        stock.put(key);
        stock.put(AgentKey::generate().unwrap());
        assert!(stock.is_full());
        assert_eq!(stock.kept(), 1);
        assert_eq!(stock.take().unwrap().public(), public);
        assert!(stock.take().is_none());
        assert_eq!(stock.kept(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_for_a_key_ends_the_calm_even_in_vain() {
        let stock = KeyStock::new(1);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(stock.calm_for(), Duration::from_secs(7));
        assert!(stock.take().is_none());
        assert_eq!(stock.calm_for(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(stock.calm_for(), Duration::from_secs(2));
    }
}
