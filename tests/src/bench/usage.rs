//! What the daemon uses: calls, processor time, memory.

/// For the daemon of one bench at a time.
pub const METRICS_PORT: u16 = 39_922;
/// Clock ticks a second, as Linux has them for user space.
pub const TICKS: f64 = 100.0;

/// Returns the calls to Incus and to Azure so far.
pub async fn calls() -> anyhow::Result<(u64, u64)> {
    let url = format!("http://127.0.0.1:{METRICS_PORT}/metrics");
    let text = reqwest::get(url).await?.text().await?;
    let sum = |server: &str| {
        let start = format!("iapd_calls_total{{server=\"{server}\"");
        let lines = text.lines().filter(|line| line.starts_with(&start));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    Ok((sum("incus"), sum("azure")))
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

/// Returns the resident memory in KiB, as the kernel writes it.
pub fn resident(pid: u32) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(found
        .unwrap_or("?")
        .trim()
        .trim_end_matches(" kB")
        .to_owned())
}
