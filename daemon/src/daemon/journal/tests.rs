use std::path::Path;

use tracing::{debug, error, info, info_span, warn};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

fn entry(level: Level, values: &[(&'static str, &str)]) -> Entry {
    let values = values.iter().map(|(name, value)| (*name, (*value).into()));
    Entry {
        level,
        target: "iapd::pool",
        values: Values(values.collect()),
    }
}

fn journald(path: &Path) -> UnixDatagram {
    let journald = UnixDatagram::bind(path).unwrap();
    journald.set_nonblocking(true).unwrap();
    journald
}

/// Returns the messages that the journal gets of what `say` logs.
fn messages(say: impl FnOnce()) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journald = journald(&path);
    let subscriber = tracing_subscriber::registry().with(Journal::at(path));
    tracing::subscriber::with_default(subscriber, say);
    received(&journald)
}

fn received(journald: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut messages = Vec::new();
    while let Ok(length) = journald.recv(&mut buffer) {
        messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    messages
}

#[test]
fn values_and_what_the_spans_are_about_are_fields_and_in_the_line() {
    let said = messages(|| {
        let _pool = info_span!("pool", name = %"linux").entered();
        let _agent = info_span!("agent", name = "linux-b1-k2x4p").entered();
        info!(reason = "job ended", elapsed = ?7, "deleted");
    });
    let [message] = said.as_slice() else {
        panic!("{said:?}");
    };
    insta::assert_snapshot!(message, @r#"
    PRIORITY=6
    SYSLOG_IDENTIFIER=iapd
    TARGET=iapd::daemon::journal::tests
    MESSAGE=deleted reason="job ended" elapsed=7 agent=linux-b1-k2x4p pool=linux
    REASON=job ended
    ELAPSED=7
    AGENT=linux-b1-k2x4p
    POOL=linux
    "#);
}

#[test]
fn levels_are_priorities() {
    let said = messages(|| {
        error!("a");
        warn!("b");
        info!("c");
        debug!("d");
    });
    let first: Vec<_> = said.iter().filter_map(|m| m.lines().next()).collect();
    let want = ["PRIORITY=3", "PRIORITY=4", "PRIORITY=6", "PRIORITY=7"];
    assert_eq!(first, want);
}

#[test]
fn what_the_message_itself_says_goes_before_what_spans_say() {
    let said = messages(|| {
        let span = info_span!("pool", name = "a", job = tracing::field::Empty).entered();
        span.record("job", 7);
        info!(pool = "b", "c");
    });
    assert!(said[0].contains("\nMESSAGE=c pool=b job=7\n"), "{said:?}");
    assert!(!said[0].contains("POOL=a"), "{said:?}");
}

#[test]
fn a_value_of_several_lines_cannot_become_another_field() {
    let entry = entry(
        Level::WARN,
        &[("message", "failed"), ("error", "x\nPRIORITY=0")],
    );
    let datagram = entry.datagram();
    let value = b"ERROR\n\x0c\0\0\0\0\0\0\0x\nPRIORITY=0\n";
    assert!(datagram.ends_with(value), "{datagram:?}");
    assert_eq!(entry.text(), r#"failed error="x\nPRIORITY=0""#);
}

#[test]
fn without_a_journal_each_line_says_its_priority() {
    let entry = entry(
        Level::ERROR,
        &[("message", "two\nlines"), ("empty", ""), ("pool", "linux")],
    );
    assert_eq!(entry.line(), "<3>two lines empty=\"\" pool=linux\n");
    let journal = Journal::at("/nonexistent/socket".into());
    let sent = journal.send(&mut State::default(), &entry.datagram());
    assert_eq!(sent, Sent::Refused);
}

#[test]
fn a_journal_that_comes_back_with_another_socket_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journal = Journal::at(path.clone());
    let entry = entry(Level::INFO, &[("message", "heard")]);
    for _ in 0..2 {
        let journald = journald(&path);
        journal.write(&entry);
        assert_eq!(received(&journald).len(), 1);
        drop(journald);
        std::fs::remove_file(&path).unwrap();
        journal.write(&entry);
    }
}

#[test]
fn a_journal_that_hangs_holds_up_one_message_and_hears_how_many_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journald = journald(&path);
    let journal = Journal::at(path);
    let entry = entry(Level::INFO, &[("message", "heard")]);
    let lost = || journal.state.lock().unwrap().lost;
    // As many as the kernel queues, which is a setting of the machine's.
    let began = std::time::Instant::now();
    while lost() < 1000 {
        journal.write(&entry);
    }
    assert!(began.elapsed() < 50 * PATIENCE, "{:?}", began.elapsed());
    received(&journald);
    journal.write(&entry);
    let said = received(&journald);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("PRIORITY=4\n") && said[1].contains("\nLOST=1000\n"));
    assert_eq!(lost(), 0);
}

#[test]
fn field_names_are_what_journald_takes() {
    let name = |name| field_name(name);
    assert_eq!(name("azure_agent_id").as_deref(), Some("AZURE_AGENT_ID"));
    assert_eq!(name("r#type").as_deref(), Some("TYPE"));
    assert_eq!(name("http.status").as_deref(), Some("HTTP_STATUS"));
    assert_eq!(name("_uid"), None, "those are journald's own");
    assert_eq!(name("message"), None);
    assert_eq!(name(&"x".repeat(80)).map(|name| name.len()), Some(64));
}

#[test]
fn a_value_is_cut_between_characters() {
    let mut values = Values::default();
    values.put("x", "é".repeat(LONGEST_VALUE));
    assert!(values.0[0].1.len() <= LONGEST_VALUE);
}
