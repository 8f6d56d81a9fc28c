use std::sync::Arc;

use super::*;
use crate::azure::CredentialClock;
use crate::config::{self, Environment};
use crate::members::{Amount, HostRoom};
use crate::pool::breaker::BreakerStatus;
use crate::pool::status::{AzureStatus, ImageStatus, MemberStatus};

fn pool(rejected_at: Option<i64>, expires_at: Option<i64>) -> Arc<PoolStatus> {
    let text = "pools: [{name: linux, agentCount: 1, incus: {image: i}, \
                azure: {url: 'https://dev.azure.com/acme', pat: p}}]";
    let loaded = config::parse(text.as_bytes(), &Environment::detect()).unwrap();
    let at = |seconds: Option<i64>| seconds.map(|s| Timestamp::from_second(s).unwrap());
    let clock = CredentialClock {
        expires_at: at(expires_at),
        token_expires_at: None,
        rejected_at: at(rejected_at),
    };
    Arc::new(PoolStatus {
        wanted: 0,
        is_paused: false,
        intents_revision: 0,
        wait_reasons: Vec::new(),
        was_seen: true,
        spec: Arc::new(loaded.spec.pools[0].clone()),
        spec_hash: String::new(),
        removed: false,
        agents: Vec::new(),
        foreign: Vec::new(),
        problems: Vec::new(),
        instances_known: true,
        looks_cloned: false,
        incus_reachable: true,
        image: ImageStatus::default(),
        no_room: None,
        members: Vec::new(),
        launches: BreakerStatus::default(),
        azure: AzureStatus {
            clock,
            ..AzureStatus::default()
        },
        ghosts: crate::pool::ghosts::Seen::default(),
        adoption: None,
        last_pass: None,
    })
}

#[test]
fn an_organisation_tells_the_first_end_and_the_last_rejection_of_its_credentials() {
    let metrics = Metrics::default();
    let pools = [
        pool(Some(20), Some(2000)),
        pool(Some(30), Some(1000)),
        pool(None, None),
    ];
    let text = metrics.encode(&pools).unwrap();
    for line in [
        r#"iapd_credential_expiry_timestamp_seconds{url="https://dev.azure.com/acme"} 1000"#,
        r#"iapd_credential_rejected_timestamp_seconds{url="https://dev.azure.com/acme"} 30"#,
    ] {
        assert!(text.lines().any(|told| told == line), "{text}");
    }
    assert!(!text.contains("iapd_token_expiry_timestamp_seconds{"));
    let text = metrics.encode(&[pool(None, None)]).unwrap();
    assert!(
        !text.contains("acme"),
        "what is no longer known is not told"
    );
}

#[test]
fn members_of_a_cluster_are_told_and_those_that_left_are_not() {
    let metrics = Metrics::default();
    let listed = |name: &str, status: &str| crate::incus::ClusterMember {
        name: name.into(),
        status: status.into(),
        ..crate::incus::ClusterMember::default()
    };
    let mut two = Members::of(vec![listed("a", "Online"), listed("b", "Offline")]);
    let amount = |free| Amount { free, total: 99 };
    let room = HostRoom {
        memory: Some(amount(7)),
        storage: [("fast".to_owned(), amount(5))].into(),
    };
    two.rooms.insert("a".into(), room);
    let mut linux = (*pool(None, None)).clone();
    linux.members.push(MemberStatus {
        name: "a".into(),
        standing: Standing::Online,
        leaving: true,
        full: Some("storage pool fast on a has 5 bytes left".into()),
    });
    metrics.tell_members(&two, &[Arc::new(linux)]);
    let text = metrics.encode(&[]).unwrap();
    for line in [
        r#"iapd_member_online{member="a"} 1"#,
        r#"iapd_member_online{member="b"} 0"#,
        r#"iapd_member_agents{member="a",state="busy"} 0"#,
        r#"iapd_member_leaving{member="a"} 1"#,
        r#"iapd_member_leaving{member="b"} 0"#,
        r#"iapd_member_full{member="a"} 1"#,
        r#"iapd_member_memory_free_bytes{member="a"} 7"#,
        r#"iapd_member_storage_free_bytes{member="a",storage_pool="fast"} 5"#,
    ] {
        assert!(text.lines().any(|told| told == line), "{text}");
    }
    metrics.tell_members(&Members::default(), &[]);
    assert!(!metrics.encode(&[]).unwrap().contains("member="));
}

#[test]
fn the_packaged_dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/");
    let metrics = Metrics::default();
    // A family without a member is not told.
    metrics.agent_created("linux");
    metrics.spare_promoted("linux");
    metrics.launch_failed("linux", "create");
    metrics.agent_reaped("linux", "offline");
    metrics.replaced("linux", Duration::from_secs(1));
    metrics.came_online("linux", Duration::from_secs(1));
    metrics.call_ended(
        "azure",
        CallReport {
            kind: "agents",
            outcome: CallOutcome::Ok,
            elapsed: Duration::ZERO,
        },
    );
    let mut busy = (*pool(Some(20), Some(2000))).clone();
    busy.azure.waiting_jobs = Some(1);
    let told = metrics.encode(&[Arc::new(busy)]).unwrap() + "# TYPE iapd_agents gauge\n";
    let names: Vec<(&str, &str)> = told
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let is_told = |asked: &str| {
        names.iter().any(|(name, kind)| match *kind {
            "counter" => asked == format!("{name}_total"),
            "histogram" => asked == format!("{name}_bucket"),
            "info" => asked == format!("{name}_info"),
            _ => asked == *name,
        })
    };
    for file in ["grafana-dashboard.json", "prometheus-alerts.yaml"] {
        let text = std::fs::read_to_string(format!("{packaging}{file}")).unwrap();
        let mut asked: Vec<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("iapd_"))
            .collect();
        asked.sort_unstable();
        asked.dedup();
        assert!(asked.len() > 4, "{file} asks for {asked:?}");
        for name in asked {
            assert!(is_told(name), "{file} asks for {name}, in vain: {told}");
        }
    }
}
