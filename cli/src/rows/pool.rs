//! Pools: what is wanted, what is there, why it differs.

use std::time::Duration;

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::intent::{CountOverride, Pause};
use super::time::{Time, age, seconds, waited};
use super::{
    Column, NOTHING, Row, Show, column, filled, number, or_nothing, plain, short, state, word,
};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) state: String,
    counts: Counts,
    agent_count: u32,
    problems: Vec<String>,
    image: Option<Image>,
    incus_breaker: Option<Breaker>,
    azure_breaker: Option<Breaker>,
    azure: Option<AzurePool>,
    last_pass: Option<Pass>,
    project: Option<String>,
    instance_type: Option<String>,
    profiles: Vec<String>,
    spec_hash: Option<String>,
    queued_jobs: Option<u32>,
    pause: Option<Pause>,
    count_override: Option<CountOverride>,
    wanted: u32,
    wait_reasons: Vec<String>,
    job_waits: Option<JobWaits>,
    spares: u32,
    members: Vec<Member>,
}

/// What it has on a member of the Incus cluster.
#[derive(Serialize, PartialEq, Clone)]
struct Member {
    name: String,
    state: String,
    leaving: bool,
    agents: u32,
    busy: u32,
    idle: u32,
    full: Option<String>,
}

#[derive(Serialize, PartialEq, Clone, Default)]
struct Counts {
    busy: u32,
    idle: u32,
    starting: u32,
    leaving: u32,
    troubled: u32,
    outdated: u32,
    kept: u32,
    spare: u32,
}

#[derive(Serialize, PartialEq, Clone)]
struct Image {
    alias: String,
    fingerprint: Option<String>,
    agent_version: Option<String>,
    created_at: Option<Time>,
}

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Breaker {
    state: String,
    last_error: Option<String>,
    last_error_at: Option<Time>,
    next_try_at: Option<Time>,
    consecutive_failures: u32,
}

#[derive(Serialize, PartialEq, Clone)]
struct AzurePool {
    url: String,
    pool_name: String,
    pool_id: Option<i32>,
    snapshot_age_seconds: Option<f64>,
}

/// How long jobs wait for an agent: those of the last hour and those that wait now.
#[derive(Serialize, PartialEq, Clone)]
struct JobWaits {
    p95_seconds: Option<f64>,
    jobs: u32,
}

#[derive(Serialize, PartialEq, Clone)]
struct Pass {
    number: u64,
    trigger: String,
    ended_at: Option<Time>,
    took_seconds: Option<f64>,
    started: u32,
    in_flight: u32,
    failed: u32,
}

impl From<v1::Pool> for Pool {
    fn from(pool: v1::Pool) -> Self {
        Self {
            state: word(pool.state().as_str_name(), "POOL_STATE_"),
            name: pool.name,
            counts: pool.counts.map(Counts::from).unwrap_or_default(),
            agent_count: pool.agent_count,
            problems: pool.problems,
            image: pool.image.map(Image::from),
            incus_breaker: pool.incus_breaker.map(Breaker::from),
            azure_breaker: pool.azure_breaker.map(Breaker::from),
            azure: pool.azure.map(AzurePool::from),
            last_pass: pool.last_pass.map(Pass::from),
            project: filled(pool.project),
            instance_type: filled(pool.instance_type),
            profiles: pool.profiles,
            spec_hash: filled(pool.spec_hash),
            queued_jobs: pool.queued_jobs,
            pause: pool.pause.map(Pause::from),
            count_override: pool.count_override.map(CountOverride::from),
            wanted: pool.wanted,
            wait_reasons: pool.wait_reasons,
            job_waits: pool.job_waits.map(JobWaits::from),
            spares: pool.spares,
            members: pool.members.into_iter().map(Member::from).collect(),
        }
    }
}

impl From<v1::PoolMember> for Member {
    fn from(member: v1::PoolMember) -> Self {
        Self {
            state: word(member.state().as_str_name(), "MEMBER_STATE_"),
            name: member.name,
            leaving: member.leaving,
            agents: member.agents,
            busy: member.busy,
            idle: member.idle,
            full: filled(member.full),
        }
    }
}

