//! How an agent is written as JSON.

use serde_json::{Value, json};

use super::{Agent, PendingUpdate};
use crate::azure_sim::{
    call::{Call, Members},
    crypto::PublicKey,
    options::ServerUrlForm,
    packages::version_json,
    state::State,
};

/// Which optional parts of an agent are shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Detail {
    capabilities: bool,
    assigned: bool,
    last_completed: bool,
    registration: bool,
}

impl Detail {
    pub(super) const REGISTRATION: Self = Self {
        capabilities: true,
        assigned: false,
        last_completed: false,
        registration: true,
    };

    pub(super) const CAPABILITIES: Self = Self {
        capabilities: true,
        assigned: false,
        last_completed: false,
        registration: false,
    };

    pub(super) fn of(call: &Call) -> Self {
        Self {
            capabilities: call.flag("includeCapabilities"),
            assigned: call.flag("includeAssignedRequest"),
            last_completed: call.flag("includeLastCompletedRequest"),
            registration: false,
        }
    }
}

impl State {
    /// Writes the few members by which other resources refer to an agent.
    pub(in crate::azure_sim) fn agent_reference(&self, agent: &Agent) -> Value {
        json!({
            "id": agent.id,
            "name": agent.name,
            "version": agent.version,
            "osDescription": agent.os_description,
            "enabled": agent.enabled,
            "status": if agent.session.is_some() { "online" } else { "offline" },
            "provisioningState": "Provisioned",
            "accessPoint": "PublicAccessMapping",
        })
    }

    pub(super) fn agent_json(&self, org: usize, agent: &Agent, detail: Detail) -> Value {
        let url = self.org_url(org);
        let mut members = Members::new(self.switches.absent_as_null);
        let path = format!(
            "_apis/distributedtask/pools/{}/agents/{}",
            agent.pool, agent.id
        );
        let page = format!("_settings/agentpools?view=jobs&poolId={}", agent.pool);
        members
            .put(
                "_links",
                json!({"self": {"href": format!("{url}/{path}")},
                       "web": {"href": format!("{url}/{page}&agentId={}", agent.id)}}),
            )
            .put("maxParallelism", agent.max_parallelism)
            .put("createdOn", agent.created.to_string())
            .put("statusChangedOn", agent.status_changed.to_string());
        if let Value::Object(reference) = self.agent_reference(agent) {
            members.extend(reference);
        }
        if detail.capabilities {
            members
                .put("systemCapabilities", json!(agent.system_capabilities))
                .put("userCapabilities", json!(agent.user_capabilities));
        }
        if detail.assigned {
            let job = agent.assigned.and_then(|id| self.jobs.get(&id));
            members.put_opt("assignedRequest", job.map(|job| self.job_json(job, false)));
        }
        if detail.last_completed {
            let job = agent.last_completed.and_then(|id| self.jobs.get(&id));
            members.put_opt(
                "lastCompletedRequest",
                job.map(|job| self.job_json(job, false)),
            );
        }
        members.put_opt(
            "pendingUpdate",
            agent.pending_update.as_ref().map(update_json),
        );
        if detail.registration {
            match self.switches.server_url {
                ServerUrlForm::Typed => {
                    let value = json!({"$type": "System.String", "$value": format!("{url}/")});
                    members.put("properties", json!({ "ServerUrl": value }));
                }
                ServerUrlForm::Plain => {
                    members.put("properties", json!({"ServerUrl": format!("{url}/")}));
                }
                ServerUrlForm::Absent => {}
            }
        }
        let authorization = detail.registration || self.switches.authorization_in_get;
        if authorization && !self.switches.no_authorization {
            let mut authorization = Members::new(false);
            authorization
                .put("clientId", agent.client_id.clone())
                .put("authorizationUrl", self.authorization_url(org))
                .put_opt("publicKey", agent.public_key.as_ref().map(key_json));
            members.put("authorization", authorization.build());
        }
        members.build()
    }
}

fn key_json(key: &PublicKey) -> Value {
    json!({"exponent": key.exponent_base64(), "modulus": key.modulus_base64()})
}

fn update_json(update: &PendingUpdate) -> Value {
    json!({
        "sourceVersion": version_json(&update.source),
        "targetVersion": version_json(&update.target),
        "requestTime": update.requested.to_string(),
        "currentState": update.state,
        "reason": {"code": update.reason},
    })
}
