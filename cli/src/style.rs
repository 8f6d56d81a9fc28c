//! Colour, all of it: a state's word says the same without. There is none in a pipe, on a dumb
//! terminal and where `NO_COLOR` is set.

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const CARE: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// Whether stdout takes colour.
pub(crate) fn on_stdout() -> bool {
    AutoStream::choice(&std::io::stdout()) != ColorChoice::Never
}

/// Returns how the word of a state is shown; a word without a style is neither good nor bad.
fn of(word: &str) -> Option<Style> {
    match word.to_lowercase().as_str() {
        "ok" | "idle" | "succeeded" | "yes" => Some(GOOD),
        "busy"
        | "canceled"
        | "cancelled"
        | "degraded"
        | "draining"
        | "kept"
        | "orphaned"
        | "paused"
        | "succeededwithissues"
        | "unknown"
        | "warning" => Some(CARE),
        "abandoned"
        | "credential rejected"
        | "error"
        | "failed"
        | "failing"
        | "no"
        | "reload refused"
        | "stuck"
        | "unreachable"
        | "wrong" => Some(BAD),
        "notice" => Some(HINT),
        "skipped" => Some(DIM),
        _ => None,
    }
}

/// Returns `text` with the state that it begins with in its colour: `busy,draining`,
/// `UNREACHABLE  /run/...`.
pub(crate) fn state(text: &str) -> String {
    let end = [text.find(','), text.find("  ")];
    let end = end.into_iter().flatten().min().unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match of(word.trim_end()) {
        Some(style) => format!("{style}{word}{style:#}{rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_coloured_and_what_follows_it_is_not() {
        assert_eq!(state("ok"), "\x1b[32mok\x1b[0m");
        assert_eq!(state("busy,draining"), "\x1b[33mbusy\x1b[0m,draining");
        assert_eq!(
            state("CREDENTIAL REJECTED  https://dev.azure.com/acme"),
            "\x1b[1m\x1b[31mCREDENTIAL REJECTED\x1b[0m  https://dev.azure.com/acme"
        );
        assert_eq!(state("starting"), "starting");
        assert_eq!(state(""), "");
    }

    #[test]
    fn without_colour_the_words_are_the_same() {
        for text in [
            "ok",
            "degraded",
            "stuck",
            "busy,draining",
            "6.0.4, storage btrfs",
        ] {
            let coloured = state(text);
            assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), text);
        }
    }
}
