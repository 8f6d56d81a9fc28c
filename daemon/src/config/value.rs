//! YAML values that keep going where `serde_yaml::Value` would stop at the first error.

use serde::de::{
    Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

use super::places::join;
use super::problem::Report;

/// A value in which a repeated key is not an error: the first one stands. Repeated keys are
/// reported with their places by `places`.
pub(super) struct Lenient(pub(super) Value);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor).map(Self)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    // Beyond 64 bits only the text is of use, and that is kept beside the value.
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok((value as f64).into())
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok((value as f64).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Lenient(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut mapping = Mapping::new();
        while let Some((Lenient(key), Lenient(value))) = access.next_entry()? {
            mapping.entry(key).or_insert(value);
        }
        Ok(Value::Mapping(mapping))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (_, content) = access.variant::<String>()?;
        let Lenient(value) = content.newtype_variant()?;
        // Which tag it was does not matter: none is known.
        Ok(Value::Tagged(Box::new(TaggedValue {
            tag: Tag::new("tag"),
            value,
        })))
    }
}

/// Carries out the merges (`<<`) in a value, innermost first: `Value::apply_merge` by itself does
/// not look into what it has merged.
pub(super) fn merge(value: &mut Value, key: &str, report: &mut Report<'_>) {
    match value {
        Value::Sequence(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                merge(item, &format!("{key}[{number}]"), report);
            }
        }
        Value::Mapping(mapping) => {
            for (name, item) in mapping.iter_mut() {
                merge(item, &join(key, name.as_str().unwrap_or("?")), report);
            }
            if mapping.contains_key("<<") && value.apply_merge().is_err() {
                let message = "must be a mapping, or a list of mappings, to merge from";
                report.error_in_key(&join(key, "<<"), message);
            }
        }
        _ => {}
    }
}
