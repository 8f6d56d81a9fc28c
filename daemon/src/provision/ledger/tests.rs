use std::path::Path;

use super::*;
use crate::provision::{PackageSource, Script, StepKind, StepState};

fn ledger(state_dir: &Path) -> Ledger {
    Ledger::load(Records::new(state_dir))
}

fn request(target: &str) -> JobRequest {
    let mut request = JobRequest {
        base: "images:debian/12".to_owned(),
        target: target.to_owned(),
        scripts: vec![Script {
            name: "a.sh".to_owned(),
            content: b"true".to_vec(),
        }],
        vm: false,
        project: String::new(),
        no_docker: false,
        keep_on_failure: false,
        package: PackageSource::Version("latest".to_owned()),
        expected_sha256: None,
        azure_pool: None,
        profiles: Vec::new(),
        requested_by: "uid 0".to_owned(),
    };
    assert_eq!(request.normalise(), Vec::<String>::new());
    request
}

fn end(ledger: &Ledger, id: &str, state: JobState) {
    ledger.change(id, Keep::OnDisk, |job| {
        job.end(state, None, Timestamp::now());
    });
}

#[test]
fn a_job_that_ran_when_the_daemon_died_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let before = ledger(folder.path());
    let (running, _) = before.add(&request("a")).unwrap();
    let (queued, _) = before.add(&request("b")).unwrap();
    let (done, _) = before.add(&request("c")).unwrap();
    before.change(&running.id, Keep::OnDisk, |job| {
        job.state = JobState::Running;
        job.steps[0].state = StepState::Running;
    });
    end(&before, &done.id, JobState::Succeeded);

    let after = ledger(folder.path());
    let job = after.job(&running.id).unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.as_deref(), Some("daemon restarted"));
    assert_eq!(job.steps[0].state, StepState::Failed);
    assert_eq!(
        job.log_path,
        folder.path().join("provision").join(&job.id).join("log")
    );
    let job = after.job(&queued.id).unwrap();
    assert_eq!(
        job.error.as_deref(),
        Some("daemon restarted before the job's turn came")
    );
    assert_eq!(after.job(&done.id), before.job(&done.id));

    // It is so on disk too, not anew at each start.
    assert_eq!(
        ledger(folder.path()).job(&running.id),
        after.job(&running.id)
    );
}

#[test]
fn a_job_that_had_switched_the_alias_when_the_daemon_died_has_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let before = ledger(folder.path());
    let (job, _) = before.add(&request("a")).unwrap();
    before.change(&job.id, Keep::OnDisk, |job| {
        job.state = JobState::Running;
        job.image_fingerprint = Some("abc".to_owned());
        for step in &mut job.steps {
            step.state = StepState::Done;
        }
        job.steps.last_mut().unwrap().state = StepState::Running;
    });

    let job = ledger(folder.path()).job(&job.id).unwrap();
    assert_eq!((job.state, &job.error), (JobState::Succeeded, &None));
    let cleanup = job.steps.last().unwrap();
    assert_eq!(cleanup.state, StepState::Failed);
    assert_eq!(
        cleanup.detail,
        "daemon restarted: what is left is removed later"
    );
    let others = job.steps.iter().rev().skip(1);
    assert!(others.clone().all(|step| step.state == StepState::Done));
}

#[test]
fn packages_are_wanted_until_their_job_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    let mut ids = Vec::new();
    for sha256 in ["queued", "running", "failed"] {
        let mut request = request("a");
        request.package = PackageSource::Uploaded {
            sha256: sha256.to_owned(),
        };
        ids.push(ledger.add(&request).unwrap().0.id.clone());
    }
    ledger.add(&request("a")).unwrap();
    ledger.change(&ids[1], Keep::OnDisk, |job| job.state = JobState::Running);
    end(&ledger, &ids[2], JobState::Failed);
    let expected = ["queued", "running"].map(str::to_owned).into();
    assert_eq!(ledger.wanted_packages(), expected);
}

#[test]
fn only_jobs_that_did_not_end_well_have_images_nobody_needs() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    let mut ids = Vec::new();
    for state in [JobState::Failed, JobState::Cancelled, JobState::Succeeded] {
        let (job, _) = ledger.add(&request("a")).unwrap();
        end(&ledger, &job.id, state);
        ids.push(job.id.clone());
    }
    ledger.add(&request("a")).unwrap();
    ids.truncate(2);
    let expected = BTreeMap::from([("default".to_owned(), ids.into_iter().collect())]);
    assert_eq!(ledger.without_image(), expected);
}

