//! What the doctor found: the worst first, with why and what to do.

use std::fmt::Write as _;

use iap_common::v1;
use iap_common::v1::CheckSeverity;
use serde::Serialize;

use super::{filled, plain, word};
use crate::style;

/// Wide enough for the longest word.
const WORD: usize = 9;

#[derive(Serialize)]
pub(crate) struct Diagnosis {
    /// Whether nothing is an error: not a field of `iap.v1`, the same as exit code 0.
    pub(crate) healthy: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    id: String,
    title: String,
    severity: String,
    finding: String,
    why: Option<String>,
    fix: Option<String>,
    subject: Option<String>,
    #[serde(skip)]
    rank: CheckSeverity,
}

impl From<v1::DiagnoseResponse> for Diagnosis {
    fn from(response: v1::DiagnoseResponse) -> Self {
        let checks: Vec<Check> = response.checks.into_iter().map(Check::from).collect();
        Self {
            healthy: !checks
                .iter()
                .any(|check| check.rank == CheckSeverity::Error),
            checks,
        }
    }
}

impl From<v1::Check> for Check {
    fn from(check: v1::Check) -> Self {
        let rank = check.severity();
        Self {
            severity: word(rank.as_str_name(), "CHECK_SEVERITY_"),
            id: check.id,
            title: check.title,
            finding: check.finding,
            why: filled(check.why),
            fix: filled(check.fix),
            subject: filled(check.subject),
            rank,
        }
    }
}

impl Diagnosis {
    /// Returns the ids of what is not as it should be, a line each.
    pub(crate) fn names(&self) -> String {
        let bad = self.checks.iter().filter(|check| check.is_bad());
        let ids: Vec<&str> = bad.map(|check| check.id.as_str()).collect();
        ids.join("\n")
    }

    /// Returns the checks for people, and a line that counts them. With `all`, what is as it
    /// should be is told in full, too.
    pub(crate) fn text(&self, all: bool) -> String {
        let mut text = String::new();
        let mut before = None;
        for (rank, ..) in RANKS {
            for check in self.checks.iter().filter(|check| check.rank == rank) {
                let block = check.text(all);
                let is_long = block.lines().count() > 1;
                // One-liners of a kind stand together; everything else has room around it.
                if before.is_some_and(|before| before != (rank, false) || is_long) {
                    text.push('\n');
                }
                before = Some((rank, is_long));
                text.push_str(&block);
            }
        }
        if before.is_some() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", self.count());
        text
    }

    fn count(&self) -> String {
        let counts: Vec<String> = RANKS
            .iter()
            .filter_map(|(rank, one, many)| {
                let found = self.checks.iter().filter(|check| check.rank == *rank);
                match found.count() {
                    0 => None,
                    1 => Some(format!("1 {one}")),
                    number => Some(format!("{number} {many}")),
                }
            })
            .collect();
        counts.join(", ")
    }
}

/// Worst first: how a severity is counted. One that a newer daemon has and this program does not
/// know is the first.
const RANKS: [(CheckSeverity, &str, &str); 6] = [
    (CheckSeverity::Unspecified, "unknown", "unknown"),
    (CheckSeverity::Error, "error", "errors"),
    (CheckSeverity::Warning, "warning", "warnings"),
    (CheckSeverity::Notice, "notice", "notices"),
    (CheckSeverity::Skipped, "skipped", "skipped"),
    (CheckSeverity::Ok, "ok", "ok"),
];

impl Check {
    fn is_bad(&self) -> bool {
        !matches!(self.rank, CheckSeverity::Ok | CheckSeverity::Skipped)
    }

    /// Returns `WARNING  image (linux): ...`, and below it why and what to do.
    fn text(&self, all: bool) -> String {
        let word = match self.rank {
            CheckSeverity::Error | CheckSeverity::Warning => self.severity.to_uppercase(),
            _ => self.severity.clone(),
        };
        let about = self
            .subject
            .as_ref()
            .map_or_else(String::new, |subject| format!(" ({})", plain(subject)));
        let mut text = format!(
            "{}{}{about}: {}\n",
            style::state(&format!("{word:<WORD$}")),
            plain(&self.title),
            plain(&self.finding)
        );
        if self.is_bad() || all {
            indent(&mut text, "why", self.why.as_deref());
        }
        indent(&mut text, "fix", self.fix.as_deref());
        text
    }
}

/// Writes a labelled paragraph below a check.
fn indent(text: &mut String, label: &str, lines: Option<&str>) {
    let mut label = label;
    for line in lines.unwrap_or_default().lines() {
        let _ = writeln!(text, "  {label:<width$}{}", plain(line), width = WORD - 2);
        label = "";
    }
}
