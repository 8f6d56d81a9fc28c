//! `ProvisionService`.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use iap_common::v1;
use iap_common::v1::provision_service_server::ProvisionService;
use iap_common::v1::watch_provision_job_response::Event;

use crate::provision::{
    Job, JobEvent, JobRequest, JobState, PackageSource, Script, Step, StepState,
};

use super::convert::timestamp;
use super::{Services, peer, status};

type JobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchProvisionJobResponse, Status>> + Send>>;
type LogStream = Pin<Box<dyn Stream<Item = Result<v1::StreamProvisionLogResponse, Status>> + Send>>;

/// Between two looks at a log that grows.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);
const LOG_CHUNK: usize = 64 * 1024;

fn job(job: &Job) -> v1::ProvisionJob {
    let state = match job.state {
        JobState::Queued => v1::JobState::Queued,
        JobState::Running => v1::JobState::Running,
        JobState::Succeeded => v1::JobState::Succeeded,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    };
    v1::ProvisionJob {
        id: job.id.clone(),
        state: state.into(),
        base: job.base.clone(),
        target: job.target.clone(),
        project: job.project.clone(),
        vm: job.vm,
        steps: job.steps.iter().map(step).collect(),
        error: job.error.clone().unwrap_or_default(),
        error_lines: job.error_lines.clone(),
        log_path: job.log_path.display().to_string(),
        created_at: Some(timestamp(job.created_at)),
        started_at: job.started_at.map(timestamp),
        ended_at: job.ended_at.map(timestamp),
        image_fingerprint: job.image_fingerprint.clone().unwrap_or_default(),
        agent_version: job.agent_version.clone().unwrap_or_default(),
        kept_builder: job.kept_builder.clone().unwrap_or_default(),
    }
}

/// Returns a job as it is in lists: its last lines may be hundreds of KiB, and dozens of jobs have some.
fn listed(found: &Job) -> v1::ProvisionJob {
    v1::ProvisionJob {
        error_lines: Vec::new(),
        ..job(found)
    }
}

fn step(step: &Step) -> v1::ProvisionStep {
    let state = match step.state {
        StepState::Pending => v1::StepState::Pending,
        StepState::Running => v1::StepState::Running,
        StepState::Done => v1::StepState::Done,
        StepState::Failed => v1::StepState::Failed,
        StepState::Skipped => v1::StepState::Skipped,
        StepState::Cancelled => v1::StepState::Cancelled,
    };
    v1::ProvisionStep {
        id: step.kind.id().to_owned(),
        title: step.title.clone(),
        state: state.into(),
        detail: step.detail.clone(),
        started_at: step.started_at.map(timestamp),
        ended_at: step.ended_at.map(timestamp),
        bytes: step.bytes,
        total_bytes: step.total_bytes,
        percent: u32::from(step.percent),
    }
}

fn event(event: &JobEvent) -> v1::WatchProvisionJobResponse {
    let event = match event {
        JobEvent::Job(changed) => Event::Job(job(changed)),
        JobEvent::Line { step, text, at } => Event::Line(v1::LogLine {
            step: u32::try_from(*step).unwrap_or(u32::MAX),
            text: text.to_string(),
            at: Some(timestamp(*at)),
        }),
    };
    v1::WatchProvisionJobResponse { event: Some(event) }
}

/// Parses a request into what the provisioner takes.
fn wanted(request: v1::CreateProvisionJobRequest, by: String) -> Result<JobRequest, Status> {
    let package = request.agent_package.unwrap_or_default();
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let source = match package.source {
        Some(v1::agent_package::Source::UploadedSha256(sha256)) => PackageSource::Uploaded {
            sha256: sha256.to_lowercase(),
        },
        Some(v1::agent_package::Source::Version(version)) if !version.is_empty() => {
            PackageSource::Version(version)
        }
        _ => PackageSource::Version("latest".into()),
    };
    let scripts = request.scripts.into_iter();
    Ok(JobRequest {
        base: request.base,
        target: request.target,
        scripts: scripts
            .map(|s| Script {
                name: s.name,
                content: s.content,
            })
            .collect(),
        vm: request.vm,
        project: request.project,
        no_docker: request.no_docker,
        keep_on_failure: request.keep_on_failure,
        package: source,
        expected_sha256: filled(package.sha256).map(|sha256| sha256.to_lowercase()),
        azure_pool: filled(package.pool),
        profiles: request.profiles,
        requested_by: by,
    })
}

