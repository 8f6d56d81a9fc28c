//! The members of the Incus cluster.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::intent::Pause;
use super::{Column, Row, column, filled, number, or_nothing, plain, state, word};

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
        }
    }
}

impl Member {
    fn state_cell(&self) -> String {
        match self.drain {
            Some(_) => format!("{},drained", self.state),
            None => self.state.clone(),
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
            number("CORES"),
        ];
        if wide {
            columns.push(column("GROUPS"));
            columns.push(column("MESSAGE"));
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
            self.cores.to_string(),
        ];
        if wide {
            cells.push(self.groups.join(","));
            cells.push(or_nothing(self.message.as_deref().map(plain).as_deref()));
        }
        let drain = self.drain.as_ref().map(|drain| drain.drained(now));
        cells.push(or_nothing(drain.as_deref()));
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}
