//! The options that all commands or several of them share. A command's own options stand beside
//! the command.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use iap_common::socket;
use jiff::{Timestamp, ZonedDateTime, civil};

use crate::commands::Command;
use crate::complete;
use crate::error::CliError;
use crate::hosts::HOST_VARIABLE;

const REFERENCE: &str = "\
Examples:
  iapctl status
  iapctl agents ls --watch
  iapctl agents drain linux-h1-k3v9x --reason 'kernel update'
  iapctl pools pause linux -m 'cert swap' --for 30m
  iapctl drain -m 'kernel 6.12' --deadline 2h
  iapctl provision --base images:ubuntu/24.04 --target linux --script tools.sh --watch
  iapctl agents ls --host ssh://build-1 --host ssh://ana@build-2:2222
  iapctl drain --host @linux -m 'kernel 6.12' --detach

Several hosts (--host, repeated or a @GROUP):
  Lists are merged, with a column HOST (in JSON a field), and a host that fails is an
  error beside the others' rows: exit code 1. drain, resume, agents drain --all and
  --pool, and what changes a pool (pools pause, resume, drain, scale, recycle, retry)
  ask once, then act on each. All else works with one host at a time.
  A host is ssh://[USER@]HOST[:PORT][/SOCKET], unix:///SOCKET, local, or what ssh knows it by.
  Names and groups are in ~/.config/iapd/hosts.yaml and /etc/iapd/hosts.yaml:
    hosts: {build-1: ssh://ana@build-1.example.org:2222}
    groups: {linux: [build-1, ssh://build-2, local]}

Formats (-o):
  table  for people             json  one document; an object a line with --watch
  wide   more columns, times    yaml  the same in YAML
  name   names only, for xargs

Progress (--progress):
  auto   drawn on a terminal, lines elsewhere      plain  a line for each change
  tty    as auto                                   json   an object for each change
  none   nothing

Environment:
  IAPD_SOCKET      as --socket
  IAPCTL_HOST      as --host, several with commas between
  IAPCTL_SSH       the program for --host instead of ssh, with options if need be
  IAPCTL_PROGRESS  as --progress
  NO_COLOR         no colours; there are none in a pipe and with TERM=dumb either
  CLICOLOR_FORCE   colours in a pipe, too

Exit codes:
    0  done
    1  failed; `status`, `doctor`: something is wrong
    2  wrong usage, or a confirmation is missing
    3  the wait timed out, the action goes on
    4  not found
    5  refused by the present state
    6  not permitted
    7  the daemon cannot be reached
  130  detached by Ctrl-C, the action goes on";

/// Operate iapd: pools of single-use Azure Pipelines agents in Incus containers
#[derive(Parser)]
#[command(
    name = "iapctl",
    version,
    arg_required_else_help = true,
    after_long_help = REFERENCE
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Global {
    /// Daemon of another host: ssh://[USER@]HOST[:PORT], or a NAME or @GROUP; repeatable
    #[arg(
        long = "host",
        env = HOST_VARIABLE,
        hide_env_values = true,
        global = true,
        value_name = "HOST",
        value_delimiter = ',',
        action = ArgAction::Append,
        help_heading = "Global options",
        add = ArgValueCompleter::new(complete::hosts)
    )]
    pub(crate) hosts: Vec<String>,
    /// Socket of the daemon here
    #[arg(
        long,
        env = socket::PATH_VARIABLE,
        hide_env_values = true,
        default_value = socket::DEFAULT_PATH,
        global = true,
        value_name = "PATH",
        help_heading = "Global options"
    )]
    pub(crate) socket: PathBuf,
    /// How to show on stderr what goes on: auto, tty, plain, json or none
    #[arg(
        long,
        env = "IAPCTL_PROGRESS",
        hide_possible_values = true,
        hide_env_values = true,
        default_value = "auto",
        global = true,
        value_name = "MODE",
        help_heading = "Global options"
    )]
    pub(crate) progress: ProgressChoice,
    /// Tell on stderr which socket is used, and each call with its time
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) verbose: bool,
}

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ProgressChoice {
    /// Drawn on a terminal, lines elsewhere.
    Auto,
    /// Drawn on a terminal, lines elsewhere, whatever the environment says.
    Tty,
    /// A line for each change.
    Plain,
    /// A JSON object for each change.
    Json,
    /// Nothing.
    None,
}

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// More columns, absolute times.
    Wide,
    /// One JSON document; an object for each change when watching.
    Json,
    Yaml,
    /// Names only, for xargs.
    Name,
}

