//! `Agent.Worker`: does one job and tells the service.
//!
//! A job is what the test asks for in its `sim.*` variables: a script, whose output becomes the plan's
//! log, then a while of doing nothing. The worker speaks to the service with the job's own token only.
//! Its exit code is 100 plus the result; without its listener it ends at once, telling nobody.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use hyper::Method;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::diag::Diag;
use crate::environment::Environment;
use crate::error::{CallError, chain};
use crate::exit::TaskResult;
use crate::files::{FilesError, Root};
use crate::http::{Answer, Body, Call, Http};
use crate::job::{Job, Wishes, WorkerMessage};
use crate::server::check;

/// Exit code that means "crashed" to the listener.
const CRASH: u8 = 1;
/// How much of a script's output is sent; the end of it, if there is more.
const MAX_OUTPUT: u64 = 1 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(100);
const EVENT_TRIES: u32 = 5;
const EVENT_PAUSE: Duration = Duration::from_secs(5);
/// How a script is made to end: a signal, and how long it gets to obey.
const ENDING: [(Signal, Duration); 2] = [
    (Signal::SIGINT, Duration::from_millis(7500)),
    (Signal::SIGTERM, Duration::from_millis(2500)),
];

#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the listener sent no job")]
    NoJob,
    #[error("the listener is gone")]
    Orphaned,
    #[error("the job message cannot be read")]
    Message(#[source] serde_json::Error),
    #[error("the job has no usable {0}")]
    Job(&'static str),
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("the job's completion could not be told")]
    Event(#[source] CallError),
    #[error("crashing as told")]
    Crash,
}

fn io(what: &'static str) -> impl Fn(io::Error) -> WorkerError {
    move |source| WorkerError::Io { what, source }
}

struct Worker {
    root: Root,
    clock: Clock,
    diag: Diag,
    http: Http,
    job: Job,
    wishes: Wishes,
}

/// Runs the worker with the arguments after the program's name.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments.first().map(String::as_str) != Some("spawnclient") {
        return ExitCode::from(CRASH);
    }
    let opened = Root::of_this_program().and_then(|root| {
        let env = Environment::load(&root.0)?;
        let diag = Diag::worker(&root, &env)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok((root, env, diag, runtime))
    });
    let Ok((root, env, diag, runtime)) = opened else {
        return ExitCode::from(CRASH);
    };
    let code = runtime
        .block_on(run(root, &env, diag.clone()))
        .unwrap_or_else(|error| {
            diag.trace(&format!("crash: {}", chain(&error)));
            CRASH
        });
    diag.trace(&format!("exit code {code}"));
    // Reading from stdin holds a thread that the runtime would wait for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run(root: Root, env: &Environment, diag: Diag) -> Result<u8, WorkerError> {
    // A console's SIGINT reaches the worker too; only the listener decides what becomes of the job.
    let _ignored = signal(SignalKind::interrupt()).map_err(io("receive signals"))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let line = lines
        .next_line()
        .await
        .map_err(io("read the job"))?
        .ok_or(WorkerError::NoJob)?;
    let WorkerMessage::Job(message) = serde_json::from_str(&line).map_err(WorkerError::Message)?
    else {
        return Err(WorkerError::NoJob);
    };
    let job: Job = serde_json::from_value(message).map_err(WorkerError::Message)?;
    diag.trace(&format!("job {} {}", job.request_id, job.job_display_name));
    let worker = Worker {
        http: Http::new(env, &root.version()),
        clock: env.clock(),
        wishes: job.wishes().map_err(WorkerError::Job)?,
        root,
        diag,
        job,
    };
    let (sender, canceled) = watch::channel(false);
    let result = tokio::select! {
        biased;
        () = listen(lines, sender) => return Err(WorkerError::Orphaned),
        result = worker.work(canceled) => result?,
    };
    Ok(result.worker_exit())
}

/// Passes cancellation on; comes back when the listener is gone.
async fn listen(mut lines: Lines<BufReader<Stdin>>, canceled: watch::Sender<bool>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(WorkerMessage::Cancel) = serde_json::from_str(&line) {
            canceled.send_replace(true);
        }
    }
}

impl Worker {
    async fn work(&self, mut canceled: watch::Receiver<bool>) -> Result<TaskResult, WorkerError> {
        let mut result = match &self.wishes.script {
            Some(script) => self.script(script, &mut canceled).await?,
            None => None,
        };
        if result.is_none() {
            result = tokio::select! {
                () = self.stopped(&mut canceled) => Some(TaskResult::Canceled),
                () = tokio::time::sleep(self.wishes.duration) => None,
            };
        }
        if self.wishes.crash {
            return Err(WorkerError::Crash);
        }
        let result = result.unwrap_or(self.wishes.result);
        self.tell_completed(result).await?;
        Ok(result)
    }

