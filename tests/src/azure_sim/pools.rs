//! Agent pools.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, list, ok},
    state::{Hub, Kind, Pool, State},
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PoolBody {
    name: Option<String>,
    auto_update: Option<bool>,
}

impl State {
    /// Creates a pool, or finds the one with this name.
    pub(super) fn add_pool(&mut self, org: usize, name: &str) -> u64 {
        let named = |pool: &&Pool| pool.org == org && pool.name.eq_ignore_ascii_case(name);
        if let Some(pool) = self.pools.values().find(named) {
            return pool.id;
        }
        let (id, created) = (self.next_id(Kind::Pool), self.clock.now());
        let name = name.to_owned();
        let pool = Pool {
            id,
            org,
            name,
            auto_update: true,
            min_agent_version: None,
            created,
        };
        self.pools.insert(id, pool);
        id
    }

    /// Changes what is named, and tells the agents that have become too old to update.
    pub(super) fn set_pool_update(
        &mut self,
        id: u64,
        auto_update: Option<bool>,
        least: Option<String>,
        now: Timestamp,
    ) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        pool.auto_update = auto_update.unwrap_or(pool.auto_update);
        // The empty version is no version.
        if let Some(least) = least {
            pool.min_agent_version = Some(least).filter(|least| !least.is_empty());
        }
        let waiting = self
            .agents_of(id)
            .filter(|agent| agent.pending_update.is_none());
        let waiting: Vec<u64> = waiting.map(|agent| agent.id).collect();
        for agent in waiting {
            self.require_least_version(id, agent, now);
        }
        self.touch();
    }

    fn pool_json(&self, pool: &Pool) -> Value {
        json!({
            "id": pool.id, "name": pool.name, "scope": self.instance_id(pool.org),
            "isHosted": false, "isLegacy": false, "poolType": "automation",
            "size": self.agents_of(pool.id).count(), "options": "none", "autoProvision": false,
            "autoSize": true, "autoUpdate": pool.auto_update, "agentCloudId": null,
            "targetSize": null, "createdOn": pool.created.to_string(), "properties": {},
        })
    }
}

/// Answers `GET .../pools`.
pub(super) fn get_all(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_read()?;
    if call
        .query("actionFilter")
        .is_some_and(|filter| filter.eq_ignore_ascii_case("manage"))
        && call.principal.require_manage().is_err()
    {
        return Ok(list(Vec::new()));
    }
    let (name, kind) = (call.query("poolName"), call.query("poolType"));
    let ids: Option<Vec<u64>> = call.query("poolIds").map(|ids| {
        ids.split(',')
            .filter_map(|id| id.trim().parse().ok())
            .collect()
    });
    hub.with(|state, _| {
        state.check_version(call, false)?;
        let pools = state.pools.values().filter(|pool| {
            pool.org == call.org
                && name.is_none_or(|name| pool.name.eq_ignore_ascii_case(name))
                && kind.is_none_or(|kind| kind.eq_ignore_ascii_case("automation"))
                && ids.as_ref().is_none_or(|ids| ids.contains(&pool.id))
        });
        Ok(list(pools.map(|pool| state.pool_json(pool)).collect()))
    })
}

/// Answers `GET .../pools/{id}`.
pub(super) fn get(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_read()?;
    let id = call.id("pool")?;
    hub.with(|state, _| {
        state.check_version(call, false)?;
        Ok(ok(state.pool_json(state.pool(call.org, id)?)))
    })
}

/// Answers `PATCH .../pools/{id}`.
pub(super) fn change(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let id = call.id("pool")?;
    let body: PoolBody = call.json()?;
    hub.with(|state, now| {
        state.check_version(call, false)?;
        state.pool(call.org, id)?;
        if let (Some(pool), Some(name)) = (state.pools.get_mut(&id), body.name) {
            pool.name = name;
        }
        state.set_pool_update(id, body.auto_update, None, now);
        Ok(ok(state.pool_json(state.pool(call.org, id)?)))
    })
}
