//! A provisioner on the test bed's Incus, with everything a test makes removed at its end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream;
use iapd::azure::{Azure, Credential};
use iapd::incus::{
    Exec, FileMeta, ImageSource, Incus, NewInstance, OperationId, Project, StopMode, Waited,
};
use iapd::provision::{Job, JobRequest, JobState, NoAzure, PackageSource, Provisioner, Script};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::{Server, agent_package};

const BASE: &str = "debian-min";
const LONG: Duration = Duration::from_secs(180);
/// Generous for this base, and short enough to wait for.
const BOOT_DEADLINE: Duration = Duration::from_secs(20);

/// One test at a time: they share a machine of few cores, and their deadlines are real.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct Bed {
    pub(crate) provisioner: Provisioner,
    pub(crate) project: Project,
    pub(crate) state: TempDir,
    incus: Incus,
    prefix: String,
    uploaded: String,
    azure_url: String,
    stop: CancellationToken,
    task: Mutex<JoinSet<()>>,
    _turn: MutexGuard<'static, ()>,
}

impl Bed {
    pub(crate) async fn new(server: &Server) -> Self {
        let turn = TURN.lock().await;
        let prefix = format!("it-prov-{:04x}", fastrand::u16(..));
        let state = tempfile::tempdir().unwrap();
        Self::with_state(state, prefix, server.url(), turn).await
    }

