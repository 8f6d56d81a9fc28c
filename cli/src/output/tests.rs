//! Tables and watched lists with a fixed clock.

use insta::assert_snapshot;

use super::*;
use crate::rows::{column, number, state};

#[derive(Serialize, PartialEq, Clone)]
struct Thing {
    name: String,
    state: String,
    count: u32,
    since: i64,
}

fn thing(name: &str, state: &str, count: u32) -> Thing {
    Thing {
        name: name.to_owned(),
        state: state.to_owned(),
        count,
        since: 0,
    }
}

impl Row for Thing {
    const PLURAL: &'static str = "things";
    const SINGULAR: &'static str = "thing";

    fn columns(_: bool) -> Vec<Column> {
        vec![
            column("THING"),
            state("STATE"),
            number("COUNT"),
            column("AGE"),
        ]
    }

    fn cells(&self, _: bool, now: Timestamp) -> Vec<String> {
        let age = now.as_second() - self.since;
        vec![
            self.name.clone(),
            self.state.clone(),
            self.count.to_string(),
            format!("{age}s"),
        ]
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn output(format: Format) -> ListOutputArgs {
    ListOutputArgs {
        answer: OutputArgs { format },
        no_headers: false,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn tables_have_no_boxes_and_numbers_to_the_right() {
    let rows = [
        thing("short", "ok", 5),
        thing("a-longer-name", "degraded", 120),
    ];
    assert_snapshot!(output(Format::Table).table(&rows, at(60), false), @"
    THING          STATE     COUNT  AGE
    short          ok            5  60s
    a-longer-name  degraded    120  60s
    ");
}

#[test]
fn wide_characters_keep_the_columns_straight() {
    let rows = [thing("日本", "ok", 5), thing("plain", "ok", 5)];
    assert_snapshot!(output(Format::Table).table(&rows, at(60), false), @"
    THING  STATE  COUNT  AGE
    日本   ok         5  60s
    plain  ok         5  60s
    ");
}

#[test]
fn states_are_coloured_within_their_columns() {
    let rows = [thing("one", "ok", 5), thing("two", "degraded", 5)];
    let table = output(Format::Table).table(&rows, at(60), true);
    let (green, yellow) = ("\x1b[32mok\x1b[0m      ", "\x1b[33mdegraded\x1b[0m");
    assert!(
        table.contains(&format!("one    {green}      5")),
        "{table:?}"
    );
    assert!(
        table.contains(&format!("two    {yellow}      5")),
        "{table:?}"
    );
    assert!(table.starts_with("THING  STATE "), "{table:?}");
}

#[test]
fn names_are_never_cut() {
    let name = "n".repeat(300);
    let table = output(Format::Table).table(&[thing(&name, "ok", 1)], at(0), false);
    assert!(table.contains(&name));
}

/// Returns what a watch writes for three states of a list.
fn watched(format: Format) -> String {
    let output = output(format);
    let mut changes = Changes::new(&output);
    let states = [
        vec![thing("one", "ok", 5), thing("two", "ok", 5)],
        vec![thing("one", "ok", 5), thing("two", "degraded", 1000)],
        vec![thing("three", "ok", 1), thing("two", "degraded", 1000)],
    ];
    let mut text = String::new();
    for (second, rows) in (0..).zip(states) {
        text.push_str(&changes.difference(&rows, at(second)).unwrap());
        changes.rows = rows;
    }
    text
}

#[test]
fn a_watched_table_prints_changed_rows_below_each_other() {
    assert_snapshot!(watched(Format::Table), @"
    THING  STATE  COUNT  AGE
    one    ok         5  0s
    two    ok         5  0s
    two    degraded   1000  1s
    three  ok            1  2s
    one    gone          5  2s
    ");
}

#[test]
fn a_watched_list_in_json_is_a_line_for_each_change() {
    assert_snapshot!(watched(Format::Json), @r#"
    {"api_version":"iap.v1","event":"added","thing":{"name":"one","state":"ok","count":5,"since":0}}
    {"api_version":"iap.v1","event":"added","thing":{"name":"two","state":"ok","count":5,"since":0}}
    {"api_version":"iap.v1","event":"changed","thing":{"name":"two","state":"degraded","count":1000,"since":0}}
    {"api_version":"iap.v1","event":"added","thing":{"name":"three","state":"ok","count":1,"since":0}}
    {"api_version":"iap.v1","event":"removed","thing":{"name":"one","state":"ok","count":5,"since":0}}
    "#);
}

#[test]
fn a_watched_list_in_yaml_is_a_document_for_each_change() {
    assert_snapshot!(watched(Format::Yaml), @"
    ---
    api_version: iap.v1
    event: added
    thing:
      name: one
      state: ok
      count: 5
      since: 0
    ---
    api_version: iap.v1
    event: added
    thing:
      name: two
      state: ok
      count: 5
      since: 0
    ---
    api_version: iap.v1
    event: changed
    thing:
      name: two
      state: degraded
      count: 1000
      since: 0
    ---
    api_version: iap.v1
    event: added
    thing:
      name: three
      state: ok
      count: 1
      since: 0
    ---
    api_version: iap.v1
    event: removed
    thing:
      name: one
      state: ok
      count: 5
      since: 0
    ");
}

#[test]
fn a_watched_list_of_names_prints_each_name_once() {
    assert_snapshot!(watched(Format::Name), @"
    one
    two
    three
    ");
}