impl Member {
    fn line(&self) -> String {
        let leaving = if self.leaving && self.state == "online" {
            ", draining"
        } else {
            ""
        };
        let full = self.full.as_deref().map(plain);
        let full = full.map_or_else(String::new, |why| format!("; full: {why}"));
        let s = if self.agents == 1 { "" } else { "s" };
        format!(
            "{}: {}{leaving}; {} agent{s}, {} busy, {} idle{full}",
            self.name, self.state, self.agents, self.busy, self.idle
        )
    }
}

impl From<v1::AgentCounts> for Counts {
    fn from(counts: v1::AgentCounts) -> Self {
        let v1::AgentCounts {
            busy,
            idle,
            starting,
            leaving,
            troubled,
            outdated,
            kept,
            spare,
        } = counts;
        Self {
            busy,
            idle,
            starting,
            leaving,
            troubled,
            outdated,
            kept,
            spare,
        }
    }
}

impl Counts {
    /// Returns `1/8`, or `0`.
    fn outdated_text(&self) -> String {
        let all = self.busy + self.idle + self.starting + self.leaving + self.troubled;
        match self.outdated {
            0 => "0".to_owned(),
            outdated => format!("{outdated}/{all}"),
        }
    }
}

impl From<v1::PoolImage> for Image {
    fn from(image: v1::PoolImage) -> Self {
        Self {
            alias: image.alias,
            fingerprint: filled(image.fingerprint),
            agent_version: filled(image.agent_version),
            created_at: Time::of(image.created_at),
        }
    }
}

impl From<v1::Breaker> for Breaker {
    fn from(breaker: v1::Breaker) -> Self {
        Self {
            state: word(breaker.state().as_str_name(), "BREAKER_STATE_"),
            last_error: filled(breaker.last_error),
            last_error_at: Time::of(breaker.last_error_at),
            next_try_at: Time::of(breaker.next_try_at),
            consecutive_failures: breaker.consecutive_failures,
        }
    }
}

impl From<v1::AzurePool> for AzurePool {
    fn from(azure: v1::AzurePool) -> Self {
        Self {
            url: azure.url,
            pool_name: azure.pool_name,
            pool_id: (azure.pool_id != 0).then_some(azure.pool_id),
            snapshot_age_seconds: seconds(azure.snapshot_age),
        }
    }
}

impl From<v1::JobWaits> for JobWaits {
    fn from(waits: v1::JobWaits) -> Self {
        Self {
            p95_seconds: seconds(waits.p95),
            jobs: waits.jobs,
        }
    }
}

impl JobWaits {
    fn p95(&self) -> Option<String> {
        let p95 = Duration::try_from_secs_f64(self.p95_seconds?).ok()?;
        Some(waited(p95))
    }
}

impl From<v1::PassReport> for Pass {
    fn from(pass: v1::PassReport) -> Self {
        Self {
            number: pass.number,
            trigger: pass.trigger,
            ended_at: Time::of(pass.ended_at),
            took_seconds: seconds(pass.took),
            started: pass.started,
            in_flight: pass.in_flight,
            failed: pass.failed,
        }
    }
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.state == "open"
    }

    /// Returns the last error and when the next try is: `timed out (retry in 48s)`.
    pub(crate) fn trouble(&self, now: Timestamp) -> String {
        let error = plain(self.last_error.as_deref().unwrap_or("failing"));
        format!("{error}{}", self.retry(now))
    }

    fn retry(&self, now: Timestamp) -> String {
        self.next_try_at.map_or_else(String::new, |at| {
            format!(" (breaker: retry in {})", age(at.ahead(now)))
        })
    }

    /// Returns `2m ago  `, as far as that is known.
    fn when(&self, now: Timestamp) -> String {
        self.last_error_at
            .map_or_else(String::new, |at| format!("{} ago  ", age(at.age(now))))
    }

    fn line(&self, now: Timestamp) -> String {
        if !self.is_open() {
            // Closed is what electricians call a circuit that works.
            return "ok".to_owned();
        }
        format!(
            "open after {} failures: {}",
            self.consecutive_failures,
            self.trouble(now)
        )
    }
}

impl Image {
    fn text(&self) -> String {
        match &self.fingerprint {
            Some(fingerprint) => format!("{}@{}", self.alias, &short(fingerprint)),
            None => format!("{} (missing)", self.alias),
        }
    }
}

