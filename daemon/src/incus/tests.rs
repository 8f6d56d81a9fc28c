use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::*;

/// Tasks of the daemon move between threads, so everything they wait for has to.
#[test]
fn calls_can_travel_between_threads() {
    fn travels<T: Send>(_: T) {}
    let second = Duration::from_secs(1);
    let incus = Incus::new(PathBuf::from("/nonexistent"), Arc::new(|_| {}));
    let project = incus.project("p");
    let id = OperationId::new("a");
    let exec = Exec::root(["true"]);
    let stop = CancellationToken::new();
    let meta = FileMeta {
        uid: 0,
        gid: 0,
        mode: 0,
    };
    travels(incus.server());
    travels(incus.wait(&id, second));
    travels(incus.watch_lifecycle("p", (second, second), stop.clone(), |_| ()));
    travels(project.instances());
    travels(project.delete("a", second));
    travels(project.publish("a", BTreeMap::new()));
    travels(project.exec_output("a", &exec, second, 1));
    travels(project.exec_stream("a", &exec, stop, |_| ()));
    travels(project.push_file("a", "/f", &meta, "x".into(), second));
    travels(project.read_file("a", "/f", None, 1, second));
}
