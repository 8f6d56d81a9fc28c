//! Whether a shutdown of the host would wait for jobs as long as the configuration wants.

use std::time::Duration;

use iap_common::error::chain;

use crate::logind::{Logind, LogindError};
use crate::pool::spec::DaemonSpec;

use super::check::{Check, Topic};

const TOPIC: Topic = Topic {
    id: "host-shutdown",
    title: "shutdown of the host",
    why: "jobs that run when the host goes down fail, and count as failures of their pipelines",
};

/// Asks logind, if the configuration wants to wait.
pub(super) async fn examine(spec: &DaemonSpec) -> Vec<Check> {
    let Some(wait) = spec.shutdown_wait else {
        return Vec::new();
    };
    let logind = Logind::default();
    let longest = logind.longest_delay().await;
    let lock = logind.delay_shutdown("iapctl doctor tries it").await;
    vec![judge(wait, &longest, &lock.map(drop))]
}

fn judge(
    wait: Duration,
    longest: &Result<Duration, LogindError>,
    lock: &Result<(), LogindError>,
) -> Check {
    let wanted = wait.as_secs();
    match (longest, lock) {
        (Err(error), _) => TOPIC.warning(
            format!("logind does not answer: {}", chain(error)),
            "apt install systemd dbus\nsystemctl start systemd-logind",
        ),
        (Ok(_), Err(error)) => TOPIC.warning(
            format!("iapd may not delay it: {}", chain(error)),
            "apt install polkitd",
        ),
        (Ok(longest), Ok(_)) if *longest < wait => TOPIC.warning(
            format!(
                "logind waits {} s at most, and shutdown.waitForJobs is {wanted} s",
                longest.as_secs()
            ),
            format!(
                "mkdir -p /etc/systemd/logind.conf.d\n\
                 printf '[Login]\\nInhibitDelayMaxSec={wanted}\\n' \
                 > /etc/systemd/logind.conf.d/iapd.conf\n\
                 systemctl reload-or-restart systemd-logind"
            ),
        ),
        (Ok(_), Ok(_)) => TOPIC.ok(format!("waits up to {wanted} s for jobs")),
    }
}

#[cfg(test)]
mod tests {
    use crate::doctor::Severity;

    use super::*;

    fn refused(said: &str) -> LogindError {
        LogindError::Refused {
            program: "systemd-inhibit".to_owned(),
            said: said.to_owned(),
        }
    }

    #[test]
    fn logind_has_to_wait_as_long_as_jobs_are_waited_for() {
        let wait = Duration::from_secs(1800);
        let check = judge(wait, &Ok(Duration::from_secs(5)), &Ok(()));
        assert_eq!(check.severity, Severity::Warning);
        assert!(check.finding.contains("logind waits 5 s at most"));
        assert!(check.fix.contains("InhibitDelayMaxSec=1800"));
        assert_eq!(judge(wait, &Ok(wait), &Ok(())).severity, Severity::Ok);
    }

    #[test]
    fn a_refused_lock_and_a_missing_logind_are_told_with_what_to_do() {
        let wait = Duration::from_secs(60);
        let check = judge(wait, &Ok(wait), &Err(refused("Access denied")));
        assert_eq!(
            (check.severity, check.fix.as_str()),
            (Severity::Warning, "apt install polkitd")
        );
        assert!(check.finding.ends_with("systemd-inhibit: Access denied"));
        let check = judge(wait, &Err(refused("no bus")), &Ok(()));
        assert!(check.fix.contains("systemctl start systemd-logind"));
    }
}
