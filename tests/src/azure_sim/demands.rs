//! The grammar of demands and how versions compare.

use std::collections::BTreeMap;

/// Capabilities by name; names differ in more than letter case.
pub(super) type Capabilities = BTreeMap<String, String>;

/// Tells whether the capabilities meet a demand: `Name`, `Name -equals Value` or `Name -gtVersion 2.1.0`.
pub(super) fn met(demand: &str, capabilities: &Capabilities) -> bool {
    let mut words = demand.trim().splitn(3, ' ');
    let name = words.next().unwrap_or_default();
    let held = capabilities
        .iter()
        .find(|(held, _)| held.eq_ignore_ascii_case(name));
    let Some((_, value)) = held else { return false };
    match (words.next(), words.next()) {
        (None, _) => true,
        (Some(op), Some(wanted)) if op.eq_ignore_ascii_case("-equals") => {
            value.eq_ignore_ascii_case(wanted.trim())
        }
        (Some(op), Some(wanted)) if op.eq_ignore_ascii_case("-gtversion") => {
            version(value) >= version(wanted)
        }
        _ => false,
    }
}

/// Returns a version's numbers, so that they compare as numbers.
pub(super) fn version(text: &str) -> Vec<u64> {
    text.trim()
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, met};

    #[test]
    fn demands_are_met_by_name_value_and_version() {
        let capabilities = [
            ("Agent.Version", "4.275.0"),
            ("Agent.OS", "Linux"),
            ("stove", "1"),
        ];
        let capabilities: Capabilities = capabilities
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        for (demand, expected) in [
            ("stove", true),
            ("STOVE", true),
            ("kettle", false),
            ("Agent.OS -equals linux", true),
            ("Agent.OS -equals Windows_NT", false),
            ("Agent.Version -gtVersion 2.182.1", true),
            ("Agent.Version -gtVersion 4.275.0", true),
            ("Agent.Version -gtVersion 4.1000.0", false),
            ("Agent.OS -like Linux", false),
        ] {
            assert_eq!(met(demand, &capabilities), expected, "{demand}");
        }
    }
}
