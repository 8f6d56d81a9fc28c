//! The commands: the noun's module declares its verbs, each verb is a file with its options and
//! what it does.

use std::path::PathBuf;
use std::time::Instant;

use clap::Subcommand;
use iap_common::client;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use tonic::transport::Channel;

use crate::args::{Global, ProgressChoice};
use crate::error::CliError;
use crate::progress::{self, Mode, say_detail};

mod agents;
mod audit;
mod auth;
mod call;
mod completions;
mod config;
mod confirm;
mod doctor;
mod drain;
mod events;
mod jobs;
mod logs;
mod man;
mod pools;
mod provision;
mod resume;
mod status;
mod version;
mod watch;

pub(crate) use call::{call, open};
use call::{patient_call, quiet_call, took_ms};
pub(crate) use provision::check_place;

#[derive(Subcommand)]
pub(crate) enum Command {
    Status(status::StatusArgs),
    /// Look at pools, pause, scale and recycle them
    #[command(alias = "pool", subcommand)]
    Pools(pools::Pools),
    /// Look at agents, drain, remove and keep them
    #[command(alias = "agent", subcommand)]
    Agents(agents::Agents),
    Drain(drain::DrainArgs),
    Resume(resume::ResumeArgs),
    Provision(provision::Provision),
    /// Look at jobs that have ended
    #[command(alias = "job", subcommand)]
    Jobs(jobs::Jobs),
    Events(events::EventsArgs),
    /// Look at who asked for what
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Check, show and reload the daemon's configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Look at what the daemon proves itself to Azure with
    #[command(subcommand)]
    Auth(auth::Auth),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Status(args) => status::run(context, args).await,
            Self::Pools(verb) => Box::pin(verb.run(context)).await,
            Self::Agents(verb) => Box::pin(verb.run(context)).await,
            Self::Drain(args) => Box::pin(drain::run(context, args)).await,
            Self::Resume(args) => resume::run(context, args).await,
            Self::Provision(args) => Box::pin(args.run(context)).await,
            Self::Jobs(verb) => verb.run(context).await,
            Self::Events(args) => events::run(context, args).await,
            Self::Audit(verb) => verb.run(context).await,
            Self::Config(verb) => verb.run(context).await,
            Self::Auth(verb) => verb.run(context).await,
            Self::Doctor(args) => Box::pin(doctor::run(context, args)).await,
            Self::Completions(args) => completions::run(&args),
            Self::Man(args) => man::run(&args),
            Self::Version(args) => version::run(context, args).await,
        }
    }
}

/// How a command that did not fail ended.
pub(crate) enum Done {
    Yes,
    /// What was shown is not as it should be.
    Unhealthy,
    /// The operator stopped looking on; what was started goes on.
    Detached,
}

/// What every command needs: the way to the daemon and the wish for progress.
pub(crate) struct Context {
    pub(crate) socket: PathBuf,
    pub(crate) progress: ProgressChoice,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        progress::speak(Mode::of(global.progress), global.verbose);
        Self {
            socket: global.socket,
            progress: global.progress,
        }
    }

    pub(crate) async fn pools(&self) -> Result<PoolServiceClient<Channel>, CliError> {
        Ok(PoolServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn agents(&self) -> Result<AgentServiceClient<Channel>, CliError> {
        Ok(AgentServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn provision(&self) -> Result<ProvisionServiceClient<Channel>, CliError> {
        Ok(ProvisionServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn history(&self) -> Result<HistoryServiceClient<Channel>, CliError> {
        Ok(HistoryServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn daemon(&self) -> Result<DaemonServiceClient<Channel>, CliError> {
        Ok(DaemonServiceClient::new(self.connect().await?))
    }

    async fn connect(&self) -> Result<Channel, CliError> {
        let begun = Instant::now();
        let connected = client::connect_to_do_or_look(&self.socket).await;
        say_detail(|| {
            let end = match connected {
                Ok(_) => "connected",
                Err(_) => "not connected",
            };
            let socket = self.socket.display();
            format!("socket {socket}: {end} after {}", took_ms(begun.elapsed()))
        });
        connected.map_err(CliError::Connect)
    }
}

/// The daemon answered a call without what the answer is about.
pub(crate) fn missing() -> CliError {
    CliError::Failed {
        what: "the daemon's answer is incomplete".to_owned(),
        hints: vec!["compare: iapctl version".to_owned()],
    }
}
