//! The services of the fake.

use iap_common::v1::agent_service_server::AgentService;
use iap_common::v1::daemon_service_server::DaemonService;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::history_service_server::HistoryService;
use iap_common::v1::image_service_server::ImageService;
use iap_common::v1::pool_service_server::PoolService;
use iap_common::v1::provision_service_server::ProvisionService;
use iap_common::v1::*;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::{Messages, State, not_found};

type Answer<T> = Result<Response<T>, Status>;

impl State {
    fn pool(&self, name: &str) -> Result<Pool, Status> {
        let mut pools = self.answers.pools.iter();
        let pool = pools.find(|pool| pool.name == name).cloned();
        pool.ok_or_else(|| not_found(&format!("no pool {name}"), "did you mean linux?"))
    }
}

#[tonic::async_trait]
impl PoolService for State {
    type WatchPoolsStream = Messages<WatchPoolsResponse>;

    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Answer<ListPoolsResponse> {
        self.check("ListPools")?;
        Ok(Response::new(ListPoolsResponse {
            pools: self.answers.pools.clone(),
        }))
    }

    async fn get_pool(&self, request: Request<GetPoolRequest>) -> Answer<GetPoolResponse> {
        let pool = self.pool(&request.into_inner().name)?;
        Ok(Response::new(GetPoolResponse { pool: Some(pool) }))
    }

    async fn watch_pools(&self, _: Request<WatchPoolsRequest>) -> Answer<Self::WatchPoolsStream> {
        let scripts = &self.answers.pool_changes;
        self.play("WatchPools", scripts, |pools| WatchPoolsResponse { pools })
    }

    async fn retry_pool(&self, request: Request<RetryPoolRequest>) -> Answer<RetryPoolResponse> {
        self.check("RetryPool")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(RetryPoolResponse {}))
    }

    async fn pause_pool(&self, request: Request<PausePoolRequest>) -> Answer<PausePoolResponse> {
        self.check("PausePool")?;
        let mut request = request.into_inner();
        let mut pool = self.pool(&request.name)?;
        pool.pause = Some(super::pause(&request.reason, request.until));
        request.until = super::rounded(request.until);
        self.record(format!("{request:?}"));
        Ok(Response::new(PausePoolResponse { pool: Some(pool) }))
    }

    async fn resume_pool(&self, request: Request<ResumePoolRequest>) -> Answer<ResumePoolResponse> {
        self.check("ResumePool")?;
        let request = request.into_inner();
        let mut pool = self.pool(&request.name)?;
        let was_paused = pool.pause.as_ref().is_some_and(|pause| !pause.host_wide);
        pool.pause.take_if(|pause| !pause.host_wide);
        self.record(format!("{request:?}"));
        Ok(Response::new(ResumePoolResponse {
            pool: Some(pool),
            was_paused,
        }))
    }

    async fn scale_pool(&self, request: Request<ScalePoolRequest>) -> Answer<ScalePoolResponse> {
        self.check("ScalePool")?;
        let mut request = request.into_inner();
        let mut pool = self.pool(&request.name)?;
        if let Some(scale_pool_request::Change::Count(count)) = request.change {
            pool.count_override = Some(CountOverride {
                count,
                until: request.until,
                ..CountOverride::default()
            });
        }
        request.until = super::rounded(request.until);
        self.record(format!("{request:?}"));
        Ok(Response::new(ScalePoolResponse { pool: Some(pool) }))
    }

    async fn recycle_pool(
        &self,
        request: Request<RecyclePoolRequest>,
    ) -> Answer<RecyclePoolResponse> {
        self.check("RecyclePool")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(RecyclePoolResponse {}))
    }
}