impl Pool {
    pub(crate) fn is_degraded(&self) -> bool {
        self.state == "degraded"
    }

    /// Returns the open breaker that a problem is about, else the first open one.
    fn open_breaker(&self, problem: &str) -> Option<&Breaker> {
        let breakers = self.incus_breaker.iter().chain(&self.azure_breaker);
        let mut open = breakers.filter(|breaker| breaker.is_open());
        let speaks = |breaker: &&Breaker| {
            let error = breaker.last_error.as_deref();
            error.is_some_and(|error| problem.contains(error))
        };
        open.clone().find(speaks).or_else(|| open.next())
    }

    /// Returns by whom and why it is paused, if it is.
    pub(crate) fn paused(&self, now: Timestamp) -> Option<String> {
        self.pause.as_ref().map(|pause| pause.text(now))
    }

    /// Returns how many agents are kept, and where that is not what is configured, why.
    pub(crate) fn count_text(&self, now: Timestamp) -> String {
        match &self.count_override {
            Some(count) => count.text(self.agent_count, now),
            None => format!("{} agents, as configured", self.agent_count),
        }
    }

    /// Returns what keeps it from working in one line: a pause, or the most important problem.
    fn problem(&self, now: Timestamp) -> String {
        match self.paused(now) {
            Some(paused) => paused,
            None => self.trouble(now),
        }
    }

    /// Returns the most important problem in one line, and that there are more.
    fn trouble(&self, now: Timestamp) -> String {
        let (first, rest) = match self.problems.split_first() {
            Some((first, rest)) => (first.as_str(), rest.len()),
            None => ("", 0),
        };
        let breaker = self.open_breaker(first);
        let when = breaker.map_or_else(String::new, |breaker| breaker.when(now));
        match (first, breaker) {
            ("", None) => NOTHING.to_owned(),
            ("", Some(breaker)) => format!("{when}{}", breaker.trouble(now)),
            (first, breaker) => {
                let retry = breaker.map_or_else(String::new, |breaker| breaker.retry(now));
                let more = match rest {
                    0 => String::new(),
                    n => format!(" (+{n} more)"),
                };
                format!("{when}{}{retry}{more}", plain(first))
            }
        }
    }
}

