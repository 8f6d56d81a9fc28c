//! The files an agent starts from, as the agent's own `config.sh` writes them on Linux: nothing in
//! them is encrypted or bound to a machine, a user or a path.

use std::fmt::{Debug, Formatter};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use url::Url;

use super::key::AgentKey;
use crate::azure::CreatedAgent;

/// Only the agent's user has business in them.
const MODE: u32 = 0o600;

/// Why an agent's files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A URL, configured or Azure's, is none.
    #[error("cannot make the agent's files: {what} {url:?} is not a URL")]
    Url {
        /// Which one.
        what: &'static str,
        /// The text.
        url: String,
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// The host of one URL cannot be put into another.
    #[error("cannot make the agent's files: {url:?} cannot be moved to the configured host")]
    Host {
        /// The URL to be moved.
        url: String,
    },
}

/// A file for the agent's directory.
#[derive(Clone, PartialEq, Eq)]
pub struct BundleFile {
    /// Its name there.
    pub name: &'static str,
    /// Its content, which may be a private key.
    pub content: Vec<u8>,
    /// Its mode bits.
    pub mode: u32,
}

impl Debug for BundleFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleFile")
            .field("name", &self.name)
            .field("mode", &format_args!("{:o}", self.mode))
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings<'a> {
    accept_tee_eula: bool,
    agent_id: i64,
    agent_name: &'a str,
    pool_id: i32,
    pool_name: &'a str,
    server_url: String,
    work_folder: &'static str,
}

#[derive(Serialize)]
struct Credentials<'a> {
    scheme: &'static str,
    data: OAuth<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OAuth<'a> {
    client_id: &'a str,
    authorization_url: &'a str,
    oauth_endpoint_url: String,
}

/// The agent's reader tells these names apart by case: `D` is not `d`.
#[derive(Serialize)]
struct RsaParameters {
    #[serde(rename = "ContainerName")]
    container_name: &'static str,
    #[serde(rename = "UseCng")]
    use_cng: bool,
    d: String,
    dp: String,
    dq: String,
    exponent: String,
    #[serde(rename = "inverseQ")]
    inverse_q: String,
    modulus: String,
    p: String,
    q: String,
}

/// Makes the files of an agent that Azure has registered with `key`.
///
/// `configured_url` is the organisation's or collection's URL as it is used here; `hosted` is
/// whether Microsoft runs it.
pub fn bundle(
    key: &AgentKey,
    agent: &CreatedAgent,
    pool_id: i32,
    pool_name: &str,
    configured_url: &str,
    hosted: bool,
) -> Result<Vec<BundleFile>, BundleError> {
    let configured = parse("the configured URL", configured_url)?;
    let settings = Settings {
        accept_tee_eula: true,
        agent_id: agent.id,
        agent_name: &agent.name,
        pool_id,
        pool_name,
        server_url: match agent.server_url.as_deref() {
            Some(url) => at_configured_host("the server's URL", url, &configured)?,
            None => configured_url.to_owned(),
        },
        work_folder: "_work",
    };
    // The assertion's audience stays what Azure said. A server of one's own may call itself
    // something that only resolves elsewhere, so tokens are fetched where we reached it.
    let authorization_url = &agent.authorization_url;
    let oauth_endpoint_url = if hosted {
        authorization_url.clone()
    } else {
        at_configured_host("the token URL", authorization_url, &configured)?
    };
    let credentials = Credentials {
        scheme: "OAuth",
        data: OAuth {
            client_id: &agent.client_id,
            authorization_url,
            oauth_endpoint_url,
        },
    };
    Ok(vec![
        file(".agent", &settings),
        file(".credentials", &credentials),
        file(".credentials_rsaparams", &parameters(key)),
    ])
}

fn parameters(key: &AgentKey) -> RsaParameters {
    let text = |part: &[u8]| BASE64_STANDARD.encode(part);
    RsaParameters {
        container_name: "",
        use_cng: false,
        d: text(&key.d),
        dp: text(&key.dp),
        dq: text(&key.dq),
        exponent: text(&key.exponent),
        inverse_q: text(&key.inverse_q),
        modulus: text(&key.modulus),
        p: text(&key.p),
        q: text(&key.q),
    }
}

fn file(name: &'static str, content: &impl Serialize) -> BundleFile {
    let mut content = serde_json::to_vec_pretty(content).expect("strings and numbers with names");
    content.push(b'\n');
    BundleFile {
        name,
        content,
        mode: MODE,
    }
}

/// Returns `url` as it is, or, when it points elsewhere, with the scheme, host and port that are
/// known to work from here.
fn at_configured_host(
    what: &'static str,
    url: &str,
    configured: &Url,
) -> Result<String, BundleError> {
    let mut moved = parse(what, url)?;
    if moved.origin() == configured.origin() {
        return Ok(url.to_owned());
    }
    let stuck = || BundleError::Host {
        url: url.to_owned(),
    };
    moved
        .set_scheme(configured.scheme())
        .map_err(|()| stuck())?;
    moved.set_host(configured.host_str()).map_err(|_| stuck())?;
    moved.set_port(configured.port()).map_err(|()| stuck())?;
    Ok(moved.into())
}

fn parse(what: &'static str, url: &str) -> Result<Url, BundleError> {
    Url::parse(url).map_err(|source| BundleError::Url {
        what,
        url: url.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
