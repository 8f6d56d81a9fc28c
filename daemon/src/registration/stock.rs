//! Keys made ahead of need: one takes about 90 ms of a CPU that creates of instances want too.

use std::sync::{Mutex, PoisonError};

use super::key::AgentKey;

/// A bounded stock of keys, each to be used once.
#[derive(Debug)]
pub struct KeyStock {
    capacity: usize,
    keys: Mutex<Vec<AgentKey>>,
}

impl KeyStock {
    /// Makes an empty stock.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            keys: Mutex::new(Vec::new()),
        }
    }

    /// Takes a key out. When there is none, make one.
    pub fn take(&self) -> Option<AgentKey> {
        self.lock().pop()
    }

    /// Returns how many keys would fit in.
    pub fn missing(&self) -> usize {
        self.capacity.saturating_sub(self.lock().len())
    }

    /// Puts a key in; drops it when the stock is full.
    pub fn put(&self, key: AgentKey) {
        let mut keys = self.lock();
        if keys.len() < self.capacity {
            keys.push(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<AgentKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_is_bounded_and_gives_each_key_once() {
        let stock = KeyStock::new(1);
        assert_eq!(stock.missing(), 1);
        assert!(stock.take().is_none());
        let key = AgentKey::generate().unwrap();
        let public = key.public();
        stock.put(key);
        stock.put(AgentKey::generate().unwrap());
        assert_eq!(stock.missing(), 0);
        assert_eq!(stock.take().unwrap().public(), public);
        assert!(stock.take().is_none());
        assert_eq!(stock.missing(), 1);
    }
}
