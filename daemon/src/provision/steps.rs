//! What a job does, in order. Each step ends well or ends the job; what has to happen however it
//! ends is in [`super::run`].

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;
use tracing::info;

use crate::azure::Azure;
use crate::incus::{ImageSource, NewInstance, RemoteImage};

use super::builder::{Builder, GuestScript, SKIPPED};
use super::context::Context;
use super::error::StepError;
use super::guest_os::GuestOs;
use super::job::StepKind;
use super::ownership;
use super::package_cache::{PackageCache, hex};
use super::publish::{self, JOB, TARGET};
use super::request::{Base, JobRequest, LATEST, PackageSource, Script, is_version};
use super::{AzureLookup, NoAzure};

/// A container boots within seconds, unless it waits for a network that never comes: cloud images do
/// so for 2 minutes. A VM boots firmware, kernel and its Incus agent first.
pub(super) const BOOT: Duration = Duration::from_secs(5 * 60);
/// Pools begin once Incus has answered, which it has when a builder is there.
const AZURE_DEADLINE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// A slow mirror, or a machine that updates itself first.
const SETUP: Duration = Duration::from_secs(15 * 60);
/// What a user script may take.
const USER_SCRIPT: Duration = Duration::from_secs(60 * 60);
/// How often the agent is asked for its version when it says nothing.
const QUESTIONS: usize = 3;
/// .NET starts within a second or two.
const SMOKE: Duration = Duration::from_secs(60);

const USER: GuestScript = GuestScript {
    what: "user agent",
    text: include_str!("../guest/provision-user.sh"),
    as_agent: false,
    deadline: Duration::from_secs(60),
};
const UNPACK: GuestScript = GuestScript {
    what: "agent package",
    text: include_str!("../guest/provision-unpack.sh"),
    as_agent: true,
    deadline: Duration::from_secs(10 * 60),
};
const BASE_SETUP: GuestScript = GuestScript {
    what: "base setup",
    text: include_str!("../guest/provision-setup.sh"),
    as_agent: false,
    deadline: SETUP,
};
const DOCKER: GuestScript = GuestScript {
    what: "docker",
    text: include_str!("../guest/provision-docker.sh"),
    as_agent: false,
    deadline: SETUP,
};
const GENERALISE: GuestScript = GuestScript {
    what: "generalise",
    text: include_str!("../guest/provision-generalise.sh"),
    as_agent: false,
    deadline: Duration::from_secs(5 * 60),
};

/// Where `images:` is, unless said otherwise: a simplestreams server.
pub(super) const IMAGE_SERVER: &str = "https://images.linuxcontainers.org";

pub(super) struct Steps {
    pub(super) cx: Context,
    pub(super) job: String,
    pub(super) request: JobRequest,
    pub(super) owner: String,
    pub(super) azure: AzureLookup,
    pub(super) packages: PackageCache,
    /// URL of the server that `images:` is.
    pub(super) image_server: String,
    /// What a guest gets to boot.
    pub(super) boot: Duration,
}

impl Steps {
    /// Carries out all steps until the alias points at the new image.
    pub(super) async fn run(&self) -> Result<(), StepError> {
        self.begin(StepKind::Resolve, 0)?;
        let base = self.resolve().await?;

        self.begin(StepKind::Builder, 0)?;
        let builder = self.create_builder(base).await?;
        let base = builder.base_fingerprint().await?;
        self.cx.progress.detail(&format!("image {}", short(&base)));

        self.begin(StepKind::Guest, 0)?;
        let os = builder.ready(self.boot).await?;
        self.cx.progress.result(&os.pretty);

        self.begin(StepKind::Agent, 0)?;
        self.install_agent(&builder, &os).await?;

        self.begin(StepKind::Setup, 0)?;
        self.cx
            .progress
            .result(&builder.run(BASE_SETUP, &[]).await?.last_line);

        self.begin(StepKind::Docker, 0)?;
        self.install_docker(&builder).await?;

        for (n, script) in self.request.scripts.iter().enumerate() {
            self.begin(StepKind::Script, n)?;
            builder
                .run_user_script(n, &script.name, &script.content, USER_SCRIPT)
                .await?;
        }

        self.begin(StepKind::Smoke, 0)?;
        let version = self.ask_version(&builder).await?;

        self.begin(StepKind::Generalise, 0)?;
        self.cx
            .progress
            .result(&builder.run(GENERALISE, &[]).await?.last_line);

        self.begin(StepKind::Stop, 0)?;
        builder.stop().await?;

        self.begin(StepKind::Publish, 0)?;
        let properties = self.properties(&os, base, &version).await?;
        let name = ownership::name_of(&self.job);
        let image = publish::publish(&self.cx, &name, properties, &self.job).await?;
        self.cx.progress.detail(&format!("image {}", short(&image)));

        self.begin(StepKind::Warm, 0)?;
        publish::warm(&self.cx, &self.new_from_image(&image)).await?;

        self.begin(StepKind::Promote, 0)?;
        self.promote(&image, &version).await
    }