#[tonic::async_trait]
impl AgentService for State {
    type WatchAgentsStream = Messages<WatchAgentsResponse>;
    type StreamAgentLogStream = Messages<StreamAgentLogResponse>;
    type AdoptGhostsStream = Messages<AdoptGhostsResponse>;

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        self.check("ListAgents")?;
        let pool = request.into_inner().pool;
        let mut agents = self.answers.agents.clone();
        agents.retain(|agent| pool.is_empty() || agent.pool == pool);
        Ok(Response::new(ListAgentsResponse { agents }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Answer<GetAgentResponse> {
        let name = request.into_inner().name;
        let agent = self
            .answers
            .agents
            .iter()
            .find(|agent| agent.name == name)
            .cloned();
        let agent = agent
            .ok_or_else(|| not_found(&format!("no agent {name}"), "list them: iapctl agents ls"))?;
        Ok(Response::new(GetAgentResponse { agent: Some(agent) }))
    }

    async fn watch_agents(
        &self,
        _: Request<WatchAgentsRequest>,
    ) -> Answer<Self::WatchAgentsStream> {
        let scripts = &self.answers.agent_changes;
        self.play("WatchAgents", scripts, |agents| WatchAgentsResponse {
            agents,
            unseen_pools: Vec::new(),
        })
    }

    async fn drain_agents(
        &self,
        request: Request<DrainAgentsRequest>,
    ) -> Answer<DrainAgentsResponse> {
        self.check("DrainAgents")?;
        let request = request.into_inner();
        self.record(format!("{request:?}"));
        let mut agents = self.answers.agents.clone();
        agents.retain(|agent| {
            request.all || request.pool == agent.pool || request.names.contains(&agent.name)
        });
        agents.iter_mut().for_each(|agent| agent.draining = true);
        Ok(Response::new(DrainAgentsResponse { agents }))
    }

    async fn reap_agent(&self, request: Request<ReapAgentRequest>) -> Answer<ReapAgentResponse> {
        self.check("ReapAgent")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(ReapAgentResponse {}))
    }

    async fn keep_agent(&self, request: Request<KeepAgentRequest>) -> Answer<KeepAgentResponse> {
        self.check("KeepAgent")?;
        let mut request = request.into_inner();
        let mut agent = self
            .answers
            .agents
            .iter()
            .find(|a| a.name == request.name)
            .cloned();
        let keep = agent
            .as_mut()
            .map(|agent| agent.keep.get_or_insert_default());
        if let (Some(keep), Some(until)) = (keep, request.until) {
            keep.until = Some(until);
            keep.user = "ana".to_owned();
            keep.reason.clone_from(&request.reason);
        }
        request.until = super::rounded(request.until);
        self.record(format!("{request:?}"));
        Ok(Response::new(KeepAgentResponse { agent }))
    }

    async fn release_agent(
        &self,
        request: Request<ReleaseAgentRequest>,
    ) -> Answer<ReleaseAgentResponse> {
        self.check("ReleaseAgent")?;
        let request = request.into_inner();
        let busy = |a: &&Agent| a.name == request.name && a.state() == AgentState::Busy;
        let agent = self.answers.agents.iter().find(busy).cloned();
        self.record(format!("{request:?}"));
        Ok(Response::new(ReleaseAgentResponse { agent }))
    }

    async fn list_ghosts(&self, request: Request<ListGhostsRequest>) -> Answer<ListGhostsResponse> {
        self.check("ListGhosts")?;
        let pool = request.into_inner().pool;
        if !pool.is_empty() {
            self.pool(&pool)?;
        }
        Ok(Response::new(self.answers.ghosts.clone()))
    }

    async fn adopt_ghosts(
        &self,
        request: Request<AdoptGhostsRequest>,
    ) -> Answer<Self::AdoptGhostsStream> {
        let request = request.into_inner();
        if request.dry_run {
            let dry_run = &self.answers.adoption_plan;
            return self.play("PlanAdoption", dry_run, |message| message);
        }
        self.record(format!("{request:?}"));
        self.play("AdoptGhosts", &self.answers.adoption, |message| message)
    }

    async fn stream_agent_log(
        &self,
        _: Request<StreamAgentLogRequest>,
    ) -> Answer<Self::StreamAgentLogStream> {
        let scripts = &self.answers.agent_log;
        self.play("StreamAgentLog", scripts, |text| StreamAgentLogResponse {
            chunk: text.into(),
        })
    }
}

#[tonic::async_trait]
impl ProvisionService for State {
    type WatchProvisionJobStream = Messages<WatchProvisionJobResponse>;
    type StreamProvisionLogStream = Messages<StreamProvisionLogResponse>;

    async fn upload_agent_package(
        &self,
        request: Request<Streaming<UploadAgentPackageRequest>>,
    ) -> Answer<UploadAgentPackageResponse> {
        let mut chunks = request.into_inner();
        let mut size = 0;
        while let Some(chunk) = chunks.next().await {
            size += chunk?.chunk.len() as u64;
        }
        self.record(format!("UploadAgentPackage {size} bytes"));
        let sha256 = "5ca1ab1e".to_owned();
        Ok(Response::new(UploadAgentPackageResponse { sha256, size }))
    }

