//! What the daemon uses: calls, processor time, memory, files, tasks.

use anyhow::Context;

/// For the daemon of one bench at a time.
pub const METRICS_PORT: u16 = 39_922;
/// Clock ticks a second, as Linux has them for user space.
pub const TICKS: f64 = 100.0;

/// Returns the calls to Incus and to Azure so far.
pub async fn calls() -> anyhow::Result<(u64, u64)> {
    let text = metrics().await?;
    let sum = |server: &str| total(&text, &format!("iapd_calls_total{{server=\"{server}\""));
    Ok((sum("incus"), sum("azure")))
}

/// Returns how many tasks the daemon has.
pub async fn tasks() -> anyhow::Result<u64> {
    Ok(total(&metrics().await?, "iapd_tasks "))
}

async fn metrics() -> anyhow::Result<String> {
    let url = format!("http://127.0.0.1:{METRICS_PORT}/metrics");
    Ok(reqwest::get(url).await?.text().await?)
}

fn total(text: &str, start: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Returns the processor time used so far, in ticks.
pub fn processor(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of proc(5), counted from field 3.
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |n: usize| {
        fields
            .get(n)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(field(11) + field(12))
}

/// Memory of a process, in KiB.
pub struct Memory {
    /// All that is resident.
    pub resident: u64,
    /// Of that, what it has allocated; the rest is its program, which needs no memory of its own.
    pub anonymous: u64,
}

/// Returns the memory of a process, see `/proc/pid/status` in proc(5).
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().trim_end_matches(" kB").parse().ok()
    };
    let found = field("VmRSS:").zip(field("RssAnon:"));
    let (resident, anonymous) = found.context("no memory in its status")?;
    Ok(Memory {
        resident,
        anonymous,
    })
}

/// Returns the number of open files of a process.
pub fn open_files(pid: u32) -> anyhow::Result<u64> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(u64::try_from(files.count())?)
}
