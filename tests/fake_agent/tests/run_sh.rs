//! `run.sh` of the package, with a listener that ends as the test says.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Appends its arguments to `calls` and ends with the next code out of `codes`.
const LISTENER: &str = r#"#!/bin/bash
cd "$(dirname "$0")/.."
echo "$@" >> calls
code=$(head -n 1 codes)
sed -i 1d codes
exit "$code"
"#;

/// Held while a program is written, and while one is run: a process that is begun meanwhile has the
/// file open for writing, too, and then it cannot be run ("text file busy").
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Package(tempfile::TempDir);

impl Package {
    fn with_listener_codes(codes: &str) -> io::Result<Self> {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir()?;
        let layout = Path::new(env!("CARGO_MANIFEST_DIR")).join("layout");
        fs::copy(layout.join("run.sh"), directory.path().join("run.sh"))?;
        fs::write(directory.path().join("codes"), codes)?;
        let listener = directory.path().join("bin/Agent.Listener");
        fs::create_dir(directory.path().join("bin"))?;
        fs::write(&listener, LISTENER)?;
        fs::set_permissions(&listener, fs::Permissions::from_mode(0o755))?;
        Ok(Self(directory))
    }

    fn run(&self, root_allowed: &str) -> io::Result<Output> {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Command::new(self.0.path().join("run.sh"))
            .arg("--once")
            .env("AGENT_ALLOW_RUNASROOT", root_allowed)
            .env("FAKE_AGENT_UPDATE_PAUSE", "0")
            .output()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.0.path().join("calls")).unwrap_or_default()
    }
}

#[test]
fn run_sh_passes_exit_codes_through() {
    for code in [0, 1, 2, 3, 97, 143] {
        let package = Package::with_listener_codes(&format!("{code}\n0\n")).unwrap();
        assert_eq!(package.run("1").unwrap().status.code(), Some(code));
        assert_eq!(package.calls(), "run --once\n");
    }
}

#[test]
fn run_sh_runs_an_updated_listener_once_more() {
    for second in [0, 2, 4] {
        let package = Package::with_listener_codes(&format!("4\n{second}\n0\n")).unwrap();
        assert_eq!(package.run("1").unwrap().status.code(), Some(second));
        assert_eq!(package.calls(), "run --once\nrun --once\n");
    }
}

#[test]
fn run_sh_refuses_root_unless_allowed() {
    let package = Package::with_listener_codes("0\n").unwrap();
    let output = package.run("").unwrap();
    if nix::unistd::getuid().is_root() {
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"Must not run interactively with sudo\n");
        assert_eq!(package.calls(), "");
    } else {
        assert!(output.status.success());
    }
}
