//! The wish that an agent's instance stays for debugging, kept on the instance itself, so that it
//! outlives this daemon, Incus and the host. It ends by the host's clock.

use std::time::Duration;

use jiff::Timestamp;

use super::key;

/// Why and until when an instance stays after its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// When the instance goes.
    pub until: Timestamp,
    /// A word of the pool's policy, or what an operator said; may be empty.
    pub reason: String,
    /// The operator who asked for it; empty when the pool's policy did.
    pub by: String,
    /// Since when its agent has ended. Before that it is a wish, and the agent may have a job.
    pub since: Option<Timestamp>,
}

impl Keep {
    /// Returns the moment that long after `wall`, in whole seconds.
    pub fn end_after(wall: Timestamp, length: Duration) -> Timestamp {
        let end = wall.checked_add(length).unwrap_or(Timestamp::MAX);
        Timestamp::from_second(end.as_second()).unwrap_or(end)
    }

    /// Reads it off an instance's configuration. Without a time that is understood there is none:
    /// nothing stays for ever by mistake.
    pub fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let text = |key| value(key).unwrap_or_default().to_owned();
        Some(Self {
            until: value(key::KEEP_UNTIL)?.parse().ok()?,
            reason: text(key::KEEP_REASON),
            by: text(key::KEEP_BY),
            since: value(key::KEPT_SINCE).and_then(|since| since.parse().ok()),
        })
    }

    /// Returns the keys that say it.
    pub fn pairs(&self) -> [(&'static str, Option<String>); 4] {
        [
            (key::KEEP_UNTIL, Some(self.until.to_string())),
            (key::KEEP_REASON, Some(self.reason.clone())),
            (key::KEEP_BY, Some(self.by.clone())),
            (key::KEPT_SINCE, self.since.map(|since| since.to_string())),
        ]
    }

    /// Returns whether `other` says the same, whether its agent has ended or not.
    pub fn is_like(&self, other: &Self) -> bool {
        let said = |keep: &Self| (keep.until, keep.reason.clone(), keep.by.clone());
        said(self) == said(other)
    }

    /// Returns whether its time is over.
    pub fn is_over(&self, wall: Timestamp) -> bool {
        self.until <= wall
    }

    /// Returns whether the pool's policy asked for it.
    pub fn is_policy(&self) -> bool {
        self.by.is_empty()
    }

    /// Returns whether nothing but the instance is left: its agent has ended.
    pub fn has_ended(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn keep() -> Keep {
        Keep {
            until: Timestamp::from_second(7200).unwrap(),
            reason: "job-failed".into(),
            by: String::new(),
            since: Timestamp::from_second(60).ok(),
        }
    }

    fn written(keep: &Keep) -> BTreeMap<&'static str, String> {
        let pairs = keep.pairs().into_iter();
        pairs
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    #[test]
    fn what_is_written_on_an_instance_is_read_back() {
        let wish = Keep {
            by: "ana".into(),
            since: None,
            ..keep()
        };
        for keep in [keep(), wish] {
            let config = written(&keep);
            let read = Keep::read(|key| config.get(key).map(String::as_str));
            assert_eq!(read, Some(keep));
        }
    }

    #[test]
    fn a_time_that_is_not_understood_keeps_nothing() {
        let mut config = written(&keep());
        config.insert(key::KEEP_UNTIL, "for ever".into());
        assert_eq!(Keep::read(|key| config.get(key).map(String::as_str)), None);
        assert_eq!(Keep::read(|_| None), None);
    }

    #[test]
    fn it_is_over_by_the_clock_and_not_before() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!keep().is_over(at(7199)));
        assert!(keep().is_over(at(7200)));
    }
}