impl Row for Pool {
    const PLURAL: &'static str = "pools";
    const SINGULAR: &'static str = "pool";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            column("POOL"),
            state("STATE"),
            number("BUSY"),
            number("IDLE"),
            number("START"),
            number("WANT"),
            number("QUEUED"),
            number("WAIT-P95"),
            column("IMAGE"),
            number("OUTDATED"),
        ];
        if wide {
            columns.extend([
                number("LEAVING"),
                number("SPARE"),
                number("KEPT"),
                number("TROUBLED"),
                column("PROJECT"),
                column("TYPE"),
                column("AZURE-POOL"),
                column("AGENT-VERSION"),
                column("IMAGE-CREATED"),
                column("LAST-PASS"),
            ]);
        }
        // Last, since it is as long as it is.
        columns.push(column("LAST-ERROR"));
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let counts = &self.counts;
        let mut cells = vec![
            self.name.clone(),
            self.state.clone(),
            counts.busy.to_string(),
            counts.idle.to_string(),
            counts.starting.to_string(),
            self.wanted.to_string(),
            self.queued_jobs
                .map_or_else(|| NOTHING.to_owned(), |n| n.to_string()),
            or_nothing(self.job_waits.as_ref().and_then(JobWaits::p95).as_deref()),
            self.image
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), Image::text),
            counts.outdated_text(),
        ];
        if wide {
            let image = self.image.as_ref();
            let time = |time: Option<Time>| {
                time.map_or_else(|| NOTHING.to_owned(), |time| time.to_string())
            };
            cells.extend([
                counts.leaving.to_string(),
                counts.spare.to_string(),
                counts.kept.to_string(),
                counts.troubled.to_string(),
                or_nothing(self.project.as_deref()),
                or_nothing(self.instance_type.as_deref()),
                or_nothing(self.azure.as_ref().map(|azure| azure.pool_name.as_str())),
                or_nothing(image.and_then(|image| image.agent_version.as_deref())),
                time(image.and_then(|image| image.created_at)),
                time(self.last_pass.as_ref().and_then(|pass| pass.ended_at)),
            ]);
        }
        cells.push(self.problem(now));
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Show for Pool {
    fn name(&self) -> &str {
        &self.name
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let ago = |time: Option<Time>| {
            time.map_or_else(
                || "never".to_owned(),
                |time| format!("{} ago", age(time.age(now))),
            )
        };
        let counts = &self.counts;
        let mut lines = vec![
            ("pool", self.name.clone()),
            ("state", self.state.clone()),
            (
                "agents",
                format!(
                    "{} wanted: {} busy, {} idle, {} starting, {} leaving, {} troubled; {} outdated, {} kept",
                    self.wanted,
                    counts.busy,
                    counts.idle,
                    counts.starting,
                    counts.leaving,
                    counts.troubled,
                    counts.outdated,
                    counts.kept
                ),
            ),
        ];
        if self.spares > 0 || counts.spare > 0 {
            let text = format!("{} of {}, unknown to Azure", counts.spare, self.spares);
            lines.push(("spares", text));
        }
        if let Some(paused) = self.paused(now) {
            lines.insert(2, ("why", paused));
        }
        if self.count_override.is_some() {
            lines.push(("count", self.count_text(now)));
        }
        if let Some(queued) = self.queued_jobs {
            let mut text = match queued {
                1 => "1 job waits for an agent".to_owned(),
                _ => format!("{queued} jobs wait for an agent"),
            };
            if queued > 0 {
                for reason in self.paused(now).iter().chain(&self.wait_reasons) {
                    text.push('\n');
                    text.push_str(&plain(reason));
                }
            }
            lines.push(("queued", text));
        }
        if let Some(waits) = &self.job_waits {
            let jobs = waits.jobs;
            let text = waits.p95().map(|p95| {
                format!(
                    "95 % of the jobs {p95} or less; {jobs} jobs, of the last hour and waiting now"
                )
            });
            lines.push(("waits", or_nothing(text.as_deref())));
        }
        if let Some(image) = &self.image {
            let mut value = image.text();
            if let Some(version) = &image.agent_version {
                value.push_str(", agent ");
                value.push_str(version);
            }
            if image.created_at.is_some() {
                value.push_str(", made ");
                value.push_str(&ago(image.created_at));
            }
            lines.push(("image", value));
        }
        let kind = self.instance_type.as_deref().unwrap_or("instance");
        let project = self.project.as_deref().unwrap_or("default");
        let profiles = match self.profiles.as_slice() {
            [] => String::new(),
            profiles => format!(", profiles {}", profiles.join(", ")),
        };
        lines.push(("instances", format!("{kind}, project {project}{profiles}")));
        if !self.members.is_empty() {
            let members: Vec<String> = self.members.iter().map(Member::line).collect();
            lines.push(("members", members.join("\n")));
        }
        if let Some(azure) = &self.azure {
            let id = azure
                .pool_id
                .map_or_else(|| "not found yet".to_owned(), |id| id.to_string());
            lines.push((
                "azure",
                format!("{}, pool {} ({id})", azure.url, azure.pool_name),
            ));
        }
        for (label, breaker) in [
            ("incus calls", &self.incus_breaker),
            ("azure calls", &self.azure_breaker),
        ] {
            if let Some(breaker) = breaker {
                lines.push((label, breaker.line(now)));
            }
        }
        if let Some(pass) = &self.last_pass {
            let time = pass
                .took_seconds
                .map(|seconds| format!("{:.0} ms", seconds * 1e3));
            lines.push((
                "last pass",
                format!(
                    "#{} ({}) {}, took {}: {} started, {} in flight, {} failed",
                    pass.number,
                    plain(&pass.trigger),
                    ago(pass.ended_at),
                    time.as_deref().unwrap_or(NOTHING),
                    pass.started,
                    pass.in_flight,
                    pass.failed
                ),
            ));
        }
        lines.push(("spec", or_nothing(self.spec_hash.as_deref())));
        if !self.problems.is_empty() {
            let problems: Vec<String> = self.problems.iter().map(|text| plain(text)).collect();
            lines.push(("problems", problems.join("\n")));
        }
        lines
    }
}
