//! Whether Incus answers, and what it is. The daemon starts without it and waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use iap_common::error::chain;

use crate::incus::{Incus, IncusError, Server};

use super::owner::Source;

/// Between two looks while Incus does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks while it does.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is known of Incus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncusHealth {
    /// Server version; empty until it answered once.
    pub version: String,
    /// Storage drivers in use.
    pub storage: String,
    /// Why the last look failed; empty when it did not.
    pub error: String,
    /// Whose instances ours are; empty until Incus answered once.
    pub owner: String,
}

impl IncusHealth {
    /// Returns whether the last look worked.
    pub fn is_reachable(&self) -> bool {
        self.error.is_empty() && !self.version.is_empty()
    }

    /// Returns what is wrong, in words.
    pub fn problem(&self) -> Option<String> {
        (!self.error.is_empty()).then(|| format!("Incus does not answer: {}", self.error))
    }
}

/// Looks at Incus.
pub(super) struct Watcher {
    pub(super) incus: Incus,
    pub(super) owner: Source,
    pub(super) incus_health: watch::Sender<Arc<IncusHealth>>,
    /// Our certificate's fingerprint, when that is what a server trusts us by.
    pub(super) certificate: Option<String>,
}

impl Watcher {
    /// Waits until Incus answers for the first time and returns the owner's mark; `None` when the
    /// daemon is stopped before.
    pub(super) async fn first_contact(&self, stop: &CancellationToken) -> Option<Arc<str>> {
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return None,
                looked = self.incus.server() => looked,
            };
            let fingerprint = looked
                .as_ref()
                .ok()
                .filter(|server| server.is_trusted())
                .map(|server| server.certificate_fingerprint.clone());
            self.take(looked);
            if let Some(fingerprint) = fingerprint {
                let owner = self.owner.owner(&fingerprint);
                self.incus_health.send_modify(|health| {
                    Arc::make_mut(health).owner = owner.to_string();
                });
                info!(owner = %owner, "Incus answers");
                return Some(owner);
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Looks again now and then, until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        loop {
            let pause = if self.incus_health.borrow().is_reachable() {
                INTERVAL
            } else {
                RETRY
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.incus.server() => looked,
            };
            self.take(looked);
        }
    }

    fn take(&self, looked: Result<Server, IncusError>) {
        let old = Arc::clone(&self.incus_health.borrow());
        let new = match looked {
            Ok(server) if !server.is_trusted() => self.untrusted(&old),
            Ok(server) => IncusHealth {
                version: server.version.clone(),
                storage: server.storage.clone(),
                error: String::new(),
                owner: old.owner.clone(),
            },
            Err(error) => {
                let mut text = chain(&error).to_string();
                if error.is_not_permitted() && self.certificate.is_none() {
                    text.push_str(
                        ": iapd's user has to be in the group of the socket (incus-admin)",
                    );
                }
                failed(&old, text)
            }
        };
        if new != *old {
            self.incus_health.send_replace(Arc::new(new));
        }
    }

    /// It answers, and tells strangers next to nothing.
    fn untrusted(&self, old: &IncusHealth) -> IncusHealth {
        let place = self.incus.place();
        let text = match &self.certificate {
            Some(fingerprint) => format!(
                "{place} does not trust this client, whose certificate is {}: add it there by \
                 `incus config trust add-certificate`",
                &fingerprint[..12.min(fingerprint.len())]
            ),
            None => format!("{place} does not trust this user"),
        };
        failed(old, text)
    }
}

/// Returns what is known after a look that failed.
fn failed(old: &IncusHealth, error: String) -> IncusHealth {
    if old.error != error {
        warn!(%error, "Incus does not answer, will retry");
    }
    IncusHealth {
        error,
        ..old.clone()
    }
}
