//! Where each key of a YAML text stands. Values are read by another parser, which forgets places;
//! this one keeps places and leaves the meaning of scalars alone.
//!
//! A key is written as in messages: `pools[1].incus.maxCores`. A key that came through an alias or
//! a merge (`<<`) has the place where it is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, Span};

/// Deeper than any configuration; a bound for the recursion over the tree.
const MAX_DEPTH: usize = 64;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// What is wrong with a text as YAML.
pub(super) struct SyntaxError {
    pub(super) at: Position,
    pub(super) message: String,
}

#[derive(Clone)]
struct Node {
    at: Position,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Scalar(Rc<str>),
    Sequence(Rc<Vec<Node>>),
    Mapping(Rc<Vec<Entry>>),
}

struct Entry {
    name: Rc<str>,
    at: Position,
    value: Node,
}

/// The structure of a YAML text.
pub(super) struct Tree(Option<Node>);

impl Tree {
    /// Reads a text of one document.
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut builder = Builder::default();
        let mut documents = 0;
        for item in Parser::new_from_str(text) {
            let (event, span) = item.map_err(|error| SyntaxError {
                at: error.marker().into(),
                message: format!("is not YAML: {}", error.info()),
            })?;
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
            }
            if documents > 1 {
                let message = "has a second YAML document; only one is read".to_owned();
                return Err(SyntaxError {
                    at: (&span.start).into(),
                    message,
                });
            }
            builder.take(event, span)?;
        }
        Ok(Self(builder.root))
    }

    /// Returns the places of all keys.
    pub(super) fn places(&self) -> Places {
        let mut places = Places::default();
        if let Some(root) = &self.0 {
            places.add(String::new(), root.at, root);
        }
        places
    }
}

/// A collection that is being read.
struct Open {
    at: Position,
    anchor: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        key: Option<(Rc<str>, Position)>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let at = Position::from(&span.start);
        match event {
            Event::SequenceStart(anchor, _) => {
                self.push(Open {
                    at,
                    anchor,
                    items: Items::Sequence(Vec::new()),
                })?;
            }
            Event::MappingStart(anchor, _) => {
                let items = Items::Mapping {
                    entries: Vec::new(),
                    key: None,
                };
                self.push(Open { at, anchor, items })?;
            }
            Event::Scalar(text, _, anchor, _) => {
                self.put(
                    Node {
                        at,
                        content: Content::Scalar(text.into()),
                    },
                    anchor,
                );
            }
            Event::Alias(anchor) => {
                // An alias inside its own anchor; the value parser refuses it.
                let unknown = || Node {
                    at,
                    content: Content::Scalar("".into()),
                };
                let node = self.anchors.get(&anchor).cloned().unwrap_or_else(unknown);
                self.put(node, 0);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { at, anchor, items }) = self.open.pop() {
                    let content = match items {
                        Items::Sequence(items) => Content::Sequence(Rc::new(items)),
                        Items::Mapping { entries, .. } => Content::Mapping(Rc::new(entries)),
                    };
                    self.put(Node { at, content }, anchor);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, open: Open) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("is nested deeper than {MAX_DEPTH} levels");
            return Err(SyntaxError {
                at: open.at,
                message,
            });
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Sequence(items)) => items.push(node),
            Some(Items::Mapping { entries, key }) => match key.take() {
                Some((name, at)) => entries.push(Entry {
                    name,
                    at,
                    value: node,
                }),
                None => {
                    let name = match node.content {
                        Content::Scalar(text) => text,
                        _ => "?".into(),
                    };
                    *key = Some((name, node.at));
                }
            },
        }
    }
}

struct Place {
    key: Position,
    value: Position,
    /// The text of a scalar as it is written, without quotes.
    text: Option<Rc<str>>,
}

/// A key that its mapping has already.
pub(super) struct Duplicate {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) first: Position,
}

/// The places of all keys.
#[derive(Default)]
pub(super) struct Places {
    places: HashMap<String, Place>,
    pub(super) duplicates: Vec<Duplicate>,
    /// Places of duplicates noted: one inside an anchor is met once per alias.
    noted: HashSet<Position>,
}

impl Places {
    /// Returns where the value of `key` stands, or else that of the nearest key around it.
    pub(super) fn value(&self, key: &str) -> Position {
        self.nearest(key)
            .map_or(Position::START, |place| place.value)
    }

    /// Returns where `key` itself stands, or else the nearest key around it.
    pub(super) fn key(&self, key: &str) -> Position {
        self.nearest(key).map_or(Position::START, |place| place.key)
    }

    /// Returns the line in which each key has its value.
    pub(super) fn lines(&self) -> BTreeMap<String, usize> {
        let lines = self.places.iter();
        lines
            .map(|(key, place)| (key.clone(), place.value.line))
            .collect()
    }

    /// Returns the text of a scalar as it is written.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.places.get(key)?.text.as_deref()
    }

    fn nearest(&self, mut key: &str) -> Option<&Place> {
        loop {
            if let Some(place) = self.places.get(key) {
                return Some(place);
            }
            if key.is_empty() {
                return None;
            }
            key = &key[..key.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    fn add(&mut self, key: String, key_at: Position, node: &Node) {
        let mut place = Place {
            key: key_at,
            value: key_at,
            text: None,
        };
        match &node.content {
            Content::Scalar(text) => {
                // An absent value has no place of its own.
                if !text.is_empty() {
                    place.value = node.at;
                }
                place.text = Some(Rc::clone(text));
            }
            Content::Sequence(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.add(format!("{key}[{number}]"), item.at, item);
                }
            }
            Content::Mapping(entries) => {
                self.note_duplicates(&key, entries);
                for entry in merged(entries) {
                    self.add(join(&key, &entry.name), entry.at, &entry.value);
                }
                if let Some(merge) = entries.iter().find(|entry| &*entry.name == "<<") {
                    let place = Place {
                        key: merge.at,
                        value: merge.value.at,
                        text: None,
                    };
                    self.places.insert(join(&key, "<<"), place);
                }
            }
        }
        self.places.insert(key, place);
    }

    fn note_duplicates(&mut self, key: &str, entries: &[Entry]) {
        let mut seen: HashMap<&str, Position> = HashMap::new();
        for Entry { name, at, .. } in entries {
            let first = *seen.entry(name).or_insert(*at);
            if first != *at && self.noted.insert(*at) {
                self.duplicates.push(Duplicate {
                    key: join(key, name),
                    at: *at,
                    first,
                });
            }
        }
    }
}

/// Returns a mapping's entries with those it merges, the nearest of each name.
fn merged(entries: &[Entry]) -> Vec<&Entry> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let (merges, own): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| &*entry.name == "<<");
    let sources = merges.iter().flat_map(|entry| match &entry.value.content {
        Content::Sequence(items) => items.iter().collect(),
        _ => vec![&entry.value],
    });
    let inherited = sources.flat_map(|node| match &node.content {
        Content::Mapping(entries) => merged(entries),
        _ => Vec::new(),
    });
    for entry in own.into_iter().chain(inherited) {
        if seen.insert(&*entry.name) {
            found.push(entry);
        }
    }
    found
}

/// Writes the key of `name` inside `parent`.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}
