//! Those who may only look, and the sockets that tell them from operators.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use iap_common::socket::view_path;
use iap_common::v1;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_tests::host::{Host, HostOptions, binary};
use iap_tests::wait;
use nix::unistd::{Gid, Group};
use tokio::process::Command;
use tonic::Code;

use super::program::{Ended, NOBODY, copy_of, run, write};
use crate::QUICK;

/// A host without pools whose viewers are nobody's group.
async fn with_viewers() -> anyhow::Result<Host> {
    let host = Host::prepare(HostOptions::default()).await?;
    let group = Group::from_gid(Gid::from_raw(NOBODY))?.expect("Linux has a group for nobody");
    let text = host.config_without_pools();
    let text = text.replace(
        "socket:\n  path:",
        &format!("socket:\n  viewGroup: {}\n  path:", group.name),
    );
    std::fs::write(host.config_path(), text)?;
    Ok(host)
}

async fn iapctl_as_nobody(host: &Host, arguments: &[&str]) -> anyhow::Result<Ended> {
    let copy = host.dir().join("iapctl");
    if !copy.exists() {
        copy_of(binary("iapctl"), host.dir())?;
    }
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY);
    command.arg("--socket").arg(host.socket()).args(arguments);
    run(&mut command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_may_look_and_is_refused_a_change_which_is_written_down() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Only root can become somebody else.
        return Ok(());
    }
    let mut host = with_viewers().await?;
    host.start_daemon().await?;
    let found = std::fs::metadata(view_path(&host.socket()))?;
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert_eq!((found.uid(), found.gid()), (0, NOBODY));

    let seen = iapctl_as_nobody(&host, &["config", "show"]).await?;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("viewGroup"), "{seen:?}");
    for _ in 0..2 {
        let refused = iapctl_as_nobody(&host, &["resume"]).await?;
        assert_eq!(refused.code, Some(6), "{refused:?}");
        let said = &refused.stderr;
        assert!(said.contains("you may look but not change"), "{said}");
        assert!(said.contains("sudo usermod -aG iapd"), "{said}");
    }

    let mut history = HistoryServiceClient::new(host.channel().await?);
    let request = v1::ListAuditEntriesRequest::default();
    let told = history.list_audit_entries(request).await?.into_inner();
    let told: Vec<_> = told
        .entries
        .iter()
        .map(|entry| (entry.uid, entry.command.as_str(), entry.outcome.as_str()))
        .collect();
    assert_eq!(told, [(Some(NOBODY), "resume", "refused: may only look")]);
    assert_eq!(host.stop_daemon().await?, Some(0));
    assert!(!host.socket().exists() && !view_path(&host.socket()).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_viewers_group_there_is_no_socket_for_them() -> anyhow::Result<()> {
    let host = with_viewers().await?;
    let text = std::fs::read_to_string(host.config_path())?;
    let text = text.replace("viewGroup: nogroup", "viewGroup: it-no-such-group");
    std::fs::write(host.config_path(), text)?;
    let mut host = host;
    host.start_daemon().await?;
    assert!(!view_path(&host.socket()).exists());
    let log = host.log();
    assert!(
        log.contains("DEBUG there is no group it-no-such-group"),
        "{log}"
    );
    Ok(())
}

/// Asks for something that changes things, and expects an answer of this code.
async fn resume(socket: &Path) -> anyhow::Result<Code> {
    let channel = iap_common::client::connect(socket).await?;
    let asked = DaemonServiceClient::new(channel)
        .resume_host(v1::ResumeHostRequest {})
        .await;
    Ok(asked.map_or_else(|status| status.code(), |_| Code::Ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_from_systemd_are_told_by_their_names_and_stay() -> anyhow::Result<()> {
    let host = with_viewers().await?;
    let path = |name| -> PathBuf { host.dir().join(name) };
    let view = UnixListener::bind(path("v.sock"))?;
    let api = UnixListener::bind(path("a.sock"))?;
    // As systemd hands them over: in no order, from descriptor 3 on.
    let script = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=view:api\n\
         exec {} --config {} 3<&0 4<&1 </dev/null >/dev/null\n",
        binary("iapd").display(),
        host.config_path().display(),
    );
    let script = write(path("start.sh"), script, 0o755)?;
    let log = std::fs::File::create(path("activated.log"))?;
    let mut daemon = Command::new("sh")
        .arg(script)
        .stdin(OwnedFd::from(view))
        .stdout(OwnedFd::from(api))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()?;
    let code = wait::until("the operators' socket", QUICK, async || {
        Ok(resume(&path("a.sock")).await.ok())
    });
    assert_eq!(code.await?, Code::Ok);
    assert_eq!(resume(&path("v.sock")).await?, Code::PermissionDenied);
    let pid = i32::try_from(daemon.id().expect("it runs"))?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    assert!(daemon.wait().await?.success());
    assert!(path("a.sock").exists() && path("v.sock").exists());
    assert!(!host.socket().exists());
    Ok(())
}
