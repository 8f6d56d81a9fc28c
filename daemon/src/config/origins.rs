//! Writes a configuration with where each value comes from behind it: a line of the file, or the
//! default. It is YAML all the same.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_yaml::{Mapping, Value};

/// Longer values would push the comments out of sight.
const COLUMN: usize = 44;

/// Returns `value` as YAML; `lines` says in which line of the file a key has its value.
pub(super) fn annotate(value: &Value, lines: &BTreeMap<String, usize>) -> String {
    let mut writer = Writer {
        text: String::new(),
        lines,
    };
    if let Value::Mapping(mapping) = value {
        writer.mapping(mapping, "", 0, 0);
    }
    writer.text
}

struct Writer<'a> {
    text: String,
    lines: &'a BTreeMap<String, usize>,
}

impl Writer<'_> {
    /// Writes the entries of a mapping; the first `begun` columns of the first line stand already.
    fn mapping(&mut self, mapping: &Mapping, path: &str, indent: usize, begun: usize) {
        let mut begun = begun;
        for (key, value) in mapping {
            let name = scalar(key);
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            let margin = " ".repeat(indent - begun);
            begun = 0;
            match value {
                Value::Mapping(inner) if !inner.is_empty() => {
                    let _ = writeln!(self.text, "{margin}{name}:");
                    self.mapping(inner, &path, indent + 2, 0);
                }
                Value::Sequence(items) if !items.is_empty() => {
                    let plain = !items.iter().any(Value::is_mapping);
                    if plain {
                        self.leaf(&format!("{margin}{name}:"), &path);
                    } else {
                        let _ = writeln!(self.text, "{margin}{name}:");
                    }
                    self.items(items, &path, indent);
                }
                value => {
                    let text = format!("{margin}{name}: {}", scalar(value));
                    self.leaf(&text, &path);
                }
            }
        }
    }

    fn items(&mut self, items: &[Value], path: &str, indent: usize) {
        let margin = " ".repeat(indent);
        for (number, item) in items.iter().enumerate() {
            if let Value::Mapping(mapping) = item
                && !mapping.is_empty()
            {
                let _ = write!(self.text, "{margin}- ");
                let path = format!("{path}[{number}]");
                self.mapping(mapping, &path, indent + 2, indent + 2);
            } else {
                let _ = writeln!(self.text, "{margin}- {}", scalar(item));
            }
        }
    }

    fn leaf(&mut self, text: &str, path: &str) {
        let origin = match self.lines.get(path) {
            Some(line) => format!("line {line}"),
            None => "default".to_owned(),
        };
        // Where the line begins: a list's dash may stand before it.
        let begun = self.text.len() - self.text.rfind('\n').map_or(0, |end| end + 1);
        let width = COLUMN.saturating_sub(begun);
        let _ = writeln!(self.text, "{text:<width$}  # {origin}");
    }
}

/// Returns a value that fits into one line.
fn scalar(value: &Value) -> String {
    match value {
        // YAML's own way takes several lines; a JSON string is YAML too.
        Value::String(text) if text.contains('\n') => {
            serde_json::to_string(text).expect("a string can be written as JSON")
        }
        Value::Mapping(_) => "{}".to_owned(),
        Value::Sequence(_) => "[]".to_owned(),
        value => {
            let text = serde_yaml::to_string(value).expect("a scalar can be written as YAML");
            text.trim_end().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_mean_the_same_with_comments_behind_them() {
        let text = "env: {A: \"two\\nlines # not a comment\", B: '#x', C: ' y ', D: '', E: null, F: '12'}\n\
                    list: ['a #b', \"c\\nd\", {}]\nempty: {}\nno: []\n";
        let value: Value = serde_yaml::from_str(text).unwrap();
        let annotated = annotate(&value, &BTreeMap::from([("env.B".to_owned(), 7)]));
        let again: Value = serde_yaml::from_str(&annotated).unwrap();
        assert_eq!(again["env"], value["env"], "{annotated}");
        for key in ["list", "empty", "no"] {
            assert_eq!(again[key], value[key], "{annotated}");
        }
        assert!(
            annotated.contains("B: '#x'") && annotated.contains("# line 7"),
            "{annotated}"
        );
        assert_eq!(annotated.matches("# line").count(), 1);
    }
}
