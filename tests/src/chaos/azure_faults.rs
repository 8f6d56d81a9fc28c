//! Faults of Azure, as iapd meets them. What agents themselves meet with is left alone, but for
//! what is done to single ones of them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::world::World;
use super::{Deck, pause};
use crate::azure_sim::{
    CredentialKind, FaultAction, FaultRule, JobRequest, Matching, NamedFault, PatMode,
};
use crate::host::AZURE_POOL;

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Unauthorized,
    SignInPage,
    TooManyRequests,
    ServerError,
    Reset,
    LostAnswer,
    Hang,
    Truncated,
    Nonsense,
    LostRegistration,
    BusyDelete,
    SlowList,
    ClockJump,
    AgentTokens,
    Session,
    Ambush,
    Deleted,
}

const ALL: [Fault; 17] = [
    Fault::Unauthorized,
    Fault::SignInPage,
    Fault::TooManyRequests,
    Fault::ServerError,
    Fault::Reset,
    Fault::LostAnswer,
    Fault::Hang,
    Fault::Truncated,
    Fault::Nonsense,
    Fault::LostRegistration,
    Fault::BusyDelete,
    Fault::SlowList,
    Fault::ClockJump,
    Fault::AgentTokens,
    Fault::Session,
    Fault::Ambush,
    Fault::Deleted,
];

/// Sessions lapse, locks do not: what renews each minute is not lost.
const JUMP: Duration = Duration::from_secs(310);

/// Does one thing after the other until it is told to stop.
pub(super) async fn run(
    world: Arc<World>,
    rng: fastrand::Rng,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut deck = Deck::new(&ALL, rng);
    while !stop.is_cancelled() {
        pause(deck.millis(3000..8000), &stop).await;
        let Some(fault) = deck.draw() else { break };
        let lasting = deck.millis(500..4000);
        let agents: Vec<String> = world
            .azure_pools
            .iter()
            .flat_map(|pool| world.host.sim.agents(*pool))
            .filter(|agent| agent.online)
            .map(|agent| agent.name)
            .collect();
        let agent = deck.one_of(&agents).cloned();
        inject(&world, fault, lasting, agent).await;
    }
    Ok(())
}

impl Fault {
    fn kind(self) -> &'static str {
        match self {
            Self::Unauthorized => "Azure answers 401",
            Self::SignInPage => "Azure answers 203",
            Self::TooManyRequests => "Azure answers 429",
            Self::ServerError => "Azure answers 500",
            Self::Reset => "Azure hangs up",
            Self::LostAnswer => "Azure's answers are lost",
            Self::Hang => "Azure does not answer",
            Self::Truncated => "Azure answers by half",
            Self::Nonsense => "Azure answers nonsense",
            Self::LostRegistration => "registration's answer lost",
            Self::BusyDelete => "registration not deleted",
            Self::SlowList => "Azure lists slowly",
            Self::ClockJump => "Azure's clock jumps",
            Self::AgentTokens => "agents' tokens expire",
            Self::Session => "agent's session lost",
            Self::Ambush => "job assigned while leaving",
            Self::Deleted => "registration deleted outside",
        }
    }
}

async fn inject(world: &World, fault: Fault, lasting: Duration, agent: Option<String>) {
    let sim = &world.host.sim;
    let of_one = matches!(fault, Fault::Session | Fault::Deleted);
    let target = agent.filter(|_| of_one);
    if of_one && target.is_none() {
        return;
    }
    let number = world.begin(fault.kind(), target.as_deref());
    let all = |action| {
        let matching = Matching {
            credential: Some(CredentialKind::Pat),
            ..Matching::default()
        };
        sim.fault(FaultRule::new(matching, action));
    };
    match fault {
        Fault::Unauthorized => sim.set_pat_mode(PatMode::Unauthorized),
        Fault::SignInPage => sim.set_pat_mode(PatMode::SignInPage),
        Fault::TooManyRequests => all(FaultAction::too_many_requests(2)),
        Fault::ServerError => all(FaultAction::status(500)),
        Fault::Reset => all(FaultAction::CloseBefore),
        Fault::LostAnswer => all(FaultAction::CloseAfter),
        Fault::Hang => all(FaultAction::Hang),
        Fault::Truncated => all(FaultAction::Truncate),
        Fault::Nonsense => all(FaultAction::InvalidJson),
        Fault::LostRegistration => {
            sim.named_fault(NamedFault::LosePostResponse { times: 2 });
        }
        Fault::BusyDelete => {
            let agent = None;
            sim.named_fault(NamedFault::BusyDelete { times: 3, agent });
        }
        Fault::SlowList => {
            sim.named_fault(NamedFault::SlowList { ms: 2500 });
        }
        Fault::ClockJump => sim.advance(JUMP),
        Fault::AgentTokens => {
            sim.named_fault(NamedFault::ExpireAgentTokens);
        }
        Fault::Session => {
            if let Some(agent) = target {
                sim.named_fault(NamedFault::DropSession { agent });
            }
        }
        Fault::Ambush => {
            let job = JobRequest::new(AZURE_POOL).named("ambush");
            sim.assign_while_stopping(job.lasting(Duration::from_millis(500)));
        }
        Fault::Deleted => {
            if let Some(agent) = target {
                sim.named_fault(NamedFault::DeleteAgentExternally { agent });
            }
        }
    }
    // Somebody has to be asked to leave for an ambush to be sprung.
    let patience = if matches!(fault, Fault::Ambush) { 5 } else { 1 };
    tokio::time::sleep(lasting * patience).await;
    sim.clear_faults();
    world.journal.end(number);
}
