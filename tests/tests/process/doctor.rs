//! `Diagnose` on a real host: what is fine is called fine, and what is broken is named.

use std::time::Duration;

use iap_common::v1;
use iap_common::v1::CheckSeverity;
use iap_tests::host::{AZURE_POOL, Host, HostOptions, PAT};

use crate::SOON;

async fn diagnose(host: &Host) -> anyhow::Result<Vec<v1::Check>> {
    let mut service = host.daemon_service().await?;
    let answer = service.diagnose(v1::DiagnoseRequest {}).await?;
    Ok(answer.into_inner().checks)
}

/// Returns the severity and the finding of a check.
fn of<'a>(checks: &'a [v1::Check], id: &str) -> (CheckSeverity, &'a str) {
    let found = checks.iter().find(|check| check.id == id);
    let check = found.unwrap_or_else(|| panic!("no check {id}: {checks:#?}"));
    (check.severity(), &check.finding)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_at_work_has_no_errors_and_its_parts_are_told() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.sim.set_pool_update(host.azure_pool, true, None);
    host.wait_idle(1, SOON).await?;

    let checks = diagnose(&host).await?;
    let errors: Vec<&v1::Check> = checks
        .iter()
        .filter(|check| check.severity() == CheckSeverity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for id in [
        "incus-reachable",
        "incus-rights",
        "incus-version",
        "incus-events",
        "profiles",
        "root-disk",
        "image",
        "storage-driver",
        "agent-starts",
        "ghosts",
        "azure-reachable",
        "azure-pool",
        "config",
        "state-dir",
        "clock",
    ] {
        assert_eq!(of(&checks, id).0, CheckSeverity::Ok, "{id}: {checks:#?}");
    }
    // The test bed's guests reach Azure by a socket, and its storage pool has simple quotas.
    assert_eq!(of(&checks, "network").0, CheckSeverity::Notice);
    assert_eq!(
        of(&checks, "btrfs-quotas"),
        (CheckSeverity::Ok, "simple"),
        "{checks:#?}"
    );
    assert_eq!(
        of(&checks, "azure-credential").1,
        "accepted, and 1 agent registered with it"
    );
    assert_eq!(
        of(&checks, "azure-auto-update").0,
        CheckSeverity::Notice,
        "{checks:#?}"
    );
    assert!(!format!("{checks:?}").contains(PAT));
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_an_error_with_the_command_that_mends_it() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions {
        count: 1,
        image: Some("no-such-image".to_owned()),
        ..HostOptions::default()
    })
    .await?;
    let config = host
        .config(1)
        .replace(&format!("pool: {AZURE_POOL}\n"), "pool: No such pool\n")
        .replace("profiles: [default,", "profiles: [no-such-profile,");
    std::fs::write(host.config_path(), config)?;
    host.start_daemon().await?;
    // The pool's task begins when Incus has answered; the pool is told before that.
    let checks = iap_tests::wait::until("the pool's task", Duration::from_secs(10), async || {
        let checks = diagnose(&host).await?;
        let has_begun = of(&checks, "azure-pool").0 != CheckSeverity::Skipped;
        Ok(has_begun.then_some(checks))
    })
    .await?;
    let project = &host.testbed.project;
    for (id, fix) in [
        (
            "image",
            "iapctl provision --base images:ubuntu/24.04 --target no-such-image".to_owned(),
        ),
        (
            "profiles",
            format!("incus profile create no-such-profile --project {project}"),
        ),
        ("azure-pool", "create it in Azure".to_owned()),
    ] {
        let check = checks.iter().find(|check| check.id == id);
        let check = check.unwrap_or_else(|| panic!("no check {id}: {checks:#?}"));
        assert_eq!(check.severity(), CheckSeverity::Error, "{check:#?}");
        assert!(check.fix.starts_with(&fix), "{check:#?}");
        assert_eq!(check.subject, host.pool);
    }
    Ok(())
}
