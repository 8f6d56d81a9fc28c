//! What happens to a pool when the daemon is killed, when Azure fails and when things happen at
//! once: `iapd` as a process on the real Incus, Azure simulated, faults on request.

use std::time::Duration;

mod reconcile {
    mod adoption;
    mod azure;
    mod changes;
    mod drains;
    mod failing_agents;
    mod ghosts;
    mod images;
    mod kills;
    mod moves;
    mod neighbour;
    mod neighbours;
    mod pauses;
    mod project;
    mod restricted;
    mod room;
    mod spares;
    mod vms;
    mod world;
}

/// Starting and ending an agent takes about a second here; a busy machine needs more.
const SOON: Duration = Duration::from_secs(60);
