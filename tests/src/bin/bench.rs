//! Benchmarks on the real Incus and the simulator. Each prints the floor that was measured in the
//! same run (the same calls, with ready keys and registrations and nothing around them) and the
//! ratio to it: seconds say little about another machine.

use clap::{Parser, Subcommand};

use iap_tests::bench::{fill, plan, replace, report, soak, steady};

/// Measure iapd against its floors (build it first: cargo build --release -p iapd)
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From a job's end to the next agent's session
    Replace {
        /// Jobs, and rounds of the floor
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// From an empty pool to all agents' sessions
    Fill {
        /// Agents
        #[arg(long, default_value_t = 24)]
        agents: usize,
        /// How often each is measured; the best counts
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// What idle agents cost
    Steady {
        /// Agents, several times for a comparison
        #[arg(long, default_values_t = [4, 64])]
        agents: Vec<usize>,
        /// How long to look
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Whether anything grows while jobs flow
    Soak {
        /// After the three that it takes until all is in use
        minutes: usize,
    },
    /// From an observation to a plan, for thousands of agents: needs neither Incus nor iapd
    Plan,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !matches!(args.what, What::Plan) {
        report::machine().await?;
    }
    match args.what {
        What::Replace { rounds } => replace::run(rounds).await,
        What::Fill { agents, rounds } => fill::run(agents, rounds).await,
        What::Steady { agents, seconds } => steady::run(&agents, seconds).await,
        What::Soak { minutes } => soak::run(minutes).await,
        What::Plan => plan::run(),
    }
}
