//! What a credential can and cannot do.

use iap_common::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::status::credential_kind;
use super::{Column, Row, column, filled, or_nothing, plain, word};

#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct Ability {
    url: String,
    credential_kind: Option<String>,
    credential_source: Option<String>,
    pools: Vec<String>,
    azure_pool: Option<String>,
    ability: String,
    verdict: String,
    detail: Option<String>,
    fix: Option<String>,
}

impl Ability {
    pub(crate) fn is_missing(&self) -> bool {
        self.verdict == "no"
    }

    /// Returns what to do, if anything: too long for a cell.
    pub(crate) fn fix(&self) -> Option<String> {
        let fix = plain(self.fix.as_deref()?);
        let pools = self.pools.join(", ");
        Some(format!("to {} (for {pools}): {fix}", self.ability))
    }
}

impl From<v1::AuthAbility> for Ability {
    fn from(ability: v1::AuthAbility) -> Self {
        Self {
            credential_kind: credential_kind(ability.credential_kind()),
            verdict: word(ability.verdict().as_str_name(), "AUTH_VERDICT_"),
            url: ability.url,
            credential_source: filled(ability.credential_source),
            pools: ability.pools,
            azure_pool: filled(ability.azure_pool),
            ability: ability.ability,
            detail: filled(ability.detail),
            fix: filled(ability.fix),
        }
    }
}

impl Row for Ability {
    const PLURAL: &'static str = "abilities";
    const SINGULAR: &'static str = "ability";

    fn columns(wide: bool) -> Vec<Column> {
        let heads: &[&str] = if wide {
            &[
                "AZURE",
                "POOLS",
                "CREDENTIAL",
                "AZURE-POOL",
                "ABILITY",
                "VERDICT",
                "DETAIL",
            ]
        } else {
            &[
                "AZURE",
                "POOLS",
                "AZURE-POOL",
                "ABILITY",
                "VERDICT",
                "DETAIL",
            ]
        };
        heads.iter().copied().map(column).collect()
    }

    fn cells(&self, wide: bool, _now: Timestamp) -> Vec<String> {
        let text = |text: &Option<String>| or_nothing(text.as_deref().map(plain).as_deref());
        // Colour is never the only signal, and capitals are seen without it.
        let verdict = if self.is_missing() {
            "NO".to_owned()
        } else {
            self.verdict.clone()
        };
        let mut cells = vec![plain(&self.url), self.pools.join(", ")];
        if wide {
            cells.push(text(&self.credential_source));
        }
        cells.extend([
            text(&self.azure_pool),
            self.ability.clone(),
            verdict,
            text(&self.detail),
        ]);
        cells
    }

    fn name(&self) -> &str {
        &self.ability
    }
}
