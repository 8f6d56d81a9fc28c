//! Azure's JSON. Unknown members are ignored; all but the identifying ones may be missing or
//! `null`; enumerations come as words, and as numbers where a member has its default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::types::{Agent, AgentPool, Deployment, JobRequest, Package};

/// Some servers and every .NET file start with one.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Every list. `count` guards against half a list.
#[derive(Deserialize)]
pub(super) struct List<T> {
    pub(super) count: Option<usize>,
    pub(super) value: Vec<T>,
}

/// The body of a refusal.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusal {
    pub(super) message: Option<String>,
    pub(super) type_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionData {
    deployment_type: Option<Word>,
    authenticated_user: Option<Identity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    provider_display_name: Option<String>,
    custom_display_name: Option<String>,
}

impl ConnectionData {
    /// Returns the name of whom the token belongs to.
    pub(super) fn user(self) -> Option<String> {
        let user = self.authenticated_user?;
        let names = [user.custom_display_name, user.provider_display_name];
        names.into_iter().flatten().find(|name| !name.is_empty())
    }

    pub(super) fn deployment(&self) -> Option<Deployment> {
        match self.deployment_type.as_ref()? {
            Word::Number(1) => Some(Deployment::Hosted),
            Word::Number(2) => Some(Deployment::OnPremises),
            Word::Text(text) if text.eq_ignore_ascii_case("hosted") => Some(Deployment::Hosted),
            Word::Text(text) if text.eq_ignore_ascii_case("onPremises") => {
                Some(Deployment::OnPremises)
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool {
    pub(super) id: i32,
    pub(super) name: String,
    auto_update: Option<bool>,
}

impl From<Pool> for AgentPool {
    fn from(pool: Pool) -> Self {
        Self {
            id: pool.id,
            name: pool.name,
            auto_update: pool.auto_update,
        }
    }
}

/// A value of an enumeration.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskAgent {
    pub(super) id: i64,
    pub(super) name: String,
    version: Option<String>,
    enabled: Option<bool>,
    status: Option<Word>,
    assigned_request: Option<TaskAgentJobRequest>,
    last_completed_request: Option<TaskAgentJobRequest>,
    system_capabilities: Option<BTreeMap<String, Value>>,
    user_capabilities: Option<BTreeMap<String, Value>>,
    created_on: Option<String>,
    status_changed_on: Option<String>,
}

impl From<TaskAgent> for Agent {
    fn from(agent: TaskAgent) -> Self {
        let capabilities = [agent.system_capabilities, agent.user_capabilities]
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|(name, value)| match value {
                Value::String(value) => Some((name, value)),
                _ => None,
            })
            .collect();
        Self {
            id: agent.id,
            name: agent.name,
            version: agent.version.unwrap_or_default(),
            // Left out when true by some versions: it is the server's default.
            enabled: agent.enabled.unwrap_or(true),
            online: match agent.status {
                Some(Word::Number(status)) => status == 2,
                Some(Word::Text(status)) => status.eq_ignore_ascii_case("online"),
                None => false,
            },
            assigned: agent.assigned_request.map(JobRequest::from),
            last_completed: agent.last_completed_request.map(JobRequest::from),
            capabilities,
            created_on: time(agent.created_on),
            status_changed_on: time(agent.status_changed_on),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskAgentJobRequest {
    request_id: i64,
    job_id: Option<String>,
    job_name: Option<String>,
    definition: Option<Named>,
    owner: Option<Named>,
    requested_for: Option<Named>,
    queue_time: Option<String>,
    assign_time: Option<String>,
    receive_time: Option<String>,
    finish_time: Option<String>,
    result: Option<Word>,
    demands: Option<Vec<Value>>,
    reserved_agent: Option<Reserved>,
}

/// A definition, a run or a person.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: Option<String>,
    display_name: Option<String>,
}

#[derive(Deserialize)]
struct Reserved {
    id: Option<i64>,
}

impl From<TaskAgentJobRequest> for JobRequest {
    fn from(job: TaskAgentJobRequest) -> Self {
        let name = |named: Option<Named>| {
            named
                .and_then(|named| named.display_name.or(named.name))
                .unwrap_or_default()
        };
        Self {
            request_id: job.request_id,
            job_id: job.job_id.unwrap_or_default(),
            job_name: job.job_name.unwrap_or_default(),
            pipeline: name(job.definition),
            run: name(job.owner),
            requested_for: name(job.requested_for),
            queue_time: time(job.queue_time),
            assign_time: time(job.assign_time),
            receive_time: time(job.receive_time),
            finish_time: time(job.finish_time),
            result: job.result.map(task_result),
            demands: job
                .demands
                .unwrap_or_default()
                .into_iter()
                .filter_map(|demand| demand.as_str().map(str::to_owned))
                .collect(),
            agent_id: job.reserved_agent.and_then(|agent| agent.id),
        }
    }
}

fn task_result(result: Word) -> String {
    match result {
        Word::Text(text) => text,
        Word::Number(number) => match number {
            0 => "succeeded".to_owned(),
            1 => "succeededWithIssues".to_owned(),
            2 => "failed".to_owned(),
            3 => "canceled".to_owned(),
            4 => "skipped".to_owned(),
            5 => "abandoned".to_owned(),
            other => other.to_string(),
        },
    }
}

/// The answer to a registration.
#[derive(Deserialize)]
pub(super) struct Registered {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) authorization: Option<Authorization>,
    properties: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authorization {
    pub(super) client_id: Option<String>,
    pub(super) authorization_url: Option<String>,
}

impl Registered {
    /// A property is a value, or an object that also names the value's .NET type.
    pub(super) fn server_url(&self) -> Option<String> {
        let property = self.properties.as_ref()?.get("ServerUrl")?;
        let text = property.get("$value").unwrap_or(property).as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// The body of a registration.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registration<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) os_description: &'a str,
    pub(super) max_parallelism: u32,
    pub(super) provisioning_state: &'static str,
    pub(super) authorization: PublicKeyOf,
    pub(super) system_capabilities: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublicKeyOf {
    pub(super) public_key: Rsa,
}

/// Base64 of the big-endian bytes.
#[derive(Serialize)]
pub(super) struct Rsa {
    pub(super) exponent: String,
    pub(super) modulus: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PackageMetadata {
    version: Version,
    download_url: String,
    hash_value: Option<String>,
    filename: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Parts { major: u64, minor: u64, patch: u64 },
    Text(String),
}

impl From<PackageMetadata> for Package {
    fn from(package: PackageMetadata) -> Self {
        let hash = package.hash_value.map(|hash| hash.to_ascii_lowercase());
        Self {
            version: match package.version {
                Version::Parts {
                    major,
                    minor,
                    patch,
                } => format!("{major}.{minor}.{patch}"),
                Version::Text(text) => text,
            },
            download_url: package.download_url,
            sha256: hash.filter(|hash| {
                hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit())
            }),
            filename: package.filename.unwrap_or_default(),
        }
    }
}

/// A .NET time, which may lack its `Z`, and is the year 1 when nobody set it.
fn time(text: Option<String>) -> Option<Timestamp> {
    let text = text?;
    let time = text.parse().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}
