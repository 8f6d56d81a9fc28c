//! Instances, operations, events.

use std::sync::{Arc, Mutex};

use iapd::calls::CallOutcome;
use iapd::incus::{
    Exec, ImageSource, Incus, InstancePatch, Operation, OperationId, OperationStatus, Status,
    StopMode, StreamEvent, Waited,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bed::{
    LONG, SHORT, ended_well, incus, name, new_instance, project, project_name, seen, socket,
    with_cleanup, with_instance,
};

#[tokio::test]
async fn server_tells_what_it_is() {
    let server = incus().server().await.unwrap();
    assert!(server.is_trusted());
    assert!(server.has_extension("instances"));
    assert!(!server.has_extension("no_such_extension"));
    assert!(!server.version.is_empty());
    assert_eq!(server.certificate_fingerprint.len(), 64);
}

#[tokio::test]
async fn instance_lives_and_is_removed() {
    let project = project();
    let name = name("life");
    let mut new = new_instance(&name);
    new.config
        .insert("user.iapd.owner".to_owned(), "it's \"me\"".to_owned());
    new.start = false;
    let id = project.create(&new).await.unwrap();
    ended_well(&project, &id).await;
    with_cleanup(&project, &name, async {
        let made = project.instance(&name).await.unwrap().unwrap();
        assert_eq!(made.status, Status::Stopped);
        assert_eq!(made.kind, "container");
        assert_eq!(made.project, project_name());
        assert_eq!(made.config["user.iapd.owner"], "it's \"me\"");
        assert!(made.created_at.is_some());
        assert!(made.config.contains_key("volatile.base_image"));
        assert!(made.expanded_devices.contains_key("root"));
        assert_eq!(made.profiles, ["default"]);
        assert!(!made.ephemeral);

        project.start(&name, LONG).await.unwrap();
        project.start(&name, LONG).await.unwrap();
        let listed = project.instances().await.unwrap();
        let listed = listed
            .iter()
            .find(|instance| instance.name == name)
            .unwrap();
        assert!(listed.status.is_running());
        let everywhere = project.incus().instances_all_projects().await.unwrap();
        assert!(
            everywhere
                .iter()
                .any(|i| i.name == name && i.project == project_name())
        );
        let state = project.state(&name).await.unwrap().unwrap();
        assert!(state.pid > 0);
        project.console_log(&name).await.unwrap();

        project.stop(&name, StopMode::Force, LONG).await.unwrap();
        project.stop(&name, StopMode::Force, LONG).await.unwrap();
        let stopped = project.instance(&name).await.unwrap().unwrap();
        assert_eq!(stopped.status, Status::Stopped);
        project.delete(&name, LONG).await.unwrap();
        project.delete(&name, LONG).await.unwrap();
        project.stop(&name, StopMode::Force, LONG).await.unwrap();
        assert!(project.instance(&name).await.unwrap().is_none());
        assert!(project.state(&name).await.unwrap().is_none());
        assert!(project.start(&name, LONG).await.unwrap_err().is_not_found());
    })
    .await;
}

#[tokio::test]
async fn patch_changes_only_what_it_names() {
    with_instance("patch", |project, name| async move {
        let look = async || project.instance(&name).await.unwrap().unwrap();
        project
            .patch(
                &name,
                &InstancePatch::config("user.one", Some("1".to_owned())),
            )
            .await
            .unwrap();
        let mut two = InstancePatch::config("user.two", Some("2".to_owned()));
        two.ephemeral = Some(true);
        project.patch(&name, &two).await.unwrap();
        let seen = look().await;
        assert_eq!(
            (seen.config["user.one"].as_str(), seen.ephemeral),
            ("1", true)
        );
        project
            .patch(&name, &InstancePatch::config("user.one", None))
            .await
            .unwrap();
        let kept = InstancePatch {
            ephemeral: Some(false),
            ..InstancePatch::default()
        };
        project.patch(&name, &kept).await.unwrap();
        let seen = look().await;
        assert!(!seen.config.contains_key("user.one"));
        assert_eq!(seen.config["user.two"], "2");
        assert!(!seen.ephemeral);
        let wrong = InstancePatch::config("limits.cpu", Some("lots".to_owned()));
        let error = project.patch(&name, &wrong).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    })
    .await;
}

#[tokio::test]
async fn taken_name_is_a_conflict() {
    with_instance("twice", |project, name| async move {
        let error = match project.create(&new_instance(&name)).await {
            Err(error) => error,
            Ok(id) => match project.incus().wait(&id, LONG).await.unwrap() {
                Waited::Ended(operation) => operation.result().unwrap_err(),
                other => panic!("{other:?}"),
            },
        };
        assert!(error.is_conflict(), "{error}");
        assert!(!error.is_not_found(), "{error}");
        let first = project.instance(&name).await.unwrap().unwrap();
        assert!(first.status.is_running());
    })
    .await;
}

#[tokio::test]
async fn missing_image_fails_with_the_servers_words() {
    let project = project();
    let mut new = new_instance(&name("no-image"));
    new.alias = ImageSource::Alias("it-incus-no-such-image".to_owned());
    let error = match project.create(&new).await {
        Err(error) => error,
        Ok(id) => match project.incus().wait(&id, LONG).await.unwrap() {
            Waited::Ended(operation) => operation.result().unwrap_err(),
            other => panic!("{other:?}"),
        },
    };
    assert!(error.to_string().contains("Image not provided"), "{error}");
    assert!(error.is_not_found(), "{error}");
    assert!(!error.is_transient() && !error.is_conflict(), "{error}");
    assert!(project.instance(&new.name).await.unwrap().is_none());
}

#[tokio::test]
async fn virtual_machine_fails_with_the_servers_words_where_there_are_none() {
    let project = project();
    let mut new = new_instance(&name("vm"));
    new.kind = "virtual-machine".to_owned();
    if project
        .incus()
        .server()
        .await
        .unwrap()
        .driver
        .contains("qemu")
    {
        return;
    }
    let error = match project.create(&new).await {
        Err(error) => error,
        Ok(id) => match project.incus().wait(&id, LONG).await.unwrap() {
            Waited::Ended(operation) => operation.result().unwrap_err(),
            other => panic!("{other:?}"),
        },
    };
    let text = error.to_string().to_lowercase();
    assert!(
        text.contains("virtual-machine") || text.contains("not operational"),
        "{text}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn operation_that_is_not_known_is_forgotten() {
    let incus = incus();
    let id = OperationId::new("/1.0/operations/00000000-0000-4000-8000-000000000000");
    assert_eq!(incus.wait(&id, SHORT).await.unwrap(), Waited::Forgotten);
    assert_eq!(incus.operation(&id).await.unwrap(), None);
    incus.cancel(&id).await.unwrap();
}

#[tokio::test]
async fn operation_is_seen_while_it_runs() {
    with_instance("ops", |project, name| async move {
        let exec = Exec::root(["sleep", "3"]);
        let running = project.exec(&name, &exec, LONG);
        let look = async {
            loop {
                let all = project.incus().operations().await.unwrap();
                let own = |found: &Operation| {
                    found.instance() == Some(&name) && found.status == OperationStatus::Running
                };
                if let Some(found) = all.into_iter().find(own) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        let (code, found) = tokio::join!(running, tokio::time::timeout(LONG, look));
        assert_eq!(code.unwrap(), 0);
        let found = found.unwrap();
        assert_eq!(found.instance(), Some(name.as_str()));
        assert_eq!(found.status, OperationStatus::Running);
        assert!(found.created_at.is_some());
        assert!(
            !found.is_running_on(&name),
            "a command changes nothing about it"
        );
    })
    .await;
}

#[tokio::test]
async fn wait_ends_at_its_deadline() {
    with_instance("waiting", |project, name| async move {
        let begun = tokio::time::Instant::now();
        let error = project
            .exec(
                &name,
                &Exec::root(["sleep", "6"]),
                std::time::Duration::from_millis(1500),
            )
            .await
            .unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
    })
    .await;
}

#[tokio::test]
async fn calls_are_reported() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reports);
    let incus = Incus::new(
        socket(),
        Arc::new(move |report| seen.lock().unwrap().push((report.kind, report.outcome))),
    );
    let project = incus.project(&project_name());
    project.instances().await.unwrap();
    assert!(project.instance("it-incus-nobody").await.unwrap().is_none());
    let nothing = InstancePatch::default();
    assert!(
        project
            .patch("it-incus-nobody", &nothing)
            .await
            .unwrap_err()
            .is_not_found()
    );
    let mut new = new_instance(&name("reported"));
    new.alias = ImageSource::Alias("it-incus-no-such-image".to_owned());
    let id = project.create(&new).await.unwrap();
    incus.wait(&id, LONG).await.unwrap();
    // What else is asked depends on how much there is, and how a wait goes.
    let mut reports = std::mem::take(&mut *reports.lock().unwrap());
    reports.retain(|(kind, _)| !["project_get", "operation_get"].contains(kind));
    assert_eq!(
        reports,
        [
            ("instance_list", CallOutcome::Ok),
            ("instance_get", CallOutcome::Ok),
            ("instance_patch", CallOutcome::Refused),
            ("instance_create", CallOutcome::Ok),
            ("operation_wait", CallOutcome::Failed),
        ]
    );
}

#[tokio::test]
async fn project_that_does_not_exist_is_an_error_and_not_an_empty_list() {
    let error = incus()
        .project("it-incus-nowhere")
        .instances()
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("it-incus-nowhere"), "{error}");
}

#[tokio::test]
async fn events_of_a_life_are_seen() {
    let (sender, mut events) = mpsc::channel(1000);
    let stop = CancellationToken::new();
    let incus = incus();
    let project_name = project_name();
    let watch = incus.watch_lifecycle(&project_name, (SHORT, SHORT), stop.clone(), |event| {
        sender.try_send(event).unwrap();
    });
    let test = async {
        seen(&mut events, |event| *event == StreamEvent::Connected).await;
        let project = project();
        let name = name("events");
        let mut new = new_instance(&name);
        new.ephemeral = true;
        let id = project.create(&new).await.unwrap();
        ended_well(&project, &id).await;
        with_cleanup(&project, &name, async {
            let is = |action: &'static str| {
                let name = name.clone();
                move |event: &StreamEvent| match event {
                    StreamEvent::Lifecycle(event) => {
                        event.action == action && event.instance.as_deref() == Some(&name)
                    }
                    _ => false,
                }
            };
            seen(&mut events, is("instance-created")).await;
            let ring = "until curl -fsS --unix-socket /dev/incus/sock -X PATCH \
                -d '{\"state\":\"Ready\"}' http://incus/1.0; do sleep .05; done";
            let code = project
                .exec(&name, &Exec::root(["sh", "-c", ring]), LONG)
                .await;
            assert_eq!(code.unwrap(), 0);
            seen(&mut events, is("instance-ready")).await;
            let ready = project.instance(&name).await.unwrap().unwrap();
            assert_eq!(ready.status, Status::Ready);
            assert!(ready.status.is_running());
            let off = Exec::root(["poweroff", "-f"]);
            // The guest goes away under it, so its end may come in any form.
            let _ = project.exec(&name, &off, LONG).await;
            seen(&mut events, is("instance-shutdown")).await;
            let gone = seen(&mut events, is("instance-deleted")).await;
            let StreamEvent::Lifecycle(gone) = gone else {
                panic!("{gone:?}")
            };
            assert_eq!(gone.project, project.name());
        })
        .await;
        stop.cancel();
    };
    tokio::join!(watch, test);
}
