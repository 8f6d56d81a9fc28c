//! How long jobs waited for an agent, for people. Pure.
//!
//! Of the jobs that this host's agents of a pool were given within the last hour: from when they
//! were queued until an agent was chosen, both by Azure's clock. Jobs that wait now count with
//! what they have waited so far; without them nothing would seem wrong while nothing moves.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::azure::JobRequest;

/// Jobs that were given to an agent longer ago are forgotten.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// More are not remembered; the newest stay.
const MOST: usize = 1000;

/// The jobs of the last hour by Azure's number.
#[derive(Debug, Default)]
pub struct Waits {
    jobs: BTreeMap<i64, Waited>,
}

#[derive(Debug, Clone, Copy)]
struct Waited {
    assigned_at: Timestamp,
    waited: Duration,
}

/// What is told of waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitSummary {
    /// 95 of 100 jobs waited no longer.
    pub p95: Duration,
    /// So many jobs are counted.
    pub jobs: usize,
}

impl Waits {
    /// Notes a job that was given to an agent; one that is known already is not counted again.
    pub fn note(
        &mut self,
        request_id: i64,
        queued_at: Option<Timestamp>,
        assigned_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        let (Some(queued_at), Some(assigned_at)) = (queued_at, assigned_at) else {
            return;
        };
        if is_old(assigned_at, now) || self.jobs.contains_key(&request_id) {
            return;
        }
        let waited = between(queued_at, assigned_at);
        self.jobs.insert(
            request_id,
            Waited {
                assigned_at,
                waited,
            },
        );
        self.jobs.retain(|_, job| !is_old(job.assigned_at, now));
        while self.jobs.len() > MOST {
            self.jobs.pop_first();
        }
    }

    /// Returns how long jobs wait, `waiting` among them; nothing when there was none.
    pub fn summary(&self, waiting: &[JobRequest], now: Timestamp) -> Option<WaitSummary> {
        let past = self.jobs.values();
        let past = past
            .filter(|job| !is_old(job.assigned_at, now))
            .map(|job| job.waited);
        let present = waiting.iter().filter_map(|job| job.queue_time);
        let present = present.map(|queued_at| between(queued_at, now));
        let mut all: Vec<Duration> = past.chain(present).collect();
        all.sort_unstable();
        // The nearest rank: of up to 19 jobs the longest.
        let rank = (all.len() * 95).div_ceil(100);
        Some(WaitSummary {
            p95: *all.get(rank.checked_sub(1)?)?,
            jobs: all.len(),
        })
    }
}

fn is_old(assigned_at: Timestamp, now: Timestamp) -> bool {
    between(assigned_at, now) > WINDOW
}

/// Clocks that differ make a wait short, never negative.
fn between(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Notes a job that waited so many seconds until `assigned`.
    fn note(waits: &mut Waits, id: i64, waited: i64, assigned: i64) {
        let queued = Some(at(assigned - waited));
        waits.note(id, queued, Some(at(assigned)), at(assigned));
    }

    fn p95(waits: &Waits, now: i64) -> Option<(u64, usize)> {
        let summary = waits.summary(&[], at(now))?;
        Some((summary.p95.as_secs(), summary.jobs))
    }

    #[test]
    fn ninety_five_of_a_hundred_jobs_waited_no_longer() {
        let mut waits = Waits::default();
        assert_eq!(p95(&waits, 0), None);
        for id in 1..=100 {
            note(&mut waits, id, id, 10_000);
        }
        assert_eq!(p95(&waits, 10_000), Some((95, 100)));
        let mut few = Waits::default();
        note(&mut few, 1, 3, 10_000);
        note(&mut few, 2, 370, 10_000);
        assert_eq!(
            p95(&few, 10_000),
            Some((370, 2)),
            "of few it is the longest"
        );
    }

    #[test]
    fn a_job_is_counted_once_and_for_an_hour() {
        let mut waits = Waits::default();
        note(&mut waits, 1, 50, 10_000);
        waits.note(1, Some(at(9000)), Some(at(10_001)), at(10_002));
        assert_eq!(p95(&waits, 13_600), Some((50, 1)));
        assert_eq!(p95(&waits, 13_601), None);
        // Its agent is remembered for longer than the hour.
        waits.note(1, Some(at(9950)), Some(at(10_000)), at(14_000));
        assert_eq!(p95(&waits, 14_000), None);
    }

    #[test]
    fn jobs_that_wait_now_count_with_what_they_have_waited() {
        let mut waits = Waits::default();
        note(&mut waits, 1, 2, 10_000);
        let waiting = JobRequest {
            queue_time: Some(at(9700)),
            ..JobRequest::default()
        };
        let summary = waits.summary(&[waiting], at(10_060)).unwrap();
        assert_eq!((summary.p95.as_secs(), summary.jobs), (360, 2));
    }

    #[test]
    fn what_azure_does_not_say_is_not_counted_and_clocks_may_differ() {
        let mut waits = Waits::default();
        waits.note(1, None, Some(at(10_000)), at(10_000));
        waits.note(2, Some(at(10_000)), None, at(10_000));
        assert_eq!(p95(&waits, 10_000), None);
        note(&mut waits, 3, -5, 10_000);
        assert_eq!(p95(&waits, 9990), Some((0, 1)));
    }

    #[test]
    fn no_more_are_remembered_than_are_needed() {
        let mut waits = Waits::default();
        for id in 0..1500 {
            note(&mut waits, id, id, 10_000);
        }
        assert_eq!(p95(&waits, 10_000), Some((1449, 1000)));
    }
}
