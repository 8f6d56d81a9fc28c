//! What is going to happen to a registration without an instance here, in words.

use std::time::Duration;

use tokio::time::Instant;

use super::Ghost;

/// Whose it is, and what is known of that owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// This host's.
    Ours {
        /// A pool's task takes care of it: why it could not yet, in words, or nothing.
        watched: Option<&'a str>,
        /// One of ours is online without an instance here, so nothing is swept.
        looks_cloned: bool,
    },
    /// Another's.
    Others {
        /// One of that owner's is online or has a job.
        lives: bool,
        /// It is being removed: what it waits for, in words, or nothing.
        adopted: Option<&'a str>,
    },
}

/// Says what is going to happen; the last list began at `listed`.
pub fn outlook(
    ghost: &Ghost,
    whose: Whose<'_>,
    listed: Option<Instant>,
    grace: Duration,
) -> String {
    let left = ghost.left(listed, grace);
    match whose {
        Whose::Ours { watched: None, .. } => {
            "of no configured pool: swept after the next reload or start".to_owned()
        }
        Whose::Ours { .. } if !ghost.facts.is_dead() => "stays while it is alive".to_owned(),
        Whose::Ours {
            watched: Some(detail),
            ..
        } if !detail.is_empty() => detail.to_owned(),
        Whose::Ours {
            looks_cloned: true, ..
        } => "stays while an agent of this host is online elsewhere: a clone?".to_owned(),
        Whose::Ours { .. } if left.is_zero() => "is being swept".to_owned(),
        Whose::Ours { .. } => format!("swept in {}", span(left)),
        Whose::Others {
            adopted: Some(""), ..
        } => "adopted: is being removed".to_owned(),
        Whose::Others {
            adopted: Some(detail),
            ..
        } => format!("adopted: {detail}"),
        Whose::Others { lives: true, .. } => "another host's, which lives".to_owned(),
        Whose::Others { .. } if left.is_zero() => "another host's: can be adopted".to_owned(),
        Whose::Others { .. } => format!("another host's: can be adopted in {}", span(left)),
    }
}

/// Returns a length of time that is still to go, never shorter than it is: `45s`, `4m`, `2h05m`.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    let minutes = seconds.div_ceil(60);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        _ => format!("{}h{:02}m", minutes / 60, minutes % 60),
    }
}
