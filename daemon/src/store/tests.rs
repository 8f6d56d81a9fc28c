use std::sync::mpsc as std_mpsc;

use super::*;

fn ended(name: &str, pool: &str, seconds: i64, result: Option<&str>) -> EndedAgent {
    EndedAgent {
        name: name.into(),
        pool: pool.into(),
        project: "default".into(),
        image: "abc".into(),
        azure_agent_id: Some(7),
        created_at: Timestamp::from_second(seconds - 60).ok(),
        online_at: None,
        ended_at: Timestamp::from_second(seconds).unwrap(),
        reason: "job-succeeded".into(),
        detail: String::new(),
        exit_status: Some(0),
        job: result.map(|result| EndedJob {
            request_id: seconds,
            name: "Build".into(),
            result: result.into(),
            ..EndedJob::default()
        }),
    }
}

fn open(state_dir: &Path, retention: Retention) -> Store {
    Store::open(state_dir, retention, Counter::default())
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn all() -> AgentFilter {
    AgentFilter {
        limit: 100,
        ..AgentFilter::default()
    }
}

async fn names(store: &Store, filter: AgentFilter) -> Vec<String> {
    let agents = store.ended_agents(filter).await.unwrap();
    agents.into_iter().map(|agent| agent.name).collect()
}

#[tokio::test]
async fn ended_agents_are_kept_filtered_and_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    let t = now();
    store.agent_ended(ended("a", "linux", t - 30, Some("succeeded")));
    store.agent_ended(ended("b", "linux", t - 20, Some("failed")));
    store.agent_ended(ended("c", "other", t - 10, None));
    assert_eq!(names(&store, all()).await, ["c", "b", "a"]);
    let pool = Some("linux".to_owned());
    assert_eq!(
        names(&store, AgentFilter { pool, ..all() }).await,
        ["b", "a"]
    );
    let with_job = true;
    assert_eq!(
        names(&store, AgentFilter { with_job, ..all() }).await,
        ["b", "a"]
    );
    let failed = true;
    assert_eq!(names(&store, AgentFilter { failed, ..all() }).await, ["b"]);
    let since = Timestamp::from_second(t - 15).ok();
    assert_eq!(names(&store, AgentFilter { since, ..all() }).await, ["c"]);
    assert_eq!(
        names(&store, AgentFilter { limit: 1, ..all() }).await,
        ["c"]
    );
    store.close().await;

    let store = open(dir.path(), Retention::default());
    assert_eq!(store.warning(), None);
    let found = store.ended_agent("b").await.unwrap().unwrap();
    assert_eq!(found, ended("b", "linux", t - 20, Some("failed")));
    assert_eq!(store.agent_of_job(t - 20).await.unwrap().unwrap().name, "b");
    assert_eq!(store.ended_agent("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn later_records_of_an_agent_add_to_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    store.agent_ended(ended("a", "linux", now(), None));
    store.agent_ended(ended("a", "linux", now(), Some("canceled")));
    store.agent_ended(EndedAgent {
        created_at: None,
        reason: "unseen".into(),
        detail: "nobody looked".into(),
        exit_status: None,
        ..ended("a", "linux", now() + 60, None)
    });
    let agents = store.ended_agents(all()).await.unwrap();
    assert_eq!(agents.len(), 1);
    let agent = &agents[0];
    assert_eq!(agent.job.as_ref().unwrap().result, "canceled");
    assert_eq!(
        (&*agent.reason, &*agent.detail, agent.exit_status),
        ("job-succeeded", "", Some(0))
    );
    assert!(agent.created_at.is_some() && agent.ended_at < Timestamp::now() + FLUSH);
}

#[tokio::test]
async fn a_daemon_that_was_restarted_does_not_forget_that_an_agent_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    let later = |reason: &str| EndedAgent {
        reason: reason.into(),
        ..ended("a", "linux", now(), Some(""))
    };
    store.agent_ended(later("forced"));
    store.agent_ended(EndedAgent {
        created_at: None,
        ..later("job-ended")
    });
    let agent = store.ended_agent("a").await.unwrap().unwrap();
    assert_eq!(agent.reason, "forced");
}

#[tokio::test]
async fn a_record_that_knows_no_job_does_not_change_how_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    store.agent_ended(ended("a", "linux", now(), Some("succeeded")));
    // It was kept, and that is all a daemon knows that was restarted meanwhile.
    store.agent_ended(EndedAgent {
        reason: "job-failed".into(),
        ..ended("a", "linux", now(), None)
    });
    let agent = store.ended_agent("a").await.unwrap().unwrap();
    assert_eq!(agent.reason, "job-succeeded");
    assert_eq!(agent.job.unwrap().result, "succeeded");
}

#[tokio::test]
async fn a_full_disk_stays_the_reason_unless_the_job_ended_well() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    let with = |name: &str, reason: &str| EndedAgent {
        reason: reason.into(),
        ..ended(name, "linux", now(), Some(""))
    };
    for (name, later, reason) in [
        ("a", "job-failed", "disk-full"),
        ("b", "job-ended", "disk-full"),
        ("c", "job-succeeded", "job-succeeded"),
    ] {
        store.agent_ended(with(name, "disk-full"));
        store.agent_ended(EndedAgent {
            created_at: None,
            ..with(name, later)
        });
        let agent = store.ended_agent(name).await.unwrap().unwrap();
        assert_eq!(agent.reason, reason);
    }
}

#[tokio::test]
async fn the_audit_trail_is_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    for number in 0..3 {
        store.audit(AuditEntry {
            at: Timestamp::now(),
            uid: Some(1000),
            user: "ana".into(),
            command: "agents drain".into(),
            target: format!("a{number}"),
            outcome: "ok".into(),
        });
    }
    let entries = store.audit_entries(None, 2).await.unwrap();
    let targets: Vec<&str> = entries.iter().map(|entry| &*entry.target).collect();
    assert_eq!(targets, ["a2", "a1"]);
    assert_eq!(entries[0].uid, Some(1000));
}

#[tokio::test]
async fn what_is_too_old_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    store.agent_ended(ended("old", "linux", now() - 3600, None));
    store.agent_ended(ended("new", "linux", now(), None));
    store.close().await;
    let retention = Retention {
        age: Duration::from_secs(600),
        ..Retention::default()
    };
    let store = open(dir.path(), retention);
    assert_eq!(names(&store, all()).await, ["new"]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("history.db"), "this is no database at all").unwrap();
    let store = open(dir.path(), Retention::default());
    let warning = store.warning().unwrap();
    assert!(warning.contains("damaged"), "{warning}");
    store.agent_ended(ended("a", "linux", now(), None));
    assert_eq!(names(&store, all()).await, ["a"]);
    let aside = std::fs::read_dir(dir.path()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn a_newer_file_is_left_alone_and_history_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    drop(open(dir.path(), Retention::default()));
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let store = open(dir.path(), Retention::default());
    assert!(store.warning().unwrap().contains("schema 99"));
    store.agent_ended(ended("a", "linux", now(), None));
    let error = store.ended_agents(all()).await.unwrap_err();
    assert!(error.to_string().contains("newer iapd"), "{error}");
    let connection = Connection::open(&path).unwrap();
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::default());
    let (release, held) = std_mpsc::channel::<()>();
    store.write("a slow one", move |_| {
        let _ = held.recv();
        Ok(())
    });
    for _ in 0..QUEUE + 10 {
        store.agent_ended(ended("a", "linux", now(), None));
    }
    assert!(store.dropped() >= 9, "{}", store.dropped());
    release.send(()).unwrap();
    assert_eq!(names(&store, all()).await, ["a"]);
}
