//! Commands in guests.

use std::collections::BTreeMap;
use std::time::Duration;

use iapd::incus::{Exec, IncusError, OutputStream, StreamLine};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bed::{LONG, SHORT, project, with_instance};

fn sh(script: &str) -> Exec {
    Exec::root(["sh", "-c", script])
}

#[tokio::test]
async fn exit_code_is_returned() {
    with_instance("exit", |project, name| async move {
        for (script, code) in [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
            assert_eq!(
                project.exec(&name, &sh(script), LONG).await.unwrap(),
                code,
                "{script}"
            );
        }
        let missing = project
            .exec(&name, &Exec::root(["/no/such/program"]), LONG)
            .await;
        match missing {
            Ok(code) => assert!(code == 127 || code == 126, "{code}"),
            Err(error) => assert!(!error.is_transient(), "{error}"),
        }
        let begun = Instant::now();
        assert_eq!(
            project
                .exec(&name, &sh("sleep 60 & true"), LONG)
                .await
                .unwrap(),
            0
        );
        assert!(begun.elapsed() < SHORT);
    })
    .await;
}

#[tokio::test]
async fn command_gets_its_user_place_and_environment() {
    with_instance("env", |project, name| async move {
        let exec = Exec {
            command: ["sh", "-c", "id -u; id -g; pwd; printf %s \"$WORDS\""]
                .map(Into::into)
                .into(),
            environment: BTreeMap::from([("WORDS".to_owned(), "a 'b' $c\nd".to_owned())]),
            user: 1234,
            group: 4321,
            cwd: Some("/var".to_owned()),
        };
        let (code, stdout, stderr) = project.exec_output(&name, &exec, LONG, 1024).await.unwrap();
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&stderr));
        assert_eq!(
            String::from_utf8(stdout).unwrap(),
            "1234\n4321\n/var\na 'b' $c\nd"
        );
    })
    .await;
}

#[tokio::test]
async fn output_is_returned_up_to_its_cap() {
    with_instance("output", |project, name| async move {
        let exec = sh("echo out; echo err >&2; exit 4");
        let (code, stdout, stderr) = project.exec_output(&name, &exec, LONG, 1024).await.unwrap();
        assert_eq!(
            (code, stdout.as_slice(), stderr.as_slice()),
            (4, &b"out\n"[..], &b"err\n"[..])
        );
        let exec = sh("head -c 100000 /dev/zero");
        let (_, stdout, stderr) = project.exec_output(&name, &exec, LONG, 500).await.unwrap();
        assert_eq!((stdout.len(), stderr.len()), (500, 0));
    })
    .await;
}

#[tokio::test]
async fn exec_of_nobody_is_not_found() {
    let error = project()
        .exec("it-incus-nobody", &sh("true"), SHORT)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let stop = CancellationToken::new();
    let error = project()
        .exec_stream("it-incus-nobody", &sh("true"), stop, |_| ())
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn lines_arrive_while_the_command_runs() {
    with_instance("lines", |project, name| async move {
        let (sender, mut lines) = tokio::sync::mpsc::channel(100);
        let script = "echo one; echo two >&2; cat; until [ -e /root/go ]; do sleep .05; done; \
            printf 'three\\377'; exit 5";
        let exec = sh(script);
        let stop = CancellationToken::new();
        let stream = project.exec_stream(&name, &exec, stop, |line| {
            sender.try_send(line).unwrap();
        });
        let test = async {
            let mut early = vec![lines.recv().await.unwrap(), lines.recv().await.unwrap()];
            early.sort_by(|a, b| a.text.cmp(&b.text));
            let line = |stream, text: &str| StreamLine {
                stream,
                text: text.to_owned(),
            };
            assert_eq!(
                early,
                [
                    line(OutputStream::Stdout, "one"),
                    line(OutputStream::Stderr, "two")
                ]
            );
            assert_eq!(
                project
                    .exec(&name, &sh("touch /root/go"), LONG)
                    .await
                    .unwrap(),
                0
            );
            assert_eq!(
                lines.recv().await.unwrap(),
                line(OutputStream::Stdout, "three\u{fffd}")
            );
        };
        let (code, ()) = tokio::join!(stream, test);
        assert_eq!(code.unwrap(), 5);
    })
    .await;
}

#[tokio::test]
async fn much_output_is_complete() {
    with_instance("much", |project, name| async move {
        let mut count = 0;
        let mut last = String::new();
        let stop = CancellationToken::new();
        let code = project
            .exec_stream(&name, &sh("seq 1 200000"), stop, |line| {
                count += 1;
                last = line.text;
            })
            .await;
        assert_eq!(
            (code.unwrap(), count, last.as_str()),
            (0, 200_000, "200000")
        );
    })
    .await;
}

#[tokio::test]
async fn cancelled_command_is_killed() {
    with_instance("cancel", |project, name| async move {
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let exec = sh("trap '' TERM INT HUP; echo $$; exec sleep 1000");
        let mut pid = String::new();
        let error = project
            .exec_stream(&name, &exec, stop.clone(), |line| {
                pid = line.text;
                stop.cancel();
            })
            .await
            .unwrap_err();
        assert!(matches!(error, IncusError::Cancelled { .. }), "{error}");
        assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
        let gone = sh(&format!(
            "while kill -0 {pid} 2>/dev/null; do sleep .05; done"
        ));
        assert_eq!(project.exec(&name, &gone, SHORT).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn stopped_before_it_begins_runs_nothing() {
    let stop = CancellationToken::new();
    stop.cancel();
    let error = project()
        .exec_stream("it-incus-nobody", &sh("true"), stop, |_| ())
        .await;
    assert!(
        matches!(error, Err(IncusError::Cancelled { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn dropped_stream_ends_its_command() {
    with_instance("drop", |project, name| async move {
        let exec = sh("echo $$ > /root/pid; echo up; exec sleep 1000");
        let up = tokio::sync::Notify::new();
        let stop = CancellationToken::new();
        tokio::select! {
            ended = project.exec_stream(&name, &exec, stop, |_| up.notify_one()) => {
                panic!("{ended:?}")
            }
            () = up.notified() => {}
        }
        let gone = sh("while kill -0 $(cat /root/pid) 2>/dev/null; do sleep .05; done");
        assert_eq!(project.exec(&name, &gone, SHORT).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn output_held_open_by_a_child_does_not_hold_the_stream() {
    with_instance("child", |project, name| async move {
        let begun = Instant::now();
        let mut lines = Vec::new();
        let stop = CancellationToken::new();
        let exec = sh("sleep 1000 & echo done; exit 7");
        let code = project
            .exec_stream(&name, &exec, stop, |line| lines.push(line.text))
            .await;
        assert_eq!((code.unwrap(), lines), (7, vec!["done".to_owned()]));
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    })
    .await;
}
