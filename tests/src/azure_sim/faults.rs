//! What goes wrong on request: rules that answer, delay or cut off matching requests, and gates that hold them.
//!
//! The first rule that matches wins. A gate is looked at after the rules: a held request goes on when it is released
//! even if its client has left, as a request does that was still on its way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod gate;

pub(super) use self::gate::GateShared;
pub use self::gate::{Gate, HoldAt};
use super::{auth::CredentialKind, entra::EntraMode, options::PatMode, state::State};

/// Which requests are meant; an absent part matches everything, `*` in a pattern any run of characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Matching {
    /// The HTTP method.
    pub method: Option<String>,
    /// A pattern for the whole path, organisation included (`*/agents`, `*/agents/*`).
    pub path: Option<String>,
    /// A pattern for the name of the agent the request is from or about.
    pub agent: Option<String>,
    /// The sort of credential.
    pub credential: Option<CredentialKind>,
}

impl Matching {
    /// Returns the requests with this method and path pattern.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: Some(method.to_owned()),
            path: Some(path.to_owned()),
            ..Self::default()
        }
    }

    /// Narrows to requests from or about agents with such a name.
    #[must_use]
    pub fn agent(self, pattern: &str) -> Self {
        Self {
            agent: Some(pattern.to_owned()),
            ..self
        }
    }

    fn covers(&self, request: &Subject<'_>) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern.as_deref().is_none_or(|pattern| glob(pattern, text))
        };
        self.method
            .as_deref()
            .is_none_or(|method| method.eq_ignore_ascii_case(request.method))
            && fits(&self.path, request.path)
            && fits(&self.agent, request.agent.unwrap_or_default())
            && self
                .credential
                .is_none_or(|kind| kind == request.credential)
    }
}

/// What is known of a request when rules are looked at.
#[derive(Debug)]
pub(super) struct Subject<'r> {
    pub(super) method: &'r str,
    pub(super) path: &'r str,
    pub(super) agent: Option<&'r str>,
    pub(super) credential: CredentialKind,
}

/// A fault and when it strikes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// Which requests it strikes.
    #[serde(default, rename = "match")]
    pub matching: Matching,
    /// How many requests it strikes; all if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many matching requests it spares first.
    #[serde(default)]
    pub skip: u32,
    /// How likely it strikes, from 0 to 1; always if absent.
    #[serde(default)]
    pub probability: Option<f64>,
    /// How long it waits before its first strike, by the virtual clock.
    #[serde(default)]
    pub after_ms: u64,
    /// What it does.
    pub action: FaultAction,
}

impl FaultRule {
    /// Returns a rule that strikes every matching request.
    pub fn new(matching: Matching, action: FaultAction) -> Self {
        Self {
            matching,
            times: None,
            skip: 0,
            probability: None,
            after_ms: 0,
            action,
        }
    }

    /// Limits the number of strikes.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum FaultAction {
    /// Answers instead of the service.
    Reply {
        /// The status code.
        status: u16,
        /// More headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The service's error with this `typeKey` as the body.
        #[serde(default)]
        type_key: Option<String>,
        /// The body if there is no `typeKey`: a string as it is, anything else as JSON.
        #[serde(default)]
        body: Option<Value>,
    },
    /// Waits first, in real milliseconds.
    Delay {
        /// How long.
        ms: u64,
    },
    /// Never answers.
    Hang,
    /// Hangs up without having done anything.
    CloseBefore,
    /// Hangs up after having done everything.
    CloseAfter,
    /// Does everything, and hangs up in the middle of the answer's body.
    Truncate,
    /// Answers 203 with the HTML sign-in page.
    SignInPage,
    /// Calls the answer plain text.
    WrongContentType,
    /// Breaks the answer's JSON.
    InvalidJson,
    /// Adds headers to the answer.
    AddHeaders {
        /// Names and values.
        headers: BTreeMap<String, String>,
    },
}

impl FaultAction {
    /// Returns an answer with this status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Reply {
            status,
            headers: BTreeMap::new(),
            type_key: None,
            body: None,
        }
    }

    /// Returns an answer with one of the service's errors.
    pub fn error(status: u16, type_key: &str) -> Self {
        let type_key = Some(type_key.to_owned());
        Self::Reply {
            status,
            headers: BTreeMap::new(),
            type_key,
            body: None,
        }
    }

    /// Returns a 429 that asks to wait.
    pub fn too_many_requests(retry_after: u32) -> Self {
        let headers = [
            ("Retry-After", retry_after.to_string()),
            ("X-RateLimit-Resource", "Core".to_owned()),
            ("X-RateLimit-Limit", "200".to_owned()),
            ("X-RateLimit-Remaining", "0".to_owned()),
            ("X-RateLimit-Delay", format!("{retry_after}.0")),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        Self::Reply {
            status: 429,
            headers: headers.into(),
            type_key: None,
            body: None,
        }
    }
}