    async fn create_provision_job(
        &self,
        request: Request<CreateProvisionJobRequest>,
    ) -> Answer<CreateProvisionJobResponse> {
        self.check("CreateProvisionJob")?;
        let mut request = request.into_inner();
        for script in &mut request.scripts {
            let size = script.content.len();
            script.name = format!("{} of {size} bytes", script.name);
            script.content.clear();
        }
        self.record(format!("{request:#?}"));
        Ok(Response::new(CreateProvisionJobResponse {
            job: self.answers.jobs.first().cloned(),
        }))
    }

    async fn list_provision_jobs(
        &self,
        _: Request<ListProvisionJobsRequest>,
    ) -> Answer<ListProvisionJobsResponse> {
        self.check("ListProvisionJobs")?;
        Ok(Response::new(ListProvisionJobsResponse {
            jobs: self.answers.jobs.clone(),
        }))
    }

    async fn get_provision_job(
        &self,
        request: Request<GetProvisionJobRequest>,
    ) -> Answer<GetProvisionJobResponse> {
        let id = request.into_inner().id;
        let job = self.answers.jobs.iter().find(|job| job.id == id).cloned();
        let job = job.ok_or_else(|| {
            not_found(
                &format!("no provision job {id}"),
                "list them: iapctl provision ls",
            )
        })?;
        Ok(Response::new(GetProvisionJobResponse { job: Some(job) }))
    }

    async fn watch_provision_job(
        &self,
        _: Request<WatchProvisionJobRequest>,
    ) -> Answer<Self::WatchProvisionJobStream> {
        let scripts = &self.answers.job_events;
        self.play("WatchProvisionJob", scripts, |event| {
            WatchProvisionJobResponse { event: Some(event) }
        })
    }

    async fn stream_provision_log(
        &self,
        _: Request<StreamProvisionLogRequest>,
    ) -> Answer<Self::StreamProvisionLogStream> {
        let scripts = &self.answers.job_log;
        self.play("StreamProvisionLog", scripts, |text| {
            StreamProvisionLogResponse { chunk: text.into() }
        })
    }

    async fn cancel_provision_job(
        &self,
        request: Request<CancelProvisionJobRequest>,
    ) -> Answer<CancelProvisionJobResponse> {
        self.check("CancelProvisionJob")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(CancelProvisionJobResponse {
            job: self.answers.jobs.first().cloned(),
        }))
    }
}

#[tonic::async_trait]
impl ImageService for State {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        self.check("ListImages")?;
        let target = request.into_inner().target;
        let mut images = self.answers.images.clone();
        images.retain(|image| target.is_empty() || image.target == target);
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn rollback_image(
        &self,
        request: Request<RollbackImageRequest>,
    ) -> Answer<RollbackImageResponse> {
        self.check("RollbackImage")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(self.answers.rolled_back.clone()))
    }

    async fn prune_images(
        &self,
        request: Request<PruneImagesRequest>,
    ) -> Answer<PruneImagesResponse> {
        self.check("PruneImages")?;
        let request = request.into_inner();
        let mut pruned = self.answers.pruned.clone();
        if request.dry_run {
            let failed = pruned.problems.iter().map(|problem| &problem.fingerprint);
            let failed: Vec<String> = failed.filter(|image| !image.is_empty()).cloned().collect();
            let all = self.answers.images.iter().cloned();
            pruned
                .images
                .extend(all.filter(|image| failed.contains(&image.fingerprint)));
            pruned
                .problems
                .retain(|problem| problem.fingerprint.is_empty());
        }
        self.record(format!("{request:?}"));
        Ok(Response::new(pruned))
    }
}

#[tonic::async_trait]
impl HistoryService for State {
    async fn list_ended_agents(
        &self,
        request: Request<ListEndedAgentsRequest>,
    ) -> Answer<ListEndedAgentsResponse> {
        self.check("ListEndedAgents")?;
        let request = request.into_inner();
        let mut agents = self.answers.ended.clone();
        agents.retain(|agent| {
            (!request.with_job || agent.job.is_some())
                && (!request.failed || agent.job_result != "succeeded")
                && (request.pool.is_empty() || agent.pool == request.pool)
        });
        Ok(Response::new(ListEndedAgentsResponse { agents }))
    }

