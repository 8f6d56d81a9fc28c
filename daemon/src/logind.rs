//! What is asked of logind: to wait with a shutdown, and whether one has begun. Through systemd's
//! own programs: a D-Bus library would be much for three questions.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// logind answers at once.
const ANSWER: Duration = Duration::from_secs(10);
/// What a program says when it fails is short.
const LONGEST_SAID: u64 = 4096;

/// Why logind did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// Its program cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says no.
    #[error("{program}: {said}")]
    Refused {
        /// Which program.
        program: String,
        /// In its words.
        said: String,
    },
    /// It does not answer.
    #[error("{program} does not answer within {} s", ANSWER.as_secs())]
    Late {
        /// Which program.
        program: String,
    },
}

/// The way to logind.
#[derive(Debug, Clone)]
pub struct Logind {
    /// Holds locks.
    pub inhibit: OsString,
    /// Reads properties.
    pub busctl: OsString,
}

impl Default for Logind {
    fn default() -> Self {
        Self {
            inhibit: "systemd-inhibit".into(),
            busctl: "busctl".into(),
        }
    }
}

impl Logind {
    /// Returns whether the host is about to shut down.
    pub async fn is_preparing_for_shutdown(&self) -> Result<bool, LogindError> {
        Ok(self.property("PreparingForShutdown").await? == "b true")
    }

    /// Returns how long logind lets anybody delay a shutdown.
    pub async fn longest_delay(&self) -> Result<Duration, LogindError> {
        let said = self.property("InhibitDelayMaxUSec").await?;
        let parsed = said.strip_prefix("t ").and_then(|text| text.parse().ok());
        match parsed {
            Some(microseconds) => Ok(Duration::from_micros(microseconds)),
            None => Err(self.refused(&self.busctl, said)),
        }
    }

    async fn property(&self, name: &str) -> Result<String, LogindError> {
        let program = self.busctl.to_string_lossy().into_owned();
        let mut command = Command::new(&self.busctl);
        command
            .args(["--system", "get-property", "org.freedesktop.login1"])
            .args(["/org/freedesktop/login1", "org.freedesktop.login1.Manager"])
            .arg(name)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = match timeout(ANSWER, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(LogindError::Run { program, source }),
            Err(_) => return Err(LogindError::Late { program }),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(self.refused(&self.busctl, text(&output.stderr)))
        }
    }

    fn refused(&self, program: &OsString, said: String) -> LogindError {
        LogindError::Refused {
            program: program.to_string_lossy().into_owned(),
            said,
        }
    }

    /// Takes a lock that delays a shutdown of the host while it is held.
    pub async fn delay_shutdown(&self, why: &str) -> Result<DelayLock, LogindError> {
        let program = self.inhibit.to_string_lossy().into_owned();
        let mut command = Command::new(&self.inhibit);
        command
            .args(["--what=shutdown", "--mode=delay", "--who=iapd"])
            .arg(format!("--why={why}"))
            // Runs while the lock is held, and until its input ends: at the latest with iapd.
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(source) => return Err(LogindError::Run { program, source }),
        };
        match timeout(ANSWER, echo(&mut child)).await {
            Ok(true) => Ok(DelayLock(child)),
            Ok(false) => {
                let said = said(&mut child).await;
                Err(self.refused(&self.inhibit, said))
            }
            Err(_) => Err(LogindError::Late { program }),
        }
    }
}

/// Returns whether `cat` runs, and so the lock is held: what it is told comes back.
async fn echo(child: &mut Child) -> bool {
    let (Some(input), Some(output)) = (&mut child.stdin, &mut child.stdout) else {
        return false;
    };
    let mut line = String::new();
    input.write_all(b"held\n").await.is_ok()
        && BufReader::new(output).read_line(&mut line).await.is_ok()
        && line == "held\n"
}

/// Returns what a program that gave up says.
async fn said(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let read = stderr.take(LONGEST_SAID);
        // What cannot be read is not told.
        let _ = timeout(ANSWER, { read }.read_to_string(&mut said)).await;
    }
    said.trim().to_owned()
}

/// Delays a shutdown until it is dropped.
pub struct DelayLock(Child);

impl DelayLock {
    /// Returns whether the lock went although nobody gave it up.
    pub fn is_lost(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}