fn by<T>(request: &Request<T>) -> String {
    match peer::asker(request).uid {
        Some(uid) => format!("uid {uid}"),
        None => "unknown".to_owned(),
    }
}

impl Services {
    fn find_job(&self, id: &str) -> Result<Arc<Job>, Status> {
        self.provisioner.job(id).ok_or_else(|| {
            let jobs = self.provisioner.jobs();
            status::no_such("provision job", id, jobs.iter().map(|job| job.id.as_str()))
        })
    }
}

#[tonic::async_trait]
impl ProvisionService for Services {
    async fn upload_agent_package(
        &self,
        request: Request<Streaming<v1::UploadAgentPackageRequest>>,
    ) -> Result<Response<v1::UploadAgentPackageResponse>, Status> {
        let chunks = request
            .into_inner()
            .map(|message| message.map(|part| part.chunk.into()));
        let (sha256, size) = tokio::select! {
            // What has come of it goes with it.
            () = self.stop.cancelled() => return Err(status::stopping()),
            stored = self.provisioner.store_package(chunks) => {
                stored.map_err(|e| status::provision(&e))?
            }
        };
        Ok(Response::new(v1::UploadAgentPackageResponse {
            sha256,
            size,
        }))
    }

    async fn create_provision_job(
        &self,
        request: Request<v1::CreateProvisionJobRequest>,
    ) -> Result<Response<v1::CreateProvisionJobResponse>, Status> {
        let (by, asker) = (by(&request), peer::asker(&request));
        let target = request.get_ref().target.clone();
        let created = wanted(request.into_inner(), by).and_then(|wanted| {
            self.provisioner
                .create(wanted)
                .map_err(|e| status::provision(&e))
        });
        let created = self.audit(&asker, "provision", target, created)?;
        Ok(Response::new(v1::CreateProvisionJobResponse {
            job: Some(job(&created)),
        }))
    }

    async fn list_provision_jobs(
        &self,
        _request: Request<v1::ListProvisionJobsRequest>,
    ) -> Result<Response<v1::ListProvisionJobsResponse>, Status> {
        let jobs = self
            .provisioner
            .jobs()
            .iter()
            .map(|found| listed(found))
            .collect();
        Ok(Response::new(v1::ListProvisionJobsResponse { jobs }))
    }

    async fn get_provision_job(
        &self,
        request: Request<v1::GetProvisionJobRequest>,
    ) -> Result<Response<v1::GetProvisionJobResponse>, Status> {
        let found = self.find_job(&request.into_inner().id)?;
        Ok(Response::new(v1::GetProvisionJobResponse {
            job: Some(job(&found)),
        }))
    }

    type WatchProvisionJobStream = JobStream;

