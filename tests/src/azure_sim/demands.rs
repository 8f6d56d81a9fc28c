//! The grammar of demands and how versions compare.

use std::collections::BTreeMap;

/// Capabilities by name.
pub(super) type Capabilities = BTreeMap<String, String>;

/// Tells whether capabilities meet a demand: `Name`, `Name -equals Value` or `Name -gtVersion 2.1.0`.
///
/// Of those that differ in letter case only, the first counts.
pub(super) fn met(demand: &str, capabilities: [&Capabilities; 2]) -> bool {
    let mut words = demand.trim().splitn(3, ' ');
    let name = words.next().unwrap_or_default();
    let held = capabilities
        .into_iter()
        .flatten()
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
    let parts = text.trim().split('.');
    let mut numbers: Vec<u64> = parts.map(|part| part.parse().unwrap_or(0)).collect();
    // 4.275 is no older than 4.275.0.
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
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
        let none = Capabilities::new();
        for (demand, expected) in [
            ("stove", true),
            ("STOVE", true),
            ("kettle", false),
            ("Agent.OS -equals linux", true),
            ("Agent.OS -equals Windows_NT", false),
            ("Agent.Version -gtVersion 2.182.1", true),
            ("Agent.Version -gtVersion 4.275.0", true),
            ("Agent.Version -gtVersion 4.275", true),
            ("Agent.Version -gtVersion 4.275.0.0", true),
            ("Agent.Version -gtVersion 4.275.0.1", false),
            ("Agent.Version -gtVersion 4.1000.0", false),
            ("Agent.OS -like Linux", false),
        ] {
            assert_eq!(met(demand, [&none, &capabilities]), expected, "{demand}");
        }
    }

    #[test]
    fn the_first_capability_counts_whatever_its_letter_case() {
        let one =
            |name: &str, value: &str| Capabilities::from([(name.to_owned(), value.to_owned())]);
        let (user, system) = (one("tier", "user"), one("Tier", "system"));
        assert!(met("TIER -equals user", [&user, &system]));
        assert!(!met("TIER -equals system", [&user, &system]));
    }
}
