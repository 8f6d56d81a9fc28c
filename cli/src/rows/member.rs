//! The members of the Incus cluster.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::intent::Pause;
use super::time::gibibytes;
use super::{Column, NOTHING, Row, column, filled, number, or_nothing, plain, state, word};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Member {
    name: String,
    state: String,
    message: Option<String>,
    agents: u32,
    busy: u32,
    cores: u32,
    groups: Vec<String>,
    drain: Option<Pause>,
    idle: u32,
    memory: Option<Space>,
    storage: Vec<StorageSpace>,
    full: Option<String>,
}

#[derive(Serialize, PartialEq, Clone)]
struct Space {
    free: u64,
    total: u64,
}

#[derive(Serialize, PartialEq, Clone)]
struct StorageSpace {
    storage_pool: String,
    free: u64,
    total: u64,
}

impl From<v1::Member> for Member {
    fn from(member: v1::Member) -> Self {
        Self {
            state: word(member.state().as_str_name(), "MEMBER_STATE_"),
            name: member.name,
            message: filled(member.message),
            agents: member.agents,
            busy: member.busy,
            cores: member.cores,
            groups: member.groups,
            drain: member.drain.map(Pause::from),
            idle: member.idle,
            memory: member.memory.map(|space| Space {
                free: space.free,
                total: space.total,
            }),
            storage: member
                .storage
                .into_iter()
                .map(|space| StorageSpace {
                    storage_pool: space.storage_pool,
                    free: space.free,
                    total: space.total,
                })
                .collect(),
            full: filled(member.full),
        }
    }
}

impl Member {
    fn state_cell(&self) -> String {
        let mut state = self.state.clone();
        if self.full.is_some() {
            state.push_str(",full");
        }
        match self.drain {
            Some(_) if self.agents > 0 => state.push_str(",draining"),
            Some(_) => state.push_str(",drained"),
            None => {}
        }
        state
    }

    /// Returns what is left of its storage; of several pools each with its name.
    fn storage_cell(&self) -> String {
        match self.storage.as_slice() {
            [] => NOTHING.to_owned(),
            [one] => gibibytes(one.free),
            several => {
                let pools = several
                    .iter()
                    .map(|pool| format!("{} {}", pool.storage_pool, gibibytes(pool.free)));
                pools.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl Row for Member {
    const PLURAL: &'static str = "members";
    const SINGULAR: &'static str = "member";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            column("MEMBER"),
            state("STATE"),
            number("AGENTS"),
            number("BUSY"),
            number("IDLE"),
            number("CORES"),
            number("MEMORY-FREE"),
            number("DISK-FREE"),
        ];
        if wide {
            columns.push(column("GROUPS"));
            columns.push(column("MESSAGE"));
            columns.push(column("FULL"));
        }
        columns.push(column("DRAIN"));
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            self.state_cell(),
            self.agents.to_string(),
            self.busy.to_string(),
            self.idle.to_string(),
            self.cores.to_string(),
            or_nothing(
                self.memory
                    .as_ref()
                    .map(|memory| gibibytes(memory.free))
                    .as_deref(),
            ),
            self.storage_cell(),
        ];
        if wide {
            cells.push(self.groups.join(","));
            cells.push(or_nothing(self.message.as_deref().map(plain).as_deref()));
            cells.push(or_nothing(self.full.as_deref().map(plain).as_deref()));
        }
        let drain = self.drain.as_ref().map(|drain| drain.drained(now));
        cells.push(or_nothing(drain.as_deref()));
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}
