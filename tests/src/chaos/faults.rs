//! Faults of the machine: iapd and Incus killed and restarted, the way between them cut, storage
//! full, kernel limits low, the image gone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::world::World;
use super::{Deck, pause};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillIapd,
    RestartIncus,
    KillIncus,
    CutIncus,
    StallIncus,
    RefuseIncus,
    SlowIncus,
    LoseEvents,
    FillStorage,
    LowerLimits,
    MoveAlias,
    DeleteAlias,
    SetClock,
}

const ALL: [Fault; 15] = [
    Fault::KillIapd,
    // Three times as often as the others: each moment is another one.
    Fault::KillIapd,
    Fault::KillIapd,
    Fault::RestartIncus,
    Fault::KillIncus,
    Fault::CutIncus,
    Fault::StallIncus,
    Fault::RefuseIncus,
    Fault::SlowIncus,
    Fault::LoseEvents,
    Fault::FillStorage,
    Fault::LowerLimits,
    Fault::MoveAlias,
    Fault::DeleteAlias,
    Fault::SetClock,
];

/// An exec in a guest that was frozen meanwhile keeps Incus from stopping for five minutes; its unit
/// would kill it in the end.
const INCUS_STOP: Duration = Duration::from_secs(30);

/// Does one thing after the other until it is told to stop.
pub(super) async fn run(
    world: Arc<World>,
    rng: fastrand::Rng,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut deck = Deck::new(&ALL, rng);
    while !stop.is_cancelled() {
        pause(deck.millis(2000..7000), &stop).await;
        let Some(fault) = deck.draw() else { break };
        let lasting = deck.millis(500..5000);
        inject(&world, fault, lasting)
            .await
            .with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

impl Fault {
    fn kind(self) -> &'static str {
        match self {
            Self::KillIapd => "iapd killed",
            Self::RestartIncus => "incusd restarted",
            Self::KillIncus => "incusd killed",
            Self::CutIncus => "connections to Incus cut",
            Self::StallIncus => "Incus does not answer",
            Self::RefuseIncus => "Incus refuses connections",
            Self::SlowIncus => "Incus is slow",
            Self::LoseEvents => "events of Incus lost",
            Self::FillStorage => "storage pool full",
            Self::LowerLimits => "kernel limits low",
            Self::MoveAlias => "image alias moved",
            Self::DeleteAlias => "image alias deleted",
            Self::SetClock => "iapd's clock jumps",
        }
    }
}

async fn inject(world: &World, fault: Fault, lasting: Duration) -> anyhow::Result<()> {
    let number = world.begin(fault.kind(), None);
    let wait = tokio::time::sleep(lasting);
    match fault {
        Fault::KillIapd => {
            world.kill_daemon()?;
            tokio::time::sleep(lasting / 3).await;
            world.start_daemon().await?;
        }
        Fault::RestartIncus => {
            let mut incus = world.incus.lock().await;
            if incus.stop(INCUS_STOP).await.is_err() {
                world.journal.refused("incusd's stop, so it was killed");
                incus.kill()?;
            }
            wait.await;
            incus.launch().await?;
        }
        Fault::KillIncus => {
            let mut incus = world.incus.lock().await;
            incus.kill()?;
            wait.await;
            incus.launch().await?;
        }
        Fault::CutIncus => world.proxy.cut_all(),
        Fault::StallIncus => {
            world.proxy.stall_new(true);
            world.proxy.cut_all();
            wait.await;
            world.proxy.stall_new(false);
        }
        Fault::RefuseIncus => {
            world.proxy.refuse_new(true);
            world.proxy.cut_all();
            wait.await;
            world.proxy.refuse_new(false);
        }
        Fault::SlowIncus => {
            world.proxy.delay(Duration::from_millis(300));
            wait.await;
            world.proxy.delay(Duration::ZERO);
        }
        Fault::LoseEvents => {
            world.proxy.silence_websockets(true);
            wait.await;
            world.proxy.silence_websockets(false);
        }
        Fault::FillStorage => fill_storage(world, lasting).await?,
        Fault::LowerLimits => lower_limits(world, lasting).await?,
        Fault::MoveAlias => {
            let alias = &world.testbed.runner;
            let project = world.testbed.project();
            let now = project.alias(alias).await?;
            let [first, second] = &world.images;
            let to = if now.as_ref() == Some(first) {
                second
            } else {
                first
            };
            project.point_alias(alias, "", to).await?;
        }
        Fault::DeleteAlias => {
            let alias = &world.testbed.runner;
            let project = world.testbed.project();
            project.delete_alias(alias).await?;
            wait.await;
            project.point_alias(alias, "", &world.images[0]).await?;
        }
        Fault::SetClock => {
            let is_ahead = lasting.as_millis().is_multiple_of(2);
            world.clock.set(if is_ahead { HOUR } else { -HOUR })?;
            wait.await;
            world.clock.set(0)?;
        }
    }
    world.journal.end(number);
    Ok(())
}

/// A pause or a keep that lapses for it does so by the clock it has.
const HOUR: i64 = 3600;

/// A file takes all there is.
async fn fill_storage(world: &World, lasting: Duration) -> anyhow::Result<()> {
    let incus = world.incus.lock().await;
    let storage = incus.storage().display().to_string();
    let file = format!("{storage}/filler");
    // Whole at first; then what that left.
    let fill = format!(
        "fallocate -l $(($(stat -f -c '%a * %S' {storage}) * 97 / 100)) {file}; \
         timeout 20 cat /dev/zero >>{file} || :"
    );
    let filled = incus.in_mounts(&["bash", "-c", &fill]);
    tokio::time::sleep(lasting).await;
    incus.in_mounts(&["rm", "-f", &file])?;
    filled
}

/// What happens when all guests together have used up the kernel's inotify instances happens to
/// each of ours alone: its systemd gets none and ends. The machine's own limits stay as they are,
/// since others use them too.
async fn lower_limits(world: &World, lasting: Duration) -> anyhow::Result<()> {
    let profile = &world.pools[0];
    let low = "raw.lxc=lxc.sysctl.user.max_inotify_instances = 1";
    // Incus saves this and complains of guests that are just ending.
    let _ = world.incus(&["profile", "set", profile, low]).await;
    tokio::time::sleep(lasting).await;
    let _ = world.incus(&["profile", "unset", profile, "raw.lxc"]).await;
    Ok(())
}
