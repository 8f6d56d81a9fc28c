//! Whether a guest's operating system is one that can be set up here.

use super::error::StepError;

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestOs {
    /// `debian`, `ubuntu`.
    pub(super) id: String,
    /// `12`, `24.04`.
    pub(super) version: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub(super) pretty: String,
    /// Azure's name of the matching agent package: `linux-x64`.
    pub(super) platform: &'static str,
}

impl GuestOs {
    /// Judges `/etc/os-release` and the machine's name from `uname -m`.
    pub(super) fn judge(os_release: &str, machine: &str) -> Result<Self, StepError> {
        let value = |key: &str| {
            os_release
                .lines()
                .filter_map(|line| line.trim().split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        let id = value("ID");
        let pretty = match value("PRETTY_NAME") {
            name if name.is_empty() => id.clone(),
            name => name,
        };
        if !matches!(id.as_str(), "debian" | "ubuntu") {
            let what = if id.is_empty() {
                "an unknown system"
            } else {
                &pretty
            };
            return Err(StepError::Refused(format!(
                "the base is {what}: iapd installs packages and the agent's dependencies with apt \
                 and sets up services with systemd, which it knows how to do on Debian and Ubuntu \
                 only"
            )));
        }
        let platform = match machine {
            "x86_64" => "linux-x64",
            "aarch64" => "linux-arm64",
            "armv7l" | "armv8l" => "linux-arm",
            other => {
                return Err(StepError::Refused(format!(
                    "there is no Azure Pipelines agent for {other}"
                )));
            }
        };
        Ok(Self {
            id,
            version: value("VERSION_ID"),
            pretty,
            platform,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(os_release: &str, machine: &str) -> Result<GuestOs, String> {
        GuestOs::judge(os_release, machine).map_err(|error| error.to_string())
    }

    #[test]
    fn debian_and_ubuntu_are_known() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        let os = judge(debian, "x86_64").unwrap();
        assert_eq!(
            (os.id.as_str(), os.version.as_str(), os.platform),
            ("debian", "12", "linux-x64")
        );
        assert_eq!(os.pretty, "Debian GNU/Linux 12 (bookworm)");
        let ubuntu = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\n";
        let os = judge(ubuntu, "aarch64").unwrap();
        assert_eq!((os.version.as_str(), os.platform), ("24.04", "linux-arm64"));
        assert_eq!(os.pretty, "ubuntu");
        // Debian's testing has no version.
        assert_eq!(judge("ID=debian\n", "x86_64").unwrap().version, "");
    }

    #[test]
    fn others_are_refused_by_name() {
        for (os_release, name) in [
            (
                "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.20\"\n",
                "Alpine Linux v3.20",
            ),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "rocky"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "linuxmint"),
            ("", "an unknown system"),
        ] {
            let error = judge(os_release, "x86_64").unwrap_err();
            assert!(
                error.starts_with(&format!("the base is {name}:")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_machine_without_an_agent_is_refused() {
        assert_eq!(
            judge("ID=debian\n", "riscv64").unwrap_err(),
            "there is no Azure Pipelines agent for riscv64"
        );
    }
}
