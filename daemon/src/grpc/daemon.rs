//! `DaemonService`.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};
use tracing::info;

use iap_common::v1;
use iap_common::v1::daemon_service_server::DaemonService;

use crate::config::Problem;
use crate::intents::Pause;
use crate::pool::azure_link::CredentialState;

use super::{Services, convert, intents, peer, status};

/// A configuration file larger than this is a mistake.
const LARGEST_CONFIG: usize = 1024 * 1024;

fn problem(problem: &Problem) -> v1::ConfigProblem {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    v1::ConfigProblem {
        line: number(problem.line),
        column: number(problem.column),
        key: problem.key.clone(),
        message: problem.message.clone(),
    }
}

fn problems(all: &[Problem]) -> Vec<v1::ConfigProblem> {
    all.iter().map(problem).collect()
}

impl Services {
    fn azure_statuses(&self) -> Vec<v1::AzureStatus> {
        let mut by_url: BTreeMap<String, v1::AzureStatus> = BTreeMap::new();
        for pool in self.statuses() {
            let azure = &pool.azure;
            let entry = by_url
                .entry(pool.spec.azure.url.clone())
                .or_insert_with(|| v1::AzureStatus {
                    url: pool.spec.azure.url.clone(),
                    pools: Vec::new(),
                    credential: convert::credential(azure.credential).into(),
                    breaker: Some(convert::breaker(&azure.breaker)),
                    snapshot_age: azure.listed_at.map(convert::age),
                });
            entry.pools.push(pool.spec.name.clone());
            // One bad pool of an organisation makes its line bad.
            if azure.breaker.open {
                entry.breaker = Some(convert::breaker(&azure.breaker));
            }
            if azure.credential == CredentialState::Rejected {
                entry.credential = convert::credential(azure.credential).into();
            }
        }
        by_url.into_values().collect()
    }

    fn warnings(&self) -> Vec<String> {
        let config = self.reloader.state();
        let mut warnings: Vec<String> = self.incus.borrow().problem().into_iter().collect();
        if !config.problems.is_empty() {
            warnings.push(format!(
                "the configuration file has {} problems and was not reloaded: see iapctl config check",
                config.problems.len()
            ));
        }
        warnings.extend(self.intents.trouble().map(str::to_owned));
        warnings.extend(config.warnings.iter().map(ToString::to_string));
        let disconnected: Vec<String> = self
            .events
            .borrow()
            .iter()
            .filter(|(_, is_connected)| !**is_connected)
            .map(|(project, _)| project.clone())
            .collect();
        if !disconnected.is_empty() {
            warnings.push(format!(
                "no Incus events from project {}: agents are replaced by the timer only",
                disconnected.join(", ")
            ));
        }
        warnings
    }
}

#[tonic::async_trait]
impl DaemonService for Services {
    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let config = self.reloader.state();
        let incus = std::sync::Arc::clone(&self.incus.borrow());
        let spec = self.reloader.spec();
        let events = self.events.borrow().values().all(|connected| *connected);
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(convert::timestamp(self.started_at)),
            owner: incus.owner.clone(),
            hostname: crate::reload::host_name(),
            config_path: self.reloader.path().display().to_string(),
            config_loaded_at: Some(convert::timestamp(config.loaded_at)),
            config_problems: problems(&config.problems),
            incus: Some(v1::IncusStatus {
                reachable: incus.is_reachable(),
                socket: spec.incus_socket.display().to_string(),
                server_version: incus.version.clone(),
                storage_driver: incus.storage.clone(),
                error: incus.error.clone(),
                events_connected: events,
            }),
            azure: self.azure_statuses(),
            pools: self.all_pools(),
            warnings: self.warnings(),
            metrics_address: spec
                .metrics
                .map(|address| address.to_string())
                .unwrap_or_default(),
            resident_bytes: crate::daemon::resident_bytes(),
        }))
    }

    async fn get_version(
        &self,
        _request: Request<v1::GetVersionRequest>,
    ) -> Result<Response<v1::GetVersionResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(v1::GetVersionResponse { version }))
    }

    async fn get_config(
        &self,
        _request: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        Ok(Response::new(v1::GetConfigResponse {
            yaml: self.reloader.state().effective_yaml.clone(),
            path: self.reloader.path().display().to_string(),
        }))
    }

    async fn check_config(
        &self,
        request: Request<v1::CheckConfigRequest>,
    ) -> Result<Response<v1::CheckConfigResponse>, Status> {
        let content = request.into_inner().content;
        if content.len() > LARGEST_CONFIG {
            return Err(status::bad_request("a configuration file is at most 1 MiB"));
        }
        let response = match self.reloader.check(&content) {
            Ok(warnings) => v1::CheckConfigResponse {
                problems: Vec::new(),
                warnings: problems(&warnings),
            },
            Err(found) => v1::CheckConfigResponse {
                problems: problems(&found),
                warnings: Vec::new(),
            },
        };
        Ok(Response::new(response))
    }

    async fn reload_config(
        &self,
        request: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        let asker = peer::asker(&request);
        let dry_run = request.into_inner().dry_run;
        info!(dry_run, uid = asker.uid, "configuration reload requested");
        let report = self.reloader.reload(dry_run);
        Ok(Response::new(v1::ReloadConfigResponse {
            problems: problems(&report.problems),
            changes: report.changes,
            warnings: problems(&report.warnings),
        }))
    }

    async fn pause_host(
        &self,
        request: Request<v1::PauseHostRequest>,
    ) -> Result<Response<v1::PauseHostResponse>, Status> {
        let asker = peer::asker(&request);
        let v1::PauseHostRequest { reason, until } = request.into_inner();
        let pause = intents::pause(reason, intents::until(until)?)?;
        let told = pause.until.map(|until| until.to_string());
        info!(
            reason = pause.reason,
            uid = asker.uid,
            until = told,
            "pause of the host requested"
        );
        self.change_intents(asker, move |set, who| {
            set.host = Some(Pause { who, ..pause });
        })
        .await?;
        let pools = self.all_pools();
        Ok(Response::new(v1::PauseHostResponse { pools }))
    }

    async fn resume_host(
        &self,
        request: Request<v1::ResumeHostRequest>,
    ) -> Result<Response<v1::ResumeHostResponse>, Status> {
        let asker = peer::asker(&request);
        let was_paused = self.intents.now().is_host_paused(jiff::Timestamp::now());
        info!(
            was_paused,
            uid = asker.uid,
            "end of the host's pause requested"
        );
        self.change_intents(asker, |set, _| set.host = None).await?;
        let pools = self.all_pools();
        Ok(Response::new(v1::ResumeHostResponse { pools, was_paused }))
    }
}
