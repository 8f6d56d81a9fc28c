//! Launching: from an empty slot to a started agent. Each step leaves a state that the next
//! observation understands, so the daemon may be killed between any two of them.

use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::agent::{key, tag};
use crate::azure::{AgentPool, AzureError, CreatedAgent, Deleted, NewAgent};
use crate::incus::{Exec, FileMeta, IncusError, InstancePatch};
use crate::registration::{self, AgentKey, BundleFile};

use super::super::in_flight::Turn;
use super::super::placement::{NoSeat, Seat, Wish};
use super::super::spec::InstanceKind;
use super::{ApplyError, Context, create::create, shell};

/// A launch that takes longer waits for something else than the host's cores.
pub(super) const GATE_HELD: Duration = Duration::from_secs(10);
/// Between tries to tag a registration.
const TAG_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
const FILE_DEADLINE: Duration = Duration::from_secs(30);
const VERSION_DEADLINE: Duration = Duration::from_secs(60);
const VERSION_CAP: usize = 4096;
/// How often the guest tries to start the agent, 50 ms apart and more.
const CONTAINER_ATTEMPTS: u32 = 400;
/// Virtual machines boot longer, and their guest agent answers before systemd is ready.
const VM_ATTEMPTS: u32 = 2400;
const CONTAINER_START_DEADLINE: Duration = Duration::from_secs(60);
const VM_START_DEADLINE: Duration = Duration::from_secs(300);
/// The agent does not report longer ones either.
const LONGEST_CAPABILITY: usize = 1024;
const GUEST_LOOK: Duration = Duration::from_secs(10);
const GUEST_PAUSE: Duration = Duration::from_secs(1);

/// The agent's user in every image.
const AGENT: FileMeta = FileMeta {
    uid: 1100,
    gid: 1100,
    mode: 0o600,
};
const HOOK: FileMeta = FileMeta {
    uid: 0,
    gid: 0,
    mode: 0o755,
};
const HOOK_PATH: &str = "/usr/local/sbin/iapd-agent-ended";

/// What a launch came to.
#[derive(Debug)]
pub struct Launched {
    /// Azure's id.
    pub azure_agent_id: i64,
}

/// A launch that failed, and how far it got.
#[derive(Debug)]
pub struct LaunchFailed {
    /// Why.
    pub error: ApplyError,
    /// The instance was created, so it may be touched.
    pub created: bool,
    /// It was registered before it failed.
    pub azure_agent_id: Option<i64>,
}

/// Creates an agent's instance, registers the agent and starts it.
pub async fn launch(context: &Context, name: &str, turn: &Turn) -> Result<Launched, LaunchFailed> {
    let early = |error| LaunchFailed {
        error,
        created: false,
        azure_agent_id: None,
    };
    // First among the pool's own launches, then among all pools': none queues more than a few at
    // the host's gate, so that a large pool does not make a small one wait for all of it.
    let gates = async {
        let own = context.own_gate.acquire().await;
        let seat = choose_seat(context)?;
        let turn = seat.turn().await;
        Ok((seat, (own, turn)))
    };
    let (seat, permits) = tokio::select! {
        seated = gates => seated.map_err(early)?,
        () = turn.cancelled() => return Err(early(ApplyError::Cancelled)),
    };
    turn.begin();
    let began = Instant::now();
    let launched = async {
        let member = seat.member.as_deref();
        // A key that has to be made is made while Incus works.
        let created = create(context, name, member, false);
        let (created, agent_key) = tokio::join!(created, take_key(context));
        if let Err(error) = created {
            seat.failed();
            agent_key.into_iter().for_each(|key| context.keys.put(key));
            return Err(early(error));
        }
        debug!(agent = name, member, elapsed = ?began.elapsed(), "instance created");
        register_and_start(context, name, None, agent_key).await
    };
    let mut launched = std::pin::pin!(launched);
    // The gate keeps the host's cores from too many boots, and nobody from a slow Azure, a virtual
    // machine's boot or a wedged create.
    let early_end = tokio::time::timeout(GATE_HELD, &mut launched).await;
    drop(permits);
    let result = match early_end {
        Ok(result) => result,
        Err(_) => launched.await,
    };
    if result.is_ok() {
        info!(agent = name, elapsed = ?began.elapsed(), "agent started");
    }
    result
}

