//! The whole thing: `iapd` as a process on the real Incus, jobs from the simulator.

use std::time::Duration;

mod e2e {
    mod drain;
    mod history;
    mod jobs;
    mod keep;
    mod restarts;
    mod secrets;
}

/// Starting and ending an agent takes about a second here; a busy machine needs more.
const SOON: Duration = Duration::from_secs(60);
/// For a whole batch of jobs.
const LATER: Duration = Duration::from_secs(180);
