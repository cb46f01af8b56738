//! This module generates, reads, writes and uses signing keys.
//!
//! There are three kinds: Ed25519, ECDSA P-256 with SHA-256 (signatures in DER), and RSA of 2048 to 8192 bits
//! with PSS and SHA-256. RSA signatures are verified with any salt length, because `hzn` signs with the
//! largest that fits. A key's id is `sha256:` and the hex of the SHA-256 of its SubjectPublicKeyInfo in DER;
//! only one encoding of a key is accepted, so it has one id. ring makes all signatures, in constant time; the
//! `rsa` crate generates and verifies RSA keys.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use armor_base::file::{self, FileError};
use armor_policy::document::text::foreign_encoding;
use armor_policy::escaped_path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rsa::pkcs1::{DecodeRsaPublicKey as _, EncodeRsaPrivateKey as _};
use rsa::pkcs8::der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use rsa::pkcs8::der::{self, Decode as _, Encode as _};
use rsa::pkcs8::spki::AlgorithmIdentifierRef;
use rsa::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef, SubjectPublicKeyInfoRef};
use rsa::signature::Verifier as _;
use rsa::traits::PublicKeyParts as _;
use rustls_pki_types::pem::{self, SectionKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const OID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const OID_EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const OID_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const OID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Accepted sizes of RSA keys in bits.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;
/// Size of generated RSA keys in bits.
const RSA_NEW_BITS: usize = 3072;
/// Maximum size of a key file in bytes.
const MAX_FILE: usize = 64 << 10;

/// A `KeyError` says why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{}: {source}", escaped_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: FileError,
    },
    /// The key's file already exists; a key is never overwritten.
    #[error("{} exists already and is not overwritten: move it away or choose another name", escaped_path(.0))]
    Exists(PathBuf),
    /// The content is not a key of the expected kind.
    #[error("{}: {problem}", escaped_path(path))]
    Content {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        problem: Malformed,
    },
    /// The system's random source or the key's arithmetic failed.
    #[error("no key could be made: {0}")]
    Generate(String),
    /// Signing failed.
    #[error("the key {0} cannot sign")]
    Sign(KeyId),
}

/// A `Malformed` says why a text or bytes are not a usable key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no PEM section.
    #[error("no PEM in it; a key begins with a line \"-----BEGIN ...-----\"")]
    NotPem,
    /// The text is not PEM because of its encoding or a byte order mark.
    #[error("{0}")]
    Encoding(String),
    /// There is more than one PEM section.
    #[error("more than one PEM section in it; put one key into one file")]
    Several,
    /// The key is private where a public one is needed.
    #[error(
        "this is a private key; put its public key here (`hzn-armor keys show` prints it) and take the private one away"
    )]
    Private,
    /// The key is public where a private one is needed.
    #[error("this is a public key; signing needs the private one")]
    Public,
    /// The private key is encrypted.
    #[error("this private key is encrypted; decrypt it first, for instance with `openssl pkey -in FILE`")]
    Encrypted,
    /// The PEM section is a certificate.
    #[error("this is a certificate; take its key with `openssl x509 -in FILE -pubkey -noout`")]
    Certificate,
    /// The PEM section is something else.
    #[error("neither a public key (PKIX) nor a private key (PKCS#8, PKCS#1)")]
    Other,
    /// The bytes are not the canonical DER encoding of a public key.
    #[error("the key's DER encoding is damaged")]
    Der,
    /// The algorithm or size is not supported.
    #[error("unsupported kind of key: {0}; Ed25519, ECDSA P-256 and RSA of 2048 to 8192 bits are supported")]
    Unsupported(String),
}

/// A `KeyId` is `sha256:` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    fn of_spki(der: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(Sha256::digest(der))))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a key id: sha256: and 64 lower-case hex digits"))
        }
    }
}

impl std::str::FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A `KeyType` is a kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// RSA-PSS with SHA-256; what `hzn` uses.
    Rsa,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "ECDSA P-256",
            Self::Rsa => "RSA",
        })
    }
}

/// A `PublicKey` verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyType,
    spki: Vec<u8>,
    id: KeyId,
}

