//! One job from its turn to its end: the steps, and what has to happen however they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info, warn};

use iap_common::error::chain;

use crate::incus::IncusError;

use super::context::Context;
use super::error::StepError;
use super::job::{JobState, StepKind, StepState};
use super::ledger::{Keep, Ledger};
use super::ownership;
use super::publish;
use super::steps::Steps;

/// What an operation that is under way when a job ends gets to end. Incus cannot cancel a publish,
/// and the builder cannot go before.
const SETTLE_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// What the removal of a builder gets, tries included. What is left then is swept later.
const REMOVE_DEADLINE: Duration = Duration::from_secs(120);

/// Carries out a job. Always ends it in the ledger, and its builder with it.
pub(super) async fn carry_out(steps: Steps, ledger: Arc<Ledger>) {
    let job = steps.job.as_str();
    ledger.change(job, Keep::OnDisk, |job| {
        job.state = JobState::Running;
        job.started_at = Some(Timestamp::now());
    });
    info!(
        base = steps.request.base,
        by = steps.request.requested_by,
        "provisioning"
    );

    let outcome = steps.run().await.map_err(|error| {
        // What breaks while a job is cancelled breaks because of that.
        if steps.cx.cancel.is_cancelled() {
            StepError::Cancelled
        } else {
            error
        }
    });
    let promoted = outcome.is_ok();
    let error = outcome
        .as_ref()
        .err()
        .map(|error| note_failure(&steps, error));
    clean_up(&steps, &outcome).await;

    let state = match outcome {
        Ok(()) => JobState::Succeeded,
        Err(StepError::Cancelled) => JobState::Cancelled,
        Err(_) => JobState::Failed,
    };
    match &error {
        None => info!("provisioned"),
        Some(error) => warn!(error, "not provisioned"),
    }
    ledger.change(job, Keep::OnDisk, |job| {
        let error = if state == JobState::Cancelled {
            job.cancelled.clone()
        } else {
            error
        };
        job.end(state, error, Timestamp::now());
    });
    // Not before: a daemon that dies meanwhile must find the job as it went.
    if promoted {
        let project = &steps.cx.project;
        let failed = ledger.failed_jobs(project.name());
        publish::prune(project, &failed, &steps.request.target).await;
    }
}

/// Ends the step that failed, with its last lines. Returns the error in words.
fn note_failure(steps: &Steps, error: &StepError) -> String {
    let progress = &steps.cx.progress;
    let text = chain(error).to_string();
    if matches!(error, StepError::Cancelled) {
        progress.line("cancelled");
        progress.end(StepState::Cancelled);
    } else {
        let tail = progress.tail();
        progress.line(&format!("error: {text}"));
        progress.job(|job| job.error_lines = tail);
        progress.end(StepState::Failed);
    }
    text
}

/// Removes the builder, and the image of a job that did not come to its end. Heeds no cancellation.
async fn clean_up(steps: &Steps, outcome: &Result<(), StepError>) {
    let cx = &steps.cx;
    let job = steps.job.as_str();
    let name = ownership::name_of(job);
    cx.progress.begin(StepKind::Cleanup, 0);
    if !cx.settle(SETTLE_DEADLINE).await {
        // Whatever it works on must not be touched.
        cx.progress
            .detail("left behind: an operation may still run, the builder is removed later");
        cx.progress.end(StepState::Failed);
        return;
    }

    let mut problems = Vec::new();
    let mut note = |what: &str, result: Result<(), IncusError>| {
        problems.extend(
            result
                .err()
                .map(|error| format!("{what}: {}", chain(&error))),
        );
    };
    // First: by its properties alone it is harder to find than by its builder.
    if outcome.is_err() {
        let image = publish::discard(&cx.project, &BTreeSet::from([job.to_owned()])).await;
        note("its image", image);
    }
    let failed = matches!(outcome, Err(error) if !matches!(error, StepError::Cancelled));
    if failed && steps.request.keep_on_failure {
        match ownership::keep(&cx.incus, &cx.project, &name, job, REMOVE_DEADLINE).await {
            Ok(true) => {
                cx.progress.job(|job| job.kept_builder = Some(name.clone()));
                cx.progress.skip(&format!("kept: {name}"));
            }
            Ok(false) => cx.progress.result("there is no builder to keep"),
            Err(error) => note(&name, Err(error)),
        }
    } else {
        note(&name, remove(cx, &name).await);
    }
    if outcome.is_err() {
        let warm = ownership::warm_name_of(job);
        note(&warm, remove(cx, &warm).await);
    }

    if problems.is_empty() {
        cx.progress.end(StepState::Done);
    } else {
        let problems = problems.join("; ");
        error!(
            problems,
            "left behind by a provision job; tried again later"
        );
        cx.progress.detail(&format!("left behind: {problems}"));
        cx.progress.end(StepState::Failed);
    }
}

async fn remove(cx: &Context, name: &str) -> Result<(), IncusError> {
    ownership::remove(&cx.incus, &cx.project, name, REMOVE_DEADLINE).await
}
