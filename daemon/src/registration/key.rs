//! The RSA key of one agent.

use std::fmt::{Debug, Formatter};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use pkcs1::der::asn1::{AnyRef, OctetStringRef};
use pkcs1::der::{self, Decode, Reader, SliceReader};
use pkcs1::{RsaPrivateKeyRef, UintRef};

use crate::azure::PublicKey;

/// The agent itself makes keys of 2048 bits, and accepts no smaller ones.
const MODULUS: usize = 256;
const PRIME: usize = MODULUS / 2;

/// Why no key could be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library has no entropy or no memory.
    #[error("cannot make an RSA key")]
    Generate(#[source] Unspecified),
    /// The library's own output cannot be read.
    #[error("cannot read the RSA key that was just made")]
    Parse(#[source] der::Error),
    /// A part is larger than a key of this size can have.
    #[error("the RSA key that was just made is not one of 2048 bits")]
    Size,
}

/// An RSA key: big-endian parts, left-padded to the fixed widths that .NET insists on.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentKey {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
    pub(super) d: Vec<u8>,
    pub(super) p: Vec<u8>,
    pub(super) q: Vec<u8>,
    pub(super) dp: Vec<u8>,
    pub(super) dq: Vec<u8>,
    pub(super) inverse_q: Vec<u8>,
}

impl AgentKey {
    /// Makes a key. Takes about 70 ms of CPU time: not on a runtime thread.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(KeyError::Generate)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(KeyError::Generate)?;
        let pkcs1 = inner(pkcs8.as_ref()).map_err(KeyError::Parse)?;
        let key = RsaPrivateKeyRef::from_der(pkcs1).map_err(KeyError::Parse)?;
        Self::of_parts(&key)
    }

    /// Returns the half that Azure is told.
    pub fn public(&self) -> PublicKey {
        PublicKey {
            modulus: self.modulus.clone(),
            exponent: self.exponent.clone(),
        }
    }

    fn of_parts(key: &RsaPrivateKeyRef<'_>) -> Result<Self, KeyError> {
        Ok(Self {
            modulus: padded(key.modulus, MODULUS)?,
            exponent: key.public_exponent.as_bytes().to_vec(),
            d: padded(key.private_exponent, MODULUS)?,
            p: padded(key.prime1, PRIME)?,
            q: padded(key.prime2, PRIME)?,
            dp: padded(key.exponent1, PRIME)?,
            dq: padded(key.exponent2, PRIME)?,
            inverse_q: padded(key.coefficient, PRIME)?,
        })
    }
}

impl Debug for AgentKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey(***)")
    }
}

/// Takes the PKCS#1 key out of its PKCS#8 wrapping: version, algorithm, key.
fn inner(pkcs8: &[u8]) -> der::Result<&[u8]> {
    let key: &OctetStringRef = SliceReader::new(pkcs8)?.sequence(|fields| {
        fields.decode::<u8>()?;
        fields.decode::<AnyRef<'_>>()?;
        fields.decode()
    })?;
    Ok(key.as_bytes())
}

/// DER leaves leading zero bytes out.
fn padded(part: UintRef<'_>, width: usize) -> Result<Vec<u8>, KeyError> {
    let bytes = part.as_bytes();
    let missing = width.checked_sub(bytes.len()).ok_or(KeyError::Size)?;
    let mut padded = vec![0; missing];
    padded.extend_from_slice(bytes);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_parts_have_their_fixed_widths() {
        let key = AgentKey::generate().unwrap();
        for part in [&key.modulus, &key.d] {
            assert_eq!(part.len(), 256);
        }
        for part in [&key.p, &key.q, &key.dp, &key.dq, &key.inverse_q] {
            assert_eq!(part.len(), 128);
        }
        assert_eq!(key.exponent, [1, 0, 1]);
        assert_eq!(key.public().modulus, key.modulus);
    }

    #[test]
    fn short_parts_are_padded_on_the_left_and_long_ones_refused() {
        let part = UintRef::new(&[7, 8]).unwrap();
        assert_eq!(padded(part, 4).unwrap(), [0, 0, 7, 8]);
        assert!(matches!(padded(part, 1), Err(KeyError::Size)));
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(
            format!("{:?}", AgentKey::generate().unwrap()),
            "AgentKey(***)"
        );
    }
}
