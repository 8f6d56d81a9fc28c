//! Writes the log to systemd's journal: a priority for each message, its values and those of the
//! spans around it as fields (`journalctl -u iapd POOL=linux`), and the whole of it as one line
//! to read. Where the journal's socket cannot be reached, lines go to stderr with their priority
//! before them, which systemd understands as well (sd-daemon(3)). A journal that takes nothing holds
//! nobody up: what it does not take soon is counted, and the number told when it listens again.
//!
//! The existing crate for this puts only the message itself into the line, so that plain
//! `journalctl` would say "deleted" and not what, nor why.

use std::fmt::{Debug, Write as _};
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where journald takes messages: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A message is one datagram; what is longer than this in a value is not for a log.
const LONGEST_VALUE: usize = 16 * 1024;
/// journald takes no longer names.
const LONGEST_NAME: usize = 64;
/// A burst fills journald's queue for a moment. Longer than this, and it hangs.
const PATIENCE: Duration = Duration::from_millis(100);

/// Returns whether stderr is the journal. The variable alone may be left over from a parent.
pub(super) fn is_stderr() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(std::io::stderr())
        .is_ok_and(|stderr| *stream == *format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Writes a line to stderr: with the priority of an error where that is the journal.
pub(super) fn complain(line: &str) {
    let mark = if is_stderr() { "<3>" } else { "" };
    // What cannot be told on stderr cannot be told anywhere.
    let _ = writeln!(std::io::stderr(), "{mark}{line}");
}

/// See the module.
pub(super) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<UnixDatagram>,
    /// Messages that journald has not taken since it last took one.
    lost: u64,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    /// journald's queue is full.
    Full,
    /// It has to be told another way.
    Refused,
}

impl Journal {
    /// Returns the way to the journal, which is looked for when there is something to say.
    pub(super) fn new() -> Self {
        Self::at(SOCKET.into())
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    fn write(&self, entry: &Entry) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.send(&mut state, &entry.datagram()) {
            Sent::Taken if state.lost > 0 => {
                let gap = Entry::gap(state.lost);
                // Else it is told next time.
                if self.send(&mut state, &gap.datagram()) == Sent::Taken {
                    state.lost = 0;
                }
            }
            Sent::Taken => {}
            // stderr leads to the same journald, and would wait for it.
            Sent::Full => state.lost += 1,
            Sent::Refused => {
                let _ = std::io::stderr().write_all(entry.line().as_bytes());
            }
        }
    }

    /// Sends, on a new connection if the old one leads nowhere: journald's socket may be another.
    fn send(&self, state: &mut State, datagram: &[u8]) -> Sent {
        for _ in 0..2 {
            let socket = match state.socket.take() {
                Some(socket) => socket,
                None => match self.connect() {
                    Ok(socket) => socket,
                    Err(_) => return Sent::Refused,
                },
            };
            // Only the first of those that find it full waits.
            let sent = socket
                .set_nonblocking(state.lost > 0)
                .and_then(|()| socket.send(datagram));
            match sent.map_err(|error| error.kind()) {
                Ok(_) => {
                    state.socket = Some(socket);
                    return Sent::Taken;
                }
                Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    state.socket = Some(socket);
                    return Sent::Full;
                }
                Err(ErrorKind::ConnectionRefused | ErrorKind::NotConnected) => {}
                // Too long, say. The next one may do.
                Err(_) => return Sent::Refused,
            }
        }
        Sent::Refused
    }

    fn connect(&self) -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }
}

/// Names and values in the order in which they were given.
#[derive(Default)]
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    fn put(&mut self, name: &'static str, mut value: String) {
        if value.len() > LONGEST_VALUE {
            let fits = |end: &usize| value.is_char_boundary(*end);
            let end = (0..=LONGEST_VALUE).rev().find(fits).unwrap_or(0);
            value.truncate(end);
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut values = Values::default();
            attributes.record(&mut values);
            span.extensions_mut().insert(values);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(values) = span.extensions_mut().get_mut::<Values>()
        {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        // The inner span knows better.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Values>() {
                for (name, value) in &of_span.0 {
                    // What a span is about is named like the span.
                    let name = if *name == "name" { span.name() } else { name };
                    if !values.has(name) {
                        values.put(name, value.clone());
                    }
                }
            }
        }
        self.write(&Entry {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            values,
        });
    }
}

/// A message with all that belongs to it.
struct Entry {
    level: Level,
    target: &'static str,
    values: Values,
}

impl Entry {
    /// Tells of messages that are not there.
    fn gap(lost: u64) -> Self {
        let mut values = Values::default();
        values.put("message", "the journal did not take messages".to_owned());
        values.put("lost", lost.to_string());
        Self {
            level: Level::WARN,
            target: module_path!(),
            values,
        }
    }

    /// As in syslog(3). Nothing of a daemon is worth more than an error.
    fn priority(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        }
    }

    /// Returns what a person reads.
    fn text(&self) -> String {
        let values = &self.values.0;
        let message = values.iter().find(|(name, _)| *name == "message");
        let mut text = message.map_or_else(String::new, |(_, message)| message.clone());
        for (name, value) in values.iter().filter(|(name, _)| *name != "message") {
            let is_plain = !value.is_empty()
                && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
            // Writing to a String cannot fail.
            let _ = if is_plain {
                write!(text, " {name}={value}")
            } else {
                write!(text, " {name}={value:?}")
            };
        }
        text
    }

    /// Returns a line for stderr.
    fn line(&self) -> String {
        let text = self.text().replace(char::is_control, " ");
        format!("<{}>{text}\n", self.priority())
    }

    /// Returns a message for journald.
    fn datagram(&self) -> Vec<u8> {
        let mut datagram = Vec::new();
        put(&mut datagram, "PRIORITY", &self.priority().to_string());
        put(&mut datagram, "SYSLOG_IDENTIFIER", "iapd");
        put(&mut datagram, "TARGET", self.target);
        put(&mut datagram, "MESSAGE", &self.text());
        for (name, value) in &self.values.0 {
            if let Some(name) = field_name(name) {
                put(&mut datagram, &name, value);
            }
        }
        datagram
    }
}

/// Adds a field. A value of several lines travels with its length.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend((value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend(value.as_bytes());
    datagram.push(b'\n');
}

/// Returns what journald takes as a name, for what is not written in a way of its own.
fn field_name(name: &str) -> Option<String> {
    let mut name: String = name
        .trim_start_matches("r#")
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    name.truncate(LONGEST_NAME);
    let is_own = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TARGET"].contains(&name.as_str());
    let is_allowed = name.starts_with(|c: char| c.is_ascii_uppercase());
    (is_allowed && !is_own).then_some(name)
}

#[cfg(test)]
mod tests;
