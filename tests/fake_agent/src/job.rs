//! The job message, and what passes from listener to worker.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exit::TaskResult;

/// Message type of a job.
pub const JOB_REQUEST: &str = "PipelineAgentJobRequest";

/// One line on the worker's stdin.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerMessage {
    Job(Value),
    Cancel,
}

/// What both processes need of a job message.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub request_id: i64,
    pub job_id: String,
    pub job_display_name: String,
    pub plan: Plan,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    resources: Resources,
}

/// The plan a job belongs to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub plan_id: String,
    pub plan_type: String,
    pub scope_identifier: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Variable {
    value: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Resources {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
struct Endpoint {
    name: String,
    url: String,
    authorization: Authorization,
}

#[derive(Debug, Clone, Deserialize)]
struct Authorization {
    parameters: BTreeMap<String, String>,
}

/// What a test wants of the job (`sim.*` variables).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Shell commands to run first.
    pub script: Option<String>,
    /// How long to work after the script.
    pub duration: Duration,
    /// Result unless the script fails or the job is cancelled.
    pub result: TaskResult,
    /// End without a word to the service.
    pub crash: bool,
    /// How long a cancellation is ignored.
    pub ignore_cancel: Duration,
}

impl Job {
    /// Returns a variable of the job; names are case-insensitive.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self
            .variables
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        found.1.value.as_deref()
    }

    /// Returns URL and token of the service for the worker.
    pub fn connection(&self) -> Option<(&str, &str)> {
        let endpoint = self
            .resources
            .endpoints
            .iter()
            .find(|endpoint| endpoint.name.eq_ignore_ascii_case("SystemVssConnection"))?;
        let token = endpoint.authorization.parameters.get("AccessToken")?;
        Some((endpoint.url.trim_end_matches('/'), token))
    }

    /// Returns a path of the job's plan below the URL of the service.
    pub fn plan_path(&self, rest: &str) -> String {
        let Plan {
            plan_id,
            plan_type,
            scope_identifier,
        } = &self.plan;
        format!("{scope_identifier}/_apis/distributedtask/hubs/{plan_type}/plans/{plan_id}/{rest}")
    }

    /// Tells whether the agent ends after this job.
    pub fn is_run_once(&self) -> bool {
        self.variable("agent.runMode")
            .is_some_and(|mode| mode.eq_ignore_ascii_case("once"))
    }

    /// Reads what the test wants; the name of what is wrong with it otherwise.
    ///
    /// # Errors
    /// Returns the name of the variable that cannot be read.
    pub fn wishes(&self) -> Result<Wishes, &'static str> {
        let millis = |name: &'static str| {
            let parsed = self
                .variable(name)
                .map(|text| text.parse().map_err(|_| name));
            parsed
                .transpose()
                .map(|millis| Duration::from_millis(millis.unwrap_or(0)))
        };
        let script = self.variable("sim.script").map(|text| {
            BASE64_STANDARD
                .decode(text)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or("sim.script")
        });
        let result = self
            .variable("sim.result")
            .map(|text| TaskResult::parse(text).ok_or("sim.result"))
            .transpose()?;
        Ok(Wishes {
            script: script.transpose()?,
            duration: millis("sim.durationMs")?,
            result: result.unwrap_or(TaskResult::Succeeded),
            crash: self
                .variable("sim.crash")
                .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true")),
            ignore_cancel: millis("sim.ignoreCancelMs")?,
        })
    }
}

/// Puts into a job message that the agent ends after it, as the listener does with `--once`.
pub fn mark_run_once(message: &mut Value) {
    if let Some(variables) = message.get_mut("variables").and_then(Value::as_object_mut) {
        variables.insert("agent.runMode".to_owned(), json!({ "value": "once" }));
    } else {
        message["variables"] = json!({ "agent.runMode": { "value": "once" } });
    }
}

/// Reads a .NET time span such as `00:01:00`, which is how timeouts come in messages.
pub fn parse_time_span(text: &str) -> Option<Duration> {
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) if clock.contains(':') => (days.parse::<u64>().ok()?, clock),
        _ => (0, text),
    };
    let mut parts = clock.splitn(3, ':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    let whole = Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60);
    Some(whole + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(variables: Value) -> Value {
        json!({
            "messageType": JOB_REQUEST, "requestId": 4711,
            "jobId": "j", "jobName": "build", "jobDisplayName": "Build",
            "plan": {"planId": "p", "planType": "Build", "version": 10, "scopeIdentifier": "s"},
            "variables": variables,
            "resources": {"endpoints": [{"name": "SystemVssConnection", "url": "http://h/org/",
                "authorization": {"scheme": "OAuth", "parameters": {"AccessToken": "t"}}}]},
            "steps": [],
        })
    }

    fn job(variables: Value) -> Job {
        serde_json::from_value(message(variables)).unwrap()
    }

    #[test]
    fn a_job_tells_its_paths_and_its_connection() {
        let job = job(json!({}));
        assert_eq!(job.connection(), Some(("http://h/org", "t")));
        assert_eq!(
            job.plan_path("events"),
            "s/_apis/distributedtask/hubs/Build/plans/p/events"
        );
    }

    #[test]
    fn run_once_is_a_variable_put_in_by_the_listener() {
        let mut message = message(json!({"a": {"value": "b"}}));
        mark_run_once(&mut message);
        let job: Job = serde_json::from_value(message).unwrap();
        assert!(job.is_run_once());
        assert_eq!(job.variable("A"), Some("b"));
    }

    #[test]
    fn wishes_have_defaults_and_are_read_strictly() {
        let none = job(json!({"system.x": {"value": null}})).wishes().unwrap();
        assert_eq!(
            (none.result, none.duration),
            (TaskResult::Succeeded, Duration::ZERO)
        );
        assert!(none.script.is_none() && !none.crash);

        let all = job(json!({
            "sim.durationMs": {"value": "1500"}, "sim.result": {"value": "failed"},
            "sim.script": {"value": "ZWNobyBoaQ=="}, "sim.crash": {"value": "true"},
            "sim.ignoreCancelMs": {"value": "20"},
        }));
        assert_eq!(
            all.wishes().unwrap(),
            Wishes {
                script: Some("echo hi".to_owned()),
                duration: Duration::from_millis(1500),
                result: TaskResult::Failed,
                crash: true,
                ignore_cancel: Duration::from_millis(20),
            }
        );
        for name in ["sim.durationMs", "sim.result", "sim.script"] {
            assert_eq!(job(json!({name: {"value": "?"}})).wishes(), Err(name));
        }
    }

    #[test]
    fn time_spans_are_read() {
        for (text, seconds) in [
            ("00:01:00", 60.0),
            ("01:00:00.5000000", 3600.5),
            ("1.00:00:01", 86401.0),
        ] {
            assert_eq!(
                parse_time_span(text),
                Some(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        assert_eq!(parse_time_span("soon"), None);
    }
}
