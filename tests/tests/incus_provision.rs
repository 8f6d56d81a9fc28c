//! Provisioning on the real Incus of the test bed: builders are real guests, images are published.
//! What Azure and the image server would say comes from a server on loopback.
//!
//! `IAPD_TEST_INCUS_SOCKET` and `IAPD_TEST_PROJECT` say where; the project has the image alias
//! `debian-min` and a profile `default` with a root disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "incus_provision/bed.rs"]
mod bed;
#[path = "incus_provision/guest.rs"]
mod guest;
#[path = "incus_provision/images.rs"]
mod images;
#[path = "incus_provision/restarts.rs"]
mod restarts;
#[path = "incus_provision/server.rs"]
mod server;

use std::time::{Duration, Instant};

use iapd::provision::{
    Job, JobEvent, JobRequest, JobState, PackageSource, ProvisionError, Script, StepKind, StepState,
};

use bed::{Bed, image_id, script};
use server::{Server, agent_package};

fn step(job: &Job, kind: StepKind) -> &iapd::provision::Step {
    job.steps
        .iter()
        .find(|step| step.kind == kind)
        .expect("every job has one")
}

/// Docker and an SSH server, as far as they matter: the one is found and its group exists, the other
/// has a host key that must not be in the image.
const STAND_INS: &str = "set -e
printf '#!/bin/sh\\necho Docker version 1\\n' >/usr/local/bin/docker
printf '#!/bin/sh\\ncat /etc/machine-id >/etc/ssh/ssh_host_ed25519_key\\n' >/usr/bin/ssh-keygen
touch /usr/sbin/sshd
chmod 755 /usr/local/bin/docker /usr/bin/ssh-keygen /usr/sbin/sshd
groupadd docker
mkdir /etc/ssh
echo of the builder >/etc/ssh/ssh_host_rsa_key
";

