//! Checks a YAML value against the file's JSON Schema: unknown keys, wrong types, missing keys,
//! ranges. What is wrong is reported and taken out, so that the rest can be read on.

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::places::join;
use super::problem::Report;

/// Checks `value` against `schema`, in place. Returns false when it is of no use.
pub(super) fn check(schema: &Json, value: &mut Value, key: &str, report: &mut Report<'_>) -> bool {
    match type_of(schema) {
        "object" => check_object(schema, value, key, report),
        "array" => check_array(schema, value, key, report),
        "string" => check_string(schema, value, key, report),
        "integer" => check_integer(schema, value, key, report),
        "boolean" => {
            let fits = value.is_bool();
            if !fits {
                let found = found(schema, value, key, report);
                report.error(key, format!("must be true or false, not {found}"));
            }
            fits
        }
        _ => true,
    }
}

/// Returns the schema's type; `["string", "null"]` is a string that may be absent.
fn type_of(schema: &Json) -> &str {
    match &schema["type"] {
        Json::String(name) => name,
        Json::Array(names) => names.first().and_then(Json::as_str).unwrap_or_default(),
        _ => "",
    }
}

fn check_object(schema: &Json, value: &mut Value, key: &str, report: &mut Report<'_>) -> bool {
    let Value::Mapping(mapping) = value else {
        let found = found(schema, value, key, report);
        report.error(
            key,
            format!("must be a mapping of keys to values, not {found}"),
        );
        return false;
    };
    let entries = std::mem::take(mapping);
    for (name, mut item) in entries {
        let Some(text) = key_text(&name) else {
            report.error(key, "has a key that is not a text");
            continue;
        };
        let item_key = join(key, &text);
        if !schema["patternProperties"]["^x-"].is_null() && text.starts_with("x-") {
            continue;
        }
        if let Some(property) = schema["properties"].get(&text) {
            // An empty value is an absent one, as it is for the Go tool.
            if !item.is_null() && check(property, &mut item, &item_key, report) {
                mapping.insert(Value::String(text), item);
            }
        } else if schema["additionalProperties"].is_object() {
            if item.is_null() {
                item = Value::String(String::new());
            }
            if check(
                &schema["additionalProperties"],
                &mut item,
                &item_key,
                report,
            ) {
                mapping.insert(Value::String(text), item);
            }
        } else {
            report.error_in_key(&item_key, unknown_key(schema, &text));
        }
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
    {
        let item_key = join(key, name);
        if !mapping.contains_key(name) && !report.has_error(&item_key) {
            report.error_in_key(&item_key, "is missing");
        }
    }
    true
}

/// Keys that look like numbers or truth values are meant as texts.
fn key_text(name: &Value) -> Option<String> {
    match name {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn check_array(schema: &Json, value: &mut Value, key: &str, report: &mut Report<'_>) -> bool {
    if takes_one(schema) && !matches!(value, Value::Sequence(_)) {
        let fits = check(&schema["items"], value, key, report);
        *value = Value::Sequence(vec![std::mem::take(value)]);
        return fits;
    }
    let Value::Sequence(items) = value else {
        let found = found(schema, value, key, report);
        report.error(key, format!("must be a list, not {found}"));
        return false;
    };
    let mut all_fit = true;
    for (number, item) in items.iter_mut().enumerate() {
        if check(&schema["items"], item, &format!("{key}[{number}]"), report) {
            continue;
        }
        // A bad mapping keeps its place, so that the numbers of those after it stay right.
        if type_of(&schema["items"]) == "object" {
            *item = Value::Mapping(Mapping::new());
        } else {
            all_fit = false;
        }
    }
    all_fit
}

/// Whether a list may be written as its only item.
fn takes_one(schema: &Json) -> bool {
    let types = schema["type"].as_array();
    types.is_some_and(|types| types.iter().any(|name| name == "string"))
}

fn check_string(schema: &Json, value: &mut Value, key: &str, report: &mut Report<'_>) -> bool {
    match value {
        Value::String(text) => match schema["enum"].as_array() {
            Some(words) if !words.iter().any(|word| word == text.as_str()) => {
                let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
                report.error(key, format!("must be one of {}", words.join(", ")));
                false
            }
            _ => true,
        },
        // `1.10` or `yes` without quotes: the text is meant, as it stands.
        Value::Number(_) | Value::Bool(_) => {
            let text = report.places.text(key).unwrap_or_default().to_owned();
            *value = Value::String(text);
            true
        }
        _ => {
            let found = found(schema, value, key, report);
            report.error(key, format!("must be a text, not {found}"));
            false
        }
    }
}

fn check_integer(schema: &Json, value: &Value, key: &str, report: &mut Report<'_>) -> bool {
    let bound = |name: &str| schema[name].as_i64().unwrap_or_default();
    let range = bound("minimum")..=bound("maximum");
    let fits = value.as_i64().is_some_and(|number| range.contains(&number));
    if !fits {
        let (min, max) = range.into_inner();
        let found = found(schema, value, key, report);
        report.error(
            key,
            format!("must be a whole number, {min} to {max}, not {found}"),
        );
    }
    fits
}

/// Says what was found where something else was expected; never shows a secret.
fn found(schema: &Json, value: &Value, key: &str, report: &Report<'_>) -> String {
    let kind = match value {
        Value::Null => return "empty".to_owned(),
        Value::Sequence(_) => return "a list".to_owned(),
        Value::Mapping(_) => return "a mapping".to_owned(),
        Value::Tagged(_) => return "a value with a tag (`!`)".to_owned(),
        Value::String(_) => "the text",
        Value::Number(_) | Value::Bool(_) => "",
    };
    let is_secret = schema["writeOnly"] == true || matches!(type_of(schema), "object" | "array");
    match report.places.text(key) {
        Some(text) if !is_secret && text.len() <= 40 && !text.contains('\n') => {
            format!("{kind} `{text}`").trim_start().to_owned()
        }
        _ => "a single value".to_owned(),
    }
}

fn unknown_key(schema: &Json, name: &str) -> String {
    let known = || schema["properties"].as_object().into_iter().flatten();
    for (parent, property) in known() {
        if property["properties"].get(name).is_some() {
            return format!("unknown key; it belongs under `{parent}`");
        }
    }
    match nearest(name, known().map(|(known, _)| known.as_str())) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => {
            let names: Vec<&str> = known().map(|(known, _)| known.as_str()).collect();
            format!("unknown key; known here: {}", names.join(", "))
        }
    }
}

/// Returns the name most like `name`, if one is like it.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .map(|known| (distance(&lower, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Counts the letters to insert, delete or replace to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
