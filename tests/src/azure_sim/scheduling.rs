//! Who gets which job, and what becomes of jobs whose agent is gone.

use jiff::Timestamp;

use super::{
    agents::Agent,
    jobs::{Job, JobResult},
    messages::JOB_REQUEST,
    state::State,
};

impl State {
    /// Returns the registered agents that count for a job at queue time; offline ones do.
    pub(super) fn matching_agents(&self, job: &Job) -> impl Iterator<Item = &Agent> {
        let disabled_too = self.switches.disabled_agents_match;
        self.agents_of(job.pool)
            .filter(move |agent| agent.enabled || disabled_too)
            .filter(|agent| agent.meets(&job.request.demands))
    }

    /// Fails a job that nobody could ever take.
    pub(super) fn fail_unmatched(&mut self, id: u64, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.no_agent_matches = true;
        }
        self.finish_job(id, JobResult::Failed, now);
    }

    /// Fails the waiting jobs that nobody could take any more.
    pub(super) fn fail_unmatched_jobs(&mut self, now: Timestamp) {
        let open = self.open_jobs.iter().filter_map(|id| self.jobs.get(id));
        let unmatched =
            open.filter(|job| job.assigned.is_none() && self.matching_agents(job).next().is_none());
        let unmatched: Vec<u64> = unmatched.map(|job| job.id).collect();
        for id in unmatched {
            self.fail_unmatched(id, now);
        }
    }

    /// Lets lapse what is due: sessions nobody polls, locks nobody renewed.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.lapse_sessions(now);
        let open = self.open_jobs.iter().filter_map(|id| self.jobs.get(id));
        // An agent that does not stop a canceled job keeps it no longer than this, renewed or not.
        let patience = self.scaled(|timings| timings.cancel_timeout + timings.lock_length);
        let lapsed = open.filter(|job| {
            job.locked_until.is_some_and(|until| until <= now)
                || job.canceled.is_some_and(|at| at + patience <= now)
        });
        let lapsed: Vec<u64> = lapsed.map(|job| job.id).collect();
        for id in lapsed {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            if job.canceled.is_some() {
                self.finish_job(id, JobResult::Canceled, now);
            } else if job.received.is_none() {
                self.requeue_job(id);
            } else {
                self.finish_job(id, JobResult::Abandoned, now);
            }
        }
    }

    /// Gives waiting jobs to idle agents, oldest job first, any of the candidates.
    pub(super) fn schedule(&mut self, now: Timestamp) {
        let open = self.open_jobs.iter().filter_map(|id| self.jobs.get(id));
        let waiting: Vec<u64> = open
            .filter(|job| job.assigned.is_none())
            .map(|job| job.id)
            .collect();
        for id in waiting {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let candidates = self
                .matching_agents(job)
                .filter(|agent| self.takes_jobs(agent));
            let candidates: Vec<u64> = candidates.map(|agent| agent.id).collect();
            if candidates.is_empty() {
                continue;
            }
            let picked = candidates[self.random.usize(..candidates.len())];
            self.assign(id, picked, now);
        }
    }

    fn takes_jobs(&self, agent: &Agent) -> bool {
        let session = agent
            .session
            .as_ref()
            .and_then(|session| self.sessions.get(session));
        agent.enabled
            && agent.assigned.is_none()
            && agent.pending_update.is_none()
            && session.is_some_and(|session| !session.shutting_down)
    }

    fn assign(&mut self, id: u64, agent: u64, now: Timestamp) {
        let locked_until = self.lock_until(now);
        let Some(agent) = self.agents.get_mut(&agent) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        agent.assigned = Some(id);
        job.agent = Some((agent.id, agent.name.clone()));
        job.assigned = Some(now);
        job.locked_until = Some(locked_until);
        job.begun = false;
        let session = agent.session.clone();
        self.touch();
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let body = self.job_message(job);
        if let Some(session) = session {
            self.send(&session, JOB_REQUEST, &body, Some(id));
        }
    }

    /// Takes a job away from its agent and lets it wait again.
    pub(super) fn requeue_job(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let agent = job.agent_id().and_then(|agent| self.agents.get_mut(&agent));
        job.agent = None;
        job.assigned = None;
        job.received = None;
        job.locked_until = None;
        job.begun = false;
        job.requeues += 1;
        tracing::info!(request = id, "a job goes back to the queue");
        if let Some(agent) = agent.filter(|agent| agent.assigned == Some(id)) {
            agent.assigned = None;
            let session = agent
                .session
                .as_ref()
                .and_then(|id| self.sessions.get_mut(id));
            if let Some(session) = session {
                session.queue.retain(|message| message.request != Some(id));
            }
        }
        self.touch();
    }

    /// Assigns a prepared job to an idle agent just as it is being disabled.
    pub(super) fn spring_ambush(&mut self, agent: u64, now: Timestamp) {
        let idle = self
            .agents
            .get(&agent)
            .filter(|agent| self.takes_jobs(agent));
        let Some(pool) = idle.map(|agent| self.pool_name(agent.pool).to_owned()) else {
            return;
        };
        let mut ambushes = self.ambushes.iter();
        let Some(place) = ambushes.position(|job| job.pool.eq_ignore_ascii_case(&pool)) else {
            return;
        };
        let request = self.ambushes.remove(place);
        if let Ok(job) = self.queue_job(request, now) {
            self.assign(job, agent, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::azure_sim::{JobRequest, JobResult, JobState, clock::wall, testing};

    #[test]
    fn a_job_no_registered_agent_matches_fails_at_once() {
        let (mut state, _) = testing::state();
        let job = state.queue_job(JobRequest::new("linux"), wall()).unwrap();
        assert_eq!(testing::job_state(&state, job), JobState::NoAgentMatches);
        assert_eq!(state.jobs[&job].result, Some(JobResult::Failed));
        assert!(state.open_jobs.is_empty());
    }

    #[test]
    fn an_offline_agent_that_matches_lets_a_job_wait() {
        let (mut state, pool) = testing::state();
        testing::add_agent(&mut state, pool, "placeholder");
        let job = state.queue_job(JobRequest::new("linux"), wall()).unwrap();
        state.schedule(wall());
        assert_eq!(testing::job_state(&state, job), JobState::Queued);
        let other = JobRequest::new("linux").demanding("kettle");
        let other = state.queue_job(other, wall()).unwrap();
        assert_eq!(testing::job_state(&state, other), JobState::NoAgentMatches);
    }

    #[test]
    fn jobs_go_to_idle_enabled_agents_in_order() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let idle = testing::add_agent(&mut state, pool, "a");
        let off = testing::add_agent(&mut state, pool, "b");
        for agent in [idle, off] {
            testing::add_session(&mut state, pool, agent, now).unwrap();
        }
        state.agents.get_mut(&off).unwrap().enabled = false;
        let first = state.queue_job(JobRequest::new("linux"), now).unwrap();
        let second = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        assert_eq!(state.agents[&idle].assigned, Some(first));
        assert_eq!(testing::job_state(&state, second), JobState::Queued);
        state.finish_job(first, JobResult::Succeeded, now);
        state.schedule(now);
        assert_eq!(state.agents[&idle].assigned, Some(second));
        assert_eq!(state.agents[&idle].last_completed, Some(first));
    }

    #[test]
    fn a_lock_that_lapses_requeues_what_was_not_received_and_abandons_what_was() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let agent = testing::add_agent(&mut state, pool, "a");
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        state.sessions.get_mut(&session).unwrap().polls_in_flight = 1;
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        let later = now + Duration::from_secs(601);
        state.expire(later);
        assert_eq!(testing::job_state(&state, job), JobState::Queued);
        assert!(state.sessions[&session].queue.is_empty());
        state.schedule(later);
        state.note_delivery(job);
        state.expire(later + Duration::from_secs(601));
        assert_eq!(state.jobs[&job].result, Some(JobResult::Abandoned));
        assert_eq!(state.agents[&agent].assigned, None);
    }

    #[test]
    fn a_canceled_job_stops_waiting_or_its_agent_is_told() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let agent = testing::add_agent(&mut state, pool, "a");
        let waiting = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.cancel_job(waiting, now);
        assert_eq!(state.jobs[&waiting].result, Some(JobResult::Canceled));
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        let running = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        state.cancel_job(running, now);
        assert_eq!(state.sessions[&session].queue[1].kind, "JobCancellation");
        assert_eq!(state.jobs[&running].result, None);
    }

    #[test]
    fn a_canceled_job_that_is_not_stopped_ends_all_the_same() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let agent = testing::add_agent(&mut state, pool, "a");
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        state.sessions.get_mut(&session).unwrap().polls_in_flight = 1;
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        state.renew_job(job, now);
        state.cancel_job(job, now);
        let later = now + Duration::from_secs(659);
        state.renew_job(job, later);
        state.expire(later);
        assert_eq!(testing::job_state(&state, job), JobState::Running);
        state.expire(later + Duration::from_secs(1));
        assert_eq!(state.jobs[&job].result, Some(JobResult::Canceled));
        assert_eq!(state.agents[&agent].assigned, None);
    }

    #[test]
    fn a_busy_agent_that_is_disabled_finishes_its_job_and_gets_no_other() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let agent = testing::add_agent(&mut state, pool, "a");
        testing::add_session(&mut state, pool, agent, now).unwrap();
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        let next = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        state.agents.get_mut(&agent).unwrap().enabled = false;
        state.schedule(now);
        assert_eq!(state.agents[&agent].assigned, Some(job));
        state.finish_job(job, JobResult::Succeeded, now);
        state.schedule(now);
        assert_eq!(testing::job_state(&state, next), JobState::Queued);
    }

    #[test]
    fn an_ambush_hits_the_agent_that_is_being_disabled() {
        let (mut state, pool) = testing::state();
        let now = wall();
        let agent = testing::add_agent(&mut state, pool, "a");
        testing::add_session(&mut state, pool, agent, now).unwrap();
        state.ambushes.push(JobRequest::new("linux"));
        state.spring_ambush(agent, now);
        let job = state.agents[&agent].assigned.unwrap();
        assert_eq!(testing::job_state(&state, job), JobState::Assigned);
    }
}
