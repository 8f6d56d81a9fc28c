//! Names of agents: `<pool>-<prefix>-<id>`, one and the same for the Incus instance and the Azure
//! agent.

/// Incus's limit, from host names (RFC 1123).
const MAX_NAME: usize = 63;

/// Letters and digits that make a name unique.
const ID_LEN: usize = 5;

/// The longest pool name that leaves a few letters for the prefix.
pub const MAX_POOL_NAME: usize = 48;

/// Returns what the names of a pool's agents begin with, `<pool>-<prefix>`, without the last dash.
///
/// Instances are named by ASCII letters, digits and dashes: everything else becomes a dash, and
/// the prefix is cut so that the whole name fits. A name that has to begin with a letter and does
/// not gets one.
pub fn agent_name_stem(pool: &str, prefix: &str) -> String {
    let longest = MAX_NAME - ID_LEN - 1;
    let mut stem = format!("{}-{}", mapped(pool), mapped(prefix));
    if !stem.starts_with(|c: char| c.is_ascii_alphabetic()) {
        stem.insert(0, 'p');
    }
    stem.truncate(longest);
    stem.truncate(stem.trim_end_matches('-').len());
    stem
}

fn mapped(text: &str) -> String {
    let map = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mapped: String = text.chars().map(map).collect();
    mapped.trim_matches('-').to_owned()
}

/// Returns a name for a new agent: the stem and a random id, first a letter.
pub fn new_agent_name(stem: &str, rng: &mut fastrand::Rng) -> String {
    const LETTERS_AND_DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut name = format!("{stem}-");
    for place in 0..ID_LEN {
        let choice = if place == 0 {
            26
        } else {
            LETTERS_AND_DIGITS.len()
        };
        name.push(char::from(LETTERS_AND_DIGITS[rng.usize(..choice)]));
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stems_hold_only_what_incus_takes() {
        for (pool, prefix, stem) in [
            ("linux", "build1", "linux-build1"),
            (
                "myAgentPool",
                "host.example.com",
                "myAgentPool-host-example-com",
            ),
            ("linux", "_a b_", "linux-a-b"),
            ("linux", "", "linux"),
            ("linux", "büro", "linux-b-ro"),
            ("9to5", "h", "p9to5-h"),
            ("---", "---", "p"),
        ] {
            assert_eq!(agent_name_stem(pool, prefix), stem);
        }
    }

    #[test]
    fn a_long_prefix_is_cut_and_leaves_no_dash_at_the_end() {
        let stem = agent_name_stem("pool", &"x".repeat(100));
        assert_eq!(stem.len(), 57);
        let stem = agent_name_stem("pool", &format!("{}-rest", "x".repeat(51)));
        assert_eq!(stem, format!("pool-{}", "x".repeat(51)));
    }

    proptest! {
        #[test]
        fn names_are_valid_instance_names(pool in "\\PC{0,80}", prefix in "\\PC{0,80}", seed: u64) {
            let stem = agent_name_stem(&pool, &prefix);
            let name = new_agent_name(&stem, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(name.len() <= 63);
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
            prop_assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()));
            let (before, id) = name.rsplit_once('-').unwrap();
            prop_assert_eq!(before, stem);
            prop_assert_eq!(id.len(), 5);
            prop_assert!(id.starts_with(|c: char| c.is_ascii_lowercase()));
        }
    }
}
