//! Finds the Azure organisation that provisioning asks for agent packages.

use std::sync::Arc;

use tokio::sync::watch;

use crate::pool::spec::DaemonSpec;
use crate::provision::{AzureLookup, NoAzure};
use crate::supervisor::Pools;

/// Returns the lookup of the Azure client of a pool, or of any.
///
/// Clients come with the pools, and those not before Incus has answered for the first time: what the
/// configuration names and nobody runs yet is on its way.
pub(super) fn azure_lookup(
    pools: watch::Receiver<Pools>,
    specs: watch::Receiver<Arc<DaemonSpec>>,
) -> AzureLookup {
    Arc::new(move |name: Option<&str>| {
        let wanted = |of: &str| name.is_none_or(|name| name == of);
        let pools = Arc::clone(&pools.borrow());
        if let Some(pool) = pools.iter().find(|pool| wanted(&pool.key().name)) {
            return Ok(pool.azure());
        }
        if specs.borrow().pools.iter().any(|pool| wanted(&pool.name)) {
            Err(NoAzure::NotYet)
        } else {
            Err(NoAzure::NotConfigured)
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{self, Environment};

    use super::*;

    #[test]
    fn a_pool_that_has_not_begun_is_not_taken_for_one_that_is_not_there() {
        let text = "pools:\n  - name: linux\n    agentCount: 1\n    azure: {url: https://dev.azure.com/x, \
                    pool: linux, pat: secret}\n    incus: {image: linux}\n";
        let loaded = config::parse(text.as_bytes(), &Environment::detect()).unwrap();
        let (_, pools) = watch::channel(Pools::default());
        let (specs, watched) = watch::channel(Arc::new(loaded.spec.clone()));
        let lookup = azure_lookup(pools, watched);
        assert_eq!(lookup(None).err(), Some(NoAzure::NotYet));
        assert_eq!(lookup(Some("linux")).err(), Some(NoAzure::NotYet));
        assert_eq!(lookup(Some("windows")).err(), Some(NoAzure::NotConfigured));

        let none = DaemonSpec {
            pools: Vec::new(),
            ..loaded.spec
        };
        specs.send_replace(Arc::new(none));
        assert_eq!(lookup(None).err(), Some(NoAzure::NotConfigured));
    }
}
