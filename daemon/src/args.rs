//! The daemon's command line.

use std::path::PathBuf;

use clap::Parser;

use crate::config;

/// Keep pools of single-use Azure Pipelines agents alive in Incus containers
#[derive(Debug, Parser)]
#[command(name = "iapd", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or configuration.\n\
    Signals: SIGHUP reads the configuration again, SIGTERM and SIGINT stop the daemon.\n\
    Agents keep running while the daemon is stopped."
)]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,

    /// Check the configuration, show what it makes, and exit
    #[arg(long)]
    pub check_config: bool,

    /// Print the configuration file's JSON Schema and exit
    #[arg(long, conflicts_with = "check_config")]
    pub print_schema: bool,

    /// Make the key and certificate that a remote Incus knows this daemon by, into DIR, and exit
    ///
    /// A key that is there is kept. Says how to make the server trust it, and what to write into the
    /// configuration.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["check_config", "print_schema"])]
    pub make_client_key: Option<PathBuf>,

    /// Make the server trust that key by a token of `incus config trust add NAME`, and keep the
    /// server's certificate in DIR as well
    #[arg(long, value_name = "TOKEN", requires = "make_client_key")]
    pub trust_token: Option<String>,

    /// Print the manual page, which the package ships
    #[arg(long, hide = true)]
    pub print_man: bool,

    /// What to log: error, warn, info, debug, trace, or a filter such as iapd::pool=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "IAPD_LOG")]
    pub log_level: String,
}