#[test]
fn a_broken_record_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let before = ledger(folder.path());
    let (job, _) = before.add(&request("a")).unwrap();
    let records = folder.path().join("provision");
    std::fs::create_dir(records.join("broken")).unwrap();
    std::fs::write(records.join("broken/job.json"), "{").unwrap();
    std::fs::create_dir(records.join("renamed")).unwrap();
    std::fs::copy(
        records.join(&job.id).join("job.json"),
        records.join("renamed/job.json"),
    )
    .unwrap();
    let after = ledger(folder.path());
    assert_eq!(
        after.jobs().iter().map(|job| &job.id).collect::<Vec<_>>(),
        [&job.id]
    );
}

#[test]
fn the_queue_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    for _ in 0..MAX_QUEUED {
        ledger.add(&request("a")).unwrap();
    }
    let refused = ledger.add(&request("a"));
    assert!(matches!(
        refused,
        Err(ProvisionError::QueueFull(MAX_QUEUED))
    ));
    assert_eq!(ledger.jobs().len(), MAX_QUEUED);
}

#[test]
fn the_newest_records_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    let (running, _) = ledger.add(&request("a")).unwrap();
    let mut ids = Vec::new();
    for _ in 0..KEPT_RECORDS + 3 {
        let (job, _) = ledger.add(&request("a")).unwrap();
        end(&ledger, &job.id, JobState::Failed);
        ids.push(job.id.clone());
    }
    assert!(ledger.job(&running.id).is_some(), "it has not ended");
    assert_eq!(ledger.jobs().len(), KEPT_RECORDS + 1);
    assert!(ledger.job(&ids[2]).is_none() && ledger.job(&ids[3]).is_some());
    let folders = std::fs::read_dir(folder.path().join("provision")).unwrap();
    assert_eq!(folders.count(), KEPT_RECORDS + 1);
}

#[test]
fn what_has_ended_cannot_be_cancelled_but_cancelling_twice_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    let (job, cancel) = ledger.add(&request("a")).unwrap();
    ledger.cancel(&job.id, "ana").unwrap();
    assert!(cancel.is_cancelled());
    ledger.cancel(&job.id, "bob").unwrap();
    assert_eq!(
        ledger.job(&job.id).unwrap().cancelled.as_deref(),
        Some("ana")
    );
    end(&ledger, &job.id, JobState::Cancelled);
    ledger.cancel(&job.id, "cid").unwrap();

    let (job, _) = ledger.add(&request("a")).unwrap();
    end(&ledger, &job.id, JobState::Succeeded);
    let refused = ledger.cancel(&job.id, "ana").unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("job {} has already succeeded", job.id)
    );
}

#[test]
fn watchers_see_changes_and_lines_until_the_job_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path());
    let (job, _) = ledger.add(&request("a")).unwrap();
    let (_, mut events) = ledger.subscribe(&job.id).unwrap();
    ledger.line(&job.id, 3, "hello", Timestamp::UNIX_EPOCH);
    end(&ledger, &job.id, JobState::Failed);
    ledger.line(&job.id, 3, "too late", Timestamp::UNIX_EPOCH);
    assert!(matches!(
        events.try_recv(),
        Ok(JobEvent::Line { step: 3, text, .. }) if &*text == "hello"
    ));
    assert!(matches!(
        events.try_recv(),
        Ok(JobEvent::Job(job)) if job.state == JobState::Failed
    ));
    assert!(matches!(
        events.try_recv(),
        Err(broadcast::error::TryRecvError::Closed)
    ));
    let (_, mut events) = ledger.subscribe(&job.id).unwrap();
    assert!(matches!(
        events.try_recv(),
        Err(broadcast::error::TryRecvError::Closed)
    ));
}

#[test]
fn steps_come_in_the_order_they_are_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let (job, _) = ledger(folder.path()).add(&request("linux")).unwrap();
    let kinds: Vec<_> = job.steps.iter().map(|step| step.kind.id()).collect();
    assert_eq!(
        kinds.join(" "),
        "resolve builder guest agent setup docker script smoke generalise stop publish warm \
         promote cleanup"
    );
    let script = job
        .steps
        .iter()
        .find(|step| step.kind == StepKind::Script)
        .unwrap();
    assert_eq!(script.title, "script a.sh");
}
