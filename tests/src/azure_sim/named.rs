//! Faults with a name: what is known to go wrong with the real service, in one word each.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    auth::CredentialKind,
    faults::{FaultAction, FaultRule, Matching},
    jobs::JobRequest,
    options::PatMode,
    state::State,
};

/// A fault with a name. Where an agent can be named, none means all.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    tag = "named",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum NamedFault {
    /// Every token agents hold stops working; they can get new ones.
    ExpireAgentTokens,
    /// Personal access tokens meet with the HTML sign-in page.
    ExpirePat,
    /// The token endpoint's clock is off.
    ClockSkew {
        /// By how many seconds; negative is behind.
        seconds: i64,
    },
    /// Agents are created but the answer is lost.
    LosePostResponse {
        /// How often.
        times: u32,
    },
    /// An agent is deleted behind everybody's back, busy or not.
    DeleteAgentExternally {
        /// Its name.
        agent: String,
    },
    /// An agent's session is lost.
    DropSession {
        /// Its name.
        agent: String,
    },
    /// An agent is told that its token was revoked.
    RevokeToken {
        /// Its name.
        agent: String,
    },
    /// Renewals of locks fail, beginning with the next.
    FirstRenewFails {
        /// How often.
        times: u32,
        /// Whose.
        agent: Option<String>,
    },
    /// Renewals of locks fail from a moment on.
    RenewFailsFrom {
        /// How far ahead the moment is, by the virtual clock.
        after_ms: u64,
        /// Whose.
        agent: Option<String>,
    },
    /// Job messages come once more after having been deleted.
    DuplicateDelivery {
        /// How often.
        times: u32,
    },
    /// A job is assigned to an idle agent just as it is being disabled.
    AssignWhileStopping {
        /// The job.
        job: JobRequest,
    },
    /// Agents with a session are told to update themselves.
    AgentRefresh {
        /// The version they shall have.
        version: String,
        /// Whom.
        agent: Option<String>,
    },
    /// An agent gets a message of a type nobody has heard of.
    UnknownMessage {
        /// Its name.
        agent: String,
    },
    /// Every attempt to begin a session conflicts.
    ConflictForever {
        /// Whose.
        agent: Option<String>,
    },
    /// Deleting agents is refused as if they were busy.
    BusyDelete {
        /// How often.
        times: u32,
        /// Which.
        agent: Option<String>,
    },
    /// The agents of a pool that never had a session are deleted behind everybody's back.
    PlaceholderDeleted {
        /// The pool's name, in any organisation.
        pool: String,
    },
    /// Listing agents takes long.
    SlowList {
        /// How long, in real milliseconds.
        ms: u64,
    },
    /// Listing works but comes with the headers that ask to slow down.
    RateLimitDelayWith200 {
        /// By how many seconds.
        seconds: u32,
    },
}

