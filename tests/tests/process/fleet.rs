//! `iapctl --host` through a real sshd on the loopback: its own port, host key and users' keys.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use iap_tests::host::{Host, HostOptions, binary};
use iap_tests::wait;
use tempfile::TempDir;

use super::program::{Ended, open_dir, run, write};
use crate::{QUICK, SOON};

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd, and ssh's configuration for it: `build-1` and `build-2` are this machine, so is
/// `stranger`, whose key nobody knows; at `closed` nobody listens.
struct Sshd {
    dir: TempDir,
    server: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Sshd {
    /// Starts it. Who logs in finds this `iapctl` in the PATH, and no other program of ours.
    async fn start() -> anyhow::Result<Self> {
        let dir = open_dir()?;
        let path = |name: &str| dir.path().join(name);
        for name in ["host-key", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            let status = keygen.arg(path(name)).status()?;
            ensure!(status.success(), "ssh-keygen: {status}");
        }
        std::fs::copy(path("key.pub"), path("authorized-keys"))?;
        std::fs::create_dir(path("bin"))?;
        std::os::unix::fs::symlink(binary("iapctl"), path("bin/iapctl"))?;
        if nix::unistd::geteuid().is_root() {
            // Made at start by the unit of the packaged sshd, which does not run.
            std::fs::create_dir_all("/run/sshd")?;
        }
        let (port, closed) = (free_port()?, free_port()?);
        let here = dir.path().display();
        let config = format!(
            "Port {port}\n\
             ListenAddress 127.0.0.1\n\
             HostKey {here}/host-key\n\
             AuthorizedKeysFile {here}/authorized-keys\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             UsePAM no\n\
             StrictModes no\n\
             PidFile none\n\
             SetEnv PATH={here}/bin:/usr/bin:/bin\n"
        );
        let config = write(path("sshd.conf"), config, 0o600)?;
        let key = std::fs::read_to_string(path("host-key.pub"))?;
        write(path("known-hosts"), format!("this-machine {key}"), 0o644)?;
        let client = format!(
            "Host closed\n\
             \x20 Port {closed}\n\
             Host stranger\n\
             \x20 HostKeyAlias stranger\n\
             Host *\n\
             \x20 HostName 127.0.0.1\n\
             \x20 Port {port}\n\
             \x20 HostKeyAlias this-machine\n\
             \x20 IdentityFile {here}/key\n\
             \x20 IdentitiesOnly yes\n\
             \x20 UserKnownHostsFile {here}/known-hosts\n\
             \x20 GlobalKnownHostsFile /dev/null\n\
             \x20 StrictHostKeyChecking yes\n"
        );
        write(path("ssh.conf"), client, 0o600)?;
        let log = std::fs::File::create(path("sshd.log"))?;
        let server = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{SSHD} does not start; see tests/testbed/up"))?;
        let sshd = Self { dir, server };
        wait::until("sshd", QUICK, async || {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })
        .await
        .with_context(|| sshd.log())?;
        Ok(sshd)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sshd.log")).unwrap_or_default()
    }

    /// Returns `iapctl` as it is called on another machine: no socket of a daemon here.
    fn iapctl(&self, arguments: &str) -> Command {
        let config = self.dir.path().join("ssh.conf");
        let mut command = Command::new(binary("iapctl"));
        command
            .args(arguments.split_whitespace())
            .env("IAPCTL_SSH", format!("ssh -F {}", config.display()))
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env_remove("IAPD_SOCKET");
        command
    }

    async fn run(&self, arguments: &str) -> anyhow::Result<Ended> {
        run(&mut self.iapctl(arguments).into()).await
    }

    /// Writes the hosts file: each host with its socket.
    fn know(&self, sockets: [PathBuf; 2]) -> anyhow::Result<()> {
        let [one, two] = sockets.map(|path| path.display().to_string());
        std::fs::create_dir_all(self.dir.path().join("iapd"))?;
        let text = format!(
            "hosts:\n  b1: ssh://build-1{one}\n  b2: ssh://build-2{two}\ngroups:\n  all: [b1, b2]\n"
        );
        write(self.dir.path().join("iapd/hosts.yaml"), text, 0o644)?;
        Ok(())
    }
}

/// Returns a port that nobody listens on.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

async fn host_without_pools() -> anyhow::Result<Host> {
    let mut host = Host::prepare(HostOptions::default()).await?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.start_daemon().await?;
    Ok(host)
}

/// Returns whether a process of `iapctl dial-stdio` runs for this socket.
fn is_dialled(socket: &Path) -> anyhow::Result<bool> {
    for process in std::fs::read_dir("/proc")? {
        let Ok(line) = std::fs::read(process?.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with("iapctl ")
            && line.contains("dial-stdio")
            && line.contains(&*socket.to_string_lossy())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_of_other_hosts_are_reached_through_sshd() -> anyhow::Result<()> {
    let sshd = Sshd::start().await?;
    let (one, mut two) = (host_without_pools().await?, host_without_pools().await?);
    sshd.know([one.socket(), two.socket()])?;

    let said = sshd.run("--host @all config show").await?;
    assert_eq!(said.code, Some(2), "{said:?}");
    let said = sshd.run("--host b2 config show").await?;
    assert_eq!(said.code, Some(0), "{said:?}\n{}", sshd.log());
    assert!(
        said.stdout.contains(&*two.dir().to_string_lossy()),
        "{said:?}"
    );

    let said = sshd.run("--host @all resume --yes").await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    for host in ["b1", "b2"] {
        let line = format!("{host}: this host: was not paused\n");
        assert!(said.stdout.contains(&line), "{said:?}");
    }
    let said = sshd.run("--host @all audit ls --no-headers").await?;
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{said:?}");
    for line in lines {
        assert!(line.starts_with('b') && line.contains(" resume "), "{line}");
    }

    // A host without a daemon, one that nobody knows and one that is off.
    two.stop_daemon().await?;
    let hosts = "--host @all --host stranger --host ssh://closed";
    let said = sshd.run(&format!("{hosts} version --output name")).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stdout.starts_with("b1/") && said.stdout.lines().count() == 1,
        "{said:?}"
    );
    for words in [
        "error: cannot reach iapd on b2: no daemon socket at ",
        "hint: on b2: is the daemon running?",
        "error: cannot reach stranger: ",
        "Host key verification failed.",
        "hint: compare its key once by hand: ssh -F ",
        "error: cannot reach closed: ssh: connect to host 127.0.0.1 port ",
        "Connection refused",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    wait::until("the sessions' end", QUICK, async || {
        let dialled = is_dialled(&one.socket())? || is_dialled(&two.socket())?;
        Ok((!dialled).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_ssh_outlives_the_daemon_and_not_the_caller() -> anyhow::Result<()> {
    let sshd = Sshd::start().await?;
    let mut host = host_without_pools().await?;
    sshd.know([host.socket(), host.socket()])?;
    let mut watch = sshd
        .iapctl("--host b1 agents ls --watch")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = BufReader::new(watch.stdout.take().context("it is piped")?);
    let mut stderr = BufReader::new(watch.stderr.take().context("it is piped")?);
    // The heads: it is connected.
    let head = tokio::task::spawn_blocking(move || stdout.lines().next());
    let head = tokio::time::timeout(QUICK, head).await??;
    assert!(head.is_some_and(|line| line.is_ok_and(|line| line.starts_with("AGENT "))));
    assert!(is_dialled(&host.socket())?);

    host.stop_daemon().await?;
    host.start_daemon().await?;
    let heard = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let mut text = String::new();
        while !text.contains("is back\n") && stderr.read_line(&mut text)? > 0 {}
        Ok(text)
    });
    let heard = tokio::time::timeout(SOON, heard).await???;
    assert_eq!(
        heard,
        "note: the daemon went away, trying again\nnote: the daemon is back\n"
    );

    // Killed it cannot say good-bye to anybody.
    watch.kill()?;
    watch.wait()?;
    wait::until("the session's end", QUICK, async || {
        Ok((!is_dialled(&host.socket())?).then_some(()))
    })
    .await
}
