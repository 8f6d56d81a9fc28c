//! Strays: agents of pools that left the configuration, or moved, while no task of theirs ran.
//! Which pools they were of follows from what they carry: instances in their keys, registrations
//! in their tags. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::{RegistrationFacts, key};
use crate::azure::Agent;
use crate::incus::Instance;
use crate::pool::spec::{AzureSpec, CredentialSpec, PoolSpec};
use crate::pool::status::PoolKey;

/// Returns the pools that instances of this owner were made for.
pub(super) fn pools_of_instances(instances: &[Instance], owner: &str) -> BTreeSet<PoolKey> {
    let pool_of = |instance: &Instance| {
        let value = |key: &str| instance.config.get(key).map(String::as_str);
        (value(key::OWNER) == Some(owner)).then_some(())?;
        Some(PoolKey {
            name: value(key::POOL)?.to_owned(),
            project: instance.project.clone(),
            azure_url: value(key::AZURE_URL).unwrap_or_default().to_owned(),
            azure_pool: value(key::AZURE_POOL).unwrap_or_default().to_owned(),
        })
    };
    instances.iter().filter_map(pool_of).collect()
}

/// Returns the pools that registrations of this owner in one Azure pool were made for, as far as
/// no `known` pool takes care of them. One that does not tell its Incus project may be of any
/// known one, else it is looked for in `project`.
pub(super) fn pools_of_registrations(
    agents: &BTreeMap<String, Agent>,
    owner: &str,
    (azure_url, azure_pool): (&str, &str),
    project: &str,
    known: &BTreeSet<PoolKey>,
) -> BTreeSet<PoolKey> {
    let pool_of = |agent: &Agent| {
        let facts = RegistrationFacts::of(agent);
        let name = facts.pool.clone()?;
        let takes_care = |pool: &PoolKey| {
            pool.azure_url == azure_url
                && pool.azure_pool == azure_pool
                && facts.is_of(owner, &pool.name, &pool.project)
        };
        if facts.owner.as_deref() != Some(owner) || known.iter().any(takes_care) {
            return None;
        }
        Some(PoolKey {
            name,
            project: facts.project.unwrap_or_else(|| project.to_owned()),
            azure_url: azure_url.to_owned(),
            azure_pool: azure_pool.to_owned(),
        })
    };
    agents.values().filter_map(pool_of).collect()
}

/// Returns the configured pool whose way to Azure serves one that is not configured: of the same
/// organisation, at best with the `credential` that it had, else of the same Azure pool.
pub(super) fn serving<'a>(
    pools: &'a [PoolSpec],
    key: &PoolKey,
    credential: Option<&CredentialSpec>,
) -> Option<&'a PoolSpec> {
    let rank = |azure: &AzureSpec| {
        let is_former = credential == Some(&azure.credential);
        (!is_former, azure.pool != key.azure_pool)
    };
    pools
        .iter()
        .filter(|pool| pool.azure.url == key.azure_url)
        .min_by_key(|pool| rank(&pool.azure))
}

#[cfg(test)]
mod tests;
