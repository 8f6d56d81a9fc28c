//! The builder: the instance that is set up and becomes the image. Everything that runs in a guest
//! runs through here: as root or as user agent, with closed stdin, line by line into the job's log,
//! and never longer than it may.

use std::pin::pin;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::fs::File;
use tokio::time::{Instant, sleep, timeout};

use iap_common::error::chain;

use crate::incus::{Exec, FileMeta, NewInstance, Status, StopMode};

use super::context::Context;
use super::error::StepError;
use super::guest_os::GuestOs;

/// The user that agents run as, as `guest/provision-user.sh` makes it.
const AGENT_ID: u32 = 1100;
const AGENT_HOME: &str = "/home/agent";
const SCRIPTS: &str = "/root/iapd-provision";

/// The first use of a base downloads it.
const CREATE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// A short call into a guest.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// A package over a slow VM agent.
const PUSH_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// A killed process is gone at once, unless the guest hangs.
const KILL_GRACE: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
const STOP_GUEST: Duration = Duration::from_secs(60);

const COMMON: &str = include_str!("../guest/provision-common.sh");

/// One of our own scripts, with the deadline of its kind.
#[derive(Clone, Copy)]
pub(super) struct GuestScript {
    pub(super) what: &'static str,
    pub(super) text: &'static str,
    pub(super) as_agent: bool,
    pub(super) deadline: Duration,
}

/// How a process in the guest ended.
pub(super) struct Ended {
    pub(super) code: i32,
    /// The last line that was not empty.
    pub(super) last_line: String,
}

pub(super) struct Builder<'a> {
    cx: &'a Context,
    name: String,
}

impl<'a> Builder<'a> {
    /// Creates and starts the instance.
    pub(super) async fn create(cx: &'a Context, new: &NewInstance) -> Result<Self, StepError> {
        let what = "create the builder";
        let operation = cx
            .project
            .create(new)
            .await
            .map_err(StepError::incus(what))?;
        cx.wait(what, operation, CREATE_DEADLINE).await?;
        Ok(Self {
            cx,
            name: new.name.clone(),
        })
    }

    /// Returns the fingerprint of the image it was made from.
    pub(super) async fn base_fingerprint(&self) -> Result<String, StepError> {
        let what = "look at the builder";
        let found = self
            .cx
            .project
            .instance(&self.name)
            .await
            .map_err(StepError::incus(what))?;
        let mut builder = found.ok_or_else(|| {
            StepError::Refused(format!(
                "the builder {} vanished while it was created",
                self.name
            ))
        })?;
        Ok(builder
            .config
            .remove("volatile.base_image")
            .unwrap_or_default())
    }

    /// Waits until the guest takes commands, and judges what it is; then until it has booted. One that
    /// takes commands and never comes to the end of its boot is usable: cloud images may wait there
    /// for a network for longer than anybody does.
    pub(super) async fn ready(&self, deadline: Duration) -> Result<GuestOs, StepError> {
        let end = Instant::now() + deadline;
        let what = "the guest";
        // A guest that cannot be used is told apart before it is waited for.
        let inspect = shell(
            "cat /etc/os-release 2>/dev/null; echo; uname -m; \
             readlink -f /sbin/init || echo /sbin/init",
        );
        let said = self.answer(what, &inspect, end, deadline).await?;
        let (said, init) = said.trim_end().rsplit_once('\n').unwrap_or((&said, ""));
        let (os_release, machine) = said.rsplit_once('\n').unwrap_or(("", said.trim()));
        let os = GuestOs::judge(os_release, machine)?;
        if !init.ends_with("/systemd") {
            return Err(StepError::Refused(format!(
                "the base does not boot with systemd, which agents are started by: its init is \
                 {init}"
            )));
        }
        self.cx.progress.line(&format!("{}, {machine}", os.pretty));
        let booted = shell(
            "n=0; while [ $n -lt 40 ]; do \
             state=$(systemctl is-system-running 2>/dev/null || true); \
             case $state in running|degraded) echo \"$state\"; exit 0;; esac; \
             n=$((n + 1)); sleep .25; done; exit 1",
        );
        match self
            .answer("the guest's boot", &booted, end, deadline)
            .await
        {
            Err(StepError::TimedOut { .. }) => self.go_on_unbooted(deadline).await?,
            booted => {
                booted?;
            }
        }
        Ok(os)
    }

