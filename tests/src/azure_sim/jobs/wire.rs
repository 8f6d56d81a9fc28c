//! How a job is written as JSON: for orchestrators, and for the agent that gets it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Job, JobResult};
use crate::azure_sim::{call::Members, messages::JOB_REQUEST, state::State};

impl State {
    /// Writes a job request as the service shows it.
    pub(in crate::azure_sim) fn job_json(&self, job: &Job, with_matches: bool) -> Value {
        let org = self.pools.get(&job.pool).map_or(0, |pool| pool.org);
        let url = self.org_url(org);
        let owner_id = job.id;
        let mut members = Members::new(self.switches.absent_as_null);
        members
            .put("requestId", job.id)
            .put("queueTime", job.queued.to_string())
            .put_opt("assignTime", job.assigned.map(|time| time.to_string()))
            .put_opt("receiveTime", job.received.map(|time| time.to_string()))
            .put_opt("lockedUntil", job.locked_until.map(|time| time.to_string()))
            .put_opt("finishTime", job.finished.map(|time| time.to_string()))
            .put_opt("result", job.result.map(JobResult::name))
            .put("serviceOwner", "00025394-6065-48ca-87d9-7f5672854ef7")
            .put("hostId", self.instance_id(org))
            .put("scopeId", job.scope_id.clone())
            .put("planType", "Build")
            .put("planId", job.plan_id.clone())
            .put("planGroup", format!("Build:{owner_id}"))
            .put("jobId", job.job_id.clone())
            .put("jobName", job.display_name())
            .put("poolId", job.pool)
            .put("queueId", job.pool + 10)
            .put(
                "orchestrationId",
                format!("{}.build.__default", job.plan_id),
            )
            .put("demands", json!(job.request.demands))
            .put("matchesAllAgentsInPool", job.request.demands.is_empty())
            .put(
                "definition",
                json!({"_links": {"web": {"href": format!("{url}/_definition?definitionId=7")},
                                  "self": {"href": format!("{url}/_apis/build/Definitions/7")}},
                       "id": 7, "name": job.pipeline()}),
            )
            .put(
                "owner",
                json!({"_links": {}, "id": owner_id, "name": format!("20261123.{owner_id}")}),
            )
            .put(
                "data",
                json!({"ParallelismTag": "Private", "IsScheduledKey": "False"}),
            )
            .put("priority", 0);
        let reserved = job.agent.as_ref().map(|(id, name)| {
            let agent = self.agents.get(id).map(|agent| self.agent_reference(agent));
            agent.unwrap_or_else(|| json!({"id": id, "name": name}))
        });
        members.put_opt("reservedAgent", reserved);
        if with_matches && job.assigned.is_none() {
            let matched = self
                .matching_agents(job)
                .map(|agent| self.agent_reference(agent));
            members.put("matchedAgents", Value::Array(matched.collect()));
        }
        members.build()
    }

    /// Writes the body of the message that hands a job over.
    pub(in crate::azure_sim) fn job_message(&self, job: &Job) -> Value {
        let org = self.pools.get(&job.pool).map_or(0, |pool| pool.org);
        let request = &job.request;
        let mut variables = BTreeMap::from([
            ("system.teamProject", "demo".to_owned()),
            ("system.serverType", "Hosted".to_owned()),
            ("build.buildId", job.id.to_string()),
            ("sim.durationMs", request.duration_ms.to_string()),
            (
                "sim.result",
                request
                    .result
                    .unwrap_or(JobResult::Succeeded)
                    .name()
                    .to_owned(),
            ),
            ("sim.crash", request.crash.to_string()),
            ("sim.ignoreCancelMs", request.ignore_cancel_ms.to_string()),
        ]);
        if let Some(script) = &request.script {
            variables.insert("sim.script", STANDARD.encode(script));
        }
        let variables: Map<String, Value> = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!({ "value": value })))
            .collect();
        json!({
            "messageType": JOB_REQUEST,
            "requestId": job.id,
            "lockedUntil": job.locked_until.map(|time| time.to_string()),
            "jobId": job.job_id,
            "jobName": "build",
            "jobDisplayName": job.display_name(),
            "plan": {
                "planId": job.plan_id, "planType": "Build", "version": 10,
                "scopeIdentifier": job.scope_id, "planGroup": format!("Build:{}", job.id),
                "definition": {"id": 7, "name": job.pipeline()},
                "owner": {"id": job.id, "name": format!("20261123.{}", job.id)},
            },
            "timeline": {"id": job.plan_id, "changeId": 1},
            "variables": variables,
            "mask": [],
            "resources": {"endpoints": [{
                "name": "SystemVssConnection",
                "url": format!("{}/", self.org_url(org)),
                "authorization": {"scheme": "OAuth", "parameters": {"AccessToken": job.token}},
            }]},
            "steps": [],
        })
    }
}
