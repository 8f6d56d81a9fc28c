//! What the tests share: the server, instances that are always removed, bounded waiting.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use iapd::calls::CallObserver;
use iapd::incus::{ImageSource, Incus, NewInstance, Project, StopMode, Waited};
use tokio::sync::mpsc;

pub(crate) const IMAGE: &str = "debian-min";
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const SHORT: Duration = Duration::from_secs(10);

pub(crate) fn socket() -> PathBuf {
    std::env::var_os("IAPD_TEST_INCUS_SOCKET").map_or_else(
        || PathBuf::from("/var/lib/incus/unix.socket"),
        PathBuf::from,
    )
}

pub(crate) fn project_name() -> String {
    std::env::var("IAPD_TEST_PROJECT").unwrap_or_else(|_| "iapd-test".to_owned())
}

pub(crate) fn nobody() -> CallObserver {
    Arc::new(|_| {})
}

pub(crate) fn incus() -> Incus {
    Incus::new(socket(), nobody())
}

pub(crate) fn project() -> Project {
    incus().project(&project_name())
}

/// Returns a name of this run alone.
pub(crate) fn name(what: &str) -> String {
    format!("it-incus-{what}-{}", std::process::id())
}

pub(crate) fn new_instance(name: &str) -> NewInstance {
    NewInstance {
        name: name.to_owned(),
        kind: "container".to_owned(),
        alias: ImageSource::Alias(IMAGE.to_owned()),
        profiles: vec!["default".to_owned()],
        config: BTreeMap::new(),
        devices: BTreeMap::new(),
        ephemeral: false,
        start: true,
        target: None,
    }
}

/// Waits for an operation that has to end well.
pub(crate) async fn ended_well(
    project: &Project,
    id: &iapd::incus::OperationId,
) -> iapd::incus::Operation {
    match project
        .incus()
        .wait(id, LONG)
        .await
        .expect("the wait works")
    {
        Waited::Ended(operation) => operation.result().expect("it ended well"),
        other => panic!("{other:?}"),
    }
}

/// Creates a running instance, runs a test with it, and removes it whatever comes of that.
pub(crate) async fn with_instance<F: Future<Output = ()>>(
    what: &str,
    test: impl FnOnce(Project, String) -> F,
) {
    let project = project();
    let name = name(what);
    let id = project
        .create(&new_instance(&name))
        .await
        .expect("creation begins");
    ended_well(&project, &id).await;
    with_cleanup(&project, &name, test(project.clone(), name.clone())).await;
}

/// Runs a test and removes an instance whatever comes of it.
pub(crate) async fn with_cleanup(project: &Project, name: &str, test: impl Future<Output = ()>) {
    let result = AssertUnwindSafe(test).catch_unwind().await;
    project
        .stop(name, StopMode::Force, LONG)
        .await
        .expect("it stops");
    project.delete(name, LONG).await.expect("it is deleted");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Receives until a value fits.
pub(crate) async fn seen<T: std::fmt::Debug>(
    receiver: &mut mpsc::Receiver<T>,
    fits: impl Fn(&T) -> bool,
) -> T {
    let mut others = Vec::new();
    let search = async {
        loop {
            let value = receiver.recv().await.expect("the sender is alive");
            if fits(&value) {
                return value;
            }
            others.push(value);
        }
    };
    match tokio::time::timeout(LONG, search).await {
        Ok(value) => value,
        Err(_) => panic!("not seen, but {others:?}"),
    }
}
