//! Keeps a task for each pool as the configuration changes: new pools begin, changed ones get
//! their new spec, removed ones drain and end. Also finds the pools that earlier configurations
//! left behind. Owns every task it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use iap_common::error::chain;

use crate::azure::AzureError;
use crate::beat::Beat;
use crate::calls::CallObserver;
use crate::incus::{Instance, Lifecycle, StreamEvent};
use crate::pool::azure_client;
use crate::pool::azure_link::{AzureLink, AzurePoller};
use crate::pool::names;
use crate::pool::reconciler::{Order, Shared, Waker};
use crate::pool::spec::{AzureSpec, CredentialSpec, DaemonSpec, PoolSpec, RetrySpec};
use crate::pool::status::PoolKey;
use crate::pool::{self, PoolHandle};

mod strays;

/// Instance events after which a pool looks again. Each life of an instance emits many more, our
/// own calls included.
const WAKING: [&str; 5] = [
    "instance-ready",
    "instance-shutdown",
    "instance-stopped",
    "instance-deleted",
    "instance-renamed",
];
/// Between two looks for pools that earlier configurations left behind, until all there is was
/// looked at.
const STRAYS_RETRY: Duration = Duration::from_secs(10);
/// Between two signs of life when nothing else happens. What the loop does never waits.
const BEAT: Duration = Duration::from_secs(2);

/// All pools as of now, in the file's order, those on their way out last.
pub type Pools = Arc<Vec<PoolHandle>>;

/// Pools with the same one share a link, and so one list.
type AzureKey = (String, String, CredentialSpec, Option<PathBuf>, Duration);

struct Link {
    key: AzureKey,
    link: AzureLink,
    stop: CancellationToken,
    /// A list of its agents was looked through for strays since the configuration changed.
    looked_through: bool,
}

struct Member {
    handle: PoolHandle,
    orders: watch::Sender<Order>,
    waker: Waker,
    /// What the names of its instances begin with, whatever the prefix was when they were made.
    name_part: String,
}

/// See the module.
pub struct Supervisor {
    shared: Shared,
    azure_calls: CallObserver,
    specs: watch::Receiver<Arc<DaemonSpec>>,
    pools: watch::Sender<Pools>,
    members: BTreeMap<PoolKey, Member>,
    links: Vec<Link>,
    listeners: BTreeMap<String, CancellationToken>,
    events: tokio::sync::mpsc::Sender<ProjectEvent>,
    from_events: tokio::sync::mpsc::Receiver<ProjectEvent>,
    connected: watch::Sender<BTreeMap<String, bool>>,
    tasks: JoinSet<Ended>,
    /// All instances were looked through for strays since the configuration changed.
    looked_at_instances: bool,
    /// When that was.
    changed_at: Instant,
}

/// What a task says when it ends.
enum Ended {
    Pool(PoolKey),
    Link,
    Listener,
    /// All instances that there are.
    Strays(Vec<Instance>),
    Nothing,
}

struct ProjectEvent {
    project: String,
    event: StreamEvent,
}

/// Events that may wait to be looked at; a listener that is ahead of them waits.
const EVENTS: usize = 256;

impl Supervisor {
    /// Makes the supervisor. `pools` tells all pools, `connected` which projects' event streams
    /// are connected.
    pub fn new(
        shared: Shared,
        azure_calls: CallObserver,
        specs: watch::Receiver<Arc<DaemonSpec>>,
        pools: watch::Sender<Pools>,
        connected: watch::Sender<BTreeMap<String, bool>>,
    ) -> Self {
        let (events, from_events) = tokio::sync::mpsc::channel(EVENTS);
        Self {
            shared,
            azure_calls,
            specs,
            pools,
            members: BTreeMap::new(),
            links: Vec::new(),
            listeners: BTreeMap::new(),
            events,
            from_events,
            connected,
            tasks: JoinSet::new(),
            looked_at_instances: false,
            changed_at: Instant::now(),
        }
    }

