//! Join tokens: what a new board needs to know a cluster and be known by it.
//!
//! `SWMTKN-1-<root digest>-<secret>`: the SHA-256 of the root certificate's
//! DER and a 16-byte secret, both in lower-case base 36, padded with zeros to
//! 50 and 25 characters (the form Docker users know). The digest tells the
//! board whom to trust; the secret tells the manager that the board may join,
//! and as what.

use std::fmt;
use std::hint::black_box;

use zeroize::Zeroize;

/// Bytes of the root certificate's SHA-256.
pub const DIGEST_BYTES: usize = 32;
/// Bytes of a token's secret.
pub const SECRET_BYTES: usize = 16;

const PREFIX: &str = "SWMTKN-1-";
const DIGEST_CHARS: usize = 50;
const SECRET_CHARS: usize = 25;
/// Characters of a token: prefix, digest, dash, secret.
const TOKEN_CHARS: usize = PREFIX.len() + DIGEST_CHARS + 1 + SECRET_CHARS;

/// A join token. `Debug` hides the secret; `Display` shows it.
#[derive(Clone)]
pub struct JoinToken {
    root_digest: [u8; DIGEST_BYTES],
    secret: [u8; SECRET_BYTES],
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing was given.
    #[error("the join token is empty: expected SWMTKN-1-…")]
    Empty,
    /// A token of Docker's FIPS mode.
    #[error("the join token is for a FIPS cluster (SWMTKN-2-), which is not supported")]
    Fips,
    /// Something else than a token.
    #[error("the join token does not begin with SWMTKN-1-")]
    Prefix,
    /// The token was cut or has text after it.
    #[error("the join token has {got} characters, expected {TOKEN_CHARS}: was it copied whole?")]
    Length {
        /// Characters found.
        got: usize,
    },
    /// The dash between the two parts is not where it belongs.
    #[error("the join token's two parts are not {DIGEST_CHARS} and {SECRET_CHARS} characters long")]
    Parts,
    /// A character outside `0-9a-z`.
    #[error("the join token has {found:?} at character {at}: only 0-9 and a-z may follow SWMTKN-1-")]
    Character {
        /// The character found.
        found: char,
        /// Its position in the token, from 1.
        at: usize,
    },
    /// A part holds a number larger than its bytes can.
    #[error("the join token's {part} is out of range: was it changed?")]
    Range {
        /// `root digest` or `secret`.
        part: &'static str,
    },
}

impl JoinToken {
    /// A token of the cluster whose root certificate has this SHA-256.
    /// `secret` must come from a cryptographic random source.
    pub fn new(root_digest: [u8; DIGEST_BYTES], secret: [u8; SECRET_BYTES]) -> Self {
        Self { root_digest, secret }
    }

    /// Reads a token; white space around it is ignored.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.starts_with("SWMTKN-2-") {
            return Err(TokenError::Fips);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let got = text.chars().count();
        if got != TOKEN_CHARS {
            return Err(TokenError::Length { got });
        }
        let (digest, secret) = rest.split_once('-').ok_or(TokenError::Parts)?;
        let digest_at = PREFIX.len();
        let secret_at = digest_at + DIGEST_CHARS + 1;
        if digest.chars().count() != DIGEST_CHARS {
            return Err(TokenError::Parts);
        }
        Ok(Self {
            root_digest: from_base36(digest, "root digest", digest_at)?,
            secret: from_base36(secret, "secret", secret_at)?,
        })
    }

    /// SHA-256 of the DER of the cluster's root certificate.
    pub fn root_digest(&self) -> &[u8; DIGEST_BYTES] {
        &self.root_digest
    }

    /// The secret, for storing; never for a log.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// Whether two tokens are the same, in a time that tells nothing about
    /// where their secrets differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.root_digest == other.root_digest && equal_constant_time(&self.secret, &other.secret)
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = to_base36::<DIGEST_CHARS>(&self.root_digest);
        let secret = to_base36::<SECRET_CHARS>(&self.secret);
        f.write_str(PREFIX)?;
        digest.iter().try_for_each(|c| write!(f, "{}", char::from(*c)))?;
        f.write_str("-")?;
        secret.iter().try_for_each(|c| write!(f, "{}", char::from(*c)))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

fn equal_constant_time(a: &[u8; SECRET_BYTES], b: &[u8; SECRET_BYTES]) -> bool {
    let different = a
        .iter()
        .zip(b)
        // `black_box` keeps the compiler from leaving the loop early.
        .fold(0u8, |sum, (x, y)| black_box(sum | (x ^ y)));
    different == 0
}

