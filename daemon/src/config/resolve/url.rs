//! URLs in the file: an organisation's, and Entra ID's.

use url::{Host, Url};

use crate::config::problem::Report;

use super::{required, text};

/// Returns the URL of an organisation or collection.
pub(super) fn organisation(value: Option<String>, key: &str, report: &mut Report<'_>) -> String {
    let value = required(key, value, report);
    if value.is_empty() {
        return value;
    }
    match check_organisation(&value) {
        Err(message) => report.error(key, message),
        Ok(warnings) => warnings
            .into_iter()
            .for_each(|warning| report.warning(key, warning)),
    }
    trimmed(&value)
}

/// Returns an address of a remote Incus.
pub(super) fn server(value: &str, key: &str, report: &mut Report<'_>) -> String {
    const EXAMPLE: &str = "must be a URL such as `https://incus.example.com:8443`";
    match parse(value, EXAMPLE) {
        Err(TOKEN) => report.error(key, "must not hold a user name or a secret"),
        Err(message) => report.error(key, message),
        Ok(url) if url.scheme() != "https" => {
            report.error(key, "must begin with https: Incus speaks TLS only");
        }
        Ok(url) if url.path() != "/" => {
            report.error(key, "must end with the host or the port");
        }
        Ok(_) => {}
    }
    trimmed(value)
}

/// Returns where Entra ID is.
pub(super) fn authority(
    value: Option<String>,
    key: &str,
    default: &str,
    report: &mut Report<'_>,
) -> String {
    let Some(value) = text(key, value, report) else {
        return default.to_owned();
    };
    const EXAMPLE: &str = "must be a URL such as `https://login.microsoftonline.com`";
    match parse(&value, EXAMPLE) {
        Err(TOKEN) => report.error(key, "must not hold a user name or a secret"),
        Err(message) => report.error(key, message),
        Ok(url) if is_open(&url) => {
            report.warning(
                key,
                "is plain http: the secret crosses the network readable",
            );
        }
        Ok(_) => {}
    }
    trimmed(&value)
}

fn trimmed(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}

fn check_organisation(text: &str) -> Result<Vec<&'static str>, &'static str> {
    const EXAMPLE: &str =
        "must be an http or https URL such as `https://dev.azure.com/myorganization`";
    let url = parse(text, EXAMPLE)?;
    if url.host() == Some(Host::Domain("dev.azure.com")) && url.path().trim_matches('/').is_empty()
    {
        return Err("names no organisation: `https://dev.azure.com/myorganization`");
    }
    let mut warnings = Vec::new();
    if text.contains('<') {
        warnings.push("still has a placeholder in it");
    }
    if is_open(&url) {
        warnings.push("is plain http: the token crosses the network readable");
    }
    Ok(warnings)
}

const TOKEN: &str = "must not hold a user name or a token; those go to `pat` or `patFile`";

/// Messages never show the URL: what is wrong with it may be that it holds a token.
fn parse(text: &str, example: &'static str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim()).map_err(|_| example)?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(example);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TOKEN);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a `?` or `#` part");
    }
    Ok(url)
}

/// Returns whether others can read along.
fn is_open(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_loopback
}
