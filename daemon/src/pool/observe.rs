//! What is there: the pool's instances as Incus lists them and its registrations as Azure listed
//! them last, reduced to facts that can be compared. Missing stays missing: an unreachable server
//! yields `None`, never an empty list.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::agent::{InstanceFacts, RegistrationFacts, key};
use crate::incus;

use super::status::PoolKey;

/// One look at the world.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// The pool's instances by name; `None` when Incus did not say.
    pub instances: Option<BTreeMap<String, InstanceFacts>>,
    /// The last complete Azure list; `None` when there was none yet.
    pub registrations: Option<Arc<RegistrationList>>,
    /// Counts how often the sequence of successful Azure lists was interrupted.
    pub azure_gaps: u64,
}

/// One complete list of an Azure pool's agents.
#[derive(Debug, PartialEq, Eq)]
pub struct RegistrationList {
    /// When the call began: what happened later may be missing in it.
    pub began: Instant,
    /// Registrations of this owner and pool, and those named like one of its instances.
    pub agents: BTreeMap<String, RegistrationFacts>,
}

/// Reduces a project's instances to one pool's. A pool that moved in Azure is another pool: each
/// knows the agents that are registered where it looks.
pub fn own_instances(
    instances: &[incus::Instance],
    owner: &str,
    pool: &PoolKey,
) -> BTreeMap<String, InstanceFacts> {
    instances
        .iter()
        .filter(|instance| is_ours(instance, owner, pool))
        .map(|instance| (instance.name.clone(), InstanceFacts::of(instance)))
        .collect()
}

/// Returns those instances of which Incus tells next to nothing, since their cluster member cannot
/// be reached, and that are this pool's by what was known of them before. Left out, they would
/// seem to be gone.
pub fn unreachable_instances(
    instances: &[incus::Instance],
    known: impl Fn(&str) -> Option<InstanceFacts>,
) -> BTreeMap<String, InstanceFacts> {
    instances
        .iter()
        .filter(|instance| is_unreachable(instance))
        .filter_map(|instance| {
            let facts = InstanceFacts {
                status: instance.status,
                status_text: instance.status_text.clone(),
                location: instance.location.clone(),
                ..known(&instance.name)?
            };
            Some((instance.name.clone(), facts))
        })
        .collect()
}

/// Returns whether Incus tells next to nothing of an instance.
pub fn is_unreachable(instance: &incus::Instance) -> bool {
    instance.status == incus::Status::Error && instance.config.is_empty()
}

fn is_ours(instance: &incus::Instance, owner: &str, pool: &PoolKey) -> bool {
    let says = |key: &str, value: &str| instance.config.get(key).is_some_and(|is| is == value);
    says(key::OWNER, owner)
        && says(key::POOL, &pool.name)
        && says(key::AZURE_URL, &pool.azure_url)
        && says(key::AZURE_POOL, &pool.azure_pool)
}

/// Returns the names of instances that the earlier Go tool made for this pool
/// (`<pool>-<digits>`, without our keys). They are shown and left alone.
pub fn foreign_instances(instances: &[incus::Instance], pool: &str) -> Vec<String> {
    instances
        .iter()
        .filter(|instance| !instance.config.contains_key(key::OWNER))
        .filter(|instance| {
            instance
                .name
                .strip_prefix(pool)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|instance| instance.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, config: &str) -> incus::Instance {
        let text = format!(
            r#"{{"name":"{name}","status_code":112,"status":"Error","location":"m2","config":{config}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_instance_without_its_configuration_is_what_it_was_before() {
        let bare = [instance("p-h-aaaaa", "null"), instance("p-h-zzzzz", "{}")];
        let mut before = InstanceFacts::of(&instance("p-h-aaaaa", "{}"));
        before.azure_agent_id = Some(7);
        before.status = incus::Status::Running;
        before.location = "m1".into();
        let known = |name: &str| (name == "p-h-aaaaa").then(|| before.clone());
        let found = unreachable_instances(&bare, known);
        assert_eq!(found.len(), 1, "what nobody knows is nobody's");
        let facts = &found["p-h-aaaaa"];
        assert_eq!(facts.azure_agent_id, Some(7));
        assert_eq!(
            (facts.status, facts.location.as_str()),
            (incus::Status::Error, "m2")
        );
    }

    #[test]
    fn an_instance_in_error_that_has_its_configuration_speaks_for_itself() {
        let full = [instance("p-h-aaaaa", r#"{"user.iapd.owner":"another"}"#)];
        let known = |_: &str| Some(InstanceFacts::of(&full[0]));
        assert!(unreachable_instances(&full, known).is_empty());
    }
}
