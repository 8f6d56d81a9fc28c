//! A job's steps on a terminal: the head, a line for each step that has begun, the last lines of
//! the running one, and what is still to come.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::{amount, time_of};
use crate::progress::{Line, bar};
use crate::rows::provision::{ProvisionJob, Step};
use crate::rows::time::took;

/// Returns the lines to draw.
pub(super) fn frame(job: &ProvisionJob, tail: &VecDeque<String>, now: Timestamp) -> Vec<Line> {
    let total = job.steps.len();
    let mut lines = vec![head(job, now)];
    for (index, step) in job
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| !step.is_pending())
    {
        let text = format!(
            " => [{}/{total}] {}{}",
            index + 1,
            step.title,
            outcome(step)
        );
        lines.push(Line {
            text,
            right: time_of(step, now),
        });
        if step.is_running() {
            lines.extend(
                tail.iter()
                    .map(|line| Line::from(format!(" => =>    {line}"))),
            );
        }
    }
    let pending = job
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.is_pending());
    let pending: Vec<String> = pending
        .map(|(index, step)| format!("[{}/{total}] {}", index + 1, step.title))
        .collect();
    if !pending.is_empty() && !job.has_ended() {
        lines.push(Line::from(format!("    {}", pending.join("   "))));
    }
    lines
}

fn head(job: &ProvisionJob, now: Timestamp) -> Line {
    let mark = match job.state.as_str() {
        "succeeded" => "[+]",
        "failed" | "cancelled" => "[!]",
        _ => "[ ]",
    };
    let begun = job.steps.iter().filter(|step| !step.is_pending()).count();
    let time = job
        .took(now)
        .map_or_else(String::new, |time| format!("  {}", took(time)));
    let state = if job.state == "running" {
        String::new()
    } else {
        format!("  {}", job.state)
    };
    Line {
        text: format!(
            "{mark} provision {}{time}  ({begun}/{}){state}",
            job.target,
            job.steps.len()
        ),
        right: format!("job {}", job.id),
    }
}

/// Returns what a step came to, or how far it is.
fn outcome(step: &Step) -> String {
    let word = match step.state.as_str() {
        "failed" => "  FAILED",
        "skipped" => "  skipped",
        "cancelled" => "  cancelled",
        _ => "",
    };
    let detail = step
        .detail
        .as_ref()
        .map_or_else(String::new, |detail| format!("  {detail}"));
    let amount = match (step.is_running(), amount(step)) {
        (true, Some(amount)) => {
            let (done, total) = match step.total_bytes {
                0 => (u64::from(step.percent), 100),
                total => (step.bytes, total),
            };
            format!("  {} {amount}", bar(done, total, 20))
        }
        (false, Some(amount)) if step.total_bytes != 0 => format!("  {amount}"),
        _ => String::new(),
    };
    format!("{word}{detail}{amount}")
}

#[cfg(test)]
mod tests {
    use iap_common::v1;

    use super::*;

    const NOW: i64 = 1_000;

    fn at(second: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp {
            seconds: second,
            nanos: 0,
        })
    }

    fn step(title: &str, state: v1::StepState, times: [Option<i64>; 2]) -> v1::ProvisionStep {
        v1::ProvisionStep {
            title: title.to_owned(),
            state: state.into(),
            started_at: times[0].and_then(at),
            ended_at: times[1].and_then(at),
            ..v1::ProvisionStep::default()
        }
    }

    fn job(steps: Vec<v1::ProvisionStep>) -> ProvisionJob {
        ProvisionJob::from(v1::ProvisionJob {
            id: "91c2e0".to_owned(),
            target: "linux".to_owned(),
            state: v1::JobState::Running.into(),
            started_at: at(NOW - 102),
            steps,
            ..v1::ProvisionJob::default()
        })
    }

    fn drawn(job: &ProvisionJob, tail: &[&str]) -> String {
        let tail = tail.iter().map(|line| (*line).to_owned()).collect();
        let lines = frame(job, &tail, Timestamp::from_second(NOW).unwrap());
        let lines: Vec<String> = lines
            .iter()
            .map(|line| format!("{:<70}|{}", line.text, line.right))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn a_running_step_shows_its_last_lines_and_pending_ones_share_a_line() {
        let done = step("resolve base", v1::StepState::Done, [Some(898), Some(900)]);
        let running = step("script tools.sh", v1::StepState::Running, [Some(942), None]);
        let pending = |title| step(title, v1::StepState::Pending, [None, None]);
        let job = job(vec![
            done,
            running,
            pending("smoke test"),
            pending("publish"),
        ]);
        insta::assert_snapshot!(drawn(&job, &["Reading package lists...", "Setting up nodejs"]), @"
        [ ] provision linux  1m42s  (2/4)                                     |job 91c2e0
         => [1/4] resolve base                                                |2.0s
         => [2/4] script tools.sh                                             |58.0s
         => =>    Reading package lists...                                    |
         => =>    Setting up nodejs                                           |
            [3/4] smoke test   [4/4] publish                                  |
        ");
    }

    #[test]
    fn moved_bytes_are_a_bar_while_the_step_runs_and_a_sum_afterwards() {
        let mut agent = step("agent", v1::StepState::Running, [Some(990), None]);
        agent.bytes = 71_000_000;
        agent.total_bytes = 142_100_000;
        let mut publish = step("publish", v1::StepState::Running, [Some(990), None]);
        publish.percent = 40;
        let mut ended = step("agent", v1::StepState::Done, [Some(990), Some(999)]);
        ended.detail = "sha256 ok".to_owned();
        ended.bytes = 142_100_000;
        ended.total_bytes = 142_100_000;
        insta::assert_snapshot!(drawn(&job(vec![agent, publish, ended]), &[]), @"
        [ ] provision linux  1m42s  (3/3)                                     |job 91c2e0
         => [1/3] agent  [#########-----------] 71.0/142.1 MB                 |10.0s
         => [2/3] publish  [########------------] 40%                         |10.0s
         => [3/3] agent  sha256 ok  142.1/142.1 MB                            |9.0s
        ");
    }
}