impl State {
    /// Brings a named fault about; tells whether what it names exists.
    pub(super) fn bring_about(&mut self, fault: NamedFault, now: Timestamp) -> bool {
        let renewal = Matching::new("PATCH", "*/jobrequests/*");
        let of = |matching: Matching, agent: Option<String>| Matching { agent, ..matching };
        match fault {
            NamedFault::ExpireAgentTokens => self.expire_agent_tokens(),
            NamedFault::ExpirePat => self.credentials.pat_mode = PatMode::SignInPage,
            NamedFault::ClockSkew { seconds } => self.credentials.skew = seconds,
            NamedFault::DuplicateDelivery { times } => self.duplicate_deliveries += times,
            NamedFault::AssignWhileStopping { job } => self.ambushes.push(job),
            NamedFault::DeleteAgentExternally { agent } => {
                let Some(id) = self.agent_id_named(&agent) else {
                    return false;
                };
                self.remove_agent(id, now);
            }
            NamedFault::PlaceholderDeleted { pool } => {
                let placeholders = self.placeholders(&pool);
                if placeholders.is_empty() {
                    return false;
                }
                for id in placeholders {
                    self.remove_agent(id, now);
                }
            }
            NamedFault::DropSession { agent } => {
                let Some(session) = self.session_of(&agent) else {
                    return false;
                };
                self.end_session(&session, now);
            }
            NamedFault::UnknownMessage { agent } => {
                let Some(session) = self.session_of(&agent) else {
                    return false;
                };
                self.send(&session, "SomethingNew", &json!({}), None);
            }
            NamedFault::AgentRefresh { version, agent } => {
                let meant = |name: &str| {
                    agent
                        .as_deref()
                        .is_none_or(|agent| agent.eq_ignore_ascii_case(name))
                };
                let agents = self.agents.values().filter(|agent| meant(&agent.name));
                let agents: Vec<u64> = agents.map(|agent| agent.id).collect();
                for id in agents {
                    self.refresh_agent(id, &version, "manual", now);
                }
            }
            NamedFault::LosePostResponse { times } => {
                let matching = Matching::new("POST", "*/agents");
                let rule = FaultRule::new(matching, FaultAction::CloseAfter).times(times);
                self.add_fault(rule, now);
            }
            NamedFault::RevokeToken { agent } => {
                let matching = Matching {
                    agent: Some(agent),
                    credential: Some(CredentialKind::AgentToken),
                    ..Matching::default()
                };
                let action = FaultAction::error(403, "TaskAgentAccessTokenExpiredException");
                self.add_fault(FaultRule::new(matching, action), now);
            }
            NamedFault::FirstRenewFails { times, agent } => {
                let rule = FaultRule::new(of(renewal, agent), FaultAction::status(500));
                self.add_fault(rule.times(times), now);
            }
            NamedFault::RenewFailsFrom { after_ms, agent } => {
                let rule = FaultRule::new(of(renewal, agent), FaultAction::status(500));
                self.add_fault(FaultRule { after_ms, ..rule }, now);
            }
            NamedFault::ConflictForever { agent } => {
                let action = FaultAction::error(409, "TaskAgentSessionConflictException");
                let matching = of(Matching::new("POST", "*/sessions"), agent);
                self.add_fault(FaultRule::new(matching, action), now);
            }
            NamedFault::BusyDelete { times, agent } => {
                let action = FaultAction::error(409, "TaskAgentJobStillRunningException");
                let matching = of(Matching::new("DELETE", "*/agents/*"), agent);
                self.add_fault(FaultRule::new(matching, action).times(times), now);
            }
            NamedFault::SlowList { ms } => {
                let matching = Matching::new("GET", "*/agents");
                self.add_fault(FaultRule::new(matching, FaultAction::Delay { ms }), now);
            }
            NamedFault::RateLimitDelayWith200 { seconds } => {
                let headers = BTreeMap::from([
                    ("Retry-After".to_owned(), seconds.to_string()),
                    ("X-RateLimit-Delay".to_owned(), format!("{seconds}.0")),
                    ("X-RateLimit-Limit".to_owned(), "200".to_owned()),
                    ("X-RateLimit-Remaining".to_owned(), "10".to_owned()),
                ]);
                let matching = Matching::new("GET", "*/agents");
                self.add_fault(
                    FaultRule::new(matching, FaultAction::AddHeaders { headers }),
                    now,
                );
            }
        }
        self.touch();
        true
    }

    fn agent_id_named(&self, name: &str) -> Option<u64> {
        let mut agents = self.agents.values();
        agents
            .find(|agent| agent.name.eq_ignore_ascii_case(name))
            .map(|agent| agent.id)
    }

    fn placeholders(&self, pool: &str) -> Vec<u64> {
        let began = |id: u64| {
            self.session_posts
                .iter()
                .any(|post| post.agent_id == id && post.accepted)
        };
        let agents = self.agents.values();
        agents
            .filter(|agent| self.pool_name(agent.pool).eq_ignore_ascii_case(pool))
            .map(|agent| agent.id)
            .filter(|id| !began(*id))
            .collect()
    }

    fn session_of(&self, name: &str) -> Option<String> {
        let agent = self.agents.get(&self.agent_id_named(name)?)?;
        agent.session.clone()
    }

    /// Moves the virtual clock.
    pub(super) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.touch();
    }
}
