//! Bad configurations, as an operator meets them: exit code 2, and all that is wrong at once.

use std::path::Path;

use super::program::{Ended, iapd, iapd_as_nobody, open_dir, run, write};

/// The example of the Go tool's README, as it stands there.
const README_EXAMPLE: &str = "\
---
metricsPort: 9922
pools:
  - name: myAgentPool
    agentCount: 8
    azure:
      pat: myVerySecretPatHere
      url: https://dev.azure.com/<my-organization>
    incus:
      projectName: azure-pipelines
      image: my-runner-image
      maxCores: 8
      maxRamInGb: 4
      tmpfsSizeInGb: 12
";

/// A pool that is right; `keys` are more keys of it.
fn pool(name: &str, keys: &str) -> String {
    format!(
        "- name: {name}\n  {keys}\n  azure: {{url: https://dev.azure.com/org, pat: s3cret}}\n  \
         incus: {{image: runner}}\n"
    )
}

/// Checks a configuration, then starts with it. Both have to refuse it in the same words; returns
/// these, with the directory left out.
async fn refused(dir: &Path, config: &Path) -> anyhow::Result<String> {
    let checked = run(iapd(config).arg("--check-config")).await?;
    let started = run(&mut iapd(config)).await?;
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert_eq!(started.code, Some(2), "{started:?}");
    assert_eq!(checked.stderr, started.stderr);
    assert_eq!(checked.stdout, "");
    assert!(!checked.stderr.contains("s3cret"), "{}", checked.stderr);
    Ok(checked.stderr.replace(&dir.display().to_string(), "DIR"))
}

async fn accepted(config: &Path) -> anyhow::Result<Ended> {
    let checked = run(iapd(config).arg("--check-config")).await?;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    Ok(checked)
}

#[tokio::test]
async fn a_missing_configuration_is_named_and_ends_with_code_2() -> anyhow::Result<()> {
    let dir = open_dir()?;
    let said = refused(dir.path(), &dir.path().join("none.yaml")).await?;
    assert_eq!(said, "iapd: there is no configuration at DIR/none.yaml\n");
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_may_not_be_read_is_named_and_ends_with_code_2() -> anyhow::Result<()>
{
    let dir = open_dir()?;
    let config = write(dir.path().join("config.yaml"), "pools: []\n", 0o000)?;
    for check in [true, false] {
        let mut command = iapd_as_nobody(dir.path(), &config)?;
        let ended = run(command.args(check.then_some("--check-config"))).await?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let said = ended
            .stderr
            .replace(&dir.path().display().to_string(), "DIR");
        assert_eq!(
            said,
            "iapd: cannot read the configuration at DIR/config.yaml: Permission denied \
             (os error 13)\n"
        );
    }
    Ok(())
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_with_its_place() -> anyhow::Result<()> {
    let dir = open_dir()?;
    let text = [
        "metricAddress: 127.0.0.1\ndaemon: {reconcileInterval: soon}\npools:\n".to_owned(),
        pool("linux", "agentCount: 0"),
        pool("linux", "agentCount: 1001"),
        pool("windows", "agentcount: 2\n  agentCount: 3"),
        pool("a-b", "agentCount: 1\n  agentPrefix: c"),
        pool("a", "agentCount: 1\n  agentPrefix: b-c"),
    ]
    .concat();
    let config = write(dir.path().join("config.yaml"), text, 0o600)?;
    let said = refused(dir.path(), &config).await?;
    insta::assert_snapshot!(said, @r"
    DIR/config.yaml:1:1: metricAddress: unknown key; did you mean `metricsAddress`?
    DIR/config.yaml:2:29: daemon.reconcileInterval: must be a duration such as `30s`, `5m` or `1h30m`
    DIR/config.yaml:5:15: pools[0].agentCount: must be a whole number, 1 to 1000, not `0`
    DIR/config.yaml:8:9: pools[1].name: `linux` is the name of pools[0] already
    DIR/config.yaml:9:15: pools[1].agentCount: must be a whole number, 1 to 1000, not `1001`
    DIR/config.yaml:13:3: pools[2].agentcount: unknown key; did you mean `agentCount`?
    DIR/config.yaml:22:9: pools[4].name: agents would be named `a-b-c-...` like those of pools[3] (`a-b`) in the same Incus project; change a name or an agentPrefix
    iapd: 7 problems in the configuration
    ");
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_text_are_found_by_line_and_column() -> anyhow::Result<()> {
    let dir = open_dir()?;
    let config = write(
        dir.path().join("config.yaml"),
        b"pools:\n- name: caf\xe9\n",
        0o600,
    )?;
    let said = refused(dir.path(), &config).await?;
    insta::assert_snapshot!(said, @r"
    DIR/config.yaml:2:12: is not UTF-8 text here
    iapd: 1 problem in the configuration
    ");
    Ok(())
}

#[tokio::test]
async fn a_token_that_everybody_can_read_is_warned_about() -> anyhow::Result<()> {
    let dir = open_dir()?;
    let text = format!("pools:\n{}", pool("linux", "agentCount: 1"));
    let inline = write(dir.path().join("inline.yaml"), &text, 0o644)?;
    let said = accepted(&inline).await?.stderr;
    let said = said.replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @"warning: DIR/inline.yaml:4:48: pools[0].azure.pat: every user can read DIR/inline.yaml (mode 0644): `chmod o= DIR/inline.yaml`");

    write(dir.path().join("pat"), "s3cret", 0o644)?;
    let text = text.replace("pat: s3cret", "patFile: pat");
    let by_file = write(dir.path().join("file.yaml"), &text, 0o644)?;
    let said = accepted(&by_file).await?.stderr;
    let said = said.replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @"warning: DIR/file.yaml:4:52: pools[0].azure.patFile: every user can read DIR/pat (mode 0644): `chmod o= DIR/pat`");

    write(dir.path().join("pat"), "s3cret", 0o640)?;
    assert_eq!(accepted(&by_file).await?.stderr, "");
    Ok(())
}

#[tokio::test]
async fn the_go_tools_readme_example_is_a_good_configuration() -> anyhow::Result<()> {
    let dir = open_dir()?;
    let config = write(dir.path().join("config.yaml"), README_EXAMPLE, 0o600)?;
    let said = accepted(&config).await?;
    assert!(said.stdout.contains("myAgentPool"), "{said:?}");
    assert!(
        !format!("{said:?}").contains("myVerySecretPatHere"),
        "{said:?}"
    );
    Ok(())
}