/// All rules and gates.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Active>,
    gates: Vec<Arc<GateShared>>,
    gates_made: u64,
}

#[derive(Debug)]
struct Active {
    rule: FaultRule,
    since: Timestamp,
    seen: u32,
    struck: u32,
}

impl State {
    pub(super) fn add_fault(&mut self, rule: FaultRule, now: Timestamp) {
        self.faults.rules.push(Active {
            rule,
            since: now,
            seen: 0,
            struck: 0,
        });
    }

    /// Puts everything right again that was ordered to go wrong, the modes of credentials and clocks included.
    pub(super) fn clear_faults(&mut self) {
        self.credentials.pat_mode = PatMode::Valid;
        self.credentials.skew = 0;
        self.entra.mode = EntraMode::Valid;
        self.ambushes.clear();
        self.duplicate_deliveries = 0;
        self.faults.rules.clear();
        for gate in self.faults.gates.drain(..) {
            gate.release();
        }
    }

    /// Returns the rules with the number of their strikes.
    pub(super) fn fault_rules(&self) -> Vec<(FaultRule, u32)> {
        self.faults
            .rules
            .iter()
            .map(|active| (active.rule.clone(), active.struck))
            .collect()
    }

    pub(super) fn add_gate(&mut self, matching: Matching, at: HoldAt) -> Arc<GateShared> {
        self.faults.gates_made += 1;
        let gate = Arc::new(GateShared::new(self.faults.gates_made, matching, at));
        self.faults.gates.push(Arc::clone(&gate));
        gate
    }

    /// Returns a gate by its number.
    pub(super) fn gate(&self, id: u64) -> Option<Arc<GateShared>> {
        self.faults
            .gates
            .iter()
            .find(|gate| gate.id == id)
            .map(Arc::clone)
    }

    /// Picks the fault that strikes a request and counts it.
    pub(super) fn strike(&mut self, request: &Subject<'_>, now: Timestamp) -> Option<FaultAction> {
        for active in &mut self.faults.rules {
            let rule = &active.rule;
            let spent = rule.times.is_some_and(|times| active.struck >= times);
            let due = now >= active.since + Duration::from_millis(rule.after_ms);
            if spent || !due || !rule.matching.covers(request) {
                continue;
            }
            active.seen += 1;
            let spared = active.seen <= rule.skip;
            if spared
                || rule
                    .probability
                    .is_some_and(|chance| self.random.f64() >= chance)
            {
                continue;
            }
            active.struck += 1;
            return Some(rule.action.clone());
        }
        None
    }

    /// Returns the closed gates a request has to pass.
    pub(super) fn gates_for(&mut self, request: &Subject<'_>) -> Vec<Arc<GateShared>> {
        self.faults.gates.retain(|gate| !gate.is_open());
        let gates = self
            .faults
            .gates
            .iter()
            .filter(|gate| gate.matching.covers(request));
        gates.map(Arc::clone).collect()
    }
}

/// Tells whether a text fits a pattern in which `*` stands for any run of characters; letter case does not count.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{FaultAction, FaultRule, Matching, Subject, glob};
    use crate::azure_sim::{CredentialKind, clock::wall, testing};

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*/agents", "/o/_apis/pools/1/agents", true),
            ("*/agents", "/o/_apis/pools/1/agents/4", false),
            ("*/agents/*", "/o/_apis/pools/1/agents/4", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
            ("abc", "ABC", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_spares_strikes_and_is_spent() {
        let (mut state, _) = testing::state();
        let matching = Matching::new("GET", "*/agents");
        let mut rule = FaultRule::new(matching, FaultAction::status(500)).times(2);
        rule.skip = 1;
        state.add_fault(rule, wall());
        let request = Subject {
            method: "GET",
            path: "/sim-org/_apis/distributedtask/pools/11/agents",
            agent: None,
            credential: CredentialKind::Pat,
        };
        let struck: Vec<bool> = (0..4)
            .map(|_| state.strike(&request, wall()).is_some())
            .collect();
        assert_eq!(struck, [false, true, true, false]);
    }

    #[test]
    fn rules_read_the_json_of_the_admin_interface() {
        let rule: FaultRule = serde_json::from_str(
            r#"{"match": {"method": "GET", "credential": "pat"}, "times": 1,
                "action": {"kind": "reply", "status": 429, "headers": {"Retry-After": "7"}}}"#,
        )
        .unwrap();
        assert_eq!(rule.matching.credential, Some(CredentialKind::Pat));
        assert!(matches!(
            rule.action,
            FaultAction::Reply { status: 429, .. }
        ));
    }
}
