//! What is shown of each kind of thing: the JSON object, the table's cells and the lines of
//! `show`. The field names of the objects are those of `iap.v1`, in its order; times are RFC
//! 3339, states lower-case words, and what is empty or unknown is null.

use jiff::Timestamp;
use serde::Serialize;

pub(crate) mod agent;
pub(crate) mod auth;
pub(crate) mod doctor;
pub(crate) mod fleet;
pub(crate) mod ghost;
pub(crate) mod history;
pub(crate) mod image;
mod intent;
pub(crate) mod member;
pub(crate) mod pool;
pub(crate) mod provision;
pub(crate) mod status;
pub(crate) mod time;

/// The version that every JSON and YAML document carries.
pub(crate) const API_VERSION: &str = "iap.v1";

/// Shown where there is nothing to show, so that columns stay countable.
const NOTHING: &str = "-";

/// A column's head and what its cells are.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) kind: Kind,
}

/// What cells are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// To the right.
    Number,
    /// Begins with the word of a state, which may be coloured.
    State,
}

pub(crate) const fn column(head: &'static str) -> Column {
    let kind = Kind::Text;
    Column { head, kind }
}

pub(crate) const fn number(head: &'static str) -> Column {
    let kind = Kind::Number;
    Column { head, kind }
}

pub(crate) const fn state(head: &'static str) -> Column {
    let kind = Kind::State;
    Column { head, kind }
}

/// A time in the wide list, else an age.
const fn time_column(wide: bool, head: &'static str, short: &'static str) -> Column {
    if wide { column(head) } else { number(short) }
}

/// Something that is listed.
pub(crate) trait Row: Serialize + PartialEq {
    /// Key of the list in JSON.
    const PLURAL: &'static str;
    /// Key of one in the JSON lines of a watch.
    const SINGULAR: &'static str;

    fn columns(wide: bool) -> Vec<Column>;

    /// Returns a text for each column.
    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String>;

    fn name(&self) -> &str;
}

/// Something that is shown by itself.
pub(crate) trait Show: Serialize {
    fn name(&self) -> &str;

    /// Returns labelled lines; a value may have several lines.
    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)>;
}

/// Returns `POOL_STATE_OK` as `ok`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn or_nothing(text: Option<&str>) -> String {
    text.unwrap_or(NOTHING).to_owned()
}

/// Returns the first twelve digits of a fingerprint, as Incus shows it.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

/// Returns `text` in one line and without what could steer a terminal: names, messages and log
/// lines come from Azure and from guests.
pub(crate) fn plain(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect();
    let text = anstream::adapter::strip_str(&text).to_string();
    text.trim_end()
        .chars()
        .filter(|c| *c == '\t' || !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enum_names_become_words() {
        assert_eq!(word("POOL_STATE_OK", "POOL_STATE_"), "ok");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(
            plain("two\nlines\x07 \x1b[31mred\x1b[0m \r\n"),
            "two lines red"
        );
    }
}
