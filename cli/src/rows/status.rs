//! The daemon at a glance, and what of it is red.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::member::Member;
use super::pool::{Breaker, Pool};
use super::time::{Time, age, seconds};
use super::{NOTHING, filled, or_nothing, plain, word};

#[derive(Serialize)]
pub(crate) struct Status {
    /// Whether nothing is red: not a field of `iap.v1`, the same as exit code 0.
    pub(crate) healthy: bool,
    version: String,
    started_at: Option<Time>,
    owner: String,
    pub(crate) hostname: String,
    config_path: String,
    config_loaded_at: Option<Time>,
    config_problems: Vec<Problem>,
    incus: Option<Incus>,
    azure: Vec<Azure>,
    pub(crate) pools: Vec<Pool>,
    warnings: Vec<String>,
    metrics_address: Option<String>,
    resident_bytes: u64,
    pub(crate) members: Vec<Member>,
}

/// A place in a configuration file and what is wrong there.
#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Problem {
    line: Option<u32>,
    column: Option<u32>,
    key: Option<String>,
    message: String,
}

#[derive(Serialize)]
struct Incus {
    reachable: bool,
    socket: String,
    server_version: Option<String>,
    storage_driver: Option<String>,
    error: Option<String>,
    events_connected: bool,
}

#[derive(Serialize)]
struct Azure {
    url: String,
    pools: Vec<String>,
    credential: String,
    breaker: Option<Breaker>,
    snapshot_age_seconds: Option<f64>,
    unanswered_seconds: Option<f64>,
    credential_kind: Option<String>,
    credential_source: Option<String>,
    expires_at: Option<Time>,
    token_expires_at: Option<Time>,
    last_rejected_at: Option<Time>,
}

impl From<v1::GetStatusResponse> for Status {
    fn from(status: v1::GetStatusResponse) -> Self {
        let mut status = Self {
            healthy: true,
            version: status.version,
            started_at: Time::of(status.started_at),
            owner: status.owner,
            hostname: status.hostname,
            config_path: status.config_path,
            config_loaded_at: Time::of(status.config_loaded_at),
            config_problems: status
                .config_problems
                .into_iter()
                .map(Problem::from)
                .collect(),
            incus: status.incus.map(Incus::from),
            azure: status.azure.into_iter().map(Azure::from).collect(),
            pools: status.pools.into_iter().map(Pool::from).collect(),
            warnings: status.warnings,
            metrics_address: filled(status.metrics_address),
            resident_bytes: status.resident_bytes,
            members: status.members.into_iter().map(Member::from).collect(),
        };
        status.healthy = status.config_problems.is_empty()
            && status.incus.as_ref().is_some_and(|incus| incus.reachable)
            && !status.azure.iter().any(Azure::is_red)
            && !status.pools.iter().any(Pool::is_degraded);
        status
    }
}

impl From<v1::ConfigProblem> for Problem {
    fn from(problem: v1::ConfigProblem) -> Self {
        Self {
            line: (problem.line != 0).then_some(problem.line),
            column: (problem.column != 0).then_some(problem.column),
            key: filled(problem.key),
            message: problem.message,
        }
    }
}

impl From<v1::IncusStatus> for Incus {
    fn from(incus: v1::IncusStatus) -> Self {
        Self {
            reachable: incus.reachable,
            socket: incus.socket,
            server_version: filled(incus.server_version),
            storage_driver: filled(incus.storage_driver),
            error: filled(incus.error),
            events_connected: incus.events_connected,
        }
    }
}

impl From<v1::AzureStatus> for Azure {
    fn from(azure: v1::AzureStatus) -> Self {
        Self {
            credential: word(azure.credential().as_str_name(), "CREDENTIAL_STATE_"),
            credential_kind: credential_kind(azure.credential_kind()),
            credential_source: filled(azure.credential_source),
            expires_at: Time::of(azure.expires_at),
            token_expires_at: Time::of(azure.token_expires_at),
            last_rejected_at: Time::of(azure.last_rejected_at),
            url: azure.url,
            pools: azure.pools,
            breaker: azure.breaker.map(Breaker::from),
            snapshot_age_seconds: seconds(azure.snapshot_age),
            unanswered_seconds: seconds(azure.unanswered_for),
        }
    }
}

/// Returns the word for a credential's kind, if the daemon says it.
pub(crate) fn credential_kind(kind: v1::CredentialKind) -> Option<String> {
    (kind != v1::CredentialKind::Unspecified).then(|| word(kind.as_str_name(), "CREDENTIAL_KIND_"))
}

impl Problem {
    /// Returns the problem as compilers do: `FILE:LINE:COLUMN: KEY: MESSAGE`.
    pub(crate) fn text(&self, file: &str, kind: &str) -> String {
        let mut place = file.to_owned();
        for number in [self.line, self.column].into_iter().flatten() {
            place.push(':');
            place.push_str(&number.to_string());
        }
        let key = self
            .key
            .as_ref()
            .map_or_else(String::new, |key| format!("{key}: "));
        format!("{place}: {kind}{key}{}", plain(&self.message))
    }
}