    fn begin(&self, step: StepKind, n: usize) -> Result<(), StepError> {
        self.cx.check()?;
        self.cx.progress.begin(step, n);
        Ok(())
    }

    /// Finds the base image. Whether the image server has one is known when Incus asks it.
    async fn resolve(&self) -> Result<ImageSource, StepError> {
        let base = Base::parse(&self.request.base).map_err(StepError::Refused)?;
        let (alias, elsewhere) = match &base {
            Base::Images(alias) => return Ok(self.remote(alias)),
            Base::Local(alias) => (alias, false),
            Base::Either(alias) => (alias, true),
        };
        let what = "look for the base image";
        let project = &self.cx.project;
        let Some(fingerprint) = project.alias(alias).await.map_err(StepError::incus(what))? else {
            if elsewhere {
                return Ok(self.remote(alias));
            }
            return Err(StepError::Refused(format!(
                "there is no image alias {alias:?} in project {:?}",
                self.request.project
            )));
        };
        let image = project
            .image(&fingerprint)
            .await
            .map_err(StepError::incus(what))?;
        let image = image.ok_or_else(|| {
            StepError::Refused(format!("the image that alias {alias:?} points at is gone"))
        })?;
        if image.kind != self.kind() {
            return Err(StepError::Refused(format!(
                "{alias:?} is a {} image, but a {} is wanted",
                image.kind,
                self.kind()
            )));
        }
        self.cx
            .progress
            .detail(&format!("local image {}", short(&fingerprint)));
        Ok(ImageSource::Fingerprint(fingerprint))
    }

    fn remote(&self, alias: &str) -> ImageSource {
        self.cx
            .progress
            .detail(&format!("{alias} on {}", self.image_server));
        ImageSource::Remote(RemoteImage {
            server: self.image_server.clone(),
            protocol: "simplestreams".to_owned(),
            alias: alias.to_owned(),
            certificate: None,
            kind: self.kind().to_owned(),
        })
    }

