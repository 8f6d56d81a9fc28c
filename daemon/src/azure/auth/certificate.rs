//! An application's certificate, and the assertions that are signed with its key.
//!
//! The format of an assertion is Microsoft's:
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>

use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

/// How long an assertion is good for, seconds: it is used at once.
const LIFE: i64 = 600;

/// A certificate with its private key.
pub(super) struct Certificate {
    key: RsaKeyPair,
    thumbprint: String,
    /// When it ends, if that can be read.
    pub(super) expires_at: Option<Timestamp>,
}

impl Certificate {
    /// Reads the private key and the certificate that belongs to it; further certificates, such
    /// as those of a chain, are passed over.
    pub(super) fn parse(pem: &str) -> Result<Self, &'static str> {
        if pem.contains("ENCRYPTED") {
            return Err("its private key is encrypted; write it without a passphrase");
        }
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            Ok(_) => return Err("its private key is not an RSA key"),
            Err(_) => return Err("it holds no private key in PEM"),
        };
        let key = key.map_err(|_| "its private key is not an RSA key of 2048 bits or more")?;
        let public = key.public_key().as_ref();
        let mut any = false;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| "it is not good PEM")?;
            any = true;
            // The public key stands in a certificate as it is here.
            if certificate.windows(public.len()).any(|part| part == public) {
                return Ok(Self {
                    thumbprint: base64url(digest::digest(&digest::SHA256, &certificate).as_ref()),
                    expires_at: end_of(&certificate),
                    key,
                });
            }
        }
        Err(if any {
            "its private key belongs to none of its certificates"
        } else {
            "it holds no certificate in PEM"
        })
    }

    /// Returns a signed statement that we are `client`, for `audience`, the token endpoint.
    pub(super) fn assertion(
        &self,
        client: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<String, Unspecified> {
        let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint});
        let now = now.as_second();
        let claims = json!({
            "aud": audience, "iss": client, "sub": client, "jti": unique(),
            "nbf": now, "iat": now, "exp": now + LIFE,
        });
        let part = |value: &serde_json::Value| base64url(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(
            &RSA_PSS_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )?;
        Ok(format!("{signed}.{}", base64url(&signature)))
    }
}

fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns an id that nobody else uses; a GUID in form, as the documentation wants it.
fn unique() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Returns a certificate's `notAfter`. RFC 5280, section 4.1.
fn end_of(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = take(SEQUENCE, certificate)?;
    let (body, _) = take(SEQUENCE, certificate)?;
    let body = take(VERSION, body).map_or(body, |(_, rest)| rest);
    let (_serial, body) = take(INTEGER, body)?;
    let (_algorithm, body) = take(SEQUENCE, body)?;
    let (_issuer, body) = take(SEQUENCE, body)?;
    let (validity, _) = take(SEQUENCE, body)?;
    let (_, not_after) = time(validity)?;
    Some(time(not_after)?.0)
}

fn time(input: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (text, rest) = match take(UTC_TIME, input) {
        // Two digits of a year are of 1950 to 2049.
        Some((text, rest)) => {
            let text = std::str::from_utf8(text).ok()?;
            let century = if text.get(..2)? < "50" { "20" } else { "19" };
            (format!("{century}{text}"), rest)
        }
        None => {
            let (text, rest) = take(GENERALIZED_TIME, input)?;
            (std::str::from_utf8(text).ok()?.to_owned(), rest)
        }
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some((TimeZone::UTC.to_timestamp(time).ok()?, rest))
}

/// Takes one DER value with this tag off the input: its content, and what follows.
fn take(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = input.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(*length & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        (length, rest)
    };
    (*first == tag)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    const PEM: &str = include_str!("test-certificate.pem");
    /// As OpenSSL computes it.
    const THUMBPRINT: &str = "_IdJ_m8i36jdzTyQ1hMeynMkhX4-Cup1mMBPj7nfq28";
    const END: &str = "2126-11-01T08:55:33Z";

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn an_assertion_is_what_microsoft_documents_and_verifies() {
        let certificate = Certificate::parse(PEM).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let assertion = certificate.assertion("c1", "https://a/token", now).unwrap();
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(
            decoded(header),
            json!({"alg": "PS256", "typ": "JWT", "x5t#S256": THUMBPRINT})
        );
        let mut claims = decoded(claims);
        let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(id.as_str().unwrap().len(), 36);
        assert_eq!(
            claims,
            json!({"aud": "https://a/token", "iss": "c1", "sub": "c1", "nbf": 1_800_000_000,
                "iat": 1_800_000_000, "exp": 1_800_000_600})
        );
        let key = certificate.key.public_key().as_ref();
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
            .verify(
                signed.as_bytes(),
                &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .unwrap();
        let other = certificate.assertion("c1", "https://a/token", now).unwrap();
        assert_ne!(assertion, other);
    }

    #[test]
    fn the_end_of_a_certificate_is_read_from_it() {
        let expires_at = Certificate::parse(PEM).unwrap().expires_at.unwrap();
        assert_eq!(expires_at.to_string(), END);
        let utc = b"\x17\x0d270130120000Z rest";
        assert_eq!(time(utc).unwrap().0.to_string(), "2027-01-30T12:00:00Z");
        for end in 0..64 {
            let der: Vec<u8> = CertificateDer::from_pem_slice(PEM.as_bytes())
                .unwrap()
                .iter()
                .copied()
                .take(end)
                .collect();
            assert_eq!(end_of(&der), None);
        }
    }

    #[test]
    fn files_that_are_no_certificate_with_its_key_say_what_they_lack() {
        let (key, certificate) = PEM.split_at(PEM.find("-----BEGIN CERT").unwrap());
        let twice = format!("{certificate}{key}{certificate}");
        assert!(Certificate::parse(&twice).is_ok());
        let foreign = certificate.replace(['5', '6'], "7");
        for (pem, reason) in [
            ("", "no private key"),
            ("s3cret", "no private key"),
            (key, "no certificate"),
            (certificate, "no private key"),
            (&format!("{key}{foreign}"), "belongs to none"),
            (
                &key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"),
                "encrypted",
            ),
            (&key.replace(" PRIVATE", " EC PRIVATE"), "not an RSA key"),
        ] {
            let error = Certificate::parse(pem).err().unwrap();
            assert!(error.contains(reason), "{error} for {reason}");
        }
    }
}
