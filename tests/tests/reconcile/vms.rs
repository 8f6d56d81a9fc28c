//! Pools of virtual machines, as far as they can be had without one: this machine has no KVM. What
//! the daemon asks for is judged by the real Incus, and a container answers in the place of one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use iap_common::v1::{BreakerState, CheckSeverity, DiagnoseRequest};
use iap_tests::fault_proxy::FaultProxy;
use iap_tests::host::{Host, HostOptions};
use iap_tests::testbed::Testbed;
use iap_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{options, problem, queue, runs_once, settled};

/// How long the failing pool is watched.
const WATCH: Duration = Duration::from_secs(10);
/// What Incus says of a command in a virtual machine whose agent is not up yet.
const NO_AGENT: &str = "VM agent isn't currently running";

/// An image that Incus takes for a virtual machine's, and that nobody could boot.
struct VmImage {
    testbed: Testbed,
    alias: String,
}

impl VmImage {
    fn import(testbed: Testbed, dir: &Path) -> anyhow::Result<Self> {
        let alias = format!("vm-{}", std::process::id());
        let text = format!(
            "architecture: {}\ncreation_date: 1700000000\nproperties: {{name: {alias}}}\n",
            std::env::consts::ARCH
        );
        std::fs::write(dir.join("metadata.yaml"), text)?;
        // The head of a qcow2 file.
        let mut disk = b"QFI\xfb\x00\x00\x00\x03".to_vec();
        disk.resize(64 * 1024, 0);
        std::fs::write(dir.join("disk.qcow2"), disk)?;
        let mut tar = Command::new("tar");
        tar.args(["-cf", "meta.tar", "metadata.yaml"]);
        ensure!(tar.current_dir(dir).status()?.success(), "tar failed");
        let image = Self { testbed, alias };
        let mut import = image.incus();
        import.args(["--project", &image.testbed.project, "image", "import"]);
        import.args(["meta.tar", "disk.qcow2", "--alias", &image.alias]);
        run(import.current_dir(dir))?;
        Ok(image)
    }

    fn incus(&self) -> Command {
        incus(&self.testbed)
    }
}

impl Drop for VmImage {
    fn drop(&mut self) {
        let mut delete = self.incus();
        delete.args(["--project", &self.testbed.project, "image", "delete"]);
        let _ = run(delete.arg(&self.alias));
    }
}

fn incus(testbed: &Testbed) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "incus", "-q"]);
    command.env("INCUS_SOCKET", &testbed.socket);
    command
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Has Incus judge what instances are made with: it checks a profile as it would check an instance,
/// and of a virtual machine where there are none it looks at nothing else.
fn judge(host: &Host, config: &Value, devices: &Value) -> anyhow::Result<()> {
    let name = format!("{}-judged", host.pool);
    let path = |path: &str| format!("{path}?project={}", host.testbed.project);
    let body = json!({"name": name, "config": config, "devices": devices}).to_string();
    let mut make = incus(&host.testbed);
    run(make.args(["query", "-X", "POST", "-d", &body, &path("/1.0/profiles")]))?;
    let mut remove = incus(&host.testbed);
    let made = path(&format!("/1.0/profiles/{name}"));
    run(remove.args(["query", "-X", "DELETE", &made])).map(drop)
}

/// Returns what Incus documents of a key of an instance.
fn documented(all: &Value, key: &str) -> anyhow::Result<Value> {
    let groups = all["configs"]["instance"].as_object();
    let groups = groups.context("Incus documents its keys")?;
    let keys = groups.values().filter_map(|group| group["keys"].as_array());
    let mut found = keys.flatten().filter_map(|entry| entry.get(key));
    let found = found.next();
    found.cloned().with_context(|| format!("no key {key}"))
}

