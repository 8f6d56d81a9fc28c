//! A simulator of the parts of Azure DevOps that agents and their orchestrators talk to.
//!
//! It keeps state, enforces the service's rules and speaks its wire format, on TCP and on a unix socket at once, so that
//! guests can reach it through a bind-mounted directory. It knows nothing of iapd. Whatever is inferred about the real
//! service, not known, is one of the [`Switches`]; whatever goes wrong is ordered with [`FaultRule`], [`NamedFault`] and
//! [`Gate`]. The same is to be had over HTTP under `/_sim/` (`admin`).
//!
//! ```text
//!   server ─► auth ─► pools agents sessions messages requests plans packages location   (HTTP)
//!                          └───────────► state: agents sessions jobs scheduling faults  (rules, no I/O)
//! ```

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use axum::serve::ListenerExt;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

mod admin;
mod agents;
mod auth;
mod call;
mod clock;
mod crypto;
mod demands;
mod entra;
mod errors;
mod faults;
mod jobs;
mod journal;
mod location;
mod messages;
mod named;
mod options;
mod packages;
mod plans;
mod pools;
mod requests;
mod scheduling;
mod server;
mod sessions;
mod state;
#[cfg(test)]
mod testing;
mod token;
#[cfg(test)]
mod vectors;

pub use self::{
    agents::AgentView,
    auth::{CredentialKind, Pat, SCOPE_MANAGE, SCOPE_READ},
    clock::Timings,
    entra::{EntraClient, EntraMode, EntraRequest, MachineIdentity, Right},
    faults::{FaultAction, FaultRule, Gate, HoldAt, Matching},
    jobs::{JobRequest, JobResult, JobState, JobView},
    journal::JournalEntry,
    named::NamedFault,
    options::{DEFAULT_ORG, Deployment, PatMode, ServerUrlForm, SimOptions, Switches},
    packages::AgentPackage,
    sessions::{SessionPost, SessionView},
};
use self::{
    server::{Door, Offer},
    state::{Hub, State},
};

/// How often what is due by the clock is looked for.
const TICK: Duration = Duration::from_millis(50);

/// A running simulator; it stops when dropped.
#[derive(Debug)]
pub struct AzureSim {
    hub: Arc<Hub>,
    address: SocketAddr,
    unix_socket: Option<PathBuf>,
    _tasks: JoinSet<()>,
}

