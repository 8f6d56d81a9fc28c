//! The agent's RSA key and the session's AES key: signing the assertion, opening messages.
//!
//! Reading is as strict as the .NET serialiser of the real agent: exact member names, standard base64,
//! fixed widths.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use pkcs1::der::Encode;
use pkcs1::der::asn1::UintRef;
use serde::{Deserialize, Serialize};

/// Smallest modulus the real agent signs with.
const MIN_MODULUS_BYTES: usize = 256;

/// What is wrong with a key or with something it was to open.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file is not what the agent can read")]
    Json(#[source] serde_json::Error),
    #[error("member {0} of the key file is not base64")]
    Base64(&'static str),
    #[error("member {member} of the key file has {found} bytes instead of {wanted}")]
    Width {
        member: &'static str,
        found: usize,
        wanted: usize,
    },
    #[error("the parts of the key do not make an RSA key of at least 2048 bits")]
    Rejected,
    #[error("the key cannot sign")]
    Sign,
    #[error("the session's encryption key cannot be opened with the agent's key")]
    SessionKey,
    #[error("the message cannot be decrypted")]
    Message,
}

/// `.credentials_rsaparams`.
#[derive(Deserialize)]
struct Params {
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

/// The private key made for this one registration.
pub struct AgentKey {
    signer: KeyPair,
    opener: OaepPrivateDecryptingKey,
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(***)")
    }
}

/// Claims of the assertion, in the order the real client writes them.
#[derive(Debug, Serialize)]
pub struct Claims<'a> {
    pub sub: &'a str,
    pub jti: &'a str,
    pub iss: &'a str,
    pub aud: &'a str,
    pub nbf: i64,
    pub exp: i64,
}

impl AgentKey {
    /// Reads the text of `.credentials_rsaparams`, without its byte order mark.
    ///
    /// # Errors
    /// Says which member is missing, badly encoded or of the wrong width.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let params: Params = serde_json::from_str(text).map_err(KeyError::Json)?;
        let modulus = decode("modulus", &params.modulus)?;
        if modulus.len() < MIN_MODULUS_BYTES {
            return Err(KeyError::Rejected);
        }
        let half = modulus.len() / 2;
        let exponent = decode("exponent", &params.exponent)?;
        let d = decode_width("d", &params.d, modulus.len())?;
        let p = decode_width("p", &params.p, half)?;
        let q = decode_width("q", &params.q, half)?;
        let dp = decode_width("dp", &params.dp, half)?;
        let dq = decode_width("dq", &params.dq, half)?;
        let inverse_q = decode_width("inverseQ", &params.inverse_q, half)?;

        let uint = |bytes| UintRef::new(bytes).map_err(|_| KeyError::Rejected);
        let der = pkcs1::RsaPrivateKeyRef {
            modulus: uint(&modulus)?,
            public_exponent: uint(&exponent)?,
            private_exponent: uint(&d)?,
            prime1: uint(&p)?,
            prime2: uint(&q)?,
            exponent1: uint(&dp)?,
            exponent2: uint(&dq)?,
            coefficient: uint(&inverse_q)?,
            other_prime_infos: None,
        }
        .to_der()
        .map_err(|_| KeyError::Rejected)?;

        let signer = KeyPair::from_der(&der).map_err(|_| KeyError::Rejected)?;
        let pkcs8: Pkcs8V1Der<'_> = signer.as_der().map_err(|_| KeyError::Rejected)?;
        let opener = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref())
            .map_err(|_| KeyError::Rejected)
            .and_then(|key| OaepPrivateDecryptingKey::new(key).map_err(|_| KeyError::Rejected))?;
        Ok(Self { signer, opener })
    }

    /// Returns the signed assertion in compact form.
    ///
    /// # Errors
    /// Fails only if the cryptographic library does.
    pub fn assertion(&self, claims: &Claims<'_>) -> Result<String, KeyError> {
        let payload = serde_json::to_vec(claims).map_err(|_| KeyError::Sign)?;
        let mut compact = format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"RS256"}"#),
            BASE64_URL_SAFE_NO_PAD.encode(payload)
        );
        let mut signature = vec![0; self.signer.public_modulus_len()];
        self.signer
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                compact.as_bytes(),
                &mut signature,
            )
            .map_err(|_| KeyError::Sign)?;
        compact.push('.');
        compact.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        Ok(compact)
    }

    /// Opens the AES key a session came with.
    ///
    /// # Errors
    /// Fails when it was wrapped for another key or in another way than OAEP with SHA-1.
    pub fn open_session_key(&self, wrapped: &[u8]) -> Result<SessionKey, KeyError> {
        let mut plain = vec![0; self.opener.min_output_size()];
        let key = self
            .opener
            .decrypt(&OAEP_SHA1_MGF1SHA1, wrapped, &mut plain, None)
            .map_err(|_| KeyError::SessionKey)?;
        Ok(SessionKey(key.to_vec()))
    }
}

/// The AES key of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub Vec<u8>);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(***)")
    }
}

impl SessionKey {
    /// Decrypts a message body (AES-CBC, PKCS#7) into its text.
    ///
    /// # Errors
    /// Fails on another key, a damaged body, or text that is not UTF-8.
    pub fn decrypt(&self, iv: &[u8], body: &[u8]) -> Result<String, KeyError> {
        let algorithm = if self.0.len() == 16 {
            &AES_128
        } else {
            &AES_256
        };
        let iv: [u8; 16] = iv.try_into().map_err(|_| KeyError::Message)?;
        let mut buffer = body.to_vec();
        let plain = UnboundCipherKey::new(algorithm, &self.0)
            .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
            .and_then(|key| {
                key.decrypt(&mut buffer, DecryptionContext::Iv128(FixedLength::from(iv)))
                    .map(|plain| plain.to_vec())
            })
            .map_err(|_| KeyError::Message)?;
        String::from_utf8(plain).map_err(|_| KeyError::Message)
    }
}

fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, KeyError> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| KeyError::Base64(member))
}

fn decode_width(member: &'static str, text: &str, wanted: usize) -> Result<Vec<u8>, KeyError> {
    let bytes = decode(member, text)?;
    if bytes.len() == wanted {
        Ok(bytes)
    } else {
        Err(KeyError::Width {
            member,
            found: bytes.len(),
            wanted,
        })
    }
}

#[cfg(test)]
mod tests;