/// Chooses the member that a new instance goes to.
pub(super) fn choose_seat(context: &Context) -> Result<Seat, ApplyError> {
    let target = context.spec.instance.target.as_deref();
    let wish = Wish {
        target,
        leaving: &context.leaving,
        storage: context.storage_pool.as_deref(),
    };
    context.placement.choose(&wish).map_err(|none| match none {
        NoSeat::NoMember => {
            ApplyError::NoMember(target.map_or_else(String::new, |t| format!(" for {t}")))
        }
        // Nothing failed; the next pass sees the same and says so.
        NoSeat::Full => ApplyError::Cancelled,
    })
}

/// Registers and starts the agent of an instance that is there.
pub async fn adopt(context: &Context, name: &str, turn: &Turn) -> Result<Launched, LaunchFailed> {
    turn.begin();
    info!(
        agent = name,
        "starting the agent of an instance that is there"
    );
    register_and_start(context, name, None, take_key(context).await).await
}

/// Registers and starts the agent of a spare instance, made from this image.
pub async fn promote(
    context: &Context,
    name: &str,
    image: &str,
    turn: &Turn,
) -> Result<Launched, LaunchFailed> {
    turn.begin();
    let began = Instant::now();
    // Its own successor is made when this is done, and not beside it.
    let _urgent = context.placement.urgent();
    let agent_key = take_key(context).await;
    let launched = register_and_start(context, name, Some(image), agent_key).await?;
    info!(agent = name, elapsed = ?began.elapsed(), "agent started in a spare instance");
    Ok(launched)
}

async fn register_and_start(
    context: &Context,
    name: &str,
    image: Option<&str>,
    agent_key: Result<AgentKey, ApplyError>,
) -> Result<Launched, LaunchFailed> {
    let before = |error| LaunchFailed {
        error,
        created: true,
        azure_agent_id: None,
    };
    let agent_key = agent_key.map_err(before)?;
    if context.spec.instance.kind == InstanceKind::VirtualMachine {
        await_guest(context, name).await.map_err(before)?;
    }
    // The first file takes the longest, and this one holds nothing of the registration.
    let (registered, pushed) = tokio::join!(
        register(context, name, image, &agent_key),
        push_hook(context, name)
    );
    let registered = registered.map_err(before)?;
    let id = registered.agent.id;
    let after = |error| LaunchFailed {
        error,
        created: true,
        azure_agent_id: Some(id),
    };
    pushed.map_err(after)?;
    let files = registration::bundle(
        &agent_key,
        &registered.agent,
        registered.pool.id,
        &registered.pool.name,
        &context.spec.azure.url,
        registered.hosted,
    )
    .map_err(|error| after(ApplyError::Bundle(error)))?;
    prepare(context, name, &registered, files)
        .await
        .map_err(after)?;
    start(context, name).await.map_err(after)?;
    Ok(Launched { azure_agent_id: id })
}

/// An agent in Azure, and what its files say of that.
struct Registered {
    agent: CreatedAgent,
    pool: AgentPool,
    hosted: bool,
}

/// Registers the agent of an instance made from this image; without one Incus is asked which.
async fn register(
    context: &Context,
    name: &str,
    image: Option<&str>,
    agent_key: &AgentKey,
) -> Result<Registered, ApplyError> {
    let pool = AgentPool {
        id: context.link.view().pool_id.ok_or(ApplyError::NoPool)?,
        name: context.link.pool().to_owned(),
        auto_update: None,
    };
    let known = image.and_then(|image| context.versions.get(image));
    let version = match known {
        Some(version) => version,
        None => agent_version(context, name).await?,
    };
    let new = NewAgent {
        name: name.to_owned(),
        version,
        os_description: "Linux".to_owned(),
        public_key: agent_key.public(),
        system_capabilities: capabilities(context, name),
    };
    // Asked first: once there is a registration, as little as possible may fail.
    let deployment = context.link.azure().deployment().await;
    let hosted = deployment
        .map_err(ApplyError::azure("cannot ask whether Azure is hosted"))?
        .is_hosted();
    let agent = create_registration(context, &pool, &new).await?;
    Ok(Registered {
        agent,
        pool,
        hosted,
    })
}

/// Waits until a virtual machine's guest agent answers: before that no file can be pushed.
pub(super) async fn await_guest(context: &Context, name: &str) -> Result<(), ApplyError> {
    let exec = shell("iapd-wait", "exit 0", Vec::new());
    until_answered(|| context.project.exec(name, &exec, GUEST_LOOK)).await
}