    /// Runs until `stop`, then until all pools have let go. Returns early only when a task of
    /// its own ended that never should.
    pub async fn run(
        mut self,
        beat: &Beat,
        stop: CancellationToken,
    ) -> Result<(), SupervisorError> {
        let spec = Arc::clone(&self.specs.borrow_and_update());
        self.take_spec(&spec, &stop);
        let mut strays_due = Instant::now();
        loop {
            beat.again_within(BEAT * 10);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(BEAT) => {}
                Ok(()) = self.specs.changed() => {
                    let spec = Arc::clone(&self.specs.borrow_and_update());
                    self.take_spec(&spec, &stop);
                    // What nobody could clean up, or nobody knew of, may have somebody now.
                    self.looked_at_instances = false;
                    for link in &mut self.links {
                        link.looked_through = false;
                    }
                    self.changed_at = Instant::now();
                    strays_due = self.changed_at;
                }
                Some(event) = self.from_events.recv() => self.take_event(&event),
                Some(ended) = self.tasks.join_next() => self.take_end(ended, &stop)?,
                () = tokio::time::sleep_until(strays_due), if self.may_have_strays() => {
                    strays_due = Instant::now() + STRAYS_RETRY;
                    if self.looked_at_instances {
                        self.adopt_registrations(&stop);
                    } else {
                        self.look_for_strays(stop.clone());
                    }
                }
            }
        }
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    fn take_end(
        &mut self,
        ended: Result<Ended, tokio::task::JoinError>,
        stop: &CancellationToken,
    ) -> Result<(), SupervisorError> {
        match ended {
            Ok(Ended::Pool(key)) => {
                self.members.remove(&key);
                if !stop.is_cancelled() {
                    // It came back into the configuration while its last agent went.
                    let spec = Arc::clone(&self.specs.borrow());
                    self.take_spec(&spec, stop);
                }
                Ok(())
            }
            Ok(Ended::Strays(instances)) => {
                if !stop.is_cancelled() && !self.looked_at_instances {
                    self.looked_at_instances = true;
                    let pools = strays::pools_of_instances(&instances, &self.shared.owner);
                    self.adopt(pools, stop);
                    self.adopt_registrations(stop);
                }
                Ok(())
            }
            Ok(Ended::Link | Ended::Listener | Ended::Nothing) => Ok(()),
            Err(error) if error.is_panic() => Err(SupervisorError::Ended(error.to_string())),
            Err(_) => Ok(()),
        }
    }

    /// Brings the tasks in line with a new specification.
    fn take_spec(&mut self, spec: &DaemonSpec, stop: &CancellationToken) {
        let mut wanted = BTreeMap::new();
        for pool in &spec.pools {
            wanted.insert(PoolKey::of(pool), Arc::new(pool.clone()));
        }
        let left: Vec<PoolKey> = self
            .members
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .cloned()
            .collect();
        for key in left {
            self.remove(key, spec, stop);
        }
        for (key, pool) in wanted {
            match self.link(&pool.azure, stop) {
                Ok(link) => self.place(key, pool, link, false, stop),
                Err(error) => {
                    error!(pool = %key.name, error = %chain(&error), "cannot set up Azure client");
                }
            }
        }
        for project in self.projects() {
            self.listen(&project, spec.listener_retry, stop);
        }
        self.drop_unused();
        self.publish();
    }

    /// Tells a pool that is not configured any more to empty itself, with a credential that is.
    fn remove(&mut self, key: PoolKey, spec: &DaemonSpec, stop: &CancellationToken) {
        let Some(member) = self.members.get(&key) else {
            return;
        };
        let Order {
            spec: old,
            removed,
            mut link,
        } = member.orders.borrow().clone();
        if !removed {
            info!(pool = %key.name, project = %key.project, "pool left the configuration");
        }
        let mut own = PoolSpec::clone(&old);
        if let Some(like) = strays::serving(&spec.pools, &key, Some(&old.azure.credential)) {
            let azure = AzureSpec {
                pool: key.azure_pool.clone(),
                ..like.azure.clone()
            };
            match self.link(&azure, stop) {
                Ok(found) => (link, own.azure) = (found, azure),
                Err(error) => warn!(
                    pool = %key.name, error = %chain(&error),
                    "cannot set up Azure client, the former one stays"
                ),
            }
        }
        self.place(key, Arc::new(own), link, true, stop);
    }

    fn projects(&self) -> Vec<String> {
        let mut projects: Vec<String> =
            self.members.keys().map(|key| key.project.clone()).collect();
        projects.sort();
        projects.dedup();
        projects
    }

    /// Gives a pool its order, or begins it.
    fn place(
        &mut self,
        key: PoolKey,
        spec: Arc<PoolSpec>,
        link: AzureLink,
        removed: bool,
        stop: &CancellationToken,
    ) {
        let name_part = names::agent_name_stem(&spec.name, "");
        let order = Order {
            spec,
            removed,
            link,
        };
        if let Some(member) = self.members.get_mut(&key) {
            let same = {
                let old = member.orders.borrow();
                old.spec == order.spec && old.removed == removed && old.link.is(&order.link)
            };
            if !same {
                member.orders.send_replace(order);
            }
            return;
        }
        let (orders, receiver) = watch::channel(order);
        let waker = Waker::default();
        waker.set_listening(self.connected.borrow().get(&key.project) == Some(&true));
        let (handle, reconciler) = pool::new(self.shared.clone(), receiver, waker.clone());
        let stop = stop.clone();
        let ended = Ended::Pool(key.clone());
        self.tasks.spawn(async move {
            reconciler.run(stop).await;
            ended
        });
        self.members.insert(
            key,
            Member {
                handle,
                orders,
                waker,
                name_part,
            },
        );
    }

