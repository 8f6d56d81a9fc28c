//! Begins what was planned: each action as a task of its own, entered in the in-flight map.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use crate::agent::{Doing, Drain};

use super::super::apply::{keep, launch, leave, note, remove, spare};
use super::super::in_flight::Turn;
use super::super::plan::{Action, DrainReason, Plan, ReapReason};
use super::super::spec::KeepWhen;
use super::ended::{Done, Ended};
use super::{Context, Reconciler};

/// What a launch begins with.
enum Start {
    /// Nothing.
    Anew,
    /// An instance that was found.
    Found,
    /// A spare, made from this image.
    Spare(String),
}

impl Reconciler {
    /// Begins the actions of a plan and returns how many.
    pub(super) fn apply(&mut self, plan: Plan, now: Instant) -> usize {
        let is_promotion = |action: &Action| matches!(action, Action::Promote { .. });
        let is_filling = plan.launch > 0 || plan.actions.iter().any(is_promotion);
        if !is_filling && self.in_flight.launches().is_empty() {
            // Every slot that shall be filled is.
            self.vacancies.clear();
        }
        if plan == Plan::default() {
            return 0;
        }
        let context = self.context();
        let mut started = 0;
        for _ in 0..plan.launch {
            let name = self.new_name();
            self.ledger.entry(&name, now);
            self.begin_launch(&context, &name, Start::Anew, now);
            started += 1;
        }
        for action in plan.actions {
            if let Action::CancelLaunch { name } = &action {
                self.in_flight.cancel(name);
                continue;
            }
            self.begin(&context, action, now);
            started += 1;
        }
        if plan.spare {
            let name = self.new_name();
            self.ledger.entry(&name, now).spare = true;
            self.begin_spare(&context, &name, now);
            started += 1;
        }
        started
    }

    /// A name that was not used before, as far as anyone can tell.
    fn new_name(&mut self) -> String {
        let spec = &self.order.spec;
        let stem = super::super::names::agent_name_stem(&spec.name, &spec.agent_prefix);
        loop {
            let name = super::super::names::new_agent_name(&stem, &mut self.random);
            let taken = self.ledger.get(&name).is_some()
                || self
                    .azure
                    .borrow()
                    .list
                    .as_ref()
                    .is_some_and(|list| list.agents.contains_key(&name));
            if !taken {
                return name;
            }
        }
    }

    fn begin_launch(&mut self, context: &Arc<Context>, name: &str, start: Start, now: Instant) {
        let turn = Turn::default();
        self.in_flight
            .begin(name, Doing::Launch, Some(turn.clone()), now);
        let (context, name) = (Arc::clone(context), name.to_owned());
        let span = info_span!("agent", name = %name);
        self.running.spawn(
            async move {
                let result = match start {
                    Start::Anew => launch::launch(&context, &name, &turn).await,
                    Start::Found => launch::adopt(&context, &name, &turn).await,
                    Start::Spare(image) => launch::promote(&context, &name, &image, &turn).await,
                };
                Done {
                    name,
                    ended: Ended::Launch(result),
                }
            }
            .instrument(span),
        );
    }

    fn begin_spare(&mut self, context: &Arc<Context>, name: &str, now: Instant) {
        let turn = Turn::default();
        self.in_flight
            .begin(name, Doing::Spare, Some(turn.clone()), now);
        let (context, name) = (Arc::clone(context), name.to_owned());
        let span = info_span!("spare", name = %name);
        self.running.spawn(
            async move {
                let result = spare::make(&context, &name, &turn).await;
                Done {
                    name,
                    ended: Ended::Spare(result),
                }
            }
            .instrument(span),
        );
    }

    fn begin(&mut self, context: &Arc<Context>, action: Action, now: Instant) {
        let name = action.name().to_owned();
        let start = match &action {
            Action::Adopt { .. } => Some(Start::Found),
            Action::Promote { image, .. } => Some(Start::Spare(image.clone())),
            _ => None,
        };
        if let Some(start) = start {
            // What its boot has proven says nothing of its agent.
            self.ledger.entry(&name, now).proven = false;
            self.begin_launch(context, &name, start, now);
            return;
        }
        self.in_flight.begin(&name, action.doing(), None, now);
        self.tell(&action, now);
        if let Action::NoteDrain { reason, .. } = &action {
            self.ledger.entry(&name, now).was_disabled_by_others |=
                *reason == DrainReason::Disabled;
        }
        let context = Arc::clone(context);
        let span = info_span!("agent", name = %name);
        self.running.spawn(
            async move {
                let ended = carry_out(&context, action).await;
                Done { name, ended }
            }
            .instrument(span),
        );
    }

    fn tell(&mut self, action: &Action, now: Instant) {
        match action {
            Action::NoteDrain {
                name,
                drain,
                reason,
            } => {
                let reason = match reason {
                    DrainReason::Requested => "requested",
                    DrainReason::Surplus => "surplus",
                    DrainReason::Outdated => "outdated",
                    DrainReason::PoolRemoved => "pool_removed",
                    DrainReason::Paused => "paused",
                    DrainReason::Disabled => "disabled_in_azure_by_others",
                    DrainReason::MemberLeaves => "member_leaves",
                };
                info!(agent = %name, reason, force = (*drain == Drain::Force), "draining agent");
            }
            Action::Keep { name, keep, .. } => self.begin_keep(name, keep),
            Action::AnswerDoorbell {
                name,
                no_room: true,
                ..
            } => self.no_room(name, now),
            Action::Remove {
                name,
                reason: ReapReason::NeverOnline,
                ..
            } => {
                let keep = self.order.spec.keep.as_ref();
                if keep.is_some_and(|keep| keep.when.contains(&KeepWhen::NeverOnline)) {
                    self.no_room(name, now);
                }
            }
            _ => {}
        }
    }
}

async fn carry_out(context: &Context, action: Action) -> Ended {
    match action {
        Action::NoteDrain { name, drain, .. } => {
            Ended::NoteDrain(note::drain(context, &name, drain).await)
        }
        Action::AnswerDoorbell { name, heard, .. } => {
            Ended::Doorbell(note::answer_doorbell(context, &name, heard).await)
        }
        Action::Hear {
            name,
            azure_agent_id,
        } => Ended::Heard(keep::hear(context, &name, azure_agent_id).await),
        Action::Keep {
            name,
            azure_agent_id,
            keep: wish,
            drain,
            staying,
        } => {
            let result = keep::keep(context, &name, azure_agent_id, (&wish, drain), staying).await;
            Ended::Keep {
                keep: wish,
                staying,
                result,
            }
        }
        Action::Leave {
            name,
            azure_agent_id,
        } => Ended::Leave(leave::leave(context, &name, azure_agent_id).await),
        Action::Remove {
            name,
            azure_agent_id,
            reason,
            proof,
        } => {
            let disables = proof.disables();
            let result = remove::remove(context, &name, azure_agent_id, reason, proof).await;
            Ended::Remove {
                reason,
                disables,
                result,
            }
        }
        Action::Deregister {
            name,
            azure_agent_id,
            ghost,
        } => {
            let (job, result) = remove::deregister(context, &name, azure_agent_id, ghost).await;
            Ended::Deregister { job, result }
        }
        Action::Adopt { .. } | Action::Promote { .. } | Action::CancelLaunch { .. } => {
            unreachable!("launches are begun by begin_launch")
        }
    }
}
