//! Stand-in for the Azure Pipelines agent, for tests.
//!
//! On the wire it does what the real listener and worker do with `run.sh --once`, and from the machine
//! it takes only what the real ones take: the three files beside `bin/`. Whatever would fail with the
//! real agent has to fail here: the files are read strictly, requests are made in the real order, exit
//! codes and console lines are the real ones. It never compiles, checks out or downloads anything.
//!
//! ```text
//! run.sh ─► bin/Agent.Listener ── session, messages, lock renewal ──► service
//!                  │ job message (stdin)
//!                  └─► bin/Agent.Worker ── log, JobCompleted ────────► service (the job's own token)
//! ```
//!
//! Variables of the agent's environment, for tests:
//!
//! | variable | effect |
//! |---|---|
//! | `FAKE_AGENT_SOCKET` | unix socket of the service (default `/srv/azure-sim/azure.sock` if it is there) |
//! | `FAKE_AGENT_TIME_SCALE` | waits are divided by this; the simulator needs the same |
//! | `FAKE_AGENT_FORBIDDEN` | SHA-256 of secrets; exit 97 if one is in the environment or the agent's files |
//! | `FAKE_AGENT_SIGTERM` | `net8` or `net10` (default: by the version) |
//! | `FAKE_AGENT_UPDATE_PAUSE` | seconds `run.sh` waits after exit code 4 |
//! | `FAKE_AGENT_NEVER_CONNECT=1` | starts and never talks to the service |
//! | `FAKE_AGENT_HANG_ON_SIGINT=1` | says `Exiting...` and does not |
//! | `FAKE_AGENT_KEEP_RUNNING=1` | stays after its job, session and all |
//!
//! Variables of a job: `sim.script` (base64, run in `_work/1/s`, its output becomes log 1 of the plan),
//! `sim.durationMs`, `sim.result`, `sim.crash`, `sim.ignoreCancelMs`. These times are not scaled.
//!
//! It depends on nothing of `iapd`, so that a mistake cannot be made twice and cancel out.

pub mod clock;
pub mod diag;
pub mod environment;
pub mod error;
pub mod exit;
pub mod files;
pub mod http;
pub mod job;
pub mod key;
pub mod leak;
pub mod listener;
pub mod policy;
pub mod server;
pub mod worker;
