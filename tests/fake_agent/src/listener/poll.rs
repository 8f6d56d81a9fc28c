//! The two polls of a session: the one that takes messages, and the one that keeps it alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::error::chain;
use crate::exit::Exit;
use crate::files::Settings;
use crate::policy::{AfterPollFailure, after_poll_failure, poll_pause};
use crate::server::{Message, Server, Session};

use super::{Context, session};

/// Pause between the polls that only keep the session alive.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_secs(30);

/// What the poll comes back with.
pub(super) enum Polled {
    Message(Message),
    /// There is no point in polling on.
    Hopeless(Exit),
}

/// Takes messages until there is no point in it any more.
pub(super) async fn take_messages(
    context: Arc<Context>,
    server: Arc<Server>,
    settings: Settings,
    session: watch::Sender<Session>,
    messages: mpsc::Sender<Polled>,
) {
    let diag = &context.diag;
    let mut last = None;
    let mut failures = 0;
    loop {
        let id = session.borrow().id.clone();
        let polled = server.message(&id, last).await;
        if polled.is_ok() && failures > 0 {
            failures = 0;
            diag.timed("Agent reconnected.");
        }
        match polled {
            Ok(Some(message)) => {
                last = Some(message.message_id);
                if messages.send(Polled::Message(message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => tokio::time::sleep(context.clock.random_wait(5, 15)).await,
            Err(error) => match after_poll_failure(&error, !settings.skip_session_recover) {
                AfterPollFailure::Retry => {
                    failures += 1;
                    if failures == 1 {
                        session::report(diag, &error);
                    }
                    let (from, to) = poll_pause(failures);
                    tokio::time::sleep(context.clock.random_wait(from, to)).await;
                }
                AfterPollFailure::RecreateSession => {
                    diag.trace("the session expired");
                    match session::create(&context, &server, &settings).await {
                        Ok(created) => {
                            session.send_replace(created);
                        }
                        Err(_) => {
                            diag.error(&format!("An error occurred: {}", chain(&error)));
                            let _ = messages.send(Polled::Hopeless(Exit::Retryable)).await;
                            return;
                        }
                    }
                }
                AfterPollFailure::End(exit) => {
                    if exit != Exit::Success {
                        diag.error(&format!("An error occurred: {}", chain(&error)));
                    }
                    let _ = messages.send(Polled::Hopeless(exit)).await;
                    return;
                }
            },
        }
    }
}

/// Polls beside the real poll and throws away what comes, as the real listener does.
pub(super) async fn keep_alive(
    context: Arc<Context>,
    server: Arc<Server>,
    session: watch::Receiver<Session>,
) {
    loop {
        let id = session.borrow().id.clone();
        if let Err(error) = server.message(&id, None).await {
            context
                .diag
                .trace(&format!("keep-alive: {}", chain(&error)));
        }
        context.clock.sleep(KEEP_ALIVE_PAUSE).await;
    }
}
