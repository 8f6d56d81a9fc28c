//! A job's steps in a pipe: `#5 [5/8] script tools.sh`, `#5 12.1 line`, `#5 DONE 58.3s`.

use jiff::Timestamp;

use super::{amount, time_of};
use crate::rows::provision::Step;

/// Returns the lines for what changed between two states of a job's steps.
pub(super) fn changes(old: &[Step], new: &[Step], now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, step) in new.iter().enumerate() {
        let before = old.get(index).map_or("pending", |step| step.state.as_str());
        if before == step.state {
            continue;
        }
        let number = index + 1;
        let began = before == "pending" && !matches!(step.state.as_str(), "skipped" | "cancelled");
        if began {
            lines.push(format!("#{number} [{number}/{}] {}", new.len(), step.title));
        }
        let end = match step.state.as_str() {
            "done" => format!("DONE {}", time_of(step, now)),
            "failed" => format!("ERROR {}", time_of(step, now)),
            "cancelled" if before == "running" => format!("CANCELLED {}", time_of(step, now)),
            "skipped" => format!("[{number}/{}] {} SKIPPED", new.len(), step.title),
            _ => continue,
        };
        let detail = step
            .detail
            .as_ref()
            .map_or_else(String::new, |detail| format!("  {detail}"));
        lines.push(format!("#{number} {end}{detail}"));
    }
    lines
}

/// Returns a line of a step's output, with the seconds since the step began.
pub(super) fn output(index: usize, step: &Step, text: &str, at: Timestamp) -> String {
    let line = format!("#{} {} {text}", index + 1, seconds(step, at));
    line.trim_end().to_owned()
}

/// Returns a line that says that a step still runs.
pub(super) fn still(index: usize, step: &Step, now: Timestamp) -> String {
    let amount = amount(step).map_or_else(String::new, |amount| format!(" {amount}"));
    format!(
        "#{} {} still running: {}{amount}",
        index + 1,
        seconds(step, now),
        step.title
    )
}

fn seconds(step: &Step, at: Timestamp) -> String {
    let since = step
        .started_at
        .map(|start| start.age(at))
        .unwrap_or_default();
    format!("{:.1}", since.as_secs_f64())
}
