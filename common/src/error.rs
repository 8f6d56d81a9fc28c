//! How errors are written for people: every cause in one line.

use std::error::Error;
use std::fmt::{Display, Formatter};

/// Displays an error and its sources, joined by `: `. A source whose text the line ends with
/// already is not repeated (libraries that put the source into their own text).
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(source) = next {
            let part = source.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = source.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer failed")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner failed")]
    struct Inner;

    #[test]
    fn chain_joins_an_error_with_its_sources() {
        assert_eq!(
            chain(&Outer(Inner)).to_string(),
            "outer failed: inner failed"
        );
    }
}
