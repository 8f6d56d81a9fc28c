//! `Agent.Listener`: start, listen, end.
//!
//! ```text
//! files ─► connect ─► session ─► Listening ─► job ─► session deleted ─► exit code
//!   │exit 2   │exit 2    │exit 1     │ poll hopeless: job cancelled, exit 2
//!                                    └ AgentRefresh: exit 4 (3 without --once)
//! ```
//!
//! The test switches `FAKE_AGENT_NEVER_CONNECT`, `FAKE_AGENT_HANG_ON_SIGINT` and
//! `FAKE_AGENT_KEEP_RUNNING` make it misbehave in the ways an orchestrator has to survive.

mod dispatch;
mod poll;
mod session;
mod work;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::diag::Diag;
use crate::environment::{Environment, OnSigterm};
use crate::error::{CallError, chain};
use crate::exit::Exit;
use crate::files::{FilesError, Root, Settings};
use crate::http::Http;
use crate::leak::Forbidden;
use crate::server::{Server, Session};

/// How long the .NET 8 builds may clean up after SIGTERM.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Flag the real listener asks for before it connects.
const FIRST_FLAG: &str = "DistributedTask.Agent.CheckPsModulesLocations";
/// Flags the real listener asks for once it has a session.
const LATER_FLAGS: [&str; 3] = [
    "DistributedTask.Agent.UseEnhancedLogging",
    "DistributedTask.Agent.EnhancedWorkerCrashHandling",
    "DistributedTask.Agent.EnableProgressiveRetryBackoff",
];

/// What every part of the listener needs.
struct Context {
    root: Root,
    env: Environment,
    clock: Clock,
    diag: Diag,
    version: String,
    once: bool,
}

/// Why the listener was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupt,
    Terminate,
}

type StopSignal = watch::Receiver<Option<Stop>>;

/// An error nobody handles: told on the console, exit code 2.
#[derive(Debug, thiserror::Error)]
enum Unhandled {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Runs the listener with the arguments after the program's name.
pub fn main(arguments: &[String]) -> ExitCode {
    match start(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // There is no log to write to yet.
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("An error occurred: {}\n", chain(&error)),
            );
            Exit::Retryable.into()
        }
    }
}

fn start(arguments: &[String]) -> io::Result<Exit> {
    let root = Root::of_this_program()?;
    if arguments.iter().any(|argument| argument == "--version") {
        io::Write::write_fmt(&mut io::stdout(), format_args!("{}\n", root.version()))?;
        return Ok(Exit::Success);
    }
    let env = Environment::load(&root.0)?;
    let diag = Diag::listener(&root, &env)?;
    if let Some(place) = Forbidden::from_env(&env).find(&root.0, &env, arguments) {
        diag.error(&format!("An admin credential is in a job's reach: {place}"));
        return Ok(Exit::Leak);
    }
    let mut once = env
        .input("ONCE")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    for argument in arguments {
        match argument.as_str() {
            "run" => {}
            "--once" => once = true,
            "configure" | "remove" | "reauth" => {
                diag.error(&format!("This stand-in cannot {argument}."));
                return Ok(Exit::Terminated);
            }
            other => diag.error(&format!(
                "Unrecognized command-line input arguments: '{other}'."
            )),
        }
    }
    let context = Context {
        version: root.version(),
        clock: env.clock(),
        root,
        env,
        diag,
        once,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(run(Arc::new(context))))
}

async fn run(context: Arc<Context>) -> Exit {
    let (sender, stop) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen_for_signals(context.clone(), sender));
    let exit = match live(&context, stop.clone()).await {
        Ok(exit) => exit,
        Err(error) => {
            context
                .diag
                .error(&format!("An error occurred: {}", chain(&error)));
            Exit::Retryable
        }
    };
    let terminated = *stop.borrow() == Some(Stop::Terminate);
    let exit = if terminated { Exit::Sigterm } else { exit };
    context.diag.trace(&format!("exit code {}", exit as u8));
    exit
}

/// Passes signals on, or misbehaves with them as a test wants.
async fn listen_for_signals(context: Arc<Context>, stop: watch::Sender<Option<Stop>>) {
    let terminable = context.env.on_sigterm(&context.version) == OnSigterm::CleanUp;
    let interrupt = signal(SignalKind::interrupt());
    // Without this line SIGTERM keeps its default action, which is what the .NET 10 builds do.
    let terminate = terminable.then(|| signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate.transpose()) else {
        context.diag.error("Signals cannot be received.");
        return;
    };
    loop {
        let received = tokio::select! {
            _ = interrupt.recv() => Stop::Interrupt,
            () = received(terminate.as_mut()) => Stop::Terminate,
        };
        context.diag.line("Exiting...");
        if received == Stop::Interrupt && context.env.switch("FAKE_AGENT_HANG_ON_SIGINT") {
            continue;
        }
        stop.send_replace(Some(received));
        if received == Stop::Terminate {
            context.clock.sleep(UNLOAD_TIMEOUT).await;
            std::process::exit(Exit::Sigterm as i32);
        }
    }
}

async fn received(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits until the listener is told to stop.
async fn stopped(stop: &mut StopSignal) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Nothing can tell it any more.
        std::future::pending::<()>().await;
    }
}

/// One life of the agent, from its files to the deleted session.
async fn live(context: &Arc<Context>, mut stop: StopSignal) -> Result<Exit, Unhandled> {
    if let Err(error) = context.root.check_permission() {
        context.diag.error(&chain(&error));
        return Ok(Exit::Terminated);
    }
    let settings = context.root.settings()?;
    let credentials = context.root.credentials()?;
    if context.env.switch("FAKE_AGENT_NEVER_CONNECT") {
        context.diag.line("Scanning for tool capabilities.");
        stopped(&mut stop).await;
        return Ok(Exit::Success);
    }
    let server = Arc::new(Server::new(
        Http::new(&context.env, &context.version),
        context.clock,
        context.diag.clone(),
        settings.clone(),
        credentials,
    ));
    let session = tokio::select! {
        session = connect(context, &server, &settings) => match session? {
            Ok(session) => session,
            Err(exit) => return Ok(exit),
        },
        () = stopped(&mut stop) => return Ok(Exit::Success),
    };
    tokio::select! {
        () = ask_flags(context, &server, &LATER_FLAGS) => {}
        // The session is there already and has to be deleted.
        () = stopped(&mut stop) => {}
    }
    context.diag.timed("Listening for Jobs");
    Ok(dispatch::listen(context, &server, settings, session, stop).await?)
}

/// Connects and creates the session; a hopeless session ends with its exit code.
async fn connect(
    context: &Context,
    server: &Server,
    settings: &Settings,
) -> Result<Result<Session, Exit>, CallError> {
    if let Err(error) = server.telemetry(&context.version).await {
        context.diag.trace(&format!("telemetry: {}", chain(&error)));
    }
    server.connect().await?;
    ask_flags(context, server, &[FIRST_FLAG]).await;
    context.diag.line("Scanning for tool capabilities.");
    context.diag.line("Connecting to the server.");
    Ok(session::create(context, server, settings).await)
}

/// Asks for feature flags as the real listener does; this one behaves the same whatever they say.
async fn ask_flags(context: &Context, server: &Server, flags: &[&str]) {
    for flag in flags {
        // The real listener takes an error here for "off".
        if let Err(error) = server.feature_flag(flag).await {
            context
                .diag
                .trace(&format!("feature flag: {}", chain(&error)));
        }
    }
}
