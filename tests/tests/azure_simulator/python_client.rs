use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use iap_tests::azure_sim::{AzureSim, JobRequest, SimOptions};
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::raw_agent::{Admin, PAT, RawAgent};

/// Making the virtual environment the first time takes a while.
const TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test]
async fn microsofts_python_client_sees_pools_agents_and_their_work() -> Result<()> {
    let sim = AzureSim::start(SimOptions::default()).await?;
    let admin = Admin::new(&sim);
    let mut agent = RawAgent::register(&admin, "stove-01", None).await?;
    admin.register("stove-placeholder", None).await?;
    agent.fetch_token().await?;
    agent.begin().await?;
    let job = sim.queue_job(JobRequest::new("linux"))?;
    let expected = json!({"pool": "linux", "agents": [
        {"name": "stove-01", "status": "online", "enabled": true, "assignedRequest": job},
        {"name": "stove-placeholder", "status": "offline", "enabled": true,
         "assignedRequest": null},
    ]});

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("azure-devops-client-check");
    let mut check = Command::new(script)
        .args(["--url", &admin.url])
        .env("AZURE_DEVOPS_PAT", PAT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = check.stdin.take().context("no standard input")?;
    input.write_all(expected.to_string().as_bytes()).await?;
    drop(input);
    let output = tokio::time::timeout(TIMEOUT, check.wait_with_output()).await??;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    Ok(())
}
