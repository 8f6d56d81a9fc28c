use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::incus::scripted::{Scripted, json, refusal};

const GIB: u64 = 1 << 30;

fn state(free: u64) -> MemberState {
    let mut state = MemberState::default();
    state.system.total = 64 * GIB;
    state.system.free = free;
    state
}

fn memory(used: u64) -> Memory {
    Memory {
        used,
        total: 64 * GIB,
    }
}

#[test]
fn memory_with_files_in_it_is_not_known_to_be_short() {
    let now = Instant::now();
    let mut told = Told {
        state: Some((now, state(3 * GIB))),
        ..Told::default()
    };
    let free = |told: &Told, now| told.room(now).memory.map(|memory| memory.free / GIB);
    assert_eq!(free(&told, now), Some(3));
    told.state = Some((now, state(GIB)));
    assert_eq!(free(&told, now), None);
    // What a server found out when it started says nothing of now.
    told.take_memory(memory(63 * GIB), now);
    told.take_memory(memory(63 * GIB), now);
    assert_eq!(free(&told, now), None);
    // What it counts now does.
    told.take_memory(memory(54 * GIB), now);
    assert_eq!(free(&told, now), Some(10));
    told.take_memory(memory(64 * GIB), now);
    assert_eq!(free(&told, now), Some(0));
    // And nothing does for ever.
    assert_eq!(free(&told, now + KEPT), None);
}

/// Answers for members of which some fail.
fn server(used: &'static AtomicU64) -> Scripted {
    Scripted::new(move |head| {
        let used = used.fetch_add(1, Ordering::Relaxed);
        match head.split(' ').nth(1) {
            Some("/1.0/cluster/members/a/state") => json(
                200,
                &format!(
                    r#"{{"sysinfo":{{"total_ram":{},"free_ram":{}}},
                        "storage_pools":{{"fast":{{"space":{{"used":{used},"total":100}}}}}}}}"#,
                    64 * GIB,
                    32 * GIB
                ),
            ),
            Some("/1.0/resources") => json(
                200,
                &format!(r#"{{"memory":{{"used":{used},"total":{GIB}}}}}"#),
            ),
            _ => refusal(500, 500, "no such thing"),
        }
    })
}

#[tokio::test]
async fn each_member_is_asked_at_most_once_in_a_while() {
    static USED: AtomicU64 = AtomicU64::new(0);
    let server = server(&USED);
    let (mut rooms, now) = (Rooms::default(), Instant::now());
    let first = rooms.of_members(&server.incus, &["a", "b"], now).await;
    assert_eq!(first["a"].memory.map(|memory| memory.free), Some(32 * GIB));
    assert_eq!(first["a"].storage["fast"].total, 100);
    assert_eq!(first["b"], HostRoom::default(), "it does not tell");
    let asked = server.requests().len();
    assert_eq!(
        rooms.of_members(&server.incus, &["a", "b"], now).await,
        first
    );
    assert_eq!(server.requests().len(), asked);
    let now = now + AGE;
    let later = rooms.of_members(&server.incus, &["a", "b"], now).await;
    assert_ne!(later["a"].storage, first["a"].storage);
    assert!(rooms.of_members(&server.incus, &[], now).await.is_empty());
}

#[tokio::test]
async fn a_remote_server_is_believed_when_its_answers_differ() {
    static USED: AtomicU64 = AtomicU64::new(0);
    let server = server(&USED);
    let (mut rooms, now) = (Rooms::default(), Instant::now());
    assert_eq!(rooms.of_server(&server.incus, now).await, None);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(rooms.of_server(&server.incus, now).await, None);
    assert_eq!(server.requests().len(), 1, "asked a moment ago");
    let now = now + RESOURCES_AGE;
    let amount = rooms.of_server(&server.incus, now).await.unwrap();
    assert_eq!(amount.total, GIB);
}