/// A script that tells when it has begun and never ends.
fn hanging() -> Script {
    script("hang.sh", "echo hanging\nsleep 100000\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_made_whose_instances_are_agents_of_their_own() {
    let package = agent_package("4.280.0");
    let server = Server::start().await;
    server.serve_package("4.280.0", &package, None);
    let bed = Bed::new(&server).await;
    let target = bed.target("whole");
    let mut request = bed.request(&target);
    request.package = PackageSource::Version("latest".to_owned());
    request.scripts = vec![
        script(
            "first.sh",
            "#!/bin/sh\nset -e\nid -u\ntest ! -t 0\ntouch /opt/first\n",
        ),
        script("stand-ins.sh", STAND_INS),
        // No interpreter named, a bashism, and the order matters.
        script(
            "second",
            "[[ -e /opt/first ]] && echo \"$DEBIAN_FRONTEND\" | tee /opt/second\n",
        ),
    ];

    let job = bed.provisioner.create(request).unwrap();
    let (_, mut events) = bed.provisioner.subscribe(&job.id).unwrap();
    let mut lines = Vec::new();
    while let Ok(event) = events.recv().await {
        if let JobEvent::Line { step, text, .. } = event {
            lines.push((job.steps[step].kind, text.to_string()));
        }
    }
    let job = bed.ended(&job.id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    assert_eq!(job.error, None);
    assert_eq!(job.agent_version.as_deref(), Some("4.280.0"));
    for step in &job.steps {
        let expected = match step.kind {
            StepKind::Docker => StepState::Skipped,
            _ => StepState::Done,
        };
        assert_eq!(step.state, expected, "{step:?}");
        assert!(
            step.started_at.is_some() && step.ended_at >= step.started_at,
            "{step:?}"
        );
    }
    assert_eq!(step(&job, StepKind::Docker).detail, "skipped: no network");
    assert!(
        step(&job, StepKind::Agent)
            .detail
            .starts_with("4.280.0 linux-x64, sha256")
    );
    assert_eq!(step(&job, StepKind::Agent).bytes, package.len() as u64);
    assert!(
        lines.contains(&(StepKind::Script, "0".to_owned())),
        "{lines:?}"
    );
    assert!(
        lines.contains(&(StepKind::Script, "noninteractive".to_owned())),
        "{lines:?}"
    );
    let log = std::fs::read_to_string(bed.provisioner.log_path(&job.id).unwrap()).unwrap();
    assert!(log.contains("== script second\n"), "{log}");

    let fingerprint = job.image_fingerprint.clone().unwrap();
    assert_eq!(
        bed.project.alias(&target).await.unwrap().as_deref(),
        Some(&*fingerprint)
    );
    let image = bed.project.image(&fingerprint).await.unwrap().unwrap();
    let property = |key: &str| image.properties.get(key).map_or("", String::as_str);
    assert_eq!(property("os"), "debian");
    assert_eq!(property("iapd.base"), "local:debian-min");
    assert_eq!(
        property("iapd.base-fingerprint"),
        image_id(&bed, "debian-min").await
    );
    assert_eq!(property("iapd.agent-version"), "4.280.0");
    assert_eq!(property("iapd.job"), job.id);
    assert!(
        property("iapd.scripts").starts_with("first.sh:"),
        "{}",
        property("iapd.scripts")
    );
    bed.assert_no_builders().await;

    let (one, two) = (
        bed.start(&target, "one").await,
        bed.start(&target, "two").await,
    );
    let mut ids = Vec::new();
    for name in [&one, &two] {
        assert_eq!(bed.run(name, "cat /proc/sys/kernel/hostname").await, *name);
        let id = bed.run(name, "cat /etc/machine-id").await;
        assert_eq!(id.len(), 32, "{id}");
        assert_eq!(
            bed.run(name, "cat /etc/ssh/ssh_host_*_key").await,
            id,
            "a host key of its own"
        );
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(bed.run(&one, "cat /opt/second").await, "noninteractive");
    let left = "ls -d /root/iapd-provision /home/agent/.iapd* 2>/dev/null || true";
    assert_eq!(bed.run(&one, left).await, "");
    assert_eq!(
        bed.run(&one, "stat -c %u:%g:%a /home/agent").await,
        "1100:1100:755"
    );
    assert_eq!(
        bed.run(&one, "stat -c %U /home/agent/bin/Agent.Listener")
            .await,
        "agent"
    );
    assert_eq!(
        bed.run(&one, "runuser -u agent -- sudo -n id -u").await,
        "0"
    );
    assert_eq!(
        bed.run(&one, "cat /home/agent/dependencies").await,
        "installed by root"
    );
    assert_eq!(
        bed.run(&one, "grep ^LANG= /etc/environment").await,
        "LANG=C.UTF-8"
    );

    assert_eq!(bed.run(&one, "id -nG agent").await, "agent docker");

    // Once more, now out of the cache, from an image that is set up already.
    let mut again = bed.request(&target);
    again.base = target.clone();
    again.package = PackageSource::Version("4.280.0".to_owned());
    let job = bed.provision(again).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    assert_eq!(server.downloads(), 1);
    assert_eq!(step(&job, StepKind::Docker).detail, "Docker version 1");
    let second = job.image_fingerprint.clone().unwrap();
    assert_eq!(
        bed.project.alias(&target).await.unwrap().as_deref(),
        Some(&*second)
    );
    let old = bed.project.image(&fingerprint).await.unwrap();
    assert!(
        old.is_some_and(|image| image.aliases.is_empty()),
        "the last few are kept"
    );
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_with_another_checksum_is_refused_and_thrown_away() {
    let server = Server::start().await;
    server.serve_package("4.275.0", &agent_package("4.275.0"), Some(&"ab".repeat(32)));
    let bed = Bed::new(&server).await;
    let target = bed.target("checksum");
    let mut request = bed.request(&target);
    request.package = PackageSource::Version("4.275.0".to_owned());
    let job = bed.provision(request).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(step(&job, StepKind::Agent).state, StepState::Failed);
    assert_eq!(step(&job, StepKind::Setup).state, StepState::Pending);
    let error = job.error.clone().unwrap();
    assert!(
        error.contains(&format!("expected {}", "ab".repeat(32))),
        "{error}"
    );
    assert_eq!(bed.files("packages"), Vec::<String>::new());

    let mut request = bed.request(&target);
    request.package = PackageSource::Version("4.275.0".to_owned());
    request.expected_sha256 = Some("cd".repeat(32));
    let job = bed.provision(request).await;
    let error = job.error.clone().unwrap();
    assert!(
        error.contains(&format!("expected {}", "cd".repeat(32))),
        "{error}"
    );
    assert_eq!(
        server.downloads(),
        1,
        "what Azure says does not match: nothing to download"
    );

    let mut request = bed.request(&target);
    request.package = PackageSource::Version("9.9.9".to_owned());
    let job = bed.provision(request).await;
    assert_eq!(
        job.error.as_deref(),
        Some("Azure has no agent 9.9.9 for linux-x64")
    );

    let mut request = bed.request(&target);
    request.package = PackageSource::Version("9.9.9".to_owned());
    request.azure_pool = Some("late".to_owned());
    let job = bed.provision(request.clone()).await;
    assert_eq!(
        job.error.as_deref(),
        Some("Azure has no agent 9.9.9 for linux-x64"),
        "it was waited for"
    );
    request.azure_pool = Some("nowhere".to_owned());
    let refused = bed.provisioner.create(request).unwrap_err();
    assert_eq!(refused.to_string(), "pool \"nowhere\": is not configured");
    assert_eq!(bed.project.alias(&target).await.unwrap(), None);
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_script_fails_the_job_with_its_last_lines_and_leaves_the_alias() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("script");
    let before = image_id(&bed, "debian-min").await;
    bed.project
        .point_alias(&target, "before", &before)
        .await
        .unwrap();
    let mut request = bed.request(&target);
    request.scripts = vec![
        script("good.sh", "echo good\n"),
        script("bad.sh", "seq 300\necho to the error output >&2\nexit 3\n"),
        script("never.sh", "touch /never\n"),
    ];
    let job = bed.provision(request).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(
        job.error.as_deref(),
        Some("script bad.sh ended with exit code 3")
    );
    assert_eq!(job.error_lines.len(), 200);
    assert!(job.error_lines.iter().any(|line| line == "300"));
    assert!(
        job.error_lines
            .iter()
            .any(|line| line == "to the error output")
    );
    let scripts: Vec<_> = job
        .steps
        .iter()
        .filter(|step| step.kind == StepKind::Script)
        .map(|s| s.state)
        .collect();
    assert_eq!(
        scripts,
        [StepState::Done, StepState::Failed, StepState::Pending]
    );
    assert_eq!(
        job.steps.last().map(|step| step.state),
        Some(StepState::Done),
        "cleaned up"
    );
    assert_eq!(bed.project.alias(&target).await.unwrap(), Some(before));
    bed.assert_no_builders().await;

    let log = std::fs::read_to_string(&job.log_path).unwrap();
    assert!(log.contains(" 17\n"), "the log has all lines");
    assert!(
        log.contains("error: script bad.sh ended with exit code 3\n"),
        "{log}"
    );
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_for_one_target_queue_and_cancel_at_any_time() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let (target, other) = (bed.target("queue"), bed.target("other"));
    let mut request = bed.request(&target);
    request.scripts = vec![hanging()];
    let first = bed.provisioner.create(request.clone()).unwrap();
    let second = bed.provisioner.create(request.clone()).unwrap();
    let third = bed
        .provisioner
        .create(JobRequest {
            target: other,
            ..request.clone()
        })
        .unwrap();
    let fourth = bed
        .provisioner
        .create(JobRequest {
            target: bed.target("4"),
            ..request
        })
        .unwrap();
    bed.until_line(&first.id, "hanging").await;
    bed.until_line(&third.id, "hanging").await;
    let state = |id: &str| bed.provisioner.job(id).unwrap().state;
    assert_eq!(
        state(&second.id),
        JobState::Queued,
        "one at a time for one target"
    );
    assert_eq!(state(&fourth.id), JobState::Queued, "two at a time in all");

    let cancelled = bed.provisioner.cancel(&second.id, "ana").await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(cancelled.error.as_deref(), Some("cancelled by ana"));
    assert!(
        cancelled
            .steps
            .iter()
            .all(|step| step.state == StepState::Pending)
    );

    let cancelled = bed.provisioner.cancel(&first.id, "bob").await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled, "{cancelled:#?}");
    assert_eq!(
        step(&cancelled, StepKind::Script).state,
        StepState::Cancelled
    );
    assert_eq!(step(&cancelled, StepKind::Cleanup).state, StepState::Done);
    assert!(!bed.has_instance(&format!("iapd-build-{}", first.id)).await);
    bed.provisioner
        .cancel(&first.id, "bob")
        .await
        .expect("repeating it is no error");

    // The freed place goes to the next; a boot is as good a time to cancel as any.
    bed.until(&fourth.id, |job| {
        step(job, StepKind::Builder).state == StepState::Running
    })
    .await;
    let cancelled = bed.provisioner.cancel(&fourth.id, "cid").await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    bed.provisioner.cancel(&third.id, "cid").await.unwrap();
    bed.assert_no_builders().await;
    assert!(matches!(
        bed.provisioner.cancel("nothere", "cid").await,
        Err(ProvisionError::NotFound(_))
    ));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_can_be_cancelled_and_leaves_no_image() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("publish");
    let job = bed.provisioner.create(bed.request(&target)).unwrap();
    bed.until(&job.id, |job| {
        step(job, StepKind::Publish).state == StepState::Running
    })
    .await;
    bed.provisioner.cancel(&job.id, "ana").await.unwrap();
    let job = bed.ended(&job.id).await;
    assert_eq!(job.state, JobState::Cancelled, "{job:#?}");
    assert_eq!(bed.project.alias(&target).await.unwrap(), None);
    assert!(bed.images_of(&target).await.is_empty());
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_builder_is_kept_when_it_was_asked_for() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let mut request = bed.request(&bed.target("kept"));
    request.keep_on_failure = true;
    request.scripts = vec![script("bad.sh", "exit 3\n")];
    let job = bed.provision(request.clone()).await;
    let kept = job.kept_builder.clone().unwrap();
    assert_eq!(kept, format!("iapd-build-{}", job.id));
    assert_eq!(step(&job, StepKind::Cleanup).state, StepState::Skipped);
    assert_eq!(
        step(&job, StepKind::Cleanup).detail,
        format!("kept: {kept}")
    );
    let builder = bed.project.instance(&kept).await.unwrap().unwrap();
    assert!(builder.status.is_running());
    assert_eq!(builder.config.get("user.iapd.kept-builder"), Some(&job.id));
    assert!(
        !builder.config.contains_key("user.iapd.builder"),
        "no sweep takes it"
    );

    // Not what was asked for: nothing failed.
    request.scripts = vec![hanging()];
    let job = bed.provisioner.create(request).unwrap();
    bed.until_line(&job.id, "hanging").await;
    let job = bed.provisioner.cancel(&job.id, "ana").await.unwrap();
    assert_eq!(job.kept_builder, None);
    bed.remove(&kept).await;
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_not_there_or_not_ours_to_set_up_is_said_so() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let target = bed.target("base");
    let with_base = |base: &str| JobRequest {
        base: base.to_owned(),
        ..bed.request(&target)
    };

    let job = bed.provision(with_base("local:nope")).await;
    let expected = format!(
        "there is no image alias \"nope\" in project {:?}",
        bed.project.name()
    );
    assert_eq!(job.error, Some(expected));
    assert_eq!(step(&job, StepKind::Resolve).state, StepState::Failed);

    let vm = JobRequest {
        vm: true,
        ..with_base("local:debian-min")
    };
    let job = bed.provision(vm).await;
    let error = job.error.clone().unwrap();
    assert!(
        error.contains("is a container image, but a virtual-machine is wanted"),
        "{error}"
    );

    let alpine = "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.20\"\n";
    let base = bed
        .doctored_base("alpine", "/usr/lib/os-release", alpine)
        .await;
    let job = bed.provision(with_base(&base)).await;
    let error = job.error.clone().unwrap();
    assert!(
        error.contains("Alpine Linux v3.20") && error.contains("Debian and Ubuntu"),
        "{error}"
    );
    assert_eq!(step(&job, StepKind::Guest).state, StepState::Failed);

    let base = bed
        .changed_base(
            "init",
            "rm /sbin/init && printf '#!/bin/sh\\nexec sleep 1000000\\n' >/sbin/init && chmod 755 /sbin/init",
        )
        .await;
    let job = bed.provision(with_base(&base)).await;
    let expected = "the base does not boot with systemd, which agents are started by: its init is \
                    /usr/sbin/init";
    assert_eq!(job.error.as_deref(), Some(expected));

    let users = "root:x:0:0::/root:/bin/bash\nmallory:x:1100:1100::/:/bin/sh\n";
    let base = bed.doctored_base("taken", "/etc/passwd", users).await;
    let job = bed.provision(with_base(&base)).await;
    let error = job.error.clone().unwrap();
    let expected = "user agent: uid 1100 belongs to user mallory, but user agent needs it";
    assert!(error.starts_with(expected), "{error}");
    bed.assert_no_builders().await;
    bed.end().await;
}

/// Makes a unit of the boot out of lines of its `[Service]`.
fn unit(lines: &str) -> String {
    format!(
        "printf '[Service]\\n{lines}\\n[Install]\\nWantedBy=multi-user.target\\n' \
         >/etc/systemd/system/odd.service && systemctl enable odd.service"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_ends_its_boot_is_set_up_all_the_same() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let waits = unit("Type=oneshot\\nExecStart=/bin/sleep infinity");
    let base = bed.changed_base("waits", &waits).await;
    let mut request = bed.request(&bed.target("unbooted"));
    request.base = base;
    let job = bed.provision(request).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    let log = std::fs::read_to_string(&job.log_path).unwrap();
    let warned = "warning: the guest has not booted to its end within 20 s";
    assert!(log.contains(warned), "{log}");
    assert!(log.contains("odd.service"), "what it waits for: {log}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_does_not_stop_does_not_hold_up_a_cancellation() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let mut request = bed.request(&bed.target("stubborn"));
    // Where the builder stops, it waits for this for 90 s.
    request.scripts = vec![script(
        "stubborn.sh",
        "systemd-run --unit stubborn /bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n",
    )];
    let job = bed.provisioner.create(request).unwrap();
    bed.until(&job.id, |job| {
        step(job, StepKind::Stop).state == StepState::Running
    })
    .await;
    let stopping = "n=0; until [ \"$(systemctl is-system-running)\" = stopping ]; \
                    do n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep .1; done";
    bed.run(&format!("iapd-build-{}", job.id), stopping).await;
    let begun = Instant::now();
    let job = bed.provisioner.cancel(&job.id, "ana").await.unwrap();
    assert_eq!(job.state, JobState::Cancelled, "{job:#?}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(step(&job, StepKind::Stop).state, StepState::Cancelled);
    assert_eq!(step(&job, StepKind::Cleanup).state, StepState::Done);
    bed.assert_no_builders().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_fetched_from_the_image_server() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let fingerprint = server.serve_image("debian/12", &bed).await;
    let target = bed.target("simplestreams");
    let with_base = |base: &str| JobRequest {
        base: base.to_owned(),
        ..bed.request(&target)
    };

    let job = bed.provision(with_base("images:debian/13")).await;
    assert_eq!(job.state, JobState::Failed);
    let error = job.error.clone().unwrap();
    let expected = "cannot create a container from \"debian/13\" of http://127.0.0.1:";
    assert!(error.starts_with(expected), "{error}");

    // A bare alias that is not here is looked for there.
    let job = bed.provision(with_base("debian/12")).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    let resolved = &step(&job, StepKind::Resolve).detail;
    assert!(
        resolved.starts_with("debian/12 on http://127.0.0.1:"),
        "{resolved}"
    );
    let image = bed
        .project
        .image(job.image_fingerprint.as_deref().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        image.properties.get("iapd.base-fingerprint"),
        Some(&fingerprint)
    );
    let instance = bed.start(&target, "untemplated").await;
    assert_eq!(
        bed.run(&instance, "cat /proc/sys/kernel/hostname").await,
        instance
    );
    bed.project.delete_image(&fingerprint).await.unwrap();
    bed.end().await;
}
