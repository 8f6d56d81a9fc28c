//! A token, ready for the wire, that never prints.

use std::fmt::{Debug, Formatter};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;

/// See the module.
pub(in crate::azure) struct Token {
    header: HeaderValue,
    /// Every spelling under which the token could come back to us.
    spellings: Vec<String>,
    is_principals: bool,
}

impl Token {
    /// Takes a personal access token.
    pub(in crate::azure) fn of_pat(pat: &str) -> Result<Self, &'static str> {
        let pat = checked(pat)?;
        // Azure ignores the user name. The header is sent unasked: the answer to a first request
        // without it may be a sign-in page instead of a challenge.
        let encoded = BASE64_STANDARD.encode(format!(":{pat}"));
        Ok(Self {
            header: header(&format!("Basic {encoded}"))?,
            spellings: vec![pat.to_owned(), encoded],
            is_principals: false,
        })
    }

    /// Takes an access token of Entra ID.
    pub(super) fn of_bearer(token: &str) -> Result<Self, &'static str> {
        let token = checked(token)?;
        Ok(Self {
            header: header(&format!("Bearer {token}"))?,
            spellings: vec![token.to_owned()],
            is_principals: true,
        })
    }

    /// Returns the value of the `Authorization` header.
    pub(in crate::azure) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Returns whether it speaks for a principal of Entra ID, and is no personal access token.
    pub(in crate::azure) fn is_principals(&self) -> bool {
        self.is_principals
    }

    /// Returns whether both are sent as the same text.
    pub(in crate::azure) fn is_same(&self, other: &Self) -> bool {
        self.header == other.header
    }

    /// Returns `text` without the token, should a server or proxy have quoted it.
    pub(in crate::azure) fn mask(&self, text: &str) -> String {
        mask(text, &self.spellings)
    }
}

impl Debug for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Returns `text` without `secrets`.
pub(super) fn mask(text: &str, secrets: &[String]) -> String {
    secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Returns a token, secret or assertion without the blanks around it.
pub(super) fn checked(token: &str) -> Result<&str, &'static str> {
    let token = token.trim();
    if token.is_empty() {
        return Err("the token is empty");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has white space or other odd characters in it");
    }
    Ok(token)
}

fn header(text: &str) -> Result<HeaderValue, &'static str> {
    let mut header =
        HeaderValue::try_from(text).map_err(|_| "the token does not fit into a header")?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAT: &str = "s3cretpatvalue0123456789";

    #[test]
    fn header_is_basic_with_an_empty_user_and_never_printed() {
        let token = Token::of_pat(" \tabc\n").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Basic OmFiYw==");
        assert_eq!(format!("{:?}", token.header()), "Sensitive");
        assert_eq!(format!("{token:?}"), "***");
    }

    #[test]
    fn a_token_of_entra_id_is_a_bearers() {
        let token = Token::of_bearer("abc\n").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Bearer abc");
        assert_eq!(format!("{:?}{token:?}", token.header()), "Sensitive***");
        assert_eq!(token.mask("an abc quoted"), "an *** quoted");
    }

    #[test]
    fn a_token_quoted_by_the_server_is_masked() {
        let token = Token::of_pat(PAT).unwrap();
        let quoted = format!("bad {PAT} in {}", token.header().to_str().unwrap());
        assert_eq!(token.mask(&quoted), "bad *** in Basic ***");
    }
}
