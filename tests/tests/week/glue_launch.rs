//! Launching, as `pool/apply/launch.rs` does it: the same calls in the same order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::FutureExt;

use iapd::agent::key;
use iapd::pool::in_flight::Turn;

use super::calls::{Calls, Server};
use super::clock::{MINUTE, SECOND};
use super::model_azure::{OWNER, POOL};
use super::model_incus::{Create, No, Order};
use super::world::Late;

/// When a create has not ended by then, its slot is given up.
const CREATE_DEADLINE: u64 = 30 * MINUTE;
pub(super) const AZURE_URL: &str = "https://dev.azure.com/contoso";
pub(super) const AZURE_POOL: &str = "Linux";

/// What an action works with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) calls: Calls,
    pub(super) spec_hash: String,
    pub(super) poll_interval: u64,
    /// The Azure pool's id is known.
    pub(super) pool_known: Rc<Cell<bool>>,
    /// How many creates may go on at once still.
    pub(super) gate: Rc<Cell<usize>>,
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Incus(No),
    Azure(No),
    NoPool,
    Create(String),
    Vanished,
    Start,
    Stop,
    NameTaken,
    Busy,
    NotProven(&'static str),
    NotProbed(No),
    Cancelled,
}

/// See `LaunchFailed`.
#[derive(Debug)]
pub(super) struct NotLaunched {
    pub(super) why: Why,
    pub(super) created: bool,
    pub(super) azure_agent_id: Option<i64>,
}

fn gone_or(no: No) -> Why {
    match no {
        No::Gone => Why::Vanished,
        no => Why::Incus(no),
    }
}

pub(super) async fn launch(means: Means, name: String, turn: Turn) -> Result<i64, NotLaunched> {
    let early = |why| NotLaunched {
        why,
        created: false,
        azure_agent_id: None,
    };
    while means.gate.get() == 0 {
        means.calls.wait(200).await;
        if turn.cancelled().now_or_never().is_some() {
            return Err(early(Why::Cancelled));
        }
    }
    means.gate.set(means.gate.get() - 1);
    turn.begin();
    let created = create(&means, &name).await;
    means.gate.set(means.gate.get() + 1);
    created.map_err(early)?;
    register_and_start(&means, &name).await
}

pub(super) async fn adopt(means: Means, name: String, turn: Turn) -> Result<i64, NotLaunched> {
    turn.begin();
    register_and_start(&means, &name).await
}

async fn create(means: &Means, name: &str) -> Result<(), Why> {
    let pairs = [
        (key::OWNER, OWNER),
        (key::POOL, POOL),
        (key::SPEC, &means.spec_hash),
        (key::AZURE_URL, AZURE_URL),
        (key::AZURE_POOL, AZURE_POOL),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let order = Order {
        name: name.to_owned(),
        config: BTreeMap::from(pairs),
    };
    let late = Some(Late::Create(order.clone()));
    let posted = means
        .calls
        .call(Server::Incus, late, |world| {
            world.may_be_made(name);
            let made = world.create(&order);
            if world.life != means.calls.life {
                world.uncount(name);
            }
            made
        })
        .await;
    match posted {
        Ok(()) => {}
        Err(No::Lost) => return settle(means, name).await,
        Err(no) => return Err(Why::Incus(no)),
    }
    let mut waited = 0;
    let mut pause = SECOND / 2;
    loop {
        let stands = means.calls.incus(|world| Ok(world.create_stands(name)));
        match stands.await {
            Ok(Create::Success) => return Ok(()),
            Ok(Create::Failure(words)) => return Err(Why::Create(words)),
            Ok(Create::Forgotten) => {
                let found = means.calls.incus(|world| Ok(exists(world, name))).await;
                return match found {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Why::Vanished),
                    Err(no) => Err(Why::Incus(no)),
                };
            }
            Ok(Create::Running) | Err(No::Lost) => {}
            Err(no) => return Err(Why::Incus(no)),
        }
        means.calls.wait(pause).await;
        waited += pause;
        pause = (pause * 2).min(3 * SECOND);
        if waited > CREATE_DEADLINE {
            return Err(Why::Create("it has not ended for half an hour".into()));
        }
    }
}

