//! Works out what a file means: defaults, durations, paths, and the rules that a schema cannot
//! state. A value that breaks a rule is reported and stands in with something harmless; a
//! specification with errors is never used.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use iap_common::socket::{self, VIEW_GROUP};

use crate::pool::names::agent_name_stem;
use crate::pool::spec::{DaemonSpec, PoolSpec, RetrySpec, SocketSpec};
use crate::store::Retention;

use super::Environment;
use super::duration;
use super::file::{self, DurationText, File};
use super::problem::Report;

mod credential;
mod incus;
mod pool;
mod url;

const METRICS_PORT: u16 = 9922;
const METRICS_ADDRESS: &str = "127.0.0.1";
const SOCKET_MODE: &str = "0660";
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
const REAPER_INTERVAL: Duration = Duration::from_secs(30);
const MEMBER_GRACE: Duration = Duration::from_secs(120);
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Below this the daemon would do nothing but look.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Shorter would judge by a single look.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// Less would be over before it is noticed.
const SHORTEST_SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Less would be gone before anybody looks.
const SHORTEST_HISTORY: Duration = Duration::from_secs(60);

/// The longest path of a unix socket: `sun_path` without its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Returns what `file` means on this machine. Worth something only if `report` has no errors.
pub(super) fn resolve(file: File, env: &Environment, report: &mut Report<'_>) -> DaemonSpec {
    let daemon = file.daemon.unwrap_or_default();
    let key = "daemon.reconcileInterval";
    let interval = daemon.reconcile_interval;
    let reconcile = duration(key, interval, RECONCILE_INTERVAL, MIN_INTERVAL, report);
    let key = "daemon.reaperInterval";
    let reaper = duration(
        key,
        daemon.reaper_interval,
        REAPER_INTERVAL,
        MIN_INTERVAL,
        report,
    );

    let key = "daemon.memberGracePeriod";
    let member_grace = daemon.member_grace_period;
    let member_grace = duration(key, member_grace, MEMBER_GRACE, SHORTEST_GRACE, report);

    if file.pools.is_none() && !report.has_error("pools") {
        report.warning("pools", "is missing: there will be no agents");
    }
    let mut pools = Vec::new();
    for (number, pool) in file.pools.unwrap_or_default().into_iter().enumerate() {
        let mut spec = pool::resolve(pool, &format!("pools[{number}]"), env, report);
        spec.reconcile_interval = reconcile;
        spec.reaper_interval = reaper;
        spec.member_grace = member_grace;
        pools.push(spec);
    }
    check_names(&pools, report);

    let incus = incus::resolve(file.incus.unwrap_or_default(), env, report);
    let shutdown = file.shutdown.unwrap_or_default();
    DaemonSpec {
        pools,
        shutdown_wait: shutdown_wait(shutdown, incus.is_remote(), report),
        incus,
        metrics: metrics(file.metrics_port, file.metrics_address, report),
        socket: socket(file.socket.unwrap_or_default(), report),
        owner: text("owner", file.owner, report),
        state_dir: absolute("stateDir", file.state_dir, &env.state_dir, report),
        listener_retry: retry(daemon.listener.unwrap_or_default(), report),
        retention: retention(file.history.unwrap_or_default(), report),
    }
}

fn shutdown_wait(
    file: file::Shutdown,
    is_remote: bool,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let (key, off) = ("shutdown.waitForJobs", Duration::ZERO);
    let wait = duration(key, file.wait_for_jobs, off, SHORTEST_SHUTDOWN_WAIT, report);
    if is_remote && wait != off {
        let message = "is of no use with `incus.remote`: jobs run elsewhere and go on";
        report.warning(key, message);
    }
    (wait != off && !is_remote).then_some(wait)
}

fn retention(file: file::History, report: &mut Report<'_>) -> Retention {
    let default = Retention::default();
    let key = "history.keepFor";
    Retention {
        age: duration(key, file.keep_for, default.age, SHORTEST_HISTORY, report),
        evidence_bytes: file
            .evidence_size_in_gb
            .map_or(default.evidence_bytes, |gib| u64::from(gib) << 30),
    }
}

/// Pools must differ in their names, and in the names of their instances where those could meet.
fn check_names(pools: &[PoolSpec], report: &mut Report<'_>) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut stems: HashMap<(&str, String), usize> = HashMap::new();
    for (number, pool) in pools.iter().enumerate() {
        if pool.name.is_empty() {
            continue;
        }
        let key = format!("pools[{number}].name");
        if let Some(first) = names.get(&*pool.name) {
            report.error(
                &key,
                format!("`{}` is the name of pools[{first}] already", pool.name),
            );
            continue;
        }
        names.insert(&pool.name, number);
        let stem = agent_name_stem(&pool.name, &pool.agent_prefix);
        // Azure does not tell upper from lower case in agents' names.
        let place = (&*pool.instance.project, stem.to_lowercase());
        if let Some(first) = stems.get(&place) {
            let other = &pools[*first].name;
            report.error(
                &key,
                format!(
                    "agents would be named `{stem}-...` like those of pools[{first}] (`{other}`) \
                     in the same Incus project; change a name or an agentPrefix"
                ),
            );
        }
        stems.entry(place).or_insert(number);
    }
}

