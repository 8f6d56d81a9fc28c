//! What the credential may do, found out without changing anything.

use serde_json::json;

use super::error::{AzureError, Operation};
use super::transport::Request;
use super::{Azure, wire};

/// No agent has it: ids count up from 1.
const NOBODY: i64 = i32::MAX as i64;

impl Azure {
    /// Returns whether there is a token to show at all.
    pub async fn has_token(&self) -> Result<(), AzureError> {
        self.transport().token().await.map(drop)
    }

    /// Returns who Azure takes us for; empty when it does not say.
    pub async fn identity(&self) -> Result<String, AzureError> {
        let data = self.connection_data().await?;
        Ok(data.user().unwrap_or_default())
    }

    /// Returns whether Azure would let us change the pool's agents, by changing one that does not
    /// exist: rights are looked at first. `None` when the answer says neither.
    pub async fn may_manage(&self, pool: i32) -> Result<Option<bool>, AzureError> {
        let body = json!({"id": NOBODY, "enabled": false});
        let path = format!("distributedtask/pools/{pool}/agents/{NOBODY}");
        let request = Request::patch(Operation::ProbeRights, path).body(&body);
        match self.transport().done(request).await {
            Err(error) if error.type_key() == "TaskAgentNotFoundException" => Ok(Some(true)),
            Err(error @ AzureError::Status { .. }) if !error.is_transient() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(None),
        }
    }

    /// Returns whether whom Azure takes us for is an administrator of the agent pool called
    /// `name`. Says nothing of what the token's scope allows.
    pub async fn is_administrator(&self, name: &str) -> Result<bool, AzureError> {
        let request = Request::get(Operation::FindPool, "distributedtask/pools")
            .query("poolName", name)
            .query("poolType", "automation")
            .query("actionFilter", "manage");
        let pools: Vec<wire::Pool> = self.transport().list(request).await?;
        Ok(pools
            .iter()
            .any(|pool| pool.name.eq_ignore_ascii_case(name)))
    }
}
