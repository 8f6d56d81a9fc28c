//! The chaos run: see `iap_tests::chaos`. Started by `tests/run chaos`.

use std::process::ExitCode;

use clap::Parser;

use iap_tests::chaos::{self, Plan};

/// Let everything go wrong at once while jobs run, and judge what came of it
#[derive(Parser)]
struct Args {
    /// What faults, jobs and operators are drawn from; random unless given
    #[arg(long, env = "CHAOS_SEED")]
    seed: Option<u64>,
    /// How many jobs
    #[arg(long, env = "CHAOS_JOBS", default_value_t = 100)]
    jobs: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let jobs = args.jobs;
    let result = chaos::run(Plan { seed, jobs }).await;
    let outcome = match &result {
        Ok(counts) => format!("passed: {counts}"),
        Err(error) => format!("failed: {error:#}"),
    };
    say(&format!(
        "{outcome}; again with: CHAOS_SEED={seed} CHAOS_JOBS={jobs} tests/run chaos"
    ));
    ExitCode::from(u8::from(result.is_err()))
}

#[expect(clippy::print_stdout, reason = "the run's answer")]
fn say(line: &str) {
    println!("chaos: {line}");
}