/// Whatever Incus says of a guest agent that is not up yet, only time tells that it never will be.
async fn until_answered<F>(mut look: impl FnMut() -> F) -> Result<(), ApplyError>
where
    F: Future<Output = Result<i32, IncusError>>,
{
    let began = Instant::now();
    loop {
        match look().await {
            Ok(0) => return Ok(()),
            Err(error) if error.is_not_found() => return Err(ApplyError::Vanished),
            _ if began.elapsed() > VM_START_DEADLINE => return Err(ApplyError::NoGuestAgent),
            _ => tokio::time::sleep(GUEST_PAUSE).await,
        }
    }
}

fn tags(context: &Context) -> std::collections::BTreeMap<String, String> {
    std::collections::BTreeMap::from([
        (tag::OWNER.to_owned(), context.owner.to_string()),
        (tag::POOL.to_owned(), context.spec.name.clone()),
        (
            tag::PROJECT.to_owned(),
            context.spec.instance.project.clone(),
        ),
    ])
}

/// What jobs may demand before the agent was online to say what it has, which replaces all this.
fn capabilities(context: &Context, name: &str) -> std::collections::BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "X64",
        "aarch64" => "ARM64",
        "arm" => "ARM",
        other => other,
    };
    let mut capabilities = tags(context);
    for (name, value) in [
        ("Agent.ComputerName", name),
        ("Agent.HomeDirectory", "/home/agent"),
        ("Agent.OS", "Linux"),
        ("Agent.OSArchitecture", architecture),
    ] {
        capabilities.insert(name.to_owned(), value.to_owned());
    }
    let env = context.spec.env.iter();
    let env = env.filter(|(_, value)| value.len() < LONGEST_CAPABILITY);
    capabilities.extend(env.map(|(name, value)| (name.clone(), value.clone())));
    capabilities
}

/// Adds the agent to Azure's pool. When the answer is lost, or an earlier life of this daemon added
/// it and could not write that down, the registration is found by its name and made anew: its key
/// is not known any more.
async fn create_registration(
    context: &Context,
    pool: &AgentPool,
    new: &NewAgent,
) -> Result<CreatedAgent, ApplyError> {
    let azure = context.link.azure();
    let error = match azure.create_agent(pool.id, new).await {
        Ok(created) => return Ok(created),
        Err(error) if error.is_conflict() || error.may_have_worked() => error,
        Err(error) => {
            if let AzureError::NoAuthorization { agent_id } = error {
                // A registration without a key of its own would need the daemon's credential.
                let _ = azure.delete_agent(pool.id, agent_id).await;
            }
            context.link.nudge();
            return Err(ApplyError::Azure {
                doing: "cannot register the agent",
                source: error,
            });
        }
    };
    let found = azure
        .agent_named(pool.id, &new.name)
        .await
        .map_err(ApplyError::azure(
            "cannot look for a registration whose answer was lost",
        ))?;
    let Some(found) = found else {
        context.link.nudge();
        return Err(ApplyError::Azure {
            doing: "cannot register the agent",
            source: error,
        });
    };
    let ours = found
        .capabilities
        .get(tag::OWNER)
        .is_some_and(|owner| **owner == *context.owner);
    if !ours || found.online || found.assigned.is_some() {
        return Err(ApplyError::NameTaken(new.name.clone()));
    }
    match azure.delete_agent(pool.id, found.id).await {
        Ok(Deleted::Gone) => {}
        Ok(Deleted::Busy(words)) => return Err(ApplyError::Busy(words)),
        Err(source) => {
            return Err(ApplyError::Azure {
                doing: "cannot delete the lost registration",
                source,
            });
        }
    }
    azure
        .create_agent(pool.id, new)
        .await
        .map_err(ApplyError::azure("cannot register the agent again"))
}

/// Writes the marker, the tags that outlive the agent's own report, and the agent's files.
async fn prepare(
    context: &Context,
    name: &str,
    registered: &Registered,
    files: Vec<BundleFile>,
) -> Result<(), ApplyError> {
    let (pool, id) = (registered.pool.id, registered.agent.id);
    let marker = async {
        let mut patch = InstancePatch::config(key::AZURE_AGENT_ID, Some(id.to_string()));
        patch.config.insert(key::SPARE.to_owned(), None);
        context
            .project
            .patch(name, &patch)
            .await
            .map_err(ApplyError::incus(
                "cannot note the registration on the instance",
            ))
    };
    let capabilities = tag_registration(context, pool, id);
    let push = async {
        for file in files {
            let path = format!("/home/agent/{}", file.name);
            let meta = FileMeta {
                mode: file.mode,
                ..AGENT
            };
            push_file(context, name, &path, &meta, file.content.into()).await?;
        }
        Ok(())
    };
    tokio::try_join!(marker, capabilities, push)?;
    Ok(())
}

