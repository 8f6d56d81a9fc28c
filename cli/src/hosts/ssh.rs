//! A daemon on another host: `ssh HOST iapctl dial-stdio`, and gRPC over that program's standard
//! input and output. What logs in, with what and as whom, is ssh's own business.
//!
//! ```text
//! iapctl ─ gRPC ─► ssh ~~~► sshd ─► iapctl dial-stdio ─► iapd.sock
//!                   └─ stderr, exit code: the reason when it does not work
//! ```

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use iap_common::v1::GetVersionRequest;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::error::{CliError, FAILED};
use crate::fleet::AT_ONCE;

mod child;
mod failure;

use child::{Ending, Wire, tend};

/// Names another program than `ssh`, with options behind it.
const PROGRAM_VARIABLE: &str = "IAPCTL_SSH";
/// How long ssh may take to connect, and after that the daemon's first answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// A host whose network is gone is noticed after these two.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How many hosts are connected to at once: each is a process here.
static CONNECTING: Semaphore = Semaphore::const_new(AT_ONCE);

/// What ssh is told: `[USER@]HOST[:PORT][/SOCKET]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    user: Option<String>,
    pub(crate) host: String,
    port: Option<u16>,
    /// Path of the daemon's socket there; `None` = the usual one.
    socket: Option<String>,
}

impl Target {
    /// Reads what stands behind `ssh://`. ssh and the shell on the other side must not be able to
    /// take any of it for an option or a command.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (place, socket) = match text.split_once('/') {
            Some((place, "")) => (place, None),
            Some((place, path)) => (place, Some(format!("/{path}"))),
            None => (text, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
                (host, port.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err("a port is a number from 1 to 65535"),
            },
            None => None,
        };
        let harmless = |text: &str, others: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
        };
        if user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err("no passwords here; ssh has keys and agents");
        }
        if user.as_deref().is_some_and(|user| !harmless(user, "._-+")) {
            return Err("that is no user's name");
        }
        if !harmless(host, "._-:%") {
            return Err("that is no host's name");
        }
        if socket
            .as_deref()
            .is_some_and(|path| !harmless(path, "/._-"))
        {
            return Err("the path of a socket there may have letters, digits and /._- only");
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
            socket,
        })
    }

    /// Returns the command line, the program first.
    fn words(&self) -> Vec<String> {
        let mut words = program();
        // Nobody may be asked: several hosts would ask at once, and scripts cannot answer.
        for option in [
            "-T",
            "-x",
            "-a",
            "-oBatchMode=yes",
            "-oConnectTimeout=10",
            "-oClearAllForwardings=yes",
            "-oRemoteCommand=none",
        ] {
            words.push(option.to_owned());
        }
        words.extend(self.address());
        words.push(match &self.socket {
            Some(path) => format!("iapctl --socket {path} dial-stdio"),
            None => "iapctl dial-stdio".to_owned(),
        });
        words
    }

    /// Returns the words that say to ssh where to go.
    fn address(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.host.clone()]);
        words
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

/// Returns the program and the options that the operator gives it.
fn program() -> Vec<String> {
    let given = std::env::var(PROGRAM_VARIABLE).unwrap_or_default();
    let words: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        vec!["ssh".to_owned()]
    } else {
        words
    }
}

/// Connects to the daemon on another host and waits for its first answer.
pub(crate) async fn connect(name: &str, target: &Target) -> Result<Channel, CliError> {
    let _permit = CONNECTING.acquire().await;
    let link = Arc::new(Link {
        target: target.clone(),
        state: Mutex::default(),
    });
    match time::timeout(DEADLINE, first_answer(link.clone())).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(NoAnswer)) => Err(link.why(name, None).await),
        Err(_) => Err(link.why(name, Some(DEADLINE)).await),
    }
}

/// The connection broke before the daemon said anything.
struct NoAnswer;

async fn first_answer(link: Arc<Link>) -> Result<Channel, NoAnswer> {
    let dial = service_fn(move |_: Uri| {
        let wire = link.dial().map(TokioIo::new);
        async move { wire }
    });
    let channel = Endpoint::from_static("http://iapd")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_with_connector(dial)
        .await
        .map_err(|_| NoAnswer)?;
    // Connecting is done when ssh runs. Only an answer shows that there is somebody.
    let mut daemon = DaemonServiceClient::new(channel.clone());
    match daemon.get_version(GetVersionRequest {}).await {
        Err(status) if std::error::Error::source(&status).is_some() => Err(NoAnswer),
        // What else a daemon may have to say, it says to the call that is meant.
        _ => Ok(channel),
    }
}

/// Runs ssh, anew whenever the connection broke.
struct Link {
    target: Target,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Ends with the link; so do the processes.
    tended: JoinSet<()>,
    last: Option<Result<Ending, io::Error>>,
}

impl Link {
    fn dial(&self) -> io::Result<Wire> {
        let started = self.start();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match started {
            Ok((wire, ending, tending)) => {
                while state.tended.try_join_next().is_some() {}
                state.tended.spawn(tending);
                state.last = Some(Ok(ending));
                Ok(wire)
            }
            Err(error) => {
                let kind = error.kind();
                state.last = Some(Err(error));
                Err(kind.into())
            }
        }
    }

    fn start(&self) -> io::Result<(Wire, Ending, impl Future<Output = ()> + use<>)> {
        let words = self.target.words();
        let (program, options) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this program: it has something left to say to the daemon.
            .process_group(0)
            .kill_on_drop(true);
        tend(command.spawn()?)
    }

    /// Says why there was no answer.
    async fn why(&self, name: &str, late: Option<Duration>) -> CliError {
        let last = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.last.take()
        };
        match last {
            Some(Err(error)) => CliError::Host {
                what: format!("cannot run {}: {error}", program().swap_remove(0)),
                hints: vec![format!(
                    "install ssh (openssh-client), or name another program in {PROGRAM_VARIABLE}"
                )],
                code: FAILED,
            },
            Some(Ok(ending)) => {
                let (status, said) = ending.known(late.is_some()).await;
                failure::of(name, &self.target, status, &said, late)
            }
            None => failure::of(name, &self.target, None, "", late),
        }
    }
}

/// Returns the exit code of a process that ended by itself.
fn code(status: Option<ExitStatus>) -> Option<i32> {
    status.and_then(|status| status.code())
}
