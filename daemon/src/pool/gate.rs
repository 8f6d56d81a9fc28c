//! The gate that all creations of a host go through, so many at a time: launches first come first
//! served, spares when no launch wants to pass. Booting guests slow each other down, and nobody
//! waits for a spare.

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// See the module.
#[derive(Debug)]
pub struct Gate {
    permits: Semaphore,
    /// Launches that wait here, and spares that are becoming agents.
    urgent: watch::Sender<usize>,
}

/// Something that spares make way for, as long as it lives.
#[derive(Debug)]
pub struct Urgent<'a>(&'a Gate);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent.send_modify(|urgent| *urgent -= 1);
    }
}

impl Gate {
    /// Makes a gate that lets `width` through at a time.
    pub fn new(width: usize) -> Self {
        Self {
            permits: Semaphore::new(width),
            urgent: watch::Sender::new(0),
        }
    }

    /// Keeps spares from passing.
    pub fn urgent(&self) -> Urgent<'_> {
        self.urgent.send_modify(|urgent| *urgent += 1);
        Urgent(self)
    }

    /// Waits for a launch's turn.
    pub async fn pass(&self) -> SemaphorePermit<'_> {
        let _urgent = self.urgent();
        self.permit().await
    }

    /// Waits for a spare's turn: when nothing urgent is left.
    pub async fn pass_last(&self) -> SemaphorePermit<'_> {
        let mut urgent = self.urgent.subscribe();
        loop {
            let _ = urgent.wait_for(|urgent| *urgent == 0).await;
            let permit = self.permit().await;
            // A launch may have come while this waited for it.
            if *urgent.borrow() == 0 {
                return permit;
            }
        }
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        let permit = self.permits.acquire().await;
        permit.expect("nobody closes it")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_launch_passes_before_a_spare_that_waited_longer() {
        let gate = Gate::new(1);
        let first = gate.pass().await;
        let mut spare = pin!(gate.pass_last());
        assert!(poll!(&mut spare).is_pending());
        let mut launch = pin!(gate.pass());
        assert!(poll!(&mut launch).is_pending());
        drop(first);
        assert!(poll!(&mut spare).is_pending());
        let second = launch.await;
        assert!(poll!(&mut spare).is_pending());
        drop(second);
        assert!(poll!(&mut spare).is_ready());
    }

    #[tokio::test]
    async fn no_spare_passes_while_another_becomes_an_agent() {
        let gate = Gate::new(2);
        let urgent = gate.urgent();
        let mut spare = pin!(gate.pass_last());
        assert!(poll!(&mut spare).is_pending());
        let launch = gate.pass().await;
        drop(urgent);
        assert!(poll!(&mut spare).is_ready(), "there is room for both");
        drop(launch);
    }
}
