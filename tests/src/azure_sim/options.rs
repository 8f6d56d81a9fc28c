//! What a simulator is started with, and one switch for each behaviour of the service that is inferred, not known.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::clock::Timings;

/// The organisation that exists unless others are named.
pub const DEFAULT_ORG: &str = "sim-org";

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// A unix socket to listen on at the same time, mode 0666.
    pub unix_socket: Option<PathBuf>,
    /// Base paths of the organisations or collections, without slashes at the ends (`sim-org`, `tfs/DefaultCollection`).
    pub orgs: Vec<String>,
    /// What `deploymentType` says.
    pub deployment: Deployment,
    /// The scheme, host and port that answers name; the listening address if absent.
    pub public_url: Option<String>,
    /// Where the token endpoint is served, and then there only, so that guessing it fails.
    pub token_listen: Option<SocketAddr>,
    /// The scheme, host and port of the token endpoint; where it listens if absent.
    pub token_url: Option<String>,
    /// How long things take.
    pub timings: Timings,
    /// Which inferred behaviours apply.
    pub switches: Switches,
    /// Seeds the choices among candidates, ids and keys.
    pub seed: Option<u64>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            unix_socket: None,
            orgs: vec![DEFAULT_ORG.to_owned()],
            deployment: Deployment::Hosted,
            public_url: None,
            token_listen: None,
            token_url: None,
            timings: Timings::default(),
            switches: Switches::default(),
            seed: None,
        }
    }
}

/// Whose premises the service stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Deployment {
    /// Azure DevOps Services.
    Hosted,
    /// Azure DevOps Server.
    OnPremises,
}

/// What a personal access token meets with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PatMode {
    /// It is looked at as usual.
    #[default]
    Valid,
    /// 401.
    Unauthorized,
    /// 203 with the HTML sign-in page, as the hosted service answers an expired token.
    SignInPage,
    /// 302 to the sign-in page.
    SignInRedirect,
}

/// How the response to a registration carries `properties.ServerUrl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerUrlForm {
    /// As `{"$type", "$value"}`.
    #[default]
    Typed,
    /// As a string.
    Plain,
    /// Not at all.
    Absent,
}

/// Inferred behaviours; the defaults are what is believed of the real service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Switches {
    /// What an unknown or lapsed personal access token meets with (`Valid` means 401).
    pub bad_pat: PatMode,
    /// The endpoint that `authorizationUrl` names takes any audience.
    pub any_audience: bool,
    /// An assertion may be used twice.
    pub assertion_reuse: bool,
    /// Tokens of a deleted agent get 401 instead of the agent-not-found error.
    pub deleted_agent_is_unauthorized: bool,
    /// Pools and agents want 5.1 or newer; sessions, messages and job requests a preview version.
    pub strict_api_version: bool,
    /// `authorization` also comes with GET.
    pub authorization_in_get: bool,
    /// `authorization` never comes.
    pub no_authorization: bool,
    /// How `properties.ServerUrl` comes.
    pub server_url: ServerUrlForm,
    /// Replacing an agent gives it a new client id.
    pub replace_renews_client_id: bool,
    /// Deleting an agent answers 200 instead of 204.
    pub delete_answers_200: bool,
    /// A poll without a message answers 204 instead of 202.
    pub empty_poll_answers_204: bool,
    /// A job counts as received when its message is deleted, not when it is delivered.
    pub received_at_message_delete: bool,
    /// Renewing what is finished says "token expired" instead of "job not found".
    pub finished_is_token_expired: bool,
    /// Job requests asked for with `$top` come as a bare array.
    pub top_is_bare_array: bool,
    /// Absent members are written as null.
    pub absent_as_null: bool,
    /// Jobs are queued even when no registered agent matches.
    pub no_queue_check: bool,
    /// Disabled agents count in the check at queue time.
    pub disabled_agents_match: bool,
    /// A waiting job fails when the last matching agent is deleted.
    pub recheck_waiting_jobs: bool,
}
