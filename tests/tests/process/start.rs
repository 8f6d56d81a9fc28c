//! What stands in the way of a start, and what does not.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use iap_common::v1;
use iap_tests::fault_proxy::FaultProxy;
use iap_tests::host::{Host, HostOptions};
use iap_tests::testbed::Testbed;
use iap_tests::wait;

use super::program::{NOBODY, iapd, iapd_as_nobody, run, write};
use crate::{QUICK, SOON};

/// A host whose daemon has no pool: what is tested is not about agents.
async fn without_pools() -> anyhow::Result<Host> {
    let host = Host::prepare(HostOptions::default()).await?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    Ok(host)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_incus_it_starts_says_so_and_recovers_by_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("incus.sock");
    let options = HostOptions {
        count: 2,
        incus_socket: Some(socket.clone()),
        ..HostOptions::default()
    };
    let host = Host::start(options).await?;
    let incus = wait::until("the reason", QUICK, async || {
        Ok(host
            .daemon_status()
            .await?
            .incus
            .filter(|incus| !incus.error.is_empty()))
    })
    .await?;
    assert!(!incus.reachable);
    assert!(
        incus.error.contains(&socket.display().to_string()),
        "{incus:?}"
    );
    assert!(incus.error.contains("No such file"), "{incus:?}");
    let said = host.daemon_status().await?;
    assert!(
        said.warnings
            .iter()
            .any(|w| w.contains("Incus does not answer")),
        "{said:?}"
    );

    let _proxy = FaultProxy::start(Testbed::get().socket, &socket)?;
    host.wait_idle(2, SOON).await?;
    let said = host.daemon_status().await?;
    assert!(
        said.incus
            .is_some_and(|incus| incus.reachable && incus.error.is_empty())
    );
    assert_eq!(said.warnings.iter().find(|w| w.contains("Incus")), None);
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_lives_on() -> anyhow::Result<()>
{
    let mut host = without_pools().await?;
    host.start_daemon().await?;
    let text = std::fs::read_to_string(host.config_path())?;
    let state = host.dir().join("state").display().to_string();
    let text = text.replace(&state, &format!("{state}-2"));
    let config = write(host.dir().join("second.yaml"), text, 0o600)?;
    let ended = run(&mut iapd(&config)).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = format!("another iapd answers on {}", host.socket().display());
    assert!(ended.stderr.contains(&said), "{ended:?}");
    assert!(ended.stderr.contains("socket.path"), "{ended:?}");
    host.daemon_status().await?;
    assert_eq!(host.stop_daemon().await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused_and_the_first_lives_on() -> anyhow::Result<()>
{
    let mut host = without_pools().await?;
    host.start_daemon().await?;
    let text = std::fs::read_to_string(host.config_path())?;
    let socket = host.socket().display().to_string();
    let text = text.replace(&socket, &format!("{socket}-2"));
    let config = write(host.dir().join("second.yaml"), text, 0o600)?;
    let ended = run(&mut iapd(&config)).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let state = host.dir().join("state");
    let said = format!("another iapd uses the state directory {}", state.display());
    assert!(ended.stderr.contains(&said), "{ended:?}");
    assert!(!host.dir().join("iapd.sock-2").exists());
    host.daemon_status().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_a_killed_daemon_is_replaced() -> anyhow::Result<()> {
    let mut host = without_pools().await?;
    host.start_daemon().await?;
    host.kill_daemon()?;
    assert!(host.socket().exists(), "a killed daemon leaves it behind");
    host.start_daemon().await?;
    host.daemon_status().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_the_socket_should_be_is_left_alone() -> anyhow::Result<()> {
    let host = without_pools().await?;
    std::fs::write(host.socket(), "precious")?;
    let ended = run(&mut iapd(&host.config_path())).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is no socket"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(host.socket())?, "precious");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_group_the_socket_is_the_daemons_users_alone() -> anyhow::Result<()> {
    let mut host = without_pools().await?;
    let text = std::fs::read_to_string(host.config_path())?;
    let text = text.replace(
        "socket:\n  path:",
        "socket:\n  group: it-no-such-group\n  path:",
    );
    std::fs::write(host.config_path(), text)?;
    host.start_daemon().await?;
    let mode = std::fs::metadata(host.socket())?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let log = host.log();
    assert!(log.contains("there is no group it-no-such-group"), "{log}");
    assert!(log.contains("groupadd --system it-no-such-group"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_given_to_its_group() -> anyhow::Result<()> {
    let mut host = without_pools().await?;
    let gid = nix::unistd::getegid();
    let group = nix::unistd::Group::from_gid(gid)?.expect("this process has a group");
    let text = std::fs::read_to_string(host.config_path())?;
    let text = text.replace("socket:\n", &format!("socket:\n  group: {}\n", group.name));
    std::fs::write(host.config_path(), text)?;
    host.start_daemon().await?;
    let found = std::fs::metadata(host.socket())?;
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert_eq!(found.gid(), gid.as_raw());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_permission_on_incuss_socket_it_says_which_group_is_needed() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Only root can become somebody without the right.
        return Ok(());
    }
    let host = without_pools().await?;
    let home = host.dir().join("home");
    std::fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
    let text = std::fs::read_to_string(host.config_path())?;
    let text = text.replace(
        &host.dir().display().to_string(),
        &home.display().to_string(),
    );
    let config = write(host.dir().join("nobody.yaml"), text, 0o644)?;
    let mut daemon = iapd_as_nobody(host.dir(), &config)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let socket = home.join("iapd.sock");
    let incus = wait::until("the reason", QUICK, async || {
        let channel = iap_common::client::connect(&socket).await?;
        let mut client = v1::daemon_service_client::DaemonServiceClient::new(channel);
        let said = client
            .get_status(v1::GetStatusRequest {})
            .await?
            .into_inner();
        Ok(said.incus.filter(|incus| !incus.error.is_empty()))
    })
    .await?;
    assert!(!incus.reachable);
    assert!(
        incus.error.to_lowercase().contains("permission denied"),
        "{incus:?}"
    );
    assert!(
        incus.error.contains("group of the socket (incus-admin)"),
        "{incus:?}"
    );
    daemon.kill().await?;
    Ok(())
}
