//! What Incus and Azure would do with a plan: actions take effect, jobs come and go.

use super::*;

/// A world that carries plans out.
pub(super) struct Model {
    pub(super) world: World,
    next_id: i64,
    /// Agents whose running machine was removed while they had a job.
    pub(super) killed_busy: usize,
}

impl Model {
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            world: World::new(wanted),
            next_id: 1,
            killed_busy: 0,
        }
    }

    /// Looks, plans, and makes the plan true. Returns what was planned.
    pub(super) fn step(&mut self) -> Plan {
        let plan = self.world.step();
        for _ in 0..plan.launch {
            let id = self.next_id;
            self.next_id += 1;
            let name = format!("p-h-{id:05}");
            self.world.agent(&name, id, false);
            if let (Some(image), Some(instance)) =
                (self.world.image, self.world.instances.get_mut(&name))
            {
                instance.image = image.to_owned();
            }
            let now = self.world.now;
            self.world.ledger.entry(&name, now).settled = true;
        }
        if plan.spare {
            let name = format!("p-h-{:05}", self.next_id);
            self.next_id += 1;
            self.world.spare(&name);
            if let (Some(image), Some(instance)) =
                (self.world.image, self.world.instances.get_mut(&name))
            {
                instance.image = image.to_owned();
            }
        }
        for action in &plan.actions {
            self.carry_out(action);
        }
        plan
    }

    fn carry_out(&mut self, action: &Action) {
        let name = action.name();
        let world = &mut self.world;
        match action {
            Action::Adopt { .. } | Action::Promote { .. } => {
                let id = self.next_id;
                self.next_id += 1;
                if let Some(instance) = world.instances.get_mut(name) {
                    instance.azure_agent_id = Some(id);
                    instance.spare = false;
                }
                world.registration(name, id, true, false);
            }
            Action::NoteDrain { drain, .. } => {
                if let Some(instance) = world.instances.get_mut(name) {
                    instance.drain = *drain;
                }
            }
            Action::Leave { .. } => self.leave(name),
            Action::Remove { reason, .. } => {
                let runs = world
                    .instances
                    .get(name)
                    .is_some_and(|i| i.status == Status::Running);
                let busy = world
                    .registrations
                    .get(name)
                    .is_some_and(|r| r.job.is_some());
                self.killed_busy += usize::from(busy && runs && *reason != ReapReason::Deadline);
                world.instances.remove(name);
                if let Some(registration) = world.registrations.get_mut(name) {
                    registration.online = false;
                    registration.job = None;
                }
            }
            Action::Deregister { .. } => {
                world.registrations.remove(name);
                let now = world.now;
                world.ledger.entry(name, now).deregistered(now);
            }
            Action::AnswerDoorbell { .. } => {
                world.instances.remove(name);
                if let Some(registration) = world.registrations.get_mut(name) {
                    registration.online = false;
                    registration.job = None;
                }
            }
            Action::Hear { .. } => {
                let entry = world.ledger.entry(name, world.now);
                entry.heard = true;
                let id = entry.azure_agent_id.unwrap_or_default();
                let result = if id % 2 == 0 { "failed" } else { "succeeded" };
                entry.past.job = Some(JobRequest {
                    result: Some(result.into()),
                    ..JobRequest::default()
                });
            }
            Action::Keep {
                keep,
                drain,
                staying,
                ..
            } => {
                if let Some(instance) = world.instances.get_mut(name) {
                    instance.keep = Some(keep.clone());
                    instance.drain = *drain;
                }
                if *staying != Staying::Noted {
                    world.ledger.entry(name, world.now).answered = true;
                    if let Some(registration) = world.registrations.get_mut(name) {
                        registration.online = false;
                        registration.job = None;
                    }
                }
            }
            Action::CancelLaunch { .. } => {}
        }
    }

    fn leave(&mut self, name: &str) {
        let Some(registration) = self.world.registrations.get_mut(name) else {
            return;
        };
        registration.enabled = false;
        if registration.job.is_some() {
            return;
        }
        registration.online = false;
        match self.world.instances.get_mut(name) {
            // It waits for its answer.
            Some(instance) if instance.keep.is_some() => instance.status = Status::Ready,
            _ => drop(self.world.instances.remove(name)),
        }
    }

    /// Jobs end: their agents power their machines off.
    pub(super) fn end_all_jobs(&mut self) {
        let world = &mut self.world;
        for (name, registration) in &mut world.registrations {
            if registration.job.take().is_some() {
                registration.online = false;
                world.instances.remove(name);
            }
        }
    }

    /// Steps until nothing is planned; returns whether that happened.
    pub(super) fn settle(&mut self) -> bool {
        let mut calm = 0;
        for _ in 0..400 {
            self.world.wait(10);
            calm = if self.step() == Plan::default() {
                calm + 1
            } else {
                0
            };
            // Longer than every grace period.
            if calm > 60 {
                return true;
            }
        }
        false
    }
}
