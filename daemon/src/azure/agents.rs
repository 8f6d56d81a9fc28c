//! Agents: the registrations of a pool.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::error::{AzureError, Operation};
use super::transport::Request;
use super::types::{Agent, CreatedAgent, Deleted, NewAgent};
use super::{Azure, wire};

/// Of a refusal to delete.
const STILL_RUNNING: &str = "TaskAgentJobStillRunningException";

impl Azure {
    /// Returns all agents of the pool with their capabilities and assigned jobs, or an error.
    pub async fn agents(&self, pool: i32) -> Result<Vec<Agent>, AzureError> {
        let request = Request::get(Operation::ListAgents, agents_path(pool))
            .query("includeCapabilities", "true")
            .query("includeAssignedRequest", "true");
        let agents: Vec<wire::TaskAgent> = self.transport().list(request).await?;
        Ok(agents.into_iter().map(Agent::from).collect())
    }

    /// Returns one agent, with the job it has and the one it had; `None` when Azure says that
    /// there is no such agent.
    pub async fn agent(&self, pool: i32, id: i64) -> Result<Option<Agent>, AzureError> {
        let request = Request::get(Operation::GetAgent, agent_path(pool, id))
            .query("includeCapabilities", "true")
            .query("includeAssignedRequest", "true")
            .query("includeLastCompletedRequest", "true");
        match self.transport().json::<wire::TaskAgent>(request).await {
            Ok(agent) => Ok(Some(agent.into())),
            Err(error) if error.type_key() == "TaskAgentNotFoundException" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds an agent by its name: how a lost answer to a registration is recovered.
    pub async fn agent_named(&self, pool: i32, name: &str) -> Result<Option<Agent>, AzureError> {
        let request = Request::get(Operation::FindAgent, agents_path(pool))
            .query("agentName", name)
            .query("includeCapabilities", "true")
            .query("includeAssignedRequest", "true");
        let agents: Vec<wire::TaskAgent> = self.transport().list(request).await?;
        // Names are unique whatever their case. A server that ignores the filter lists them all.
        let agent = agents
            .into_iter()
            .find(|agent| agent.name.eq_ignore_ascii_case(name));
        Ok(agent.map(Agent::from))
    }

    /// Registers an agent. Made once: after a lost answer the registration may stand, and only
    /// [`Self::agent_named`] can tell.
    pub async fn create_agent(
        &self,
        pool: i32,
        new: &NewAgent,
    ) -> Result<CreatedAgent, AzureError> {
        let mut capabilities: BTreeMap<&str, &str> = new
            .system_capabilities
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        // Jobs demand a version before the agent was ever online to report its own.
        capabilities.entry("Agent.Name").or_insert(&new.name);
        capabilities.entry("Agent.Version").or_insert(&new.version);
        let body = wire::Registration {
            name: &new.name,
            version: &new.version,
            os_description: &new.os_description,
            max_parallelism: 1,
            provisioning_state: "Provisioned",
            authorization: wire::PublicKeyOf {
                public_key: wire::Rsa {
                    exponent: BASE64_STANDARD.encode(&new.public_key.exponent),
                    modulus: BASE64_STANDARD.encode(&new.public_key.modulus),
                },
            },
            system_capabilities: capabilities,
        };
        let request = Request::post(Operation::CreateAgent, agents_path(pool)).body(&body);
        let registered: wire::Registered = self.transport().json(request).await?;
        created(registered, &new.name)
    }

    /// Deletes a registration. Only when its listener has ended: a listener whose registration
    /// goes away cancels its job.
    pub async fn delete_agent(&self, pool: i32, id: i64) -> Result<Deleted, AzureError> {
        let request = Request::delete(Operation::DeleteAgent, agent_path(pool, id));
        match self.transport().done(request).await {
            Ok(()) => Ok(Deleted::Gone),
            Err(error) if error.is_not_found() => Ok(Deleted::Gone),
            Err(AzureError::Status {
                type_key,
                message,
                status,
                ..
            }) if type_key == STILL_RUNNING || status == reqwest::StatusCode::CONFLICT => {
                Ok(Deleted::Busy(message))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps further jobs from an agent; the one it has goes on.
    pub async fn disable_agent(&self, pool: i32, id: i64, name: &str) -> Result<(), AzureError> {
        let body = json!({"id": id, "name": name, "enabled": false});
        let request = Request::patch(Operation::DisableAgent, agent_path(pool, id)).body(&body);
        self.transport().done(request).await
    }

    /// Replaces an agent's user capabilities.
    pub async fn set_user_capabilities(
        &self,
        pool: i32,
        id: i64,
        capabilities: &BTreeMap<String, String>,
    ) -> Result<(), AzureError> {
        let path = format!("{}/usercapabilities", agent_path(pool, id));
        // Microsoft's references disagree whether it ever left preview; both sides take this.
        let request = Request::put(Operation::SetCapabilities, path)
            .version("6.0-preview.1")
            .body(capabilities);
        self.transport().done(request).await
    }
}

fn agents_path(pool: i32) -> String {
    format!("distributedtask/pools/{pool}/agents")
}

fn agent_path(pool: i32, id: i64) -> String {
    format!("distributedtask/pools/{pool}/agents/{id}")
}

/// Without an OAuth client the agent could only use our own credential, which no guest gets.
fn created(registered: wire::Registered, name: &str) -> Result<CreatedAgent, AzureError> {
    let refused = AzureError::NoAuthorization {
        agent_id: registered.id,
    };
    let server_url = registered.server_url();
    let Some(authorization) = registered.authorization else {
        return Err(refused);
    };
    let (Some(client_id), Some(authorization_url)) =
        (authorization.client_id, authorization.authorization_url)
    else {
        return Err(refused);
    };
    if client_id.is_empty() || authorization_url.is_empty() {
        return Err(refused);
    }
    Ok(CreatedAgent {
        id: registered.id,
        name: registered.name.unwrap_or_else(|| name.to_owned()),
        client_id,
        authorization_url,
        server_url,
    })
}
