//! The composition root: reads top to bottom what there is, what is passed to whom, what runs and
//! how it stops. The only place that knows all parts.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Args;
use crate::beat::Beat;
use crate::calls::CallObserver;
use crate::config::{self, ConfigError, Environment};
use crate::doctor::Doctor;
use crate::grpc::{self, Services};
use crate::intents::Intents;
use crate::logind::Logind;
use crate::members;
use crate::metrics::Metrics;
use crate::pool::apply::AgentVersions;
use crate::pool::placement::Placement;
use crate::pool::reconciler::Shared;
use crate::provision::Provisioner;
use crate::registration::KeyStock;
use crate::reload::Reloader;
use crate::store::Store;
use crate::supervisor::{Pools, Supervisor};

use host_shutdown::HostShutdown;
use journal::Journal;

mod azure_lookup;
pub mod health;
mod host_shutdown;
mod incus_client;
mod journal;
mod key_maker;
mod lock;
mod man;
mod metrics_server;
mod owner;
mod ready;
mod socket;
mod watchdog;

/// Stopping takes no longer; the unit's `TimeoutStopSec` is above it.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Ready-made keys, a KiB each: enough for a host that fills or replaces all its agents at once.
const KEYS_KEPT: usize = 64;
/// Exit code for wrong usage or configuration; the unit does not restart on it.
const EXIT_CONFIG: u8 = 2;

/// Runs the daemon's command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.print_schema {
        return print(&config::schema());
    }
    if args.print_man {
        return print(&man::page());
    }
    if let Some(dir) = &args.make_client_key {
        return incus_client::make_key(dir, args.trust_token.as_deref());
    }
    if args.check_config {
        return check_config(&args);
    }
    if let Err(error) = start_logging(&args.log_level) {
        return fail(&error.context("wrong --log-level"), EXIT_CONFIG);
    }
    let reloader = match Reloader::load(&args.config, Environment::detect()) {
        Ok(reloader) => Arc::new(reloader),
        Err(error) => return fail_config(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The host's cores are for the guests; two threads serve any number of pools.
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build();
    match runtime
        .context("cannot start the runtime")
        .and_then(|r| r.block_on(run(&reloader)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "giving up");
            ExitCode::FAILURE
        }
    }
}

fn check_config(args: &Args) -> ExitCode {
    match config::load(&args.config, &Environment::detect()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            print(&config::describe(&loaded.spec))
        }
        Err(error) => fail_config(&error),
    }
}

fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    // A reader that went away has read what it wanted.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    journal::complain(&format!("iapd: {error:#}"));
    ExitCode::from(code)
}

fn fail_config(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Invalid(problems) => {
            for line in error.to_string().lines() {
                journal::complain(line);
            }
            let (count, s) = (problems.len(), if problems.len() == 1 { "" } else { "s" });
            journal::complain(&format!("iapd: {count} problem{s} in the configuration"));
        }
        other => journal::complain(&format!("iapd: {}", iap_common::error::chain(other))),
    }
    ExitCode::from(EXIT_CONFIG)
}

fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    if journal::is_stderr() {
        tracing_subscriber::registry()
            .with(filter)
            .with(Journal::new())
            .init();
        return Ok(());
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// Runs the daemon until a signal, or until a part of it ends that never should.
async fn run(reloader: &Arc<Reloader>) -> anyhow::Result<()> {
    let started_at = Timestamp::now();
    let spec = reloader.spec();
    std::fs::create_dir_all(&spec.state_dir).with_context(|| {
        format!(
            "cannot make the state directory {}",
            spec.state_dir.display()
        )
    })?;
    let _lock = lock::take(&spec.state_dir)?;
    let intents = Arc::new(Intents::load(&spec.state_dir));
    // Before anybody is told that it runs: a SIGHUP that nobody catches ends the process.
    let mut signals = Signals::catch()?;
    let (listeners, bound) = socket::listen(&spec.socket).await?;

    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let store = Store::open(&spec.state_dir, spec.retention, metrics.history_dropped());
    let (incus, certificate) = incus_client::connect(&spec.incus, observer(&metrics, "incus"))?;
    let keys = Arc::new(KeyStock::new(KEYS_KEPT));
    let (incus_health, incus_is) = watch::channel(Arc::default());
    let (publish_pools, pools) = watch::channel(Pools::default());
    let (publish_events, events) = watch::channel(BTreeMap::new());
    let azure_of = azure_lookup::azure_lookup(pools.clone(), reloader.watch());

    let mut tasks: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();
    let owner_of = owner::Source::new(spec.owner.clone(), &spec.state_dir);
    let (provisioner, provisioning) = Provisioner::new(
        &spec.state_dir,
        incus.clone(),
        azure_of,
        owner_of.provisional(),
    );
    let (mut members, members_are) = members::Watcher::new(incus.clone());
    let doctor = Doctor {
        reloader: Arc::clone(reloader),
        pools: pools.clone(),
        incus: incus.clone(),
        events: events.clone(),
    };
    let services = Services {
        pools: pools.clone(),
        reloader: Arc::clone(reloader),
        intents: Arc::clone(&intents),
        provisioner,
        incus: incus_is.clone(),
        doctor,
        members: members_are.clone(),
        events,
        store: store.clone(),
        started_at,
        stop: stop.clone(),
    };
    {
        let stop = stop.clone();
        tasks.spawn(async move {
            let served = grpc::serve(listeners, services, stop).await;
            ("gRPC server", served.context("the gRPC server failed"))
        });
    }
    {
        let (metrics, pools, stop) = (Arc::clone(&metrics), pools.clone(), stop.clone());
        let members = members_are.clone();
        if let Some(address) = spec.metrics {
            let server = metrics_server::bind(address).await?;
            tasks.spawn(async move {
                metrics_server::serve(server, metrics, pools, members, stop).await;
                ("metrics server", Ok(()))
            });
        }
    }
    {
        let (keys, stop) = (Arc::clone(&keys), stop.clone());
        tasks.spawn(async move {
            key_maker::run(&keys, stop).await;
            ("key maker", Ok(()))
        });
    }
    {
        let stop = stop.clone();
        tasks.spawn(async move {
            provisioning.run(stop).await;
            ("provisioning", Ok(()))
        });
    }
    {
        let (specs, pools, stop) = (reloader.watch(), pools.clone(), stop.clone());
        let waiting = HostShutdown::new(Logind::default(), Arc::clone(&intents));
        tasks.spawn(async move {
            waiting.run(specs, pools, stop).await;
            ("watch for shutdowns of the host", Ok(()))
        });
    }
    let beat = Beat::default();
    {
        let (pulse, pools, stop) = (beat.pulse(), pools.clone(), stop.clone());
        tasks.spawn(async move {
            watchdog::feed(pulse, pools, stop).await;
            ("watchdog", Ok(()))
        });
    }
    {
        let (incus, stop, reloader) = (incus.clone(), stop.clone(), Arc::clone(reloader));
        let store = store.clone();
        let azure_calls = observer(&metrics, "azure");
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        tasks.spawn(async move {
            let watcher = health::Watcher {
                incus: incus.clone(),
                owner: owner_of,
                incus_health,
                certificate,
            };
            let Some(owner) = watcher.first_contact(&stop).await else {
                return ("pools", Ok(()));
            };
            // Pools begin with what there is.
            stop.run_until_cancelled(members.look()).await;
            let shared = Shared {
                owner,
                incus,
                placement: Arc::new(Placement::new(members_are, cores)),
                keys,
                versions: Arc::new(AgentVersions::default()),
                intents: intents.watch(),
                metrics,
                store,
            };
            let supervisor = Supervisor::new(
                shared,
                azure_calls,
                reloader.watch(),
                publish_pools,
                publish_events,
            );
            let (result, (), ()) = tokio::join!(
                supervisor.run(&beat, stop.clone()),
                watcher.run(&stop),
                members.run(&stop)
            );
            ("pools", result.context("a pool failed"))
        });
    }
    {
        let told = ready::Told {
            pools: pools.clone(),
            incus: incus_is.clone(),
            reloader: Arc::clone(reloader),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            ready::tell(&told, stop).await;
            ("readiness", Ok(()))
        });
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %reloader.path().display(),
        socket = %spec.socket.path.display(),
        pools = spec.pools.len(),
        "started"
    );
    let result = wait(&mut signals, &mut tasks, reloader, &stop).await;
    wind_down(&mut signals, tasks, &stop).await;
    store.close().await;
    socket::remove(&bound);
    info!("stopped");
    result
}

/// The signals that the daemon acts on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for a reason to stop.
async fn wait(
    signals: &mut Signals,
    tasks: &mut JoinSet<(&'static str, anyhow::Result<()>)>,
    reloader: &Reloader,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                info!("SIGHUP: reading the configuration again");
                ready::tell_reloading();
                reloader.reload(false);
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
            Some(ended) = tasks.join_next() => {
                // No task ends before it is told to.
                stop.cancel();
                return Err(match ended {
                    Ok((name, Ok(()))) => anyhow!("{name} ended unexpectedly"),
                    Ok((name, Err(error))) => error.context(format!("{name} ended")),
                    Err(error) => anyhow!(error).context("a task failed"),
                });
            }
        }
    }
    info!("stopping; agents keep running");
    Ok(())
}

/// Ends everything in order, within bounds. A second signal ends it at once.
async fn wind_down(
    signals: &mut Signals,
    mut tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: &CancellationToken,
) {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    stop.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = tokio::time::sleep(STOP_DEADLINE) => warn!("not everything ended in time"),
        _ = signals.terminate.recv() => warn!("second signal: stopping at once"),
        _ = signals.interrupt.recv() => warn!("second signal: stopping at once"),
    }
}

fn observer(metrics: &Arc<Metrics>, server: &'static str) -> CallObserver {
    let metrics = Arc::clone(metrics);
    Arc::new(move |report| metrics.call_ended(server, report))
}

/// Returns the daemon's resident memory in bytes, 0 when the kernel does not say.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
