//! An Incus of a test's own, which may be stopped while the one that all tests share may not.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::testbed::Testbed;
use crate::wait;

/// Where packages put the server: Debian's, then Zabbly's.
const SERVERS: [&str; 2] = ["/usr/libexec/incus/incusd", "/opt/incus/bin/incusd"];
/// The alias of the image that was imported once more.
pub const TWIN: &str = "twin";
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// See the module. What is in it has to be gone before it is dropped.
pub struct PrivateIncus {
    dir: TempDir,
    server: PathBuf,
    process: Option<Child>,
}

impl PrivateIncus {
    /// Starts a server with storage and the shared test bed's image. `None` when only root could.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::start_sized("2GiB").await
    }

    /// Does the same with a storage pool of this size, which takes as much of the disk as is used.
    pub async fn start_sized(size: &str) -> anyhow::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let server = SERVERS.iter().map(PathBuf::from).find(|path| path.exists());
        let dir = tempfile::Builder::new()
            .prefix("iapd-incus-")
            .tempdir_in("/var/tmp")?;
        let mut incus = Self {
            dir,
            server: server.context("there is no incusd")?,
            process: None,
        };
        incus.launch().await?;
        incus.furnish(size)?;
        Ok(Some(incus))
    }

    /// Returns what a host needs to use it.
    pub fn testbed(&self) -> Testbed {
        Testbed {
            socket: self.socket(),
            project: "default".into(),
            ..Testbed::get()
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("unix.socket")
    }

    /// Starts the server and waits until it answers.
    pub async fn launch(&mut self) -> anyhow::Result<()> {
        let path = std::env::var("PATH").unwrap_or_default();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("out"))?;
        let process = Command::new(&self.server)
            .env("INCUS_DIR", self.dir.path())
            .env(
                "PATH",
                format!("{path}:/usr/sbin:/sbin:{}", parent(&self.server)),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.process = Some(process);
        let incus = self.testbed().incus();
        wait::until("the private Incus", START, async || {
            Ok(incus.server().await.ok())
        })
        .await?;
        Ok(())
    }

    /// Makes it listen on a port of this host and returns its URL.
    pub fn listen(&self) -> anyhow::Result<String> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        self.incus(&["config", "set", "core.https_address", &free.to_string()])?;
        Ok(format!("https://{free}"))
    }

    /// Runs Incus's own client on it and returns what that says.
    pub fn incus(&self, arguments: &[&str]) -> anyhow::Result<String> {
        incus(&self.socket(), arguments)
    }

    fn furnish(&self, size: &str) -> anyhow::Result<()> {
        let shared = Testbed::get();
        let image = self.dir.path().join("image").display().to_string();
        let root = format!("{image}.root");
        let export = [
            "--project",
            &shared.project,
            "image",
            "export",
            &shared.runner,
            &image,
        ];
        incus(&shared.socket, &export)?;
        let socket = self.socket();
        incus(
            &socket,
            &[
                "storage",
                "create",
                "default",
                "btrfs",
                &format!("size={size}"),
            ],
        )?;
        let disk = [
            "profile",
            "device",
            "add",
            "default",
            "root",
            "disk",
            "path=/",
            "pool=default",
        ];
        incus(&socket, &disk)?;
        incus(
            &socket,
            &["image", "import", &image, &root, "--alias", &shared.runner],
        )
        .map(drop)
    }

    /// Imports the image once more, with another fingerprint, and returns that.
    pub fn import_twin(&self) -> anyhow::Result<String> {
        let image = self.dir.path().join("image");
        let root = self.dir.path().join("image.root");
        // A tar archive may end in any number of empty blocks.
        let file = File::options().write(true).open(&image)?;
        file.set_len(file.metadata()?.len() + 10240)?;
        let [image, root] = [image, root].map(|path| path.display().to_string());
        incus(
            &self.socket(),
            &["image", "import", &image, &root, "--alias", TWIN],
        )?;
        let output = Command::new("timeout")
            .args(["60", "incus", "image", "list", TWIN, "-f", "csv", "-c", "F"])
            .env("INCUS_SOCKET", self.socket())
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Turns the quotas of its storage into simple ones: the classic ones that Incus turns on make
    /// the kernel drown in deleted guests.
    pub fn simplify_quotas(&self) -> anyhow::Result<()> {
        let pool = self.storage().display().to_string();
        // They may be off already.
        let _ = self.in_mounts(&["btrfs", "quota", "disable", &pool]);
        self.in_mounts(&["btrfs", "quota", "enable", "--simple", &pool])
    }

    /// Runs a command where its storage is mounted: in its own mount namespace only.
    pub fn in_mounts(&self, command: &[&str]) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        let output = Command::new("timeout")
            .args(["60", "nsenter", "-m", "-t", &process.id().to_string()])
            .args(command)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {said}");
        Ok(())
    }

    /// Returns where its storage is mounted.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage-pools/default")
    }

    /// Returns a directory of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns whether it was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the server. Guests go on.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Stops the server as its unit does and tells how long that took. Guests go on.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<Duration> {
        let mut process = self.process.take().context("it does not run")?;
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(process.id())?), Signal::SIGTERM)?;
        loop {
            if process.try_wait()?.is_some() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > limit {
                self.process = Some(process);
                anyhow::bail!("Incus has not stopped after {limit:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for PrivateIncus {
    fn drop(&mut self) {
        let socket = self.socket();
        if let Some(mut process) = self.process.take() {
            let _ = incus(&socket, &["profile", "device", "remove", "default", "root"]);
            let _ = incus(&socket, &["image", "delete", &Testbed::get().runner]);
            let _ = incus(&socket, &["image", "delete", TWIN]);
            let _ = incus(&socket, &["storage", "delete", "default"]);
            if let Ok(id) = i32::try_from(process.id()) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(15)
                && matches!(process.try_wait(), Ok(None))
            {
                std::thread::park_timeout(POLL);
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        // Left behind only by a server that was killed.
        for mount in ["storage-pools/default", "shmounts", "guestapi"] {
            let mut umount = Command::new("umount");
            umount
                .arg("-l")
                .arg(self.dir.path().join(mount))
                .stderr(Stdio::null());
            let _ = umount.status();
        }
    }
}

/// Runs Incus's own client.
fn incus(socket: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("timeout")
        .args(["60", "incus", "-q"])
        .args(arguments)
        .env("INCUS_SOCKET", socket)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "incus {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
