//! An Incus project of a test's own, with the runner image and the host's profile.

use std::process::Command;

use anyhow::ensure;
use iap_tests::host::Host;
use iap_tests::testbed::Testbed;

/// See the module.
pub(crate) struct Project {
    name: String,
    testbed: Testbed,
}

impl Project {
    /// Makes it. The host has to be dropped before: its daemon makes agents there.
    pub(crate) fn new(host: &Host) -> anyhow::Result<Self> {
        let project = Self {
            name: format!("{}-moved", host.pool),
            testbed: host.testbed.clone(),
        };
        let source = format!("source={}", host.dir().join("azure").display());
        let pool = format!("pool={}", std::env::var("IAPD_TEST_POOL")?);
        let (name, profile) = (project.name.as_str(), host.pool.as_str());
        let runner = host.testbed.runner.as_str();
        let features = ["-c", "features.images=true", "-c", "features.profiles=true"];
        project.incus(&[&["project", "create", name], features.as_slice()].concat())?;
        let add = ["profile", "device", "add", "--project", name];
        let root = ["default", "root", "disk", "path=/", pool.as_str()];
        project.incus(&[add.as_slice(), &root].concat())?;
        project.incus(&["profile", "create", profile, "--project", name])?;
        let azure = [profile, "azure", "disk", &source, "path=/srv/azure-sim"];
        project.incus(&[add.as_slice(), &azure].concat())?;
        let image = host.dir().join("image").display().to_string();
        let from = ["--project", host.testbed.project.as_str()];
        project.incus(&[&["image", "export", runner, &image], from.as_slice()].concat())?;
        let root = format!("{image}.root");
        let to = ["--alias", runner, "--project", name];
        project.incus(&[&["image", "import", &image, &root], to.as_slice()].concat())?;
        Ok(project)
    }

    fn incus(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("timeout")
            .args(["60", "incus", "-q"])
            .args(arguments)
            .env("INCUS_SOCKET", &self.testbed.socket)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "incus {arguments:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names of its instances.
    pub(crate) fn instances(&self) -> Vec<String> {
        self.names(&["list"], "n")
    }

    /// Sets a key of its configuration.
    pub(crate) fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        self.incus(&["project", "set", &self.name, &format!("{key}={value}")])?;
        Ok(())
    }

    fn names(&self, noun: &[&str], column: &str) -> Vec<String> {
        let list = ["-f", "csv", "-c", column, "--project", &self.name];
        let all = self.incus(&[noun, &list].concat()).unwrap_or_default();
        all.lines().map(str::to_owned).collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let own = ["--project", self.name.as_str()];
        for name in self.instances() {
            let _ = self.incus(&[&["delete", "-f", &name], own.as_slice()].concat());
        }
        for image in self.names(&["image", "list"], "f") {
            let _ = self.incus(&[&["image", "delete", &image], own.as_slice()].concat());
        }
        let profile = self.name.trim_end_matches("-moved");
        let _ = self.incus(&[&["profile", "delete", profile], own.as_slice()].concat());
        let _ = self.incus(&["project", "delete", &self.name]);
    }
}
