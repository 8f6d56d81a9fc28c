//! Instances stopped, frozen and deleted behind the daemon's back.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::world::World;
use super::{Deck, pause};

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Stop,
    Freeze,
    Delete,
}

/// An instance was stopped.
pub const STOPPED: &str = "instance stopped outside";
/// An instance was frozen for a while.
pub const FROZEN: &str = "instance frozen";
/// An instance was deleted.
pub const DELETED: &str = "instance deleted outside";

const ALL: [Fault; 3] = [Fault::Stop, Fault::Freeze, Fault::Delete];

/// Does one thing after the other until it is told to stop.
pub(super) async fn run(
    world: Arc<World>,
    rng: fastrand::Rng,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut deck = Deck::new(&ALL, rng);
    while !stop.is_cancelled() {
        pause(deck.millis(5000..12000), &stop).await;
        let Some(fault) = deck.draw() else { break };
        // Incus may be down, on purpose.
        let names = world.instances().await.unwrap_or_default();
        let Some(name) = deck.one_of(&names).cloned() else {
            continue;
        };
        let lasting = deck.millis(1000..8000);
        let kind = match fault {
            Fault::Stop => STOPPED,
            Fault::Freeze => FROZEN,
            Fault::Delete => DELETED,
        };
        let number = world.begin(kind, Some(&name));
        // It may have ended meanwhile.
        let done = match fault {
            Fault::Stop => world.incus(&["stop", "--force", &name]).await,
            Fault::Delete => world.incus(&["delete", "--force", &name]).await,
            Fault::Freeze => {
                let frozen = world.incus(&["pause", &name]).await;
                if frozen.is_ok() {
                    pause(lasting, &stop).await;
                    // Incus may be down, or the agent removed: then it is thawed at the end.
                    let _ = world.incus(&["start", &name]).await;
                }
                frozen
            }
        };
        if done.is_err() {
            world.journal.refused(kind);
        }
        world.journal.end(number);
    }
    Ok(())
}
