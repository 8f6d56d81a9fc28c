//! What the protocol encrypts and signs: RS256 assertions, session keys wrapped with RSA-OAEP over SHA-1, messages in
//! AES-256-CBC with PKCS#7 padding.

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents},
    signature::RSA_PKCS1_2048_8192_SHA256,
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// The smallest modulus the agent's signing code accepts.
const LEAST_MODULUS: usize = 256;

/// An agent's public key as it registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl PublicKey {
    /// Reads the two base64 members; says in words what is wrong with them.
    pub(super) fn parse(modulus: &str, exponent: &str) -> Result<Self, &'static str> {
        let modulus = STANDARD
            .decode(modulus)
            .map_err(|_| "the modulus is not base64")?;
        let exponent = STANDARD
            .decode(exponent)
            .map_err(|_| "the exponent is not base64")?;
        if modulus.len() < LEAST_MODULUS || modulus.first() == Some(&0) {
            return Err("the modulus has fewer than 2048 bits");
        }
        if exponent.is_empty() {
            return Err("the exponent is empty");
        }
        Ok(Self { modulus, exponent })
    }

    pub(super) fn modulus_base64(&self) -> String {
        STANDARD.encode(&self.modulus)
    }

    pub(super) fn exponent_base64(&self) -> String {
        STANDARD.encode(&self.exponent)
    }

    /// Tells whether the signature is RS256 over the message under this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.components()
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok()
    }

    /// Wraps a session key; `None` when the key is no usable RSA key.
    pub(super) fn wrap(&self, key: &[u8]) -> Option<Vec<u8>> {
        let public: PublicEncryptingKey = self.components().try_into().ok()?;
        let oaep = OaepPublicEncryptingKey::new(public).ok()?;
        let mut wrapped = vec![0; oaep.ciphertext_size()];
        let written = oaep
            .encrypt(&OAEP_SHA1_MGF1SHA1, key, &mut wrapped, None)
            .ok()?
            .len();
        wrapped.truncate(written);
        Some(wrapped)
    }

    fn components(&self) -> PublicKeyComponents<&[u8]> {
        PublicKeyComponents {
            n: &self.modulus,
            e: &self.exponent,
        }
    }
}

/// Encrypts a message body under a fresh initialisation vector; returns both in base64, the vector first.
pub(super) fn seal(key: &[u8; 32], plain: &str) -> Option<(String, String)> {
    let key = UnboundCipherKey::new(&AES_256, key).ok()?;
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
    let mut body = plain.as_bytes().to_vec();
    let DecryptionContext::Iv128(iv) = key.encrypt(&mut body).ok()? else {
        return None;
    };
    Some((STANDARD.encode(iv.as_ref()), STANDARD.encode(body)))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
        iv::FixedLength,
    };
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };

    use super::{PublicKey, seal};
    use crate::azure_sim::vectors;

    #[test]
    fn the_reference_assertion_verifies_and_a_changed_one_does_not() {
        let (message, signature) = vectors::JWT.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = PublicKey::parse(vectors::MODULUS, "AQAB").unwrap();
        assert!(key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(b"something else", &signature));
    }

    #[test]
    fn unusable_keys_are_refused() {
        assert!(PublicKey::parse("not base64!", "AQAB").is_err());
        assert!(PublicKey::parse("AQAB", "AQAB").is_err());
        assert!(PublicKey::parse(vectors::MODULUS, "").is_err());
    }

    #[test]
    fn a_wrapped_session_key_fills_the_modulus() {
        let key = PublicKey::parse(vectors::MODULUS, "AQAB").unwrap();
        assert_eq!(key.wrap(&[7; 32]).unwrap().len(), 256);
    }

    #[test]
    fn a_sealed_body_opens_with_its_vector() {
        let (iv, body) = seal(&[7; 32], "{\"a\":1}").unwrap();
        let iv: [u8; 16] = STANDARD.decode(iv).unwrap().try_into().unwrap();
        let key = UnboundCipherKey::new(&AES_256, &[7; 32]).unwrap();
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).unwrap();
        let mut body = STANDARD.decode(body).unwrap();
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        assert_eq!(key.decrypt(&mut body, context).unwrap(), b"{\"a\":1}");
    }
}
