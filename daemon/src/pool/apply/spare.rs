//! Making a spare: a launch that pauses before it registers. It never touches Azure.

use tokio::time::Instant;
use tracing::{debug, info};

use super::super::in_flight::Turn;
use super::super::spec::InstanceKind;
use super::create::create;
use super::launch::{GATE_HELD, LaunchFailed, agent_version, await_guest, choose_seat};
use super::{ApplyError, Context};

/// Creates a spare instance and waits for what a promotion would have to wait for.
pub async fn make(context: &Context, name: &str, turn: &Turn) -> Result<(), LaunchFailed> {
    let failed = |created| {
        move |error| LaunchFailed {
            error,
            created,
            azure_agent_id: None,
        }
    };
    let seat = choose_seat(context).map_err(failed(false))?;
    let permit = tokio::select! {
        permit = seat.last_turn() => permit,
        () = turn.cancelled() => return Err(failed(false)(ApplyError::Cancelled)),
    };
    turn.begin();
    let began = Instant::now();
    let member = seat.member.as_deref();
    let mut created = std::pin::pin!(create(context, name, member, true));
    let early_end = tokio::time::timeout(GATE_HELD, &mut created).await;
    drop(permit);
    let result = match early_end {
        Ok(result) => result,
        Err(_) => created.await,
    };
    result
        .inspect_err(|_| seat.failed())
        .map_err(failed(false))?;
    if context.spec.instance.kind == InstanceKind::VirtualMachine {
        await_guest(context, name).await.map_err(failed(true))?;
    }
    // Asked now, it is known when there is no time for it.
    match agent_version(context, name).await {
        Ok(_) => {}
        Err(error @ ApplyError::Vanished) => return Err(failed(true)(error)),
        Err(error) => debug!(spare = name, %error, "cannot tell the agent's version yet"),
    }
    info!(spare = name, elapsed = ?began.elapsed(), "spare instance made");
    Ok(())
}
