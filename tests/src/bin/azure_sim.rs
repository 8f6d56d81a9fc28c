//! The Azure DevOps simulator as a process of its own.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use iap_tests::azure_sim::{
    AgentPackage, AzureSim, DEFAULT_ORG, Deployment, Pat, SimOptions, Timings,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Simulate the parts of Azure DevOps that agents talk to
#[derive(Debug, Parser)]
#[command(name = "azure-sim")]
struct Args {
    /// Listen on this address
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Listen on this unix socket too
    #[arg(long)]
    unix_socket: Option<PathBuf>,
    /// Name this scheme, host and port in answers
    #[arg(long)]
    public_url: Option<String>,
    /// Serve the token endpoint on this address, and there only
    #[arg(long)]
    token_listen: Option<SocketAddr>,
    /// Name this scheme, host and port of the token endpoint in answers
    #[arg(long)]
    token_url: Option<String>,
    /// Serve this organisation or collection (repeatable)
    #[arg(long, default_value = DEFAULT_ORG)]
    org: Vec<String>,
    /// Create this pool in the first organisation (repeatable)
    #[arg(long, default_value = "default")]
    pool: Vec<String>,
    /// Accept the personal access token in this file
    #[arg(long)]
    pat_file: Option<PathBuf>,
    /// Offer this agent package
    #[arg(long, requires = "agent_version")]
    agent_package: Option<PathBuf>,
    /// Say that the agent package has this version
    #[arg(long)]
    agent_version: Option<String>,
    /// Make everything this many times faster
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Say that this is Azure DevOps Server
    #[arg(long)]
    on_premises: bool,
    /// Queue jobs that no registered agent matches
    #[arg(long)]
    no_queue_check: bool,
    /// Choose among candidates, ids and keys as this seed says
    #[arg(long)]
    seed: Option<u64>,
    /// Log what this filter lets through
    #[arg(long, default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log).context("reading the log filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut options = SimOptions {
        listen: args.listen,
        unix_socket: args.unix_socket,
        orgs: args.org.clone(),
        deployment: if args.on_premises {
            Deployment::OnPremises
        } else {
            Deployment::Hosted
        },
        public_url: args.public_url,
        token_listen: args.token_listen,
        token_url: args.token_url,
        timings: Timings::scaled(args.time_scale),
        seed: args.seed,
        ..SimOptions::default()
    };
    options.switches.no_queue_check = args.no_queue_check;
    let sim = AzureSim::start(options).await?;
    let org = args.org.first().map_or(DEFAULT_ORG, String::as_str);
    for pool in &args.pool {
        sim.add_pool(org, pool);
    }
    if let Some(path) = args.pat_file {
        let secret = fs::read_to_string(&path);
        let secret = secret.with_context(|| format!("reading {}", path.display()))?;
        sim.add_pat(Pat::manage(secret.trim()));
    }
    if let (Some(file), Some(version)) = (args.agent_package, args.agent_version) {
        sim.set_package(AgentPackage::new(version, file)?);
    }
    let tokens = sim.authorization_url(org);
    tracing::info!(url = sim.url(org), tokens, "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
