//! An organisation in the simulator, with a pool and a client.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iap_common::error::chain;
use iap_tests::azure_sim::{AzureSim, FaultAction, FaultRule, Matching, Pat, SimOptions, Switches};
use iapd::azure::{Azure, AzureError, CreatedAgent, Credential, Deadlines, NewAgent};
use iapd::registration::{AgentKey, BundleFile, bundle};

pub(crate) const PAT: &str = "s3cretpatvalue0123456789";
/// Where agents are listed and registered.
pub(crate) const AGENTS: &str = "*/agents";

/// An organisation with the pool `linux`, and a client of it.
pub(crate) struct World {
    pub(crate) sim: AzureSim,
    pub(crate) azure: Azure,
    pub(crate) pool: i32,
    pub(crate) key: AgentKey,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SimOptions::default(), Deadlines::default()).await
    }

    /// Versions are checked everywhere: the real service does.
    pub(crate) async fn with(mut options: SimOptions, deadlines: Deadlines) -> Self {
        options.switches = Switches {
            strict_api_version: true,
            ..options.switches
        };
        let org = options.orgs[0].clone();
        let sim = AzureSim::start(options).await.unwrap();
        sim.add_pat(Pat::manage(PAT));
        let pool = sim.add_pool(&org, "linux").try_into().unwrap();
        let url = format!("http://{}/{org}", sim.address());
        let credential = Credential::Pat(PAT.into());
        let azure =
            Azure::with_deadlines(&url, credential, None, Arc::new(|_| ()), deadlines).unwrap();
        Self {
            sim,
            azure,
            pool,
            key: AgentKey::generate().unwrap(),
        }
    }

    pub(crate) fn agent(&self, name: &str) -> NewAgent {
        NewAgent {
            name: name.into(),
            version: "4.275.0".into(),
            os_description: "Debian GNU/Linux 12".into(),
            public_key: self.key.public(),
            system_capabilities: BTreeMap::from([("stove".into(), "1".into())]),
        }
    }

    pub(crate) async fn register(&self, name: &str) -> CreatedAgent {
        self.azure
            .create_agent(self.pool, &self.agent(name))
            .await
            .unwrap()
    }

    pub(crate) async fn bundle(&self, agent: &CreatedAgent) -> Vec<BundleFile> {
        let hosted = self.azure.deployment().await.unwrap().is_hosted();
        bundle(
            &self.key,
            agent,
            self.pool,
            "linux",
            self.azure.url(),
            hosted,
        )
        .unwrap()
    }

    pub(crate) fn fault(&self, method: &str, path: &str, action: FaultAction) {
        self.sim
            .fault(FaultRule::new(Matching::new(method, path), action).times(1));
    }

    /// Lists the agents, which is to fail, and returns how; no error ever shows the token.
    pub(crate) async fn failed_list(&self) -> AzureError {
        let error = self.azure.agents(self.pool).await.unwrap_err();
        let text = format!("{} {error:?}", chain(&error));
        assert!(!text.contains(PAT) && !text.contains(&BASE64_STANDARD.encode(format!(":{PAT}"))));
        error
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.sim
            .journal()
            .iter()
            .filter(|entry| entry.method == method)
            .count()
    }
}
