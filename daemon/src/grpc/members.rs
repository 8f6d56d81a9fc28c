//! The members of the cluster, with the agents on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;

use iap_common::v1;

use crate::agent::AgentState;
use crate::intents::Pause;
use crate::members::{Amount, Member, Standing};
use crate::pool::status::{AgentStatus, MemberStatus, PoolStatus};

use super::{Services, intents, status};

fn state(standing: Standing) -> v1::MemberState {
    match standing {
        Standing::Online => v1::MemberState::Online,
        Standing::Offline => v1::MemberState::Offline,
        Standing::Evacuated => v1::MemberState::Evacuated,
        Standing::Other => v1::MemberState::Other,
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn space(amount: Amount) -> v1::Space {
    v1::Space {
        free: amount.free,
        total: amount.total,
    }
}

fn storage(pools: &BTreeMap<String, Amount>) -> Vec<v1::StorageSpace> {
    let pools = pools.iter().map(|(name, amount)| v1::StorageSpace {
        storage_pool: name.clone(),
        free: amount.free,
        total: amount.total,
    });
    pools.collect()
}

/// Returns what a pool has on each member.
pub(super) fn of_pool(pool: &PoolStatus) -> Vec<v1::PoolMember> {
    let told = |member: &MemberStatus| {
        let here = |agent: &&AgentStatus| {
            agent.location == member.name && agent.state != AgentState::Spare
        };
        let here: Vec<_> = pool.agents.iter().filter(here).collect();
        let count = |wanted| number(here.iter().filter(|agent| agent.state == wanted).count());
        v1::PoolMember {
            name: member.name.clone(),
            state: state(member.standing).into(),
            leaving: member.leaving,
            agents: number(here.len()),
            busy: count(AgentState::Busy),
            idle: count(AgentState::Idle),
            full: member.full.clone().unwrap_or_default(),
        }
    };
    pool.members.iter().map(told).collect()
}

impl Services {
    pub(super) fn all_members(&self) -> Vec<v1::Member> {
        let members = Arc::clone(&self.members.borrow());
        let statuses = self.statuses();
        let drains = self.intents.now();
        let told = |member: &Member, drain: Option<&Pause>| {
            let agents = statuses.iter().flat_map(|pool| &pool.agents);
            let here: Vec<AgentState> = agents
                .filter(|agent| agent.location == member.name)
                .map(|agent| agent.state)
                .collect();
            let count = |wanted| number(here.iter().filter(|state| **state == wanted).count());
            let room = members.rooms.get(&member.name);
            let seen = statuses.iter().flat_map(|pool| &pool.members);
            let mut full = seen.filter(|seen| seen.name == member.name);
            v1::Member {
                name: member.name.clone(),
                state: state(member.standing).into(),
                message: member.message.clone(),
                agents: number(here.len()),
                busy: count(AgentState::Busy),
                idle: count(AgentState::Idle),
                cores: number(member.cores),
                groups: member.groups.clone(),
                drain: drain.map(intents::plain_pause),
                memory: room.and_then(|room| room.memory).map(space),
                storage: room.map_or_else(Vec::new, |room| storage(&room.storage)),
                full: full.find_map(|seen| seen.full.clone()).unwrap_or_default(),
            }
        };
        let all = members.all.values();
        all.map(|member| told(member, drains.members.get(&member.name)))
            .collect()
    }

    /// Returns one member, or the error for a name that is none.
    pub(super) fn one_member(&self, name: &str) -> Result<v1::Member, Status> {
        let members = self.all_members();
        if members.is_empty() {
            let text = "Incus is no cluster: there are no members (iapctl drain is for this host)";
            return Err(Status::failed_precondition(text));
        }
        match members.iter().find(|member| member.name == name) {
            Some(member) => Ok(member.clone()),
            None => {
                let known = members.iter().map(|member| member.name.as_str());
                Err(status::no_such("member", name, known))
            }
        }
    }
}
