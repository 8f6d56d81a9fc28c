//! The program without a `Host` around it: what it prints and how it ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use iap_tests::host::binary;
use tokio::process::Command;

/// Whatever is refused is refused at once.
const LIMIT: Duration = Duration::from_secs(15);

/// Nobody: a user without any rights.
pub(crate) const NOBODY: u32 = 65534;

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Returns the command line of the daemon with a configuration file.
pub(crate) fn iapd(config: &Path) -> Command {
    let mut command = Command::new(binary("iapd"));
    command.arg("--config").arg(config);
    command
}

/// Returns the same for a user without rights. The program is copied to where that user can find
/// it: a build directory may be closed.
pub(crate) fn iapd_as_nobody(dir: &Path, config: &Path) -> anyhow::Result<Command> {
    let copy = copy_of(binary("iapd"), dir)?;
    let mut command = Command::new(copy);
    command.arg("--config").arg(config);
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

/// Copies a program into a directory. Another process does it: what this one has open for writing
/// while another test begins a program cannot be run before that has begun ("text file busy").
pub(crate) fn copy_of(program: PathBuf, dir: &Path) -> anyhow::Result<PathBuf> {
    let copied = std::process::Command::new("cp")
        .args([program.as_path(), dir])
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    Ok(dir.join(program.file_name().context("a program has a name")?))
}

/// Runs a command that ends by itself.
pub(crate) async fn run(command: &mut Command) -> anyhow::Result<Ended> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, running)
        .await
        .context("it does not end")??;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A directory that anybody may look into.
pub(crate) fn open_dir() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new()
        .prefix("iapd-test-")
        .tempdir_in("/var/tmp")?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Writes a file with a mode.
pub(crate) fn write(path: PathBuf, text: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(path)
}