    /// Returns the link to an Azure pool, shared by all local pools that use it alike.
    fn link(
        &mut self,
        azure: &AzureSpec,
        stop: &CancellationToken,
    ) -> Result<AzureLink, AzureError> {
        let key = (
            azure.url.clone(),
            azure.pool.clone(),
            azure.credential.clone(),
            azure.ca_file.clone(),
            azure.poll_interval,
        );
        if let Some(found) = self.links.iter().find(|link| link.key == key) {
            return Ok(found.link.clone());
        }
        // Azure counts by credential, so all links of one share its client and its pauses.
        let same = |old: &AzureKey| (&old.0, &old.2, &old.3) == (&key.0, &key.2, &key.3);
        let client = match self.links.iter().find(|link| same(&link.key)) {
            Some(found) => found.link.azure().clone(),
            None => azure_client::new(azure, Arc::clone(&self.azure_calls))?,
        };
        let (link, poller) = AzureLink::new(client, &azure.pool, azure.poll_interval);
        let stop = stop.child_token();
        self.spawn_poller(poller, &azure.pool, stop.clone());
        self.links.push(Link {
            key,
            link: link.clone(),
            stop,
            looked_through: false,
        });
        Ok(link)
    }

    fn spawn_poller(&mut self, poller: AzurePoller, pool: &str, stop: CancellationToken) {
        let span = info_span!("azure", azure_pool = pool);
        self.tasks.spawn(
            async move {
                poller.run(stop).await;
                Ended::Link
            }
            .instrument(span),
        );
    }

    /// Ends pollers and listeners that no pool needs any more.
    fn drop_unused(&mut self) {
        let members = &self.members;
        self.links.retain(|Link { link, stop, .. }| {
            let used = members
                .values()
                .any(|member| member.orders.borrow().link.is(link));
            if !used {
                stop.cancel();
            }
            used
        });
        self.listeners.retain(|project, stop| {
            let used = members.keys().any(|key| key.project == *project);
            if !used {
                stop.cancel();
            }
            used
        });
        let listeners = &self.listeners;
        self.connected.send_if_modified(|all| {
            let before = all.len();
            all.retain(|project, _| listeners.contains_key(project));
            all.len() != before
        });
    }

    /// Listens to a project's events, once.
    fn listen(&mut self, project: &str, retry: RetrySpec, stop: &CancellationToken) {
        if self.listeners.contains_key(project) {
            return;
        }
        let stop = stop.child_token();
        self.listeners.insert(project.to_owned(), stop.clone());
        let incus = self.shared.incus.clone();
        let (events, project) = (self.events.clone(), project.to_owned());
        let span = info_span!("events", project = %project);
        self.tasks.spawn(
            async move {
                let name = project.clone();
                let retry = (retry.first, retry.longest);
                incus
                    .watch_lifecycle(&project, retry, stop, move |event| {
                        // Full: the pools look again by their timers, so a lost event costs time
                        // and nothing else.
                        let _ = events.try_send(ProjectEvent {
                            project: name.clone(),
                            event,
                        });
                    })
                    .await;
                Ended::Listener
            }
            .instrument(span),
        );
    }

    fn take_event(&self, ProjectEvent { project, event }: &ProjectEvent) {
        if !self.listeners.contains_key(project) {
            return; // It waited while its listener was dropped.
        }
        let members = self
            .members
            .iter()
            .filter(|(key, _)| key.project == *project);
        let members: Vec<&Member> = members.map(|(_, member)| member).collect();
        match event {
            StreamEvent::Connected => {
                self.set_connected(project, true);
                // Nothing is resent: what happened meanwhile is found by looking.
                for member in members {
                    member.waker.set_listening(true);
                    member.waker.look_again();
                    member.waker.look_at_image();
                }
            }
            StreamEvent::Lost(why) => {
                for member in members {
                    member.waker.set_listening(false);
                }
                self.set_connected(project, false);
                warn!(project, error = %why, "lost the Incus event stream, will reconnect");
            }
            StreamEvent::Lifecycle(event) => wake(&members, event),
        }
    }

    fn set_connected(&self, project: &str, is_connected: bool) {
        self.connected.send_if_modified(|all| {
            all.insert(project.to_owned(), is_connected) != Some(is_connected)
        });
    }

