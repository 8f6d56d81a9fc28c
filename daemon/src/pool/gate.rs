//! The gate that creations of a host go through, so many at a time: launches first come first
//! served, spares when no launch wants to pass. Booting guests slow each other down, and nobody
//! waits for a spare.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What spares make way for, on all hosts: launches that wait, and spares that become agents.
#[derive(Debug, Clone, Default)]
pub struct Urgency(Arc<watch::Sender<usize>>);

impl Urgency {
    /// Keeps spares from passing, as long as the answer lives.
    pub fn hold(&self) -> Urgent {
        self.0.send_modify(|urgent| *urgent += 1);
        Urgent(self.clone())
    }
}

/// Something that spares make way for, as long as it lives.
#[derive(Debug)]
pub struct Urgent(Urgency);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.0.send_modify(|urgent| *urgent -= 1);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    urgency: Urgency,
}

impl Gate {
    /// Makes a gate that lets `width` through at a time.
    pub fn new(width: usize, urgency: Urgency) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(width)),
            urgency,
        }
    }

    /// Waits for a launch's turn.
    pub async fn pass(&self) -> OwnedSemaphorePermit {
        let _urgent = self.urgency.hold();
        self.permit().await
    }

    /// Waits for a spare's turn: when nothing urgent is left.
    pub async fn pass_last(&self) -> OwnedSemaphorePermit {
        let mut urgent = self.urgency.0.subscribe();
        loop {
            let _ = urgent.wait_for(|urgent| *urgent == 0).await;
            let permit = self.permit().await;
            // A launch may have come while this waited for it.
            if *urgent.borrow() == 0 {
                return permit;
            }
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
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
        let gate = Gate::new(1, Urgency::default());
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
        let urgency = Urgency::default();
        let gate = Gate::new(2, urgency.clone());
        let urgent = urgency.hold();
        let mut spare = pin!(gate.pass_last());
        assert!(poll!(&mut spare).is_pending());
        let launch = gate.pass().await;
        drop(urgent);
        assert!(poll!(&mut spare).is_ready(), "there is room for both");
        drop(launch);
    }
}
