//! One job from the listener's side: the lock on it, and the worker process.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::chain;
use crate::exit::TaskResult;
use crate::job::{Job, WorkerMessage};
use crate::policy::{
    FIRST_RENEW_RETRIES, KILL_AFTER_CANCEL, LOCK_GRACE, RENEW_INTERVAL, is_lock_lost, renew_pause,
};
use crate::server::Server;

use super::Context;

/// Whether and how a job is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// By the service: the worker is killed a while after this time.
    Within(Duration),
    /// Because the listener ends, which waits for the worker without limit.
    Shutdown,
}

/// Runs a job to its end and tells the console how it went.
pub(super) async fn run(
    context: Arc<Context>,
    server: Arc<Server>,
    job: Job,
    message: Value,
    mut cancel: watch::Receiver<Cancel>,
) {
    let locked_until = tokio::select! {
        locked = first_renewal(&context, &server, job.request_id) => locked,
        _ = cancel.wait_for(|cancel| *cancel != Cancel::No) => None,
    };
    let Some(locked_until) = locked_until else {
        context
            .diag
            .trace("the job is not run: its lock could not be taken");
        return;
    };
    let result = match start_worker(&context, message).await {
        Ok((worker, stdin)) => {
            supervise(
                &context,
                &server,
                job.request_id,
                locked_until,
                worker,
                stdin,
                cancel,
            )
            .await
        }
        Err(error) => {
            context
                .diag
                .trace(&format!("the worker does not start: {error}"));
            TaskResult::Failed
        }
    };
    let name = &job.job_display_name;
    context
        .diag
        .timed(&format!("Job {name} completed with result: {result}"));
}

/// Renews the lock once, which has to work before anything is run.
async fn first_renewal(context: &Context, server: &Server, request_id: i64) -> Option<Timestamp> {
    for attempt in 0..=FIRST_RENEW_RETRIES {
        match server.renew(request_id).await {
            Ok(locked_until) => return Some(locked_until),
            Err(error) => {
                context
                    .diag
                    .trace(&format!("first renewal: {}", chain(&error)));
                if is_lock_lost(&error) {
                    return None;
                }
            }
        }
        if attempt < FIRST_RENEW_RETRIES {
            tokio::time::sleep(context.clock.random_wait(1, 10)).await;
        }
    }
    None
}

/// Keeps the lock; comes back when it is lost.
async fn keep_lock(
    context: &Context,
    server: &Server,
    request_id: i64,
    mut locked_until: Timestamp,
) {
    let mut failures = 0;
    context.clock.sleep(RENEW_INTERVAL).await;
    loop {
        match server.renew(request_id).await {
            Ok(until) => {
                failures = 0;
                locked_until = until;
                context.clock.sleep(RENEW_INTERVAL).await;
            }
            Err(error) => {
                context.diag.trace(&format!("renewal: {}", chain(&error)));
                let grace = context.clock.wait(LOCK_GRACE);
                if is_lock_lost(&error) || Timestamp::now() > locked_until + grace {
                    return;
                }
                failures += 1;
                let (from, to) = renew_pause(failures);
                tokio::time::sleep(context.clock.random_wait(from, to)).await;
            }
        }
    }
}

async fn start_worker(context: &Context, message: Value) -> io::Result<(Child, ChildStdin)> {
    let mut worker = Command::new(context.root.0.join("bin/Agent.Worker"))
        .arg("spawnclient")
        .current_dir(&context.root.0)
        .env_clear()
        .envs(context.env.for_worker())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = worker
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("no pipe"))?;
    tell(&mut stdin, &WorkerMessage::Job(message)).await?;
    Ok((worker, stdin))
}

async fn tell(stdin: &mut ChildStdin, message: &WorkerMessage) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    stdin.write_all(line.as_bytes()).await?;
    stdin.flush().await
}

/// Waits for the worker, keeps its lock and passes cancellation on.
async fn supervise(
    context: &Context,
    server: &Server,
    request_id: i64,
    locked_until: Timestamp,
    mut worker: Child,
    mut stdin: ChildStdin,
    mut cancel: watch::Receiver<Cancel>,
) -> TaskResult {
    let mut lock = pin!(keep_lock(context, server, request_id, locked_until));
    let (mut told, mut lost) = (None, false);
    let mut kill_at = None;
    loop {
        let reason = tokio::select! {
            status = worker.wait() => {
                let code = status.ok().and_then(|status| status.code());
                context.diag.trace(&format!("the worker ended with {code:?}"));
                return told.unwrap_or_else(|| TaskResult::from_worker_exit(code));
            }
            () = &mut lock, if !lost => {
                context.diag.trace("the lock is lost");
                lost = true;
                kill_at = Some(Instant::now() + context.clock.wait(KILL_AFTER_CANCEL));
                TaskResult::Abandoned
            }
            Ok(()) = cancel.changed() => {
                if let Cancel::Within(timeout) = *cancel.borrow_and_update() {
                    let patience = context.clock.wait(timeout + KILL_AFTER_CANCEL);
                    kill_at = Some(Instant::now() + patience);
                }
                TaskResult::Canceled
            }
            () = sleep_until(kill_at) => {
                context.diag.trace("the worker does not end and is killed");
                kill_at = None;
                if let Err(error) = worker.start_kill() {
                    context.diag.trace(&format!("killing the worker: {error}"));
                }
                continue;
            }
        };
        if told.is_none()
            && let Err(error) = tell(&mut stdin, &WorkerMessage::Cancel).await
        {
            context
                .diag
                .trace(&format!("cancelling the worker: {error}"));
        }
        told = told.or(Some(reason));
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