fn exists(world: &super::world::World, name: &str) -> bool {
    world.incus.machines.contains_key(name)
}

async fn settle(means: &Means, name: &str) -> Result<(), Why> {
    let mut quiet = 0;
    for _ in 0..CREATE_DEADLINE / SECOND {
        means.calls.wait(SECOND).await;
        match means.calls.incus(|world| Ok(world.operations())).await {
            Ok(running) if running.iter().any(|on| on == name) => quiet = 0,
            Ok(_) => quiet += 1,
            Err(No::Lost) => {}
            Err(no) => return Err(Why::Incus(no)),
        }
        if quiet >= 2 {
            match means.calls.incus(|world| Ok(exists(world, name))).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Why::Incus(No::Lost)),
                Err(No::Lost) => {}
                Err(no) => return Err(Why::Incus(no)),
            }
        }
    }
    Err(Why::Incus(No::Lost))
}

async fn register_and_start(means: &Means, name: &str) -> Result<i64, NotLaunched> {
    let before = |why| NotLaunched {
        why,
        created: true,
        azure_agent_id: None,
    };
    if !means.pool_known.get() {
        return Err(before(Why::NoPool));
    }
    let found = means.calls.incus(|world| Ok(exists(world, name))).await;
    if !found.map_err(Why::Incus).map_err(before)? {
        return Err(before(Why::Vanished));
    }
    let id = register(means, name).await.map_err(before)?;
    let after = |why| NotLaunched {
        why,
        created: true,
        azure_agent_id: Some(id),
    };
    prepare(means, name, id).await.map_err(after)?;
    // The start script waits for the boot.
    means.calls.wait(2 * SECOND).await;
    let late = Some(Late::Start(name.to_owned(), id));
    let started = means
        .calls
        .call(Server::Incus, late, |world| world.start(name, id));
    match started.await.map_err(gone_or).map_err(after)? {
        0 => Ok(id),
        _ => Err(after(Why::Start)),
    }
}

async fn register(means: &Means, name: &str) -> Result<i64, Why> {
    let late = Some(Late::Register(name.to_owned()));
    let created = means
        .calls
        .call(Server::Azure, late, |world| world.register(name));
    match created.await {
        Ok(id) => return Ok(id),
        Err(No::Conflict | No::Lost) => {}
        Err(no) => return Err(Why::Azure(no)),
    }
    let found = means.calls.azure(|world| Ok(world.agent_named(name))).await;
    let Some(found) = found.map_err(Why::Azure)? else {
        return Err(Why::Azure(No::Lost));
    };
    let ours = found.capabilities.values().any(|value| value == OWNER);
    if !ours || found.online || found.assigned.is_some() {
        return Err(Why::NameTaken);
    }
    match means
        .calls
        .azure(|world| world.delete_agent(found.id))
        .await
    {
        Ok(()) => {}
        Err(No::Refused(_)) => return Err(Why::Busy),
        Err(no) => return Err(Why::Azure(no)),
    }
    let again = means.calls.azure(|world| world.register(name)).await;
    again.map_err(Why::Azure)
}

/// The marker, the tags and the files go at once; here they go in any order.
async fn prepare(means: &Means, name: &str, id: i64) -> Result<(), Why> {
    let first = means.calls.world.borrow_mut().random.usize(0..3);
    for part in 0..3 {
        match (first + part) % 3 {
            0 => {
                let pairs = vec![(key::AZURE_AGENT_ID, Some(id.to_string()))];
                let patched = means.calls.incus(|world| world.patch(name, pairs, None));
                patched.await.map_err(Why::Incus)?;
            }
            1 => {
                let tagged = means.calls.azure(|world| world.set_tags(id)).await;
                tagged.map_err(Why::Azure)?;
            }
            _ => {
                let pushed = means.calls.incus(|world| world.push(name)).await;
                pushed.map_err(gone_or)?;
            }
        }
    }
    Ok(())
}
