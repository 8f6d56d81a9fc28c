//! What has to be true at the end, and the counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use iap_common::v1;
use iap_common::v1::history_service_client::HistoryServiceClient;
use jiff::Timestamp;

use super::guest_faults::{DELETED, FROZEN, STOPPED};
use super::hostile_jobs::{FILLS_DISK, Queued};
use super::journal::Deed;
use super::operator::{DEADLINE, DRAIN_FORCE, REAP_FORCE};
use super::world::World;
use crate::azure_sim::{JobResult, JobView};
use crate::host::PAT;

/// Deeds to one agent that may end its job.
const KILLS: [&str; 7] = [
    STOPPED,
    DELETED,
    FROZEN,
    DEADLINE,
    DRAIN_FORCE,
    REAP_FORCE,
    "registration deleted outside",
];
/// Deeds to all of them that may.
const WIDE: [&str; 1] = ["storage pool full"];

/// Prints the counts and fails when something was lost or told wrongly.
pub(super) async fn judge(world: &World, jobs: &[Queued]) -> anyhow::Result<String> {
    let deeds = world.journal.deeds();
    let kinds = count_deeds(world, &deeds);
    let judged = judge_jobs(world, jobs, &deeds);
    let mut findings = judged.findings;
    findings.extend(judge_records(world, &deeds).await?);
    findings.extend(secrets(world)?);
    for finding in &findings {
        world.say(&format!("FINDING {finding}"));
    }
    let counts = format!(
        "{}, {} faults and acts of {kinds} kinds",
        judged.counts,
        deeds.len()
    );
    ensure!(findings.is_empty(), "{} findings; {counts}", findings.len());
    Ok(counts)
}

/// What became of the jobs.
struct JudgedJobs {
    findings: Vec<String>,
    counts: String,
}

/// Prints what was done and returns how many sorts there were.
fn count_deeds(world: &World, deeds: &[Deed]) -> usize {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for deed in deeds {
        *kinds.entry(deed.kind).or_default() += 1;
    }
    for (kind, count) in &kinds {
        world.say(&format!("{count:4} x {kind}"));
    }
    for (what, count) in world.journal.refusals() {
        world.say(&format!("{count:4} x refused: {what}"));
    }
    kinds.len()
}

/// Each ran once or was given back, or something that was done says why not.
fn judge_jobs(world: &World, queued: &[Queued], deeds: &[Deed]) -> JudgedJobs {
    let mut findings = Vec::new();
    let (mut well, mut hostile, mut lost, mut requeues) = (0, 0, 0, 0);
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let views = world.host.sim.jobs();
    for view in &views {
        requeues += view.requeues;
        let job = queued.iter().find(|job| job.id == view.request_id);
        if view.runs > 1 {
            findings.push(format!("a job was begun {} times: {view:?}", view.runs));
        }
        let may_fail = job.is_some_and(|job| job.may_fail);
        if view.result == Some(JobResult::Succeeded) && view.runs == 1 {
            well += 1;
        } else if let Some(why) = explanation(view, job, deeds) {
            *explained.entry(why).or_default() += 1;
        } else if may_fail {
            hostile += 1;
        } else {
            lost += 1;
            findings.push(format!("lost: {view:?}"));
        }
    }
    let counts = format!(
        "{} jobs ({well} ran once and well, {hostile} ended as their doing has it, {} ended by a \
         fault, {lost} lost), {requeues} retries by Azure's rules",
        views.len(),
        explained.values().sum::<usize>(),
    );
    world.say(&counts);
    for (why, count) in explained {
        world.say(&format!("{count:4} x job ended by: {why}"));
    }
    JudgedJobs { findings, counts }
}

fn explanation(view: &JobView, job: Option<&Queued>, deeds: &[Deed]) -> Option<&'static str> {
    let to_its_agent = |deed: &&Deed| {
        KILLS.contains(&deed.kind) && deed.target.is_some() && deed.target == view.agent
    };
    let ended = view.finished_instant.unwrap_or_else(Instant::now);
    let queued = job.map_or(ended, |job| job.at);
    let meanwhile = |deed: &&Deed| WIDE.contains(&deed.kind) && deed.overlaps(queued, ended);
    let found = deeds
        .iter()
        .find(to_its_agent)
        .or_else(|| deeds.iter().find(meanwhile));
    found.map(|deed| deed.kind)
}

