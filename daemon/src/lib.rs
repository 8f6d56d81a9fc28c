//! `iapd` keeps pools of single-use Azure Pipelines agents alive in Incus system containers.
//! One agent is one instance is one job.
//!
//! Data moves one way; the only edge that goes back is a small, typed command:
//!
//! ```text
//!  config file ─► reload ──DaemonSpec──► supervisor ──Order──► pool task ───► incus ─► Incus
//!                                                              (one per pool) azure ─► Azure
//!                                                              observe → plan → apply
//!                                                                  │     ▲
//!                                                       PoolStatus │     └── Incus events: "look"
//!                                                                  ▼
//!                    iapctl ◄── gRPC, unix socket ◄── grpc ◄── PoolHandle
//!                                                      ├── PoolCommand ──► pool task
//!                                   pauses, counts ◄───┘
//!                                  intents ──watch──► pool task
//!  provision jobs, changes of images:  grpc ─► provision task ─► incus
//! ```
//!
//! Rules that keep it that way:
//!
//! 1. Incus and Azure are the database for what exists. An instance carries its own facts as
//!    `user.iapd.*` keys ([`agent::key`]); after a crash the first observation rebuilds
//!    everything. Nothing is ours by name alone.
//! 2. An agent's state is computed, never stored ([`agent::state`]).
//! 3. Events wake, they do not inform. The next observation is what is believed.
//! 4. Only a pool's task creates, starts, stops, deletes its instances and registrations.
//! 5. Missing information never deletes anything.
//! 6. Stopping the daemon leaves agents running.
//! 7. No admin credential ever enters a guest: [`registration`] makes each agent a key of its own.
//!
//! What operators want for a while (a pause, another count) is kept by [`intents`]; a wish for
//! one agent ([`agent::Drain`]) is on its instance.
//!
//! Where to look: [`pool::plan`] decides (pure), [`pool::apply`] does, [`pool::reconciler`] is the
//! loop, [`members`] watches the hosts of a cluster, [`doctor`] says what is wrong, [`auth_check`]
//! tries what credentials can do, [`daemon`] wires everything together, `guest/` holds what runs
//! inside instances.

pub mod agent;
pub mod args;
pub mod auth_check;
pub mod azure;
pub mod beat;
pub mod calls;
pub mod config;
pub mod daemon;
pub mod doctor;
#[doc(hidden)]
pub mod fuzz;
pub mod grpc;
pub mod incus;
pub mod intents;
pub mod logind;
pub mod members;
pub mod metrics;
pub mod pool;
pub mod provision;
pub mod registration;
pub mod reload;
pub mod store;
pub mod supervisor;

pub use daemon::main;