impl PublicKey {
    /// Parses SubjectPublicKeyInfo DER.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Malformed> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| Malformed::Der)?;
        if info.to_der().ok().as_deref() != Some(der) {
            return Err(Malformed::Der);
        }
        let bits = info.subject_public_key.as_bytes().ok_or(Malformed::Der)?;
        let kind = match info.algorithm.oid {
            OID_ED25519 if info.algorithm.parameters.is_none() && bits.len() == 32 => KeyType::Ed25519,
            OID_ED25519 => return Err(Malformed::Der),
            OID_EC => {
                let curve = info.algorithm.parameters_oid().map_err(|_| Malformed::Der)?;
                if curve != OID_P256 {
                    return Err(Malformed::Unsupported(format!("elliptic curve {curve}")));
                }
                if bits.len() != 65 || bits[0] != 4 {
                    return Err(Malformed::Unsupported("compressed P-256 point".to_owned()));
                }
                KeyType::P256
            }
            OID_RSA => {
                if !info.algorithm.parameters.is_some_and(|p| p.is_null()) {
                    return Err(Malformed::Der);
                }
                let key = rsa::PublicKey::from_pkcs1_der(bits).map_err(|_| Malformed::Der)?;
                let size = key.n().bit_width();
                if !RSA_BITS.contains(&size) {
                    return Err(Malformed::Unsupported(format!("RSA of {size} bits")));
                }
                KeyType::Rsa
            }
            other => return Err(Malformed::Unsupported(format!("algorithm {other}"))),
        };
        Ok(Self { kind, spki: der.to_vec(), id: KeyId::of_spki(der) })
    }

    /// Parses one PEM section `PUBLIC KEY`; the error names any other content.
    pub fn from_pem(text: &[u8]) -> Result<Self, Malformed> {
        match one_section(text)? {
            (SectionKind::PublicKey, der) => Self::from_spki_der(&der),
            (SectionKind::Certificate, _) => Err(Malformed::Certificate),
            (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                Err(Malformed::Private)
            }
            _ => Err(Malformed::Other),
        }
    }

    /// Reads a PEM file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&read(path)?).map_err(|problem| KeyError::Content { path: path.to_owned(), problem })
    }

    /// Writes the key as PEM to a new file, durably. An existing file is never touched.
    ///
    /// # Errors
    /// Fails with [`KeyError::Exists`] or [`KeyError::File`]; no new file is left behind.
    pub fn save_new(&self, path: &Path) -> Result<(), KeyError> {
        write_new(path, 0o666, &self.to_pem())
    }

    /// Returns the key as PEM (PKIX).
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem("PUBLIC KEY", &self.spki)
    }

    /// Returns the key's SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns the key's kind.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.kind
    }

    /// Returns whether this key made `signature` over `message`; for RSA-PSS, with a salt of any length.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(info) = SubjectPublicKeyInfoRef::from_der(&self.spki) else { return false };
        let Some(bits) = info.subject_public_key.as_bytes() else { return false };
        match self.kind {
            KeyType::Ed25519 => UnparsedPublicKey::new(&ED25519, bits).verify(message, signature).is_ok(),
            KeyType::P256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bits).verify(message, signature).is_ok()
            }
            KeyType::Rsa => {
                let Ok(key) = rsa::PublicKey::from_pkcs1_der(bits) else { return false };
                let Ok(signature) = rsa::pss::Signature::try_from(signature) else { return false };
                rsa::pss::VerifyingKey::<rsa::sha2::Sha256>::new_with_auto_salt_len(key)
                    .verify(message, &signature)
                    .is_ok()
            }
        }
    }
}

