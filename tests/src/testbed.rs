//! The test bed that `tests/run` brings up: a real Incus with a project of its own.

use std::path::PathBuf;

/// Where things are in the test bed.
#[derive(Debug, Clone)]
pub struct Testbed {
    /// Incus's socket.
    pub socket: PathBuf,
    /// The project that tests may use.
    pub project: String,
    /// Alias of the image with the stand-in agent.
    pub runner: String,
    /// Alias of the bare image.
    pub base: String,
}

impl Testbed {
    /// Returns the test bed; `tests/run` may have put things elsewhere.
    pub fn get() -> Self {
        let value =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Self {
            socket: value("IAPD_TEST_INCUS_SOCKET", "/var/lib/incus/unix.socket").into(),
            project: value("IAPD_TEST_PROJECT", "iapd-test"),
            runner: value("IAPD_TEST_RUNNER_IMAGE", "iapd-test-runner"),
            base: value("IAPD_TEST_IMAGE", "debian-min"),
        }
    }

    /// Returns a client of its Incus.
    pub fn incus(&self) -> iapd::incus::Incus {
        iapd::incus::Incus::new(self.socket.clone(), std::sync::Arc::new(|_| {}))
    }

    /// Returns the calls that concern its project.
    pub fn project(&self) -> iapd::incus::Project {
        self.incus().project(&self.project)
    }
}