/// Every agent that was registered has a record, with a reason that can be true.
async fn judge_records(world: &World, deeds: &[Deed]) -> anyhow::Result<Vec<String>> {
    let mut client = HistoryServiceClient::new(world.host.channel().await?);
    let request = v1::ListEndedAgentsRequest {
        limit: 1000,
        ..v1::ListEndedAgentsRequest::default()
    };
    let records = client.list_ended_agents(request).await?.into_inner().agents;
    let mut findings = Vec::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let views = world.host.sim.jobs();
    for record in &records {
        *reasons.entry(record.reason.as_str()).or_default() += 1;
        let job = views
            .iter()
            .filter(|view| view.agent.as_deref() == Some(record.name.as_str()))
            .find(|view| view.runs > 0);
        if let Some(why) = untrue(record, job, deeds) {
            let done: Vec<_> = deeds
                .iter()
                .filter(|deed| deed.target.as_deref() == Some(record.name.as_str()))
                .map(|deed| deed.kind)
                .collect();
            findings.push(format!(
                "{why}: {record:?}, job {job:?}, done to it: {done:?}"
            ));
        }
    }
    let told: BTreeSet<&str> = records.iter().map(|record| record.name.as_str()).collect();
    let posts = world.host.sim.session_posts();
    let began: BTreeSet<&str> = posts
        .iter()
        .filter(|post| post.accepted)
        .map(|post| post.agent.as_str())
        .collect();
    for name in began.difference(&told) {
        if killed_while_noting(world, name, deeds) {
            world.say(&format!(
                "no record of {name}: iapd was killed in that moment"
            ));
        } else {
            findings.push(format!("no record of {name}"));
        }
    }
    world.say(&format!(
        "agents: {} began a session, {} ended ones are told of",
        began.len(),
        told.len()
    ));
    for (reason, count) in reasons {
        world.say(&format!("{count:4} x agent ended: {reason}"));
    }
    Ok(findings)
}

/// Returns whether iapd was killed between an agent's registration and its record: of one that ended
/// while no iapd ran, that is the only moment in which it is told.
fn killed_while_noting(world: &World, name: &str, deeds: &[Deed]) -> bool {
    const MOMENT: Duration = Duration::from_secs(2);
    let journal = world.host.sim.journal();
    let deletions = journal.iter().filter(|entry| {
        entry.method == "DELETE"
            && entry.agent.as_deref() == Some(name)
            && entry.path.contains("/agents/")
    });
    let mut kills = deletions.flat_map(|entry| {
        deeds.iter().filter(move |deed| {
            let after = deed.began.0.saturating_duration_since(entry.instant);
            deed.kind == "iapd killed" && deed.began.0 >= entry.instant && after < MOMENT
        })
    });
    kills.next().is_some()
}

/// While these go on nobody hears a guest's last words.
const UNHEARD: [&str; 7] = [
    "iapd killed",
    "incusd killed",
    "incusd restarted",
    "connections to Incus cut",
    "Incus does not answer",
    "Incus refuses connections",
    "Incus is slow",
];
/// What is said of agents that had no job.
const JOBLESS: [&str; 8] = [
    "gone",
    "vanished",
    "unseen",
    "surplus",
    "outdated",
    "drained",
    "never-online",
    "agent-failed",
];

/// The daemon may notice, and note, what was done so much later.
const LATE: Duration = Duration::from_secs(15);
/// The same of what it could not notice before it had started again and waited for a grace period.
const LATER: Duration = Duration::from_secs(60);

/// Returns whether iapd was killed when an agent's instance was being taken away. It cannot know
/// then, when it is back, that there was one, and a registration goes only when Azure calls it dead.
fn killed_before_noticing(record: &v1::EndedAgent, deeds: &[Deed]) -> bool {
    const MOMENT: Duration = Duration::from_secs(2);
    let name = Some(record.name.as_str());
    let mut taken = deeds
        .iter()
        .filter(|deed| [DELETED, STOPPED].contains(&deed.kind) && deed.target.as_deref() == name);
    taken.any(|deed| {
        let mut kills = deeds.iter().filter(|other| other.kind == "iapd killed");
        kills.any(|kill| {
            let back = kill.ended.is_none_or(|ended| ended.0 >= deed.began.0);
            back && kill.began.0 < deed.began.0 + MOMENT
        })
    })
}