#[derive(Args, Clone)]
pub(crate) struct OutputArgs {
    /// How to write the answer: table, wide, json, yaml or name
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "format",
        default_value = "table",
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub(crate) format: Format,
}

/// [`OutputArgs`] of what has a table.
#[derive(Args, Clone)]
pub(crate) struct ListOutputArgs {
    #[command(flatten)]
    pub(crate) answer: OutputArgs,
    /// Leave out the line of column heads
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// A duration on the command line: `90`, `30s`, `5m`, `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DurationArg(pub(crate) Duration);

impl FromStr for DurationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not a duration such as 30s, 5m or 1h30m".to_owned();
        if let Ok(seconds) = text.parse() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        Duration::try_from(duration).map(Self).map_err(|_| wrong())
    }
}

impl DurationArg {
    pub(crate) fn message(self) -> prost_types::Duration {
        prost_types::Duration::try_from(self.0).unwrap_or_default()
    }
}

/// Of what changes several hosts at once.
#[derive(Args, Clone)]
pub(crate) struct SeveralArgs {
    /// Do not ask, when several hosts are meant
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// When a wish lapses by itself.
#[derive(Args, Clone, Default)]
pub(crate) struct UntilArgs {
    /// Lapse by itself after this long
    #[arg(
        long = "for",
        id = "for",
        value_name = "DURATION",
        conflicts_with = "until"
    )]
    lasting: Option<DurationArg>,
    /// Lapse by itself then: 18:00, or 2026-11-25T18:00, by this host's clock
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
}

impl UntilArgs {
    /// Returns when it lapses; `None` = not by itself.
    pub(crate) fn at(&self) -> Result<Option<prost_types::Timestamp>, CliError> {
        let now = ZonedDateTime::now();
        let at = match (self.lasting, self.until) {
            (Some(DurationArg(lasting)), _) => now.timestamp().checked_add(lasting),
            (None, Some(time)) => time.next(&now),
            (None, None) => return Ok(None),
        };
        let at = at.map_err(|_| CliError::usage("there is no such time", "ask for less"))?;
        if at <= now.timestamp() {
            return Err(CliError::usage(
                "that time is not ahead",
                "name a later one, or how long with --for",
            ));
        }
        Ok(Some(prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        }))
    }
}

/// A point in time on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TimeArg {
    /// Of today, or of tomorrow when that is past.
    Clock(civil::Time),
    Local(civil::DateTime),
    Exact(Timestamp),
}

impl TimeArg {
    fn next(self, now: &ZonedDateTime) -> Result<Timestamp, jiff::Error> {
        match self {
            Self::Exact(at) => Ok(at),
            Self::Local(at) => Ok(at.to_zoned_datetime(now.time_zone().clone())?.timestamp()),
            Self::Clock(time) => {
                let of = |date: civil::Date| {
                    date.to_datetime(time)
                        .to_zoned_datetime(now.time_zone().clone())
                };
                let today = of(now.date())?;
                let at = if today > *now {
                    today
                } else {
                    of(now.date().tomorrow()?)?
                };
                Ok(at.timestamp())
            }
        }
    }
}

impl FromStr for TimeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = civil::Time::strptime("%H:%M", text) {
            return Ok(Self::Clock(time));
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::Exact(at));
        }
        text.parse().map(Self::Local).map_err(|_| {
            "not a time such as 18:00, 2026-11-25T18:00 or 2026-11-25T18:00Z".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_time_is_the_next_one_and_dates_are_local() {
        let now: ZonedDateTime = "2026-11-25T17:30[+02:00]".parse().unwrap();
        let next = |text: &str| {
            let time = text.parse::<TimeArg>()?;
            time.next(&now)
                .map(|at| at.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(next("18:00").as_deref(), Ok("2026-11-25T16:00:00Z"));
        assert_eq!(next("17:30").as_deref(), Ok("2026-11-26T15:30:00Z"));
        assert_eq!(
            next("2026-12-01T08:00").as_deref(),
            Ok("2026-12-01T06:00:00Z")
        );
        assert_eq!(
            next("2026-12-01T08:00Z").as_deref(),
            Ok("2026-12-01T08:00:00Z")
        );
        assert!(next("25:00").is_err());
        assert!(next("soon").is_err());
    }

    #[test]
    fn durations_are_plain_seconds_or_carry_units() {
        let seconds = |text: &str| text.parse::<DurationArg>().map(|d| d.0.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("30s"), Ok(30));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert!(seconds("-5m").is_err());
        assert!(seconds("soon").is_err());
    }
}
