//! Output cut into lines.

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// The command's output.
    Stdout,
    /// Its error output.
    Stderr,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLine {
    /// Where it comes from.
    pub stream: OutputStream,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Longer lines are cut into several.
const LINE_CAP: usize = 64 * 1024;

/// Collects bytes until they make lines.
pub(in crate::incus) struct Splitter {
    stream: OutputStream,
    rest: Vec<u8>,
}

impl Splitter {
    pub(in crate::incus) fn new(stream: OutputStream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    /// Takes bytes and hands over the lines they complete.
    pub(in crate::incus) fn feed(
        &mut self,
        mut bytes: &[u8],
        on_line: &mut impl FnMut(StreamLine),
    ) {
        while !bytes.is_empty() {
            let room = bytes.len().min(LINE_CAP - self.rest.len());
            let window = &bytes[..room];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.rest.extend_from_slice(&window[..end]);
                bytes = &bytes[end + 1..];
                self.flush(on_line);
            } else {
                self.rest.extend_from_slice(window);
                bytes = &bytes[room..];
                if self.rest.len() == LINE_CAP {
                    self.flush(on_line);
                }
            }
        }
    }

    /// Hands over what has no line end.
    pub(in crate::incus) fn finish(&mut self, on_line: &mut impl FnMut(StreamLine)) {
        if !self.rest.is_empty() {
            self.flush(on_line);
        }
    }

    fn flush(&mut self, on_line: &mut impl FnMut(StreamLine)) {
        if self.rest.last() == Some(&b'\r') {
            self.rest.pop();
        }
        let text = String::from_utf8_lossy(&self.rest).into_owned();
        self.rest.clear();
        on_line(StreamLine {
            stream: self.stream,
            text,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::new(OutputStream::Stdout);
        let mut lines = Vec::new();
        let mut on_line = |line: StreamLine| lines.push(line.text);
        for piece in pieces {
            splitter.feed(piece, &mut on_line);
        }
        splitter.finish(&mut on_line);
        lines
    }

    #[test]
    fn lines_are_put_together_across_messages() {
        assert_eq!(
            lines(&[b"on", b"e\ntw", b"o\r\n\nthree"]),
            ["one", "two", "", "three"]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let long = vec![b'x'; LINE_CAP + 10];
        let cut = lines(&[&long, b"\nnext"]);
        assert_eq!(
            cut.iter().map(String::len).collect::<Vec<_>>(),
            [LINE_CAP, 10, 4]
        );
    }

    #[test]
    fn nothing_makes_no_line() {
        assert_eq!(lines(&[b""]), Vec::<String>::new());
    }
}