    async fn create_builder(&self, source: ImageSource) -> Result<Builder<'_>, StepError> {
        let new = self.new_builder(source);
        let created = Builder::create(&self.cx, &new).await;
        created.map_err(|error| match (error, &new.alias) {
            // Only now Incus asks the other server, and it does not say for what.
            (StepError::Operation { message, .. }, ImageSource::Remote(remote)) => {
                StepError::Refused(format!(
                    "cannot create a {} from {:?} of {}: {message}",
                    remote.kind, remote.alias, remote.server
                ))
            }
            (error, _) => error,
        })
    }

    fn kind(&self) -> &'static str {
        if self.request.vm {
            "virtual-machine"
        } else {
            "container"
        }
    }

    fn new_builder(&self, source: ImageSource) -> NewInstance {
        let mut config = ownership::marks(&self.owner, &self.job);
        if !self.request.vm && !self.request.no_docker {
            // Scripts may want to pull container images into the image.
            config.insert("security.nesting".to_owned(), "true".to_owned());
        }
        NewInstance {
            name: ownership::name_of(&self.job),
            kind: self.kind().to_owned(),
            alias: source,
            profiles: self.request.profiles.clone(),
            config,
            devices: BTreeMap::new(),
            ephemeral: false,
            start: true,
            target: None,
        }
    }

    fn new_from_image(&self, fingerprint: &str) -> NewInstance {
        NewInstance {
            name: ownership::warm_name_of(&self.job),
            config: ownership::marks(&self.owner, &self.job),
            start: false,
            ..self.new_builder(ImageSource::Fingerprint(fingerprint.to_owned()))
        }
    }

    async fn install_agent(&self, builder: &Builder<'_>, os: &GuestOs) -> Result<(), StepError> {
        builder.run(USER, &[]).await?;
        let (sha256, from) = match &self.request.package {
            PackageSource::Uploaded { sha256 } => (sha256.clone(), "uploaded".to_owned()),
            PackageSource::Version(version) => self.fetch(version, os.platform).await?,
        };
        let Some((file, size)) = self.packages.open(&sha256).await? else {
            return Err(StepError::Refused(format!(
                "the agent package {sha256} is not in the cache any more: upload it again"
            )));
        };
        self.cx
            .progress
            .line(&format!("pushing {size} bytes into the guest"));
        let path = builder.push_package(file, size).await?;
        builder.run(UNPACK, &[&path]).await?;
        self.cx
            .progress
            .result(&format!("{from}, sha256 {} ok", short(&sha256)));
        Ok(())
    }

    /// Returns the client to ask for packages. Just after the daemon's start it is waited for.
    async fn azure(&self) -> Result<Azure, StepError> {
        let end = Instant::now() + AZURE_DEADLINE;
        loop {
            let problem = match (self.azure)(self.request.azure_pool.as_deref()) {
                Ok(azure) => return Ok(azure),
                Err(NoAzure::NotYet) if Instant::now() < end => {
                    self.cx
                        .progress
                        .waiting("waiting for the pools to begin", None);
                    self.cx.pause(BETWEEN_LOOKS).await?;
                    continue;
                }
                Err(NoAzure::NotYet) => "Incus has not answered yet, so no pool has begun",
                Err(NoAzure::NotConfigured) => "no Azure organisation is configured any more",
            };
            return Err(StepError::Refused(problem.to_owned()));
        }
    }

    /// Gets the package of a version into the cache, and returns its SHA-256 and what it is.
    async fn fetch(&self, version: &str, platform: &str) -> Result<(String, String), StepError> {
        let azure = self.azure().await?;
        let wanted = (version != LATEST).then_some(version);
        let package = self
            .cx
            .unless_cancelled(async {
                azure
                    .agent_package(platform, wanted)
                    .await
                    .map_err(|source| StepError::Azure {
                        what: "ask for the agent package",
                        source,
                    })
            })
            .await?
            .ok_or_else(|| {
                StepError::Refused(format!("Azure has no agent {version} for {platform}"))
            })?;
        let said = package.sha256.map(|sha256| sha256.to_lowercase());
        let expected = match (self.request.expected_sha256.clone(), said) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(StepError::Checksum { expected, found });
            }
            (Some(expected), _) => expected,
            (None, Some(said)) if super::request::is_sha256(&said) => said,
            (None, _) => {
                return Err(StepError::Refused(format!(
                    "Azure names no SHA-256 for agent {}: say which one it has to have",
                    package.version
                )));
            }
        };
        let from = format!("{} {platform}", package.version);
        if self.packages.open(&expected).await?.is_some() {
            self.cx.progress.line(&format!("{from} is in the cache"));
            return Ok((expected, from));
        }
        self.cx
            .progress
            .line(&format!("downloading {from} from {}", package.download_url));
        let progress =
            |bytes, total: Option<u64>| self.cx.progress.bytes(bytes, total.unwrap_or(0));
        self.packages
            .download(
                &azure,
                &package.download_url,
                &expected,
                progress,
                self.cx.cancel.child_token(),
            )
            .await?;
        info!(
            version = package.version,
            sha256 = expected,
            "agent package downloaded"
        );
        Ok((expected, from))
    }

    async fn install_docker(&self, builder: &Builder<'_>) -> Result<(), StepError> {
        if self.request.no_docker {
            self.cx.progress.skip("not wanted");
            return Ok(());
        }
        let ended = builder.run(DOCKER, &[]).await?;
        if ended.code == SKIPPED {
            self.cx.progress.line("warning: jobs will have no docker");
            self.cx.progress.skip(&ended.last_line);
        } else {
            self.cx.progress.result(&ended.last_line);
        }
        Ok(())
    }

    async fn ask_version(&self, builder: &Builder<'_>) -> Result<String, StepError> {
        let mut said = String::new();
        // On a busy host Incus was seen to lose what a short command printed.
        for _ in 0..QUESTIONS {
            said = builder
                .ask_agent(&["bin/Agent.Listener", "--version"], SMOKE)
                .await?;
            if !said.is_empty() {
                break;
            }
        }
        if !is_version(&said) {
            return Err(StepError::Refused(format!(
                "the agent does not run: it was asked for its version and said {said:?}"
            )));
        }
        self.cx.progress.result(&format!("agent {said}"));
        self.cx
            .progress
            .job(|job| job.agent_version = Some(said.clone()));
        Ok(said)
    }

    async fn properties(
        &self,
        os: &GuestOs,
        base: String,
        version: &str,
    ) -> Result<BTreeMap<String, String>, StepError> {
        let target = &self.request.target;
        // Nothing else moves the alias before this job does: see `queue`.
        let replaces = self.cx.project.alias(target).await;
        let replaces = replaces.map_err(StepError::incus("look at the present image"))?;
        let scripts: Vec<_> = self.request.scripts.iter().map(with_hash).collect();
        let description = format!("Azure Pipelines agent {version} on {}", os.pretty);
        let properties = [
            ("os", os.id.clone()),
            ("release", os.version.clone()),
            ("description", description),
            (publish::BASE, self.request.base.clone()),
            (publish::BASE_FINGERPRINT, base),
            (publish::AGENT_VERSION, version.to_owned()),
            (publish::SCRIPTS, scripts.join(" ")),
            (publish::REPLACES, replaces.unwrap_or_default()),
            (TARGET, target.clone()),
            (JOB, self.job.clone()),
        ];
        Ok(properties
            .into_iter()
            // Debian's testing has no version, a job may have no scripts.
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }

    async fn promote(&self, image: &str, version: &str) -> Result<(), StepError> {
        let target = &self.request.target;
        let description = format!(
            "provision job {}: agent {version} on {}",
            self.job, self.request.base
        );
        publish::point_at(&self.cx.project, target, &description, image)
            .await
            .map_err(StepError::incus("point the alias at the new image"))?;
        self.cx
            .progress
            .detail(&format!("{target} is image {}", short(image)));
        self.cx
            .progress
            .job(|job| job.image_fingerprint = Some(image.to_owned()));
        Ok(())
    }
}

fn with_hash(script: &Script) -> String {
    format!(
        "{}:{}",
        script.name,
        hex(digest(&SHA256, &script.content).as_ref())
    )
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}
