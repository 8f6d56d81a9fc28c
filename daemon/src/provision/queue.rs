//! Which job runs when: in the order they came, a few at a time, and never two for one target.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

use super::request::JobRequest;

/// Jobs that run at a time. They share the disk and the mirror, and pools want the CPU.
pub(super) const AT_A_TIME: usize = 2;

/// What two jobs must not make at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    project: String,
    alias: String,
}

impl Target {
    pub(super) fn of(request: &JobRequest) -> Self {
        Self {
            project: request.project.clone(),
            alias: request.target.clone(),
        }
    }
}

/// A job whose turn has not come.
pub(super) struct Waiting {
    pub(super) job: String,
    pub(super) request: JobRequest,
    pub(super) cancel: CancellationToken,
}

/// Returns which of the waiting jobs may run beside those that do.
pub(super) fn next(waiting: &[Target], running: &[Target]) -> Option<usize> {
    if running.len() >= AT_A_TIME {
        return None;
    }
    waiting.iter().position(|target| !running.contains(target))
}

/// Takes out the job whose turn it is.
pub(super) fn take_next(waiting: &mut VecDeque<Waiting>, running: &[Target]) -> Option<Waiting> {
    let targets: Vec<_> = waiting.iter().map(|job| Target::of(&job.request)).collect();
    waiting.remove(next(&targets, running)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(names: &[&str]) -> Vec<Target> {
        names
            .iter()
            .map(|name| {
                let (project, alias) = name.split_once(':').unwrap_or(("default", name));
                Target {
                    project: project.to_owned(),
                    alias: alias.to_owned(),
                }
            })
            .collect()
    }

    #[test]
    fn jobs_run_in_order_but_never_two_for_one_target() {
        for (waiting, running, expected) in [
            (&["a", "b"][..], &[][..], Some(0)),
            (&["a", "b"], &["a"], Some(1)),
            (&["a", "a"], &["a"], None),
            (&["c"], &["a", "b"], None),
            (&["p:a"], &["a"], Some(0)),
            (&[], &["a"], None),
        ] {
            let found = next(&targets(waiting), &targets(running));
            assert_eq!(found, expected, "{waiting:?} beside {running:?}");
        }
    }
}