/// A `PrivateKey` makes signatures.
pub struct PrivateKey {
    pair: Pair,
    pem: String,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("id", &self.public.id).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Generates a new key. An RSA key, of 3072 bits, takes seconds.
    pub fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let failed = |e: &dyn fmt::Display| KeyError::Generate(e.to_string());
        let random = SystemRandom::new();
        let pem = match kind {
            KeyType::Ed25519 => {
                let mut seed = [0; 32];
                random.fill(&mut seed).map_err(|e| failed(&e))?;
                // This is PKCS#8 version 1: not every OpenSSL reads version 2, which ring writes.
                to_pem("PRIVATE KEY", &ed25519_pkcs8(&seed).map_err(|e| failed(&e))?)
            }
            KeyType::P256 => {
                let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                    .map_err(|e| failed(&e))?;
                to_pem("PRIVATE KEY", der.as_ref())
            }
            KeyType::Rsa => {
                let key =
                    rsa::PrivateKey::new(&mut rand::rngs::SysRng, RSA_NEW_BITS).map_err(|e| failed(&e))?;
                // `hzn` reads only PKCS#1.
                to_pem("RSA PRIVATE KEY", key.to_pkcs1_der().map_err(|e| failed(&e))?.as_bytes())
            }
        };
        Self::from_pem(pem.as_bytes()).map_err(|e| failed(&e))
    }

    /// Parses one PEM section: PKCS#8, or PKCS#1 for RSA.
    pub fn from_pem(text: &[u8]) -> Result<Self, Malformed> {
        let (kind, der) = one_section(text)?;
        let rejected = |e: ring::error::KeyRejected| Malformed::Unsupported(e.to_string());
        let pair = match kind {
            SectionKind::RsaPrivateKey => Pair::Rsa(Box::new(RsaKeyPair::from_der(&der).map_err(rejected)?)),
            SectionKind::PrivateKey => {
                let oid = PrivateKeyInfoRef::from_der(&der).map_err(|_| Malformed::Der)?.algorithm.oid;
                match oid {
                    OID_ED25519 => {
                        Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(rejected)?)
                    }
                    OID_EC => Pair::P256(
                        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new())
                            .map_err(rejected)?,
                    ),
                    OID_RSA => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der).map_err(rejected)?)),
                    other => return Err(Malformed::Unsupported(format!("algorithm {other}"))),
                }
            }
            SectionKind::EcPrivateKey => {
                return Err(Malformed::Unsupported(
                    "EC PRIVATE KEY (`openssl pkcs8 -topk8 -nocrypt` converts it)".to_owned(),
                ));
            }
            SectionKind::PublicKey => return Err(Malformed::Public),
            SectionKind::Certificate => return Err(Malformed::Certificate),
            _ => return Err(Malformed::Other),
        };
        let spki = match &pair {
            Pair::Ed25519(pair) => spki(OID_ED25519, None, pair.public_key().as_ref())?,
            Pair::P256(pair) => spki(OID_EC, Some((&OID_P256).into()), pair.public_key().as_ref())?,
            Pair::Rsa(pair) => rsa_spki(pair.public_key().as_ref())?,
        };
        let label = if kind == SectionKind::RsaPrivateKey { "RSA PRIVATE KEY" } else { "PRIVATE KEY" };
        Ok(Self { pair, pem: to_pem(label, &der), public: PublicKey::from_spki_der(&spki)? })
    }

    /// Reads a PEM file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&read(path)?).map_err(|problem| KeyError::Content { path: path.to_owned(), problem })
    }

    /// Writes the key as PEM to a new file that only its owner can read, durably. An existing file is never
    /// touched.
    pub fn save_new(&self, path: &Path) -> Result<(), KeyError> {
        write_new(path, 0o600, &self.pem)
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`; RSA-PSS uses a salt of 32 bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Sign(self.public.id.clone());
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

/// Returns an Ed25519 key in PKCS#8 version 1 (RFC 8410, section 7).
fn ed25519_pkcs8(seed: &[u8; 32]) -> der::Result<Vec<u8>> {
    let algorithm = AlgorithmIdentifierRef { oid: OID_ED25519, parameters: None };
    let key = OctetStringRef::new(seed)?.to_der()?;
    PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(&key)?).to_der()
}

/// Returns the SubjectPublicKeyInfo of a public key (RFC 5480 for curves, RFC 8410 for Ed25519).
fn spki(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Vec<u8>, Malformed> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let info = |key| SubjectPublicKeyInfoRef { algorithm, subject_public_key: key }.to_der();
    BitStringRef::from_bytes(key).and_then(info).map_err(|_| Malformed::Der)
}

/// Returns the SubjectPublicKeyInfo of a PKCS#1 public key.
fn rsa_spki(pkcs1: &[u8]) -> Result<Vec<u8>, Malformed> {
    use rsa::pkcs8::EncodePublicKey as _;
    let key = rsa::PublicKey::from_pkcs1_der(pkcs1).map_err(|_| Malformed::Der)?;
    Ok(key.to_public_key_der().map_err(|_| Malformed::Der)?.into_vec())
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    file::read(path, MAX_FILE).map_err(|source| KeyError::File { path: path.to_owned(), source })
}

/// Writes a new file durably; removes it again if writing fails.
fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let problem = |error: std::io::Error| KeyError::File { path: path.to_owned(), source: error.into() };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            KeyError::Exists(path.to_owned())
        } else {
            problem(e)
        }
    })?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| File::open(parent)?.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        problem(error)
    })
}

fn one_section(text: &[u8]) -> Result<(SectionKind, Vec<u8>), Malformed> {
    if text.windows(21).any(|w| w == b"ENCRYPTED PRIVATE KEY") {
        return Err(Malformed::Encrypted);
    }
    let mut rest = text;
    let first = pem::from_buf(&mut rest).map_err(|_| Malformed::NotPem)?;
    let Some(first) = first else {
        if let Some(problem) = foreign_encoding(text) {
            return Err(Malformed::Encoding(problem));
        }
        let other = text.windows(11).any(|w| w == b"-----BEGIN ");
        return Err(if other { Malformed::Other } else { Malformed::NotPem });
    };
    match pem::from_buf(&mut rest) {
        Ok(None) => Ok(first),
        _ => Err(Malformed::Several),
    }
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_of_each_kind_sign_and_verify_and_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [KeyType::Ed25519, KeyType::P256, KeyType::Rsa] {
            let path = dir.path().join(kind.to_string());
            let key = PrivateKey::generate(kind).unwrap();
            key.save_new(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(matches!(key.save_new(&path), Err(KeyError::Exists(_))));
            let again = PrivateKey::load(&path).unwrap();
            assert_eq!(again.public(), key.public());
            let public = PublicKey::from_pem(key.public().to_pem().as_bytes()).unwrap();
            assert_eq!((public.key_type(), public.id()), (kind, key.public().id()));
            let signature = again.sign(b"message").unwrap();
            assert!(public.verifies(b"message", &signature));
            assert!(!public.verifies(b"massage", &signature));
            assert!(!public.verifies(b"message", &signature[1..]));
            assert!(!public.verifies(b"message", b""));
            let first_line = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
            assert_eq!(first_line.contains("RSA"), kind == KeyType::Rsa);
        }
    }

    #[test]
    fn what_is_not_a_public_key_is_named() {
        let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
        let public = key.public().to_pem();
        assert_eq!(PublicKey::from_pem(key.pem.as_bytes()), Err(Malformed::Private));
        assert_eq!(PublicKey::from_pem(b"hello"), Err(Malformed::NotPem));
        assert_eq!(PublicKey::from_pem(format!("{public}{public}").as_bytes()), Err(Malformed::Several));
        assert_eq!(PublicKey::from_pem(to_pem("CERTIFICATE", b"x").as_bytes()), Err(Malformed::Certificate));
        assert_eq!(PublicKey::from_pem(to_pem("PGP", b"x").as_bytes()), Err(Malformed::Other));
        assert_eq!(
            PublicKey::from_pem(to_pem("ENCRYPTED PRIVATE KEY", b"x").as_bytes()),
            Err(Malformed::Encrypted)
        );
        assert_eq!(PublicKey::from_pem(to_pem("PUBLIC KEY", b"x").as_bytes()), Err(Malformed::Der));
        assert_eq!(PrivateKey::from_pem(public.as_bytes()).unwrap_err(), Malformed::Public);
        // Bytes after the key would give one key several ids.
        let longer = [key.public().spki_der(), &[0]].concat();
        assert_eq!(PublicKey::from_spki_der(&longer), Err(Malformed::Der));
    }

    #[test]
    fn key_ids_have_one_spelling() {
        assert!(format!("sha256:{}", "a1".repeat(32)).parse::<KeyId>().is_ok());
        for bad in ["", "sha256:", &format!("sha256:{}", "A1".repeat(32)), &"a1".repeat(32)] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
