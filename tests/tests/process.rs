//! `iapd` as a process: what it says to a bad configuration and on a bad day, how it starts and
//! stops, what it makes of an Incus that does not work.

use std::time::Duration;

mod process {
    mod config;
    mod doctor;
    mod fleet;
    mod grpc;
    mod guests;
    mod incus_faults;
    mod incus_lost_answers;
    mod incus_restarts;
    mod program;
    mod provision;
    mod remote;
    mod signals;
    mod start;
    mod systemd;
    mod viewers;
    mod way;
}

/// Starting and ending an agent takes about a second here; a busy machine needs more.
const SOON: Duration = Duration::from_secs(60);
/// For what needs no agent.
const QUICK: Duration = Duration::from_secs(10);