impl Incus {
    fn text(&self) -> String {
        if !self.reachable {
            let error = plain(self.error.as_deref().unwrap_or("no reason known"));
            return format!("UNREACHABLE  {}: {error}", self.socket);
        }
        let events = if self.events_connected {
            ""
        } else {
            ", events not connected"
        };
        format!(
            "ok  {}, storage {}, {}{events}",
            or_nothing(self.server_version.as_deref()),
            or_nothing(self.storage_driver.as_deref()),
            self.socket
        )
    }
}

impl Azure {
    fn is_red(&self) -> bool {
        self.credential == "rejected" || self.breaker.as_ref().is_some_and(Breaker::is_open)
    }

    fn text(&self, now: Timestamp) -> String {
        let verdict = match (self.credential.as_str(), &self.breaker) {
            ("rejected", _) => "CREDENTIAL REJECTED".to_owned(),
            (_, Some(breaker)) if breaker.is_open() => "FAILING".to_owned(),
            _ if self.unanswered_seconds.is_some() => "slow".to_owned(),
            ("accepted", _) => "ok".to_owned(),
            (other, _) => format!("credential {other}"),
        };
        let trouble = match &self.breaker {
            Some(breaker) if breaker.is_open() => format!(": {}", breaker.trouble(now)),
            _ => String::new(),
        };
        let span = |seconds| age(std::time::Duration::from_secs_f64(seconds));
        let seen = self
            .snapshot_age_seconds
            .map_or_else(String::new, |seconds| {
                format!(", seen {} ago", span(seconds))
            });
        let waiting = self.unanswered_seconds.map_or_else(String::new, |seconds| {
            format!(", no answer for {}", span(seconds))
        });
        format!(
            "{verdict}  {} ({}){waiting}{seen}{}{trouble}",
            self.url,
            self.pools.join(", "),
            self.clock(now)
        )
    }

    /// Says how long the credential lasts, as far as that is known and of interest.
    fn clock(&self, now: Timestamp) -> String {
        let end = match self.expires_at {
            Some(end) if end.0 <= now => format!(", certificate EXPIRED {} ago", age(end.age(now))),
            Some(end) => format!(", certificate expires in {}", age(end.ahead(now))),
            None => String::new(),
        };
        let rejected = self.last_rejected_at.map_or_else(String::new, |at| {
            format!(", last rejected {} ago", age(at.age(now)))
        });
        end + &rejected
    }
}

impl Status {
    /// Returns the labelled lines above the table of pools.
    pub(crate) fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let ago =
            |time: Option<Time>| time.map_or_else(|| "?".to_owned(), |time| age(time.age(now)));
        let memory = self.resident_bytes as f64 / 1_048_576.0;
        let mut lines = vec![
            (
                "iapd",
                format!(
                    "{} on {}, up {}, owner {}, {memory:.1} MiB",
                    self.version,
                    self.hostname,
                    ago(self.started_at),
                    self.owner
                ),
            ),
            (
                "config",
                if self.config_problems.is_empty() {
                    format!(
                        "{}, loaded {} ago",
                        self.config_path,
                        ago(self.config_loaded_at)
                    )
                } else {
                    format!(
                        "RELOAD REFUSED  the one loaded {} ago is in force",
                        ago(self.config_loaded_at)
                    )
                },
            ),
        ];
        for problem in &self.config_problems {
            lines.push(("", problem.text(&self.config_path, "")));
        }
        match &self.incus {
            Some(incus) => lines.push(("incus", incus.text())),
            None => lines.push(("incus", "not known yet".to_owned())),
        }
        for azure in &self.azure {
            lines.push(("azure", azure.text(now)));
        }
        if let Some(address) = &self.metrics_address {
            lines.push(("metrics", format!("http://{address}/metrics")));
        }
        lines
    }

    /// Returns the cells of one line about all of it.
    pub(crate) fn summary(&self, now: Timestamp) -> Vec<String> {
        let state = if self.healthy { "ok" } else { "WRONG" };
        let incus = match &self.incus {
            Some(incus) if incus.reachable => "ok",
            Some(_) => "UNREACHABLE",
            None => NOTHING,
        };
        let azure = if self.azure.iter().any(Azure::is_red) {
            "FAILING"
        } else if self.azure.is_empty() {
            NOTHING
        } else {
            "ok"
        };
        let up = self.started_at.map(|time| age(time.age(now)));
        vec![
            state.to_owned(),
            self.version.clone(),
            or_nothing(up.as_deref()),
            incus.to_owned(),
            azure.to_owned(),
            self.pools.len().to_string(),
            self.warnings.len().to_string(),
        ]
    }

    /// Returns what to look at, a line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings
            .iter()
            .map(|warning| format!("warning: {}", plain(warning)))
            .collect()
    }
}
