//! Becoming a client that a server trusts: our key and certificate, and the tokens by which a
//! server's operator lets a client add itself once (`incus config trust add NAME`).

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::tls;
use super::transport::{Remote, RemoteError, Stream};

/// For each address of a token.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_CAP: usize = 64 * 1024;

/// Why a server does not trust us yet.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The key could not be made.
    #[error("cannot make a key and a certificate")]
    Key(#[source] rcgen::Error),
    /// The text is no token.
    #[error("this is no token of `incus config trust add NAME`")]
    Token,
    /// The key, the certificate or the token's addresses are of no use.
    #[error("cannot connect with this key and token")]
    Remote(#[source] RemoteError),
    /// None of the server's addresses led to it.
    #[error("cannot reach the server that gave the token: {0}")]
    Unreachable(String),
    /// The server does not take the token.
    #[error("the server at {at} refused the token: {message}")]
    Refused {
        /// The address.
        at: String,
        /// Its words.
        message: String,
    },
}

/// A key and the certificate that a server knows it by, in PEM.
pub struct ClientKey {
    /// What the server is told.
    pub certificate: String,
    /// What it is not.
    pub key: String,
}

impl ClientKey {
    /// Makes a key and a certificate that it signs itself.
    pub fn generate(name: &str) -> Result<Self, TrustError> {
        let make = || {
            // The kind that Incus's own client makes.
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::CommonName, format!("iapd@{name}"));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            Ok((params.self_signed(&key)?, key))
        };
        let (certificate, key) = make().map_err(TrustError::Key)?;
        Ok(Self {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        })
    }
}

/// Returns what the server calls a certificate by; `None` when the text holds none.
pub fn fingerprint(certificate: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    Some(tls::fingerprint(&certificate))
}

/// What a server's operator hands to a client.
#[derive(Debug, Clone)]
pub struct Token {
    text: String,
    /// SHA-256 of the server's certificate.
    pub fingerprint: String,
    /// Where the server is.
    pub urls: Vec<String>,
}

impl Token {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        #[derive(Deserialize)]
        struct Content {
            fingerprint: String,
            addresses: Vec<String>,
        }
        let text: String = text.split_whitespace().collect();
        let bytes = BASE64_STANDARD.decode(&text);
        let bytes = bytes.map_err(|_| TrustError::Token)?;
        let content: Content = serde_json::from_slice(&bytes).map_err(|_| TrustError::Token)?;
        if content.fingerprint.len() != 64 || content.addresses.is_empty() {
            return Err(TrustError::Token);
        }
        Ok(Self {
            text,
            fingerprint: content.fingerprint.to_lowercase(),
            urls: content
                .addresses
                .iter()
                .map(|address| format!("https://{address}"))
                .collect(),
        })
    }

    /// Makes the server trust a client, at the first address that leads to it: only to the server
    /// that the token is of. Returns that address and the server's certificate in PEM.
    pub async fn redeem(&self, client: &ClientKey) -> Result<(String, String), TrustError> {
        let (certificate, key) = (client.certificate.as_bytes(), client.key.as_bytes());
        let remote = Remote::pinned(&self.urls, certificate, key, self.fingerprint.clone())
            .map_err(TrustError::Remote)?;
        let mut said = Vec::new();
        for (number, url) in self.urls.iter().enumerate() {
            let (stream, server) = match timeout(PATIENCE, remote.connect(number)).await {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) => {
                    said.push(format!("{url}: {error}"));
                    continue;
                }
                Err(_) => {
                    said.push(format!("{url}: no answer within {PATIENCE:?}"));
                    continue;
                }
            };
            let refused = |message| TrustError::Refused {
                at: url.clone(),
                message,
            };
            match timeout(PATIENCE, self.ask(stream)).await {
                Ok(Ok(())) => return Ok((url.clone(), pem("CERTIFICATE", &server))),
                Ok(Err(message)) => return Err(refused(message)),
                Err(_) => return Err(refused(format!("no answer within {PATIENCE:?}"))),
            }
        }
        Err(TrustError::Unreachable(said.join("; ")))
    }

    async fn ask(&self, stream: Stream) -> Result<(), String> {
        let plain = |error: hyper::Error| iap_common::error::chain(&error).to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(plain)?;
        let body = json!({"type": "client", "trust_token": self.text}).to_string();
        let request = Request::post("/1.0/certificates")
            .header("host", "incus")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(plain)?;
            let status = response.status();
            let body = http_body_util::Limited::new(response.into_body(), ANSWER_CAP);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            if status.is_success() {
                return Ok(());
            }
            let body: serde_json::Value =
                serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            let words = body["error"].as_str().unwrap_or_default();
            Err(format!("{words} (status {})", status.as_u16()))
        };
        tokio::select! {
            answer = answer => answer,
            // It ends after the answer only, which is then looked at first.
            Err(error) = connection => Err(plain(error)),
        }
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let text = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_can_be_connected_with() {
        let client = ClientKey::generate("build1").unwrap();
        let (certificate, key) = (client.certificate.as_bytes(), client.key.as_bytes());
        let urls = ["https://127.0.0.1:8443".to_owned()];
        // Any certificate will do as the server's.
        Remote::new(&urls, certificate, key, certificate).unwrap();
        assert_eq!(fingerprint(&client.certificate).unwrap().len(), 64);
        let other = ClientKey::generate("build1").unwrap();
        assert!(matches!(
            Remote::new(&urls, certificate, other.key.as_bytes(), certificate),
            Err(RemoteError::Key(_))
        ));
    }

    #[test]
    fn tokens_tell_where_and_who_the_server_is() {
        let fingerprint = "ab".repeat(32);
        let text = json!({
            "client_name": "iapd", "fingerprint": fingerprint, "secret": "s",
            "addresses": ["10.0.0.1:8443", "[fd00::1]:8443"], "expires_at": "0001-01-01T00:00:00Z",
        });
        let text = BASE64_STANDARD.encode(text.to_string());
        let (first, rest) = text.split_at(20);
        let token = Token::parse(&format!("{first}\n{rest}\n")).unwrap();
        assert_eq!(token.fingerprint, fingerprint);
        assert_eq!(
            token.urls,
            ["https://10.0.0.1:8443", "https://[fd00::1]:8443"]
        );
        for wrong in ["", "x", "e30="] {
            assert!(
                matches!(Token::parse(wrong), Err(TrustError::Token)),
                "{wrong}"
            );
        }
    }
}
