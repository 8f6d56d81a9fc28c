//! What a project forbids. An administrator restricts those that others may use, such as the ones
//! behind Incus's socket for users.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Project;
use super::error::IncusError;
use super::transport::{Ask, path};

/// A project's restrictions. Without `restricted` there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Restrictions {
    config: BTreeMap<String, String>,
}

impl Restrictions {
    /// Makes them from the project's configuration.
    pub fn new<const N: usize>(config: [(&str, &str); N]) -> Self {
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            config: config.into(),
        }
    }

    /// Returns whether the project forbids what only `key: allow` would allow.
    pub fn forbid(&self, key: &str) -> bool {
        let is = |key: &str, value: &str| self.config.get(key).is_some_and(|v| v == value);
        is("restricted", "true") && !is(key, "allow")
    }
}

impl Project {
    /// Asks what it forbids.
    pub async fn restrictions(&self) -> Result<Restrictions, IncusError> {
        let path = path(&["projects", self.name()], &[]);
        self.transport().sync(Ask::get("project_get", path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_project_forbids_what_it_does_not_allow() {
        let nesting = "restricted.containers.nesting";
        assert!(!Restrictions::default().forbid(nesting));
        assert!(!Restrictions::new([("restricted", "false"), (nesting, "block")]).forbid(nesting));
        assert!(Restrictions::new([("restricted", "true")]).forbid(nesting));
        assert!(!Restrictions::new([("restricted", "true"), (nesting, "allow")]).forbid(nesting));
    }
}
