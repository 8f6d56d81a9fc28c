//! The floor: what an agent costs when nothing is decided, looked up or waited for. The same Incus
//! calls, files and exec as a launch, with the key and the registration made beforehand, or plainly
//! before each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::body::Bytes;

use iapd::azure::{Azure, Credential, NewAgent};
use iapd::incus::{
    Exec, FileMeta, ImageSource, Incus, NewInstance, OperationStatus, Project, StopMode, Waited,
};
use iapd::registration::{AgentKey, BundleFile, bundle};

use crate::host::{AZURE_POOL, Host, ORG, PAT};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(120);
const START: &str = include_str!("../../../daemon/src/guest/start.sh");
const HOOK: &[u8] = include_bytes!("../../../daemon/src/guest/agent-ended.sh");

/// Makes agents as plainly as can be.
pub struct Floor<'a> {
    host: &'a Host,
    incus: Incus,
    project: Project,
    azure: Azure,
    pool: i32,
}

/// An agent that only has to be started.
pub struct Ready {
    /// Its name.
    pub name: String,
    files: Vec<BundleFile>,
}

impl<'a> Floor<'a> {
    /// Uses a host whose daemon does not run.
    pub async fn new(host: &'a Host) -> anyhow::Result<Self> {
        let credential = Credential::Pat(PAT.to_owned());
        let azure = Azure::new(&host.sim.url(ORG), credential, None, Arc::new(|_| {}))?;
        let pool = azure
            .find_pool(AZURE_POOL)
            .await?
            .context("no Azure pool")?
            .id;
        let incus = host.testbed.incus();
        let project = host.testbed.project();
        Ok(Self {
            host,
            incus,
            project,
            azure,
            pool,
        })
    }

    /// Makes an agent's key and registration.
    pub async fn prepare(&self, number: usize) -> anyhow::Result<Ready> {
        let name = format!("{}-floor-{number}", self.host.pool);
        let key = tokio::task::spawn_blocking(AgentKey::generate).await??;
        let new = NewAgent {
            name: name.clone(),
            version: "4.275.0".to_owned(),
            os_description: "Linux".to_owned(),
            public_key: key.public(),
            system_capabilities: BTreeMap::new(),
        };
        let agent = self.azure.create_agent(self.pool, &new).await?;
        let files = bundle(&key, &agent, self.pool, AZURE_POOL, self.azure.url(), true)?;
        Ok(Ready { name, files })
    }

    /// Creates the instance and starts the agent.
    pub async fn launch(&self, ready: &Ready) -> anyhow::Result<()> {
        let new = NewInstance {
            name: ready.name.clone(),
            kind: "container".to_owned(),
            alias: ImageSource::Alias(self.host.testbed.runner.clone()),
            profiles: vec!["default".to_owned(), self.host.pool.clone()],
            config: BTreeMap::from([("security.nesting".to_owned(), "true".to_owned())]),
            devices: BTreeMap::new(),
            ephemeral: true,
            start: true,
            target: None,
        };
        let id = self.project.create(&new).await?;
        match self.incus.wait(&id, DEADLINE).await? {
            Waited::Ended(operation) if operation.status == OperationStatus::Success => {}
            other => bail!("create: {other:?}"),
        }
        for file in &ready.files {
            let meta = FileMeta {
                uid: 1100,
                gid: 1100,
                mode: file.mode,
            };
            let path = format!("/home/agent/{}", file.name);
            let content = Bytes::from(file.content.clone());
            self.project
                .push_file(&ready.name, &path, &meta, content, DEADLINE)
                .await?;
        }
        let meta = FileMeta {
            uid: 0,
            gid: 0,
            mode: 0o755,
        };
        let hook = "/usr/local/sbin/iapd-agent-ended";
        self.project
            .push_file(&ready.name, hook, &meta, Bytes::from_static(HOOK), DEADLINE)
            .await?;
        let exec = Exec::root(["/bin/sh", "-c", START, "iapd-start", "400"]);
        let code = self.project.exec(&ready.name, &exec, DEADLINE).await?;
        if code != 0 {
            bail!("start: exit code {code}")
        } else {
            Ok(())
        }
    }

    /// Stops an instance, which is gone then.
    pub async fn stop(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.project.stop(name, StopMode::Force, DEADLINE).await?)
    }

    /// Waits for an agent's session and returns when it was asked for.
    pub async fn session(&self, name: &str) -> anyhow::Result<Instant> {
        session(self.host, |agent, _| agent == name).await
    }
}

/// Waits for a session of an agent that `is_it` accepts.
pub async fn session(
    host: &Host,
    is_it: impl Fn(&str, Instant) -> bool,
) -> anyhow::Result<Instant> {
    wait::until("a session", DEADLINE, async || {
        let posts = host.sim.session_posts();
        Ok(posts
            .iter()
            .find(|post| is_it(&post.agent, post.instant))
            .map(|post| post.instant))
    })
    .await
}