    /// Waits for a cancellation, and then as long as the test wants it ignored.
    async fn stopped(&self, canceled: &mut watch::Receiver<bool>) {
        if canceled.wait_for(|canceled| *canceled).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.wishes.ignore_cancel).await;
    }

    /// Runs the script and sends its output; a result only when it did not succeed.
    async fn script(
        &self,
        script: &str,
        canceled: &mut watch::Receiver<bool>,
    ) -> Result<Option<TaskResult>, WorkerError> {
        let (sources, temp) = self.directories()?;
        let file = temp.join("sim.sh");
        fs::write(&file, script).map_err(io("write the script"))?;
        let output = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(temp.join("sim.log"))
            .map_err(io("create the log"))?;
        let writer = || output.try_clone().map_err(io("share the log"));
        let shell = if PathBuf::from("/bin/bash").exists() {
            "/bin/bash"
        } else {
            "/bin/sh"
        };
        let mut child = Command::new(shell)
            .arg("-e")
            .arg(&file)
            .current_dir(sources)
            .stdin(Stdio::null())
            .stdout(writer()?)
            .stderr(writer()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start the script"))?;

        let status = tokio::select! {
            status = child.wait() => Some(status.map_err(io("wait for the script"))?),
            () = self.stopped(canceled) => None,
        };
        let result = match status {
            None => {
                self.end_script(&mut child).await?;
                Some(TaskResult::Canceled)
            }
            Some(status) if status.success() => None,
            // Whoever stops the whole unit interrupts the script too, perhaps before the listener speaks.
            Some(status) if status.signal() == Some(Signal::SIGINT as i32) => {
                Some(TaskResult::Canceled)
            }
            Some(status) => {
                self.diag.trace(&format!("the script ended with {status}"));
                Some(TaskResult::Failed)
            }
        };
        self.send_log(output).await?;
        Ok(result)
    }

    fn directories(&self) -> Result<(PathBuf, PathBuf), WorkerError> {
        // An absolute work folder replaces the root.
        let work = self.root.0.join(self.root.settings()?.work_folder);
        let directories = (work.join("1/s"), work.join("_temp"));
        for directory in [&directories.0, &directories.1] {
            fs::create_dir_all(directory).map_err(io("create the work folder"))?;
        }
        Ok(directories)
    }

    async fn end_script(&self, child: &mut Child) -> Result<(), WorkerError> {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        for (signal, patience) in ENDING {
            if let Some(group) = group
                && let Err(error) = killpg(group, signal)
            {
                self.diag.trace(&format!("{signal}: {error}"));
            }
            if tokio::time::timeout(self.clock.wait(patience), child.wait())
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        child.kill().await.map_err(io("kill the script"))
    }

    async fn send_log(&self, mut output: File) -> Result<(), WorkerError> {
        let size = output.metadata().map_err(io("read the log"))?.len();
        let mut bytes = Vec::new();
        output
            .seek(SeekFrom::Start(size.saturating_sub(MAX_OUTPUT)))
            .and_then(|_| output.take(MAX_OUTPUT).read_to_end(&mut bytes))
            .map_err(io("read the log"))?;
        // A job does not fail for its log.
        if let Err(error) = self.post("logs/1", Body::Bytes(bytes)).await {
            self.diag.trace(&format!("log: {}", chain(&error)));
        }
        Ok(())
    }

    async fn tell_completed(&self, result: TaskResult) -> Result<(), WorkerError> {
        let event = json!({
            "name": "JobCompleted",
            "jobId": self.job.job_id,
            "requestId": self.job.request_id,
            "result": result.wire(),
            "outputs": {},
            "agentShuttingDown": self.job.is_run_once(),
        });
        let mut tries = 1;
        loop {
            match self.post("events", Body::Json(event.to_string())).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == EVENT_TRIES => return Err(WorkerError::Event(error)),
                Err(error) => self.diag.trace(&format!("event: {}", chain(&error))),
            }
            tries += 1;
            self.clock.sleep(EVENT_PAUSE).await;
        }
    }

    async fn post(&self, path: &str, body: Body) -> Result<Answer, CallError> {
        let (base, token) = self
            .job
            .connection()
            .ok_or_else(|| CallError::Address("the job's service".into()))?;
        let call = Call {
            method: Method::POST,
            url: format!("{base}/{}", self.job.plan_path(path)),
            body,
            deadline: self.clock.deadline(CALL_TIMEOUT),
        };
        check(self.http.send(&call, Some(token)).await?)
    }
}
