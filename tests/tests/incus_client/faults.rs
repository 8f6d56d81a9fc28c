//! What the client makes of a server, or a way to it, that does not work.

use std::path::PathBuf;
use std::time::Duration;

use iap_tests::fault_proxy::{FaultProxy, Held};
use iapd::incus::{
    Exec, Incus, IncusError, Limits, Operation, OperationStatus, Project, StreamEvent, Waited,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::bed::{
    LONG, SHORT, name, new_instance, nobody, project, project_name, seen, socket, with_cleanup,
    with_instance,
};

/// A way to the server that faults can be put into.
struct Way {
    proxy: FaultProxy,
    incus: Incus,
    _dir: TempDir,
}

impl Way {
    /// A client that waits long, so that a busy machine makes no faults of its own.
    fn new() -> Self {
        Self::with(Limits {
            silence: Duration::from_secs(12),
            ..Limits::default()
        })
    }

    /// A client that gives up soon.
    fn impatient() -> Self {
        Self::with(Limits {
            greeting: Duration::from_secs(1),
            answer: Duration::from_secs(2),
            ..Limits::default()
        })
    }

    fn with(limits: Limits) -> Self {
        let dir = TempDir::new().expect("there is room");
        let proxy = FaultProxy::start(socket(), dir.path().join("socket")).expect("it listens");
        let incus = Incus::with_limits(proxy.path().to_owned(), nobody(), limits);
        Self {
            proxy,
            incus,
            _dir: dir,
        }
    }

    fn project(&self) -> Project {
        self.incus.project(&project_name())
    }

    fn count(&self, start: &str) -> usize {
        self.proxy
            .requests()
            .iter()
            .filter(|request| request.starts_with(start))
            .count()
    }
}

#[tokio::test]
async fn nobody_at_the_socket_is_transient() {
    let incus = Incus::new(PathBuf::from("/nonexistent/incus.socket"), nobody());
    let error = incus.server().await.unwrap_err();
    assert!(matches!(error, IncusError::Connect { .. }), "{error}");
    assert!(error.is_transient());
    assert!(!error.is_not_found());
    assert!(
        error.to_string().contains("/nonexistent/incus.socket"),
        "{error}"
    );
}

#[tokio::test]
async fn connection_that_nobody_answers_is_replaced() {
    let way = Way::impatient();
    way.proxy.stall_next(1);
    let begun = Instant::now();
    way.project().instances().await.unwrap();
    assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    assert!(way.proxy.connections() >= 2);
}

#[tokio::test]
async fn server_that_never_answers_does_not_hang_a_call() {
    let way = Way::impatient();
    way.proxy.stall_new(true);
    let begun = Instant::now();
    let error = way.project().instances().await.unwrap_err();
    assert!(matches!(error, IncusError::Unanswered { .. }), "{error}");
    assert!(error.is_transient());
    assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    assert_eq!(way.proxy.connections(), 3);
    assert_eq!(way.proxy.requests(), Vec::<String>::new());
    way.proxy.stall_new(false);
    way.project().instances().await.unwrap();
}

#[tokio::test]
async fn warm_connections_are_used_while_fresh_ones_stall() {
    let way = Way::new();
    way.project().instances().await.unwrap();
    way.proxy.stall_new(true);
    way.project().instances().await.unwrap();
    assert_eq!(way.proxy.connections(), 1);
}

#[tokio::test]
async fn connections_closed_meanwhile_do_not_show() {
    let way = Way::new();
    let project = way.project();
    let lists = std::iter::repeat_with(|| project.instances()).take(5);
    for list in futures_util::future::join_all(lists).await {
        list.unwrap();
    }
    for _ in 0..5 {
        way.proxy.cut_all();
        way.project().instances().await.unwrap();
    }
}

#[tokio::test]
async fn read_is_repeated_when_its_connection_breaks() {
    let way = Way::new();
    way.proxy
        .cut_request(0, |_, path| path.contains("/instances"));
    way.project().instances().await.unwrap();
    way.proxy
        .cut_reply(0, 0, |_, path| path.contains("/instances"));
    way.project().instances().await.unwrap();
    assert_eq!(way.count("GET /1.0/instances"), 4);
}

#[tokio::test]
async fn half_answer_is_an_error_and_read_again() {
    let way = Way::new();
    for _ in 0..3 {
        way.proxy.cut_reply(0, 150, |_, path| path == "/1.0");
    }
    let error = way.incus.server().await.unwrap_err();
    assert!(matches!(error, IncusError::Broken { .. }), "{error}");
    assert!(error.is_transient());
    assert_eq!(way.count("GET /1.0"), 3);
    way.proxy.cut_reply(0, 150, |_, path| path == "/1.0");
    way.incus.server().await.unwrap();
}

#[tokio::test]
async fn answer_that_never_comes_is_asked_for_once_more() {
    let way = Way::impatient();
    let held = [(); 2].map(|()| way.proxy.hold(0, |_, path| path == "/1.0"));
    let begun = Instant::now();
    let error = way.incus.server().await.unwrap_err();
    assert!(matches!(error, IncusError::Unanswered { .. }), "{error}");
    assert!(begun.elapsed() < SHORT);
    assert_eq!(way.count("GET /1.0"), 2);
    held.into_iter().for_each(Held::release);
    way.incus.server().await.unwrap();
}

#[tokio::test]
async fn command_is_not_run_twice_when_its_answer_is_lost() {
    with_instance("once", |_, name| async move {
        let way = Way::new();
        let project = way.project();
        way.proxy.cut_reply(0, 0, |method, path| {
            method == "POST" && path.contains("/exec")
        });
        let exec = Exec::root(["sh", "-c", "echo run >> /root/runs"]);
        let error = project.exec(&name, &exec, LONG).await.unwrap_err();
        assert!(matches!(error, IncusError::Broken { .. }), "{error}");
        assert_eq!(way.count("POST"), 1);
        // The next one begins after it, and tells how often it ran.
        let exec = Exec::root([
            "sh",
            "-c",
            "until [ -s /root/runs ]; do sleep .05; done; \
            exit $(wc -l < /root/runs)",
        ]);
        assert_eq!(project.exec(&name, &exec, LONG).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn creation_whose_answer_is_lost_can_be_found() {
    let way = Way::new();
    let name = name("lost");
    let new = new_instance(&name);
    with_cleanup(&project(), &name, async {
        way.proxy.cut_reply(0, 0, |method, _| method == "POST");
        let error = way.project().create(&new).await.unwrap_err();
        assert!(error.is_transient() && !error.is_conflict(), "{error}");
        assert_eq!(way.count("POST"), 1);
        let found = async {
            while way
                .project()
                .instance(&name)
                .await
                .unwrap()
                .is_none_or(|i| !i.status.is_running())
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, found).await.unwrap();
        // Nothing may touch it before its operation has ended.
        let busy = async || {
            let all = way.incus.operations().await.unwrap();
            all.iter().any(|operation| operation.is_running_on(&name))
        };
        while busy().await {}
    })
    .await;
}

#[tokio::test]
async fn wait_goes_on_over_broken_connections() {
    with_instance("broken", |_, name| async move {
        let way = Way::new();
        let project = way.project();
        let exec = Exec::root(["sleep", "4"]);
        let cuts = async {
            for _ in 0..3 {
                let before = way.count("GET /1.0/operations/");
                while way.count("GET /1.0/operations/") == before {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                way.proxy.cut_all();
            }
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            code = project.exec(&name, &exec, LONG) => code.unwrap(),
            () = cuts => unreachable!(),
        };
        assert_eq!(code, 0);
    })
    .await;
}

/// An exec changes nothing about its instance, so it does not count as running on it.
fn is_about(operation: &Operation, name: &str) -> bool {
    operation.instance() == Some(name) && operation.status == OperationStatus::Running
}

#[tokio::test]
async fn wait_on_a_silent_server_ends_at_its_deadline() {
    with_instance("silent", |project, name| async move {
        let exec = Exec::root(["sleep", "5"]);
        let way = Way::new();
        let (other, begun) = (project.clone(), Instant::now());
        let running = other.exec(&name, &exec, LONG);
        let test = async {
            let find = async {
                loop {
                    let all = project.incus().operations().await.unwrap();
                    if let Some(found) = all.into_iter().find(|o| is_about(o, &name)) {
                        return found.id;
                    }
                }
            };
            let id = timeout(LONG, find).await.unwrap();
            way.proxy.stall_new(true);
            let waited = way.incus.wait(&id, Duration::from_secs(2)).await;
            assert!(
                matches!(&waited, Ok(Waited::StillRunning))
                    || waited.as_ref().is_err_and(IncusError::is_transient),
                "{waited:?}"
            );
            assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
        };
        let (code, ()) = tokio::join!(running, test);
        assert_eq!(code.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn event_stream_is_connected_again_after_a_loss_and_after_silence() {
    let way = Way::new();
    let (sender, mut events) = mpsc::channel(1000);
    let stop = CancellationToken::new();
    let retry = (Duration::from_millis(20), Duration::from_millis(200));
    let project_name = project_name();
    let watch = way
        .incus
        .watch_lifecycle(&project_name, retry, stop.clone(), |event| {
            sender.try_send(event).unwrap();
        });
    let test = async {
        let is_lost = |event: &StreamEvent| matches!(event, StreamEvent::Lost(_));
        let is_up = |event: &StreamEvent| *event == StreamEvent::Connected;
        seen(&mut events, is_up).await;

        way.proxy.cut_all();
        seen(&mut events, is_lost).await;
        seen(&mut events, is_up).await;

        // The server pings every 10 s, so this stream would not be called dead.
        way.proxy.silence_websockets(true);
        let lost = seen(&mut events, is_lost).await;
        assert!(
            matches!(&lost, StreamEvent::Lost(why) if why.contains("12s")),
            "{lost:?}"
        );
        way.proxy.silence_websockets(false);
        seen(&mut events, is_up).await;

        way.proxy.refuse_new(true);
        way.proxy.cut_all();
        for _ in 0..3 {
            seen(&mut events, is_lost).await;
        }
        way.proxy.refuse_new(false);
        seen(&mut events, is_up).await;
        stop.cancel();
    };
    tokio::join!(watch, test);
}

#[tokio::test]
async fn slow_server_is_waited_for() {
    let way = Way::new();
    way.proxy.delay(Duration::from_millis(200));
    way.project().instances().await.unwrap();
}
