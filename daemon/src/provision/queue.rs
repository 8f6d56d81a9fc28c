//! Which job runs when: in the order they came, a few at a time, and never two for one target.
//! Changes of a target's images take their turns with its jobs.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

use super::images::Change;
use super::job::Job;
use super::request::JobRequest;

/// Jobs that run at a time. They share the disk and the mirror, and pools want the CPU.
pub(super) const AT_A_TIME: usize = 2;

/// What two jobs must not make at the same time, and no change of images touch meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Incus project.
    pub project: String,
    /// The alias.
    pub alias: String,
}

impl Target {
    pub(super) fn of(request: &JobRequest) -> Self {
        Self {
            project: request.project.clone(),
            alias: request.target.clone(),
        }
    }

    pub(super) fn of_job(job: &Job) -> Self {
        Self {
            project: job.project.clone(),
            alias: job.target.clone(),
        }
    }
}

/// A job whose turn has not come.
pub(super) struct Waiting {
    pub(super) job: String,
    pub(super) request: JobRequest,
    pub(super) cancel: CancellationToken,
}

/// Returns which of the waiting jobs may run beside those that do and the targets whose images are
/// changed.
pub(super) fn next(waiting: &[Target], running: &[Target], changed: &[Target]) -> Option<usize> {
    if running.len() >= AT_A_TIME {
        return None;
    }
    waiting
        .iter()
        .position(|target| !running.contains(target) && !changed.contains(target))
}

/// Takes out the job whose turn it is.
pub(super) fn take_next(
    waiting: &mut VecDeque<Waiting>,
    running: &[Target],
    changed: &[Target],
) -> Option<Waiting> {
    let targets: Vec<_> = waiting.iter().map(|job| Target::of(&job.request)).collect();
    waiting.remove(next(&targets, running, changed)?)
}

/// Takes out the first change of a target that nothing works on.
pub(super) fn take_change(
    asked: &mut VecDeque<Change>,
    running: &[Target],
    changed: &[Target],
) -> Option<Change> {
    let free = |change: &Change| {
        let target = change.target();
        !running.contains(target) && !changed.contains(target)
    };
    asked.remove(asked.iter().position(free)?)
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
        for (waiting, running, changed, expected) in [
            (&["a", "b"][..], &[][..], &[][..], Some(0)),
            (&["a", "b"], &["a"], &[], Some(1)),
            (&["a", "a"], &["a"], &[], None),
            (&["c"], &["a", "b"], &[], None),
            (&["p:a"], &["a"], &[], Some(0)),
            (&[], &["a"], &[], None),
            (&["a", "b"], &[], &["a"], Some(1)),
            (&["d"], &["a"], &["b", "c"], Some(0)),
        ] {
            let found = next(&targets(waiting), &targets(running), &targets(changed));
            assert_eq!(
                found, expected,
                "{waiting:?} beside {running:?} and {changed:?}"
            );
        }
    }
}