    async fn watch_provision_job(
        &self,
        request: Request<v1::WatchProvisionJobRequest>,
    ) -> Result<Response<JobStream>, Status> {
        let id = request.into_inner().id;
        self.find_job(&id)?;
        let Some((first, events)) = self.provisioner.subscribe(&id) else {
            return Err(status::no_such("provision job", &id, []));
        };
        let watch = JobWatch {
            services: self.clone(),
            id,
            events,
            next: Some(first),
            over: false,
        };
        let stream = stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next, watch))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    type StreamProvisionLogStream = LogStream;

    async fn stream_provision_log(
        &self,
        request: Request<v1::StreamProvisionLogRequest>,
    ) -> Result<Response<LogStream>, Status> {
        let v1::StreamProvisionLogRequest { id, follow } = request.into_inner();
        self.find_job(&id)?;
        let path = self.provisioner.log_path(&id).unwrap_or_default();
        let log = JobLog {
            services: self.clone(),
            id,
            path,
            from: 0,
            follow,
            over: false,
        };
        let stream = stream::unfold(log, |mut log| async move {
            let chunk = log.next().await?;
            log.over |= chunk.is_err();
            Some((
                chunk.map(|chunk| v1::StreamProvisionLogResponse { chunk }),
                log,
            ))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_provision_job(
        &self,
        request: Request<v1::CancelProvisionJobRequest>,
    ) -> Result<Response<v1::CancelProvisionJobResponse>, Status> {
        let (by, asker) = (by(&request), peer::asker(&request));
        let id = request.into_inner().id;
        self.find_job(&id)?;
        let cancelled = self
            .provisioner
            .cancel(&id, &by)
            .await
            .map_err(|e| status::provision(&e));
        let cancelled = self.audit(&asker, "provision cancel", id, cancelled)?;
        Ok(Response::new(v1::CancelProvisionJobResponse {
            job: Some(job(&cancelled)),
        }))
    }
}

/// A job that is being watched.
struct JobWatch {
    services: Services,
    id: String,
    events: broadcast::Receiver<JobEvent>,
    next: Option<Arc<Job>>,
    over: bool,
}

impl JobWatch {
    async fn next(&mut self) -> Option<Result<v1::WatchProvisionJobResponse, Status>> {
        if self.over {
            return None;
        }
        let event_now = match self.next.take() {
            Some(job) => JobEvent::Job(job),
            None => {
                let received = tokio::select! {
                    () = self.services.stop.cancelled() => {
                        self.over = true;
                        return Some(Err(status::stopping()));
                    }
                    received = self.events.recv() => received,
                };
                match received {
                    Ok(event) => event,
                    // Too slow for all the lines: they are in the log. The state is what counts.
                    Err(RecvError::Lagged(_)) => {
                        JobEvent::Job(self.services.provisioner.job(&self.id)?)
                    }
                    Err(RecvError::Closed) => {
                        self.over = true;
                        JobEvent::Job(self.services.provisioner.job(&self.id)?)
                    }
                }
            }
        };
        if let JobEvent::Job(job) = &event_now {
            self.over |= job.state.has_ended();
        }
        Some(Ok(event(&event_now)))
    }
}

/// A log that is being read.
struct JobLog {
    services: Services,
    id: String,
    path: PathBuf,
    from: u64,
    follow: bool,
    over: bool,
}

impl JobLog {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        while !self.over {
            // Asked before reading: what is written after the end is not missed.
            let ended = self
                .services
                .provisioner
                .job(&self.id)
                .is_none_or(|j| j.state.has_ended());
            match self.read().await {
                Ok(chunk) if !chunk.is_empty() => {
                    self.from += chunk.len() as u64;
                    return Some(Ok(chunk));
                }
                Ok(_) if ended || !self.follow => return None,
                Ok(_) => {}
                Err(error) => {
                    return Some(Err(Status::internal(format!(
                        "cannot read {}: {error}",
                        self.path.display()
                    ))));
                }
            }
            tokio::select! {
                () = self.services.stop.cancelled() => return Some(Err(status::stopping())),
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            }
        }
        None
    }

    async fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.from)).await?;
        let mut chunk = Vec::new();
        file.take(LOG_CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_leave_out_last_lines() {
        let failed: Job = serde_json::from_value(serde_json::json!({
            "id": "91c2e0", "state": "failed", "base": "b", "target": "t", "project": "default",
            "vm": false, "package": {"version": "latest"}, "steps": [], "error": "no",
            "error_lines": ["one", "two"], "created_at": "2026-01-01T00:00:00Z",
            "requested_by": "uid 0",
        }))
        .unwrap();
        assert_eq!(job(&failed).error_lines, ["one", "two"]);
        assert_eq!(listed(&failed).error_lines, Vec::<String>::new());
        assert_eq!(listed(&failed).error, "no");
    }
}