fn untrue(record: &v1::EndedAgent, job: Option<&JobView>, deeds: &[Deed]) -> Option<&'static str> {
    let to_it = |kinds: &[&str]| {
        deeds
            .iter()
            .any(|d| d.target.as_deref() == Some(record.name.as_str()) && kinds.contains(&d.kind))
    };
    let ended = record.ended_at.and_then(|at| {
        let at = std::time::SystemTime::try_from(at).ok()?;
        // Not when the daemon's clock was wrong.
        let run = deeds.first()?.began.1..=Timestamp::now();
        Timestamp::try_from(at).ok().filter(|at| run.contains(at))
    });
    let about = |kinds: &[&str], late: Duration| {
        deeds.iter().any(|deed| {
            let over = deed.ended.map_or(Timestamp::MAX, |ended| ended.1);
            kinds.contains(&deed.kind)
                && ended.is_none_or(|at| {
                    deed.began.1 <= at && at <= over.saturating_add(late).unwrap_or(over)
                })
        })
    };
    let result = job.and_then(|job| job.result);
    // Whom Azure does not know any more it tells nothing of.
    let is_known = !to_it(&["registration deleted outside"]);
    if result.is_some() && is_known && JOBLESS.contains(&record.reason.as_str()) {
        return Some("its job is not told of");
    }
    match record.reason.as_str() {
        "job-succeeded" => (result != Some(JobResult::Succeeded)).then_some("no success"),
        "job-failed" => {
            let failed = matches!(result, Some(JobResult::Failed | JobResult::Abandoned));
            (!failed).then_some("no failure")
        }
        "disk-full" => {
            let failed = !matches!(result, Some(JobResult::Succeeded | JobResult::Canceled));
            let filled = job.is_some_and(|job| job.display_name == FILLS_DISK)
                || about(&["storage pool full"], LATE);
            (!failed || !filled).then_some("its disk was not full")
        }
        "job-cancelled" => (result != Some(JobResult::Canceled)).then_some("not cancelled"),
        "stopped" => {
            // What ends while Incus is down is found stopped.
            let told = to_it(&[STOPPED]) || about(&["incusd killed", "incusd restarted"], LATER);
            (!told).then_some("nobody stopped it")
        }
        "forced" | "deadline" => {
            (!to_it(&[DEADLINE, DRAIN_FORCE, REAP_FORCE])).then_some("nobody forced it")
        }
        "unseen" => {
            let told = about(&["iapd killed"], LATER) || killed_before_noticing(record, deeds);
            (!told).then_some("iapd was looking")
        }
        "gone" => {
            let told = to_it(&[DELETED, STOPPED]) || about(&UNHEARD, LATE);
            (!told).then_some("it was not deleted outside")
        }
        "vanished" => {
            let told = to_it(&[DELETED, STOPPED])
                || about(&["kernel limits low", "storage pool full"], LATE)
                || about(&UNHEARD, LATE);
            (!told).then_some("nothing kept it from starting")
        }
        "lost-contact" => {
            let told = to_it(&[
                FROZEN,
                "registration deleted outside",
                "agent's session lost",
            ]) || about(&["storage pool full", "Azure's clock jumps"], LATE);
            (!told).then_some("it was not cut off")
        }
        "" | "unknown" => Some("no reason"),
        _ => None,
    }
}

/// Looks for the admin token wherever something was written down.
fn secrets(world: &World) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!(":{PAT}"));
    let key = "BEGIN RSA PRIVATE KEY";
    let words = [PAT, basic.as_str(), key];
    let dir = world.host.dir();
    for file in [world.log_path(), dir.join("iapctl.log")] {
        search(&file, &words, &mut findings)?;
    }
    search(&world.state_dir(), &words, &mut findings)?;
    Ok(findings)
}

fn search(path: &Path, words: &[&str], findings: &mut Vec<String>) -> anyhow::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            search(&entry?.path(), words, findings)?;
        }
    } else if meta.is_file() {
        let bytes = std::fs::read(path)?;
        for word in words {
            let found = bytes
                .windows(word.len())
                .any(|part| part == word.as_bytes());
            if found {
                findings.push(format!("a secret in {}", path.display()));
            }
        }
    }
    Ok(())
}
