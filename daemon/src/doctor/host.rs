//! The daemon's own files: its configuration and its state directory.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::config::Problem;
use crate::pool::spec::DaemonSpec;
use crate::reload::{ReloadReport, Reloader};

use super::check::{Check, Topic};
use super::count;

const CONFIG: Topic = Topic {
    id: "config",
    title: "configuration",
    why: "a file with mistakes, or one that is not loaded, is a surprise at the next restart",
};
const WARNINGS: Topic = Topic {
    id: "config-warning",
    title: "configuration",
    why: "allowed, and probably not meant",
};
const SECRET: Topic = Topic {
    id: "secret-file",
    title: "secret file",
    why: "whoever reads the credential can manage the agent pools in Azure",
};
const POOLS: Topic = Topic {
    id: "pools",
    title: "pools",
    why: "without a pool iapd keeps no agents, and most of what could be checked is not",
};
const STATE: Topic = Topic {
    id: "state-dir",
    title: "state directory",
    why: "provision jobs, their logs and the agent packages are kept there; agents do without",
};

/// An agent package has about 150 MB, and a job's log some more.
const LITTLE: u64 = 2 << 30;
const TOO_LITTLE: u64 = 256 << 20;

/// Returns the checks that need files, not made.
pub(super) fn skipped(reason: &str) -> Vec<Check> {
    [&CONFIG, &STATE]
        .map(|topic| topic.skipped(reason))
        .to_vec()
}

/// Looks at the files. May block.
pub(super) fn examine(spec: &DaemonSpec, reloader: &Reloader) -> Vec<Check> {
    let path = reloader.path().display().to_string();
    let mut checks = judge_config(&path, &reloader.reload(true));
    if spec.pools.is_empty() {
        let fix = format!("add one to {path}, then: iapctl config reload");
        checks.push(POOLS.notice("none is configured", fix));
    }
    checks.push(judge_state(&spec.state_dir, &look(&spec.state_dir)));
    checks
}

fn judge_config(path: &str, report: &ReloadReport) -> Vec<Check> {
    let check = if let [first, ..] = report.problems.as_slice() {
        let mistakes = count(report.problems.len(), "mistake");
        let finding = format!("{mistakes}, the first is {first}");
        CONFIG.error(finding, "iapctl config check")
    } else if !report.changes.is_empty() {
        let changes = count(report.changes.len(), "change");
        CONFIG.notice(
            format!("{path} has {changes} that are not in force"),
            "iapctl config reload --dry-run\niapctl config reload",
        )
    } else {
        CONFIG.ok(format!("{path} is in force"))
    };
    let mut checks = vec![check];
    checks.extend(report.warnings.iter().map(judge_warning));
    checks
}

/// Some warnings end with the command that mends them, in backquotes.
fn judge_warning(warning: &Problem) -> Check {
    let message = warning.message.as_str();
    let (message, fix) = match message.trim_end_matches('`').rsplit_once(": `") {
        Some((message, command)) => (message, command.to_owned()),
        None => {
            let place = format!("line {} of {}", warning.line, warning.file.display());
            (message, place)
        }
    };
    let topic = if message.contains("can read") {
        &SECRET
    } else {
        &WARNINGS
    };
    topic.warning(format!("{}: {message}", warning.key), fix)
}

/// What there is of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Directory {
    writable: bool,
    /// Free bytes for us.
    free: u64,
}

fn look(path: &Path) -> Result<Directory, String> {
    let found = statvfs(path).map_err(|error| error.desc().to_owned())?;
    Ok(Directory {
        writable: access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        free: found
            .blocks_available()
            .saturating_mul(found.fragment_size()),
    })
}

fn judge_state(path: &Path, found: &Result<Directory, String>) -> Check {
    let path = path.display();
    let found = match found {
        Ok(found) => found,
        Err(reason) => {
            return STATE.error(
                format!("cannot look at {path}: {reason}"),
                format!("mkdir -p {path}"),
            );
        }
    };
    let room = format!("{:.1} GiB", found.free as f64 / f64::from(1 << 30));
    let fix = format!("df -h {path}\ndu -sh {path}/*");
    if !found.writable {
        STATE.error(
            format!("iapd may not write to {path}"),
            format!("ls -ld {path}"),
        )
    } else if found.free < TOO_LITTLE {
        STATE.error(format!("{room} left on the disk of {path}"), fix)
    } else if found.free < LITTLE {
        STATE.warning(format!("{room} left on the disk of {path}"), fix)
    } else {
        STATE.ok(format!("{path} is writable, {room} free"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Notice, Ok, Warning};
    use super::super::tests::severities;
    use super::*;

    fn problem(message: &str) -> Problem {
        Problem {
            file: "/etc/iapd/config.yaml".into(),
            line: 7,
            column: 3,
            key: "pools[0].azure.patFile".into(),
            message: message.into(),
        }
    }

    #[test]
    fn the_file_is_held_against_what_is_in_force() {
        let fine = ReloadReport::default();
        let wrong = ReloadReport {
            problems: vec![problem("is not a number")],
            ..ReloadReport::default()
        };
        let newer = ReloadReport {
            changes: vec!["pool linux: agentCount 2 -> 4".into()],
            ..ReloadReport::default()
        };
        for (report, expected) in [(fine, Ok), (wrong, Error), (newer, Notice)] {
            assert_eq!(
                severities(&judge_config("f", &report)),
                [expected],
                "{report:?}"
            );
        }
    }

    #[test]
    fn a_secret_that_others_can_read_comes_with_the_command_that_closes_it() {
        let report = ReloadReport {
            warnings: vec![
                problem("every user can read /etc/pat (mode 0644): `chmod o= /etc/pat`"),
                problem("looks odd"),
            ],
            ..ReloadReport::default()
        };
        let checks = judge_config("f", &report);
        assert_eq!(severities(&checks), [Ok, Warning, Warning]);
        assert_eq!(checks[1].fix, "chmod o= /etc/pat");
        assert_eq!(
            checks[1].finding,
            "pools[0].azure.patFile: every user can read /etc/pat (mode 0644)"
        );
        assert_eq!(
            (checks[1].id, checks[2].id),
            ("secret-file", "config-warning")
        );
        assert_eq!(checks[2].fix, "line 7 of /etc/iapd/config.yaml");
    }

    #[test]
    fn the_state_directory_has_to_be_writable_and_roomy() {
        let directory = |writable, free| Result::Ok(Directory { writable, free });
        let cases = [
            (directory(true, 10 << 30), Ok),
            (directory(true, 1 << 30), Warning),
            (directory(true, 1 << 20), Error),
            (directory(false, 10 << 30), Error),
            (Err("no such file".to_owned()), Error),
        ];
        for (found, expected) in cases {
            let check = judge_state(Path::new("/var/lib/iapd"), &found);
            assert_eq!(check.severity, expected, "{found:?}");
        }
    }

    #[test]
    fn a_real_directory_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let found = look(directory.path()).unwrap();
        assert!(found.writable && found.free > 0, "{found:?}");
        assert!(look(&directory.path().join("absent")).is_err());
    }
}
