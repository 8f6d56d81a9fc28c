//! `provision` without a verb: starts a job.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::agent_package::Source;
use iap_common::v1::{AgentPackage, CreateProvisionJobRequest, ProvisionScript};

use super::upload::upload;
use super::watch::follow;
use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::progress::{Mode, Notes};
use crate::rows::provision::ProvisionJob;

/// gRPC messages end at 4 MiB; the rest of the request is small.
const SCRIPTS_LIMIT: usize = 4_000_000;

/// Those that are required are not when a verb is given, so they are optional here.
#[derive(Args)]
pub(crate) struct StartArgs {
    /// Image to begin with: images:ubuntu/24.04, local:ALIAS, or a bare alias (a local one first)
    #[arg(long, value_name = "IMAGE", required = true)]
    base: Option<String>,
    /// Alias that points at the new image in the end
    #[arg(long, value_name = "ALIAS", required = true)]
    target: Option<String>,
    /// Script to run in it as root; repeat it to run several in this order
    #[arg(
        long = "script",
        visible_alias = "scripts",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath
    )]
    scripts: Vec<PathBuf>,
    /// Make a virtual machine image
    #[arg(long)]
    vm: bool,
    /// Incus project [default: default]
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Profile of the instance it is built in; repeatable [default: the project's default]
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// Do not install docker
    #[arg(long)]
    no_docker: bool,
    /// Leave the builder there when a step fails
    #[arg(long)]
    keep_on_failure: bool,
    /// Version of the agent package, which the daemon downloads [default: latest]
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// Agent package to use instead of a download
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "agent_version",
        value_hint = clap::ValueHint::FilePath
    )]
    agent_package: Option<PathBuf>,
    /// SHA-256 that the agent package must have [default: what Azure says]
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Pool whose Azure organisation is asked for the agent package [default: any]
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Show what the job does until it ends; Ctrl-C stops only the showing
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: StartArgs) -> Result<Done, CliError> {
    // Before the daemon is asked: mistakes in the command line need no daemon.
    let scripts = read_scripts(&args.scripts)?;
    let mut client = context.provision().await?;
    let mode = Mode::of(context.progress);
    let source = match &args.agent_package {
        Some(file) => Source::UploadedSha256(upload(&mut client, file, mode).await?),
        None => Source::Version(
            args.agent_version
                .clone()
                .unwrap_or_else(|| "latest".to_owned()),
        ),
    };
    let request = CreateProvisionJobRequest {
        base: args.base.unwrap_or_default(),
        target: args.target.unwrap_or_default(),
        scripts,
        vm: args.vm,
        project: args.project.unwrap_or_default(),
        no_docker: args.no_docker,
        keep_on_failure: args.keep_on_failure,
        agent_package: Some(AgentPackage {
            source: Some(source),
            sha256: args.sha256.unwrap_or_default().to_lowercase(),
            pool: args.pool.unwrap_or_default(),
        }),
        profiles: args.profiles,
    };
    let answer = call(client.create_provision_job(request)).await?;
    let job = ProvisionJob::from(answer.job.ok_or_else(missing)?);
    if args.watch {
        return follow(client, job.id, mode, &args.output).await;
    }
    args.output
        .answer(&job.id, &format!("{}\n", job.id), &job)?;
    Notes::stderr().say(&format!("watch it: iapctl provision watch {}", job.id));
    Ok(Done::Yes)
}

fn read_scripts(paths: &[PathBuf]) -> Result<Vec<ProvisionScript>, CliError> {
    let scripts: Vec<ProvisionScript> = paths
        .iter()
        .map(|path| read_script(path))
        .collect::<Result<_, _>>()?;
    let size: usize = scripts.iter().map(|script| script.content.len()).sum();
    if size > SCRIPTS_LIMIT {
        return Err(CliError::usage(
            format!("the scripts have {size} bytes; {SCRIPTS_LIMIT} can be sent"),
            "let a script fetch what it needs",
        ));
    }
    Ok(scripts)
}

fn read_script(path: &Path) -> Result<ProvisionScript, CliError> {
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    match std::fs::read(path) {
        Ok(content) => Ok(ProvisionScript { name, content }),
        Err(source) => Err(CliError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