    /// Says what a guest still waits for that takes commands. Fails when it takes none.
    async fn go_on_unbooted(&self, waited: Duration) -> Result<(), StepError> {
        let jobs = shell("systemctl list-jobs --no-pager 2>&1 || true");
        let end = Instant::now() + CALL_DEADLINE;
        let listed = self
            .answer("the guest's list of jobs", &jobs, end, CALL_DEADLINE)
            .await?;
        for line in listed.lines() {
            self.cx.progress.line(line);
        }
        self.cx.progress.line(&format!(
            "warning: the guest has not booted to its end within {} s; it takes commands, so the \
             job goes on",
            waited.as_secs()
        ));
        Ok(())
    }

    /// Runs a command until it succeeds and returns what it printed.
    async fn answer(
        &self,
        what: &str,
        exec: &Exec,
        end: Instant,
        deadline: Duration,
    ) -> Result<String, StepError> {
        loop {
            let outcome = self
                .cx
                .project
                .exec_output(&self.name, exec, CALL_DEADLINE, 64 * 1024);
            let problem = match self.cx.cancel.run_until_cancelled(outcome).await {
                None => return Err(StepError::Cancelled),
                Some(Ok((0, stdout, _))) => {
                    return Ok(String::from_utf8_lossy(&stdout).into_owned());
                }
                Some(Ok((code, _, _))) => format!("exit code {code}"),
                Some(Err(error)) => chain(&error).to_string(),
            };
            self.cx
                .progress
                .waiting(&format!("waiting for {what}: {problem}"), None);
            let state = self.cx.project.instance(&self.name).await;
            if let Ok(Some(builder)) = &state
                && builder.status == Status::Stopped
            {
                return Err(StepError::Refused(
                    "the builder powered off while it booted: the base does not run here, or \
                         the host is out of inotify instances or kernel keys"
                        .to_owned(),
                ));
            }
            if Instant::now() >= end {
                self.cx.progress.line(&format!("{what}: {problem}"));
                return Err(StepError::TimedOut {
                    what: format!("waiting for {what}"),
                    after: deadline,
                });
            }
            self.cx.pause(BETWEEN_LOOKS).await?;
        }
    }

    /// Runs one of our own scripts. Exit code 77 is for the caller to judge, others are failures.
    pub(super) async fn run(&self, script: GuestScript, args: &[&str]) -> Result<Ended, StepError> {
        let mut command: Vec<String> = ["/bin/sh", "-c"].into_iter().map(str::to_owned).collect();
        command.push(format!("{COMMON}\n{}", script.text));
        // What `$0` is: shown by the shell before its own complaints.
        command.push("provision".to_owned());
        command.extend(args.iter().map(|arg| (*arg).to_owned()));
        let exec = if script.as_agent {
            agent_exec(command)
        } else {
            root_exec(command)
        };
        let ended = self.stream(script.what, &exec, script.deadline).await?;
        match ended.code {
            0 | SKIPPED => Ok(ended),
            code => Err(StepError::Script {
                what: script.what,
                said: ended.last_line,
                code,
            }),
        }
    }

    /// Runs a user's script as root: by its first line's interpreter, else by bash.
    pub(super) async fn run_user_script(
        &self,
        n: usize,
        name: &str,
        content: &[u8],
        deadline: Duration,
    ) -> Result<(), StepError> {
        let project = &self.cx.project;
        let what = "push the script";
        let folder = FileMeta {
            uid: 0,
            gid: 0,
            mode: 0o700,
        };
        project
            .make_directory(&self.name, SCRIPTS, &folder, CALL_DEADLINE)
            .await
            .map_err(StepError::incus(what))?;
        let path = format!("{SCRIPTS}/{n:02}-{name}");
        let file = FileMeta {
            uid: 0,
            gid: 0,
            mode: 0o700,
        };
        project
            .push_file(
                &self.name,
                &path,
                &file,
                Bytes::copy_from_slice(content),
                CALL_DEADLINE,
            )
            .await
            .map_err(StepError::incus(what))?;
        let command = if content.starts_with(b"#!") {
            vec![path]
        } else {
            vec!["/bin/bash".to_owned(), path]
        };
        let what = format!("script {name}");
        match self
            .stream(&what, &root_exec(command), deadline)
            .await?
            .code
        {
            0 => Ok(()),
            code => Err(StepError::Exit { what, code }),
        }
    }

    /// Runs a program of the agent's as its user and returns the last line it prints.
    pub(super) async fn ask_agent(
        &self,
        command: &[&str],
        deadline: Duration,
    ) -> Result<String, StepError> {
        let exec = agent_exec(command.iter().map(|word| (*word).to_owned()).collect());
        let what = command.join(" ");
        let ended = self.stream(&what, &exec, deadline).await?;
        match ended.code {
            0 => Ok(ended.last_line),
            code => Err(StepError::Exit { what, code }),
        }
    }