fn metrics(
    port: Option<u16>,
    address: Option<String>,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let port = port.unwrap_or(METRICS_PORT);
    let address = text("metricsAddress", address, report);
    let address = address.unwrap_or_else(|| METRICS_ADDRESS.to_owned());
    match address.parse::<IpAddr>() {
        Ok(_) if port == 0 => None,
        Ok(address) => Some(SocketAddr::new(address, port)),
        Err(_) => {
            let message = "must be an IP address such as `127.0.0.1`, `0.0.0.0` or `::`";
            report.error("metricsAddress", message);
            None
        }
    }
}

fn socket(file: file::Socket, report: &mut Report<'_>) -> SocketSpec {
    let default = Path::new(socket::DEFAULT_PATH);
    SocketSpec {
        path: socket_path("socket.path", file.path, default, report),
        mode: socket_mode(file.mode.as_deref().unwrap_or(SOCKET_MODE), report),
        group: group("socket.group", file.group, socket::GROUP, report),
        view_group: group("socket.viewGroup", file.view_group, VIEW_GROUP, report),
    }
}

fn group(key: &str, value: Option<String>, default: &str, report: &mut Report<'_>) -> String {
    text(key, value, report).unwrap_or_else(|| default.to_owned())
}

fn socket_mode(text: &str, report: &mut Report<'_>) -> u32 {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = if octal {
        u32::from_str_radix(digits, 8).ok()
    } else {
        None
    };
    let Some(mode) = mode.filter(|mode| *mode <= 0o777) else {
        report.error("socket.mode", "must be three octal digits such as `0660`");
        return 0;
    };
    if mode & 0o600 != 0o600 {
        let message = format!("is {mode:04o} in octal, which shuts the socket's own user out");
        report.error("socket.mode", message);
    }
    if mode & 0o002 != 0 {
        report.warning(
            "socket.mode",
            "lets every user of this machine control the daemon",
        );
    }
    mode
}

fn socket_path(
    key: &str,
    value: Option<String>,
    default: &Path,
    report: &mut Report<'_>,
) -> PathBuf {
    let path = absolute(key, value, default, report);
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        let message =
            format!("is longer than the {MAX_SOCKET_PATH} bytes a socket's path may have");
        report.error(key, message);
    }
    path
}

fn retry(file: file::Listener, report: &mut Report<'_>) -> RetrySpec {
    let first_key = "daemon.listener.retryDelay";
    let longest_key = "daemon.listener.maxRetryDelay";
    let first = duration(
        first_key,
        file.retry_delay,
        RETRY_DELAY,
        MIN_INTERVAL,
        report,
    );
    let given = file.max_retry_delay.is_some();
    let longest = duration(
        longest_key,
        file.max_retry_delay,
        MAX_RETRY_DELAY,
        MIN_INTERVAL,
        report,
    );
    if given && longest < first && !report.has_error(first_key) && !report.has_error(longest_key) {
        report.error(
            longest_key,
            format!("is shorter than retryDelay, {}", duration::format(first)),
        );
    }
    RetrySpec {
        first,
        longest: longest.max(first),
    }
}

/// Returns a duration, or the default for nothing and for zero, as the Go tool does.
fn duration(
    key: &str,
    value: Option<DurationText>,
    default: Duration,
    shortest: Duration,
    report: &mut Report<'_>,
) -> Duration {
    let Some(DurationText(text)) = value else {
        return default;
    };
    let parsed = match bare_nanoseconds(&text) {
        Some(duration) => {
            let written = duration::format(duration);
            report.warning(
                key,
                format!("is a number of nanoseconds; write `{written}`"),
            );
            Ok(duration)
        }
        None => duration::parse(&text),
    };
    match parsed {
        Ok(Duration::ZERO) => default,
        Ok(duration) if duration < shortest => {
            report.error(
                key,
                format!("must be at least {}", duration::format(shortest)),
            );
            default
        }
        Ok(duration) => duration,
        Err(error) => {
            report.error(key, error.to_string());
            default
        }
    }
}

/// The Go tool takes a bare number as nanoseconds. One too small to be meant so has forgotten its
/// unit.
fn bare_nanoseconds(text: &str) -> Option<Duration> {
    let nanos = text.parse::<u64>().ok()?;
    (nanos >= 1_000_000).then(|| Duration::from_nanos(nanos))
}

/// Returns an optional text. An empty one is none, as for the Go tool; blanks are a slip.
fn text(key: &str, value: Option<String>, report: &mut Report<'_>) -> Option<String> {
    let value = value.filter(|value| !value.is_empty())?;
    if value.trim().is_empty() || value.contains(char::is_control) {
        report.error(key, "must not be blank or hold control characters");
        return None;
    }
    Some(value)
}

/// Returns a text that must be there. Its absence has been reported.
fn required(key: &str, value: Option<String>, report: &mut Report<'_>) -> String {
    if value.as_deref() == Some("") {
        report.error(key, "must not be empty");
    }
    text(key, value, report).unwrap_or_default()
}

fn absolute(key: &str, value: Option<String>, default: &Path, report: &mut Report<'_>) -> PathBuf {
    let Some(path) = text(key, value, report).map(PathBuf::from) else {
        return default.to_owned();
    };
    if path.is_relative() {
        report.error(key, "must be an absolute path");
    }
    path
}
