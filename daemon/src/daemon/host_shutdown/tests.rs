use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(3600));

/// A logind that does as the test wants.
struct World {
    dir: TempDir,
    intents: Arc<Intents>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let intents = Arc::new(Intents::load(dir.path()));
        let world = Self { dir, intents };
        // Holds the lock for as long as its input is open.
        let held = world.path("held");
        world.program(
            "inhibit",
            &format!("touch {0}; cat; rm {0}", held.display()),
        );
        world.shuts_down(false);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        // By another process: a file that this one has open for writing, be it in a fork of
        // another test's, cannot be run.
        let path = self.path(name);
        let written = std::process::Command::new("sh")
            .args([
                "-c",
                r#"printf '%s' "$1" > "$2.new"; chmod 755 "$2.new"; mv "$2.new" "$2""#,
            ])
            .args(["sh", &format!("#!/bin/sh\n{script}\n")])
            .arg(&path)
            .status();
        assert!(written.unwrap().success());
    }

    fn shuts_down(&self, is_shutting_down: bool) {
        self.program("busctl", &format!("echo b {is_shutting_down}"));
    }

    fn looker(&self) -> HostShutdown {
        let logind = Logind {
            inhibit: self.path("inhibit").into(),
            busctl: self.path("busctl").into(),
        };
        HostShutdown::new(logind, Arc::clone(&self.intents))
    }

    fn is_paused(&self) -> bool {
        let effective = self.intents.now().effective("any", Timestamp::now());
        effective.host_wide && effective.wanted(3) == 0
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_the_last_job_and_the_host_pauses_meanwhile() {
    let world = World::new();
    let mut looker = world.looker();
    looker.look(LONG, 0).await;
    assert!(
        looker.lock.is_none(),
        "nothing runs that could be waited for"
    );
    looker.look(LONG, 2).await;
    assert!(looker.lock.is_some() && world.path("held").exists());
    looker.look(LONG, 0).await;
    assert!(looker.lock.is_none(), "jobs ended, and nobody shuts down");

    looker.look(LONG, 1).await;
    world.shuts_down(true);
    looker.look(LONG, 1).await;
    assert!(looker.lock.is_some() && world.is_paused());
    looker.look(LONG, 0).await;
    assert!(looker.lock.is_none());
    assert!(world.is_paused(), "nothing begins any more");
    looker.look(LONG, 1).await;
    assert!(looker.lock.is_none(), "the shutdown has the word");
    assert!(
        !world.path("intents.json").exists(),
        "over with the next boot"
    );
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_configured() {
    let world = World::new();
    let mut looker = world.looker();
    looker.look(LONG, 1).await;
    world.shuts_down(true);
    looker.look(LONG, 1).await;
    assert!(looker.lock.is_some());
    looker.look(Some(Duration::ZERO), 1).await;
    assert!(looker.lock.is_none() && world.is_paused());
}

#[tokio::test]
async fn a_shutdown_that_does_not_come_ends_the_pause() {
    let world = World::new();
    let mut looker = world.looker();
    looker.look(LONG, 1).await;
    world.shuts_down(true);
    looker.look(LONG, 1).await;
    world.program("busctl", "echo no bus >&2; exit 1");
    looker.look(LONG, 1).await;
    assert!(world.is_paused(), "not known is not changed");
    world.shuts_down(false);
    looker.look(LONG, 1).await;
    assert!(!world.is_paused() && looker.lock.is_some());
}

#[tokio::test]
async fn a_lock_that_is_refused_or_lost_is_asked_for_again() {
    let world = World::new();
    let mut looker = world.looker();
    world.program("inhibit", "echo Access denied >&2; exit 1");
    let refused = looker.logind.delay_shutdown("why").await;
    let refused = refused.err().expect("it was refused");
    assert!(refused.to_string().ends_with("inhibit: Access denied"));
    looker.look(LONG, 1).await;
    assert!(looker.lock.is_none() && looker.retry_at.is_some());

    looker.retry_at = None;
    world.program("inhibit", "read line; echo $line; sleep 0");
    looker.look(LONG, 1).await;
    let lock = looker.lock.as_mut().expect("it was given");
    // The program ends by itself, as one does that was killed.
    while !lock.is_lost() {
        tokio::task::yield_now().await;
    }
    looker.look(LONG, 0).await;
    assert!(looker.lock.is_none());
}

#[tokio::test]
async fn without_a_time_to_wait_nothing_is_asked() {
    let world = World::new();
    let mut looker = world.looker();
    looker.look(None, 5).await;
    assert!(looker.lock.is_none() && !world.path("held").exists());
}