impl AzureSim {
    /// Starts to listen and to serve.
    pub async fn start(options: SimOptions) -> Result<Self> {
        let listener = TcpListener::bind(options.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", options.listen))?;
        let address = listener.local_addr()?;
        let url = options
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{address}"));
        let url = url.trim_end_matches('/').to_owned();
        let token_listener = match options.token_listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.with_context(|| format!("listening on {address} for tokens"))?)
            }
            None => None,
        };
        let token_url = match (&options.token_url, &token_listener) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(listener)) => format!("http://{}", listener.local_addr()?),
            (None, None) => url.clone(),
        };
        let hub = Arc::new(Hub::new(State::new(&options, url, token_url)));
        let mut tasks = JoinSet::new();
        let offer = if token_listener.is_some() {
            Offer::AllButTokens
        } else {
            Offer::Everything
        };
        tasks.spawn(server::serve(
            without_delay(listener),
            Door::new(&hub, offer),
        ));
        if let Some(listener) = token_listener {
            let door = Door::new(&hub, Offer::TokensOnly);
            tasks.spawn(server::serve(without_delay(listener), door));
        }
        if let Some(path) = &options.unix_socket {
            let listener =
                bind_unix(path).with_context(|| format!("listening on {}", path.display()))?;
            tasks.spawn(server::serve(listener, Door::new(&hub, Offer::ByHost)));
        }
        tasks.spawn(tick(Arc::clone(&hub)));
        Ok(Self {
            hub,
            address,
            unix_socket: options.unix_socket,
            _tasks: tasks,
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of an organisation or collection, without a slash at its end; it is created unless it exists.
    pub fn url(&self, org: &str) -> String {
        self.hub.with(|state, _| {
            let org = state.add_org(org);
            state.org_url(org)
        })
    }

    /// Returns the token endpoint of an organisation, as agents are told it.
    pub fn authorization_url(&self, org: &str) -> String {
        self.hub.with(|state, _| {
            let org = state.add_org(org);
            state.authorization_url(org)
        })
    }

    /// Creates an organisation unless it exists.
    pub fn add_org(&self, name: &str) {
        self.hub.with(|state, _| state.add_org(name));
    }

    /// Creates a pool unless it exists, and returns its id.
    pub fn add_pool(&self, org: &str, name: &str) -> u64 {
        self.hub.with(|state, _| {
            let org = state.add_org(org);
            state.add_pool(org, name)
        })
    }

    /// Sets whether a pool updates its agents, and the least version it wants of them.
    pub fn set_pool_update(&self, pool: u64, auto_update: bool, least: Option<&str>) {
        let least = least.unwrap_or_default().to_owned();
        self.hub.with(|state, now| {
            state.set_pool_update(pool, Some(auto_update), Some(least), now);
        });
    }

    /// Accepts a personal access token from now on.
    pub fn add_pat(&self, pat: Pat) {
        self.hub.with(|state, now| state.add_pat(pat, now));
    }

    /// Forgets a personal access token.
    pub fn remove_pat(&self, secret: &str) {
        self.hub
            .with(|state, _| state.credentials.pats.remove(secret));
    }

    /// Sets what known personal access tokens meet with.
    pub fn set_pat_mode(&self, mode: PatMode) {
        self.hub.with(|state, _| state.credentials.pat_mode = mode);
    }

    /// Lets an Entra application ask for tokens at `/_sim/entra/{tenant}/oauth2/v2.0/token`.
    pub fn add_entra_client(&self, client: EntraClient) {
        self.hub.with(|state, _| state.entra.clients.push(client));
    }

    /// Gives the machine an identity, whose tokens are at `/_sim/machine/metadata/identity/oauth2/token`.
    pub fn add_machine_identity(&self, identity: MachineIdentity) {
        self.hub.with(|state, _| state.entra.machine.push(identity));
    }

    /// Sets what requests for Entra tokens meet with, the machine's included.
    pub fn set_entra_mode(&self, mode: EntraMode) {
        self.hub.with(|state, _| state.entra.mode = mode);
    }

    /// Makes all Entra tokens worthless that were handed out.
    pub fn expire_entra_tokens(&self) {
        self.hub.with(|state, _| state.expire_entra_tokens());
    }

    /// Returns the requests for Entra tokens so far, the machine's included.
    pub fn entra_requests(&self) -> Vec<EntraRequest> {
        self.hub.with(|state, _| state.entra.requests.clone())
    }

    /// Offers an agent package.
    pub fn set_package(&self, package: AgentPackage) {
        self.hub.with(|state, _| state.package = Some(package));
    }

    /// Changes switches.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        self.hub.with(|state, _| change(&mut state.switches));
    }

    /// Turns a feature flag on or off.
    pub fn set_feature_flag(&self, name: &str, on: bool) {
        self.hub
            .with(|state, _| state.feature_flags.insert(name.to_owned(), on));
    }

    /// Queues a job and returns its number.
    pub fn queue_job(&self, request: JobRequest) -> Result<u64> {
        self.hub.with(|state, now| state.queue_job(request, now))
    }

    /// Asks a job to stop.
    pub fn cancel_job(&self, id: u64) {
        self.hub.with(|state, now| state.cancel_job(id, now));
    }

    /// Returns a job.
    pub fn job(&self, id: u64) -> Option<JobView> {
        self.hub.with(|state, _| state.job_view(id))
    }

    /// Returns all jobs, oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.hub.with(|state, _| {
            state
                .jobs
                .keys()
                .filter_map(|id| state.job_view(*id))
                .collect()
        })
    }

    /// Returns what a job printed, as far as it is kept.
    pub fn job_output(&self, id: u64) -> String {
        self.hub.with(|state, _| {
            let output = state.jobs.get(&id).map(|job| job.output.as_slice());
            String::from_utf8_lossy(output.unwrap_or_default()).into_owned()
        })
    }

    /// Waits until a job has ended.
    pub async fn wait_job(&self, id: u64, timeout: Duration) -> Result<JobView> {
        self.wait_job_until(id, timeout, |job| job.result.is_some())
            .await
    }

    /// Waits until a job is as wanted.
    pub async fn wait_job_until(
        &self,
        id: u64,
        timeout: Duration,
        wanted: impl Fn(&JobView) -> bool,
    ) -> Result<JobView> {
        let looked = |state: &mut State| state.job_view(id).filter(|job| wanted(job));
        match self.hub.wait_for(timeout, looked).await {
            Some(job) => Ok(job),
            None => bail!(
                "job {id} is not as wanted after {timeout:?}: {:?}",
                self.job(id)
            ),
        }
    }

    /// Returns how many jobs were begun more than once.
    pub fn jobs_run_more_than_once(&self) -> usize {
        self.hub
            .with(|state, _| state.jobs.values().filter(|job| job.runs > 1).count())
    }

    /// Returns the agents of a pool.
    pub fn agents(&self, pool: u64) -> Vec<AgentView> {
        self.hub.with(|state, _| {
            state
                .agents_of(pool)
                .map(|agent| state.agent_view(agent))
                .collect()
        })
    }

    /// Waits until the agents of a pool are as wanted.
    pub async fn wait_agents(
        &self,
        pool: u64,
        timeout: Duration,
        wanted: impl Fn(&[AgentView]) -> bool,
    ) -> Result<Vec<AgentView>> {
        let looked = |state: &mut State| {
            let agents: Vec<AgentView> = state
                .agents_of(pool)
                .map(|agent| state.agent_view(agent))
                .collect();
            wanted(&agents).then_some(agents)
        };
        match self.hub.wait_for(timeout, looked).await {
            Some(agents) => Ok(agents),
            None => bail!(
                "agents are not as wanted after {timeout:?}: {:?}",
                self.agents(pool)
            ),
        }
    }

    /// Returns the live sessions.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.hub.with(|state, _| {
            state
                .sessions
                .values()
                .map(|session| state.session_view(session))
                .collect()
        })
    }

    /// Returns every attempt to begin a session, in order.
    pub fn session_posts(&self) -> Vec<SessionPost> {
        self.hub.with(|state, _| state.session_posts.clone())
    }

    /// Returns the requests so far, in order.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.hub
            .with(|state, _| state.journal.entries().cloned().collect())
    }

    /// Adds a fault.
    pub fn fault(&self, rule: FaultRule) {
        self.hub.with(|state, now| state.add_fault(rule, now));
    }

    /// Brings a named fault about; tells whether what it names exists.
    pub fn named_fault(&self, fault: NamedFault) -> bool {
        self.hub.with(|state, now| state.bring_about(fault, now))
    }

    /// Assigns a job to the next idle agent that is being disabled.
    pub fn assign_while_stopping(&self, job: JobRequest) {
        self.named_fault(NamedFault::AssignWhileStopping { job });
    }

    /// Removes all faults, the modes of credentials and clocks included, and opens all gates.
    pub fn clear_faults(&self) {
        self.hub.with(|state, _| state.clear_faults());
    }

    /// Forgets what happened and keeps what was set up: organisations, pools, credentials, the package.
    pub fn reset(&self) {
        self.hub.with(|state, _| state.reset());
    }

    /// Holds matching requests until the gate is released or dropped.
    pub fn hold(&self, matching: Matching, at: HoldAt) -> Gate {
        Gate {
            shared: self.hub.with(|state, _| state.add_gate(matching, at)),
        }
    }

    /// Moves the virtual clock forward.
    pub fn advance(&self, by: Duration) {
        self.hub.with(|state, _| state.advance(by));
    }
}

impl Drop for AzureSim {
    fn drop(&mut self) {
        self.clear_faults();
        self.hub
            .detached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
        if let Some(path) = &self.unix_socket {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

fn without_delay(listener: TcpListener) -> impl axum::serve::Listener {
    listener.tap_io(|stream| {
        // Only speed is lost.
        let _ = stream.set_nodelay(true);
    })
}

fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Agents in guests connect under ids of their own.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn tick(hub: Arc<Hub>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        hub.with(|_, _| ());
    }
}
