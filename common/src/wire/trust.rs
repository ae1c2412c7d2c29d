//! What the two sides say about certificates, and about which board a key is on.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::token::DIGEST_BYTES;

/// A request for a new certificate, for the key the board is known by: the first message of a connection whose
/// certificate is over (the manager answers and closes it), or the answer to [`ToAgent::Renew`](super::ToAgent::Renew)
/// inside a session, which goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// PKCS#10 request, DER; its subject is ignored, and its key must be the board's own.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
}

/// A new certificate and the roots to trust with it: kept in one step, and used from the next connection on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The board's certificate, DER.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// Root certificates, DER: all that count from now on, at least one, at most
    /// [`ROOTS_MAX`](crate::limits::ROOTS_MAX).
    pub roots: Vec<ByteBuf>,
}

/// What a board shows and trusts: said in `Hello`, and again once something else was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trusts {
    /// SHA-256 of its certificate's DER.
    pub certificate: [u8; DIGEST_BYTES],
    /// SHA-256 of each root certificate that it trusts.
    pub roots: Vec<[u8; DIGEST_BYTES]>,
}

/// Which board an agent runs on, as digests: two boards with one key are clones of one card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardId {
    /// SHA-256 of the board's serial number; none: it has none.
    pub serial: Option<[u8; DIGEST_BYTES]>,
    /// SHA-256 of `/etc/machine-id`; none: there is none.
    pub machine: Option<[u8; DIGEST_BYTES]>,
}
