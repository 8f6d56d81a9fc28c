//! From "Listening for Jobs" to the deleted session: what each message leads to.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::error::{CallError, chain};
use crate::exit::Exit;
use crate::files::Settings;
use crate::job::{self, Job};
use crate::policy::MIN_CANCEL_TIMEOUT;
use crate::server::{Message, Server, Session};

use super::poll::{self, Polled};
use super::work::{self, Cancel};
use super::{Context, StopSignal, stopped};

/// The job in hand.
struct Running {
    id: String,
    cancel: watch::Sender<Cancel>,
}

struct Dispatch<'a> {
    context: &'a Arc<Context>,
    server: &'a Arc<Server>,
    session: watch::Receiver<Session>,
    running: Option<Running>,
    /// At most one; its end is the job's end.
    work: JoinSet<()>,
    /// With `--once` the first job is the last, whatever becomes of it.
    had_job: bool,
    /// The version to update to when the job in hand has ended.
    update: Option<String>,
}

/// What to do after a message.
enum After {
    /// Acknowledge it and go on.
    Acknowledge,
    /// Leave it to the service to give to another agent.
    Leave,
    /// Acknowledge it and end.
    End(Exit),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancellation {
    job_id: String,
    timeout: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refresh {
    target_version: String,
}

/// Listens until there is a reason to end, and deletes the session.
pub(super) async fn listen(
    context: &Arc<Context>,
    server: &Arc<Server>,
    settings: Settings,
    session: Session,
    mut stop: StopSignal,
) -> Result<Exit, CallError> {
    let (session_sender, session) = watch::channel(session);
    let (sender, mut messages) = mpsc::channel(1);
    let mut polls = JoinSet::new();
    polls.spawn(poll::take_messages(
        context.clone(),
        server.clone(),
        settings,
        session_sender,
        sender,
    ));
    polls.spawn(poll::keep_alive(
        context.clone(),
        server.clone(),
        session.clone(),
    ));

    let mut dispatch = Dispatch {
        context,
        server,
        session,
        running: None,
        work: JoinSet::new(),
        had_job: false,
        update: None,
    };
    let exit = dispatch.run(&mut messages, &mut stop).await;
    dispatch.cancel_and_wait().await;
    polls.shutdown().await;
    match exit {
        // A revoked token: the service would refuse.
        Ok(Ended {
            keep_session: true,
            exit,
        }) => Ok(exit),
        result => {
            let id = dispatch.session.borrow().id.clone();
            server.delete_session(&id).await?;
            result.map(|ended| ended.exit)
        }
    }
}

struct Ended {
    exit: Exit,
    keep_session: bool,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        Self {
            exit,
            keep_session: false,
        }
    }
}

impl Dispatch<'_> {
    async fn run(
        &mut self,
        messages: &mut mpsc::Receiver<Polled>,
        stop: &mut StopSignal,
    ) -> Result<Ended, CallError> {
        loop {
            let polled = tokio::select! {
                () = stopped(stop) => return Ok(Exit::Success.into()),
                Some(_) = self.work.join_next() => None,
                polled = messages.recv() => polled.or(Some(Polled::Hopeless(Exit::Retryable))),
            };
            match polled {
                None => {
                    self.running = None;
                    // Also with `--once`, so that a listener started anew may take another job.
                    if let Some(version) = self.update.take()
                        && let Some(exit) = self.finish_update(&version).await
                    {
                        return Ok(exit.into());
                    }
                    if self.context.once && !self.context.env.switch("FAKE_AGENT_KEEP_RUNNING") {
                        return Ok(Exit::Success.into());
                    }
                }
                Some(Polled::Message(message)) => {
                    if let Some(exit) = self.handle(message).await? {
                        return Ok(exit.into());
                    }
                }
                Some(Polled::Hopeless(exit)) => {
                    return Ok(Ended {
                        exit,
                        keep_session: exit == Exit::Success,
                    });
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<Option<Exit>, CallError> {
        let diag = &self.context.diag;
        diag.trace(&format!(
            "message {} {}",
            message.message_id, message.message_type
        ));
        let session = self.session.borrow().clone();
        let body = message.open(&session).map_err(CallError::Key)?;
        let after = match message.message_type.as_str() {
            job::JOB_REQUEST => self.take_job(&body)?,
            "JobCancellation" => self.cancel_job(&body)?,
            "AgentRefresh" => self.refresh(&body).await?,
            other => {
                diag.trace(&format!("unknown message type {other}"));
                After::Acknowledge
            }
        };
        if matches!(after, After::Leave) {
            return Ok(None);
        }
        if let Err(error) = self
            .server
            .delete_message(&session.id, message.message_id)
            .await
        {
            diag.trace(&format!("deleting the message: {}", chain(&error)));
        }
        Ok(match after {
            After::End(exit) => Some(exit),
            _ => None,
        })
    }

    fn take_job(&mut self, body: &str) -> Result<After, CallError> {
        if self.running.is_some() || self.is_last() {
            return Ok(After::Leave);
        }
        let mut message: Value = read(body)?;
        if self.context.once {
            job::mark_run_once(&mut message);
        }
        let job: Job = read(&message.to_string())?;
        self.had_job = true;
        self.context
            .diag
            .timed(&format!("Running job: {}", job.job_display_name));
        let (cancel, canceled) = watch::channel(Cancel::No);
        self.running = Some(Running {
            id: job.job_id.clone(),
            cancel,
        });
        self.work.spawn(work::run(
            self.context.clone(),
            self.server.clone(),
            job,
            message,
            canceled,
        ));
        Ok(After::Acknowledge)
    }

    /// Tells whether no more jobs are taken.
    fn is_last(&self) -> bool {
        self.update.is_some() || (self.context.once && self.had_job)
    }

    fn cancel_job(&self, body: &str) -> Result<After, CallError> {
        let cancellation: Cancellation = read(body)?;
        if let Some(running) = &self.running
            && running.id.eq_ignore_ascii_case(&cancellation.job_id)
        {
            let timeout = job::parse_time_span(&cancellation.timeout).unwrap_or(Duration::ZERO);
            running
                .cancel
                .send_replace(Cancel::Within(timeout.max(MIN_CANCEL_TIMEOUT)));
            return Ok(After::Acknowledge);
        }
        // It may be for a job message that was left to another agent too.
        Ok(if self.is_last() {
            After::Leave
        } else {
            After::Acknowledge
        })
    }

    /// Stands in for the self-update, which waits for the job in hand.
    async fn refresh(&mut self, body: &str) -> Result<After, CallError> {
        let Refresh { target_version } = read(body)?;
        let diag = &self.context.diag;
        if self.context.env.get("agent.disableupdate").is_some() || self.update.is_some() {
            diag.trace("no update now");
            return Ok(After::Acknowledge);
        }
        // The package is asked for and not needed: a test need not have one of each version.
        if let Err(error) = self.server.package(&target_version).await {
            diag.trace(&format!("the update's package: {}", chain(&error)));
        }
        self.tell_update("Agent update in progress, do not shutdown agent.")
            .await;
        self.tell_update(&format!("Downloading {target_version} agent"))
            .await;
        self.tell_update("Waiting for current job finish running.")
            .await;
        if self.running.is_some() {
            self.update = Some(target_version);
            return Ok(After::Acknowledge);
        }
        let exit = self.finish_update(&target_version).await;
        Ok(exit.map_or(After::Acknowledge, After::End))
    }

    /// Gives the package the new version's name; it keeps its programs.
    async fn finish_update(&self, version: &str) -> Option<Exit> {
        self.tell_update("Generate and execute update script.")
            .await;
        if let Err(error) = fs::write(self.context.root.version_file(), version) {
            self.context
                .diag
                .error(&format!("The update failed: {error}"));
            return None;
        }
        self.tell_update(
            "Agent will exit shortly for update, should be back online within 10 seconds.",
        )
        .await;
        Some(if self.context.once {
            Exit::RunOnceUpdating
        } else {
            Exit::Updating
        })
    }

    /// Tells the console and the service how far the update is.
    async fn tell_update(&self, state: &str) {
        let diag = &self.context.diag;
        diag.line(state);
        if let Err(error) = self.server.update_state(state).await {
            diag.trace(&format!("telling the update's state: {}", chain(&error)));
        }
    }

    async fn cancel_and_wait(&mut self) {
        if let Some(running) = &self.running {
            running.cancel.send_replace(Cancel::Shutdown);
        }
        while self.work.join_next().await.is_some() {}
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, CallError> {
    serde_json::from_str(body).map_err(|source| CallError::Answer {
        path: "message body".to_owned(),
        source,
    })
}
