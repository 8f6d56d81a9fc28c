//! The members of the cluster: taken in at each pass, and told where they are in the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::members::{Member, Standing};

use super::super::ledger::Entry;
use super::super::placement::Wish;
use super::super::plan::MemberView;
use super::super::room;
use super::super::status::{AgentStatus, MemberStatus, PoolKey};
use super::Reconciler;

impl Reconciler {
    /// Takes in how the cluster's members are, and tells where this pool's agents are.
    pub(super) fn take_members(&mut self) {
        let members = Arc::clone(&self.members.borrow_and_update());
        if members.is_cluster() {
            let spec = &self.order.spec;
            let mut leaving = members.standing(Standing::Evacuated);
            leaving.extend(self.drained_members());
            let wish = Wish {
                target: spec.instance.target.as_deref(),
                leaving: &leaving,
                storage: None,
            };
            let takes = |member: &Member| wish.fits(member);
            self.member_view = MemberView {
                offline: members.standing(Standing::Offline),
                lost: members.lost(spec.member_grace),
                none_takes: !members.all.values().any(takes),
                leaving,
            };
        } else {
            self.member_view = MemberView::default();
        }
        for (_, entry) in self.ledger.iter_mut() {
            if let Some(instance) = &entry.instance {
                let member = members.all.get(&instance.location);
                entry.past.out_of_reach = members.is_cluster()
                    && member.is_none_or(|member| member.standing == Standing::Offline);
                entry.past.was_out_of_reach |= entry.past.out_of_reach;
            }
        }
        let mut on: BTreeMap<String, usize> = BTreeMap::new();
        for (_, entry) in self.ledger.iter() {
            let location = entry.instance.as_ref().map(|i| &i.location);
            if let Some(member) = location.filter(|location| !location.is_empty()) {
                *on.entry(member.clone()).or_default() += 1;
            }
        }
        let key = PoolKey::of(&self.order.spec);
        self.shared.placement.report(&key, on);
    }

    /// Returns the members that may have agents of this pool, or have.
    pub(super) fn member_statuses(&self, agents: &[AgentStatus]) -> Vec<MemberStatus> {
        let members = Arc::clone(&self.members.borrow());
        let wish = self.wish();
        let has = |name: &str| agents.iter().any(|agent| agent.location == name);
        let all = members.all.values();
        all.filter(|member| member.is_meant_for(wish.target) || has(&member.name))
            .map(|member| {
                let short = room::member_shortage(&members, &member.name, wish.storage);
                MemberStatus {
                    name: member.name.clone(),
                    standing: member.standing,
                    leaving: wish.leaving.contains(&member.name),
                    full: short.map(|short| short.words),
                }
            })
            .collect()
    }

    /// Says what of the cluster keeps the pool from being as wanted.
    pub(super) fn member_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let view = &self.member_view;
        if view.none_takes && !self.order.removed {
            let target = self.order.spec.instance.target.as_ref();
            let target = target.map_or_else(String::new, |target| format!(" for {target}"));
            problems.push(format!(
                "no member of the cluster takes a new agent{target}: see iapctl members ls"
            ));
        }
        for member in &view.offline {
            let on = |entry: &&Entry| {
                let instance = entry.instance.as_ref();
                instance.is_some_and(|instance| instance.location == *member)
            };
            let count = self
                .ledger
                .iter()
                .map(|(_, entry)| entry)
                .filter(on)
                .count();
            if count > 0 {
                let s = if count == 1 { "" } else { "s" };
                problems.push(format!(
                    "cluster member {member} is offline: its {count} agent{s} may run on, and \
                     {} replaced when Azure shows them offline and without a job",
                    if view.lost.contains(member) {
                        "are"
                    } else {
                        "will be"
                    }
                ));
            }
        }
        problems
    }
}