    /// Pushes a package into the agent's home and returns its path there.
    pub(super) async fn push_package(&self, file: File, size: u64) -> Result<String, StepError> {
        let path = format!("{AGENT_HOME}/.iapd-agent-package.tar.gz");
        let meta = FileMeta {
            uid: AGENT_ID,
            gid: AGENT_ID,
            mode: 0o600,
        };
        let progress = |bytes| self.cx.progress.bytes(bytes, size);
        let push = async {
            self.cx
                .project
                .push_file_stream(
                    &self.name,
                    &path,
                    &meta,
                    file,
                    size,
                    progress,
                    PUSH_DEADLINE,
                )
                .await
                .map_err(StepError::incus("push the agent package"))
        };
        self.cx.unless_cancelled(push).await?;
        Ok(path)
    }

    /// Writes everything to the disk and stops the guest, by force when it does not by itself.
    pub(super) async fn stop(&self) -> Result<(), StepError> {
        // Dropping a stop is fine: the clean-up stops by force, whatever is under way.
        self.cx.unless_cancelled(self.sync_and_stop()).await
    }

    async fn sync_and_stop(&self) -> Result<(), StepError> {
        let what = "stop the builder";
        let project = &self.cx.project;
        let synced = project
            .exec(&self.name, &root_exec(vec!["sync".to_owned()]), STOP_GUEST)
            .await
            .map_err(StepError::incus("sync the builder's disk"))?;
        if synced != 0 {
            return Err(StepError::Exit {
                what: "sync".to_owned(),
                code: synced,
            });
        }
        let clean = StopMode::Clean {
            timeout: STOP_GUEST,
        };
        let Err(error) = project
            .stop(&self.name, clean, STOP_GUEST + CALL_DEADLINE)
            .await
        else {
            return Ok(());
        };
        self.cx
            .progress
            .line(&format!("does not stop by itself: {}", chain(&error)));
        project
            .stop(&self.name, StopMode::Force, STOP_GUEST)
            .await
            .map_err(StepError::incus(what))
    }

    async fn stream(
        &self,
        what: &str,
        exec: &Exec,
        deadline: Duration,
    ) -> Result<Ended, StepError> {
        self.cx.check()?;
        let exec = &one_stream(exec);
        let stop = self.cx.cancel.child_token();
        let mut last_line = String::new();
        let on_line = |line: crate::incus::StreamLine| {
            self.cx.progress.line(&line.text);
            if !line.text.trim().is_empty() {
                line.text.trim().clone_into(&mut last_line);
            }
        };
        let result = {
            let mut running = pin!(self.cx.project.exec_stream(
                &self.name,
                exec,
                stop.clone(),
                on_line
            ));
            tokio::select! {
                result = &mut running => result,
                () = self.cx.cancel.cancelled() => {
                    drop(timeout(KILL_GRACE, running).await);
                    return Err(StepError::Cancelled);
                }
                () = sleep(deadline) => {
                    stop.cancel();
                    drop(timeout(KILL_GRACE, running).await);
                    return Err(StepError::TimedOut { what: what.to_owned(), after: deadline });
                }
            }
        };
        let code = result.map_err(StepError::incus("run a command in the builder"))?;
        Ok(Ended { code, last_line })
    }
}

/// What a script of ours exits with when there is nothing it can do.
pub(super) const SKIPPED: i32 = 77;

/// Returns the same command with its errors in its output. Incus sends the two over connections of
/// their own, and the last words of what failed could arrive before a long output and be cut off.
fn one_stream(exec: &Exec) -> Exec {
    let merge = ["/bin/sh", "-c", r#"exec "$@" 2>&1"#, "provision"];
    let command = merge.into_iter().map(str::to_owned);
    Exec {
        command: command.chain(exec.command.iter().cloned()).collect(),
        ..exec.clone()
    }
}

fn shell(script: &str) -> Exec {
    root_exec(vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        script.to_owned(),
    ])
}

fn root_exec(command: Vec<String>) -> Exec {
    exec(
        command,
        0,
        "/root",
        &[
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("NEEDRESTART_MODE", "a"),
        ],
    )
}

fn agent_exec(command: Vec<String>) -> Exec {
    exec(
        command,
        AGENT_ID,
        AGENT_HOME,
        &[("USER", "agent"), ("LOGNAME", "agent")],
    )
}

fn exec(command: Vec<String>, id: u32, home: &str, more: &[(&str, &str)]) -> Exec {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let environment = [("HOME", home), ("PATH", path), ("LANG", "C.UTF-8")];
    Exec {
        command,
        environment: environment
            .iter()
            .chain(more)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        user: id,
        group: id,
        cwd: Some(home.to_owned()),
    }
}
