//! What the protocol encrypts and signs: RS256 assertions, session keys wrapped with RSA-OAEP over SHA-1, messages in
//! AES-256-CBC with PKCS#7 padding.

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    digest::{SHA256, digest},
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents},
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

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

/// A certificate of an application.
pub(super) struct Certificate {
    der: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate in a PEM text.
    pub(super) fn parse(pem: &str) -> Option<Self> {
        let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        let base64: String = body.split_whitespace().collect();
        let der = STANDARD.decode(base64).ok()?;
        Some(Self { der })
    }

    /// Returns what `x5t#S256` says of it.
    pub(super) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der))
    }

    /// Tells whether the base64url signature is by its key.
    pub(super) fn verifies(&self, algorithm: &str, message: &str, signature: &str) -> bool {
        let algorithm = match algorithm {
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return false,
        };
        let (Some(key), Ok(signature)) = (self.key(), URL_SAFE_NO_PAD.decode(signature)) else {
            return false;
        };
        UnparsedPublicKey::new(algorithm, key)
            .verify(message.as_bytes(), &signature)
            .is_ok()
    }

    /// Returns `subjectPublicKeyInfo`, which has six values before it in the body of the certificate.
    fn key(&self) -> Option<&[u8]> {
        let (certificate, _) = value(&self.der)?;
        let (mut body, _) = value(certificate)?;
        for _ in 0..6 {
            (_, body) = value(body)?;
        }
        let (_, after) = value(body)?;
        body.get(..body.len() - after.len())
    }
}

/// Splits DER into the content of its first value and what follows that.
fn value(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = der.get(1..)?.split_first()?;
    let long = usize::from(length.checked_sub(0x80).unwrap_or_default());
    let (bytes, rest) = rest.split_at_checked(long)?;
    let length = match long {
        0 => usize::from(*length),
        1..=4 => bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)),
        _ => return None,
    };
    rest.split_at_checked(length)
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

    use super::{Certificate, PublicKey, seal};
    use crate::azure_sim::vectors;

    #[test]
    fn the_reference_assertion_verifies_and_a_changed_one_does_not() {
        let (message, signature) = vectors::JWT.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = PublicKey::parse(vectors::MODULUS, "AQAB").unwrap();
        assert!(key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(b"something else", &signature));
    }

    const CERTIFICATE: &str = include_str!("test-certificate.pem");
    /// Of `header.claims`, by OpenSSL with the certificate's key.
    const PS256: &str = "nzVjo77ETxLPUYIyvqesZN2kFSBtHRxetFLYinC-m-i3j4roE28534u15-mvux-egebPY5iv2F3oJ1dHD3I7-0sigpClFthXG920pmXu07PgJrtyavWAwtgf2_2Y6dyemncpnNJ3NYZxS9XBGQoeyQiAVfjRpPUw82JBLXY6L75oHMAzWxDi0gb5L79uHGwBr59F7dit77SVysJhcEuu_VpJeGhhJCDuhr_auXufvYbz_rLKuiBCRwOSaVOHouaaaSLGDDVBbJOqI18w3Ab5Fax9hI5wy8ms3GFh_NjwN5BM08a_25-gWHAgV1EVLHFM48IF54kyUdRVbfDss5Sh_Q";
    const RS256: &str = "Zba7c5EnCued401hyhZ6FgJjKpWkj8EA1sYax64aZYDPKdA9pd9OLQ6wUm9p3TcR9ntigSgUYQRjbcdQSp35RDQpd4hUi03Trx6RVjLiS4see6-9puvi7mFZTvXshYRLBYD3EystVmp77NWJ4hQeISlKOHtllNerP9_Efpsj74w0zWTRYjjAbrT6tMSc3ZUYkcCPusdMNB8yUnO29I8BgURO2a8ZhMWbSOntqemhEnlhTtugaBREra02apJ9ekXFNkN-JX2nGiwj6573_pqR9oQnMC-eOXmuTSU3Z_FYg3Zu1jN0k_LAPm8c__AsLzyWfZ-G_0UfFtFvT5MfH62diA";

    #[test]
    fn signatures_of_openssl_verify_under_the_certificate_and_no_others() {
        let certificate = Certificate::parse(CERTIFICATE).unwrap();
        let verifies =
            |algorithm, message, signature| certificate.verifies(algorithm, message, signature);
        assert!(verifies("PS256", "header.claims", PS256));
        assert!(verifies("RS256", "header.claims", RS256));
        assert!(!verifies("RS256", "header.claims", PS256));
        assert!(!verifies("PS256", "header.claims", RS256));
        assert!(!verifies("none", "header.claims", PS256));
        assert!(!verifies("PS256", "header.other", PS256));
        assert!(!verifies("PS256", "header.claims", ""));
        assert!(Certificate::parse("no certificate").is_none());
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