/// Tries more than once: a launch that fails here throws a good registration away.
async fn tag_registration(context: &Context, pool: i32, id: i64) -> Result<(), ApplyError> {
    let azure = context.link.azure();
    let tags = tags(context);
    let mut pauses = TAG_PAUSES.into_iter();
    loop {
        match azure.set_user_capabilities(pool, id, &tags).await {
            Err(error) if error.is_transient() => match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(ApplyError::azure("cannot tag the registration")(error)),
            },
            result => return result.map_err(ApplyError::azure("cannot tag the registration")),
        }
    }
}

async fn push_hook(context: &Context, name: &str) -> Result<(), ApplyError> {
    let hook = Bytes::from_static(include_bytes!("../../guest/agent-ended.sh"));
    push_file(context, name, HOOK_PATH, &HOOK, hook).await
}

async fn push_file(
    context: &Context,
    name: &str,
    path: &str,
    meta: &FileMeta,
    content: Bytes,
) -> Result<(), ApplyError> {
    context
        .project
        .push_file(name, path, meta, content, FILE_DEADLINE)
        .await
        .map_err(|error| gone_or(error, "cannot push the agent's files"))
}

async fn start(context: &Context, name: &str) -> Result<(), ApplyError> {
    let (attempts, deadline) = match context.spec.instance.kind {
        InstanceKind::Container => (CONTAINER_ATTEMPTS, CONTAINER_START_DEADLINE),
        InstanceKind::VirtualMachine => (VM_ATTEMPTS, VM_START_DEADLINE),
    };
    let mut arguments = vec![attempts.to_string()];
    arguments.extend(
        context
            .spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    let exec = shell(
        "iapd-start",
        include_str!("../../guest/start.sh"),
        arguments,
    );
    let code = context
        .project
        .exec(name, &exec, deadline)
        .await
        .map_err(|error| gone_or(error, "cannot start the agent in the guest"))?;
    if code == 0 {
        Ok(())
    } else {
        Err(ApplyError::Start(code))
    }
}

/// An instance that is not there any more powered itself off, and that is the thing to say.
fn gone_or(source: IncusError, doing: &'static str) -> ApplyError {
    if source.is_not_found() {
        ApplyError::Vanished
    } else {
        ApplyError::Incus { doing, source }
    }
}

/// Returns the version of the agent in the instance's image: its property, else what the agent
/// itself says.
pub(super) async fn agent_version(context: &Context, name: &str) -> Result<String, ApplyError> {
    let instance = context
        .project
        .instance(name)
        .await
        .map_err(ApplyError::incus("cannot look at the instance"))?
        .ok_or(ApplyError::Vanished)?;
    let image = instance
        .config
        .get(key::BASE_IMAGE)
        .cloned()
        .unwrap_or_default();
    if let Some(version) = context.versions.get(&image) {
        return Ok(version);
    }
    let property = context
        .project
        .image(&image)
        .await
        .map_err(ApplyError::incus("cannot read the image's properties"))?
        .and_then(|image| image.properties.get(AGENT_VERSION_PROPERTY).cloned());
    let version = match property {
        Some(version) => version,
        None => read_version(context, name).await?,
    };
    context.versions.put(&image, version.clone());
    Ok(version)
}

/// Image property that provisioning writes.
pub const AGENT_VERSION_PROPERTY: &str = "iapd.agent-version";

async fn read_version(context: &Context, name: &str) -> Result<String, ApplyError> {
    let exec = Exec {
        command: vec!["/home/agent/bin/Agent.Listener".into(), "--version".into()],
        environment: [("HOME".to_owned(), "/home/agent".to_owned())].into(),
        user: AGENT.uid,
        group: AGENT.gid,
        cwd: Some("/home/agent".into()),
    };
    let (code, stdout, _) = context
        .project
        .exec_output(name, &exec, VERSION_DEADLINE, VERSION_CAP)
        .await
        .map_err(|error| gone_or(error, "cannot ask the agent for its version"))?;
    let text = String::from_utf8_lossy(&stdout).trim().to_owned();
    let plausible = code == 0
        && !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b));
    if plausible {
        Ok(text)
    } else {
        Err(ApplyError::NoAgent)
    }
}

async fn take_key(context: &Context) -> Result<AgentKey, ApplyError> {
    if let Some(key) = context.keys.take() {
        return Ok(key);
    }
    let made = tokio::task::spawn_blocking(AgentKey::generate).await;
    made.expect("making a key does not panic")
        .map_err(ApplyError::Key)
}

#[cfg(test)]
mod tests;
