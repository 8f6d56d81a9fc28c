//! Images of targets.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::time::{Time, age, size};
use super::{
    Column, NOTHING, Row, column, filled, number, or_nothing, plain, short, time_column, word,
};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Image {
    pub(crate) fingerprint: String,
    pub(crate) project: String,
    pub(crate) target: String,
    pub(crate) current: bool,
    origin: String,
    pub(crate) instance_type: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) base: Option<String>,
    base_fingerprint: Option<String>,
    scripts: Vec<String>,
    job: Option<String>,
    created_at: Option<Time>,
    pub(crate) size: u64,
    pools: Vec<String>,
    agents: u32,
    instances: u32,
}

impl From<v1::Image> for Image {
    fn from(image: v1::Image) -> Self {
        Self {
            origin: word(image.origin().as_str_name(), "IMAGE_ORIGIN_"),
            fingerprint: image.fingerprint,
            project: image.project,
            target: image.target,
            current: image.current,
            instance_type: filled(image.instance_type),
            agent_version: filled(plain(&image.agent_version)),
            base: filled(plain(&image.base)),
            base_fingerprint: filled(image.base_fingerprint),
            scripts: image.scripts,
            job: filled(image.job),
            created_at: Time::of(image.created_at),
            size: image.size,
            pools: image.pools,
            agents: image.agents,
            instances: image.instances,
        }
    }
}

impl Image {
    pub(crate) fn short(&self) -> &str {
        short(&self.fingerprint)
    }

    pub(crate) fn age(&self, now: Timestamp) -> Option<String> {
        self.created_at.map(|created| age(created.age(now)))
    }

    pub(crate) fn base_text(&self) -> String {
        match &self.base {
            Some(base) => base.clone(),
            None if self.origin == "foreign" => "not made by iapd".to_owned(),
            None => NOTHING.to_owned(),
        }
    }

    fn used_by(&self) -> String {
        let others = self.instances.saturating_sub(self.agents);
        let mut users = self.pools.clone();
        users.extend(counted(self.agents, "agent"));
        users.extend(counted(others, "other instance"));
        if users.is_empty() {
            return NOTHING.to_owned();
        }
        users.join(", ")
    }

    /// Returns the scripts with the first digits of their hashes.
    fn scripts_text(&self) -> String {
        let scripts: Vec<String> = self
            .scripts
            .iter()
            .map(|script| match script.rsplit_once(':') {
                Some((name, hash)) => format!("{}:{}", plain(name), short(hash)),
                None => plain(script),
            })
            .collect();
        or_nothing(filled(scripts.join(", ")).as_deref())
    }
}

/// Returns `3 agents`, and nothing of none.
fn counted(count: u32, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    }
}

impl Row for Image {
    const PLURAL: &'static str = "images";
    const SINGULAR: &'static str = "image";

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![
            column("TARGET"),
            column("IMAGE"),
            column("CURRENT"),
            column("AGENT"),
            column("BASE"),
            time_column(wide, "CREATED", "AGE"),
            number("SIZE"),
            column("USED BY"),
        ];
        if wide {
            columns.extend(["PROJECT", "TYPE", "JOB", "SCRIPTS"].map(column));
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let (image, created) = if wide {
            let created = self.created_at.map(|created| created.to_string());
            (self.fingerprint.as_str(), created)
        } else {
            (self.short(), self.age(now))
        };
        let mut cells = vec![
            self.target.clone(),
            image.to_owned(),
            if self.current { "*" } else { NOTHING }.to_owned(),
            or_nothing(self.agent_version.as_deref()),
            self.base_text(),
            or_nothing(created.as_deref()),
            size(self.size),
            self.used_by(),
        ];
        if wide {
            cells.extend([
                self.project.clone(),
                or_nothing(self.instance_type.as_deref()),
                or_nothing(self.job.as_deref()),
                self.scripts_text(),
            ]);
        }
        cells
    }

    fn name(&self) -> &str {
        &self.fingerprint
    }
}

/// What a rollback changes.
#[derive(Serialize)]
pub(crate) struct Rollback {
    pub(crate) target: String,
    pub(crate) project: String,
    pub(crate) from: Option<Image>,
    pub(crate) to: Image,
    pools: Vec<String>,
    idle_agents: u32,
    busy_agents: u32,
}

impl Rollback {
    /// Reads an answer; `None` when it lacks the image.
    pub(crate) fn of(answer: v1::RollbackImageResponse) -> Option<Self> {
        let to = Image::from(answer.to?);
        Some(Self {
            target: to.target.clone(),
            project: to.project.clone(),
            from: answer.from.map(Image::from),
            to,
            pools: answer.pools,
            idle_agents: answer.idle_agents,
            busy_agents: answer.busy_agents,
        })
    }

    /// Returns labelled lines of what changes.
    pub(crate) fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let change = |of: &dyn Fn(&Image) -> String| {
            let from = self.from.as_ref().map_or_else(|| NOTHING.to_owned(), of);
            let to = of(&self.to);
            if from == to {
                return to;
            }
            format!("{from} -> {to}")
        };
        let made = |image: &Image| image.age(now).map_or_else(|| NOTHING.to_owned(), ago);
        let mut lines = vec![
            (
                "target",
                format!("{} in project {}", self.target, self.project),
            ),
            ("image", change(&|image| image.short().to_owned())),
            (
                "agent",
                change(&|image| or_nothing(image.agent_version.as_deref())),
            ),
            ("base", change(&Image::base_text)),
            ("made", change(&made)),
        ];
        let kind = |image: &Image| or_nothing(image.instance_type.as_deref());
        if self
            .from
            .as_ref()
            .is_some_and(|from| kind(from) != kind(&self.to))
        {
            lines.push(("type", change(&kind)));
        }
        let pools = filled(self.pools.join(", "));
        lines.push(("pools", pools.unwrap_or_else(|| "none".to_owned())));
        lines.push(("agents", self.agents_text()));
        lines
    }

    fn agents_text(&self) -> String {
        let idle = match self.idle_agents {
            0 => None,
            1 => Some("1 idle one is replaced".to_owned()),
            idle => Some(format!("{idle} idle ones are replaced")),
        };
        let busy = match self.busy_agents {
            0 => None,
            1 => Some("1 busy one finishes its job first".to_owned()),
            busy => Some(format!("{busy} busy ones finish their jobs first")),
        };
        let turns: Vec<String> = idle.into_iter().chain(busy).collect();
        if turns.is_empty() {
            return "none to replace".to_owned();
        }
        turns.join(", ")
    }
}

fn ago(age: String) -> String {
    age + " ago"
}