/// Big-endian bytes as `CHARS` base-36 digits, padded with zeros on the left.
/// `CHARS` must be enough for every value of `bytes`.
fn to_base36<const CHARS: usize>(bytes: &[u8]) -> [u8; CHARS] {
    let mut out = [b'0'; CHARS];
    let mut number = [0u8; DIGEST_BYTES];
    let number = &mut number[..bytes.len()];
    number.copy_from_slice(bytes);
    for digit in out.iter_mut().rev() {
        // Long division by 36; what is left over is the next digit.
        let mut rest = 0u16;
        for byte in number.iter_mut() {
            let part = rest << 8 | u16::from(*byte);
            *byte = low_byte(part / 36);
            rest = part % 36;
        }
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(rest)];
    }
    out
}

/// Base-36 digits as `N` big-endian bytes. `at` is where `text` begins in the
/// token, for the error.
fn from_base36<const N: usize>(text: &str, part: &'static str, at: usize) -> Result<[u8; N], TokenError> {
    let mut out = [0u8; N];
    for (i, found) in text.chars().enumerate() {
        let digit = match found {
            '0'..='9' | 'a'..='z' => found.to_digit(36),
            _ => None,
        };
        let Some(digit) = digit.and_then(|d| u16::try_from(d).ok()) else {
            return Err(TokenError::Character { found, at: at + i + 1 });
        };
        let mut carry = digit;
        for byte in out.iter_mut().rev() {
            let sum = u16::from(*byte) * 36 + carry;
            *byte = low_byte(sum);
            carry = sum >> 8;
        }
        if carry != 0 {
            return Err(TokenError::Range { part });
        }
    }
    Ok(out)
}

fn low_byte(x: u16) -> u8 {
    x.to_be_bytes()[1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ZEROS: &str = "SWMTKN-1-00000000000000000000000000000000000000000000000000-0000000000000000000000000";

    #[track_caller]
    fn check(text: &str, want: TokenError) {
        assert_eq!(JoinToken::parse(text).err(), Some(want), "{text}");
    }

    #[test]
    fn known_values() {
        let zero = JoinToken::new([0; 32], [0; 16]);
        assert_eq!(zero.to_string(), ZEROS);
        // 2^256 - 1 and 2^128 - 1, worked out with Python.
        let full = JoinToken::new([0xff; 32], [0xff; 16]);
        assert_eq!(
            full.to_string(),
            "SWMTKN-1-6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof-f5lxx1zz5pnorynqglhzmsp33"
        );
        assert!(JoinToken::parse(&format!(" {full}\n")).is_ok_and(|t| t.matches(&full)));
    }

    #[test]
    fn faults_are_named() {
        check("", TokenError::Empty);
        check("  \n", TokenError::Empty);
        check("hello", TokenError::Prefix);
        check(&ZEROS.to_lowercase(), TokenError::Prefix);
        check(&ZEROS.replace("-1-", "-2-"), TokenError::Fips);
        check(&ZEROS[..84], TokenError::Length { got: 84 });
        check(&format!("{ZEROS}0"), TokenError::Length { got: 86 });
        check("SWMTKN-1-é", TokenError::Length { got: 10 });
        let shifted = format!("SWMTKN-1-{}-{}", "0".repeat(49), "0".repeat(26));
        check(&shifted, TokenError::Parts);
        check(&ZEROS.replace("-1-0", "-1-A"), TokenError::Character { found: 'A', at: 10 });
        let end = format!("{}é", &ZEROS[..84]);
        check(&end, TokenError::Character { found: 'é', at: 85 });
        let digest = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        check(&digest, TokenError::Range { part: "root digest" });
        let secret = format!("SWMTKN-1-{}-{}", "0".repeat(50), "z".repeat(25));
        check(&secret, TokenError::Range { part: "secret" });
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", JoinToken::new([1; 32], [2; 16])), "JoinToken(…)");
    }

    proptest! {
        #[test]
        fn parse_undoes_display(digest: [u8; 32], secret: [u8; 16]) {
            let token = JoinToken::new(digest, secret);
            let again = JoinToken::parse(&token.to_string()).unwrap();
            prop_assert_eq!(again.root_digest(), &digest);
            prop_assert_eq!(again.secret(), &secret);
            prop_assert!(again.matches(&token));
        }

        #[test]
        fn a_changed_secret_does_not_match(secret: [u8; 16], bit in 0usize..128) {
            let mut other = secret;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!JoinToken::new([0; 32], secret).matches(&JoinToken::new([0; 32], other)));
        }

        #[test]
        fn garbage_never_panics(text in "\\PC*", tail in "[0-9a-zA-Z\\-é]{0,90}") {
            let _ = JoinToken::parse(&text);
            let _ = JoinToken::parse(&format!("SWMTKN-1-{tail}"));
        }
    }
}