fn vm_options(extra: &str, proxy: &FaultProxy) -> HostOptions {
    let mut options = options(2);
    options.incus_extra = format!("      vm: true\n{extra}");
    options.incus_socket = Some(proxy.path().to_owned());
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_machines_that_the_host_cannot_run_are_told_with_what_to_do_and_braked()
-> anyhow::Result<()> {
    let testbed = Testbed::get();
    if testbed.incus().server().await?.driver.contains("qemu") {
        // Then there would be a machine that never boots.
        return Ok(());
    }
    let dir = TempDir::new()?;
    let proxy = FaultProxy::start(&testbed.socket, dir.path().join("incus.sock"))?;
    let image = VmImage::import(testbed, dir.path())?;
    let extra = "      maxCores: 2\n      maxRamInGb: 1\n      maxProcesses: 99\n      \
                 tmpfsSizeInGb: 1\n      nesting: true\n      diskSizeInGb: 12\n";
    let host = Host::start(HostOptions {
        image: Some(image.alias.clone()),
        ..vm_options(extra, &proxy)
    })
    .await?;

    let told = problem(&host, "agents fail to start").await?;
    for words in [
        "cannot run virtual machines on this host",
        "vhost_vsock kernel module not loaded",
        "vm: false",
    ] {
        ensure!(told.contains(words), "{told}");
    }
    let mut service = host.daemon_service().await?;
    let checks = service.diagnose(DiagnoseRequest {}).await?.into_inner();
    let mut checks = checks.checks.into_iter();
    let check = checks.find(|check| check.id == "incus-vms");
    let check = check.context("the doctor says nothing of virtual machines")?;
    assert_eq!(check.severity(), CheckSeverity::Error, "{check:?}");
    ensure!(check.finding.contains("only lxc"), "{check:?}");
    ensure!(check.fix.contains("vhost_vsock"), "{check:?}");
    // Both at once, and then one after 1, 2, 4 and 8 s.
    let creates = || proxy.bodies("POST", "/1.0/instances");
    wait::never("a storm", WATCH, async || {
        Ok(Some(creates().len()).filter(|count| *count > 8))
    })
    .await?;
    let breaker = host.status().await?.incus_breaker.unwrap_or_default();
    assert_eq!(breaker.state(), BreakerState::Open, "{breaker:?}");
    assert!(breaker.next_try_at.is_some(), "{breaker:?}");
    assert_eq!(host.registrations(), Vec::<String>::new());
    assert_eq!(host.instances().await?, Vec::<String>::new());

    let body: Value = serde_json::from_str(&creates()[0])?;
    assert_eq!(body["type"], "virtual-machine");
    assert_eq!(body["devices"]["root"]["size"], "12GiB");
    assert_eq!(body["devices"].as_object().map(|all| all.len()), Some(1));
    judge(&host, &body["config"], &body["devices"])?;
    let wrong = json!({"limits.memory": "lots"});
    let refused = judge(&host, &wrong, &body["devices"]).unwrap_err();
    ensure!(refused.to_string().contains("Invalid value"), "{refused}");

    let mut ask = incus(&host.testbed);
    let all = run(ask.args(["query", "/1.0/metadata/configuration"]))?;
    let all: Value = serde_json::from_str(&all)?;
    let own = body["config"].as_object().context("no configuration")?;
    for key in own.keys().filter(|key| !key.starts_with("user.")) {
        let condition = &documented(&all, key)?["condition"];
        assert_ne!(condition, "container", "{key}");
    }
    for key in ["limits.processes", "raw.lxc"] {
        assert_eq!(documented(&all, key)?["condition"], "container", "{key}");
        assert!(!own.contains_key(key), "{key}");
    }
    // Only containers have it in 6.0.
    assert!(!own.contains_key("security.nesting"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_is_waited_for_until_its_guest_agent_answers() -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let proxy = FaultProxy::start(Testbed::get().socket, dir.path().join("incus.sock"))?;
    proxy.rewrite("\"virtual-machine\"", "\"container\"");
    let exec = |method: &str, path: &str| method == "POST" && path.contains("/exec?");
    let refused = json!({"type": "error", "error_code": 500, "error": NO_AGENT});
    for _ in 0..4 {
        proxy.answer(0, 500, &refused, exec);
    }
    // Or it is begun, and fails at once.
    let id = "11111111-2222-4333-8444-555555555555";
    let operation = |status: &str, code: u32| {
        json!({
            "id": id, "class": "task", "description": "Executing command", "status": status,
            "status_code": code, "err": NO_AGENT, "may_cancel": false, "resources": {},
            "metadata": {}, "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        })
    };
    let path = format!("/1.0/operations/{id}");
    let begun = json!({
        "type": "async", "status": "Operation created", "status_code": 100, "operation": path,
        "metadata": operation("Running", 103),
    });
    proxy.answer(0, 202, &begun, exec);
    let ended = json!({
        "type": "sync", "status": "Success", "status_code": 200,
        "metadata": operation("Failure", 400),
    });
    let of_it = move |_: &str, asked: &str| asked.starts_with(&path);
    proxy.answer(0, 200, &ended, of_it);

    let host = Host::start(HostOptions {
        count: 1,
        ..vm_options("", &proxy)
    })
    .await?;
    settled(&host, 1).await?;
    let creates = proxy.bodies("POST", "/1.0/instances");
    assert_eq!(creates.len(), 1, "the same machine all the time");
    ensure!(creates[0].contains("\"virtual-machine\""), "{}", creates[0]);
    let registered = host.sim.journal();
    let registered = registered
        .iter()
        .filter(|e| e.method == "POST" && e.path.ends_with("/agents"));
    assert_eq!(registered.count(), 1, "and not before it answers");
    assert_eq!(host.status().await?.problems, Vec::<String>::new());

    let job = queue(&host, Duration::ZERO)?;
    runs_once(&host, job).await?;
    settled(&host, 1).await?;
    host.empty(crate::SOON).await
}