    async fn with_state(
        state: TempDir,
        prefix: String,
        azure_url: String,
        turn: MutexGuard<'static, ()>,
    ) -> Self {
        let socket = setting("IAPD_TEST_INCUS_SOCKET", "/var/lib/incus/unix.socket");
        let incus = Incus::new(PathBuf::from(socket), Arc::new(|_| {}));
        let project = incus.project(&setting("IAPD_TEST_PROJECT", "iapd-test"));
        let base = project.alias(BASE).await.unwrap();
        assert!(
            base.is_some(),
            "the test bed is not up: run tests/testbed/up"
        );
        let azure = Azure::new(
            &azure_url,
            Credential::Pat("secret".into()),
            None,
            Arc::new(|_| {}),
        )
        .unwrap();
        // One pool begins late: not yet when a job for it is made, nor when that looks first.
        let looks = AtomicUsize::new(0);
        let lookup = Arc::new(move |pool: Option<&str>| {
            if pool == Some("late") && looks.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(NoAzure::NotYet);
            }
            pool.is_none_or(|pool| matches!(pool, "linux" | "late"))
                .then(|| azure.clone())
                .ok_or(NoAzure::NotConfigured)
        });
        let (provisioner, task) =
            Provisioner::new(state.path(), incus.clone(), lookup, prefix.clone());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let task = task
            .with_image_server(&azure_url)
            .with_boot_deadline(BOOT_DEADLINE);
        tasks.spawn(task.run(stop.clone()));
        let chunks = agent_package("4.275.0");
        let chunks: Vec<_> = chunks.chunks(1000).map(Bytes::copy_from_slice).collect();
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
        let (uploaded, _) = provisioner.store_package(chunks).await.unwrap();
        Self {
            provisioner,
            project,
            state,
            incus,
            prefix,
            uploaded,
            azure_url,
            stop,
            task: Mutex::new(tasks),
            _turn: turn,
        }
    }

    pub(crate) fn target(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn request(&self, target: &str) -> JobRequest {
        JobRequest {
            base: format!("local:{BASE}"),
            target: target.to_owned(),
            scripts: Vec::new(),
            vm: false,
            project: self.project.name().to_owned(),
            no_docker: false,
            keep_on_failure: false,
            package: PackageSource::Uploaded {
                sha256: self.uploaded.clone(),
            },
            expected_sha256: None,
            azure_pool: None,
            profiles: Vec::new(),
            requested_by: "a test".to_owned(),
        }
    }

    pub(crate) async fn provision(&self, request: JobRequest) -> Arc<Job> {
        let job = self.provisioner.create(request).unwrap();
        self.ended(&job.id).await
    }

    pub(crate) async fn ended(&self, id: &str) -> Arc<Job> {
        self.until(id, |job| job.state.has_ended()).await
    }

    pub(crate) async fn until(&self, id: &str, is_so: impl Fn(&Job) -> bool) -> Arc<Job> {
        let (mut job, mut events) = self.provisioner.subscribe(id).unwrap();
        let end = Instant::now() + LONG;
        while !is_so(&job) {
            assert!(Instant::now() < end, "it never came: {job:#?}");
            assert!(!job.state.has_ended(), "it never comes: {job:#?}");
            drop(timeout(Duration::from_secs(1), events.recv()).await);
            job = self.provisioner.job(id).unwrap();
        }
        job
    }

    /// Waits for a line of a job's output.
    pub(crate) async fn until_line(&self, id: &str, line: &str) {
        let path = self.provisioner.log_path(id).unwrap();
        let line = format!(" {line}\n");
        self.until(id, |_| {
            std::fs::read_to_string(&path).is_ok_and(|log| log.contains(&line))
        })
        .await;
    }

    /// Starts an instance of an image and waits until it runs commands.
    pub(crate) async fn start_instance(
        &self,
        source: ImageSource,
        name: &str,
        start: bool,
    ) -> String {
        let name = self.target(name);
        let new = NewInstance {
            name: name.clone(),
            kind: "container".to_owned(),
            alias: source,
            profiles: vec!["default".to_owned()],
            config: BTreeMap::new(),
            devices: BTreeMap::new(),
            ephemeral: false,
            start,
            target: None,
        };
        let operation = self.project.create(&new).await.unwrap();
        self.wait(&operation).await;
        name
    }

    pub(crate) async fn start(&self, alias: &str, name: &str) -> String {
        let name = self
            .start_instance(ImageSource::Alias(alias.to_owned()), name, true)
            .await;
        let booted = "n=0; until systemctl is-system-running 2>/dev/null | grep -Eq 'running|degraded'; \
                      do n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep .1; done";
        self.run(&name, booted).await;
        name
    }

    pub(crate) async fn run(&self, instance: &str, script: &str) -> String {
        let exec = Exec::root(["sh", "-c", script]);
        let (code, stdout, stderr) = self
            .project
            .exec_output(instance, &exec, Duration::from_secs(30), 65536)
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        assert_eq!(code, 0, "{script}: {} {}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    /// Publishes the base with one file replaced, and returns its alias.
    pub(crate) async fn doctored_base(&self, name: &str, path: &str, content: &str) -> String {
        let source = ImageSource::Alias(BASE.to_owned());
        let instance = self
            .start_instance(source, &format!("{name}-base"), false)
            .await;
        let meta = FileMeta {
            uid: 0,
            gid: 0,
            mode: 0o644,
        };
        let content = Bytes::copy_from_slice(content.as_bytes());
        let deadline = Duration::from_secs(30);
        self.project
            .push_file(&instance, path, &meta, content, deadline)
            .await
            .unwrap();
        let operation = self
            .project
            .publish(&instance, BTreeMap::new())
            .await
            .unwrap();
        let fingerprint = self.wait(&operation).await;
        self.project
            .point_alias(&instance, "doctored", &fingerprint)
            .await
            .unwrap();
        self.remove(&instance).await;
        instance
    }

    /// Publishes the base after a script has run in it, and returns its alias.
    pub(crate) async fn changed_base(&self, name: &str, script: &str) -> String {
        let instance = self.start(BASE, &format!("{name}-base")).await;
        self.run(&instance, &format!("{script}\nsync")).await;
        self.project
            .stop(&instance, StopMode::Force, LONG)
            .await
            .unwrap();
        let operation = self.project.publish(&instance, BTreeMap::new()).await;
        let fingerprint = self.wait(&operation.unwrap()).await;
        self.project
            .point_alias(&instance, "changed", &fingerprint)
            .await
            .unwrap();
        self.remove(&instance).await;
        instance
    }

    async fn wait(&self, operation: &OperationId) -> String {
        match self.incus.wait(operation, LONG).await.unwrap() {
            Waited::Ended(operation) => operation
                .result()
                .unwrap()
                .fingerprint()
                .unwrap_or_default()
                .to_owned(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn has_instance(&self, name: &str) -> bool {
        self.project.instance(name).await.unwrap().is_some()
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let end = Instant::now() + LONG;
        while self.has_instance(name).await {
            assert!(Instant::now() < end, "{name} stays");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn assert_no_builders(&self) {
        let ours = self
            .project
            .instances()
            .await
            .unwrap()
            .into_iter()
            .filter(|instance| {
                instance
                    .config
                    .get("user.iapd.owner")
                    .is_some_and(|owner| *owner == self.prefix)
            });
        assert_eq!(
            ours.map(|instance| instance.name).collect::<Vec<_>>(),
            Vec::<String>::new()
        );
    }

    /// Returns the fingerprints of the images made for a target.
    pub(crate) async fn images_of(&self, target: &str) -> Vec<String> {
        let images = self.project.images().await.unwrap().into_iter();
        images
            .filter(|image| {
                image
                    .properties
                    .get("iapd.target")
                    .is_some_and(|of| of == target)
            })
            .map(|image| image.fingerprint)
            .collect()
    }

    pub(crate) async fn until_no_images_of(&self, target: &str) {
        let end = Instant::now() + LONG;
        while !self.images_of(target).await.is_empty() {
            assert!(Instant::now() < end, "the images of {target} stay");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes an image as a job would, and leaves it without an alias.
    pub(crate) async fn publish_as(&self, target: &str, job: &str) {
        let source = ImageSource::Alias(BASE.to_owned());
        let instance = self.start_instance(source, job, false).await;
        let properties = [("iapd.target", target), ("iapd.job", job)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let operation = self.project.publish(&instance, properties.into()).await;
        self.wait(&operation.unwrap()).await;
        self.remove(&instance).await;
    }

    /// Returns the names in a folder of the state directory, but for the uploaded package.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        std::fs::read_dir(self.state.path().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(&self.uploaded))
            .collect()
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.project
            .stop(name, StopMode::Force, LONG)
            .await
            .unwrap();
        self.project.delete(name, LONG).await.unwrap();
    }

    /// Ends the task at once and starts another on the same state directory.
    pub(crate) async fn restart_hard(self) -> Self {
        self.task.lock().await.shutdown().await;
        Self::with_state(self.state, self.prefix, self.azure_url, self._turn).await
    }

    /// Stops the task as the daemon's stop does.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut task = self.task.lock().await;
        timeout(Duration::from_secs(20), task.join_next())
            .await
            .expect("it stops in time");
    }

    /// Removes what the test has made: what is named after it.
    pub(crate) async fn end(self) {
        for job in self.provisioner.jobs() {
            assert!(
                job.state.has_ended() || job.state == JobState::Queued,
                "{job:?}"
            );
        }
        self.stop().await;
        for instance in self.project.instances().await.unwrap() {
            if instance.name.starts_with(&self.prefix) {
                self.remove(&instance.name).await;
            }
        }
        for image in self.project.images().await.unwrap() {
            let ours = |text: &String| text.starts_with(&self.prefix);
            let made = image.properties.get("iapd.target").is_some_and(ours);
            for alias in image.aliases.iter().filter(|alias| ours(alias)) {
                self.project.delete_alias(alias).await.unwrap();
            }
            if made || (!image.aliases.is_empty() && image.aliases.iter().all(ours)) {
                self.project.delete_image(&image.fingerprint).await.unwrap();
            }
        }
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

pub(crate) fn script(name: &str, content: &str) -> Script {
    Script {
        name: name.to_owned(),
        content: content.as_bytes().to_vec(),
    }
}

pub(crate) async fn image_id(bed: &Bed, alias: &str) -> String {
    bed.project.alias(alias).await.unwrap().unwrap()
}
