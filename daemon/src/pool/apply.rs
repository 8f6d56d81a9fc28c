//! Carries actions out, one task each. An action does one thing to one agent, looks again before
//! anything that cannot be undone, and returns an outcome; it decides nothing for other agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::azure::AzureError;
use crate::incus::{Exec, Incus, IncusError, Project, Restrictions};
use crate::registration::{BundleError, KeyError, KeyStock};
use crate::store::evidence::Evidence;

use super::azure_link::AzureLink;
use super::placement::Placement;
use super::spec::PoolSpec;

mod create;
pub mod evidence;
pub(in crate::pool) mod instance;
pub mod keep;
pub mod launch;
pub mod leave;
pub mod note;
pub mod remove;
pub mod spare;

/// What all actions of a pool work with.
pub struct Context {
    /// What is wanted, as of the pass that began the action.
    pub spec: Arc<PoolSpec>,
    /// Hash of what an agent is built from.
    pub spec_hash: String,
    /// Whose instances these are.
    pub owner: Arc<str>,
    /// The Incus server.
    pub incus: Incus,
    /// The pool's Incus project.
    pub project: Project,
    /// What the project forbids, when a pass could find out.
    pub restrictions: Option<Restrictions>,
    /// The pool's Azure side.
    pub link: AzureLink,
    /// Where new agents go, and their turn there.
    pub placement: Arc<Placement>,
    /// Members that get none.
    pub leaving: BTreeSet<String>,
    /// The storage pool of the root disks, where that is known.
    pub storage_pool: Option<String>,
    /// Lets so many launches of this pool at a time through, first come first served.
    pub own_gate: Arc<Semaphore>,
    /// Ready-made keys.
    pub keys: Arc<KeyStock>,
    /// Agent versions by image fingerprint, as read off guests.
    pub versions: Arc<AgentVersions>,
    /// Where what agents leave behind is kept.
    pub evidence: Evidence,
}

/// Makes the exec of one of the scripts in `guest/`, as root. `name` is its `$0`.
pub(super) fn shell(name: &str, script: &str, arguments: Vec<String>) -> Exec {
    let mut command = vec!["/bin/sh".into(), "-c".into(), script.into(), name.into()];
    command.extend(arguments);
    Exec {
        command,
        environment: BTreeMap::new(),
        user: 0,
        group: 0,
        cwd: None,
    }
}

/// Agent versions by image fingerprint.
#[derive(Debug, Default)]
pub struct AgentVersions(Mutex<BTreeMap<String, String>>);

/// More images than any host keeps at a time; beyond it the memory starts anew.
const VERSIONS_KEPT: usize = 256;

impl AgentVersions {
    /// Returns the version of the agent in an image.
    pub fn get(&self, fingerprint: &str) -> Option<String> {
        self.0
            .lock()
            .expect("no panic while held")
            .get(fingerprint)
            .cloned()
    }

    /// Remembers it.
    pub fn put(&self, fingerprint: &str, version: String) {
        let mut versions = self.0.lock().expect("no panic while held");
        if versions.len() >= VERSIONS_KEPT {
            versions.clear();
        }
        versions.insert(fingerprint.to_owned(), version);
    }
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A call to Incus failed.
    #[error("{doing}")]
    Incus {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: IncusError,
    },
    /// A call to Azure failed.
    #[error("{doing}")]
    Azure {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: AzureError,
    },
    /// A key could not be made.
    #[error("cannot make the agent's key")]
    Key(#[source] KeyError),
    /// Its files could not be made.
    #[error(transparent)]
    Bundle(BundleError),
    /// The host has no virtual machines, whatever is asked for.
    #[error(
        "Incus cannot run virtual machines on this host ({0}): it needs KVM, the kernel module \
         vhost_vsock and QEMU (Debian: the package incus, not incus-base alone) and then a restart; \
         else set vm: false in the pool"
    )]
    NoVirtualMachines(String),
    /// The create operation ended in failure.
    #[error("Incus could not create the instance: {0}")]
    Create(String),
    /// The instance vanished before its agent was started.
    #[error(
        "the instance vanished before its agent was started; too low kernel limits \
         (fs.inotify.max_user_instances, kernel.keys.maxkeys) or a broken image are likely"
    )]
    Vanished,
    /// The virtual machine's guest agent never answered.
    #[error("the guest agent of the virtual machine does not answer: is incus-agent in the image?")]
    NoGuestAgent,
    /// No profile gives a root disk.
    #[error("no root disk in the profiles {0}: set incus.storagePool, or add one to a profile")]
    NoRootDisk(String),
    /// The guest did not start the agent.
    #[error("the guest did not start the agent (exit code {0}): is systemd running in the image?")]
    Start(i32),
    /// The guest did not stop the agent.
    #[error("the guest's service manager does not stop the agent (exit code {0})")]
    Stop(i32),
    /// The agent's version could not be read.
    #[error("the image holds no agent package in /home/agent (no version from bin/Agent.Listener)")]
    NoAgent,
    /// Azure has another agent of this name that is not ours.
    #[error("Azure has another agent named \"{0}\" already")]
    NameTaken(String),
    /// The Azure pool is not known yet.
    #[error("the Azure pool is not known yet")]
    NoPool,
    /// An agent could not be shown to be dead, so it is kept.
    #[error("kept: {0}")]
    NotProven(&'static str),
    /// The guest could not be looked into, so it is kept.
    #[error("kept: cannot probe for a worker process")]
    NotProbed(#[source] IncusError),
    /// Azure refuses to delete a registration that has a job.
    #[error("Azure says the agent is busy: {0}")]
    Busy(String),
    /// No member of the cluster takes a new agent.
    #[error("no member of the cluster takes a new agent{0}")]
    NoMember(String),
    /// Called off before it began.
    #[error("called off")]
    Cancelled,
}

impl ApplyError {
    /// Wraps an Incus error with what was being done.
    pub fn incus(doing: &'static str) -> impl FnOnce(IncusError) -> Self {
        move |source| Self::Incus { doing, source }
    }

    /// Wraps an Azure error with what was being done.
    pub fn azure(doing: &'static str) -> impl FnOnce(AzureError) -> Self {
        move |source| Self::Azure { doing, source }
    }

    /// Returns whether Azure is the reason: nothing is wrong with the instance.
    pub fn is_azures(&self) -> bool {
        matches!(self, Self::Azure { .. } | Self::NoPool)
    }

    /// Returns whether the same may work later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Incus { source, .. } | Self::NotProbed(source) => source.is_transient(),
            Self::Azure { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    /// Returns a word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Incus { .. } => "incus",
            Self::Azure { .. } | Self::NoPool => "azure",
            Self::Key(_) | Self::Bundle(_) => "registration",
            Self::Create(_) | Self::NoVirtualMachines(_) => "create",
            Self::Vanished => "vanished",
            Self::Start(_) | Self::NoGuestAgent => "start",
            Self::Stop(_) => "stop",
            Self::NoRootDisk(_) => "profile",
            Self::NoAgent => "no_agent",
            Self::NameTaken(_) => "name_taken",
            Self::NotProven(_) | Self::NotProbed(_) => "not_proven",
            Self::Busy(_) => "azure_busy",
            Self::NoMember(_) => "no_member",
            Self::Cancelled => "cancelled",
        }
    }
}
