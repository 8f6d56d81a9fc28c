//! What a job finds when it looks for the daemon's credential.

use iap_tests::azure_sim::JobRequest;
use iap_tests::host::{AZURE_POOL, Host, HostOptions, PAT};

use crate::SOON;

/// Searches everything that root in a guest can read. The pattern does not match itself.
const SEARCH: &str = r#"
sudo grep -rqs --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -e "$pattern" / && echo "FOUND in a file"
for p in /proc/[0-9]*; do
  sudo cat "$p/environ" "$p/cmdline" 2>/dev/null | tr '\0' '\n' | grep -qs -e "$pattern" && echo "FOUND in $p"
done
sudo PATTERN="$pattern" perl -e '
  for my $maps (glob "/proc/[0-9]*/maps") {
    my ($pid) = $maps =~ m{/proc/(\d+)/};
    next if $pid == $$;
    open my $m, "<", $maps or next;
    open my $mem, "<:raw", "/proc/$pid/mem" or next;
    while (<$m>) {
      next unless /^([0-9a-f]+)-([0-9a-f]+) r/;
      my ($from, $to) = (hex $1, hex $2);
      next if $to - $from > 256 << 20;
      sysseek $mem, $from, 0 or next;
      my $bytes; sysread $mem, $bytes, $to - $from;
      print "FOUND in memory of $pid\n" if defined $bytes && $bytes =~ /$ENV{PATTERN}/;
    }
  }'
curl -s --unix-socket /dev/incus/sock http://incus/1.0/config | tr ',' '\n' | while read -r k; do
  curl -s --unix-socket /dev/incus/sock "http://incus$(echo "$k" | tr -d '[]"')" ; echo
done | grep -qs -e "$pattern" && echo "FOUND in the instance configuration"
echo "searched as $(id -un), files: $(sudo find / -xdev -type f | wc -l)"
"#;

/// The search for the token's second half. The pattern's first letter is in brackets, so that it is
/// found nowhere by itself.
fn search() -> String {
    let needle = needle();
    format!("pattern='[{}]{}'; {SEARCH}", &needle[..1], &needle[1..])
}

fn needle() -> &'static str {
    &PAT[PAT.len() - 24..]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_searches_its_guest_finds_no_credential() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running(search()))?;
    let ended = host.sim.wait_job(job, SOON * 2).await?;
    let output = host.sim.job_output(job);
    assert!(
        output.contains("searched as agent, files: "),
        "{ended:?}: {output}"
    );
    assert!(!output.contains("FOUND"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_search_finds_a_credential_that_is_there() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let (left, right) = needle().split_at(12);
    // As the Go tool leaves it: in the memory of a process that lives as long as the job.
    let plant =
        format!("perl -e '$x = join \"\", \"{left}\", \"{right}\"; sleep 60' & sleep 0.5; ");
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running(plant + &search()))?;
    host.sim.wait_job(job, SOON * 2).await?;
    let output = host.sim.job_output(job);
    assert!(output.contains("FOUND in memory"), "{output}");
    Ok(())
}
