//! How Incus events reach a pool's task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes a pool's task for Incus events. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Waker {
    pub(super) look: Arc<Notify>,
    pub(super) image: Arc<Notify>,
    pub(super) is_listening: Arc<AtomicBool>,
}

impl Waker {
    /// Something happened to an instance.
    pub fn look_again(&self) {
        self.look.notify_one();
    }

    /// Events come, or they do not.
    pub fn set_listening(&self, is_listening: bool) {
        self.is_listening.store(is_listening, Ordering::Relaxed);
    }

    /// Something happened to an image or an alias.
    pub fn look_at_image(&self) {
        self.image.notify_one();
    }
}
