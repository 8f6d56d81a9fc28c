//! Follows an adoption in the statuses of the pools whose tasks carry it out, and ends with it.

use std::pin::Pin;

use futures_util::future::select_all;
use futures_util::stream;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use iap_common::v1;

use crate::pool::PoolHandle;
use crate::pool::ghosts::{AdoptionEnd, TargetState};

use super::status;

pub(super) type AdoptionStream =
    Pin<Box<dyn Stream<Item = Result<v1::AdoptGhostsResponse, Status>> + Send>>;

/// What goes in one Azure pool, and the pool of ours whose task removes it.
pub(super) struct Part {
    pub(super) handle: PoolHandle,
    pub(super) ghosts: Vec<v1::Ghost>,
    /// Tells this adoption from others in the pool's status.
    pub(super) token: u64,
    /// Why the pool's task did not begin.
    pub(super) refused: Option<String>,
    status: StatusReceiver,
    /// The pool's task has ended.
    is_left: bool,
}

type StatusReceiver = tokio::sync::watch::Receiver<std::sync::Arc<crate::pool::status::PoolStatus>>;

/// How far one part got.
struct Progress {
    ghosts: Vec<v1::AdoptedGhost>,
    /// Why it is over; nothing in it when all went well. `None` while it lasts.
    end: Option<String>,
}

impl Part {
    pub(super) fn new(handle: PoolHandle, ghosts: Vec<v1::Ghost>) -> Self {
        Self {
            status: handle.watch(),
            handle,
            ghosts,
            token: fastrand::u64(..),
            refused: None,
            is_left: false,
        }
    }

    fn all(&self, state: v1::AdoptedGhostState, end: Option<String>) -> Progress {
        let ghosts = self.ghosts.iter().map(|ghost| v1::AdoptedGhost {
            ghost: Some(ghost.clone()),
            state: state.into(),
            detail: String::new(),
        });
        Progress {
            ghosts: ghosts.collect(),
            end,
        }
    }

    fn progress(&mut self) -> Progress {
        if let Some(refused) = &self.refused {
            return self.all(v1::AdoptedGhostState::Kept, Some(refused.clone()));
        }
        let status = self.status.borrow_and_update().clone();
        let own = status.adoption.as_ref();
        let Some(adoption) = own.filter(|adoption| adoption.token == self.token) else {
            let end = "it is not known what came of it".to_owned();
            return self.all(v1::AdoptedGhostState::Unspecified, Some(end));
        };
        let ghosts = self.ghosts.iter().map(|ghost| {
            let of = |t: &&crate::pool::ghosts::Target| t.id == ghost.azure_agent_id;
            let target = adoption.targets.iter().find(of);
            let state = match target.map(|target| target.state) {
                Some(TargetState::There) => v1::AdoptedGhostState::Present,
                Some(TargetState::Stays) => v1::AdoptedGhostState::Kept,
                // It had gone before the pool's task began.
                Some(TargetState::Gone) | None => v1::AdoptedGhostState::Removed,
            };
            v1::AdoptedGhost {
                ghost: Some(ghost.clone()),
                state: state.into(),
                detail: target.map(|t| t.detail.clone()).unwrap_or_default(),
            }
        });
        let left = "the pool left the configuration, and its task has ended".to_owned();
        Progress {
            ghosts: ghosts.collect(),
            end: adoption
                .end
                .as_ref()
                .map(|end: &AdoptionEnd| end.words(&adoption.owner))
                .or(self.is_left.then_some(left)),
        }
    }
}

/// Tells what would go.
pub(super) fn dry_run(parts: Vec<Part>) -> AdoptionStream {
    let present = v1::AdoptedGhostState::Present;
    let message = v1::AdoptGhostsResponse {
        state: v1::AdoptionState::DryRun.into(),
        ghosts: parts
            .iter()
            .flat_map(|part| part.all(present, None).ghosts)
            .collect(),
        message: String::new(),
    };
    Box::pin(tokio_stream::once(Ok(message)))
}

/// Tells how far an adoption got, after each change, until it is over.
pub(super) fn follow(parts: Vec<Part>, stop: CancellationToken) -> AdoptionStream {
    let start = Following {
        parts,
        stop,
        last: None,
        is_over: false,
    };
    Box::pin(stream::unfold(start, |mut following| async move {
        let message = following.next().await?;
        following.is_over |= message.is_err();
        Some((message, following))
    }))
}

struct Following {
    parts: Vec<Part>,
    stop: CancellationToken,
    last: Option<v1::AdoptGhostsResponse>,
    is_over: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Result<v1::AdoptGhostsResponse, Status>> {
        while !self.is_over {
            let message = self.look();
            // The pools' tasks end with the daemon: that is no end of theirs.
            if message.state() != v1::AdoptionState::Done && self.stop.is_cancelled() {
                return Some(Err(status::stopping()));
            }
            self.is_over = message.state() != v1::AdoptionState::UnderWay;
            if self.last.as_ref() != Some(&message) {
                self.last = Some(message.clone());
                return Some(Ok(message));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Some(Err(status::stopping())),
                () = any_change(&mut self.parts) => {}
            }
        }
        None
    }

    fn look(&mut self) -> v1::AdoptGhostsResponse {
        let parts: Vec<Progress> = self.parts.iter_mut().map(Part::progress).collect();
        let ends: Option<Vec<&str>> = parts.iter().map(|part| part.end.as_deref()).collect();
        let (state, message) = match ends {
            None => (v1::AdoptionState::UnderWay, String::new()),
            Some(ends) => {
                let why: Vec<&str> = ends.into_iter().filter(|why| !why.is_empty()).collect();
                let state = match why.is_empty() {
                    true => v1::AdoptionState::Done,
                    false => v1::AdoptionState::EndedEarly,
                };
                (state, why.join("; "))
            }
        };
        v1::AdoptGhostsResponse {
            state: state.into(),
            ghosts: parts.into_iter().flat_map(|part| part.ghosts).collect(),
            message,
        }
    }
}

/// Resolves when the status of one of the pools changes, or its task ends.
async fn any_change(parts: &mut [Part]) {
    let lasting = parts.iter_mut().filter(|part| !part.is_left);
    let changes: Vec<_> = lasting
        .map(|part| {
            Box::pin(async {
                part.is_left = part.status.changed().await.is_err();
            })
        })
        .collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let _ = select_all(changes).await;
}
