//! What a figure means nothing without, and how figures are written.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use crate::testbed::Testbed;

/// Writes a line of the answer.
pub fn line(text: &str) {
    // A reader that went away has read what it wanted.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Says what machine this is, and how its storage counts.
pub async fn machine() -> anyhow::Result<()> {
    let server = Testbed::get().incus().server().await?;
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    line(&format!(
        "Incus {}, storage {}, {cores} cores, kernel {}, {profile} build",
        server.version, server.storage, server.kernel_version
    ));
    let status = Command::new("tests/testbed/status").output();
    let text = status.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let text = text.unwrap_or_default();
    match text.lines().find(|line| line.contains("quota")) {
        Some(quotas) => line(quotas.trim()),
        None => line("quota mode not known: run this from the project's top folder"),
    }
    Ok(())
}

/// Returns the value below which `percent` of the sorted values are.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    let last = values.len().saturating_sub(1);
    values
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}

/// Writes a ratio and what it should be.
pub fn ratio(what: &str, measured: Duration, floor: Duration, target: f64) {
    let ratio = measured.as_secs_f64() / floor.as_secs_f64();
    let verdict = if ratio <= target { "met" } else { "missed" };
    line(&format!(
        "{what}: {ratio:.2} x floor (target at most {target} x: {verdict})"
    ));
}