    async fn get_ended_agent(
        &self,
        request: Request<GetEndedAgentRequest>,
    ) -> Answer<GetEndedAgentResponse> {
        let key = request.into_inner().key;
        let found = self.answers.ended.iter().find(|agent| match &key {
            Some(Key::Name(name)) => agent.name == *name,
            Some(Key::RequestId(id)) => agent.job.as_ref().is_some_and(|j| j.request_id == *id),
            None => false,
        });
        let agent = found.cloned();
        let agent = agent.ok_or_else(|| not_found("no such job", "list them: iapctl jobs ls"))?;
        Ok(Response::new(GetEndedAgentResponse {
            agent: Some(agent),
            evidence: self.answers.evidence.clone(),
        }))
    }

    type StreamEventsStream = Messages<StreamEventsResponse>;

    async fn stream_events(
        &self,
        _: Request<StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let scripts = &self.answers.events;
        self.play("StreamEvents", scripts, |event| StreamEventsResponse {
            event: Some(event),
        })
    }

    async fn list_audit_entries(
        &self,
        _: Request<ListAuditEntriesRequest>,
    ) -> Answer<ListAuditEntriesResponse> {
        Ok(Response::new(ListAuditEntriesResponse {
            entries: self.answers.audit.clone(),
        }))
    }
}

#[tonic::async_trait]
impl DaemonService for State {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        self.check("GetStatus")?;
        Ok(Response::new(self.answers.status.clone()))
    }

    async fn get_version(&self, _: Request<GetVersionRequest>) -> Answer<GetVersionResponse> {
        Ok(Response::new(GetVersionResponse {
            version: self.answers.version.clone(),
        }))
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Answer<GetConfigResponse> {
        Ok(Response::new(self.answers.config.clone()))
    }

    async fn check_config(&self, _: Request<CheckConfigRequest>) -> Answer<CheckConfigResponse> {
        Ok(Response::new(self.answers.checked.clone()))
    }

    async fn check_auth(&self, request: Request<CheckAuthRequest>) -> Answer<CheckAuthResponse> {
        self.check("CheckAuth")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(CheckAuthResponse {
            abilities: self.answers.abilities.clone(),
        }))
    }

    async fn reload_config(
        &self,
        request: Request<ReloadConfigRequest>,
    ) -> Answer<ReloadConfigResponse> {
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(self.answers.reloaded.clone()))
    }

    async fn diagnose(&self, _: Request<DiagnoseRequest>) -> Answer<DiagnoseResponse> {
        self.check("Diagnose")?;
        Ok(Response::new(DiagnoseResponse {
            checks: self.answers.checks.clone(),
        }))
    }

    async fn pause_host(&self, request: Request<PauseHostRequest>) -> Answer<PauseHostResponse> {
        self.check("PauseHost")?;
        let mut request = request.into_inner();
        request.until = super::rounded(request.until);
        self.record(format!("{request:?}"));
        let pools = self.answers.pools.clone();
        Ok(Response::new(PauseHostResponse { pools }))
    }

    async fn resume_host(&self, request: Request<ResumeHostRequest>) -> Answer<ResumeHostResponse> {
        self.check("ResumeHost")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(ResumeHostResponse {
            pools: self.answers.pools.clone(),
            was_paused: true,
        }))
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Answer<ListMembersResponse> {
        self.check("ListMembers")?;
        Ok(Response::new(ListMembersResponse {
            members: self.answers.members.clone(),
        }))
    }

    async fn drain_member(
        &self,
        request: Request<DrainMemberRequest>,
    ) -> Answer<DrainMemberResponse> {
        self.check("DrainMember")?;
        let request = request.into_inner();
        let mut members = self.answers.members.iter();
        let member = members.find(|member| member.name == request.name).cloned();
        self.record(format!("{request:?}"));
        Ok(Response::new(DrainMemberResponse { member }))
    }

    async fn resume_member(
        &self,
        request: Request<ResumeMemberRequest>,
    ) -> Answer<ResumeMemberResponse> {
        self.check("ResumeMember")?;
        self.record(format!("{:?}", request.into_inner()));
        Ok(Response::new(ResumeMemberResponse {
            member: None,
            was_drained: true,
        }))
    }
}
