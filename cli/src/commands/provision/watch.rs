//! `provision watch`: shows a job until it ends.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::WatchProvisionJobRequest;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use iap_common::v1::watch_provision_job_response::Event;
use jiff::Timestamp;
use tonic::transport::Channel;

use super::render::Render;
use crate::args::OutputArgs;
use crate::commands::{Context, Done};
use crate::complete;
use crate::error::CliError;
use crate::feed::Feed;
use crate::progress::{Mode, say};
use crate::rows::plain;
use crate::rows::provision::ProvisionJob;
use crate::rows::time::took;
use crate::wait::{Wait, Waited};

/// Show what a provision job does until it ends
///
/// Ctrl-C stops only the showing. Exits 1 when the job failed or was cancelled.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl provision watch 91c2e0
  iapctl provision watch 91c2e0 --progress json 2> events.json")]
pub(crate) struct WatchArgs {
    /// Name of the job
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(complete::jobs))]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: WatchArgs) -> Result<Done, CliError> {
    let client = context.provision().await?;
    follow(client, args.id, Mode::of(context.progress), &args.output).await
}

/// Shows the job `id` until it ends, then its result.
pub(super) async fn follow(
    mut client: ProvisionServiceClient<Channel>,
    id: String,
    mode: Mode,
    output: &OutputArgs,
) -> Result<Done, CliError> {
    let mut render = Render::new(mode, &id);
    let mut wait = Wait::new(None)?;
    let open = async || {
        client
            .watch_provision_job(WatchProvisionJobRequest { id: id.clone() })
            .await
    };
    let mut feed = Feed::new(open, render.notes());
    loop {
        let next = wait.on(feed.next(), || render.beat(Timestamp::now())).await;
        let Waited::For(message) = next else {
            render.end();
            say("detached: the job goes on");
            say(&format!("still running: iapctl provision watch {id}"));
            return Ok(Done::Detached);
        };
        match message?.and_then(|message| message.event) {
            Some(Event::Job(job)) => {
                let job = ProvisionJob::from(job);
                render.job(&job, Timestamp::now());
                if job.has_ended() {
                    return finish(job, render, output);
                }
            }
            Some(Event::Line(line)) => render.line(line, Timestamp::now()),
            // The stream ended before the job did.
            None => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn finish(job: ProvisionJob, render: Render, output: &OutputArgs) -> Result<Done, CliError> {
    let lines_were_shown = render.failing_lines_were_shown();
    render.end();
    let duration = job.took(Timestamp::now()).map(took).unwrap_or_default();
    if job.state == "succeeded" {
        let version = job.agent_version.as_deref().unwrap_or("unknown");
        let text = format!(
            "provisioned {}: image {}, agent {version} ({duration})\n",
            job.target,
            job.short_fingerprint()
        );
        output.answer(&job.id, &text, &job)?;
        return Ok(Done::Yes);
    }
    if !output.is_text() {
        output.answer(&job.id, "", &job)?;
    }
    if !lines_were_shown {
        for line in &job.error_lines {
            say(&plain(line));
        }
    }
    Err(CliError::Failed {
        what: failure(&job, &duration),
        hints: hints(&job),
    })
}

fn failure(job: &ProvisionJob, duration: &str) -> String {
    if job.state == "cancelled" {
        return format!("provision job {} was cancelled after {duration}", job.id);
    }
    let place = job
        .current_step()
        .map_or_else(String::new, |(number, step)| {
            format!(" in step {number}/{} ({})", job.steps.len(), step.title)
        });
    let reason = plain(job.error.as_deref().unwrap_or("no reason given"));
    format!(
        "provision job {} failed after {duration}{place}: {reason}",
        job.id
    )
}

fn hints(job: &ProvisionJob) -> Vec<String> {
    let mut hints = vec![match &job.log_path {
        Some(path) => format!("the full log: {path}, or: iapctl provision logs {}", job.id),
        None => format!("the full log: iapctl provision logs {}", job.id),
    }];
    if let Some(builder) = &job.kept_builder {
        let project = job.project();
        hints.push(format!(
            "look into the builder: incus exec {builder} --project {project} -- bash"
        ));
        hints.push(format!(
            "then remove it: incus delete --force {builder} --project {project}"
        ));
    }
    hints
}
