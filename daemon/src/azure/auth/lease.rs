//! Holds a token that does not last: who needs one gets it, one caller at a time fetches the next
//! one, and that before it has to.
//!
//! ```text
//!   fetched ──────────── 3/4 of its life ─────── its end
//!      └ handed out as it is ┘ └ the first caller fetches the next one; if that fails,
//!                                the old one still serves and the fetch is tried again later
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iap_common::error::chain;
use jiff::Timestamp;
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::token::Token;
use crate::azure::error::AzureError;

/// Fetching a token takes Entra ID well below a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Nobody waits longer while the old token is still good.
const EARLY_DEADLINE: Duration = Duration::from_secs(10);
/// Between two early fetches, when the first one failed.
const RETRY: Duration = Duration::from_secs(30);
/// A failure is the answer to everybody who asks within this time: many callers wait at once.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// A token this young that is refused is not the reason: the next one would fare no better. Or the
/// tenth of its life, if that is less.
const YOUNG: Duration = Duration::from_secs(30);

/// How a token is to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// One from a cache will not do.
    pub(super) anew: bool,
    /// How long it may take.
    pub(super) within: Duration,
}

/// A token as it was fetched.
pub(super) struct Fresh {
    pub(super) token: Token,
    /// How long it is good for.
    pub(super) life: Duration,
}

struct Leased {
    token: Arc<Token>,
    since: Instant,
    renew_at: Instant,
    ends_at: Instant,
    /// The same by the wall clock.
    expires_at: Timestamp,
}

#[derive(Default)]
struct Held {
    leased: Option<Leased>,
    failed: Option<(Instant, Arc<AzureError>)>,
    last_warning: String,
    rejected_at: Option<Timestamp>,
    anew: bool,
}

enum Look {
    Good(Arc<Token>),
    Aging(Arc<Token>),
    Nothing,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lease {
    held: Mutex<Held>,
    fetching: tokio::sync::Mutex<()>,
}

impl Lease {
    /// Returns the token to use now, fetched with `fetch` if need be.
    pub(super) async fn current<F>(
        &self,
        fetch: impl Fn(Wish) -> F,
    ) -> Result<Arc<Token>, AzureError>
    where
        F: Future<Output = Result<Fresh, AzureError>>,
    {
        let arrived = Instant::now();
        match self.look() {
            Look::Good(token) => return Ok(token),
            Look::Aging(token) => {
                // Somebody else fetches already.
                let Ok(_alone) = self.fetching.try_lock() else {
                    return Ok(token);
                };
                return Ok(self.renew(token, fetch).await);
            }
            Look::Nothing => {}
        }
        let _alone = self.fetching.lock().await;
        if let Look::Good(token) | Look::Aging(token) = self.look() {
            return Ok(token);
        }
        if let Some(error) = self.failure(arrived) {
            return Err(AzureError::Shared(error));
        }
        let began = Instant::now();
        let wish = Wish {
            anew: self.held().anew,
            within: DEADLINE,
        };
        match fetch(wish).await {
            Ok(fresh) => Ok(self.keep(fresh, began)),
            Err(error) => {
                let error = Arc::new(error);
                let mut held = self.held();
                held.failed = Some((Instant::now(), Arc::clone(&error)));
                held.note(&error);
                Err(AzureError::Shared(error))
            }
        }
    }

    /// Fetches the next token while `old` is still good.
    async fn renew<F>(&self, old: Arc<Token>, fetch: impl Fn(Wish) -> F) -> Arc<Token>
    where
        F: Future<Output = Result<Fresh, AzureError>>,
    {
        if let Look::Good(token) = self.look() {
            return token;
        }
        let began = Instant::now();
        let wish = Wish {
            anew: false,
            within: EARLY_DEADLINE,
        };
        match fetch(wish).await {
            Ok(fresh) => self.keep(fresh, began),
            Err(error) => {
                let text = chain(&error).to_string();
                let mut held = self.held();
                held.note(&error);
                if held.last_warning == text {
                    debug!(error = %text, "cannot renew the token yet");
                } else {
                    warn!(error = %text, "cannot renew the token, the old one is still good");
                    held.last_warning = text;
                }
                if let Some(leased) = &mut held.leased {
                    leased.renew_at = Instant::now() + jittered(RETRY);
                }
                old
            }
        }
    }

    /// Forgets the token, which was refused, so that the next caller fetches another one.
    pub(super) fn forget(&self) {
        let mut held = self.held();
        let is_old = |leased: &Leased| {
            let life = leased.ends_at - leased.since;
            leased.since.elapsed() >= YOUNG.min(life / 10)
        };
        if held.leased.as_ref().is_some_and(is_old) {
            held.leased = None;
            held.anew = true;
        }
    }

    /// Returns when the token in hand ends.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.held().leased.as_ref().map(|leased| leased.expires_at)
    }

    /// Returns when a token was refused to us last.
    pub(super) fn rejected_at(&self) -> Option<Timestamp> {
        self.held().rejected_at
    }

    fn look(&self) -> Look {
        let held = self.held();
        let now = Instant::now();
        match &held.leased {
            Some(leased) if now < leased.renew_at.min(leased.ends_at) => {
                Look::Good(Arc::clone(&leased.token))
            }
            Some(leased) if now < leased.ends_at => Look::Aging(Arc::clone(&leased.token)),
            _ => Look::Nothing,
        }
    }

    fn failure(&self, arrived: Instant) -> Option<Arc<AzureError>> {
        let held = self.held();
        let (at, error) = held.failed.as_ref()?;
        (*at + FAILURE_LASTS > arrived).then(|| Arc::clone(error))
    }

    /// Its life counts from when it was asked for: how long the answer took is not known to it.
    fn keep(&self, fresh: Fresh, began: Instant) -> Arc<Token> {
        let token = Arc::new(fresh.token);
        let leased = Leased {
            token: Arc::clone(&token),
            since: began,
            renew_at: began + jittered(fresh.life.mul_f64(0.75)),
            ends_at: began + fresh.life,
            expires_at: Timestamp::now()
                .saturating_add(fresh.life.saturating_sub(began.elapsed()))
                .unwrap_or(Timestamp::MAX),
        };
        let mut held = self.held();
        held.leased = Some(leased);
        held.failed = None;
        held.last_warning.clear();
        held.anew = false;
        token
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn note(&mut self, error: &AzureError) {
        if error.is_rejected() {
            self.rejected_at = Some(Timestamp::now());
        }
    }
}

/// A twentieth less or more, so that hosts do not ask in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.95 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests;