    /// Lists all instances, beside the loop: Incus may take its time.
    fn look_for_strays(&mut self, stop: CancellationToken) {
        let incus = self.shared.incus.clone();
        self.tasks.spawn(async move {
            let look = tokio::time::timeout(STRAYS_RETRY, incus.instances_all_projects());
            let looked = tokio::select! {
                () = stop.cancelled() => return Ended::Nothing,
                looked = look => looked,
            };
            match looked {
                Ok(Ok(instances)) => return Ended::Strays(instances),
                Ok(Err(error)) => debug!(error = %chain(&error), "cannot look for strays"),
                Err(_) => debug!("looking for strays took too long"),
            }
            Ended::Nothing
        });
    }

    fn may_have_strays(&self) -> bool {
        !self.looked_at_instances || self.links.iter().any(|link| !link.looked_through)
    }

    /// Looks through the Azure lists that there are for registrations that no pool takes care of.
    /// What becomes of them is for a pool's task to judge, as with any other.
    fn adopt_registrations(&mut self, stop: &CancellationToken) {
        let known: BTreeSet<PoolKey> = self.members.keys().cloned().collect();
        let mut pools = BTreeSet::new();
        for link in &mut self.links {
            let view = link.link.view();
            let list = view
                .list
                .as_ref()
                .filter(|list| list.began >= self.changed_at);
            let (Some(list), false) = (list, link.looked_through) else {
                continue;
            };
            link.looked_through = true;
            let azure = (link.key.0.as_str(), link.key.1.as_str());
            let project = known
                .iter()
                .find(|pool| (pool.azure_url.as_str(), pool.azure_pool.as_str()) == azure);
            let Some(PoolKey { project, .. }) = project else {
                continue; // Nobody uses it any more.
            };
            pools.extend(strays::pools_of_registrations(
                &list.agents,
                &self.shared.owner,
                azure,
                project,
                &known,
            ));
        }
        self.adopt(pools, stop);
    }

    /// Begins a draining pool for each that has something left and is not there.
    fn adopt(&mut self, pools: BTreeSet<PoolKey>, stop: &CancellationToken) {
        let specs = Arc::clone(&self.specs.borrow());
        for stray in pools {
            if self.members.contains_key(&stray) {
                continue;
            }
            let Some(like) = strays::serving(&specs.pools, &stray, None) else {
                warn!(
                    pool = %stray.name, project = %stray.project, url = %stray.azure_url,
                    "agents of a removed pool were found, and no configured pool has a \
                     credential for their Azure organisation: they finish by themselves, and \
                     their registrations stay"
                );
                continue;
            };
            info!(pool = %stray.name, project = %stray.project, "found agents of a removed pool");
            let mut spec = like.clone();
            spec.name.clone_from(&stray.name);
            spec.agent_count = 0;
            spec.spares = 0;
            spec.azure.pool.clone_from(&stray.azure_pool);
            spec.instance.project.clone_from(&stray.project);
            match self.link(&spec.azure, stop) {
                Ok(link) => self.place(stray, Arc::new(spec), link, true, stop),
                Err(error) => warn!(error = %chain(&error), "cannot set up Azure client"),
            }
        }
        let retry = specs.listener_retry;
        for project in self.projects() {
            self.listen(&project, retry, stop);
        }
        self.publish();
    }

    fn publish(&self) {
        let order: BTreeMap<PoolKey, usize> = self
            .specs
            .borrow()
            .pools
            .iter()
            .enumerate()
            .map(|(index, pool)| (PoolKey::of(pool), index))
            .collect();
        let mut handles: Vec<PoolHandle> = self
            .members
            .values()
            .map(|member| member.handle.clone())
            .collect();
        handles.sort_by_key(|handle| order.get(handle.key()).copied().unwrap_or(usize::MAX));
        self.pools.send_replace(Arc::new(handles));
    }
}

/// Wakes the pools that an event may concern. By name, which is a hint: what is believed is the
/// next observation.
fn wake(members: &[&Member], event: &Lifecycle) {
    if event.action.starts_with("image-") {
        for member in members {
            member.waker.look_at_image();
        }
        return;
    }
    let Some(instance) = &event.instance else {
        return;
    };
    if !WAKING.contains(&event.action.as_str()) {
        return;
    }
    for member in members.iter().filter(|member| {
        let rest = instance.strip_prefix(member.name_part.as_str());
        rest.is_some_and(|rest| rest.starts_with('-'))
    }) {
        member.waker.look_again();
    }
}

/// Why the supervisor gave up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A task ended that never should.
    #[error("{0} ended unexpectedly")]
    Ended(String),
}
