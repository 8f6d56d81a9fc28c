//! `DaemonService`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tonic::{Request, Response, Status};
use tracing::info;

use iap_common::error::chain;
use iap_common::v1;
use iap_common::v1::daemon_service_server::DaemonService;

use crate::auth_check;
use crate::config::{self, Problem};
use crate::intents::Pause;
use crate::pool::azure_client;
use crate::pool::azure_link::CredentialState;
use crate::pool::spec::CredentialSpec;
use crate::pool::status::PoolStatus;

use super::{Services, convert, intents, peer, status};

/// A configuration file larger than this is a mistake.
const LARGEST_CONFIG: usize = 1024 * 1024;

/// Getting a new certificate takes people a while.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

fn azure_status(pool: &PoolStatus) -> v1::AzureStatus {
    let (azure, spec) = (&pool.azure, &pool.spec.azure);
    v1::AzureStatus {
        url: spec.url.clone(),
        pools: vec![pool.spec.name.clone()],
        credential: convert::credential(azure.credential).into(),
        breaker: Some(convert::breaker(&azure.breaker)),
        snapshot_age: azure.listed_at.map(convert::age),
        unanswered_for: azure.unanswered_since.map(convert::age),
        credential_kind: convert::credential_kind(&spec.credential).into(),
        credential_source: config::describe_credential(&spec.credential),
        expires_at: azure.clock.expires_at.map(convert::timestamp),
        token_expires_at: azure.clock.token_expires_at.map(convert::timestamp),
        last_rejected_at: azure.clock.rejected_at.map(convert::timestamp),
    }
}

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
    /// Returns a status for each organisation and credential.
    fn azure_statuses(&self) -> Vec<v1::AzureStatus> {
        let mut found: Vec<(CredentialSpec, v1::AzureStatus)> = Vec::new();
        for pool in self.statuses() {
            let (azure, spec) = (&pool.azure, &pool.spec.azure);
            let same = |(credential, status): &&mut (CredentialSpec, v1::AzureStatus)| {
                status.url == spec.url && *credential == spec.credential
            };
            let Some((_, entry)) = found.iter_mut().find(same) else {
                found.push((spec.credential.clone(), azure_status(&pool)));
                continue;
            };
            entry.pools.push(pool.spec.name.clone());
            // One bad pool of an organisation makes its line bad.
            if azure.breaker.open {
                entry.breaker = Some(convert::breaker(&azure.breaker));
            }
            if let Some(since) = azure.unanswered_since {
                let age = convert::age(since);
                let longest = entry.unanswered_for.take();
                let longest = longest.filter(|l| (l.seconds, l.nanos) > (age.seconds, age.nanos));
                entry.unanswered_for = Some(longest.unwrap_or(age));
            }
            if azure.credential == CredentialState::Rejected {
                entry.credential = convert::credential(azure.credential).into();
            }
        }
        found.sort_by(|(_, a), (_, b)| a.url.cmp(&b.url));
        found.into_iter().map(|(_, status)| status).collect()
    }

    /// Returns the credentials of the pool called `name`, or of all when it is empty. Pools have
    /// no task until Incus has answered, and then the client is made for this.
    fn auth_subjects(&self, name: &str) -> Result<Vec<auth_check::Subject>, Status> {
        let spec = self.reloader.spec();
        let known = spec.pools.iter().map(|pool| pool.name.as_str());
        if !name.is_empty() && !known.clone().any(|known| known == name) {
            return Err(status::no_such("pool", name, known));
        }
        let handles = Arc::clone(&self.pools.borrow());
        let mut subjects = Vec::new();
        for pool in &spec.pools {
            if !name.is_empty() && pool.name != name {
                continue;
            }
            let handle = handles
                .iter()
                .find(|handle| handle.status().spec.azure == pool.azure);
            let client = || match handle {
                Some(handle) => Ok(handle.azure()),
                None => azure_client::new(&pool.azure, Arc::new(|_| ())),
            };
            auth_check::Subject::add(&mut subjects, pool, client).map_err(|error| {
                let text = chain(&error).to_string();
                Status::failed_precondition(format!("pool {}: {text}", pool.name))
            })?;
        }
        Ok(subjects)
    }

    /// Says which credentials have to be renewed by somebody before long.
    fn ending_credentials(&self) -> BTreeSet<String> {
        let now = Timestamp::now();
        let ends = |pool: &Arc<PoolStatus>| {
            let left = pool.azure.clock.expires_at?.duration_since(now);
            let what = config::describe_credential(&pool.spec.azure.credential);
            if left.is_negative() {
                Some(format!("expired: {what}"))
            } else if left < SOON {
                let days = left.as_hours() / 24;
                Some(format!("expires in {days} days: {what}"))
            } else {
                None
            }
        };
        self.statuses().iter().filter_map(ends).collect()
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
        warnings.extend(self.ending_credentials());
        let disconnected: Vec<String> = self
            .events
            .borrow()
            .iter()
            .filter(|(_, is_connected)| !**is_connected)
            .map(|(project, _)| project.clone())
            .collect();
        warnings.extend(self.store.warning().map(str::to_owned));
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
        let incus = Arc::clone(&self.incus.borrow());
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
                socket: spec.incus.to_string(),
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
            members: self.all_members(),
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

    async fn check_auth(
        &self,
        request: Request<v1::CheckAuthRequest>,
    ) -> Result<Response<v1::CheckAuthResponse>, Status> {
        let name = request.into_inner().pool;
        let subjects = self.auth_subjects(&name)?;
        let checked = auth_check::check(subjects).await;
        let abilities = checked.iter().flat_map(convert::abilities).collect();
        Ok(Response::new(v1::CheckAuthResponse { abilities }))
    }

    async fn reload_config(
        &self,
        request: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        let asker = peer::asker(&request);
        let dry_run = request.into_inner().dry_run;
        info!(dry_run, uid = asker.uid, "configuration reload requested");
        let report = self.reloader.reload(dry_run);
        if !dry_run {
            let outcome = match report.problems.len() {
                0 => Ok(()),
                count => Err(Status::failed_precondition(format!(
                    "{count} problems, nothing changed"
                ))),
            };
            // The answer itself carries the problems.
            let path = self.reloader.path().display().to_string();
            let _ = self.audit(&asker, "config reload", path, outcome);
        }
        Ok(Response::new(v1::ReloadConfigResponse {
            problems: problems(&report.problems),
            changes: report.changes,
            warnings: problems(&report.warnings),
        }))
    }

    async fn diagnose(
        &self,
        _request: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseResponse>, Status> {
        let checks = self.doctor.diagnose().await;
        Ok(Response::new(v1::DiagnoseResponse {
            checks: checks.into_iter().map(convert::check).collect(),
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
        let changed = self
            .change_intents(asker.clone(), move |set, who| {
                set.host = Some(Pause { who, ..pause });
            })
            .await;
        self.audit(&asker, "drain", "this host", changed)?;
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
        let changed = self.change_intents(asker.clone(), |set, _| set.host = None);
        let changed = changed.await;
        self.audit(&asker, "resume", "this host", changed)?;
        let pools = self.all_pools();
        Ok(Response::new(v1::ResumeHostResponse { pools, was_paused }))
    }

    async fn list_members(
        &self,
        _request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let members = self.all_members();
        Ok(Response::new(v1::ListMembersResponse { members }))
    }

    async fn drain_member(
        &self,
        request: Request<v1::DrainMemberRequest>,
    ) -> Result<Response<v1::DrainMemberResponse>, Status> {
        let asker = peer::asker(&request);
        let v1::DrainMemberRequest { name, reason } = request.into_inner();
        let pause = intents::pause(reason, None)?;
        self.one_member(&name)?;
        info!(
            member = name,
            uid = asker.uid,
            "drain of a member requested"
        );
        let of = name.clone();
        let changed = self
            .change_intents(asker.clone(), move |set, who| {
                set.members.insert(of, Pause { who, ..pause });
            })
            .await;
        self.audit(&asker, "members drain", &name, changed)?;
        let member = Some(self.one_member(&name)?);
        Ok(Response::new(v1::DrainMemberResponse { member }))
    }

    async fn resume_member(
        &self,
        request: Request<v1::ResumeMemberRequest>,
    ) -> Result<Response<v1::ResumeMemberResponse>, Status> {
        let asker = peer::asker(&request);
        let v1::ResumeMemberRequest { name } = request.into_inner();
        let was_drained = self.intents.now().members.contains_key(&name);
        // One that has left the cluster can be forgotten, too.
        if !was_drained {
            self.one_member(&name)?;
        }
        info!(
            member = name,
            uid = asker.uid,
            "end of a member's drain requested"
        );
        let of = name.clone();
        let changed = self.change_intents(asker.clone(), move |set, _| {
            set.members.remove(&of);
        });
        let changed = changed.await;
        self.audit(&asker, "members resume", &name, changed)?;
        let member = self.one_member(&name).ok();
        Ok(Response::new(v1::ResumeMemberResponse {
            member,
            was_drained,
        }))
    }
}
