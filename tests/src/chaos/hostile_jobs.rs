//! The jobs: short ones, and some that do what no job should.

use std::time::{Duration, Instant};

use super::Deck;
use super::world::{SECOND_POOL, World};
use crate::azure_sim::{JobRequest, JobState};
use crate::host::AZURE_POOL;

/// A job that was queued.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub kind: &'static str,
    /// It is about to end in any way: what it does ends it too, or may.
    pub may_fail: bool,
    /// When it was queued.
    pub at: Instant,
}

/// What a job does to its guest.
#[derive(Debug, Clone, Copy)]
struct Hostile {
    kind: &'static str,
    may_fail: bool,
    script: &'static str,
}

/// The job that leaves no room.
pub const FILLS_DISK: &str = "fills its disk";
/// The job that leaves its agent without a word to Azure.
pub const KILLS_LISTENER: &str = "kills its listener";

const HOSTILE: [Hostile; 11] = [
    Hostile {
        kind: FILLS_DISK,
        may_fail: true,
        script: "cat /dev/zero >~/filler || : ; sync; cat /dev/zero >~/_diag/filler || :",
    },
    Hostile {
        kind: "forks without bound",
        may_fail: true,
        // Doubling, until the limit; what is left over goes on when the job is done.
        script: "bomb() { bomb | bomb & sleep 5; }; bomb 2>/dev/null; sleep 3",
    },
    Hostile {
        kind: "leaves processes up to the limit",
        may_fail: true,
        script: "for n in $(seq 390); do setsid sleep 300 >/dev/null 2>&1 </dev/null & done",
    },
    Hostile {
        kind: "eats memory",
        may_fail: true,
        script: "tail /dev/zero || exit 3",
    },
    Hostile {
        kind: "fills a tmpfs",
        may_fail: true,
        script: "sudo sh -c 'cat /dev/zero >/dev/shm/filler || cat /dev/zero >/run/filler' || :",
    },
    Hostile {
        kind: "rings the doorbell",
        may_fail: false,
        script: r#"sudo perl -MIO::Socket::UNIX -e '
            my $body = q({"state":"Ready"});
            my $s;
            for (1 .. 10000) {
                $s ||= IO::Socket::UNIX->new(Peer => "/dev/incus/sock") or next;
                print $s "PATCH /1.0 HTTP/1.1\r\nHost: incus\r\nContent-Type: application/json\r\n",
                    "Content-Length: ", length($body), "\r\n\r\n", $body;
                my $read = sysread($s, my $answer, 4096);
                $s = undef unless $read;
            }'"#,
    },
    Hostile {
        kind: KILLS_LISTENER,
        may_fail: true,
        script: "sudo pkill -9 -f bin/Agent.Listener; sleep 30",
    },
    Hostile {
        kind: "writes a hostile status file",
        may_fail: false,
        script: "sudo sh -c 'mkdir -p /run/iapd && mkfifo /run/iapd/status.json && \
                 curl -s --max-time 2 --unix-socket /dev/incus/sock -X PATCH \
                 -d \"{\\\"state\\\":\\\"Ready\\\"}\" http://incus/1.0'; sleep 1; \
                 sudo mkfifo /run/iapd/status.json.new || :",
    },
    Hostile {
        kind: "claims to be over",
        may_fail: false,
        script: "sudo sh -c 'mkdir -p /run/iapd; \
                 head -c 20000000 /dev/zero >/run/iapd/filler; \
                 echo \"{\\\"result\\\":\\\"oom-kill\\\",\\\"exit_code\\\":\\\"killed\\\",\\\"exit_status\\\":\\\"KILL\\\",\\\"ended\\\":99999999999}\" \
                 >/run/iapd/status.json; echo keep >/run/iapd/verdict; \
                 curl -s --max-time 2 --unix-socket /dev/incus/sock -X PATCH \
                 -d \"{\\\"state\\\":\\\"Ready\\\"}\" http://incus/1.0'; sleep 3",
    },
    Hostile {
        kind: "writes 1 GiB of log",
        may_fail: false,
        script: "head -c 500M /dev/zero; head -c 524M /dev/zero >>~/azp-agent.log",
    },
    Hostile {
        kind: "leaves traps instead of logs",
        may_fail: false,
        script: "rm -f ~/azp-agent.log; ln -s /dev/zero ~/azp-agent.log; mkfifo ~/_diag/Worker_0.log; \
                 ln -s /etc/shadow ~/_diag/Worker_1.log; mkdir ~/_diag/Worker_2.log",
    },
];

/// A job that waits longer than the others have work does not keep the faults going.
const MOST_WAITING: usize = 15;

/// Queues so many jobs, one or two at a time.
pub(super) async fn feed(
    world: &World,
    rng: fastrand::Rng,
    count: usize,
) -> anyhow::Result<Vec<Queued>> {
    let mut hostile = Deck::new(&HOSTILE, rng);
    let mut jobs: Vec<Queued> = Vec::new();
    // Every fifth is hostile.
    while jobs.len() < count {
        let is_hostile = jobs.len() % 5 == 4;
        let pool = hostile.one_of(&[AZURE_POOL, SECOND_POOL]).copied();
        let request = JobRequest::new(pool.unwrap_or(AZURE_POOL));
        let work = hostile.millis(100..4000);
        let (request, kind, may_fail) = match is_hostile.then(|| hostile.draw()).flatten() {
            Some(hostile) => (
                request.running(hostile.script),
                hostile.kind,
                hostile.may_fail,
            ),
            None if jobs.len() % 20 == 7 => (request.running("echo no; exit 3"), "fails", true),
            None => (request.lasting(work), "works", false),
        };
        let id = world.host.sim.queue_job(request.named(kind))?;
        jobs.push(Queued {
            id,
            kind,
            may_fail,
            at: Instant::now(),
        });
        if jobs.len().is_multiple_of(10) {
            let waiting = waiting(world);
            world.say(&format!(
                "{} of {count} jobs queued, {waiting} wait",
                jobs.len()
            ));
        }
        tokio::time::sleep(hostile.millis(200..2200)).await;
        while waiting(world) > MOST_WAITING {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(jobs)
}

fn waiting(world: &World) -> usize {
    let jobs = world.host.sim.jobs();
    jobs.iter()
        .filter(|job| job.state == JobState::Queued)
        .count()
}
