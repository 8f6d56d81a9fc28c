//! The commands: the noun's module declares its verbs, each verb is a file with its options and
//! what it does.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use iap_common::client;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::{Global, ProgressChoice};
use crate::error::CliError;

mod agents;
mod audit;
mod auth;
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

/// How long an ordinary call may take. The daemon answers from memory, or after a few calls to
/// Incus and Azure that have deadlines of their own.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

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
        client::connect(&self.socket)
            .await
            .map_err(CliError::Connect)
    }
}

/// Waits for a call's answer, or for the head of its stream, within the usual deadline.
pub(crate) async fn call<T>(
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    call_within(CALL_DEADLINE, rpc).await
}

/// Waits for a call's answer within `deadline`.
pub(crate) async fn call_within<T>(
    deadline: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CliError> {
    match tokio::time::timeout(deadline, rpc).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CliError::NoAnswer(deadline.as_secs())),
    }
}

/// The daemon answered a call without what the answer is about.
pub(crate) fn missing() -> CliError {
    CliError::Failed {
        what: "the daemon's answer is incomplete".to_owned(),
        hints: vec!["compare: iapctl version".to_owned()],
    }
}
