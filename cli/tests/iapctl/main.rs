//! `iapctl` against a fake daemon on a real socket: for each verb and each error the whole
//! effect, that is stdout, stderr and the exit code.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod agents;
mod auth;
mod completion;
mod config;
mod data;
mod doctor;
mod drain;
mod errors;
mod fake;
mod ghosts;
mod help;
mod history;
mod hosts;
mod images;
mod keep;
mod members;
mod pauses;
mod pools;
mod provision;
mod run;
mod status;
mod watching;
