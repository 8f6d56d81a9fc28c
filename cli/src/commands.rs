//! The commands: the noun's module declares its verbs, each verb is a file with its options and
//! what it does.

use std::path::Path;
use std::time::Instant;

use clap::Subcommand;
use iap_common::client;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::image_service_client::ImageServiceClient;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use tokio::sync::OnceCell;
use tonic::transport::Channel;

use crate::args::{Global, ProgressChoice};
use crate::error::CliError;
use crate::fleet;
use crate::hosts::{Host, Hosts, Way, ssh};
use crate::progress::{self, Mode, say_detail};

mod agents;
mod audit;
mod auth;
mod call;
mod completions;
mod config;
pub(crate) mod confirm;
mod dial_stdio;
mod doctor;
mod drain;
mod events;
mod ghosts;
mod images;
mod jobs;
mod logs;
mod man;
mod members;
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
    /// Look at the members of the Incus cluster, and drain them
    #[command(alias = "member", subcommand)]
    Members(members::Members),
    /// Look at registrations in Azure without an instance here, and remove those of a lost host
    #[command(alias = "ghost", subcommand)]
    Ghosts(ghosts::Ghosts),
    Provision(provision::Provision),
    /// Look at images, go back to an older one and remove old ones
    #[command(alias = "image", subcommand)]
    Images(images::Images),
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
    DialStdio(dial_stdio::DialStdioArgs),
}

impl Command {
    /// Carries out what needs neither a daemon nor a runtime; `None` = it is not such a command.
    pub(crate) fn run_alone(&self, socket: &Path) -> Option<Result<Done, CliError>> {
        match self {
            Self::Completions(args) => Some(completions::run(args)),
            Self::Man(args) => Some(man::run(args)),
            Self::DialStdio(_) => Some(dial_stdio::run(socket)),
            _ => None,
        }
    }

    pub(crate) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Status(args) => status::run(context, args).await,
            Self::Pools(verb) => Box::pin(verb.run(context)).await,
            Self::Agents(verb) => Box::pin(verb.run(context)).await,
            Self::Drain(args) => Box::pin(drain::run(context, args)).await,
            Self::Resume(args) => resume::run(context, args).await,
            Self::Members(verb) => verb.run(context).await,
            Self::Ghosts(verb) => Box::pin(verb.run(context)).await,
            Self::Provision(args) => Box::pin(args.run(context)).await,
            Self::Images(verb) => Box::pin(verb.run(context)).await,
            Self::Jobs(verb) => verb.run(context).await,
            Self::Events(args) => events::run(context, args).await,
            Self::Audit(verb) => verb.run(context).await,
            Self::Config(verb) => verb.run(context).await,
            Self::Auth(verb) => verb.run(context).await,
            Self::Doctor(args) => Box::pin(doctor::run(context, args)).await,
            Self::Version(args) => version::run(context, args).await,
            Self::Completions(_) | Self::Man(_) | Self::DialStdio(_) => Ok(Done::Yes),
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
    /// Some hosts failed, and that was told.
    Failed(u8),
}

/// What every command needs: the way to the daemon, or to several, and the wish for progress.
pub(crate) struct Context {
    hosts: Hosts,
    pub(crate) progress: ProgressChoice,
    /// Of the only host, once it was needed.
    channel: OnceCell<Channel>,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self, CliError> {
        progress::speak(Mode::of(global.progress), global.verbose);
        let hosts = Hosts::of(&global.hosts, &global.socket)?;
        if let [
            Host {
                given: Some(given), ..
            },
        ] = hosts.all.as_slice()
        {
            fleet::only(given);
        }
        Ok(Self {
            hosts,
            progress: global.progress,
            channel: OnceCell::new(),
        })
    }

    /// Returns the hosts, when there are several.
    pub(crate) fn several(&self) -> Option<&[Host]> {
        match self.hosts.all.as_slice() {
            [] | [_] => None,
            several => Some(several),
        }
    }

    /// Whether answers name their hosts.
    pub(crate) fn is_named(&self) -> bool {
        self.hosts.named
    }

    /// Returns each host by itself.
    pub(crate) fn each(&self) -> Vec<(Host, Self)> {
        let progress = match self.progress {
            // One screen cannot be drawn on by several.
            ProgressChoice::Auto | ProgressChoice::Tty if self.several().is_some() => {
                ProgressChoice::Plain
            }
            other => other,
        };
        let hosts = self.hosts.all.iter().map(|host| {
            let context = Self {
                hosts: Hosts {
                    all: vec![host.clone()],
                    named: false,
                },
                progress,
                channel: OnceCell::new(),
            };
            (host.clone(), context)
        });
        hosts.collect()
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

    pub(crate) async fn images(&self) -> Result<ImageServiceClient<Channel>, CliError> {
        Ok(ImageServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn history(&self) -> Result<HistoryServiceClient<Channel>, CliError> {
        Ok(HistoryServiceClient::new(self.connect().await?))
    }

    pub(crate) async fn daemon(&self) -> Result<DaemonServiceClient<Channel>, CliError> {
        Ok(DaemonServiceClient::new(self.connect().await?))
    }

    /// Returns the connection to the daemon; with several there is none that could be meant.
    pub(crate) async fn connect(&self) -> Result<Channel, CliError> {
        let host = match self.hosts.all.as_slice() {
            [host] => host,
            several => {
                let names: Vec<&str> = several.iter().map(|host| host.name.as_str()).collect();
                return Err(CliError::usage(
                    format!(
                        "this works with one host at a time, and {} are meant: {}",
                        names.len(),
                        names.join(", ")
                    ),
                    "name the one: --host HOST",
                ));
            }
        };
        self.channel
            .get_or_try_init(|| connect(host))
            .await
            .cloned()
    }
}

/// Connects to one daemon.
pub(crate) async fn connect(host: &Host) -> Result<Channel, CliError> {
    let begun = Instant::now();
    let connected = match &host.way {
        Way::Socket(path) => client::connect_to_do_or_look(path)
            .await
            .map_err(CliError::Connect),
        Way::Ssh(target) => Box::pin(ssh::connect(&host.name, target)).await,
    };
    say_detail(|| {
        let end = match connected {
            Ok(_) => "connected",
            Err(_) => "not connected",
        };
        let way = match &host.way {
            Way::Socket(path) => format!("socket {}", path.display()),
            Way::Ssh(target) => target.to_string(),
        };
        format!("{way}: {end} after {}", took_ms(begun.elapsed()))
    });
    connected
}

/// The daemon answered a call without what the answer is about.
pub(crate) fn missing() -> CliError {
    CliError::Failed {
        what: "the daemon's answer is incomplete".to_owned(),
        hints: vec!["compare: iapctl version".to_owned()],
    }
}
